//! The files of ours inside the template, and the script that finishes its root file system.

use std::path::Path;

macro_rules! files {
    ($($path:literal $mode:literal),+ $(,)?) => {
        &[$(($path, $mode, include_str!(concat!("../../assets/template/overlay/", $path)))),+]
    };
}

/// Path inside the guest, mode, contents.
pub const FILES: &[(&str, u32, &str)] = files![
    "etc/cloud/cloud.cfg.d/90_blockhost.cfg" 0o644,
    "etc/cloud/ds-identify.cfg" 0o644,
    "etc/initramfs-tools/conf.d/blockhost.conf" 0o644,
    "etc/initramfs-tools/hooks/zz-blockhost" 0o755,
    "etc/modprobe.d/blockhost.conf" 0o644,
    "etc/ssh/sshd_config.d/50-blockhost.conf" 0o644,
    "etc/systemd/system/blockhost-grow-root.service" 0o644,
    "etc/systemd/system/blockhost-ssh-host-key.service" 0o644,
    "etc/systemd/system/cloud-init-local.service" 0o644,
    "etc/systemd/system/systemd-udev-trigger.service.d/blockhost.conf" 0o644,
    "usr/lib/blockhost/cloud-init-stages" 0o755,
    "usr/lib/blockhost/grow-root" 0o755,
    "usr/lib/blockhost/initramfs-init" 0o755,
];

/// Runs inside mmdebstrap's user namespace when all packages are installed.
pub const CUSTOMIZE: &str = include_str!("../../assets/template/customize.sh");

/// Built into GRUB's core image.
pub const GRUB_EARLY: &str = include_str!("../../assets/template/grub-early.cfg");

/// Packages beyond the essential ones and apt.
pub const PACKAGES: &[&str] = &[
    "busybox-static",
    "ca-certificates",
    "cloud-init",
    "dbus",
    "e2fsprogs",
    "fdisk",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "linux-image-cloud-amd64",
    "netbase",
    "openssh-server",
    "qemu-guest-agent",
    "sudo",
    "systemd-resolved",
    "systemd-sysv",
    "udev",
];

/// Paths that dpkg leaves out, in the guest as well: documentation, translations, and the hardware database, which
/// describes devices that no virtual machine has and takes seconds to compile.
pub const EXCLUDED: &[&str] = &[
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/lib/udev/hwdb.d/*",
    "path-exclude=/lib/udev/hwdb.d/*",
];

/// Writes the overlay below `directory`. Modes are set as such, whatever the umask.
///
/// # Errors
/// What the kernel says.
pub fn write(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for (path, mode, contents) in FILES {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, contents)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_overlay_is_listed() {
        fn walk(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(directory).unwrap().flatten() {
                if entry.path().is_dir() {
                    walk(&entry.path(), found)
                } else {
                    found.push(entry.path())
                }
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/template/overlay");
        let mut found = Vec::new();
        walk(&root, &mut found);
        assert_eq!(found.len(), FILES.len());
    }
}
