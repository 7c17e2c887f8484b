//! The sign of life of a login: `/run/blockhost/knock.active` holds the address that somebody logged in from, and was
//! touched a moment ago. The host's PAM hook writes it (`/usr/share/blockhost/knock-login`); what anybody else wrote
//! counts for nothing.

use super::knocks::Login;
use blockhost_proto::layout::Layout;
use blockhost_proto::value::SourceNet;
use rustix::fs::{FileType, Mode, OFlags};
use std::io::Read as _;

/// An address and a line's end.
const MAX_BYTES: u64 = 64;

/// Reads it; none where there is none, or none that counts.
#[must_use]
pub fn read(layout: &Layout) -> Option<Login> {
    let path = layout.run().join("knock.active");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::open(&path, flags, Mode::empty()).ok()?);
    let about = rustix::fs::fstat(&file).ok()?;
    let own = rustix::process::geteuid().as_raw();
    let theirs = about.st_uid != 0 && about.st_uid != own;
    let writable = about.st_mode & 0o022 != 0;
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile || theirs || writable {
        return None;
    }
    let seen = file.metadata().ok()?.modified().ok()?;
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    let from: SourceNet = text.trim_end_matches('\n').parse().ok()?;
    let width = if from.is_ipv6() { 128 } else { 32 };
    (from.prefix() == width).then_some(Login { from, seen })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn only_a_plain_address_in_a_file_of_the_hosts_own_counts() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        std::fs::create_dir_all(layout.run()).unwrap();
        let path = layout.run().join("knock.active");
        assert_eq!(read(&layout), None);
        let put = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        put("198.51.100.7\n", 0o644);
        let login = read(&layout).unwrap();
        assert_eq!(login.from.to_string(), "198.51.100.7/32");
        assert!(login.seen.elapsed().unwrap().as_secs() < 60);
        for bad in [
            "",
            "198.51.100.0/24",
            "0.0.0.0/0",
            "host.example",
            "198.51.100.7 -j ACCEPT",
            "198.51.100.7\n198.51.100.8\n",
        ] {
            put(bad, 0o644);
            assert_eq!(read(&layout), None, "{bad:?}");
        }
        put("198.51.100.7\n", 0o666);
        assert_eq!(read(&layout), None, "anybody can write it");
        std::fs::remove_file(&path).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(&elsewhere, "198.51.100.7\n").unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert_eq!(read(&layout), None, "a link leads anywhere");
    }
}
