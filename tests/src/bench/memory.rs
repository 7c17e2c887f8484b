//! Memory of processes as the kernel accounts it, and the machine we are on.

use std::fs;
use std::path::Path;

use crate::command::{run, with_args};

/// Proportional set size of one process, MiB; 0 when it is gone.
pub(super) fn pss(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.starts_with("Pss:"))
        .unwrap_or_default();
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0);
    kib / 1024.0
}

/// The same for the agent's supervisor and all its processes.
pub(super) fn pss_of_agent(supervisor: u32) -> f64 {
    let mut pids = vec![supervisor];
    let mut total = 0.0;
    while let Some(pid) = pids.pop() {
        total += pss(pid);
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        pids.extend(
            children
                .split_whitespace()
                .filter_map(|word| word.parse::<u32>().ok()),
        );
    }
    total
}

/// Processor, cores, kernel, file system of the directory that was synced.
pub(super) fn machine(dir: &Path) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .and_then(|rest| rest.split_once(':'))
        .map_or("unknown processor", |(_, name)| name.trim());
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let place = dir.display().to_string();
    let file_system = run(
        with_args("stat", &["-f", "-c", "%T", &place]),
        std::time::Duration::from_secs(5),
    )
    .map(|output| output.stdout.trim().to_owned())
    .unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load
        .split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0);
    // Half a processor is what the measurement itself keeps busy.
    let doubt = if load > 1.5 {
        format!("\nload {load}: other programs are running; do not trust the latencies below")
    } else {
        String::new()
    };
    format!(
        "{model}, {cores} cores, Linux {}, {file_system} at {place}{doubt}",
        kernel.trim()
    )
}
