//! Which key signs which part of the history: the chain of `epoch` records from the first key on. Fed by `scan` commit
//! by commit, asked by everybody who opens a checkpoint. Private keys are `keys`', judging bytes is `scan`'s.

use crate::note::{Checkpoint, NoteError, Vkey, short_name};
use crate::record::{self, Draft, Phase};
use crate::segment::Commit;
use serde_json::{Map, Value, json};

/// Name of the action that begins an epoch, in its record.
pub const ACTION: &str = "ledger-rotate-key";
/// Plugin of the ledger's own records; no event of a client has it.
pub const PLUGIN: &str = "ledger";
/// How a record of that action begins: keys are sorted, so the action comes first.
const BEGINNING: &[u8] = b"{\"action\":\"ledger-rotate-key\",";
record::needle!(PLUGIN_KEY, b"\"plugin_id\":\"");

/// One key and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Its number, from 1.
    pub number: u32,
    /// Its key.
    pub key: Vkey,
    /// Every commit of more records than these is signed by it, until the next epoch.
    pub after: u64,
}

/// The keys of a log from its first, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epochs {
    /// Never empty; numbers without gaps.
    list: Vec<Epoch>,
}

/// Is this record one that may begin an epoch? Looks at its first bytes only; [`Epochs::accept`] judges it.
#[must_use]
pub fn may_begin_epoch(record: &[u8]) -> bool {
    record.starts_with(BEGINNING)
}

impl Epochs {
    /// The chain of a log whose first key is `first`.
    #[must_use]
    pub fn starting_with(first: Vkey) -> Self {
        let first = Epoch {
            number: 1,
            key: first,
            after: 0,
        };
        Self { list: vec![first] }
    }

    /// All of them, in order.
    #[must_use]
    pub fn list(&self) -> &[Epoch] {
        &self.list
    }

    /// The newest.
    #[must_use]
    pub fn current(&self) -> &Epoch {
        // There is one at least, from the beginning.
        &self.list[self.list.len() - 1]
    }

    /// The one whose key signs a tree of `size` records.
    #[must_use]
    pub fn of_size(&self, size: u64) -> &Epoch {
        let later = self.list.iter().rposition(|epoch| epoch.after < size);
        &self.list[later.unwrap_or(0)]
    }

    /// Takes a commit: it must be of the epoch in force, and with `check`, or when it begins an epoch, its signature by
    /// that epoch's key must be right. `named` is what [`may_begin_epoch`] found among the commit's records.
    ///
    /// # Errors
    /// A sentence: what is wrong with the commit or the record.
    pub fn accept(
        &mut self,
        commit: &Commit,
        named: Option<&[u8]>,
        check: bool,
    ) -> Result<(), String> {
        let next = named.map(next_key).transpose()?.flatten();
        let now = self.current();
        if commit.epoch != now.number {
            return Err(format!(
                "the commit says epoch {}, but epoch {} is in force here: no record of the epoch before names its key",
                commit.epoch, now.number
            ));
        }
        if check || next.is_some() {
            check_signature(&now.key, commit)?;
        }
        let Some((number, key)) = next else {
            return Ok(());
        };
        if Some(number) != now.number.checked_add(1) {
            return Err(format!(
                "the record begins epoch {number}, but epoch {} is in force",
                now.number
            ));
        }
        if key.name() != now.key.name() {
            return Err(format!(
                "the record names a key of {:?}, this is the log of {:?}",
                key.name(),
                now.key.name()
            ));
        }
        if self.list.iter().any(|epoch| epoch.key == key) {
            return Err("the record names a key that was in force before".to_owned());
        }
        self.list.push(Epoch {
            number,
            key,
            after: commit.size,
        });
        Ok(())
    }

    /// Is the commit's signature right? For a commit that was accepted without checking.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self, commit: &Commit) -> Result<(), String> {
        check_signature(&self.of_size(commit.size).key, commit)
    }

    /// Opens a checkpoint: the key that must have signed a tree of its size did, and no other counts. So a key that
    /// leaks later says nothing about earlier parts, and one that was to be erased nothing about later ones.
    ///
    /// # Errors
    /// As [`Vkey::open`].
    pub fn open(&self, note: &str) -> Result<Checkpoint, NoteError> {
        let claimed = Checkpoint::parse_unverified(note)?;
        self.of_size(claimed.size).key.open(note)
    }

    /// Adds an epoch that this process itself has just recorded.
    pub(crate) fn begin(&mut self, epoch: Epoch) {
        self.list.push(epoch);
    }

    /// The text of the `vkey` file: all keys, one a line, oldest first.
    #[must_use]
    pub fn text(&self) -> String {
        self.list
            .iter()
            .map(|epoch| format!("{}\n", epoch.key))
            .collect()
    }
}

/// The record that begins epoch `number`, for [`crate::writer::Writer::rotate`]; `by` says who asked.
pub(crate) fn draft(number: u32, key: &Vkey, before: &Vkey, by: &By) -> Draft {
    let mut metadata = Map::new();
    metadata.insert("epoch".to_owned(), json!(number));
    metadata.insert("previous_vkey".to_owned(), json!(before.to_string()));
    metadata.insert("vkey".to_owned(), json!(key.to_string()));
    Draft {
        phase: Phase::Epoch,
        op_id: String::new(),
        plugin_id: PLUGIN.to_owned(),
        category: "settings".to_owned(),
        operation: "modify".to_owned(),
        action: ACTION.to_owned(),
        resource: format!("ledger:epoch-{number}"),
        user: by.user.clone(),
        uid: by.uid,
        pid: by.pid,
        exe: by.exe.clone(),
        unit: by.unit.clone(),
        metadata,
    }
}

/// Who asked for a new epoch.
#[derive(Debug, Clone, Default)]
pub struct By {
    /// Name of the user.
    pub user: String,
    /// Uid of the user.
    pub uid: u32,
    /// Process, when known.
    pub pid: Option<i32>,
    /// Its program, when known.
    pub exe: Option<String>,
    /// Its systemd unit, when known.
    pub unit: Option<String>,
}

/// What an epoch record says; `None` when the record only shares the action's name (a refusal, say).
fn next_key(record: &[u8]) -> Result<Option<(u32, Vkey)>, String> {
    if record::late_text(record, &record::PHASE_KEY) != Some(Phase::Epoch.as_str().as_bytes())
        || record::late_text(record, &PLUGIN_KEY) != Some(PLUGIN.as_bytes())
    {
        return Ok(None);
    }
    let bad = |what: &str| format!("the epoch record {what}");
    let record: Value =
        serde_json::from_slice(record).map_err(|_| bad("is no JSON that can be read"))?;
    let metadata = &record["metadata"];
    let number = metadata["epoch"]
        .as_u64()
        .and_then(|number| u32::try_from(number).ok());
    let number = number.ok_or_else(|| bad("has no number"))?;
    let key = metadata["vkey"]
        .as_str()
        .ok_or_else(|| bad("names no key"))?;
    let key = Vkey::parse(key).map_err(|error| bad(&format!("names a bad key: {error}")))?;
    Ok(Some((number, key)))
}

/// Was the commit signed by this key?
///
/// # Errors
/// A sentence.
pub(crate) fn check_signature(key: &Vkey, commit: &Commit) -> Result<(), String> {
    let body = commit.head(key.name()).body();
    if key.verifies(&body, &commit.signature) {
        return Ok(());
    }
    Err(format!(
        "the signature of the commit was not made by the key {}: another key, or the history was rewritten (the key to start from is the log's first)",
        short_name(key)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Signer;
    use crate::record::Stamp;

    const NAME: &str = "h/blockhost-ledger";

    fn signer(epoch: u32) -> Signer {
        let byte = u8::try_from(epoch).expect("small");
        Signer::from_bytes(NAME, epoch, &[byte; 32]).expect("valid")
    }

    fn commit(signer: &Signer, size: u64) -> Commit {
        Commit {
            size,
            root: [3; 32],
            ts_us: 0,
            epoch: signer.epoch(),
            signature: signer.sign_head(size, [3; 32]),
        }
    }

    fn record(number: u32, key: &Vkey) -> Vec<u8> {
        let stamp = Stamp {
            height: 2,
            prev_hash: &[0; 32],
            ts_us: 0,
            hostname: "h",
        };
        let draft = draft(number, key, key, &By::default());
        draft.encode(&stamp).expect("fits")
    }

    #[test]
    fn each_key_counts_between_its_record_and_the_next_and_nowhere_else() {
        let (first, second) = (signer(1), signer(2));
        let mut epochs = Epochs::starting_with(first.vkey().clone());
        let named = record(2, second.vkey());
        assert!(may_begin_epoch(&named));
        epochs
            .accept(&commit(&first, 5), Some(&named), false)
            .expect("signed by the first");
        assert!(epochs.accept(&commit(&first, 6), None, true).is_err());
        epochs
            .accept(&commit(&second, 6), None, true)
            .expect("signed by the second");
        let note = |signer: &Signer, size| {
            signer.sign_checkpoint(&Checkpoint {
                origin: NAME.into(),
                size,
                root: [1; 32],
            })
        };
        assert!(epochs.open(&note(&first, 5)).is_ok());
        assert!(epochs.open(&note(&second, 6)).is_ok());
        assert!(epochs.open(&note(&second, 5)).is_err());
        assert!(epochs.open(&note(&first, 6)).is_err());
    }

    #[test]
    fn an_epoch_that_its_predecessor_did_not_sign_or_that_skips_or_repeats_is_refused() {
        let (first, second) = (signer(1), signer(2));
        let other = Signer::from_bytes("other/log", 2, &[2; 32]).expect("valid");
        let good = record(2, second.vkey());
        for (why, by, named) in [
            ("signed by another", &second, good.clone()),
            ("a gap", &first, record(3, second.vkey())),
            ("the same again", &first, record(2, first.vkey())),
            ("another log's", &first, record(2, other.vkey())),
        ] {
            let mut epochs = Epochs::starting_with(first.vkey().clone());
            let mut commit = commit(by, 5);
            commit.epoch = 1;
            assert!(
                epochs.accept(&commit, Some(&named), false).is_err(),
                "{why}"
            );
            assert_eq!(epochs.list().len(), 1, "{why}");
        }
    }

    #[test]
    fn a_record_that_only_shares_the_actions_name_begins_nothing() {
        let first = signer(1);
        let refused = String::from_utf8(record(2, signer(2).vkey())).expect("text");
        let refused = refused.replace("\"phase\":\"epoch\"", "\"phase\":\"event\"");
        let mut epochs = Epochs::starting_with(first.vkey().clone());
        epochs
            .accept(&commit(&first, 5), Some(refused.as_bytes()), true)
            .expect("an ordinary commit");
        assert_eq!(epochs.current().number, 1);
    }
}
