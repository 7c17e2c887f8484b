//! The load of one client at a time: an open connection, a connection for each call, and clients that stall.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::times::{Round, Times};
use super::wire::Wire;
use crate::scenario::ScenarioError;
use crate::world::at;

/// What is asked: the bytes of the request of this number.
pub(super) type Request = fn(usize) -> Vec<u8>;

/// One open connection.
pub(super) struct Connection {
    wire: Wire,
    stream: UnixStream,
    received: Vec<u8>,
}

impl Connection {
    pub(super) fn open(wire: Wire, path: &Path) -> Result<Self, ScenarioError> {
        let stream = at("connecting to", path, UnixStream::connect(path))?;
        Self::over(wire, stream)
    }

    /// Over a stream where the greetings are done already.
    pub(super) fn over(wire: Wire, stream: UnixStream) -> Result<Self, ScenarioError> {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .map_err(|error| ScenarioError::Wrong(format!("setting a time limit: {error}")))?;
        Ok(Self {
            wire,
            stream,
            received: Vec::new(),
        })
    }

    /// One request, one answer, and the time between.
    pub(super) fn ask(&mut self, request: &[u8]) -> Result<(Duration, Vec<u8>), ScenarioError> {
        let broken = |error: std::io::Error| {
            ScenarioError::Wrong(format!("no answer over {:?}: {error}", self.wire))
        };
        self.received.clear();
        let mut buffer = [0; 8192];
        let begun = Instant::now();
        self.stream.write_all(request).map_err(broken)?;
        loop {
            let length = self.stream.read(&mut buffer).map_err(broken)?;
            if length == 0 {
                return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.received.extend_from_slice(&buffer[..length]);
            if self.wire.whole(&self.received).is_some() {
                break;
            }
        }
        Ok((begun.elapsed(), self.received.clone()))
    }

    /// The same, for an answer that has to be a success.
    pub(super) fn ask_well(&mut self, request: &[u8]) -> Result<Duration, ScenarioError> {
        let (took, answer) = self.ask(request)?;
        if self.wire.good(&answer) {
            Ok(took)
        } else {
            Err(ScenarioError::Wrong(format!(
                "{} was answered by {}",
                request.escape_ascii(),
                answer.escape_ascii()
            )))
        }
    }

    /// `count` requests after a tenth of that to warm up.
    pub(super) fn times(&mut self, count: usize, request: Request) -> Result<Times, ScenarioError> {
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
        request: Request,
    ) -> Result<Times, ScenarioError> {
        let end = Instant::now() + time;
        let mut times = Vec::new();
        while Instant::now() < end {
            times.push(self.ask_well(&request(times.len()))?);
        }
        Ok(Times::new(times))
    }
}

/// Calls over a connection that stays.
pub(super) struct Open<'a>(pub(super) &'a mut Connection, pub(super) Request);

impl Round for Open<'_> {
    fn round(&mut self, count: usize) -> Result<Times, ScenarioError> {
        self.0.times(count, self.1)
    }
}

/// A connection for each call, as short-lived clients make them.
pub(super) struct Each(pub(super) Wire, pub(super) PathBuf, pub(super) Request);

impl Each {
    fn call(&self, number: usize) -> Result<Duration, ScenarioError> {
        let request = self.2(number);
        let begun = Instant::now();
        Connection::open(self.0, &self.1)?.ask_well(&request)?;
        Ok(begun.elapsed())
    }
}

impl Round for Each {
    fn round(&mut self, count: usize) -> Result<Times, ScenarioError> {
        for number in 0..count / 10 {
            self.call(number)?;
        }
        let times: Result<Vec<_>, _> = (0..count).map(|number| self.call(number)).collect();
        Ok(Times::new(times?))
    }
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
