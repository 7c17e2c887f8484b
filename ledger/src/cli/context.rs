//! What every verb gets (the directory, where to print), how verbs fail, and how they read keys and small files given
//! on the command line. How records look is in `text`.

use crate::dir::LedgerDir;
use crate::note::{Vkey, parse_vkeys};
use crate::proof::MAX_PROOF_BYTES;
use crate::reader::{ReadError, Reader};
use serde_json::Value;
use std::io::{IsTerminal as _, Read as _, Write};
use std::path::{Path, PathBuf};

/// Where a verb works.
pub(super) struct Context<'a> {
    /// The ledger's directory.
    pub dir: PathBuf,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// The way to the root agent, where there is one.
    pub ask: Option<super::Ask<'a>>,
}

impl Context<'_> {
    /// The directory, opened for reading.
    pub fn ledger(&self) -> Result<LedgerDir, Failure> {
        LedgerDir::open(&self.dir).map_err(|error| ReadError::from(error).into())
    }

    /// A reader of the records.
    pub fn reader(&self) -> Result<Reader, Failure> {
        Ok(Reader::open(self.ledger()?, None)?)
    }

    /// One line of JSON, for programs.
    pub fn json(&mut self, value: &Value) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{value}")?)
    }
}

/// Why a command ends without its answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Exit code 1: the answer is no.
    #[error("{0}")]
    NotVerified(String),
    /// Exit code 2: the arguments do not fit together, which clap could not see.
    #[error("{0}")]
    #[allow(dead_code, reason = "for verbs whose options depend on each other")]
    Usage(String),
    /// Exit code 3: there is nothing to answer from.
    #[error("{0}")]
    Unreadable(String),
    /// Standard output was closed by whoever reads it.
    #[error("standard output is closed")]
    Closed,
}

impl Failure {
    /// The exit code of the program.
    pub fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::NotVerified(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreadable(_) => 3,
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged(_) | ReadError::Changed { .. } => {
                Self::NotVerified(error.to_string())
            }
            ReadError::File(error) if error.errno() == Some(rustix::io::Errno::ACCESS) => {
                Self::Unreadable(format!(
                    "cannot {error}; readers must be root or in the group blockhost"
                ))
            }
            other => Self::Unreadable(other.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::Closed;
        }
        Self::Unreadable(format!("cannot write the answer: {error}"))
    }
}

/// A height as people give it: the first record has 1.
pub(super) fn height() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..)
}

/// The keys of a log: one given as text, or a file with one a line, the log's first key first. Never empty.
pub(super) fn read_keys(given: &str) -> Result<Vec<Vkey>, Failure> {
    if let Ok(key) = Vkey::parse(given) {
        return Ok(vec![key]);
    }
    let text = read_text(Path::new(given), "verifier key")?;
    parse_vkeys(&text).map_err(|error| Failure::Unreadable(error.to_string()))
}

/// The first key of a log, which the others are followed from.
pub(super) fn read_key(given: &str) -> Result<Vkey, Failure> {
    let first = read_keys(given)?.into_iter().next();
    first.ok_or_else(|| Failure::Unreadable("there is no verifier key".to_owned()))
}

/// A small text file, `-` for standard input; `what` names it in the error.
pub(super) fn read_text(file: &Path, what: &str) -> Result<String, Failure> {
    let bytes = read_file(file, what)?;
    // A part of a list of keys or witnesses would be another list.
    if bytes.len() > MAX_PROOF_BYTES {
        let text = format!("the {what} {} is larger than 256 KiB", file.display());
        return Err(Failure::Unreadable(text));
    }
    String::from_utf8(bytes)
        .map_err(|_| Failure::Unreadable(format!("the {what} {} is not text", file.display())))
}

/// A small file, `-` for standard input; `what` names it in the error.
pub(super) fn read_file(file: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    read_up_to(file, what, MAX_PROOF_BYTES as u64)
}

/// The same of at most `most` bytes; one more is read of what is larger, so that the caller can tell.
pub(super) fn read_up_to(file: &Path, what: &str, most: u64) -> Result<Vec<u8>, Failure> {
    let fail = |error: std::io::Error| {
        Failure::Unreadable(format!(
            "cannot read the {what} {}: {error}",
            file.display()
        ))
    };
    let reader: Box<dyn std::io::Read> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(file).map_err(fail)?)
    };
    let mut bytes = Vec::new();
    reader
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    Ok(bytes)
}

/// A request to the root agent: the fields of its answer.
pub(super) fn ask(context: &Context, action: &str, params: &Value) -> Result<Value, Failure> {
    let Some(ask) = context.ask else {
        let text = "there is no way to the root agent from here; use the command `blockhost`";
        return Err(Failure::Unreadable(text.to_owned()));
    };
    ask(action, params).map_err(Failure::Unreadable)
}

/// Asks on the terminal, and wants the number typed; without a terminal the answer is no.
pub(super) fn confirmed(question: &str, number: &str) -> Result<bool, Failure> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Failure::Usage(
            "there is no terminal to ask on: give --yes".to_owned(),
        ));
    }
    let mut error = std::io::stderr();
    write!(error, "{question} Type the number of records: ")?;
    error.flush()?;
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(line.trim() == number)
}
