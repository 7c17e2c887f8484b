//! Ending a container for good: by its monitor where it has one, and by its ids and its control group whatever a monitor
//! says. Nothing that a container had is given to another before this has succeeded.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::serve::done;
use super::wire::Answer;
use super::{Keeper, names, processes};
use crate::cgroup;
use crate::error::{Error, Result};

/// How long a container may take to be gone once it was killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long the monitor of a container that was killed may clear up.
const GRACE: Duration = Duration::from_secs(2);

impl Keeper {
    pub(super) fn kill(&self, vmid: u32) -> Result<Answer> {
        // Whatever the monitor says, or whoever speaks in its place: what counts is that nothing is left.
        let _ = self.kill_by_monitor(vmid);
        self.end_all(vmid, false)?;
        self.remove_group(vmid);
        names::forget(&self.roots.lxc, vmid);
        Ok(done(Vec::new()))
    }

    fn kill_by_monitor(&self, vmid: u32) -> Result<()> {
        let end = Instant::now() + KILL_LIMIT;
        while self.pid(vmid)?.is_some() {
            let tool = self.roots.lxc.tool("lxc-stop", vmid, &["--kill"])?;
            match tool.within(KILL_LIMIT).status() {
                // Its processes are ended without it.
                Err(Error::Timeout(_)) => return Ok(()),
                other => other?,
            };
            if Instant::now() > end {
                return Err(Error::Failed(format!("CT {vmid} cannot be ended")));
            }
        }
        Ok(())
    }

    /// Ends whatever runs under a container's ids and in its group; the service's helpers with its ids too where
    /// `helpers`, for which the caller holds the container's lock.
    ///
    /// # Errors
    /// When something of it is still there afterwards.
    pub(super) fn end_all(&self, vmid: u32, helpers: bool) -> Result<()> {
        let first_id = self.roots.first_id(vmid)?;
        let group = self.groups.path(vmid).ok();
        let begin = Instant::now();
        loop {
            let alive = match first_id {
                Some(first_id) => processes::end(first_id, helpers)?,
                None => false,
            };
            let populated = match &group {
                Some(group) => cgroup::populated(group).map_err(Error::Failed)?,
                None => false,
            };
            if !alive && !populated {
                return Ok(());
            }
            let waited = begin.elapsed();
            // A monitor whose container has ended clears up after it.
            if let Some(group) = group.as_ref().filter(|_| populated && waited > GRACE) {
                cgroup::end(group);
            }
            if waited > KILL_LIMIT {
                return Err(Error::Failed(format!(
                    "processes of CT {vmid} are still there {} s after they were killed: its ids are not given away; look with 'ps -eo pid,uid,stat,wchan,args', then stop it again",
                    KILL_LIMIT.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Removes the group of a container that has ended.
    pub(super) fn remove_group(&self, vmid: u32) {
        let Ok(group) = self.groups.path(vmid) else {
            return;
        };
        if cgroup::remove_tree(&group) {
            return;
        }
        // What the container made in its group is its root's to remove, where no monitor was left to do it.
        if let Ok(Some(first_id)) = self.roots.first_id(vmid) {
            let words = [
                "/usr/bin/find",
                &group.display().to_string(),
                "-mindepth",
                "3",
                "-depth",
                "-type",
                "d",
                "-delete",
            ]
            .map(str::to_owned);
            let run = self
                .roots
                .lxc
                .as_root_of(first_id, self.roots.own, &words, Vec::new());
            let _ = run.and_then(|run| run.within(KILL_LIMIT).status());
            cgroup::remove_tree(&group);
        }
    }
}
