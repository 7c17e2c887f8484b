//! The small virtual machine that libguestfs works in, put together by `supermin` from the host's own packages and kernel. Made
//! before any image is looked at, in a sandbox that sees no image, and kept until the host's packages or kernels change.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use blockhost_proto::response::ErrorCode;

use super::work::{Work, unusable};
use crate::compartment::Failure;
use crate::confine::programs::{APPLIANCE, Places};
use crate::exec::{Program, Run};

/// How the directories of appliances begin.
pub(super) const PREFIX: &str = "appliance-";

/// Making one takes a second or two.
const BUILD_LIMIT: Duration = Duration::from_secs(300);

/// Where the parts of the appliance are, on the architectures Debian has.
const PARTS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/guestfs/supermin.d",
    "/usr/lib/aarch64-linux-gnu/guestfs/supermin.d",
    "/usr/lib64/guestfs/supermin.d",
    "/usr/lib/guestfs/supermin.d",
];

/// What changes when an appliance is out of date.
const INGREDIENTS: [&str; 3] = ["/var/lib/dpkg/status", "/boot", "/lib/modules"];

/// One at a time makes it, the others wait and find it made.
static BUILDING: Mutex<()> = Mutex::new(());

/// The directory of an appliance that fits the host as it is now.
pub(super) fn current(
    work: &Work,
    supermin: &Program,
    deadline: Instant,
) -> Result<PathBuf, Failure> {
    let parts = PARTS
        .iter()
        .map(Path::new)
        .find(|path| path.is_dir())
        .ok_or_else(|| {
            Failure::new(
                ErrorCode::Failed,
                "libguestfs has no appliance on this host (no supermin.d); install the package libguestfs-tools",
            )
        })?;
    let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let name = format!("{PREFIX}{:016x}", fingerprint(parts));
    let path = work.path().join(&name);
    if path.join("README.fixed").exists() {
        return Ok(path);
    }
    let build = work.fresh("build")?;
    let made = make(&build, parts, supermin, deadline).and_then(|()| {
        std::fs::rename(build.join("out"), &path)
            .map_err(|error| unusable(&path, &error.to_string()))
    });
    let _ = std::fs::remove_dir_all(&build);
    made?;
    // Those of an earlier state of the host; a running job may still need one.
    if work.is_alone() {
        work.remove(|other| other.starts_with(PREFIX) && other != name);
    }
    Ok(path)
}

fn make(build: &Path, parts: &Path, supermin: &Program, deadline: Instant) -> Result<(), Failure> {
    let out = build.join("out");
    let files = supermin.files();
    let scratch = [build.to_path_buf()];
    let places = Places {
        program: &files,
        scratch: &scratch,
        ..Places::default()
    };
    let sandbox = APPLIANCE
        .sandbox(&places)
        .map_err(|error| unusable(build, &format!("no sandbox: {error}")))?;
    let words = [
        "--build",
        "--copy-kernel",
        "-f",
        "ext2",
        "--host-cpu",
        std::env::consts::ARCH,
        "-o",
    ];
    let output = Run::new(supermin, deadline.min(Instant::now() + BUILD_LIMIT))
        .args(words)
        .args([&out, parts])
        .env("TMPDIR", build)
        .sandbox(&sandbox)
        .run()
        .map_err(|error| Failure::new(ErrorCode::Failed, error.to_string()))?;
    let whole = ["kernel", "initrd", "root"]
        .iter()
        .all(|part| out.join(part).is_file());
    if !output.ok() || !whole {
        return Err(Failure::new(
            ErrorCode::Failed,
            format!(
                "libguestfs could not make its appliance: {}; it needs a kernel in /boot, with its modules in /lib/modules, that everybody may read (on Debian: linux-image-cloud-amd64; under systemd the drop-in images.conf)",
                output.complaint()
            ),
        ));
    }
    // Says to libguestfs that this directory is a finished appliance.
    std::fs::write(out.join("README.fixed"), "made by supermin for blockhost\n")
        .map_err(|error| unusable(&out, &error.to_string()))
}

/// Another number whenever a package, a kernel or the parts changed.
fn fingerprint(parts: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut add = |path: &Path| {
        path.hash(&mut hasher);
        if let Ok(metadata) = std::fs::metadata(path) {
            (metadata.mtime(), metadata.mtime_nsec(), metadata.len()).hash(&mut hasher);
        }
    };
    for path in INGREDIENTS.iter().map(Path::new).chain([parts]) {
        add(path);
        let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        entries.sort();
        entries.iter().for_each(|entry| add(entry));
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_part_of_the_appliance_makes_another_fingerprint() {
        let place = tempfile::tempdir().expect("a directory");
        let before = fingerprint(place.path());
        assert_eq!(fingerprint(place.path()), before);
        std::fs::write(place.path().join("base.tar.gz"), "x").expect("written");
        assert_ne!(fingerprint(place.path()), before);
    }
}
