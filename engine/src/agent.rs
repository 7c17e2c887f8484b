//! What the engine asks of the root agent itself: one record in the ledger per event and deed.

use blockhost_proto::action::Action;
use blockhost_proto::client::CallError;
use blockhost_proto::client::tokio::Client;
use blockhost_proto::layout::Layout;
use serde_json::Value;

/// Why an event could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It does not fit the catalog.
    #[error("the event {action} cannot be recorded: {reason}")]
    Event {
        /// Which event.
        action: String,
        /// What the catalog minds.
        reason: String,
    },
    /// The agent.
    #[error("recording in the ledger: {0}")]
    Call(#[from] CallError),
}

/// Appends an event of category `chain` to the ledger and gives its index, where the agent says it.
///
/// # Errors
/// [`RecordError`].
pub async fn record(
    layout: &Layout,
    action: &str,
    resource: &str,
    data: Value,
) -> Result<Option<u64>, RecordError> {
    let params = serde_json::json!({"category": "chain", "action": action, "resource": resource, "data": data});
    let append = Action::from_parts("ledger-append", &params).map_err(|e| RecordError::Event {
        action: action.to_owned(),
        reason: e.to_string(),
    })?;
    let mut client = Client::connect_layout(layout).await?;
    let reply = client.call(&append).await?;
    Ok(reply.receipt.map(|receipt| receipt.index))
}
