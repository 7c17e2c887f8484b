//! A private world for one test: own root directory, own network namespace with a bridge, the real program, real QEMU.
//! What a machine lacks makes a test skip with the reason printed.

#[path = "../apart/mod.rs"]
pub mod apart;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use apart::namespaces;
use blockhost_hypervisor::exec::{self, Finished, Run};
use blockhost_hypervisor::host::MACHINE_USER;
use blockhost_hypervisor::{sys, testguest};

/// The program under test.
const QM: &str = env!("CARGO_BIN_EXE_blockhost-qm");

/// One world; stops its machines and removes its files when dropped.
pub struct World {
    root: tempfile::TempDir,
    namespace: Child,
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
        exec::find(blockhost_hypervisor::launch::QEMU, "qemu-system-x86")
            .map_err(|e| e.to_string())?;
        if sys::lookup_user(MACHINE_USER)
            .map_err(|e| e.to_string())?
            .is_none()
        {
            return Err(format!(
                "user {MACHINE_USER} does not exist; run the setup script"
            ));
        }
        let root = tempfile::Builder::new()
            .prefix("qm-")
            .tempdir()
            .map_err(|e| e.to_string())?;
        let namespace = namespaces()?;
        let world = World { root, namespace };
        for args in [
            &["link", "add", "vmbr0", "type", "bridge"][..],
            &["link", "set", "vmbr0", "up"],
        ] {
            let made = world.inside("ip", args);
            if !made.status.success() {
                return Err(format!("no bridge can be made here: {}", made.errors));
            }
        }
        // As on a host: the state belongs to another user and is closed to the machines' user.
        let state = world.path("var/lib/blockhost");
        std::fs::create_dir_all(state.join("images")).map_err(|e| e.to_string())?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&state, mode).map_err(|e| e.to_string())?;
        Ok(world)
    }

    /// A path of this world.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    /// Runs a program in the world's namespaces.
    pub fn inside(&self, program: &str, args: &[&str]) -> Finished {
        let target = self.namespace.id().to_string();
        let root = format!("BLOCKHOST_ROOT={}", self.root.path().display());
        let fixed = [
            "--target", &target, "--net", "--mount", "--", "env", &root, program,
        ];
        let args = fixed.iter().chain(args).copied();
        Run::new(exec::find("nsenter", "util-linux").unwrap(), args)
            .status()
            .unwrap()
    }

    /// Runs `blockhost-qm`.
    pub fn qm(&self, args: &[&str]) -> Finished {
        self.inside(QM, args)
    }

    /// Runs `blockhost-qm`, which must succeed; what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.qm(args);
        assert!(
            done.status.success(),
            "{args:?}: {} {} {}",
            done.status,
            done.output,
            done.errors
        );
        done.output
    }

    /// Runs `blockhost-qm`, which must fail with this exit code; what it complained.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let done = self.qm(args);
        assert_eq!(
            done.status.code(),
            Some(code),
            "{args:?}: {} {}",
            done.output,
            done.errors
        );
        done.errors
    }

    /// The test guest's image inside this world, or `None` after printing why there is none.
    pub fn guest_image(&self) -> Option<PathBuf> {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("test-guest");
        let target = self.path("var/lib/blockhost/images/guest.img");
        match testguest::image(&cache).and_then(|image| testguest::publish(&image, &target)) {
            Ok(()) => Some(target),
            Err(e) => {
                eprintln!("skipped: the test guest cannot be built here: {e}");
                None
            }
        }
    }

    /// Makes a machine that boots the test guest.
    pub fn guest(&self, vmid: &str, image: &Path) {
        self.ok(&[
            "create",
            vmid,
            "--name",
            "probe",
            "--memory",
            "192",
            "--agent",
            "1",
            "--net0",
            "virtio,bridge=vmbr0",
        ]);
        let output = self.ok(&["importdisk", vmid, &image.display().to_string(), "local"]);
        let volume = format!("local:{vmid}/vm-{vmid}-disk-0.qcow2");
        assert!(
            output.contains(&format!("unused0: successfully imported disk '{volume}'")),
            "{output}"
        );
        self.ok(&[
            "set",
            vmid,
            "--scsihw",
            "virtio-scsi-pci",
            "--scsi0",
            &volume,
            "--boot",
            "order=scsi0",
            "--ide2",
            "local:cloudinit",
        ]);
    }

    /// Waits until the agent in the guest answers.
    pub fn wait_agent(&self, vmid: &str) {
        let end = Instant::now() + Duration::from_secs(400);
        while !self.qm(&["guest", "cmd", vmid, "ping"]).status.success() {
            assert!(
                Instant::now() < end,
                "no agent; console:\n{}",
                self.console(vmid)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the guest wrote to its serial console.
    pub fn console(&self, vmid: &str) -> String {
        let log = std::fs::read(self.path(&format!("run/blockhost/qm/{vmid}/console.log")))
            .unwrap_or_default();
        log.escape_ascii().to_string().replace("\\r\\n", "\n")
    }

    /// A field of `qm status --verbose`.
    pub fn field(&self, vmid: &str, name: &str) -> String {
        let text = self.ok(&["status", vmid, "--verbose", "1"]);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .to_owned()
    }

    /// Names of the ports of the bridge.
    pub fn bridge_ports(&self) -> String {
        self.inside("ip", &["-brief", "link", "show", "master", "vmbr0"])
            .output
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let confs = std::fs::read_dir(self.path("var/lib/blockhost/qm"));
        for entry in confs.into_iter().flatten().flatten() {
            if let Some(vmid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.strip_suffix(".conf"))
            {
                let _ = self.qm(&["stop", vmid]);
            }
        }
        let _ = self.namespace.kill();
        let _ = self.namespace.wait();
    }
}
