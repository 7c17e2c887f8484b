//! What attaching a port asks of the switch's database, heard between the two: what is ours of the time it takes is the same
//! however many ports there are.

mod compartment_world;
mod ovs_world;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use ovs_world::{Switch, with_switch};
use serde_json::json;

/// What passed since it was looked at last.
#[derive(Debug, Default)]
struct Traffic {
    asked: Vec<u8>,
    answered: usize,
}

/// Requests, and the bytes of both directions.
#[derive(Debug, PartialEq, Eq)]
struct Effort {
    requests: usize,
    asked: usize,
    answered: usize,
}

impl Effort {
    fn of(traffic: Traffic) -> Self {
        let text = String::from_utf8(traffic.asked).expect("JSON");
        Self {
            requests: text.matches(r#""method":"transact""#).count(),
            asked: text.len(),
            answered: traffic.answered,
        }
    }

    /// Numbers and times of waiting have a digit more or less.
    fn is_like(&self, other: &Self) -> bool {
        self.requests == other.requests
            && self.asked.abs_diff(other.asked) < 32
            && self.answered.abs_diff(other.answered) < 32
    }
}

fn carry(mut from: UnixStream, mut to: UnixStream, heard: impl Fn(&[u8])) {
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        // Before it is passed on: who has an answer finds all of it counted.
        heard(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Takes the place of the database's socket; who is connected already stays so.
fn listen_in(socket: &Path) -> Arc<Mutex<Traffic>> {
    let behind = socket.with_file_name("behind.sock");
    std::fs::rename(socket, &behind).expect("another name");
    let listener = UnixListener::bind(socket).expect("a socket");
    let traffic = Arc::new(Mutex::new(Traffic::default()));
    let shared = traffic.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = UnixStream::connect(&behind).expect("the database");
            let ends = (
                client.try_clone().expect("a copy"),
                server.try_clone().expect("a copy"),
            );
            // The switch itself comes here, too.
            let about = rustix::net::sockopt::socket_peercred(&client).expect("a peer");
            let ours = about.pid == rustix::process::getpid();
            let asked = shared.clone();
            std::thread::spawn(move || {
                carry(client, server, |bytes| {
                    if ours {
                        asked.lock().expect("a lock").asked.extend(bytes);
                    }
                });
            });
            let answered = shared.clone();
            std::thread::spawn(move || {
                carry(ends.1, ends.0, |bytes| {
                    if ours {
                        answered.lock().expect("a lock").answered += bytes.len();
                    }
                });
            });
        }
    });
    traffic
}

#[test]
fn attaching_and_detaching_a_port_asks_the_same_however_many_ports_there_are() {
    with_switch(
        "attaching_and_detaching_a_port_asks_the_same_however_many_ports_there_are",
        |switch| {
            let traffic = listen_in(&switch.directory().join("db.sock"));
            switch.bridge("br0");
            let effort = |switch: &Switch, verb: &str, number: u32| {
                drop(std::mem::take(&mut *traffic.lock().expect("a lock")));
                let mut params = json!({"bridge": "br0", "port": format!("in{number}")});
                if verb == "ovs-add-port" {
                    params["kind"] = "internal".into();
                    params["vmid"] = number.into();
                }
                switch.must(verb, &params);
                Effort::of(std::mem::take(&mut *traffic.lock().expect("a lock")))
            };
            let few = ["ovs-add-port", "ovs-add-port", "ovs-del-port"]
                .map(|verb| effort(switch, verb, 100));
            assert_eq!(few[0].requests, 2, "made and waited for: {few:?}");
            // One that is there: refused by the guard, looked at, brought to what is asked, waited for.
            assert_eq!(few[1].requests, 5, "{few:?}");
            assert_eq!(few[2].requests, 4, "{few:?}");
            for number in 200..250 {
                effort(switch, "ovs-add-port", number);
            }
            let many = ["ovs-add-port", "ovs-add-port", "ovs-del-port"]
                .map(|verb| effort(switch, verb, 100));
            for (few, many) in few.iter().zip(&many) {
                assert!(few.is_like(many), "{few:?} and {many:?}");
            }
        },
    );
}
