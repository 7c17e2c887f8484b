//! What machines use: rates from two looks at the backend's counters. The last look of each is kept beside the database, so
//! that a caller who comes regularly waits for nothing; whoever comes for the first time waits a moment for a second look.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use blockhost_proto::Layout;
use blockhost_proto::value::Vmid;
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, BackendError};

/// Between the looks of a caller who has no earlier one.
const PAUSE: Duration = Duration::from_millis(300);
/// Two looks that are nearer than this say little; those that are further apart are of another time.
const APART_MS: std::ops::RangeInclusive<u64> = 250..=900_000;
/// A file of looks that is longer than this is not ours.
const FILE_LIMIT: u64 = 16 << 20;

/// One look at one machine: counters since it started. What the backend cannot know is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Its number.
    pub vmid: Vmid,
    /// Its name at the backend.
    pub name: Option<String>,
    /// `running`, `stopped` or another word of the backend.
    pub state: String,
    /// When, in milliseconds since the host booted: no clock that somebody sets.
    pub at_ms: u64,
    /// What tells its process from an earlier one; 0 when it does not run.
    pub started: u64,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Its processors.
    pub cpus: Option<u64>,
    /// Milliseconds of processor time.
    pub cpu_ms: Option<u64>,
    /// Bytes of memory that it takes from the host.
    pub memory_used: Option<u64>,
    /// Bytes of memory that it may have.
    pub memory_total: Option<u64>,
    /// Bytes that its disks take on the host.
    pub disk_used: Option<u64>,
    /// Bytes that its disks have.
    pub disk_total: Option<u64>,
    /// Reads of all disks.
    pub disk_reads: Option<u64>,
    /// Writes of all disks.
    pub disk_writes: Option<u64>,
    /// Bytes read from all disks.
    pub disk_read_bytes: Option<u64>,
    /// Bytes written to all disks.
    pub disk_written_bytes: Option<u64>,
    /// Bytes that it received.
    pub net_in_bytes: Option<u64>,
    /// Bytes that it sent.
    pub net_out_bytes: Option<u64>,
    /// Connections that the host follows for it.
    pub net_connections: Option<u64>,
    /// Whether its guest agent answers.
    pub guest_agent: Option<bool>,
}

/// What a machine uses now. `null` is what cannot be known on this host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metrics {
    /// Of all its processors: 100 is all of them all the time.
    pub cpu_percent: Option<f64>,
    /// Its processors.
    pub cpu_count: Option<u64>,
    /// Memory that it takes from the host, MiB.
    pub memory_used_mb: Option<u64>,
    /// Memory that it may have, MiB.
    pub memory_total_mb: Option<u64>,
    /// What its disks take on the host, MiB.
    pub disk_used_mb: Option<u64>,
    /// What its disks have, MiB.
    pub disk_total_mb: Option<u64>,
    /// Reads per second.
    pub disk_read_iops: Option<f64>,
    /// Writes per second.
    pub disk_write_iops: Option<f64>,
    /// Bytes read per second.
    pub disk_read_bytes_sec: Option<u64>,
    /// Bytes written per second.
    pub disk_write_bytes_sec: Option<u64>,
    /// Bytes received per second.
    pub net_rx_bytes_sec: Option<u64>,
    /// Bytes sent per second.
    pub net_tx_bytes_sec: Option<u64>,
    /// Connections that the host follows.
    pub net_connections: Option<u64>,
    /// Whether its guest agent answers; `null` while another command talks to it.
    pub guest_agent_responsive: Option<bool>,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// `running`, `stopped` or another word of the backend.
    pub state: String,
}

impl Counters {
    /// Whether rates can be made of `before` and this look.
    fn follows(&self, before: &Self) -> bool {
        self.started == before.started
            && self
                .at_ms
                .checked_sub(before.at_ms)
                .is_some_and(|apart| APART_MS.contains(&apart))
    }

    fn runs(&self) -> bool {
        self.state != "stopped"
    }
}

impl Metrics {
    /// What happened between two looks at one machine.
    #[must_use]
    pub fn between(before: Option<&Counters>, now: &Counters) -> Self {
        let before = before.filter(|before| now.follows(before));
        let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes >> 20);
        // A machine that is off uses nothing, and that is known.
        let idle = (!now.runs()).then_some(0);
        let rate = |counter: fn(&Counters) -> Option<u64>| match before {
            Some(before) => {
                let used = counter(now)?.checked_sub(counter(before)?)?;
                Some(per_second(used, now.at_ms - before.at_ms))
            }
            None => idle.map(|_| 0.0),
        };
        let whole = |rate: Option<f64>| rate.map(rounded);
        // The milliseconds of all processors in a second are as many times 1000.
        let cpus = now.cpus.unwrap_or(1).max(1);
        let cpu = rate(|look| look.cpu_ms.or_else(|| look.off()))
            .map(|ms_per_second| tenths(percent_of(ms_per_second, cpus)));
        Self {
            cpu_percent: cpu,
            cpu_count: now.cpus,
            memory_used_mb: mib(now.memory_used.or(idle)),
            memory_total_mb: mib(now.memory_total),
            disk_used_mb: mib(now.disk_used),
            disk_total_mb: mib(now.disk_total),
            disk_read_iops: rate(|look| look.disk_reads.or_else(|| look.off())).map(tenths),
            disk_write_iops: rate(|look| look.disk_writes.or_else(|| look.off())).map(tenths),
            disk_read_bytes_sec: whole(rate(|look| look.disk_read_bytes.or_else(|| look.off()))),
            disk_write_bytes_sec: whole(rate(|look| {
                look.disk_written_bytes.or_else(|| look.off())
            })),
            net_rx_bytes_sec: whole(rate(|look| look.net_in_bytes.or_else(|| look.off()))),
            net_tx_bytes_sec: whole(rate(|look| look.net_out_bytes.or_else(|| look.off()))),
            net_connections: now.net_connections.or(idle),
            guest_agent_responsive: if now.runs() {
                now.guest_agent
            } else {
                Some(false)
            },
            uptime_seconds: now.uptime_s,
            state: now.state.clone(),
        }
    }
}

impl Counters {
    /// The counter of what does not run.
    fn off(&self) -> Option<u64> {
        (!self.runs()).then_some(0)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate is as exact as the moments of the looks"
)]
fn per_second(count: u64, ms: u64) -> f64 {
    count as f64 * 1000.0 / ms.max(1) as f64
}

/// Percent of so many processors.
#[expect(clippy::cast_precision_loss, reason = "a few processors")]
fn percent_of(ms_per_second: f64, cpus: u64) -> f64 {
    ms_per_second / 10.0 / cpus as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never negative, and saturating"
)]
fn rounded(rate: f64) -> u64 {
    rate.round() as u64
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// The last looks of this world.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
}

impl Kept {
    /// Those beside the database.
    #[must_use]
    pub fn of(layout: &Layout) -> Self {
        Self {
            path: layout.state().join("metrics.json"),
        }
    }

    /// What is there. Looks that cannot be read are looks that were never made.
    fn load(&self) -> BTreeMap<Vmid, Counters> {
        let small = std::fs::metadata(&self.path).is_ok_and(|file| file.len() <= FILE_LIMIT);
        let text = small.then(|| std::fs::read(&self.path).ok()).flatten();
        let looks: Option<Vec<Counters>> = text.and_then(|text| serde_json::from_slice(&text).ok());
        looks
            .into_iter()
            .flatten()
            .map(|look| (look.vmid, look))
            .collect()
    }

    /// Replaces the file whole. Nothing is synced: after a crash the next look is a first one.
    fn store(&self, looks: &BTreeMap<Vmid, Counters>) -> std::io::Result<()> {
        let text = serde_json::to_vec(&looks.values().collect::<Vec<_>>())?;
        let temporary = self
            .path
            .with_extension(format!("json.{}", std::process::id()));
        let written =
            write_new(&temporary, &text).and_then(|()| std::fs::rename(&temporary, &self.path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }
}

/// What root makes here belongs to whom the directory belongs to, as with the database.
fn write_new(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(path)?;
    if rustix::process::geteuid().is_root()
        && let Some(directory) = path.parent()
    {
        let owner = std::fs::metadata(directory)?;
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.write_all(text)
}

/// Looks at one machine or at all, twice where no earlier look serves, and remembers.
///
/// # Errors
/// What the backend says. That the looks could not be kept is told to `warn`: the numbers are right all the same.
pub fn sample(
    backend: &dyn Backend,
    kept: &Kept,
    only: Option<Vmid>,
    warn: &mut dyn FnMut(String),
) -> Result<Vec<(Counters, Metrics)>, BackendError> {
    let mut looks = kept.load();
    let mut now = backend.counters(only)?;
    let served = |look: &Counters| {
        let before = looks.get(&look.vmid);
        !look.runs() || before.is_some_and(|before| look.follows(before))
    };
    if !now.iter().all(served) {
        std::thread::sleep(PAUSE);
        let first = std::mem::replace(&mut now, backend.counters(only)?);
        for look in first {
            let before = looks.get(&look.vmid);
            if !before.is_some_and(|before| look.follows(before)) {
                looks.insert(look.vmid, look);
            }
        }
    }
    let seen = now
        .into_iter()
        .map(|look| {
            let metrics = Metrics::between(looks.get(&look.vmid), &look);
            (look, metrics)
        })
        .collect::<Vec<_>>();
    if only.is_none() {
        looks.clear();
    }
    looks.extend(seen.iter().map(|(look, _)| (look.vmid, look.clone())));
    if let Err(e) = kept.store(&looks) {
        warn(format!(
            "{}: {e}; the next call waits for two looks again",
            kept.path.display()
        ));
    }
    Ok(seen)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
