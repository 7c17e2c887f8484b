//! The load: one client for both agents, on the bare wire, so that nothing of our own client is measured.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::scenario::ScenarioError;
use crate::world::at;

/// Measured times, sorted.
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub(super) fn p50(&self) -> Duration {
        self.at(50)
    }

    pub(super) fn p99(&self) -> Duration {
        self.at(99)
    }

    fn at(&self, percent: usize) -> Duration {
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or_default()
    }
}

/// One open connection to an agent.
pub(super) struct Connection {
    stream: UnixStream,
    answer: Vec<u8>,
}

impl Connection {
    pub(super) fn open(path: &Path) -> Result<Self, ScenarioError> {
        let stream = at("connecting to", path, UnixStream::connect(path))?;
        at(
            "setting a time limit on",
            path,
            stream.set_read_timeout(Some(Duration::from_secs(20))),
        )?;
        Ok(Self {
            stream,
            answer: Vec::new(),
        })
    }

    /// One request, one answer, and the time between.
    pub(super) fn ask(&mut self, request: &Value) -> Result<(Duration, Value), ScenarioError> {
        let broken = |error: std::io::Error| {
            ScenarioError::Wrong(format!("an agent did not answer {request}: {error}"))
        };
        let frame = frame(request);
        let begun = Instant::now();
        self.stream.write_all(&frame).map_err(broken)?;
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).map_err(broken)?;
        self.answer.resize(u32::from_be_bytes(header) as usize, 0);
        self.stream.read_exact(&mut self.answer).map_err(broken)?;
        let took = begun.elapsed();
        let answer = serde_json::from_slice(&self.answer)
            .map_err(|error| ScenarioError::Wrong(format!("an agent answered no JSON: {error}")))?;
        Ok((took, answer))
    }

    fn ask_well(&mut self, request: &Value) -> Result<Duration, ScenarioError> {
        let (took, answer) = self.ask(request)?;
        if answer["ok"] == true {
            Ok(took)
        } else {
            Err(ScenarioError::Wrong(format!(
                "{request} was answered by {answer}"
            )))
        }
    }

    /// `count` requests after a tenth of that to warm up; every answer must be a success.
    pub(super) fn times(
        &mut self,
        count: usize,
        request: impl Fn(usize) -> Value,
    ) -> Result<Times, ScenarioError> {
        for number in 0..count / 10 {
            self.ask_well(&request(number))?;
        }
        let times: Result<Vec<_>, _> = (0..count)
            .map(|number| self.ask_well(&request(number)))
            .collect();
        Ok(Times::new(times?))
    }

    /// Requests for as long as `time`.
    pub(super) fn times_for(
        &mut self,
        time: Duration,
        request: impl Fn(usize) -> Value,
    ) -> Result<Times, ScenarioError> {
        let end = Instant::now() + time;
        let mut times = Vec::new();
        while Instant::now() < end {
            times.push(self.ask_well(&request(times.len()))?);
            // The same pace as one client that does something with its answers.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Times::new(times))
    }
}

fn frame(request: &Value) -> Vec<u8> {
    let body = request.to_string();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], body.as_bytes()].concat()
}

pub(super) fn agent_info() -> Value {
    json!({"action": "agent-info"})
}

/// Sixteen addresses in turn, so that no answer comes from a cache.
pub(super) fn route_add(number: usize) -> Value {
    let address = format!("fd77:b10c::1:{:x}/128", number % 16 + 1);
    json!({"action": "ip6-route-add", "params": {"address": address, "dev": "vmbr0"}})
}

/// Clients that announce a full frame and send nothing of it.
pub(super) fn stall(socket: &Path, count: usize) -> Result<Vec<UnixStream>, ScenarioError> {
    (0..count)
        .map(|_| {
            let mut stream = at("connecting to", socket, UnixStream::connect(socket))?;
            at(
                "announcing a frame to",
                socket,
                stream.write_all(&(1_u32 << 20).to_be_bytes()),
            )?;
            // Some of the body, so that a buffer sized by the announcement would show.
            at("writing to", socket, stream.write_all(b"{\"action\":"))?;
            Ok(stream)
        })
        .collect()
}

/// What durability costs here by itself.
pub(super) fn bare_fdatasync(path: &Path, count: usize) -> Result<Times, ScenarioError> {
    let mut file: File = at(
        "creating",
        path,
        OpenOptions::new().create(true).append(true).open(path),
    )?;
    let record = [0x5a_u8; 800];
    let times: Result<Vec<_>, _> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&record)?;
            file.sync_data()?;
            Ok::<_, std::io::Error>(begun.elapsed())
        })
        .collect();
    let times = at("syncing", path, times)?;
    at("removing", path, std::fs::remove_file(path))?;
    Ok(Times::new(times))
}
