//! A machine's own control group (v2), where this process's group is delegated to it. Elsewhere machines run in the
//! caller's group; the reason is kept for `showcmd --verbose` and `status --verbose`.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::Vmid;

/// Puts a process into a group of its own below the caller's; where it is now, or why nowhere.
pub fn place(vmid: Vmid, pid: i32) -> String {
    match own_group() {
        Err(why) => why,
        Ok(own) => {
            let group = own.join(format!("vm-{vmid}"));
            let moved = match fs::create_dir(&group) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
                _ => fs::write(group.join("cgroup.procs"), pid.to_string()),
            };
            match moved {
                Ok(()) => group.display().to_string(),
                Err(e) => format!("none: {} is not delegated ({e})", own.display()),
            }
        }
    }
}

/// What [`place`] would do.
pub fn plan(vmid: Vmid) -> String {
    own_group().map_or_else(
        |why| why,
        |own| own.join(format!("vm-{vmid}")).display().to_string(),
    )
}

/// Removes the group of a machine that has stopped.
pub fn remove(placed: &str) {
    if placed.starts_with('/') {
        let _ = fs::remove_dir(Path::new(placed));
    }
}

fn own_group() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("none: {e}"))?;
    let mount = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right
            .starts_with("cgroup2 ")
            .then(|| left.split(' ').nth(4))
            .flatten()
    });
    let mount = mount.ok_or("none: no cgroup v2 is mounted")?;
    let groups = fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("none: {e}"))?;
    let own = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .ok_or("none: not in a cgroup v2")?;
    // The root group belongs to the host, not to a service.
    if own.is_empty() || own.contains("..") {
        return Err("none: the caller has no control group of its own".to_owned());
    }
    Ok(Path::new(mount).join(own))
}
