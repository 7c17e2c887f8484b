//! `ledger-anchored` against a real agent: a head is recorded as anchored when it is proved to be one of this ledger's,
//! and never otherwise.

mod common;

use blockhost_ledger::consistency::consistency_proof;
use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::merkle::{Hash, hex, leaf_hash, root_of};
use blockhost_ledger::reader::Reader;
use common::Agent;
use serde_json::{Value, json};

fn claim(leaves: &[Hash], size: usize, root: &Hash) -> Value {
    let proof = consistency_proof(leaves, size).expect("exists");
    let proof: Vec<String> = proof.iter().map(|hash| hex(hash)).collect();
    json!({"action": "ledger-anchored", "params": {"chain_id": 31337, "contract": format!("0x{}", "11".repeat(20)),
        "tx": format!("0x{}", "22".repeat(32)), "block": 7, "size": size, "root": hex(root), "head_size": leaves.len(), "proof": proof}})
}

fn leaves(agent: &Agent) -> Vec<Hash> {
    let reader = Reader::open(
        LedgerDir::open(&agent.world.layout.ledger()).expect("directory"),
        None,
    )
    .expect("the ledger");
    (0..reader.size())
        .map(|index| reader.leaf(index).expect("there"))
        .collect()
}

#[test]
fn a_head_is_on_record_as_anchored_only_when_it_is_proved_to_be_of_this_history() {
    let agent = Agent::start("");
    let mut client = agent.client();
    for n in 0..20 {
        let event = json!({"action": "ledger-append", "params": {"category": "chain", "action": "e", "data": {"n": n}}});
        assert_eq!(client.call(&event)["ok"], true);
    }
    let ours = leaves(&agent);
    let mut theirs = ours.clone();
    theirs[2] = leaf_hash(b"rewritten");
    for request in [
        claim(&ours, 13, &root_of(&theirs[..13])),
        claim(&theirs, 13, &root_of(&theirs[..13])),
        claim(&theirs, ours.len(), &root_of(&theirs)),
        claim(&ours, 13, &root_of(&ours[..12])),
    ] {
        let answer = client.call(&request);
        assert_eq!(answer["code"], "bad_params", "{request} -> {answer}");
    }
    let mut longer = ours.clone();
    longer.extend([[1; 32]; 1000]);
    let ahead = client.call(&claim(&longer, 13, &root_of(&ours[..13])));
    assert_eq!(ahead["code"], "busy", "{ahead}: a head it never had");
    assert!(
        agent.world.records().iter().all(|r| r["phase"] != "anchor"),
        "nothing that was refused is on record"
    );

    let answer = client.call(&claim(&ours, 13, &root_of(&ours[..13])));
    assert_eq!(answer["ok"], true, "{answer}");
    let records = agent.world.records();
    let record = records
        .iter()
        .find(|record| record["phase"] == "anchor")
        .expect("the record");
    assert_eq!(
        (&record["action"], &record["plugin_id"], &record["resource"]),
        (
            &json!("ledger-anchored"),
            &json!("chain"),
            &json!("anchor:13")
        )
    );
    assert_eq!(
        record["metadata"],
        json!({"chain_id": 31337, "contract": "0x1111111111111111111111111111111111111111", "tx": format!("0x{}", "22".repeat(32)),
            "block": 7, "size": 13, "root": hex(&root_of(&ours[..13]))})
    );

    // A head of an earlier life of the agent is as good: the proof, not memory, tells.
    let mut agent = agent;
    assert!(agent.stop().success());
    let agent = Agent::start_in(agent.into_world());
    let now = leaves(&agent);
    let answer = agent.client().call(&claim(&now, 3, &root_of(&now[..3])));
    assert_eq!(answer["ok"], true, "{answer}");
}
