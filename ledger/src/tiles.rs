//! C2SP tlog-tiles: which tiles a tree of a size has, how they are named, what stands in them, and proofs computed from
//! tiles alone, as any client of the format does. Pure functions; files are written and read by `export`.

use crate::merkle::{Hash, root_of};

/// Hashes in a full tile.
pub const WIDTH: u64 = 256;
/// Highest level that a tree with a 64-bit size can have: a hash there stands for 256^7 records.
pub const MAX_LEVEL: u8 = 7;

/// One tile: hashes of `width` consecutive subtrees of 256^`level` records each, from number `index` * 256 on. Made by
/// [`Tile::at`] and [`Tile::parse`] only, so level and width are always possible ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

impl Tile {
    /// The tile at a place of a tree with `size` records: full, partial at the right edge, or `None` beyond it.
    #[must_use]
    pub fn at(level: u8, index: u64, size: u64) -> Option<Self> {
        if level > MAX_LEVEL {
            return None;
        }
        let hashes = size >> (8 * u32::from(level));
        let first = index.checked_mul(WIDTH)?;
        let width = hashes.checked_sub(first)?.min(WIDTH);
        let width = u16::try_from(width).ok().filter(|width| *width > 0)?;
        Some(Self {
            level,
            index,
            width,
        })
    }

    /// Level, from 0 for hashes of records.
    #[must_use]
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Number within the level, from 0.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Number of hashes, 1 to 256.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Fewer than 256 hashes: will be replaced as the tree grows.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        u64::from(self.width) < WIDTH
    }

    /// The full tile in the same place, which a log may serve instead of an old partial one.
    #[must_use]
    pub fn filled(self) -> Self {
        Self { width: 256, ..self }
    }

    /// Path below the log's prefix: `tile/<L>/<N>[.p/<W>]`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("tile/{}/{}", self.level, self.name())
    }

    /// Path of the entry bundle with the records that this tile of level 0 has the hashes of.
    #[must_use]
    pub fn entries_path(&self) -> String {
        format!("tile/entries/{}", self.name())
    }

    /// Reads a path as [`Tile::path`] writes it; the one spelling there is, nothing else.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        // 7 groups of digits, level and width fit in far less.
        if path.len() > 64 {
            return None;
        }
        let (level, name) = path.strip_prefix("tile/")?.split_once('/')?;
        let level: u8 = level.parse().ok().filter(|level| *level <= MAX_LEVEL)?;
        let (digits, width) = match name.split_once(".p/") {
            Some((digits, width)) => (digits, width.parse().ok().filter(|w| (1..256).contains(w))?),
            None => (name, 256),
        };
        let index: u64 = digits.replace("/", "").replace('x', "").parse().ok()?;
        // Such a tile can be in a tree: its end is within 64 bits.
        index
            .checked_add(1)?
            .checked_mul(WIDTH)
            .filter(|end| *end - 1 <= u64::MAX >> (8 * u32::from(level)))?;
        let tile = Self {
            level,
            index,
            width,
        };
        (tile.path() == path).then_some(tile)
    }

    /// Index in groups of three digits, and the width of a partial tile.
    fn name(&self) -> String {
        let mut name = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            name = format!("x{:03}/{name}", rest % 1000);
            rest /= 1000;
        }
        if self.is_partial() {
            name.push_str(&format!(".p/{}", self.width));
        }
        name
    }
}

impl std::fmt::Display for Tile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path())
    }
}

/// The tiles of a tree with `new` records that a tree with `old` did not have or had narrower, lowest level first.
/// With `old` 0 that is all of them.
pub fn added(old: u64, new: u64) -> impl Iterator<Item = Tile> {
    (0..=MAX_LEVEL).flat_map(move |level| {
        let shift = 8 * u32::from(level);
        // The first tile that was not full; when all were, the next one.
        let first = (old >> shift) / WIDTH;
        let count = (new >> shift).div_ceil(WIDTH);
        (first..count)
            .filter_map(move |index| Tile::at(level, index, new))
            .filter(move |tile| Tile::at(level, tile.index, old) != Some(*tile))
    })
}

/// The bytes of a tile: its hashes one after the other.
#[must_use]
pub fn encode(hashes: &[Hash]) -> Vec<u8> {
    hashes.concat()
}

/// The hashes in a tile's bytes; `None` when they are not exactly as many as its width says.
#[must_use]
pub fn decode(tile: Tile, bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    (rest.is_empty() && hashes.len() == usize::from(tile.width)).then(|| hashes.to_vec())
}

/// Why tiles lead to no proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError<E> {
    /// There is no such record or earlier tree.
    #[error("there is no {asked} in a tree of {size} records")]
    Range {
        /// Index or size asked for.
        asked: u64,
        /// Size of the tree.
        size: u64,
    },
    /// A tile does not have the bytes that its width asks for.
    #[error("{tile} has {bytes} bytes, it should have {}", u64::from(tile.width()) * 32)]
    Length {
        /// Which.
        tile: Tile,
        /// How many it has.
        bytes: usize,
    },
    /// A tile could not be had.
    #[error("{0}")]
    Source(E),
}

/// The hashes of a tree, computed from its tiles. What it answers is as good as the tiles: whoever got them from
/// somebody else compares [`TileTree::root`], or the root that a proof leads to, with a signed one.
pub struct TileTree<F> {
    size: u64,
    fetch: F,
    seen: Vec<(Tile, Vec<Hash>)>,
}

/// Tiles that are kept at hand; a proof needs about two for each level.
const KEPT: usize = 32;

impl<E, F: FnMut(Tile) -> Result<Vec<u8>, E>> TileTree<F> {
    /// A tree of `size` records whose tiles `fetch` gives.
    pub fn new(size: u64, fetch: F) -> Self {
        Self {
            size,
            fetch,
            seen: Vec::new(),
        }
    }

    /// The root of the tree when it had `size` records.
    ///
    /// # Errors
    /// It never had as many; a tile is missing or damaged.
    pub fn root(&mut self, size: u64) -> Result<Hash, TileError<E>> {
        if size > self.size {
            return Err(self.range(size));
        }
        self.subtree(0, size)
    }

    /// RFC 6962 audit path of record `index` in the tree, from the record's sibling upwards.
    ///
    /// # Errors
    /// No such record; a tile is missing or damaged.
    pub fn inclusion(&mut self, index: u64) -> Result<Vec<Hash>, TileError<E>> {
        if index >= self.size {
            return Err(self.range(index));
        }
        let (mut low, mut high, mut path) = (0, self.size, Vec::new());
        while high - low > 1 {
            let middle = low + split(high - low);
            if index < middle {
                path.push((middle, high));
                high = middle;
            } else {
                path.push((low, middle));
                low = middle;
            }
        }
        self.hashes(&path)
    }

    /// RFC 6962 consistency proof from the tree of `old` records to this one.
    ///
    /// # Errors
    /// The tree is smaller than that; a tile is missing or damaged.
    pub fn consistency(&mut self, old: u64) -> Result<Vec<Hash>, TileError<E>> {
        if old > self.size {
            return Err(self.range(old));
        }
        let (mut low, mut high, mut path) = (0, self.size, Vec::new());
        // Nothing has to be shown for the empty tree.
        while old > 0 && old < high {
            let middle = low + split(high - low);
            if old <= middle {
                path.push((middle, high));
                high = middle;
            } else {
                path.push((low, middle));
                low = middle;
            }
        }
        // The old tree is a subtree of the new one only when we never went right: then the verifier has its root.
        if low > 0 {
            path.push((low, high));
        }
        self.hashes(&path)
    }

    fn range(&self, asked: u64) -> TileError<E> {
        TileError::Range {
            asked,
            size: self.size,
        }
    }

    /// The hashes of some ranges of records, the last range first.
    fn hashes(&mut self, ranges: &[(u64, u64)]) -> Result<Vec<Hash>, TileError<E>> {
        let ranges = ranges.iter().rev();
        ranges
            .map(|(low, high)| self.subtree(*low, *high))
            .collect()
    }

    /// MTH(D[low:high]) for a range that the tree of RFC 6962 has as a node: a perfect subtree, or two of them and so on
    /// at the right edge.
    fn subtree(&mut self, low: u64, high: u64) -> Result<Hash, TileError<E>> {
        let (mut at, mut peaks) = (low, Vec::new());
        while at < high {
            let width = match high - at {
                rest if rest.is_power_of_two() => rest,
                rest => split(rest),
            };
            peaks.push(self.perfect(at, width)?);
            at += width;
        }
        let last = peaks.pop();
        Ok(last.map_or_else(crate::merkle::empty_root, |last| {
            peaks
                .iter()
                .rev()
                .fold(last, |right, left| crate::merkle::node_hash(left, &right))
        }))
    }

    /// The root of the `width` (a power of two) records from `low`, a multiple of it: within one tile.
    fn perfect(&mut self, low: u64, width: u64) -> Result<Hash, TileError<E>> {
        let height = width.trailing_zeros();
        let shift = height / 8 * 8;
        let first = low >> shift;
        let level = u8::try_from(shift / 8).unwrap_or(u8::MAX);
        let tile = Tile::at(level, first / WIDTH, self.size).ok_or_else(|| self.range(low))?;
        let begin = usize::try_from(first % WIDTH).unwrap_or(usize::MAX);
        let count = 1_usize << (height - shift);
        let bytes = usize::from(tile.width) * 32;
        let hashes = self.tile(tile)?;
        match hashes.get(begin..begin + count) {
            Some(part) => Ok(root_of(part)),
            None => Err(TileError::Length { tile, bytes }),
        }
    }

    fn tile(&mut self, tile: Tile) -> Result<&[Hash], TileError<E>> {
        let at = match self.seen.iter().position(|(known, _)| *known == tile) {
            Some(at) => at,
            None => {
                let bytes = (self.fetch)(tile).map_err(TileError::Source)?;
                let hashes = decode(tile, &bytes).ok_or(TileError::Length {
                    tile,
                    bytes: bytes.len(),
                })?;
                if self.seen.len() == KEPT {
                    self.seen.remove(0);
                }
                self.seen.push((tile, hashes));
                self.seen.len() - 1
            }
        };
        Ok(self.seen.get(at).map_or(&[], |(_, hashes)| hashes))
    }
}

/// The largest power of two below `count` (which is at least 2): where RFC 6962 splits.
fn split(count: u64) -> u64 {
    1 << (63 - (count - 1).leading_zeros())
}

#[cfg(test)]
mod tests;
