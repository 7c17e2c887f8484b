//! What the gate does when its time has come: publishing, sealing, steps of a pruning, giving up on what waits too long.

use std::time::{Duration, Instant};

use blockhost_ledger::publish::PublishError;
use blockhost_proto::response::ErrorCode;

use super::{Entry, GRACE, Gate, PUBLISH_EVERY};
use crate::compartment::Failure;
use crate::ipc::Report;
use crate::{log_error, log_info, log_warning};

/// An answer that is on its way is not kept waiting by publication, unless publication has waited this long itself.
const PUBLISH_LATEST: Duration = Duration::from_secs(1);
/// Between two steps of sealing full segments of the ledger, while nobody waits for anything, and while somebody does.
const SEAL_EVERY: Duration = Duration::from_millis(5);
const SEAL_BUSY: Duration = Duration::from_millis(100);
/// After a step that failed.
const SEAL_AGAIN: Duration = Duration::from_secs(60);
/// A job younger than this is likely to be answered at once.
const FRESH: Duration = Duration::from_millis(20);

impl Gate {
    pub(super) fn wait_time(&self, now: Instant) -> Option<Duration> {
        let deadlines = self.ops.values().map(|op| op.deadline);
        let patience = self
            .lanes
            .values()
            .filter_map(|lane| lane.waiting.front().map(|(until, _)| *until));
        let held = self.held.values().map(|(until, _)| *until);
        let publish = self
            .publish_at
            .map(|at| if at <= now { now + FRESH } else { at });
        let next = deadlines
            .chain(patience)
            .chain(held)
            .chain(publish)
            .chain(self.retry_at)
            .chain(self.seal_at)
            .chain(self.desk.is_busy().then_some(now))
            .chain(self.pruning.as_ref().map(|work| work.next_at))
            .min()?;
        Some(next.saturating_duration_since(now) + Duration::from_millis(1))
    }

    /// Publishes, gives up on jobs without a compartment or their turn, reports compartments that do not answer.
    pub(super) fn watch_time(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            let late = std::mem::take(&mut self.unrecorded);
            self.batch.extend(late.into_iter().map(Entry::Late));
        }
        if self
            .publish_at
            .is_some_and(|at| at <= now && (self.nothing_fresh(now) || now >= at + PUBLISH_LATEST))
        {
            self.publish_at = None;
            self.published_last = Some(now);
            self.publish(now);
        }
        self.seal(now);
        self.prune_step(now);
        self.give_up_held(now);
        let mut given_up = Vec::new();
        for (role, lane) in &mut self.lanes {
            while lane.waiting.front().is_some_and(|(until, _)| *until <= now) {
                given_up.extend(
                    lane.waiting
                        .pop_front()
                        .map(|(_, pending)| (*role, pending)),
                );
            }
        }
        for (role, pending) in given_up {
            let message = format!(
                "the {} compartment is being restarted; nothing was executed, try again",
                role.as_str()
            );
            self.turn_down(&pending, Failure::new(ErrorCode::Busy, message));
        }
        for op in self.ops.values_mut().filter(|op| op.deadline <= now) {
            op.deadline = now + GRACE;
            log_error!(
                "{} on {} does not end; the {} compartment is restarted",
                op.heading.action,
                op.heading.resource,
                op.role.as_str()
            );
            let _ = self.control.send(&Report::Hung { role: op.role }, None);
        }
    }

    /// Has what is derived from the log written.
    pub(super) fn publish(&mut self, now: Instant) {
        // What is being written is looked at first; then there is more to say.
        if self.desk.is_publishing() {
            self.publish_at = Some(now + PUBLISH_EVERY);
            return;
        }
        match self.writer.begin_publishing() {
            Ok(Some(publication)) => {
                self.cover_cosigned();
                self.desk.publish(publication);
            }
            other => {
                self.cover_cosigned();
                self.said_published(other.map(drop));
            }
        }
    }

    /// Takes notice of what was written; with `wait` that is waited for.
    pub(super) fn published(&mut self, wait: bool) {
        let Some(published) = self.desk.published(wait) else {
            return;
        };
        let more = published.is_partial();
        let result = self.writer.end_publishing(published);
        if more && result.is_ok() {
            self.publish_at = Some(Instant::now());
            // Cosignatures come with the last of it.
            return;
        }
        self.said_published(result);
        self.publish_cosigned();
    }

    /// Publishes everything, however long it takes.
    pub(super) fn publish_all(&mut self) {
        self.published(true);
        let result = self.writer.publish();
        self.cover_cosigned();
        self.said_published(result);
    }

    fn said_published(&mut self, result: Result<(), PublishError>) {
        self.published_cosigned(&result);
        match result {
            Ok(()) => {
                if self.unpublished.over() {
                    log_info!("derived ledger files: written again");
                }
            }
            // On a full disk each second brings the next attempt, and the same answer, whether anything is appended or not.
            Err(error) => {
                let now = Instant::now();
                self.publish_at.get_or_insert(now + PUBLISH_EVERY);
                if let Some(more) = self.unpublished.say(now) {
                    log_warning!(
                        "derived ledger files: {error}; the ledger itself is unharmed{}",
                        again(more)
                    );
                }
            }
        }
    }

    /// A step towards sealing full segments, when it is time for one.
    pub(super) fn seal(&mut self, now: Instant) {
        if !self.writer.wants_sealing() {
            self.seal_at = None;
            return;
        }
        if now < *self.seal_at.get_or_insert(now + SEAL_EVERY) {
            return;
        }
        let pause = match self.writer.seal_step() {
            Ok(sealed) => {
                if let Some(first) = sealed {
                    log_info!("ledger: sealed the segment that begins with record {first}");
                }
                if self.ops.is_empty() {
                    SEAL_EVERY
                } else {
                    SEAL_BUSY
                }
            }
            Err(error) => {
                log_warning!("ledger: a full segment is not sealed: {error}; it is tried again");
                SEAL_AGAIN
            }
        };
        self.seal_at = Some(Instant::now() + pause);
    }

    pub(super) fn nothing_fresh(&self, now: Instant) -> bool {
        self.ops
            .values()
            .all(|op| now.saturating_duration_since(op.began) > FRESH)
    }
}

/// How often something was not said since it was said last.
fn again(more: u64) -> String {
    match more {
        0 => String::new(),
        more => format!(" ({more} more times)"),
    }
}
