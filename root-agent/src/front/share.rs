//! How much of the front's memory the requests under way may take, each user's and all together. A connection's own limit
//! is not enough: who asks and hangs up leaves the request behind, and can come back for more.

use std::collections::HashMap;

/// Bytes of frames whose requests are under way, for one user.
const MOST_PER_USER: usize = 24 << 20;
/// The same for all users: less than what may wait for the gate.
const MOST: usize = 48 << 20;

/// What is under way.
#[derive(Debug, Default)]
pub struct Shares {
    bytes: usize,
    users: HashMap<u32, Share>,
}

#[derive(Debug, Default)]
struct Share {
    requests: usize,
    bytes: usize,
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
            if share.requests == 0 {
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
        if share.requests == 0 {
            self.users.remove(&uid);
        }
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
}
