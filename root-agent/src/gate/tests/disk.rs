//! The gate on a disk that is full.

use super::*;

#[test]
fn outcomes_that_find_no_space_are_recorded_when_there_is_some() {
    let Some(small) = SmallDisk::mount("6m") else {
        eprintln!("skipped: no tmpfs can be mounted here");
        return;
    };
    let (mut gate, _neighbours) =
        gate_in(tempfile::tempdir_in(small.place.path()).expect("directory"));
    let action = Action::from_parts("qm-list", &json!({})).expect("valid");
    let failure = Failure::new(ErrorCode::Failed, "x".repeat(1024));
    let begin = |number: u64| {
        let heading = Heading::of(&action, format!("t-{number}"));
        let draft = records::intent(&heading, &ourselves(), &Names::default(), &action, 0);
        (heading, draft)
    };
    let intents: Vec<Draft> = (0..1000).map(|number| begin(number).1).collect();
    gate.writer
        .append(&intents)
        .expect("there is room for these");
    std::fs::write(small.place.path().join("filler"), vec![1; 8 << 20]).expect_err("full");
    for number in 0..1000 {
        let op = Op {
            id: number,
            life: gate.front_life,
            caller: ourselves(),
            heading: begin(number).0,
            role: Role::Vm,
            turn: 0,
            began: Instant::now(),
            limit: GRACE,
            deadline: Instant::now() + GRACE,
        };
        gate.ops.insert(number, op);
        gate.close(number, Err(failure.clone()));
        gate.commit();
    }
    let open = gate.unrecorded.len();
    assert!(open > 0, "the disk was to be full");
    assert!(gate.wait_time(Instant::now()).expect("a time") <= RETRY_EVERY * 2);
    gate.watch_time(Instant::now() + RETRY_EVERY);
    gate.commit();
    assert_eq!(gate.unrecorded.len(), open, "still full, and none is lost");
    std::fs::remove_file(small.place.path().join("filler")).expect("space again");
    gate.watch_time(Instant::now() + RETRY_EVERY * 3);
    gate.commit();
    assert!(gate.unrecorded.is_empty() && gate.batch.is_empty());
    assert_eq!(gate.writer.head().size, 2000, "each intent has its outcome");
}

/// A file system of its own; dropped after what lies in it, it leaves nothing behind.
struct SmallDisk {
    place: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let place = tempfile::tempdir().expect("directory");
        let options = format!("size={size}");
        run(&["mount", "-t", "tmpfs", "-o", &options], place.path()).then_some(Self { place })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(&["umount", "-l"], self.place.path());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test mounts its small disk with the system's program"
)]
fn run(words: &[&str], path: &std::path::Path) -> bool {
    let mut command = std::process::Command::new(words[0]);
    command.args(&words[1..]);
    if words[0] == "mount" {
        command.arg("none");
    }
    command
        .arg(path)
        .status()
        .is_ok_and(|status| status.success())
}
