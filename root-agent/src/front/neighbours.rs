//! What the front hears from its two neighbours, supervisor and gate.

use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::conn::Identified;
use super::{Front, FrontError};
use crate::ipc::{ChannelError, Control, FromGate};
use crate::log_info;

impl Front {
    pub(super) fn hear_control(&mut self, now: Instant) -> Result<(), FrontError> {
        while let Some((message, _)) = self
            .control
            .receive::<Control>(false)
            .map_err(FrontError::Control)?
        {
            match message {
                Control::Policy { policy, rules } => {
                    self.policy = *policy;
                    self.rules = rules;
                }
                Control::Stop => {
                    log_info!("stopping: {} requests to finish", self.jobs.len());
                    // Taken out by hand: the supervisor's copy of the descriptor would keep it in epoll.
                    if let Some(listener) = self.listener.take() {
                        let _ = epoll::delete(&self.epoll, &listener);
                    }
                    self.stopping = Some(now + Duration::from_secs(self.policy.limits.drain_s));
                    let numbers: Vec<u64> = self.connections.keys().copied().collect();
                    for number in numbers {
                        if let Some(conn) = self.connections.get_mut(&number) {
                            conn.closing = true;
                        }
                        self.settle(number, now);
                    }
                }
                Control::Who {
                    connection,
                    exe,
                    unit,
                } => self.identified(connection, exe, unit),
                Control::Start(_) | Control::Channel { .. } => {
                    let text = "unexpected message for the front".to_owned();
                    return Err(FrontError::Control(ChannelError::Violation(text)));
                }
            }
        }
        Ok(())
    }

    pub(super) fn hear_gate(&mut self, now: Instant) -> Result<(), FrontError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let messages = self
            .gate
            .receive::<FromGate>(&mut buffer)
            .map_err(FrontError::Gate);
        self.buffer = buffer;
        for message in messages? {
            match message {
                FromGate::Head { size, root } => self.head = (size, root),
                FromGate::Answer {
                    id,
                    result,
                    receipt,
                } => self.job_done(id, result, receipt, now),
            }
        }
        Ok(())
    }

    /// Who is behind a connection is known now (or will never be): its requests may go.
    fn identified(&mut self, number: u64, exe: Option<String>, unit: Option<String>) {
        if let Some(conn) = self.connections.get_mut(&number) {
            conn.identified = Identified::Yes;
            conn.pidfd = None;
            conn.caller.exe.clone_from(&exe);
            conn.caller.unit.clone_from(&unit);
        }
        let mut waiting: Vec<u64> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.connection == number && !job.sent)
            .map(|(&id, _)| id)
            .collect();
        waiting.sort_unstable();
        for id in waiting {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.caller.exe.clone_from(&exe);
                job.caller.unit.clone_from(&unit);
            }
            self.send_if_ready(id, true);
        }
    }
}
