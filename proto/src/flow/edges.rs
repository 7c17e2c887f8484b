//! The bounds of one request with flows: the last that is taken and the first that is not.

use serde_json::{Value, json};

use super::*;
use crate::value::Param;

fn set(flows: Value) -> Result<FlowSet, String> {
    FlowSet::from_json(&flows).map_err(|error| error.to_string())
}

/// One flow with rows of one column.
fn rows(base: Value, column: &str, count: usize) -> Value {
    let mut flow = base;
    flow["columns"] = json!([column]);
    flow["rows"] = (0..count).map(|n| json!([n])).collect();
    flow
}

#[test]
fn a_set_counts_the_flows_that_it_means() {
    let none = set(json!([])).unwrap();
    assert!(none.is_empty());
    assert_eq!(none.len(), 0);
    let two = set(json!([{"actions": ["drop"]}, {"priority": 5, "actions": ["drop"]}])).unwrap();
    assert!(!two.is_empty() && two.len() == 2 && two.iter().count() == 2);
    let three = set(json!([rows(
        json!({"actions": ["drop"]}),
        "/match/reg0",
        3
    )]))
    .unwrap();
    assert_eq!(three.len(), 3);
    assert_eq!(
        three.to_json().unwrap().as_array().unwrap().len(),
        1,
        "as it was given"
    );
    let twice = set(json!([{"actions": ["drop"]}, {"actions": ["normal"]}])).unwrap_err();
    assert!(twice.contains("flow 1 repeats"), "{twice}");
    assert!(set(json!({})).is_err());
}

#[test]
fn a_request_means_at_most_16384_flows_however_they_are_written() {
    let many = |count| rows(json!({"actions": ["drop"]}), "/match/reg0", count);
    assert_eq!(set(json!([many(16_384)])).unwrap().len(), 16_384);
    assert!(set(json!([many(16_385)])).is_err());
    let more = set(json!([many(16_384), {"actions": ["drop"]}])).unwrap_err();
    assert!(more.contains("more than 16384"), "{more}");
    assert!(set(json!([many(16_383), {"actions": ["drop"]}])).is_ok());
    assert!(set(json!([many(0)])).is_err(), "rows that are none");
}

#[test]
fn a_request_holds_at_most_262144_fields_and_actions() {
    // Each flow counts as its fields, its actions and one.
    let with = |fields: usize| {
        let mut matching = json!({});
        for n in 1..fields {
            matching[format!("reg{n}")] = json!(n);
        }
        set(json!([rows(
            json!({"match": matching, "actions": ["drop"]}),
            "/match/reg0",
            16_384
        )]))
    };
    let actions = set(json!([{"actions": ["drop"]}]))
        .unwrap()
        .iter()
        .next()
        .unwrap()
        .actions
        .len();
    assert!(with(15 - actions).is_ok());
    assert!(with(16 - actions).unwrap_err().contains("262144"));
}

#[test]
fn what_rows_may_cost_to_fill_in_is_bounded() {
    let output = |letters: usize| json!({"output": "a".repeat(letters)});
    let mut actions = vec![output(15); 33];
    actions.extend([output(7), output(8)]);
    let base = json!({"actions": actions, "match": {}});
    assert_eq!(base.to_string().len(), 1024);
    let said = |count| set(json!([rows(base.clone(), "/match/reg0", count)])).unwrap_err();
    // Then it is the next bound that refuses it.
    assert!(said(8192).contains("262144"), "{}", said(8192));
    assert!(said(8193).contains("8 MiB"), "{}", said(8193));
}

#[test]
fn columns_are_one_to_sixteen_distinct_plain_places_that_the_flow_leaves_open() {
    let flow = |columns: Vec<String>, cells: usize| {
        let cells: Vec<usize> = (0..cells).collect();
        set(json!([{"actions": ["drop"], "columns": columns, "rows": [cells]}]))
    };
    let regs = |count: usize| -> Vec<String> {
        let names = (0..16).map(|n| format!("/match/reg{n}"));
        names
            .chain(["/match/pkt_mark".to_owned()])
            .take(count)
            .collect()
    };
    assert!(flow(regs(1), 1).is_ok());
    assert!(flow(regs(16), 16).is_ok());
    assert!(flow(regs(17), 17).unwrap_err().contains("columns"));
    assert!(flow(vec![], 0).unwrap_err().contains("columns"));
    assert!(flow(regs(2), 1).unwrap_err().contains("another length"));
    assert!(flow(regs(2), 3).unwrap_err().contains("another length"));
    let twice = vec!["/match/reg0".to_owned(), "/match/reg0".to_owned()];
    assert!(flow(twice, 2).unwrap_err().contains("columns"));
    for bad in [
        "match/reg0",
        "/match/",
        "reg0",
        "",
        "/match/Reg0",
        "/match/reg~0",
        "/match/reg-0",
        "/nothing/reg0",
        &format!("/match/{}", "a".repeat(58)),
    ] {
        assert!(
            flow(vec![bad.to_owned()], 1)
                .unwrap_err()
                .contains("columns is a list"),
            "{bad}"
        );
    }
    // 64 bytes are a place, though there is no such field.
    let longest = flow(vec![format!("/match/{}", "a".repeat(57))], 1).unwrap_err();
    assert!(!longest.contains("columns is a list"), "{longest}");
    let filled = json!([{"match": {"reg0": 1}, "actions": ["drop"], "columns": ["/match/reg0"], "rows": [[2]]}]);
    assert!(set(filled).unwrap_err().contains("/match/reg0"));
    for incomplete in [
        json!([{"actions": ["drop"], "columns": ["/match/reg0"]}]),
        json!([{"actions": ["drop"], "rows": [[1]]}]),
        json!([{"actions": ["drop"], "columns": "/match/reg0", "rows": [[1]]}]),
        json!([{"actions": ["drop"], "columns": ["/match/reg0"], "rows": [1]}]),
        json!([{"actions": ["drop"], "columns": [1], "rows": [[1]]}]),
    ] {
        assert!(set(incomplete.clone()).is_err(), "{incomplete}");
    }
}
