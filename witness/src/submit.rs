//! Has this host's ledger cosigned: the published head to every witness of the policy, what comes back to the root
//! agent. Works from the files alone; what each witness has is asked of it, so nothing here needs to be remembered.

use crate::client::{self, ClientError};
use blockhost_ledger::cosign::Cosignature;
use blockhost_ledger::dir::{FileError, LedgerDir};
use blockhost_ledger::note::{Checkpoint, NoteError};
use blockhost_ledger::policy::{Policy, Witness};
use blockhost_ledger::reader::{ReadError, Reader};
use blockhost_ledger::witness::AddCheckpoint;
use std::path::Path;

/// Why nothing could be submitted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The ledger's directory.
    #[error("cannot {0}")]
    File(#[from] FileError),
    /// The ledger.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The published checkpoint.
    #[error("the published checkpoint: {0}")]
    Note(#[from] NoteError),
    /// Nothing was published yet.
    #[error("the ledger has not published a checkpoint yet")]
    Unpublished,
}

/// What became of one witness.
#[derive(Debug)]
pub struct Outcome {
    /// What the policy calls it.
    pub name: String,
    /// Its cosignature, or why there is none.
    pub result: Result<Cosignature, WitnessError>,
}

/// Why a witness gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// No URL.
    #[error("the policy has no URL for it")]
    NoUrl,
    /// The exchange.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It has seen more than there is.
    #[error(
        "it has cosigned {cosigned} records, this ledger has published {published}: the ledger was cut or an old copy was put back"
    )]
    Ahead {
        /// What it has.
        cosigned: u64,
        /// What we have.
        published: u64,
    },
    /// It has seen another history.
    #[error("it has cosigned another history of {0} records: the ledger was rewritten")]
    Forked(u64),
    /// The proof could not be made.
    #[error("the proof for it: {0}")]
    Proof(#[from] ReadError),
}

impl WitnessError {
    /// Does this say that the ledger is not what it was? Everything else is about the witness.
    #[must_use]
    pub fn is_alarm(&self) -> bool {
        matches!(self, Self::Ahead { .. } | Self::Forked(_))
    }
}

/// What one round came to.
#[derive(Debug)]
pub struct Round {
    /// The head that was submitted.
    pub head: Checkpoint,
    /// The checkpoint with the cosignatures that came.
    pub note: String,
    /// Each witness, in the policy's order.
    pub outcomes: Vec<Outcome>,
    /// The quorum is satisfied.
    pub enough: bool,
}

impl Round {
    /// At least one cosignature came.
    #[must_use]
    pub fn any(&self) -> bool {
        self.outcomes.iter().any(|outcome| outcome.result.is_ok())
    }
}

/// Submits the published head once to all witnesses at the same time.
///
/// # Errors
/// Only when there is nothing to submit; what single witnesses said is in the round.
pub async fn submit(directory: &Path, policy: &Policy) -> Result<Round, SubmitError> {
    let ledger = LedgerDir::open(directory)?;
    // The checkpoint first: the segments are never behind it.
    let note = ledger.checkpoint()?.ok_or(SubmitError::Unpublished)?;
    let reader = Reader::open(ledger, None)?;
    let epochs = reader.epochs().ok_or(ReadError::NoKey)?;
    let head = epochs.open(&note)?;
    let asked = policy
        .witnesses()
        .iter()
        .map(|witness| ask(directory, &reader, &head, &note, witness));
    let mut results = Vec::new();
    for result in join_all(asked).await {
        results.push(result);
    }
    let mut all = note;
    let mut signed = Vec::new();
    let mut outcomes = Vec::new();
    for (witness, result) in policy.witnesses().iter().zip(results) {
        signed.push(result.is_ok());
        if let Ok(cosignature) = &result {
            all.push_str(&cosignature.line);
            all.push('\n');
        }
        outcomes.push(Outcome {
            name: witness.name.clone(),
            result,
        });
    }
    Ok(Round {
        head,
        note: all,
        outcomes,
        enough: policy.enough(&signed),
    })
}

/// All of them at once, results in order: a stalled witness holds up nobody else's.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    use std::task::Poll;
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    running
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}

async fn ask(
    directory: &Path,
    reader: &Reader,
    head: &Checkpoint,
    note: &str,
    witness: &Witness,
) -> Result<Cosignature, WitnessError> {
    let url = witness.url.as_deref().ok_or(WitnessError::NoUrl)?;
    let request = |old| -> Result<AddCheckpoint, WitnessError> {
        Ok(AddCheckpoint {
            old,
            proof: reader.prove_growth(old, head.size)?,
            note: note.to_owned(),
        })
    };
    // The first question says what it has; the second answers it. A third only if somebody came between.
    let mut old = 0;
    for _ in 0..3 {
        match client::add_checkpoint(url, &witness.key, &request(old)?).await {
            Err(ClientError::Stale(cosigned)) if cosigned > head.size => {
                // Another round, started by hand for example, may have shown it a later head of ours meanwhile.
                let published = published_now(directory).unwrap_or(0).max(head.size);
                if cosigned <= published {
                    return Err(ClientError::Stale(cosigned).into());
                }
                return Err(WitnessError::Ahead {
                    cosigned,
                    published,
                });
            }
            Err(ClientError::Stale(cosigned)) if cosigned != old => old = cosigned,
            // From nothing to anything every proof holds: such an answer to the first question says nothing about us.
            Err(ClientError::Refused {
                status: 409 | 422, ..
            }) if old > 0 => {
                return Err(WitnessError::Forked(old));
            }
            other => return Ok(other?),
        }
    }
    Err(ClientError::Stale(old).into())
}

/// Records under the head that is published at this moment.
fn published_now(directory: &Path) -> Option<u64> {
    let note = LedgerDir::open(directory).ok()?.checkpoint().ok()??;
    Some(Checkpoint::parse_unverified(&note).ok()?.size)
}
