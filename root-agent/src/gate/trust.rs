//! Cosignatures of witnesses, and new signing keys: the two actions of the ledger that are more than a record. Which
//! witnesses count the supervisor said at the start; keys are made and erased by it, because nobody else reaches them.

use std::time::Instant;

use blockhost_ledger::epochs::By;
use blockhost_ledger::keys::Signer;
use blockhost_ledger::publish::PublishError;
use blockhost_proto::action::LedgerCosign;
use blockhost_proto::escape::hex;
use blockhost_proto::response::{ErrorCode, Receipt};

use super::{Gate, Pending};
use crate::compartment::{Done, Failure};
use crate::ipc::{KeySeed, Report};
use crate::{log_error, log_info};

/// Whose cosignatures are in the log and not published yet.
pub(super) struct Cosigned {
    pending: Pending,
    /// How many witnesses have cosigned that head.
    count: usize,
    /// What is being written has them.
    covered: bool,
}

impl Gate {
    /// Takes cosignatures. There is no record of it: it would be a new head, which would have to be cosigned. The answer says
    /// that they are published, so it waits for that: [`Self::published_cosigned`].
    pub(super) fn cosign(&mut self, pending: Pending, action: &LedgerCosign) {
        let taken = self
            .writer
            .take_cosignatures(action.checkpoint.as_str(), &self.witnesses);
        match taken {
            Ok(count) => {
                let covered = false;
                self.cosigned.push(Cosigned {
                    pending,
                    count,
                    covered,
                });
                self.publish_cosigned();
            }
            Err(error) => {
                let failure = Failure::new(ErrorCode::Failed, error.to_string());
                self.turn_down(&pending, failure);
            }
        }
    }

    /// Has cosignatures published for which somebody waits, at once; or when what is being written is.
    pub(super) fn publish_cosigned(&mut self) {
        if !self.desk.is_publishing() && self.cosigned.iter().any(|waiting| !waiting.covered) {
            self.publish(Instant::now());
        }
    }

    /// What is written from here on has all cosignatures that were taken.
    pub(super) fn cover_cosigned(&mut self) {
        for waiting in &mut self.cosigned {
            waiting.covered = true;
        }
    }

    /// Answers those whose cosignatures were written, or not.
    pub(super) fn published_cosigned(&mut self, result: &Result<(), PublishError>) {
        let (covered, later) = std::mem::take(&mut self.cosigned)
            .into_iter()
            .partition(|waiting| waiting.covered);
        self.cosigned = later;
        for Cosigned { pending, count, .. } in covered {
            let answer = match result {
                Ok(()) => {
                    let mut done = Done::default();
                    done.extra.insert("witnesses".to_owned(), count.into());
                    Ok(done)
                }
                Err(error) => {
                    let message = format!("the cosignatures are kept, but not published: {error}");
                    Err(Failure::new(ErrorCode::Failed, message))
                }
            };
            self.answer(pending.life, pending.id, answer, None);
            self.leave(pending.turn);
        }
    }

    /// Asks the supervisor for the next key; goes on in [`Self::rotate`].
    pub(super) fn ask_for_key(&mut self, pending: Pending) {
        if self.rotating.is_some() {
            let failure = Failure::new(ErrorCode::Busy, "an epoch is being begun already");
            return self.turn_down(&pending, failure);
        }
        let epoch = self.writer.epochs().current().number.saturating_add(1);
        match self.control.send(&Report::NextKey { epoch }, None) {
            Ok(()) => self.rotating = Some(pending),
            Err(error) => {
                let failure = Failure::new(ErrorCode::Internal, format!("supervisor: {error}"));
                self.turn_down(&pending, failure);
            }
        }
    }

    /// The next key is durable (or could not be made): names it in the log and signs on with it.
    pub(super) fn rotate(&mut self, epoch: u32, key: Result<KeySeed, String>) {
        let Some(pending) = self.rotating.take() else {
            return;
        };
        // What is on its way in stands before the new epoch.
        self.commit();
        let origin = self.writer.vkey().name().to_owned();
        let signer = key.and_then(|seed| {
            let seed = seed.bytes().ok_or("the key is none")?;
            Signer::from_bytes(&origin, epoch, &seed).map_err(|error| error.to_string())
        });
        let by = By {
            user: self.names.of(pending.caller.uid),
            uid: pending.caller.uid,
            pid: pending.caller.pid,
            exe: pending.caller.exe.clone(),
            unit: pending.caller.unit.clone(),
        };
        let rotated = signer.and_then(|signer| {
            let vkey = signer.vkey().to_string();
            let rotated = self.writer.rotate(signer, &by);
            rotated
                .map(|appended| (appended, vkey))
                .map_err(|error| error.to_string())
        });
        match rotated {
            Ok((appended, vkey)) => {
                log_info!("ledger: epoch {epoch} has begun");
                self.retire_keys();
                self.after_append();
                let mut done = Done::default();
                done.extra.insert("epoch".to_owned(), epoch.into());
                done.extra.insert("vkey".to_owned(), vkey.into());
                let receipt = Receipt {
                    index: appended.index,
                    leaf: hex(&appended.leaf),
                };
                self.answer(pending.life, pending.id, Ok(done), Some(receipt));
                self.leave(pending.turn);
            }
            Err(error) => {
                let message = format!("no new epoch, the old key signs on: {error}");
                self.turn_down(&pending, Failure::new(ErrorCode::Failed, message));
            }
        }
    }

    /// Has the keys of epochs that are over erased. Also at the start: the last life may have ended before that.
    pub(super) fn retire_keys(&mut self) {
        let epoch = self.writer.epochs().current().number;
        if epoch > 1
            && let Err(error) = self.control.send(&Report::KeyInUse { epoch }, None)
        {
            log_error!("supervisor: {error}; old signing keys are erased at the next start");
        }
    }
}
