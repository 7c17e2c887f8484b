//! Root file systems: made, written to and removed by processes with the container's own ids. This side starts them, reads
//! what they report, and stops them when nobody waits any more.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, IoContext, Result};
use crate::exec::kill_group;
use crate::host::Ids;
use crate::keeper::inside::{self, Job, Report};
use crate::keeper::lxc::Lxc;
use crate::keeper::slots::{self, Pool};
use crate::keeper::wire::{Line, Packing, Settings};
use crate::sys;

/// Longest report of a process inside.
const REPORT_LIMIT: u64 = 64 << 10;

/// The root file systems of all containers.
#[derive(Debug, Clone)]
pub struct RootFileSystems {
    /// LXC below the same directory.
    pub lxc: Lxc,
    /// The ids they get.
    pub pool: Pool,
    /// The service's own user.
    pub own: Ids,
}

impl RootFileSystems {
    /// Directory of one container.
    pub fn directory(&self, vmid: u32) -> PathBuf {
        self.lxc.containers.join(vmid.to_string())
    }

    /// The first id of a container; `None` where it has no directory.
    ///
    /// # Errors
    /// When what is written there cannot be used.
    pub fn first_id(&self, vmid: u32) -> Result<Option<u32>> {
        slots::of(&self.pool, &self.lxc.containers, vmid)
    }

    /// Makes a root file system from an archive. `asker` going away ends it. What a failure leaves is for [`Self::remove`].
    ///
    /// # Errors
    /// [`Error::Image`] for an archive that is not acceptable, else as it happened.
    pub fn create(
        &self,
        vmid: u32,
        first_id: u32,
        archive: &OwnedFd,
        what: (Packing, u64, Settings),
        asker: &Line,
    ) -> Result<Vec<String>> {
        let directory = self.open(vmid)?;
        let (packing, bytes, settings) = what;
        let job = Job::Unpack {
            directory: directory.as_raw_fd(),
            archive: archive.as_raw_fd(),
            packing,
            bytes,
            settings,
        };
        self.inside(
            first_id,
            &job,
            vec![directory.as_fd(), archive.as_fd()],
            asker,
        )
    }

    /// Writes settings into a root file system.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn settle(&self, vmid: u32, first_id: u32, settings: Settings, asker: &Line) -> Result<()> {
        let directory = self.open(vmid)?;
        let job = Job::Settle {
            directory: directory.as_raw_fd(),
            settings,
        };
        self.inside(first_id, &job, vec![directory.as_fd()], asker)
            .map(drop)
    }

    fn open(&self, vmid: u32) -> Result<OwnedFd> {
        let path = self.directory(vmid);
        sys::open_dir(&path).at("cannot open", path)
    }

    fn inside(
        &self,
        first_id: u32,
        job: &Job,
        given: Vec<BorrowedFd<'_>>,
        asker: &Line,
    ) -> Result<Vec<String>> {
        // By descriptor: the path to this program need not be open to the container's ids.
        let program = rustix::fs::open(
            "/proc/self/exe",
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .at("cannot open", "/proc/self/exe")?;
        let keep = given.into_iter().chain([program.as_fd()]).collect();
        let words = [
            format!("/proc/self/fd/{}", program.as_raw_fd()),
            inside::COMMAND.to_owned(),
        ];
        let pipe = || {
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("cannot make", "a pipe")
        };
        let ((input, job_end), (report_end, output), (errors_end, errors)) =
            (pipe()?, pipe()?, pipe()?);
        let run = self
            .lxc
            .as_root_of(first_id, self.own, &words, keep)?
            .own_group()
            .stdin(File::from(input))
            .stdout(File::from(output))
            .stderr(File::from(errors));
        let child = run.spawn()?;
        let mut line = serde_json::to_string(job).map_err(|e| Error::Failed(e.to_string()))?;
        line.push('\n');
        let mut job_end = File::from(job_end);
        let told = job_end.write_all(line.as_bytes());
        let words = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = File::from(errors_end)
                .take(REPORT_LIMIT)
                .read_to_string(&mut text);
            text
        });
        let report = wait_for(report_end, asker);
        // Its input ends with this, and it with its input.
        drop(job_end);
        let report = match report {
            Ok(report) => report,
            Err(e) => {
                kill_group(&child);
                reap(child);
                return Err(e);
            }
        };
        let status = reap(child);
        let words = words.join().unwrap_or_default();
        match serde_json::from_str(&report) {
            Ok(Report::Done { notes }) => Ok(notes),
            Ok(Report::Archive { why }) => Err(Error::Image {
                image: "archive".to_owned(),
                problem: why,
            }),
            Ok(Report::Failed { why }) => Err(Error::Failed(why)),
            Err(_) => {
                told.at("cannot write", "a job")?;
                Err(Error::Program {
                    program: "lxc-usernsexec".to_owned(),
                    problem: format!("{status}: {}", words.trim().escape_default()),
                })
            }
        }
    }

    /// Removes everything of a container. An absent one is fine.
    ///
    /// # Errors
    /// When something cannot be removed; the rest stays for the next time.
    pub fn remove(&self, vmid: u32) -> Result<()> {
        let directory = self.directory(vmid);
        if directory.symlink_metadata().is_err() {
            return Ok(());
        }
        // Without a slot nothing was unpacked yet, and everything is the service's own.
        if let Some(first_id) = self.first_id(vmid)? {
            let tree = directory.join("rootfs");
            let words: Vec<String> = ["/bin/rm", "-rf", "--one-file-system", "--"]
                .iter()
                .map(|word| (*word).to_owned())
                .chain([tree.display().to_string()])
                .collect();
            // As its root: however deep it is, whatever its modes are.
            self.lxc
                .as_root_of(first_id, self.own, &words, Vec::new())?
                .output()?;
        }
        std::fs::remove_dir_all(&directory).at("cannot remove", directory)
    }
}

/// Reads a report to its end, as long as the asker is there.
fn wait_for(report: OwnedFd, asker: &Line) -> Result<String> {
    let mut file = File::from(report);
    let mut bytes = Vec::new();
    loop {
        let mut fds = [
            PollFd::new(&file, PollFlags::IN),
            // Nothing is to be heard from it now but its end.
            PollFd::new(asker, PollFlags::RDHUP),
        ];
        let long = Timespec {
            tv_sec: 3600,
            tv_nsec: 0,
        };
        match poll(&mut fds, Some(&long)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).at("cannot wait for", "a report"),
        }
        let [mine, theirs] = fds.map(|fd| fd.revents());
        if !theirs.is_empty() {
            return Err(Error::Failed("nobody waits for it any more".to_owned()));
        }
        if mine.is_empty() {
            continue;
        }
        let mut chunk = [0u8; 4096];
        match file.read(&mut chunk).at("cannot read", "a report")? {
            0 => break,
            count => bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
        if bytes.len() as u64 > REPORT_LIMIT {
            return Err(Error::Failed("the report is too long".to_owned()));
        }
    }
    String::from_utf8(bytes).map_err(|e| Error::Failed(e.to_string()))
}

fn reap(mut child: Child) -> String {
    child
        .wait()
        .map_or_else(|e| e.to_string(), |status| status.to_string())
}
