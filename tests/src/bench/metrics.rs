//! What it costs to look at a hundred machines at once: real QEMU processes, each with a monitor, an interface on the bridge
//! and a guest agent that is enabled and silent, which is what takes longest to ask.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::row::{Results, Row};
use super::times::Times;
use crate::command::run;
use crate::namespace;
use crate::scenario::{ScenarioError, ensure};
use crate::world::{AGENT_ONLY, World, built_programs};

const FIRST: u32 = 900;
const MACHINES: u32 = 100;
const ROUNDS: usize = 11;
/// Promised in docs/specification.md, in seconds.
const LIMIT_S: f64 = 1.0;
/// For one command.
const LIMIT: Duration = Duration::from_secs(120);
/// Until all firmware has given up looking for a disk, and nothing but the looking costs anything.
const QUIET_LIMIT: Duration = Duration::from_secs(600);
/// All of them together use less than this part of one processor then.
const QUIET: f64 = 0.3;

/// Measures in one private world that is gone afterwards.
pub(super) fn measure(dir: &Path) -> Result<Results, ScenarioError> {
    namespace::prepare().map_err(wrong)?;
    let world = World::create(dir, &built_programs(), AGENT_ONLY)?;
    world.network()?;
    let measured = start(&world).and_then(|()| looks(&world));
    for vmid in numbers() {
        // Whether it was measured or not: none of them may outlive this.
        let _ = qm(&world, &["stop", &vmid]);
    }
    let (all, one, memory) = measured?;
    world.remove()?;
    Ok(Results {
        rows: vec![
            Row::seconds("counters of 100 machines that run, p50", all.p50()).at_most(LIMIT_S),
            Row::seconds("counters of one of them, p50", one.p50()),
            Row::size("memory that one of them takes from the host", memory),
        ],
        not_run: Vec::new(),
    })
}

fn numbers() -> impl Iterator<Item = String> {
    (FIRST..FIRST + MACHINES).map(|vmid| vmid.to_string())
}

fn qm(world: &World, words: &[&str]) -> Result<String, ScenarioError> {
    let done = run(world.as_root("blockhost-qm", words), LIMIT).map_err(wrong)?;
    Ok(done.stdout)
}

fn start(world: &World) -> Result<(), ScenarioError> {
    for vmid in numbers() {
        let options = ["--memory", "16", "--cores", "1", "--agent", "1"];
        let net = ["--net0", "virtio,bridge=vmbr0", "--name", "bench"];
        qm(world, &[&["create", &vmid], &options[..], &net].concat())?;
        qm(world, &["start", &vmid])?;
    }
    Ok(())
}

fn looks(world: &World) -> Result<(Times, Times, f64), ScenarioError> {
    wait_until_quiet(world)?;
    let mut all = Vec::new();
    let mut one = Vec::new();
    let mut memory = 0.0;
    let first = FIRST.to_string();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let text = qm(world, &["metrics"])?;
        all.push(begun.elapsed());
        let rows = rows(&text)?;
        let running = rows.iter().filter(|row| row["state"] == "running").count();
        ensure(running == MACHINES as usize, || {
            format!("{running} of {MACHINES} machines run:\n{text}")
        })?;
        let kib = u32::try_from((sum(&rows, "memory_used") / u64::from(MACHINES)) >> 10);
        memory = kib.map_or(0.0, |kib| f64::from(kib) / 1024.0);
        let begun = Instant::now();
        qm(world, &["metrics", &first])?;
        one.push(begun.elapsed());
    }
    Ok((Times::new(all), Times::new(one), memory))
}

fn wait_until_quiet(world: &World) -> Result<(), ScenarioError> {
    let end = Instant::now() + QUIET_LIMIT;
    let look = || -> Result<(u64, Instant), ScenarioError> {
        let text = qm(world, &["metrics"])?;
        Ok((sum(&rows(&text)?, "cpu_ms"), Instant::now()))
    };
    let mut before = look()?;
    loop {
        std::thread::sleep(Duration::from_secs(3));
        let now = look()?;
        let used = Duration::from_millis(now.0.saturating_sub(before.0)).as_secs_f64();
        if used < QUIET * (now.1 - before.1).as_secs_f64() {
            return Ok(());
        }
        before = now;
        ensure(Instant::now() < end, || {
            format!("the machines do not come to rest: {used:.1} s of processor time in 3 s")
        })?;
    }
}

fn rows(text: &str) -> Result<Vec<Value>, ScenarioError> {
    match serde_json::from_str(text) {
        Ok(Value::Array(rows)) => Ok(rows),
        _ => Err(wrong(format!("no list of counters: {text}"))),
    }
}

fn sum(rows: &[Value], key: &str) -> u64 {
    rows.iter().filter_map(|row| row[key].as_u64()).sum()
}

fn wrong(error: impl std::fmt::Display) -> ScenarioError {
    ScenarioError::Wrong(format!("benchmark of metrics: {error}"))
}
