//! Disk images: what may come in, and every use of qemu-img. What an image contains is hostile: its format is declared,
//! its header is read by us, backing and external data files are refused, and qemu-img runs as the machine user with
//! the format spelled out.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::str::FromStr;

use rustix::fs::SeekFrom as Hole;

use crate::error::{Error, IoContext, Result};
use crate::exec::{self, Run};
use crate::host::Host;
use crate::machine::Vmid;
use crate::storage::{self, Storages, Volume};
use crate::sys;

/// The two formats that may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Plain bytes.
    Raw,
    /// QEMU's own.
    Qcow2,
}

impl Format {
    /// As qemu-img calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        }
    }

    /// The format a file name declares; `None` for a name that declares nothing.
    pub fn declared_by(name: &Path) -> Option<Self> {
        match name.extension()?.to_str()? {
            "qcow2" => Some(Format::Qcow2),
            "raw" | "img" => Some(Format::Raw),
            _ => None,
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "raw" => Ok(Format::Raw),
            "qcow2" => Ok(Format::Qcow2),
            _ => Err("expected raw or qcow2".to_owned()),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Largest disk that comes in or grows.
pub const DISK_LIMIT: u64 = 64 << 40;
/// What an import leaves free at least, on a large file system.
const RESERVE: u64 = 10 << 30;
/// Longest name of a backing file, as in QEMU.
const NAME_LIMIT: usize = 1023;
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";
/// Incompatible features we accept: dirty (bit 0) and compression type (bit 3). Corrupt, data file, extended L2: no.
const QCOW2_KNOWN_INCOMPATIBLE: u64 = 0b1001;

/// What the first bytes of a qcow2 image say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// Whether the image names a backing file.
    pub backed: bool,
}

/// Reads a qcow2 header.
///
/// # Errors
/// A sentence: not qcow2, an external data file, encrypted, unknown features.
pub fn read_header(bytes: &[u8]) -> std::result::Result<Header, String> {
    let u32_at = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_be_bytes)
    };
    let u64_at = |at: usize| {
        bytes
            .get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map(u64::from_be_bytes)
    };
    let short = || "shorter than a qcow2 header".to_owned();
    if !bytes.starts_with(&QCOW2_MAGIC) {
        return Err("not a qcow2 image".to_owned());
    }
    let version = u32_at(4).ok_or_else(short)?;
    let backing_offset = u64_at(8).ok_or_else(short)?;
    let virtual_size = u64_at(24).ok_or_else(short)?;
    let encryption = u32_at(32).ok_or_else(short)?;
    let incompatible = match version {
        2 => 0,
        3 => u64_at(72).ok_or_else(short)?,
        other => return Err(format!("qcow2 version {other} is unknown")),
    };
    if encryption != 0 {
        return Err("encrypted".to_owned());
    }
    if incompatible & 0b100 != 0 {
        return Err("it keeps its data in an external file".to_owned());
    }
    if incompatible & !QCOW2_KNOWN_INCOMPATIBLE != 0 {
        return Err(format!(
            "it needs unknown features ({incompatible:#x}), or is marked corrupt"
        ));
    }
    Ok(Header {
        virtual_size,
        backed: backing_offset != 0,
    })
}

/// Header of an open qcow2 file.
///
/// # Errors
/// [`Error::Image`] or a read error.
pub fn header_of(fd: impl AsFd, name: &str) -> Result<Header> {
    let mut bytes = [0; 104];
    let file = File::from(fd.as_fd().try_clone_to_owned().at("cannot use", name)?);
    let read = file.read_at(&mut bytes, 0).at("cannot read", name)?;
    read_header(bytes.get(..read).unwrap_or_default()).map_err(|problem| Error::Image {
        image: name.to_owned(),
        problem,
    })
}

/// What a machine's disks say that they are based on. They belong to the machines' user: a QEMU that was taken over can
/// have them say something else, and is then itself without its base.
///
/// # Errors
/// When its directories cannot be read.
pub fn backings(storages: &Storages, vmid: Vmid) -> Result<Vec<Volume>> {
    let based_on = |volume: Volume| {
        let fd = storages.open(&volume, rustix::fs::OFlags::RDONLY).ok()?;
        let mut bytes = [0; 20];
        let file = File::from(fd);
        file.read_exact_at(&mut bytes, 0).ok()?;
        let (offset, length) = backing_name(&bytes)?;
        let mut name = vec![0; length];
        file.read_exact_at(&mut name, offset).ok()?;
        let name = String::from_utf8(name).ok()?;
        Volume::parse(&format!("{}:{}", volume.storage, name.strip_prefix("../")?))
    };
    let volumes = storages.volumes(vmid)?.into_iter();
    Ok(volumes.filter_map(based_on).collect())
}

/// Where the name of a qcow2 image's backing file stands in it, and how long it is.
fn backing_name(header: &[u8]) -> Option<(u64, usize)> {
    let offset = u64::from_be_bytes(header.get(8..16)?.try_into().ok()?);
    let length = u32::from_be_bytes(header.get(16..20)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let named = header.starts_with(&QCOW2_MAGIC) && offset != 0 && length <= NAME_LIMIT;
    named.then_some((offset, length))
}

/// Size of a volume's disk in bytes.
///
/// # Errors
/// When the volume cannot be opened or is no qcow2 image.
pub fn virtual_size(storages: &Storages, volume: &Volume) -> Result<u64> {
    let fd = storages.open(volume, rustix::fs::OFlags::RDONLY)?;
    Ok(header_of(&fd, &volume.to_string())?.virtual_size)
}

/// Checks a foreign image in its declared format.
///
/// # Errors
/// [`Error::Image`] for anything but a complete, self-contained image.
pub fn check(file: &File, format: Format, name: &str) -> Result<()> {
    let refuse = |problem: &str| Error::Image {
        image: name.to_owned(),
        problem: problem.to_owned(),
    };
    let meta = file.metadata().at("cannot inspect", name)?;
    if !meta.is_file() {
        return Err(refuse("non-existent or non-regular file"));
    }
    if meta.len() == 0 {
        return Err(refuse("it is empty"));
    }
    let mut size = meta.len();
    match format {
        Format::Raw => {
            let mut magic = [0; 4];
            let read = file.read_at(&mut magic, 0).at("cannot read", name)?;
            if read == 4 && magic == QCOW2_MAGIC {
                return Err(refuse(
                    "declared raw, but it is qcow2; declare it so (--source-format qcow2)",
                ));
            }
        }
        Format::Qcow2 => {
            let header = header_of(file, name)?;
            if header.backed {
                return Err(refuse("it names a backing file"));
            }
            size = header.virtual_size;
        }
    }
    if size > DISK_LIMIT {
        return Err(refuse(&format!(
            "it is a disk of {size} bytes, and none is larger than {} TiB",
            DISK_LIMIT >> 40
        )));
    }
    Ok(())
}

/// Whether a file begins like qcow2; everything else is raw.
///
/// # Errors
/// When it cannot be read.
pub fn detect(file: &File, name: &str) -> Result<Format> {
    let mut magic = [0; 4];
    let read = file.read_at(&mut magic, 0).at("cannot read", name)?;
    Ok(if read == 4 && magic == QCOW2_MAGIC {
        Format::Qcow2
    } else {
        Format::Raw
    })
}

/// Copies and converts a foreign image into a new volume of a machine. Until it is whole it has a name that is swept. A
/// small image may say that it holds any amount of data: this process and what it starts can write no file from here on that
/// would take the last of the space.
///
/// # Errors
/// When the image is refused or anything fails; nothing of it stays then.
pub fn import(
    host: &Host,
    storages: &Storages,
    source: &File,
    format: Format,
    name: &str,
    (storage, vmid): (&str, Vmid),
) -> Result<Volume> {
    check(source, format, name)?;
    let dir = storages.machine_dir(storage, vmid)?;
    let staged = format!(".import-{}", std::process::id());
    let whole = format!("{staged}-disk");
    let refuse = |problem: String| Error::Image {
        image: name.to_owned(),
        problem,
    };
    let result = (|| {
        let data = source.metadata().at("cannot inspect", name)?.blocks() * 512;
        let free = room(&dir, name)?;
        if data > free {
            return Err(refuse(format!(
                "it holds {data} bytes, and there is space for {free} on storage '{storage}'"
            )));
        }
        let copy = File::from(storage::create_owned(host, &dir, &staged)?);
        copy_sparse(source, &copy).at("cannot copy", name)?;
        // Checked again on the copy, which no one outside can change any more.
        check(&copy, format, name)?;
        drop(storage::create_owned(host, &dir, &whole)?);
        let free = room(&dir, name)?;
        sys::limit_file_size(free).at("cannot bound", name)?;
        convert(host, &dir, format, &staged, &whole).map_err(|e| match e {
            Error::Program { problem, .. } if too_long(&problem) => refuse(format!(
                "it holds more than {free} bytes, which is what there is space for on storage '{storage}'"
            )),
            other => other,
        })?;
        // Sizes are told in MiB; the odd end of a raw image becomes a whole one.
        let bytes = header_of(beneath(&dir, &whole)?, name)?.virtual_size;
        if !bytes.is_multiple_of(1 << 20) {
            resize_in(host, &dir, &whole, bytes.next_multiple_of(1 << 20))?;
        }
        let target = storages.allocate(host, storage, vmid)?;
        rustix::fs::renameat(&dir, whole.as_str(), &dir, target.file.as_str())
            .at("cannot rename", name)?;
        Ok(target)
    })();
    for left in [&staged, &whole] {
        let _ = rustix::fs::unlinkat(&dir, left.as_str(), rustix::fs::AtFlags::empty());
    }
    result
}

/// Whether a program met the limit on the length of files: it is ended by that, or told where the signal is ignored.
fn too_long(problem: &str) -> bool {
    problem.contains("SIGXFSZ") || problem.contains("File too large")
}

fn beneath(dir: &OwnedFd, file: &str) -> Result<OwnedFd> {
    let flags = rustix::fs::OFlags::RDONLY;
    sys::open_beneath(dir, Path::new(file), flags, rustix::fs::Mode::empty())
        .at("cannot open", file)
}

/// Bytes that an import may take of the file system: what is free but a twentieth of the whole, or 10 GiB where that is less.
/// Machines that run write there, and stop when it is full.
fn room(dir: &OwnedFd, name: &str) -> Result<u64> {
    let all = rustix::fs::fstatvfs(dir).at("cannot ask for the space for", name)?;
    let kept = (all.f_blocks * all.f_frsize / 20).min(RESERVE);
    Ok((all.f_bavail * all.f_frsize).saturating_sub(kept))
}

/// `qemu-img convert` inside one directory, from a declared format to qcow2.
///
/// # Errors
/// [`Error::Program`] with qemu-img's words.
pub fn convert(host: &Host, dir: &OwnedFd, format: Format, from: &str, to: &str) -> Result<()> {
    let args = [
        "convert",
        "-f",
        format.as_str(),
        "-O",
        "qcow2",
        "-t",
        "none",
        "-T",
        "none",
        from,
        to,
    ];
    match qemu_img(host, dir, &args) {
        // Some file systems (tmpfs) have no direct I/O.
        Err(Error::Program { problem, .. }) if problem.contains("O_DIRECT") => qemu_img(
            host,
            dir,
            &["convert", "-f", format.as_str(), "-O", "qcow2", from, to],
        ),
        other => other,
    }
}

/// Makes an empty disk in a volume's file, or a linked clone where the volume names its base.
///
/// # Errors
/// [`Error::Program`] with qemu-img's words.
pub fn create(host: &Host, storages: &Storages, volume: &Volume, bytes: Option<u64>) -> Result<()> {
    let dir = storages.machine_dir(&volume.storage, volume.vmid)?;
    let backing = volume
        .base
        .as_ref()
        .map(|(vmid, file)| format!("../{vmid}/{file}"));
    let mut args = vec!["create", "-q", "-f", "qcow2"];
    if let Some(backing) = &backing {
        args.extend(["-F", "qcow2", "-b", backing]);
    }
    args.push(&volume.file);
    let size = bytes.map(|bytes| bytes.to_string());
    args.extend(size.as_deref());
    qemu_img(host, &dir, &args)
}

/// Grows a disk that no QEMU has open.
///
/// # Errors
/// [`Error::Program`] with qemu-img's words.
pub fn resize(host: &Host, storages: &Storages, volume: &Volume, bytes: u64) -> Result<()> {
    let dir = storages.machine_dir(&volume.storage, volume.vmid)?;
    resize_in(host, &dir, &volume.file, bytes)
}

fn resize_in(host: &Host, dir: &OwnedFd, file: &str, bytes: u64) -> Result<()> {
    let bytes = bytes.to_string();
    qemu_img(host, dir, &["resize", "-q", "-f", "qcow2", file, &bytes])
}

/// Full copy of one volume into another, through the whole backing chain.
///
/// # Errors
/// [`Error::Program`] with qemu-img's words.
pub fn copy(host: &Host, storages: &Storages, from: &Volume, to: &Volume) -> Result<()> {
    let dir = storages.machine_dir(&to.storage, to.vmid)?;
    if from.storage != to.storage {
        return Err(Error::option(
            "storage",
            "a clone into another storage is not supported",
        ));
    }
    let source = format!("../{}/{}", from.vmid, from.file);
    qemu_img(
        host,
        &dir,
        &["convert", "-f", "qcow2", "-O", "qcow2", &source, &to.file],
    )
}

/// Runs qemu-img as the machine user in a directory; names are relative to it.
fn qemu_img(host: &Host, dir: &OwnedFd, args: &[&str]) -> Result<()> {
    let program = exec::find("qemu-img", "qemu-utils")?;
    let ids = host.machine_user()?;
    Run::new(program, args.iter().copied())
        .user(ids)
        .directory(dir.as_fd())
        .output()
        .map(drop)
}

/// Copies only what is data; holes stay holes.
fn copy_sparse(from: &File, to: &File) -> std::io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let (mut reader, mut writer) = (from, to);
    let mut at = 0;
    while at < length {
        let start = match rustix::fs::seek(from, Hole::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => at,
        };
        let end = rustix::fs::seek(from, Hole::Hole(start))
            .unwrap_or(length)
            .min(length);
        reader.seek(SeekFrom::Start(start))?;
        writer.seek(SeekFrom::Start(start))?;
        std::io::copy(
            &mut Read::by_ref(&mut reader).take(end - start),
            &mut writer,
        )?;
        at = end.max(start + 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn qcow2(version: u32, backing: u64, incompatible: u64) -> Vec<u8> {
        let mut bytes = vec![0; 104];
        for (at, part) in [
            (0, QCOW2_MAGIC.to_vec()),
            (4, version.to_be_bytes().to_vec()),
            (8, backing.to_be_bytes().to_vec()),
            (24, (1u64 << 30).to_be_bytes().to_vec()),
            (72, incompatible.to_be_bytes().to_vec()),
        ] {
            bytes.splice(at..at + part.len(), part);
        }
        bytes
    }

    #[test]
    fn an_image_that_reaches_outside_itself_is_recognised() {
        assert!(
            read_header(&qcow2(3, 0, 4))
                .unwrap_err()
                .contains("external file")
        );
        assert!(read_header(&qcow2(3, 0x200, 0)).unwrap().backed);
        assert!(read_header(&qcow2(3, 0, 1 << 40)).is_err());
        assert!(read_header(&qcow2(4, 0, 0)).is_err());
        assert!(read_header(b"QFI\xfb").is_err());
        assert_eq!(
            read_header(&qcow2(2, 0, u64::MAX)).unwrap(),
            Header {
                virtual_size: 1 << 30,
                backed: false
            }
        );
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = read_header(&bytes);
            let mut magic = QCOW2_MAGIC.to_vec();
            magic.extend(bytes);
            let _ = read_header(&magic);
        }
    }
}
