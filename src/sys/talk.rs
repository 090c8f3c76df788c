//! A conversation with a program that was started: it is fed and listened to at once, by one thread, and for no longer than
//! one is willing to wait.

#![forbid(unsafe_code)]

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

/// What is not to be waited or listened for any longer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// When the program is killed. `None`: never.
    pub deadline: Option<Instant>,
    /// More than this from one stream, in bytes, is passed over. `None`: nothing is.
    pub output: Option<usize>,
}

/// Starts `command`, whose output streams are as they were set, feeds it with `input`, and gives what it said on those
/// that are pipes.
///
/// # Errors
/// `TimedOut` if it had to be killed; what starting it said.
pub fn talk(mut command: Command, input: &[u8], limits: Limits) -> io::Result<Output> {
    command.stdin(Stdio::piped());
    let mut child = command.spawn()?;
    let heard = exchange(&mut child, input, limits);
    if heard.is_err() {
        // Already gone, or about to be; wait(2) takes it away in either case.
        let _ = child.kill();
    }
    let status = child.wait()?;
    let [stdout, stderr] = heard?;
    Ok(Output { status, stdout, stderr })
}

fn exchange(child: &mut Child, input: &[u8], limits: Limits) -> io::Result<[Vec<u8>; 2]> {
    let mut mouth = child.stdin.take().map(|pipe| Mouth::new(pipe.into(), input)).transpose()?;
    let mut ears = [
        child.stdout.take().map(|pipe| Ear::new(pipe.into())).transpose()?,
        child.stderr.take().map(|pipe| Ear::new(pipe.into())).transpose()?,
    ];
    loop {
        if mouth.as_ref().is_some_and(Mouth::is_done) {
            mouth = None;
        }
        if mouth.is_none() && !ears.iter().flatten().any(|ear| ear.open) {
            break;
        }
        wait(mouth.as_ref(), &ears, limits.deadline)?;
        if let Some(speaking) = &mut mouth
            && !speaking.speak()?
        {
            mouth = None;
        }
        for ear in ears.iter_mut().flatten().filter(|ear| ear.open) {
            ear.listen(limits.output)?;
        }
    }
    Ok(ears.map(|ear| ear.map(|ear| ear.heard).unwrap_or_default()))
}

fn wait(mouth: Option<&Mouth<'_>>, ears: &[Option<Ear>; 2], deadline: Option<Instant>) -> io::Result<()> {
    let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
        // Rounded up: less than a millisecond is no reason to ask again and again.
        let left = deadline.saturating_duration_since(Instant::now());
        PollTimeout::try_from(left.as_millis() + u128::from(!left.is_zero())).unwrap_or(PollTimeout::MAX)
    });
    let speaking = mouth.map(|mouth| PollFd::new(mouth.pipe.as_fd(), PollFlags::POLLOUT));
    let open = ears.iter().flatten().filter(|ear| ear.open);
    let listening = open.map(|ear| PollFd::new(ear.pipe.as_fd(), PollFlags::POLLIN));
    let mut polled: Vec<PollFd> = speaking.into_iter().chain(listening).collect();
    match poll(&mut polled, timeout) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn pipe(end: OwnedFd) -> io::Result<File> {
    fcntl(&end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(File::from(end))
}

/// Our end of a child's standard input.
struct Mouth<'a> {
    pipe: File,
    unsaid: &'a [u8],
}

impl<'a> Mouth<'a> {
    fn new(end: OwnedFd, input: &'a [u8]) -> io::Result<Self> {
        Ok(Self { pipe: pipe(end)?, unsaid: input })
    }

    fn is_done(&self) -> bool {
        self.unsaid.is_empty()
    }

    /// Says what is taken at once. `false`: nobody listens any more. Why, the program says itself.
    fn speak(&mut self) -> io::Result<bool> {
        match self.pipe.write(self.unsaid) {
            Ok(size) => self.unsaid = self.unsaid.get(size..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

/// Our end of one of a child's output streams.
struct Ear {
    pipe: File,
    heard: Vec<u8>,
    open: bool,
}

impl Ear {
    fn new(end: OwnedFd) -> io::Result<Self> {
        Ok(Self { pipe: pipe(end)?, heard: Vec::new(), open: true })
    }

    /// Takes what is there.
    fn listen(&mut self, limit: Option<usize>) -> io::Result<()> {
        let mut chunk = [0; 4096];
        loop {
            match self.pipe.read(&mut chunk) {
                Ok(0) => {
                    self.open = false;
                    return Ok(());
                }
                Ok(size) if limit.is_none_or(|limit| self.heard.len() < limit) => {
                    self.heard.extend_from_slice(chunk.get(..size).unwrap_or_default());
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[test]
    fn more_than_a_pipe_holds_goes_both_ways() {
        let input = "0123456789abcdef".repeat(1 << 16);
        let said = talk(shell("tee /dev/stderr"), input.as_bytes(), Limits::default()).expect("an answer");
        assert!(said.stdout == input.as_bytes() && said.stderr == input.as_bytes());
    }

    #[test]
    fn a_program_that_stops_reading_is_heard_to_its_end() {
        let input = vec![b'x'; 1 << 20];
        let said = talk(shell("exec <&-; echo enough; exit 3"), &input, Limits::default()).expect("an answer");
        assert_eq!((said.stdout.as_slice(), said.status.code()), (&b"enough\n"[..], Some(3)));
    }

    #[test]
    fn a_program_that_reads_nothing_is_not_waited_for() {
        let begun = Instant::now();
        let deadline = Some(begun + Duration::from_millis(50));
        let limits = Limits { deadline, ..Limits::default() };
        let error = talk(shell("exec sleep 60"), &vec![b'x'; 1 << 20], limits).expect_err("an answer");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
