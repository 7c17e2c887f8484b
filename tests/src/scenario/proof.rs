//! The ledger at the end: verified as a whole, one receipt proved, the proof checked with nothing but three files.

use std::time::Duration;

use serde_json::Value;

use super::{Host, Record, ScenarioError, ensure};
use crate::report::Report;
use crate::world::at;

/// What is known of the ledger after it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerFacts {
    /// Number of records.
    pub records: u64,
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
    report.step(
        "ledger",
        "every record, hash, signature and block verified",
        || world.run("blockhost", &["ledger", "verify"], LIMIT),
    )?;
    let head = report.step("ledger", "head is signed", || {
        world.run("blockhost", &["ledger", "head", "--json"], LIMIT)
    })?;
    let head: Value = parse("head", &head.stdout)?;
    let records = head["size"].as_u64().or_else(|| head["tree_size"].as_u64());
    let root = head["root"].as_str().or_else(|| head["root_hash"].as_str());
    let (Some(records), Some(root)) = (records, root) else {
        return Err(ScenarioError::Wrong(format!(
            "blockhost ledger head --json says {head}"
        )));
    };
    let index = report.step(
        "ledger",
        "the machine's whole life is in it, intents before outcomes",
        || life(host, record),
    )?;
    report.step(
        "ledger",
        "the receipt of its creation is proved and verified offline",
        || offline(host, index),
    )?;
    report.note(&format!("{records} records, root {root}"));
    Ok(LedgerFacts {
        records,
        head: root.to_owned(),
    })
}

fn parse(what: &str, text: &str) -> Result<Value, ScenarioError> {
    serde_json::from_str(text).map_err(|error| {
        ScenarioError::Wrong(format!(
            "blockhost ledger {what} printed no JSON ({error}): {text}"
        ))
    })
}

/// Finds clone, start, stop and destroy of the machine; each has its intent before its outcome. Answers the index of
/// the clone's outcome.
fn life(host: &Host, record: &Record) -> Result<u64, ScenarioError> {
    let listing = host
        .world
        .run("blockhost", &["ledger", "list", "--json"], LIMIT)?;
    let records: Vec<Value> = match parse("list", &listing.stdout) {
        Ok(Value::Array(records)) => records,
        _ => listing
            .stdout
            .lines()
            .map(|line| parse("list", line))
            .collect::<Result<_, _>>()?,
    };
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
            created = height(outcome).checked_sub(1);
        }
    }
    created.ok_or_else(|| ScenarioError::Wrong("the record of the clone has no height".to_owned()))
}

/// Takes proof, record and public key away from the host and verifies them with an empty world: no agent, no ledger.
fn offline(host: &Host, index: u64) -> Result<(), ScenarioError> {
    let elsewhere = host.world.dir.join("offline");
    at("making", &elsewhere, std::fs::create_dir_all(&elsewhere))?;
    let proof = elsewhere.join("receipt.tlog-proof");
    let text = host
        .world
        .run("blockhost", &["ledger", "prove", &index.to_string()], LIMIT)?
        .stdout;
    at("writing", &proof, std::fs::write(&proof, text))?;
    let path = proof.display().to_string();
    host.world
        .run("blockhost", &["ledger", "verify-proof", &path], LIMIT)?;
    Ok(())
}
