//! Damage that no crash explains: the ledger stays shut until root names exactly what is intact; then that is kept, the
//! rest set aside, a record says so; and a kill at any step, of this or of sealing, loses nothing.

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::failpoint;
use blockhost_ledger::loss::Loss;
use blockhost_ledger::merkle::{Hash, hex};
use blockhost_ledger::reader::Reader;
use blockhost_ledger::record::Phase;
use blockhost_ledger::writer::{OpenError, Recovery, Writer};
use common::{World, draft, found, killed_at, open_accepting};
use serde_json::Value;
use std::path::Path;

const SEGMENT: u64 = 300;

fn open(dir: &Path, loss: Option<&Loss>) -> Result<(Writer, Recovery), OpenError> {
    open_accepting(dir, SEGMENT, loss)
}

fn accept(size: u64, root: Hash) -> Loss {
    Loss::new(size, root, "the disk of 3 May", 1_777_777_777).expect("good")
}

fn records(dir: &Path) -> Vec<Vec<u8>> {
    let reader = Reader::open(LedgerDir::open(dir).expect("opens"), None).expect("reads");
    let records = reader.records(0);
    records.map(|record| record.expect("readable").1).collect()
}

/// Published, batches of 20; sealed segments and a log.
fn ledger(records: usize, sealed: bool) -> World {
    let world = World::new();
    let (mut writer, _) = open(world.path(), None).expect("opens");
    for batch in 0..records / 20 {
        let batch: Vec<_> = (0..20)
            .map(|n| draft(Phase::Event, &format!("e{batch}.{n}")))
            .collect();
        writer.append(&batch).expect("appended");
    }
    while sealed && writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
    writer.publish().expect("published");
    world
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("read");
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).expect("written");
}

/// Every byte of every file in `dir`, below it too.
fn all_bytes(dir: &Path) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).expect("listed") {
        let path = entry.expect("entry").path();
        match path.is_dir() {
            true => all.extend(all_bytes(&path)),
            false => all.push(std::fs::read(path).expect("read")),
        }
    }
    all
}

/// Every byte that was in a segment is there, in the file it was in or beside it; a log may have grown.
fn assert_all_there(dir: &Path, evidence: &[Vec<u8>], what: &str) {
    let now = all_bytes(&dir.join("seg"));
    for file in evidence {
        let zeros = file.iter().rev().take_while(|byte| **byte == 0).count();
        let written = &file[..file.len() - zeros];
        assert!(
            now.iter().any(|now| now.starts_with(written)),
            "{what}: bytes were destroyed"
        );
    }
}

/// Its name, whether the ledger is sealed, what is done to it, in whose segment the intact part ends.
type Damage = (&'static str, bool, fn(&Path), u64);

/// Damages of a ledger of 700 records in segments of 300, and how many records they leave.
fn damages() -> [Damage; 6] {
    [
        (
            "a bit of the newest log",
            false,
            |dir| {
                flip(&dir.join("seg/000000000600.log"), 30_000);
            },
            620,
        ),
        (
            "a bit of an older log",
            false,
            |dir| flip(&dir.join("seg/000000000300.log"), 64 + 100_000),
            420,
        ),
        (
            "a sealed segment",
            true,
            |dir| flip(&dir.join("seg/000000000300.hsh"), 60),
            300,
        ),
        (
            "a header",
            false,
            |dir| flip(&dir.join("seg/000000000000.log"), 3),
            0,
        ),
        (
            "a missing segment",
            true,
            |dir| {
                std::fs::remove_file(dir.join("seg/000000000300.hsh")).expect("removed");
            },
            300,
        ),
        (
            "a log that is older than its checkpoint",
            false,
            |dir| {
                std::fs::remove_file(dir.join("seg/000000000600.log")).expect("removed");
            },
            600,
        ),
    ]
}

#[test]
fn what_is_intact_is_kept_what_is_not_is_set_aside_and_a_record_says_so() {
    for (what, sealed, damage, _) in damages() {
        let world = ledger(700, sealed);
        let dir = world.path();
        let before = records(dir);
        damage(dir);
        let evidence = all_bytes(&dir.join("seg"));
        let Err(refused) = open(dir, None) else {
            panic!("{what}: it opened")
        };
        assert!(
            refused.to_string().contains("accept-loss"),
            "{what}: {refused}"
        );
        let intact = found(dir);
        assert!(
            intact.is_damaged() && intact.size < 700,
            "{what}: {intact:?}"
        );
        let loss = accept(intact.size, intact.root);
        // Anything else than exactly what is intact is refused, and nothing happens.
        for wrong in [
            accept(intact.size, [7; 32]),
            accept(intact.size + 20, intact.root),
            accept(intact.size.saturating_sub(20), intact.root),
        ] {
            if wrong.size == loss.size && wrong.root == loss.root {
                continue;
            }
            let result = open(dir, Some(&wrong));
            assert!(
                matches!(result, Err(OpenError::Loss(_))),
                "{what}: {wrong:?}"
            );
            assert_eq!(all_bytes(&dir.join("seg")), evidence, "{what}");
        }
        let (mut writer, _) = open(dir, Some(&loss)).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(writer.head().size, intact.size + 1, "{what}");
        writer
            .append(&[draft(Phase::Event, "goes.on")])
            .expect("appended");
        writer.publish().expect("published");
        drop(writer);
        let report = world.verify();
        assert!(report.ok, "{what}: {report:?}");
        assert!(
            report
                .notes
                .iter()
                .any(|note| note.contains("gave up") && note.contains("disk of 3 May")),
            "{what}: {report:?}"
        );
        let after = records(dir);
        let kept = usize::try_from(intact.size).expect("small");
        assert_eq!(after[..kept], before[..kept], "{what}");
        let record: Value = serde_json::from_slice(&after[kept]).expect("JSON");
        let facts = &record["metadata"];
        assert_eq!(
            (
                &record["phase"],
                &record["action"],
                &facts["kept_root"],
                &facts["known_heads"]["published"]["size"]
            ),
            (
                &"recovery".into(),
                &"ledger-accept-loss".into(),
                &hex(&intact.root).into(),
                &700.into()
            ),
            "{what}"
        );
        assert_all_there(dir, &evidence, what);
        // Consumed: the same request again changes nothing, and a healthy ledger cannot be cut with one.
        let (writer, _) = open(dir, Some(&loss)).expect("opens");
        assert_eq!(writer.head().size, intact.size + 2, "{what}");
        drop(writer);
        let (writer, _) = open(
            dir,
            Some(&accept(0, blockhost_ledger::merkle::empty_root())),
        )
        .expect("opens");
        assert_eq!(writer.head().size, intact.size + 2, "{what}");
    }
}

#[test]
fn each_damage_leaves_as_much_as_was_committed_before_it() {
    for (what, sealed, damage, least) in damages() {
        let world = ledger(700, sealed);
        damage(world.path());
        let intact = found(world.path()).size;
        let segment_end = (least / SEGMENT + 1) * SEGMENT;
        assert!(
            (least / SEGMENT * SEGMENT..segment_end).contains(&intact),
            "{what}: {intact}"
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
    let loss = point.starts_with("loss-").then(|| {
        let bytes = std::fs::read(dir.with_extension("request")).expect("a request");
        Loss::parse(&bytes).expect("good")
    });
    let (mut writer, _) = open(dir, loss.as_ref()).expect("opens");
    while writer.wants_sealing() {
        writer.seal_step().expect("a step");
    }
}

#[test]
fn killed_at_any_step_of_giving_up_the_same_request_goes_on_and_nothing_opens_without_it() {
    let points = [
        "loss-begun",
        "loss-copied",
        "loss-exchanged",
        "loss-segment-set-aside",
        "loss-cut",
        "loss-head-set-aside",
        "loss-recorded",
    ];
    for point in points {
        let world = ledger(700, false);
        let dir = world.path();
        let before = records(dir);
        flip(&dir.join("seg/000000000300.log"), 64 + 100_000);
        let evidence = all_bytes(&dir.join("seg"));
        let intact = found(dir);
        let kept = usize::try_from(intact.size).expect("small");
        assert!((301..600).contains(&kept));
        let loss = accept(intact.size, intact.root);
        let request = format!(
            r#"{{"id":"{}","size":{},"root":"{}","reason":"x","time_s":1777777777}}"#,
            loss.id,
            loss.size,
            hex(&loss.root)
        );
        let loss = Loss::parse(request.as_bytes()).expect("good");
        std::fs::write(dir.with_extension("request"), request).expect("written");
        assert!(killed_at(dir, point), "{point} was not reached");
        std::fs::remove_file(dir.with_extension("request")).expect("removed");
        if point == "loss-recorded" {
            drop(open(dir, None).expect("it is done, and on record"));
        } else {
            assert!(
                open(dir, None).is_err(),
                "{point}: it opened without the request"
            );
        }
        drop(open(dir, Some(&loss)).unwrap_or_else(|error| panic!("{point}: {error}")));
        let (mut writer, _) = open(dir, None).unwrap_or_else(|error| panic!("{point}: {error}"));
        writer.publish().expect("published");
        drop(writer);
        let report = world.verify();
        assert!(report.ok, "{point}: {report:?}");
        let after = records(dir);
        assert_eq!(
            (after.len(), &after[..kept]),
            (kept + 1, &before[..kept]),
            "{point}"
        );
        let record: Value = serde_json::from_slice(&after[kept]).expect("JSON");
        assert_eq!(
            record["metadata"]["known_heads"]["published"]["size"], 700,
            "{point}"
        );
        assert_all_there(dir, &evidence, point);
    }
}

#[test]
fn killed_at_any_step_of_sealing_nothing_is_lost_and_it_is_done_again() {
    let points = [
        "seal-bundle",
        "seal-hashes-made",
        "seal-durable",
        "seal-records-named",
        "seal-hashes-named",
        "seal-both-named",
        "seal-log-removed",
    ];
    for point in points {
        let world = ledger(700, false);
        let dir = world.path();
        let before = records(dir);
        assert!(killed_at(dir, point), "{point} was not reached");
        assert_eq!(records(dir), before, "{point}");
        assert!(world.verify().ok, "{point}");
        let (mut writer, recovery) = open(dir, None).expect("opens");
        assert_eq!(
            (writer.head().size, recovery.torn_bytes),
            (700, 0),
            "{point}"
        );
        while writer.wants_sealing() {
            writer.seal_step().expect("a step");
        }
        drop(writer);
        assert_eq!(records(dir), before, "{point}");
        let report = world.verify();
        assert!(report.ok, "{point}: {report:?}");
        let names = std::fs::read_dir(dir.join("seg")).expect("listed");
        let names = names.map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("text")
        });
        let unfinished = names.filter(|name| name.ends_with(".new") || name == "000000000000.log");
        assert_eq!(unfinished.count(), 0, "{point}");
    }
}

#[test]
fn payloads_that_only_lost_records_speak_of_are_set_aside_and_no_start_removes_them() {
    use blockhost_ledger::blobs::{self, Quota, Store};
    use blockhost_ledger::record::Draft;
    let world = World::new();
    let dir = world.path();
    let quota = Quota {
        blobs: 10,
        bytes: 1 << 20,
    };
    let ledger_dir = || LedgerDir::open(dir).expect("opens");
    let (mut writer, recovery) = open(dir, None).expect("opens");
    let (mut store, _) = Store::open(ledger_dir(), recovery.blobs).expect("opens");
    let mut keep = |writer: &mut Writer, bytes: &[u8]| {
        let hash = store.put(bytes, quota).expect("taken");
        let draft = Draft {
            action: blobs::PUT.to_owned(),
            plugin_id: blobs::PLUGIN.to_owned(),
            metadata: blobs::metadata(&hash, bytes.len(), "x", &serde_json::Map::new()),
            ..draft(Phase::Event, "")
        };
        let appended = writer.append(&[draft]).expect("appended");
        store.recorded(hash, appended[0].height);
        hash
    };
    let early = keep(&mut writer, b"early");
    for n in 0..40 {
        let event = draft(Phase::Event, &format!("e{n}"));
        writer.append(&[event]).expect("appended");
    }
    let late = keep(&mut writer, b"late");
    writer.publish().expect("published");
    drop(writer);
    flip(&dir.join("seg/000000000000.log"), 64 + 20_000);
    // A page of the index of blocks that are lost goes the same way.
    let page = dir.join("blockchain/index_0000000001.json");
    std::fs::write(&page, "of what is lost").expect("written");
    let intact = found(dir);
    assert!((2..42).contains(&intact.size), "{intact:?}");
    let loss = accept(intact.size, intact.root);
    let file = |hash: &Hash| {
        let name = hex(hash);
        dir.join("blobs").join(&name[..2]).join(name)
    };
    let aside = file(&late).with_file_name(format!("lost-1777777777.{}", hex(&late)));
    for request in [Some(&loss), None, None] {
        let (mut writer, recovery) = open(dir, request).expect("opens");
        let (_, orphans) = Store::open(ledger_dir(), recovery.blobs).expect("opens");
        assert_eq!(orphans, 0);
        assert_eq!(std::fs::read(file(&early)).expect("kept"), b"early");
        assert_eq!(std::fs::read(&aside).expect("set aside"), b"late");
        assert!(!file(&late).exists());
        writer.publish().expect("published");
    }
    let lost_page = page.with_file_name("lost-1777777777.index_0000000001.json");
    assert!(lost_page.exists() && !page.exists());
    let report = world.verify();
    assert!(report.ok && report.blobs == 1, "{report:?}");
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains(&hex(&late)) && note.contains("set aside")),
        "{report:?}"
    );
    // It may be taken in again: what was set aside is in nobody's way.
    let (_writer, recovery) = open(dir, None).expect("opens");
    let (mut store, _) = Store::open(ledger_dir(), recovery.blobs).expect("opens");
    assert_eq!(store.put(b"late", quota).expect("taken"), late);
    assert!(file(&late).exists() && aside.exists());
}
