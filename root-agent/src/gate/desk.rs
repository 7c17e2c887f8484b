//! A thread beside the gate's that waits for the disk where nobody else has to: payloads are written there, one after the
//! other, and their records follow when they are durable. Used by `payloads`.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};

use blockhost_ledger::blobs::Write;
use blockhost_ledger::dir::FileError;
use blockhost_ledger::merkle::Hash;
use blockhost_ledger::record::Draft;

use super::Pending;

/// Who waits for a payload, and the record that will commit to it.
pub(super) struct Waiting {
    pub pending: Pending,
    pub draft: Draft,
    pub hash: Hash,
}

type Written = (u64, Result<(), FileError>);

/// What is being written.
pub(super) struct Desk {
    work: Sender<(u64, Write)>,
    done: Receiver<Written>,
    waiting: HashMap<u64, Waiting>,
    next: u64,
}

impl Desk {
    /// Starts the thread. It ends with the desk.
    pub fn open() -> Result<Self, String> {
        let (work, jobs) = channel::<(u64, Write)>();
        let (told, done) = channel();
        let write = move || {
            for (number, write) in jobs {
                if told.send((number, write.run())).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("payloads".to_owned())
            .spawn(write)
            .map_err(|error| format!("a thread for payloads: {error}"))?;
        Ok(Self {
            work,
            done,
            waiting: HashMap::new(),
            next: 0,
        })
    }

    /// Has a payload written.
    pub fn write(&mut self, write: Write, waiting: Waiting) {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, waiting);
        // The thread ends only with us.
        let _ = self.work.send((number, write));
    }

    /// One that is written, or was refused by the system. With `wait` it is waited for, while there is any.
    pub fn written(&mut self, wait: bool) -> Option<(Waiting, Result<(), FileError>)> {
        if self.waiting.is_empty() {
            return None;
        }
        let (number, written) = match wait {
            true => self.done.recv().ok()?,
            false => self.done.try_recv().ok()?,
        };
        Some((self.waiting.remove(&number)?, written))
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}
