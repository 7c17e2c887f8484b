//! What a caller on the bus is told: names that programs can tell apart, sentences for people.

use blockhost_ledger::service::ServiceError;
use blockhost_proto::client::CallError;
use blockhost_proto::response::ErrorCode;

use crate::network::attach::AttachError;
use crate::network::bindings::BindingError;
use crate::network::observe::ObserveError;
use crate::state::StateError;
use crate::state::record::RecordError;

/// Longest sentence; what comes from elsewhere is cut.
const MAX_SENTENCE: usize = 1000;

/// An error with its name on the bus, `dev.ovs.PortAgent1.Error.<name>`.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "dev.ovs.PortAgent1.Error")]
pub enum BusError {
    /// Errors of the bus itself keep their names.
    #[zbus(error)]
    Bus(zbus::Error),
    /// An argument breaks a rule.
    InvalidArgument(String),
    /// Neither polkit nor the agent's policy permits it.
    NotAuthorized(String),
    /// It does not exist.
    NotFound(String),
    /// It exists already, is somebody else's, or its state does not allow this.
    Conflict(String),
    /// A limit is reached; try again.
    Busy(String),
    /// It took too long; whether it happened is in the ledger.
    TimedOut(String),
    /// The root agent, the switch or the ledger is not there.
    Unavailable(String),
    /// It was tried and failed.
    Failed(String),
}

/// One bounded line: messages on the bus end in logs and terminals.
pub(super) fn sentence(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    blockhost_proto::escape::cut(&mut line, MAX_SENTENCE);
    line
}

impl BusError {
    /// An argument that breaks its rule.
    pub(super) fn argument(name: &str, rule: impl std::fmt::Display) -> Self {
        Self::InvalidArgument(sentence(&format!("{name}: {rule}")))
    }
}

impl From<CallError> for BusError {
    fn from(error: CallError) -> Self {
        let text = sentence(&error.to_string());
        match error {
            CallError::Connect { .. } => Self::Unavailable(text),
            CallError::Timeout { .. } => Self::TimedOut(text),
            CallError::Protocol { .. } => Self::Failed(text),
            CallError::Refused { code, .. } => match code {
                ErrorCode::BadParams => Self::InvalidArgument(text),
                ErrorCode::Forbidden => Self::NotAuthorized(text),
                ErrorCode::NotFound => Self::NotFound(text),
                ErrorCode::Conflict => Self::Conflict(text),
                ErrorCode::Busy => Self::Busy(text),
                ErrorCode::Timeout => Self::TimedOut(text),
                _ => Self::Failed(text),
            },
        }
    }
}

impl From<ObserveError> for BusError {
    fn from(error: ObserveError) -> Self {
        match error {
            ObserveError::Agent(error) => error.into(),
            other => Self::Failed(sentence(&other.to_string())),
        }
    }
}

impl From<AttachError> for BusError {
    fn from(error: AttachError) -> Self {
        let text = sentence(&error.to_string());
        match error {
            AttachError::NotFound(_) => Self::NotFound(text),
            AttachError::Unsuitable(_) => Self::InvalidArgument(text),
            AttachError::Taken(_) => Self::Conflict(text),
        }
    }
}

impl From<BindingError> for BusError {
    fn from(error: BindingError) -> Self {
        Self::Failed(sentence(&error.to_string()))
    }
}

impl From<ServiceError> for BusError {
    fn from(error: ServiceError) -> Self {
        let text = sentence(&error.to_string());
        match error {
            ServiceError::Argument { .. } => Self::InvalidArgument(text),
            ServiceError::Query(_) => Self::Unavailable(text),
        }
    }
}

impl From<StateError> for BusError {
    fn from(error: StateError) -> Self {
        let text = sentence(&error.to_string());
        match error {
            StateError::Document(_) => Self::InvalidArgument(text),
            StateError::NoPlugin { .. } => Self::NotFound(text),
            StateError::Record(RecordError::Locked { .. }) => Self::Busy(text),
            StateError::Record(_) | StateError::Broken => Self::Failed(text),
        }
    }
}

impl From<tokio::task::JoinError> for BusError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Failed(sentence(&format!("the work was broken off: {error}")))
    }
}

impl From<serde_json::Error> for BusError {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(sentence(&format!("the answer cannot be written: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::DBusError as _;

    #[test]
    fn what_the_agent_refuses_has_its_own_name_and_one_line() {
        for (code, name) in [
            (ErrorCode::NotFound, "NotFound"),
            (ErrorCode::Forbidden, "NotAuthorized"),
            (ErrorCode::BadParams, "InvalidArgument"),
            (ErrorCode::Conflict, "Conflict"),
            (ErrorCode::Busy, "Busy"),
            (ErrorCode::Timeout, "TimedOut"),
            (ErrorCode::Internal, "Failed"),
        ] {
            let message = "two\nlines ".repeat(1000);
            let error = BusError::from(CallError::Refused { code, message });
            assert_eq!(
                error.name().as_str(),
                format!("dev.ovs.PortAgent1.Error.{name}")
            );
            let text = error.description().expect("a sentence");
            assert!(text.len() <= MAX_SENTENCE && !text.contains('\n'), "{text}");
        }
    }
}
