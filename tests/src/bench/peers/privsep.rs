//! `oslo.privsep`: its protocol is its own, so `benches/peer_privsep.py` asks it and takes the times.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Found, bare, has_modules, pypi_python};
use crate::bench::times::Times;
use crate::command::command;
use crate::scenario::ScenarioError;
use crate::world::{World, at, repository};

/// The client in Python and the daemon that it forked.
pub(in crate::bench) struct Privsep {
    client: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Process id of the daemon.
    pub(in crate::bench) daemon: u32,
    /// From the start of the interpreter to the first answer of the daemon.
    pub(in crate::bench) ready: Duration,
}

impl Privsep {
    pub(in crate::bench) fn start(world: &World) -> Found<Self> {
        has_modules(&pypi_python(), "oslo_privsep, pyroute2")?;
        Self::try_start(world).map_err(|error| error.to_string())
    }

    fn try_start(world: &World) -> Result<Self, ScenarioError> {
        let log = world.logs.join("peer-privsep.log");
        let log = at("opening the log", &log, std::fs::File::create(&log))?;
        let mut start = command(pypi_python());
        start.arg(repository().join("tests/benches/peer_privsep.py"));
        bare(world, &mut start);
        let begun = Instant::now();
        let mut client = start
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(wrong)?;
        let (Some(questions), Some(answers)) = (client.stdin.take(), client.stdout.take()) else {
            return Err(wrong("no pipes"));
        };
        let mut started = Self {
            client,
            questions,
            answers: BufReader::new(answers),
            daemon: 0,
            ready: Duration::ZERO,
        };
        let hello = started.line()?;
        started.ready = begun.elapsed();
        started.daemon = hello["daemon"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .ok_or_else(|| wrong(format!("its client began with {hello}")))?;
        Ok(started)
    }

    /// `what` is `noop` or `route`.
    pub(in crate::bench) fn times(
        &mut self,
        what: &str,
        count: usize,
    ) -> Result<Times, ScenarioError> {
        let warm = (count / 10).max(1);
        writeln!(self.questions, "{what} {warm}").map_err(wrong)?;
        self.line()?;
        writeln!(self.questions, "{what} {count}").map_err(wrong)?;
        let taken: Vec<f64> = serde_json::from_value(self.line()?).map_err(wrong)?;
        Ok(Times::new(
            taken
                .into_iter()
                .map(|micros| Duration::from_secs_f64(micros / 1e6))
                .collect(),
        ))
    }

    fn line(&mut self) -> Result<Value, ScenarioError> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(wrong)?;
        serde_json::from_str(&line).map_err(|_| wrong("ended early; see logs/peer-privsep.log"))
    }

    pub(in crate::bench) fn stop(mut self) {
        // At the end of its input the client ends, and with it the daemon's socket.
        drop(self.questions);
        let _ = self.client.wait();
    }
}

fn wrong(error: impl std::fmt::Display) -> ScenarioError {
    ScenarioError::Wrong(format!("oslo.privsep: {error}"))
}
