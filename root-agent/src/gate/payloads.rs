//! What the gate does itself, beside recording: confidential payloads are kept and erased by the one process that writes
//! the ledger's directory. A payload is durable before its record; an erasure is recorded before it is done, and after.

use std::time::Instant;

use blockhost_ledger::OpenIntent;
use blockhost_ledger::blobs::{self, BlobIndex, EraseError, PutError, Quota, Store};
use blockhost_ledger::dir::{FileError, LedgerDir};
use blockhost_ledger::merkle::Hash;
use blockhost_ledger::record::{Draft, Phase};
use blockhost_proto::action::{Action, LedgerBlob};
use blockhost_proto::response::ErrorCode;
use serde_json::{Map, Value};

use super::desk::Waiting;
use super::records::{self, Heading};
use super::{Entry, GRACE, Gate, Op, Pending};
use crate::compartment::{Done, Failure};
use crate::failpoint;
use crate::ipc::Role;
use crate::policy::Limits;
use crate::{log_error, log_info};

/// What is to be recorded beside the outcome, and the outcome.
type Work = (Vec<Draft>, Result<Done, Failure>);

/// The quota of a policy.
pub(super) fn quota(limits: &Limits) -> Quota {
    Quota {
        blobs: limits.ledger_blobs,
        bytes: limits.ledger_blob_bytes,
    }
}

/// Takes over the payloads, after the ledger was opened.
pub(super) fn open(directory: LedgerDir, index: BlobIndex) -> Result<Store, String> {
    let (store, orphans) =
        Store::open(directory, index).map_err(|error| format!("payloads: cannot {error}"))?;
    if orphans > 0 {
        log_info!(
            "ledger: {orphans} payload files that no record wants kept were removed; an interrupted writer leaves such"
        );
    }
    Ok(store)
}

/// Finishes an erasure that the last life began: its outcome is known after all. `None` for everything else.
pub(super) fn finish(store: &mut Store, open: &OpenIntent, intent: &Draft) -> Option<Vec<Draft>> {
    if open.action != blobs::SHRED || open.plugin_id != blobs::PLUGIN {
        return None;
    }
    let hash = blobs::parse_resource(&open.resource)?;
    match store.erase(&hash) {
        Ok(()) => {
            let mut facts = Map::new();
            facts.insert("intent_index".to_owned(), open.index.into());
            facts.insert("finished_at_start".to_owned(), true.into());
            let outcome = Draft {
                metadata: Map::from_iter([
                    ("result".to_owned(), "ok".into()),
                    ("intent_index".to_owned(), open.index.into()),
                ]),
                ..intent.clone()
            };
            Some(vec![blobs::shred_record(intent, &hash, facts), outcome])
        }
        // Its record was written and only the outcome is missing, or it was refused: nothing was or is to be erased.
        Err(EraseError::Already { .. } | EraseError::Unknown { .. }) => None,
        Err(error) => {
            log_error!("{} was not finished: {error}", open.resource);
            None
        }
    }
}

fn not_taken(error: &PutError) -> Failure {
    let code = match error {
        PutError::Shredded { .. } => ErrorCode::Conflict,
        PutError::Quota { .. } | PutError::Space { .. } | PutError::File(_) => ErrorCode::Failed,
    };
    Failure::new(code, format!("the payload was not taken: {error}"))
}

impl Gate {
    /// Takes a payload in. It is written beside the gate's other work; [`Self::payloads_written`] goes on.
    pub(super) fn keep(&mut self, pending: Pending, blob: &LedgerBlob) {
        let (hash, write) = match self.store.admit(blob.ciphertext.bytes(), self.quota) {
            Ok(admitted) => admitted,
            Err(error) => return self.turn_down(&pending, not_taken(&error)),
        };
        let metadata = blobs::metadata(
            &hash,
            blob.ciphertext.bytes().len(),
            blob.action.as_str(),
            blob.data.map(),
        );
        let draft = records::payload(&pending.action, &pending.caller, &self.names, metadata);
        if let Err(error) = draft.check() {
            self.store.withdraw(hash, false);
            let message = format!("the event cannot be recorded: {error}");
            return self.turn_down(&pending, Failure::new(ErrorCode::BadParams, message));
        }
        let waiting = Waiting {
            pending,
            draft,
            hash,
        };
        self.desk.write(write, waiting);
    }

    /// Queues the records of the payloads that are durable now.
    pub(super) fn payloads_written(&mut self) {
        while let Some((waiting, written)) = self.desk.written(false) {
            self.payload_written(waiting, written);
        }
    }

    /// The same of all that are under way, however long it takes.
    pub(super) fn last_payloads(&mut self) {
        while let Some((waiting, written)) = self.desk.written(true) {
            self.payload_written(waiting, written);
        }
    }

    fn payload_written(&mut self, waiting: Waiting, written: Result<(), FileError>) {
        let Waiting {
            pending,
            draft,
            hash,
        } = waiting;
        if let Err(error) = written {
            self.store.withdraw(hash, false);
            return self.turn_down(&pending, not_taken(&error.into()));
        }
        failpoint::reach("gate-payload-kept", pending.action.name().as_bytes());
        self.batch.push(Entry::Event {
            id: pending.id,
            life: pending.life,
            draft,
            payload: Some(hash),
        });
        // Its record stands before whatever touches the same payload now.
        self.leave(pending.turn);
    }

    /// Does what the intent in the ledger says, and queues what it came to.
    pub(super) fn carry_out(&mut self, pending: Pending, heading: Heading, intent: &Draft) {
        failpoint::reach("gate-recorded", pending.action.name().as_bytes());
        let began = Instant::now();
        let action = pending.action;
        let op = Op {
            id: pending.id,
            life: pending.life,
            caller: pending.caller,
            heading,
            role: Role::Ledger,
            turn: pending.turn,
            began,
            limit: pending.limit,
            deadline: began + pending.limit + GRACE,
        };
        let (facts, result) = match &action {
            Action::LedgerPrune(prune) => return self.begin_pruning(op, prune, intent),
            Action::LedgerShred(shred) => {
                self.shred(&shred.sha256.bytes(), shred.reason.as_str(), intent)
            }
            _ => {
                let text = "this action is not the ledger's";
                (Vec::new(), Err(Failure::new(ErrorCode::Internal, text)))
            }
        };
        failpoint::reach("gate-finished", action.name().as_bytes());
        // They are about what was done, so they are kept for later when there is no space, as outcomes are.
        self.batch.extend(facts.into_iter().map(Entry::Late));
        self.conclude(op, result);
    }

    fn shred(&mut self, hash: &Hash, reason: &str, intent: &Draft) -> Work {
        match self.store.erase(hash) {
            Ok(()) => {
                let facts = Map::from_iter([("reason".to_owned(), Value::from(reason))]);
                let record = blobs::shred_record(intent, hash, facts);
                (vec![record], Ok(Done::default()))
            }
            Err(error) => {
                let code = match error {
                    EraseError::Unknown { .. } => ErrorCode::NotFound,
                    EraseError::Already { .. } => ErrorCode::Conflict,
                    EraseError::File(_) => ErrorCode::Failed,
                };
                (Vec::new(), Err(Failure::new(code, error.to_string())))
            }
        }
    }
}

/// The heading of records about an intent that was found open.
pub(super) fn of_open(open: &OpenIntent) -> Draft {
    let spec = blockhost_proto::catalog::find(&open.action);
    Draft {
        phase: Phase::Outcome,
        op_id: open.op_id.clone(),
        plugin_id: spec.map_or("agent", |s| s.plugin_id).to_owned(),
        category: spec.map_or("settings", |s| s.category).to_owned(),
        operation: spec.map_or("query", |s| s.operation).to_owned(),
        action: open.action.clone(),
        resource: open.resource.clone(),
        user: open.user.clone(),
        uid: open.uid,
        pid: None,
        exe: None,
        unit: None,
        metadata: Map::new(),
    }
}
