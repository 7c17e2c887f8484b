//! Threads beside the gate's that wait for the disk where nobody else has to. Payloads are written in one, one after the
//! other, and their records follow when they are durable; what is derived from the log is written in another, and what a pruning
//! writes and deletes in a third. What came of it the gate looks for itself, so none can hold it up.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use blockhost_ledger::blobs::Write;
use blockhost_ledger::dir::FileError;
use blockhost_ledger::merkle::Hash;
use blockhost_ledger::prune::{Deletion, Kept, PruneError, Pruning};
use blockhost_ledger::publish::{Publication, Published};
use blockhost_ledger::record::Draft;

use super::Pending;
use crate::log_error;

/// Who waits for a payload, and the record that will commit to it.
pub(super) struct Waiting {
    pub pending: Pending,
    pub draft: Draft,
    pub hash: Hash,
}

type Written = (u64, Result<(), FileError>);

/// A part of a pruning that waits for the disk.
pub(super) enum Cut {
    /// Before the record.
    Keep(Box<Pruning>),
    /// After it.
    Delete(Box<Deletion>),
}

/// What came of it.
pub(super) enum Pruned {
    Kept(Result<Box<Kept>, PruneError>),
    Deleted(Box<Deletion>, Result<(), PruneError>),
}

fn cut(cut: Cut) -> Pruned {
    match cut {
        Cut::Keep(pruning) => Pruned::Kept(pruning.keep().map(Box::new)),
        Cut::Delete(deletion) => {
            let deleted = deletion.run();
            Pruned::Deleted(deletion, deleted)
        }
    }
}

/// A thread that does one job after the other. It ends with this.
struct Bench<J, D> {
    jobs: Sender<J>,
    done: Receiver<D>,
}

impl<J: Send + 'static, D: Send + 'static> Bench<J, D> {
    fn open(name: &'static str, work: fn(J) -> D) -> Result<Self, String> {
        let (jobs, waiting) = channel();
        let (told, done) = channel();
        let thread = move || {
            for job in waiting {
                let Ok(done) = catch_unwind(AssertUnwindSafe(|| work(job))) else {
                    // Nobody would ever hear of this job, nor of those behind it. The supervisor starts the gate anew,
                    // and what is half done is taken up as after any crash.
                    log_error!(
                        "{name} could not be written for a fault of the agent's own; the process ends"
                    );
                    std::process::abort();
                };
                if told.send(done).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(thread)
            .map_err(|error| format!("a thread for {name}: {error}"))?;
        Ok(Self { jobs, done })
    }

    fn begin(&self, job: J) {
        // The thread ends only with the process.
        let _ = self.jobs.send(job);
    }

    fn done(&self, wait: bool) -> Option<D> {
        match wait {
            true => self.done.recv().ok(),
            false => self.done.try_recv().ok(),
        }
    }
}

/// What is being written.
pub(super) struct Desk {
    payloads: Bench<(u64, Write), Written>,
    waiting: HashMap<u64, Waiting>,
    next: u64,
    derived: Bench<Publication, Published>,
    publishing: bool,
    prunings: Bench<Cut, Pruned>,
}

impl Desk {
    /// Starts the threads.
    pub fn open() -> Result<Self, String> {
        Ok(Self {
            payloads: Bench::open("payloads", |(number, write): (u64, Write)| {
                (number, write.run())
            })?,
            waiting: HashMap::new(),
            next: 0,
            derived: Bench::open("derived files", Publication::run)?,
            publishing: false,
            prunings: Bench::open("prunings", cut)?,
        })
    }

    /// Has a payload written.
    pub fn write(&mut self, write: Write, waiting: Waiting) {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, waiting);
        self.payloads.begin((number, write));
    }

    /// One that is written, or was refused by the system. With `wait` it is waited for, while there is any.
    pub fn written(&mut self, wait: bool) -> Option<(Waiting, Result<(), FileError>)> {
        if self.waiting.is_empty() {
            return None;
        }
        let (number, written) = self.payloads.done(wait)?;
        Some((self.waiting.remove(&number)?, written))
    }

    /// How many payloads are under way.
    pub fn payloads(&self) -> usize {
        self.waiting.len()
    }

    /// Has derived files written; nothing else of them may be before they are.
    pub fn publish(&mut self, publication: Publication) {
        self.publishing = true;
        self.derived.begin(publication);
    }

    /// Whether derived files are being written.
    pub fn is_publishing(&self) -> bool {
        self.publishing
    }

    /// What became of them, once it is known; with `wait` it is waited for.
    pub fn published(&mut self, wait: bool) -> Option<Published> {
        if !self.publishing {
            return None;
        }
        let published = self.derived.done(wait);
        self.publishing = published.is_none();
        published
    }

    /// Has a part of a pruning done; there is one at a time, and whoever asked for it looks for what came of it.
    pub fn prune(&self, cut: Cut) {
        self.prunings.begin(cut);
    }

    /// What came of that part, once it is known; with `wait` it is waited for.
    pub fn pruned(&self, wait: bool) -> Option<Pruned> {
        self.prunings.done(wait)
    }

    /// Whether payloads or derived files are under way.
    pub fn is_busy(&self) -> bool {
        self.publishing || !self.waiting.is_empty()
    }
}
