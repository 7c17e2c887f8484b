//! A second network namespace beside the one that a test runs in, for what is on the other end of a wire.

#![allow(dead_code, reason = "each test binary uses its part")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests start the real tools and write files into their own world"
)]

use std::process::{Child, Command, Stdio};

use crate::compartment_world::{tool, try_tool};

/// Lives as long as the process that holds it open.
pub struct SecondNet(Child);

impl SecondNet {
    pub fn new() -> Self {
        Self::start(&[])
    }

    /// One that belongs to a user namespace of its own, as that of a container with mapped ids does; `None` where the host
    /// makes none.
    pub fn in_user_namespace() -> Option<Self> {
        let possible = try_tool("unshare --user --map-root-user --net -- true").0;
        possible.then(|| Self::start(&["--user", "--map-root-user"]))
    }

    fn start(options: &[&str]) -> Self {
        let holder = Command::new("unshare")
            .args(options)
            .args(["--net", "--kill-child", "--fork", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let this = Self(holder);
        let own = std::fs::read_link("/proc/self/ns/net").expect("own namespace");
        // The fork is there at once, its namespace a moment later.
        while std::fs::read_link(format!("/proc/{}/ns/net", this.pid())).is_ok_and(|n| n == own) {
            std::thread::yield_now();
        }
        this.run("ip link set lo up");
        this
    }

    /// What `ip link set DEV netns` takes.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn run(&self, words: &str) -> String {
        tool(&format!("nsenter -t {} -n {words}", self.pid()))
    }

    pub fn try_run(&self, words: &str) -> (bool, String) {
        try_tool(&format!("nsenter -t {} -n {words}", self.pid()))
    }
}

impl Drop for SecondNet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
