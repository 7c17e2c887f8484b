//! Looks at the switches' counters on a schedule and has what came in between recorded: category `network`, action
//! `flow-stats`. The engine's daemon runs it, `blockhost net flow-stats` looks without recording.

use std::time::Duration;

use blockhost_proto::action::Action;
use blockhost_proto::client::CallError;
use blockhost_proto::client::tokio::Client;
use blockhost_proto::layout::Layout;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;

use super::analytics::{Counters, NoCounters, Traffic, between};
use crate::agent::{Kind, RecordError, record_in};
use crate::config::FlowStatsSection;
use crate::log;

/// What is recorded here was only looked at: what is changed, the agent records itself.
const LOOKED_AT: Kind = Kind {
    category: "network",
    operation: Some("query"),
};

/// Why a look did not end well. The next one may.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The agent.
    #[error("reading the switches' counters: {0}")]
    Call(#[from] CallError),
    /// What it answered.
    #[error(transparent)]
    Answer(#[from] NoCounters),
    /// Its answer is no JSON.
    #[error("the answer of ovs-list is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Recording.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Asks the agent for the counters of all bridges.
///
/// # Errors
/// [`AccountsError`].
pub async fn look(layout: &Layout) -> Result<Counters, AccountsError> {
    let action = Action::from_parts("ovs-list", &json!({"flows": true})).map_err(|error| {
        CallError::Protocol {
            what: error.to_string(),
        }
    })?;
    let reply = Client::connect_layout(layout).await?.call(&action).await?;
    Ok(Counters::read(&serde_json::from_str(&reply.output)?)?)
}

/// The accounts of one host: what was seen last, and when.
#[derive(Debug)]
pub struct Accounts {
    layout: Layout,
    before: Option<(Counters, Timestamp)>,
}

impl Accounts {
    /// Nothing was seen yet: the first look only begins.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            before: None,
        }
    }

    /// Looks, and records what came since the last look that had anything to record. Says how many records it made.
    ///
    /// # Errors
    /// [`AccountsError`]. Where recording fails after the first of several parts, the rest is lost rather than any of it
    /// recorded twice.
    pub async fn settle(&mut self) -> Result<usize, AccountsError> {
        let now = look(&self.layout).await?;
        let until = Timestamp::now();
        let Some((before, since)) = &self.before else {
            self.before = Some((now, until));
            return Ok(0);
        };
        let traffic: Vec<Traffic> = between(before, &now);
        let times = (moment(*since), moment(until));
        let events: Vec<_> = traffic
            .iter()
            .flat_map(|of| {
                let resource = format!("bridge:{}", of.bridge);
                let parts = of.events(&times.0, &times.1);
                parts.into_iter().map(move |data| (resource.clone(), data))
            })
            .collect();
        let count = events.len();
        // While nothing moves there is nothing to record, and the time goes on to count from the last record.
        for (resource, data) in events {
            record_in(&self.layout, LOOKED_AT, "flow-stats", &resource, data).await?;
            self.before = Some((now.clone(), until));
        }
        Ok(count)
    }

    /// Settles again and again until it is told to stop.
    pub async fn run(mut self, settings: FlowStatsSection, mut stop: watch::Receiver<bool>) {
        let mut last_error = String::new();
        while !*stop.borrow() {
            match self.settle().await {
                Ok(_) if last_error.is_empty() => {}
                Ok(_) => {
                    log::info("the switches' counters can be read again", &[]);
                    last_error.clear();
                }
                // Once per reason: a host without a switch must not fill the log.
                Err(error) => {
                    if error.to_string() != last_error {
                        last_error = error.to_string();
                        log::warn("flow statistics", &[("error", &last_error)]);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(settings.every_s)) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
    }
}

/// To the second, as records have it.
fn moment(at: Timestamp) -> String {
    format!("{at:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_without_an_agent_ends_nothing_and_the_loop_ends_when_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let accounts = Accounts::new(Layout::new(dir.path()));
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(accounts.run(FlowStatsSection { every_s: 86_400 }, stopped));
        tokio::task::yield_now().await;
        assert!(
            !running.is_finished(),
            "an agent that is not there ended it"
        );
        stop.send(true).expect("it listens");
        let ended = tokio::time::timeout(Duration::from_secs(20), running).await;
        ended.expect("in time").expect("without a panic");
    }
}
