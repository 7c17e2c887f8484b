//! KVM or TCG. A `/dev/kvm` that opens is no proof: under some nested hypervisors guests hang or QEMU aborts. So a tiny
//! guest that does what kernels do first is booted once under a time limit, and the answer is cached until the next boot,
//! the next QEMU or another test guest.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::config;
use crate::error::{Error, IoContext, Result};
use crate::exec::{Run, fd_number};
use crate::host::{Host, Ids};
use crate::runtime;

/// How long the tiny guest may take; it needs 0.1 s.
const PROBE_LIMIT: Duration = Duration::from_secs(4);
/// `isa-debug-exit` turns the byte v written to it into exit status 2v+1.
const PROBE_EXIT: i32 = 0x2a * 2 + 1;
/// What it executes, from `accel/probe.S`: long mode, paging, an exception, ring 3 and back. A boot sector that stays in
/// real mode ran under a hypervisor whose stock guests then hung before their first word.
const TEST_GUEST: &[u8; 512] = include_bytes!("accel/probe.bin");
/// To be raised with every change of the test guest, so that no answer of an earlier one is believed.
const TEST_GUEST_VERSION: u32 = 2;

/// How guests are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// By the processor.
    Kvm,
    /// By translation.
    Tcg,
}

impl Kind {
    /// As QEMU calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Kvm => "kvm",
            Kind::Tcg => "tcg",
        }
    }
}

/// The answer, with what it holds for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Which one.
    pub kind: Kind,
    /// Why.
    pub reason: String,
    boot_id: String,
    qemu: String,
    test_guest: u32,
}

/// Identity of a QEMU binary: replacing the package changes it.
fn identity(qemu: &Path) -> Result<String> {
    let meta = fs::metadata(qemu).at("cannot inspect", qemu)?;
    Ok(format!(
        "{} {} {}.{}",
        qemu.display(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec()
    ))
}

/// The accelerator of this host, from the cache or by trying.
///
/// # Errors
/// When the cache cannot be written or QEMU not be found; a KVM that does not work is an answer, not an error.
pub fn choose(host: &Host, qemu: &Path) -> Result<Choice> {
    let path = host.run_dir().join("accel.json");
    let (boot_id, identity) = (runtime::boot_id()?, identity(qemu)?);
    let cached = fs::read(&path)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Choice>(&bytes).ok());
    if let Some(choice) = cached.filter(|c| {
        c.boot_id == boot_id && c.qemu == identity && c.test_guest == TEST_GUEST_VERSION
    }) {
        return Ok(choice);
    }
    let (kind, reason) = match probe_kvm(host, qemu) {
        Ok(elapsed) => (
            Kind::Kvm,
            format!("a test guest ran under KVM in {} ms", elapsed.as_millis()),
        ),
        Err(why) => (Kind::Tcg, format!("KVM does not work here: {why}")),
    };
    let choice = Choice {
        kind,
        reason,
        boot_id,
        qemu: identity,
        test_guest: TEST_GUEST_VERSION,
    };
    let text = serde_json::to_vec(&choice).map_err(|e| Error::Failed(e.to_string()))?;
    config::write_atomically(&path, &text, 0o644)?;
    Ok(choice)
}

/// Opens `/dev/kvm` for a QEMU that may not do so itself.
///
/// # Errors
/// As `open`.
pub fn open_kvm() -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        "/dev/kvm",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn probe_kvm(host: &Host, qemu: &Path) -> std::result::Result<Duration, String> {
    let kvm = open_kvm().map_err(|e| format!("/dev/kvm cannot be opened: {e}"))?;
    let ids = host.machine_user().map_err(|e| e.to_string())?;
    probe(ids, qemu, Some(&kvm))
}

/// Boots the test guest, which at its end writes one byte to the debug-exit port, under KVM where its descriptor is given and else
/// under TCG; how long it took.
fn probe(ids: Ids, qemu: &Path, kvm: Option<&OwnedFd>) -> std::result::Result<Duration, String> {
    let disk = boot_disk().map_err(|e| format!("no memory file for the test guest: {e}"))?;
    let start = Instant::now();
    let mut child = probe_run(qemu, ids, kvm, &disk)
        .spawn()
        .map_err(|e| e.to_string())?;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.code() == Some(PROBE_EXIT) => return Ok(start.elapsed()),
            Ok(Some(status)) => return Err(format!("a test guest ended with {status}")),
            Ok(None) if start.elapsed() < PROBE_LIMIT => {
                std::thread::sleep(Duration::from_millis(10))
            }
            outcome => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(match outcome {
                    Err(e) => e.to_string(),
                    _ => format!(
                        "a test guest did not end within {} s",
                        PROBE_LIMIT.as_secs()
                    ),
                });
            }
        }
    }
}

fn probe_run<'a>(qemu: &Path, ids: Ids, kvm: Option<&'a OwnedFd>, disk: &'a OwnedFd) -> Run<'a> {
    let mut args: Vec<String> = [
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-machine",
        "q35",
        "-m",
        "64",
    ]
    .map(str::to_owned)
    .into();
    let mut arg = |option: &str, value: String| args.extend([option.to_owned(), value]);
    arg("-add-fd", format!("fd={},set=2", fd_number(disk)));
    if let Some(kvm) = kvm {
        arg("-add-fd", format!("fd={},set=1", fd_number(kvm)));
        arg("-accel", "kvm,device=/dev/fdset/1".to_owned());
        arg("-cpu", "host".to_owned());
    }
    arg(
        "-blockdev",
        "driver=file,node-name=file0,filename=/dev/fdset/2,read-only=on,locking=off".to_owned(),
    );
    arg(
        "-blockdev",
        "driver=raw,node-name=disk0,file=file0,read-only=on".to_owned(),
    );
    arg(
        "-device",
        "virtio-blk-pci,drive=disk0,bootindex=0".to_owned(),
    );
    arg("-device", "isa-debug-exit,iobase=0x501,iosize=1".to_owned());
    Run::new(qemu, args)
        .user(ids)
        .keep(kvm.into_iter().chain([disk]).map(AsFd::as_fd))
}

/// The boot sector of `accel/probe.S`, on a disk of 1 MiB.
fn boot_disk() -> std::io::Result<OwnedFd> {
    let file = File::from(rustix::fs::memfd_create("kvm-probe", MemfdFlags::CLOEXEC)?);
    std::os::unix::fs::FileExt::write_all_at(&file, TEST_GUEST, 0)?;
    file.set_len(1 << 20)?;
    // QEMU insists on a descriptor that is open for reading only when it is told read-only.
    let path = format!("/proc/self/fd/{}", fd_number(&file));
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Were the test guest itself broken, every host would be found to have no KVM.
    #[test]
    fn the_test_guest_runs_to_its_end_where_the_accelerator_works() {
        let Ok(qemu) = crate::exec::find(crate::launch::QEMU, "qemu-system-x86") else {
            eprintln!("skipped: no QEMU");
            return;
        };
        let ids = Ids {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        };
        probe(ids, &qemu, None).unwrap();
    }

    #[test]
    fn the_test_guest_is_what_its_source_says() {
        let dir = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/accel/probe.S");
        let [object, binary] = ["probe.o", "probe.bin"].map(|name| dir.path().join(name));
        let assemble = [
            Path::new("--64"),
            Path::new("-o"),
            &object,
            Path::new(source),
        ];
        let copy = ["-O", "binary", "-j", ".text"].map(Path::new);
        let copy = copy.into_iter().chain([object.as_path(), &binary]);
        for (program, args) in [("as", assemble.to_vec()), ("objcopy", copy.collect())] {
            #[expect(clippy::disallowed_methods, reason = "runs the assembler of the build")]
            let Ok(status) = std::process::Command::new(program).args(args).status() else {
                eprintln!("skipped: no {program}; Debian's binutils has it");
                return;
            };
            assert!(
                status.success(),
                "{program} refuses the test guest's source"
            );
        }
        assert_eq!(
            fs::read(&binary).unwrap(),
            TEST_GUEST,
            "assemble probe.S again, raise TEST_GUEST_VERSION"
        );
    }
}
