//! The life of one request in the front: decode, authorise, check, queue, hand over, answer.

use std::time::{Duration, Instant};

use blockhost_proto::action::Action;
use blockhost_proto::catalog::ActionSpec;
use blockhost_proto::escape::shown;
use blockhost_proto::request::{Request, decode_request};
use blockhost_proto::response::{Body, ErrorCode, Receipt, Response};

use super::conn::Identified;
use super::info::{Counters, Facts, Head};
use super::{Front, Job, waiting};
use crate::compartment::{Backend, Done, Failure};
use crate::failpoint;
use crate::ipc::{Caller, ChannelError, ToGate};
use crate::log_warning;
use crate::policy::authority::forbidden;
use crate::policy::rates::{Class, Rate};
use crate::queue;

impl Front {
    pub(super) fn request(&mut self, number: u64, frame: &[u8], now: Instant) {
        self.counters.requests += 1;
        failpoint::reach("front-framed", frame);
        let Some(conn) = self.connections.get_mut(&number) else {
            return;
        };
        let slot = conn.open_slot();
        let stranger = conn.rights.is_stranger();
        match decode_request(frame) {
            Ok(request) => self.decoded(number, slot, request, frame.len(), now),
            Err(refusal) => {
                let action = refusal
                    .action_name
                    .as_deref()
                    .map(shown)
                    .unwrap_or_default();
                let failure = if stranger {
                    forbidden("this agent")
                } else {
                    Failure::new(refusal.code, refusal.message)
                };
                self.refuse(number, slot, refusal.id, &action, failure, now);
            }
        }
    }

    fn decoded(&mut self, number: u64, slot: u64, request: Request, bytes: usize, now: Instant) {
        let class = Class::of_request(&request.action, request.dry_run);
        if let Err(failure) = self.permit(number, &request.action, class, now) {
            let name = request.action.name();
            self.refuse(number, slot, request.id, name, failure, now);
            return;
        }
        let spec = request.action.spec();
        if request.dry_run {
            let done = Done {
                output: describe(&request.action, spec),
                ..Done::default()
            };
            self.answer(number, slot, request.id, Ok(done), None);
            return;
        }
        if matches!(request.action, Action::AgentInfo(_)) {
            let payload = self.facts(request.id.as_deref(), now).encode();
            if let Some(conn) = self.connections.get_mut(&number) {
                conn.answer_encoded(slot, &payload);
            }
            return;
        }
        failpoint::reach("front-authorised", request.action.name().as_bytes());
        if let Err(failure) = self.take_share(number, bytes) {
            let name = request.action.name();
            self.refuse(number, slot, request.id, name, failure, now);
            return;
        }
        self.enqueue(number, slot, request.id, &request.action, bytes, now);
    }

    /// Whether a rule permits it now: any one that does and has not been used up by this user.
    fn permit(
        &mut self,
        number: u64,
        action: &Action,
        class: Class,
        now: Instant,
    ) -> Result<(), Failure> {
        let Some(conn) = self.connections.get(&number) else {
            return Err(forbidden("this agent"));
        };
        let uid = conn.caller.uid;
        let mut shortest: Option<Duration> = None;
        let mut first = 0;
        loop {
            let rule = match (
                self.authority.permits_from(&conn.rights, action, first),
                shortest,
            ) {
                (Ok(rule), _) => rule,
                (Err(_), Some(wait)) => return Err(too_often(class, wait)),
                (Err(failure), None) => return Err(failure),
            };
            let own = self.authority.rates(rule).and_then(|own| own.of(class));
            let key = (uid, class, own.map(|_| rule));
            let rate = own.unwrap_or(self.policy.rates.of(class));
            match self.rates.take(key, rate, now) {
                Ok(_) => return Ok(()),
                Err(wait) => shortest = Some(shortest.map_or(wait, |other| other.min(wait))),
            }
            first = rule + 1;
        }
    }

    /// Room for one more request of this user under way.
    fn take_share(&mut self, number: u64, bytes: usize) -> Result<(), Failure> {
        let Some(conn) = self.connections.get(&number) else {
            return Err(forbidden("this agent"));
        };
        let limits = &self.policy.limits;
        let most = limits.connections_per_uid.saturating_mul(limits.in_flight);
        self.shares
            .take(conn.caller.uid, bytes, most)
            .map_err(|full| Failure::new(ErrorCode::Busy, full.to_string()))
    }

    fn enqueue(
        &mut self,
        number: u64,
        slot: u64,
        id: Option<String>,
        action: &Action,
        bytes: usize,
        now: Instant,
    ) {
        let spec = action.spec();
        let Some(uid) = self.connections.get(&number).map(|conn| conn.caller.uid) else {
            return;
        };
        let job_id = self.next_job;
        self.next_job += 1;
        let runnable = self.queues.arrive(job_id, action.claims());
        let mut waits_for = action.resources();
        if runnable {
            waits_for.clear();
        } else if let Err(key) = self.crowds.join(uid, &waits_for) {
            // The last to arrive: nobody waits for it.
            self.queues.leave(job_id);
            self.shares.give_back(uid, bytes);
            self.refuse(number, slot, id, spec.name, waiting::crowded(&key), now);
            return;
        }
        let Some(conn) = self.connections.get_mut(&number) else {
            return;
        };
        let limit_ms = limit_ms(action, self.policy.time_limits.get(spec.name).copied());
        let until = queue::patience(Duration::from_millis(limit_ms), now);
        let job = Job {
            connection: number,
            slot,
            id,
            caller: Caller {
                groups: self.authority.telling_groups(&conn.caller.groups),
                ..conn.caller.clone()
            },
            bytes,
            action: spec.name,
            params: action.params(),
            limit_ms,
            until,
            runnable,
            waits_for,
            sent: false,
        };
        let identified = conn.identified;
        if identified == Identified::No {
            conn.identified = Identified::Asked;
        }
        if !runnable {
            self.sweep_before(until);
        }
        self.jobs.insert(job_id, job);
        match identified {
            // The kernel keeps who connected with the socket, so this is asked only for connections that do something.
            Identified::No => self.ask_who(number),
            Identified::Asked => {}
            Identified::Yes => self.send_if_ready(job_id, true),
        }
    }

    /// Hands the job to the gate when it is its turn and its caller has a name.
    pub(super) fn send_if_ready(&mut self, job_id: u64, identified: bool) {
        let Some(job) = self.jobs.get_mut(&job_id) else {
            return;
        };
        if job.sent || !job.runnable || !identified {
            return;
        }
        job.sent = true;
        let action = job.action;
        let message = ToGate::Job {
            id: job_id,
            caller: job.caller.clone(),
            action: job.action.to_owned(),
            params: std::mem::take(&mut job.params),
            limit_ms: job.limit_ms,
        };
        if let Err(error) = self.gate.queue(&message) {
            let code = match error {
                ChannelError::TooLong => ErrorCode::BadParams,
                _ => ErrorCode::Busy,
            };
            let text = format!("the request cannot be passed on: {error}; nothing was executed");
            // Not ended here: that may bring us back here with the next of a long queue.
            self.not_taken.push((job_id, Failure::new(code, text)));
        }
        failpoint::reach("front-queued", action.as_bytes());
    }

    pub(super) fn job_done(
        &mut self,
        job_id: u64,
        result: Result<Done, Failure>,
        receipt: Option<Receipt>,
        now: Instant,
    ) {
        let Some(job) = self.take_job(job_id) else {
            return;
        };
        match &result {
            Ok(_) => self.counters.succeeded += 1,
            Err(_) => self.counters.failed += 1,
        }
        failpoint::reach("front-answering", job.action.as_bytes());
        self.answer(job.connection, job.slot, job.id, result, receipt);
        self.settle(job.connection, now);
        failpoint::reach("front-answered", job.action.as_bytes());
        self.let_next(job_id);
    }

    /// Ends a job that waits for its turn, with an answer and a record of its own.
    pub(super) fn give_up(&mut self, job_id: u64, message: &str, now: Instant) {
        let Some(job) = self.take_job(job_id) else {
            return;
        };
        self.record_refusal(job.caller, job.action, ErrorCode::Busy, message, now);
        let failure = Failure::new(ErrorCode::Busy, message);
        self.answer(job.connection, job.slot, job.id, Err(failure), None);
        self.settle(job.connection, now);
        self.let_next(job_id);
    }

    /// Takes a job from all books but that of the queues.
    fn take_job(&mut self, job_id: u64) -> Option<Job> {
        let mut job = self.jobs.remove(&job_id)?;
        self.shares.give_back(job.caller.uid, job.bytes);
        let waited_for = std::mem::take(&mut job.waits_for);
        self.crowds.leave(job.caller.uid, waited_for);
        Some(job)
    }

    /// Whoever waited for this job only may begin.
    fn let_next(&mut self, job_id: u64) {
        for next in self.queues.leave(job_id) {
            let Some(waiting) = self.jobs.get_mut(&next) else {
                continue;
            };
            waiting.runnable = true;
            let waited_for = std::mem::take(&mut waiting.waits_for);
            self.crowds.leave(waiting.caller.uid, waited_for);
            let identified = self
                .connections
                .get(&waiting.connection)
                .is_none_or(|conn| conn.identified == Identified::Yes);
            self.send_if_ready(next, identified);
        }
    }

    fn answer(
        &mut self,
        number: u64,
        slot: u64,
        id: Option<String>,
        result: Result<Done, Failure>,
        receipt: Option<Receipt>,
    ) {
        let body = match result {
            Ok(Done { output, extra }) => Body::Success { output, extra },
            Err(Failure { code, message }) => Body::Refusal { code, message },
        };
        let limit = self.policy.limits.response_bytes as usize;
        if let Some(conn) = self.connections.get_mut(&number) {
            conn.answer(slot, &Response { id, receipt, body }, limit);
        }
    }

    fn refuse(
        &mut self,
        number: u64,
        slot: u64,
        id: Option<String>,
        action: &str,
        failure: Failure,
        now: Instant,
    ) {
        if let Some(conn) = self.connections.get(&number) {
            let caller = conn.caller.clone();
            self.record_refusal(caller, action, failure.code, &failure.message, now);
        }
        self.answer(number, slot, id, Err(failure), None);
    }

    /// Log and ledger, at a bounded rate per user.
    pub(super) fn record_refusal(
        &mut self,
        caller: Caller,
        action: &str,
        code: ErrorCode,
        message: &str,
        now: Instant,
    ) {
        self.counters.refused += 1;
        let per_minute = self.policy.limits.refusals_per_minute;
        let rate = Rate::Limited {
            per_minute,
            burst: per_minute,
        };
        let Ok(suppressed) = self.refusals.take(caller.uid, rate, now) else {
            return;
        };
        log_warning!(
            "refused: uid {} pid {} action \"{action}\" {code}: {}{}",
            caller.uid,
            caller.pid.unwrap_or(0),
            shown(message),
            if suppressed > 0 {
                format!(" ({suppressed} more not shown)")
            } else {
                String::new()
            }
        );
        let refusal = ToGate::Refusal {
            caller,
            action: action.to_owned(),
            code: code.as_str().to_owned(),
            message: blockhost_proto::escape::shown_up_to(message, 400),
            suppressed,
        };
        if let Err(error) = self.gate.queue(&refusal) {
            log_warning!("a refusal could not be recorded: {error}");
        }
    }

    fn facts<'a>(&'a self, id: Option<&'a str>, now: Instant) -> Facts<'a> {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        let since_front = now.saturating_duration_since(self.began).as_secs();
        Facts {
            ok: true,
            output: String::new(),
            id,
            version: blockhost_proto::VERSION,
            backend: match self.start.backend {
                Backend::Proxmox => "proxmox",
                Backend::Embedded => "embedded",
            },
            landlock_abi: self.landlock_abi,
            uptime_s: wall.saturating_sub(self.start.started_s).max(since_front),
            counters: Counters {
                open_connections: self.connections.len(),
                in_flight: self.jobs.len(),
                ..self.counters
            },
            ledger: Head {
                size: self.head.0,
                root: &self.head.1,
            },
        }
    }
}

fn too_often(class: Class, wait: Duration) -> Failure {
    let class = class.as_str();
    let message = format!(
        "too many {class} requests; wait {} s, or have `rates.{class}` of root-agent.yaml raised",
        wait.as_secs().saturating_add(1)
    );
    Failure::new(ErrorCode::Busy, message)
}

/// The time limit in milliseconds: the policy's, else the action's own.
fn limit_ms(action: &Action, policy_s: Option<u64>) -> u64 {
    let limit = policy_s.map_or_else(|| action.time_limit(), std::time::Duration::from_secs);
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

/// The answer to a dry run.
fn describe(action: &Action, spec: &ActionSpec) -> String {
    let resource = action.ledger_resource();
    let capabilities = if spec.capabilities.is_empty() {
        "without capabilities".to_owned()
    } else {
        format!("with {}", spec.capabilities.join(", "))
    };
    format!(
        "would run {} on {resource} in the {} compartment {capabilities}: {}",
        spec.name, spec.compartment, spec.summary
    )
}
