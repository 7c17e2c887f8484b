//! `qm-metrics`: counters of machines. Our own backend counts for all of them in one run; Proxmox's says much the same in two
//! runs for each, which are put into the same terms here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::Vmid;
use serde_json::{Map, Value, json};

use super::answer;
use super::argv::Command;
use super::tool::Tool;
use crate::compartment::{Backend, Done, Failure, JobCtx};

/// Machines of Proxmox's that are asked at one time: each run of its `qm` takes a processor for most of a second.
const AT_ONCE: usize = 4;

pub(super) fn run(qm: &Tool, only: Option<Vmid>, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let rows = match qm.backend {
        Backend::Embedded => counted(qm, only, ctx)?,
        Backend::Proxmox => asked(qm, only, ctx)?,
    };
    Ok(Done {
        output: Value::Array(rows).to_string(),
        ..Done::default()
    })
}

fn counted(qm: &Tool, only: Option<Vmid>, ctx: &JobCtx<'_>) -> Result<Vec<Value>, Failure> {
    let command = Command::new("metrics");
    let command = match only {
        Some(vmid) => command.vm(vmid),
        None => command,
    };
    let text = qm.parsed(&command.parsed(), ctx)?;
    match serde_json::from_str(&text) {
        Ok(Value::Array(rows)) if rows.iter().all(Value::is_object) => Ok(rows),
        _ => Err(qm.unexpected("metrics", &text)),
    }
}

fn asked(qm: &Tool, only: Option<Vmid>, ctx: &JobCtx<'_>) -> Result<Vec<Value>, Failure> {
    let vmids = match only {
        Some(vmid) => vec![vmid],
        None => listed(qm, ctx)?,
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut rows = Vec::new();
        while let Some(vmid) = vmids.get(next.fetch_add(1, Ordering::Relaxed)) {
            match ask(qm, *vmid, ctx) {
                // Destroyed since it was listed.
                Err(failure) if only.is_none() && failure.code == ErrorCode::NotFound => {}
                row => rows.push(row),
            }
        }
        rows
    };
    let rows: Result<Vec<Value>, Failure> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..vmids.len().min(AT_ONCE))
            .map(|_| scope.spawn(work))
            .collect();
        let rows = workers.into_iter().flat_map(|worker| {
            worker.join().unwrap_or_else(|_| {
                let message = "looking at a machine failed inside; see the agent's log";
                vec![Err(Failure::new(ErrorCode::Internal, message))]
            })
        });
        rows.collect()
    });
    let mut rows = rows?;
    rows.sort_by_key(|row| row["vmid"].as_u64());
    Ok(rows)
}

fn listed(qm: &Tool, ctx: &JobCtx<'_>) -> Result<Vec<Vmid>, Failure> {
    let text = qm.parsed(&Command::new("list").parsed(), ctx)?;
    let rows = answer::list(&text).map_err(|row| qm.unexpected("list", &row))?;
    let vmids = rows
        .iter()
        .filter_map(|row| Vmid::try_from(row["vmid"].as_u64()?).ok());
    Ok(vmids.collect())
}

fn ask(qm: &Tool, vmid: Vmid, ctx: &JobCtx<'_>) -> Result<Value, Failure> {
    let command = Command::new("status").vm(vmid).word("--verbose").parsed();
    let text = qm.parsed(&command, ctx)?;
    let at_ms = boot_ms();
    let mut row = row(vmid, &text).ok_or_else(|| qm.unexpected("status", &text))?;
    row.insert("at_ms".into(), at_ms.into());
    if row["pid"].as_u64().is_some() {
        let (started, cpu_ms) = process(&row["pid"]);
        row.insert("started".into(), started);
        row.insert("cpu_ms".into(), cpu_ms);
        let ping = Command::new("guest cmd").vm(vmid).word("ping");
        let deadline = ctx.deadline.min(Instant::now() + PING);
        let answers = qm
            .run_until(&ping, ctx, deadline)
            .is_ok_and(|output| output.ok());
        row.insert("guest_agent".into(), answers.into());
    }
    row.remove("pid");
    Ok(Value::Object(row))
}

/// How long a guest's agent may take, with the start of the program that asks it.
const PING: std::time::Duration = std::time::Duration::from_secs(6);

/// What `qm status --verbose` says, in the terms of our own backend. Lines that begin with a tab belong to the key above them:
/// of those only the counters of disks are read, and added up.
fn row(vmid: Vmid, text: &str) -> Option<Map<String, Value>> {
    let mut top = Map::new();
    let mut disks = Map::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(": ") else {
            continue;
        };
        if !line.starts_with('\t') {
            top.insert(key.to_owned(), value.into());
        } else if let Ok(count) = value.parse::<u64>() {
            let sum = disks.get(key.trim()).and_then(Value::as_u64).unwrap_or(0);
            disks.insert(key.trim().to_owned(), sum.saturating_add(count).into());
        }
    }
    let word = |key: &str| top.get(key).and_then(Value::as_str);
    let number = |key: &str| word(key).and_then(|value| value.parse::<u64>().ok());
    let disk = |key: &str| disks.get(key).cloned().unwrap_or_default();
    let status = word("status")?;
    let row = json!({
        "vmid": vmid,
        "name": word("name"),
        "state": word("qmpstatus").unwrap_or(status),
        "started": 0,
        "uptime_s": number("uptime").unwrap_or(0),
        "cpus": number("cpus"),
        "cpu_ms": null,
        "memory_used": number("mem"),
        "memory_total": number("maxmem"),
        "disk_used": null,
        "disk_total": number("maxdisk"),
        "disk_reads": disk("rd_operations"),
        "disk_writes": disk("wr_operations"),
        "disk_read_bytes": disk("rd_bytes"),
        "disk_written_bytes": disk("wr_bytes"),
        "net_in_bytes": number("netin"),
        "net_out_bytes": number("netout"),
        "net_connections": null,
        "guest_agent": false,
        "pid": number("pid"),
    });
    match row {
        Value::Object(row) => Some(row),
        _ => None,
    }
}

/// Start and processor time of a process: what identifies it, and what `qm` itself can only say of two looks.
fn process(pid: &Value) -> (Value, Value) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match times(&stat) {
        Some((started, ticks)) => {
            let per_second = rustix::param::clock_ticks_per_second().max(1);
            (started.into(), (ticks * 1000 / per_second).into())
        }
        None => (pid.clone(), Value::Null),
    }
}

/// Field 22 and the sum of fields 14 and 15 of `/proc/<pid>/stat`, counted after the parenthesis that closes the name, which
/// may hold anything.
fn times(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some((field(22)?, field(14)? + field(15)?))
}

fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let number = |part: i64| u64::try_from(part).unwrap_or(0);
    number(now.tv_sec) * 1000 + number(now.tv_nsec) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBOSE: &str = "balloon: 1073741824\nblockstat:\n\tide2:\n\t\trd_bytes: 10\n\t\trd_operations: 1\n\t\twr_bytes: 0\n\t\twr_operations: 0\n\tscsi0:\n\t\trd_bytes: 4096\n\t\trd_operations: 7\n\t\ttimed_stats:\n\t\twr_bytes: 8192\n\t\twr_operations: 3\ncpus: 2\ndisk: 0\ndiskread: 4106\nmaxdisk: 8589934592\nmaxmem: 1073741824\nmem: 402653184\nname: web-1\nnetin: 500\nnetout: 700\npid: 4711\nqmpstatus: running\nstatus: running\nuptime: 60\nvmid: 100\n";

    fn vmid() -> Vmid {
        Vmid::try_from(100_u64).expect("a number")
    }

    #[test]
    fn what_proxmox_says_comes_in_our_terms() {
        let row = row(vmid(), VERBOSE).expect("understood");
        for (key, value) in [
            ("state", json!("running")),
            ("disk_reads", json!(8)),
            ("disk_writes", json!(3)),
            ("disk_read_bytes", json!(4106)),
            ("disk_written_bytes", json!(8192)),
            ("net_in_bytes", json!(500)),
            ("memory_used", json!(402_653_184)),
            ("pid", json!(4711)),
            ("cpus", json!(2)),
        ] {
            assert_eq!(row[key], value, "{key}");
        }
    }

    #[test]
    fn a_machine_that_is_off_has_no_counters_and_nonsense_is_no_machine() {
        let row =
            row(vmid(), "name: a\nqmpstatus: stopped\nstatus: stopped\n").expect("understood");
        assert_eq!(row["state"], "stopped");
        assert_eq!(
            (&row["disk_reads"], &row["pid"]),
            (&Value::Null, &Value::Null)
        );
        for text in [
            "",
            "what",
            "\tstatus: running\n",
            "rd_bytes: 99999999999999999999999\n",
        ] {
            assert!(super::row(vmid(), text).is_none(), "{text}");
        }
    }

    #[test]
    fn counters_that_would_overflow_stay_at_the_top() {
        let max = u64::MAX;
        let text = format!(
            "status: running\nblockstat:\n\ta:\n\t\trd_bytes: {max}\n\tb:\n\t\trd_bytes: {max}\n"
        );
        assert_eq!(
            row(vmid(), &text).expect("understood")["disk_read_bytes"],
            json!(max)
        );
    }
}
