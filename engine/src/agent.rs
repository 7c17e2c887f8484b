//! What the engine asks of the root agent itself: one record in the ledger per event, deed and anchor.

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
    ask(layout, "ledger-append", action, &params).await
}

/// Puts on record that a head of the ledger is anchored, and gives the record's index, where the agent says it. The agent
/// checks the proof in `params`.
///
/// # Errors
/// [`RecordError`].
pub async fn anchored(layout: &Layout, params: &Value) -> Result<Option<u64>, RecordError> {
    ask(layout, "ledger-anchored", "ledger-anchored", params).await
}

async fn ask(
    layout: &Layout,
    name: &str,
    event: &str,
    params: &Value,
) -> Result<Option<u64>, RecordError> {
    let action = Action::from_parts(name, params).map_err(|e| RecordError::Event {
        action: event.to_owned(),
        reason: e.to_string(),
    })?;
    let mut client = Client::connect_layout(layout).await?;
    let reply = client.call(&action).await?;
    Ok(reply.receipt.map(|receipt| receipt.index))
}
