//! What the writer derives from the log after the answers: block files, their index, the published checkpoint. All of it
//! can be rebuilt from the segments.

use crate::blocks::{self, BlockHead, PAGE_BLOCKS};
use crate::dir::{self, FileError, LedgerDir, SHARED_FILE};
use crate::failpoint;
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
        self.publish_index(&blocks, open.as_ref())?;
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
    /// Writes the pages of the index that are full and not there yet, for good, and then the index, which counts them.
    fn publish_index(
        &mut self,
        blocks: &LedgerDir,
        open: Option<&BlockHead>,
    ) -> Result<(), FileError> {
        let closed = self.chain.closed();
        let origin = self.signer.vkey().name();
        let pages = (closed.len() / PAGE_BLOCKS) as u64;
        let missing: Vec<u64> = match self.index_pages {
            Some(written) => (written + 1..=pages).collect(),
            None => {
                let names = blocks.names()?;
                let there = |page: &u64| names.binary_search(&blocks::page_name(*page)).is_ok();
                (1..=pages).filter(|page| !there(page)).collect()
            }
        };
        for page in missing {
            if let Some(heads) = blocks::page_blocks(closed, page) {
                let bytes = blocks::render_page(origin, page, heads);
                blocks.replace(&blocks::page_name(page), &bytes, SHARED_FILE, true)?;
                failpoint::reach("publish-page", b"");
            }
        }
        self.index_pages = Some(pages);
        let index = self.index_lines.render(origin, closed, open);
        blocks.replace(blocks::INDEX, &index, SHARED_FILE, false)
    }

    /// Writes the blocks that are not published in full; `done` are those that are now.
    fn publish_blocks(
        &mut self,
        blocks: &LedgerDir,
        open: Option<&BlockHead>,
        done: &mut Vec<u64>,
    ) -> Result<(), PublishError> {
        let mut full = Vec::new();
        let written = self.write_blocks(blocks, open, &mut full);
        // One sync of the directory for all their names.
        if !full.is_empty() {
            blocks.sync()?;
        }
        for id in full {
            self.features.written(id);
            done.push(id);
        }
        written
    }

    /// `full` are those that are written for good once their names are durable.
    fn write_blocks(
        &mut self,
        blocks: &LedgerDir,
        open: Option<&BlockHead>,
        full: &mut Vec<u64>,
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
            // The open one will be written again within a second.
            if closed.is_some() {
                blocks.replace_content(&head.file_name(), &bytes, SHARED_FILE)?;
                full.push(*id);
            } else {
                blocks.replace(&head.file_name(), &bytes, SHARED_FILE, false)?;
            }
        }
        Ok(())
    }
}
