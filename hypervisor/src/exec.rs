//! The one place that starts programs: fixed search path, empty environment, no shell, bounded output.
//! Helpers that touch foreign data run as the unprivileged machine user.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::host::Ids;
use crate::sys;

/// Where programs are looked for, in this order.
const SEARCH: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
/// One program is started at a time.
static STARTING: Mutex<()> = Mutex::new(());
/// Output of a helper that is kept.
const OUTPUT_LIMIT: u64 = 1 << 20;

/// Replaces this process; returns only the reason why that failed.
pub fn become_program(program: &str, args: &[String]) -> std::io::Error {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the module that starts programs"
    )]
    let mut command = Command::new(program);
    command.args(args).exec()
}

/// Full path of a program in the system directories.
///
/// # Errors
/// [`Error::Environment`] naming the Debian package when it is missing.
pub fn find(program: &str, package: &str) -> Result<PathBuf> {
    SEARCH
        .iter()
        .map(|dir| Path::new(dir).join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::Environment(format!(
                "program '{program}' is missing: apt install {package}"
            ))
        })
}

/// A program run: path, arguments and what it is given.
pub struct Run<'a> {
    program: PathBuf,
    shown: Option<&'static str>,
    args: Vec<String>,
    user: Option<Ids>,
    directory: Option<BorrowedFd<'a>>,
    keep: Vec<BorrowedFd<'a>>,
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
    variables: Vec<(&'static str, PathBuf)>,
    own_group: bool,
    limit: Option<Duration>,
}

impl<'a> Run<'a> {
    /// Prepares `program` with its arguments.
    pub fn new(
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Run {
            program: program.into(),
            shown: None,
            args: args.into_iter().map(Into::into).collect(),
            user: None,
            directory: None,
            keep: Vec::new(),
            stdin: None,
            stdout: None,
            stderr: None,
            variables: Vec::new(),
            own_group: false,
            limit: None,
        }
    }

    /// A variable of its environment, beside or instead of the fixed ones.
    #[must_use]
    pub fn variable(mut self, name: &'static str, value: impl Into<PathBuf>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Ends it, with what it started, when [`Self::status`] or [`Self::output`] has waited this long.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self.own_group = true;
        self
    }

    /// A process group of its own, so that it can be ended together with what it starts.
    #[must_use]
    pub fn own_group(mut self) -> Self {
        self.own_group = true;
        self
    }

    /// Name in the process list, where the path says too little.
    #[must_use]
    pub fn shown_as(mut self, name: &'static str) -> Self {
        self.shown = Some(name);
        self
    }

    /// Runs as this user: std then drops supplementary groups, and with the uid all capabilities.
    #[must_use]
    pub fn user(mut self, ids: Ids) -> Self {
        self.user = Some(ids);
        self
    }

    /// Working directory by descriptor, so that the directories above it need not be open to the user.
    #[must_use]
    pub fn directory(mut self, dir: BorrowedFd<'a>) -> Self {
        self.directory = Some(dir);
        self
    }

    /// Descriptors that stay open in the program, under the same number.
    #[must_use]
    pub fn keep(mut self, fds: impl IntoIterator<Item = BorrowedFd<'a>>) -> Self {
        self.keep.extend(fds);
        self
    }

    /// Standard input (closed, i.e. `/dev/null`, otherwise).
    #[must_use]
    pub fn stdin(mut self, file: File) -> Self {
        self.stdin = Some(file);
        self
    }

    /// Standard output goes to this file.
    #[must_use]
    pub fn stdout(mut self, file: File) -> Self {
        self.stdout = Some(file);
        self
    }

    /// Standard error goes to this file.
    #[must_use]
    pub fn stderr(mut self, file: File) -> Self {
        self.stderr = Some(file);
        self
    }

    fn name(&self) -> String {
        self.program
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("?")
            .to_owned()
    }

    fn start(&mut self, out: Stdio, err: Stdio) -> Result<Child> {
        let name = self.name();
        let fail = |problem: String| Error::Program {
            program: name.clone(),
            problem,
        };
        // Where a descriptor is made inheritable, it is for every program that another thread starts meanwhile.
        let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let inherited: std::io::Result<()> = self.keep.iter().try_for_each(sys::inherit);
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the module that starts programs"
        )]
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear();
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("HOME", "/");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if self.own_group {
            command.process_group(0);
        }
        match &self.directory {
            // The child still holds the descriptor when it changes directory, after it has changed user.
            Some(dir) => command.current_dir(format!("/proc/self/fd/{}", dir.as_raw_fd())),
            None => command.current_dir("/"),
        };
        if let Some(name) = self.shown {
            command.arg0(name);
        }
        if let Some(ids) = self.user {
            command.uid(ids.uid).gid(ids.gid);
        }
        command.stdin(self.stdin.take().map_or_else(Stdio::null, Stdio::from));
        command.stdout(self.stdout.take().map_or(out, Stdio::from));
        command.stderr(self.stderr.take().map_or(err, Stdio::from));
        let child = inherited.and_then(|()| command.spawn());
        for fd in &self.keep {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)
                .map_err(|e| fail(e.to_string()))?;
        }
        child.map_err(|e| fail(format!("cannot be started: {e}")))
    }

    /// Starts the program and leaves it running.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mut self) -> Result<Child> {
        self.start(Stdio::null(), Stdio::null())
    }

    /// Runs to the end; what it printed is returned whatever the exit status.
    ///
    /// # Errors
    /// When it cannot be started or waited for.
    pub fn status(mut self) -> Result<Finished> {
        let name = self.name();
        let mut child = self.start(Stdio::piped(), Stdio::piped())?;
        let fail = |e: std::io::Error| Error::Program {
            program: name.clone(),
            problem: e.to_string(),
        };
        let stderr = child.stderr.take();
        let errors = std::thread::spawn(move || stderr.map(drain).unwrap_or_default());
        if let Some(limit) = self.limit {
            return self.status_within(limit, child, errors);
        }
        let output = child.stdout.take().map(drain).unwrap_or_default();
        let status = child.wait().map_err(fail)?;
        let errors = errors.join().unwrap_or_default();
        Ok(Finished {
            program: name,
            status,
            output,
            errors,
        })
    }

    fn status_within(
        &self,
        limit: Duration,
        mut child: Child,
        errors: std::thread::JoinHandle<String>,
    ) -> Result<Finished> {
        let program = self.name();
        let stdout = child.stdout.take();
        let output = std::thread::spawn(move || stdout.map(drain).unwrap_or_default());
        let end = Instant::now() + limit;
        let ended = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) => {
                    break Err(Error::Timeout(format!(
                        "{program} did not end within {} s",
                        limit.as_secs()
                    )));
                }
                Err(e) => {
                    break Err(Error::Program {
                        program: program.clone(),
                        problem: e.to_string(),
                    });
                }
            }
        };
        if ended.is_err() {
            kill_group(&child);
            let _ = child.kill();
            let _ = child.wait();
        }
        let status = ended?;
        Ok(Finished {
            program,
            status,
            output: output.join().unwrap_or_default(),
            errors: errors.join().unwrap_or_default(),
        })
    }

    /// Runs to the end and insists on success.
    ///
    /// # Errors
    /// [`Error::Program`] with the last words of the program.
    pub fn output(self) -> Result<String> {
        self.status()?.success()
    }
}

/// Ends a child that leads its group, and what it started.
pub fn kill_group(child: &Child) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

/// What a program that has ended left behind.
#[derive(Debug)]
pub struct Finished {
    /// Its file name.
    pub program: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub output: String,
    /// What it complained about.
    pub errors: String,
}

impl Finished {
    /// The output if it succeeded.
    ///
    /// # Errors
    /// [`Error::Program`] otherwise.
    pub fn success(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.output);
        }
        let problem = format!("{}: {}", self.status, self.errors.trim());
        Err(Error::Program {
            program: self.program,
            problem,
        })
    }
}

/// Reads everything, keeps the first part; the rest is read and dropped so that the writer is never blocked.
fn drain(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let read = from.by_ref().take(OUTPUT_LIMIT).read_to_end(&mut kept);
    if read.is_ok() {
        let _ = std::io::copy(&mut from, &mut std::io::sink());
    }
    kept.iter()
        .map(|byte| {
            if byte.is_ascii() {
                char::from(*byte)
            } else {
                '?'
            }
        })
        .collect()
}

/// A descriptor's name for a child that inherits it.
pub fn fd_number(fd: impl AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_given_to_one_program_is_in_no_other_that_starts_meanwhile() {
        let secret = File::open("/etc/passwd").unwrap();
        let list = || {
            let words = ["-c", "readlink /proc/$$/fd/*"];
            Run::new(find("sh", "dash").unwrap(), words)
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let given = list().keep([secret.as_fd()]).status().unwrap().output;
                        assert!(given.contains("/etc/passwd"), "{given}");
                    }
                });
                scope.spawn(|| {
                    for _ in 0..100 {
                        let others = list().status().unwrap().output;
                        assert!(!others.contains("/etc/passwd"), "{others}");
                    }
                });
            }
        });
    }

    #[test]
    fn a_program_that_does_not_end_is_ended_with_what_it_started() {
        let run = Run::new(
            find("sh", "dash").unwrap(),
            ["-c", "sleep 1000 & sleep 1000"],
        );
        let ended = run.within(Duration::from_millis(50)).status();
        assert!(matches!(ended, Err(Error::Timeout(_))));
    }
}
