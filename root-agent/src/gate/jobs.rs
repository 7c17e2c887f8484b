//! A job's way through the gate: intent, append, forward, result, outcome, append, answer.

use std::time::Instant;

use blockhost_ledger::record::Draft;
use blockhost_ledger::writer::{AppendError, Appended};
use blockhost_proto::action::Action;
use blockhost_proto::escape::hex;
use blockhost_proto::response::{ErrorCode, Receipt};

use super::records::{self, Heading};
use super::{
    Entry, GRACE, Gate, LONGEST_LIMIT, MAX_BATCH, Op, PUBLISH_EVERY, Pending, RESTART_PATIENCE,
    RETRY_EVERY,
};
use crate::compartment::{Done, Failure};
use crate::failpoint;
use crate::ipc::{Finished, FromCompartment, FromGate, Role, Work};
use crate::queue::{TOO_LONG, patience};
use crate::{log_error, log_info};

impl Gate {
    /// Admits the job as soon as nothing that arrived before it touches the same things. It waits as long as it would in a
    /// front: the one that sent it takes it for running, because it does not know what its predecessor's jobs hold.
    pub(super) fn take_turn(&mut self, pending: Pending) {
        if self.turns.arrive(pending.turn, pending.action.claims()) {
            self.admit(pending);
        } else {
            let until = patience(pending.limit, Instant::now());
            self.held.insert(pending.turn, (until, pending));
        }
    }

    /// Turns down what has waited for its turn for too long.
    pub(super) fn give_up_held(&mut self, now: Instant) {
        let held = self.held.iter();
        let late = held.filter_map(|(&turn, (until, _))| (*until <= now).then_some(turn));
        let mut late: Vec<u64> = late.collect();
        // The last first, so that none gets its turn because another one leaves.
        late.sort_unstable_by(|one, other| other.cmp(one));
        for turn in late {
            if let Some((_, pending)) = self.held.remove(&turn) {
                let (name, code) = (pending.action.name(), ErrorCode::Busy.as_str());
                let draft = records::refusal(&pending.caller, &self.names, name, code, TOO_LONG, 0);
                self.batch.push(Entry::Note(draft));
                self.turn_down(&pending, Failure::new(ErrorCode::Busy, TOO_LONG));
            }
        }
    }

    /// A job is over: those behind it may begin. One that is turned down at once comes back here; a loop and not a
    /// recursion, because a front could have as many of those as there may be jobs.
    pub(super) fn leave(&mut self, turn: u64) {
        self.released.extend(self.turns.leave(turn));
        if std::mem::replace(&mut self.releasing, true) {
            return;
        }
        while let Some(next) = self.released.pop_front() {
            if let Some((_, pending)) = self.held.remove(&next) {
                self.admit(pending);
            }
        }
        self.releasing = false;
    }

    /// Ends a job that has not begun.
    pub(super) fn turn_down(&mut self, pending: &Pending, failure: Failure) {
        self.answer(pending.life, pending.id, Err(failure), None);
        self.leave(pending.turn);
    }

    pub(super) fn admit(&mut self, pending: Pending) {
        failpoint::reach("gate-heard", pending.action.name().as_bytes());
        match (&pending.action, Role::of(pending.action.spec().compartment)) {
            // What the ledger's own process carries out needs no lane.
            (Action::LedgerShred(_) | Action::LedgerPrune(_), None) => {}
            (_, None) => return self.admit_event(pending),
            (_, Some(role)) => {
                let Some(lane) = self.lanes.get_mut(&role) else {
                    return;
                };
                if lane.channel.is_none() {
                    lane.waiting
                        .push_back((Instant::now() + RESTART_PATIENCE, pending));
                    return;
                }
            }
        }
        let op_id = format!("{:016x}-{}", self.nonce, self.next_op);
        self.next_op += 1;
        let heading = Heading::of(&pending.action, op_id);
        let draft = records::intent(
            &heading,
            &pending.caller,
            &self.names,
            &pending.action,
            pending.rule,
        );
        match draft.check() {
            Ok(()) => self
                .batch
                .push(Entry::Intent(Box::new(pending), heading, draft)),
            Err(error) => {
                let message =
                    format!("the request cannot be recorded, so it is not executed: {error}");
                self.turn_down(&pending, Failure::new(ErrorCode::BadParams, message));
            }
        }
    }

    fn admit_event(&mut self, pending: Pending) {
        if matches!(pending.action, Action::LedgerRotateKey(_)) {
            return self.ask_for_key(pending);
        }
        if let Action::LedgerCosign(action) = &pending.action {
            let action = action.clone();
            return self.cosign(pending, &action);
        }
        if let Action::LedgerBlob(blob) = &pending.action {
            let blob = blob.clone();
            return self.keep(pending, &blob);
        }
        let failure = match self.event(&pending) {
            Err(failure) => failure,
            Ok(draft) => match draft.check() {
                Ok(()) => {
                    self.leave(pending.turn);
                    self.batch.push(Entry::Event {
                        id: pending.id,
                        life: pending.life,
                        draft,
                        payload: None,
                    });
                    return;
                }
                Err(error) => Failure::new(
                    ErrorCode::BadParams,
                    format!("the event cannot be recorded: {error}"),
                ),
            },
        };
        self.turn_down(&pending, failure);
    }

    /// The record of an action that is done by recording it.
    fn event(&self, pending: &Pending) -> Result<Draft, Failure> {
        let (caller, names) = (&pending.caller, &self.names);
        if let Action::LedgerAnchored(action) = &pending.action {
            self.heads.check(action)?;
            return Ok(records::anchored(action, caller, names));
        }
        records::event(&pending.action, caller, names)
            .ok_or_else(|| Failure::new(ErrorCode::Internal, "this action is not the ledger's"))
    }

    /// What a compartment says about an operation of its own.
    pub(super) fn hear_work(&mut self, role: Role, message: FromCompartment) {
        match message {
            FromCompartment::Finished(finished) => self.finished(role, finished),
            // A compartment that has more to do than threads is no compartment that hangs. Neither word can be repeated
            // to keep an intent open for ever.
            FromCompartment::Waiting { op } => {
                self.wait_until(role, op, |op| op.began + LONGEST_LIMIT)
            }
            FromCompartment::Begun { op } => self.wait_until(role, op, |op| {
                (Instant::now() + op.limit).min(op.began + LONGEST_LIMIT) + GRACE
            }),
        }
    }

    fn wait_until(&mut self, role: Role, number: u64, deadline: impl Fn(&Op) -> Instant) {
        if let Some(op) = self.ops.get_mut(&number).filter(|op| op.role == role) {
            op.deadline = deadline(op);
        }
    }

    fn finished(&mut self, role: Role, finished: Finished) {
        if self.ops.get(&finished.op).is_some_and(|op| op.role == role) {
            let action = self.ops.get(&finished.op).map(|op| &op.heading.action);
            failpoint::reach("gate-finished", action.map_or(b"", |name| name.as_bytes()));
            self.close(finished.op, finished.result);
        }
    }

    /// Queues the outcome of a running operation.
    pub(super) fn close(&mut self, number: u64, result: Result<Done, Failure>) {
        if let Some(op) = self.ops.remove(&number) {
            self.conclude(op, result);
        }
    }

    /// Queues the outcome of what is not running any more.
    pub(super) fn conclude(&mut self, op: Op, result: Result<Done, Failure>) {
        let duration_us = u64::try_from(op.began.elapsed().as_micros()).unwrap_or(0);
        let draft = records::outcome(&op.heading, &op.caller, &self.names, &result, duration_us);
        let turn = op.turn;
        self.batch.push(Entry::Outcome(Box::new(op), result, draft));
        // The outcome stands before whatever begins now.
        self.leave(turn);
    }

    /// Makes everything that waits durable, then lets it through.
    pub(super) fn commit(&mut self) {
        while !self.batch.is_empty() {
            let rest = self.batch.split_off(self.batch.len().min(MAX_BATCH));
            let entries = std::mem::replace(&mut self.batch, rest);
            let drafts: Vec<Draft> = entries.iter().map(|entry| entry.draft().clone()).collect();
            // Outcomes have their room on a full disk, too, and say nothing about others.
            let says_so = !entries.iter().all(Entry::is_about_what_ran);
            match self.writer.append(&drafts) {
                Ok(appended) => {
                    if says_so && self.full.over() {
                        log_info!("ledger: recording again");
                    }
                    self.pass(entries.into_iter().zip(appended));
                }
                Err(error) => self.append_failed(entries, &error),
            }
        }
    }

    fn pass(&mut self, entries: impl Iterator<Item = (Entry, Appended)>) {
        for (entry, appended) in entries {
            let receipt = Receipt {
                index: appended.index,
                leaf: hex(&appended.leaf),
            };
            match entry {
                Entry::Intent(pending, heading, draft) => {
                    if Role::of(pending.action.spec().compartment).is_some() {
                        self.forward(*pending, heading);
                    } else {
                        self.carry_out(*pending, heading, &draft);
                    }
                }
                Entry::Outcome(op, result, _) => {
                    failpoint::reach("gate-answering", op.heading.action.as_bytes());
                    self.answer(op.life, op.id, result, Some(receipt));
                }
                Entry::Event {
                    id, life, payload, ..
                } => {
                    let mut done = Done::default();
                    if let Some(hash) = payload {
                        self.store.recorded(hash, appended.height);
                        done.extra.insert("sha256".to_owned(), hex(&hash).into());
                    }
                    self.answer(life, id, Ok(done), Some(receipt));
                }
                Entry::Note(_) | Entry::Late(_) => {}
            }
        }
        self.after_append();
    }

    /// The head moved: those who want to know are told, and it is published soon.
    pub(super) fn after_append(&mut self) {
        self.remember_head();
        self.tell_head();
        let earliest = self
            .published_last
            .map_or_else(Instant::now, |last| last + PUBLISH_EVERY);
        self.publish_at.get_or_insert(earliest);
    }

    fn forward(&mut self, pending: Pending, heading: Heading) {
        // An action without a compartment was recorded as an event and never came here.
        let Some(role) = Role::of(pending.action.spec().compartment) else {
            return;
        };
        failpoint::reach("gate-recorded", pending.action.name().as_bytes());
        let number = self.next_op;
        self.next_op += 1;
        let began = Instant::now();
        let work = Work {
            op: number,
            action: pending.action.name().to_owned(),
            params: pending.action.params(),
            limit_ms: u64::try_from(pending.limit.as_millis()).unwrap_or(u64::MAX),
            caller: pending.caller.clone(),
        };
        let op = Op {
            id: pending.id,
            life: pending.life,
            caller: pending.caller,
            heading,
            role,
            turn: pending.turn,
            began,
            limit: pending.limit,
            deadline: began + pending.limit + GRACE,
        };
        self.ops.insert(number, op);
        let sent = match self
            .lanes
            .get_mut(&role)
            .and_then(|lane| lane.channel.as_mut())
        {
            Some(channel) => channel.queue(&work).map_err(|e| e.to_string()),
            None => Err("its compartment is gone".to_owned()),
        };
        if let Err(error) = sent {
            self.close(
                number,
                Err(Failure::new(
                    ErrorCode::Internal,
                    format!("nothing was executed: {error}"),
                )),
            );
        }
    }

    /// Nothing of the batch is in the ledger: nothing of it may pass. Outcomes get another chance without the rest.
    fn append_failed(&mut self, entries: Vec<Entry>, error: &AppendError) {
        match self.full.say(Instant::now()) {
            Some(0) => log_error!("ledger: {error}"),
            Some(more) => log_error!("ledger: {error} ({more} more times)"),
            None => {}
        }
        let (outcomes, others): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(Entry::is_about_what_ran);
        for entry in others {
            if let (AppendError::NoSpace { .. }, Entry::Intent(pending, _, draft)) = (error, &entry)
                && let Action::LedgerPrune(action) = &pending.action
            {
                match self.record_without_space(action, draft) {
                    Ok(appended) => self.pass(std::iter::once((entry, appended))),
                    Err(failure) => self.turn_down(pending, failure),
                }
                continue;
            }
            let mut message =
                format!("the ledger cannot record it, so nothing was executed: {error}");
            // After a failed sync the intent may be on the disk, and an erasure that was begun is finished.
            if self.writer.poisoned().is_some()
                && let Entry::Intent(pending, ..) = &entry
                && matches!(pending.action, Action::LedgerShred(_))
            {
                message.push_str("; the next start of the agent erases it if the request is on record all the same");
            }
            let failure = Failure::new(ErrorCode::Failed, message);
            match entry {
                Entry::Intent(pending, ..) => self.turn_down(&pending, failure),
                Entry::Event {
                    id, life, payload, ..
                } => {
                    if let Some(hash) = payload {
                        // After a failed sync the record may be there all the same.
                        self.store.withdraw(hash, self.writer.poisoned().is_some());
                    }
                    self.answer(life, id, Err(failure), None);
                }
                Entry::Outcome(..) | Entry::Note(_) | Entry::Late(_) => {}
            }
        }
        let drafts: Vec<Draft> = outcomes.iter().map(|entry| entry.draft().clone()).collect();
        match self.writer.append(&drafts) {
            Ok(appended) if !appended.is_empty() => self.pass(outcomes.into_iter().zip(appended)),
            Ok(_) => {}
            Err(error) => {
                // Until there is space again. A poisoned ledger is closed for good; its next opening closes the intents.
                if self.writer.poisoned().is_none() {
                    self.unrecorded
                        .extend(outcomes.iter().map(|entry| entry.draft().clone()));
                    self.retry_at = Some(Instant::now() + RETRY_EVERY);
                }
                for entry in outcomes {
                    let Entry::Outcome(op, result, _) = entry else {
                        continue;
                    };
                    let ended = match &result {
                        Ok(_) => "succeeded".to_owned(),
                        Err(failure) => format!("failed ({})", failure.message),
                    };
                    let message = format!(
                        "{} {ended}, but its outcome could not be recorded: {error}",
                        op.heading.action
                    );
                    self.answer(
                        op.life,
                        op.id,
                        Err(Failure::new(ErrorCode::Internal, message)),
                        None,
                    );
                }
            }
        }
    }

    pub(super) fn answer(
        &mut self,
        life: u64,
        id: u64,
        result: Result<Done, Failure>,
        receipt: Option<Receipt>,
    ) {
        // A restarted front knows nothing of its predecessor's jobs.
        if life != self.front_life {
            return;
        }
        let answer = FromGate::Answer {
            id,
            result,
            receipt,
        };
        if self.tell_front(&answer) {
            return;
        }
        // A compartment may send as much as fits, and the envelope comes on top. The client is not left waiting.
        if let FromGate::Answer { id, receipt, .. } = answer {
            let message = "the answer is too long to be passed on; its outcome is in the ledger";
            let result = Err(Failure::new(ErrorCode::Internal, message));
            self.tell_front(&FromGate::Answer {
                id,
                result,
                receipt,
            });
        }
    }
}
