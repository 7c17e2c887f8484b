//! The policy file `/etc/blockhost/root-agent.yaml`: who may ask for what, and the allowlists validation uses.
//! Pure data and pure decisions; reading the file and resolving names to numbers is the supervisor's work.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::allow::Allowlists;
use crate::compartment::Identity;

/// Why a policy is not usable.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The text is not the YAML we expect; the message carries line, column and key.
    #[error("{file}: {detail}")]
    Syntax {
        /// The file as the operator knows it.
        file: String,
        /// The parser's sentence, with line and column.
        detail: String,
    },
    /// A value is well-formed but makes no sense.
    #[error("{file}: {key}: {detail}")]
    Value {
        /// The file as the operator knows it.
        file: String,
        /// Dotted key.
        key: String,
        /// What is wrong and what would be right.
        detail: String,
    },
    /// A rule names an account that does not exist.
    #[error("{file}: rules: there is no {kind} `{name}` on this host; create it or remove the rule")]
    NoAccount {
        /// The file as the operator knows it.
        file: String,
        /// `user` or `group`.
        kind: &'static str,
        /// The name in the rule.
        name: String,
    },
}

/// The whole policy. Every key is optional; a missing file is `Policy::default()`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Who may ask for what. First match does not matter: any rule that matches allows.
    pub rules: Vec<Rule>,
    /// Which hypervisor backend to use.
    pub backend: BackendChoice,
    /// Whether a kernel without Landlock stops the start.
    pub landlock: LandlockChoice,
    /// Values that clients may name.
    pub allow: Allowlists,
    /// Limits of the socket.
    pub limits: Limits,
    /// Seconds per action name, replacing the catalog's time limit.
    pub time_limits: BTreeMap<String, u64>,
    /// Programs to use instead of the ones found in the system directories.
    pub programs: Programs,
    /// Numeric users to use instead of looking up `blockhost-agent`, `blockhost` and `blockhost-vm`.
    pub identities: IdentityOverrides,
}

impl Default for Policy {
    fn default() -> Self {
        let everything = vec!["*".to_owned()];
        Self {
            rules: vec![
                Rule { user: Some(Account::Id(0)), group: None, actions: everything.clone() },
                Rule { user: Some(Account::Name("blockhost".to_owned())), group: None, actions: everything },
            ],
            backend: BackendChoice::Auto,
            landlock: LandlockChoice::Required,
            allow: Allowlists::default(),
            limits: Limits::default(),
            time_limits: BTreeMap::new(),
            programs: Programs::default(),
            identities: IdentityOverrides::default(),
        }
    }
}

/// One rule: a user or a group, and what it may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// User name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Account>,
    /// Group name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Account>,
    /// Action names, families (`qm-*`) or `*`.
    pub actions: Vec<String>,
}

/// A user or group in a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Account {
    /// A number.
    Id(u32),
    /// A name of the system's account files.
    Name(String),
}

/// `backend:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// Proxmox where its `qm` is installed, else the embedded one.
    Auto,
    /// Proxmox VE.
    Proxmox,
    /// `blockhost-qm`.
    Embedded,
}

/// `landlock:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LandlockChoice {
    /// Refuse to start without it.
    Required,
    /// Start without it, and say so.
    Optional,
}

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
    /// `ledger-append` requests accepted per minute and uid.
    pub appends_per_minute: u32,
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
            appends_per_minute: 6000,
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

/// Programs to use instead of the ones found in the system directories.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Programs {
    /// `qm` of the chosen backend; absolute, in root-owned directories.
    pub qm: Option<PathBuf>,
    /// The xtables multi-call binary; absolute, in root-owned directories.
    pub xtables: Option<PathBuf>,
}

/// Numeric users, for hosts without the system users (and for tests).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityOverrides {
    /// Instead of `blockhost-agent`.
    pub agent: Option<Identity>,
    /// Instead of `blockhost`.
    pub blockhost: Option<Identity>,
    /// Instead of `blockhost-vm`.
    pub vm: Option<Identity>,
}
