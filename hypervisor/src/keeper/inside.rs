//! The part of the service that touches what a container's people made: it runs as root of a name space with that
//! container's ids and nothing more, with the root file system as its root directory, before it looks at a single name.
//! Started by [`super::rootfs`] as a process of its own.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::exec::{self, Run};
use crate::host::Ids;
use crate::keeper::unpack::{self, Budget};
use crate::keeper::wire::{Packing, Settings};
use crate::sys;

/// Hidden command under which the program runs as this.
pub const COMMAND: &str = "inside";

/// Memory of the program that unpacks, and of the one that decompresses.
const MEMORY: u64 = 2 << 30;
/// What may follow behind the end of an archive: padding.
const TRAILING: u64 = 16 << 20;
/// Nobody, inside: the decompressor's user, who owns nothing.
const NOBODY: Ids = Ids {
    uid: 65_534,
    gid: 65_534,
};

/// What is to be done, as the first line of standard input. When that ends, so does the work.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Job {
    /// Make the root file system below the directory and unpack the archive into it.
    Unpack {
        /// Descriptor of the container's directory.
        directory: i32,
        /// Descriptor of the archive.
        archive: i32,
        /// How it is packed.
        packing: Packing,
        /// How much may be unpacked.
        bytes: u64,
        /// Written into it afterwards.
        settings: Settings,
    },
    /// Write settings into a root file system.
    Settle {
        /// Descriptor of the container's directory.
        directory: i32,
        /// Which.
        settings: Settings,
    },
}

/// What came of it, as one line of standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Report {
    /// Done; what is to be said about it.
    Done {
        /// Sentences.
        notes: Vec<String>,
    },
    /// The archive is not acceptable.
    Archive {
        /// Why.
        why: String,
    },
    /// It could not be done.
    Failed {
        /// Why.
        why: String,
    },
}

/// Runs as the process inside.
pub fn run() -> ExitCode {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    let job = read.and_then(|_| serde_json::from_str::<Job>(&line).map_err(io::Error::other));
    // Whoever asked is gone when our input ends; then nobody waits for this any more.
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(1);
    });
    let report = match job.map(carry_out) {
        Ok(Ok(notes)) => Report::Done { notes },
        Ok(Err(Stop::Archive(why))) => Report::Archive { why },
        Ok(Err(Stop::Failed(why))) => Report::Failed { why },
        Err(e) => Report::Failed {
            why: format!("no job: {e}"),
        },
    };
    let text = serde_json::to_string(&report).unwrap_or_default();
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Why the work stopped.
#[derive(Debug)]
pub enum Stop {
    /// Because of the archive.
    Archive(String),
    /// For another reason.
    Failed(String),
}

impl Stop {
    /// A failed step with its name.
    pub fn at<E: std::fmt::Display>(step: &'static str) -> impl Fn(E) -> Stop {
        move |e| Stop::Failed(format!("{step}: {e}"))
    }
}

fn carry_out(job: Job) -> Result<Vec<String>, Stop> {
    let small = Rlimit {
        current: Some(MEMORY),
        maximum: Some(MEMORY),
    };
    setrlimit(Resource::As, small).map_err(Stop::at("memory limit"))?;
    // The decompressor reads what somebody else wrote: it gets the archive, and neither the directory nor a network.
    sys::keep_from_children().map_err(Stop::at("inherited descriptors"))?;
    sys::leave_network().map_err(Stop::at("network"))?;
    match job {
        Job::Settle {
            directory,
            settings,
        } => {
            enter(inherited(directory)?)?;
            settle(&settings).map(|()| Vec::new())
        }
        Job::Unpack {
            directory,
            archive,
            packing,
            bytes,
            settings,
        } => {
            let directory = inherited(directory)?;
            let archive = inherited(archive)?;
            own(&directory)?;
            let mut source = Source::open(packing, archive)?;
            enter(directory)?;
            let mut budget = Budget::new(bytes);
            let unpacked = unpack::unpack(&mut source.stream, &mut budget);
            source.finish(unpacked)?;
            settle(&settings)?;
            let root = open_root()?;
            rustix::fs::syncfs(root).map_err(Stop::at("sync"))?;
            Ok(budget.notes())
        }
    }
}

/// Opens an inherited descriptor anew. It refers to the same file; nothing else in this process knows it.
fn inherited(number: i32) -> Result<OwnedFd, Stop> {
    let path = format!("/proc/self/fd/{number}");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Stop::at("inherited descriptor"))
}

/// Lets the container's root, and nobody else, pass through the directory, and makes the root file system in it.
fn own(directory: &OwnedFd) -> Result<(), Stop> {
    let root = rustix::fs::Gid::from_raw(0);
    rustix::fs::fchown(directory, None, Some(root)).map_err(Stop::at("directory's group"))?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(0o710))
        .map_err(Stop::at("directory's mode"))?;
    rustix::fs::mkdirat(directory, "rootfs", Mode::from_raw_mode(0o755))
        .map_err(Stop::at("root file system"))
}

/// Makes the root file system the root directory of this process. From here on no name leads anywhere else.
fn enter(directory: OwnedFd) -> Result<(), Stop> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let root = sys::open_beneath(&directory, "rootfs".as_ref(), flags, Mode::empty())
        .map_err(Stop::at("root file system"))?;
    rustix::process::fchdir(&root).map_err(Stop::at("root directory"))?;
    rustix::process::chroot(".").map_err(Stop::at("root directory"))?;
    rustix::process::chdir("/").map_err(Stop::at("root directory"))
}

fn open_root() -> Result<OwnedFd, Stop> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty()).map_err(Stop::at("root directory"))
}

/// The archive's bytes as they come out of the decompressor.
struct Source {
    stream: Box<dyn Read>,
    child: Option<(std::process::Child, &'static str)>,
}

impl Source {
    fn open(packing: Packing, archive: OwnedFd) -> Result<Self, Stop> {
        let (program, package) = match packing {
            Packing::Plain => {
                return Ok(Self {
                    stream: Box::new(io::BufReader::with_capacity(1 << 16, File::from(archive))),
                    child: None,
                });
            }
            Packing::Gzip => ("gzip", "gzip"),
            Packing::Bzip2 => ("bzip2", "bzip2"),
            Packing::Xz => ("xz", "xz-utils"),
            Packing::Zstd => ("zstd", "zstd"),
        };
        let path = exec::find(program, package).map_err(Stop::at("decompressor"))?;
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Stop::at("pipe"))?;
        let child = Run::new(path, ["-dc"])
            .user(NOBODY)
            .stdin(File::from(archive))
            .stdout(File::from(write))
            .spawn()
            .map_err(Stop::at("decompressor"))?;
        Ok(Self {
            stream: Box::new(io::BufReader::with_capacity(1 << 16, File::from(read))),
            child: Some((child, program)),
        })
    }

    /// Reads the padding, and hears from the decompressor whether the archive was whole.
    fn finish(mut self, unpacked: Result<(), Stop>) -> Result<(), Stop> {
        let ended = unpacked.and_then(|()| {
            let rest = io::copy(&mut self.stream.by_ref().take(TRAILING), &mut io::sink());
            match rest {
                Ok(rest) if rest < TRAILING => Ok(()),
                Ok(_) => Err(Stop::Archive(
                    "something else follows behind its end".to_owned(),
                )),
                Err(e) => Err(Stop::Archive(e.to_string())),
            }
        });
        drop(self.stream);
        let Some((mut child, program)) = self.child else {
            return ended;
        };
        if ended.is_err() {
            let _ = child.kill();
        }
        let status = child.wait().map_err(Stop::at("decompressor"))?;
        ended?;
        if status.success() {
            Ok(())
        } else {
            Err(Stop::Archive(format!(
                "{program} cannot read it ({status})"
            )))
        }
    }
}

/// Writes the settings. A container's people can put links anywhere in their root file system, and that is where these lead.
fn settle(settings: &Settings) -> Result<(), Stop> {
    let root = open_root()?;
    let put = |name: &str, text: &str, mode: u32| {
        replace(&root, name, text, mode).map_err(|e| Stop::Failed(format!("/{name}: {e}")))
    };
    put("etc/hostname", &format!("{}\n", settings.hostname), 0o644)?;
    if !settings.nameservers.is_empty() || !settings.searchdomains.is_empty() {
        let mut text = String::new();
        if !settings.searchdomains.is_empty() {
            text.push_str(&format!("search {}\n", settings.searchdomains.join(" ")));
        }
        for server in &settings.nameservers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        put("etc/resolv.conf", &text, 0o644)?;
    }
    if rustix::fs::statat(&root, "etc/hosts", rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_err() {
        let text = format!(
            "127.0.0.1 localhost\n127.0.1.1 {}\n::1 localhost ip6-localhost ip6-loopback\n",
            settings.hostname
        );
        put("etc/hosts", &text, 0o644)?;
    }
    if let Some(zone) = &settings.timezone {
        let target = format!("/usr/share/zoneinfo/{zone}");
        link(&root, "etc/localtime", &target).map_err(Stop::at("/etc/localtime"))?;
    }
    if let Some(keys) = &settings.ssh_keys {
        for (name, mode) in [("root", 0o700), ("root/.ssh", 0o700)] {
            match rustix::fs::mkdirat(&root, name, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(Stop::Failed(format!("/{name}: {e}"))),
            }
        }
        put(
            "root/.ssh/authorized_keys",
            &format!("{}\n", keys.trim_end()),
            0o600,
        )?;
    }
    Ok(())
}

/// The names of a file's directory and of a new file beside it.
fn beside(name: &str) -> String {
    format!("{name}.blockhost-new")
}

/// Puts a file in the place of whatever has that name, a link included.
fn replace(root: &OwnedFd, name: &str, text: &str, mode: u32) -> io::Result<()> {
    if let Some((directory, _)) = name.rsplit_once('/') {
        match rustix::fs::mkdirat(root, directory, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let new = beside(name);
    let _ = rustix::fs::unlinkat(root, new.as_str(), rustix::fs::AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(root, new.as_str(), flags, Mode::from_raw_mode(mode))?;
    rustix::fs::fchmod(fd.as_fd(), Mode::from_raw_mode(mode))?;
    let mut file = File::from(fd);
    file.write_all(text.as_bytes())?;
    Ok(rustix::fs::renameat(root, new.as_str(), root, name)?)
}

fn link(root: &OwnedFd, name: &str, target: &str) -> io::Result<()> {
    let new = beside(name);
    let _ = rustix::fs::unlinkat(root, new.as_str(), rustix::fs::AtFlags::empty());
    rustix::fs::symlinkat(target, root, new.as_str())?;
    Ok(rustix::fs::renameat(root, new.as_str(), root, name)?)
}
