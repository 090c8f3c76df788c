//! What several checks look at, gathered once.

#![forbid(unsafe_code)]

use super::host::{Host, Process};
use super::{Diagnosis, texts, version};
use crate::family::Family;
use crate::iptables::dialect::Variant;
use crate::iptables::restore;
use crate::probe::{Kernel, Report, backend_name};
use serde_json::Value;

/// Where a table's rules were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A real iptables.
    Backend(Variant),
    /// Carried by xtshim.
    Carried,
}

impl Source {
    /// In words: the program whose `-save` shows it.
    pub fn program(self, family: Family) -> String {
        match self {
            Source::Backend(variant) => format!("{}-{}", family.program(), backend_name(variant)),
            Source::Carried => format!("{} (carried by xtshim)", family.program()),
        }
    }
}

/// A rule, as iptables-save writes it.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its chain.
    pub chain: String,
    /// What stands behind it.
    pub args: Vec<String>,
    /// Packets that it has matched.
    pub packets: u64,
}

impl Line {
    /// The word behind an option, with what is before it: `Some((inverted, value))`.
    pub fn option(&self, names: &[&str]) -> Option<(bool, &str)> {
        let at = self.args.iter().position(|arg| names.contains(&arg.as_str()))?;
        let inverted = at > 0 && self.args.get(at - 1).is_some_and(|arg| arg == "!");
        Some((inverted, self.args.get(at + 1)?))
    }

    /// The value of an option that is not inverted.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.option(&[name]).filter(|(inverted, _)| !inverted).map(|(_, value)| value)
    }

    /// What it does.
    pub fn target(&self) -> &str {
        self.option(&["-j", "-g"]).map(|(_, value)| value).unwrap_or_default()
    }

    /// `-A CHAIN …`
    pub fn text(&self) -> String {
        let args: Vec<String> = self.args.iter().map(|arg| quoted(arg)).collect();
        format!("-A {} {}", self.chain, args.join(" "))
    }
}

/// As it stands in a restore file.
fn quoted(arg: &str) -> String {
    let plain = !arg.is_empty() && !arg.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\\' | '\''));
    if plain { arg.to_owned() } else { restore::quote(arg) }
}

/// A table as one of them holds it.
#[derive(Clone, Debug)]
pub struct Held {
    /// Who holds it.
    pub source: Source,
    /// Of which family.
    pub family: Family,
    /// `raw`, …
    pub table: String,
    /// Chains and their policies, `-` for a user's.
    pub chains: Vec<(String, String)>,
    /// Rules, in order.
    pub rules: Vec<Line>,
}

impl Held {
    /// Whether it holds anything of somebody's.
    pub fn is_used(&self) -> bool {
        !self.rules.is_empty() || self.chains.iter().any(|(_, policy)| policy != "ACCEPT")
    }

    /// Whether it is the same table with the same rules.
    fn says(&self, other: &Held) -> bool {
        let words = |held: &Held| held.rules.iter().map(Line::text).collect::<Vec<_>>();
        self.family == other.family && self.table == other.table && words(self) == words(other)
    }

    /// The policy of a built-in chain.
    pub fn policy(&self, chain: &str) -> Option<&str> {
        self.chains.iter().find(|(name, _)| name == chain).map(|(_, policy)| policy.as_str())
    }

    /// One chain's rules.
    pub fn of<'a>(&'a self, chain: &'a str) -> impl Iterator<Item = &'a Line> {
        self.rules.iter().filter(move |line| line.chain == chain)
    }

    /// A rule as evidence.
    pub fn evidence(&self, line: &Line) -> String {
        format!("{} -t {} {}", self.source.program(self.family), self.table, line.text())
    }
}

/// Reads what iptables-save printed.
pub fn read_saved(source: Source, family: Family, text: &str) -> Vec<Held> {
    let mut tables: Vec<Held> = Vec::new();
    for line in text.lines() {
        match restore::read_line(line) {
            restore::Line::Table(table) => {
                tables.push(Held { source, family, table, chains: Vec::new(), rules: Vec::new() });
            }
            restore::Line::Chain { name, policy, .. } => {
                tables.last_mut().into_iter().for_each(|held| held.chains.push((name.clone(), policy.clone())));
            }
            restore::Line::Command { counters, args } => {
                if let [append, chain, rest @ ..] = args.as_slice()
                    && append == "-A"
                    && let Some(held) = tables.last_mut()
                {
                    let packets = counters.and_then(|bracket| bracket.read()).map_or(0, |(packets, _)| packets);
                    held.rules.push(Line { chain: chain.clone(), args: rest.to_vec(), packets });
                }
            }
            _ => {}
        }
    }
    tables
}

/// Which iptables a call by name reaches.
#[derive(Clone, Debug, Default)]
pub struct Front {
    /// The path that is called.
    pub called: String,
    /// Where it leads in the end.
    pub leads_to: String,
    /// Whether that is xtshim.
    pub is_ours: bool,
}

/// dockerd, as far as it can be seen.
#[derive(Debug, Default)]
pub struct Docker {
    /// What `dockerd --version`, or the package's entry, says.
    pub said: Option<String>,
    /// Its version's numbers; empty: unknown.
    pub version: Vec<u32>,
    /// Running daemons.
    pub daemons: Vec<Process>,
    /// Configuration files and what they hold.
    pub files: Vec<(String, Value)>,
    /// Variables and command lines that its unit files set: file and line.
    pub unit: Vec<(String, String)>,
}

impl Docker {
    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.said.is_some() || !self.daemons.is_empty()
    }

    /// Whether it is known to be at least that version.
    pub fn is_since(&self, since: &str) -> bool {
        !self.version.is_empty() && self.version >= version::numbers(since)
    }

    /// Whether it is known to be older than that.
    pub fn is_before(&self, since: &str) -> bool {
        !self.version.is_empty() && self.version < version::numbers(since)
    }

    /// A setting: its value, and where it stands. A flag of a running daemon counts first.
    pub fn setting(&self, name: &str) -> Option<(String, String)> {
        for daemon in &self.daemons {
            if let Some(value) = daemon.flag(name) {
                return Some((value.to_owned(), format!("dockerd[{}] runs with --{name}={value}", daemon.pid)));
            }
            if daemon.has(&format!("--{name}")) {
                return Some(("true".to_owned(), format!("dockerd[{}] runs with --{name}", daemon.pid)));
            }
        }
        self.files.iter().find_map(|(file, value)| {
            let value = value.get(name)?;
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Some((text, format!("{file}: \"{name}\": {value}")))
        })
    }

    /// A variable of the daemons' environment, or of the unit that starts it: its value, and where it stands.
    pub fn variable(&self, name: &str) -> Option<(String, String)> {
        for daemon in &self.daemons {
            if let Some(value) = daemon.variable(name) {
                return Some((value.to_owned(), format!("dockerd[{}] runs with {name}={value}", daemon.pid)));
            }
        }
        // A running daemon has what it has, whatever its files say by now.
        if self.daemons.iter().any(|daemon| daemon.environment.is_some()) {
            return None;
        }
        let assignment = format!("{name}=");
        self.unit.iter().find_map(|(file, line)| {
            let (_, rest) = line.split_once(&assignment)?;
            let value: String = rest.chars().take_while(|c| !c.is_whitespace() && !matches!(c, '"' | '\'')).collect();
            Some((value, format!("{file}: {line}")))
        })
    }

    /// Whether it makes its rules with nftables.
    pub fn uses_nftables(&self) -> Option<String> {
        let configured = self.setting("firewall-backend").filter(|(value, _)| value == "nftables");
        let early = || self.variable("DOCKER_FIREWALL_BACKEND").filter(|(value, _)| value == "nftables");
        configured.or_else(early).map(|(_, place)| place)
    }
}

/// All of it.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Where it was found.
    pub host: &'a Host,
    /// What the kernel says of itself.
    pub kernel: Kernel,
    /// What was found by trying.
    pub probe: Option<Report>,
    /// Running processes.
    pub processes: Vec<Process>,
    /// Every table that anybody holds.
    pub tables: Vec<Held>,
    /// Carried tables that this program cannot read.
    pub unreadable: Vec<(Family, String)>,
    /// Whether the rules could be read at all.
    pub rules_known: bool,
    /// What `iptables` is, as dockerd finds it.
    pub front: Front,
    /// Docker.
    pub docker: Docker,
    /// Where xtshim was seen installed.
    pub installed: Option<String>,
}

impl<'a> Facts<'a> {
    /// Looks at the host.
    pub fn gather(host: &'a Host, diagnosis: &mut Diagnosis) -> Self {
        let kernel = host.kernel();
        let processes = host.processes();
        let docker = docker(host, &processes);
        let mut facts = Self {
            host,
            kernel,
            probe: host.probe(),
            tables: Vec::new(),
            unreadable: Vec::new(),
            rules_known: false,
            front: front(host, docker.daemons.first()),
            installed: installed(host),
            processes,
            docker,
        };
        facts.read_tables(diagnosis);
        facts.tell(diagnosis);
        facts
    }

    fn read_tables(&mut self, diagnosis: &mut Diagnosis) {
        for family in Family::ALL {
            for variant in [Variant::Legacy, Variant::Nft] {
                match self.host.saved(variant, family) {
                    Some(text) => {
                        self.rules_known = true;
                        self.tables.extend(read_saved(Source::Backend(variant), family, &text));
                    }
                    None if self.is_installed(variant) || !self.host.is_live() => {
                        let what = format!("rules of {}-{}", family.program(), backend_name(variant));
                        diagnosis.unchecked(&what, self.no_answer());
                    }
                    None => {}
                }
            }
            match self.host.carried(family) {
                Some(carried) => {
                    // What `xtshim iptables-save` has shown to a copy holds what was passed on, too.
                    let tables = read_saved(Source::Carried, family, &carried.saved);
                    let passed_on =
                        |held: &Held| !self.host.is_live() && self.tables.iter().any(|other| other.says(held));
                    let own: Vec<Held> = tables.into_iter().filter(|held| !passed_on(held)).collect();
                    self.tables.extend(own);
                    self.unreadable.extend(carried.unreadable.into_iter().map(|table| (family, table)));
                }
                None => diagnosis.unchecked(&format!("rules carried for {}", family.program()), self.no_answer()),
            }
        }
    }

    /// Why something that is usually told is not.
    pub fn no_answer(&self) -> &'static str {
        if self.host.is_live() { "it does not answer, or not to us (root?)" } else { "it is not in the copied tree" }
    }

    fn is_installed(&self, variant: Variant) -> bool {
        let name = backend_name(variant);
        self.probe.as_ref().is_some_and(|report| report.backends.iter().any(|backend| backend.name == name))
    }

    fn tell(&self, diagnosis: &mut Diagnosis) {
        diagnosis.tell("kernel", format!("{} {}", self.kernel.release, self.kernel.machine).trim().to_owned());
        for backend in self.probe.iter().flat_map(|report| &report.backends) {
            let chosen = if backend.chosen { ", in use" } else { "" };
            diagnosis.tell("iptables", format!("{} {}{chosen}", backend.name, backend.version));
        }
        if !self.front.called.is_empty() {
            let ours = if self.front.is_ours { " (xtshim)" } else { "" };
            diagnosis.tell("iptables", format!("{} leads to {}{ours}", self.front.called, self.front.leads_to));
        }
        if let Some(said) = &self.docker.said {
            let running = if self.docker.daemons.is_empty() { "not running" } else { "running" };
            diagnosis.tell("docker", format!("{said}; {running}"));
        }
    }

    /// Tables of that name that anybody holds.
    pub fn held<'b>(&'b self, family: Family, table: &'b str) -> impl Iterator<Item = &'b Held> {
        self.tables.iter().filter(move |held| held.family == family && held.table == table)
    }

    /// What the backend is that rules go to, if it is known: as the probe has chosen, or as the name of the program says.
    pub fn backend(&self) -> Option<Variant> {
        let chosen = self.probe.iter().flat_map(|report| &report.backends).find(|backend| backend.chosen);
        let said = || self.host.said(&["iptables", "--version"]).unwrap_or_default();
        let name = chosen.map_or_else(|| format!("{} {}", self.front.leads_to, said()), |backend| backend.name.clone());
        let names = [(Variant::Legacy, "legacy"), (Variant::Nft, "nft"), (Variant::Nft, "nf_tables")];
        names.into_iter().find(|(_, word)| name.contains(word)).map(|(variant, _)| variant)
    }

    /// What that backend says of its version; empty: unknown.
    pub fn backend_version(&self) -> Vec<u32> {
        let chosen = self.probe.iter().flat_map(|report| &report.backends).find(|backend| backend.chosen);
        let said = chosen.map(|backend| backend.version.clone());
        said.or_else(|| self.host.said(&["iptables", "--version"]))
            .map(|text| version::numbers(&text))
            .unwrap_or_default()
    }

    /// Whether a container of Docker's can be reached here, or could be: it has made its chains.
    pub fn docker_has_rules(&self) -> bool {
        self.tables.iter().any(|held| held.chains.iter().any(|(name, _)| name == "DOCKER" || name == "DOCKER-USER"))
    }

    /// Docker's bridges, by the rules that name them.
    pub fn docker_bridges(&self) -> Vec<String> {
        let of_docker = self.tables.iter().flat_map(|held| &held.rules);
        let mut bridges: Vec<String> = of_docker
            .filter(|line| line.chain.starts_with("DOCKER") || (line.chain == "PREROUTING" && line.target() == "DROP"))
            .filter_map(|line| line.option(&["-i", "-o"]).map(|(_, name)| name.to_owned()))
            .filter(|name| name != "lo")
            .collect();
        bridges.sort();
        bridges.dedup();
        bridges
    }
}

/// Where xtshim was put beside the host's iptables: by update-alternatives, or where one puts it by hand.
fn installed(host: &Host) -> Option<String> {
    let admin = ["/var/lib/dpkg/alternatives/iptables", "/var/lib/alternatives/iptables"];
    let registered = admin.iter().find_map(|path| {
        let text = host.text(path)?;
        text.lines().find(|line| line.starts_with('/') && line.contains("xtshim")).map(str::to_owned)
    });
    let places = ["/usr/sbin/iptables-xtshim", "/usr/local/sbin/iptables-xtshim"];
    registered.or_else(|| places.iter().find(|path| host.has(path)).map(|path| (*path).to_owned()))
}

fn front(host: &Host, daemon: Option<&Process>) -> Front {
    let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let path = daemon.and_then(|daemon| daemon.variable("PATH")).unwrap_or(usual);
    let called = path.split(':').map(|place| format!("{place}/iptables")).find(|path| host.has(path));
    let Some(called) = called else { return Front::default() };
    let leads_to = host.leads_to(&called).unwrap_or_default();
    let name = leads_to.rsplit('/').next().unwrap_or_default().to_owned();
    Front { called, leads_to, is_ours: name == "xtshim" || name == "iptables-xtshim" }
}

fn docker(host: &Host, processes: &[Process]) -> Docker {
    let daemons: Vec<Process> = processes.iter().filter(|process| process.name() == "dockerd").cloned().collect();
    let said = host.said(&["dockerd", "--version"]).map(|text| text.lines().next().unwrap_or_default().to_owned());
    let said = said.or_else(|| packaged(host));
    let version = said.as_deref().map(version::numbers).unwrap_or_default();
    let mut places: Vec<String> =
        daemons.iter().filter_map(|daemon| daemon.flag("config-file")).map(str::to_owned).collect();
    places.push("/etc/docker/daemon.json".to_owned());
    places.push("/root/.config/docker/daemon.json".to_owned());
    places.extend(host.names("/home").iter().map(|user| format!("/home/{user}/.config/docker/daemon.json")));
    let read = |file: String| Some((host.text(&file)?, file));
    let files = places.into_iter().filter_map(read);
    let files = files.filter_map(|(text, file)| Some((file, serde_json::from_str(&text).ok()?))).collect();
    Docker { said, version, daemons, files, unit: unit(host) }
}

/// The package that brings dockerd, as dpkg knows it.
fn packaged(host: &Host) -> Option<String> {
    let status = host.text("/var/lib/dpkg/status")?;
    texts().thresholds.packages.iter().find_map(|package| {
        let entry = entry(&status, package)?;
        let version = entry.lines().find_map(|line| line.strip_prefix("Version: "))?;
        entry.contains("Status: ").then(|| format!("{package} {version}"))
    })
}

/// A package's paragraph in dpkg's status file, if it is installed.
pub fn entry<'a>(status: &'a str, package: &str) -> Option<&'a str> {
    let heading = format!("Package: {package}");
    let mut entries = status.split("\n\n").filter(|entry| entry.lines().any(|line| line == heading));
    entries.find(|entry| entry.lines().any(|line| line.starts_with("Status:") && line.ends_with(" installed")))
}

/// Lines of what starts the daemon that set variables or flags.
fn unit(host: &Host) -> Vec<(String, String)> {
    let mut files: Vec<String> = Vec::new();
    for folder in ["/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system", "/run/systemd/system"] {
        files.push(format!("{folder}/docker.service"));
        files.extend(host.files(&format!("{folder}/docker.service.d"), ".conf"));
    }
    files.extend(["/etc/default/docker", "/etc/sysconfig/docker", "/etc/conf.d/docker"].map(str::to_owned));
    let lines = |file: String| {
        let text = host.text(&file).unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']) && line.contains('='));
        lines.map(|line| (file.clone(), line.to_owned())).collect::<Vec<_>>()
    };
    let mut found: Vec<(String, String)> = files.into_iter().flat_map(lines).collect();
    // /lib may be a link to /usr/lib.
    found.dedup_by(|one, other| one.1 == other.1 && one.0.rsplit('/').next() == other.0.rsplit('/').next());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_iptables_save_prints_is_read() {
        let text = "*raw\n:PREROUTING ACCEPT [9:472]\n:U - [0:0]\n[3:180] -A PREROUTING -d 172.17.0.2/32 ! -i docker0 \
                    -j DROP\n[0:0] -A U -m comment --comment \"a b\" -j RETURN\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\nCOMMIT\n";
        let tables = read_saved(Source::Carried, Family::V4, text);
        let [raw, filter] = tables.as_slice() else { panic!("{tables:?}") };
        assert!(raw.is_used() && filter.is_used());
        assert_eq!(filter.policy("FORWARD"), Some("DROP"));
        let [drop, other] = raw.rules.as_slice() else { panic!("{raw:?}") };
        assert_eq!((drop.packets, drop.target(), drop.value("-d")), (3, "DROP", Some("172.17.0.2/32")));
        assert_eq!((drop.option(&["-i"]), drop.value("-i")), (Some((true, "docker0")), None));
        assert_eq!(other.text(), "-A U -m comment --comment \"a b\" -j RETURN");
    }

    #[test]
    fn a_package_that_is_gone_is_not_there() {
        let status = "Package: docker.io\nStatus: deinstall ok config-files\nVersion: 20\n\nPackage: docker-ce\nStatus: hold ok installed\nVersion: 5:27.5.1-1\n";
        assert_eq!(entry(status, "docker.io"), None);
        assert!(entry(status, "docker-ce").is_some_and(|entry| entry.contains("27.5.1")));
    }
}
