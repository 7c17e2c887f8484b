//! What a disk image is, from its first bytes alone, and whether it may be imported. A file that makes the reader open
//! another file (a backing file, an external data file, a VMDK descriptor) is how images have stolen host files before;
//! such ones, and every format not understood here, are refused. Pure.

/// How much of the image [`inspect`] wants to see: the whole first cluster of the largest cluster size.
pub(in crate::compartment) const HEAD: usize = 2 << 20;

/// An image that may be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::compartment) enum Format {
    /// qcow2 version 2 or 3, on its own.
    Qcow2,
    /// A raw disk with a partition table.
    Raw,
}

impl Format {
    /// The name QEMU gives it.
    pub(in crate::compartment) const fn name(self) -> &'static str {
        match self {
            Format::Qcow2 => "qcow2",
            Format::Raw => "raw",
        }
    }
}

/// Why an image is refused. Ends the sentence "the image was refused: it ...".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::compartment) enum ImageError {
    #[error("names a backing file; flatten it with qemu-img convert")]
    BackingFile,
    #[error("keeps its data in another file; flatten it with qemu-img convert")]
    ExternalData,
    #[error("is encrypted")]
    Encrypted,
    #[error("is marked as corrupt")]
    Corrupt,
    #[error("uses qcow2 features that are not known here")]
    UnknownFeature,
    #[error("has a qcow2 header that makes no sense")]
    BadHeader,
    #[error("is larger than 64 TiB")]
    TooLarge,
    #[error("is in the format {0}; convert it to qcow2")]
    OtherFormat(&'static str),
    #[error("is neither qcow2 nor a raw disk with a partition table")]
    Unknown,
}

/// Largest disk that is imported.
const MAX_DISK: u64 = 64 << 40;

/// First bytes of formats that QEMU would recognise and that we do not want.
const OTHER_FORMATS: &[(&[u8], &str)] = &[
    (b"KDMV", "vmdk"),
    (b"COWD", "vmdk"),
    (b"# Disk DescriptorFile", "vmdk"),
    (b"QED\0", "qed"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vhd"),
    (b"LUKS\xba\xbe", "luks"),
    (b"WithoutFreeSpace", "parallels"),
    (b"WithouFreSpacExt", "parallels"),
    (b"Bochs Virtual HD Image", "bochs"),
    (b"#!/bin/sh\n#V2.0 Format", "cloop"),
    (b"OOOO", "archive"),
];

/// Decides by the head of the file: its first [`HEAD`] bytes, or all of a shorter one.
pub(in crate::compartment) fn inspect(head: &[u8]) -> Result<Format, ImageError> {
    if head.starts_with(b"QFI\xfb") {
        return qcow2(head).map(|()| Format::Qcow2);
    }
    if let Some((_, name)) = OTHER_FORMATS
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
    {
        return Err(ImageError::OtherFormat(name));
    }
    if head.get(0x40..0x44) == Some(&[0x7f, 0x10, 0xda, 0xbe]) {
        return Err(ImageError::OtherFormat("vdi"));
    }
    // A VMDK descriptor is text: blanks, comments, then `version=`. No boot sector begins like that.
    let texty = head
        .first()
        .is_none_or(|byte| byte.is_ascii_whitespace() || matches!(byte, b'#' | b'v' | b'V'));
    let boot_signature = head.get(510..512) == Some(&[0x55, 0xaa]);
    if boot_signature && !texty {
        Ok(Format::Raw)
    } else {
        Err(ImageError::Unknown)
    }
}

/// The header as docs/interop/qcow2.txt of QEMU describes it.
fn qcow2(head: &[u8]) -> Result<(), ImageError> {
    const DIRTY: u64 = 1;
    const CORRUPT: u64 = 1 << 1;
    const EXTERNAL_DATA: u64 = 1 << 2;
    const COMPRESSION_TYPE: u64 = 1 << 3;
    const EXTENDED_L2: u64 = 1 << 4;
    const EXTENSION_END: u32 = 0;
    const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
    const EXTENSION_DATA_FILE: u32 = 0x4441_5441;

    let version = u32_at(head, 4)?;
    let (backing_offset, backing_length) = (u64_at(head, 8)?, u32_at(head, 16)?);
    let (cluster_bits, size, encryption) =
        (u32_at(head, 20)?, u64_at(head, 24)?, u32_at(head, 32)?);
    if !(9..=21).contains(&cluster_bits) {
        return Err(ImageError::BadHeader);
    }
    let cluster = 1usize << cluster_bits;
    let header_length = match version {
        2 => 72,
        3 => {
            let features = u64_at(head, 72)?;
            if features & CORRUPT != 0 {
                return Err(ImageError::Corrupt);
            }
            if features & EXTERNAL_DATA != 0 {
                return Err(ImageError::ExternalData);
            }
            if features & !(DIRTY | COMPRESSION_TYPE | EXTENDED_L2) != 0 {
                return Err(ImageError::UnknownFeature);
            }
            usize::try_from(u32_at(head, 100)?)
                .ok()
                // Longer than its cluster, it would hide the extensions from us; QEMU refuses that as well.
                .filter(|length| (104..=cluster).contains(length) && length.is_multiple_of(8))
                .ok_or(ImageError::BadHeader)?
        }
        1 => return Err(ImageError::OtherFormat("qcow version 1")),
        _ => return Err(ImageError::UnknownFeature),
    };
    if backing_offset != 0 || backing_length != 0 {
        return Err(ImageError::BackingFile);
    }
    if encryption != 0 {
        return Err(ImageError::Encrypted);
    }
    if size > MAX_DISK {
        return Err(ImageError::TooLarge);
    }
    // Extensions fill the rest of the first cluster.
    let first_cluster = head
        .get(..cluster.min(head.len()))
        .ok_or(ImageError::BadHeader)?;
    let mut at = header_length;
    while at.checked_add(8).is_some_and(|end| end <= cluster) {
        let kind = u32_at(first_cluster, at)?;
        let length =
            usize::try_from(u32_at(first_cluster, at + 4)?).map_err(|_| ImageError::BadHeader)?;
        match kind {
            EXTENSION_END => return Ok(()),
            EXTENSION_BACKING_FORMAT => return Err(ImageError::BackingFile),
            EXTENSION_DATA_FILE => return Err(ImageError::ExternalData),
            _ => {}
        }
        at = length
            .checked_add(7)
            .map(|padded| padded & !7)
            .and_then(|padded| at.checked_add(8)?.checked_add(padded))
            .ok_or(ImageError::BadHeader)?;
        if at > cluster {
            return Err(ImageError::BadHeader);
        }
    }
    Ok(())
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, ImageError> {
    let field = at
        .checked_add(4)
        .and_then(|end| bytes.get(at..end))
        .ok_or(ImageError::BadHeader)?;
    field
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| ImageError::BadHeader)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, ImageError> {
    let field = at
        .checked_add(8)
        .and_then(|end| bytes.get(at..end))
        .ok_or(ImageError::BadHeader)?;
    field
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| ImageError::BadHeader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A minimal version 3 header with 64 KiB clusters.
    fn header() -> Vec<u8> {
        let mut head = vec![0u8; 65536];
        head[..4].copy_from_slice(b"QFI\xfb");
        head[7] = 3;
        head[23] = 16;
        head[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        head[103] = 104;
        head
    }

    fn with(change: impl FnOnce(&mut Vec<u8>)) -> Result<Format, ImageError> {
        let mut head = header();
        change(&mut head);
        inspect(&head)
    }

    #[test]
    fn images_that_lead_to_other_files_are_refused() {
        assert_eq!(with(|h| h[15] = 0x70), Err(ImageError::BackingFile));
        assert_eq!(with(|h| h[19] = 9), Err(ImageError::BackingFile));
        assert_eq!(with(|h| h[79] = 4), Err(ImageError::ExternalData));
        assert_eq!(
            with(|h| h[104..108].copy_from_slice(&0x4441_5441u32.to_be_bytes())),
            Err(ImageError::ExternalData)
        );
        assert_eq!(
            with(|h| h[104..108].copy_from_slice(&0xe279_2acau32.to_be_bytes())),
            Err(ImageError::BackingFile)
        );
        let hidden_behind_another = with(|h| {
            h[104..112].copy_from_slice(&[0x68, 0x03, 0xf8, 0x57, 0, 0, 0, 5]);
            h[120..124].copy_from_slice(&0x4441_5441u32.to_be_bytes());
        });
        assert_eq!(hidden_behind_another, Err(ImageError::ExternalData));
    }

    #[test]
    fn headers_that_a_reader_could_understand_differently_are_refused() {
        assert_eq!(
            with(|h| h[7] = 1),
            Err(ImageError::OtherFormat("qcow version 1"))
        );
        assert_eq!(with(|h| h[7] = 4), Err(ImageError::UnknownFeature));
        assert_eq!(with(|h| h[79] = 0x20), Err(ImageError::UnknownFeature));
        assert_eq!(with(|h| h[79] = 2), Err(ImageError::Corrupt));
        assert_eq!(with(|h| h[35] = 2), Err(ImageError::Encrypted));
        assert_eq!(with(|h| h[24] = 1), Err(ImageError::TooLarge));
        for bits in [0u8, 8, 22, 63, 255] {
            assert_eq!(
                with(|h| h[23] = bits),
                Err(ImageError::BadHeader),
                "cluster bits {bits}"
            );
        }
        assert_eq!(with(|h| h[103] = 72), Err(ImageError::BadHeader));
        assert_eq!(
            with(|h| h[101] = 0x40),
            Err(ImageError::BadHeader),
            "a header longer than its cluster"
        );
        assert_eq!(
            with(|h| h[104..112].copy_from_slice(&[1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff])),
            Err(ImageError::BadHeader)
        );
        assert_eq!(with(|h| h.truncate(100)), Err(ImageError::BadHeader));
        assert_eq!(with(|h| h.truncate(106)), Err(ImageError::BadHeader));
    }

    #[test]
    fn a_raw_disk_must_not_be_readable_as_anything_else() {
        let mut disk = vec![0u8; 1024];
        assert_eq!(
            inspect(&disk),
            Err(ImageError::Unknown),
            "no partition table"
        );
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(inspect(&disk), Ok(Format::Raw));
        for (magic, name) in OTHER_FORMATS {
            let mut polyglot = disk.clone();
            polyglot[..magic.len()].copy_from_slice(magic);
            assert_eq!(inspect(&polyglot), Err(ImageError::OtherFormat(name)));
        }
        for start in [
            "# comment\nversion=1\n",
            "\n\nversion=1\ncreateType=\"monolithicFlat\"",
            " version=1",
            "version=2",
        ] {
            let mut polyglot = disk.clone();
            polyglot[..start.len()].copy_from_slice(start.as_bytes());
            assert_eq!(inspect(&polyglot), Err(ImageError::Unknown), "{start:?}");
        }
        disk[0x40..0x44].copy_from_slice(&0xbeda_107fu32.to_le_bytes());
        assert_eq!(inspect(&disk), Err(ImageError::OtherFormat("vdi")));
        assert_eq!(inspect(b""), Err(ImageError::Unknown));
    }

    #[test]
    fn a_plain_qcow2_of_either_version_is_accepted() {
        assert_eq!(inspect(&header()), Ok(Format::Qcow2));
        assert_eq!(with(|h| h[7] = 2), Ok(Format::Qcow2));
        assert_eq!(
            with(|h| h[79] = 1),
            Ok(Format::Qcow2),
            "dirty: not closed cleanly, repaired on import"
        );
    }

    proptest! {
        #[test]
        fn no_header_makes_the_inspector_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..700), qcow in any::<bool>()) {
            if qcow && bytes.len() > 8 {
                bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
            }
            let _ = inspect(&bytes);
        }
    }
}
