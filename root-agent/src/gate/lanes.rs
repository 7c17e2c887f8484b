//! The channels of the gate, one to each process: made, heard, flushed, lost. What a message means is for others to say.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use blockhost_proto::response::ErrorCode;
use rustix::event::epoll::{self, EventData, EventFlags};
use serde_json::Map;

use super::{Gate, Pending, records, token};
use crate::compartment::Failure;
use crate::ipc::{Channel, ChannelError, FromCompartment, FromGate, Report, Role, ToGate};
use crate::log_error;

/// The way to one process.
pub(super) struct Lane {
    pub channel: Option<Channel>,
    pub watching_out: bool,
    /// Jobs that wait for the process to come back.
    pub waiting: VecDeque<(Instant, Pending)>,
}

impl Gate {
    pub(super) fn connect(&mut self, role: Role, socket: OwnedFd) -> Result<(), String> {
        let channel = Channel::new(socket).map_err(|e| e.to_string())?;
        epoll::add(
            &self.epoll,
            &channel,
            EventData::new_u64(token(role)),
            EventFlags::IN,
        )
        .map_err(|e| e.to_string())?;
        let waiting = self
            .lanes
            .remove(&role)
            .map(|lane| lane.waiting)
            .unwrap_or_default();
        self.lanes.insert(
            role,
            Lane {
                channel: Some(channel),
                watching_out: false,
                waiting: VecDeque::new(),
            },
        );
        if role == Role::Front {
            self.front_life += 1;
            self.tell_head();
            // What a front asked for that has died since is nobody's wish any more.
            let wishes: Vec<u64> = self.held.keys().copied().collect();
            self.held.clear();
            wishes.into_iter().for_each(|turn| self.leave(turn));
        }
        for (_, pending) in waiting {
            if pending.life == self.front_life {
                self.admit(pending);
            } else {
                self.leave(pending.turn);
            }
        }
        Ok(())
    }

    pub(super) fn hear_lane(&mut self, role: Role) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let Some(channel) = self
            .lanes
            .get_mut(&role)
            .and_then(|lane| lane.channel.as_mut())
        else {
            self.buffer = buffer;
            return;
        };
        let heard = if role == Role::Front {
            channel
                .receive::<ToGate>(&mut buffer)
                .map(|list| list.into_iter().for_each(|m| self.hear_front(m)))
        } else {
            channel
                .receive::<FromCompartment>(&mut buffer)
                .map(|list| list.into_iter().for_each(|m| self.hear_work(role, m)))
        };
        self.buffer = buffer;
        if let Err(error) = heard {
            self.drop_lane(role, &error);
        }
    }

    /// A process is gone or broke the rules.
    pub(super) fn drop_lane(&mut self, role: Role, error: &ChannelError) {
        if !matches!(error, ChannelError::Closed) {
            let why = records::printable(&error.to_string());
            log_error!("{}: {why}; it will be restarted", role.as_str());
            // Closing our end ends a confused process: every child exits when its channel closes.
            let _ = self.control.send(&Report::Hung { role }, None);
        }
        self.lose(role, &error.to_string());
    }

    /// Forgets the channel and closes what ran behind it.
    pub(super) fn lose(&mut self, role: Role, why: &str) {
        let Some(lane) = self.lanes.get_mut(&role) else {
            return;
        };
        if lane.channel.take().is_none() {
            return;
        }
        if role == Role::Front {
            return;
        }
        let lost: Vec<u64> = self
            .ops
            .iter()
            .filter(|(_, op)| op.role == role)
            .map(|(&number, _)| number)
            .collect();
        let mut metadata = Map::new();
        metadata.insert("unfinished".to_owned(), (lost.len() as u64).into());
        metadata.insert("reason".to_owned(), records::printable(why).into());
        let resource = format!("agent:{}", role.as_str());
        self.note("compartment-lost", &resource, metadata);
        for number in lost {
            let message = format!(
                "the {} compartment ended while this was running; whether it took effect is unknown, look before you repeat it",
                role.as_str()
            );
            self.close(number, Err(Failure::new(ErrorCode::Internal, message)));
        }
    }

    /// False when the message is too long.
    pub(super) fn tell_front(&mut self, message: &FromGate) -> bool {
        let Some(channel) = self
            .lanes
            .get_mut(&Role::Front)
            .and_then(|lane| lane.channel.as_mut())
        else {
            return true;
        };
        match channel.queue(message) {
            Ok(()) => true,
            Err(ChannelError::TooLong) => false,
            Err(error) => {
                self.drop_lane(Role::Front, &error);
                true
            }
        }
    }

    pub(super) fn flush_lanes(&mut self) {
        let mut dead = Vec::new();
        for (&role, lane) in &mut self.lanes {
            let Some(channel) = lane.channel.as_mut() else {
                continue;
            };
            match channel.flush() {
                Ok(drained) if drained == lane.watching_out => {
                    lane.watching_out = !drained;
                    let wanted = if drained {
                        EventFlags::IN
                    } else {
                        EventFlags::IN | EventFlags::OUT
                    };
                    let _ = epoll::modify(
                        &self.epoll,
                        channel.as_fd(),
                        EventData::new_u64(token(role)),
                        wanted,
                    );
                }
                Ok(_) => {}
                Err(error) => dead.push((role, error)),
            }
        }
        for (role, error) in dead {
            self.drop_lane(role, &error);
        }
    }
}
