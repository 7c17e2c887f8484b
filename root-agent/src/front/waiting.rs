//! Jobs that wait for their turn: how many a user may have at one thing, that they are given up, and that they end with
//! the connection that they came by. Nothing of them was executed or announced. What runs is no matter of this.

use std::collections::HashMap;
use std::time::Instant;

use blockhost_proto::action::ResourceKey;
use blockhost_proto::response::ErrorCode;

use super::{Front, Job};
use crate::compartment::Failure;
use crate::queue::TOO_LONG;

/// Requests of one user that may wait for one thing.
const MOST: usize = 64;

/// How many wait, by user and thing.
#[derive(Debug, Default)]
pub struct Crowds(HashMap<(u32, ResourceKey), usize>);

impl Crowds {
    /// One more waits for these.
    ///
    /// # Errors
    /// The one that too many wait for.
    pub fn join(&mut self, uid: u32, resources: &[ResourceKey]) -> Result<(), ResourceKey> {
        let full = |key: &&ResourceKey| {
            let waiting = self.0.get(&(uid, (*key).clone()));
            waiting.is_some_and(|&waiting| waiting >= MOST)
        };
        if let Some(key) = resources.iter().find(full) {
            return Err(key.clone());
        }
        for key in resources {
            *self.0.entry((uid, key.clone())).or_insert(0) += 1;
        }
        Ok(())
    }

    /// One waits no longer.
    pub fn leave(&mut self, uid: u32, resources: Vec<ResourceKey>) {
        for key in resources {
            let key = (uid, key);
            if let Some(waiting) = self.0.get_mut(&key) {
                *waiting -= 1;
                if *waiting == 0 {
                    self.0.remove(&key);
                }
            }
        }
    }
}

/// The answer to one request too many.
pub fn crowded(key: &ResourceKey) -> Failure {
    let message = format!(
        "{MOST} requests of yours wait for {key}, and no more are taken; nothing was executed, wait for answers"
    );
    Failure::new(ErrorCode::Busy, message)
}

impl Front {
    /// Nobody is left to hear of what waits on this connection. What has its turn goes on: that it ends half-way, or does not
    /// begin, for a client that asks and leaves would be a matter of luck.
    pub(super) fn abandon(&mut self, number: u64, now: Instant) {
        let of =
            |(&id, job): (&u64, &Job)| (job.connection == number && !job.runnable).then_some(id);
        // The last first, so that none gets its turn because another one leaves.
        let waiting: Vec<u64> = self.jobs.iter().rev().filter_map(of).collect();
        for id in waiting {
            let message =
                "the connection ended while this waited for its turn; nothing was executed";
            self.give_up_waiting(id, message, now);
        }
    }

    /// Gives up what has waited for too long. Tells when the next one will have.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let waiting = self.jobs.iter().filter(|(_, job)| !job.runnable);
        let (late, patient): (Vec<_>, Vec<_>) = waiting
            .map(|(&id, job)| (job.until, id))
            .partition(|(until, _)| *until <= now);
        for (_, id) in late.into_iter().rev() {
            self.give_up_waiting(id, TOO_LONG, now);
        }
        patient.into_iter().map(|(until, _)| until).min()
    }

    fn give_up_waiting(&mut self, id: u64, message: &str, now: Instant) {
        if self.jobs.get(&id).is_some_and(|job| !job.runnable) {
            self.give_up(id, message, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_may_wait_so_often_for_one_thing_and_others_may_too() {
        let mut crowds = Crowds::default();
        let key = |name: &str| ResourceKey::named(name);
        for _ in 0..MOST {
            crowds.join(1, &[key("vm:1"), key("vm:2")]).expect("room");
        }
        assert_eq!(
            crowds.join(1, &[key("vm:3"), key("vm:2")]),
            Err(key("vm:2"))
        );
        crowds
            .join(1, &[key("vm:3")])
            .expect("nothing was kept of it");
        crowds.join(2, &[key("vm:2")]).expect("another user");
        crowds.leave(1, vec![key("vm:1"), key("vm:2")]);
        crowds.join(1, &[key("vm:2")]).expect("room again");
        for _ in 1..MOST {
            crowds.leave(1, vec![key("vm:1"), key("vm:2")]);
        }
        crowds.leave(1, vec![key("vm:2")]);
        crowds.leave(1, vec![key("vm:3")]);
        crowds.leave(2, vec![key("vm:2")]);
        assert!(crowds.0.is_empty());
    }
}
