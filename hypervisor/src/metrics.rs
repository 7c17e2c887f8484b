//! `qm metrics`: what machines have used so far, as counters, for whoever makes rates of two looks. One program looks at all
//! machines at once, because one per machine would cost more than the looking. Our own verb: Proxmox's `qm` has none.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use blockhost_proto::qm::{Ip4Config, Ip6Config, QmOption};
use qapi::qmp;
use serde::Serialize;

use crate::config::{Props, VmConfig};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::machine::Vmid;
use crate::monitor::{Agent, Monitor};
use crate::runtime::{self, Process, State};
use crate::storage::{Storages, Volume};
use crate::{hardware, image, net, power, sys};

/// How long QEMU may take to greet.
const QMP_LIMIT: Duration = Duration::from_secs(2);
/// How long a guest's agent may take: one that needs longer is not responsive, and many silent ones are waited for at once.
const AGENT_LIMIT: Duration = Duration::from_millis(250);
/// Machines that are looked at at one time; nearly all of it is waiting.
pub(crate) const AT_ONCE: usize = 64;
/// Of the kernel's list of connections, which may be long, so many lines are read.
const CONNECTIONS_LIMIT: usize = 1 << 18;

/// Counters of one machine. What cannot be known is absent, never 0.
#[derive(Debug, Serialize)]
struct Row {
    vmid: Vmid,
    name: String,
    /// QEMU's own word, or `stopped`, `unresponsive`, `damaged`.
    state: String,
    /// When this was seen, in milliseconds since the host booted.
    at_ms: u64,
    /// When its process started, in the kernel's ticks; counters of another process are not to be compared. 0 when stopped.
    started: u64,
    /// That process.
    #[serde(skip)]
    pid: i32,
    uptime_s: u64,
    cpus: u64,
    cpu_ms: Option<u64>,
    memory_used: Option<u64>,
    memory_total: u64,
    /// What the disks take on the host.
    disk_used: u64,
    /// What the guest sees of them.
    disk_total: u64,
    disk_reads: Option<u64>,
    disk_writes: Option<u64>,
    disk_read_bytes: Option<u64>,
    disk_written_bytes: Option<u64>,
    /// Received by the guest.
    net_in_bytes: Option<u64>,
    /// Sent by the guest.
    net_out_bytes: Option<u64>,
    /// Connections of its configured addresses that the host follows.
    net_connections: Option<u64>,
    /// Whether the guest's agent answers; absent while another command talks to it.
    guest_agent: Option<bool>,
}

/// What is read once for all machines.
struct Shared {
    storages: Storages,
    /// Bytes received and sent by each device of this network namespace.
    devices: HashMap<String, (u64, u64)>,
    /// Connections by address; `None` where the kernel does not list them.
    connections: Option<HashMap<IpAddr, u64>>,
}

/// The counters of all machines but templates, or of one, as a JSON array.
///
/// # Errors
/// When there is no such machine, or the configurations cannot be listed. A machine that cannot be looked at is a row that
/// says so.
pub fn counters(host: &Host, only: Option<Vmid>) -> Result<String> {
    let vmids = match only {
        Some(vmid) => {
            VmConfig::load(host, vmid)?;
            vec![vmid]
        }
        None => VmConfig::all(host)?,
    };
    let shared = Shared {
        storages: Storages::load(host)?,
        devices: devices(&std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default()),
        connections: connections(),
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut rows = Vec::new();
        while let Some(vmid) = vmids.get(next.fetch_add(1, Ordering::Relaxed)) {
            rows.extend(row(host, &shared, *vmid, only.is_some()));
        }
        rows
    };
    let mut rows: Vec<Row> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..vmids.len().min(AT_ONCE))
            .map(|_| scope.spawn(work))
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_default())
            .collect()
    });
    rows.sort_by_key(|row| row.vmid);
    processes(host, &mut rows);
    let mut text = serde_json::to_string(&rows).map_err(|e| Error::Failed(e.to_string()))?;
    text.push('\n');
    Ok(text)
}

fn row(host: &Host, shared: &Shared, vmid: Vmid, templates: bool) -> Option<Row> {
    let (config, mut state) = match VmConfig::load(host, vmid) {
        Ok(config) => (config, String::new()),
        // Destroyed since it was listed.
        Err(Error::NotFound { .. }) => return None,
        Err(_) => (VmConfig::default(), "damaged".to_owned()),
    };
    if config.is_template() && !templates {
        return None;
    }
    let mut row = Row {
        vmid,
        name: config
            .get("name")
            .map_or_else(|| format!("VM {vmid}"), str::to_owned),
        state: String::new(),
        at_ms: boot_ms(),
        started: 0,
        pid: 0,
        uptime_s: 0,
        cpus: config.number("cores", 1) * config.number("sockets", 1),
        cpu_ms: None,
        memory_used: None,
        memory_total: config.number("memory", 512) << 20,
        disk_used: 0,
        disk_total: 0,
        disk_reads: None,
        disk_writes: None,
        disk_read_bytes: None,
        disk_written_bytes: None,
        net_in_bytes: None,
        net_out_bytes: None,
        net_connections: None,
        guest_agent: None,
    };
    if state.is_empty() {
        disks(&shared.storages, &config, &mut row);
        state = match runtime::state(host, vmid) {
            Ok(State::Stopped) => "stopped".to_owned(),
            Ok(State::Running(process)) => {
                // One that is hidden from us is looked for by whom it is not hidden from.
                let process = process.or_else(|| runtime::recorded(host, vmid));
                running(host, shared, &config, process.as_ref(), &mut row)
            }
            Err(_) => "unresponsive".to_owned(),
        };
    }
    row.state = state;
    Some(row)
}

/// Sizes of the disks, on the host and as the guest sees them; the cloud-init drive is not the guest's.
fn disks(storages: &Storages, config: &VmConfig, row: &mut Row) {
    let volumes = config
        .drives()
        .into_iter()
        .filter(|(_, value)| Props::parse(value).get("media") != Some("cdrom"))
        .filter_map(|(_, value)| crate::options::volume_of(value));
    for volume in volumes {
        row.disk_used += allocated(storages, &volume).unwrap_or(0);
        row.disk_total += image::virtual_size(storages, &volume).unwrap_or(0);
    }
}

fn allocated(storages: &Storages, volume: &Volume) -> Option<u64> {
    let file = std::fs::symlink_metadata(storages.path(volume).ok()?).ok()?;
    Some(file.blocks() * 512)
}

/// Fills in what a running machine has to say; QEMU's word for its state.
fn running(
    host: &Host,
    shared: &Shared,
    config: &VmConfig,
    process: Option<&Process>,
    row: &mut Row,
) -> String {
    if let Some(process) = process {
        (row.started, row.pid) = (process.start_time, process.pid);
        let started_ms = process.start_time * 1000 / rustix::param::clock_ticks_per_second().max(1);
        row.uptime_s = row.at_ms.saturating_sub(started_ms) / 1000;
    }
    let taps = config.numbered("net");
    let mut counted = taps
        .iter()
        .filter_map(|(index, _)| shared.devices.get(&net::tap_name(row.vmid, *index)))
        .peekable();
    if counted.peek().is_some() {
        // What the host's end receives is what the guest has sent.
        let (sent, received) =
            counted.fold((0, 0), |sum, device| (sum.0 + device.0, sum.1 + device.1));
        (row.net_in_bytes, row.net_out_bytes) = (Some(received), Some(sent));
    }
    row.net_connections = shared
        .connections
        .as_ref()
        .map(|known| addresses(config).iter().filter_map(|a| known.get(a)).sum());
    let state = ask_qemu(host, row);
    row.guest_agent = match hardware::agent_enabled(config) {
        false => Some(false),
        true => match Agent::open(host, row.vmid, AGENT_LIMIT) {
            Ok(_) => Some(true),
            Err(Error::LockTimeout { .. }) => None,
            Err(_) => Some(false),
        },
    };
    state
}

fn ask_qemu(host: &Host, row: &mut Row) -> String {
    let Ok(mut monitor) = Monitor::open(host, row.vmid, QMP_LIMIT) else {
        return "unresponsive".to_owned();
    };
    if let Ok(stats) = monitor.run(&qmp::query_blockstats { query_nodes: None }) {
        let sum = |counter: fn(&qmp::BlockDeviceStats) -> i64| {
            let known = stats.iter().map(|device| counter(&device.stats));
            Some(known.filter_map(|count| u64::try_from(count).ok()).sum())
        };
        row.disk_reads = sum(|stats| stats.rd_operations);
        row.disk_writes = sum(|stats| stats.wr_operations);
        row.disk_read_bytes = sum(|stats| stats.rd_bytes);
        row.disk_written_bytes = sum(|stats| stats.wr_bytes);
    }
    power::state_word(&mut monitor)
}

/// Processor time and memory of each machine's process. A unit's ProtectProc= hides from root what belongs to others, unless
/// root may trace them, and so a thread looks that belongs to the machines' user.
fn processes(host: &Host, rows: &mut [Row]) {
    sys::seen_by(host.machine_user().ok(), || {
        for row in rows.iter_mut().filter(|row| row.started != 0) {
            // Nobody else's number, whatever the record of its start says.
            if runtime::start_time(row.pid) == Some(row.started) {
                (row.cpu_ms, row.memory_used) = usage(row.pid);
            }
        }
    });
}

/// Milliseconds of processor time, and bytes of memory that are present.
fn usage(pid: i32) -> (Option<u64>, Option<u64>) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let ticks = read("stat").and_then(|text| processor_ticks(&text));
    let pages = read("statm").and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let page = rustix::param::page_size() as u64;
    (
        ticks.map(|ticks| ticks * 1000 / per_second),
        pages.map(|pages| pages * page),
    )
}

/// Fields 14 and 15 of `/proc/<pid>/stat`: time in the guest and for it.
fn processor_ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything, also parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let number = |part: i64| u64::try_from(part).unwrap_or(0);
    number(now.tv_sec) * 1000 + number(now.tv_nsec) / 1_000_000
}

/// Bytes received and sent by each device, from the text of `/proc/net/dev`.
fn devices(table: &str) -> HashMap<String, (u64, u64)> {
    let read = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let mut counters = counters.split_ascii_whitespace();
        let received = counters.next()?.parse().ok()?;
        let sent = counters.nth(7)?.parse().ok()?;
        Some((name.trim().to_owned(), (received, sent)))
    };
    table.lines().filter_map(read).collect()
}

/// The static addresses of a configuration.
fn addresses(config: &VmConfig) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for (index, value) in config.numbered("ipconfig") {
        let Ok(QmOption::IpConfig(_, ip)) = QmOption::parse(&format!("ipconfig{index}"), value)
        else {
            continue;
        };
        if let Some(Ip4Config::Static { address, .. }) = ip.ip4 {
            found.push(address.into());
        }
        if let Some(Ip6Config::Static { address, .. }) = ip.ip6 {
            found.push(address.into());
        }
    }
    found
}

/// Connections by address, from the kernel's list; `None` where it has none, or does not show it.
fn connections() -> Option<HashMap<IpAddr, u64>> {
    let file = std::fs::File::open("/proc/self/net/nf_conntrack").ok()?;
    let mut known = HashMap::new();
    for line in BufReader::new(file)
        .lines()
        .take(CONNECTIONS_LIMIT)
        .map_while(std::io::Result::ok)
    {
        for address in ends(&line) {
            *known.entry(address).or_insert(0) += 1;
        }
    }
    Some(known)
}

/// Who is at the ends of a connection, each once: its two directions differ where addresses are translated.
fn ends(line: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = line
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix("src=").or(word.strip_prefix("dst=")))
        .filter_map(|address| address.parse().ok())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_cannot_shift_its_processor_time() {
        let rest = "S 1 7 7 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 1 0 900";
        for name in ["qemu", "a) S 1 (b", "x y"] {
            assert_eq!(processor_ticks(&format!("7 ({name}) {rest}")), Some(200));
        }
        assert_eq!(processor_ticks("7 (qemu"), None);
        assert_eq!(processor_ticks("7 (qemu) S 1"), None);
    }

    #[test]
    fn devices_are_read_with_what_they_received_and_sent() {
        let table = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      200       1    0    0    0     0       0          0
tap100i0:5000 1 0 0 0 0 0 0 7000 1 0 0 0 0 0 0
torn: 1 2
";
        let devices = devices(table);
        assert_eq!(devices["lo"], (100, 200));
        assert_eq!(devices["tap100i0"], (5000, 7000));
        assert_eq!(devices.len(), 2);
    }

    #[test]
    fn a_connection_counts_once_for_each_address_that_takes_part() {
        let line = "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.5 dst=1.1.1.1 sport=5 dport=443 src=1.1.1.1 dst=192.0.2.7 sport=443 dport=5 [ASSURED] mark=0 use=1";
        let expected: Vec<IpAddr> = ["1.1.1.1", "10.0.0.5", "192.0.2.7"]
            .map(|a| a.parse().unwrap())
            .to_vec();
        assert_eq!(ends(line), expected);
        assert!(ends("src=nonsense dst=").is_empty());
    }

    #[test]
    fn addresses_of_a_configuration_are_the_static_ones() {
        let mut config = VmConfig::default();
        config.set("ipconfig0", "ip=10.0.0.5/24,gw=10.0.0.1,ip6=fd00::5/128");
        config.set("ipconfig1", "ip=dhcp,ip6=auto");
        config.set("ipconfig2", "nonsense");
        let expected: Vec<IpAddr> = vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(addresses(&config), expected);
    }
}
