//! Exports as somebody who only knows C2SP tlog-tiles would read them: complete, grown step by step, killed in between,
//! and refused where they would hide something.

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::export::{
    ExportError, Exported, read_entries, read_tile, to_blocks, to_c2sp, to_jsonl,
};
use blockhost_ledger::failpoint;
use blockhost_ledger::merkle::{Hash, leaf_hash, root_from_inclusion};
use blockhost_ledger::reader::Reader;
use blockhost_ledger::record::Phase;
use blockhost_ledger::tiles::{self, TileTree};
use common::{World, draft, signer};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

/// Adds records in batches of up to 200.
fn grow(world: &World, count: usize) {
    let (mut writer, _) = world.open();
    let mut left = count;
    while left > 0 {
        let batch: Vec<_> = (0..left.min(200))
            .map(|i| draft(Phase::Event, &format!("op{left}.{i}")))
            .collect();
        left -= batch.len();
        writer.append(&batch).expect("appended");
    }
    writer.publish().expect("published");
}

fn reader(world: &World) -> Reader {
    Reader::open(LedgerDir::open(world.path()).expect("opens"), None).expect("reads")
}

fn export(world: &World, to: &Path) -> Result<Exported, ExportError> {
    let target = LedgerDir::open(to).expect("opens");
    to_c2sp(&reader(world), &target, None, &mut |_, _| {})
}

/// All files below a directory by path.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut out, mut dirs) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("lists") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path
                    .strip_prefix(root)
                    .expect("below")
                    .display()
                    .to_string();
                out.insert(name, std::fs::read(&path).expect("read"));
            }
        }
    }
    out
}

/// What a client does: opens the checkpoint, then takes every tile and bundle from the directory and compares.
fn check(dir: &Path) -> u64 {
    let note = std::fs::read_to_string(dir.join("checkpoint")).expect("a checkpoint");
    let head = signer().vkey().open(&note).expect("signed");
    let exported = LedgerDir::open(dir).expect("opens");
    let mut tree = TileTree::new(head.size, |tile| read_tile(&exported, tile));
    assert_eq!(tree.root(head.size).expect("tiles"), head.root);
    for index in (0..head.size).step_by(37).chain([head.size - 1]) {
        let tile = tiles::Tile::at(0, index / 256, head.size).expect("in the tree");
        let records = read_entries(&exported, tile).expect("a bundle");
        let leaf: Hash = leaf_hash(&records[usize::try_from(index % 256).expect("small")]);
        let path = tree.inclusion(index).expect("tiles");
        assert_eq!(
            root_from_inclusion(&leaf, index, head.size, &path),
            Some(head.root),
            "{index}"
        );
    }
    // Above the leaves, too, nothing is missing.
    for tile in tiles::added(0, head.size) {
        read_tile(&exported, tile).expect("every tile of the tree is there");
    }
    head.size
}

#[test]
fn an_export_that_grew_step_by_step_is_what_a_new_one_would_be() {
    let (world, grown) = (World::new(), tempfile::tempdir().expect("temp dir"));
    let mut before = 0;
    for count in [1, 100, 155, 1, 300, 0, 700] {
        grow(&world, count);
        let done = export(&world, grown.path()).expect("exported");
        before += count as u64;
        assert_eq!((done.records, done.new_records), (before, count as u64));
        assert_eq!(done.files == 0, count == 0, "{done:?}");
        assert_eq!(check(grown.path()), before);
        let fresh = tempfile::tempdir().expect("temp dir");
        export(&world, fresh.path()).expect("exported");
        let (have, want) = (files(grown.path()), files(fresh.path()));
        for (name, bytes) in &want {
            assert_eq!(have.get(name), Some(bytes), "{name}");
        }
        // What is more are partial tiles that earlier checkpoints named, of tiles that are not full yet.
        for name in have.keys().filter(|name| !want.contains_key(*name)) {
            let (full, _) = name
                .split_once(".p/")
                .unwrap_or_else(|| panic!("{name} is too many"));
            assert!(
                !want.contains_key(full),
                "{name} is still there beside {full}"
            );
        }
    }
}

#[test]
fn a_ledger_whose_segments_were_sealed_exports_the_same_and_goes_on_from_before() {
    let world = World::new();
    let options = blockhost_ledger::writer::Options {
        segment_records: 300,
        ..common::small()
    };
    let dir = LedgerDir::open(world.path()).expect("opens");
    let (mut writer, _) =
        blockhost_ledger::writer::Writer::open(dir, signer(), "host", options).expect("opens");
    let batch: Vec<_> = (0..50)
        .map(|i| draft(Phase::Event, &format!("op{i}")))
        .collect();
    let append = |writer: &mut blockhost_ledger::writer::Writer, times| {
        for _ in 0..times {
            writer.append(&batch).expect("appended");
        }
        writer.publish().expect("published");
    };
    let (early, late) = (
        tempfile::tempdir().expect("temp dir"),
        tempfile::tempdir().expect("temp dir"),
    );
    append(&mut writer, 9);
    export(&world, early.path()).expect("exported");
    append(&mut writer, 5);
    while writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
    assert!(world.path().join("seg/000000000300.zst").exists());
    let done = export(&world, early.path()).expect("exported");
    assert_eq!((done.records, done.new_records), (700, 250));
    assert_eq!(check(early.path()), 700);
    export(&world, late.path()).expect("exported");
    for (name, bytes) in files(late.path()) {
        let found = std::fs::read(early.path().join(&name)).ok();
        assert!(found == Some(bytes), "{name}");
    }
}

#[test]
fn a_shorter_or_another_history_is_refused_and_the_export_left_alone() {
    let (world, dir) = (
        World::with_batches(4),
        tempfile::tempdir().expect("temp dir"),
    );
    export(&world, dir.path()).expect("exported");
    let before = files(dir.path());
    let shorter = World::with_batches(3);
    let refused = export(&shorter, dir.path());
    assert!(
        matches!(
            refused,
            Err(ExportError::Shorter {
                exported: 8,
                records: 6
            })
        ),
        "{refused:?}"
    );
    let other = World::new();
    grow(&other, 300);
    let refused = export(&other, dir.path());
    assert!(
        matches!(refused, Err(ExportError::Foreign { exported: 8 })),
        "{refused:?}"
    );
    assert_eq!(files(dir.path()), before);
    std::fs::write(dir.path().join("checkpoint"), "no checkpoint").expect("write");
    assert!(matches!(
        export(&world, dir.path()),
        Err(ExportError::Checkpoint(_))
    ));
}

#[test]
fn links_in_the_directory_are_not_followed() {
    let world = World::with_batches(2);
    let (dir, elsewhere) = (
        tempfile::tempdir().expect("temp dir"),
        tempfile::tempdir().expect("temp dir"),
    );
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("tile")).expect("linked");
    assert!(matches!(
        export(&world, dir.path()),
        Err(ExportError::File(_))
    ));
    assert!(files(elsewhere.path()).is_empty());
    assert!(!dir.path().join("checkpoint").exists());
}

#[test]
fn files_have_the_rights_of_the_directory_they_are_in() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::with_batches(2);
    for (dir_mode, file_mode) in [(0o755, 0o644), (0o750, 0o640), (0o700, 0o600)] {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(dir_mode)).expect("owner");
        export(&world, dir.path()).expect("exported");
        let mode = |path: &str| {
            std::fs::metadata(dir.path().join(path))
                .expect("exists")
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!((mode("tile"), mode("tile/entries")), (dir_mode, dir_mode));
        assert_eq!(
            (mode("tile/0/000.p/4"), mode("checkpoint")),
            (file_mode, file_mode)
        );
    }
}

#[test]
fn at_every_step_of_an_export_the_old_log_is_whole_to_clients_and_the_export_goes_on() {
    let (world, dir, done) = (
        World::new(),
        tempfile::tempdir().expect("temp dir"),
        tempfile::tempdir().expect("temp dir"),
    );
    grow(&world, 300);
    export(&world, dir.path()).expect("exported");
    grow(&world, 700);
    export(&world, done.path()).expect("exported");
    let mut new = files(done.path());
    new.remove("checkpoint").expect("a checkpoint");
    // Every file that is added, then every partial one that goes, while the old checkpoint still stands.
    for (name, bytes) in &new {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(path, bytes).expect("written");
        assert_eq!(check(dir.path()), 300, "{name} was added");
    }
    for full in ["tile/0/001", "tile/entries/001"] {
        for gone in [format!("{full}.p/44"), format!("{full}.p")] {
            let path = dir.path().join(&gone);
            if path.is_dir() {
                std::fs::remove_dir(path).expect("removed");
            } else {
                std::fs::remove_file(path).expect("removed");
            }
            assert_eq!(check(dir.path()), 300, "{gone} was removed");
        }
    }
    export(&world, dir.path()).expect("exported");
    assert_eq!(check(dir.path()), 1000);
}

/// Not a test of its own: the program that is killed below.
#[test]
fn child_exports_until_killed() {
    let (Some(from), Some(to)) = (
        std::env::var_os("EXPORT_FROM"),
        std::env::var_os("EXPORT_TO"),
    ) else {
        return;
    };
    let reader =
        Reader::open(LedgerDir::open(Path::new(&from)).expect("opens"), None).expect("reads");
    to_c2sp(
        &reader,
        &LedgerDir::open(Path::new(&to)).expect("opens"),
        None,
        &mut |_, _| {},
    )
    .expect("exported");
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test has to kill a process of its own"
)]
fn killed_anywhere_an_export_shows_the_old_log_or_the_new_one_and_goes_on() {
    let (world, dir) = (World::new(), tempfile::tempdir().expect("temp dir"));
    grow(&world, 300);
    export(&world, dir.path()).expect("exported");
    grow(&world, 2000);
    let size = reader(&world).size();
    let program = std::env::current_exe().expect("test program");
    let mut unfinished = 0;
    for round in 0..40_u64 {
        let mut child = std::process::Command::new(&program)
            .args(["--exact", "child_exports_until_killed"])
            .env("EXPORT_FROM", world.path())
            .env("EXPORT_TO", dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("started");
        // Spread over what one takes, from before its first file on; how fast this machine is does not matter.
        std::thread::sleep(std::time::Duration::from_millis(round * 3));
        let _ = child.kill();
        child.wait().expect("reaped");
        let shown = check(dir.path());
        assert!(shown == 300 || shown == size, "{shown}");
        if shown == size {
            break;
        }
        unfinished += 1;
    }
    eprintln!("{unfinished} exports were killed before they were done");
    export(&world, dir.path()).expect("exported");
    assert_eq!(check(dir.path()), size);
    let left = files(dir.path())
        .into_keys()
        .find(|name| name.contains(".new"));
    assert_eq!(left, None, "nothing is left of what was killed");
    let done = export(&world, dir.path()).expect("exported");
    assert_eq!((done.files, done.new_records), (0, 0));
}

#[test]
fn exported_block_files_are_those_of_the_ledger_and_only_changed_ones_are_written() {
    let (world, dir) = (World::new(), tempfile::tempdir().expect("temp dir"));
    grow(&world, 600);
    let target = LedgerDir::open(dir.path()).expect("opens");
    let all = to_blocks(&reader(&world), &target, &mut |_, _| {}).expect("exported");
    assert_eq!((all.files, all.records), (4, 600));
    assert_eq!(files(dir.path()), files(&world.path().join("blockchain")));
    grow(&world, 10);
    let more = to_blocks(&reader(&world), &target, &mut |_, _| {}).expect("exported");
    assert_eq!(more.files, 2, "the open block and the index");
    assert_eq!(files(dir.path()), files(&world.path().join("blockchain")));
}

#[test]
fn lines_are_the_records_with_their_hash() {
    let world = World::with_batches(3);
    let mut out = Vec::new();
    to_jsonl(&reader(&world), &mut out, &mut |_, _| {}).expect("written");
    let text = String::from_utf8(out).expect("text");
    assert_eq!(text.lines().count(), 6);
    for (index, line) in text.lines().enumerate() {
        let mut value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let hash = value
            .as_object_mut()
            .expect("object")
            .remove("hash")
            .expect("has a hash");
        let bytes = blockhost_ledger::jcs::to_record_vec(&value).expect("canonical");
        assert_eq!(hash, blockhost_ledger::merkle::hex(&leaf_hash(&bytes)));
        assert_eq!(bytes, reader(&world).get(index as u64).expect("exists"));
    }
}

/// Not a test of its own: an export that stops in the middle, holding its directory.
#[test]
fn child_holds_the_directory() {
    let (Some(ledger), Some(target)) = (
        std::env::var_os("LEDGER_TEST_DIR"),
        std::env::var_os("LEDGER_TEST_HELD"),
    ) else {
        return;
    };
    failpoint::arm("export-held", "", false);
    let reader = Reader::open(LedgerDir::open(Path::new(&ledger)).expect("opens"), None);
    let target = LedgerDir::open(Path::new(&target)).expect("opens");
    let done = to_c2sp(&reader.expect("reads"), &target, None, &mut |_, _| {});
    panic!("it did not stop: {done:?}");
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test has to kill a process of its own"
)]
fn two_exports_at_once_do_not_mix_the_second_says_who_is_at_it_and_a_killed_one_is_in_nobodys_way()
{
    let world = World::new();
    grow(&world, 600);
    let target = tempfile::tempdir().expect("temp dir");
    let mut child = std::process::Command::new(std::env::current_exe().expect("test program"))
        .args(["--exact", "child_holds_the_directory", "--nocapture"])
        .env("LEDGER_TEST_DIR", world.path())
        .env("LEDGER_TEST_HELD", target.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    assert!(lines.any(|line| line.expect("text").ends_with("export-held reached")));
    let refused = export(&world, target.path()).expect_err("held");
    assert!(matches!(refused, ExportError::Held(_)), "{refused:?}");
    let text = refused.to_string();
    assert!(
        text.contains(&format!("process {} (", child.id())),
        "{text}"
    );
    let dir = || LedgerDir::open(target.path()).expect("opens");
    let blocks = to_blocks(&reader(&world), &dir(), &mut |_, _| {});
    assert!(matches!(blocks, Err(ExportError::Held(_))), "{blocks:?}");
    assert_eq!(files(target.path()).len(), 1, "the lock and nothing else");
    child.kill().expect("killed");
    child.wait().expect("reaped");
    assert_eq!(export(&world, target.path()).expect("goes on").records, 600);
    check(target.path());
    assert!(!target.path().join(".export.lock").exists());
}
