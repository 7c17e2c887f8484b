//! One program for each change, as scripts do it: `ip` by root, and `sudo ip` by the services' user.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Found;
use crate::bench::times::{Round, Times};
use crate::bench::wire::address;
use crate::command::{command, run, with_args};
use crate::namespace::find;
use crate::scenario::ScenarioError;
use crate::world::World;

/// `ip -6 route replace`, by root.
pub(in crate::bench) struct Ip;

impl Round for Ip {
    fn round(&mut self, count: usize) -> Result<Times, ScenarioError> {
        times(count, || command("/usr/sbin/ip"))
    }
}

/// `sudo ip -6 route replace`, by the user `blockhost`.
pub(in crate::bench) struct Sudo {
    uid: u32,
    gid: u32,
}

impl Sudo {
    /// The host's rules are covered by one of ours; only in this mount namespace.
    pub(in crate::bench) fn set_up(world: &World) -> Found<Self> {
        if find("sudo").is_none() {
            return Err("sudo is not installed; run: bash scripts/setup.sh peers".to_owned());
        }
        let rules = world.dir.join("sudoers");
        let text = "Defaults !fqdn\nblockhost ALL=(root) NOPASSWD: /usr/sbin/ip\n";
        fs::write(&rules, text)
            .and_then(|()| fs::set_permissions(&rules, Permissions::from_mode(0o440)))
            .map_err(|error| format!("{}: {error}", rules.display()))?;
        let path = rules.display().to_string();
        run(
            with_args("mount", &["--bind", &path, "/etc/sudoers"]),
            Duration::from_secs(10),
        )
        .map_err(|error| error.to_string())?;
        let mut found = Self {
            uid: world.blockhost.uid,
            gid: world.blockhost.gid,
        };
        found.round(1).map_err(|error| error.to_string())?;
        Ok(found)
    }
}

impl Round for Sudo {
    fn round(&mut self, count: usize) -> Result<Times, ScenarioError> {
        let (uid, gid) = (self.uid, self.gid);
        times(count, || {
            let mut start = command("/usr/bin/sudo");
            start.uid(uid).gid(gid).args(["-n", "--", "/usr/sbin/ip"]);
            start
        })
    }
}

fn times(count: usize, start: impl Fn() -> Command) -> Result<Times, ScenarioError> {
    let once = |number: usize| {
        let mut start = start();
        start
            .args(["-6", "route", "replace", &address(number), "dev", "vmbr0"])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let begun = Instant::now();
        match start.status() {
            Ok(status) if status.success() => Ok(begun.elapsed()),
            Ok(status) => Err(ScenarioError::Wrong(format!(
                "{start:?} ended with {status}"
            ))),
            Err(error) => Err(ScenarioError::Wrong(format!("{start:?}: {error}"))),
        }
    };
    let taken: Result<Vec<_>, _> = (0..count).map(once).collect();
    Ok(Times::new(taken?))
}
