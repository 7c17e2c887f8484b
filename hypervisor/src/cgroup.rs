//! A machine's or container's own control group (v2): a machine's in the group of the unit that is there for them, or where
//! this process's group is delegated to it. Elsewhere they run in the caller's group; the reason is kept for
//! `showcmd --verbose` and `status --verbose`.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use blockhost_proto::layout::MACHINES_GROUP;
use sha2::{Digest, Sha256};

use crate::host::Host;
use crate::machine::Vmid;

/// Where a machine's process was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its group, or why it has none.
    pub group: String,
    /// Why that is not the best place there could be.
    pub astray: Option<String>,
}

/// Puts a process into a group of its own, in the first of [`parents`] that takes it.
pub fn place(host: &Host, vmid: Vmid, pid: i32) -> Placed {
    put_below(parents(host), &name(host, vmid), pid)
}

fn put_below(parents: Vec<Result<PathBuf, String>>, name: &str, pid: i32) -> Placed {
    let mut refused = Vec::new();
    for parent in parents {
        let group = parent.and_then(|parent| {
            hand_on(&parent);
            let group = parent.join(name);
            let moved = match fs::create_dir(&group) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
                _ => fs::write(group.join("cgroup.procs"), pid.to_string()).inspect_err(|_| {
                    // Nobody would look for it here. One that a process is in stays.
                    remove(&group);
                }),
            };
            moved
                .map(|()| group.display().to_string())
                .map_err(|e| format!("none: {} is not delegated ({e})", parent.display()))
        });
        match group {
            Ok(group) => {
                let astray = refused.into_iter().next();
                return Placed { group, astray };
            }
            Err(why) => refused.push(why),
        }
    }
    let group = refused.pop().unwrap_or_default();
    let astray = refused.into_iter().next();
    Placed { group, astray }
}

/// What [`place`] would do.
pub fn plan(host: &Host, vmid: Vmid) -> String {
    let mut parents = parents(host);
    let last = parents.pop();
    let there = |parent: &Result<PathBuf, String>| parent.as_ref().is_ok_and(|at| at.is_dir());
    match parents.into_iter().find(there).or(last) {
        Some(Ok(parent)) => parent.join(name(host, vmid)).display().to_string(),
        Some(Err(why)) => why,
        None => String::new(),
    }
}

/// Groups where a machine of which there is no record may have been put.
pub fn unrecorded(host: &Host, vmid: Vmid) -> Vec<PathBuf> {
    let there = parents(host).into_iter().flatten();
    there.map(|parent| parent.join(name(host, vmid))).collect()
}

/// Groups that a machine's may be made in, the best one first, or why not there: on a host that of the unit for machines, which
/// may hand on what limits are made of; and the caller's own, which may not, as the caller lives in it.
fn parents(host: &Host) -> Vec<Result<PathBuf, String>> {
    let unit = host
        .layout
        .is_host()
        .then(|| Ok(mount()?.join(MACHINES_GROUP)));
    unit.into_iter().chain([own_group()]).collect()
}

/// Whether no process lives in a group itself. Only such a one may hand controllers on: others are refused some, and with the
/// rest that they are not (processor, threads) no process can be put into a group below them any more.
fn empty(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|list| list.is_empty())
}

/// Has a group hand on what limits are made of. What it cannot is said by whoever sets a limit.
fn hand_on(group: &Path) {
    if !empty(group) {
        return;
    }
    for controller in ["cpu", "memory", "pids"] {
        let _ = fs::write(
            group.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
}

/// Name of a machine's group. What is not the host itself but a directory on it has names of its own: a group is ended as
/// a whole.
fn name(host: &Host, vmid: Vmid) -> String {
    if host.layout.is_host() {
        return format!("vm-{vmid}");
    }
    let root = host.layout.root().as_os_str().as_encoded_bytes();
    let digest = Sha256::digest(root);
    let word: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("vm-{vmid}-{word}")
}

/// The group that [`place`] named, where there is one.
pub fn placed_in(placed: &str) -> Option<&Path> {
    placed.starts_with('/').then(|| Path::new(placed))
}

/// Sets the limits on the processor of a machine that [`place`] put there.
///
/// # Errors
/// Why they are not in force.
pub fn limit(placed: &str, limits: Processor) -> Result<(), String> {
    let group = placed_in(placed).ok_or_else(|| placed.to_owned())?;
    control(group, "cpu", "cpu.max", "the processor")?;
    write(group, "cpu.max", &limits.max())?;
    write(group, "cpu.weight", &limits.weight())
}

/// Has the parent hand a controller on to its children, unless it does already.
fn control(group: &Path, controller: &str, file: &str, what: &str) -> Result<(), String> {
    if group.join(file).exists() {
        return Ok(());
    }
    let parent = group.parent().unwrap_or(group);
    let handed = if empty(parent) {
        let order = format!("+{controller}");
        fs::write(parent.join("cgroup.subtree_control"), order).map_err(|e| e.to_string())
    } else {
        Err("processes live in it".to_owned())
    };
    handed.map_err(|why| {
        let parent = parent.display();
        format!("none: {parent} has no control over {what} ({why})")
    })
}

fn write(group: &Path, file: &str, value: &str) -> Result<(), String> {
    fs::write(group.join(file), value)
        .map_err(|e| format!("none: {file} of {} cannot be set ({e})", group.display()))
}

/// What a container may have of memory, and how many processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of memory.
    pub bytes: u64,
    /// Bytes of swap beside it.
    pub swap_bytes: u64,
    /// Processes and threads.
    pub processes: u32,
}

/// Sets the limits on memory and processes of a group made by [`Delegated::group`].
///
/// # Errors
/// Why they are not in force.
pub fn limit_memory(group: &Path, limits: Memory) -> Result<(), String> {
    let memory = control(group, "memory", "memory.max", "memory")
        .and_then(|()| write(group, "memory.max", &limits.bytes.to_string()));
    // Missing where the kernel does not account for swap; then there is nothing to limit either.
    let swap = if memory.is_ok() && group.join("memory.swap.max").exists() {
        write(group, "memory.swap.max", &limits.swap_bytes.to_string())
    } else {
        Ok(())
    };
    // Those that can be are in force, whatever becomes of the others.
    let processes = control(group, "pids", "pids.max", "the number of processes")
        .and_then(|()| write(group, "pids.max", &limits.processes.to_string()));
    let failed: Vec<String> = [memory, swap, processes]
        .into_iter()
        .filter_map(std::result::Result::err)
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed.join("; "))
    }
}

/// What bounds a group has, for people.
pub fn bounds_of(placed: &str) -> String {
    let read = |file: &str| {
        placed_in(placed)
            .and_then(|group| fs::read_to_string(group.join(file)).ok())
            .map_or_else(|| "not bounded".to_owned(), |text| text.trim().to_owned())
    };
    format!(
        "memory {}, threads {}",
        read("memory.max"),
        read("pids.max")
    )
}

/// The service's own leaf.
const LEAF: &str = "service";

/// The group of a service, delegated to it, with the service itself moved into a leaf: groups with limits can then be made
/// beside it.
#[derive(Debug, Clone)]
pub struct Delegated(Result<PathBuf, String>);

impl Delegated {
    /// Takes the caller's group over.
    pub fn take_over() -> Self {
        Self(own_group().and_then(|own| {
            // Where it is already, after it became another program or where systemd put it there (DelegateSubgroup=).
            let own = match own.file_name() {
                Some(name) if name == LEAF => own.parent().map_or(own.clone(), Path::to_owned),
                _ => own,
            };
            let leaf = own.join(LEAF);
            let moved = match fs::create_dir(&leaf) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
                _ => fs::write(leaf.join("cgroup.procs"), "0"),
            };
            match moved {
                Ok(()) => Ok(own),
                Err(e) => Err(format!("none: {} is not delegated ({e})", own.display())),
            }
        }))
    }

    /// Makes the group of a container, with the one that its limits are for in it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn group(&self, vmid: u32) -> Result<PathBuf, String> {
        let group = self.path(vmid)?;
        if let Ok(own) = &self.0 {
            hand_on(own);
        }
        for made in [&group, &group.join(LIMITED)] {
            match fs::create_dir(made) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(format!("none: {} cannot be made ({e})", made.display()));
                }
                _ => {}
            }
        }
        Ok(group)
    }

    /// Where the group of a container is.
    ///
    /// # Errors
    /// Why there is none.
    pub fn path(&self, vmid: u32) -> Result<PathBuf, String> {
        self.0.clone().map(|own| own.join(format!("ct-{vmid}")))
    }

    /// Where the limits of a container are.
    ///
    /// # Errors
    /// Why there are none.
    pub fn limited(&self, vmid: u32) -> Result<PathBuf, String> {
        self.path(vmid).map(|group| group.join(LIMITED))
    }
}

/// In a container's group: what its limits are for, and in that its own processes, which can change nothing above them.
pub const LIMITED: &str = "limited";
/// In a container's group: its monitor, which nothing that the container uses up shall end.
pub const MONITOR: &str = "monitor";
/// In the limited group: the container.
pub const PAYLOAD: &str = "payload";

/// Whether a process lives in a group or below it; an absent one has none.
///
/// # Errors
/// When that cannot be read.
pub fn populated(group: &Path) -> Result<bool, String> {
    let path = group.join("cgroup.events");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(!text.lines().any(|line| line == "populated 0")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        // Removed while it was open.
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        Err(e) => Err(format!("cannot read {}: {e}", path.display())),
    }
}

/// Ends every process in a group and below it, where the kernel can do that.
pub fn end(group: &Path) {
    let _ = fs::write(group.join("cgroup.kill"), "1");
}

/// Removes a group with those below it; whether it is gone.
pub fn remove_tree(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    match fs::remove_dir(group) {
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        Ok(()) => true,
    }
}

/// Whether a process is in the group where [`place`] put one.
pub fn holds(placed: &str, pid: i32) -> bool {
    let members = placed_in(placed).map(|group| fs::read_to_string(group.join("cgroup.procs")));
    matches!(members, Some(Ok(list)) if list.lines().any(|line| line == pid.to_string()))
}

/// What a machine may have of the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processor {
    /// `cpulimit` in hundredths of a core; 0 for no limit.
    pub hundredths: u16,
    /// `cpuunits`.
    pub units: u16,
}

impl Processor {
    /// Neither limit nor weight: what a machine has without options.
    pub const FREE: Self = Self {
        hundredths: 0,
        units: 100,
    };
    const PERIOD_US: u32 = 100_000;

    /// For `cpu.max`: microseconds of processor time per period.
    fn max(self) -> String {
        match u32::from(self.hundredths) * (Self::PERIOD_US / 100) {
            0 => format!("max {}", Self::PERIOD_US),
            quota => format!("{quota} {}", Self::PERIOD_US),
        }
    }

    /// For `cpu.weight`, whose range and default are those of `cpuunits`.
    fn weight(self) -> String {
        self.units.to_string()
    }
}

/// Removes the group of a machine that has stopped.
pub fn remove(group: &Path) {
    let _ = fs::remove_dir(group);
}

/// Where control groups v2 are mounted.
fn mount() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("none: {e}"))?;
    let mount = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right
            .starts_with("cgroup2 ")
            .then(|| left.split(' ').nth(4))
            .flatten()
    });
    mount
        .map(PathBuf::from)
        .ok_or_else(|| "none: no cgroup v2 is mounted".to_owned())
}

fn own_group() -> Result<PathBuf, String> {
    let mount = mount()?;
    let groups = fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("none: {e}"))?;
    let own = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .ok_or("none: not in a cgroup v2")?;
    // The root group belongs to the host, not to a service.
    if own.is_empty() || own.contains("..") {
        return Err("none: the caller has no control group of its own".to_owned());
    }
    Ok(mount.join(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let half = Processor {
            hundredths: 50,
            units: 7,
        };
        assert_eq!(
            (half.max(), half.weight()),
            ("50000 100000".into(), "7".into())
        );
        assert_eq!(Processor::FREE.max(), "max 100000");
        let most = Processor {
            hundredths: 12_800,
            ..Processor::FREE
        };
        assert_eq!(most.max(), "12800000 100000");
    }

    #[test]
    fn only_the_pids_in_a_machines_group_are_its_own() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("cgroup.procs"), "12\n345\n").unwrap();
        let group = place.path().display().to_string();
        assert!(holds(&group, 12) && holds(&group, 345));
        for (placed, pid) in [
            (group.as_str(), 34),
            ("none: no group", 12),
            ("/nowhere", 12),
        ] {
            assert!(!holds(placed, pid), "{placed} {pid}");
        }
    }

    #[test]
    fn a_machine_whose_place_is_missing_is_put_in_the_next_one_and_that_is_said() {
        let place = tempfile::tempdir().unwrap();
        let missing = place.path().join("unit");
        let own = place.path().join("own");
        fs::create_dir(&own).unwrap();
        let both = || vec![Ok(missing.clone()), Ok(own.clone())];
        let placed = put_below(both(), "vm-100", 12);
        assert_eq!(placed.group, own.join("vm-100").display().to_string());
        let why = placed.astray.unwrap();
        assert!(why.contains(missing.to_str().unwrap()), "{why}");
        assert!(holds(&placed.group, 12));

        fs::create_dir(&missing).unwrap();
        fs::write(missing.join("cgroup.procs"), "").unwrap();
        let placed = put_below(both(), "vm-100", 13);
        assert_eq!(placed.group, missing.join("vm-100").display().to_string());
        assert_eq!(placed.astray, None);
        let handed = fs::read_to_string(missing.join("cgroup.subtree_control")).unwrap();
        assert_eq!(handed, "+pids", "the last one that was asked for");
        // One that processes live in is not even asked.
        fs::write(own.join("cgroup.procs"), "1\n").unwrap();
        let placed = put_below(vec![Ok(own.clone())], "vm-100", 13);
        assert_eq!(placed.group, own.join("vm-100").display().to_string());
        assert!(limit(&placed.group, Processor::FREE).is_err());
        assert!(!own.join("cgroup.subtree_control").exists());

        let nowhere = vec![Ok(place.path().join("a/b")), Err("none: at all".to_owned())];
        let placed = put_below(nowhere, "vm-100", 14);
        assert_eq!(placed.group, "none: at all");
        assert!(placed.astray.is_some_and(|why| why.contains("a/b")));
    }

    #[test]
    fn a_group_that_takes_no_process_does_not_stay() {
        let place = tempfile::tempdir().unwrap();
        let own = place.path().join("own");
        fs::create_dir(&own).unwrap();
        // Deep enough for a name of a group to be one, and that of its list of processes to be too long.
        let mut deep = place.path().join("unit");
        while deep.as_os_str().len() < 4076 {
            let left = 4077 - deep.as_os_str().len();
            deep.push("d".repeat(left.min(200)));
        }
        fs::create_dir_all(&deep).unwrap();
        assert!(fs::create_dir(deep.join("vm-099")).is_ok());
        let placed = put_below(vec![Ok(deep.clone()), Ok(own.clone())], "vm-100", 12);
        assert_eq!(placed.group, own.join("vm-100").display().to_string());
        assert!(placed.astray.is_some());
        assert!(!deep.join("vm-100").exists());
    }

    #[test]
    fn only_the_host_itself_puts_machines_below_the_unit_for_them() {
        let vmid: Vmid = "100".parse().unwrap();
        let host = |root: &str| Host {
            family: crate::host::Family::Machines,
            layout: blockhost_proto::layout::Layout::new(root),
            node: "n".to_owned(),
            pins: None,
        };
        let below = |host: &Host| {
            let groups = unrecorded(host, vmid);
            groups
                .iter()
                .any(|group| group.ends_with(Path::new(MACHINES_GROUP).join("vm-100")))
        };
        assert!(!below(&host("/var/tmp/world")));
        assert!(below(&host("/")) || mount().is_err());
    }

    #[test]
    fn one_limit_that_cannot_be_set_does_not_keep_the_other_from_being_in_force() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("pids.max"), "max").unwrap();
        // What stands in its place cannot be written to.
        fs::create_dir(place.path().join("memory.max")).unwrap();
        let limits = Memory {
            bytes: 1,
            swap_bytes: 0,
            processes: 7,
        };
        let why = limit_memory(place.path(), limits).unwrap_err();
        assert!(why.contains("memory.max") && !why.contains("pids"), "{why}");
        assert_eq!(
            fs::read_to_string(place.path().join("pids.max")).unwrap(),
            "7"
        );
        assert!(remove_tree(&place.path().join("absent")));
        assert_eq!(populated(place.path()), Ok(false), "no group at all");
        fs::write(
            place.path().join("cgroup.events"),
            "populated 1\nfrozen 0\n",
        )
        .unwrap();
        assert_eq!(populated(place.path()), Ok(true));
    }

    #[test]
    fn a_machine_in_no_group_of_its_own_is_said_to_be_without_limits() {
        let why = limit("none: no cgroup v2 is mounted", Processor::FREE).unwrap_err();
        assert!(why.contains("no cgroup v2"));
        let place = tempfile::tempdir().unwrap();
        let missing = place.path().join("vm-100/x");
        assert!(limit(&missing.display().to_string(), Processor::FREE).is_err());
    }
}
