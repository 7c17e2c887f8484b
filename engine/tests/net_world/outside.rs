//! The other end of the uplink: a namespace of its own, and who answers there.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;

use super::{PATIENCE, Running, program};

/// Held open by a process that ends with whoever started it.
pub fn second_namespace() -> Running {
    let holder = program("unshare")
        .args(["--net", "--kill-child", "--fork", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare");
    let own = std::fs::read_link("/proc/self/ns/net").expect("own namespace");
    let path = format!("/proc/{}/ns/net", holder.id());
    while std::fs::read_link(&path).is_ok_and(|namespace| namespace == own) {
        std::thread::yield_now();
    }
    Running(holder)
}

/// Says back what it hears.
pub fn answer(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
}

/// One to [`answer`].
pub struct Connection(TcpStream);

impl Connection {
    pub fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut this = Self(stream);
        this.is_alive("at first");
        this
    }

    pub fn is_alive(&mut self, when: &str) {
        self.0.write_all(b"still there?").expect(when);
        let mut answer = [0; 12];
        self.0.read_exact(&mut answer).expect(when);
        assert_eq!(&answer, b"still there?", "{when}");
    }
}
