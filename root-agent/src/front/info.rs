//! What the front knows about the agent: the answer to `agent-info`.

use serde_json::{Map, Value, json};

use crate::compartment::Done;

/// Counters since the front started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// Connections refused for their number.
    pub connections_refused: u64,
    /// Frames that held something to answer.
    pub requests: u64,
    /// Requests that failed validation, authorisation or allowlists.
    pub refused: u64,
    /// Requests executed with success.
    pub succeeded: u64,
    /// Requests executed without.
    pub failed: u64,
}

/// Everything `agent-info` says.
#[derive(Debug)]
pub struct Facts<'a> {
    /// `proxmox` or `embedded`.
    pub backend: &'a str,
    /// Landlock ABI in force in the front; 0 without.
    pub landlock_abi: u32,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Counters.
    pub counters: Counters,
    /// Open connections.
    pub open_connections: usize,
    /// Requests queued or executing.
    pub in_flight: usize,
    /// Records in the ledger.
    pub ledger_size: u64,
    /// Merkle root, hex.
    pub ledger_root: &'a str,
}

impl Facts<'_> {
    /// The answer: one line for people, fields for programs.
    pub fn answer(&self) -> Done {
        let version = env!("CARGO_PKG_VERSION");
        let output = format!(
            "blockhost-root-agent {version}, backend {}, landlock ABI {}, up {} s, {} ledger records",
            self.backend, self.landlock_abi, self.uptime_s, self.ledger_size
        );
        let counters = json!({
            "connections": self.counters.connections,
            "connections_refused": self.counters.connections_refused,
            "open_connections": self.open_connections,
            "requests": self.counters.requests,
            "refused": self.counters.refused,
            "succeeded": self.counters.succeeded,
            "failed": self.counters.failed,
            "in_flight": self.in_flight,
        });
        let mut extra = Map::new();
        extra.insert("version".to_owned(), Value::from(version));
        extra.insert("backend".to_owned(), Value::from(self.backend));
        extra.insert("landlock_abi".to_owned(), Value::from(self.landlock_abi));
        extra.insert("uptime_s".to_owned(), Value::from(self.uptime_s));
        extra.insert("counters".to_owned(), counters);
        extra.insert(
            "ledger".to_owned(),
            json!({"size": self.ledger_size, "root": self.ledger_root}),
        );
        Done { output, extra }
    }
}
