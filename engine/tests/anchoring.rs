//! The engine's anchoring across real process boundaries: a real chain, ledgers by the real writer, kill -9 around every
//! step, chains and ledgers that go back in time. With the real agent it is in `tests/`.

mod common;

use alloy::providers::DynProvider;
use blockhost_engine::anchor::onchain::LogId;
use blockhost_engine::chain::bindings::LedgerAnchor::{self, LedgerAnchorInstance};
use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::keys::Signer;
use blockhost_ledger::merkle::{Hash, hex};
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::writer::{Options, Writer};
use common::world::World;
use common::{address, program};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const NAME: &str = "h/ledger";

/// A host with a contract to anchor with, and a ledger.
struct Ground {
    world: World,
    contract: LedgerAnchorInstance<DynProvider>,
    writer: Option<Writer>,
}

impl Ground {
    async fn new(settings: &str) -> Option<Self> {
        let world = World::new().await?;
        let contract = LedgerAnchor::deploy(world.anvil.account(2)).await.unwrap();
        world.set_anchor(*contract.address(), settings);
        let mut ground = Self {
            world,
            contract,
            writer: None,
        };
        ground.new_ledger();
        Some(ground)
    }

    fn path(&self) -> PathBuf {
        self.world.layout.ledger()
    }

    /// An empty ledger with a key of its own, under the same name.
    fn new_ledger(&mut self) {
        self.writer = None;
        let _ = std::fs::remove_dir_all(self.path());
        std::fs::create_dir_all(self.path()).unwrap();
        let directory = LedgerDir::open(&self.path()).unwrap();
        let signer = Signer::generate(NAME, 1).unwrap();
        let (writer, _) = Writer::open(directory, signer, "h", Options::default()).unwrap();
        self.writer = Some(writer);
    }

    fn grow(&mut self, records: u64) -> (u64, Hash) {
        let drafts: Vec<Draft> = (0..records)
            .map(|n| draft(Phase::Event, "e", json!({"n": n})))
            .collect();
        self.append(&drafts)
    }

    fn append(&mut self, drafts: &[Draft]) -> (u64, Hash) {
        let writer = self.writer.as_mut().unwrap();
        writer.append(drafts).unwrap();
        writer.publish().unwrap();
        (writer.head().size, writer.head().root)
    }

    /// What the contract knows: size, root, number of anchors.
    async fn anchored(&self) -> (u64, Hash, u64) {
        let id = LogId::new(*self.contract.address(), address(0), NAME);
        let kept = self
            .contract
            .latest(id.owner, id.origin)
            .call()
            .await
            .unwrap();
        (kept.size, kept.root.0, kept.count)
    }

    /// One look of the engine, in a process of its own.
    fn look(&self) -> bool {
        self.world.engine(&["--once"]).wait(LIMIT).success()
    }

    /// `blockhost anchors ...`: exit code and JSON.
    fn judge(&self, verb: &str, more: &[&str]) -> (i32, Value) {
        let done = program(env!("CARGO_BIN_EXE_blockhost"))
            .args(["anchors", verb, "--json"])
            .args(more)
            .env("BLOCKHOST_ROOT", self.world.dir.path())
            .output()
            .unwrap();
        let code = done.status.code().unwrap();
        (
            code,
            serde_json::from_slice(&done.stdout).unwrap_or_default(),
        )
    }
}

fn draft(phase: Phase, action: &str, metadata: Value) -> Draft {
    let metadata: Map<String, Value> = serde_json::from_value(metadata).unwrap();
    Draft {
        phase,
        op_id: String::new(),
        plugin_id: "chain".into(),
        category: "chain".into(),
        operation: "create".into(),
        action: action.into(),
        resource: "r".into(),
        user: "u".into(),
        uid: 1,
        pid: None,
        exe: None,
        unit: None,
        metadata,
    }
}

fn copy(from: &Path, to: &Path) {
    let done = program("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_is_anchored_when_enough_is_new_and_a_confirmed_anchor_is_put_on_record_once() {
    let Some(mut ground) = Ground::new("every_records: 5").await else {
        return;
    };
    assert!(ground.look(), "an empty ledger: {}", ground.world.log());
    assert_eq!(ground.anchored().await.2, 0);
    let first = ground.grow(3);
    assert!(ground.look(), "{}", ground.world.log());
    assert_eq!(ground.anchored().await, (first.0, first.1, 1));
    // Four and the anchor's own record are new: too few.
    ground.grow(5);
    assert!(ground.look(), "{}", ground.world.log());
    assert_eq!(ground.anchored().await.2, 1);
    let event = ground.world.recorded_events().pop().unwrap();
    assert_eq!(
        (
            &event["action"],
            &event["size"],
            &event["root"],
            &event["head_size"]
        ),
        (
            &json!("ledger-anchored"),
            &json!(3),
            &json!(hex(&first.1)),
            &json!(8)
        )
    );
    let second = ground.grow(1);
    // In the file, and nobody knows whether on the disk: not published, so not anchored.
    let late = draft(Phase::Event, "late", json!({}));
    ground.writer.as_mut().unwrap().append(&[late]).unwrap();
    assert!(ground.look(), "{}", ground.world.log());
    assert_eq!(ground.anchored().await, (second.0, second.1, 2));

    let (code, report) = ground.judge("verify", &[]);
    assert_eq!(
        (code, &report["ok"], &report["checked"]),
        (0, &json!(true), &json!(2))
    );
    let (code, report) = ground.judge("status", &[]);
    assert_eq!(
        (code, &report["newest"]["size"], &report["records"]),
        (0, &json!(9), &json!(10))
    );
    // A judge elsewhere, with a copy and without our configuration.
    let elsewhere = tempfile::tempdir().unwrap();
    copy(&ground.path(), &elsewhere.path().join("copy"));
    let done = program(env!("CARGO_BIN_EXE_blockhost"))
        .args([
            "anchors",
            "verify",
            "--chain-id",
            "31337",
            "--rpc-url",
            &ground.world.anvil.url,
        ])
        .args(["--contract", &ground.contract.address().to_string()])
        .args(["--owner", &address(0).to_string()])
        .arg("--dir")
        .arg(elsewhere.path().join("copy"))
        .env("BLOCKHOST_ROOT", elsewhere.path())
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8(done.stderr).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_killed_around_any_step_anchors_each_head_exactly_once() {
    let Some(mut ground) = Ground::new("every_records: 1").await else {
        return;
    };
    let mut expected = 0;
    for at in [
        "rpc:eth_call:before",
        "rpc:eth_estimateGas:after",
        "rpc:eth_sendRawTransaction:before",
        "rpc:eth_sendRawTransaction:after",
        "rpc:eth_getTransactionReceipt:before",
        "rpc:eth_getTransactionReceipt:after",
        "rpc:eth_getLogs:after",
        "ledger:before",
        "ledger:after",
    ] {
        let head = ground.grow(3);
        expected += 1;
        ground.world.crash_once(at);
        for _ in 0..2 {
            if !ground.world.has_crashed() {
                ground.look();
            }
        }
        assert!(ground.world.has_crashed(), "{at}: {}", ground.world.log());
        assert!(ground.look(), "{at}: {}", ground.world.log());
        assert_eq!(ground.anchored().await, (head.0, head.1, expected), "{at}");
        assert!(ground.look(), "{at}: {}", ground.world.log());
        assert_eq!(
            ground.anchored().await.2,
            expected,
            "{at}: and once is enough"
        );
    }
    let (code, report) = ground.judge("verify", &[]);
    assert_eq!((code, &report["checked"]), (0, &json!(expected)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_was_put_back_or_rewritten_raises_the_alarm_and_is_not_anchored() {
    let Some(mut ground) = Ground::new("every_records: 1").await else {
        return;
    };
    ground.grow(4);
    let old = ground.world.dir.path().join("old");
    copy(&ground.path(), &old);
    let head = ground.grow(4);
    assert!(ground.look(), "{}", ground.world.log());
    let anchored = (head.0, head.1, 1);
    assert_eq!(ground.anchored().await, anchored);

    // The directory of before, complete and consistent in itself.
    ground.writer = None;
    let new = ground.world.dir.path().join("new");
    std::fs::rename(ground.path(), &new).unwrap();
    copy(&old, &ground.path());
    assert!(ground.look(), "an alarm is no failure of the engine");
    assert_eq!(ground.anchored().await, anchored);
    let log = ground.world.log();
    assert!(
        log.contains("ALARM") && log.contains("8 were anchored"),
        "{log}"
    );
    let stands = |ground: &Ground| {
        let status = ground.world.operator(&["status", "--json"]);
        status.contains("ALARM since")
    };
    assert!(stands(&ground));
    let event = ground.world.recorded_events().pop().unwrap();
    assert_eq!(event["action"], "anchor-alarm");
    let (code, report) = ground.judge("verify", &[]);
    assert_eq!((code, &report["ok"]), (1, &json!(false)), "{report}");

    // Another history, as long and longer, under the same name.
    for more in [8, 12] {
        ground.new_ledger();
        ground.grow(more);
        assert!(ground.look(), "{}", ground.world.log());
        assert_eq!(
            ground.anchored().await,
            anchored,
            "nothing is anchored over it"
        );
        assert!(ground.world.log().contains("was rewritten"));
        assert_eq!(ground.judge("verify", &[]).0, 1);
        assert_eq!(ground.judge("status", &[]).0, 1);
    }

    // The right one again.
    ground.writer = None;
    std::fs::remove_dir_all(ground.path()).unwrap();
    std::fs::rename(&new, ground.path()).unwrap();
    assert!(ground.look(), "{}", ground.world.log());
    assert_eq!(ground.judge("verify", &[]).0, 0);
    assert!(!stands(&ground));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_forgot_a_confirmed_anchor_is_waited_for_and_not_paid_again() {
    let Some(mut ground) = Ground::new("every_records: 1").await else {
        return;
    };
    let before = ground.world.anvil.ask("evm_snapshot", json!([])).await;
    let head = ground.grow(3);
    assert!(ground.look(), "{}", ground.world.log());
    assert_eq!(ground.anchored().await.2, 1);
    // What the real agent would have put on record.
    let metadata = json!({"chain_id": 31337, "contract": ground.contract.address().to_string(), "tx": "0x00",
        "block": 1, "size": head.0, "root": hex(&head.1)});
    ground.append(&[draft(Phase::Anchor, "ledger-anchored", metadata)]);
    ground.grow(9);
    assert_eq!(
        ground.world.anvil.ask("evm_revert", json!([before])).await,
        json!(true)
    );
    assert_eq!(ground.anchored().await.2, 0, "the chain forgot");
    assert!(ground.look(), "{}", ground.world.log());
    assert_eq!(ground.anchored().await.2, 0, "and is not believed");
    assert!(
        ground.world.log().contains("waiting for one that does"),
        "{}",
        ground.world.log()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_gas_is_too_dear_the_ledger_waits_and_goes_on_by_itself() {
    let Some(mut ground) = Ground::new("every_records: 1, max_fee_gwei: 20").await else {
        return;
    };
    let dear = json!(["0xba43b7400"]);
    ground
        .world
        .anvil
        .ask("anvil_setNextBlockBaseFeePerGas", dear)
        .await;
    ground.world.anvil.ask("evm_mine", json!([])).await;
    let head = ground.grow(3);
    let _engine = ground.world.engine(&[]);
    until(&ground, "max_fee_gwei").await;
    assert_eq!(ground.anchored().await.2, 0);
    // Blocks without transactions make it cheap again.
    ground.world.anvil.ask("anvil_mine", json!(["0x40"])).await;
    until(&ground, "ledger head anchored on the chain").await;
    assert_eq!(ground.anchored().await, (head.0, head.1, 1));
}

async fn until(ground: &Ground, line: &str) {
    let deadline = Instant::now() + LIMIT;
    while !ground.world.log().contains(line) {
        assert!(Instant::now() < deadline, "{line}: {}", ground.world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
