//! What is measured, in order: each step brings its lines of the table.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::crowd::{Crowd, Served};
use super::load::{Connection, Each, Open, stall};
use super::peers::{Bus, Ip, Privsep, Python, Sudo, Varlink, or_note};
use super::row::{Results, Row};
use super::times::{Round, Times, in_turns};
use super::wire::{self, Wire};
use super::{floor, machine, memory, network, startup, state, switches as ovs, uplink};
use crate::command::{run, with_args};
use crate::namespace;
use crate::scenario::ScenarioError;
use crate::world::services::{Service, start_agent};
use crate::world::{AGENT_ONLY, World, at, built_programs};

/// Our agent and its peers, all running.
struct Stage {
    world: World,
    requests: usize,
    agent: Service,
    socket: PathBuf,
    ours: Connection,
    python: Python,
    to_python: Connection,
    varlink: Option<Varlink>,
    bus: Option<Bus>,
    privsep: Option<Privsep>,
    sudo: Option<Sudo>,
    rows: Vec<Row>,
}

const PYTHON: &str = "Python agent";
const VARLINK: &str = "systemd varlink";
const DBUS: &str = "D-Bus, Python";
const PRIVSEP: &str = "oslo.privsep";

/// Everything, in one private world that is gone afterwards.
pub(super) fn everything(dir: &Path, requests: usize) -> Result<Results, ScenarioError> {
    let world = prepare(dir)?;
    let starts = start_up(&world)?;

    let agent = start_agent(&world)?;
    let idle = memory::pss_of_agent(agent.pid());
    let mut not_run = Vec::new();
    let socket = world.layout.agent_socket();
    let python = Python::start(&world)?;
    let mut stage = Stage {
        requests,
        ours: Connection::open(Wire::Frames, &socket)?,
        to_python: Connection::open(Wire::Frames, &python.socket)?,
        varlink: or_note(Varlink::start(&world), VARLINK, &mut not_run),
        bus: or_note(Bus::start(&world), DBUS, &mut not_run),
        privsep: or_note(Privsep::start(&world), PRIVSEP, &mut not_run),
        sudo: or_note(Sudo::set_up(&world), "sudo ip", &mut not_run),
        world,
        agent,
        socket,
        python,
        rows: Vec::new(),
    };
    stage.started(&starts.0, &starts.1);
    stage.no_op()?;
    stage.connection_for_each_call()?;
    stage.routes()?;
    for clients in [16, 256] {
        stage.crowd(clients)?;
    }
    stage.floor()?;
    stage.state()?;
    stage.memory(idle)?;
    let about_switches = ovs::measure(&stage.world, &mut stage.ours, &mut not_run)?;
    stage.rows.extend(about_switches);
    stage.rows.extend(uplink::rows(&stage.world, &mut not_run)?);
    stage.binary();
    match network::rows(&stage.world)? {
        Ok(rows) => stage.rows.extend(rows),
        Err(reason) => not_run.push(reason),
    }
    Ok(Results {
        rows: stage.take_down()?,
        not_run,
    })
}

/// Only what is about the switch, and what is declared of it.
pub(super) fn switches(dir: &Path) -> Result<Results, ScenarioError> {
    let world = prepare(dir)?;
    let mut agent = start_agent(&world)?;
    let mut ours = Connection::open(Wire::Frames, &world.layout.agent_socket())?;
    let mut not_run = Vec::new();
    let mut rows = ovs::measure(&world, &mut ours, &mut not_run)?;
    drop(ours);
    rows.extend(uplink::rows(&world, &mut not_run)?);
    rows.push(about_state()?);
    match network::rows(&world)? {
        Ok(more) => rows.extend(more),
        Err(reason) => not_run.push(reason),
    }
    agent.stop(Duration::from_secs(45))?;
    world.remove()?;
    Ok(Results { rows, not_run })
}

/// A private host with room for the crowds; `/run` is its own, so that a peer with a fixed place there has one.
fn prepare(dir: &Path) -> Result<World, ScenarioError> {
    namespace::prepare().map_err(|error| ScenarioError::Wrong(error.to_string()))?;
    let words = ["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"];
    run(with_args("mount", &words), Duration::from_secs(10))
        .map_err(|error| ScenarioError::Wrong(error.to_string()))?;
    let programs = [
        AGENT_ONLY,
        &["blockhost", "blockhost-bus", "blockhost-net-revert"],
    ]
    .concat();
    let world = World::create(dir, &built_programs(), &programs)?;
    world.network()?;
    let policy = world.layout.etc().join("root-agent.yaml");
    let opened = OpenOptions::new().append(true).open(&policy);
    let mut file = at("opening", &policy, opened)?;
    // The meters run, as they would anywhere; no number of requests that is asked for here empties them.
    let limits = b"limits:\n  connections_per_uid: 400\n  connections: 400\n\
        rates:\n  change: {per_minute: 10000000, burst: 10000000}\n";
    at("writing", &policy, file.write_all(limits))?;
    let allow = format!("allow:\n{}", uplink::ALLOW);
    at("writing", &policy, file.write_all(allow.as_bytes()))?;
    Ok(world)
}

fn start_up(world: &World) -> Result<(Times, Times), ScenarioError> {
    let ours = startup::until_answering(|| startup::start_ours(world))?;
    let python = startup::until_answering(|| {
        let started = Python::spawn(world)?;
        Ok((started.service, started.socket))
    })?;
    Ok((ours, python))
}

impl Stage {
    fn started(&mut self, ours: &Times, python: &Times) {
        const WHAT: &str = "start of the program to its first answer (p50 of 5)";
        self.rows
            .push(Row::time(WHAT, ours.p50()).beside(PYTHON, python.p50()));
        if let Some(peer) = &self.privsep {
            self.rows
                .push(Row::time(WHAT, ours.p50()).beside(PRIVSEP, peer.ready));
        }
    }

    fn no_op(&mut self) -> Result<(), ScenarioError> {
        const P50: &str = "agent-info (peers: their no-op) on an open connection, p50";
        const P99: &str = "the same, p99";
        let mut varlink = match &self.varlink {
            Some(peer) => Some(Connection::open(Wire::Varlink, &peer.socket)?),
            None => None,
        };
        let mut ours = Open(&mut self.ours, wire::agent_info);
        let mut python = Open(&mut self.to_python, wire::agent_info);
        let mut varlink = varlink.as_mut().map(|peer| Open(peer, wire::get_info));
        let mut bus = self
            .bus
            .as_mut()
            .map(|peer| Open(&mut peer.connection, wire::dbus_info));
        let mut privsep = self
            .privsep
            .as_mut()
            .map(|peer| move |count| peer.times("noop", count));

        let mut names = vec![PYTHON];
        let mut rounds: Vec<&mut dyn Round> = vec![&mut ours, &mut python];
        add(&mut rounds, &mut names, &mut varlink, VARLINK);
        add(&mut rounds, &mut names, &mut bus, DBUS);
        add(&mut rounds, &mut names, &mut privsep, PRIVSEP);
        let taken = in_turns(self.requests, &mut rounds)?;
        let (ours, peers) = first_and_rest(&taken)?;
        for (name, peer) in names.iter().zip(peers) {
            let row = Row::time(P50, ours.p50()).beside(name, peer.p50());
            self.rows.push(match *name {
                PYTHON => row.ratio_at_most(0.25),
                VARLINK => row.ratio_at_most(1.3),
                _ => row,
            });
        }
        for (name, peer) in names.iter().zip(peers) {
            self.rows
                .push(Row::time(P99, ours.p99()).beside(name, peer.p99()));
        }
        Ok(())
    }

    fn connection_for_each_call(&mut self) -> Result<(), ScenarioError> {
        let mut ours = Each(Wire::Frames, self.socket.clone(), wire::agent_info);
        let mut python = Each(Wire::Frames, self.python.socket.clone(), wire::agent_info);
        let mut varlink = self
            .varlink
            .as_ref()
            .map(|peer| Each(Wire::Varlink, peer.socket.clone(), wire::get_info));
        let mut names = vec![PYTHON];
        let mut rounds: Vec<&mut dyn Round> = vec![&mut ours, &mut python];
        add(&mut rounds, &mut names, &mut varlink, VARLINK);
        let taken = in_turns(self.requests, &mut rounds)?;
        let (ours, peers) = first_and_rest(&taken)?;
        for (name, peer) in names.iter().zip(peers) {
            let what = "the same, a connection for each call, p50";
            let row = Row::time(what, ours.p50()).beside(name, peer.p50());
            self.rows.push(if *name == PYTHON {
                row.ratio_at_most(0.25)
            } else {
                row
            });
        }
        Ok(())
    }

    fn routes(&mut self) -> Result<(), ScenarioError> {
        const P50: &str = "ip6-route-add, p50 (ours with two durable records, the peers with none)";
        let idle = {
            let mut ours = Open(&mut self.ours, wire::route_add);
            let mut python = Open(&mut self.to_python, wire::route_add);
            let mut privsep = self
                .privsep
                .as_mut()
                .map(|peer| move |count| peer.times("route", count));
            let mut ip = Some(Ip);
            let mut names = vec![PYTHON];
            let mut rounds: Vec<&mut dyn Round> = vec![&mut ours, &mut python];
            add(&mut rounds, &mut names, &mut privsep, PRIVSEP);
            add(&mut rounds, &mut names, &mut ip, "ip");
            add(&mut rounds, &mut names, &mut self.sudo, "sudo ip");
            let taken = in_turns(self.requests / 2, &mut rounds)?;
            let (ours, peers) = first_and_rest(&taken)?;
            for (name, peer) in names.iter().zip(peers) {
                let row = Row::time(P50, ours.p50()).beside(name, peer.p50());
                self.rows.push(if *name == PYTHON {
                    row.ratio_at_most(0.334)
                } else {
                    row
                });
            }
            for (name, peer) in names.iter().zip(peers) {
                let what = "ip6-route-add, p99";
                self.rows
                    .push(Row::time(what, ours.p99()).beside(name, peer.p99()));
            }
            ours.p50()
        };
        let ours = &mut self.ours;
        let busy = machine::while_three_seconds_pass(&self.world, || {
            ours.times_for(Duration::from_secs(2), wire::route_add)
        })?;
        let what = "ip6-route-add, p50 while a 3 s action runs";
        self.rows.push(
            Row::time(what, busy.p50())
                .beside("itself, idle", idle)
                .ratio_at_most(2.0),
        );
        Ok(())
    }

    fn crowd(&mut self, clients: usize) -> Result<(), ScenarioError> {
        let mut crowds = vec![
            (
                "",
                Crowd::gather(Wire::Frames, &self.socket, clients, wire::agent_info)?,
            ),
            (
                PYTHON,
                Crowd::gather(Wire::Frames, &self.python.socket, clients, wire::agent_info)?,
            ),
        ];
        if let Some(peer) = &self.varlink {
            crowds.push((
                VARLINK,
                Crowd::gather(Wire::Varlink, &peer.socket, clients, wire::get_info)?,
            ));
        }
        // As many turns for all, one after the other.
        let mut served: Vec<Vec<Served>> = crowds.iter().map(|_| Vec::new()).collect();
        for _ in 0..5 {
            for ((_, crowd), served) in crowds.iter_mut().zip(&mut served) {
                served.push(crowd.ask_for(Duration::from_millis(400))?);
            }
        }
        let served: Vec<_> = crowds
            .iter()
            .map(|(name, _)| *name)
            .zip(served.into_iter().map(Served::join))
            .collect();
        let Some(((_, ours), peers)) = served.split_first() else {
            return Ok(());
        };
        for (name, peer) in peers {
            let what = format!("{clients} clients, agent-info: answers per second");
            self.rows
                .push(Row::rate(&what, ours.per_second).beside_value(name, peer.per_second));
        }
        for (name, peer) in peers {
            let what = format!("{clients} clients, agent-info: p99");
            self.rows
                .push(Row::time(&what, ours.times.p99()).beside(name, peer.times.p99()));
        }
        Ok(())
    }

    fn floor(&mut self) -> Result<(), ScenarioError> {
        let echo = floor::bare_echo(self.requests)?;
        let what = "bare echo between two threads over a Unix socket, p50";
        self.rows.push(Row::time(what, echo.p50()));
        let path = self.world.layout.ledger().join("bench.tmp");
        let sync = floor::bare_fdatasync(&path, self.requests)?;
        let what = "bare append + fdatasync of 800 bytes, p50";
        self.rows.push(Row::time(what, sync.p50()));
        Ok(())
    }

    fn state(&mut self) -> Result<(), ScenarioError> {
        self.rows.push(about_state()?);
        Ok(())
    }

    fn memory(&mut self, idle: f64) -> Result<(), ScenarioError> {
        const IDLE: &str = "PSS of all processes, idle";
        let peers = [
            Some((PYTHON, memory::pss(self.python.service.pid()))),
            self.varlink
                .as_ref()
                .map(|peer| (VARLINK, memory::pss(peer.service.pid()))),
            self.bus
                .as_ref()
                .map(|peer| (DBUS, memory::pss(peer.service.pid()))),
            self.privsep
                .as_ref()
                .map(|peer| (PRIVSEP, memory::pss(peer.daemon))),
        ];
        for (name, mib) in peers.into_iter().flatten() {
            let row = Row::size(IDLE, idle).beside_value(name, mib);
            self.rows.push(if name == PYTHON {
                row.at_most(24.0)
            } else {
                row
            });
        }
        let before = memory::pss_of_agent(self.agent.pid());
        let stalled = stall(&self.socket, 60)?;
        std::thread::sleep(Duration::from_millis(500));
        self.agent.check()?;
        let after = memory::pss_of_agent(self.agent.pid());
        // The agent still answers while they stall.
        self.ours.times(50, wire::agent_info)?;
        drop(stalled);
        let what = "PSS added by 60 stalled clients with a full frame announced";
        self.rows.push(Row::size(what, after - before).at_most(8.0));
        Ok(())
    }

    fn binary(&mut self) {
        let (built, dist) = startup::binary_sizes();
        let what = "size of blockhost-root-agent, this build's profile";
        self.rows.push(Row::size(what, built));
        if let Some(dist) = dist {
            let what = "size of blockhost-root-agent, profile dist (make deb)";
            self.rows.push(Row::size(what, dist));
        }
    }

    fn take_down(mut self) -> Result<Vec<Row>, ScenarioError> {
        drop((self.ours, self.to_python));
        self.python.stop();
        self.varlink.into_iter().for_each(Varlink::stop);
        self.bus.into_iter().for_each(Bus::stop);
        self.privsep.into_iter().for_each(Privsep::stop);
        self.agent.stop(Duration::from_secs(45))?;
        self.world.remove()?;
        Ok(self.rows)
    }
}

fn about_state() -> Result<Row, ScenarioError> {
    let what = "diff of a document with 1 000 containers, from its text to the empty plan, p50";
    let times = state::thousand_containers()?;
    Ok(Row::time(what, times.p50()).at_most(20_000.0))
}

fn add<'a, R: Round>(
    rounds: &mut Vec<&'a mut dyn Round>,
    names: &mut Vec<&'static str>,
    peer: &'a mut Option<R>,
    name: &'static str,
) {
    if let Some(peer) = peer {
        rounds.push(peer);
        names.push(name);
    }
}

fn first_and_rest<T>(taken: &[T]) -> Result<(&T, &[T]), ScenarioError> {
    taken
        .split_first()
        .ok_or_else(|| ScenarioError::Wrong("nothing was measured".to_owned()))
}
