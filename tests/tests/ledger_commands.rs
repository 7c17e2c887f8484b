//! What an operator types about the ledger, with the real command and a real agent: pruning, and giving up what is damaged.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::keys::Signers;
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::writer::{Options, Writer};
use blockhost_tests::command::{RunError, run};
use blockhost_tests::namespace::test_ran_inside;
use blockhost_tests::world::services::{Service, start_agent};
use blockhost_tests::world::{World, built_programs};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(240);
const SEGMENT: u64 = 512;

/// `blockhost ledger ...` as root: exit code, and both outputs.
fn ledger(world: &World, args: &[&str]) -> (i32, String, String) {
    let args = [&["ledger"], args].concat();
    let command = world.as_root("blockhost", &args);
    match run(command, Duration::from_secs(60)) {
        Ok(output) => (0, output.stdout, output.stderr),
        Err(RunError::Failed {
            status,
            stdout,
            stderr,
            ..
        }) => (status.code().unwrap_or(-1), stdout, stderr),
        Err(error) => panic!("{error}"),
    }
}

fn lines(text: &str) -> Vec<Value> {
    let parsed = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {text}"));
    text.lines().map(parsed).collect()
}

fn stop(agent: &mut Service) {
    let status = agent.stop(Duration::from_secs(20)).expect("it ends");
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

/// Three sealed segments and a part of one, written with the agent's key while it is down.
fn lengthen(world: &World) {
    let signers = Signers::load_or_generate(&world.layout.ledger_keys(), "h").expect("the keys");
    let options = Options {
        segment_records: SEGMENT,
        ..Options::default()
    };
    let dir = LedgerDir::open(&world.layout.ledger()).expect("the ledger");
    let (mut writer, _) = Writer::open(dir, signers, "h", options).expect("opens");
    let event = |n: u64| Draft {
        phase: Phase::Event,
        op_id: String::new(),
        plugin_id: "event".to_owned(),
        category: "chain".to_owned(),
        operation: "create".to_owned(),
        action: "x".to_owned(),
        resource: format!("event:{n}"),
        user: "root".to_owned(),
        uid: 0,
        pid: None,
        exe: None,
        unit: None,
        metadata: serde_json::Map::new(),
    };
    let drafts: Vec<Draft> = (writer.head().size..3 * SEGMENT + 100).map(event).collect();
    for batch in drafts.chunks(20) {
        writer.append(batch).expect("appended");
    }
    while writer.wants_sealing() {
        writer.seal_step().expect("sealed");
    }
    writer.publish().expect("published");
}

fn set_aside(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).expect("listed");
    let names = names.map(|entry| entry.expect("entry").file_name());
    names
        .filter(|name| name.as_encoded_bytes().starts_with(b"lost-"))
        .count()
}

#[test]
fn old_payloads_are_pruned_and_a_damaged_end_is_given_up_by_the_words_of_the_manual() {
    let name = "old_payloads_are_pruned_and_a_damaged_end_is_given_up_by_the_words_of_the_manual";
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    if test_ran_inside(name, &init, LIMIT) {
        return;
    }
    let dir = tempfile::Builder::new()
        .prefix("blockhost-ledger-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let programs = ["blockhost-root-agent", "blockhost-qm", "blockhost"];
    let world = World::create(dir.path(), &built_programs(), &programs).expect("a world");
    let mut agent = start_agent(&world).expect("the agent starts");
    stop(&mut agent);
    lengthen(&world);
    let mut agent = start_agent(&world).expect("the agent starts");

    let before = ledger(
        &world,
        &["prune", "--before", "1025", "--dry-run", "--json"],
    );
    let plan = &lines(&before.1)[0];
    assert_eq!(
        (before.0, &plan["records"], &plan["parts"][0]["last"]),
        (0, &json!(1024), &json!(512)),
        "{before:?}"
    );
    let all = ["prune", "--before", "1025", "--reason", "a test"];
    let asked = ledger(&world, &all);
    assert_eq!(asked.0, 2, "there is no terminal to ask on: {asked:?}");
    let young = ledger(&world, &[&all[..], &["--yes"]].concat());
    assert_eq!(young.0, 1, "{young:?}");
    assert!(
        young.2.contains("limits.ledger_retention_days"),
        "{young:?}"
    );
    stop(&mut agent);
    let policy = world.layout.agent_policy();
    let mut text = std::fs::read_to_string(&policy).expect("the policy");
    assert!(!text.contains("\nlimits:"), "{text}");
    text.push_str("\nlimits: {ledger_retention_days: 0}\n");
    std::fs::write(&policy, text).expect("written");
    let mut agent = start_agent(&world).expect("the agent starts");
    let done = ledger(&world, &[&all[..], &["--yes", "--json"]].concat());
    let parts = lines(&done.1);
    let last: Vec<&Value> = parts.iter().map(|part| &part["last"]).collect();
    assert_eq!(
        (done.0, last),
        (0, vec![&json!(512), &json!(1024)]),
        "{done:?}"
    );
    let nothing = ledger(&world, &all);
    assert_eq!((nothing.0, nothing.1.trim()), (0, "nothing to prune"));
    let gone = ledger(&world, &["show", "7"]);
    assert!(gone.0 != 0 && gone.2.contains("pruned"), "{gone:?}");
    assert_eq!(ledger(&world, &["prove", "1030"]).0, 0);
    assert_eq!(ledger(&world, &["verify"]).0, 0);
    stop(&mut agent);

    // The disk loses a bit before the records about the prunings.
    let ledger_dir = world.layout.ledger();
    let log = ledger_dir.join("seg/000000001536.log");
    let mut bytes = std::fs::read(&log).expect("the log");
    bytes[30_000] ^= 1;
    std::fs::write(&log, bytes).expect("written");
    // Its front may answer until the ledger's process has said that it will not open it.
    let shut = run(world.as_root("blockhost-root-agent", &[]), LIMIT);
    assert!(matches!(shut, Err(RunError::Failed { .. })), "{shut:?}");
    let looked = ledger(&world, &["accept-loss", "--json"]);
    let found = &lines(&looked.1)[0];
    assert_eq!(
        (looked.0, &found["damaged"], &found["without_payloads"]),
        (1, &json!(true), &json!(1024)),
        "{looked:?}"
    );
    let size = found["intact"].to_string();
    let root = found["root"].as_str().expect("a root");
    let requests = world.layout.ledger_keys();
    let requests = requests.to_str().expect("a path");
    let words = [
        "accept-loss",
        "--size",
        &size,
        "--root",
        root,
        "--reason",
        "a lost bit",
        "--requests",
        requests,
    ];
    let unsaid = ledger(&world, &[&words[..], &["--yes"]].concat());
    assert_eq!(unsaid.0, 1, "{unsaid:?}");
    assert!(unsaid.2.contains("--without-payloads 1024"), "{unsaid:?}");
    let said = [&words[..], &["--without-payloads", "1024"]].concat();
    assert_eq!(ledger(&world, &said).0, 2, "there is no terminal to ask on");
    assert_eq!(
        set_aside(&ledger_dir.join("seg")),
        0,
        "nothing is changed by asking"
    );
    let published = ledger_dir.join("checkpoint");
    let before = std::fs::read(&published).ok();
    let accepted = ledger(&world, &[&said[..], &["--yes"]].concat());
    assert_eq!(accepted.0, 0, "{accepted:?}");
    let mut agent = start_agent(&world).expect("the agent starts");
    // The head that was published before is set aside, a moment after the front answers; the new one comes last of all that
    // is derived.
    let until = Instant::now() + Duration::from_secs(180);
    let is_new = || std::fs::read(&published).is_ok_and(|now| Some(now) != before);
    while !is_new() {
        assert!(Instant::now() < until, "nothing is published");
        std::thread::sleep(Duration::from_millis(20));
    }
    let verified = ledger(&world, &["verify"]);
    assert_eq!(verified.0, 0, "{verified:?}");
    assert!(
        verified.1.contains("a lost bit") || verified.2.contains("a lost bit"),
        "{verified:?}"
    );
    assert!(set_aside(&ledger_dir.join("seg")) > 0);
    let next = (size.parse::<u64>().expect("a number") + 1).to_string();
    let record = ledger(&world, &["show", &next, "--json"]);
    assert!(record.1.contains("ledger-accept-loss"), "{record:?}");
    let healthy = ledger(&world, &[&said[..], &["--yes"]].concat());
    assert_eq!(healthy.0, 1, "a sound ledger cannot be cut: {healthy:?}");
    stop(&mut agent);
}
