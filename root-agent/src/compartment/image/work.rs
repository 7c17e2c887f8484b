//! The compartment's own directory: private to its user, a subdirectory for each job, gone when the job is. What an earlier
//! process left behind goes at the first job. Nothing of a client's name is in a path here.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use blockhost_proto::response::ErrorCode;

use super::appliance;
use crate::compartment::Failure;

/// Customisations at once: each is a virtual machine of more than a gigabyte that keeps a processor busy.
const SLOTS: usize = 2;

/// The directory, and how many jobs are in it.
#[derive(Debug)]
pub(super) struct Work {
    path: PathBuf,
    jobs: Mutex<usize>,
    freed: Condvar,
    cleaned: Mutex<bool>,
}

/// A job's directory; removed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct Job<'a> {
    work: &'a Work,
    path: PathBuf,
}

impl Work {
    pub(super) fn new(path: PathBuf) -> Self {
        Work {
            path,
            jobs: Mutex::new(0),
            freed: Condvar::new(),
            cleaned: Mutex::new(false),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory for a job, when it is its turn.
    pub(super) fn job(&self, deadline: Instant) -> Result<Job<'_>, Failure> {
        self.check()?;
        self.clean_once();
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        while *jobs >= SLOTS {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::new(
                    ErrorCode::Busy,
                    format!("{SLOTS} images are being customised already; try again later"),
                ));
            }
            jobs = self
                .freed
                .wait_timeout(jobs, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let path = self.fresh("job")?;
        *jobs += 1;
        Ok(Job { work: self, path })
    }

    /// A new, empty directory that only this user may enter.
    pub(super) fn fresh(&self, kind: &str) -> Result<PathBuf, Failure> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.path.join(format!("{kind}-{number}"));
            match private_directory(&path) {
                Ok(()) => return Ok(path),
                // Of an earlier process that could not be cleaned away.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(unusable(&path, &error.to_string())),
            }
        }
    }

    /// Whether no other job than the asking one is running.
    pub(super) fn is_alone(&self) -> bool {
        *self.jobs.lock().unwrap_or_else(PoisonError::into_inner) <= 1
    }

    /// Nobody else may have a say in what is kept here.
    fn check(&self) -> Result<(), Failure> {
        let bad = |why: &str| Err(unusable(&self.path, why));
        let Some(text) = self.path.to_str() else {
            return bad("it is not UTF-8");
        };
        // Characters that virt-customize and QEMU give a meaning of their own.
        if text.contains([':', ',', '\n']) {
            return bad("it has a colon or a comma in it");
        }
        let metadata = match std::fs::symlink_metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) => return bad(&error.to_string()),
        };
        let own = rustix::process::geteuid().as_raw();
        if !metadata.is_dir() || metadata.uid() != own || metadata.mode() & 0o077 != 0 {
            return bad(&format!(
                "it must be a directory of uid {own} with mode 0700"
            ));
        }
        Ok(())
    }

    /// Appliances stay, they are good until the system changes; everything else is a dead job's.
    fn clean_once(&self) {
        let mut cleaned = self.cleaned.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *cleaned, true) {
            self.remove(|name| !name.starts_with(appliance::PREFIX));
        }
    }

    /// Removes the entries of these names; what cannot be removed is left for the next process.
    pub(super) fn remove(&self, unwanted: impl Fn(&str) -> bool) {
        for entry in std::fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_name().to_str().is_none_or(&unwanted) {
                remove_tree(&entry.path());
            }
        }
    }
}

impl Job<'_> {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory of the job.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        private_directory(&path).map_err(|error| unusable(&path, &error.to_string()))?;
        Ok(path)
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        remove_tree(&self.path);
        let mut jobs = self
            .work
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *jobs = jobs.saturating_sub(1);
        self.work.freed.notify_one();
    }
}

fn private_directory(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

fn remove_tree(path: &Path) {
    let _ = std::fs::remove_dir_all(path).or_else(|_| std::fs::remove_file(path));
}

pub(super) fn unusable(path: &Path, why: &str) -> Failure {
    Failure::new(
        ErrorCode::Failed,
        format!("{} cannot be used: {why}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Duration;

    fn work() -> (tempfile::TempDir, Work) {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("work");
        private_directory(&path).expect("made");
        (place, Work::new(path))
    }

    #[test]
    fn a_job_leaves_nothing_and_what_a_dead_process_left_goes_at_the_first_one() {
        let (_place, work) = work();
        for name in ["job-7", "build-1"] {
            std::fs::create_dir_all(work.path().join(name).join("deep")).expect("made");
        }
        std::fs::create_dir(work.path().join("appliance-1")).expect("made");
        let job = work.job(Instant::now()).expect("a job");
        let tmp = job.directory("tmp").expect("made");
        std::fs::write(tmp.join("file"), "x").expect("written");
        drop(job);
        let left: Vec<_> = std::fs::read_dir(work.path())
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(left, ["appliance-1"]);
    }

    #[test]
    fn a_directory_that_somebody_else_could_change_is_not_used() {
        let (place, work) = work();
        let mode = |mode| {
            std::fs::set_permissions(work.path(), PermissionsExt::from_mode(mode)).expect("a mode");
        };
        mode(0o770);
        work.job(Instant::now()).expect_err("open to a group");
        mode(0o700);
        work.job(Instant::now()).expect("as before");
        let link = place.path().join("link");
        symlink(work.path(), &link).expect("a link");
        Work::new(link)
            .job(Instant::now())
            .expect_err("a link may lead elsewhere tomorrow");
    }

    #[test]
    fn one_job_too_many_waits_for_its_turn_and_is_told_when_there_is_none() {
        let (_place, work) = work();
        let soon = || Instant::now() + Duration::from_millis(20);
        let first = work.job(soon()).expect("a slot");
        let _second = work.job(soon()).expect("a slot");
        let failure = work.job(soon()).expect_err("none is free");
        assert_eq!(failure.code, ErrorCode::Busy);
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| work.job(Instant::now() + Duration::from_secs(60)).is_ok());
            drop(first);
            assert!(waiting.join().expect("no panic"));
        });
    }
}
