//! Which storages there are: `local`, and what files in `/etc/blockhost/storage.d` add. Whose such a file must be, and where a
//! storage may lie. What is done with them is the parent's.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use super::place::there;
use super::{Root, Storages, is_storage_name};
use crate::error::{Error, IoContext, Result};
use crate::host::Host;
use crate::sys;

/// The storage that is always there.
const LOCAL: &str = "local";
/// A file of storages larger than this is none.
const FILE_LIMIT: u64 = 64 * 1024;

/// A file that defines further storages.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StorageFile {
    /// Storages by name.
    #[serde(default)]
    storages: BTreeMap<String, StorageEntry>,
}

/// One storage of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StorageEntry {
    /// Kind; directories only.
    #[serde(rename = "type")]
    kind: StorageKind,
    /// Absolute path below `/var/lib/blockhost`, itself below `BLOCKHOST_ROOT`.
    path: PathBuf,
}

/// Kinds of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StorageKind {
    /// Files in a directory.
    Dir,
}

impl Storages {
    /// `local` and what the files add.
    ///
    /// # Errors
    /// [`Error::Environment`] naming file, line and key.
    pub fn load(host: &Host) -> Result<Self> {
        let local = Root {
            base: host.storage_dir(),
            below: LOCAL.into(),
        };
        let mut storages = Storages {
            roots: BTreeMap::from([(LOCAL.to_owned(), local)]),
        };
        let files = files(host)?;
        if files.is_empty() {
            refuse_former(host)?;
        }
        for path in files {
            let problem =
                |problem: String| Error::Environment(format!("{}: {problem}", path.display()));
            let text = read_roots(&path, &problem)?;
            storages.add(host, &text).map_err(problem)?;
        }
        for root in storages.roots.values() {
            there(root.place(false))?;
        }
        Ok(storages)
    }

    /// Adds what one file says.
    fn add(&mut self, host: &Host, text: &str) -> std::result::Result<(), String> {
        let file: StorageFile = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        for (name, entry) in file.storages {
            let shown = name.escape_default();
            if !is_storage_name(&name) {
                return Err(format!("storages: '{shown}' is no storage name"));
            }
            if self.roots.contains_key(&name) {
                return Err(format!("storages: there is a storage {name} already"));
            }
            let StorageKind::Dir = entry.kind;
            // The agent's programs reach nothing else.
            let (root, state) = (host.layout.join(&entry.path), host.layout.state());
            if !entry.path.is_absolute() || root == state || !root.starts_with(&state) {
                return Err(format!(
                    "storages.{name}.path: '{}' is no directory below /var/lib/blockhost",
                    entry.path.display()
                ));
            }
            let below = root.strip_prefix(&state).unwrap_or(&root).to_owned();
            self.roots.insert(name, Root { base: state, below });
        }
        Ok(())
    }
}

/// The files that define storages.
fn files(host: &Host) -> Result<Vec<PathBuf>> {
    let dir = host.layout.storage_files();
    let mut files = Vec::new();
    match fs::read_dir(&dir) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.at("cannot read", &dir)?.path();
                // What editors keep beside a file begins with a dot or ends otherwise.
                let name = path.file_name().unwrap_or_default().as_encoded_bytes();
                if name.ends_with(b".yaml") && !name.starts_with(b".") {
                    files.push(path);
                }
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).at("cannot read", &dir),
    }
    files.sort();
    Ok(files)
}

/// Refuses to go on without the storages of the file that earlier versions read. It is looked for and not read: the agent's
/// process for machines may not.
fn refuse_former(host: &Host) -> Result<()> {
    let former = host.layout.etc().join("storage.yaml");
    match fs::symlink_metadata(&former) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).at("cannot inspect", &former),
        Ok(_) => Err(Error::Environment(format!(
            "{} is not read any more, and what it defines would not be known: move it to {}, root:root with mode 0644",
            former.display(),
            host.layout.storage_files().join("storage.yaml").display()
        ))),
    }
}

/// Text of a file of root's. The process that keeps wallets is root, too, and puts files below `/etc/blockhost`; what it makes
/// has the services' group.
fn read_roots(path: &Path, problem: &dyn Fn(String) -> Error) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).at("cannot open", path)?;
    let stat = rustix::fs::fstat(&file).at("cannot inspect", path)?;
    if stat.st_uid != 0 || stat.st_gid != 0 || stat.st_mode & 0o022 != 0 {
        return Err(problem(
            "others than root could have written it; make it root:root with mode 0644".to_owned(),
        ));
    }
    let bytes = sys::read_limited(file, FILE_LIMIT).at("cannot read", path)?;
    String::from_utf8(bytes).map_err(|_| problem("not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use blockhost_proto::layout::Layout;

    use super::*;
    use crate::host::Family;

    fn host() -> Host {
        Host {
            family: Family::Machines,
            layout: Layout::new("/x"),
            node: "n".to_owned(),
            pins: None,
        }
    }

    #[test]
    fn a_storage_is_below_the_state_directory_and_takes_nobody_elses_name() {
        let host = host();
        let load = |texts: &[&str]| {
            let local = Root {
                base: host.storage_dir(),
                below: LOCAL.into(),
            };
            let mut storages = Storages {
                roots: BTreeMap::from([(LOCAL.to_owned(), local)]),
            };
            let mut each = texts.iter();
            each.try_for_each(|text| storages.add(&host, text))
                .map(|()| storages)
        };
        const FAST: &str = "storages: {fast: {type: dir, path: /var/lib/blockhost/fast}}";
        let good = load(&[
            FAST,
            "storages: {slow: {type: dir, path: /var/lib/blockhost/a/b}}",
        ]);
        let root = |name: &str| good.as_ref().unwrap().root(name).unwrap().to_owned();
        assert_eq!(root("fast"), Path::new("/x/var/lib/blockhost/fast"));
        assert_eq!(root("slow"), Path::new("/x/var/lib/blockhost/a/b"));
        for (text, why) in [
            (
                "storages: {local: {type: dir, path: /var/lib/blockhost/x}}",
                "already",
            ),
            (FAST, "already"),
            (
                "storages: {Fast: {type: dir, path: /var/lib/blockhost/x}}",
                "no storage name",
            ),
            (
                "storages: {-x: {type: dir, path: /var/lib/blockhost/x}}",
                "no storage name",
            ),
            (
                "storages: {a: {type: dir, path: var/lib/blockhost/x}}",
                "no directory below",
            ),
            (
                "storages: {a: {type: dir, path: /var/lib/blockhost}}",
                "no directory below",
            ),
            (
                "storages: {a: {type: dir, path: /var/lib/blockhost-ct}}",
                "no directory below",
            ),
            (
                "storages: {a: {type: dir, path: /etc/blockhost/x}}",
                "no directory below",
            ),
            ("storages: {a: {type: dir, path: /}}", "no directory below"),
            (
                "storages: {a: {type: nfs, path: /var/lib/blockhost/x}}",
                "nfs",
            ),
            (
                "storages: {a: {type: dir, path: /var/lib/blockhost/x, mode: 7}}",
                "mode",
            ),
            ("storage: {}", "storage"),
        ] {
            let said = load(&[FAST, text]).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn a_definition_that_others_could_have_written_is_refused() {
        use std::os::unix::fs::{PermissionsExt, chown, symlink};
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: files of root's need root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let mut host = host();
        host.layout = Layout::new(root.path());
        assert!(Storages::load(&host).is_ok(), "there need be none");
        let dir = host.layout.storage_files();
        fs::create_dir_all(&dir).unwrap();
        let former = host.layout.etc().join("storage.yaml");
        fs::write(&former, "storages: {}").unwrap();
        let said = Storages::load(&host).unwrap_err().to_string();
        assert!(
            said.contains("storage.d/storage.yaml, root:root with mode 0644"),
            "the file of earlier versions: {said}"
        );
        let file = dir.join("fast.yaml");
        fs::write(
            &file,
            "storages: {fast: {type: dir, path: /var/lib/blockhost/fast}}",
        )
        .unwrap();
        chown(&file, Some(0), Some(0)).unwrap();
        let known =
            |host: &Host| Storages::load(host).map(|storages| storages.root("fast").is_ok());
        assert!(known(&host).unwrap());
        fs::remove_file(&former).unwrap();
        // What editors keep beside it.
        for beside in ["fast.yaml~", ".fast.yaml", "fast.yaml.dpkg-old", "4913"] {
            fs::write(dir.join(beside), "nonsense").unwrap();
        }
        assert!(known(&host).unwrap());
        for (uid, gid, mode) in [
            (0, 0, 0o664),
            (0, 0, 0o646),
            (0, 4711, 0o644),
            (4711, 0, 0o644),
        ] {
            chown(&file, Some(uid), Some(gid)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let said = known(&host).unwrap_err().to_string();
            assert!(
                said.contains("fast.yaml: others than root"),
                "{uid}:{gid} {mode:o}: {said}"
            );
        }
        fs::rename(&file, root.path().join("elsewhere")).unwrap();
        symlink(root.path().join("elsewhere"), &file).unwrap();
        assert!(known(&host).is_err(), "a link is followed");
    }
}
