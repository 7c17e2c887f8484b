//! What makes a head worth more than our own word: the next signing key, and what witnesses said. The parts of the
//! writer that do this; the gate calls them.

use crate::cosign::WitnessKey;
use crate::dir::write_all_at;
use crate::epochs::{self, By, Epoch};
use crate::failpoint;
use crate::keys::Signer;
use crate::merkle::Hash;
use crate::note::{Checkpoint, NoteError, parts};
use crate::publish::PublishError;
use crate::recover::{self, Floor};
use crate::segment::{self, Cosigned, push_frame};
use crate::writer::{AppendError, Appended, Head, Writer};
use rustix::fd::AsFd as _;
use std::collections::VecDeque;

/// Published heads that may still be cosigned: a minute's worth, at one a second.
const REMEMBERED: usize = 64;

/// Why there is no new epoch. The old key signs on.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// Not the next key of this log.
    #[error(
        "the next key must be of epoch {wanted} of {origin}, and new; this is of epoch {found}"
    )]
    Key {
        /// The number it must have.
        wanted: u32,
        /// Name of the log.
        origin: String,
        /// The number it has.
        found: u32,
    },
    /// The record could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why cosignatures are not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CosignError {
    /// The note is not one.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Not a head of this log that was published lately.
    #[error(
        "a head of {size} records with this root was not published lately; submit the checkpoint beside the ledger to the witnesses again"
    )]
    Unknown {
        /// Its size.
        size: u64,
    },
    /// A larger one is cosigned already.
    #[error("a head of {newest} records is cosigned already, this one has {size}")]
    Older {
        /// Its size.
        size: u64,
        /// Size of the newest.
        newest: u64,
    },
    /// No line is a valid cosignature of a configured witness.
    #[error(
        "no cosignature of a configured witness is valid for this head (the witnesses are those of the policy at the agent's start)"
    )]
    NoneValid,
    /// The frame could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The system refused to publish; the cosignatures are in the log.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// What the writer knows of witnesses.
#[derive(Debug, Default)]
pub(crate) struct Witnessed {
    /// Newest cosigned head.
    newest: Option<Cosigned>,
    /// Heads that were published: size, root, note.
    recent: VecDeque<(u64, Hash, String)>,
    /// The file is older than `newest`.
    unpublished: bool,
}

impl Witnessed {
    /// From what the log says and what was published before.
    pub fn resume(cosigned: Option<Cosigned>, floors: [Option<Floor>; 2]) -> Self {
        let [checkpoint, published] = floors;
        let heads = [published, checkpoint].into_iter().flatten();
        let recent: VecDeque<_> = heads
            .filter_map(|floor| {
                let note = unsigned_by_others(&floor.note)?;
                Some((floor.head.size, floor.head.root, note))
            })
            .collect();
        Self {
            unpublished: cosigned.is_some(),
            newest: cosigned,
            recent,
        }
    }

    /// The note of a head as it is published: with the cosignatures, when they are of this very head.
    pub fn checkpoint(&self, origin: &str, head: &Head) -> String {
        match &self.newest {
            Some(newest) if (newest.size, newest.root) == (head.size, head.root) => {
                newest.note(origin)
            }
            _ => head.note.clone(),
        }
    }

    /// The newest cosigned head, when it is not the one in its file. Taken for written from here on.
    pub fn take_unpublished(&mut self, origin: &str) -> Option<String> {
        let newest = self.newest.as_ref().filter(|_| self.unpublished)?;
        self.unpublished = false;
        Some(newest.note(origin))
    }

    /// It was not written.
    pub fn publish_again(&mut self) {
        self.unpublished = true;
    }

    /// Remembers a head that is published, or about to be.
    pub fn published(&mut self, head: &Head) {
        if self.recent.back().is_some_and(|last| last.0 == head.size) {
            return;
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent
            .push_back((head.size, head.root, head.note.clone()));
    }
}

/// A note with its first signature, the log's own, alone.
fn unsigned_by_others(note: &str) -> Option<String> {
    let (body, lines) = parts(note).ok()?;
    Some(format!("{body}\n{}\n", lines.lines().next()?))
}

impl Writer {
    /// Begins an epoch: one record, signed with the old key, names the new one; everything after it is signed by the new
    /// one. The caller has made the new key durable before, and erases the old one after.
    ///
    /// # Errors
    /// See [`RotateError`].
    pub fn rotate(&mut self, next: Signer, by: &By) -> Result<Appended, RotateError> {
        let now = self.epochs.current();
        let known = |epoch: &Epoch| epoch.key == *next.vkey();
        if Some(next.epoch()) != now.number.checked_add(1)
            || next.vkey().name() != now.key.name()
            || self.epochs.list().iter().any(known)
        {
            return Err(RotateError::Key {
                wanted: now.number.saturating_add(1),
                origin: now.key.name().to_owned(),
                found: next.epoch(),
            });
        }
        let draft = epochs::draft(next.epoch(), next.vkey(), &now.key, by);
        let appended = self.append(&[draft])?;
        let size = appended.first().map_or(self.head.size, |a| a.height);
        self.epochs.begin(Epoch {
            number: next.epoch(),
            key: next.vkey().clone(),
            after: size,
        });
        self.signer = next;
        failpoint::reach("ledger-epoch-recorded", b"");
        // Derived from the log: written again at the next opening, should it fail now.
        let _ = recover::write_vkeys(&self.ledger, &self.epochs);
        match appended.into_iter().next() {
            Some(appended) => Ok(appended),
            None => Err(AppendError::Poisoned("the epoch record vanished".to_owned()).into()),
        }
    }

    /// Takes the cosignatures in `note` and publishes them.
    ///
    /// # Errors
    /// See [`CosignError`].
    pub fn cosign(&mut self, note: &str, witnesses: &[WitnessKey]) -> Result<usize, CosignError> {
        let count = self.take_cosignatures(note, witnesses)?;
        self.publish()?;
        Ok(count)
    }

    /// Takes the cosignatures in `note` that are valid for it and of `witnesses`, and makes them durable; the next
    /// publication has them. `note` is a checkpoint of this log that was published lately. Gives how many witnesses have
    /// cosigned it.
    ///
    /// # Errors
    /// See [`CosignError`].
    pub fn take_cosignatures(
        &mut self,
        note: &str,
        witnesses: &[WitnessKey],
    ) -> Result<usize, CosignError> {
        let head = Checkpoint::parse_unverified(note)?;
        let (body, lines) = parts(note)?;
        let known = self.witnessed.recent.iter();
        let ours = known
            .rev()
            .find(|known| (known.0, known.1) == (head.size, head.root));
        // Nothing but our own three lines: what a witness signs is the text.
        let ours = ours.filter(|known| parts(&known.2).is_ok_and(|parts| parts.0 == body));
        let Some((size, root, own)) = ours.cloned() else {
            return Err(CosignError::Unknown { size: head.size });
        };
        let newest = self.witnessed.newest.as_ref();
        if let Some(newest) = newest.filter(|newest| newest.size > size) {
            let newest = newest.size;
            return Err(CosignError::Older { size, newest });
        }
        // What is known already of this head stays.
        let before = newest
            .filter(|newest| newest.size == size)
            .map_or("", |newest| newest.lines.as_str());
        let all = format!("{before}{lines}");
        let mut kept = parts(&own)?.1.to_owned();
        let mut count = 0;
        for witness in witnesses {
            if let Some(found) = witness.find(body, &all)
                && kept.len() + found.line.len() < Cosigned::MAX_LINES
            {
                kept.push_str(&found.line);
                kept.push('\n');
                count += 1;
            }
        }
        if count == 0 {
            return Err(CosignError::NoneValid);
        }
        if kept == before {
            return Ok(count);
        }
        let cosigned = Cosigned {
            size,
            root,
            lines: kept,
        };
        self.append_frame(segment::COSIGNATURE, &cosigned.encode())?;
        self.witnessed.newest = Some(cosigned);
        self.witnessed.unpublished = true;
        // Also the checkpoint changes when it is the one that was cosigned.
        self.published_size = None;
        Ok(count)
    }

    /// Writes a frame that is no part of the tree, behind the last commit.
    fn append_frame(&mut self, kind: u8, payload: &[u8]) -> Result<(), AppendError> {
        if let Some(why) = &self.poisoned {
            return Err(AppendError::Poisoned(why.clone()));
        }
        self.check_still_there()?;
        let mut bytes = Vec::with_capacity(payload.len() + segment::FRAME_BYTES);
        let (position, salt) = (self.active.position, self.active.header.salt);
        push_frame(&mut bytes, position, &salt, kind, payload);
        self.make_room(bytes.len() as u64, self.options.reserve_bytes)?;
        let fd = std::sync::Arc::clone(&self.active.fd);
        if let Err(errno) = write_all_at(fd.as_fd(), &bytes, position) {
            return Err(self.poison("write", errno));
        }
        failpoint::reach("ledger-cosignature-written", b"");
        if let Err(errno) = rustix::fs::fdatasync(&*fd) {
            return Err(self.poison("make durable", errno));
        }
        self.active.position += bytes.len() as u64;
        self.active.file_bytes = self.active.file_bytes.max(self.active.position);
        Ok(())
    }
}
