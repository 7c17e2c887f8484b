//! Following a log that is being written, and one that is being attacked meanwhile.

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::follow::{FollowError, Follower};
use blockhost_ledger::record::Phase;
use blockhost_ledger::writer::{Options, Writer};
use common::{World, draft, rebuild, signer, small};

const NONE: [u64; 0] = [];

fn follower(world: &World) -> Follower {
    Follower::open(
        LedgerDir::open(world.path()).expect("opens"),
        None,
        &mut |_, _, _| {},
    )
    .expect("follows")
}

fn heights(follower: &mut Follower) -> Vec<u64> {
    let new = follower.poll().expect("polls");
    new.iter().map(|followed| followed.index + 1).collect()
}

#[test]
fn what_is_committed_is_given_once_and_in_order_over_the_borders_of_segments() {
    let world = World::new();
    let options = Options {
        segment_records: 5,
        ..small()
    };
    let open = || {
        let dir = LedgerDir::open(world.path()).expect("opens");
        Writer::open(dir, signer(), "host", options.clone())
            .expect("opens")
            .0
    };
    let mut writer = open();
    writer.append(&[draft(Phase::Event, "")]).expect("appended");
    let mut told = Vec::new();
    let dir = LedgerDir::open(world.path()).expect("opens");
    let mut follower =
        Follower::open(dir, None, &mut |index, size, _| told.push((index, size))).expect("follows");
    assert_eq!(told, [(0, 1)]);
    assert_eq!(heights(&mut follower), NONE);
    let mut next = 2;
    for batch in 1..20_usize {
        let drafts = vec![draft(Phase::Event, ""); batch % 4 + 1];
        writer.append(&drafts).expect("appended");
        if batch == 10 {
            drop(writer);
            writer = open();
        }
        if batch % 3 == 0 {
            let new = heights(&mut follower);
            let expected: Vec<u64> = (next..next + new.len() as u64).collect();
            assert_eq!(new, expected);
            next += new.len() as u64;
        }
    }
    next += heights(&mut follower).len() as u64;
    assert_eq!(next, writer.head().size + 1);
    assert_eq!(
        (follower.size(), follower.root()),
        (writer.head().size, writer.head().root)
    );
    assert!(follower.committed_us() > 0 && follower.alarm().is_none());
}

#[test]
fn a_log_that_does_not_exist_yet_is_followed_from_its_first_record() {
    let world = World::new();
    let mut follower = follower(&world);
    assert_eq!(heights(&mut follower), NONE);
    let (mut writer, _) = world.open();
    writer.append(&[draft(Phase::Event, "")]).expect("appended");
    assert_eq!(heights(&mut follower), [1]);
}

#[test]
fn half_an_append_is_not_shown_until_it_is_whole() {
    let world = World::with_batches(1);
    let mut follower = follower(&world);
    let before = world.bytes();
    let (mut writer, _) = world.open();
    writer.append(&[draft(Phase::Event, "")]).expect("appended");
    drop(writer);
    let after = world.bytes();
    let end = before.iter().rposition(|b| *b != 0).expect("not empty") + 1;
    for cut in [end + 5, end + 100, end + 300] {
        let half = [&after[..cut], &vec![0; after.len() - cut]].concat();
        std::fs::write(world.segment(), half).expect("written");
        assert_eq!(heights(&mut follower), NONE, "cut at {cut}");
        assert!(follower.unfinished().is_some());
    }
    std::fs::write(world.segment(), &after).expect("written");
    assert_eq!(heights(&mut follower), [3]);
    assert!(follower.unfinished().is_none());
}

#[test]
fn a_cut_a_rewritten_and_a_replaced_log_raise_the_alarm_and_a_restored_one_ends_it() {
    type Attack = fn(&World, &[u8]);
    let attacks: [(&str, Attack); 3] = [
        ("cut off", |world, old| {
            std::fs::write(world.segment(), old).expect("written")
        }),
        ("rewritten", |world, _| {
            let (header, _) = world.frames();
            let mut records = world.records();
            let changed = String::from_utf8(records[1].clone())
                .expect("text")
                .replace("\"memory\":2048", "\"memory\":4096");
            records[1] = changed.into_bytes();
            world.put_frames(&header, &rebuild(&records, &signer()));
        }),
        ("cut off", |world, old| {
            let aside = world.path().join("seg/aside");
            std::fs::write(&aside, old).expect("written");
            std::fs::rename(aside, world.segment()).expect("renamed");
        }),
    ];
    for (word, attack) in attacks {
        let world = World::with_batches(2);
        let old = world.bytes();
        let (mut writer, _) = world.open();
        writer.append(&[draft(Phase::Event, "")]).expect("appended");
        drop(writer);
        let good = world.bytes();
        let mut follower = follower(&world);
        attack(&world, &old);
        let error = follower.poll().expect_err("noticed");
        assert!(error.to_string().contains(word), "{error}");
        assert!(matches!(
            error,
            FollowError::Shrunk { .. } | FollowError::Rewritten { .. }
        ));
        assert!(follower.alarm().is_some_and(|alarm| alarm.contains(word)));
        assert!(
            heights(&mut follower).is_empty() && follower.alarm().is_some(),
            "still true"
        );
        std::fs::write(world.segment(), &good).expect("restored");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while follower.alarm().is_some() {
            assert!(std::time::Instant::now() < until, "the alarm does not end");
            let _ = follower.poll();
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        assert_eq!(follower.size(), 5);
    }
}
