//! What the writer derives from the log after the answers: block files, their index, the published checkpoint. All of it
//! can be rebuilt from the segments.

use crate::blocks::{self, BlockHead};
use crate::dir::{self, FileError, LedgerDir, SHARED_FILE};
use crate::history::{Cache, HistoryError};
use crate::writer::Writer;

/// Why derived files were not written. The log is unharmed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The system refused.
    #[error("cannot {0}")]
    File(#[from] FileError),
    /// A record is not what it was.
    #[error("{0}; run `blockhost ledger verify`")]
    Changed(String),
}

impl PublishError {
    /// The system's error number, when it was the system that refused.
    #[must_use]
    pub fn errno(&self) -> Option<rustix::io::Errno> {
        match self {
            Self::File(error) => error.errno(),
            Self::Changed(_) => None,
        }
    }
}

impl From<HistoryError> for PublishError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::File(error) => Self::File(error),
            other => Self::Changed(other.to_string()),
        }
    }
}

impl Writer {
    /// Writes what is derived: blocks, index, checkpoint (in this order: what the checkpoint covers is there), and tops
    /// up the preallocated room. Meant for after the answers, at most once a second; does nothing when nothing is new.
    ///
    /// # Errors
    /// See [`PublishError`]. The log is unharmed; the next call tries again.
    pub fn publish(&mut self) -> Result<(), PublishError> {
        if self.published_size == Some(self.head.size) {
            return Ok(());
        }
        let blocks = self.ledger.make_sub(dir::BLOCKS)?;
        let open = self.chain.open();
        let mut done = Vec::new();
        let written = self.publish_blocks(&blocks, open.as_ref(), &mut done);
        // Also when one behind them failed: their features are not kept, so they must not be written again.
        self.unpublished.retain(|(id, _)| !done.contains(id));
        written?;
        let heads = self.chain.closed().iter().chain(open.as_ref());
        let index = blocks::render_index(self.signer.vkey().name(), heads);
        blocks.replace(blocks::INDEX, &index, SHARED_FILE, false)?;
        self.ledger.replace(
            dir::CHECKPOINT,
            self.witnessed
                .checkpoint(self.signer.vkey().name(), &self.head)
                .as_bytes(),
            SHARED_FILE,
            true,
        )?;
        self.witnessed.published(&self.head);
        self.published_size = Some(self.head.size);
        self.publish_cosigned()?;
        Ok(self.top_up()?)
    }
    /// Writes the blocks that are not published in full; `done` are those that are now.
    fn publish_blocks(
        &mut self,
        blocks: &LedgerDir,
        open: Option<&BlockHead>,
        done: &mut Vec<u64>,
    ) -> Result<(), PublishError> {
        let cache = Cache::default();
        for (id, places) in &self.unpublished {
            let index = usize::try_from(id - 1).unwrap_or(usize::MAX);
            let closed = self.chain.closed().get(index);
            let Some(head) = closed.or(open) else {
                continue;
            };
            let mut records = Vec::with_capacity(places.len());
            for place in places {
                records.push(place.read(&cache)?);
            }
            let bytes = blocks::render_block(
                head,
                records
                    .iter()
                    .map(|(leaf, bytes)| (*leaf, bytes.as_slice())),
            );
            let exact = records.iter().map(|(_, bytes)| bytes.as_slice());
            let bytes = self.features.add_to(*id, &bytes, exact);
            // A full block is written for good; the open one will be written again within a second.
            blocks.replace(&head.file_name(), &bytes, SHARED_FILE, closed.is_some())?;
            if closed.is_some() {
                self.features.written(*id);
                done.push(*id);
            }
        }
        Ok(())
    }
}
