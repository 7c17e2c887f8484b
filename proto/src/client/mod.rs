//! Clients of the agent's socket. One connection carries any number of calls; a connection on which a call timed out or
//! broke off is never used again, so that an answer can't be taken for that of another question.

pub mod blocking;
#[cfg(feature = "tokio")]
pub mod tokio;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::action::Action;
use crate::request::Request;
use crate::response::{Body, ErrorCode, Receipt, Response};
use crate::wire;

/// Answers longer than this are not read. Larger than the agent's default, which an operator may raise.
pub const MAX_ANSWER: usize = 16 << 20;
/// How long connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Added to an action's own limit: time in queues of the agent before it starts.
pub const QUEUE_ALLOWANCE: Duration = Duration::from_secs(60);

/// A successful answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Text for the caller.
    pub output: String,
    /// Where the ledger holds the outcome.
    pub receipt: Option<Receipt>,
    /// Fields of this action, such as `address`; `truncated` when the output was cut.
    pub extra: Map<String, Value>,
}

/// Why a call gave no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The socket could not be reached.
    #[error("cannot reach the root agent at {}: {source}; is blockhost-root-agent running, and are you in group blockhost?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// No answer in time. Whether the action happened is unknown. One that waits for others of its machine or device has no
    /// record yet, and begins only while this connection is open. One that has a record begins whatever becomes of the
    /// connection, and perhaps has to wait for room in its process first; its outcome says what became of it.
    #[error("no answer from the root agent within {} s; the ledger tells whether it began and what became of it", after.as_secs())]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The connection broke, or what came is not this protocol.
    #[error("the connection to the root agent is broken: {what}")]
    Protocol {
        /// What happened.
        what: String,
    },
    /// The agent said no.
    #[error("{code}: {message}")]
    Refused {
        /// The machine-readable reason.
        code: ErrorCode,
        /// The agent's sentence.
        message: String,
    },
}

impl CallError {
    /// The agent's code, when it was the agent that refused.
    #[must_use]
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol { what: what.into() }
    }

    fn connect(path: &Path, source: std::io::Error) -> Self {
        Self::Connect {
            path: path.to_owned(),
            source,
        }
    }
}

/// How long [`blocking::Client::call`] waits for this action.
#[must_use]
pub fn default_timeout(action: &Action) -> Duration {
    action.time_limit() + QUEUE_ALLOWANCE
}

fn frame(action: &Action, id: u64, dry_run: bool) -> Result<Vec<u8>, CallError> {
    let request = Request {
        action: action.clone(),
        id: Some(id.to_string()),
        dry_run,
    };
    wire::encode_frame(&request.encode(), wire::MAX_FRAME)
        .map_err(|e| CallError::protocol(e.to_string()))
}

/// What was read from the stream, as the result of call number `id`.
fn result_of(payload: &[u8], id: u64) -> Result<Result<Reply, CallError>, CallError> {
    let response = Response::decode(payload).map_err(|e| CallError::protocol(e.to_string()))?;
    match response.body {
        // A refusal without id is about the frame or the connection, and is the last thing that comes.
        Body::Refusal { code, message } if response.id.is_none() => {
            Err(CallError::Refused { code, message })
        }
        _ if response.id.as_deref() != Some(id.to_string().as_str()) => Err(CallError::protocol(
            "the answer belongs to another question",
        )),
        Body::Refusal { code, message } => Ok(Err(CallError::Refused { code, message })),
        Body::Success { output, extra } => Ok(Ok(Reply {
            output,
            receipt: response.receipt,
            extra,
        })),
    }
}

/// Nobody accepted the connection in time. Nothing was asked.
fn not_taken(limit: Duration) -> std::io::Error {
    let text = format!("it took no connection within {} s", limit.as_secs());
    std::io::Error::new(std::io::ErrorKind::TimedOut, text)
}

/// Paths longer than this do not fit into a socket address.
const SUN_PATH_MAX: usize = 107;

/// A path that fits: the directory is opened and named by its descriptor where the whole path is too long.
fn short_path(path: &Path) -> std::io::Result<(PathBuf, Option<std::fs::File>)> {
    use std::os::fd::AsRawFd as _;
    if path.as_os_str().len() <= SUN_PATH_MAX {
        return Ok((path.to_owned(), None));
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok((path.to_owned(), None));
    };
    let directory = std::fs::File::open(directory)?;
    let short = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name);
    Ok((short, Some(directory)))
}
