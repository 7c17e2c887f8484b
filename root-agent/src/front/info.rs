//! What the front knows about the agent: the answer to `agent-info`. It is written straight into bytes, because
//! monitors ask for it all the time.

use serde::Serialize;

/// Counters since the front started.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// Connections refused for their number.
    pub connections_refused: u64,
    /// Connections open now.
    pub open_connections: usize,
    /// Frames that held something to answer.
    pub requests: u64,
    /// Requests that failed validation, authorisation or allowlists.
    pub refused: u64,
    /// Requests executed with success.
    pub succeeded: u64,
    /// Requests executed without.
    pub failed: u64,
    /// Requests queued or executing now.
    pub in_flight: usize,
}

/// The ledger's head as the gate last reported it.
#[derive(Debug, Serialize)]
pub struct Head<'a> {
    /// Records.
    pub size: u64,
    /// Merkle root, hex.
    pub root: &'a str,
}

/// Everything `agent-info` says, in the order of the answer.
#[derive(Debug, Serialize)]
pub struct Facts<'a> {
    /// Always.
    pub ok: bool,
    /// One line for people; written by [`Facts::encode`].
    pub output: String,
    /// The request's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// Of this program.
    pub version: &'a str,
    /// `proxmox` or `embedded`.
    pub backend: &'a str,
    /// Landlock ABI in force in the front; 0 without.
    pub landlock_abi: u32,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Counters.
    pub counters: Counters,
    /// Where the ledger stands.
    pub ledger: Head<'a>,
}

impl Facts<'_> {
    /// The payload of the answer: one line for people, fields for programs. About 600 bytes, below every limit that
    /// the policy accepts.
    pub fn encode(mut self) -> Vec<u8> {
        self.output = format!(
            "blockhost-root-agent {}, backend {}, landlock ABI {}, up {} s, {} ledger records",
            self.version, self.backend, self.landlock_abi, self.uptime_s, self.ledger.size
        );
        let mut payload = Vec::with_capacity(1024);
        serde_json::to_writer(&mut payload, &self)
            .expect("texts and numbers always serialise, and memory takes every byte");
        payload
    }
}
