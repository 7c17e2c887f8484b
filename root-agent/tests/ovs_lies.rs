//! Peers that lie: a database and a switch that answer with nonsense, too much or nothing cost an error, and neither a panic nor a
//! hang.

mod compartment_world;
mod ovs_world;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::ovs;
use compartment_world::{World, in_namespace};
use serde_json::{Value, json};

fn drop_all() -> Value {
    json!({"bridge": "br0", "owner": "a", "flows": [{"priority": 5, "actions": ["drop"]}]})
}

/// What a lying ovsdb-server does with one connection, having read the first request.
type Lie = (&'static str, fn(&mut UnixStream));

fn write(stream: &mut UnixStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

fn say(stream: &mut UnixStream, bytes: &[u8]) {
    // A peer that has heard enough is no failure of the liar's.
    let _ = stream.write_all(bytes);
}

fn endless(stream: &mut UnixStream, begin: &[u8], piece: &[u8]) {
    let mut on = write(stream, begin);
    while on {
        on = write(stream, piece);
    }
}

const LIES: &[Lie] = &[
    ("closes at once", |_| {}),
    ("says nothing", |s| {
        request(s);
    }),
    ("sends an endless text", |s| {
        endless(s, b"{\"id\":1,\"result\":\"", &[b'x'; 4096])
    }),
    ("sends endless white space", |s| {
        endless(s, b"", &[b' '; 4096])
    }),
    ("sends endless notifications", |s| {
        endless(s, b"", b"{\"method\":\"update\",\"params\":[],\"id\":null}")
    }),
    ("asks endlessly whether we live", |s| {
        endless(s, b"", b"{\"method\":\"echo\",\"params\":[],\"id\":\"e\"}")
    }),
    ("nests endlessly", |s| {
        endless(s, b"{\"id\":1,\"result\":", b"[[[[[[[[")
    }),
    ("nests below the limit of bytes", |s| {
        say(
            s,
            format!(
                "{{\"id\":1,\"result\":{}{}}}",
                "[".repeat(200),
                "]".repeat(200)
            )
            .as_bytes(),
        )
    }),
    ("sends a list", |s| say(s, b"[1,2,3]")),
    ("sends no JSON", |s| {
        say(s, b"HTTP/1.1 400 Bad Request\r\n\r\n")
    }),
    ("sends bytes that are no text", |s| {
        say(s, b"{\"id\":1,\"result\":\"\xff\xfe\"}")
    }),
    ("answers another request", |s| {
        say(s, br#"{"id":7,"result":{},"error":null}"#)
    }),
    ("answers with a float for a number", |s| {
        say(s, br#"{"id":1.0,"result":{},"error":null}"#)
    }),
    ("answers twice", |s| {
        say(
            s,
            br#"{"id":1,"result":{},"error":null}{"id":1,"result":{},"error":null}"#,
        )
    }),
    ("answers with neither result nor error", |s| {
        say(s, br#"{"id":1}"#)
    }),
    ("answers with an error of several lines", |s| {
        say(
            s,
            br#"{"id":1,"result":null,"error":"no\nerror forged: all is well"}"#,
        )
    }),
    ("answers half", |s| {
        say(s, br#"{"id":1,"result":{"tables":{"#)
    }),
    ("knows no tables", |s| {
        say(s, br#"{"id":1,"result":{"tables":{}},"error":null}"#)
    }),
    ("has tables of another kind", |s| {
        say(s, br#"{"id":1,"result":{"tables":[1]},"error":null}"#)
    }),
    ("answers with fewer results", |s| {
        good_schema_then(s, br#"{"id":2,"result":[],"error":null}"#)
    }),
    ("answers with more results", |s| {
        good_schema_then(s, br#"{"id":2,"result":[{},{},{},{},{},{}],"error":null}"#)
    }),
    ("answers with null results", |s| {
        good_schema_then(s, br#"{"id":2,"result":[null,null,null],"error":null}"#)
    }),
    ("fails one operation", |s| {
        good_schema_then(s, br#"{"id":2,"result":[{"rows":[]},{"error":"no","details":"a\u001b[31mlie\n"},null],"error":null}"#)
    }),
    ("fails at the commit", |s| {
        good_schema_then(s, br#"{"id":2,"result":[{"rows":[]},{"rows":[]},{"rows":[]},{"error":"constraint violation"}],"error":null}"#)
    }),
];

fn request(stream: &mut UnixStream) {
    let mut buffer = [0; 65536];
    let _ = stream.read(&mut buffer);
}

fn schema(id: u32) -> Vec<u8> {
    let text = std::fs::read("/usr/share/openvswitch/vswitch.ovsschema").expect("the schema");
    let schema: Value = serde_json::from_slice(&text).expect("JSON");
    json!({"id": id, "result": schema, "error": null})
        .to_string()
        .into_bytes()
}

fn good_schema_then(stream: &mut UnixStream, answer: &[u8]) {
    if write(stream, &schema(1)) {
        request(stream);
        write(stream, answer);
    }
}

/// Serves `count` connections of a socket by `talk`, while `body` runs.
fn while_serving(path: &Path, talk: impl Fn(&mut UnixStream) + Sync, body: impl FnOnce()) {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).expect("a socket");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                stream
                    .set_write_timeout(Some(Duration::from_secs(120)))
                    .expect("a limit");
                let mut first = [0; 65536];
                match stream.read(&mut first) {
                    Ok(4) if &first[..4] == b"stop" => return,
                    _ => talk(&mut stream),
                }
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        let mut stop = UnixStream::connect(path).expect("it listens");
        stop.write_all(b"stop").expect("it hears");
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_connection_with_an_unanswered_request_serves_no_other() {
    if !ovs_world::possible() {
        println!("skipped: needs root and the package openvswitch-switch");
        return;
    }
    in_namespace(
        "a_connection_with_an_unanswered_request_serves_no_other",
        || {
            let world = World::new();
            let handler = world.start(ovs::prepare).expect("an ovs compartment");
            let socket = world.layout.switch_sockets().join("db.sock");
            let lengths = Mutex::new(Vec::new());
            let silent = |stream: &mut UnixStream| {
                say(stream, &schema(1));
                request(stream);
                // The next request, or the end; one that is slow today leaves before it has read all, which resets.
                let length = stream.read(&mut [0; 65536]).unwrap_or(0);
                lengths.lock().expect("a lock").push(length);
            };
            while_serving(&socket, silent, || {
                let soon = Duration::from_millis(400);
                for _ in 0..2 {
                    let failure = world
                        .ask_within(&*handler, "ovs-list", &json!({}), soon)
                        .expect_err("nobody answers");
                    assert_eq!(failure.code, ErrorCode::Timeout, "{}", failure.message);
                }
            });
            assert_eq!(*lengths.lock().expect("a lock"), [0, 0]);
        },
    );
}

#[test]
fn a_database_that_lies_is_an_error_and_neither_a_panic_nor_a_hang() {
    if !ovs_world::possible() {
        println!("skipped: needs root and the package openvswitch-switch");
        return;
    }
    in_namespace(
        "a_database_that_lies_is_an_error_and_neither_a_panic_nor_a_hang",
        || {
            let world = World::new();
            let handler = world.start(ovs::prepare).expect("an ovs compartment");
            let socket = world.layout.switch_sockets().join("db.sock");
            for (what, lie) in LIES {
                while_serving(&socket, lie, || {
                    let soon = Duration::from_millis(700);
                    let failure = world
                        .ask_within(&*handler, "ovs-list", &json!({}), soon)
                        .expect_err(what);
                    println!("{what}: {}", failure.message);
                    assert!(
                        matches!(
                            failure.code,
                            ErrorCode::Failed | ErrorCode::Timeout | ErrorCode::Busy
                        ),
                        "{what}: {}",
                        failure.message
                    );
                    assert!(failure.message.len() < 600, "{what}: {}", failure.message);
                    assert!(
                        failure
                            .message
                            .chars()
                            .all(|c| c == ' ' || c.is_ascii_graphic()),
                        "{what}: {}",
                        failure.message
                    );
                });
            }
        },
    );
}

/// A database with one bridge, and nothing of it true: every operation finds it and succeeds.
fn one_bridge(stream: &mut UnixStream) {
    let mut answer = schema(1);
    let mut buffer = vec![0; 65536];
    while write(stream, &answer) {
        let count = stream.read(&mut buffer).unwrap_or(0);
        let Ok(request) = serde_json::from_slice::<Value>(&buffer[..count]) else {
            return;
        };
        let bridge = json!({"_uuid": ["uuid", "8f0e1b2c-0000-4000-8000-00000000abcd"], "name": "br0", "ports": ["set", [7, "x"]], "external_ids": ["map", "no"]});
        let operations = request["params"].as_array().map_or(0, Vec::len) - 1;
        let results = vec![json!({"rows": [bridge], "count": 1}); operations];
        answer = json!({"id": request["id"], "result": results, "error": null})
            .to_string()
            .into_bytes();
    }
}

fn greeting() -> Vec<u8> {
    vec![5, 0, 0, 8, 0, 0, 0, 1]
}

/// Statistics of flows with this body, as an answer to the second message of a conversation.
fn statistics(flags: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(16 + body.len()).expect("short").to_be_bytes();
    let mut out = vec![
        5, 19, length[0], length[1], 0, 0, 0, 2, 0, 1, 0, flags, 0, 0, 0, 0,
    ];
    out.extend(body);
    out
}

const SWITCH_LIES: &[Lie] = &[
    ("closes at once", |_| {}),
    ("sends a length of zero", |s| {
        say(s, &[5, 0, 0, 0, 0, 0, 0, 1])
    }),
    ("refuses the version", |s| {
        say(s, &[1, 1, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0])
    }),
    ("asks endlessly whether we live", |s| {
        endless(s, b"", &[5, 2, 0, 8, 0, 0, 0, 9])
    }),
    ("sends endless packets", |s| {
        endless(s, &greeting(), &[5, 10, 0, 8, 0, 0, 0, 0])
    }),
    ("tears a flow", |s| {
        after_greeting(s, &statistics(0, &[0, 200, 0, 0]))
    }),
    ("sends a flow of no length", |s| {
        after_greeting(s, &statistics(0, &[0; 64]))
    }),
    ("sends other statistics", |s| {
        after_greeting(s, &[5, 19, 0, 16, 0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0])
    }),
    ("sends endless statistics", |s| {
        if write(s, &greeting()) {
            request(s);
            endless(s, b"", &statistics(1, &[]));
        }
    }),
    ("refuses with a torn error", |s| {
        after_greeting(s, &[5, 1, 0, 9, 0, 0, 0, 2, 0])
    }),
];

fn after_greeting(stream: &mut UnixStream, answer: &[u8]) {
    if write(stream, &greeting()) {
        request(stream);
        write(stream, answer);
        request(stream);
    }
}

#[test]
fn a_switch_that_lies_is_an_error_and_neither_a_panic_nor_a_hang() {
    if !ovs_world::possible() {
        println!("skipped: needs root and the package openvswitch-switch");
        return;
    }
    in_namespace(
        "a_switch_that_lies_is_an_error_and_neither_a_panic_nor_a_hang",
        || {
            let world = World::new();
            let handler = world.start(ovs::prepare).expect("an ovs compartment");
            let directory = world.layout.switch_sockets();
            while_serving(&directory.join("db.sock"), one_bridge, || {
                for (what, lie) in SWITCH_LIES {
                    while_serving(&directory.join("br0.mgmt"), lie, || {
                        let soon = Duration::from_millis(700);
                        let failure = world
                            .ask_within(&*handler, "ovs-set-flows", &drop_all(), soon)
                            .expect_err(what);
                        println!("{what}: {}", failure.message);
                        assert!(
                            matches!(failure.code, ErrorCode::Failed | ErrorCode::Timeout),
                            "{what}: {}",
                            failure.message
                        );
                        assert!(
                            failure.message.contains("vswitchd")
                                || failure.message.contains("the switch"),
                            "{what}: {}",
                            failure.message
                        );
                    });
                }
                drop(handler);
            });
        },
    );
}
