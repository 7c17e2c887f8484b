//! What was applied and when, and that one apply runs at a time. The record is written before the first action of an apply
//! and after the last: a resource that may have been made here is known as ours whatever was killed when. It proves
//! nothing by itself; what it names is deleted only when the thing itself, too, bears a mark of ours.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use blockhost_proto::layout::Layout;
use serde_json::{Map, Value, json};

use super::kind::{Entry, Known};
use crate::locked::Locked;

/// Why the record or the lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Somebody else applies.
    #[error("another apply is running{who}; wait for it to end", who = .by.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// Its process, where that is known.
        by: Option<u32>,
    },
    /// Somebody else wrote it.
    #[error("{path} is not a record of this program: {what}; move it away, and containers, tunnels and so on that it names will no longer be deleted by --prune", path = .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// Everything that was applied on this host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    plugins: BTreeMap<String, Known>,
    /// The apply that did not come to its end: what it was about to do.
    pub interrupted: Option<Value>,
}

/// `/var/lib/blockhost/applied/state.json`, in a directory that is the services' own: in a shared one they could not replace
/// a file that an operator's apply as root had made.
#[must_use]
pub fn path(layout: &Layout) -> PathBuf {
    layout.state().join("applied/state.json")
}

/// `/var/lib/blockhost/applied/apply.lock`: whoever can open it can hold it, so it lies where the services' group makes nothing.
#[must_use]
pub fn lock_path(layout: &Layout) -> PathBuf {
    layout.state().join("applied/apply.lock")
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RecordError {
    let path = path.to_owned();
    move |source| RecordError::File { what, path, source }
}

impl Record {
    /// Reads the record; an empty one where there is none.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn load(layout: &Layout) -> Result<Self, RecordError> {
        let path = path(layout);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(at("read", &path)(error)),
        };
        Self::from_bytes(&bytes).map_err(|what| RecordError::Content { path, what })
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if value["version"] != 1 {
            return Err("its version is not 1".to_owned());
        }
        let mut record = Self {
            interrupted: value.get("running").filter(|v| !v.is_null()).cloned(),
            ..Self::default()
        };
        let sections = value["plugins"].as_object().ok_or("it has no plugins")?;
        for (plugin, entries) in sections {
            let entries = entries.as_object().ok_or("a plugin is no object")?;
            let known = record.plugins.entry(plugin.clone()).or_default();
            for (id, entry) in entries {
                let finished = entry["finished"].as_bool().ok_or("an entry is torn")?;
                let wanted = entry.get("wanted").cloned().ok_or("an entry is torn")?;
                let before = entry.get("before").filter(|v| !v.is_null()).cloned();
                let entry = Entry {
                    wanted,
                    finished,
                    before,
                    leaving: entry["leaving"] == true,
                };
                known.insert(id.clone(), entry);
            }
        }
        Ok(record)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let plugins: Map<String, Value> = self
            .plugins
            .iter()
            .map(|(plugin, known)| {
                let entries: Map<String, Value> = known
                    .iter()
                    .map(|(id, entry)| {
                        let mut shown = json!({"finished": entry.finished, "wanted": entry.wanted});
                        if let Some(before) = &entry.before {
                            shown["before"] = before.clone();
                        }
                        if entry.leaving {
                            shown["leaving"] = true.into();
                        }
                        (id.clone(), shown)
                    })
                    .collect();
                (plugin.clone(), entries.into())
            })
            .collect();
        let value = json!({"version": 1, "running": self.interrupted, "plugins": plugins});
        value.to_string().into_bytes()
    }

    /// The entries of a plugin.
    #[must_use]
    pub fn of(&self, plugin: &str) -> Known {
        self.plugins.get(plugin).cloned().unwrap_or_default()
    }

    /// Sets an entry. One that is not finished keeps what was applied before.
    pub fn put(&mut self, plugin: &str, id: &str, wanted: Value, finished: bool) {
        let known = self.plugins.entry(plugin.to_owned()).or_default();
        let before = known.get(id).filter(|_| !finished);
        let entry = Entry {
            wanted,
            finished,
            leaving: before.is_some_and(|entry| entry.leaving),
            before: before.and_then(Entry::whole).cloned(),
        };
        known.insert(id.to_owned(), entry);
    }

    /// Marks an entry as being taken away: it does not stand any more. What it was is kept, to go back to.
    pub fn unsettle(&mut self, plugin: &str, id: &str) {
        let entry = self.plugins.get_mut(plugin).and_then(|k| k.get_mut(id));
        if let Some(entry) = entry {
            entry.before = entry.whole().cloned();
            entry.finished = false;
            entry.leaving = true;
        }
    }

    /// Drops an entry.
    pub fn forget(&mut self, plugin: &str, id: &str) {
        if let Some(known) = self.plugins.get_mut(plugin) {
            known.remove(id);
        }
    }

    /// Puts back an entry as another record has it.
    pub fn restore(&mut self, from: &Self, plugin: &str, id: &str) {
        match from.plugins.get(plugin).and_then(|known| known.get(id)) {
            Some(entry) => {
                let known = self.plugins.entry(plugin.to_owned()).or_default();
                known.insert(id.to_owned(), entry.clone());
            }
            None => self.forget(plugin, id),
        }
    }

    /// Replaces the record on the disk; who is killed meanwhile leaves the old one or the new one. The lock is held.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn save(&self, _held: &Lock, layout: &Layout) -> Result<(), RecordError> {
        let path = path(layout);
        let directory = directory(layout)?;
        let temporary = path.with_extension("json.new");
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(at("remove", &temporary)(error));
            }
            _ => {}
        }
        let mut file = make(&temporary, 0o640).map_err(at("write", &temporary))?;
        file.write_all(&self.to_bytes())
            .and_then(|()| file.sync_all())
            .map_err(at("write", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(at("replace", &path))?;
        File::open(&directory)
            .and_then(|directory| directory.sync_all())
            .map_err(at("sync", &directory))
    }
}

/// The directory of record and lock, made where nobody has.
fn directory(layout: &Layout) -> Result<PathBuf, RecordError> {
    let directory = layout.state().join("applied");
    match std::fs::create_dir(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(at("make", &directory)(error))
        }
        _ => Ok(directory),
    }
}

/// Makes a file that was not there, never through a link. What root makes here belongs to whom the directory belongs to:
/// an operator's one command as root must not take it away from the services.
fn make(path: &Path, mode: u32) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    if rustix::process::geteuid().is_root() {
        let owner = std::fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(file)
}

/// While it lives no other apply runs. The kernel lets go of it when its process ends, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: Locked,
}

impl Lock {
    /// Takes the lock, or says who has it.
    ///
    /// # Errors
    /// [`RecordError::Locked`], [`RecordError::File`].
    pub fn take(layout: &Layout) -> Result<Self, RecordError> {
        let path = lock_path(layout);
        directory(layout)?;
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path)
        };
        let file = match open() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                match make(&path, 0o600) {
                    // Somebody was quicker.
                    Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                        return Err(at("make", &path)(error));
                    }
                    _ => {}
                }
                open().map_err(at("open", &path))?
            }
            opened => opened.map_err(at("open", &path))?,
        };
        let locked = match Locked::soon(file).map_err(at("lock", &path))? {
            Ok(locked) => locked,
            Err(file) => {
                let mut text = String::new();
                let _ = file.take(32).read_to_string(&mut text);
                let by = text.trim().parse().ok();
                return Err(RecordError::Locked { by });
            }
        };
        // For whoever finds it locked; nothing depends on it.
        let mut file = locked.file();
        let _ = file.set_len(0);
        let _ = writeln!(file, "{}", std::process::id());
        Ok(Self { _file: locked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        std::fs::create_dir_all(layout.state()).expect("a directory");
        std::fs::create_dir_all(layout.run()).expect("a directory");
        (directory, layout)
    }

    #[test]
    fn a_second_apply_is_told_who_runs_and_gets_the_lock_afterwards() {
        let (_directory, layout) = world();
        let first = Lock::take(&layout).expect("free");
        let refused = Lock::take(&layout).expect_err("taken");
        assert!(
            refused
                .to_string()
                .contains(&std::process::id().to_string()),
            "{refused}"
        );
        drop(first);
        Lock::take(&layout).expect("free again");
        // Who may open it may keep everybody from ever applying: nobody else may, and nobody else makes one in its place.
        let about = std::fs::metadata(lock_path(&layout)).expect("there");
        assert_eq!(about.mode() & 0o7777, 0o600);
        assert_eq!(lock_path(&layout).parent(), path(&layout).parent());
    }

    #[test]
    fn what_was_recorded_is_read_back_and_a_half_written_file_is_none() {
        let (_directory, layout) = world();
        assert_eq!(Record::load(&layout).expect("none"), Record::default());
        let lock = Lock::take(&layout).expect("free");
        let mut record = Record::default();
        record.put("lxc", "100", json!({"id": "100"}), false);
        record.put("net", "ovsbr0", json!({}), true);
        record.put("net", "ovsbr1", json!({"mtu": 1}), true);
        record.put("net", "ovsbr1", json!({"mtu": 2}), false);
        record.put("net", "ovsbr1", json!({"mtu": 3}), false);
        let standing =
            |record: &Record, plugin: &str, id: &str| record.of(plugin)[id].standing().cloned();
        assert_eq!(standing(&record, "net", "ovsbr1"), Some(json!({"mtu": 1})));
        assert_eq!(standing(&record, "lxc", "100"), None, "it never was");
        record.interrupted = Some(json!({"pid": 1}));
        record.save(&lock, &layout).expect("saved");
        // The rest of a writer that was killed.
        std::fs::write(path(&layout).with_extension("json.new"), "{").expect("a file");
        assert_eq!(Record::load(&layout).expect("whole"), record);
        record.unsettle("net", "ovsbr1");
        assert_eq!(standing(&record, "net", "ovsbr1"), None, "it is to go");
        record.put("net", "ovsbr1", json!({"mtu": 4}), false);
        assert_eq!(standing(&record, "net", "ovsbr1"), None, "nor that it was");
        let whole = |record: &Record| record.of("net")["ovsbr1"].whole().cloned();
        assert_eq!(whole(&record), Some(json!({"mtu": 1})), "the way back");
        record.forget("net", "ovsbr0");
        record.save(&lock, &layout).expect("saved over the rest");
        assert_eq!(Record::load(&layout).expect("whole"), record);
    }

    #[test]
    fn a_file_of_somebody_else_is_refused_and_not_overwritten_unseen() {
        let (_directory, layout) = world();
        std::fs::create_dir(layout.state().join("applied")).expect("a directory");
        for text in [
            "",
            "[]",
            "{\"version\": 2, \"plugins\": {}}",
            "{\"version\": 1}",
            "{\"version\": 1, \"plugins\": {\"lxc\": {\"100\": {}}}}",
        ] {
            std::fs::write(path(&layout), text).expect("a file");
            let refused = Record::load(&layout).expect_err(text);
            assert!(refused.to_string().contains("move it away"), "{refused}");
        }
    }
}
