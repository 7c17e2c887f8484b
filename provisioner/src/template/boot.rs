//! The first MiB of the disk: a partition table with one partition, GRUB's first sector and its core image. All three
//! are plain bytes, so no device and no mount is needed. Pure but for `install`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Sectors before the partition.
const FIRST_SECTOR: u32 = 2048;
const SECTOR: usize = 512;

/// GRUB's files are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The first sector's size is wrong.
    #[error("GRUB's boot.img has {0} bytes instead of 512")]
    BootImage(usize),
    /// The core does not fit before the partition.
    #[error("GRUB's core image has {0} bytes; at most {max} fit before the partition", max = (FIRST_SECTOR as usize - 1) * SECTOR)]
    CoreImage(usize),
    /// The disk is too small or too large for this partition table.
    #[error("a disk of {0} bytes cannot be partitioned")]
    Disk(u64),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The bytes from sector 0 on.
///
/// # Errors
/// [`BootError`].
pub fn first_sectors(
    boot_image: &[u8],
    core: &[u8],
    disk_bytes: u64,
) -> Result<Vec<u8>, BootError> {
    if boot_image.len() != SECTOR {
        return Err(BootError::BootImage(boot_image.len()));
    }
    if core.len() > (FIRST_SECTOR as usize - 1) * SECTOR || core.len() < SECTOR {
        return Err(BootError::CoreImage(core.len()));
    }
    let sectors = u32::try_from(disk_bytes / SECTOR as u64)
        .ok()
        .filter(|n| *n > FIRST_SECTOR);
    let sectors = sectors.ok_or(BootError::Disk(disk_bytes))?;
    let mut bytes = boot_image[..440].to_vec();
    // boot.img: "boot drive check" is skipped on disks, as grub-bios-setup does. Its kernel sector is 1 by default and
    // the block list in core.img continues at sector 2: exactly where both are put here.
    bytes[0x66..0x68].copy_from_slice(&[0x90, 0x90]);
    bytes.extend_from_slice(b"BlkH\0\0");
    let mut entry = [0_u8; 16];
    entry[0] = 0x80;
    entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[4] = 0x83;
    entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&FIRST_SECTOR.to_le_bytes());
    entry[12..16].copy_from_slice(&(sectors - FIRST_SECTOR).to_le_bytes());
    bytes.extend_from_slice(&entry);
    bytes.resize(510, 0);
    bytes.extend_from_slice(&[0x55, 0xaa]);
    bytes.extend_from_slice(core);
    Ok(bytes)
}

/// Writes them to a disk image whose partition is there already.
///
/// # Errors
/// [`BootError`].
pub fn install(disk: &Path, boot_image: &Path, core: &Path) -> Result<(), BootError> {
    let file = File::options().write(true).open(disk)?;
    let bytes = first_sectors(
        &std::fs::read(boot_image)?,
        &std::fs::read(core)?,
        file.metadata()?.len(),
    )?;
    Ok(file.write_all_at(&bytes, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_do_not_fit_are_refused() {
        let (boot, core) = (vec![0; 512], vec![0; 4096]);
        assert!(matches!(
            first_sectors(&boot[1..], &core, 1 << 30),
            Err(BootError::BootImage(511))
        ));
        assert!(matches!(
            first_sectors(&boot, &vec![0; 2 << 20], 1 << 30),
            Err(BootError::CoreImage(_))
        ));
        assert!(matches!(
            first_sectors(&boot, &core, 1 << 20),
            Err(BootError::Disk(_))
        ));
    }

    #[test]
    fn the_partition_covers_the_rest_of_the_disk() {
        let bytes = first_sectors(&[0; 512], &[7; 1024], 1 << 30).unwrap();
        assert_eq!(bytes.len(), 512 + 1024);
        assert_eq!(&bytes[510..513], &[0x55, 0xaa, 7]);
        let entry = &bytes[446..462];
        assert_eq!(u32::from_le_bytes(entry[8..12].try_into().unwrap()), 2048);
        assert_eq!(
            u32::from_le_bytes(entry[12..16].try_into().unwrap()),
            (1 << 21) - 2048
        );
    }
}
