//! What the database knows about a machine, and about numbers and addresses that are promised to one in the making.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use blockhost_proto::value::{EthAddress, VmName, Vmid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::store::unique::unique;
use crate::throttle::Throttle;
use crate::time::Time;

/// Where a machine is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Paid for, running unless someone stopped it.
    Active,
    /// Expired: stopped, its disk kept.
    Suspended,
    /// Gone; the record is history.
    Destroyed,
}

impl Status {
    /// As it stands in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Destroyed => "destroyed",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Status {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Active, Self::Suspended, Self::Destroyed]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| "expected active, suspended or destroyed".to_owned())
    }
}

/// One machine. Fields that this version does not know are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// Its name, unique among machines that are not destroyed.
    pub vm_name: VmName,
    /// Its number at the backend.
    pub vmid: Vmid,
    /// Its IPv4 address.
    #[serde(default)]
    pub ip_address: Option<Ipv4Addr>,
    /// Its IPv6 address.
    #[serde(default)]
    pub ipv6_address: Option<Ipv6Addr>,
    /// When it is suspended.
    pub expires_at: Time,
    /// Who it belongs to, as the creator put it.
    #[serde(default)]
    pub owner: String,
    /// Where it is in its life.
    pub status: Status,
    /// When it was registered.
    pub created_at: Time,
    /// What it is for.
    #[serde(default)]
    pub purpose: String,
    /// The wallet that may enter it.
    #[serde(default)]
    pub wallet_address: Option<EthAddress>,
    /// The user that cloud-init made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// When it was suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_at: Option<Time>,
    /// When it was destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroyed_at: Option<Time>,
    /// The access token of its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nft_token_id: Option<u64>,
    /// Whether the token is on the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nft_minted: Option<bool>,
    /// Whether the guest's GECOS field says what the record says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gecos_synced: Option<bool>,
    /// Its node in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Limits on what it may use, put in force again whenever it starts.
    #[serde(default, skip_serializing_if = "Throttle::is_none")]
    pub throttle: Throttle,
    /// True for a record made with `--mock`: there is no machine behind it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mock: bool,
    /// Fields of other versions.
    #[serde(flatten, deserialize_with = "unique")]
    pub extra: Map<String, Value>,
}

impl VmRecord {
    /// Whether it may be destroyed at `now`: suspended for `grace_days`, and not paid for since. One that was paid for stays,
    /// however long its resumption takes. A record without a date of suspension (another version's) counts from its expiry.
    #[must_use]
    pub fn is_due(&self, now: Time, grace_days: u32) -> bool {
        let since = self.suspended_at.unwrap_or(self.expires_at);
        self.status == Status::Suspended
            && self.expires_at <= now
            && since.plus_days(grace_days) <= now
    }
}

/// What a create had begun when it was last heard of. Written before the deed, so that a deed without entry cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The cloud-init file is written.
    Snippet,
    /// The machine is cloned.
    Clone,
    /// The machine is started.
    Start,
    /// The host route is set.
    Route,
}

/// A number and addresses promised to a machine in the making, and who makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Name of the machine.
    pub name: VmName,
    /// Its number.
    pub vmid: Vmid,
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Process that makes it.
    pub pid: u32,
    /// When that process started, in the kernel's ticks: a pid alone may be another's by now.
    pub pid_start: u64,
    /// The boot during which it started.
    pub boot_id: String,
    /// The host that it runs on; absent in databases of a single host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// When the promise was made.
    pub created_at: Time,
    /// What was begun.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// True for `--mock`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mock: bool,
}

/// State of an access token that is promised to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReservation {
    /// Name of the machine.
    pub vm_name: VmName,
    /// `reserved`, `minted` or `failed`.
    pub status: TokenStatus,
    /// When it was promised.
    pub reserved_at: Time,
    /// Fields of other versions.
    #[serde(flatten, deserialize_with = "unique")]
    pub extra: Map<String, Value>,
}

/// Where a token is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenStatus {
    /// Promised, not on the chain.
    Reserved,
    /// On the chain.
    Minted,
    /// Minting failed; the number may be promised again.
    Failed,
}

/// The identity of this process, for reservations and locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Its start, in the kernel's ticks.
    pub start: u64,
    /// This boot.
    pub boot_id: String,
    /// The host.
    pub node: String,
}

impl Holder {
    /// This process.
    #[must_use]
    pub fn current() -> Self {
        let pid = std::process::id();
        Self {
            pid,
            start: start_of(pid).unwrap_or(0),
            boot_id: boot_id(),
            node: host_name(),
        }
    }

    /// True while the process runs: same boot, same pid, same start. In doubt true: what a living process makes must not
    /// be taken back. Inside our units the boot cannot be read (ProcSubset=pid), neither by the maker nor by the judge; a
    /// process of another host is for that host to judge.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        if !self.node.is_empty() && self.node != host_name() {
            return true;
        }
        let here = boot_id();
        let same_boot = self.boot_id.is_empty() || here.is_empty() || self.boot_id == here;
        same_boot
            && match start_of(self.pid) {
                Some(start) => start == self.start,
                None => is_hidden(self.pid),
            }
    }
}

impl Reservation {
    /// Who makes the machine, in words.
    #[must_use]
    pub fn maker(&self) -> String {
        let host = if self.node.is_empty() || self.node == host_name() {
            String::new()
        } else {
            format!(" of host {}", blockhost_proto::escape::shown(&self.node))
        };
        format!("process {}{host}", self.pid)
    }

    /// Who makes the machine.
    #[must_use]
    pub fn holder(&self) -> Holder {
        Holder {
            pid: self.pid,
            start: self.pid_start,
            boot_id: self.boot_id.clone(),
            node: self.node.clone(),
        }
    }
}

/// This host's name, as Proxmox's node name: without its domain.
#[must_use]
pub fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_owned()
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// A process of another user, which our units do not see in /proc (ProtectProc=invisible), but which the kernel knows.
pub(crate) fn is_hidden(pid: u32) -> bool {
    let known = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .map(rustix::process::test_kill_process);
    known == Some(Err(rustix::io::Errno::PERM))
        && !std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Field 22 of `/proc/<pid>/stat`, counted after the parenthesis that closes the name, which may hold anything.
/// A zombie has ended: it can no longer be making anything.
pub(crate) fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.rsplit_once(')')?.1;
    let mut fields = rest.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_pid_is_not_taken_for_the_old_process() {
        let me = Holder::current();
        assert!(me.is_alive());
        assert!(
            !Holder {
                start: me.start + 1,
                ..me.clone()
            }
            .is_alive()
        );
        assert!(
            !Holder {
                boot_id: "another".into(),
                ..me
            }
            .is_alive()
        );
    }

    #[test]
    fn a_maker_or_a_judge_that_cannot_read_the_boot_does_not_make_a_living_process_dead() {
        let in_a_unit = Holder {
            boot_id: String::new(),
            ..Holder::current()
        };
        assert!(in_a_unit.is_alive());
        let ended = Holder {
            start: in_a_unit.start + 1,
            ..in_a_unit
        };
        assert!(!ended.is_alive());
    }

    #[test]
    fn a_process_of_another_host_is_not_ours_to_call_dead() {
        let elsewhere = Holder {
            pid: 1,
            start: u64::MAX,
            boot_id: "another".into(),
            node: format!("{}-2", host_name()),
        };
        assert!(elsewhere.is_alive());
        let here = Holder {
            node: host_name(),
            ..elsewhere.clone()
        };
        assert!(!here.is_alive());
        let of_one_host = Holder {
            node: String::new(),
            ..elsewhere
        };
        assert!(!of_one_host.is_alive());
    }

    #[test]
    fn fields_of_other_versions_survive() {
        let text = r#"{"vm_name":"a","vmid":100,"ip_address":"10.0.0.2","ipv6_address":null,"expires_at":"2026-01-01T00:00:00","owner":"x","status":"active","created_at":"2026-01-01T00:00:00Z","purpose":"","wallet_address":null,"colour":"blue"}"#;
        let record: VmRecord = serde_json::from_str(text).unwrap();
        assert_eq!(record.extra["colour"], "blue");
        assert_eq!(serde_json::to_value(&record).unwrap()["colour"], "blue");
    }
}
