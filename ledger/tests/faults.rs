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
#[expect(clippy::disallowed_methods, reason = "a process that strace disturbs")]
fn under_strace(child: &str, dir: &Path, options: &[&str]) -> Option<(String, String)> {
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
    assert!(output.status.success(), "{said}{errors}");
    Some((said, std::fs::read_to_string(trace).expect("a trace")))
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
