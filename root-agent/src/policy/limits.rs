//! Limits of the socket and of what runs behind it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits of the socket; the defaults are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest request frame, bytes.
    pub request_bytes: u32,
    /// Longest response frame, bytes.
    pub response_bytes: u32,
    /// Seconds for a started frame to arrive whole.
    pub frame_s: u64,
    /// Seconds a connection may be idle.
    pub idle_s: u64,
    /// Seconds a peer may leave an answer unread.
    pub write_stall_s: u64,
    /// Connections per uid.
    pub connections_per_uid: usize,
    /// Connections in all.
    pub connections: usize,
    /// Requests in flight per connection.
    pub in_flight: usize,
    /// Seconds that running actions get to finish after SIGTERM.
    pub drain_s: u64,
    /// Refusals recorded in the ledger per minute and uid; the rest is counted.
    pub refusals_per_minute: u32,
    /// Ports the agent keeps open at once, and addresses it maps at once, in each of the two firewalls.
    pub firewall_rules: usize,
    /// Confidential payloads beside the ledger.
    pub ledger_blobs: u64,
    /// Bytes of them together.
    pub ledger_blob_bytes: u64,
    /// Days that the payloads of records are kept at least.
    pub ledger_retention_days: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 1 << 20,
            response_bytes: 1 << 20,
            frame_s: 10,
            idle_s: 300,
            write_stall_s: 30,
            connections_per_uid: 64,
            connections: 256,
            in_flight: 32,
            drain_s: 30,
            refusals_per_minute: 30,
            firewall_rules: 4096,
            ledger_blobs: 16_384,
            ledger_blob_bytes: 256 << 20,
            ledger_retention_days: 365,
        }
    }
}

impl Limits {
    /// Time for a started frame to arrive whole.
    pub fn frame_time(&self) -> Duration {
        Duration::from_secs(self.frame_s)
    }

    /// Time a connection may be idle.
    pub fn idle_time(&self) -> Duration {
        Duration::from_secs(self.idle_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_the_seconds_of_the_policy() {
        let limits = Limits {
            frame_s: 7,
            idle_s: 70,
            ..Limits::default()
        };
        assert_eq!(limits.frame_time(), Duration::from_secs(7));
        assert_eq!(limits.idle_time(), Duration::from_secs(70));
    }
}
