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

    /// All of several rounds together.
    pub(super) fn join(rounds: Vec<Self>) -> Self {
        Self::new(rounds.into_iter().flat_map(|round| round.0).collect())
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

    /// Requests back to back for as long as `time`: the pace of [`Self::times`], or the two could not be compared.
    pub(super) fn times_for(
        &mut self,
        time: Duration,
        request: impl Fn(usize) -> Value,
    ) -> Result<Times, ScenarioError> {
        let end = Instant::now() + time;
        let mut times = Vec::new();
        while Instant::now() < end {
            times.push(self.ask_well(&request(times.len()))?);
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

/// What a round trip costs here without any agent: a thread that echoes what it reads on a Unix socket. No agent in
/// another process can be faster.
pub(super) fn bare_echo(count: usize) -> Result<Times, ScenarioError> {
    let wrong = |error: std::io::Error| ScenarioError::Wrong(format!("echo: {error}"));
    let (mut near, mut far) = UnixStream::pair().map_err(wrong)?;
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = far.read(&mut buffer) {
            if far.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
    });
    let frame = frame(&agent_info());
    let mut answer = vec![0; frame.len()];
    let times: std::io::Result<Vec<_>> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            near.write_all(&frame)?;
            near.read_exact(&mut answer)?;
            Ok(begun.elapsed())
        })
        .collect();
    drop(near);
    let _ = echo.join();
    Ok(Times::new(times.map_err(wrong)?))
}

/// The same load on both, in turns, so that what else this machine does meets both alike.
pub(super) fn in_turns(
    ours: &mut Connection,
    theirs: &mut Connection,
    count: usize,
    request: impl Fn(usize) -> Value + Copy,
) -> Result<(Times, Times), ScenarioError> {
    const ROUNDS: usize = 10;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        first.push(ours.times(count.div_ceil(ROUNDS), request)?);
        second.push(theirs.times(count.div_ceil(ROUNDS), request)?);
    }
    Ok((Times::join(first), Times::join(second)))
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
