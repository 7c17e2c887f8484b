//! `verify` judges a log in pieces, with workers, and checks signatures beside the reading; `accept-loss` and a writer that
//! starts read it one frame after the other. Whatever was done to it, both must name the same first wrong place.

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::keys::Signer;
use blockhost_ledger::loss::look;
use blockhost_ledger::segment::{COMMIT, Commit, Header, RECORD};
use common::{World, rebuild, signer};

/// Height and reason of the fault that both found, or none.
fn fault(world: &World, what: &str) -> Option<(u64, String)> {
    let ledger = LedgerDir::open(world.path()).expect("opens");
    let one = look(&ledger, Some(signer().vkey())).expect("readable");
    let other = world.verify();
    let in_segments = |place: &str| place.starts_with("seg/");
    let named: Vec<_> = other
        .problems
        .iter()
        .filter(|problem| in_segments(&problem.place))
        .collect();
    assert_eq!(other.records, one.size, "{what}: {other:?}");
    let Some(fault) = one.fault else {
        assert_eq!(named, Vec::<&_>::new(), "{what}");
        return None;
    };
    let [named] = named.as_slice() else {
        panic!("{what}: {fault:?} beside {other:?}");
    };
    assert_eq!(named.height, Some(fault.height), "{what}");
    assert_eq!(named.place, fault.segment, "{what}");
    let said = format!("byte {}: {}", fault.offset, fault.why);
    assert_eq!(named.what, said, "{what}");
    Some((fault.height, fault.why))
}

/// Enough for several pieces, the first of them with more commits than a worker takes at a time.
fn ledger() -> World {
    World::with_batches(300)
}

#[test]
fn a_changed_byte_a_hole_and_a_cut_anywhere_are_named_alike() {
    let world = ledger();
    let good = world.bytes();
    let end = good.iter().rposition(|b| *b != 0).expect("written") + 1;
    assert!(end > 300_000, "more than two pieces");
    assert_eq!(fault(&world, "untouched"), None);
    let mut found = 0;
    for (number, at) in (0..end).step_by(end / 60).enumerate() {
        let mut changed = good.clone();
        match number % 4 {
            0 => changed[at] ^= 1 << (number % 8),
            1 => changed[at..(at + 700).min(end)].fill(0),
            2 => changed.truncate(at),
            _ => drop(changed.splice(at..at, [7; 40])),
        }
        world.put(&changed);
        found += u32::from(fault(&world, &format!("byte {at}")).is_some());
    }
    assert!(found > 25, "{found}");
}

#[test]
fn a_wrong_signature_counts_before_what_is_wrong_behind_it_and_not_before_what_is_wrong_in_front() {
    let world = ledger();
    let (header, _) = world.frames();
    let frames = rebuild(&world.records(), &signer());
    let thief = Signer::from_bytes(common::NAME, 1, &[9; 32]).expect("valid");
    let commits: Vec<usize> = (0..frames.len())
        .filter(|at| frames[*at].0 == COMMIT)
        .collect();
    let sign = |frames: &mut Vec<(u8, Vec<u8>)>, number: usize| {
        let payload = &mut frames[commits[number]].1;
        let mut commit = Commit::decode(payload).expect("a commit");
        commit.signature = thief.sign_head(commit.size, commit.root);
        *payload = commit.encode().to_vec();
    };
    let swap = |frames: &mut Vec<(u8, Vec<u8>)>, number: usize| {
        let at = commits[number] - 1;
        assert_eq!(frames[at].0, RECORD);
        frames.swap(at, at - 1);
    };
    let put = |header: &Header, frames: &[(u8, Vec<u8>)]| {
        world.forget();
        world.put_frames(header, frames);
    };
    put(&header, &frames);
    assert_eq!(fault(&world, "signed again"), None);
    for (wrong, damaged) in [
        (0, 1),
        (5, 290),
        (40, 41),
        (200, 17),
        (299, 299),
        (150, 149),
    ] {
        let mut altered = frames.clone();
        sign(&mut altered, wrong);
        put(&header, &altered);
        let height = 2 * wrong as u64 + 1;
        let (found, why) = fault(&world, "a signature").expect("found");
        assert_eq!(found, height, "{why}");
        assert!(why.starts_with("the signature of the commit"), "{why}");
        // Two of them, in different pieces and for different workers.
        sign(&mut altered, 299);
        swap(&mut altered, damaged);
        put(&header, &altered);
        let first = height.min(2 * damaged as u64 + 1);
        let (found, why) = fault(&world, "both").expect("found");
        assert_eq!(found, first, "{wrong} {damaged}: {why}");
        assert_eq!(wrong < damaged, why.starts_with("the signature"), "{why}");
    }
}
