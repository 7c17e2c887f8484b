//! What one append writes: records on top of what is there, and the signed commit behind them. Pure but for the clock.
//! Written by `writer`.

use crate::active::Active;
use crate::history::Place;
use crate::keys::Signer;
use crate::merkle::{Frontier, Hash, leaf_hash};
use crate::note::{Checkpoint, Vkey, assemble};
use crate::record::{Draft, Stamp};
use crate::refusal::AppendError;
use crate::segment::{self, Commit, push_frame};
use crate::writer::{Appended, Head};
use std::sync::Arc;

/// What the next record is built on.
#[derive(Debug, Clone)]
pub(crate) struct Tip {
    pub frontier: Frontier,
    pub prev: Hash,
}

/// A batch ready to be written, and the state after it.
pub(crate) struct Batch {
    pub bytes: Vec<u8>,
    pub appended: Vec<Appended>,
    pub places: Vec<Place>,
    pub head: Head,
    pub tip: Tip,
    pub commit: Commit,
    pub timestamp: i64,
}

/// Builds a batch on `tip`, to be written at the position of `active`.
pub(crate) fn encode(
    signer: &Signer,
    hostname: &str,
    tip: &Tip,
    active: &Active,
    drafts: &[Draft],
) -> Result<Batch, AppendError> {
    let ts_us = now_us();
    let mut tip = tip.clone();
    let mut bytes = Vec::with_capacity(drafts.len() * 1024);
    let (base, salt) = (active.position, active.header.salt);
    let mut appended = Vec::with_capacity(drafts.len());
    let mut places = Vec::with_capacity(drafts.len());
    for (index, draft) in drafts.iter().enumerate() {
        let height = tip.frontier.size() + 1;
        let stamp = Stamp {
            height,
            prev_hash: &tip.prev,
            ts_us,
            hostname,
        };
        let record = draft
            .encode(&stamp)
            .map_err(|source| AppendError::Draft { index, source })?;
        let leaf = leaf_hash(&record);
        let offset = base + (bytes.len() + segment::FRAME_BYTES) as u64;
        push_frame(&mut bytes, base, &salt, segment::RECORD, &record);
        places.push(Place::Log {
            fd: Arc::clone(&active.fd),
            offset,
            length: record.len(),
            leaf,
        });
        appended.push(Appended {
            index: height - 1,
            height,
            leaf,
        });
        tip.frontier.push(leaf);
        tip.prev = leaf;
    }
    let (size, root) = (tip.frontier.size(), tip.frontier.root());
    let signature = signer.sign_head(size, root);
    let commit = Commit {
        size,
        root,
        ts_us,
        epoch: signer.epoch(),
        signature,
    };
    push_frame(&mut bytes, base, &salt, segment::COMMIT, &commit.encode());
    Ok(Batch {
        bytes,
        appended,
        places,
        head: head_of(signer.vkey(), size, root, &signature),
        tip,
        commit,
        timestamp: ts_us.div_euclid(1_000_000),
    })
}

pub(crate) fn head_of(key: &Vkey, size: u64, root: Hash, signature: &[u8; 64]) -> Head {
    let body = Checkpoint {
        origin: key.name().to_owned(),
        size,
        root,
    }
    .body();
    Head {
        size,
        root,
        note: assemble(&body, key, signature),
    }
}

pub(crate) fn make_head(signer: &Signer, size: u64, root: Hash) -> Head {
    head_of(signer.vkey(), size, root, &signer.sign_head(size, root))
}

fn now_us() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(0)
}
