//! What the front hears from its two neighbours, supervisor and gate.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::conn::Identified;
use super::meter::Meter;
use super::{Front, FrontError};
use crate::ipc::{ChannelError, Control, FromGate, Report};
use crate::policy::Policy;
use crate::policy::authority::ResolvedRule;
use crate::policy::sockets::SocketName;
use crate::{log_info, sys};

/// Questions to the supervisor that wait for its answer. Answers to all of them fit into the socket between us, whatever
/// holds this process up: a front that lets it run full is taken for one that hangs.
const MOST_QUESTIONS: usize = 32;

impl Front {
    pub(super) fn hear_control(&mut self, now: Instant) -> Result<(), FrontError> {
        while let Some((message, descriptor)) = self
            .control
            .receive::<Control>(false)
            .map_err(FrontError::Control)?
        {
            match message {
                Control::Policy { policy, rules, .. } => self.take_policy(*policy, rules),
                Control::Listen { socket } => {
                    // While stopping nobody new is let in.
                    if let (Some(descriptor), None) = (descriptor, self.stopping) {
                        self.listen(socket, descriptor)?;
                    }
                }
                Control::Unlisten { socket } => self.unlisten(&socket),
                Control::Stop => self.begin_to_stop(now),
                Control::Who {
                    connection,
                    exe,
                    unit,
                } => self.told_who(connection, exe, unit),
                Control::Start(_)
                | Control::Channel { .. }
                | Control::NextKey { .. }
                | Control::PolicyRefused { .. } => {
                    let text = "unexpected message for the front".to_owned();
                    return Err(FrontError::Control(ChannelError::Violation(text)));
                }
            }
        }
        Ok(())
    }

    /// A new policy holds for the next request of every connection, open ones too.
    fn take_policy(&mut self, policy: Policy, rules: Vec<ResolvedRule>) {
        self.start.policy = policy.clone();
        self.start.rules = rules;
        self.policy = policy;
        self.authority = self.start.authority();
        for conn in self.connections.values_mut() {
            conn.rights = self.authority.rights(conn.caller.subject());
        }
        // Buckets are filed under the rules' places, and those may have moved.
        self.rates = Meter::default();
    }

    fn begin_to_stop(&mut self, now: Instant) {
        log_info!("stopping: {} requests to finish", self.jobs.len());
        let names: Vec<SocketName> = self
            .listeners
            .iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.unlisten(&name);
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

    /// Has the supervisor look who is behind a connection, now or when other questions are answered.
    pub(super) fn ask_who(&mut self, number: u64) {
        if self.questions >= MOST_QUESTIONS {
            self.unasked.push_back(number);
            return;
        }
        let asked = self.connections.get(&number).is_some_and(|conn| {
            let report = Report::Who {
                connection: number,
                pid: conn.caller.pid.unwrap_or(0),
                uid: conn.caller.uid,
                gid: conn.caller.gid,
            };
            let pidfd = sys::peer_pidfd(conn.as_fd()).unwrap_or(None);
            let pidfd = pidfd.as_ref().map(AsFd::as_fd);
            self.control.send(&report, pidfd).is_ok()
        });
        if asked {
            self.questions += 1;
        } else {
            // Names in a record are decoration: where nobody can be asked, or is there any more, requests go without.
            self.identified(number, None, None);
        }
    }

    fn told_who(&mut self, number: u64, exe: Option<String>, unit: Option<String>) {
        self.questions = self.questions.saturating_sub(1);
        self.identified(number, exe, unit);
        while self.questions < MOST_QUESTIONS
            && let Some(next) = self.unasked.pop_front()
        {
            self.ask_who(next);
        }
    }

    /// Who is behind a connection is known now (or will never be): its requests may go.
    fn identified(&mut self, number: u64, exe: Option<String>, unit: Option<String>) {
        if let Some(conn) = self.connections.get_mut(&number) {
            conn.identified = Identified::Yes;
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
