//! A private Debian that a real systemd runs in, with our units installed as the packages install them: what a unit's
//! sandbox allows is decided by systemd itself, not by our reading of its manual. Process 1 of its own namespaces over
//! an overlay of this host; nothing of it stays.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::command::{BUSY, Output, RunError, command, install, run, tail_of_file};
use crate::namespace::find;

/// Targets and services of systemd itself that a booted system needs for ours.
const SYSTEM_UNITS: &[&str] = &[
    "basic.target",
    "final.target",
    "multi-user.target",
    "network-online.target",
    "network-pre.target",
    "paths.target",
    "shutdown.target",
    "slices.target",
    "sockets.target",
    "sysinit.target",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "timers.target",
    "umount.target",
];

/// A file of the installed system: where it goes, what is in it, its mode.
pub struct File<'a> {
    /// Absolute path inside.
    pub path: &'a str,
    /// Contents.
    pub bytes: &'a [u8],
    /// Permission bits.
    pub mode: u32,
}

/// What is installed besides our units, sysusers and tmpfiles.
#[derive(Default)]
pub struct Installation<'a> {
    /// Programs by absolute path inside, copied from these files.
    pub programs: &'a [(String, PathBuf)],
    /// Further files.
    pub files: &'a [File<'a>],
    /// Units that are started at boot, as `systemctl enable` would have them.
    pub enabled: &'a [&'a str],
}

/// A booted system. Dropping it ends everything in it.
pub struct Booted {
    child: Child,
    pid: u32,
    groups: PathBuf,
    dir: tempfile::TempDir,
}

/// Why there is no such system on this machine; a reason to skip, not to fail.
#[derive(Debug)]
pub struct Unavailable(pub String);

impl Booted {
    /// Boots and waits until systemd says it is up.
    ///
    /// # Errors
    /// [`Unavailable`] where the machine cannot do this: not root, no control groups v2, no overlay file system.
    ///
    /// # Panics
    /// When systemd does not come up although the machine could.
    pub fn boot(init: &Path, installation: &Installation<'_>) -> Result<Self, Unavailable> {
        let missing = |what: &str| Unavailable(what.to_owned());
        if !rustix::process::geteuid().is_root() {
            return Err(missing("needs root"));
        }
        for program in [
            "unshare",
            "nsenter",
            "setpriv",
            "systemctl",
            "systemd-sysusers",
        ] {
            if find(program).is_none() {
                return Err(Unavailable(format!("{program} is not installed")));
            }
        }
        if !Path::new("/lib/systemd/systemd").exists() {
            return Err(missing("systemd is not installed"));
        }
        let systems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !systems.contains("\toverlay\n") {
            return Err(missing("the kernel has no overlay file system"));
        }
        let hierarchy = unified().ok_or_else(|| missing("no control groups v2 are mounted"))?;
        let dir = tempfile::Builder::new()
            .prefix("blockhost-systemd-")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        let (installed, scratch) = (dir.path().join("installed"), dir.path().join("scratch"));
        fs::create_dir(&scratch).expect("a directory");
        stage(&installed, installation);
        let name = dir.path().file_name().expect("a name").to_owned();
        let groups = hierarchy.join(name);
        fs::create_dir(&groups)
            .map_err(|error| Unavailable(format!("no control group can be made: {error}")))?;
        let log = fs::File::create(dir.path().join("log")).expect("a log");
        // The shell moves itself before it becomes the program whose control group namespace begins there.
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", groups.display());
        let child = command("setpriv")
            .args(["--pdeathsig", "KILL", "sh", "-c", &enter, "sh"])
            .args([
                "unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net",
            ])
            .args(["--fork", "--kill-child"])
            .arg(init)
            .args([&scratch, &installed])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("setpriv is installed");
        let mut booted = Self {
            child,
            pid: 0,
            groups,
            dir,
        };
        booted.wait_until_up();
        Ok(booted)
    }

    fn wait_until_up(&mut self) {
        let until = Instant::now() + Duration::from_secs(60) * BUSY;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                panic!("the private system ended with {status}: {}", self.console());
            }
            if let Some(pid) = only_child(self.child.id()) {
                self.pid = pid;
                let state = self.try_run(&["systemctl", "is-system-running"]);
                if matches!(&state, Ok(text) if text.starts_with("running")) {
                    return;
                }
                if matches!(&state, Err(text) if text.contains("degraded")) {
                    let failed = self.try_run(&["systemctl", "--failed", "--no-pager"]);
                    panic!("units failed at boot: {failed:?}");
                }
            }
            assert!(
                Instant::now() < until,
                "systemd is not up: {}",
                self.console()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn console(&self) -> String {
        tail_of_file(&self.dir.path().join("log"), 3000)
    }

    /// Runs a program inside, as root.
    ///
    /// # Errors
    /// [`RunError`] with what it wrote.
    pub fn run(&self, words: &[&str]) -> Result<Output, RunError> {
        self.run_within(words, Duration::from_secs(120))
    }

    /// The same for what may take longer than two minutes.
    ///
    /// # Errors
    /// [`RunError`] with what it wrote.
    pub fn run_within(&self, words: &[&str], limit: Duration) -> Result<Output, RunError> {
        let mut inside = command("nsenter");
        inside
            .args(["-t", &self.pid.to_string(), "--mount", "--pid", "--cgroup"])
            .args(["--uts", "--ipc", "--net", "--"])
            .args(words);
        run(inside, limit)
    }

    fn try_run(&self, words: &[&str]) -> Result<String, String> {
        match self.run(words) {
            Ok(output) => Ok(output.stdout),
            Err(RunError::Failed { stdout, stderr, .. }) => Err(stdout + &stderr),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Runs a program inside that has to succeed; what it wrote.
    ///
    /// # Panics
    /// When it fails, with its output and the journal.
    #[must_use]
    pub fn output(&self, words: &[&str]) -> String {
        match self.try_run(words) {
            Ok(text) => text,
            Err(text) => panic!("{words:?}: {text}\n{}", self.journal()),
        }
    }

    /// One property of a unit.
    #[must_use]
    pub fn property(&self, unit: &str, name: &str) -> String {
        let text = self.output(&["systemctl", "show", "--value", "-p", name, unit]);
        text.trim().to_owned()
    }

    /// The journal, for messages.
    #[must_use]
    pub fn journal(&self) -> String {
        self.try_run(&["journalctl", "--no-pager", "-n", "60", "--no-hostname"])
            .unwrap_or_else(|text| text)
    }

    /// All that a unit has said so far.
    ///
    /// # Panics
    /// When the journal cannot be read.
    #[must_use]
    pub fn said(&self, unit: &str) -> String {
        self.output(&["journalctl", "--no-pager", "-o", "cat", "-u", unit])
    }

    /// All that has been said by anybody so far.
    ///
    /// # Panics
    /// When the journal cannot be read.
    #[must_use]
    pub fn all_said(&self) -> String {
        self.output(&["journalctl", "--no-pager", "-o", "cat"])
    }

    /// A path inside as seen from here.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid))
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Process 1 is gone with `unshare`, and everything with process 1; its groups empty a moment later.
        for _ in 0..100 {
            remove_groups(&self.groups);
            if !self.groups.exists() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn remove_groups(group: &Path) {
    if let Ok(entries) = fs::read_dir(group) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_groups(&entry.path());
            }
        }
    }
    let _ = fs::remove_dir(group);
}

/// Where control groups v2 are mounted.
fn unified() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right
            .starts_with("cgroup2 ")
            .then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

fn only_child(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Lays the files out as they will be inside.
pub(crate) fn stage(root: &Path, installation: &Installation<'_>) {
    let place = |inside: &str| {
        let path = root.join(inside.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        path
    };
    for unit in SYSTEM_UNITS {
        fs::copy(
            Path::new("/lib/systemd/system").join(unit),
            place(&format!("/units/{unit}")),
        )
        .expect(unit);
    }
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    for (from, to) in [
        ("systemd", "/units"),
        ("sysusers.d", "/usr/lib/sysusers.d"),
        ("tmpfiles.d", "/usr/lib/tmpfiles.d"),
    ] {
        for entry in fs::read_dir(packaging.join(from)).expect("packaging") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_file() {
                let name = entry.file_name().into_string().expect("a name");
                fs::copy(entry.path(), place(&format!("{to}/{name}"))).expect("copied");
            }
        }
    }
    for (path, from) in installation.programs {
        let to = place(path);
        install(from, &to).unwrap_or_else(|e| {
            panic!(
                "{}: {e}; build it with: cargo build --workspace --bins",
                from.display()
            )
        });
    }
    // The kernel's messages are the host's, not this system's.
    let journal = place("/etc/systemd/journald.conf.d/private.conf");
    fs::write(journal, "[Journal]\nReadKMsg=no\nStorage=volatile\n").expect("written");
    for file in installation.files {
        let to = place(file.path);
        fs::write(&to, file.bytes).expect("written");
        fs::set_permissions(&to, PermissionsExt::from_mode(file.mode)).expect("mode");
    }
    let journal = ["systemd-journald.socket", "systemd-journald-dev-log.socket"];
    for unit in installation.enabled.iter().chain(&journal) {
        let target = if unit.ends_with(".socket") {
            "sockets"
        } else {
            "multi-user"
        };
        let link = place(&format!("/units/{target}.target.wants/{unit}"));
        std::os::unix::fs::symlink(format!("../{unit}"), link).expect("a link");
    }
    fs::set_permissions(root, PermissionsExt::from_mode(0o755)).expect("mode");
}
