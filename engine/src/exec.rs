//! The one place that starts programs: no shell, a fixed argument vector, an environment of four variables, output
//! kept within bounds, a time limit after which the whole process group ends.

use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

/// What is kept of each stream; of more, the end, because results and reasons stand there.
const MAX_OUTPUT: usize = 256 * 1024;
/// How long the output of a program that has ended is read while somebody holds it open.
const HELD_OPEN: Duration = Duration::from_secs(5);
/// Between the request to end and the order.
const GRACE: Duration = Duration::from_secs(10);
const SAFE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program with its arguments.
#[derive(Debug, Clone)]
pub struct Program {
    /// Absolute path.
    pub path: PathBuf,
    /// Arguments after the name.
    pub args: Vec<OsString>,
    /// `BLOCKHOST_ROOT` for it.
    pub root: PathBuf,
    /// How long it may run.
    pub limit: Duration,
}

/// How it ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed, at most the last 256 KiB.
    pub stdout: String,
    /// What it complained about, at most the last 256 KiB.
    pub stderr: String,
}

/// Why a program did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It could not be started.
    #[error("cannot start {path}: {source}", path = .path.display())]
    Start {
        /// Which program.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It did not end in time and was killed with all its children.
    #[error("{path} was stopped after {limit_s} s; the end of its stderr: {stderr}", path = .path.display())]
    Timeout {
        /// Which program.
        path: PathBuf,
        /// The limit.
        limit_s: u64,
        /// The end of what it complained about.
        stderr: String,
    },
    /// It failed.
    #[error("{path} failed ({status}): {stderr}", path = .path.display())]
    Failed {
        /// Which program.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it complained about.
        stderr: String,
    },
    /// It could not be observed.
    #[error("cannot follow {path}: {source}", path = .path.display())]
    Follow {
        /// Which program.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Runs a program to its end.
///
/// # Errors
/// [`ExecError`]; a failing exit status is one.
pub async fn run(program: &Program) -> Result<Finished, ExecError> {
    let path = || program.path.clone();
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the module that starts programs"
    )]
    let mut command = std::process::Command::new(&program.path);
    command
        .args(&program.args)
        .env_clear()
        .env("PATH", SAFE_PATH)
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", "/")
        .env("BLOCKHOST_ROOT", &program.root);
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    // Its own group, so that a time limit reaches its children too.
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|source| ExecError::Start {
        path: path(),
        source,
    })?;
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    let (over, runs) = watch::channel(());
    let stdout = tokio::spawn(tail(child.stdout.take(), runs.clone()));
    let stderr = tokio::spawn(tail(child.stderr.take(), runs));

    let ended = tokio::time::timeout(program.limit, child.wait()).await;
    let timed_out = ended.is_err();
    let status = match ended {
        Ok(status) => status,
        Err(_) => {
            signal(group, Signal::TERM);
            let asked = tokio::time::timeout(GRACE, child.wait()).await;
            signal(group, Signal::KILL);
            match asked {
                Ok(status) => status,
                Err(_) => child.wait().await,
            }
        }
    }
    .map_err(|source| ExecError::Follow {
        path: path(),
        source,
    })?;
    drop(over);
    let (stdout, stderr) = (
        stdout.await.unwrap_or_default(),
        stderr.await.unwrap_or_default(),
    );
    if timed_out {
        return Err(ExecError::Timeout {
            path: path(),
            limit_s: program.limit.as_secs(),
            stderr: last_lines(&stderr),
        });
    }
    if !status.success() {
        return Err(ExecError::Failed {
            path: path(),
            status,
            stderr: last_lines(&stderr),
        });
    }
    Ok(Finished {
        status,
        stdout,
        stderr,
    })
}

/// Finds a program by name in the system's directories; a path is taken as it is.
#[must_use]
pub fn find(name: &Path) -> Option<PathBuf> {
    if name.is_absolute() {
        return Some(name.to_owned());
    }
    // `a/b` would depend on the current directory.
    if name.components().count() != 1 {
        return None;
    }
    SAFE_PATH
        .split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // Gone already is as good.
        let _ = kill_process_group(group, signal);
    }
}

/// The end of what comes until the stream ends, or a while after the program has ended: a child that left the group may hold
/// its output open, and what there is by then has to do.
async fn tail(stream: Option<impl AsyncRead + Unpin>, mut runs: watch::Receiver<()>) -> String {
    let Some(mut stream) = stream else {
        return String::new();
    };
    let mut kept: Vec<u8> = Vec::new();
    let mut piece = [0; 8192];
    let given_up = async {
        // Nobody says anything: the other end goes.
        let _ = runs.changed().await;
        tokio::time::sleep(HELD_OPEN).await;
    };
    tokio::pin!(given_up);
    loop {
        let read = tokio::select! {
            read = stream.read(&mut piece) => read,
            () = &mut given_up => break,
        };
        let Ok(n @ 1..) = read else { break };
        kept.extend_from_slice(&piece[..n]);
        if kept.len() > 2 * MAX_OUTPUT {
            kept.drain(..kept.len() - MAX_OUTPUT);
        }
    }
    let from = kept.len().saturating_sub(MAX_OUTPUT);
    kept[from..]
        .utf8_chunks()
        .fold(String::new(), |mut text, chunk| {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                text.push('\u{fffd}');
            }
            text
        })
}

/// The last lines of a text, within what fits into a sentence.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let joined = lines[lines.len().saturating_sub(5)..].join(" | ");
    let skip = joined.chars().count().saturating_sub(1000);
    joined.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Program {
        Program {
            path: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            root: "/srv/world".into(),
            limit,
        }
    }

    const LONG: Duration = Duration::from_secs(120);

    #[tokio::test]
    async fn a_program_that_hangs_is_stopped_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!(
            "sleep 300 & echo $! > {}; echo waiting >&2; wait",
            pid_file.display()
        );
        // On a busy machine it takes a while to begin.
        let mut said = String::new();
        for limit in [500, 4_000, 60_000].map(Duration::from_millis) {
            let error = run(&shell(&script, limit)).await.unwrap_err();
            let ExecError::Timeout { stderr, .. } = error else {
                panic!("{error}");
            };
            said = stderr;
            if !said.is_empty() {
                break;
            }
        }
        assert_eq!(said, "waiting", "it is quoted");
        let pid: i32 = std::fs::read_to_string(pid_file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let gone = || {
            rustix::process::test_kill_process(Pid::from_raw(pid).unwrap()).is_err()
                || is_zombie(pid)
        };
        for _ in 0..3_000 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the child {pid} still runs");
    }

    fn is_zombie(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    }

    #[tokio::test]
    async fn what_a_program_printed_is_kept_although_what_it_left_running_holds_its_output() {
        let done = run(&shell("setsid sleep 10 & echo whole", LONG))
            .await
            .unwrap();
        assert_eq!(done.stdout, "whole\n");
    }

    #[tokio::test]
    async fn a_program_that_fails_is_quoted_with_its_reason() {
        let error = run(&shell(
            "echo first >&2; echo no such plan >&2; exit 3",
            LONG,
        ))
        .await
        .unwrap_err();
        assert!(
            error.to_string().contains("exit status: 3")
                && error.to_string().contains("no such plan"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn nothing_of_our_environment_reaches_the_program() {
        let done = run(&shell("env | sort; pwd", LONG)).await.unwrap();
        let names: Vec<&str> = done
            .stdout
            .lines()
            .filter_map(|l| l.split_once('='))
            .map(|(k, _)| k)
            .filter(|k| *k != "_" && *k != "PWD")
            .collect();
        assert_eq!(names, ["BLOCKHOST_ROOT", "HOME", "LC_ALL", "PATH"]);
        assert!(done.stdout.ends_with("/\n"));
    }

    #[tokio::test]
    async fn endless_output_is_kept_within_bounds_and_its_end_survives() {
        let done = run(&shell("yes | head -c 5000000; echo the end", LONG))
            .await
            .unwrap();
        assert!(done.stdout.len() <= MAX_OUTPUT && done.stdout.ends_with("the end\n"));
    }

    #[test]
    fn a_relative_path_is_no_program() {
        assert_eq!(find(Path::new("./sh")), None);
        assert_eq!(find(Path::new("../bin/sh")), None);
        assert!(find(Path::new("sh")).is_some());
    }
}
