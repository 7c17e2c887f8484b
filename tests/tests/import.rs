//! Block files of an earlier program, imported into the ledger of a real agent.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blockhost_ledger::import::BlockFile;
use blockhost_ledger::merkle::{hex, sha256};
use blockhost_tests::command::{RunError, run};
use blockhost_tests::namespace::test_ran_inside;
use blockhost_tests::world::services::start_agent;
use blockhost_tests::world::{World, built_programs};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(240);

/// A block of three footprints of a container each, behind the block with the hash `previous`; its own hash is its number.
fn block(id: u64, previous: u64) -> String {
    let footprints: Vec<Value> = (0..3)
        .map(|n| {
            let metadata = json!({"plugin": "lxc", "actions": [{"Create": {"resource": format!("{id}0{n}")}}], "token": "t0ps3cret"});
            json!({
                "plugin_id": "lxc", "operation": "apply", "timestamp": 1_729_414_800 + id, "metadata": metadata,
                "data_hash": hex(&sha256(metadata.to_string().as_bytes())),
                "content_hash": hex(&sha256(format!("lxc:apply:{}", 1_729_414_800 + id).as_bytes())),
                "vector_features": [0.123, 0.456],
            })
        })
        .collect();
    let block = json!({"block_id": id, "timestamp": 1_729_414_800, "previous_hash": format!("{previous:064}"),
        "footprints": footprints, "block_hash": format!("{id:064}")});
    block.to_string()
}

/// Imports, as the user `blockhost`; gives the exit code and the report.
fn import(world: &World, blocks: &Path) -> (i32, Value) {
    let blocks = blocks.display().to_string();
    let command = world.as_blockhost("blockhost", &["ledger", "import", &blocks, "--json"]);
    let (code, stdout) = match run(command, Duration::from_secs(60)) {
        Ok(output) => (0, output.stdout),
        Err(RunError::Failed { status, stdout, .. }) => (status.code().unwrap_or(-1), stdout),
        Err(error) => panic!("{error}"),
    };
    (
        code,
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}")),
    )
}

fn imported(world: &World) -> Vec<Value> {
    let dir = blockhost_ledger::dir::LedgerDir::open(&world.layout.ledger()).expect("opens");
    let reader = blockhost_ledger::reader::Reader::open(dir, None).expect("reads");
    let records = reader
        .records(0)
        .map(|item| serde_json::from_slice::<Value>(&item.expect("read").1).expect("JSON"));
    records
        .filter(|record| record["action"] == "footprint-imported")
        .collect()
}

#[test]
fn an_import_may_be_repeated_and_damage_is_left_out() {
    let name = "an_import_may_be_repeated_and_damage_is_left_out";
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    if test_ran_inside(name, &init, LIMIT) {
        return;
    }
    let dir = tempfile::Builder::new()
        .prefix("blockhost-import-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let programs = ["blockhost-root-agent", "blockhost-qm", "blockhost"];
    let world = World::create(dir.path(), &built_programs(), &programs).expect("a world");
    let _agent = start_agent(&world).expect("the agent starts");
    let blocks = world.layout.state().join("old-blocks");
    std::fs::create_dir(&blocks).expect("made");
    let file = |id: u64| blocks.join(format!("block_{id:010}.json"));
    let put = |id: u64, text: &str| std::fs::write(file(id), text).expect("written");
    put(1, &block(1, 0));
    put(2, &block(2, 1).replacen("\"201\"", "\"999\"", 1));
    put(3, &block(3, 2));

    // Somebody else says that a footprint is in already.
    let third = BlockFile::parse(block(3, 2).as_bytes()).expect("a block");
    let claim = json!({"action": "ledger-append", "params": {"category": "compute", "action": "footprint-imported",
        "resource": third.footprints[0].resource(), "data": {}}});
    let mut stream = UnixStream::connect(world.layout.agent_socket()).expect("accepted");
    let body = claim.to_string();
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    stream
        .write_all(&[&length, body.as_bytes()].concat())
        .expect("written");
    let mut header = [0; 4];
    stream.read_exact(&mut header).expect("an answer");

    let (code, report) = import(&world, &blocks);
    assert_eq!(
        (code, &report["imported"], &report["footprints"]),
        (1, &json!(8), &json!(9)),
        "{report}"
    );
    assert_eq!(
        report["files"][1]["damage"].as_array().map(Vec::len),
        Some(1),
        "{report}"
    );
    let (code, report) = import(&world, &blocks);
    assert_eq!(
        (code, &report["imported"], &report["already"]),
        (1, &json!(0), &json!(8)),
        "{report}"
    );
    put(2, &block(2, 1));
    let (code, report) = import(&world, &blocks);
    assert_eq!(
        (code, &report["imported"], &report["already"]),
        (0, &json!(1), &json!(8)),
        "{report}"
    );

    let records = imported(&world);
    let mine: Vec<_> = records
        .iter()
        .filter(|record| record["user"] == "blockhost")
        .collect();
    assert_eq!((records.len(), mine.len()), (10, 9));
    for record in mine {
        assert_eq!(
            (&record["phase"], &record["category"]),
            (&json!("event"), &json!("compute"))
        );
        assert!(!record.to_string().contains("t0ps3cret"), "{record}");
    }
}
