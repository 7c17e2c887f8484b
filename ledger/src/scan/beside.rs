//! Signatures of commits that workers check while the log is read on. The first wrong one counts as if it had been found
//! where it stands: nothing behind it is history, whatever else was found there.

use super::{Fault, Scan};
use crate::epochs;
use crate::merkle::Hash;
use crate::note::Vkey;
use crate::parallel::Pool;
use crate::segment::Commit;
use std::sync::{Arc, OnceLock};

/// Signatures that a worker takes at a time: some milliseconds of work.
const AT_A_TIME: usize = 32;
/// Signatures for which it is worth while to make a key ready.
const MANY: usize = 16;

/// What goes on beside the reading.
pub(super) struct Beside<'p> {
    pub pool: &'p Pool,
    begun: Vec<Arc<Signed>>,
    next: Option<Signed>,
    key: Option<Arc<Key>>,
}

/// A key, made ready for many signatures when there are many.
struct Key {
    vkey: Vkey,
    #[cfg(feature = "cli")]
    prepared: OnceLock<Option<crate::prepared::Prepared>>,
}

impl Key {
    fn of(vkey: &Vkey) -> Self {
        Self {
            vkey: vkey.clone(),
            #[cfg(feature = "cli")]
            prepared: OnceLock::new(),
        }
    }

    /// Was the commit, one of `many`, signed by it?
    fn check(&self, commit: &Commit, many: usize) -> Result<(), String> {
        if many >= MANY && self.surely_signed(commit) {
            return Ok(());
        }
        epochs::check_signature(&self.vkey, commit)
    }

    #[cfg(feature = "cli")]
    fn surely_signed(&self, commit: &Commit) -> bool {
        let prepare = || crate::prepared::Prepared::of(&self.vkey);
        let prepared = self.prepared.get_or_init(prepare).as_ref();
        prepared.is_some_and(|prepared| prepared.surely_signed(self.vkey.name(), commit))
    }

    #[cfg(not(feature = "cli"))]
    fn surely_signed(&self, _: &Commit) -> bool {
        false
    }
}

/// Consecutive commits of one segment by one key.
struct Signed {
    key: Arc<Key>,
    segment: String,
    commits: Vec<Due>,
    wrong: OnceLock<Option<(usize, String)>>,
}

/// A commit that was found right but for its signature, and what was history before it.
#[derive(Debug)]
struct Due {
    commit: Commit,
    offset: u64,
    good: u64,
    root: Hash,
    good_bytes: u64,
}

impl<'p> Beside<'p> {
    pub fn with(pool: &'p Pool) -> Self {
        Self {
            pool,
            begun: Vec::new(),
            next: None,
            key: None,
        }
    }

    /// Has a signature checked by `key`. The commit stands at `offset` of the file `segment`; `scan` does not have it yet.
    pub fn sign(&mut self, key: &Vkey, commit: &Commit, scan: &Scan, segment: &str, offset: u64) {
        let due = Due {
            commit: *commit,
            offset,
            good: scan.size(),
            // What the commit before it signed, and no sum over the whole frontier.
            root: scan
                .last_commit
                .map_or_else(|| scan.frontier.root(), |commit| commit.root),
            good_bytes: scan.good_bytes,
        };
        let fits = |next: &&mut Signed| next.key.vkey == *key && next.segment == segment;
        match self.next.as_mut().filter(fits) {
            Some(next) => next.commits.push(due),
            None => {
                self.begin();
                let same = self.key.take().filter(|known| known.vkey == *key);
                let key = same.unwrap_or_else(|| Arc::new(Key::of(key)));
                self.key = Some(Arc::clone(&key));
                self.next = Some(Signed {
                    key,
                    segment: segment.to_owned(),
                    commits: vec![due],
                    wrong: OnceLock::new(),
                });
            }
        }
        let full = |next: &Signed| next.commits.len() >= AT_A_TIME;
        if self.next.as_ref().is_some_and(full) {
            self.begin();
        }
    }

    fn begin(&mut self) {
        if let Some(next) = self.next.take() {
            let next = Arc::new(next);
            self.begun.push(Arc::clone(&next));
            self.pool.run(move || {
                next.wrong();
            });
        }
    }

    /// The first wrong one.
    pub fn wrong(mut self) -> Option<Fault> {
        self.begin();
        self.begun.iter().find_map(|signed| {
            let (at, why) = signed.wrong()?;
            let due = signed.commits.get(*at)?;
            Some(Fault {
                height: due.good + 1,
                segment: format!("{}/{}", crate::dir::SEGMENTS, signed.segment),
                offset: due.offset,
                why: why.clone(),
                good: due.good,
                root: due.root,
                good_bytes: due.good_bytes,
            })
        })
    }
}

impl Signed {
    /// The first wrong one of these, and what is wrong.
    fn wrong(&self) -> Option<&(usize, String)> {
        let look = || {
            let commits = self.commits.iter().enumerate();
            commits
                .filter_map(|(at, due)| {
                    let checked = self.key.check(&due.commit, self.commits.len());
                    checked.err().map(|why| (at, why))
                })
                .next()
        };
        self.wrong.get_or_init(look).as_ref()
    }
}
