//! What the engine asks of the root agent itself: one record in the ledger per event, deed and anchor.

use blockhost_ledger::plugin::{Registry, redact};
use blockhost_proto::action::{Action, QmList};
use blockhost_proto::client::CallError;
use blockhost_proto::client::tokio::Client;
use blockhost_proto::layout::Layout;
use serde_json::Value;
use std::collections::BTreeSet;

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
    record_in(layout, Kind::chain(), action, resource, data).await
}

/// What an event is about.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its category, such as `network`.
    pub category: &'static str,
    /// `query` where something was only looked at; what the plugin of the category takes it for where it is missing.
    pub operation: Option<&'static str>,
}

impl Kind {
    const fn chain() -> Self {
        Self {
            category: "chain",
            operation: None,
        }
    }
}

/// Appends an event of any kind.
///
/// # Errors
/// [`RecordError`].
pub async fn record_in(
    layout: &Layout,
    kind: Kind,
    action: &str,
    resource: &str,
    data: Value,
) -> Result<Option<u64>, RecordError> {
    let fail = |reason| RecordError::Event {
        action: action.to_owned(),
        reason,
    };
    let event = event(kind, action, resource, data).map_err(fail)?;
    ask(layout, event).await
}

/// Puts on record that a head of the ledger is anchored, and gives the record's index, where the agent says it. The agent
/// checks the proof in `params`.
///
/// # Errors
/// [`RecordError`].
pub async fn anchored(layout: &Layout, params: &Value) -> Result<Option<u64>, RecordError> {
    let name = "ledger-anchored";
    let action = Action::from_parts(name, params).map_err(|e| RecordError::Event {
        action: name.to_owned(),
        reason: e.to_string(),
    })?;
    ask(layout, action).await
}

/// Numbers of the machines that run on this host: all that are not stopped. Others are QEMU's own words: one that its guest put to
/// sleep (`suspended`), or that waits for space on a disk (`io-error`), has not ended.
///
/// # Errors
/// One sentence: the agent is not reached, or its answer is not the agreed one.
pub async fn running(layout: &Layout) -> Result<BTreeSet<u32>, String> {
    let mut client = Client::connect_layout(layout)
        .await
        .map_err(|e| e.to_string())?;
    let reply = client
        .call(&QmList {}.into())
        .await
        .map_err(|e| e.to_string())?;
    running_in(&reply.output)
}

fn running_in(output: &str) -> Result<BTreeSet<u32>, String> {
    #[derive(serde::Deserialize)]
    struct Row {
        vmid: u32,
        status: String,
    }
    let rows: Vec<Row> = serde_json::from_str(output).map_err(|e| format!("qm-list: {e}"))?;
    let running = rows.into_iter().filter(|row| row.status != "stopped");
    Ok(running.map(|row| row.vmid).collect())
}

async fn ask(layout: &Layout, action: Action) -> Result<Option<u64>, RecordError> {
    let mut client = Client::connect_layout(layout).await?;
    let reply = client.call(&action).await?;
    Ok(reply.receipt.map(|receipt| receipt.index))
}

/// The event as the ledger's own plugin for the category makes it. A secret that strayed into the data (an error quotes
/// what it was given) is taken out: what happened must be recorded all the same.
fn event(kind: Kind, action: &str, resource: &str, mut data: Value) -> Result<Action, String> {
    if let Some(data) = data.as_object_mut() {
        redact(data);
    }
    let mut data = serde_json::json!({"action": action, "resource": resource, "data": data});
    if let Some(operation) = kind.operation {
        data["operation"] = operation.into();
    }
    let events = Registry::default().process(kind.category, &data);
    match events.map_err(|error| error.to_string())?.as_slice() {
        [event] => Action::from_parts("ledger-append", &event.params()).map_err(|e| e.to_string()),
        _ => Err("it is not one event".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_runs_is_read_from_the_list_and_a_list_of_another_shape_is_not_believed() {
        let list = r#"[{"vmid":100,"name":"a","status":"running"},{"vmid":101,"name":"b","status":"stopped"}]"#;
        assert_eq!(running_in(list), Ok(BTreeSet::from([100])));
        // What is not over runs.
        for word in ["suspended", "paused", "io-error", "unresponsive"] {
            let list = format!(r#"[{{"vmid":100,"name":"a","status":"{word}"}}]"#);
            assert_eq!(running_in(&list), Ok(BTreeSet::from([100])), "{word}");
        }
        for odd in [
            "",
            "{}",
            r#"[{"vmid":"100","status":"running"}]"#,
            r#"[{"vmid":100}]"#,
        ] {
            assert!(running_in(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn an_event_says_what_the_engine_said_and_a_secret_never_leaves_it() {
        let made = event(
            Kind::chain(),
            "subscription-created",
            "subscription:7",
            json!({"block": 1200}),
        )
        .expect("valid");
        let Action::LedgerAppend(append) = made else {
            panic!("another action: {made:?}")
        };
        assert_eq!(
            (append.category.as_str(), append.action.as_str()),
            ("chain", "subscription-created")
        );
        assert_eq!(
            append.resource.map(|r| r.to_string()).as_deref(),
            Some("subscription:7")
        );
        assert_eq!(append.data.map()["block"], 1200);
        let data =
            json!({"user": {"password": "hunter2"}, "detail": "-----BEGIN PRIVATE KEY-----"});
        let made = event(Kind::chain(), "job-failed", "job:7", data).expect("valid");
        assert!(!format!("{made:?}").contains("hunter2") && !format!("{made:?}").contains("BEGIN"));
    }
}
