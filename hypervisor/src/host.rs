//! Where this host keeps things, and who runs the machines. Passed to every command.
#![forbid(unsafe_code)]

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use blockhost_proto::layout::Layout;

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

/// The host as the commands see it.
#[derive(Debug, Clone)]
pub struct Host {
    /// All paths.
    pub layout: Layout,
    /// Name of this host in messages.
    pub node: String,
}

impl Host {
    /// The host below `BLOCKHOST_ROOT`.
    pub fn from_env() -> Self {
        Host {
            layout: Layout::from_env(),
            node: sys::node_name(),
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

    /// Insists that the directories this program keeps in the services' directory are its own: not links, not put there
    /// by the services' user.
    ///
    /// # Errors
    /// [`Error::Environment`] naming the directory.
    pub fn check_state(&self) -> Result<()> {
        let own = rustix::process::geteuid().as_raw();
        for dir in [
            self.layout.qm_conf_dir(),
            self.layout.state().join("qm-storage"),
            self.run_dir(),
        ] {
            match std::fs::symlink_metadata(&dir) {
                Ok(meta) if meta.is_dir() && meta.uid() == own && meta.mode() & 0o022 == 0 => {}
                Ok(_) => {
                    return Err(Error::Environment(format!(
                        "'{}' must be a directory of root that nobody else may write; move away what is there",
                        dir.display()
                    )));
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).at("cannot inspect", dir),
            }
        }
        Ok(())
    }

    /// Configuration file of a machine.
    pub fn conf_path(&self, vmid: Vmid) -> PathBuf {
        self.layout.qm_conf_dir().join(format!("{vmid}.conf"))
    }

    /// Directory of volatile files of all machines.
    pub fn run_dir(&self) -> PathBuf {
        self.layout.run().join("qm")
    }

    /// Directory of volatile files of one machine: sockets, state, logs, seed.
    pub fn machine_run_dir(&self, vmid: Vmid) -> PathBuf {
        self.run_dir().join(vmid.to_string())
    }

    /// The error for a machine that is not there.
    pub fn not_found(&self, vmid: Vmid) -> Error {
        Error::NotFound {
            vmid,
            node: self.node.clone(),
        }
    }
}
