//! Running other programs: the only place in the agent that starts one.
//! A [`Program`] is found and checked once and held as a descriptor; a [`Run`] is one execution of it with a fixed
//! environment, a deadline and bounded output. What to run, with which arguments, is decided by the compartments.
//!
//! The child gets: empty environment but `PATH`, `LC_ALL=C`, `HOME=/` (and `BLOCKHOST_ROOT` in a world that is not
//! `/`), standard input at its end or holding the given bytes, no other descriptors than those passed on purpose,
//! working directory `/`, its own session (so no terminal, and a process group that can be killed as one), and, where the
//! caller has one for it, a [`Sandbox`] on top of the compartment's own.

mod capture;
mod child;
mod program;
mod sandbox;

pub use capture::{Captured, escape};
pub use program::{OpenError, Program};
pub use sandbox::Sandbox;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// Bytes of one output stream that are kept unless a [`Run`] says otherwise: half from the start, half from the end.
pub const OUTPUT_CAP: usize = 64 * 1024;

/// Between the polite signal at the deadline and the one that cannot be refused.
const KILL_GRACE: Duration = Duration::from_millis(500);

/// How long output is awaited after the program itself has ended: a daemon it left behind may hold the pipe open.
const DRAIN_GRACE: Duration = Duration::from_millis(200);

/// What a pipe holds at most, and what is taken of it at once.
const PIPE: usize = 64 * 1024;
const PIECE: usize = 16 * 1024;

/// What every child finds its own helpers by.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program did not run, as opposed to ran and failed (see [`Output`] for that).
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The kernel refused to start it.
    #[error("{path} could not be started: {source}; check that it exists, is executable and allowed by the sandbox", path = path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// Talking to the started program failed; it was killed.
    #[error("{path} was killed because its {what} failed: {source}", path = path.display())]
    Io {
        /// The program.
        path: PathBuf,
        /// Which conversation failed.
        what: &'static str,
        /// The kernel's reason.
        source: std::io::Error,
    },
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal, which was not ours.
    Signalled(i32),
    /// Killed by us at the deadline.
    TimedOut,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Exited(code) => write!(f, "exit code {code}"),
            Ended::Signalled(signal) => write!(f, "signal {signal}"),
            Ended::TimedOut => f.write_str("killed at its time limit"),
        }
    }
}

/// What came out of a program that ran.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub ended: Ended,
    /// Its standard output.
    pub stdout: Captured,
    /// Its standard error.
    pub stderr: Captured,
}

impl Output {
    /// True for exit code 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.ended == Ended::Exited(0)
    }

    /// What the program said about its failure: the last line of its standard error, else of its output, else how it
    /// ended. Escaped, at most 300 characters.
    #[must_use]
    pub fn complaint(&self) -> String {
        for stream in [&self.stderr, &self.stdout] {
            let text = stream.to_text();
            if let Some(line) = text
                .lines()
                .rev()
                .map(str::trim)
                .find(|line| !line.is_empty())
            {
                return line.chars().take(300).collect();
            }
        }
        self.ended.to_string()
    }
}

/// One execution of a [`Program`]: filled in, then [`Run::run`].
#[derive(Debug)]
pub struct Run<'a> {
    program: &'a Program,
    arg0: Option<&'a str>,
    args: Vec<OsString>,
    stdin: &'a [u8],
    pass: Vec<BorrowedFd<'a>>,
    env: Vec<(&'static str, OsString)>,
    sandbox: Option<&'a Sandbox>,
    root: Option<&'a Path>,
    keep: usize,
    deadline: Instant,
}

impl<'a> Run<'a> {
    /// `deadline` is when the whole process group is killed.
    #[must_use]
    pub fn new(program: &'a Program, deadline: Instant) -> Self {
        Run {
            program,
            arg0: None,
            args: Vec::new(),
            stdin: &[],
            pass: Vec::new(),
            env: Vec::new(),
            sandbox: None,
            root: None,
            keep: OUTPUT_CAP,
            deadline,
        }
    }

    /// The name the program sees itself under; multi-call binaries choose their personality by it.
    #[must_use]
    pub fn arg0(mut self, name: &'a str) -> Self {
        self.arg0 = Some(name);
        self
    }

    /// Adds arguments, each exactly one word of the child's argument vector.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Bytes for standard input; without them it is at its end from the start.
    #[must_use]
    pub fn stdin(mut self, bytes: &'a [u8]) -> Self {
        self.stdin = bytes;
        self
    }

    /// Lets the child inherit this descriptor under the same number; name it in the arguments by [`fd_path`].
    #[must_use]
    pub fn pass(mut self, fd: BorrowedFd<'a>) -> Self {
        self.pass.push(fd);
        self
    }

    /// One more environment variable; for programs that take their settings in no other way.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Locks the child in further than this process is.
    #[must_use]
    pub fn sandbox(mut self, sandbox: &'a Sandbox) -> Self {
        self.sandbox = Some(sandbox);
        self
    }

    /// The world's root; anything but `/` is handed on as `BLOCKHOST_ROOT`.
    #[must_use]
    pub fn root(mut self, root: &'a Path) -> Self {
        self.root = (root != Path::new("/")).then_some(root);
        self
    }

    /// Keeps this many bytes of each output stream in place of [`OUTPUT_CAP`], for output that is parsed.
    #[must_use]
    pub fn keep(mut self, bytes: usize) -> Self {
        self.keep = bytes;
        self
    }

    /// Runs it to its end or to the deadline.
    ///
    /// # Errors
    /// [`ExecError`] when it could not be started or talked to. A failing program is not an error here.
    pub fn run(self) -> Result<Output, ExecError> {
        let path = self.program.path().to_path_buf();
        let io = |what| {
            let path = path.clone();
            move |source: std::io::Error| ExecError::Io { path, what, source }
        };
        let (stdin_read, stdin_write) = std::io::pipe().map_err(io("input pipe"))?;
        let mut child = self
            .spawn(stdin_read.into())
            .map_err(|source| ExecError::Spawn {
                path: path.clone(),
                source,
            })?;
        let watched = Watched::new(
            &mut child,
            OwnedFd::from(stdin_write),
            self.stdin,
            self.keep,
        )
        .and_then(|watched| watched.until(self.deadline));
        match watched {
            Ok((stdout, stderr, timed_out)) => {
                let status = child.wait().map_err(io("end"))?;
                let ended = match (timed_out, status.code()) {
                    (true, _) => Ended::TimedOut,
                    (false, Some(code)) => Ended::Exited(code),
                    (false, None) => Ended::Signalled(status.signal().unwrap_or(0)),
                };
                Ok(Output {
                    ended,
                    stdout,
                    stderr,
                })
            }
            Err(source) => {
                kill_group(&child, Signal::KILL);
                let _ = child.wait();
                Err(io("supervision")(source))
            }
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the module the rule sends everyone to"
    )]
    fn spawn(&self, stdin: OwnedFd) -> std::io::Result<Child> {
        let mut command = Command::new(fd_path(self.program.executable()));
        let mut pass = self.pass.clone();
        match self.program.script() {
            None => {
                command.arg0(self.arg0.map_or_else(
                    || self.program.path().as_os_str().to_owned(),
                    OsString::from,
                ));
            }
            Some(script) => {
                // The kernel would hand the interpreter a path to a descriptor that is closed by then.
                command
                    .arg0(&script.interpreter)
                    .args(&script.argument)
                    .arg(fd_path(script.file.as_fd()));
                pass.push(script.file.as_fd());
            }
        }
        command
            .args(&self.args)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .env("HOME", "/")
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(root) = self.root {
            command.env("BLOCKHOST_ROOT", root);
        }
        command
            .current_dir("/")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let pass = pass.iter().map(AsRawFd::as_raw_fd).collect();
        child::isolate(&mut command, pass, self.sandbox);
        command.spawn()
    }
}

/// The path under which a child opens a descriptor that it inherited.
#[must_use]
pub fn fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn kill_group(child: &Child, signal: Signal) {
    // Called only before the child is reaped: until then its number names its group and nobody else's.
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, signal);
    }
}

/// A running child and the three pipes to it.
struct Watched<'a> {
    child: &'a mut Child,
    pidfd: OwnedFd,
    input: Option<std::fs::File>,
    left: &'a [u8],
    outputs: [(Option<std::fs::File>, Captured); 2],
}

impl<'a> Watched<'a> {
    fn new(
        child: &'a mut Child,
        input: OwnedFd,
        bytes: &'a [u8],
        keep: usize,
    ) -> std::io::Result<Self> {
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| std::io::Error::other("no pid"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        rustix::io::ioctl_fionbio(&input, true)?;
        for output in [&stdout, &stderr].into_iter().flatten() {
            rustix::io::ioctl_fionbio(output, true)?;
        }
        let outputs = [
            (stdout.map(Into::into), Captured::new(keep)),
            (stderr.map(Into::into), Captured::new(keep)),
        ];
        let input = (!bytes.is_empty()).then(|| input.into());
        Ok(Watched {
            child,
            pidfd,
            input,
            left: bytes,
            outputs,
        })
    }

    /// Moves bytes until the child has ended and its output is drained; true when it had to be killed.
    fn until(mut self, deadline: Instant) -> std::io::Result<(Captured, Captured, bool)> {
        let (mut timed_out, mut ended) = (false, false);
        let mut next = deadline;
        loop {
            let now = Instant::now();
            if now >= next {
                if ended {
                    self.take_what_is_there()?;
                    break;
                }
                let signal = if timed_out {
                    Signal::KILL
                } else {
                    Signal::TERM
                };
                kill_group(self.child, signal);
                timed_out = true;
                next = now + KILL_GRACE;
                continue;
            }
            let gone = self.wait(next - now, ended)?;
            self.transfer()?;
            if gone && !ended {
                ended = true;
                if timed_out {
                    // Whatever of the group outlived its leader had its polite warning.
                    kill_group(self.child, Signal::KILL);
                }
                next = Instant::now() + DRAIN_GRACE;
            }
            if ended && self.outputs.iter().all(|(file, _)| file.is_none()) {
                break;
            }
        }
        let [(_, stdout), (_, stderr)] = self.outputs;
        Ok((stdout, stderr, timed_out))
    }

    /// Sleeps until something moves; true when the child has ended.
    fn wait(&self, limit: Duration, ended: bool) -> std::io::Result<bool> {
        let mut fds = Vec::with_capacity(4);
        if !ended {
            fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
        }
        for (file, _) in &self.outputs {
            fds.extend(file.iter().map(|file| PollFd::new(file, PollFlags::IN)));
        }
        fds.extend(
            self.input
                .iter()
                .map(|file| PollFd::new(file, PollFlags::OUT)),
        );
        let limit = Timespec::try_from(limit).unwrap_or(Timespec {
            tv_sec: 3600,
            tv_nsec: 0,
        });
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(ended || fds.first().is_some_and(|fd| !fd.revents().is_empty()))
    }

    /// Of what the program printed before its end nothing is missing, also where there was no time to take it until now.
    fn take_what_is_there(&mut self) -> std::io::Result<()> {
        for _ in 0..PIPE.div_ceil(PIECE) {
            self.transfer()?;
        }
        Ok(())
    }

    fn transfer(&mut self) -> std::io::Result<()> {
        let mut buffer = [0u8; PIECE];
        for (file, captured) in &mut self.outputs {
            let Some(open) = file else { continue };
            match open.read(&mut buffer) {
                Ok(0) => *file = None,
                Ok(count) => captured.push(buffer.get(..count).unwrap_or_default()),
                Err(error) if would_block(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(input) = &mut self.input {
            match input.write(self.left) {
                Ok(count) => self.left = self.left.get(count..).unwrap_or_default(),
                Err(error) if would_block(&error) => {}
                // The program may stop reading whenever it likes; its exit code tells whether it minded.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => self.left = &[],
                Err(error) => return Err(error),
            }
            if self.left.is_empty() {
                self.input = None;
            }
        }
        Ok(())
    }
}

fn would_block(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_printed_is_taken_whole_also_when_the_time_for_it_is_over() {
        #[expect(clippy::disallowed_methods, reason = "a child as it is watched here")]
        let mut child = Command::new("/bin/sh")
            .args(["-c", "sleep 1000 & head -c 60000 /dev/zero"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let input = child.stdin.take().expect("a pipe").into();
        let mut watched = Watched::new(&mut child, input, &[], OUTPUT_CAP).expect("watched");
        // Nobody took anything while it ran; what it left running has its output open.
        while !watched.wait(Duration::ZERO, false).expect("looked") {
            std::thread::sleep(Duration::from_millis(5));
        }
        watched.take_what_is_there().expect("taken");
        kill_group(watched.child, Signal::KILL);
        let [(open, captured), _] = watched.outputs;
        assert!(open.is_some(), "no end of it was to be seen");
        assert_eq!(captured.whole().map(|bytes| bytes.len()), Some(60_000));
        child.wait().expect("its end");
    }
}
