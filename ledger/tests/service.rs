//! What the bus interface answers, on real ledgers: all of it in pages, the same with and without the index, and nothing
//! without bounds.
#![cfg(feature = "index")]

mod common;

use blockhost_ledger::merkle::{hex, leaf_hash};
use blockhost_ledger::query::Coverage;
use blockhost_ledger::record::Phase;
use blockhost_ledger::service::{MAX_ANSWER_BYTES, MAX_BLOCKS, Page, Service, ServiceError};
use common::{World, draft, signer};

const CATEGORIES: [&str; 3] = ["network", "compute", "odd-word"];

/// `records` records, every third of a category; those of `network` carry `bytes` of text.
fn world(records: usize, bytes: usize) -> World {
    let world = World::new();
    let (mut writer, _) = world.open();
    let drafts: Vec<_> = (0..records)
        .map(|n| {
            let mut draft = draft(Phase::Event, &format!("op{n}"));
            draft.category = CATEGORIES[n % 3].into();
            if n % 3 == 0 {
                draft
                    .metadata
                    .insert("text".into(), "x".repeat(bytes).into());
            }
            draft
        })
        .collect();
    for batch in drafts.chunks(500) {
        writer.append(batch).expect("appended");
    }
    writer.publish().expect("published");
    world
}

fn service(world: &World, index: Option<&std::path::Path>) -> Service {
    let key = Some(signer().vkey().clone());
    Service::new(world.path().into(), key, index.map(Into::into))
}

#[test]
fn pages_of_a_category_give_every_block_of_it_once_and_newest_first() {
    let world = world(5000, 10);
    let cache = tempfile::tempdir().expect("temp dir");
    let index = cache.path().join("index.db");
    for index in [None, Some(index.as_path())] {
        let service = service(&world, index);
        let mut heights = Vec::new();
        let mut page = Page {
            limit: Some(300),
            ..Page::default()
        };
        loop {
            let answer = service
                .blocks_by_category("network", page)
                .expect("answers");
            assert_eq!(answer.ledger_height, 5000);
            assert_eq!(
                answer.coverage == Coverage::Index,
                index.is_some(),
                "{:?}",
                answer.coverage
            );
            assert!(answer.blocks.len() <= 300);
            assert!(
                answer
                    .blocks
                    .iter()
                    .all(|block| block.category == "network")
            );
            heights.extend(answer.blocks.iter().map(|block| block.height));
            page.from = answer.next;
            if page.from.is_none() {
                break;
            }
        }
        let all: Vec<u64> = (0..5000)
            .filter(|n| n % 3 == 0)
            .map(|n| n + 1)
            .rev()
            .collect();
        assert_eq!(heights, all);
    }
    assert!(index.exists());
}

#[test]
fn an_answer_is_bounded_in_blocks_and_bytes_and_says_where_to_go_on() {
    let world = world(1500, 60_000);
    let service = service(&world, None);
    let all = Page {
        limit: Some(usize::MAX),
        ..Page::default()
    };
    let answer = service.blocks_by_category("network", all).expect("answers");
    let bytes: usize = answer
        .blocks
        .iter()
        .map(|block| block.data.to_string().len())
        .sum();
    assert!(bytes < MAX_ANSWER_BYTES + 65_536, "{bytes}");
    assert!(
        answer
            .next
            .is_some_and(|next| next == answer.blocks.last().expect("some").height - 1)
    );
    let answer = service.blocks_by_category("compute", all).expect("answers");
    assert_eq!((answer.blocks.len(), answer.next), (500, None));
    let mut first = 1;
    let mut seen = 0;
    loop {
        let answer = service.blocks_by_height(first, u64::MAX).expect("answers");
        assert!(answer.blocks.len() <= MAX_BLOCKS);
        for block in &answer.blocks {
            seen += 1;
            assert_eq!(block.height, seen);
        }
        let Some(next) = answer.next else { break };
        first = next;
    }
    assert_eq!(seen, 1500);
}

#[test]
fn a_block_says_what_the_record_says_and_is_found_by_its_hash() {
    let world = world(5, 3);
    let service = service(&world, None);
    let record = &world.records()[3];
    let hash = hex(&leaf_hash(record));
    let block = service
        .block_by_hash(&hash)
        .expect("answers")
        .expect("found");
    let value: serde_json::Value = serde_json::from_slice(record).expect("JSON");
    assert_eq!((block.height, &block.hash), (4, &hash));
    assert_eq!(block.prev_hash, value["prev_hash"].as_str().expect("text"));
    assert_eq!(block.prev_hash, hex(&leaf_hash(&world.records()[2])));
    assert_eq!(
        (block.producer.as_str(), block.user.as_str(), block.pid),
        ("qm", "blockhost", Some(42))
    );
    assert_eq!(block.data, value["metadata"]);
    assert_eq!(
        service.block_by_hash(&"0".repeat(64)).expect("answers"),
        None
    );
}

#[test]
fn nonsense_is_refused_and_not_searched_for() {
    let world = world(3, 3);
    let service = service(&world, None);
    let refused = [
        service.block_by_hash("abc").err(),
        service.block_by_hash(&"g".repeat(64)).err(),
        service.block_by_hash(&"\u{e9}".repeat(32)).err(),
        service.blocks_by_height(0, 5).err(),
        service.blocks_by_height(5, 4).err(),
        service.blocks_by_category("", Page::default()).err(),
        service
            .blocks_by_category(&"x".repeat(200), Page::default())
            .err(),
    ];
    for error in refused {
        assert!(
            matches!(error, Some(ServiceError::Argument { .. })),
            "{error:?}"
        );
    }
    assert!(
        service
            .blocks_by_category("none", Page::default())
            .expect("answers")
            .blocks
            .is_empty()
    );
    assert!(
        service
            .blocks_by_height(4, 9)
            .expect("answers")
            .blocks
            .is_empty()
    );
}

#[test]
fn statistics_are_the_same_with_and_without_the_index() {
    let world = world(5000, 10);
    let cache = tempfile::tempdir().expect("temp dir");
    let index = cache.path().join("index.db");
    let mut by_index = service(&world, Some(&index))
        .blockchain_stats()
        .expect("answers");
    let by_hand = service(&world, None).blockchain_stats().expect("answers");
    assert!(!by_index.counted && by_hand.counted);
    by_index.counted = true;
    assert_eq!(by_index, by_hand);
    assert_eq!(
        (by_hand.records, by_hand.last_day, by_hand.per_day),
        (5000, 5000, 5000)
    );
    let categories = &by_hand.counts["category"];
    assert_eq!(
        categories
            .iter()
            .map(|count| count.records)
            .collect::<Vec<_>>(),
        [1667, 1667, 1666]
    );
    assert!(by_hand.disk.segments > 5000 * by_hand.bytes_per_record / 2);
    let empty = World::new();
    let stats = service(&empty, None).blockchain_stats().expect("answers");
    assert_eq!(
        (stats.records, stats.first_us, stats.bytes_per_record),
        (0, None, 0)
    );
}

#[test]
fn integrity_is_the_whole_verification() {
    let world = world(30, 3);
    assert!(
        service(&world, None)
            .verify_blockchain_integrity(&mut |_, _| {})
            .expect("readable")
            .ok
    );
    let mut bytes = world.bytes();
    let at = bytes
        .windows(8)
        .rposition(|window| window == b"odd-word")
        .expect("there");
    bytes[at] ^= 1;
    world.put(&bytes);
    let report = service(&world, None)
        .verify_blockchain_integrity(&mut |_, _| {})
        .expect("readable");
    assert!(!report.ok && report.problems[0].height.is_some());
}
