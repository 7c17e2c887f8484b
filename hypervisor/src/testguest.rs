//! Builds a small bootable disk for tests (feature `test-guest`): GRUB, Debian's cloud kernel, an initramfs of busybox and
//! the real `qemu-ga`. It boots from a BIOS like any machine, in about 4 s under TCG, and its agent answers. Nothing is
//! mounted, no privilege is needed; packages come from the host's own apt sources.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::error::{Error, IoContext, Result};
use crate::exec::{self, Run};

/// Packages that the guest is made of; the kernel comes besides.
const PACKAGES: [&str; 8] = [
    "qemu-guest-agent",
    "busybox-static",
    "libglib2.0-0",
    "libudev1",
    "liburing2",
    "libpcre2-8-0",
    "libnuma1",
    "libc6",
];
/// Kernel modules with everything they depend on.
const MODULES: [&str; 6] = [
    "virtio_pci",
    "virtio_console",
    "virtio_net",
    "virtio_scsi",
    "sd_mod",
    "isofs",
];
/// What GRUB needs to read the kernel from the partition.
const GRUB_MODULES: [&str; 5] = ["biosdisk", "part_msdos", "ext2", "linux", "boot"];
/// Line on the serial console once the guest's agent is about to start.
pub const READY: &str = "test-guest-ready";
/// Where the partition begins.
const PARTITION_START: usize = 1 << 20;

const GRUB_CONFIG: &str = "\
set root=(hd0,msdos1)
linux /vmlinuz console=ttyS0 quiet loglevel=3 mitigations=off tsc=reliable no_timer_check nokaslr net.ifnames=0 panic=1
initrd /initrd
boot
";

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /seed /var/run /etc /usr/bin /usr/sbin
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
for disk in /dev/sd? /dev/vd?; do
  [ -b $disk ] && mount -t iso9660 -o ro $disk /seed 2>/dev/null && break
done
hostname "$(sed -n 's/.*"local-hostname":"\([^"]*\)".*/\1/p' /seed/meta-data 2>/dev/null)"
ip link set lo up
ip link set eth0 up 2>/dev/null
echo test-guest-ready >/dev/ttyS0
for port in /sys/class/virtio-ports/*; do
  [ "$(cat $port/name)" = org.qemu.guest_agent.0 ] && agent=/dev/${port##*/}
done
while true; do
  [ -e /run/no-agent ] || qemu-ga -m virtio-serial -p "$agent" -t /run -f /run/qemu-ga.pid
  sleep 1
done
"#;

const SHUTDOWN: &str = "#!/bin/busybox sh\nexec /bin/busybox poweroff -f\n";

/// The guest's raw disk image, built below `cache` at the first call.
///
/// # Errors
/// When a package cannot be had or a tool is missing; a test may take that as its reason to skip.
pub fn image(cache: &Path) -> Result<PathBuf> {
    fs::create_dir_all(cache).at("cannot create", cache)?;
    let lock_path = cache.join("lock");
    let lock = fs::File::create(&lock_path).at("cannot create", &lock_path)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).at("cannot lock", &lock_path)?;
    let image = cache.join("test-guest.img");
    let recipe = cache.join("recipe");
    let wanted = format!("{PACKAGES:?}{MODULES:?}{GRUB_MODULES:?}{GRUB_CONFIG}{INIT}{SHUTDOWN}");
    if image.is_file() && fs::read_to_string(&recipe).is_ok_and(|built| built == wanted) {
        return Ok(image);
    }
    let tree = download(cache)?;
    let files = cache.join("files");
    let _ = fs::remove_dir_all(&files);
    fs::create_dir_all(&files).at("cannot create", &files)?;
    let kernel = only(&tree.join("boot"), |name| name.starts_with("vmlinuz-"))?;
    fs::copy(&kernel, files.join("vmlinuz")).at("cannot copy", &kernel)?;
    let initrd = initramfs(&tree)?;
    fs::write(files.join("initrd"), initrd).at("cannot write", files.join("initrd"))?;
    let disk = disk(cache, &files)?;
    let temporary = cache.join("test-guest.img.new");
    fs::write(&temporary, disk).at("cannot write", &temporary)?;
    fs::rename(&temporary, &image).at("cannot rename", &temporary)?;
    fs::write(&recipe, wanted).at("cannot write", &recipe)?;
    Ok(image)
}

fn run_in(dir: &Path, program: &str, package: &str, args: &[&str]) -> Result<String> {
    let fd = crate::sys::open_dir(dir).at("cannot open", dir)?;
    Run::new(exec::find(program, package)?, args.iter().copied())
        .directory(std::os::fd::AsFd::as_fd(&fd))
        .output()
}

/// Downloads and unpacks the packages into one tree.
fn download(cache: &Path) -> Result<PathBuf> {
    let tree = cache.join("tree");
    let _ = fs::remove_dir_all(&tree);
    let debs = cache.join("debs");
    let _ = fs::remove_dir_all(&debs);
    for dir in [&tree, &debs] {
        fs::create_dir_all(dir).at("cannot create", dir)?;
    }
    let depends = run_in(
        &debs,
        "apt-cache",
        "apt",
        &["depends", "--important", "linux-image-cloud-amd64"],
    )?;
    let kernel = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let kernel =
        kernel.ok_or_else(|| Error::Failed("apt knows no linux-image-cloud-amd64".to_owned()))?;
    let kernel = format!("linux-image-{kernel}");
    let mut args = vec!["-q", "download", &kernel];
    args.extend(PACKAGES);
    run_in(&debs, "apt-get", "apt", &args)?;
    for entry in fs::read_dir(&debs).at("cannot read", &debs)?.flatten() {
        let deb = entry.path().display().to_string();
        run_in(
            &debs,
            "dpkg-deb",
            "dpkg",
            &["-x", &deb, &tree.display().to_string()],
        )?;
    }
    Ok(tree)
}

fn only(dir: &Path, matches: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let found = fs::read_dir(dir).at("cannot read", dir)?.flatten();
    found
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(&matches)
        })
        .ok_or_else(|| Error::Failed(format!("{}: expected file is missing", dir.display())))
}

fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), visit),
            _ => visit(&entry.path()),
        }
    }
}

/// Adds a module after those it needs, as its own `depends=` line says.
fn add_module(
    name: &str,
    all: &[PathBuf],
    order: &mut Vec<PathBuf>,
    seen: &mut BTreeSet<String>,
) -> Result<()> {
    let name = name.replace('-', "_");
    if !seen.insert(name.clone()) {
        return Ok(());
    }
    let stem = |path: &Path| {
        path.file_stem()
            .and_then(|s| s.to_str())
            .map(|s| s.replace('-', "_"))
    };
    // One that is built into the kernel has no file.
    let Some(path) = all
        .iter()
        .find(|path| stem(path).as_deref() == Some(name.as_str()))
    else {
        return Ok(());
    };
    let bytes = fs::read(path).at("cannot read", path)?;
    let line = bytes
        .split(|byte| *byte == 0)
        .find_map(|part| part.strip_prefix(b"depends="));
    for needed in line
        .unwrap_or_default()
        .split(|byte| *byte == b',')
        .filter(|name| !name.is_empty())
    {
        add_module(&needed.escape_ascii().to_string(), all, order, seen)?;
    }
    order.push(path.clone());
    Ok(())
}

fn initramfs(tree: &Path) -> Result<Vec<u8>> {
    let mut archive = Cpio::default();
    for dir in [
        "bin",
        "sbin",
        "lib",
        "lib64",
        "lib/x86_64-linux-gnu",
        "modules",
        "usr",
        "usr/sbin",
    ] {
        archive.add(dir, 0o040_755, b"");
    }
    let mut add = |from: &Path, to: &str| -> Result<()> {
        let bytes = fs::read(from).at("cannot read", from)?;
        archive.add(to, 0o100_755, &bytes);
        Ok(())
    };
    add(&tree.join("bin/busybox"), "bin/busybox")?;
    add(&tree.join("usr/sbin/qemu-ga"), "sbin/qemu-ga")?;
    add(
        &tree.join("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
        "lib64/ld-linux-x86-64.so.2",
    )?;
    // Every shared library of the packages' main directories, under its plain and its versioned name.
    let wanted = [
        "libc.so",
        "libm.so",
        "libglib-2.0",
        "libgmodule",
        "libudev",
        "liburing.so",
        "libpcre2-8",
        "libnuma",
    ];
    for dir in ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"] {
        for entry in fs::read_dir(tree.join(dir)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_str().unwrap_or_default().to_owned();
            if wanted.iter().any(|prefix| name.starts_with(prefix)) && entry.path().is_file() {
                add(&entry.path(), &format!("lib/x86_64-linux-gnu/{name}"))?;
            }
        }
    }
    let mut all = Vec::new();
    walk(&tree.join("lib/modules"), &mut |path| {
        if path.extension().is_some_and(|ext| ext == "ko") {
            all.push(path.to_owned());
        }
    });
    let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
    for module in MODULES {
        add_module(module, &all, &mut order, &mut seen)?;
    }
    let mut names = String::new();
    for path in &order {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        names.push_str(&format!("{name}\n"));
        add(path, &format!("modules/{name}"))?;
    }
    archive.add("modules/order", 0o100_644, names.as_bytes());
    archive.add("sbin/shutdown", 0o100_755, SHUTDOWN.as_bytes());
    archive.add("init", 0o100_755, INIT.as_bytes());
    archive.finish()
}

/// Partition table, GRUB before the partition, and the file system in it.
fn disk(cache: &Path, files: &Path) -> Result<Vec<u8>> {
    let partition = cache.join("partition.img");
    let _ = fs::remove_file(&partition);
    let content: u64 = fs::read_dir(files)
        .at("cannot read", files)?
        .flatten()
        .map(|e| e.metadata().map_or(0, |m| m.len()))
        .sum();
    let mib = content.div_ceil(1 << 20) + 8;
    let (files, target) = (files.display().to_string(), partition.display().to_string());
    run_in(
        cache,
        "mke2fs",
        "e2fsprogs",
        &[
            "-q",
            "-F",
            "-t",
            "ext2",
            "-m",
            "0",
            "-d",
            &files,
            &target,
            &format!("{mib}M"),
        ],
    )?;
    let config = cache.join("grub.cfg");
    fs::write(&config, GRUB_CONFIG).at("cannot write", &config)?;
    let core = cache.join("core.img");
    let (config, core_path) = (config.display().to_string(), core.display().to_string());
    let mut args = vec!["-O", "i386-pc", "-p", "/", "-c", &config, "-o", &core_path];
    args.extend(GRUB_MODULES);
    run_in(cache, "grub-mkimage", "grub-pc-bin", &args)?;
    let boot = Path::new("/usr/lib/grub/i386-pc/boot.img");
    let boot = fs::read(boot).at("cannot read", boot)?;
    let core = fs::read(&core).at("cannot read", &core)?;
    let body = fs::read(&partition).at("cannot read", &partition)?;
    if core.len() + 512 > PARTITION_START {
        return Err(Error::Failed(
            "GRUB's core does not fit before the partition".to_owned(),
        ));
    }
    let mut disk = vec![0; PARTITION_START];
    disk.splice(..440, boot.into_iter().take(440));
    let sectors =
        |bytes: usize| u32::try_from(bytes / 512).map_err(|e| Error::Failed(e.to_string()));
    let mut entry = vec![0x80, 0, 2, 0, 0x83, 0xff, 0xff, 0xff];
    entry.extend(sectors(PARTITION_START)?.to_le_bytes());
    entry.extend(sectors(body.len())?.to_le_bytes());
    disk.splice(446..462, entry);
    disk.splice(510..512, [0x55, 0xaa]);
    disk.splice(512..512 + core.len(), core);
    disk.extend(body);
    Ok(disk)
}

/// A `newc` archive: what the kernel unpacks as its first root.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let size = content.len();
        let fields = format!(
            "070701{:08X}{mode:08X}{:08X}{:08X}{:08X}{:08X}{size:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}",
            self.inode,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            name.len() + 1,
            0
        );
        self.bytes.extend(fields.bytes());
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.add("TRAILER!!!", 0, b"");
        self.bytes.flush().at("cannot finish", "initramfs")?;
        Ok(self.bytes)
    }
}

/// Makes the image readable for everyone, as an image directory's files are.
///
/// # Errors
/// When it cannot be changed.
pub fn publish(image: &Path, to: &Path) -> Result<()> {
    fs::copy(image, to).at("cannot copy", to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o644)).at("cannot open up", to)
}
