//! The files of changes. One per change, durable before anything is touched; its name is its state, and a rename moves it on, so
//! that of two processes that decide at the same time exactly one does. Written by [`super::run`], read by whoever has to revert.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blockhost_ledger::failpoint;
use blockhost_proto::layout::Layout;
use rustix::fs::OFlags;
use serde::Serialize;

use super::record::{Ended, Known, Note, Phase, Record, RecordError, VERSION, is_id};
use crate::locked::{Locked, MOMENT, PAUSE};

/// A record longer than this is nobody's. A policy for a thousand containers and the one before it fit.
const MAX_RECORD: u64 = 64 << 20;

/// How long a process that watched over a change that is over may take to end, on a slow host.
const LEAVING: Duration = Duration::from_secs(5);

/// Asks again for a lock that is in use, for so long.
async fn soon(
    lock: impl Fn() -> Result<Held, RecordError>,
    patience: Duration,
) -> Result<Held, RecordError> {
    let end = Instant::now() + patience;
    loop {
        match lock() {
            Err(RecordError::Busy) if Instant::now() < end => tokio::time::sleep(PAUSE).await,
            ended => return ended,
        }
    }
}

/// Nobody but this user could have written it.
fn is_ours_alone(about: &std::fs::Metadata) -> bool {
    about.uid() == rustix::process::geteuid().as_raw() && about.mode() & 0o022 == 0
}

/// The directory of the records.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

/// A lock that ends with whoever holds it. Never inherited.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "dropping it gives the lock back")] Locked);

impl Store {
    /// `/var/lib/blockhost/net-change` of this world; need not exist.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self {
            directory: layout.state().join("net-change"),
        }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.join(name)
    }

    fn file(&self, phase: Phase, id: &str) -> PathBuf {
        self.path(format!("{}{id}.json", phase.prefix()))
    }

    /// Makes the directory, for its owner alone.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn create(&self) -> Result<(), RecordError> {
        match std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.directory)
        {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(failed("create", &self.directory)(error))
            }
            Err(_) => self.check_directory(),
            Ok(()) => Ok(()),
        }
    }

    /// Where the records are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is in there is carried out in this user's name: nobody else may have put it there.
    fn check_directory(&self) -> Result<(), RecordError> {
        let about = std::fs::symlink_metadata(&self.directory);
        let about = about.map_err(failed("look at", &self.directory))?;
        if about.is_dir() && is_ours_alone(&about) {
            return Ok(());
        }
        Err(RecordError::Trust {
            path: self.directory.clone(),
            uid: about.uid(),
            mode: about.mode() & 0o7777,
        })
    }

    /// The lock of whoever makes a change.
    ///
    /// # Errors
    /// [`RecordError::Busy`] while somebody does.
    pub fn lock_maker(&self) -> Result<Held, RecordError> {
        self.lock("maker.lock")
    }

    /// The lock of the process that would revert.
    ///
    /// # Errors
    /// [`RecordError::Busy`] while there is one.
    pub fn lock_guard(&self) -> Result<Held, RecordError> {
        self.lock("guard.lock")
    }

    fn lock(&self, name: &str) -> Result<Held, RecordError> {
        let path = self.path(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(nofollow())
            .open(&path)
            .map_err(failed("open", &path))?;
        match Locked::now(file).map_err(failed("lock", &path))? {
            Ok(locked) => Ok(Held(locked)),
            Err(_) => Err(RecordError::Busy),
        }
    }

    /// As [`Store::lock_maker`], for who is not to be kept off by somebody who only looks: every process that watches does
    /// that all the time.
    ///
    /// # Errors
    /// As there.
    pub async fn lock_maker_soon(&self) -> Result<Held, RecordError> {
        soon(|| self.lock_maker(), MOMENT).await
    }

    /// As [`Store::lock_guard`], for who is not to be kept off by the process that watched over a change that is over: it
    /// learns of that a look later.
    ///
    /// # Errors
    /// As there.
    pub async fn lock_guard_soon(&self) -> Result<Held, RecordError> {
        soon(|| self.lock_guard(), LEAVING).await
    }

    /// Every change that is not over.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn open_changes(&self) -> Result<Vec<(Phase, String)>, RecordError> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed("read", &self.directory))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed("read", &self.directory))?.file_name();
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            for phase in Phase::ALL {
                if let Some(id) = stem.strip_prefix(phase.prefix()).filter(|id| is_id(id)) {
                    found.push((phase, id.to_owned()));
                }
            }
        }
        found.sort_by(|a, b| a.1.cmp(&b.1));
        Ok(found)
    }

    /// Whether the change is in that phase now. Where nobody can look, it may be.
    #[must_use]
    pub fn is(&self, phase: Phase, id: &str) -> bool {
        match self.file(phase, id).symlink_metadata() {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Writes a record, so that it is there whatever happens next. On an error there is none.
    ///
    /// # Errors
    /// [`RecordError::File`], as where the disk is full.
    pub fn write(&self, record: &Record) -> Result<Journal, RecordError> {
        let place = self.file(Phase::Pending, &record.id);
        let draft = self.path(format!("draft-{}", record.id));
        let written = self.write_draft(record, &draft).and_then(|file| {
            failpoint::reach("net-change", b"record-drafted");
            std::fs::rename(&draft, &place).map_err(failed("rename", &draft))?;
            self.sync()?;
            Ok(Journal { file, path: place })
        });
        if written.is_err() {
            // Whatever of it is there must not be found and taken for a change.
            let _ = std::fs::remove_file(&draft);
            let _ = std::fs::remove_file(self.file(Phase::Pending, &record.id));
        }
        written
    }

    fn write_draft(&self, record: &Record, draft: &Path) -> Result<File, RecordError> {
        let mut file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(0o600)
            .custom_flags(nofollow())
            .open(draft)
            .map_err(failed("create", draft))?;
        let line = line(record, draft)?;
        // Half of it for the notes: whoever has to take it back reads no more.
        if line.len() as u64 > MAX_RECORD / 2 {
            return Err(RecordError::Large {
                bytes: line.len(),
                most: MAX_RECORD / 2,
            });
        }
        file.write_all(&line).map_err(failed("write", draft))?;
        file.sync_all().map_err(failed("sync", draft))?;
        Ok(file)
    }

    /// Reads a record with its notes. A last line that is not whole was cut off by a crash before what it announces.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn read(&self, phase: Phase, id: &str) -> Result<Known, RecordError> {
        self.check_directory()?;
        let path = self.file(phase, id);
        let mut text = String::new();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nofollow())
            .open(&path)
            .map_err(failed("read", &path))?;
        let about = file.metadata().map_err(failed("look at", &path))?;
        if !about.is_file() || !is_ours_alone(&about) {
            return Err(RecordError::Trust {
                path,
                uid: about.uid(),
                mode: about.mode() & 0o7777,
            });
        }
        file.take(MAX_RECORD)
            .read_to_string(&mut text)
            .map_err(failed("read", &path))?;
        let content = |reason: String| RecordError::Content {
            path: path.clone(),
            reason,
        };
        let mut lines = text.split_inclusive('\n');
        let first = lines.next().unwrap_or_default();
        let record: Record = serde_json::from_str(first).map_err(|e| content(e.to_string()))?;
        if record.version != VERSION || record.id != id {
            return Err(content(format!(
                "version {}, change {}",
                record.version,
                record.id.escape_debug()
            )));
        }
        let mut notes = Vec::new();
        for line in lines.filter(|line| line.ends_with('\n')) {
            notes.push(serde_json::from_str(line).map_err(|e| content(e.to_string()))?);
        }
        Ok(Known { record, notes })
    }

    /// Notes something in a record that somebody else began.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn note(&self, phase: Phase, id: &str, note: &Note) -> Result<(), RecordError> {
        let path = self.file(phase, id);
        let file = OpenOptions::new()
            .append(true)
            .custom_flags(nofollow())
            .open(&path)
            .map_err(failed("open", &path))?;
        Journal { file, path }.note(note)
    }

    /// Moves a change on; `false` where it is not, or no longer, in that phase.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn advance(&self, id: &str, from: Phase, to: Phase) -> Result<bool, RecordError> {
        let path = self.file(from, id);
        match std::fs::rename(&path, self.file(to, id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("rename", &path)(error)),
            Ok(()) => self.sync().map(|()| true),
        }
    }

    /// Removes the file of a change that is over and keeps how it ended.
    ///
    /// # Errors
    /// [`RecordError::File`] where the file stays; the rest is for people and may fail.
    pub fn close(&self, phase: Phase, ended: &Ended) -> Result<(), RecordError> {
        self.remember(ended);
        let path = self.file(phase, &ended.id);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => self.sync(),
        }
    }

    /// Keeps how a change ended; for people, so it may fail.
    pub fn remember(&self, ended: &Ended) {
        let draft = self.path("last.new");
        let _ = std::fs::remove_file(&draft);
        let kept = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .custom_flags(nofollow())
            .open(&draft)
            .and_then(|mut file| file.write_all(serde_json::json!(ended).to_string().as_bytes()))
            .and_then(|()| std::fs::rename(&draft, self.path("last.json")));
        if kept.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
    }

    /// How the last change ended, where that is known.
    #[must_use]
    pub fn last(&self) -> Option<Ended> {
        serde_json::from_slice(&std::fs::read(self.path("last.json")).ok()?).ok()
    }

    /// Removes the drafts that a crash left, which are no changes.
    pub fn tidy(&self) {
        for entry in std::fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b"draft-") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn sync(&self) -> Result<(), RecordError> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("sync", &self.directory))
    }
}

/// The open end of a record, for notes. Follows the file when it is renamed.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Notes something, durably, before it happens.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn note(&mut self, note: &Note) -> Result<(), RecordError> {
        let line = line(note, &self.path)?;
        self.file
            .write_all(&line)
            .and_then(|()| self.file.sync_data())
            .map_err(failed("write", &self.path))
    }
}

fn line(value: &impl Serialize, path: &Path) -> Result<Vec<u8>, RecordError> {
    let mut line = serde_json::to_vec(value).map_err(|error| RecordError::Content {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    line.push(b'\n');
    Ok(line)
}

fn nofollow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordError {
    let path = path.to_owned();
    move |source| RecordError::File { what, path, source }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
