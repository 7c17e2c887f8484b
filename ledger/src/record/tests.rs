//! What is promised of records and drafts, by themselves.

use super::*;

pub(crate) fn draft(phase: Phase, op_id: &str) -> Draft {
    Draft {
        phase,
        op_id: op_id.into(),
        plugin_id: "qm".into(),
        category: "compute".into(),
        operation: "create".into(),
        action: "qm-create".into(),
        resource: "vm:100".into(),
        user: "blockhost".into(),
        uid: 990,
        pid: Some(42),
        exe: None,
        unit: None,
        metadata: Map::new(),
    }
}

fn stamp() -> Stamp<'static> {
    Stamp {
        height: 7,
        prev_hash: &[0xab; 32],
        ts_us: 1_700_000_000_123_456,
        hostname: "h",
    }
}

#[test]
fn bad_names_long_texts_and_floats_are_refused_naming_the_field() {
    let base = draft(Phase::Intent, "op1");
    assert!(matches!(
        Draft {
            op_id: String::new(),
            ..base.clone()
        }
        .check(),
        Err(RecordError::Name { field: "op_id", .. })
    ));
    assert!(
        Draft {
            op_id: String::new(),
            phase: Phase::Event,
            ..base.clone()
        }
        .check()
        .is_ok()
    );
    assert!(matches!(
        Draft {
            action: "a b".into(),
            ..base.clone()
        }
        .check(),
        Err(RecordError::Name {
            field: "action",
            ..
        })
    ));
    assert!(matches!(
        Draft {
            category: "x".repeat(129),
            ..base.clone()
        }
        .check(),
        Err(RecordError::Name {
            field: "category",
            ..
        })
    ));
    assert!(matches!(
        Draft {
            exe: Some("x".repeat(5000)),
            ..base.clone()
        }
        .check(),
        Err(RecordError::Text {
            field: "exe",
            bytes: 5000
        })
    ));
    let mut float = base;
    float.metadata.insert("rate".into(), json!(1.5));
    assert_eq!(
        float
            .check()
            .expect_err("refused")
            .to_string()
            .split(':')
            .nth(1),
        Some(" metadata.rate")
    );
}

#[test]
fn an_outcome_is_recorded_even_when_its_metadata_cannot_be() {
    let mut outcome = draft(Phase::Outcome, "op1");
    outcome.metadata.insert("text".into(), json!("a\u{7f}b"));
    let record: Value =
        serde_json::from_slice(&outcome.encode(&stamp()).expect("recorded")).expect("JSON");
    assert!(
        record["metadata"]["metadata_refused"]
            .as_str()
            .expect("note")
            .starts_with("metadata.text:")
    );
}

#[test]
fn metadata_too_large_for_one_record_is_replaced_by_its_digest() {
    let mut large = draft(Phase::Intent, "op1");
    large
        .metadata
        .insert("text".into(), json!("x".repeat(70_000)));
    let bytes = large.encode(&stamp()).expect("recorded");
    assert!(bytes.len() < 2000);
    let record: Value = serde_json::from_slice(&bytes).expect("JSON");
    let original = jcs::to_record_vec(&Value::Object(large.metadata)).expect("canonical");
    assert_eq!(
        record["metadata"]["metadata_sha256"],
        hex(&sha256(&original))
    );
    assert_eq!(record["metadata"]["metadata_bytes"], original.len());
}

#[test]
fn a_record_has_every_field_and_its_digests_can_be_recomputed() {
    let mut draft = draft(Phase::Intent, "op1");
    draft.metadata.insert("b".into(), json!(1));
    draft.metadata.insert("a".into(), json!({"x": "\u{e9}"}));
    let bytes = draft.encode(&stamp()).expect("recorded");
    let record: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(jcs::to_vec(&record).expect("canonical"), bytes);
    assert_eq!(
        record["data_hash"],
        hex(&sha256("{\"a\":{\"x\":\"\u{e9}\"},\"b\":1}".as_bytes()))
    );
    assert_eq!(
        record["content_hash"],
        hex(&sha256(b"qm:create:1700000000"))
    );
    assert_eq!(record["timestamp"], 1_700_000_000);
    assert_eq!(record["height"], 7);
    assert_eq!(record["v"], 1);
}

#[test]
fn metadata_that_imitates_fields_does_not_mislead_the_readers_of_bytes() {
    let mut draft = draft(Phase::Intent, "real");
    draft.metadata.insert("height".into(), json!(99));
    draft.metadata.insert("prev_hash".into(), json!("00"));
    draft.metadata.insert("phase".into(), json!("outcome"));
    draft.resource = "\"prev_hash\":\"11\",\"height\":5,\"phase\":\"x\"".into();
    draft.action = "z".into();
    draft.exe = Some("\"height\":3".into());
    let bytes = draft.encode(&stamp()).expect("recorded");
    assert_eq!(height_of(&bytes), Some(7));
    assert!(follows(&bytes, &[0xab; 32]));
    assert_eq!(late_text(&bytes, &PHASE_KEY), Some(&b"intent"[..]));
    assert_eq!(late_text(&bytes, &OP_ID_KEY), Some(&b"real"[..]));
}
