//! Questions with and without the index: the same answers; and what an index that lies, is damaged, foreign, half built
//! or built by several at once can do to them.
#![cfg(feature = "index")]

mod answers;
#[path = "../common/mod.rs"]
mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::index::{Built, Counted, Index, IndexError};
use blockhost_ledger::merkle::leaf_hash;
use blockhost_ledger::query::{
    Answer, Coverage, Filter, Means, Order, Query, QueryError, Resource, Text, run,
};
use blockhost_ledger::reader::Reader;
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::writer::Writer;
use common::{World, draft, signer, small};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

/// Drafts with few different values, each of them rare or frequent.
fn varied(n: u64) -> Draft {
    let pick = |words: &[&str], by: u64| {
        words[usize::try_from(by).expect("small") % words.len()].to_owned()
    };
    let phase =
        [Phase::Intent, Phase::Outcome, Phase::Event][usize::try_from(n % 3).expect("small")];
    let mut draft = draft(phase, &format!("op{}", n / 3));
    draft.category = pick(&["compute", "network", "storage"], n / 2);
    draft.plugin_id = pick(&["qm", "net", "event"], n / 5);
    draft.operation = pick(&["create", "modify"], n / 7);
    draft.action = pick(&["qm-create", "net-apply", "odd"], n / 11);
    draft.user = if n % 97 == 5 {
        "rare".into()
    } else {
        "blockhost".into()
    };
    draft.resource = format!("{}:{}", pick(&["vm", "vm2", "v"], n), n % 13);
    draft
        .metadata
        .insert("say".into(), format!("Number \"{n}\"").into());
    draft
}

fn append(writer: &mut Writer, numbers: std::ops::Range<u64>) {
    let drafts: Vec<Draft> = numbers.map(varied).collect();
    for batch in drafts.chunks(100) {
        writer.append(batch).expect("appended");
    }
    writer.publish().expect("published");
}

fn world(records: u64) -> World {
    let world = World::new();
    let (mut writer, _) = world.open();
    append(&mut writer, 0..records);
    world
}

fn reader(world: &World) -> Reader {
    let dir = LedgerDir::open(world.path()).expect("opens");
    Reader::open(dir, Some(signer().vkey().clone())).expect("opens")
}

/// The index's own directory, and its file in there.
fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("index.db");
    (dir, file)
}

fn open(path: &Path, reader: &Reader) -> Index {
    Index::open(path, reader, &mut |_, _| {}).expect("opens")
}

fn ask(reader: &Reader, means: &Means<'_>, query: &Query) -> Result<Answer, QueryError> {
    run(reader, means, query, &mut |_, _| {})
}

fn all(filter: Filter) -> Query {
    Query {
        filter,
        order: Order::Newest,
        limit: usize::MAX,
    }
}

fn heights(answer: &Answer) -> Vec<u64> {
    answer.found.iter().map(|found| found.height).collect()
}

#[test]
fn an_index_of_another_history_is_made_anew() {
    let (_dir, path) = place();
    let long = world(200);
    let seen = reader(&long);
    open(&path, &seen);
    // Cut back to where it was earlier, which is the same history: nothing to do.
    let cut = World::new();
    let other = world(150);
    assert_eq!(
        open(&path, &reader(&other)).built(),
        &Built::Anew("it is of another history")
    );
    assert_eq!(
        open(&path, &seen).built(),
        &Built::Anew("it is of another history")
    );
    assert_eq!(
        open(&path, &reader(&cut)).built(),
        &Built::Current,
        "an empty ledger asks nothing of it"
    );
    // Who opened the ledger before it grew uses the index of who has seen more, up to what he sees.
    let (mut writer, _) = long.open();
    append(&mut writer, 200..260);
    assert_eq!(open(&path, &reader(&long)).built(), &Built::Added(60));
    let index = open(&path, &seen);
    assert_eq!(index.built(), &Built::Current);
    let answer = ask(&seen, &Means::Index(&index), &all(Filter::default())).expect("answers");
    assert_eq!(answer.found.len(), 200);
}

#[test]
fn damaged_foreign_and_old_files_are_made_anew() {
    let world = world(100);
    let reader = reader(&world);
    let (_dir, path) = place();
    open(&path, &reader);
    let good = std::fs::read(&path).expect("read");
    let sql = |sql: &str| {
        let db = rusqlite::Connection::open(&path).expect("opens");
        db.execute_batch(sql).expect("done");
    };
    let truncated = good[..good.len() / 2].to_vec();
    let mut zeroed = good.clone();
    let half = zeroed.len() / 2;
    zeroed[half..].fill(0xff);
    for (bytes, why) in [
        (b"no database at all".repeat(100), "garbage"),
        (Vec::new(), "empty"),
        (truncated, "cut"),
        (zeroed, "overwritten"),
    ] {
        std::fs::write(&path, bytes).expect("written");
        match Index::open(&path, &reader, &mut |_, _| {}) {
            // Pages that nobody looked at while opening: found when they are asked for.
            Ok(index) if index.built() == &Built::Current => {
                let query = all(Filter {
                    op_id: Some("op3".into()),
                    ..Filter::default()
                });
                assert!(
                    matches!(
                        ask(&reader, &Means::Index(&index), &query),
                        Err(QueryError::Index(IndexError::Sqlite { .. }))
                    ),
                    "{why}"
                );
                Index::rebuild(&path, &reader, &mut |_, _| {}).expect("rebuilt");
            }
            Ok(index) => assert_eq!(index.built(), &Built::Anew("damaged"), "{why}"),
            Err(error) => panic!("{why}: {error}"),
        }
        assert!(
            std::fs::read(&path).expect("read") == good,
            "{why}: the same ledger gives the same index"
        );
    }
    for (change, why) in [
        ("PRAGMA user_version = 1", "it is of another version"),
        ("PRAGMA application_id = 2", "damaged"),
        (
            "CREATE TRIGGER t AFTER INSERT ON record BEGIN DELETE FROM record; END",
            "damaged",
        ),
        (
            "ALTER TABLE record RENAME TO r; CREATE VIEW record AS SELECT * FROM r WHERE height > 5",
            "damaged",
        ),
        ("DELETE FROM log", "damaged"),
        ("UPDATE log SET size = -1", "damaged"),
        ("UPDATE log SET leaf = x'00'", "damaged"),
        (
            "UPDATE log SET leaf = zeroblob(32)",
            "it is of another history",
        ),
    ] {
        sql(change);
        assert_eq!(open(&path, &reader).built(), &Built::Anew(why), "{change}");
        assert_eq!(open(&path, &reader).built(), &Built::Current, "{change}");
    }
}

#[test]
fn a_directory_that_others_can_write_to_holds_no_index() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = world(10);
    let reader = reader(&world);
    let (dir, path) = place();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).expect("owner");
    let refused = Index::open(&path, &reader, &mut |_, _| {});
    assert!(
        matches!(refused, Err(IndexError::Shared { .. })),
        "{refused:?}"
    );
    assert!(!path.exists());
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).expect("owner");
    std::os::unix::fs::symlink("/dev/null", dir.path().join("index.db")).expect("linked");
    open(&path, &reader);
    assert!(
        path.symlink_metadata().expect("there").is_file(),
        "a link is replaced, not followed"
    );
    assert_eq!(
        path.metadata().expect("there").permissions().mode() & 0o777,
        0o600
    );
    // One that is there and current, where others could have put it.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).expect("owner");
    let refused = Index::open(&path, &reader, &mut |_, _| {});
    assert!(
        matches!(refused, Err(IndexError::Shared { .. })),
        "{refused:?}"
    );
}

#[test]
fn several_at_once_build_and_use_one_index_while_the_ledger_grows() {
    let world = World::new();
    let (mut writer, _) = world.open();
    append(&mut writer, 0..50);
    let (_dir, path) = place();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|n| {
                let (path, world) = (&path, &world);
                scope.spawn(move || {
                    for round in 0..15 {
                        let reader = reader(world);
                        if n == 0 && round % 5 == 4 {
                            Index::rebuild(path, &reader, &mut |_, _| {}).expect("rebuilt");
                        }
                        let index = open(path, &reader);
                        let query = all(Filter {
                            user: Some("rare".into()),
                            ..Filter::default()
                        });
                        let answer = ask(&reader, &Means::Index(&index), &query).expect("answers");
                        let truth = ask(&reader, &Means::Scan, &query).expect("answers");
                        assert_eq!(answer.found, truth.found);
                    }
                })
            })
            .collect();
        let mut at = 50;
        while workers.iter().any(|worker| !worker.is_finished()) && at < 20_000 {
            append(&mut writer, at..at + 20);
            at += 20;
        }
    });
}

/// Builds the index again and again. Does nothing unless started by the test below.
#[test]
fn child_builds_until_killed() {
    let (Some(dir), Some(path)) = (
        std::env::var_os("LEDGER_TEST_DIR"),
        std::env::var_os("INDEX_TEST_FILE"),
    ) else {
        return;
    };
    let (dir, path) = (PathBuf::from(dir), PathBuf::from(path));
    let (mut writer, _) = Writer::open(
        LedgerDir::open(&dir).expect("opens"),
        signer(),
        "host",
        small(),
    )
    .expect("opens");
    println!("\nstarted");
    for n in 0.. {
        append(&mut writer, n * 30..(n + 1) * 30);
        let reader = Reader::open(LedgerDir::open(&dir).expect("opens"), None).expect("opens");
        if n % 3 == 0 {
            Index::rebuild(&path, &reader, &mut |_, _| {}).expect("rebuilt");
        }
        open(&path, &reader);
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test has to kill a process of its own"
)]
fn a_builder_killed_at_any_time_leaves_an_index_that_is_right_or_made_anew() {
    use std::io::BufRead as _;
    let world = world(100);
    let (_dir, path) = place();
    for round in 0..10_u64 {
        let mut child = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "child_builds_until_killed",
                "--nocapture",
                "--test-threads=1",
            ])
            .env("LEDGER_TEST_DIR", world.path())
            .env("INDEX_TEST_FILE", &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = std::io::BufReader::new(child.stdout.take().expect("piped"))
            .lines()
            .map_while(Result::ok);
        assert!(lines.any(|line| line == "started"));
        std::thread::sleep(std::time::Duration::from_millis(20 + round * 17));
        child.kill().expect("killed");
        child.wait().expect("ended");
        let reader = reader(&world);
        let index = open(&path, &reader);
        let query = all(Filter {
            user: Some("rare".into()),
            ..Filter::default()
        });
        let truth = ask(&reader, &Means::Scan, &query).expect("answers");
        assert_eq!(
            ask(&reader, &Means::Index(&index), &query)
                .expect("answers")
                .found,
            truth.found,
            "round {round}"
        );
    }
}

/// Not a test of speed: prints what `make bench` measures. `cargo test --release -- --ignored --nocapture index_of`
#[test]
#[ignore = "makes a ledger of LEDGER_RECORDS (a million) records"]
fn index_of_a_million_records() {
    let records = std::env::var("LEDGER_RECORDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000_000);
    let world = World::new();
    let (mut writer, _) = world.open();
    let drafts: Vec<Draft> = (0..records).map(varied).collect();
    for batch in drafts.chunks(4096) {
        writer.append(batch).expect("appended");
    }
    let (_dir, path) = place();
    let started = std::time::Instant::now();
    let reader = reader(&world);
    println!("opened {records} records in {:?}", started.elapsed());
    let started = std::time::Instant::now();
    Index::rebuild(&path, &reader, &mut |_, _| {}).expect("rebuilt");
    println!(
        "rebuilt in {:?}, {} bytes",
        started.elapsed(),
        path.metadata().expect("there").len()
    );
    let index = open(&path, &reader);
    for (name, filter) in [
        (
            "user, no limit",
            Filter {
                user: Some("rare".into()),
                ..Filter::default()
            },
        ),
        (
            "op_id",
            Filter {
                op_id: Some("op70".into()),
                ..Filter::default()
            },
        ),
        (
            "resource",
            Filter {
                resource: Some(Resource::parse("vm:7")),
                ..Filter::default()
            },
        ),
        (
            "hash",
            Filter {
                hash: reader.leaf(1234),
                ..Filter::default()
            },
        ),
        (
            "text",
            Filter {
                text: Some(Text::new("\"777777\"", false)),
                ..Filter::default()
            },
        ),
    ] {
        let started = std::time::Instant::now();
        let answer = ask(&reader, &Means::Index(&index), &all(filter.clone())).expect("answers");
        let by_index = started.elapsed();
        let started = std::time::Instant::now();
        let verified = ask(&reader, &Means::Verified, &all(filter)).expect("answers");
        println!(
            "{name}: {} records; index {by_index:?}, verified {:?}",
            answer.found.len(),
            started.elapsed()
        );
        assert_eq!(verified.found, answer.found);
    }
}
