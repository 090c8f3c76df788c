//! What every front needs: configuration, capabilities, the backend, the carrier, and ways to answer.

use super::{Front, RESOURCE_PROBLEM};
use crate::carrier::nft::NftCarrier;
use crate::config::{CarrierKind, Config};
use crate::error::{Error, Refusal, reason};
use crate::exit::ExitCode;
use crate::iptables::dialect::{Dialect, Variant};
use crate::journal::{self, Rewrite};
use crate::nft::Connection;
use crate::nft::text::Told;
use crate::plan;
use crate::probe::{Backend, Snapshot, Standing, Tool};
use crate::sys::lock::{LockFile, XtablesLock};
use crate::sys::{exec, privilege};
use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What we call ourselves where no iptables is installed that we could take the version of.
const FALLBACK_VERSION: (u16, u16, u16) = (1, 8, 13);

/// How long the backend is waited for where only its words are wanted.
const PATIENCE: Duration = Duration::from_secs(5);

/// One call of a front.
pub struct Context {
    /// Which front.
    pub front: Front,
    /// The name of the call, as far as the backend knows it: it goes by it, and some messages bear it.
    pub argv0: String,
    /// Its arguments, without argv[0].
    pub args: Vec<OsString>,
    /// The administrator's word.
    pub config: Config,
    /// What this machine can do.
    pub snapshot: Snapshot,
    /// What was read of the standard input, which nobody can read again.
    pub(super) input: RefCell<Option<Rc<Vec<u8>>>>,
    /// Open since the plan asked the kernel something.
    pub(super) connection: RefCell<Option<Connection>>,
    /// Keeps others from taking a table over while the backend is given something to do with it.
    pub(super) guard: RefCell<Option<XtablesLock>>,
}

impl Context {
    /// With the configuration and the capabilities.
    pub fn new(front: Front, called: &str, args: Vec<OsString>, standing: Standing) -> Self {
        let argv0 = front.argv0(called).to_owned();
        let Standing { config, error, snapshot } = standing;
        let context = Self {
            front,
            argv0,
            args,
            config,
            snapshot,
            input: RefCell::default(),
            connection: RefCell::default(),
            guard: RefCell::default(),
        };
        if let Some(error) = error {
            context.tell("", "the defaults are used", Err(error.to_string()));
        }
        context
    }

    /// How the backend speaks.
    pub fn dialect(&self) -> Dialect {
        let (variant, version) = match &self.snapshot.backend {
            Some(backend) => (backend.variant, backend.version),
            None => (Variant::Nft, FALLBACK_VERSION),
        };
        Dialect { family: self.front.family, variant, version }
    }

    /// Our own table.
    pub fn carrier(&self, table: &str) -> Result<NftCarrier, Error> {
        let carrier = match self.connection.borrow_mut().take() {
            Some(connection) => NftCarrier::over(connection, self.front.family, table, self.dialect()),
            None => NftCarrier::open(self.front.family, table, self.dialect())?,
        };
        Ok(carrier.optimizing(self.config.optimize))
    }

    pub(super) fn backend_program(&self, tool: Tool) -> Option<(&Path, &str)> {
        let front = Front { tool, ..self.front };
        let program = self.snapshot.backend.as_ref().and_then(|backend: &Backend| backend.program(front.family, tool));
        let name = if tool == self.front.tool { self.argv0.as_str() } else { front.name() };
        program.map(|program| (program, name))
    }

    fn backend_command(&self, tool: Tool, args: &[OsString]) -> Option<Command> {
        self.backend_program(tool).map(|(program, name)| exec::command(program, name, args))
    }

    /// Whether there is a backend that this call could be passed on to.
    pub fn has_backend(&self) -> bool {
        self.backend_program(self.front.tool).is_some()
    }

    /// Becomes the backend. Comes back only when that fails.
    pub fn pass_through(&self) -> ExitCode {
        let Some((program, name)) = self.backend_program(self.front.tool) else {
            return self.fail(&self.no_backend());
        };
        match exec::replace(program, name, &self.args) {
            Ok(never) => match never {},
            Err(error) => self.fail(&Error::Resource(format!("{}: {}", program.display(), reason(&error)))),
        }
    }

    /// The same with other arguments, and with `input` on its standard input.
    pub fn pass_through_fed(&self, args: &[OsString], input: &[u8]) -> ExitCode {
        if self.guard.borrow().is_some() {
            return match self.feed_backend(args, input) {
                Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
                Err(error) => self.fail(&error),
            };
        }
        let Some((program, name)) = self.backend_program(self.front.tool) else {
            return self.fail(&self.no_backend());
        };
        match exec::feed_stdin(input).and_then(|()| exec::replace(program, name, args)) {
            Ok(never) => match never {},
            Err(error) => self.fail(&Error::Resource(format!("{}: {}", program.display(), reason(&error)))),
        }
    }

    fn no_backend(&self) -> Error {
        Error::Resource(format!("no {} is installed that this command could be passed on to", self.front.name()))
    }

    /// Fails for a table that neither we nor any backend can hold.
    pub fn fail_without_backend(&self, table: &str) -> ExitCode {
        let nft = self.snapshot.ability(self.front.family, table, CarrierKind::Nft);
        let lacking =
            if nft.is_missing() { format!("; nf_tables cannot hold {table}: {}", nft.why()) } else { String::new() };
        let Error::Resource(text) = self.no_backend() else { return ExitCode::from(RESOURCE_PROBLEM) };
        self.tell(table, "no iptables is installed", Err(format!("{text}{lacking}")));
        self.fail(&Error::Resource(format!("{text}{lacking}")))
    }

    /// Runs the backend's own program of this front as a child, fed with `input`.
    pub fn feed_backend(&self, args: &[OsString], input: &[u8]) -> Result<i32, Error> {
        let mut command = self.backend_command(self.front.tool, args).ok_or_else(|| self.no_backend())?;
        let failed = |error: io::Error| Error::Resource(error.to_string());
        // The lock that it would take is ours.
        let file = self.guard.borrow().is_some().then(LockFile::new).transpose().map_err(failed)?;
        if let Some(file) = &file {
            command.env(exec::LOCK_VARIABLE, file.path());
        }
        let output = exec::converse(command, input).map_err(failed)?;
        Ok(exit_code(&output))
    }

    /// The words behind the program's name. `None`: not all of them are text.
    pub fn words(&self) -> Option<Vec<String>> {
        self.args.iter().map(|arg| arg.to_str().map(str::to_owned)).collect()
    }

    /// What the backend says to this command, both streams.
    pub fn whole_answer(&self) -> Result<Output, Error> {
        self.backend_output(&self.args)
    }

    /// What the backend's own program of this front says, both streams.
    pub fn backend_output(&self, args: &[OsString]) -> Result<Output, Error> {
        let mut command = self.backend_command(self.front.tool, args).ok_or_else(|| self.no_backend())?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.output().map_err(|error| Error::Resource(error.to_string()))
    }

    /// Says it in its place.
    pub fn say(&self, answer: &Output) -> ExitCode {
        let _ = io::stdout().write_all(&answer.stdout);
        let _ = io::stderr().write_all(&answer.stderr);
        ExitCode::from(u8::try_from(exit_code(answer)).unwrap_or(1))
    }

    /// The error in the backend's own words: it is given the same command in a network namespace of its own, where
    /// it can do no harm. Where that cannot be had, or the backend sees nothing wrong, our own words have to do.
    /// A backend that lacks the table would speak of that alone.
    pub fn in_the_backends_words(&self, error: Error, table: &str, input: &[u8]) -> Error {
        let lacks = self.snapshot.ability(self.front.family, table, CarrierKind::Backend).is_missing();
        if lacks || !matches!(error, Error::Parameter(_) | Error::BareParameter(_) | Error::Refused(_)) {
            return error;
        }
        match self.rehearse(input) {
            // What the command's own namespace holds is not there in that one.
            Some(output) if matches!(error, Error::Refused(_)) && self.may_hold_what_it_misses(&output.stderr) => error,
            // Exit code 1 speaks of chains and rules that are not there: in that namespace none are.
            Some(output) if !matches!(exit_code(&output), 0 | 1) => Error::Verbatim {
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
                code: u8::try_from(exit_code(&output)).unwrap_or(1),
            },
            _ => error,
        }
    }

    /// Whether iptables complains, in a namespace that holds nothing, of a chain or an ipset that the command's own namespace
    /// may hold.
    fn may_hold_what_it_misses(&self, stderr: &[u8]) -> bool {
        let text = String::from_utf8_lossy(stderr);
        let said = text.split_once("): ").map_or(&*text, |(_, said)| said);
        match set_that_is_not_there(said) {
            Some(name) => !self.lacks_set(name),
            None => ["Couldn't load target `", "Chain '", "goto '"].iter().any(|start| said.starts_with(start)),
        }
    }

    fn lacks_set(&self, name: &str) -> bool {
        let words = ["-C", "INPUT", "-m", "set", "--match-set", name, "src"].map(OsString::from);
        let Some(command) = self.backend_command(Tool::Command, &words) else { return false };
        let answer = exec::capture_within(command, b"", Some(Instant::now() + PATIENCE));
        answer.is_ok_and(|answer| {
            let text = String::from_utf8_lossy(&answer.stderr);
            text.split_once("): ").and_then(|(_, said)| set_that_is_not_there(said)) == Some(name)
        })
    }

    /// What the backend says to the same command, fed with `input`, in a network namespace of its own.
    pub fn rehearse(&self, input: &[u8]) -> Option<Output> {
        let mut command = self.backend_command(self.front.tool, &self.args)?;
        exec::isolate_network(&mut command);
        let deadline = Some(Instant::now() + PATIENCE);
        privilege::in_full(|| exec::capture_within(command, input, deadline)).ok()
    }

    /// Prints `error` as the backend would, and gives its exit code.
    pub fn fail(&self, error: &Error) -> ExitCode {
        let dialect = self.dialect();
        let error = match error {
            Error::Refused(refusal) => &refused(refusal, &dialect),
            other => other,
        };
        let mut text = error.render(&dialect);
        if let (Error::Resource(_), true) = (error, self.front.tool != Tool::Command) {
            // iptables-save and iptables-restore bear their own names.
            text = text.replacen(dialect.family.program(), self.front.name(), 1);
        }
        let _ = io::stderr().write_all(text.as_bytes());
        ExitCode::from(error.code())
    }

    /// Prints what iptables says of a command before it carries it out.
    pub fn warn(&self, warnings: &[String]) {
        for warning in warnings {
            let _ = writeln!(io::stderr(), "{warning}");
        }
    }

    /// Prints what a command that succeeded says. It has succeeded whether or not that can be written, as with iptables:
    /// a change is in force.
    pub fn succeed(&self, out: &str) -> ExitCode {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush());
        ExitCode::SUCCESS
    }

    fn carrier_name(&self, table: &str) -> &'static str {
        let plan = plan::plan(self.front.family, table, &self.config, &self.snapshot, false);
        match plan.carrier() {
            by @ (CarrierKind::Mangle | CarrierKind::Filter) => by.as_str(),
            CarrierKind::Nft | CarrierKind::Backend => CarrierKind::Nft.as_str(),
        }
    }

    /// Writes a rewrite to the journal.
    pub fn tell(&self, table: &str, why: &str, result: Result<&Told, String>) {
        let args: Vec<String> = self.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let rewrite = Rewrite {
            front: self.front.name(),
            args: &args,
            family: self.front.family,
            table,
            carrier: self.carrier_name(table),
            applied: result.as_ref().map_or_else(|_| Told::default(), |told| (*told).clone()),
            why,
            result: result.map(drop),
        };
        journal::record(&self.config.journal, &rewrite);
    }
}

/// A refusal that the backend would not have made: with the exit code that it has for a missing extension.
fn refused(refusal: &Refusal, dialect: &Dialect) -> Error {
    let text = format!("cannot carry {refusal}");
    match dialect.variant {
        Variant::Nft => Error::Resource(text),
        Variant::Legacy => Error::Verbatim { stderr: format!("{}: {text}\n", dialect.prefix()), code: 1 },
    }
}

/// Exit code of a child; one that a signal ended counts as a shell counts it.
pub fn exit_code(output: &Output) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

/// Whether the caller may change netfilter at all.
pub fn may_administer() -> bool {
    privilege::holds(caps::Capability::CAP_NET_ADMIN)
}

/// The ipset that iptables misses.
fn set_that_is_not_there(said: &str) -> Option<&str> {
    said.strip_prefix("Set ")?.split_once(" doesn't exist").map(|(name, _)| name)
}
