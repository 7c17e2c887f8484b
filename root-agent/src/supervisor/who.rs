//! Who is behind a process id: its program and its systemd unit, for the ledger. Decoration, never a decision.
//! The kernel shows a process's program to whoever might trace it: to its own user, where it holds no more capabilities. The unit
//! leaves the agent none for tracing, so the look is taken with the client's own identity; of root's processes nothing is seen.

use std::os::fd::OwnedFd;

use blockhost_proto::escape::shown_up_to;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::sys;

/// Program and unit of the process, escaped. With a process descriptor the answer is certain to be about the process
/// that connected; without one nothing is said. User and group are those that the kernel gave at connect.
pub fn who(
    pid: i32,
    (uid, gid): (u32, u32),
    pidfd: Option<&OwnedFd>,
) -> (Option<String>, Option<String>) {
    let Some(pidfd) = pidfd else {
        return (None, None);
    };
    let link = format!("/proc/{pid}/exe");
    let exe = std::fs::read_link(&link).or_else(|_| {
        let seen = sys::in_the_eyes_of(uid, gid, || std::fs::read_link(&link));
        // With an identity the kernel also changes who may look into this process, to what the host's settings say.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        seen
    });
    let exe = exe.ok();
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    // Still alive now: the number was not reused while we read.
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if !matches!(poll(&mut fds, Some(&now)), Ok(0)) {
        return (None, None);
    }
    let exe = exe.and_then(|path| path.to_str().map(|text| shown_up_to(text, 200)));
    (exe, cgroup.as_deref().and_then(unit_of))
}

/// The innermost unit of a cgroup file's lines.
fn unit_of(cgroup: &str) -> Option<String> {
    let is_unit = |name: &&str| [".service", ".scope"].iter().any(|end| name.ends_with(end));
    let path = cgroup
        .lines()
        .filter_map(|line| line.rsplit(':').next())
        .find(|path| path.len() > 1)?;
    path.rsplit('/')
        .find(is_unit)
        .map(|unit| shown_up_to(unit, 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_unit_is_found() {
        let text = "0::/system.slice/blockhost-engine.service\n";
        assert_eq!(unit_of(text).as_deref(), Some("blockhost-engine.service"));
        let nested = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope\n";
        assert_eq!(unit_of(nested).as_deref(), Some("x.scope"));
    }

    #[test]
    fn no_unit_is_no_unit() {
        for text in ["", "0::/\n", "0::/init\n", "garbage"] {
            assert_eq!(unit_of(text), None, "{text}");
        }
    }
}
