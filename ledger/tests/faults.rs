//! Faults of the disk, made by strace in the real calls: a sync that fails poisons the writer; every new, renamed or
//! removed name of a segment is made durable by a sync of the directory.

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::record::Phase;
use blockhost_ledger::writer::{AppendError, Options, Writer};
use common::{World, draft, signer, small};
use std::path::{Path, PathBuf};

fn child_dir() -> Option<PathBuf> {
    std::env::var_os("LEDGER_FAULT_DIR").map(Into::into)
}

/// Runs one of the `child_*` functions below in a process of its own under strace; `None` where that is not possible.
fn under_strace(child: &str, dir: &Path, options: &[&str]) -> Option<(String, String)> {
    let (succeeds, said, trace) = run_under_strace(child, dir, options)?;
    assert!(succeeds, "{said}");
    Some((said, trace))
}

/// The same whatever becomes of it: whether it succeeded, what it said, the trace.
#[expect(clippy::disallowed_methods, reason = "a process that strace disturbs")]
fn run_under_strace(child: &str, dir: &Path, options: &[&str]) -> Option<(bool, String, String)> {
    let trace = dir.join("trace");
    let output = std::process::Command::new("strace")
        .args(["-f", "-y", "-qq", "-o"])
        .arg(&trace)
        .args(options)
        .arg(std::env::current_exe().expect("test program"))
        .args(["--exact", child, "--nocapture", "--test-threads=1"])
        .env("LEDGER_FAULT_DIR", dir)
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: strace is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("Operation not permitted") {
        eprintln!("skipped: strace may not trace here");
        return None;
    }
    let trace = std::fs::read_to_string(trace).expect("a trace");
    Some((output.status.success(), said + &errors, trace))
}

fn options() -> Options {
    Options {
        segment_records: 300,
        ..small()
    }
}

fn open(dir: &Path) -> Writer {
    let ledger = LedgerDir::open(dir).expect("opens");
    let (writer, _) = Writer::open(ledger, signer(), "host", options()).expect("opens");
    writer
}

/// Does nothing unless started by [`under_strace`].
#[test]
fn child_meets_a_sync_that_fails() {
    let Some(dir) = child_dir() else { return };
    let mut writer = open(&dir);
    let mut acknowledged = 0;
    let error = loop {
        match writer.append(&[draft(Phase::Event, "")]) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100, "no sync failed");
    };
    assert!(matches!(error, AppendError::Poisoned(_)), "{error}");
    assert!(
        error
            .to_string()
            .contains("make durable seg/000000000000.log"),
        "{error}"
    );
    // The kernel may have dropped what it could not write: a later sync that succeeds would prove nothing.
    for _ in 0..3 {
        assert!(matches!(
            writer.append(&[draft(Phase::Outcome, "op")]),
            Err(AppendError::Poisoned(_))
        ));
    }
    assert!(!writer.wants_sealing());
    assert_eq!(writer.head().size, acknowledged);
    drop(writer);
    let mut writer = open(&dir);
    let found = writer.head().size;
    assert!(
        (acknowledged..=acknowledged + 2).contains(&found),
        "{found}"
    );
    writer
        .append(&[draft(Phase::Event, "")])
        .expect("the disk is well again");
    println!("\nacknowledged {acknowledged}, poisoned, opened again");
}

#[test]
fn a_sync_that_fails_poisons_the_writer_until_the_ledger_is_opened_again() {
    for when in [2, 5, 9] {
        let world = World::new();
        let inject = format!("inject=fdatasync:error=EIO:when={when}");
        let child = "child_meets_a_sync_that_fails";
        let options = ["-e", "trace=fdatasync", "-e", &inject];
        let Some((said, trace)) = under_strace(child, world.path(), &options) else {
            return;
        };
        let poisoned = format!("acknowledged {}, poisoned, opened again", when - 1);
        assert!(said.contains(&poisoned), "{said}");
        // After the one that failed nothing was synced until the ledger was opened again, which appends once.
        let failed = trace.lines().position(|line| line.contains("(INJECTED)"));
        let after = trace.lines().skip(failed.expect("injected") + 1).count();
        assert_eq!(after, 1, "{trace}");
        assert!(world.verify().ok);
    }
}

/// Does nothing unless started by [`under_strace`].
#[test]
fn child_finds_no_space_when_it_writes() {
    let Some(dir) = child_dir() else { return };
    let mut writer = open(&dir);
    let (mut appended, mut refused) = (0, 0);
    for _ in 0..6 {
        match writer.append(&[draft(Phase::Event, "")]) {
            Ok(_) => appended += 1,
            Err(AppendError::NoSpace { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        assert_eq!(writer.head().size, appended);
    }
    println!("\nappended {appended}, refused {refused}");
}

#[test]
fn a_write_that_finds_no_space_is_taken_back_and_the_next_one_goes_on() {
    let mut in_the_log = 0;
    for when in 1..12 {
        let world = World::new();
        let inject = format!("inject=pwrite64:error=ENOSPC:when={when}");
        let child = "child_finds_no_space_when_it_writes";
        let Some((_, said, trace)) = run_under_strace(
            child,
            world.path(),
            &["-e", "trace=pwrite64", "-e", &inject],
        ) else {
            return;
        };
        // The first ones make the segment; without it there is no ledger.
        if said.contains("appended 5, refused 1") {
            in_the_log += 1;
            assert!(world.verify().ok, "{when}: {trace}");
        }
    }
    assert!(in_the_log >= 4, "{in_the_log}");
}

/// Does nothing unless started by [`under_strace`].
#[test]
fn child_fills_and_seals_segments() {
    let Some(dir) = child_dir() else { return };
    let mut writer = open(&dir);
    for _ in 0..14 {
        writer
            .append(&vec![draft(Phase::Event, ""); 50])
            .expect("appended");
    }
    while writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
}

#[test]
fn every_name_that_comes_or_goes_is_made_durable_before_the_next_one() {
    let world = World::new();
    let options = ["-e", "trace=renameat,unlinkat,fsync,fdatasync"];
    let child = "child_fills_and_seals_segments";
    let Some((_, trace)) = under_strace(child, world.path(), &options) else {
        return;
    };
    let (mut waiting, mut names): (Option<&str>, Vec<String>) = (None, Vec::new());
    for line in trace.lines().filter(|line| line.contains("/seg")) {
        let changes = line.contains("renameat(") || line.contains("unlinkat(");
        let happened = line.trim_end().ends_with("= 0");
        // Names of what is not finished need not survive.
        let unfinished = line.contains("unlinkat(") && line.contains(".new\"");
        if changes && happened && !unfinished {
            assert_eq!(waiting, None, "not made durable before the next");
            waiting = Some(line);
            names.push(line.rsplit('"').nth(1).unwrap_or_default().to_owned());
        } else if line.contains("fsync(") && line.contains("/seg>") {
            waiting = None;
        } else if waiting.is_some() {
            panic!("{waiting:?} was not yet durable when this came: {line}");
        }
    }
    assert_eq!(waiting, None);
    assert_eq!(
        names,
        [
            "000000000000.log",
            "000000000300.log",
            "000000000600.log",
            "000000000000.zst",
            "000000000000.hsh",
            "000000000000.log",
            "000000000300.zst",
            "000000000300.hsh",
            "000000000300.log",
        ]
    );
}

/// Does nothing unless started by [`under_strace`].
#[test]
fn child_is_ended_before_a_sync_and_another_publishes() {
    let Some(dir) = child_dir() else { return };
    let mut writer = open(&dir);
    let mut appended = 0;
    while writer.append(&[draft(Phase::Event, "")]).is_ok() {
        appended += 1;
        if appended == 2 {
            writer.publish().expect("published");
        }
        assert!(appended < 100, "no sync failed");
    }
    // As if it had been killed there: all that it leaves is in the file as the kernel shows it.
    drop(writer);
    open(&dir).publish().expect("published");
    println!("\npublished");
}

/// Does nothing unless started by [`under_strace`].
#[test]
fn child_cannot_make_durable_what_it_read() {
    let Some(dir) = child_dir() else { return };
    let ledger = LedgerDir::open(&dir).expect("opens");
    let Err(error) = Writer::open(ledger, signer(), "host", options()) else {
        panic!("opened on what no disk has");
    };
    println!("\nrefused: {error}");
}

/// Where bytes were written to a log, and how many.
fn written(line: &str) -> Option<(u64, u64)> {
    let (call, result) = line.rsplit_once(" = ")?;
    let offset = call.rsplit_once(", ")?.1.trim_end_matches(')');
    Some((offset.parse().ok()?, result.trim().parse().ok()?))
}

#[test]
fn what_a_start_reads_is_durable_before_anything_rests_on_it() {
    let world = World::new();
    let options = [
        "-e",
        "trace=pwrite64,fsync,fdatasync,renameat",
        "-e",
        "inject=fdatasync:error=EIO:when=5",
    ];
    let child = "child_is_ended_before_a_sync_and_another_publishes";
    let Some((said, trace)) = under_strace(child, world.path(), &options) else {
        return;
    };
    assert!(said.contains("published"), "{said}");
    let (before, after) = trace.split_once("(INJECTED)").expect("a sync that failed");
    let log = |line: &&str| line.contains(".log>");
    let mut lost = before
        .lines()
        .filter(log)
        .filter(|line| line.contains("pwrite64("));
    let (offset, length) = lost.next_back().and_then(written).expect("the batch");
    // Its pages count as clean now: they have to be written anew and synced, and only then may a head be published.
    let settled = after.lines().take_while(|line| !line.contains("renameat("));
    let settled: Vec<&str> = settled.filter(log).collect();
    let again = settled
        .iter()
        .position(|line| {
            line.contains("pwrite64(")
                && written(line)
                    .is_some_and(|(from, n)| from <= offset && from + n >= offset + length)
        })
        .unwrap_or_else(|| panic!("not written again: {after}"));
    let synced = |line: &&str| line.contains("sync(") && line.trim_end().ends_with("= 0");
    assert!(settled[again..].iter().any(synced), "{after}");
    // What was published before is on the disk, and not written again and again.
    let first = settled
        .first()
        .and_then(|line| written(line))
        .expect("a write");
    assert!(first.0 > 64, "{first:?}");
    assert!(world.verify().ok);

    let refused = World::new();
    let mut writer = open(refused.path());
    writer.append(&[draft(Phase::Event, "")]).expect("appended");
    drop(writer);
    let options = ["-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1+"];
    let child = "child_cannot_make_durable_what_it_read";
    let Some((said, _)) = under_strace(child, refused.path(), &options) else {
        return;
    };
    assert!(
        said.contains("make durable") && said.contains(".log"),
        "{said}"
    );
    assert!(refused.verify().ok);
}
