//! The ledger at the end: verified as a whole, one receipt proved, the proof checked with nothing but three files.

use std::time::Duration;

use blockhost_proto::layout::ROOT_VARIABLE;
use serde_json::Value;

use super::{Host, Record, ScenarioError, ensure};
use crate::command::run;
use crate::report::Report;
use crate::world::at;

/// What is known of the ledger after it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerFacts {
    /// Number of records.
    pub records: u64,
    /// What `blockhost ledger verify` said.
    pub verified: bool,
    /// Root of the tree, hex.
    pub head: String,
}

const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn check(
    host: &Host,
    record: &Record,
    report: &mut Report,
) -> Result<LedgerFacts, ScenarioError> {
    let world = &host.world;
    let verified = report.step(
        "ledger",
        "every record, hash, signature and block verified",
        || world.run("blockhost", &["ledger", "verify", "--json"], LIMIT),
    )?;
    let verified = parse("verify", &verified.stdout)?;
    let text = |key: &str| {
        let missing = || {
            ScenarioError::Wrong(format!(
                "blockhost ledger verify names no {key}: {verified}"
            ))
        };
        verified[key]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(missing)
    };
    let facts = LedgerFacts {
        records: verified["records"].as_u64().unwrap_or_default(),
        verified: verified["ok"] == true,
        head: text("root")?,
    };
    ensure(facts.verified && facts.records > 0, || {
        format!("the ledger is not good: {verified}")
    })?;
    let head = world.run("blockhost", &["ledger", "head", "--json"], LIMIT)?;
    let head = parse("head", &head.stdout)?;
    ensure(
        head["root"] == facts.head.as_str() && head["records"] == facts.records,
        || format!("the head is {head}, verified was {verified}"),
    )?;
    let height = report.step(
        "ledger",
        "the machine's whole life is in it, intents before outcomes",
        || life(host, record),
    )?;
    let key = text("key")?;
    report.step(
        "ledger",
        "the receipt of its creation is proved and verified offline",
        || offline(host, height, &key),
    )?;
    report.note(&format!("{} records, root {}", facts.records, facts.head));
    Ok(facts)
}

fn parse(what: &str, text: &str) -> Result<Value, ScenarioError> {
    serde_json::from_str(text).map_err(|error| {
        ScenarioError::Wrong(format!(
            "blockhost ledger {what} printed no JSON ({error}): {text}"
        ))
    })
}

/// Finds clone, start, stop and destroy of the machine; each has its intent before its outcome. Answers the height of
/// the clone's outcome.
fn life(host: &Host, record: &Record) -> Result<u64, ScenarioError> {
    let listing = host.world.run(
        "blockhost",
        &["ledger", "list", "-n", "100000", "--json"],
        LIMIT,
    )?;
    let records: Vec<Value> = listing
        .stdout
        .lines()
        .map(|line| parse("list", line))
        .collect::<Result<_, _>>()?;
    let mut created = None;
    for action in ["qm-clone", "qm-start", "qm-destroy"] {
        let found = |phase: &str| {
            records.iter().find(|entry| {
                entry["action"] == action
                    && entry["phase"] == phase
                    && entry["resource"]
                        .as_str()
                        .is_some_and(|resource| resource.contains(&record.vmid.to_string()))
            })
        };
        let (Some(intent), Some(outcome)) = (found("intent"), found("outcome")) else {
            return Err(ScenarioError::Wrong(format!(
                "{action} of {} is not in the ledger",
                record.vmid
            )));
        };
        let height = |entry: &Value| entry["height"].as_u64().unwrap_or_default();
        ensure(height(intent) < height(outcome), || {
            format!("the intent of {action} comes after its outcome")
        })?;
        if action == "qm-clone" {
            created = Some(height(outcome));
        }
    }
    created.ok_or_else(|| ScenarioError::Wrong("the record of the clone has no height".to_owned()))
}

/// Takes the proof and the public key away from the host and verifies them where there is no ledger and no agent.
fn offline(host: &Host, height: u64, key: &str) -> Result<(), ScenarioError> {
    let world = &host.world;
    let elsewhere = world.dir.join("offline");
    at("making", &elsewhere, std::fs::create_dir_all(&elsewhere))?;
    let proof = elsewhere.join("receipt.tlog-proof");
    let text = world
        .run(
            "blockhost",
            &["ledger", "prove", &height.to_string()],
            LIMIT,
        )?
        .stdout;
    at("writing", &proof, std::fs::write(&proof, text))?;
    let path = proof.display().to_string();
    let mut verify = world.as_blockhost(
        "blockhost",
        &["ledger", "verify-proof", &path, "--key", key, "--json"],
    );
    verify.env(ROOT_VARIABLE, &elsewhere);
    let answer = world.keep_log("blockhost", run(verify, LIMIT))?;
    let answer = parse("verify-proof", &answer.stdout)?;
    ensure(answer["ok"] == true && answer["height"] == height, || {
        format!("the proof of record {height} says {answer}")
    })
}
