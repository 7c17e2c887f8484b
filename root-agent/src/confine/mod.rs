//! Locks a process in, for good: identity, capabilities, Landlock, system calls, limits.
//! The tables are in [`profile`], [`programs`] and [`syscalls`]; the order of the steps here is the one that works and is not to be changed.

mod calls;
pub mod print;
pub mod profile;
pub mod programs;
pub mod syscalls;

use std::io;
use std::os::fd::AsRawFd;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use rustix::thread::{Gid, Uid};

use crate::compartment::Identity;
use crate::policy::LandlockChoice;
use crate::sys::{self, landlock};

pub use profile::Profile;

/// A step of the confinement failed; the process must not go on.
#[derive(Debug, thiserror::Error)]
#[error("confinement: {step}: {source}")]
pub struct ConfineError {
    /// The step.
    pub step: &'static str,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Names the step in an error.
fn step<T, E: Into<io::Error>>(
    step: &'static str,
    result: Result<T, E>,
) -> Result<T, ConfineError> {
    result.map_err(|e| ConfineError {
        step,
        source: e.into(),
    })
}

/// First half, before anything is opened: own session, limits, and only the descriptors 0 to `last_descriptor`.
///
/// # Errors
/// [`ConfineError`] with the step.
pub fn clear_inheritance(last_descriptor: i32, open_files: u64) -> Result<(), ConfineError> {
    // A process group leader already (started by hand) is no harm.
    let _ = rustix::process::setsid();
    step("signal mask", sys::unblock_signals())?;
    for (resource, value) in [(Resource::Core, 0), (Resource::Nofile, open_files)] {
        let limit = Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        step("resource limits", setrlimit(resource, limit))?;
    }
    step("closing descriptors", sys::close_from(last_descriptor + 1))?;
    step(
        "parent death signal",
        set_parent_process_death_signal(Some(Signal::KILL)),
    )?;
    sys::tame_allocator();
    Ok(())
}

/// Second half, when everything needed is open: drops identity and privileges and closes the doors.
/// Returns the Landlock ABI in force, 0 where the policy allows to go without.
///
/// # Errors
/// [`ConfineError`] with the step; the process has to exit then.
pub fn irrevocably_confine(profile: &Profile) -> Result<u32, ConfineError> {
    let abi = landlock::abi();
    // Opened while that is still possible: a rule may name what lies behind a directory that the new user cannot enter.
    let ruleset = match &profile.landlock {
        Some(_) if abi == 0 && profile.landlock_choice == LandlockChoice::Optional => None,
        Some(rules) => Some(step("Landlock", landlock::prepare(rules))?),
        None => None,
    };
    if let Some(directory) = &profile.root_directory {
        step("root directory", leave_all_but(directory))?;
    }
    become_identity(profile.identity)?;
    limit_capabilities(profile.capabilities, profile.ambient)?;
    step(
        "dumpable",
        set_dumpable_behavior(DumpableBehavior::NotDumpable),
    )?;
    // Changing credentials clears the signal that was set at the start, so it is set again.
    step(
        "parent death signal",
        set_parent_process_death_signal(Some(Signal::KILL)),
    )?;
    step("no_new_privs", set_no_new_privs(true))?;
    if let Some(ruleset) = ruleset {
        step("Landlock", landlock::enforce(ruleset.as_raw_fd()))?;
    }
    for (resource, limit) in [
        (Resource::As, profile.address_space),
        (Resource::Fsize, profile.file_bytes),
        (Resource::Nproc, profile.processes),
    ] {
        let Some(value) = limit else { continue };
        let limit = Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        step("resource limits", setrlimit(resource, limit))?;
    }
    syscalls::apply(&profile.filter).map_err(|source| ConfineError {
        step: "seccomp",
        source,
    })?;
    Ok(abi)
}

/// Makes the directory the root of this process. Where a unit has taken `CAP_SYS_CHROOT` away, or there is no such
/// directory, the unit's own fences have to do.
fn leave_all_but(directory: &std::path::Path) -> io::Result<()> {
    let may = rustix::thread::capabilities(None)?
        .effective
        .contains(CapabilitySet::SYS_CHROOT);
    if !may {
        return Ok(());
    }
    match rustix::process::chroot(directory) {
        Ok(()) => Ok(rustix::process::chdir("/")?),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        // A system call filter around the whole agent answers so.
        Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn become_identity(identity: Identity) -> Result<(), ConfineError> {
    step("keep capabilities", set_keep_capabilities(true))?;
    step("supplementary groups", set_thread_groups(&[]))?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    step("group", set_thread_res_gid(gid, gid, gid))?;
    step("user", set_thread_res_uid(uid, uid, uid))?;
    step("keep capabilities", set_keep_capabilities(false))
}

fn limit_capabilities(wanted: CapabilitySet, ambient: bool) -> Result<(), ConfineError> {
    // Dropping from the bounding set takes CAP_SETPCAP; it goes last.
    let with_setpcap = wanted | CapabilitySet::SETPCAP;
    let sets = |permitted, inheritable| CapabilitySets {
        effective: permitted,
        permitted,
        inheritable,
    };
    let inheritable = if ambient {
        wanted
    } else {
        CapabilitySet::empty()
    };
    step(
        "capabilities",
        set_capabilities(None, sets(with_setpcap, inheritable)),
    )?;
    step("ambient capabilities", clear_ambient_capability_set())?;
    if ambient {
        for capability in wanted.iter() {
            step(
                "ambient capabilities",
                configure_capability_in_ambient_set(capability, true),
            )?;
        }
    }
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if wanted.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number this kernel does not know ends the list.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return step("bounding set", Err(error)),
        }
    }
    step(
        "capabilities",
        set_capabilities(None, sets(wanted, inheritable)),
    )
}
