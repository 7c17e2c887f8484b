//! The program `blockhost-bench`: starts our agent and the peer (`benches/peer_agent.py`) in one private world, puts the
//! same load on both with the same client code, and prints one table with ratios and the machine it ran on.

mod load;
mod machine;
mod memory;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use serde_json::{Value, json};

use crate::command::command;
use crate::namespace;
use crate::report::say;
use crate::scenario::ScenarioError;
use crate::world::services::{Service, start_agent};
use crate::world::{AGENT_ONLY, World, built_programs, init_program, repository};
use load::Connection;

/// Our root agent beside a plain Python asyncio agent, measured in one run.
#[derive(Parser)]
#[command(name = "blockhost-bench", version, after_help = EXAMPLES)]
struct Cli {
    /// Where the private world lives; the file system whose fsync is measured
    #[arg(long, default_value = "/var/tmp/blockhost-bench", value_name = "DIR")]
    dir: PathBuf,
    /// Requests per measurement
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(50..))]
    requests: u32,
    /// Print a JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Exit with 1 when a promise of docs/specification.md is missed
    #[arg(long)]
    check: bool,
}

const EXAMPLES: &str = "\
Needs root. Close other programs first: the numbers are latencies.

Examples:
  blockhost-bench
  blockhost-bench --json | jq '.rows[] | select(.kept == false)'
  blockhost-bench --check --requests 200";

/// One line of the table.
struct Row {
    what: String,
    ours: f64,
    peer: Option<f64>,
    unit: &'static str,
    /// What the first number is compared with, and how far it may go.
    promise: Option<Promise>,
}

struct Promise {
    /// The ratio or value reached.
    reached: f64,
    /// The one allowed.
    allowed: f64,
    /// How to read it.
    words: String,
}

impl Promise {
    fn kept(&self) -> bool {
        self.reached <= self.allowed
    }
}

/// The command line, for man pages and completions.
#[must_use]
pub fn command_line() -> clap::Command {
    Cli::command()
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if !namespace::inside() {
        let refused = namespace::check_host().and_then(|()| namespace::enter(&init_program()));
        let Err(error) = refused;
        eprintln!("blockhost-bench: {error}");
        return ExitCode::from(77);
    }
    match measure(&cli.dir, cli.requests as usize) {
        Ok(rows) => {
            if cli.json {
                say!("{}", as_json(&rows, &cli.dir));
            } else {
                print_table(&rows, &cli.dir);
            }
            let missed = rows
                .iter()
                .filter_map(|row| row.promise.as_ref())
                .any(|promise| !promise.kept());
            ExitCode::from(u8::from(cli.check && missed))
        }
        Err(error) => {
            eprintln!("blockhost-bench: {error}");
            eprintln!(
                "blockhost-bench: the logs are in {}",
                cli.dir.join("logs").display()
            );
            ExitCode::FAILURE
        }
    }
}

fn measure(dir: &Path, requests: usize) -> Result<Vec<Row>, ScenarioError> {
    let wrong = |error: &dyn std::fmt::Display| ScenarioError::Wrong(error.to_string());
    namespace::prepare().map_err(|error| wrong(&error))?;
    let world = World::create(dir, &built_programs(), AGENT_ONLY)?;
    world.network()?;
    let mut agent = start_agent(&world)?;
    let socket = world.layout.agent_socket();
    let idle = memory::pss_of_agent(agent.pid());

    let peer_socket = world.layout.run().join("peer.sock");
    let mut peer = start_peer(&world, &peer_socket)?;

    let mut ours = Connection::open(&socket)?;
    let mut theirs = Connection::open(&peer_socket)?;
    let mut rows = Vec::new();

    let (our_info, peer_info) =
        load::in_turns(&mut ours, &mut theirs, requests, |_| load::agent_info())?;
    rows.push(ratio(
        "agent-info round trip p50",
        our_info.p50(),
        peer_info.p50(),
        0.25,
    ));
    rows.push(compared(
        "agent-info round trip p99",
        our_info.p99(),
        peer_info.p99(),
    ));

    let (our_route, peer_route) =
        load::in_turns(&mut ours, &mut theirs, requests, load::route_add)?;
    rows.push(ratio(
        "ip6-route-add p50 (ours with two durable records, the peer with none)",
        our_route.p50(),
        peer_route.p50(),
        0.5,
    ));
    rows.push(compared(
        "ip6-route-add p99",
        our_route.p99(),
        peer_route.p99(),
    ));

    let busy = machine::while_three_seconds_pass(&world, || {
        ours.times_for(Duration::from_secs(2), load::route_add)
    })?;
    rows.push(beside_itself(
        "ip6-route-add p50 while a 3 s action runs",
        busy.p50(),
        our_route.p50(),
        2.0,
    ));

    let echo = load::bare_echo(requests)?;
    rows.push(single(
        "bare echo between two threads over a Unix socket, p50",
        echo.p50(),
    ));
    let sync = load::bare_fdatasync(&world.layout.ledger().join("bench.tmp"), requests)?;
    rows.push(single(
        "bare append + fdatasync of 800 bytes, p50",
        sync.p50(),
    ));

    let peer_memory = memory::pss(peer.pid());
    let stalled = load::stall(&socket, 60)?;
    std::thread::sleep(Duration::from_millis(500));
    agent.check()?;
    let after = memory::pss_of_agent(agent.pid());
    // The agent still answers while they stall.
    ours.times(50, |_| load::agent_info())?;
    drop(stalled);
    rows.push(memory_row(
        "PSS of all agent processes, idle",
        idle,
        Some(peer_memory),
        24.0,
    ));
    rows.push(memory_row(
        "PSS added by 60 stalled clients with a full frame announced",
        after - idle,
        None,
        8.0,
    ));

    peer.stop(Duration::from_secs(5)).or_else(|error| {
        if peer.check().is_err() {
            Ok(None)
        } else {
            Err(error)
        }
    })?;
    agent.stop(Duration::from_secs(45))?;
    world.remove()?;
    Ok(rows)
}

fn start_peer(world: &World, socket: &Path) -> Result<Service, ScenarioError> {
    let mut start = command("/usr/bin/python3");
    start
        .arg(repository().join("tests/benches/peer_agent.py"))
        .arg(socket);
    world.environment(&mut start);
    let mut service = Service::start(world, "peer", start)?;
    let path = socket.to_owned();
    service.wait_until("listening", Duration::from_secs(10), || {
        Connection::open(&path).is_ok()
    })?;
    Ok(service)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn ratio(what: &str, ours: Duration, peer: Duration, allowed: f64) -> Row {
    let reached = ours.as_secs_f64() / peer.as_secs_f64();
    let words = format!("ratio {reached:.3}, at most {allowed}");
    Row {
        what: what.to_owned(),
        ours: micros(ours),
        peer: Some(micros(peer)),
        unit: "us",
        promise: Some(Promise {
            reached,
            allowed,
            words,
        }),
    }
}

fn compared(what: &str, ours: Duration, peer: Duration) -> Row {
    Row {
        what: what.to_owned(),
        ours: micros(ours),
        peer: Some(micros(peer)),
        unit: "us",
        promise: None,
    }
}

fn beside_itself(what: &str, busy: Duration, idle: Duration, allowed: f64) -> Row {
    let reached = busy.as_secs_f64() / idle.as_secs_f64();
    let words = format!("{reached:.2}x its idle p50, at most {allowed}x");
    Row {
        what: what.to_owned(),
        ours: micros(busy),
        peer: None,
        unit: "us",
        promise: Some(Promise {
            reached,
            allowed,
            words,
        }),
    }
}

fn single(what: &str, time: Duration) -> Row {
    Row {
        what: what.to_owned(),
        ours: micros(time),
        peer: None,
        unit: "us",
        promise: None,
    }
}

fn memory_row(what: &str, mib: f64, peer: Option<f64>, allowed: f64) -> Row {
    let words = format!("at most {allowed} MiB");
    Row {
        what: what.to_owned(),
        ours: mib,
        peer,
        unit: "MiB",
        promise: Some(Promise {
            reached: mib,
            allowed,
            words,
        }),
    }
}

fn print_table(rows: &[Row], dir: &Path) {
    say!("{}", memory::machine(dir));
    say!();
    let width = rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
    say!(
        "{:width$}  {:>10}  {:>10}        promise",
        "",
        "BlockHost",
        "Python"
    );
    for row in rows {
        let peer = row
            .peer
            .map_or_else(|| "-".to_owned(), |peer| format!("{peer:.1}"));
        let promise = row.promise.as_ref().map_or_else(String::new, |promise| {
            format!(
                "{}  {}",
                if promise.kept() { "kept  " } else { "MISSED" },
                promise.words
            )
        });
        say!(
            "{:width$}  {:>10.1}  {:>10}  {:<4}  {promise}",
            row.what,
            row.ours,
            peer,
            row.unit
        );
    }
}

fn as_json(rows: &[Row], dir: &Path) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "what": row.what, "unit": row.unit, "ours": row.ours, "peer": row.peer,
                "reached": row.promise.as_ref().map(|promise| promise.reached),
                "allowed": row.promise.as_ref().map(|promise| promise.allowed),
                "kept": row.promise.as_ref().map(Promise::kept),
            })
        })
        .collect();
    json!({"machine": memory::machine(dir), "rows": rows})
}

#[cfg(test)]
mod tests {
    use super::load::Times;
    use super::*;

    #[test]
    fn a_ratio_above_the_promise_is_not_kept() {
        let row = ratio(
            "x",
            Duration::from_micros(30),
            Duration::from_micros(100),
            0.25,
        );
        assert!(!row.promise.expect("has one").kept());
        let row = ratio(
            "x",
            Duration::from_micros(20),
            Duration::from_micros(100),
            0.25,
        );
        assert!(row.promise.expect("has one").kept());
    }

    #[test]
    fn percentiles_are_taken_from_the_sorted_times() {
        let times = Times::new((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(times.p50(), Duration::from_millis(51));
        assert_eq!(times.p99(), Duration::from_millis(100));
    }
}
