//! One look at everything an operator lives with: chain, agent, jobs, machines, pools, ledger, the account that mints,
//! and what needs somebody. Gathered by [`gather`], for `blockhost status` and for Prometheus. Each part stands by itself:
//! one that cannot be read says so and hides nothing of the others.

pub mod gather;
pub mod prometheus;
pub mod serve;
pub mod text;

use crate::anchor::alarm::Standing;
use crate::monitor::Shorter;
use serde::Serialize;
use std::collections::BTreeMap;

/// A pool with fewer left than one in so many needs somebody.
const SCARCE: u64 = 10;
/// Blocks that wait to be read before it is said; more than one look brings.
const BEHIND: u64 = 50;
/// Seconds without a subscription, where one is configured, before it is said.
const UNTOLD_S: i64 = 900;
/// Ether, in wei, below which the account that mints needs somebody: a mint costs a tenth of it in dear times.
const LOW_WEI: u128 = 10_000_000_000_000_000;

/// Seconds that a job is open before it is said: no step takes as long, and what waits says for what.
const OLD_JOB_S: u64 = 3600;
/// A file system with less free than one part in so many, and less than this, needs somebody.
const SCARCE_SPACE: u64 = 20;
const LOW_SPACE: u64 = 10 << 30;

/// Something that could be read, or why it could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Part<T> {
    /// As it is.
    Known(T),
    /// Why not.
    Unknown {
        /// One sentence.
        error: String,
    },
}

impl<T> Part<T> {
    /// What is known.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown { .. } => None,
        }
    }
}

impl<T, E: std::fmt::Display> From<Result<T, E>> for Part<T> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(error) => Self::Unknown {
                error: error.to_string(),
            },
        }
    }
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// When it was read, RFC 3339.
    pub at: String,
    /// Of this program.
    pub version: &'static str,
    /// Whether an engine runs on this host.
    pub engine_running: Part<bool>,
    /// The chain.
    pub chain: Part<ChainPart>,
    /// What is sold.
    pub plans: Part<PlansPart>,
    /// What tells of new blocks; none where no websocket is configured.
    pub heads: Part<Option<HeadsPart>>,
    /// The account that owns the contracts and mints.
    pub account: Part<AccountPart>,
    /// The root agent.
    pub agent: Part<AgentPart>,
    /// Jobs by state.
    pub jobs: Part<JobsPart>,
    /// Machines.
    pub machines: Part<MachinesPart>,
    /// The ledger, as published.
    pub ledger: Part<LedgerPart>,
    /// An alarm of its anchoring that stands; none where all is well or nothing is anchored.
    pub anchor: Part<Option<Standing>>,
    /// The file systems that must not run full.
    pub space: Part<Vec<SpacePart>>,
    /// The host's IPv6 network; none where it has none.
    pub broker: Part<Option<BrokerPart>>,
    /// The last comparison with the chain; none yet.
    pub reconcile: Part<Option<ReconcilePart>>,
}

/// The chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainPart {
    /// Which.
    pub chain_id: u64,
    /// The node that is asked, without its key.
    pub endpoint: String,
    /// The newest block.
    pub head: u64,
    /// Blocks on top of an event before it counts.
    pub confirmations: u64,
    /// The last block that was read; none yet.
    pub processed: Option<u64>,
}

impl ChainPart {
    /// Blocks that count and were not read yet.
    #[must_use]
    pub fn behind(&self) -> u64 {
        let safe = self.head.saturating_sub(self.confirmations);
        safe.saturating_sub(self.processed.unwrap_or(0))
    }
}

/// The plans of the subscription contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PlansPart {
    /// How many can be bought and extended.
    pub open: usize,
    /// How many cannot.
    pub closed: usize,
}

/// What tells of new blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeadsPart {
    /// Whether one of the endpoints does.
    pub connected: bool,
    /// Which, or the last that was tried, without its key.
    pub endpoint: String,
    /// Seconds since this is so.
    pub since_s: i64,
    /// How often it was told of a block since the engine started.
    pub told: u64,
    /// Subscriptions since then.
    pub sessions: u64,
    /// Why there is none.
    pub problem: Option<String>,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountPart {
    /// Its address.
    pub address: String,
    /// Its balance in wei; more than JSON's numbers hold.
    #[serde(serialize_with = "as_text")]
    pub balance_wei: u128,
    /// The same in ether.
    pub balance_ether: String,
}

fn as_text<S: serde::Serializer>(value: &u128, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// The root agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AgentPart {
    /// Its version.
    pub version: String,
    /// `proxmox` or `embedded`.
    pub backend: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Requests since then, by outcome: `succeeded`, `failed`, `refused`.
    pub requests: BTreeMap<String, u64>,
}

/// Jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JobsPart {
    /// How many in each state.
    pub by_state: BTreeMap<String, u64>,
    /// Seconds since the oldest one that is not closed and not parked came.
    pub oldest_open_s: Option<u64>,
}

/// Machines and what is left for more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MachinesPart {
    /// How many in each status.
    pub by_status: BTreeMap<String, u64>,
    /// In the making.
    pub in_the_making: u64,
    /// Active ones that expire within a day.
    pub expire_within_a_day: u64,
    /// What is given out.
    pub pools: Vec<Pool>,
}

/// Numbers or addresses that are given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// `vmid`, `ipv4`, `ipv6`.
    pub name: &'static str,
    /// All of them.
    pub size: u64,
    /// Not in use.
    pub free: u64,
}

/// The ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerPart {
    /// Its name.
    pub origin: String,
    /// Records in its published head.
    pub size: u64,
    /// That head's root, hex.
    pub root: String,
}

/// The file system of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpacePart {
    /// What is there: `state`, `ledger`, `machines`, `containers`.
    pub name: &'static str,
    /// The directory.
    pub path: String,
    /// Its file system.
    pub size_bytes: u64,
    /// What is free of it for us.
    pub free_bytes: u64,
}

impl SpacePart {
    /// Whether it is about to be full.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.free_bytes < (self.size_bytes / SCARCE_SPACE).min(LOW_SPACE)
    }
}

/// The network that machines draw their IPv6 addresses from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BrokerPart {
    /// It.
    pub prefix: String,
    /// When its lease ends, RFC 3339; without end where it is missing.
    pub lease_until: Option<String>,
    /// Whether the tunnel that it comes by is there; none where no broker gave it.
    pub tunnel_up: Option<bool>,
    /// What the lease needs somebody for.
    pub complaint: Option<String>,
}

/// What the last comparison of machines and chain came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReconcilePart {
    /// When.
    pub looked_at: String,
    /// What does not fit.
    pub findings: Vec<String>,
}

impl Status {
    /// What needs somebody, most urgent first; nothing on a good day.
    #[must_use]
    pub fn attention(&self) -> Vec<String> {
        let mut wanted = Vec::new();
        if let Some(Some(standing)) = self.anchor.known() {
            wanted.push(format!(
                "ALARM since {}: {}: see anchor.md, keep a copy of the ledger first",
                standing.since, standing.alarm
            ));
        }
        let mut unknown = |what: &str, error: &str| wanted.push(format!("{what}: {error}"));
        if let Part::Unknown { error } = &self.agent {
            unknown("root agent", error);
        }
        if let Part::Unknown { error } = &self.chain {
            unknown("chain", error);
        }
        // Without a chain nobody knows, and that was said.
        if let (Part::Unknown { error }, Some(_)) = (&self.plans, self.chain.known()) {
            unknown("plans", error);
        }
        if let Part::Unknown { error } = &self.heads {
            unknown("websocket", error);
        }
        if let Part::Unknown { error } = &self.jobs {
            unknown("jobs", error);
        }
        if let Part::Unknown { error } = &self.machines {
            unknown("machines", error);
        }
        if let Part::Unknown { error } = &self.ledger {
            unknown("ledger", error);
        }
        if let Part::Unknown { error } = &self.anchor {
            unknown("anchor", error);
        }
        if let Part::Unknown { error } = &self.space {
            unknown("space", error);
        }
        if let Part::Unknown { error } = &self.account {
            unknown("account", error);
        }
        if let Part::Unknown { error } = &self.broker {
            unknown("broker", error);
        }
        if let Part::Unknown { error } = &self.reconcile {
            unknown("reconcile", error);
        }
        if self.engine_running == Part::Known(false) {
            wanted.push("the engine does not run: systemctl status blockhost-engine".to_owned());
        }
        if let Some(chain) = self.chain.known()
            && chain.processed.is_some()
            && chain.behind() > BEHIND
        {
            wanted.push(format!(
                "{} blocks of the chain are not read yet",
                chain.behind()
            ));
        }
        if let Some(chain) = self.chain.known()
            && let Some(shorter) = Shorter::of(chain.head, chain.processed.unwrap_or(0))
        {
            wanted.push(shorter.to_string());
        }
        if let Some(Some(heads)) = self.heads.known()
            && self.engine_running == Part::Known(true)
            && !heads.connected
            && heads.since_s > UNTOLD_S
        {
            wanted.push(format!(
                "no websocket has told of new blocks for {} min, events are seen later: {}",
                heads.since_s / 60,
                heads.problem.as_deref().unwrap_or("no reason is known")
            ));
        }
        if let Some(plans) = self.plans.known()
            && plans.open == 0
        {
            wanted.push(match plans.closed {
                0 => "no plan is offered, nothing can be bought: bw plan create".to_owned(),
                _ => "no plan is open, nothing can be bought and nothing extended: bw plan open"
                    .to_owned(),
            });
        }
        if let Some(parked) = self
            .jobs
            .known()
            .and_then(|jobs| jobs.by_state.get("parked"))
            && *parked > 0
        {
            wanted.push(format!(
                "{parked} jobs are parked: blockhost jobs list --state parked"
            ));
        }
        if let Some(oldest) = self.jobs.known().and_then(|jobs| jobs.oldest_open_s)
            && oldest > OLD_JOB_S
        {
            wanted.push(format!(
                "the oldest open job is {} h old: blockhost jobs list --state pending says for what it waits",
                oldest / 3600
            ));
        }
        for space in self.space.known().map_or(&[][..], |space| space) {
            if space.is_low() {
                wanted.push(format!(
                    "{} of {} MiB are free of the file system of {} ({}): see recover.md, \"A full disk\"",
                    space.free_bytes >> 20,
                    space.size_bytes >> 20,
                    space.path,
                    space.name
                ));
            }
        }
        if let Some(account) = self.account.known()
            && account.balance_wei < LOW_WEI
        {
            wanted.push(format!(
                "the account that mints has {} ether left: send some to {}",
                account.balance_ether, account.address
            ));
        }
        for pool in self.machines.known().map_or(&[][..], |m| &m.pools) {
            if pool.free.saturating_mul(SCARCE) < pool.size {
                wanted.push(format!(
                    "{} of {} {} are left: widen the pool in db.yaml",
                    pool.free, pool.size, pool.name
                ));
            }
        }
        if let Some(Some(broker)) = self.broker.known() {
            if broker.tunnel_up == Some(false) {
                wanted.push("the tunnel to the broker is down: blockhost broker renew".to_owned());
            }
            wanted.extend(broker.complaint.clone());
        }
        if let Some(Some(reconcile)) = self.reconcile.known() {
            wanted.extend(reconcile.findings.iter().cloned());
        }
        wanted
    }
}

#[cfg(test)]
pub(crate) mod tests;
