//! One thing that is done to the machine.

#![forbid(unsafe_code)]

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One thing that is done to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A program is run.
    Run(Vec<String>),
    /// A file is put in place at once, its folders made before it.
    Write {
        /// Which.
        path: PathBuf,
        /// All of it.
        text: String,
    },
    /// A file is taken away, and its folder if that is empty then.
    Remove(PathBuf),
}

impl Step {
    /// A program and its arguments.
    pub fn run(words: &[&str]) -> Self {
        Step::Run(words.iter().map(|word| (*word).to_owned()).collect())
    }

    /// Does it.
    ///
    /// # Errors
    /// What the system or the program says.
    pub fn perform(&self) -> io::Result<()> {
        match self {
            Step::Run(words) => run(words),
            Step::Write { path, text } => put(path, text),
            Step::Remove(path) => remove(path),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Run(words) => {
                let line = shlex::try_join(words.iter().map(String::as_str));
                f.write_str(&line.unwrap_or_else(|_| words.join(" ")))
            }
            Step::Write { path, text } => {
                write!(f, "write {}", path.display())?;
                text.lines().filter(|line| !line.starts_with('#')).try_for_each(|line| write!(f, "\n    {line}"))
            }
            Step::Remove(path) => write!(f, "remove {}", path.display()),
        }
    }
}

fn run(words: &[String]) -> io::Result<()> {
    let Some((program, args)) = words.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let said = if said.is_empty() { output.status.to_string() } else { said.to_owned() };
    Err(io::Error::other(format!("{program} failed: {said}")))
}

/// Who reads it finds the old content or the new, after a crash too.
fn put(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.new"));
    // Of an earlier call that was killed.
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let placed = written.and_then(|()| fs::rename(&temporary, path));
    if placed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    placed
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(folder) = path.parent() {
        // Not empty where others have something in it.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_whole_and_goes_with_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("docker.service.d/xtshim.conf");
        let write = Step::Write { path: path.clone(), text: "# note\n[Service]\n".to_owned() };
        write.perform().expect("written");
        write.perform().expect("written again");
        assert_eq!(fs::read_to_string(&path).expect("read"), "# note\n[Service]\n");
        assert_eq!(write.to_string(), format!("write {}\n    [Service]", path.display()));
        Step::Remove(path.clone()).perform().expect("removed");
        Step::Remove(path.clone()).perform().expect("gone already");
        assert!(!path.parent().expect("a folder").exists());
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let step = Step::run(&["sh", "-c", "echo 'it is so' >&2; exit 3"]);
        assert_eq!(step.perform().expect_err("failed").to_string(), "sh failed: it is so");
        assert_eq!(step.to_string(), "sh -c \"echo 'it is so' >&2; exit 3\"");
        assert!(Step::run(&["true"]).perform().is_ok());
    }
}
