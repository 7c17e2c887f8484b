//! Anchoring from end to end: real agent, real engine, real chain. What the agent records is anchored, the anchor is on
//! record, an outage and a kill change nothing about it, and a ledger that is put back is told apart from the chain.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::reader::Reader;
use blockhost_proto::action::Action;
use blockhost_proto::client::blocking::Client;
use blockhost_tests::command::{RunError, run, with_args};
use blockhost_tests::namespace::test_ran_inside;
use blockhost_tests::scenario;
use blockhost_tests::world::services::{Service, start_agent, start_chain, start_engine};
use blockhost_tests::world::{PROGRAMS, World, WorldError, built_programs, possible};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(30);

struct Host {
    world: World,
    agent: Service,
    engine: Service,
    _chain: Service,
    _dir: tempfile::TempDir,
}

impl Host {
    fn open() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("blockhost-anchor-")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        let world = World::create(dir.path(), &built_programs(), PROGRAMS).expect("a world");
        world.network().expect("a bridge");
        let chain = start_chain(&world).expect("the chain starts");
        let agent = start_agent(&world).expect("the agent starts");
        deploy(&world);
        let engine = start_engine(&world).expect("the engine starts");
        Self {
            world,
            agent,
            engine,
            _chain: chain,
            _dir: dir,
        }
    }

    /// So many events through the agent.
    fn events(&self, count: u64) {
        let mut client = Client::connect_layout(&self.world.layout).expect("the agent accepts");
        for n in 0..count {
            let event = json!({"category": "chain", "action": "tested", "data": {"n": n}});
            let append = Action::from_parts("ledger-append", &event).expect("valid");
            client.call(&append).expect("recorded");
        }
    }

    fn records(&self) -> Vec<Value> {
        let directory = LedgerDir::open(&self.world.layout.ledger()).expect("the ledger");
        let reader = Reader::open(directory, None).expect("a readable ledger");
        let records = reader.records(0).map(|record| record.expect("a record").1);
        records
            .map(|bytes| serde_json::from_slice(&bytes).expect("JSON"))
            .collect()
    }

    fn anchor_records(&self) -> Vec<Value> {
        let mut records = self.records();
        records.retain(|record| record["phase"] == "anchor");
        records
    }

    /// `blockhost anchors`: whether it is content, and what it printed.
    fn anchors(&self, verb: &str) -> (bool, Value) {
        let (ok, text) = match self
            .world
            .run("blockhost", &["anchors", verb, "--json"], SHORT)
        {
            Ok(output) => (true, output.stdout),
            Err(WorldError::Run(RunError::Failed { stdout, stderr, .. })) => {
                assert!(!stdout.is_empty(), "{stderr}");
                (false, stdout)
            }
            Err(error) => panic!("{error}"),
        };
        (ok, serde_json::from_str(&text).expect("JSON"))
    }

    fn until(&self, what: &str, ready: impl Fn(&Self) -> bool) {
        let end = Instant::now() + SHORT * 10;
        while !ready(self) {
            assert!(
                Instant::now() < end,
                "{what} did not happen:\n{}",
                self.engine_log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn engine_log(&self) -> String {
        std::fs::read_to_string(self.engine.log()).expect("a log")
    }

    fn restart_engine(&mut self) {
        self.engine = start_engine(&self.world).expect("the engine starts");
    }
}

fn deploy(world: &World) {
    let operator = scenario::owner(world).expect("the operator's key");
    scenario::deploy(world, &operator).expect("contracts");
    let output = world
        .run(
            "blockhost-deploy-contracts",
            &["anchor", "--json"],
            SHORT * 2,
        )
        .expect("deployed");
    let anchor: Value = serde_json::from_str(output.last_line()).expect("JSON");
    let contract = anchor["ledger_anchor_contract"]
        .as_str()
        .expect("an address");
    let etc = world.layout.etc();
    let path = etc.join("web3-defaults.yaml");
    let web3 = std::fs::read_to_string(&path).expect("readable");
    let key = format!("blockchain:\n  ledger_anchor_contract: '{contract}'\n");
    std::fs::write(&path, web3.replacen("blockchain:\n", &key, 1)).expect("written");
    let path = etc.join("blockhost.yaml");
    let host = std::fs::read_to_string(&path).expect("readable");
    let section = "ledger_anchor: {every_records: 10, look_every_s: 1}\n";
    std::fs::write(&path, host + section).expect("written");
}

fn ip(words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    run(with_args("ip", &words), SHORT).expect("ip");
}

fn copy(world: &World, to: &Path) {
    let from = world.layout.ledger();
    let (from, to) = (from.display().to_string(), to.display().to_string());
    run(with_args("cp", &["-a", &from, &to]), SHORT).expect("copied");
}

#[test]
fn what_the_agent_records_is_anchored_whatever_fails_and_a_ledger_that_was_put_back_is_told() {
    const NAME: &str =
        "what_the_agent_records_is_anchored_whatever_fails_and_a_ledger_that_was_put_back_is_told";
    if let Err(reason) = possible(PROGRAMS) {
        println!("skipped: {reason}");
        return;
    }
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    if test_ran_inside(NAME, &init, LIMIT) {
        return;
    }
    let mut host = Host::open();
    let newest = |host: &Host| {
        host.anchors("status").1["newest"]["size"]
            .as_u64()
            .unwrap_or(0)
    };

    // Growth is anchored, and the anchor is on record by the agent's own check.
    // Ten more than that: one that was anchored in the middle of them is followed by another.
    host.events(40);
    host.until("an anchor of thirty records", |host| newest(host) >= 30);
    host.until("its record", |host| {
        let last = host.anchor_records().pop();
        last.is_some_and(|record| record["metadata"]["size"].as_u64() >= Some(30))
    });
    let record = host.anchor_records().pop().expect("the record");
    assert_eq!(
        (&record["action"], &record["user"], &record["plugin_id"]),
        (
            &json!("ledger-anchored"),
            &json!("blockhost"),
            &json!("chain")
        )
    );

    // No network, then network again.
    ip("link set lo down");
    host.events(15);
    host.until("a complaint", |host| {
        host.engine_log().contains("anchoring the ledger")
    });
    ip("link set lo up");
    let size = host.records().len() as u64;
    host.until("an anchor after the outage", |host| {
        newest(host) >= size - 1
    });

    // Killed at any moment, started again.
    for _ in 0..4 {
        host.events(15);
        std::thread::sleep(Duration::from_millis(700));
        host.engine.kill();
        host.restart_engine();
    }
    let size = host.records().len() as u64;
    host.until("an anchor after the kills", |host| {
        newest(host) + 10 >= size
    });
    let (ok, report) = host.anchors("verify");
    assert!(ok, "{report}");
    let verify = host.world.run("blockhost", &["ledger", "verify"], SHORT);
    verify.expect("the ledger is whole");

    // The directory of before is put back while nothing runs.
    let stop = |host: &mut Host| {
        host.engine.stop(SHORT).expect("the engine ends");
        host.agent.stop(SHORT * 2).expect("the agent ends");
    };
    stop(&mut host);
    let old = host.world.layout.root().join("var/old-ledger");
    copy(&host.world, &old);
    host.agent = start_agent(&host.world).expect("the agent starts");
    host.restart_engine();
    host.events(25);
    let size = host.records().len() as u64;
    host.until("one more anchor", |host| newest(host) + 10 >= size);
    stop(&mut host);
    let ledger = host.world.layout.ledger();
    std::fs::rename(&ledger, ledger.with_extension("newer")).expect("moved away");
    std::fs::rename(&old, &ledger).expect("put back");
    let anchored = host.anchors("status").1["newest"].clone();

    host.agent = start_agent(&host.world).expect("the agent cannot know by itself");
    host.restart_engine();
    host.until("the alarm's record", |host| {
        let mut records = host.records().into_iter();
        records.any(|record| record["action"] == "anchor-alarm" && record["user"] == "blockhost")
    });
    assert!(host.engine_log().contains("ALARM"), "{}", host.engine_log());
    let (ok, report) = host.anchors("verify");
    assert!(
        !ok && !report["wrong"].as_array().expect("a list").is_empty(),
        "{report}"
    );
    // Enough for an anchor, if it were the right ledger: longer than what was anchored, too.
    host.events(60);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(
        host.anchors("status").1["newest"],
        anchored,
        "nothing is anchored over it"
    );
    assert!(!host.anchors("verify").0);
    stop(&mut host);
}
