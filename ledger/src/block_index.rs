//! The index of the block files, bounded however long the ledger is: `index.json` lists the newest blocks, and each 256
//! closed ones before them have a page of their own that never changes again. Rendered here, written by `publish`.

use crate::blocks::BlockHead;
use crate::dir::{FileError, LedgerDir};
use crate::jcs;
use crate::merkle::{empty_root, hex};
use serde_json::{Value, json};

/// Name of the index file in the blocks directory.
pub const INDEX: &str = "index.json";
/// Blocks in a page: as many as a segment has.
pub const PAGE_BLOCKS: usize = 256;

/// File name of a page; the first is 1.
#[must_use]
pub fn page_name(page: u64) -> String {
    format!("index_{page:010}.json")
}

/// The number of the page that a file name announces.
pub(crate) fn page_of(name: &str) -> Option<u64> {
    let page = name.strip_prefix("index_")?.strip_suffix(".json")?;
    let page = page.parse().ok().filter(|page| *page > 0)?;
    (page_name(page) == name).then_some(page)
}

/// The closed blocks of a page that is full, and its number; `None` where it is not.
#[must_use]
pub fn page_blocks(closed: &[BlockHead], page: u64) -> Option<&[BlockHead]> {
    let first = usize::try_from(page.checked_sub(1)?).ok()? * PAGE_BLOCKS;
    closed.get(first..first + PAGE_BLOCKS)
}

/// The file of a page.
#[must_use]
pub fn render_page(origin: &str, page: u64, blocks: &[BlockHead]) -> Vec<u8> {
    let mut lines = Vec::new();
    for head in blocks {
        push_line(&mut lines, head);
    }
    file(json!({"v": 2, "origin": origin, "page": page}), &lines)
}

/// The index file: how many pages there are, and one line for every block behind them.
#[must_use]
pub fn render_index(origin: &str, closed: &[BlockHead], open: Option<&BlockHead>) -> Vec<u8> {
    Lines::default().render(origin, closed, open)
}

/// The lines of the closed blocks that are in no page yet, kept so that each is made once.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Closed blocks seen, those in pages too.
    seen: usize,
    lines: Vec<u8>,
}

impl Lines {
    /// [`render_index`]; `closed` only ever grows.
    pub fn render(
        &mut self,
        origin: &str,
        closed: &[BlockHead],
        open: Option<&BlockHead>,
    ) -> Vec<u8> {
        let paged = closed.len() / PAGE_BLOCKS * PAGE_BLOCKS;
        if self.seen < paged {
            self.seen = paged;
            self.lines.clear();
        }
        for head in closed.get(self.seen..).unwrap_or_default() {
            push_line(&mut self.lines, head);
        }
        self.seen = closed.len();
        let last = open.or(closed.last());
        let top = json!({
            "v": 2,
            "origin": origin,
            "tree_size": last.map_or(0, |head| head.tree_size),
            "merkle_root": hex(&last.map_or_else(empty_root, |head| head.merkle_root)),
            "pages": paged / PAGE_BLOCKS,
        });
        let closed_lines = self.lines.len();
        if let Some(head) = open {
            push_line(&mut self.lines, head);
        }
        let file = file(top, &self.lines);
        self.lines.truncate(closed_lines);
        file
    }
}

fn push_line(lines: &mut Vec<u8>, head: &BlockHead) {
    let mut line = head.value();
    line["block_hash"] = json!(hex(&head.hash()));
    line["file"] = json!(head.file_name());
    let separator: &[u8] = if lines.is_empty() { b"\n" } else { b",\n" };
    lines.extend_from_slice(separator);
    lines.extend_from_slice(&jcs::to_vec(&line).unwrap_or_default());
}

fn file(top: Value, lines: &[u8]) -> Vec<u8> {
    let top = jcs::to_vec(&top).unwrap_or_default();
    let top = top.strip_suffix(b"}").unwrap_or(&top);
    [top, b",\"blocks\":[", lines, b"\n]}\n"].concat()
}

/// The first page that is missing, is not what the closed blocks say, or is of blocks that there are not; and what is
/// wrong with it. `listed` is how many of the closed blocks the index speaks of.
pub(crate) fn wrong_page(
    dir: &LedgerDir,
    origin: &str,
    closed: &[BlockHead],
    listed: usize,
) -> Result<Option<(String, &'static str)>, FileError> {
    for page in 1..=(listed / PAGE_BLOCKS) as u64 {
        let name = page_name(page);
        let expected = page_blocks(closed, page).map(|blocks| render_page(origin, page, blocks));
        let found = dir.read(&name, 1 << 20)?;
        if found.is_none() {
            return Ok(Some((name, "this page of the index is missing")));
        }
        if found != expected {
            return Ok(Some((
                name,
                "this page of the index is not what the segments say",
            )));
        }
    }
    let last = (closed.len() / PAGE_BLOCKS) as u64;
    let foreign = |name: &String| page_of(name).is_some_and(|page| page > last);
    let foreign = dir.names()?.into_iter().find(foreign);
    Ok(foreign.map(|name| {
        (
            name,
            "a page of the index of blocks that the ledger does not have",
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::BlockChain;
    use crate::merkle::leaf_hash;

    fn chain(blocks: usize, more: u64) -> BlockChain {
        let mut chain = BlockChain::default();
        for n in 0..blocks {
            chain.push_block(leaf_hash(&n.to_be_bytes()), 1_700_000_000);
        }
        for n in 0..more {
            chain.push(leaf_hash(&n.to_be_bytes()), 1_700_000_001);
        }
        chain
    }

    fn blocks_in(file: &[u8]) -> Vec<Value> {
        let file: Value = serde_json::from_slice(file).expect("JSON");
        file["blocks"].as_array().expect("array").clone()
    }

    #[test]
    fn pages_and_index_list_every_block_once_and_the_index_stays_short() {
        for (blocks, more) in [
            (0, 0),
            (0, 3),
            (2, 88),
            (255, 1),
            (256, 0),
            (256, 9),
            (700, 1),
        ] {
            let chain = chain(blocks, more);
            let open = chain.open();
            let index = render_index("o", chain.closed(), open.as_ref());
            let top: Value = serde_json::from_slice(&index).expect("JSON");
            assert_eq!(top["pages"], blocks / PAGE_BLOCKS);
            assert_eq!(top["tree_size"], blocks as u64 * 256 + more);
            let mut all = Vec::new();
            for page in 1..=(blocks / PAGE_BLOCKS) as u64 {
                let heads = page_blocks(chain.closed(), page).expect("full");
                all.extend(blocks_in(&render_page("o", page, heads)));
            }
            all.extend(blocks_in(&index));
            assert!(blocks_in(&index).len() <= PAGE_BLOCKS, "{blocks}");
            let ids: Vec<u64> = all.iter().filter_map(|b| b["block_id"].as_u64()).collect();
            let there = blocks as u64 + u64::from(more > 0);
            assert_eq!(ids, (1..=there).collect::<Vec<_>>());
        }
    }

    #[test]
    fn lines_that_were_kept_are_those_that_would_be_made() {
        let mut kept = Lines::default();
        for blocks in [0, 1, 1, 40, 255, 256, 257, 511, 700] {
            let chain = chain(blocks, 5);
            let open = chain.open();
            assert_eq!(
                kept.render("o", chain.closed(), open.as_ref()),
                render_index("o", chain.closed(), open.as_ref()),
                "{blocks}"
            );
        }
    }

    #[test]
    fn only_names_of_pages_are_names_of_pages() {
        assert_eq!(page_of(&page_name(7)), Some(7));
        for name in [
            "index.json",
            "index_7.json",
            "index_0000000000.json",
            "index_+000000007.json",
        ] {
            assert_eq!(page_of(name), None, "{name}");
        }
    }
}
