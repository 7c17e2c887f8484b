//! What is promised of tiles and entry bundles, by themselves.

use super::*;
use crate::consistency::{consistency_proof, is_consistent};
use crate::merkle::{inclusion_proof, leaf_hash, node_hash, root_from_inclusion};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::convert::Infallible;

fn leaves(n: usize) -> Vec<Hash> {
    (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

/// All tiles of a tree by path.
fn tiles(leaves: &[Hash]) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut level = leaves.to_vec();
    let mut number = 0;
    while !level.is_empty() {
        for (index, part) in level.chunks(256).enumerate() {
            let tile = Tile::at(number, index as u64, leaves.len() as u64).expect("in the tree");
            assert_eq!(usize::from(tile.width()), part.len());
            out.insert(tile.path(), encode(part));
        }
        level = level.chunks_exact(256).map(root_of).collect();
        number += 1;
    }
    out
}

fn tree(leaves: &[Hash]) -> TileTree<impl FnMut(Tile) -> Result<Vec<u8>, String> + use<>> {
    let tiles = tiles(leaves);
    TileTree::new(leaves.len() as u64, move |tile: Tile| {
        tiles.get(&tile.path()).cloned().ok_or(tile.path())
    })
}

#[test]
fn names_are_those_of_the_specification() {
    let name = |index| {
        Tile {
            level: 0,
            index,
            width: 256,
        }
        .path()
    };
    assert_eq!(name(0), "tile/0/000");
    assert_eq!(name(999), "tile/0/999");
    assert_eq!(name(1000), "tile/0/x001/000");
    assert_eq!(name(1_234_067), "tile/0/x001/x234/067");
    let partial = Tile::at(1, 1, 70_000).expect("exists");
    assert_eq!(partial.path(), "tile/1/001.p/17");
    assert_eq!(
        Tile::at(0, 273, 70_000).expect("exists").entries_path(),
        "tile/entries/273.p/112"
    );
}

#[test]
fn a_tree_of_70000_records_has_the_tiles_that_the_specification_lists() {
    let all: Vec<Tile> = added(0, 70_000).collect();
    let count = |level, partial| {
        let same = |t: &&Tile| t.level() == level && t.is_partial() == partial;
        all.iter().filter(same).map(Tile::width).collect::<Vec<_>>()
    };
    assert_eq!(count(0, false).len(), 273);
    assert_eq!((count(0, true), count(1, false)), (vec![112], vec![256]));
    assert_eq!((count(1, true), count(2, true)), (vec![17], vec![1]));
    assert_eq!(all.len(), 277);
    assert_eq!(
        added(0, 256).map(|t| t.path()).collect::<Vec<_>>(),
        ["tile/0/000", "tile/1/000.p/1"]
    );
    assert_eq!(added(0, 0).count(), 0);
    assert_eq!(added(u64::MAX - 1, u64::MAX).count(), 1);
}

#[test]
fn only_the_one_spelling_of_a_tile_is_a_tile() {
    for bad in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/00/000",
        "tile/8/000",
        "tile/-1/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/01",
        "tile/0/001.p/",
        "tile/0/x000/001",
        "tile/0/x001",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "/tile/0/000",
        "tile/0/../000",
        "tile/0/+01",
        "tile/entries/000",
        "tile/0/x018/x446/x744/x073/x709/x551/615",
        "tile/7/001",
        "tile/0/xx01/000",
        "tile/0/\u{661}00",
    ] {
        assert_eq!(Tile::parse(bad), None, "{bad}");
    }
}

#[test]
fn tiles_prove_what_the_leaves_prove_around_every_border_of_a_tile() {
    let all = leaves(66_100);
    for size in [
        1, 2, 3, 255, 256, 257, 511, 512, 513, 700, 65_535, 65_536, 65_537, 66_100,
    ] {
        let part = &all[..size];
        let mut tree = tree(part);
        let root = root_of(part);
        assert_eq!(tree.root(size as u64), Ok(root));
        for index in [
            0,
            1,
            2,
            127,
            128,
            254,
            255,
            256,
            257,
            511,
            512,
            65_535,
            65_536,
            size - 1,
        ] {
            if index >= size {
                assert!(matches!(
                    tree.inclusion(index as u64),
                    Err(TileError::Range { .. })
                ));
                continue;
            }
            let path = tree.inclusion(index as u64).expect("tiles are there");
            assert_eq!(
                Some(path),
                inclusion_proof(part, index),
                "{index} of {size}"
            );
            let old = index + 1;
            let proof = tree.consistency(old as u64).expect("tiles are there");
            assert_eq!(Some(proof), consistency_proof(part, old), "{old} to {size}");
            assert_eq!(
                tree.root(old as u64),
                Ok(root_of(&all[..old])),
                "{old} of {size}"
            );
        }
        assert_eq!(tree.consistency(0), Ok(Vec::new()));
        assert!(tree.consistency(size as u64 + 1).is_err());
    }
}

#[test]
fn a_tile_of_the_wrong_length_is_named_and_a_missing_one_too() {
    let all = leaves(300);
    let mut short = TileTree::new(300, |tile: Tile| {
        Ok::<_, Infallible>(vec![0; usize::from(tile.width()) * 32 - 1])
    });
    let said = short.inclusion(3).expect_err("damaged").to_string();
    assert!(
        said.contains("tile/") && said.contains("it should have"),
        "{said}"
    );
    let mut missing = TileTree::new(301, {
        let tiles = tiles(&all);
        move |tile: Tile| tiles.get(&tile.path()).cloned().ok_or(tile.path())
    });
    assert_eq!(
        missing.root(301),
        Err(TileError::Source("tile/0/001.p/45".into()))
    );
}

/// A tree of equal records is known without being written: every subtree of a height has the same hash.
#[test]
fn a_proof_among_a_hundred_million_records_reads_few_tiles_and_has_27_hashes() {
    const SIZE: u64 = 100_000_000;
    let record = leaf_hash(b"{}");
    let heights: Vec<Hash> = std::iter::successors(Some(record), |h| Some(node_hash(h, h)))
        .take(40)
        .collect();
    let mut read = 0;
    let mut tree = TileTree::new(SIZE, |tile: Tile| {
        read += 1;
        let hash = heights[8 * usize::from(tile.level())];
        Ok::<_, Infallible>(encode(&vec![hash; usize::from(tile.width())]))
    });
    let root = tree.root(SIZE).expect("computed");
    for index in [0, 12_345_678, 67_108_863] {
        let path = tree.inclusion(index).expect("computed");
        assert_eq!(path.len(), 27);
        assert_eq!(root_from_inclusion(&record, index, SIZE, &path), Some(root));
    }
    let old = 77_777_777;
    let (before, proof) = (
        tree.root(old).expect("computed"),
        tree.consistency(old).expect("computed"),
    );
    assert!(is_consistent((old, &before), (SIZE, &root), &proof));
    assert!(read < 60, "{read} tiles");
}

proptest! {
    #[test]
    fn a_path_parses_back_to_its_tile(level in 0..=MAX_LEVEL, size in any::<u64>(), at in any::<prop::sample::Index>()) {
        let count = (size >> (8 * u32::from(level))).div_ceil(WIDTH);
        let index = at.index(usize::try_from(count.max(1)).unwrap_or(usize::MAX)) as u64;
        if let Some(tile) = Tile::at(level, index, size) {
            prop_assert_eq!(Tile::parse(&tile.path()), Some(tile));
        }
    }

    #[test]
    fn no_text_makes_the_reader_of_paths_panic_or_accept_a_second_spelling(text in "tile/[0-9x/.p]{0,40}") {
        if let Some(tile) = Tile::parse(&text) {
            prop_assert_eq!(tile.path(), text);
        }
    }

    #[test]
    fn growing_step_by_step_adds_exactly_the_tiles_of_the_final_tree(steps in prop::collection::vec(0_u64..700, 1..8)) {
        let mut size = 0;
        let mut have = std::collections::BTreeSet::new();
        for step in steps {
            have.extend(added(size, size + step));
            size += step;
        }
        for tile in added(0, size) {
            prop_assert!(have.contains(&tile));
        }
    }

    #[test]
    fn any_proof_from_tiles_is_the_proof_from_leaves(size in 1_usize..1200, at in any::<prop::sample::Index>()) {
        let all = leaves(size);
        let mut tree = tree(&all);
        let index = at.index(size);
        prop_assert_eq!(tree.inclusion(index as u64).ok(), inclusion_proof(&all, index));
        prop_assert_eq!(tree.consistency(index as u64).ok(), consistency_proof(&all, index));
    }
}
