//! Directory storages: volume names, where they lie, allocating and freeing. Which there are is said in [`defined`], the
//! way to them in [`place`]. Volume files belong to the machine user, directories to root, so that a taken-over QEMU cannot
//! plant names that root would open.
#![forbid(unsafe_code)]

mod defined;
mod place;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};
use crate::host::Host;
use crate::machine::Vmid;
use crate::sys;
use place::{Place, there};

/// All storages of the host.
#[derive(Debug)]
pub struct Storages {
    roots: BTreeMap<String, Root>,
}

/// Where a storage is.
#[derive(Debug)]
struct Root {
    /// The directory that leads to it: nobody but root can exchange that.
    base: PathBuf,
    /// Its name below that.
    below: PathBuf,
}

impl Root {
    fn path(&self) -> PathBuf {
        self.base.join(&self.below)
    }

    fn place(&self, make: bool) -> Result<Place> {
        Place::base(&self.base, make)?.enter(&self.below, make)
    }

    /// The directory of all machines' directories, where there is one.
    fn images(&self) -> Result<Option<Place>> {
        self.within(Path::new(IMAGES))
    }

    /// One machine's directory, where there is one.
    fn machine(&self, vmid: Vmid) -> Result<Option<Place>> {
        self.within(&Path::new(IMAGES).join(vmid.to_string()))
    }

    fn within(&self, below: &Path) -> Result<Option<Place>> {
        there(self.place(false).and_then(|root| root.enter(below, false)))
    }
}

/// In a storage: the machines' directories.
const IMAGES: &str = "images";

impl Storages {
    /// Directory of a storage.
    ///
    /// # Errors
    /// [`Error::Option`] when there is no such storage.
    pub fn root(&self, name: &str) -> Result<PathBuf> {
        self.known(name).map(Root::path)
    }

    fn known(&self, name: &str) -> Result<&Root> {
        self.roots.get(name).ok_or_else(|| {
            Error::option(
                "storage",
                format!("storage '{}' does not exist", name.escape_default()),
            )
        })
    }

    /// Directory of one machine's volumes, made when missing, as a descriptor.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn machine_dir(&self, storage: &str, vmid: Vmid) -> Result<OwnedFd> {
        let root = self.known(storage)?.place(true)?;
        // Closed at the top: machines share one user, and none may reach another's disks by path. Its own come as
        // descriptors, and qemu-img works from inside this directory.
        rustix::fs::fchmod(&root.fd, Mode::from_raw_mode(0o700)).at("cannot close", &root.path)?;
        let below = Path::new(IMAGES).join(vmid.to_string());
        Ok(root.enter(&below, true)?.fd)
    }

    /// Path of a volume, for messages and for names inside one storage.
    ///
    /// # Errors
    /// When its storage does not exist.
    pub fn path(&self, volume: &Volume) -> Result<PathBuf> {
        Ok(self
            .root(&volume.storage)?
            .join(IMAGES)
            .join(volume.vmid.to_string())
            .join(&volume.file))
    }

    /// Opens a volume's file; links and anything but a regular file are refused.
    ///
    /// # Errors
    /// When it is missing or not what it should be.
    pub fn open(&self, volume: &Volume, flags: OFlags) -> Result<OwnedFd> {
        let path = self.path(volume)?;
        let dir = self.machine_dir(&volume.storage, volume.vmid)?;
        let fd = sys::open_beneath(&dir, Path::new(&volume.file), flags, Mode::empty())
            .at("cannot open volume", &path)?;
        let stat = rustix::fs::fstat(&fd).at("cannot inspect", &path)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(Error::Image {
                image: volume.to_string(),
                problem: "not a regular file".to_owned(),
            });
        }
        Ok(fd)
    }

    /// Takes the next free disk name of a machine by creating its empty file, owned by the machine user.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn allocate(&self, host: &Host, storage: &str, vmid: Vmid) -> Result<Volume> {
        let dir = self.machine_dir(storage, vmid)?;
        for number in 0..1000 {
            let volume = Volume::disk(storage, vmid, number);
            if self.path(&volume.as_base())?.exists() {
                continue;
            }
            match create_owned(host, &dir, &volume.file) {
                Ok(_) => return Ok(volume),
                Err(Error::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::Failed(format!(
            "VM {vmid} has too many disks on storage '{storage}'"
        )))
    }

    /// Removes a volume's file; an absent one is fine.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn free(&self, volume: &Volume) -> Result<()> {
        let Some(dir) = self.known(&volume.storage)?.machine(volume.vmid)? else {
            return Ok(());
        };
        match rustix::fs::unlinkat(&dir.fd, &volume.file, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e).at("cannot remove", dir.path.join(&volume.file)),
        }
    }

    /// Removes a machine's directories with everything in them, in every storage.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn free_all(&self, vmid: Vmid) -> Result<()> {
        for root in self.roots.values() {
            let Some(images) = root.images()? else {
                continue;
            };
            let name = vmid.to_string();
            match fs::remove_dir_all(sys::descriptor_path(&images.fd).join(&name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(e).at("cannot remove", images.path.join(name));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A machine's volumes as they lie in its directories, whatever a configuration says.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn volumes(&self, vmid: Vmid) -> Result<Vec<Volume>> {
        let mut found = Vec::new();
        for (storage, root) in &self.roots {
            if let Some(dir) = root.machine(vmid)? {
                let names = names(&dir)?.into_iter();
                found.extend(
                    names.filter_map(|name| Volume::parse(&format!("{storage}:{vmid}/{name}"))),
                );
            }
        }
        Ok(found)
    }

    /// Those that linked clones may be based on.
    ///
    /// # Errors
    /// As [`Self::volumes`].
    pub fn bases(&self, vmid: Vmid) -> Result<Vec<Volume>> {
        let mut bases = self.volumes(vmid)?;
        bases.retain(Volume::is_base);
        Ok(bases)
    }

    /// Removes what an interrupted import or clone left in a machine's directory.
    pub fn sweep(&self, vmid: Vmid) {
        let dirs = self.roots.values().map(|root| root.machine(vmid));
        for dir in dirs.flatten().flatten() {
            for name in names(&dir).unwrap_or_default() {
                if name.starts_with(".import-") {
                    let _ = rustix::fs::unlinkat(&dir.fd, &name, AtFlags::empty());
                }
            }
        }
    }
}

/// What is in a directory.
fn names(dir: &Place) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(sys::descriptor_path(&dir.fd)).at("cannot read", &dir.path)? {
        names.extend(
            entry
                .at("cannot read", &dir.path)?
                .file_name()
                .into_string(),
        );
    }
    Ok(names)
}

/// Creates a file that must not exist, 0600, owned by the machine user.
///
/// # Errors
/// `AlreadyExists` inside [`Error::Io`], or what creating and chown say.
pub fn create_owned(host: &Host, dir: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let ids = host.machine_user()?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let fd = sys::open_beneath(dir, Path::new(name), flags, Mode::from_raw_mode(0o600))
        .at("cannot create", name)?;
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(ids.uid),
        rustix::fs::Gid::from_raw(ids.gid),
    );
    rustix::fs::fchown(&fd, Some(uid), Some(gid)).at("cannot give to the machine user", name)?;
    Ok(fd)
}

/// A volume of a storage: `local:100/vm-100-disk-0.qcow2`, or for a linked clone
/// `local:9000/base-9000-disk-0.qcow2/100/vm-100-disk-0.qcow2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Which storage.
    pub storage: String,
    /// The template's volume that this one is based on: machine and file.
    pub base: Option<(Vmid, String)>,
    /// Which machine it belongs to.
    pub vmid: Vmid,
    /// File name in that machine's directory.
    pub file: String,
}

impl Volume {
    /// The ordinary name of a machine's disk.
    pub fn disk(storage: &str, vmid: Vmid, number: u32) -> Self {
        Volume {
            storage: storage.to_owned(),
            base: None,
            vmid,
            file: format!("vm-{vmid}-disk-{number}.qcow2"),
        }
    }

    /// Reads a volume name.
    pub fn parse(text: &str) -> Option<Self> {
        let (storage, name) = text.split_once(':')?;
        is_storage_name(storage).then_some(())?;
        let parts: Vec<&str> = name.split('/').collect();
        let (base, vmid, file) = match parts.as_slice() {
            [vmid, file] => (None, *vmid, *file),
            [base_vmid, base_file, vmid, file] => (Some((*base_vmid, *base_file)), *vmid, *file),
            _ => return None,
        };
        let checked = |vmid: &str, file: &str| {
            let vmid: Vmid = vmid.parse().ok()?;
            is_volume_file(vmid, file).then(|| (vmid, file.to_owned()))
        };
        let (vmid, file) = checked(vmid, file)?;
        let base = match base {
            Some((vmid, file)) => Some(checked(vmid, file)?),
            None => None,
        };
        Some(Volume {
            storage: storage.to_owned(),
            base,
            vmid,
            file,
        })
    }

    /// The same volume under the name it has once the machine is a template.
    pub fn as_base(&self) -> Self {
        let file = self
            .file
            .strip_prefix("vm-")
            .map_or_else(|| self.file.clone(), |rest| format!("base-{rest}"));
        Volume {
            file,
            ..self.clone()
        }
    }

    /// Whether it is a disk of a template.
    pub fn is_base(&self) -> bool {
        self.file.starts_with("base-")
    }

    /// Whether it is a cloud-init drive, whose content is made at every start.
    pub fn is_cloudinit(&self) -> bool {
        self.file.contains("-cloudinit")
    }

    /// The volume below a linked clone.
    pub fn backing(&self) -> Option<Volume> {
        let (vmid, file) = self.base.clone()?;
        Some(Volume {
            storage: self.storage.clone(),
            base: None,
            vmid,
            file,
        })
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.storage)?;
        if let Some((vmid, file)) = &self.base {
            write!(f, "{vmid}/{file}/")?;
        }
        write!(f, "{}/{}", self.vmid, self.file)
    }
}

/// `[a-z][a-z0-9-]{0,31}`, as the catalog has it.
pub fn is_storage_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// `vm-<vmid>-disk-N.qcow2`, `base-...`, or the cloud-init drive of that machine, and nothing else.
fn is_volume_file(vmid: Vmid, file: &str) -> bool {
    let rest = file
        .strip_prefix("vm-")
        .or_else(|| file.strip_prefix("base-"));
    let Some(stem) = rest.and_then(|rest| rest.strip_prefix(&format!("{vmid}-"))) else {
        return false;
    };
    let Some(stem) = stem.strip_suffix(".qcow2") else {
        return false;
    };
    let number = stem.strip_prefix("disk-");
    stem == "cloudinit"
        || number
            .is_some_and(|n| (1..=4).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_volume_name_leads_out_of_its_machine() {
        for name in [
            "local:../vm-100-disk-0.qcow2",
            "local:100/../101/vm-101-disk-0.qcow2",
            "local:100/vm-101-disk-0.qcow2",
            "local:100//etc/passwd",
            "local:100/vm-100-disk-0.qcow2/",
            "local:/etc/passwd",
            "/dev/sda",
            "local:100/vm-100-disk-.qcow2",
            "-x:100/vm-100-disk-0.qcow2",
            "local:9000/base-9001-disk-0.qcow2/100/vm-100-disk-0.qcow2",
        ] {
            assert_eq!(Volume::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_linked_clone_names_its_base() {
        let text = "local:9000/base-9000-disk-0.qcow2/100/vm-100-disk-0.qcow2";
        let volume = Volume::parse(text).unwrap();
        assert_eq!(volume.to_string(), text);
        assert_eq!(
            volume.backing().unwrap().to_string(),
            "local:9000/base-9000-disk-0.qcow2"
        );
    }
}
