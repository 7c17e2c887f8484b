//! Starting programs, the only place of this crate that does. Everything the world runs goes through here, so that a
//! failure always says which program, with which arguments, and what it wrote.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Why a program did not do what it was started for.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be started at all.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program as it was asked for.
        program: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It ended with another status than 0.
    #[error("{program} ended with {status}: {stderr}")]
    Failed {
        /// Program and arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to stderr.
        stderr: String,
        /// Everything it wrote to stdout.
        stdout: String,
    },
    /// It did not end in time and was killed.
    #[error("{program} did not end within {limit_s} s and was killed; it had written: {stderr}")]
    TimedOut {
        /// Program and arguments.
        program: String,
        /// The limit in seconds.
        limit_s: u64,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
}

/// What a program that succeeded has written.
#[derive(Debug, Clone)]
pub struct Output {
    /// All of stdout; bytes that are no UTF-8 are shown as `\xNN`.
    pub stdout: String,
    /// All of stderr, likewise.
    pub stderr: String,
}

impl Output {
    /// The last line of stdout that is not empty; where our commands print their result.
    #[must_use]
    pub fn last_line(&self) -> &str {
        self.stdout
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default()
    }
}

/// A command without arguments, with the environment inherited. Programs of the product are started through
/// [`crate::world::World`], which clears the environment first.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the module of this crate that starts programs"
)]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Puts a program into a place of ours, for everybody to run. Another process writes it: a descriptor of ours would be in
/// whatever another thread starts meanwhile, until that is another program, and nobody runs a file that is open for writing.
///
/// # Errors
/// When it cannot be copied.
pub fn install(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut install = command("install");
    install.args(["--mode=755", "--"]).arg(from).arg(to);
    let output = install.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = output.stderr.escape_ascii().to_string();
    Err(std::io::Error::other(said))
}

/// The same for a script.
///
/// # Errors
/// When it cannot be written.
pub fn install_script(text: &str, to: &Path) -> std::io::Result<()> {
    let draft = to.with_extension("draft");
    std::fs::write(&draft, text)?;
    install(&draft, to)?;
    std::fs::remove_file(&draft)
}

/// A command from a program and its arguments.
#[must_use]
pub fn with_args(program: &str, args: &[&str]) -> Command {
    let mut command = command(program);
    command.args(args);
    command
}

/// How many times longer than on a machine that has nothing else to do anything may take: tests run beside others and
/// beside builds. Limits are there against what hangs, and judge nothing.
pub const BUSY: u32 = 6;

/// Runs to the end with stdin closed, keeps what was written. The limit is for a machine with nothing else to do ([`BUSY`]).
///
/// # Errors
/// [`RunError`], with the output of the program in it.
pub fn run(mut command: Command, limit: Duration) -> Result<Output, RunError> {
    let program = describe(&command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| RunError::Start {
            program: program.clone(),
            source,
        })?;
    // Two readers, or a program that fills one pipe while we read the other waits for ever.
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let limit = limit * BUSY;
    let status = wait(&mut child, limit).map_err(|source| RunError::Start {
        program: program.clone(),
        source,
    })?;
    let Some(status) = status else {
        // The readers are not joined: a grandchild may hold the pipes open longer than we want to wait.
        return Err(RunError::TimedOut {
            program,
            limit_s: limit.as_secs(),
            stderr: "(see its log)".to_owned(),
        });
    };
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    if status.success() {
        Ok(Output { stdout, stderr })
    } else {
        Err(RunError::Failed {
            program,
            status,
            stderr: tail(&stderr, 2000),
            stdout,
        })
    }
}

/// Waits at most `limit`; kills and answers `None` after it.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A read error ends the output early; what came before is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        printable(&bytes)
    })
}

/// UTF-8 as it is, every other byte as `\xNN`.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// The last `limit` bytes, on a character boundary.
#[must_use]
pub fn tail(text: &str, limit: usize) -> String {
    let text = text.trim_end();
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

/// The last lines of a log file, for messages; empty when there is none.
#[must_use]
pub fn tail_of_file(path: &Path, limit: usize) -> String {
    std::fs::read(path)
        .map(|bytes| tail(&printable(&bytes), limit))
        .unwrap_or_default()
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    // The wrapper that changes the user is noise in a message.
    if let Some(end) = words.iter().position(|word| word == "--") {
        words.drain(..=end);
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_shows_what_it_wrote() {
        let error = run(
            with_args("sh", &["-c", "echo reason >&2; exit 3"]),
            Duration::from_secs(20),
        )
        .unwrap_err();
        assert!(error.to_string().contains("reason"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_killed_at_its_limit() {
        let error = run(with_args("sleep", &["1000"]), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, RunError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn a_program_that_fills_both_pipes_does_not_block() {
        let script = "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero";
        let output =
            run(with_args("sh", &["-c", script]), Duration::from_secs(20)).expect("it ends");
        assert_eq!(output.stdout.len(), 300_000);
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_not_replaced() {
        assert_eq!(printable(b"a\xffb"), "a\\xffb");
    }
}
