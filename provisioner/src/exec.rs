//! Starting other programs: the only place of this crate that does. A program is an absolute path, found beside our own
//! executable or in the system's directories; its environment is fixed; what it prints is read to a limit.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the module that starts programs"
)]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use blockhost_proto::layout::ROOT_VARIABLE;

use crate::signals::Interrupt;

/// Directories that are searched, and the `PATH` of what is started.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const KEPT_LINES: usize = 40;
const OUTPUT_LIMIT: u64 = 1 << 20;

/// A program that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// Nowhere to be found.
    #[error("the program {name} was not found; {hint}")]
    NotFound {
        /// Its name.
        name: String,
        /// What to install.
        hint: &'static str,
    },
    /// It could not be started or read.
    #[error("{}: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It ended without success.
    #[error("{} ended with {status}:\n{last}", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// Exit code or signal.
        status: String,
        /// The last lines it printed.
        last: String,
    },
    /// A signal came; the program was ended.
    #[error("interrupted")]
    Interrupted,
}

/// Finds `name` beside our own executable, else in the system's directories.
///
/// # Errors
/// [`ExecError::NotFound`] with `hint`.
pub fn find(name: &str, hint: &'static str) -> Result<PathBuf, ExecError> {
    let own = std::env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(Path::to_path_buf));
    own.into_iter()
        .chain(std::env::split_paths(SYSTEM_PATH))
        .map(|directory| directory.join(name))
        .find(|path| is_program(path))
        .ok_or_else(|| ExecError::NotFound {
            name: name.to_owned(),
            hint,
        })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn prepare(program: &Path, args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", SYSTEM_PATH)
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", "/")
        .stdin(Stdio::null());
    if let Some(root) = std::env::var_os(ROOT_VARIABLE) {
        command.env(ROOT_VARIABLE, root);
    }
    command
}

/// Runs a program and gives what it printed on stdout, which has to be text. Secrets go in by `input`, never by `args`,
/// because a command line is public.
///
/// # Errors
/// [`ExecError`].
pub fn run(
    program: &Path,
    args: &[impl AsRef<OsStr>],
    input: Option<&str>,
) -> Result<String, ExecError> {
    let start = |source| ExecError::Start {
        program: program.to_owned(),
        source,
    };
    let mut command = prepare(program, args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(start)?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that does not read all of it says itself what is wrong.
        let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
    }
    let stderr = child.stderr.take();
    let complaints = std::thread::spawn(move || read_limited(stderr));
    let stdout = read_limited(child.stdout.take());
    let status = child.wait().map_err(start)?;
    let complaints = complaints.join().unwrap_or_default();
    if !status.success() {
        return Err(failed(
            program,
            status,
            blockhost_proto::escape::shown_bytes(complaints.trim_ascii()),
        ));
    }
    String::from_utf8(stdout).map_err(|e| start(std::io::Error::other(e)))
}

fn read_limited(stream: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = stream.by_ref().take(OUTPUT_LIMIT).read_to_end(&mut bytes);
        // The rest is read and dropped: a full pipe would stop the program.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }
    bytes
}

fn failed(program: &Path, status: std::process::ExitStatus, last: String) -> ExecError {
    ExecError::Failed {
        program: program.to_owned(),
        status: status.to_string(),
        last,
    }
}

/// Runs a long program and hands every line it prints (stdout and stderr alike) to `line`. When `interrupt` is raised
/// the program's process group is ended.
///
/// # Errors
/// [`ExecError`], with the last lines printed.
pub fn run_watched(
    program: &Path,
    args: &[impl AsRef<OsStr>],
    env: &[(&str, &OsStr)],
    interrupt: &Interrupt,
    mut line: impl FnMut(&str),
) -> Result<(), ExecError> {
    let start = |source| ExecError::Start {
        program: program.to_owned(),
        source,
    };
    let (reader, writer) = std::io::pipe().map_err(start)?;
    let mut command = prepare(program, args);
    command
        .envs(env.iter().copied())
        .stdout(writer.try_clone().map_err(start)?)
        .stderr(writer)
        .process_group(0);
    let mut child = command.spawn().map_err(start)?;
    // The command holds the writing end, and the end of the stream is what ends the loop below.
    drop(command);
    let group = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watcher = {
        let (interrupt, ended) = (interrupt.clone(), std::sync::Arc::clone(&ended));
        std::thread::spawn(move || {
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                if let (true, Some(group)) = (interrupt.is_raised(), group) {
                    let _ =
                        rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        })
    };
    let mut last = std::collections::VecDeque::new();
    let mut lines = BufReader::new(reader);
    let mut bytes = Vec::new();
    while lines
        .by_ref()
        .take(64 << 10)
        .read_until(b'\n', &mut bytes)
        .map_err(start)?
        > 0
    {
        let text = blockhost_proto::escape::shown_bytes(bytes.trim_ascii());
        line(&text);
        last.push_back(text);
        if last.len() > KEPT_LINES {
            last.pop_front();
        }
        bytes.clear();
    }
    let status = child.wait().map_err(start)?;
    ended.store(true, std::sync::atomic::Ordering::Relaxed);
    let _ = watcher.join();
    if interrupt.is_raised() {
        return Err(ExecError::Interrupted);
    }
    if status.success() {
        Ok(())
    } else {
        Err(failed(program, status, Vec::from(last).join("\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_what_to_install() {
        let error = find("no-such-program-here", "install it")
            .unwrap_err()
            .to_string();
        assert!(error.contains("no-such-program-here") && error.contains("install it"));
    }

    #[test]
    fn a_failing_program_shows_its_last_words() {
        let sh = find("sh", "").unwrap();
        let error = run(&sh, &["-c", "echo out; echo why >&2; exit 3"], None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("why") && error.contains('3'), "{error}");
        let error = run_watched(
            &sh,
            &["-c", "echo a; echo b >&2; exit 4"],
            &[],
            &Interrupt::default(),
            |_| {},
        );
        assert!(error.unwrap_err().to_string().ends_with("a\nb"));
    }

    #[test]
    fn an_interrupt_ends_the_program_and_its_children() {
        let sh = find("sh", "").unwrap();
        let interrupt = Interrupt::default();
        let began = std::time::Instant::now();
        let result = run_watched(
            &sh,
            &["-c", "echo go; sleep 1000 & wait"],
            &[],
            &interrupt,
            |_| interrupt.raise(),
        );
        assert!(matches!(result, Err(ExecError::Interrupted)));
        assert!(began.elapsed().as_secs() < 500);
    }

    #[test]
    fn input_reaches_the_program_and_not_its_command_line() {
        let cat = find("cat", "").unwrap();
        assert_eq!(run(&cat, &[] as &[&str], Some("secret")).unwrap(), "secret");
    }
}
