//! The system that ships, on a kernel of its own: Debian's, booted by an emulated machine, with control groups v2 alone, this
//! host's systemd and our units. For what a private system on this host's kernel ([`crate::systemd`]) cannot show. Everything is
//! in memory, nothing of it stays; commands go in and answers come out by a serial line.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::command::{command, printable, run, tail_of_file, with_args};
use crate::namespace::find;
use crate::systemd::{Installation, Unavailable, stage};

/// Against what hangs: the boot takes half a minute, and a command a few seconds.
const LIMIT: Duration = Duration::from_secs(900);

/// What emulates the machine, and is in it too: machines of ours are emulated in the emulated one.
const QEMU: &str = "qemu-system-x86_64";

/// What is in it of this host. Units start some by names that a busybox has, too, but not within a filter of system calls.
const PROGRAMS: [&str; 17] = [
    BUSYBOX,
    "/bin/kill",
    "/bin/sh",
    "/bin/sleep",
    "/bin/true",
    "/lib/systemd/systemd",
    "/lib/systemd/systemd-journald",
    "/usr/bin/flock",
    "/usr/bin/journalctl",
    "/usr/bin/qemu-img",
    "/usr/bin/qemu-system-x86_64",
    "/usr/bin/setpriv",
    "/usr/bin/systemctl",
    "/usr/bin/systemd-sysusers",
    "/usr/bin/systemd-tmpfiles",
    "/usr/share/qemu/kvmvapic.bin",
    "/usr/share/seabios/bios-256k.bin",
];
/// Part of systemd since version 255.
const EXECUTOR: &str = "/usr/lib/systemd/systemd-executor";
/// All else that a shell calls.
const BUSYBOX: &str = "/bin/busybox";

/// A kernel's first root cannot be left by `pivot_root`, as units with a sandbox do.
const INIT: &str = r"#!/bin/busybox sh
PATH=/bin
mount -t tmpfs -o mode=0755 root /new
cp -a /bin /etc /lib /lib64 /sbin /units /usr /var /new
mkdir /new/dev /new/proc /new/root /new/run /new/sys /new/tmp
exec switch_root /new /units/boot
";

const BOOT: &str = r"#!/bin/busybox sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=0755 run /run
exec </dev/null >/dev/ttyS0 2>&1
systemd-sysusers blockhost.conf
systemd-tmpfiles --create blockhost.conf
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/units SYSTEMD_GENERATOR_PATH=/nonexistent \
  /lib/systemd/systemd --system --unit=multi-user.target --show-status=no --log-target=journal
";

const CONSOLE_UNIT: &str = "\
[Unit]
After=multi-user.target
[Service]
ExecStart=/bin/sh /units/console
StandardInput=file:/dev/ttyS1
StandardOutput=file:/dev/ttyS1
";

/// One line is one command; what it wrote comes back behind its status and its length.
const CONSOLE: &str = r#"stty -F /dev/ttyS1 raw -echo
echo ready
while read -r line; do
  eval "$line" >/run/answer 2>&1 </dev/null
  echo "status $? $(wc -c </run/answer)"
  cat /run/answer
done
"#;

/// A booted system. Dropping it ends the emulated machine.
pub struct BootedKernel {
    child: Child,
    line: Mutex<Line>,
    dir: tempfile::TempDir,
}

impl BootedKernel {
    /// Boots and waits until systemd has started what was enabled. `programs` of this host are in it as well.
    ///
    /// # Errors
    /// [`Unavailable`] where the machine has no such kernel, or not what it takes to boot it.
    ///
    /// # Panics
    /// When it does not come up although the machine could.
    pub fn boot(programs: &[&str], installation: &Installation<'_>) -> Result<Self, Unavailable> {
        let kernel = kernel()?;
        let mut needed = PROGRAMS.iter().chain(programs);
        if let Some(path) = needed.find(|path| !Path::new(path).exists()) {
            return Err(Unavailable(format!("{path} is not installed")));
        }
        for program in [QEMU, "cpio", "ldd", "setpriv", "strip"] {
            if find(program).is_none() {
                return Err(Unavailable(format!("{program} is not installed")));
            }
        }
        let dir = tempfile::Builder::new()
            .prefix("blockhost-kernel-")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        let (root, archive) = (dir.path().join("root"), dir.path().join("initramfs"));
        lay_out(&root, programs, installation);
        pack(&root, &archive);
        fs::remove_dir_all(&root).expect("removed");
        let mut child = emulate(&kernel, dir.path());
        let line = Line::to(&mut child, &dir.path().join("line"));
        let booted = Self {
            child,
            line: Mutex::new(line),
            dir,
        };
        let ready = booted.ask(|line| line.words());
        assert_eq!(ready, "ready", "{}", booted.console());
        Ok(booted)
    }

    /// Runs a line of shell inside, as root; what it wrote, wherever to.
    ///
    /// # Errors
    /// The same, when it failed.
    ///
    /// # Panics
    /// When the system does not answer any more.
    pub fn run(&self, script: &str) -> Result<String, String> {
        assert!(!script.contains('\n'), "one line: {script}");
        let (status, text) = self.ask(|line| {
            line.stream.write_all(format!("{script}\n").as_bytes())?;
            let head = line.words()?;
            let length = head.rsplit(' ').next().and_then(|word| word.parse().ok());
            let length = length.ok_or_else(|| std::io::Error::other(head.clone()))?;
            Ok((head, printable(&line.bytes(length)?)))
        });
        if status.starts_with("status 0 ") {
            Ok(text)
        } else {
            Err(text)
        }
    }

    /// The same for what has to succeed.
    ///
    /// # Panics
    /// When it fails, with its output and the journal.
    #[must_use]
    pub fn output(&self, script: &str) -> String {
        match self.run(script) {
            Ok(text) => text,
            Err(text) => panic!("{script}: {text}\n{}", self.journal()),
        }
    }

    /// The journal, for messages.
    #[must_use]
    pub fn journal(&self) -> String {
        self.run("journalctl --no-pager -n 60 --no-hostname")
            .unwrap_or_else(|text| text)
    }

    fn ask<T>(&self, what: impl FnOnce(&mut Line) -> std::io::Result<T>) -> T {
        let mut line = self.line.lock().expect("nobody has panicked with it");
        what(&mut line).unwrap_or_else(|error| panic!("no answer: {error}: {}", self.console()))
    }

    fn console(&self) -> String {
        tail_of_file(&self.dir.path().join("console"), 3000)
    }
}

impl Drop for BootedKernel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The serial line that commands go over.
struct Line {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Line {
    /// Connected before anything is said on it.
    fn to(child: &mut Child, socket: &Path) -> Self {
        let until = Instant::now() + LIMIT;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            let ended = child.try_wait().expect("wait");
            assert!(ended.is_none(), "QEMU has ended: {ended:?}");
            thread::sleep(Duration::from_millis(20));
        };
        let limit = stream.set_read_timeout(Some(LIMIT));
        limit.expect("a time limit");
        Self {
            stream,
            read: Vec::new(),
        }
    }

    fn words(&mut self) -> std::io::Result<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(printable(&line).trim_end().to_owned());
            }
            self.more()?;
        }
    }

    fn bytes(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        while self.read.len() < count {
            self.more()?;
        }
        Ok(self.read.drain(..count).collect())
    }

    fn more(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.read.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }
}

/// The kernel to boot: Debian's for clouds where there is one, which is the smallest.
fn kernel() -> Result<PathBuf, Unavailable> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Unavailable("boots x86-64 only".to_owned()));
    }
    let files = fs::read_dir("/boot").into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    let mut kernels: Vec<String> = names
        .filter(|name| name.starts_with("vmlinuz-") && name.ends_with("-amd64"))
        .collect();
    kernels.sort_by_key(|name| (name.contains("-cloud-"), name.clone()));
    let kernel = kernels.pop().map(|name| Path::new("/boot").join(name));
    kernel
        .filter(|kernel| fs::File::open(kernel).is_ok())
        .ok_or_else(|| Unavailable("there is no kernel of Debian's in /boot".to_owned()))
}

/// The whole system as files.
fn lay_out(root: &Path, programs: &[&str], installation: &Installation<'_>) {
    fs::create_dir_all(root.join("usr")).expect("a directory");
    for name in ["bin", "lib", "lib64", "sbin"] {
        fs::create_dir(root.join("usr").join(name)).expect("a directory");
        symlink(format!("usr/{name}"), root.join(name)).expect("a link");
    }
    for name in ["dev", "etc", "new", "var/lib", "var/log"] {
        fs::create_dir_all(root.join(name)).expect("a directory");
    }
    symlink("/run", root.join("var/run")).expect("a link");
    stage(root, installation);
    let mut files: BTreeSet<String> = PROGRAMS.iter().map(|path| (*path).to_owned()).collect();
    files.extend(programs.iter().map(|path| (*path).to_owned()));
    files.extend(Path::new(EXECUTOR).exists().then(|| EXECUTOR.to_owned()));
    let ours: Vec<PathBuf> = installation
        .programs
        .iter()
        .map(|(path, _)| root.join(path.trim_start_matches('/')))
        .collect();
    let mut strip = command("strip");
    strip.args(&ours);
    run(strip, Duration::from_secs(60)).expect("strip");
    let mut ldd = command("ldd");
    ldd.args(files.iter().filter(|path| !path.ends_with(".bin")))
        .args(&ours);
    // It fails where one of them has no libraries.
    let libraries = match run(ldd, Duration::from_secs(60)) {
        Ok(output) => output.stdout,
        Err(crate::command::RunError::Failed { stdout, .. }) => stdout,
        Err(error) => panic!("{error}"),
    };
    let paths = libraries.lines().filter_map(|line| {
        let mut words = line.strip_prefix('\t')?.split(' ');
        let path = words.find(|word| word.starts_with('/'))?;
        Some(path.to_owned())
    });
    files.extend(paths);
    for path in files {
        let to = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        fs::copy(&path, to).expect(&path);
    }
    let applets = run(with_args(BUSYBOX, &["--list"]), Duration::from_secs(60));
    for name in applets.expect("busybox").stdout.lines() {
        let link = root.join("usr/bin").join(name);
        if !link.exists() {
            symlink("busybox", link).expect("a link");
        }
    }
    let unit = root.join("units/console.service");
    symlink(
        "../console.service",
        root.join("units/multi-user.target.wants/console.service"),
    )
    .expect("a link");
    for (path, text, mode) in [
        (root.join("etc/group"), "root:x:0:\nkvm:x:104:\n", 0o644),
        (root.join("etc/machine-id"), "", 0o644),
        (
            root.join("etc/nsswitch.conf"),
            "passwd: files\ngroup: files\n",
            0o644,
        ),
        (
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\n",
            0o644,
        ),
        (root.join("init"), INIT, 0o755),
        (root.join("units/boot"), BOOT, 0o755),
        (root.join("units/console"), CONSOLE, 0o644),
        (unit, CONSOLE_UNIT, 0o644),
    ] {
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
    }
}

fn pack(root: &Path, archive: &Path) {
    let pack = "cd \"$1\" && find . | cpio --create --format=newc --owner=0:0 --quiet >\"$2\"";
    let mut shell = with_args("sh", &["-c", pack, "sh"]);
    shell.args([root, archive]);
    run(shell, Duration::from_secs(60)).expect("packed");
}

fn emulate(kernel: &Path, dir: &Path) -> Child {
    let file = |name: &str| dir.join(name).display().to_string();
    let log = fs::File::create(dir.join("log")).expect("a log");
    command("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            QEMU,
            "-nodefaults",
            "-no-user-config",
        ])
        .args(["-display", "none", "-no-reboot", "-machine", "q35,hpet=off"])
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "2048",
        ])
        .args([
            "-kernel",
            &kernel.display().to_string(),
            "-initrd",
            &file("initramfs"),
        ])
        .args([
            "-append",
            "console=ttyS0 quiet mitigations=off tsc=reliable no_timer_check nokaslr panic=-1",
        ])
        .args([
            "-chardev",
            &format!("file,id=console,path={}", file("console")),
        ])
        .args(["-device", "isa-serial,chardev=console"])
        .args([
            "-chardev",
            &format!("socket,id=line,path={},server=on,wait=off", file("line")),
        ])
        .args(["-device", "isa-serial,chardev=line"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("setpriv is installed")
}
