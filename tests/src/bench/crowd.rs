//! The load of many clients at once, from one thread, so that the clients do not fight over the processors: each asks
//! again as soon as it has its answer.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::load::Request;
use super::times::Times;
use super::wire::Wire;
use crate::scenario::ScenarioError;
use crate::world::at;

/// What a crowd got.
pub(super) struct Served {
    pub(super) per_second: f64,
    pub(super) times: Times,
}

impl Served {
    /// Several turns as one.
    pub(super) fn join(turns: Vec<Self>) -> Self {
        let rate = turns.iter().map(|turn| turn.per_second).sum::<f64>();
        #[expect(clippy::cast_precision_loss, reason = "a handful of turns")]
        let count = turns.len().max(1) as f64;
        Self {
            per_second: rate / count,
            times: Times::join(turns.into_iter().map(|turn| turn.times).collect()),
        }
    }
}

struct Member {
    stream: UnixStream,
    received: Vec<u8>,
    asked: Instant,
    number: usize,
}

/// Clients with connections that stay open between turns.
pub(super) struct Crowd {
    wire: Wire,
    request: Request,
    members: Vec<Member>,
    events: std::os::fd::OwnedFd,
}

impl Crowd {
    pub(super) fn gather(
        wire: Wire,
        path: &Path,
        count: usize,
        request: Request,
    ) -> Result<Self, ScenarioError> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(wrong)?;
        let mut members = Vec::new();
        for number in 0..count {
            let stream = at("connecting to", path, UnixStream::connect(path))?;
            stream.set_nonblocking(true).map_err(wrong)?;
            epoll::add(
                &events,
                &stream,
                epoll::EventData::new_u64(number as u64),
                epoll::EventFlags::IN,
            )
            .map_err(wrong)?;
            members.push(Member {
                stream,
                received: Vec::new(),
                asked: Instant::now(),
                number,
            });
        }
        Ok(Self {
            wire,
            request,
            members,
            events,
        })
    }

    /// All ask for as long as `time`; ends when every one of them has its last answer.
    pub(super) fn ask_for(&mut self, time: Duration) -> Result<Served, ScenarioError> {
        let begun = Instant::now();
        let end = begun + time;
        for member in &mut self.members {
            member.ask(self.request)?;
        }
        let mut waiting = self.members.len();
        let mut times = Vec::new();
        let mut space = Vec::with_capacity(64);
        while waiting > 0 {
            space.clear();
            let limit = rustix::event::Timespec {
                tv_sec: 20,
                tv_nsec: 0,
            };
            epoll::wait(
                &self.events,
                rustix::buffer::spare_capacity(&mut space),
                Some(&limit),
            )
            .map_err(wrong)?;
            if space.is_empty() {
                return Err(ScenarioError::Wrong(format!(
                    "{waiting} of {} clients over {:?} got no answer in 20 s",
                    self.members.len(),
                    self.wire
                )));
            }
            for event in &space {
                let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                let Some(member) = self.members.get_mut(index) else {
                    continue;
                };
                if !member.answered(self.wire)? {
                    continue;
                }
                times.push(member.asked.elapsed());
                if Instant::now() < end {
                    member.ask(self.request)?;
                } else {
                    waiting -= 1;
                }
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let per_second = times.len() as f64 / begun.elapsed().as_secs_f64();
        Ok(Served {
            per_second,
            times: Times::new(times),
        })
    }
}

impl Member {
    fn ask(&mut self, request: Request) -> Result<(), ScenarioError> {
        self.received.clear();
        self.number += 1;
        let request = request(self.number);
        self.asked = Instant::now();
        // A request is far smaller than what a socket holds; one that would block is a finding.
        self.stream.write_all(&request).map_err(wrong)
    }

    fn answered(&mut self, wire: Wire) -> Result<bool, ScenarioError> {
        let mut buffer = [0; 8192];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(ScenarioError::Wrong(format!(
                "a client over {wire:?} was put out"
            ))),
            Ok(length) => {
                self.received.extend_from_slice(&buffer[..length]);
                match wire.whole(&self.received) {
                    None => Ok(false),
                    Some(length) if wire.good(&self.received[..length]) => Ok(true),
                    Some(_) => Err(ScenarioError::Wrong(format!(
                        "a client over {wire:?} was answered by {}",
                        self.received.escape_ascii()
                    ))),
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(wrong(error)),
        }
    }
}

fn wrong(error: impl std::fmt::Display) -> ScenarioError {
    ScenarioError::Wrong(format!("many clients at once: {error}"))
}
