//! Why the switch did not do it, and what the client is told. Everything here that came from the switch is escaped.

use std::path::PathBuf;

use blockhost_proto::escape;
use blockhost_proto::response::ErrorCode;
use rustix::io::Errno;

use super::framer::FramerError;
use crate::compartment::Failure;

/// What went wrong on one of the switch's sockets.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Nobody listens there.
    #[error("nothing answers on {} ({errno}); is the package openvswitch-switch installed and its service running?", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The directory is another one than at start.
    #[error("{} was replaced since the agent started; restart blockhost-root-agent", .0.display())]
    Replaced(PathBuf),
    /// The other side went away.
    #[error("{peer} closed the connection {when}")]
    Closed {
        /// Who.
        peer: &'static str,
        /// What was being done.
        when: &'static str,
    },
    /// The other side took too long.
    #[error("{peer} did not answer in time {when}")]
    TimedOut {
        /// Who.
        peer: &'static str,
        /// What was being done.
        when: &'static str,
    },
    /// The socket itself failed.
    #[error("the socket of {peer} failed: {errno}")]
    Socket {
        /// Who.
        peer: &'static str,
        /// The kernel's reason.
        errno: Errno,
    },
    /// What arrived is not the protocol.
    #[error("{peer} sent nonsense: {what}")]
    Nonsense {
        /// Who.
        peer: &'static str,
        /// What about it.
        what: String,
    },
    /// The switch understood and refused.
    #[error("the switch refused: {0}")]
    Refused(String),
    /// A guard did not hold: somebody else changed the database between reading and writing.
    #[error("the switch's configuration was changed by someone else meanwhile; try again")]
    Raced,
}

impl SwitchError {
    /// Nonsense from a peer, its text escaped.
    pub fn nonsense(peer: &'static str, what: impl AsRef<str>) -> Self {
        Self::Nonsense {
            peer,
            what: escape::shown_up_to(what.as_ref(), 160),
        }
    }

    /// A refusal in the switch's own words, escaped.
    pub fn refused(text: impl AsRef<str>) -> Self {
        Self::Refused(escape::shown_up_to(text.as_ref(), 400))
    }
}

impl From<SwitchError> for Failure {
    fn from(error: SwitchError) -> Self {
        let code = match error {
            SwitchError::TimedOut { .. } => ErrorCode::Timeout,
            SwitchError::Raced => ErrorCode::Busy,
            _ => ErrorCode::Failed,
        };
        Failure::new(code, error.to_string())
    }
}

/// The OVSDB framer's errors with the peer's name.
pub(super) fn framing(peer: &'static str) -> impl Fn(FramerError) -> SwitchError {
    move |error| SwitchError::nonsense(peer, error.to_string())
}
