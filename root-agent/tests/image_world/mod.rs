//! A disk image with a small Debian in it, made once for each test that wants one, and a look inside without libguestfs.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

/// Where the one partition begins, bytes.
const START: u64 = 1 << 20;
/// Size of the disk, bytes.
const SIZE: u64 = 160 << 20;

/// What this machine lacks for the real thing, or nothing.
pub fn missing() -> Option<String> {
    let programs = [
        "/usr/bin/virt-customize",
        "/usr/bin/supermin",
        "/bin/busybox",
        "/usr/bin/qemu-img",
        "/usr/bin/dpkg-scanpackages",
        "/sbin/mke2fs",
        "/sbin/debugfs",
    ];
    if let Some(program) = programs.iter().find(|path| !Path::new(path).exists()) {
        return Some(format!("there is no {program}"));
    }
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    let kernels = fs::read_dir("/boot").into_iter().flatten().flatten();
    let has_kernel = kernels
        .filter_map(|entry| entry.file_name().into_string().ok())
        .any(|name| name.starts_with("vmlinuz-"));
    (!has_kernel).then(|| "there is no kernel in /boot".to_owned())
}

/// Makes a qcow2 image that belongs to `owner`.
pub fn make(image: &Path, owner: u32) {
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name).display().to_string();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../root-agent/tests/image_world/make-root.sh"
    );
    run("sh", &[script, &at("root")]);
    let raw = at("raw");
    let mut disk = fs::File::create(&raw).expect("a disk");
    disk.set_len(SIZE).expect("a size");
    disk.write_all(&boot_sector()).expect("written");
    let offset = format!("offset={START}");
    let blocks = format!("{}k", (SIZE - START) / 1024);
    let root = at("root");
    run(
        "/sbin/mke2fs",
        &[
            "-q", "-F", "-t", "ext4", "-d", &root, "-E", &offset, &raw, &blocks,
        ],
    );
    let target = image.display().to_string();
    run(
        "qemu-img",
        &["convert", "-f", "raw", "-O", "qcow2", &raw, &target],
    );
    chown(image, Some(owner), Some(owner)).expect("an owner");
    fs::set_permissions(image, fs::Permissions::from_mode(0o644)).expect("a mode");
}

/// One Linux partition.
fn boot_sector() -> [u8; 512] {
    let mut sector = [0u8; 512];
    sector[450] = 0x83;
    let sectors = |bytes: u64| u32::try_from(bytes / 512).expect("small").to_le_bytes();
    sector[454..458].copy_from_slice(&sectors(START));
    sector[458..462].copy_from_slice(&sectors(SIZE - START));
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// What is inside an image.
pub struct Inside {
    place: tempfile::TempDir,
}

impl Inside {
    pub fn of(image: &Path) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let raw = place.path().join("raw").display().to_string();
        let source = image.display().to_string();
        run(
            "qemu-img",
            &["convert", "-f", "qcow2", "-O", "raw", &source, &raw],
        );
        let mut disk = fs::File::open(&raw).expect("a disk");
        disk.seek(SeekFrom::Start(START)).expect("a partition");
        let mut partition = Vec::new();
        disk.read_to_end(&mut partition).expect("read");
        fs::write(place.path().join("partition"), partition).expect("written");
        Inside { place }
    }

    fn debugfs(&self, command: &str) -> String {
        let partition = self.place.path().join("partition").display().to_string();
        run("/sbin/debugfs", &["-R", command, &partition])
    }

    /// A file's contents; empty when it is not there.
    pub fn read(&self, path: &str) -> String {
        self.debugfs(&format!("cat {path}"))
    }

    /// `mode`, `uid` and `gid` of a file as debugfs prints them, `None` when it is not there.
    pub fn stat(&self, path: &str) -> Option<(u32, u32, u32)> {
        let text = self.debugfs(&format!("stat {path}"));
        let after = |key: &str| {
            let rest = text.split(key).nth(1)?;
            rest.split_whitespace().next()
        };
        let mode = u32::from_str_radix(after("Mode:")?, 8).ok()?;
        Some((
            mode,
            after("User:")?.parse().ok()?,
            after("Group:")?.parse().ok()?,
        ))
    }

    /// Names in a directory.
    pub fn list(&self, path: &str) -> Vec<String> {
        self.debugfs(&format!("ls -p {path}"))
            .lines()
            .filter_map(|line| line.split('/').nth(5))
            .map(str::to_owned)
            .collect()
    }
}

/// Runs a tool of the host; it must succeed.
#[expect(
    clippy::disallowed_methods,
    reason = "tests drive the host's own tools"
)]
pub fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().expect(program);
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{program} {words:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}
