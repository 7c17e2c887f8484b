//! How much of the front's memory the requests under way and the answers to them may take, each user's and all together. A
//! connection's own limit is not enough: who asks and hangs up leaves the request behind, and can come back for more; and
//! whose first request takes its time has all later answers wait here, on each of its connections.

use std::collections::HashMap;

/// Bytes of frames whose requests are under way, for one user.
const MOST_PER_USER: usize = 24 << 20;
/// The same for all users: less than what may wait for the gate.
const MOST: usize = 48 << 20;
/// Bytes of answers that are not written yet, for one user. More than a connection can have at the default limits.
const ANSWERS_PER_USER: usize = 48 << 20;
/// The same for all users: with everything else a fraction of the front's address space.
const ANSWERS: usize = 96 << 20;

/// What is under way.
#[derive(Debug, Default)]
pub struct Shares {
    bytes: usize,
    answers: usize,
    users: HashMap<u32, Share>,
}

#[derive(Debug, Default)]
struct Share {
    requests: usize,
    bytes: usize,
    answers: usize,
}

impl Share {
    fn is_nothing(&self) -> bool {
        self.requests == 0 && self.answers == 0
    }
}

/// Why there is no room.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Of this user.
    #[error(
        "{requests} requests of yours are under way ({} KiB), and no more are taken; wait for answers",
        .bytes >> 10
    )]
    User {
        /// Requests.
        requests: usize,
        /// Bytes of their frames.
        bytes: usize,
    },
    /// Of all.
    #[error("the requests under way hold {} KiB, and no more are taken; try again", .bytes >> 10)]
    All {
        /// Bytes of their frames.
        bytes: usize,
    },
}

impl Shares {
    /// Room for one more request, where the user has fewer than `most` of them. One alone is never too large.
    ///
    /// # Errors
    /// [`Full`].
    pub fn take(&mut self, uid: u32, bytes: usize, most: usize) -> Result<(), Full> {
        let share = self.users.entry(uid).or_default();
        let too_many = share.requests >= most || share.bytes.saturating_add(bytes) > MOST_PER_USER;
        if share.requests > 0 && too_many {
            return Err(Full::User {
                requests: share.requests,
                bytes: share.bytes,
            });
        }
        if self.bytes > 0 && self.bytes.saturating_add(bytes) > MOST {
            if share.is_nothing() {
                self.users.remove(&uid);
            }
            return Err(Full::All { bytes: self.bytes });
        }
        share.requests += 1;
        share.bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// One is over.
    pub fn give_back(&mut self, uid: u32, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        let Some(share) = self.users.get_mut(&uid) else {
            return;
        };
        share.requests = share.requests.saturating_sub(1);
        share.bytes = share.bytes.saturating_sub(bytes);
        if share.is_nothing() {
            self.users.remove(&uid);
        }
    }

    /// Unwritten answers on a connection of this user were that many bytes, and are that many now.
    pub fn charge(&mut self, uid: u32, were: usize, are: usize) {
        if were == are {
            return;
        }
        let share = self.users.entry(uid).or_default();
        share.answers = (share.answers + are).saturating_sub(were);
        self.answers = (self.answers + are).saturating_sub(were);
        if share.is_nothing() {
            self.users.remove(&uid);
        }
    }

    /// Who has to give answers up, after this user got some, and how many bytes of them there are: whoever has more than one
    /// user may, or most of what is more than all may.
    pub fn debtor(&self, uid: u32) -> Option<(u32, usize)> {
        let of = |share: &Share| share.answers;
        let own = self.users.get(&uid).map_or(0, of);
        if own > ANSWERS_PER_USER {
            return Some((uid, own));
        }
        let most = self.users.iter().max_by_key(|(_, share)| share.answers)?;
        (self.answers > ANSWERS).then_some((*most.0, most.1.answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_share_and_everything_comes_back() {
        let mut shares = Shares::default();
        for _ in 0..3 {
            shares.take(1, 10, 3).expect("room");
        }
        assert!(matches!(
            shares.take(1, 10, 3),
            Err(Full::User { requests: 3, .. })
        ));
        shares.take(2, 10, 3).expect("another user");
        shares.give_back(1, 10);
        shares.take(1, 10, 3).expect("room again");
        for (uid, count) in [(1, 3), (2, 1)] {
            (0..count).for_each(|_| shares.give_back(uid, 10));
        }
        assert!(shares.users.is_empty() && shares.bytes == 0);
    }

    #[test]
    fn large_requests_are_bounded_for_one_and_for_all_and_one_alone_always_passes() {
        let mut shares = Shares::default();
        let large = 4 << 20;
        let mut passed = |uid| {
            (0..100)
                .filter(|_| shares.take(uid, large, 100).is_ok())
                .count()
        };
        assert_eq!((passed(1), passed(2), passed(3)), (6, 6, 0));
        assert!(
            !shares.users.contains_key(&3),
            "who got nothing costs nothing"
        );
        Shares::default().take(1, usize::MAX, 1).expect("alone");
    }

    #[test]
    fn answers_are_bounded_for_one_and_for_all_and_who_has_most_of_them_gives_some_up() {
        let mut shares = Shares::default();
        let mib = 1 << 20;
        shares.charge(1, 0, 48 * mib);
        assert_eq!(shares.debtor(1), None);
        shares.charge(1, 0, 1);
        assert_eq!(shares.debtor(1), Some((1, 48 * mib + 1)));
        assert_eq!(shares.debtor(2), None, "of another user nothing is wanted");
        shares.charge(1, 1, 0);
        shares.charge(2, 0, 47 * mib);
        shares.charge(3, 0, mib);
        assert_eq!(shares.debtor(3), None);
        shares.charge(3, mib, 2 * mib);
        assert_eq!(shares.debtor(3), Some((1, 48 * mib)));
        for (uid, bytes) in [(1, 48 * mib), (2, 47 * mib), (3, 2 * mib)] {
            shares.charge(uid, bytes, 0);
        }
        assert!(shares.users.is_empty() && shares.answers == 0);
    }

    #[test]
    fn a_user_with_answers_and_without_requests_is_remembered_and_the_other_way_round() {
        let mut shares = Shares::default();
        shares.take(1, 10, 3).expect("room");
        shares.charge(1, 0, 5);
        shares.give_back(1, 10);
        assert_eq!(shares.users.get(&1).map(|share| share.answers), Some(5));
        shares.take(1, 10, 3).expect("room");
        shares.charge(1, 5, 0);
        assert_eq!(shares.users.get(&1).map(|share| share.requests), Some(1));
    }
}
