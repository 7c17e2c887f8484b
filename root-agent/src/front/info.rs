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

/// Everything `agent-info` says.
#[derive(Debug)]
pub struct Facts<'a> {
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

/// The ledger's head as the gate last reported it.
#[derive(Debug, Serialize)]
pub struct Head<'a> {
    /// Records.
    pub size: u64,
    /// Merkle root, hex.
    pub root: &'a str,
}

#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    output: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    version: &'a str,
    backend: &'a str,
    landlock_abi: u32,
    uptime_s: u64,
    counters: &'a Counters,
    ledger: &'a Head<'a>,
}

impl Facts<'_> {
    /// The payload of the answer: one line for people, fields for programs. About 600 bytes, below every limit that
    /// the policy accepts.
    pub fn encode(&self, id: Option<&str>) -> Vec<u8> {
        let output = format!(
            "blockhost-root-agent {}, backend {}, landlock ABI {}, up {} s, {} ledger records",
            self.version, self.backend, self.landlock_abi, self.uptime_s, self.ledger.size
        );
        let mut payload = Vec::with_capacity(1024);
        let answer = Answer {
            ok: true,
            output,
            id,
            version: self.version,
            backend: self.backend,
            landlock_abi: self.landlock_abi,
            uptime_s: self.uptime_s,
            counters: &self.counters,
            ledger: &self.ledger,
        };
        serde_json::to_writer(&mut payload, &answer)
            .expect("texts and numbers always serialise, and memory takes every byte");
        payload
    }
}
