//! Signals come from the ledger, so that what others asked of the agent is signalled like what was asked here: a thread
//! follows it, and a port is added or removed when its outcome is on record.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::follow::{Followed, Follower};
use serde_json::Value;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::PATH;
use super::desk::Desk;
use super::interface::PortAgent;
use crate::log;

/// How often the ledger is looked at.
const EVERY: Duration = Duration::from_millis(300);
/// How long to wait for a ledger that is not there yet or is damaged.
const AGAIN: Duration = Duration::from_secs(5);
/// Signals of ports sent for one look; whoever needs more asks for the list.
const MAX_PORTS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// Records there are, and how many of them are new.
    Records { height: u64, new: u64 },
    /// A port that came (`true`) or went.
    Port {
        added: bool,
        bridge: String,
        port: String,
    },
    /// A plugin's part of an apply, and whether all of it succeeded.
    Applied { plugin: String, success: bool },
}

/// Follows the ledger and signals, as long as the service runs.
pub(super) async fn run(desk: Arc<Desk>) {
    let (sender, receiver) = channel(1024);
    let dir = desk.layout.ledger();
    let started = std::thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(move || follow(&dir, &sender));
    match started {
        Ok(_) => signal(&desk, receiver).await,
        Err(error) => log::error(
            "no signals: the ledger cannot be followed",
            &[("error", &error)],
        ),
    }
}

async fn signal(desk: &Desk, mut seen: Receiver<Seen>) {
    while let Some(seen) = seen.recv().await {
        if let Err(error) = send(desk, seen).await {
            log::warn("a signal was not sent", &[("error", &error)]);
        }
    }
}

async fn send(desk: &Desk, seen: Seen) -> zbus::Result<()> {
    let object = desk
        .bus
        .object_server()
        .interface::<_, PortAgent>(PATH)
        .await?;
    let emitter = object.signal_emitter();
    if let Seen::Port { .. } = seen {
        // Whoever asks because of the signal is told what is.
        desk.look_again().await;
    }
    match seen {
        Seen::Records { height, new } => {
            desk.set_height(height);
            object.get().await.ledger_height_changed(emitter).await?;
            if new > 0 {
                PortAgent::ledger_appended(emitter, height, new).await?;
            }
        }
        Seen::Port {
            added: true,
            bridge,
            port,
        } => PortAgent::port_added(emitter, &bridge, &port).await?,
        Seen::Port { bridge, port, .. } => {
            PortAgent::port_removed(emitter, &bridge, &port).await?;
        }
        Seen::Applied { plugin, success } => {
            PortAgent::state_applied(emitter, &plugin, success).await?;
        }
    }
    Ok(())
}

/// Until nobody listens any more.
fn follow(dir: &Path, sender: &Sender<Seen>) {
    let mut complained = false;
    while !sender.is_closed() {
        let opened = LedgerDir::open(dir)
            .map_err(|error| error.to_string())
            .and_then(|ledger| {
                Follower::open(ledger, None, &mut |_, _, _| {}).map_err(|error| error.to_string())
            });
        match opened {
            Ok(follower) => {
                complained = false;
                follow_on(follower, sender);
            }
            Err(error) => {
                if !complained {
                    log::warn("the ledger cannot be followed yet", &[("error", &error)]);
                    complained = true;
                }
                std::thread::sleep(AGAIN);
            }
        }
    }
}

fn follow_on(mut follower: Follower, sender: &Sender<Seen>) {
    let mut alarmed = false;
    let mut height = follower.size();
    let first = Seen::Records { height, new: 0 };
    if sender.blocking_send(first).is_err() {
        return;
    }
    while !sender.is_closed() {
        std::thread::sleep(EVERY);
        match follower.poll() {
            Ok(new) => {
                alarmed = false;
                let ports = new.iter().filter_map(event_of).take(MAX_PORTS);
                let records = (follower.size() > height).then(|| Seen::Records {
                    height: follower.size(),
                    new: follower.size() - height,
                });
                height = follower.size();
                for seen in ports.chain(records) {
                    if sender.blocking_send(seen).is_err() {
                        return;
                    }
                }
            }
            Err(error) if !alarmed => {
                log::error(
                    "the ledger is not the one that was followed",
                    &[("error", &error)],
                );
                alarmed = true;
            }
            Err(_) => {}
        }
    }
}

/// What a record says that is signalled: only what is done.
fn event_of(record: &Followed) -> Option<Seen> {
    let record: Value = serde_json::from_slice(&record.bytes).ok()?;
    let added = match record["action"].as_str()? {
        "ovs-add-port" => true,
        "ovs-del-port" => false,
        "state-applied" if record["phase"] == "event" => {
            return Some(Seen::Applied {
                plugin: record["resource"]
                    .as_str()?
                    .strip_prefix("state:")?
                    .to_owned(),
                success: record["metadata"]["result"]["success"] == true,
            });
        }
        _ => return None,
    };
    let done = record["phase"] == "outcome" && record["metadata"]["result"] == "ok";
    let (bridge, port) = record["resource"]
        .as_str()?
        .strip_prefix("ovs:")?
        .split_once('/')?;
    done.then(|| Seen::Port {
        added,
        bridge: bridge.to_owned(),
        port: port.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(action: &str, phase: &str, result: &str, resource: &str) -> Followed {
        let record = json!({"action": action, "phase": phase, "resource": resource, "metadata": {"result": result}});
        Followed {
            index: 0,
            leaf: [0; 32],
            bytes: record.to_string().into_bytes(),
        }
    }

    #[test]
    fn only_what_was_done_to_a_port_is_signalled() {
        let seen = event_of(&record("ovs-add-port", "outcome", "ok", "ovs:ovsbr0/vi100"));
        let port = Seen::Port {
            added: true,
            bridge: "ovsbr0".to_owned(),
            port: "vi100".to_owned(),
        };
        assert_eq!(seen, Some(port));
        for other in [
            record("ovs-add-port", "intent", "ok", "ovs:ovsbr0/vi100"),
            record("ovs-add-port", "outcome", "error", "ovs:ovsbr0/vi100"),
            record("ovs-set-qos", "outcome", "ok", "ovs:ovsbr0/vi100"),
            record("ovs-del-port", "outcome", "ok", "bridge:ovsbr0"),
        ] {
            assert_eq!(event_of(&other), None, "{other:?}");
        }
    }
}
