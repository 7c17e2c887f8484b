//! A private world for one test of containers: own root directory, own network namespace with a bridge, the real programs,
//! real LXC. What a machine lacks makes a test skip with the reason printed.
#![allow(dead_code, reason = "each test program uses a part of it")]

#[path = "../apart/mod.rs"]
mod apart;

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use apart::namespaces;
use blockhost_hypervisor::exec::{self, Finished, Run};
use blockhost_hypervisor::keeper::{USER, slots::Pool};
use blockhost_hypervisor::sys;

const PCT: &str = env!("CARGO_BIN_EXE_blockhost-pct");
const QM: &str = env!("CARGO_BIN_EXE_blockhost-qm");
const KEEPER: &str = env!("CARGO_BIN_EXE_blockhost-containers");

/// Options without which nothing is made.
pub const NEW: [&str; 4] = ["--unprivileged", "1", "--rootfs", "local:1"];

/// Puts a program into its place. Another process writes it: a descriptor of ours would be in whatever another thread starts
/// meanwhile, until that is another program, and nobody runs a file that is open for writing.
pub fn install(from: &Path, to: &Path) -> Result<(), String> {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    let install = exec::find("install", "coreutils").map_err(|e| e.to_string())?;
    let run = Run::new(install, ["--mode=755", "--", &from, &to]);
    run.output().map(drop).map_err(|e| e.to_string())
}

/// Waits for something that has to happen.
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(180);
    while !happened() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One world; stops its containers and removes its files when dropped.
pub struct World {
    root: tempfile::TempDir,
    namespace: Child,
    keeper: Option<Child>,
    /// The control group that the service has to itself, as its unit gives it one.
    pub group: Option<String>,
}

impl World {
    /// A new world, or `None` after printing why there can be none here.
    pub fn new() -> Option<World> {
        match Self::build() {
            Ok(world) => Some(world),
            Err(reason) => {
                eprintln!("skipped: {reason}");
                None
            }
        }
    }

    fn build() -> Result<World, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        exec::find("lxc-start", "lxc").map_err(|e| e.to_string())?;
        exec::find("busybox", "busybox-static").map_err(|e| e.to_string())?;
        let user = sys::lookup_user(USER).map_err(|e| e.to_string())?;
        let (uid, gid) = user.ok_or(format!("no user {USER}; run the setup script"))?;
        Pool::of(USER).map_err(|e| e.to_string())?;
        let root = tempfile::Builder::new()
            .prefix("ct-")
            .tempdir()
            .map_err(|e| e.to_string())?;
        let namespace = namespaces()?;
        let mut world = World {
            root,
            namespace,
            keeper: None,
            group: None,
        };
        for args in [
            &["link", "set", "lo", "up"][..],
            &["link", "add", "vmbr0", "type", "bridge"],
            &["addr", "add", "10.9.0.1/24", "dev", "vmbr0"],
            &["-6", "addr", "add", "fd09::1/64", "dev", "vmbr0", "nodad"],
            &["link", "set", "vmbr0", "up"],
        ] {
            let made = world.inside("ip", args);
            if !made.status.success() {
                return Err(format!("no bridge can be made here: {}", made.errors));
            }
        }
        for (name, mode, owner) in [
            ("", 0o711, 0),
            ("bin", 0o755, 0),
            ("var", 0o755, 0),
            ("var/lib", 0o755, 0),
            ("var/lib/blockhost", 0o755, 0),
            ("var/lib/blockhost-ct", 0o711, uid),
            ("run", 0o755, 0),
            ("run/blockhost", 0o755, 0),
            ("run/blockhost-ct", 0o700, uid),
        ] {
            let path = world.path(name);
            std::fs::create_dir_all(&path).map_err(|e| e.to_string())?;
            chown(&path, Some(owner), (owner != 0).then_some(gid)).map_err(|e| e.to_string())?;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))
                .map_err(|e| e.to_string())?;
        }
        world.ids()?;
        // The build directory need not be open to that user.
        install(Path::new(KEEPER), &world.path("bin/blockhost-containers"))?;
        world.group = world.delegate(uid, gid);
        world.serve();
        Ok(world)
    }

    /// Puts a script among the programs of this world.
    pub fn script(&self, name: &str, text: &str) {
        let draft = self.path("draft");
        std::fs::write(&draft, text).unwrap();
        install(&draft, &self.path(name)).unwrap();
        std::fs::remove_file(&draft).unwrap();
    }

    /// Gives this world ids that no other one has: a service takes whatever runs under its ids for its own.
    fn ids(&self) -> Result<(), String> {
        const EACH: u32 = 8 * 65_536;
        let first = 1_000_000_000 + self.namespace.id() % 5000 * EACH;
        let file = self.path("subids");
        std::fs::write(&file, format!("{USER}:{first}:{EACH}\n")).map_err(|e| e.to_string())?;
        for place in ["/etc/subuid", "/etc/subgid"] {
            let mounted = self.inside("mount", &["--bind", &file.display().to_string(), place]);
            if !mounted.status.success() {
                return Err(format!("no ids of its own: {}", mounted.errors));
            }
        }
        Ok(())
    }

    /// Shows this world control groups of version 2 only, and gives the service's user one of them; `None` after printing
    /// why that cannot be.
    fn delegate(&self, uid: u32, gid: u32) -> Option<String> {
        let name = self.root.path().file_name()?.to_str()?.to_owned();
        let group = format!("/sys/fs/cgroup/blockhost-{name}");
        let script = format!(
            "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup && mkdir {group} && cd {group} && \
             chown {uid}:{gid} . cgroup.procs cgroup.subtree_control cgroup.threads"
        );
        let made = self.inside("sh", &["-c", &script]);
        if made.status.success() {
            return Some(group);
        }
        eprintln!("no control groups in this world: {}", made.errors.trim());
        None
    }

    /// Starts the service, after ending the one there is.
    pub fn serve(&mut self) {
        self.end_service();
        let program = self.path("bin/blockhost-containers").display().to_string();
        let target = self.namespace.id().to_string();
        let root = format!("BLOCKHOST_ROOT={}", self.root.path().display());
        let group = self.group.as_deref().unwrap_or("/nonexistent");
        let enter = format!("[ ! -d {group} ] || echo $$ >{group}/cgroup.procs; exec \"$@\"");
        let words = [
            "--target",
            &target,
            "--net",
            "--mount",
            "--",
            "env",
            &root,
            "sh",
            "-c",
            &enter,
            "sh",
            "setpriv",
            "--reuid",
            USER,
            "--regid",
            USER,
            "--clear-groups",
            &program,
            "run",
        ];
        let log = std::fs::File::create(self.path("service.log")).unwrap();
        // A directory of the host that whoever starts the service has open.
        let open = sys::open_dir(Path::new("/etc")).unwrap();
        let run = Run::new(exec::find("nsenter", "util-linux").unwrap(), words)
            .stderr(log)
            .keep([std::os::fd::AsFd::as_fd(&open)]);
        self.keeper = Some(run.spawn().unwrap());
    }

    /// Asks the service for its program's renewal, as its unit does; not started yet.
    pub fn renewal(&self) -> Run<'static> {
        let program = self.path("bin/blockhost-containers").display().to_string();
        let user = ["--reuid", USER, "--regid", USER, "--clear-groups"];
        let args = [&user[..], &[&program, "renew"]].concat();
        self.command("setpriv", &args)
    }

    /// Number of the service's process.
    pub fn service(&self) -> u32 {
        self.keeper.as_ref().map(Child::id).unwrap()
    }

    /// Ends the service as `kill -9` does.
    pub fn end_service(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
    }

    /// A path of this world.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    /// The world's network namespace.
    pub fn network(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.namespace.id()))
    }

    /// A command in the world's namespaces.
    pub fn command(&self, program: &str, args: &[&str]) -> Run<'static> {
        let target = self.namespace.id().to_string();
        let root = format!("BLOCKHOST_ROOT={}", self.root.path().display());
        let fixed = [
            "--target", &target, "--net", "--mount", "--", "env", &root, program,
        ];
        let args: Vec<String> = fixed
            .iter()
            .chain(args)
            .map(|arg| (*arg).to_owned())
            .collect();
        Run::new(exec::find("nsenter", "util-linux").unwrap(), args)
    }

    /// Runs a program in the world's namespaces.
    pub fn inside(&self, program: &str, args: &[&str]) -> Finished {
        self.command(program, args).status().unwrap()
    }

    /// Runs `blockhost-pct`.
    pub fn pct(&self, args: &[&str]) -> Finished {
        self.inside(PCT, args)
    }

    /// `blockhost-pct`, not started yet.
    pub fn pct_command(&self, args: &[&str]) -> Run<'static> {
        self.command(PCT, args)
    }

    /// Runs `blockhost-qm`.
    pub fn qm(&self, args: &[&str]) -> Finished {
        self.inside(QM, args)
    }

    /// Runs `blockhost-pct`, which must succeed; what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.pct(args);
        assert!(
            done.status.success(),
            "{args:?}: {} {} {}\n{}",
            done.status,
            done.output,
            done.errors,
            std::fs::read_to_string(self.path("service.log")).unwrap_or_default()
        );
        done.output
    }

    /// Runs `blockhost-pct`, which must fail with this exit code; what it complained.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let done = self.pct(args);
        assert_eq!(
            done.status.code(),
            Some(code),
            "{args:?}: {} {}",
            done.output,
            done.errors
        );
        done.errors
    }

    /// Runs a shell command in a container, which must succeed; what it printed.
    pub fn shell(&self, vmid: &str, command: &str) -> String {
        self.ok(&["exec", vmid, "--", "/bin/sh", "-c", command])
    }

    /// Exit code of a shell command in a container, and all it said.
    pub fn tried(&self, vmid: &str, command: &str) -> (i32, String) {
        let done = self.pct(&["exec", vmid, "--", "/bin/sh", "-c", command]);
        let said = format!("{}{}", done.output, done.errors);
        (done.status.code().unwrap_or(-1), said)
    }

    /// Puts an archive with these entries where `local:vztmpl/<name>` finds it.
    pub fn archive(&self, name: &str, fill: impl FnOnce(&mut Archive)) -> String {
        let directory = self.path("var/lib/blockhost/pct-storage/local/template/cache");
        std::fs::create_dir_all(&directory).unwrap();
        let mut archive = Archive(tar::Builder::new(Vec::new()));
        fill(&mut archive);
        std::fs::write(directory.join(name), archive.0.into_inner().unwrap()).unwrap();
        format!("local:vztmpl/{name}")
    }

    /// The small root file system that starts.
    pub fn template(&self) -> String {
        self.archive("base.tar", |archive| archive.system())
    }

    /// Makes container `vmid` from the small root file system.
    pub fn container(&self, vmid: &str, options: &[&str]) {
        let template = self.template();
        let args: Vec<&str> = ["create", vmid, &template]
            .into_iter()
            .chain(NEW)
            .chain(options.iter().copied())
            .collect();
        self.ok(&args);
    }

    /// Directory of a container.
    pub fn directory(&self, vmid: &str) -> PathBuf {
        self.path("var/lib/blockhost-ct").join(vmid)
    }

    /// Pid of a running container's first process.
    pub fn pid(&self, vmid: &str) -> String {
        let text = self.ok(&["status", vmid, "--verbose", "1"]);
        let line = text.lines().find_map(|line| line.strip_prefix("pid: "));
        line.unwrap_or_else(|| panic!("no pid in {text}"))
            .to_owned()
    }

    /// Whether it answers to ping: asked again for a minute, since addresses are tried out first.
    pub fn answers(&self, address: &str) -> bool {
        let ping = || self.inside("ping", &["-c", "1", "-W", "5", address]);
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let answered = ping().status.success();
            if answered || Instant::now() > end {
                return answered;
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.keeper.is_none() {
            self.serve();
        }
        let confs = std::fs::read_dir(self.path("var/lib/blockhost-ct"));
        for entry in confs.into_iter().flatten().flatten() {
            let name = entry.file_name();
            if let Some(vmid) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) {
                // Also one whose configuration is gone.
                let conf = self.path(&format!("var/lib/blockhost/pct/{vmid}.conf"));
                if !conf.exists() {
                    let _ = std::fs::write(&conf, "hostname: x\n");
                }
                let _ = self.pct(&["stop", vmid]);
            }
        }
        self.end_service();
        if let Some(group) = &self.group {
            let removed = self.inside(
                "find",
                &[group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"],
            );
            if !removed.status.success() {
                eprintln!("{group} stays: {}", removed.errors);
            }
        }
        let _ = self.namespace.kill();
        let _ = self.namespace.wait();
    }
}

/// An archive under construction.
pub struct Archive(pub tar::Builder<Vec<u8>>);

impl Archive {
    fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header
    }

    /// An entry with a name that the builder would not let through.
    pub fn raw(&mut self, kind: tar::EntryType, name: &str, link: &str, content: &[u8]) {
        let mut header = Self::header(kind, content.len() as u64, 0o755);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
    }

    /// An entry that belongs to somebody.
    pub fn owned(&mut self, name: &str, mode: u32, uid: u64, content: &[u8]) {
        let mut header = Self::header(tar::EntryType::Regular, content.len() as u64, mode);
        header.set_uid(uid);
        self.0.append_data(&mut header, name, content).unwrap();
    }

    /// A file.
    pub fn file(&mut self, name: &str, content: &[u8]) {
        self.owned(name, 0o755, 0, content);
    }

    /// A link.
    pub fn link(&mut self, name: &str, target: &str) {
        let mut header = Self::header(tar::EntryType::Symlink, 0, 0o777);
        self.0.append_link(&mut header, name, target).unwrap();
    }

    /// A directory.
    pub fn directory(&mut self, name: &str, mode: u32) {
        let mut header = Self::header(tar::EntryType::Directory, 0, mode);
        self.0.append_data(&mut header, name, &b""[..]).unwrap();
    }

    /// A root file system that starts: busybox and its init.
    pub fn system(&mut self) {
        let busybox = exec::find("busybox", "busybox-static").unwrap();
        for name in [
            "bin", "sbin", "proc", "sys", "dev", "etc", "run", "var", "mnt", "usr",
        ] {
            self.directory(name, 0o755);
        }
        self.directory("tmp", 0o1777);
        self.directory("root", 0o700);
        self.file("bin/busybox", &std::fs::read(busybox).unwrap());
        for name in [
            "sh", "cat", "ls", "id", "ip", "ping", "sleep", "mount", "umount", "hostname", "mknod",
            "unshare", "touch", "mkdir", "echo", "readlink", "stat", "ps", "kill", "dd", "chmod",
            "su", "ln", "nc", "poweroff", "reboot", "rm", "grep", "chroot", "head", "tr", "env",
            "true", "wc", "date", "tail", "cp", "mv",
        ] {
            self.link(&format!("bin/{name}"), "busybox");
        }
        self.link("sbin/init", "../bin/busybox");
        self.file(
            "etc/passwd",
            b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
        );
        self.file("etc/group", b"root:x:0:\nuser:x:1000:\n");
        self.file(
            "etc/inittab",
            b"::respawn:/bin/sleep 10000\n::shutdown:/bin/touch /var/shut-down\n",
        );
    }
}

/// The bytes packed by a program of the host.
pub fn packed(program: &str, path: &Path) -> Vec<u8> {
    let program = exec::find(program, program).unwrap();
    let out = path.with_extension("packed");
    let run = Run::new(program, ["-c"])
        .stdin(std::fs::File::open(path).unwrap())
        .stdout(std::fs::File::create(&out).unwrap());
    let status = run.status().unwrap();
    assert!(status.status.success(), "{}", status.errors);
    std::fs::read(out).unwrap()
}
