//! The writer is killed, the disk fills up, two start at once, readers look on: what was acknowledged stays.

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::reader::Reader;
use blockhost_ledger::record::Phase;
use blockhost_ledger::segment::HEADER_BYTES;
use blockhost_ledger::writer::{AppendError, OpenError, Options, Writer};
use common::{World, draft, signer, small};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};

/// Starts one of the `child_*` functions below in a process of its own.
#[expect(
    clippy::disallowed_methods,
    reason = "a test has to kill a process of its own"
)]
fn child(name: &str, dir: &Path, before: &[&str]) -> Child {
    let program = std::env::current_exe().expect("test program");
    let mut command = match before {
        [] => std::process::Command::new(&program),
        [first, rest @ ..] => {
            let mut command = std::process::Command::new(first);
            command.args(rest).arg(&program);
            command
        }
    };
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("LEDGER_TEST_DIR", dir);
    command.stdout(Stdio::piped()).spawn().expect("starts")
}

fn child_dir() -> Option<std::path::PathBuf> {
    std::env::var_os("LEDGER_TEST_DIR").map(Into::into)
}

/// Appends without end and says which heights were acknowledged. Does nothing unless started by [`child`].
#[test]
fn child_appends_until_killed() {
    let Some(dir) = child_dir() else { return };
    let (mut writer, _) = Writer::open(
        LedgerDir::open(&dir).expect("opens"),
        signer(),
        "host",
        small(),
    )
    .expect("opens");
    for n in 0.. {
        let batch: Vec<_> = (0..=n % 5)
            .map(|i| draft(Phase::Intent, &format!("op{n}.{i}")))
            .collect();
        let last = *writer
            .append(&batch)
            .expect("appended")
            .last()
            .expect("has one");
        println!(
            "\nacknowledged {} {}",
            last.height,
            blockhost_ledger::merkle::hex(&last.leaf)
        );
        if n % 7 == 0 {
            writer.publish().expect("published");
        }
    }
}

#[test]
fn every_acknowledged_record_survives_kill_9_again_and_again() {
    let world = World::new();
    let mut reached = 0;
    for round in 0..12_u64 {
        let mut process = child("child_appends_until_killed", world.path(), &[]);
        let lines = BufReader::new(process.stdout.take().expect("piped"))
            .lines()
            .map_while(Result::ok);
        let (mut seen, mut last) = (0, String::new());
        let wanted = 3 + round * 5;
        for line in lines {
            if let Some(acknowledged) = line.strip_prefix("acknowledged ") {
                acknowledged.clone_into(&mut last);
                seen += 1;
                if seen == wanted {
                    process.kill().expect("killed");
                }
            }
        }
        process.wait().expect("reaped");
        let (height, leaf) = last.split_once(' ').expect("something was acknowledged");
        let height: u64 = height.parse().expect("a height");
        let (writer, recovery) = world.open();
        assert!(
            writer.head().size >= height,
            "round {round}: {height} was acknowledged"
        );
        assert!(height > reached && !recovery.open_intents.is_empty());
        drop(writer);
        let reader =
            Reader::open(LedgerDir::open(world.path()).expect("opens"), None).expect("reads");
        assert_eq!(
            blockhost_ledger::merkle::hex(&reader.leaf(height - 1).expect("there")),
            leaf
        );
        let report = world.verify();
        assert!(report.ok, "round {round}: {report:?}");
        reached = height;
    }
}

#[test]
fn a_torn_tail_of_any_length_is_cut_and_recorded() {
    let world = World::with_batches(1);
    let before = world.bytes();
    let (mut writer, _) = world.open();
    writer
        .append(&[draft(Phase::Intent, "late"), draft(Phase::Intent, "later")])
        .expect("appended");
    drop(writer);
    let after = world.bytes();
    let (_, frames) = world.frames();
    let start = usize::try_from(frames[3].0).expect("small");
    let end = usize::try_from(frames[5].0).expect("small") + common::HEAD + frames[5].2.len();
    for kept in (start + 1..end).step_by(61) {
        // Up to `kept` reached the disk, the rest of the write did not.
        let mut torn = before.clone();
        torn.resize(after.len(), 0);
        torn[start..kept].copy_from_slice(&after[start..kept]);
        world.put(&torn);
        let report = world.verify();
        assert!(
            report.ok
                && report.records == 2
                && report
                    .notes
                    .iter()
                    .any(|note| note.contains("behind the last commit"))
        );
        let (writer, recovery) = world.open();
        assert!(recovery.torn_bytes > 0 && recovery.open_intents.is_empty());
        assert_eq!(writer.head().size, 3);
        drop(writer);
        let last: serde_json::Value =
            serde_json::from_slice(world.records().last().expect("one")).expect("JSON");
        assert_eq!(
            (
                last["phase"].as_str(),
                last["metadata"]["kept_records"].as_u64()
            ),
            (Some("recovery"), Some(2))
        );
        assert_eq!(
            world.open().1.torn_bytes,
            0,
            "the second start has nothing to do"
        );
    }
}

#[test]
fn a_sector_that_the_interrupted_write_lost_is_a_crash_and_the_same_two_writes_back_is_not() {
    let world = World::with_batches(1);
    let (mut writer, _) = world.open();
    let many: Vec<_> = (0..6)
        .map(|i| draft(Phase::Intent, &format!("lost{i}")))
        .collect();
    writer.append(&many).expect("appended");
    let one_batch = world.bytes();
    writer.append(&[draft(Phase::Event, "")]).expect("appended");
    drop(writer);
    let two_batches = world.bytes();
    let (_, frames) = world.frames();
    let sector = (usize::try_from(frames[3].0).expect("small") / 512 + 2) * 512;
    let lose = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[sector..sector + 512].fill(0);
        bytes
    };
    world.put(&lose(&two_batches));
    assert!(
        matches!(world.try_open(), Err(OpenError::Damaged(fault)) if fault.why.contains("not a crash"))
    );
    world.put(&lose(&one_batch));
    let (writer, recovery) = world.open();
    assert!(recovery.torn_bytes > 0);
    assert_eq!(writer.head().size, 3);
}

#[test]
fn open_intents_are_those_without_an_outcome() {
    let world = World::new();
    let (mut writer, _) = world.open();
    writer
        .append(&[
            draft(Phase::Intent, "a"),
            draft(Phase::Intent, "b"),
            draft(Phase::Outcome, "a"),
        ])
        .expect("appended");
    drop(writer);
    let (_, recovery) = world.open();
    let open: Vec<_> = recovery
        .open_intents
        .iter()
        .map(|i| (i.op_id.as_str(), i.index, i.action.as_str(), i.uid))
        .collect();
    assert_eq!(open, [("b", 1, "qm-create", 990)]);
}

#[test]
fn a_second_writer_is_refused_while_the_first_lives() {
    let world = World::new();
    let (writer, _) = world.open();
    assert!(matches!(world.try_open(), Err(OpenError::Locked)));
    drop(writer);
    world.open();
}

#[test]
fn a_segment_unlinked_or_replaced_under_the_writer_stops_it() {
    for replace in [false, true] {
        let world = World::with_batches(1);
        let (mut writer, _) = world.open();
        let bytes = world.bytes();
        std::fs::remove_file(world.segment()).expect("removed");
        if replace {
            world.put(&bytes);
        }
        for _ in 0..2 {
            assert!(matches!(
                writer.append(&[draft(Phase::Event, "")]),
                Err(AppendError::Poisoned(_))
            ));
        }
        assert!(writer.poisoned().is_some());
    }
}

#[test]
fn segments_follow_each_other_and_verify_together() {
    let world = World::new();
    let options = Options {
        segment_records: 10,
        ..small()
    };
    let open = || {
        Writer::open(
            LedgerDir::open(world.path()).expect("opens"),
            signer(),
            "host",
            options.clone(),
        )
        .expect("opens")
        .0
    };
    let mut writer = open();
    for n in 0..9 {
        let batch: Vec<_> = (0..4)
            .map(|i| draft(Phase::Event, &format!("e{n}.{i}")))
            .collect();
        writer.append(&batch).expect("appended");
        if n % 3 == 0 {
            drop(writer);
            writer = open();
        }
    }
    writer.publish().expect("published");
    assert!(matches!(
        writer.append(&vec![draft(Phase::Event, ""); 11]),
        Err(AppendError::TooMany { .. })
    ));
    drop(writer);
    let report = world.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.records, report.segments), (36, 4));
    // A new segment that a crash left without content is made again.
    std::fs::write(world.path().join("seg/000000000036.log"), vec![0; 4096]).expect("write");
    assert_eq!(open().head().size, 36);
    // A segment in the middle taken away is no crash.
    std::fs::remove_file(world.path().join("seg/000000000010.log")).expect("removed");
    world.age();
    assert!(world.first_problem().contains("a segment is missing"));
}

/// Fills a small file system. Does nothing unless started by [`child`].
#[test]
fn child_fills_the_disk() {
    let Some(dir) = child_dir() else { return };
    let dir = dir.join("small");
    let open = || {
        Writer::open(
            LedgerDir::open(&dir).expect("opens"),
            signer(),
            "host",
            Options {
                preallocate_bytes: 64 << 10,
                reserve_bytes: 32 << 10,
                ..Options::default()
            },
        )
    };
    let (mut writer, _) = open().expect("opens");
    let mut running = Vec::new();
    let error = loop {
        let op = format!("op{}", running.len());
        match writer.append(&[draft(Phase::Intent, &op)]) {
            Ok(_) => running.push(op),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, AppendError::NoSpace { left, .. } if *left >= 30 << 10),
        "{error}"
    );
    assert!(running.len() > 100, "{}", running.len());
    // New work is refused, what is running can still be finished; nothing is poisoned.
    for op in &running[..10] {
        writer
            .append(&[draft(Phase::Outcome, op)])
            .expect("the reserve is for outcomes");
        let more = writer.append(&[draft(Phase::Intent, "more")]);
        assert!(matches!(more, Err(AppendError::NoSpace { .. })), "{more:?}");
    }
    // The disk is full, so publishing fails; the log is unharmed and opens again.
    let _ = writer.publish();
    drop(writer);
    // Somebody makes space.
    std::fs::remove_file(dir.join("ballast")).expect("removed");
    let (mut writer, recovery) = open().expect("opens");
    assert_eq!(
        (recovery.torn_bytes, recovery.open_intents.len()),
        (0, running.len() - 10)
    );
    writer
        .append(&[draft(Phase::Intent, "more")])
        .expect("there is space again");
    writer.publish().expect("published");
    println!("\nfilled and freed");
}

#[test]
fn a_full_disk_refuses_new_work_and_keeps_room_for_outcomes() {
    let dir = tempfile::tempdir().expect("temp dir");
    std::fs::create_dir(dir.path().join("small")).expect("made");
    let script = "mount -t tmpfs -o size=1536k tmpfs \"$LEDGER_TEST_DIR/small\" || { echo skipped: cannot mount; exit 0; }
        head -c 1048576 /dev/zero > \"$LEDGER_TEST_DIR/small/ballast\"; exec \"$@\"";
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
    let mut process = child("child_fills_the_disk", dir.path(), &before);
    let lines: Vec<_> = BufReader::new(process.stdout.take().expect("piped"))
        .lines()
        .map_while(Result::ok)
        .collect();
    assert!(process.wait().expect("reaped").success(), "{lines:?}");
    if lines
        .iter()
        .any(|line| line.starts_with("skipped") || line.contains("Operation not permitted"))
    {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: mounting a tmpfs in a private namespace is not allowed here"
        );
        return;
    }
    assert!(
        lines.iter().any(|line| line == "filled and freed"),
        "{lines:?}"
    );
}

#[test]
fn readers_beside_a_writer_see_only_whole_batches_and_never_damage() {
    let world = World::new();
    let (mut writer, _) = world.open();
    writer.append(&[draft(Phase::Event, "")]).expect("appended");
    let finished = std::sync::atomic::AtomicBool::new(false);
    let done = &finished;
    std::thread::scope(|scope| {
        let path = world.path();
        let reader = scope.spawn(move || {
            let (mut rounds, mut last) = (0, 0);
            while !done.load(std::sync::atomic::Ordering::Relaxed) || rounds == 0 {
                let reader =
                    Reader::open(LedgerDir::open(path).expect("opens"), None).expect("reads");
                assert!(reader.size() >= last, "the log never shrinks");
                assert_eq!(reader.size() % 3, 1, "half of a batch of three was seen");
                let proof = reader.prove(reader.size() - 1, true).expect("proved");
                blockhost_ledger::proof::verify_proof(&proof, None, signer().vkey())
                    .expect("verifies");
                last = reader.size();
                rounds += 1;
            }
            rounds
        });
        for n in 0..150 {
            let batch: Vec<_> = (0..3)
                .map(|i| draft(Phase::Event, &format!("e{n}.{i}")))
                .collect();
            writer.append(&batch).expect("appended");
            if n % 20 == 0 {
                writer.publish().expect("published");
                assert!(world.verify().ok);
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().expect("reader") > 0);
    });
    assert!(world.bytes().len() as u64 > HEADER_BYTES);
}
