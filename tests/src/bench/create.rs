//! What the whole way to a running machine costs beside QEMU alone: `blockhost-vm-create` with database, agent, ledger,
//! clone, cloud-init and route, against the very command line that it comes to, started directly on the same disk.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::row::{Results, Row};
use super::times::Times;
use crate::command::{RunError, command, run};
use crate::namespace;
use crate::report::{Report, Style};
use crate::scenario::{ScenarioError, ensure, template_ready};
use crate::world::services::start_agent;
use crate::world::{AGENT_ONLY, World, built_programs};

/// Machines that are made, and times that QEMU is started alone.
const ROUNDS: usize = 5;
/// Promised in docs/specification.md, in seconds.
const ADDED_LIMIT_S: f64 = 1.5;
const LIMIT: Duration = Duration::from_secs(120);
const OWNER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

/// Measures in one private world that is gone afterwards.
pub(super) fn measure(dir: &Path) -> Result<Results, ScenarioError> {
    namespace::prepare().map_err(|error| ScenarioError::Wrong(error.to_string()))?;
    let programs = [
        AGENT_ONLY,
        &["blockhost-vm-create", "blockhost-build-template"],
    ]
    .concat();
    let world = World::create(dir, &built_programs(), &programs)?;
    world.network()?;
    let mut agent = start_agent(&world)?;
    template_ready(&world, &mut Report::new(Style::detect(true)))?;
    let mut taken = Vec::new();
    // The first one also finds out which accelerator there is.
    for round in 0..=ROUNDS {
        let (mut create, took) = running(&world, &format!("bench-{round}"))?;
        if round > 0 {
            taken.push(took);
        }
        if round < ROUNDS {
            // It takes back what it has done.
            signal(&create, Signal::TERM);
        } else {
            // What it has made stays.
            signal(&create, Signal::KILL);
        }
        create.wait().map_err(wrong)?;
    }
    let ours = Times::new(taken);
    let alone = alone(&world)?;
    agent.stop(Duration::from_secs(45))?;
    world.remove()?;
    let added = ours.p50().saturating_sub(alone.p50());
    Ok(Results {
        rows: vec![
            Row::seconds(
                "blockhost-vm-create until its machine runs, p50",
                ours.p50(),
            )
            .beside_value("QEMU alone", alone.p50().as_secs_f64()),
            Row::seconds("added on top of QEMU's own start", added).at_most(ADDED_LIMIT_S),
        ],
        not_run: Vec::new(),
    })
}

/// A create up to where it waits for the guest: the machine runs, its route is there.
fn running(world: &World, name: &str) -> Result<(Child, Duration), ScenarioError> {
    let args = [name, "--owner-wallet", OWNER, "--skip-mint", "--apply"];
    // Signals have to reach the program: it is setpriv's own process.
    let mut create = world.as_blockhost("blockhost-vm-create", &args);
    let begun = Instant::now();
    let mut child = start(create.stdout(Stdio::null()).stderr(Stdio::piped()))?;
    let mut said = String::new();
    let stderr = child.stderr.take().map(BufReader::new);
    for line in stderr.into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(wrong)?;
        // A step is told when it is over; the next one is waiting.
        if line.contains("] route ") {
            let took = begun.elapsed();
            return Ok((child, took));
        }
        said += &line;
        said.push('\n');
    }
    let _ = child.wait();
    Err(ScenarioError::Wrong(format!(
        "blockhost-vm-create {name} did not get to a running machine:\n{said}"
    )))
}

/// The command line of the machine that was left, started by nobody of ours.
fn alone(world: &World) -> Result<Times, ScenarioError> {
    let vmid = left_behind(world)?;
    let qm = |words: &[&str]| run(world.as_root("blockhost-qm", words), LIMIT);
    let line = qm(&["showcmd", &vmid]).map_err(wrong)?.stdout;
    let socket = qmp_socket(&line)?;
    // What the machine is told at its start is made for each start, beside its sockets, and goes with them.
    let seed = Path::new(&socket).with_file_name("seed.iso");
    let told = fs::read(&seed).map_err(wrong)?;
    qm(&["stop", &vmid]).map_err(wrong)?;
    let directory = seed.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(wrong)?;
    fs::write(&seed, told).map_err(wrong)?;
    let mut taken = Vec::new();
    for _ in 0..ROUNDS {
        let mut shell = command("sh");
        shell.args(["-c", &format!("exec {line}")]);
        world.environment(&mut shell);
        let begun = Instant::now();
        let mut child = start(shell.stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let greeted = greeting(&socket, &mut child);
        taken.push(begun.elapsed());
        let _ = child.kill();
        let _ = child.wait();
        if !greeted {
            let mut said = String::new();
            if let Some(stderr) = &mut child.stderr {
                let _ = stderr.read_to_string(&mut said);
            }
            return Err(ScenarioError::Wrong(format!("QEMU alone: {said}\n{line}")));
        }
    }
    Ok(Times::new(taken))
}

/// The one machine that there is beside the template.
fn left_behind(world: &World) -> Result<String, ScenarioError> {
    let list = run(world.as_root("blockhost-qm", &["list"]), LIMIT).map_err(wrong)?;
    let mut running = list.stdout.lines().filter(|line| line.contains("running"));
    let found = (running.next(), running.next());
    ensure(matches!(found, (Some(_), None)), || {
        format!("not one running machine but:\n{}", list.stdout)
    })?;
    let vmid = found.0.and_then(|line| line.split_whitespace().next());
    Ok(vmid.unwrap_or_default().to_owned())
}

fn qmp_socket(line: &str) -> Result<PathBuf, ScenarioError> {
    let place = line
        .split_once("id=qmp,path=")
        .and_then(|(_, rest)| rest.split_once(','));
    place
        .map(|(path, _)| PathBuf::from(path))
        .ok_or_else(|| ScenarioError::Wrong(format!("no monitor in {line}")))
}

/// Waits for the monitor's first word.
fn greeting(socket: &Path, child: &mut Child) -> bool {
    let end = Instant::now() + LIMIT;
    while Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
        if let Ok(mut stream) = UnixStream::connect(socket) {
            let mut first = [0; 4];
            return stream.read_exact(&mut first).is_ok();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

fn start(command: &mut Command) -> Result<Child, ScenarioError> {
    let started = command.stdin(Stdio::null()).spawn();
    started.map_err(|source| {
        let program = format!("{:?}", command.get_program());
        RunError::Start { program, source }.into()
    })
}

fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Gone already is found out by waiting for it.
        let _ = kill_process(pid, signal);
    }
}

fn wrong(error: impl std::fmt::Display) -> ScenarioError {
    ScenarioError::Wrong(format!("benchmark of creation: {error}"))
}
