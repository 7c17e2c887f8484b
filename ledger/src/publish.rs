//! What the writer derives from the log after the answers: block files, their index, the published checkpoint. All of it
//! can be rebuilt from the segments. Made here by the writer's thread, written by whichever has the time.

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

/// Most full blocks that are made at once: what a start finds missing may be any number, and does not fit into memory.
const AT_ONCE: usize = 16;

/// Derived files, made and to be written, by whichever thread has the time to wait for the disk.
#[derive(Debug)]
pub struct Publication {
    ledger: LedgerDir,
    blocks: LedgerDir,
    /// Full blocks, by number: written for good.
    full: Vec<(u64, Vec<u8>)>,
    /// What comes when no full block is missing any more.
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    open: Option<(String, Vec<u8>)>,
    /// Pages of the index that are full and not there yet, and how many there are then.
    pages: Vec<(u64, Vec<u8>)>,
    all_pages: u64,
    index: Vec<u8>,
    checkpoint: String,
    cosigned: Option<String>,
}

/// What became of a publication.
#[derive(Debug)]
#[must_use = "the writer has to know"]
pub struct Published {
    full: Vec<u64>,
    rest: Option<Rest>,
    failed: Option<FileError>,
}

impl Published {
    /// Whether more is to be written at once: there are more full blocks than are made together.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.rest.is_none()
    }
}

impl Publication {
    /// Writes blocks, pages, index, checkpoint, in this order: what the checkpoint covers is there, and so is what the
    /// index counts.
    pub fn run(mut self) -> Published {
        failpoint::reach("publish-writing", b"");
        let mut full = Vec::new();
        let mut written = self.write_full(&mut full);
        // One sync of the directory for all their names; also when one behind them failed.
        if !full.is_empty()
            && let Err(error) = self.blocks.sync()
        {
            full.clear();
            written = Err(error);
        }
        let written = written.and_then(|()| match &self.rest {
            Some(rest) => self.write_rest(rest),
            None => Ok(()),
        });
        Published {
            full,
            rest: self.rest.take(),
            failed: written.err(),
        }
    }

    fn write_full(&self, done: &mut Vec<u64>) -> Result<(), FileError> {
        for (id, bytes) in &self.full {
            let name = blocks::file_name(*id);
            self.blocks.replace_content(&name, bytes, SHARED_FILE)?;
            done.push(*id);
        }
        Ok(())
    }

    fn write_rest(&self, rest: &Rest) -> Result<(), FileError> {
        if let Some((name, bytes)) = &rest.open {
            // It will be written again within a second.
            self.blocks.replace(name, bytes, SHARED_FILE, false)?;
        }
        for (page, bytes) in &rest.pages {
            let name = blocks::page_name(*page);
            self.blocks.replace(&name, bytes, SHARED_FILE, true)?;
            failpoint::reach("publish-page", b"");
        }
        self.blocks
            .replace(blocks::INDEX, &rest.index, SHARED_FILE, false)?;
        let checkpoint = rest.checkpoint.as_bytes();
        self.ledger
            .replace(dir::CHECKPOINT, checkpoint, SHARED_FILE, true)?;
        if let Some(cosigned) = &rest.cosigned {
            self.ledger
                .replace(dir::COSIGNED, cosigned.as_bytes(), SHARED_FILE, true)?;
        }
        Ok(())
    }
}

impl Writer {
    /// Writes what is derived, and tops up the preallocated room. Meant for after the answers, at most once a second; does
    /// nothing when nothing is new.
    ///
    /// # Errors
    /// See [`PublishError`]. The log is unharmed; the next call tries again.
    pub fn publish(&mut self) -> Result<(), PublishError> {
        while let Some(publication) = self.begin_publishing()? {
            self.end_publishing(publication.run())?;
        }
        Ok(())
    }

    /// Makes what is derived, to be written by [`Publication::run`]; `None` when nothing is new. Nothing may be made before
    /// [`Self::end_publishing`] has heard what became of it.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn begin_publishing(&mut self) -> Result<Option<Publication>, PublishError> {
        if self.published_size == Some(self.head.size) {
            return Ok(None);
        }
        let dir = self.ledger.make_sub(dir::BLOCKS)?;
        let open = self.chain.open();
        let cache = Cache::default();
        let (mut full, mut last, mut more) = (Vec::new(), None, false);
        for (id, places) in &self.unpublished {
            let index = usize::try_from(id - 1).unwrap_or(usize::MAX);
            let closed = self.chain.closed().get(index);
            let Some(head) = closed.or(open.as_ref()) else {
                continue;
            };
            if full.len() == AT_ONCE {
                more = true;
                break;
            }
            let records = places.iter().map(|place| place.read(&cache));
            let records = records.collect::<Result<Vec<_>, _>>()?;
            let lines = records
                .iter()
                .map(|(leaf, bytes)| (*leaf, bytes.as_slice()));
            let bytes = blocks::render_block(head, lines);
            let exact = records.iter().map(|(_, bytes)| bytes.as_slice());
            let bytes = self.features.add_to(*id, &bytes, exact);
            match closed {
                Some(_) => full.push((*id, bytes)),
                None => last = Some((head.file_name(), bytes)),
            }
        }
        let rest = match more {
            true => None,
            false => Some(self.rest(&dir, open.as_ref(), last)?),
        };
        Ok(Some(Publication {
            ledger: self.ledger.try_clone()?,
            blocks: dir,
            full,
            rest,
        }))
    }

    fn rest(
        &mut self,
        dir: &LedgerDir,
        open: Option<&BlockHead>,
        last: Option<(String, Vec<u8>)>,
    ) -> Result<Rest, FileError> {
        let closed = self.chain.closed();
        let origin = self.signer.vkey().name();
        let all_pages = (closed.len() / PAGE_BLOCKS) as u64;
        let missing: Vec<u64> = match self.index_pages {
            Some(written) => (written + 1..=all_pages).collect(),
            None => {
                let names = dir.names()?;
                let there = |page: &u64| names.binary_search(&blocks::page_name(*page)).is_ok();
                (1..=all_pages).filter(|page| !there(page)).collect()
            }
        };
        let page = |page: u64| {
            let blocks = blocks::page_blocks(closed, page)?;
            Some((page, blocks::render_page(origin, page, blocks)))
        };
        let pages = missing.into_iter().filter_map(page).collect();
        let index = self.index_lines.render(origin, closed, open);
        // Whatever changes from here on is published next time.
        self.published_size = Some(self.head.size);
        // From here on: who reads it may be back with cosignatures before it is known here that all is written.
        self.witnessed.published(&self.head);
        Ok(Rest {
            open: last,
            pages,
            all_pages,
            index,
            checkpoint: self.witnessed.checkpoint(origin, &self.head),
            cosigned: self.witnessed.take_unpublished(origin),
        })
    }

    /// Takes notice of what became of a publication.
    ///
    /// # Errors
    /// Why it failed. The log is unharmed; the next one tries again.
    pub fn end_publishing(&mut self, published: Published) -> Result<(), PublishError> {
        for id in &published.full {
            self.features.written(*id);
        }
        // Also when one behind them failed: their features are not kept, so they must not be written again.
        self.unpublished
            .retain(|(id, _)| !published.full.contains(id));
        if let Some(error) = published.failed {
            self.published_size = None;
            if published.rest.is_some_and(|rest| rest.cosigned.is_some()) {
                self.witnessed.publish_again();
            }
            return Err(error.into());
        }
        if let Some(rest) = published.rest {
            self.index_pages = Some(rest.all_pages);
        }
        Ok(self.top_up()?)
    }
}
