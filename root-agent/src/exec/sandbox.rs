//! What one program is locked into, on top of what its compartment is locked into: prepared before the fork, put in force
//! in the child without allocating. Which program gets what is a table in [`crate::confine::programs`].

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::set_no_new_privs;
use seccompiler::BpfProgram;

use crate::confine::syscalls::Filter;
use crate::sys::landlock::{self, Ruleset};

/// A prepared sandbox; may be used for any number of runs.
#[derive(Debug)]
pub struct Sandbox {
    /// `None` on a kernel without Landlock, where the policy accepted that at start.
    ruleset: Option<OwnedFd>,
    filters: Vec<BpfProgram>,
    limits: Vec<(Resource, u64)>,
}

impl Sandbox {
    /// Compiles rules, filter and limits. Limits only ever lower what is in force; of two for one resource the lower holds.
    ///
    /// # Errors
    /// The kernel's, or a filter that does not compile.
    pub fn new(rules: &Ruleset, filter: &Filter, limits: &[(Resource, u64)]) -> io::Result<Self> {
        let ruleset = match landlock::abi() {
            0 => None,
            _ => Some(landlock::prepare(rules)?),
        };
        Ok(Self {
            ruleset,
            filters: filter.compile().map_err(io::Error::other)?,
            limits: lowest(limits),
        })
    }

    /// The form the child takes along.
    pub(super) fn laid_out(&self) -> LaidOut {
        let limits = self.limits.iter().map(|&(resource, value)| {
            let now = getrlimit(resource);
            let lower = |current: Option<u64>| Some(current.map_or(value, |at| at.min(value)));
            let limit = Rlimit {
                current: lower(now.current),
                maximum: lower(now.maximum),
            };
            (resource, limit)
        });
        LaidOut {
            ruleset: self.ruleset.as_ref().map(AsRawFd::as_raw_fd),
            filters: self.filters.clone(),
            limits: limits.collect(),
        }
    }
}

fn lowest(limits: &[(Resource, u64)]) -> Vec<(Resource, u64)> {
    let mut merged: Vec<(Resource, u64)> = Vec::new();
    for &(resource, value) in limits {
        match merged.iter_mut().find(|(known, _)| *known == resource) {
            Some((_, lower)) => *lower = value.min(*lower),
            None => merged.push((resource, value)),
        }
    }
    merged
}

/// Everything [`LaidOut::enter`] needs, allocated before the fork.
pub(super) struct LaidOut {
    ruleset: Option<RawFd>,
    filters: Vec<BpfProgram>,
    limits: Vec<(Resource, Rlimit)>,
}

impl LaidOut {
    /// Called in the forked child: plain system calls, no allocation, no lock.
    pub(super) fn enter(&self) -> io::Result<()> {
        for &(resource, limit) in &self.limits {
            setrlimit(resource, limit)?;
        }
        set_no_new_privs(true)?;
        if let Some(ruleset) = self.ruleset {
            landlock::enforce(ruleset)?;
        }
        for filter in &self.filters {
            // On failure the child does not go on; the kernel's reason is the last error.
            seccompiler::apply_filter(filter).map_err(|_| io::Error::last_os_error())?;
        }
        Ok(())
    }
}
