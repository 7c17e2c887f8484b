//! Damage that no crash explains, given up by root in so many words: the request, the plan, setting aside, the record.
//! Nothing is destroyed and nothing healthy is cut: a request names exactly the end of what is intact. Called by `writer`
//! at start; the request is made by the command `accept-loss`, and removed by the supervisor.

use crate::blobs::BlobIndex;
use crate::blocks;
use crate::dir::{self, FileError, LedgerDir, SHARED_FILE, on, read_at, write_all_at};
use crate::failpoint;
use crate::keys::{Signers, random};
use crate::merkle::{Hash, hex};
use crate::note::{Checkpoint, Vkey, short_name};
use crate::record::{Draft, Phase};
use crate::refusal::OpenError;
use crate::scan::{self, Fault, Plan, Scan, ScanError, Signatures};
use crate::segment;
use rustix::fd::AsFd as _;
use rustix::fs::{AtFlags, OFlags, RenameFlags};
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The request, in the directory of the signing keys: where only root writes.
pub const REQUEST: &str = "accept-loss.json";
/// The action of the record.
pub const ACTION: &str = "ledger-accept-loss";
/// Says that giving up has begun and is not on record yet.
pub(crate) const BEGUN: &str = "losing.json";
const MAX_BYTES: usize = 16 * 1024;
const MAX_REASON: usize = 400;

/// What root accepts to lose: everything behind `size` records with `root`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// 16 hexadecimal digits; the record carries it.
    pub id: String,
    /// Records to keep.
    pub size: u64,
    /// RFC 6962 root over these.
    pub root: Hash,
    /// Why, in the operator's words.
    pub reason: String,
    /// When, in seconds since 1970 UTC; names what is set aside.
    pub time_s: u64,
}

impl Loss {
    /// A new request.
    ///
    /// # Errors
    /// A sentence: the reason is empty, too long, or no plain text; no random bytes.
    pub fn new(size: u64, root: Hash, reason: &str, time_s: u64) -> Result<Self, String> {
        let mut id = [0; 8];
        random(&mut id).map_err(|errno| format!("no random bytes: {errno}"))?;
        let id = id
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        let value =
            json!({"id": id, "size": size, "root": hex(&root), "reason": reason, "time_s": time_s});
        Self::of(&value)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// A sentence: what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_BYTES {
            return Err("it is too large".to_owned());
        }
        Self::of(&serde_json::from_slice(bytes).map_err(|error| error.to_string())?)
    }

    fn of(value: &Value) -> Result<Self, String> {
        let fields = value.as_object().ok_or("it is no JSON object")?;
        if let Some(unknown) = fields
            .keys()
            .find(|key| !["id", "size", "root", "reason", "time_s"].contains(&key.as_str()))
        {
            return Err(format!("unknown field {unknown:?}"));
        }
        let id = value["id"].as_str().unwrap_or_default();
        let reason = value["reason"].as_str().unwrap_or_default().trim();
        if id.len() != 16 || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("id must be 16 hexadecimal digits".to_owned());
        }
        if reason.is_empty() || reason.len() > MAX_REASON || reason.chars().any(char::is_control) {
            return Err(format!(
                "the reason must be one line of 1 to {MAX_REASON} bytes"
            ));
        }
        let number = |key: &str| {
            let number = value[key].as_u64().filter(|number| *number < 1 << 53);
            number.ok_or_else(|| format!("{key} must be a number"))
        };
        let root = value["root"].as_str().and_then(crate::blobs::parse_hash);
        Ok(Self {
            id: id.to_owned(),
            size: number("size")?,
            root: root.ok_or("root must be 64 hexadecimal digits")?,
            reason: reason.to_owned(),
            time_s: number("time_s")?,
        })
    }

    fn json(&self) -> Value {
        json!({"id": self.id, "size": self.size, "root": hex(&self.root), "reason": self.reason, "time_s": self.time_s})
    }

    /// The request in `keys_dir`, if there is one.
    ///
    /// # Errors
    /// A sentence: it cannot be read, others may write it, or it is none.
    pub fn load(keys_dir: &Path) -> Result<Option<Self>, String> {
        let bad = |why: String| {
            format!(
                "{}: {why}; make it again with `blockhost ledger accept-loss`, or remove it",
                keys_dir.join(REQUEST).display()
            )
        };
        let dir = LedgerDir::open(keys_dir).map_err(|error| bad(error.to_string()))?;
        let Some(bytes) = dir
            .read(REQUEST, MAX_BYTES)
            .map_err(|error| bad(error.to_string()))?
        else {
            return Ok(None);
        };
        let stat = rustix::fs::statat(&dir, REQUEST, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| bad(errno.to_string()))?;
        if stat.st_mode & 0o022 != 0 {
            return Err(bad("others than root may write it".to_owned()));
        }
        Self::parse(&bytes).map(Some).map_err(bad)
    }

    /// Puts the request into `keys_dir`, durable, in place of an older one.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn store(&self, keys_dir: &Path) -> Result<(), FileError> {
        let text = format!("{}\n", self.json());
        LedgerDir::open(keys_dir)?.replace(REQUEST, text.as_bytes(), 0o600, true)
    }
}

/// Removes the request in `keys_dir`: the ledger is open, so it was carried out or was not needed. Says if there was one.
///
/// # Errors
/// The directory cannot be written.
pub fn withdraw(keys_dir: &Path) -> Result<bool, FileError> {
    let dir = LedgerDir::open(keys_dir)?;
    match rustix::fs::unlinkat(&dir, REQUEST, AtFlags::empty()) {
        Ok(()) => dir.sync().map(|()| true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(on("remove", REQUEST)(errno)),
    }
}

/// What is intact and what is wrong behind it.
#[derive(Debug)]
pub struct Look {
    /// Records that are committed, signed and consistent.
    pub size: u64,
    /// Root over these.
    pub root: Hash,
    /// What is wrong with the segments.
    pub fault: Option<Box<Fault>>,
    /// The published head and the cosigned one, as their files say.
    pub known: [Option<(u64, Hash)>; 2],
    /// What is wrong with these files, or with the segments measured by them.
    pub known_faults: Vec<String>,
    /// Bytes of segments behind the intact part.
    pub lost_bytes: u64,
    scan: Scan,
}

impl Look {
    /// Is there anything that keeps the agent from starting?
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.fault.is_some() || !self.known_faults.is_empty()
    }

    /// Everything that is wrong, as one text.
    #[must_use]
    pub fn why(&self) -> String {
        let fault = self.fault.iter().map(ToString::to_string);
        fault
            .chain(self.known_faults.iter().cloned())
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// Reads everything and checks every signature; `key` is the log's first. Changes nothing.
///
/// # Errors
/// The system refused.
pub fn look(ledger: &LedgerDir, key: Option<&Vkey>) -> Result<Look, FileError> {
    let mut known = [None, None];
    let mut notes = Vec::new();
    let mut known_faults = Vec::new();
    for (known, name) in known.iter_mut().zip([dir::CHECKPOINT, dir::COSIGNED]) {
        let Some(bytes) = ledger.read(name, 64 * 1024)? else {
            continue;
        };
        let Ok(note) = String::from_utf8(bytes) else {
            known_faults.push(format!("{name}: it is not text"));
            continue;
        };
        match Checkpoint::parse_unverified(&note) {
            Ok(head) => {
                *known = Some((head.size, head.root));
                notes.push((name, note, head));
            }
            Err(error) => known_faults.push(format!("{name}: {error}")),
        }
    }
    let mut plan = Plan {
        key,
        signatures: Signatures::All,
        roots_at: notes.iter().map(|(.., head)| head.size).collect(),
        visit: &mut (),
        progress: &mut |_, _| {},
    };
    let mut scan = Scan::starting(&plan);
    let fault = match scan::scan_into(ledger, &mut plan, &mut scan) {
        Ok(()) => None,
        Err(ScanError::Fault(fault)) => Some(fault),
        Err(ScanError::File(error)) => return Err(error),
    };
    let (size, root) = match &fault {
        Some(fault) => (fault.good, fault.root),
        None => (scan.size(), scan.frontier.root()),
    };
    for (name, note, head) in &notes {
        if head.size > size {
            known_faults.push(format!(
                "{name}: it says {} records, {size} are intact",
                head.size
            ));
        } else if !scan.roots.contains(&(head.size, head.root)) {
            known_faults.push(format!(
                "{name}: the first {} records have another root",
                head.size
            ));
        } else if let Some(Err(error)) = scan.epochs.as_ref().map(|epochs| epochs.open(note)) {
            known_faults.push(format!("{name}: {error}"));
        }
    }
    let lost_bytes = match &fault {
        Some(fault) => bytes_behind(ledger, fault)?,
        None => 0,
    };
    Ok(Look {
        size,
        root,
        fault,
        known,
        known_faults,
        lost_bytes,
        scan,
    })
}

/// The first record's index in a file's name, whatever form of a segment it is.
fn first_of(name: &str) -> Option<u64> {
    let stem = ["log", "hsh", "zst", "kept"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending)?.strip_suffix('.'))?;
    segment::first_of(&format!("{stem}.log"))
}

/// Names of what is not kept; of the faulty log itself a part may be.
fn behind(segments: &LedgerDir, fault: &Fault) -> Result<Vec<String>, FileError> {
    let faulty = faulty(fault);
    let from = first_of(faulty).unwrap_or(fault.good);
    let mut names = segments.names()?;
    names.retain(|name| first_of(name).is_some_and(|first| first >= from));
    if fault.good_bytes > 0 {
        names.retain(|name| name != faulty);
    }
    // The last first: what is left is always a log with something behind its end, or a whole one.
    names.reverse();
    Ok(names)
}

fn faulty(fault: &Fault) -> &str {
    fault
        .segment
        .rsplit_once('/')
        .map_or(&fault.segment, |(_, name)| name)
}

fn bytes_behind(ledger: &LedgerDir, fault: &Fault) -> Result<u64, FileError> {
    let segments = match ledger.sub(dir::SEGMENTS) {
        Ok(segments) => segments,
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(0),
        Err(error) => return Err(error),
    };
    let length = |name: &str| match rustix::fs::statat(&segments, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
        Err(Errno::NOENT) => Ok(0),
        Err(errno) => Err(on("look at", name)(errno)),
    };
    let mut bytes = 0_u64;
    for name in behind(&segments, fault)? {
        bytes = bytes.saturating_add(length(&name)?);
    }
    if fault.good_bytes > 0 {
        bytes = bytes.saturating_add(length(faulty(fault))?.saturating_sub(fault.good_bytes));
    }
    Ok(bytes)
}

/// A loss that is being carried out, as [`BEGUN`] says: what would be forgotten on the way is in it.
#[derive(Debug)]
pub(crate) struct Begun {
    loss: Loss,
    known: Value,
    why: String,
    lost_bytes: u64,
}

impl Begun {
    fn read(ledger: &LedgerDir) -> Result<Option<Self>, OpenError> {
        let Some(bytes) = ledger.read(BEGUN, MAX_BYTES)? else {
            return Ok(None);
        };
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let loss = Loss::of(&value["loss"])
            .map_err(|why| OpenError::Loss(format!("{BEGUN} in its directory: {why}")))?;
        Ok(Some(Self {
            loss,
            known: value["known"].clone(),
            why: value["why"].as_str().unwrap_or_default().to_owned(),
            lost_bytes: value["lost_bytes"].as_u64().unwrap_or(0),
        }))
    }

    fn write(&self, ledger: &LedgerDir) -> Result<(), FileError> {
        let text = json!({"loss": self.loss.json(), "known": self.known, "why": self.why, "lost_bytes": self.lost_bytes});
        ledger.replace(BEGUN, text.to_string().as_bytes(), SHARED_FILE, true)
    }

    /// Sets aside payloads that only lost records speak of: a writer would remove them.
    pub fn keep_blobs(&self, ledger: &LedgerDir, index: &BlobIndex) -> Result<(), FileError> {
        let wanted = |hash: &Hash| index.get(hash).is_some();
        crate::blobs::each(
            ledger,
            &mut |dir, name| match crate::blobs::parse_hash(name).filter(|hash| !wanted(hash)) {
                Some(_) => aside(dir, name, &self.loss),
                None => Ok(()),
            },
        )
    }

    /// The record that says so.
    pub fn draft(&self) -> Draft {
        let mut metadata = Map::new();
        metadata.insert("accepted_at".to_owned(), json!(self.loss.time_s));
        metadata.insert("kept_records".to_owned(), json!(self.loss.size));
        metadata.insert("kept_root".to_owned(), json!(hex(&self.loss.root)));
        metadata.insert("known_heads".to_owned(), self.known.clone());
        metadata.insert("lost_bytes".to_owned(), json!(self.lost_bytes));
        metadata.insert("reason".to_owned(), json!(self.loss.reason));
        metadata.insert("request".to_owned(), json!(self.loss.id));
        metadata.insert("why".to_owned(), json!(self.why));
        Draft {
            action: ACTION.to_owned(),
            resource: "ledger:log".to_owned(),
            metadata,
            ..crate::recover::recovery_draft(0, 0, "")
        }
    }

    /// It is on record.
    pub fn done(&self, ledger: &LedgerDir) -> Result<(), FileError> {
        failpoint::reach("loss-recorded", b"");
        match rustix::fs::unlinkat(ledger, BEGUN, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => ledger.sync(),
            Err(errno) => Err(on("remove", BEGUN)(errno)),
        }
    }

    fn is_recorded(&self, scan: &Scan) -> Result<bool, OpenError> {
        let Some(place) = scan.place(self.loss.size) else {
            return Ok(false);
        };
        let cache = crate::history::Cache::default();
        match place.read(&cache) {
            Ok((_, bytes)) => {
                Ok(said_in(&bytes)
                    .is_some_and(|record| record["metadata"]["request"] == self.loss.id))
            }
            Err(crate::history::HistoryError::File(error)) => Err(error.into()),
            Err(_) => Ok(false),
        }
    }
}

/// Can this record say that a loss was accepted? Keys are sorted, so `action` comes first.
#[must_use]
pub(crate) fn concerns_loss(record: &[u8]) -> bool {
    record.starts_with(b"{\"action\":\"ledger-accept-loss\"")
}

/// The record, if it is one of ours that says that a loss was accepted.
pub(crate) fn said_in(record: &[u8]) -> Option<Value> {
    if !concerns_loss(record) {
        return None;
    }
    let record: Value = serde_json::from_slice(record).ok()?;
    let ours = record["plugin_id"] == "ledger" && record["phase"] == Phase::Recovery.as_str();
    ours.then_some(record)
}

/// Carries out what root accepted, up to the record, which the caller appends; `None` when nothing has to be given up.
/// Interrupted anywhere, the same request goes on; without one the ledger stays shut.
pub(crate) fn settle(
    ledger: &LedgerDir,
    signers: &Signers,
    loss: Option<&Loss>,
) -> Result<Option<Begun>, OpenError> {
    let mut begun = Begun::read(ledger)?;
    if begun.is_none() && loss.is_none() {
        return Ok(None);
    }
    let found = look(ledger, Some(signers.first()))?;
    if let Some(recorded) = &begun
        && recorded.is_recorded(&found.scan)?
    {
        recorded.done(ledger)?;
        begun = None;
    }
    if begun.is_none() && !found.is_damaged() {
        return Ok(None);
    }
    let Some(loss) = loss else {
        return match begun {
            Some(begun) => Err(OpenError::Loss(format!(
                "giving up what is behind record {} was begun and is not finished",
                begun.loss.size
            ))),
            None => Ok(None),
        };
    };
    if (found.size, found.root) != (loss.size, loss.root) {
        return Err(OpenError::Loss(format!(
            "the request keeps {} records with root {}, but {} with root {} are intact",
            loss.size,
            hex(&loss.root),
            found.size,
            hex(&found.root)
        )));
    }
    if let Some(epochs) = &found.scan.epochs {
        let epoch = epochs.of_size(found.size.saturating_add(1));
        if !signers.have(epoch) {
            return Err(OpenError::NoKey {
                epoch: epoch.number,
                key: short_name(&epoch.key),
            });
        }
    }
    let begun = match begun {
        // What was known when it began is not on disk any more.
        Some(before) => Begun {
            loss: loss.clone(),
            ..before
        },
        None => Begun {
            loss: loss.clone(),
            known: known(&found),
            why: found.why().chars().take(2000).collect(),
            lost_bytes: found.lost_bytes,
        },
    };
    begun.write(ledger)?;
    failpoint::reach("loss-begun", b"");
    cut(ledger, found.fault.as_deref(), loss)?;
    failpoint::reach("loss-cut", b"");
    set_aside_blocks(ledger, loss)?;
    for name in [dir::CHECKPOINT, dir::COSIGNED] {
        aside(ledger, name, loss)?;
        failpoint::reach("loss-head-set-aside", name.as_bytes());
    }
    ledger.sync()?;
    Ok(Some(begun))
}

fn known(found: &Look) -> Value {
    let mut known = Map::new();
    for (head, name) in found.known.iter().zip(["published", "cosigned"]) {
        if let Some((size, root)) = head.filter(|(size, _)| *size < 1 << 53) {
            known.insert(name.to_owned(), json!({"root": hex(&root), "size": size}));
        }
    }
    Value::Object(known)
}

/// Renames `name` so that nobody takes it for a part of the ledger, beside where it was. Nothing there is fine.
fn aside(dir: &LedgerDir, name: &str, loss: &Loss) -> Result<(), FileError> {
    aside_as(dir, name, name, loss)
}

/// The same for a file that has another name than people look for.
fn aside_as(dir: &LedgerDir, file: &str, name: &str, loss: &Loss) -> Result<(), FileError> {
    for number in 0..100 {
        let kept = match number {
            0 => format!("lost-{}.{name}", loss.time_s),
            _ => format!("lost-{}-{number}.{name}", loss.time_s),
        };
        match rustix::fs::renameat_with(dir, file, dir, kept, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(on("set aside", name)(errno)),
        }
    }
    Err(on("set aside", name)(Errno::EXIST))
}

/// Sets aside what is behind the intact part: whole files, and of the faulty log the original, whose intact beginning
/// takes its place in one step.
fn cut(ledger: &LedgerDir, fault: Option<&Fault>, loss: &Loss) -> Result<(), FileError> {
    let segments = ledger.make_sub(dir::SEGMENTS)?;
    // Killed in the middle of that step: whichever of the two is not the log now is under this name.
    for name in segments.names()? {
        let of = name
            .strip_prefix('.')
            .and_then(|name| name.strip_suffix(".cut"));
        let Some(log) = of.filter(|log| segment::first_of(log).is_some()) else {
            continue;
        };
        let half_made = fault.is_some_and(|fault| fault.good_bytes > 0 && faulty(fault) == log);
        if half_made {
            rustix::fs::unlinkat(&segments, &name, AtFlags::empty()).map_err(on("remove", name))?;
        } else {
            aside_as(&segments, &name, log, loss)?;
        }
    }
    let Some(fault) = fault else {
        return segments.sync();
    };
    if fault.good_bytes > 0 {
        let log = faulty(fault);
        let copy = format!(".{log}.cut");
        copy_beginning(&segments, log, &copy, fault.good_bytes)?;
        failpoint::reach("loss-copied", b"");
        rustix::fs::renameat_with(&segments, &copy, &segments, log, RenameFlags::EXCHANGE)
            .map_err(on("exchange with its intact beginning", log))?;
        failpoint::reach("loss-exchanged", b"");
        aside_as(&segments, &copy, log, loss)?;
        segments.sync()?;
    }
    for name in behind(&segments, fault)? {
        aside(&segments, &name, loss)?;
        failpoint::reach("loss-segment-set-aside", name.as_bytes());
    }
    segments.sync()
}

fn copy_beginning(segments: &LedgerDir, from: &str, to: &str, bytes: u64) -> Result<(), FileError> {
    let source = segments.file(from, OFlags::RDONLY, 0)?;
    let target = segments.file(
        to,
        OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        SHARED_FILE,
    )?;
    let mut chunk = vec![0; 256 * 1024];
    let mut at = 0;
    while at < bytes {
        let left = usize::try_from(bytes - at).unwrap_or(usize::MAX);
        let wanted = left.min(chunk.len());
        let read = read_at(source.as_fd(), &mut chunk[..wanted], at).map_err(on("read", from))?;
        if read == 0 {
            return Err(on("read", from)(Errno::IO));
        }
        write_all_at(target.as_fd(), &chunk[..read], at).map_err(on("write", to))?;
        at += read as u64;
    }
    rustix::fs::fchmod(&target, rustix::fs::Mode::from_raw_mode(SHARED_FILE))
        .and_then(|()| rustix::fs::fsync(&target))
        .map_err(on("make durable", to))
}

/// Block files from the first that is not whole any more: maybe the last readable copy of a lost record.
fn set_aside_blocks(ledger: &LedgerDir, loss: &Loss) -> Result<(), FileError> {
    let blocks = match ledger.sub(dir::BLOCKS) {
        Ok(blocks) => blocks,
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    let whole = loss.size / blocks::BLOCK_RECORDS;
    for name in blocks.names()? {
        let id = name
            .strip_prefix("block_")
            .and_then(|rest| rest.strip_suffix(".json"));
        if id
            .and_then(|id| id.parse::<u64>().ok())
            .is_some_and(|id| id > whole)
        {
            aside(&blocks, &name, loss)?;
        }
    }
    blocks.sync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written_and_nothing_else_is_one() {
        let loss = Loss::new(7, [9; 32], "disk of 3 May", 1_700_000_000).expect("good");
        let good = loss.json();
        assert_eq!(Loss::parse(good.to_string().as_bytes()), Ok(loss));
        for (field, value) in [
            ("id", json!("../../etc/passwd")),
            ("id", json!("ABCDEFABCDEFABCD")),
            ("size", json!(-1)),
            ("size", json!(1_u64 << 53)),
            ("size", json!("7")),
            ("root", json!("00")),
            ("root", Value::Null),
            ("reason", json!("  ")),
            ("reason", json!("two\nlines")),
            ("reason", json!("\u{1b}[2J")),
            ("reason", json!("x".repeat(MAX_REASON + 1))),
            ("time_s", json!(1.5)),
            ("more", json!(1)),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(Loss::parse(bad.to_string().as_bytes()).is_err(), "{bad}");
        }
        for bad in [&b""[..], b"[]", b"{}", b"null", &[b' '; MAX_BYTES + 1]] {
            assert!(Loss::parse(bad).is_err());
        }
    }
}
