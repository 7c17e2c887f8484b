//! Damage that no crash explains, given up by root in so many words. Nothing is destroyed and nothing healthy is cut: a
//! request names exactly the end of what is intact. The request is here, what is intact says `look`, carrying it out is
//! `settle`'s, called by `writer` at start. The command `accept-loss` makes the request, the supervisor removes it.

mod aside;
mod look;
mod settle;

use crate::dir::{FileError, LedgerDir, on};
use crate::keys::random;
use crate::merkle::{Hash, hex};
pub use look::{Look, look};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde_json::{Value, json};
pub(crate) use settle::{Begun, concerns_loss, said_in, settle};
use std::path::Path;

/// The request, in the directory of the signing keys: where only root writes.
pub const REQUEST: &str = "accept-loss.json";
/// The action of the record.
pub const ACTION: &str = "ledger-accept-loss";
/// Says that giving up has begun and is not on record yet.
pub(crate) const BEGUN: &str = "losing.json";
const MAX_BYTES: usize = 16 * 1024;
const MAX_REASON: usize = 400;
const FIELDS: [&str; 6] = ["id", "size", "root", "reason", "time_s", "without_payloads"];

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
    /// Records among those kept whose payloads are gone and stay so: they were pruned, and what said so is lost.
    pub without_payloads: u64,
}

impl Loss {
    /// A new request, which accepts no payload as gone; the field can be set afterwards.
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
        if let Some(unknown) = fields.keys().find(|key| !FIELDS.contains(&key.as_str())) {
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
            // A request of before there was this field accepts none.
            without_payloads: match value.get("without_payloads") {
                Some(_) => number("without_payloads")?,
                None => 0,
            },
        })
    }

    fn json(&self) -> Value {
        json!({"id": self.id, "size": self.size, "root": hex(&self.root), "reason": self.reason,
            "time_s": self.time_s, "without_payloads": self.without_payloads})
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
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written_and_nothing_else_is_one() {
        let loss = Loss::new(7, [9; 32], "disk of 3 May", 1_700_000_000).expect("good");
        let good = loss.json();
        assert_eq!(Loss::parse(good.to_string().as_bytes()), Ok(loss.clone()));
        let mut older = good.clone();
        older
            .as_object_mut()
            .expect("object")
            .remove("without_payloads");
        assert_eq!(Loss::parse(older.to_string().as_bytes()), Ok(loss));
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
            ("without_payloads", json!(-1)),
            ("without_payloads", Value::Null),
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
