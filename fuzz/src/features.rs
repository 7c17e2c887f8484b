//! Features of records that anybody may have written, and block files with them.

use blockhost_ledger::anomaly::{Budget, Days, Scorer};
use blockhost_ledger::blocks::{features_in, with_features, without_features};
use blockhost_ledger::features::Generations;
use blockhost_ledger::similar::Operations;
use blockhost_proto::fuzz::Target;

/// The one target.
pub const TARGETS: &[Target] = &[Target {
    name: "ledger_features",
    seeds,
    run,
}];

fn seeds() -> Vec<Vec<u8>> {
    let intent = br#"{"action":"iptables-open","category":"network","exe":"/usr/bin/x","metadata":{"list":[1,null,true],"port":443,"right":{"gid":1,"socket":"lane"},"source":"10.0.0.0/8","tenant":"t"},"op_id":"op-1","operation":"create","phase":"intent","plugin_id":"net","resource":"port:443","timestamp":1700000000,"uid":5,"user":"bob"}"#;
    let outcome = br#"{"action":"iptables-open","metadata":{"code":"failed","duration_us":500,"result":"error"},"op_id":"op-1","operation":"delete","phase":"outcome","plugin_id":"net","resource":"port:444","timestamp":1700000009,"uid":5,"user":"bob"}"#;
    let zeros = ["0"; 64].join(",");
    let line = format!("{{\"a\":1,\"hash\":\"00\",\"vector_features\":[{zeros}]}}");
    vec![
        [&intent[..], b"\n", outcome, b"\n", intent].concat(),
        format!("{{\"footprints\":[\n{line},\n{line}\n]}}\n").into_bytes(),
    ]
}

/// Records are the lines; none ends the program, the numbers stay in their range, and what is said is bounded. As a
/// block file, what was added is taken away again.
fn run(data: &[u8]) {
    let mut scorer = Generations::<Scorer>::new(0);
    let mut operations = Operations::default();
    let mut days = Days::new(Budget {
        per_day: 3,
        least: 1,
    });
    let (mut told, mut last) = (0, None);
    for (index, record) in (0..).zip(data.split(|b| *b == b'\n').take(64)) {
        let (vector, score) = scorer.push(record);
        assert!(vector.0.iter().all(|value| *value > i16::MIN));
        operations.push(index, record, &vector);
        told += days.push(index, score).len();
        last = Some(vector);
    }
    if without_features(data) == data {
        let with = with_features(data, &[last; 300]);
        assert_eq!(without_features(&with), data);
    }
    told += days.end_of_day().len();
    assert!(told <= 3 * 64);
    if let Some(like) = operations.like(63, 5) {
        assert!(like.len() <= 5);
    }
    let _ = features_in(data);
}
