//! Where everything lies: pure path arithmetic under one root, so that several worlds can stand side by side.
//! No file is touched here. Everything of ours takes its paths from a `Layout`.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// The environment variable that names the root of a world; unset or empty means `/`.
pub const ROOT_VARIABLE: &str = "BLOCKHOST_ROOT";

/// The control group of the unit that machines of a host live in, below the place where control groups v2 are mounted.
pub const MACHINES_GROUP: &str = "system.slice/blockhost-machines.service";

/// The paths of one world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Default for Layout {
    fn default() -> Self {
        Self::new("/")
    }
}

impl Layout {
    /// The layout under `BLOCKHOST_ROOT`, or under `/` where that is unset or empty.
    #[must_use]
    pub fn from_env() -> Self {
        Self::new(
            std::env::var_os(ROOT_VARIABLE)
                .filter(|value| !value.is_empty())
                .unwrap_or_else(|| OsString::from("/")),
        )
    }

    /// The layout under `root`, which need not exist yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root itself; `/` on a production host.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// True when the world is the host itself and not a directory on it.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Puts an absolute path of the host under the root: `/etc/x` becomes `<root>/etc/x`.
    /// `.` and `..` are dropped, so the result never leaves the root.
    #[must_use]
    pub fn join(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let mut path = self.root.clone();
        for component in absolute.as_ref().components() {
            if let Component::Normal(part) = component {
                path.push(part);
            }
        }
        path
    }

    /// `/etc/blockhost`: configuration and keys.
    #[must_use]
    pub fn etc(&self) -> PathBuf {
        self.join("etc/blockhost")
    }

    /// `/var/lib/blockhost`: state of the unprivileged services.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.join("var/lib/blockhost")
    }

    /// `/var/lib/blockhost-ledger`: the ledger, written by the agent's ledger process alone.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.join("var/lib/blockhost-ledger")
    }

    /// `/run/blockhost`: sockets and locks.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.join("run/blockhost")
    }

    /// `/run/blockhost/root-agent.sock`.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.run().join("root-agent.sock")
    }

    /// `/run/openvswitch`: the sockets of Open vSwitch, its database's and one per bridge.
    #[must_use]
    pub fn switch_sockets(&self) -> PathBuf {
        self.join("run/openvswitch")
    }

    /// `/etc/blockhost/wireguard`: keys of tunnels, the net process's alone.
    #[must_use]
    pub fn wireguard_keys(&self) -> PathBuf {
        self.join("etc/blockhost/wireguard")
    }

    /// `/run/wireguard`: control sockets of WireGuard daemons, where the kernel has no WireGuard.
    #[must_use]
    pub fn wireguard_sockets(&self) -> PathBuf {
        self.join("run/wireguard")
    }

    /// `/etc/blockhost/root-agent.yaml`: the agent's policy.
    #[must_use]
    pub fn agent_policy(&self) -> PathBuf {
        self.etc().join("root-agent.yaml")
    }

    /// `/etc/blockhost/storage.d`: further storages of the embedded backend, in files of root's. A directory of their own, because
    /// the process that runs machines may read what is there and nothing else of [`Self::etc`], and editors replace files.
    #[must_use]
    pub fn storage_files(&self) -> PathBuf {
        self.etc().join("storage.d")
    }

    /// `/etc/blockhost/addressbook.json`.
    #[must_use]
    pub fn addressbook(&self) -> PathBuf {
        self.etc().join("addressbook.json")
    }

    /// `/run/blockhost/provisioning.lock`: holds the pid of a running create.
    #[must_use]
    pub fn provisioning_lock(&self) -> PathBuf {
        self.run().join("provisioning.lock")
    }

    /// `/var/lib/blockhost/image-work`: private to the process that customises images.
    #[must_use]
    pub fn image_work(&self) -> PathBuf {
        self.state().join("image-work")
    }

    /// `/var/lib/blockhost/images`: sources of `qm-importdisk`.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.state().join("images")
    }

    /// `/var/lib/blockhost/snippets`: cloud-init files that `cicustom` names.
    #[must_use]
    pub fn snippets(&self) -> PathBuf {
        self.state().join("snippets")
    }

    /// `/var/lib/blockhost/qm`: machine configurations of the embedded backend.
    #[must_use]
    pub fn qm_conf_dir(&self) -> PathBuf {
        self.state().join("qm")
    }

    /// `/var/lib/blockhost/pct`: container configurations of the embedded backend.
    #[must_use]
    pub fn pct_conf_dir(&self) -> PathBuf {
        self.state().join("pct")
    }

    /// `/var/lib/blockhost-ct`: the containers themselves, which belong to the unprivileged service that runs them.
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.join("var/lib/blockhost-ct")
    }

    /// `/run/blockhost-ct`: that service's socket.
    #[must_use]
    pub fn containers_run(&self) -> PathBuf {
        self.join("run/blockhost-ct")
    }

    /// `/etc/blockhost/ledger`: epoch keys, witnesses, ledger policy.
    #[must_use]
    pub fn ledger_keys(&self) -> PathBuf {
        self.etc().join("ledger")
    }

    /// `/usr/share/blockhost/provisioner.json`: which executable does what.
    #[must_use]
    pub fn provisioner_manifest(&self) -> PathBuf {
        self.join("usr/share/blockhost/provisioner.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_never_leaves_the_root() {
        let layout = Layout::new("/srv/world");
        assert_eq!(
            layout.join("/../../etc/./passwd"),
            Path::new("/srv/world/etc/passwd")
        );
    }

    #[test]
    fn the_host_layout_has_the_documented_paths() {
        let layout = Layout::default();
        assert!(layout.is_host());
        assert_eq!(
            layout.agent_socket(),
            Path::new("/run/blockhost/root-agent.sock")
        );
        assert_eq!(
            layout.provisioner_manifest(),
            Path::new("/usr/share/blockhost/provisioner.json")
        );
        assert_eq!(layout.qm_conf_dir(), Path::new("/var/lib/blockhost/qm"));
        assert_eq!(layout.pct_conf_dir(), Path::new("/var/lib/blockhost/pct"));
        assert_eq!(layout.containers(), Path::new("/var/lib/blockhost-ct"));
    }
}
