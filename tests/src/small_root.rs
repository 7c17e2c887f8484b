//! The smallest root file system that a container starts from: busybox and its init, packed by the host's own tar.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use crate::command::{run, with_args};
use crate::namespace::find;

/// What containers need of this machine and it lacks.
#[must_use]
pub fn missing() -> Option<&'static str> {
    (find("lxc-start").is_none() || find("busybox").is_none())
        .then_some("lxc and busybox-static are missing; run the setup script")
}

/// The bytes of a `.tar.gz` of it.
///
/// # Panics
/// As [`pack`].
#[must_use]
pub fn archive() -> Vec<u8> {
    let place = tempfile::tempdir().expect("a directory");
    let made = place.path().join("small.tar.gz");
    pack(place.path(), &made);
    fs::read(&made).expect("the archive")
}

/// Packs it into a `.tar.gz`; `scratch` is a directory to work in.
///
/// # Panics
/// When a file cannot be written or tar fails.
pub fn pack(scratch: &Path, archive: &Path) {
    let stage = scratch.join("small-root");
    for name in [
        "bin", "sbin", "proc", "sys", "dev", "etc", "run", "var", "root", "tmp",
    ] {
        fs::create_dir_all(stage.join(name)).expect("a directory");
    }
    let busybox = find("busybox").expect("busybox");
    fs::copy(busybox, stage.join("bin/busybox")).expect("copied");
    for name in ["sh", "cat", "ip", "sleep", "hostname", "ping", "id", "grep"] {
        symlink("busybox", stage.join("bin").join(name)).expect("a link");
    }
    symlink("../bin/busybox", stage.join("sbin/init")).expect("a link");
    // How it was ended is seen afterwards: who is killed leaves no word.
    let inittab = "::respawn:/bin/sleep 10000\n::shutdown:/bin/sh -c 'echo down >/root/down'\n";
    fs::write(stage.join("etc/inittab"), inittab).expect("written");
    fs::write(stage.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("written");
    let (stage, archive) = (stage.display().to_string(), archive.display().to_string());
    let tar = with_args(
        "tar",
        &[
            "--owner=0",
            "--group=0",
            "-C",
            &stage,
            "-czf",
            &archive,
            ".",
        ],
    );
    run(tar, Duration::from_secs(30)).expect("packed");
}
