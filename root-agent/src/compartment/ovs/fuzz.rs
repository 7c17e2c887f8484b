//! Fuzz targets of what the switch says: OVSDB's stream and values, OpenFlow's messages and statistics.

use blockhost_proto::fuzz::Target;
use serde_json::Value;

use super::framer::{Framer, Limits};
use super::openflow::message::{Cutter, Message, OfError, bundle_control, hello, message};
use super::openflow::stats::{self, Meaning};
use super::rows::Row;

pub(in crate::compartment) const TARGETS: &[Target] = &[
    Target {
        name: "ovsdb",
        seeds: || {
            ANSWERS
                .iter()
                .map(|text| text.as_bytes().to_vec())
                .collect()
        },
        run: ovsdb,
    },
    Target {
        name: "openflow",
        seeds: openflow_seeds,
        run: openflow,
    },
];

const ANSWERS: &[&str] = &[
    "\x05{\"id\":1,\"result\":[{\"rows\":[{\"_uuid\":[\"uuid\",\"0b1f0f4e-9d2b-4a5a-8f1e-3a1f6c1d2e3f\"],\"name\":\"br0\",\
     \"ports\":[\"set\",[]],\"tag\":7,\"external_ids\":[\"map\",[[\"owner\",\"blockhost\"]]]}]},{\"count\":1}],\"error\":null}\
     {\"id\":\"echo\",\"method\":\"echo\",\"params\":[]}",
    "\x01 {\"id\":2,\"result\":null,\"error\":{\"error\":\"constraint violation\",\"details\":\"a \\\"}{\\\" in a text\"}}",
    "\x70{\"a\":[[[[{\"b\":\"\\\\\"}]]]]}",
];

/// Objects come out the same however the stream is cut; each is balanced; whatever a row holds, reading it is harmless.
fn ovsdb(data: &[u8]) {
    const LIMITS: Limits = Limits {
        bytes: 1000,
        depth: 16,
    };
    fn objects(stream: &[u8], step: usize) -> (Vec<Vec<u8>>, Option<String>) {
        let mut framer = Framer::new(LIMITS);
        let mut out = Vec::new();
        for mut part in stream.chunks(step) {
            loop {
                match framer.next(&mut part) {
                    Ok(Some(object)) => out.push(object),
                    Ok(None) => break,
                    Err(error) => return (out, Some(error.to_string())),
                }
            }
            assert!(part.is_empty());
        }
        (out, None)
    }
    let Some((step, stream)) = data.split_first() else {
        return;
    };
    let one = objects(stream, 1);
    assert_eq!(objects(stream, usize::from(*step).max(1)), one);
    for object in &one.0 {
        assert!(object.len() <= LIMITS.bytes);
        assert!(object.starts_with(b"{") && object.ends_with(b"}"));
        // What a JSON parser reads as one value must not have been two.
        let value = serde_json::from_slice::<Value>(object);
        if let Ok(value) = value {
            walk(&value);
        }
    }
}

fn walk(value: &Value) {
    match value {
        Value::Object(map) => {
            let row = Row(map.clone());
            for column in map.keys() {
                let elements = row.elements(column);
                assert!(row.references(column).len() <= elements.len());
                assert!(row.text(column).is_none() || elements.len() == 1);
                assert!(row.integer(column).is_none() || elements.len() == 1);
                let _ = row.pairs(column).count();
            }
            if let Some(uuid) = row.uuid() {
                assert_eq!(uuid.as_str().len(), 36);
            }
            map.values().for_each(walk);
        }
        Value::Array(list) => list.iter().for_each(walk),
        _ => {}
    }
}

fn openflow_seeds() -> Vec<Vec<u8>> {
    let step = |bytes: Vec<u8>| [&[9], bytes.as_slice()].concat();
    // One flow: table 0, in_port 1, nothing done; one port; one meter with a band.
    let mut flow = vec![0, 64];
    flow.resize(48, 0);
    flow.extend([0, 1, 0, 12, 0x80, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0]);
    let mut port = vec![0, 80];
    port.resize(80, 1);
    let mut meter = vec![0, 24, 0, 5, 0, 0, 0, 1, 0, 1, 0, 16];
    meter.resize(24, 2);
    let mut counters = vec![0, 0, 0, 1, 0, 56];
    counters.resize(56, 0);
    let error = message(1, 3, &[0, 5, 0, 1]).unwrap_or_default();
    let mut list = vec![step(hello(1)), step(error), step(bundle_control(1, 0))];
    for body in [flow, port, meter, counters] {
        list.push(step(message(19, 2, &body).unwrap_or_default()));
    }
    list
}

/// Messages come out the same however the stream is cut; statistics end where they end.
fn openflow(data: &[u8]) {
    fn cut(stream: &[u8], step: usize) -> (Vec<Message>, bool) {
        let mut cutter = Cutter::default();
        let mut out = Vec::new();
        for mut part in stream.chunks(step) {
            loop {
                match cutter.next(&mut part) {
                    Ok(Some(message)) => out.push(message),
                    Ok(None) => break,
                    Err(_) => return (out, false),
                }
            }
        }
        (out, true)
    }
    let Some((step, stream)) = data.split_first() else {
        return;
    };
    let one = cut(stream, 1);
    assert_eq!(cut(stream, usize::from(*step).max(1)), one);
    let mut total = 0;
    for Message { kind, xid, body } in &one.0 {
        let again = message(*kind, *xid, body).unwrap_or_default();
        // The version is not kept; all else is.
        let sent = stream.get(total..total + again.len()).unwrap_or_default();
        assert_eq!(again.get(1..), sent.get(1..));
        total += again.len();
        statistics(body);
    }
    statistics(stream);
}

fn statistics(body: &[u8]) {
    let mut records = 0;
    let _ = stats::flows(body, |flow| {
        records += 1;
        assert!(flow.entry.oxm.len() + flow.entry.instructions.len() <= body.len());
        if let Ok(meaning) = Meaning::read(&flow.entry.oxm) {
            assert_eq!(Meaning::read(&flow.entry.oxm).as_ref(), Ok(&meaning));
        }
        let _ = stats::meter_of(&flow.entry.instructions);
    });
    let _ = stats::ports(body, |_| records += 1);
    let _ = stats::meters(body, |_| records += 1);
    let _ = stats::meter_counters(body, |_| records += 1);
    assert!(records <= body.len(), "more records than bytes");
    if let Some(error) = OfError::read(body) {
        assert!(!error.to_string().contains(char::is_control));
    }
}
