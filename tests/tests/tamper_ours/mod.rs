//! The attacks on our ledger, by somebody who knows the format and, where the row says so, has the key.

use super::common::{World, draft, rebuild, signer, small};
use super::{Said, row};
use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::record::Phase;
use blockhost_ledger::writer::{AppendError, Options, Writer};
use blockhost_tests::command::{command, run};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// What `verify` says with the key alone, and then with the checkpoint that was kept.
fn said(world: &World, kept: &str) -> Said {
    world.age();
    if !world.verify().ok {
        return Said::Told;
    }
    let with = world.verify_with(Some(signer()), Some(kept.to_owned()));
    if with.ok {
        Said::Silent
    } else {
        Said::ToldByKept
    }
}

fn checkpoint(world: &World) -> String {
    std::fs::read_to_string(world.path().join("checkpoint")).expect("published")
}

fn copy(from: &Path, to: &Path) {
    let words = ["-a", "--"];
    let mut cp = command("cp");
    cp.args(words).arg(from.join(".")).arg(to);
    run(cp, Duration::from_secs(20)).expect("copied");
}

#[test]
fn our_ledger_tells_flipped_bits_and_swapped_records() {
    let world = World::with_batches(3);
    let kept = checkpoint(&world);
    let good = world.bytes();
    let mut bad = good.clone();
    bad[500] ^= 1;
    world.put(&bad);
    assert_eq!(said(&world, &kept), row("flip").ours);
    world.put(&good);
    let (header, frames) = world.frames();
    let mut frames: Vec<_> = frames
        .into_iter()
        .map(|(_, kind, payload)| (kind, payload))
        .collect();
    frames.swap(0, 1);
    world.put_frames(&header, &frames);
    assert_eq!(said(&world, &kept), row("swap").ours);
}

#[test]
fn our_ledger_tells_a_file_missing_from_the_middle() {
    let world = World::new();
    let options = Options {
        segment_records: 4,
        ..small()
    };
    let dir = LedgerDir::open(world.path()).expect("opens");
    let (mut writer, _) = Writer::open(dir, signer(), "host", options).expect("opens");
    for _ in 0..12 {
        writer.append(&[draft(Phase::Event, "")]).expect("appended");
    }
    writer.publish().expect("published");
    drop(writer);
    let kept = checkpoint(&world);
    let mut segments: Vec<_> = std::fs::read_dir(world.path().join("seg"))
        .expect("segments")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().contains("000000000004"))
        .collect();
    assert!(!segments.is_empty(), "the middle one");
    for path in segments.drain(..) {
        std::fs::remove_file(path).expect("removed");
    }
    assert_eq!(said(&world, &kept), row("delete").ours);
}

#[test]
fn our_ledger_tells_a_cut_a_rolled_back_and_a_rewritten_history_by_what_was_kept() {
    let world = World::with_batches(2);
    let old = tempfile::tempdir().expect("a directory");
    copy(world.path(), old.path());
    let (mut writer, _) = world.open();
    writer
        .append(&[draft(Phase::Event, ""), draft(Phase::Event, "")])
        .expect("appended");
    writer.publish().expect("published");
    drop(writer);
    let kept = checkpoint(&world);
    let new = tempfile::tempdir().expect("a directory");
    copy(world.path(), new.path());

    let (header, frames) = world.frames();
    let cut: Vec<_> = frames
        .into_iter()
        .take(6)
        .map(|(_, kind, payload)| (kind, payload))
        .collect();
    world.put_frames(&header, &cut);
    world.forget_published();
    assert_eq!(said(&world, &kept), row("newest").ours);

    copy(old.path(), world.path());
    assert_eq!(said(&world, &kept), row("rollback").ours);

    copy(new.path(), world.path());
    let mut records = world.records();
    let text = String::from_utf8(records[2].clone()).expect("text");
    records[2] = text.replace("2048", "4096").into_bytes();
    world.put_frames(&header, &rebuild(&records, &signer()));
    world.forget_published();
    assert_eq!(said(&world, &kept), row("rewrite").ours);
}

#[test]
fn our_ledger_refuses_to_write_to_a_file_without_a_name() {
    let world = World::with_batches(2);
    let (mut writer, _) = world.open();
    std::fs::remove_file(world.segment()).expect("removed");
    let refused = writer.append(&[draft(Phase::Event, "")]);
    assert!(
        matches!(refused, Err(AppendError::Poisoned(_))),
        "{refused:?}"
    );
    assert_eq!(row("unlink").ours, Said::Refused);
}

/// Starts this test program again as the writer in `dir`: appends until it is killed or may not, printing what is durable.
fn writer_in(dir: &Path, before: &[&str], count: &str) -> std::process::Command {
    let exe = std::env::current_exe().expect("this program");
    let mut words: Vec<&std::ffi::OsStr> = before.iter().map(std::ffi::OsStr::new).collect();
    words.push(exe.as_os_str());
    let mut child = command(words[0]);
    child
        .args(&words[1..])
        .args([
            "tamper_ours::child_writes",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env("TAMPER_DIR", dir)
        .env("TAMPER_COUNT", count);
    child
}

#[test]
#[ignore = "the writer of the other tests; does nothing by itself"]
fn child_writes() {
    let (Some(dir), Ok(count)) = (
        std::env::var_os("TAMPER_DIR"),
        std::env::var("TAMPER_COUNT"),
    ) else {
        return;
    };
    let dir = LedgerDir::open(Path::new(&dir)).expect("opens");
    let (mut writer, _) = Writer::open(dir, signer(), "host", small()).expect("opens");
    let count: u64 = count.parse().expect("a number");
    for _ in 0..count {
        let out = &mut std::io::stdout();
        match writer.append(&[draft(Phase::Event, "")]) {
            Ok(appended) => writeln!(out, "durable {}", appended[0].height).expect("written"),
            Err(error) => {
                writeln!(out, "refused {error}").expect("written");
                break;
            }
        }
        if writer.head().size.is_multiple_of(16) {
            // Derived; on a full disk it is behind.
            let _ = writer.publish();
        }
    }
}

/// The highest height that was said to be durable.
fn acknowledged(output: &str) -> u64 {
    let heights = output
        .lines()
        .filter_map(|line| line.split("durable ").nth(1)?.trim().parse().ok());
    heights.max().unwrap_or(0)
}

#[test]
fn our_ledger_refuses_what_a_full_disk_cannot_hold_and_keeps_what_it_said_it_kept() {
    let world = World::new();
    let script = "mount -t tmpfs -o size=512k tmpfs \"$TAMPER_DIR\" || exit 77
        \"$@\" || exit 1; cp -a \"$TAMPER_DIR/.\" \"$TAMPER_OUT\"";
    let out = tempfile::tempdir().expect("a directory");
    let before = [
        "unshare",
        "-m",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
    ];
    let mut child = writer_in(world.path(), &before, "100000");
    child.env("TAMPER_OUT", out.path());
    let output = match run(child, Duration::from_secs(120)) {
        Ok(output) => output.stdout,
        Err(error)
            if error.to_string().contains("77") || error.to_string().contains("not permitted") =>
        {
            println!("skipped: mounting a tmpfs in a private namespace is not allowed here");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert!(output.contains("refused "), "{output}");
    copy(out.path(), world.path());
    let report = world.verify();
    let wrong: Vec<_> = report
        .problems
        .iter()
        .filter(|p| p.place.starts_with("seg"))
        .collect();
    assert!(wrong.is_empty(), "{report:?}");
    assert!(
        report.records >= acknowledged(&output) && report.records > 10,
        "{report:?}"
    );
    assert_eq!(row("full").ours, Said::Refused);
}

#[test]
fn our_ledger_keeps_every_acknowledged_record_over_kills() {
    let world = World::new();
    let mut seen = 0;
    for round in 0..12 {
        let limit = Duration::from_millis(round * 23);
        let log = world.path().join("acknowledged");
        let mut child = writer_in(world.path(), &["env"], "1000000");
        child.stdout(std::fs::File::create(&log).expect("a file"));
        let mut child = child.spawn().expect("started");
        // At work for sure, and then at some moment of it.
        let until = std::time::Instant::now() + Duration::from_secs(120);
        let kept = || acknowledged(&std::fs::read_to_string(&log).expect("text"));
        while kept() == 0 {
            assert!(std::time::Instant::now() < until, "it keeps nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(limit);
        child.kill().expect("killed");
        child.wait().expect("reaped");
        seen = acknowledged(&std::fs::read_to_string(&log).expect("text")).max(seen);
    }
    world.open().0.publish().expect("published");
    let report = world.verify();
    assert!(
        report.ok && report.records >= seen && seen > 0,
        "{seen} acknowledged: {report:?}"
    );
    assert_eq!(row("kill").ours, Said::Whole);
}

#[test]
fn our_ledger_keeps_its_order_when_the_clock_is_set_back() {
    const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !Path::new(FAKETIME).exists() {
        println!("skipped: the package faketime is not installed");
        return;
    }
    let world = World::with_batches(2);
    let mut child = writer_in(world.path(), &["env"], "3");
    child.env("LD_PRELOAD", FAKETIME).env("FAKETIME", "-30d");
    let output = run(child, Duration::from_secs(60)).expect("wrote").stdout;
    assert_eq!(acknowledged(&output), 7, "{output}");
    let times: Vec<i64> = world
        .records()
        .iter()
        .map(|record| {
            serde_json::from_slice::<serde_json::Value>(record).expect("JSON")["ts_us"]
                .as_i64()
                .expect("a time")
        })
        .collect();
    assert!(
        times[3] - times[4] > 20 * 86_400_000_000,
        "the clock went back: {times:?}"
    );
    world.open().0.publish().expect("published");
    let report = world.verify();
    assert!(report.ok && report.records == 7, "{report:?}");
    assert_eq!(row("clock").ours, Said::Whole);
}
