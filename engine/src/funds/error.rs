//! Why money was not moved.

use crate::agent::RecordError;
use crate::chain::ChainError;
use crate::config::SetupError;
use crate::outbox::OutboxError;
use crate::sending::SendError;
use crate::wallets::{BookError, TokenError};
use std::path::PathBuf;

/// Why money was not moved, or it is not known whether it was.
#[derive(Debug, thiserror::Error)]
pub enum FundsError {
    /// Configuration.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The endpoints.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Tokens.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The address book.
    #[error(transparent)]
    Book(#[from] BookError),
    /// Sending.
    #[error(transparent)]
    Sending(#[from] SendError),
    /// Who gets what.
    #[error(transparent)]
    Shares(#[from] super::shares::SharesError),
    /// Planning.
    #[error(transparent)]
    Plan(#[from] super::plan::PlanError),
    /// The ledger.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The lock.
    #[error("cannot lock {path}: {source}", path = .path.display())]
    Lock {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody else pays, for too long.
    #[error(
        "another payment of this host is under way ({who}) and did not end within {seconds} s, so this one was not begun. Try \
         again later; what the other one waits for, `blockhost funds status` shows"
    )]
    Busy {
        /// Who.
        who: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A stored step cannot be read.
    #[error("order {order}: step {number} cannot be read: {reason}")]
    Step {
        /// Which order.
        order: i64,
        /// Which step.
        number: i64,
        /// Why.
        reason: String,
    },
    /// A step failed for good, and with it what a person ordered.
    #[error(
        "step {number} of {of} failed: {reason}; {done} of them were done, the rest is not done any more"
    )]
    Failed {
        /// Which step.
        number: i64,
        /// Of how many.
        of: usize,
        /// How many were done.
        done: usize,
        /// Why.
        reason: String,
    },
    /// Too early to sign it again.
    #[error(
        "step {number} of order {order} is not tried again yet: the attempt before is not deep enough in the chain, and a reorganisation could still give it its effect"
    )]
    Unsettled {
        /// Which order.
        order: i64,
        /// Which step.
        number: i64,
    },
    /// What is there is not all the host's to share out.
    #[error(
        "order {order} is not done, and what it is to pay is still there: the daily round waits for it; see `blockhost funds status`"
    )]
    Promised {
        /// Which order.
        order: i64,
    },
    /// More than one thing went wrong.
    #[error("{0}")]
    Several(String),
    /// A step that has no effect, or would have one that nobody expects any more.
    #[error("{0}")]
    Useless(String),
    /// Nobody to pay the rest to.
    #[error("the address book has no {0}; see `ab --init`")]
    NotSetUp(&'static str),
}

/// What went wrong with one thing and keeps nothing else from being done.
#[derive(Debug, Default)]
pub(super) struct Troubles(Vec<(String, FundsError)>);

impl Troubles {
    /// Keeps it, unless everything is to end.
    pub(super) fn add(
        &mut self,
        what: &str,
        done: Result<(), FundsError>,
    ) -> Result<(), FundsError> {
        match done {
            Ok(()) => {}
            Err(e @ FundsError::Sending(SendError::Stopped)) => return Err(e),
            Err(e) => self.0.push((what.to_owned(), e)),
        }
        Ok(())
    }

    /// All of it.
    pub(super) fn end(mut self) -> Result<(), FundsError> {
        if self.0.len() > 1 {
            let all = self.0.iter().map(|(what, e)| format!("{what}: {e}"));
            return Err(FundsError::Several(all.collect::<Vec<_>>().join("; ")));
        }
        self.0.pop().map_or(Ok(()), |(_, e)| Err(e))
    }
}
