//! What policy asks of a set of machine options, and the two forms clients send it in.

use super::{QmKey, QmOption};
use crate::options::{Args, Options};
use crate::value::{IfName, SnippetRef, StorageName, Vmid};

/// A set of machine options, each key once. In JSON as an object; see also [`QmArgs`].
pub type QmOptions = Options<QmOption>;

/// Machine options in the forms of a command line.
pub type QmArgs = Args<QmOption>;

impl QmOptions {
    /// Bridges that the network devices attach to.
    pub fn bridges(&self) -> impl Iterator<Item = &IfName> {
        self.iter().filter_map(|option| match option {
            QmOption::Net(_, device) => Some(&device.bridge),
            _ => None,
        })
    }

    /// Storages that the drives live on.
    pub fn storages(&self) -> impl Iterator<Item = &StorageName> {
        self.iter().filter_map(|option| match option {
            QmOption::Drive(_, _, drive) => Some(&drive.storage),
            _ => None,
        })
    }

    /// Snippets that cloud-init takes.
    pub fn snippets(&self) -> impl Iterator<Item = &SnippetRef> {
        self.iter()
            .filter_map(|option| match option {
                QmOption::CiCustom(custom) => Some(custom.snippets()),
                _ => None,
            })
            .flatten()
    }

    /// Machines whose disks the drives are linked clones of, by the volumes that are named.
    pub fn bases(&self) -> impl Iterator<Item = u32> {
        self.iter().filter_map(|option| match option {
            QmOption::Drive(_, _, drive) => drive.source.base_owner(),
            _ => None,
        })
    }

    /// A drive that names an existing disk of another machine than `vmid`: never let one customer attach another's disk.
    #[must_use]
    pub fn foreign_disk(&self, vmid: Vmid) -> Option<(QmKey, u32)> {
        self.iter().find_map(|option| match option {
            QmOption::Drive(_, _, drive) => drive
                .source
                .owner()
                .filter(|owner| *owner != vmid.get())
                .map(|owner| (option.key(), owner)),
            _ => None,
        })
    }
}
