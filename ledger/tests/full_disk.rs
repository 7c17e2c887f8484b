//! Sealing and pruning where there is no space: nothing is lost, nothing that was begun takes the room that outcomes need,
//! what frees space works all the same, and when there is space it is done.

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::prune::{Order, PRUNE};
use blockhost_ledger::reader::Reader;
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::verify::{Trust, verify};
use blockhost_ledger::writer::{AppendError, Options, Writer};
use common::{draft, signer};
use std::path::Path;
use std::process::Stdio;

const SEGMENT: u64 = 512;

fn open(dir: &Path) -> Writer {
    let options = Options {
        preallocate_bytes: 32 << 10,
        reserve_bytes: 32 << 10,
        segment_records: SEGMENT,
    };
    let ledger = LedgerDir::open(dir).expect("opens");
    Writer::open(ledger, signer(), "host", options)
        .expect("opens")
        .0
}

/// Full segments, and a part of one; not sealed.
fn fill(writer: &mut Writer, records: u64) {
    let drafts: Vec<Draft> = (0..records)
        .map(|n| draft(Phase::Event, &format!("e{n}")))
        .collect();
    for batch in drafts.chunks(64) {
        writer.append(batch).expect("appended");
    }
}

fn free(dir: &Path) -> u64 {
    let stat = rustix::fs::statvfs(dir).expect("looked at");
    stat.f_bavail * stat.f_frsize
}

/// Leaves so many bytes of the disk.
fn leave(dir: &Path, bytes: u64) {
    let ballast = dir.join("ballast");
    let _ = std::fs::remove_file(&ballast);
    let length = free(dir).saturating_sub(bytes);
    let zeros = vec![0; usize::try_from(length).expect("small")];
    std::fs::write(ballast, zeros).expect("there is that much");
}

fn names(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir.join("seg")).expect("listed");
    let mut names: Vec<String> = names
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort();
    names
}

fn records(dir: &Path) -> Vec<Vec<u8>> {
    let reader = Reader::open(LedgerDir::open(dir).expect("opens"), None).expect("reads");
    let records = reader.records(0);
    records.map(|record| record.expect("read").1).collect()
}

fn verified(dir: &Path) -> u64 {
    let trust = Trust {
        key: Some(signer().vkey().clone()),
        ..Trust::default()
    };
    let report = verify(
        &LedgerDir::open(dir).expect("opens"),
        &trust,
        &mut |_, _| {},
    );
    let report = report.expect("readable");
    assert!(report.ok, "{report:?}");
    report.records
}

/// Runs on a small file system. Does nothing unless started by the test below.
#[test]
fn child_on_a_small_disk() {
    let Some(dir) = std::env::var_os("LEDGER_TEST_DIR") else {
        return;
    };
    let dir = Path::new(&dir).join("small");
    let dir = dir.as_path();
    let mut writer = open(dir);
    fill(&mut writer, 2 * SEGMENT + 100);
    writer.publish().expect("published");
    let before = records(dir);
    let logs = names(dir);
    // From nothing to a bit less than what a sealed segment takes: it fails at another step each time.
    let mut failed = 0;
    for kib in [0, 4, 8, 16, 32, 48, 64, 80, 96, 112] {
        leave(dir, kib << 10);
        let room = free(dir);
        let result = loop {
            match writer.seal_step() {
                Ok(Some(first)) => break Ok(first),
                Ok(None) => {}
                Err(error) => break Err(error),
            }
        };
        let Err(error) = result else {
            eprintln!("{kib} KiB were enough for a segment");
            break;
        };
        failed += 1;
        assert!(error.to_string().contains("os error 28"), "{kib}: {error}");
        assert_eq!(free(dir), room, "{kib} KiB: what was begun takes no room");
        assert_eq!(names(dir), logs, "{kib} KiB");
        assert_eq!(records(dir), before, "{kib} KiB");
        assert!(writer.wants_sealing() && writer.poisoned().is_none());
    }
    assert!(failed > 3, "{failed}");
    // Outcomes have their room all the same.
    leave(dir, 0);
    let mut refused = None;
    while refused.is_none() {
        refused = writer.append(&[draft(Phase::Intent, "new")]).err();
    }
    assert!(matches!(refused, Some(AppendError::NoSpace { .. })));
    writer.seal_step().expect_err("there is no space");
    writer
        .append(&[draft(Phase::Outcome, "e1")])
        .expect("the reserve is for outcomes");
    std::fs::remove_file(dir.join("ballast")).expect("removed");
    while writer.wants_sealing() {
        writer.seal_step().expect("there is space again");
    }
    writer.publish().expect("published");
    assert_eq!(records(dir)[..before.len()], before);
    assert_eq!(verified(dir), writer.head().size);
    assert!(names(dir).iter().all(|name| !name.ends_with(".new")));

    // What frees space may begin without any: its intent is not refused as other new work is.
    leave(dir, 0);
    while writer.append(&[draft(Phase::Intent, "more")]).is_ok() {}
    let prune = Draft {
        action: PRUNE.to_owned(),
        plugin_id: "ledger".to_owned(),
        ..draft(Phase::Intent, "prune")
    };
    let foreign = Draft {
        plugin_id: "event".to_owned(),
        ..prune.clone()
    };
    for intent in [&foreign, &prune] {
        let refused = writer.append(std::slice::from_ref(intent));
        assert!(
            matches!(refused, Err(AppendError::NoSpace { .. })),
            "{refused:?}"
        );
    }
    writer
        .append_making_room(&prune)
        .expect("it may use some of the reserve");
    // However often: what is running can end all the same.
    let refused = (0..1000).find_map(|_| writer.append_making_room(&prune).err());
    assert!(
        matches!(refused, Some(AppendError::NoSpace { .. })),
        "{refused:?}"
    );
    for n in 0..12 {
        let outcome = draft(Phase::Outcome, &format!("e{n}"));
        writer.append(&[outcome]).expect("the rest is for outcomes");
    }
    let order = Order {
        before: u64::MAX,
        kept: std::time::Duration::ZERO,
    };
    let room = free(dir);
    let (pruned, _) = writer.prune(&prune, order).expect("pruned");
    assert_eq!(pruned.records, SEGMENT);
    assert!(free(dir) > room + (32 << 10), "{room} to {}", free(dir));
    drop(writer);
    drop(open(dir));
    verified(dir);
    println!("\nfilled and freed");
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test needs a file system of its own"
)]
fn sealing_without_space_loses_nothing_and_pruning_makes_some() {
    let dir = tempfile::tempdir().expect("temp dir");
    std::fs::create_dir(dir.path().join("small")).expect("made");
    let script = "mount -t tmpfs -o size=4m tmpfs \"$LEDGER_TEST_DIR/small\" || { echo skipped: cannot mount; exit 0; }
        exec \"$@\"";
    let output = std::process::Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().expect("test program"))
        .args(["--exact", "child_on_a_small_disk", "--nocapture"])
        .env("LEDGER_TEST_DIR", dir.path())
        .stderr(Stdio::piped())
        .output()
        .expect("starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    if said.contains("skipped") || why.contains("Operation not permitted") {
        eprintln!("skipped: mounting a tmpfs in a private namespace is not allowed here");
        return;
    }
    assert!(output.status.success(), "{said}{why}");
    assert!(said.contains("filled and freed"), "{said}{why}");
}
