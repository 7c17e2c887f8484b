use std::time::Duration;

use super::*;
use crate::network::confirm::plan::Plan;
use crate::network::confirm::record::Deadline;

fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().expect("a directory");
    let layout = Layout::new(root.path());
    std::fs::create_dir_all(layout.state()).expect("state");
    let store = Store::new(&layout);
    store.create().expect("created");
    (root, store)
}

fn record() -> Record {
    Record::new(Plan::default(), Duration::from_secs(60)).expect("a record")
}

#[test]
fn what_was_noted_is_there_and_a_torn_line_is_not() {
    let (_root, store) = store();
    let record = record();
    let mut journal = store.write(&record).expect("written");
    journal.note(&Note::Started(0)).expect("noted");
    journal.note(&Note::Done(0, Some(7))).expect("noted");
    journal.file.write_all(b"{\"started\":1").expect("torn");
    let known = store.read(Phase::Pending, &record.id).expect("read");
    assert_eq!(known.record, record);
    assert_eq!(known.notes, [Note::Started(0), Note::Done(0, Some(7))]);
    assert!(known.started(0) && !known.started(1));
}

/// A record of about so many bytes.
fn of_size(bytes: usize) -> Record {
    let mut plan = Plan::default();
    plan.notes.push("x".repeat(bytes));
    Record::new(plan, Duration::from_secs(60)).expect("a record")
}

#[test]
fn a_large_policy_has_a_way_back_and_one_without_end_is_refused_before_anything_is_touched() {
    let (_root, store) = store();
    let large = of_size(30 << 20);
    store.write(&large).expect("written");
    let known = store.read(Phase::Pending, &large.id).expect("read");
    assert_eq!(known.record, large);
    let endless = of_size((32 << 20) + 1);
    let refused = store.write(&endless).map(drop);
    assert!(
        matches!(refused, Err(RecordError::Large { .. })),
        "{refused:?}"
    );
    assert!(store.read(Phase::Pending, &endless.id).is_err());
}

#[test]
fn what_somebody_else_could_have_written_is_not_carried_out() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let (root, store) = store();
    let record = record();
    store.write(&record).expect("written");
    let refused = || {
        let read = store.read(Phase::Pending, &record.id);
        matches!(read, Err(RecordError::Trust { .. }))
    };
    assert!(!refused());
    let file = store.file(Phase::Pending, &record.id);
    for (path, open, shut) in [
        (&file, 0o666, 0o600),
        (&store.directory().into(), 0o770, 0o700),
    ] {
        let mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, mode).expect("a mode");
        };
        mode(open);
        assert!(refused(), "{}", path.display());
        mode(shut);
        assert!(!refused());
        if rustix::process::geteuid().is_root() {
            chown(path, Some(65534), None).expect("given away");
            assert!(refused(), "{}", path.display());
            assert_eq!(store.create().is_err(), path != &file);
            chown(path, Some(0), None).expect("taken back");
        }
    }
    // Root acts as whoever the changes belong to, whatever the state around them belongs to.
    if rustix::process::geteuid().is_root() {
        chown(store.directory(), Some(65534), Some(65534)).expect("given away");
        let owner = crate::network::confirm::guard::owner(&Layout::new(root.path()));
        assert_eq!(owner.expect("an owner"), (65534, 65534));
    }
}

#[test]
fn a_record_holds_changes_of_the_network_and_nothing_else() {
    let call = |text: &str| serde_json::from_str::<crate::network::confirm::plan::Call>(text);
    assert!(
        call(r#"{"action": "ovs-del-port", "params": {"bridge": "ovsbr0", "port": "eth0"}}"#)
            .is_ok()
    );
    for other in [
        r#"{"action": "addressbook-save", "params": {"entries": {}}}"#,
        r#"{"action": "qm-stop", "params": {"vmid": 100}}"#,
        r#"{"action": "ledger-rotate-key", "params": {}}"#,
    ] {
        let why = call(other).expect_err(other).to_string();
        assert!(why.contains("no change of the network"), "{why}");
    }
}

#[test]
fn of_two_who_decide_at_the_same_time_one_does() {
    let (_root, store) = store();
    for _ in 0..50 {
        let record = record();
        store.write(&record).expect("written");
        let decide = |to| {
            let (store, id) = (store.clone(), record.id.clone());
            std::thread::spawn(move || store.advance(&id, Phase::Pending, to).expect("rename"))
        };
        let both = [decide(Phase::Confirmed), decide(Phase::Reverting)];
        let won = both.map(|thread| thread.join().expect("a thread"));
        assert_ne!(won[0], won[1]);
        let end = if won[0] {
            Phase::Confirmed
        } else {
            Phase::Reverting
        };
        assert!(store.is(end, &record.id) && !store.is(Phase::Pending, &record.id));
    }
}

#[test]
fn a_note_made_after_somebody_else_moved_the_record_on_does_not_bring_it_back() {
    let (_root, store) = store();
    let record = record();
    let mut journal = store.write(&record).expect("written");
    assert!(
        store
            .advance(&record.id, Phase::Pending, Phase::Reverting)
            .expect("moved")
    );
    journal.note(&Note::Started(3)).expect("noted");
    assert!(!store.is(Phase::Pending, &record.id));
    let known = store.read(Phase::Reverting, &record.id).expect("read");
    assert!(
        known.started(3),
        "whoever reverts sees what was begun last, too"
    );
}

#[test]
fn a_lock_is_held_by_one_and_ends_with_it() {
    let (_root, store) = store();
    let held = store.lock_maker().expect("free");
    assert!(matches!(store.lock_maker(), Err(RecordError::Busy)));
    store.lock_guard().expect("another lock");
    drop(held);
    store.lock_maker().expect("free again");
}

#[tokio::test]
async fn who_is_to_watch_waits_until_the_one_before_has_gone() {
    let (root, store) = store();
    let before = store.lock_guard().expect("free");
    let leaves = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(before);
    };
    let layout = Layout::new(root.path());
    let id = record().id;
    let (watched, ()) = tokio::join!(
        crate::network::confirm::guard::watch(&layout, &id, |_| ()),
        leaves
    );
    let error = watched.expect_err("there is no such change").to_string();
    assert!(!error.contains(&RecordError::Busy.to_string()), "{error}");
    assert!(error.contains(&id), "it looked for its record: {error}");
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_followed() {
    let (root, store) = store();
    let victim = root.path().join("victim");
    std::fs::write(&victim, "untouched").expect("a file");
    std::os::unix::fs::symlink(&victim, store.path("maker.lock")).expect("a link");
    assert!(matches!(store.lock_maker(), Err(RecordError::File { .. })));
    let record = record();
    std::os::unix::fs::symlink(&victim, store.path(format!("draft-{}", record.id)))
        .expect("a link");
    assert!(store.write(&record).is_err());
    assert_eq!(
        std::fs::read_to_string(&victim).expect("there"),
        "untouched"
    );
    assert!(store.open_changes().expect("read").is_empty());
}

#[test]
fn only_records_are_changes_and_leftovers_go() {
    let (_root, store) = store();
    for name in [
        "pending-../../x.json",
        "pending-1234567.json",
        "pending-1234567g.json",
        "confirmed-1234567.json",
        "stuck-.json",
        "draft-12345678",
        "last.json",
    ] {
        let _ = std::fs::write(store.path(name), "{}");
    }
    assert_eq!(store.open_changes().expect("read"), []);
    store.tidy();
    assert!(!store.path("draft-12345678").exists());
    assert!(!is_id("") && !is_id("1234567G") && is_id("0123abcd"));
}

#[test]
fn after_another_start_of_the_machine_no_time_is_left() {
    let mut deadline = Deadline::within(Duration::from_secs(60));
    assert!(deadline.left() > Duration::from_secs(50));
    deadline.boot_id.push('x');
    assert_eq!(deadline.left(), Duration::ZERO);
    deadline.boot_id.clear();
    assert!(
        deadline.left() > Duration::from_secs(50),
        "a sandboxed service wrote it"
    );
}
