//! The promises of the features: finite, replayable, bounded, and unmoved by what hostile records hold.

use super::*;
use crate::record::{Draft, Phase, Stamp};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn record(n: u64, user: u32, action: &str, resource: &str, metadata: &Value) -> Vec<u8> {
    let draft = Draft {
        phase: if n.is_multiple_of(2) {
            Phase::Intent
        } else {
            Phase::Outcome
        },
        op_id: format!("op-{}", n / 2),
        plugin_id: "qm".into(),
        category: "compute".into(),
        operation: "create".into(),
        action: action.into(),
        resource: resource.into(),
        user: format!("u{user}"),
        uid: user,
        pid: None,
        exe: None,
        unit: None,
        metadata: metadata.as_object().cloned().unwrap_or_default(),
    };
    let stamp = Stamp {
        height: n + 1,
        prev_hash: &[7; 32],
        ts_us: 1_700_000_000_000_000 + i64::try_from(n).expect("small") * 37_000_000,
        hostname: "h",
    };
    draft.encode(&stamp).expect("a record")
}

fn some(n: u64) -> Vec<u8> {
    let user = u32::try_from(n * 7 % 5).expect("small");
    let resource = format!("vm:{}", 100 + n * 13 % 40);
    record(
        n,
        user,
        ["qm-create", "qm-start", "qm-stop"][(n % 3) as usize],
        &resource,
        &json!({"n": n, "result": "ok"}),
    )
}

#[test]
fn a_replay_from_where_it_must_begin_gives_the_same_numbers() {
    const LENGTH: u64 = 50;
    let mut whole = Generations::<History>::with_length(0, LENGTH);
    let vectors: Vec<Vector> = (0..400).map(|n| whole.push(&some(n))).collect();
    for index in [0, 1, 49, 50, 99, 100, 101, 250, 399] {
        let mut again = Generations::<History>::with_length(index, LENGTH);
        assert!(again.next() <= index && index - again.next() < 2 * LENGTH);
        while again.next() < index {
            let next = again.next();
            again.push(&some(next));
        }
        assert_eq!(
            again.push(&some(index)),
            vectors[usize::try_from(index).expect("small")],
            "record {index}"
        );
    }
}

#[test]
fn the_numbers_of_a_known_history_are_these_on_every_machine() {
    let mut history = Generations::<History>::new(0);
    let mut text = Vec::new();
    for n in 0..3000 {
        history.push(&some(n)).write_json(&mut text);
    }
    let digest = crate::merkle::hex(&crate::merkle::sha256(&text));
    assert_eq!(
        digest,
        "67bb1d7cceee4b181f7d1b3b18d4144b275414ecc18c8f8c441566a9931c476b"
    );
}

#[test]
fn numbers_are_written_shortest_and_read_back_as_the_same_thousandths() {
    let mut vector = Vector([0; FEATURES]);
    vector.0[..8].copy_from_slice(&[1000, -1, 500, -32_767, 32_767, 10, 20_100, -1500]);
    let mut text = Vec::new();
    vector.write_json(&mut text);
    let text = String::from_utf8(text).expect("ASCII");
    assert!(
        text.starts_with("[1,-0.001,0.5,-32.767,32.767,0.01,20.1,-1.5,0,"),
        "{text}"
    );
    let read: Vec<f64> = serde_json::from_str(&text).expect("JSON");
    for (read, written) in read.iter().zip(vector.0) {
        assert!((read * 1000.0 - f64::from(written)).abs() < 1e-6);
    }
}

#[test]
fn only_what_we_write_is_read_as_features() {
    let mut vector = Vector([0; FEATURES]);
    vector.0[..3].copy_from_slice(&[-32_767, 1, 20_100]);
    let mut text = Vec::new();
    vector.write_json(&mut text);
    assert_eq!(Vector::parse_json(&text), Some(vector));
    let text = String::from_utf8(text).expect("ASCII");
    for wrong in [
        text.replace("-32.767", "-33"),
        text.replace("20.1", "20.10"),
        text.replace("20.1", "+20.1"),
        text.replace("0.001", "1e-3"),
        text.replace("0.001", "-0"),
        text.replace("[", "[0,"),
        text.replace(",0]", "]"),
        text.replace(",", ", "),
        String::new(),
        "[".to_owned(),
    ] {
        assert_eq!(Vector::parse_json(wrong.as_bytes()), None, "{wrong}");
    }
}

#[test]
fn a_large_or_wide_record_takes_no_more_memory_than_a_small_one() {
    let mut history = History::default();
    let bytes = history.bytes();
    assert!(bytes < 1 << 20, "{bytes}");
    let wide: Map<String, Value> = (0..10_000).map(|n| (format!("k{n}"), json!(n))).collect();
    let long = format!(
        "{{\"metadata\":{},\"timestamp\":-9223372036854775808}}",
        Value::Object(wide)
    );
    for record in [
        long.clone(),
        "x".repeat(65_000),
        format!("{{\"metadata\":{{\"a\":\"{}\"}}}}", "y".repeat(65_000)),
    ] {
        history.push(&Facts::read(record.as_bytes()));
    }
    assert!(Facts::read(long.as_bytes()).meta.paths.len() <= 64);
    for n in 0..30_000 {
        history.push(&Facts::read(&record(
            n,
            u32::try_from(n).expect("small"),
            &format!("a{n}"),
            &format!("r:{n}"),
            &json!({}),
        )));
    }
    assert_eq!(history.bytes(), bytes);
}

#[test]
fn what_a_user_never_did_stands_out_against_what_that_user_does() {
    let mut history = History::default();
    for n in 0..400 {
        history.push(&Facts::read(&record(
            2 * n,
            1,
            "qm-start",
            "vm:100",
            &json!({}),
        )));
        history.push(&Facts::read(&record(
            2 * n,
            2,
            "qm-destroy",
            "vm:100",
            &json!({}),
        )));
    }
    let usual = history.clone().push(&Facts::read(&record(
        802,
        2,
        "qm-destroy",
        "vm:100",
        &json!({}),
    )));
    let unusual = history.push(&Facts::read(&record(
        802,
        1,
        "qm-destroy",
        "vm:100",
        &json!({}),
    )));
    assert!(
        unusual.0[21] > 4000 && usual.0[21] < 100,
        "{} {}",
        unusual.0[21],
        usual.0[21]
    );
}

#[test]
fn times_that_go_back_or_leave_the_calendar_are_no_matter() {
    let mut history = History::default();
    for time in [i64::MIN, i64::MAX, 0, -1, 1_700_000_000, i64::MIN, 5] {
        let record =
            format!("{{\"operation\":\"delete\",\"phase\":\"intent\",\"timestamp\":{time}}}");
        history.push(&Facts::read(record.as_bytes()));
    }
}

proptest! {
    #[test]
    fn any_bytes_have_features_within_their_range(records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..8)) {
        let mut history = History::default();
        for record in records {
            let vector = history.push(&Facts::read(&record));
            prop_assert!(vector.0.iter().all(|value| *value > i16::MIN));
        }
    }
}
