//! Who works on which subscription: a job's step and a repair of the same machine never run side by side.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The subscriptions that somebody works on.
#[derive(Debug, Default)]
pub struct Holds {
    held: Mutex<HashSet<u64>>,
    freed: Notify,
}

/// A subscription is the holder's until this is dropped.
#[derive(Debug)]
pub struct Held<'a> {
    holds: &'a Holds,
    id: u64,
}

impl Holds {
    fn held(&self) -> MutexGuard<'_, HashSet<u64>> {
        // A set of numbers: a panic in between left it whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a subscription if nobody has it.
    pub fn try_hold(&self, id: u64) -> Option<Held<'_>> {
        // Only who put it there may take it away: a `Held` that is made too early would, when it is dropped.
        let free = self.held().insert(id);
        free.then(|| Held { holds: self, id })
    }

    /// Waits until nobody has it, and takes it.
    pub async fn hold(&self, id: u64) -> Held<'_> {
        loop {
            // Before looking: what is freed between the look and the wait still wakes us.
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(held) = self.try_hold(id) {
                return held;
            }
            freed.await;
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.holds.held().remove(&self.id);
        self.holds.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_holder_at_a_time_and_who_waits_gets_it_next() {
        let holds = Holds::default();
        let first = holds.try_hold(7).expect("free");
        assert!(holds.try_hold(7).is_none());
        assert!(holds.try_hold(8).is_some(), "others are not in the way");
        let mut waiting = Box::pin(holds.hold(7));
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), &mut waiting).await;
        assert!(early.is_err());
        drop(first);
        drop(waiting.await);
        assert!(holds.try_hold(7).is_some());
    }
}
