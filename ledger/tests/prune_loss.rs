//! A loss that cuts off what said that older payloads were pruned: root accepts that by number, the segments count as
//! pruned by records that say so anew, and a kill at any step of it changes nothing of that.

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::failpoint;
use blockhost_ledger::loss::{Look, Loss};
use blockhost_ledger::merkle::hex;
use blockhost_ledger::prune::{Order, PruneError, Range};
use blockhost_ledger::reader::{ReadError, Reader};
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::writer::{OpenError, Recovery, Writer};
use common::{World, draft, found, killed_at, open_accepting};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Two whole blocks.
const SEGMENT: u64 = 512;
const ALL: Order = Order {
    before: u64::MAX,
    kept: std::time::Duration::ZERO,
};

fn open(dir: &Path, loss: Option<&Loss>) -> Result<(Writer, Recovery), OpenError> {
    open_accepting(dir, SEGMENT, loss)
}

fn events(count: u64) -> Vec<Draft> {
    let event = |n| draft(Phase::Event, &format!("e{n}"));
    (0..count).map(event).collect()
}

/// Three sealed segments and a part of one, `records` in all, published.
fn ledger(records: u64) -> (World, Writer) {
    let world = World::new();
    let (mut writer, _) = open(world.path(), None).expect("opens");
    for batch in events(records).chunks(32) {
        writer.append(batch).expect("appended");
    }
    while writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
    writer.publish().expect("published");
    (world, writer)
}

/// The same, the two oldest segments pruned, and the log damaged where the first record about that stands.
fn pruned_and_damaged(records: u64) -> World {
    let (world, mut writer) = ledger(records);
    for _ in 0..2 {
        writer
            .prune(&draft(Phase::Intent, "p"), ALL)
            .expect("pruned");
    }
    writer.append(&events(8)).expect("appended");
    writer.publish().expect("published");
    drop(writer);
    let log = newest_log_with(&world, b"{\"action\":\"ledger-prune\"");
    let mut bytes = std::fs::read(&log).expect("read");
    let at = position(&bytes, b"{\"action\":\"ledger-prune\"").expect("there");
    bytes[at + 40] ^= 0x10;
    std::fs::write(&log, bytes).expect("written");
    world
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}

fn newest_log_with(world: &World, wanted: &[u8]) -> PathBuf {
    let names = std::fs::read_dir(world.path().join("seg")).expect("listed");
    let mut paths: Vec<PathBuf> = names.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    paths
        .into_iter()
        .find(|path| position(&std::fs::read(path).expect("read"), wanted).is_some())
        .expect("a log with it")
}

fn names(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).expect("listed");
    names
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect()
}

fn accept(intact: &Look) -> Loss {
    let mut loss = Loss::new(intact.size, intact.root, "disk of 3 May", 1_777_777_777);
    if let Ok(loss) = &mut loss {
        loss.without_payloads = intact.without_payloads();
    }
    loss.expect("good")
}

/// What was pruned is so by records that stand behind the loss, and everything verifies.
fn assert_settled(world: &World, kept: u64, what: &str) {
    let reader = Reader::open(LedgerDir::open(world.path()).expect("opens"), None).expect("reads");
    let by = kept + 3;
    let range = Range {
        first: 1,
        last: 1024,
        by,
    };
    assert_eq!(reader.pruned(), [range], "{what}");
    assert!(matches!(reader.get(0), Err(ReadError::Pruned { by, .. }) if by == kept + 2));
    let record = |index| -> Value {
        serde_json::from_slice(&reader.get(index).expect("read")).expect("JSON")
    };
    let (loss, pruned) = (record(kept), record(kept + 1));
    assert_eq!(loss["action"], "ledger-accept-loss", "{what}");
    assert_eq!(loss["metadata"]["without_payloads"], 1024, "{what}");
    assert_eq!(
        (&pruned["phase"], &pruned["uid"]),
        (&"prune".into(), &0.into())
    );
    assert_eq!(
        pruned["metadata"]["accepted_loss"], loss["metadata"]["request"],
        "{what}"
    );
    let report = world.verify();
    assert!(report.ok, "{what}: {report:?}");
    assert_eq!(report.pruned, [range], "{what}");
}

#[test]
fn payloads_whose_record_is_lost_stay_pruned_when_root_says_how_many() {
    let world = pruned_and_damaged(1600);
    let dir = world.path();
    let refused = open(dir, None).expect_err("damaged");
    assert!(refused.to_string().contains("accept-loss"), "{refused}");
    let intact = found(dir);
    assert_eq!((intact.size, intact.without_payloads()), (1600, 1024));
    assert!(
        intact.why().contains("records 1 to 512"),
        "{}",
        intact.why()
    );
    let good = accept(&intact);
    for wrong in [0, 512, 1023, 1025, 4096] {
        let loss = Loss {
            without_payloads: wrong,
            ..good.clone()
        };
        let refused = open(dir, Some(&loss)).expect_err("another number");
        assert!(matches!(refused, OpenError::Loss(_)), "{refused}");
        assert!(!names(dir).contains(&"losing.json".to_owned()));
    }
    let (mut writer, recovery) = open(dir, Some(&good)).expect("opens");
    assert_eq!(writer.head().size, 1603);
    assert_eq!(recovery.prunes, [], "none of this life's records is old");
    let again = writer.prune(&draft(Phase::Intent, "p"), ALL);
    assert!(
        matches!(again, Err(PruneError::Nothing { .. })),
        "{again:?}"
    );
    writer.append(&events(3)).expect("appended");
    writer.publish().expect("published");
    drop(writer);
    assert_settled(&world, 1600, "opened");
    let (writer, recovery) = open(dir, None).expect("opens without the request");
    assert_eq!((writer.head().size, recovery.prunes.len()), (1606, 2));
}

#[test]
fn payloads_that_are_gone_with_nothing_else_wrong_cost_no_record() {
    let (world, writer) = ledger(1600);
    drop(writer);
    let segments = world.path().join("seg");
    let zst = segments.join("000000000000.zst");
    // What a pruning would keep, made by one in a copy of the segment's ledger.
    let (other, mut twin) = ledger(1600);
    twin.prune(&draft(Phase::Intent, "p"), ALL).expect("pruned");
    let kept = std::fs::read(other.path().join("seg/000000000000.kept")).expect("read");
    assert!(kept.is_empty(), "nothing here has to be kept");
    std::fs::remove_file(&zst).expect("removed");
    assert_eq!(
        found(world.path()).size,
        0,
        "without a .kept nothing is known"
    );
    std::fs::write(segments.join("000000000000.kept"), kept).expect("written");
    assert!(matches!(
        open(world.path(), None),
        Err(OpenError::Damaged(_))
    ));
    let intact = found(world.path());
    assert_eq!((intact.size, intact.without_payloads()), (1600, 512));
    assert!(intact.fault.is_none() && intact.is_damaged());
    let (mut writer, _) = open(world.path(), Some(&accept(&intact))).expect("opens");
    assert_eq!(writer.head().size, 1602);
    writer.publish().expect("published");
    drop(writer);
    let report = world.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.records, report.pruned[0].last), (1602, 512));
    for dir in ["", "seg", "blockchain"] {
        let set_aside = names(&world.path().join(dir));
        assert!(
            set_aside.iter().all(|name| !name.starts_with("lost-")),
            "{set_aside:?}"
        );
    }
}

/// Stops at the fail point named in the environment. Does nothing unless started by [`killed_at`].
#[test]
fn child_stops_at_a_point() {
    let Some(dir) = std::env::var_os("LEDGER_TEST_DIR") else {
        return;
    };
    let (dir, point) = (
        Path::new(&dir),
        std::env::var("LEDGER_TEST_POINT").expect("a point"),
    );
    failpoint::arm(&point, "", false);
    let bytes = std::fs::read(dir.with_extension("request")).expect("a request");
    let loss = Loss::parse(&bytes).expect("good");
    drop(open(dir, Some(&loss)).expect("opens"));
}

#[test]
fn killed_at_any_step_the_same_request_goes_on_also_when_the_records_do_not_fit_into_one_segment() {
    // With 2047 records there is room for one more in the segment: the records about the prunings go into the next.
    for (records, points) in [
        (
            1600,
            &[
                "loss-begun",
                "loss-exchanged",
                "loss-cut",
                "loss-head-set-aside",
                "ledger-recovery-half",
                "ledger-recovery-synced",
                "loss-recorded",
            ][..],
        ),
        (
            2047,
            &[
                "loss-segment-set-aside",
                "ledger-recovery-written",
                "ledger-prune-writing",
                "ledger-prune-half",
                "ledger-prune-synced",
                "loss-recorded",
            ][..],
        ),
    ] {
        for point in points {
            let world = pruned_and_damaged(records);
            let dir = world.path();
            let intact = found(dir);
            assert_eq!((intact.size, intact.without_payloads()), (records, 1024));
            let good = accept(&intact);
            let request = format!(
                r#"{{"id":"{}","size":{records},"root":"{}","reason":"x","time_s":1777777777,"without_payloads":1024}}"#,
                good.id,
                hex(&good.root)
            );
            let file = dir.with_extension("request");
            std::fs::write(&file, &request).expect("written");
            assert!(killed_at(dir, point), "{records}: {point} was not reached");
            std::fs::remove_file(file).expect("removed");
            let loss = Loss::parse(request.as_bytes()).expect("good");
            drop(open(dir, Some(&loss)).unwrap_or_else(|error| panic!("{point}: {error}")));
            let (mut writer, _) = open(dir, None).unwrap_or_else(|e| panic!("{point}: {e}"));
            writer.publish().expect("published");
            drop(writer);
            assert_settled(&world, records, point);
        }
    }
}
