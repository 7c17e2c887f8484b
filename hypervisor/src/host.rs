//! Where this host keeps things, and who runs the machines. Passed to every command.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockhost_proto::layout::Layout;
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, IoContext, Result};
use crate::machine::Vmid;
use crate::sys;

/// Name of the unprivileged user that QEMU and qemu-img run as.
pub const MACHINE_USER: &str = "blockhost-vm";

/// uid and gid of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric id of its primary group.
    pub gid: u32,
}

/// What a program manages. Each has its directories, its locks and its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Virtual machines: `blockhost-qm`.
    Machines,
    /// Containers: `blockhost-pct`.
    Containers,
}

impl Family {
    /// What Proxmox calls one of them.
    pub const fn thing(self) -> &'static str {
        match self {
            Self::Machines => "VM",
            Self::Containers => "CT",
        }
    }

    /// Where Proxmox keeps their configurations; scripts look for it in messages.
    pub const fn proxmox_dir(self) -> &'static str {
        match self {
            Self::Machines => "qemu-server",
            Self::Containers => "lxc",
        }
    }

    /// Name of the directory of volatile files below `/run/blockhost`.
    const fn run_name(self) -> &'static str {
        match self {
            Self::Machines => "qm",
            Self::Containers => "pct",
        }
    }

    /// Name of the directory of volumes, or of archives, in the state directory.
    const fn storage_name(self) -> &'static str {
        match self {
            Self::Machines => "qm-storage",
            Self::Containers => "pct-storage",
        }
    }

    fn conf_dir(self, layout: &Layout) -> PathBuf {
        match self {
            Self::Machines => layout.qm_conf_dir(),
            Self::Containers => layout.pct_conf_dir(),
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Machines => Self::Containers,
            Self::Containers => Self::Machines,
        }
    }
}

/// The host as the commands see it.
#[derive(Debug, Clone)]
pub struct Host {
    /// Whose directories these are.
    pub family: Family,
    /// All paths.
    pub layout: Layout,
    /// Name of this host in messages.
    pub node: String,
    /// The directories of [`Host::check_state`], held open.
    pub pins: Option<Arc<Pins>>,
}

/// Directories inside the services' directory. Their names are in the hands of the services' user, who may exchange them
/// for something else at any time; so after they were checked they are only reached by descriptor.
#[derive(Debug)]
pub struct Pins {
    conf: OwnedFd,
    storage: OwnedFd,
}

impl Host {
    /// The host below `BLOCKHOST_ROOT`.
    pub fn from_env(family: Family) -> Self {
        Host {
            family,
            layout: Layout::from_env(),
            node: sys::node_name(),
            pins: None,
        }
    }

    /// The user of the machines.
    ///
    /// # Errors
    /// [`Error::Environment`] when it is missing or would be root.
    pub fn machine_user(&self) -> Result<Ids> {
        let found = sys::lookup_user(MACHINE_USER).at("cannot read", "/etc/passwd")?;
        match found {
            Some((0, _)) => Err(Error::Environment(format!(
                "user '{MACHINE_USER}' has uid 0; give it one of its own"
            ))),
            Some((uid, gid)) => Ok(Ids { uid, gid }),
            None => Err(Error::Environment(format!(
                "user '{MACHINE_USER}' does not exist: run the setup script, or `useradd --system --user-group {MACHINE_USER}`"
            ))),
        }
    }

    /// Insists that the directories this program keeps in the services' directory are its own (not links, not put there
    /// by the services' user), makes them where they are missing, and holds on to them.
    ///
    /// # Errors
    /// [`Error::Environment`] naming the directory.
    pub fn check_state(&mut self) -> Result<()> {
        let run = self.run_dir();
        match sys::open_dir(&run) {
            Ok(fd) => own_directory(&fd, &run)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => return Err(not_ours(&run)),
        }
        let state = self.layout.state();
        let state_fd = match sys::open_dir(&state) {
            // Before the setup has run there is nothing to reach.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.at("cannot open", &state)?,
        };
        let pin = |path: PathBuf| {
            let name = path.file_name().unwrap_or_default();
            match rustix::fs::mkdirat(&state_fd, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e).at("cannot create", path),
            }
            let flags = OFlags::DIRECTORY | OFlags::RDONLY;
            let fd = sys::open_beneath(&state_fd, Path::new(name), flags, Mode::empty())
                .map_err(|_| not_ours(&path))?;
            own_directory(&fd, &path)?;
            Ok(fd)
        };
        self.pins = Some(Arc::new(Pins {
            conf: pin(self.family.conf_dir(&self.layout))?,
            storage: pin(state.join(self.family.storage_name()))?,
        }));
        Ok(())
    }

    /// Directory of the configurations.
    pub fn conf_dir(&self) -> PathBuf {
        self.pins.as_ref().map_or_else(
            || self.family.conf_dir(&self.layout),
            |pins| sys::descriptor_path(&pins.conf),
        )
    }

    /// Directory of the storage `local` and of nothing else.
    pub fn storage_dir(&self) -> PathBuf {
        self.pins.as_ref().map_or_else(
            || self.layout.state().join(self.family.storage_name()),
            |pins| sys::descriptor_path(&pins.storage),
        )
    }

    /// A text for people: the held directories by their names.
    pub fn shown(&self, text: &str) -> String {
        let Some(pins) = &self.pins else {
            return text.to_owned();
        };
        let storage = self.layout.state().join(self.family.storage_name());
        [
            (&pins.conf, self.family.conf_dir(&self.layout)),
            (&pins.storage, storage),
        ]
        .iter()
        .fold(text.to_owned(), |text, (fd, name)| {
            let held = format!("{}/", sys::descriptor_path(fd).display());
            text.replace(&held, &format!("{}/", name.display()))
        })
    }

    /// Configuration file of a machine.
    pub fn conf_path(&self, vmid: Vmid) -> PathBuf {
        self.conf_dir().join(format!("{vmid}.conf"))
    }

    /// Directory of volatile files of all machines.
    pub fn run_dir(&self) -> PathBuf {
        self.layout.run().join(self.family.run_name())
    }

    /// Directory of volatile files of one machine: sockets, state, logs, seed.
    pub fn machine_run_dir(&self, vmid: Vmid) -> PathBuf {
        self.run_dir().join(vmid.to_string())
    }

    /// The error for a machine that is not there.
    pub fn not_found(&self, vmid: Vmid) -> Error {
        Error::NotFound {
            family: self.family,
            vmid,
            node: self.node.clone(),
        }
    }

    /// Insists that a number is free: machines and containers share them.
    ///
    /// # Errors
    /// [`Error::Exists`].
    pub fn refuse_existing(&self, vmid: Vmid) -> Result<()> {
        let other = self.family.other();
        let others = other.conf_dir(&self.layout).join(format!("{vmid}.conf"));
        let places = [(self.family, self.conf_path(vmid)), (other, others)];
        for (holder, place) in places {
            if place.symlink_metadata().is_ok() {
                return Err(Error::Exists {
                    wanted: self.family,
                    holder,
                    vmid,
                    node: self.node.clone(),
                });
            }
        }
        Ok(())
    }
}

fn not_ours(dir: &Path) -> Error {
    Error::Environment(format!(
        "'{}' must be a directory of root that nobody else may write; move away what is there",
        dir.display()
    ))
}

fn own_directory(fd: &OwnedFd, dir: &Path) -> Result<()> {
    let stat = rustix::fs::fstat(fd).at("cannot inspect", dir)?;
    let own = rustix::process::geteuid().as_raw();
    if stat.st_uid == own && stat.st_mode & 0o022 == 0 {
        Ok(())
    } else {
        Err(not_ours(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Storages;

    #[test]
    fn what_the_services_user_puts_in_the_place_of_a_checked_directory_is_not_reached() {
        let root = tempfile::tempdir().unwrap();
        let mut host = Host {
            family: Family::Machines,
            layout: Layout::new(root.path()),
            node: "n".to_owned(),
            pins: None,
        };
        let (state, elsewhere) = (host.layout.state(), root.path().join("elsewhere"));
        let vmid: Vmid = "100".parse().unwrap();
        let victim = elsewhere.join("local/images/100/precious");
        std::fs::create_dir_all(victim.parent().unwrap()).unwrap();
        std::fs::write(&victim, "x").unwrap();
        std::fs::create_dir_all(&state).unwrap();
        host.check_state().unwrap();
        for name in ["qm", "qm-storage"] {
            std::fs::rename(state.join(name), state.join(format!("real-{name}"))).unwrap();
            std::os::unix::fs::symlink(&elsewhere, state.join(name)).unwrap();
        }
        let storages = Storages::load(&host).unwrap();
        storages.machine_dir("local", vmid).unwrap();
        crate::config::VmConfig::default()
            .store(&host, vmid)
            .unwrap();
        storages.free_all(vmid).unwrap();
        assert!(victim.exists() && !elsewhere.join("100.conf").exists());
        assert!(state.join("real-qm/100.conf").exists());
        assert!(state.join("real-qm-storage/local/images").exists());
        let shown = host.shown(&host.conf_path(vmid).display().to_string());
        assert_eq!(shown, state.join("qm/100.conf").display().to_string());
        assert!(host.check_state().is_err(), "nor is it taken for ours");
    }
}
