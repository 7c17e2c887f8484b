//! A machine's configuration in Proxmox's own `key: value` format: parse, print, load, store atomically, lock.
//! What the values mean is not known here; see [`crate::options`] and [`crate::launch`].
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::error::{Error, IoContext, Result};
use crate::host::Host;
use crate::machine::Vmid;

/// A configuration file larger than this is not ours.
const FILE_LIMIT: u64 = 256 * 1024;
/// How long a command waits for another one on the same machine.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The options of one machine, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VmConfig {
    entries: BTreeMap<String, String>,
}

impl VmConfig {
    /// Value of an option.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.get(key).map(String::as_str)
    }

    /// Value of an integer option, or what holds without it. A stored value that is no number counts as absent.
    pub fn number(&self, key: &str, default: u64) -> u64 {
        self.get(key)
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    }

    /// Whether a `0|1` option is set.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key) == Some("1")
    }

    /// Sets an option.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.entries.insert(key.into(), value.into());
    }

    /// Removes an option; its value if it was there.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        self.entries.remove(key)
    }

    /// All options by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Options `prefix0`, `prefix1`, ... with their number, in order.
    pub fn numbered<'a>(&'a self, prefix: &str) -> Vec<(u32, &'a str)> {
        let mut found: Vec<(u32, &str)> = self
            .iter()
            .filter_map(|(key, value)| Some((index_of(key, prefix)?, value)))
            .collect();
        found.sort_unstable();
        found
    }

    /// Disk options of every bus (`scsi0`, `virtio1`, `ide2`, ...), key and value.
    pub fn drives(&self) -> Vec<(String, &str)> {
        ["scsi", "virtio", "sata", "ide"]
            .iter()
            .flat_map(|bus| {
                self.numbered(bus)
                    .into_iter()
                    .map(move |(n, value)| (format!("{bus}{n}"), value))
            })
            .collect()
    }

    /// Whether the machine is a template.
    pub fn is_template(&self) -> bool {
        self.flag("template")
    }

    /// First free `unusedN`.
    pub fn free_unused(&self) -> String {
        (0..)
            .map(|n: u32| format!("unused{n}"))
            .find(|key| self.get(key).is_none())
            .unwrap_or_default()
    }

    /// Reads the file format; `path` is for errors.
    ///
    /// # Errors
    /// [`Error::Config`] with the line.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let mut config = VmConfig::default();
        let mut description: Option<String> = None;
        for (number, line) in text.lines().enumerate() {
            let fail = |problem: String| Error::Config {
                path: path.to_owned(),
                line: number + 1,
                problem,
            };
            if let Some(comment) = line.strip_prefix('#') {
                let decoded = decode(comment)
                    .ok_or_else(|| fail("broken %-escape in the description".to_owned()))?;
                let joined = description
                    .take()
                    .map_or_else(|| decoded.clone(), |old| format!("{old}\n{decoded}"));
                description = Some(joined);
                continue;
            }
            if line.trim().is_empty() {
                continue;
            }
            if line.starts_with('[') {
                return Err(fail(format!("section {line} (snapshots) is not supported")));
            }
            let (key, value) = line
                .split_once(':')
                .ok_or_else(|| fail("expected 'key: value'".to_owned()))?;
            if !is_key(key) {
                return Err(fail(format!(
                    "'{}' is no option name",
                    key.escape_default()
                )));
            }
            if config
                .entries
                .insert(key.to_owned(), value.trim().to_owned())
                .is_some()
            {
                return Err(fail(format!("option '{key}' stands here twice")));
            }
        }
        if let Some(text) = description {
            config.set("description", text);
        }
        Ok(config)
    }

    /// The file format.
    pub fn to_file(&self) -> String {
        let mut text = String::new();
        if let Some(description) = self.get("description") {
            for line in description.split('\n') {
                text.push_str(&format!("#{}\n", encode(line)));
            }
        }
        for (key, value) in self.iter().filter(|(key, _)| *key != "description") {
            text.push_str(&format!("{key}: {value}\n"));
        }
        text
    }

    /// What `qm config` prints: every option by name, the description on one line.
    pub fn to_listing(&self) -> String {
        self.iter()
            .map(|(key, value)| match key {
                "description" => format!("{key}: {}\n", encode(value)),
                _ => format!("{key}: {value}\n"),
            })
            .collect()
    }

    /// Loads a machine's configuration.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an absent machine; a damaged file is reported and left alone.
    pub fn load(host: &Host, vmid: Vmid) -> Result<Self> {
        let path = host.conf_path(vmid);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Err(host.not_found(vmid)),
            other => other.at("cannot open", &path)?,
        };
        let damage = |problem: String| Error::Config {
            path: path.clone(),
            line: 1,
            problem,
        };
        let bytes = match crate::sys::read_limited(file, FILE_LIMIT) {
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                return Err(damage(e.to_string()));
            }
            other => other.at("cannot read", &path)?,
        };
        let text = String::from_utf8(bytes).map_err(|_| damage("not UTF-8".to_owned()))?;
        Self::parse(&text, &path)
    }

    /// Stores it: a temporary file, synced, renamed, directory synced.
    ///
    /// # Errors
    /// When any of this fails; the old file is then still whole.
    pub fn store(&self, host: &Host, vmid: Vmid) -> Result<()> {
        write_atomically(&host.conf_path(vmid), self.to_file().as_bytes(), 0o640)
    }

    /// Numbers of all machines that have a configuration.
    ///
    /// # Errors
    /// When the directory cannot be read (an absent one has no machines).
    pub fn all(host: &Host) -> Result<Vec<Vmid>> {
        let dir = host.conf_dir();
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.at("cannot read", &dir)?,
        };
        let mut found: Vec<Vmid> = entries
            .filter_map(|entry| {
                entry
                    .ok()?
                    .file_name()
                    .to_str()?
                    .strip_suffix(".conf")?
                    .parse()
                    .ok()
            })
            .collect();
        found.sort_unstable();
        Ok(found)
    }
}

/// Writes a file so that a crash leaves the old or the new content.
///
/// # Errors
/// When the directory is not writable or full.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(dir).at("cannot create", dir)?;
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("file");
    let temporary = dir.join(format!(".{name}.{}", std::process::id()));
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&temporary, flags, Mode::from_raw_mode(mode))
        .at("cannot create", &temporary)?;
    let mut file = File::from(fd);
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.at("cannot write", &temporary)?;
    fs::rename(&temporary, path).at("cannot replace", path)?;
    // The dot: the directory may be named by a link to a descriptor.
    let dir_fd = crate::sys::open_dir(&dir.join(".")).at("cannot open", dir)?;
    rustix::fs::fsync(&dir_fd).at("cannot sync", dir)
}

/// Removes a machine's configuration, durably.
///
/// # Errors
/// When the directory is not writable.
pub fn remove(host: &Host, vmid: Vmid) -> Result<()> {
    let path = host.conf_path(vmid);
    fs::remove_file(&path).at("cannot remove", &path)?;
    let dir = host.conf_dir();
    let dir_fd = crate::sys::open_dir(&dir.join(".")).at("cannot open", &dir)?;
    rustix::fs::fsync(&dir_fd).at("cannot sync", &dir)
}

/// The exclusive right to change one machine, or one of several to read it; released when dropped (or when the process dies).
#[derive(Debug)]
pub struct VmLock {
    file: OwnedFd,
}

impl Drop for VmLock {
    fn drop(&mut self) {
        // Closing alone would not free it, as long as a program that another thread is starting has a copy of the descriptor.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

impl VmLock {
    /// Waits a bounded time for the lock of a machine.
    ///
    /// # Errors
    /// [`Error::LockTimeout`] when another command keeps it.
    pub fn take(host: &Host, vmid: Vmid) -> Result<Self> {
        Self::take_file(host, &format!("{vmid}.lock"), LOCK_WAIT)
    }

    /// As [`VmLock::take`], beside others that only read the machine: nobody changes it meanwhile.
    ///
    /// # Errors
    /// As there.
    pub fn share(host: &Host, vmid: Vmid) -> Result<Self> {
        let name = format!("{vmid}.lock");
        let shared = FlockOperation::NonBlockingLockShared;
        Self::lock(host, &name, LOCK_WAIT, shared)
    }

    /// As [`VmLock::take`] for a lock file of any name below the run directory.
    ///
    /// # Errors
    /// As there.
    pub fn take_file(host: &Host, name: &str, wait: Duration) -> Result<Self> {
        Self::lock(host, name, wait, FlockOperation::NonBlockingLockExclusive)
    }

    fn lock(host: &Host, name: &str, wait: Duration, operation: FlockOperation) -> Result<Self> {
        let dir = host.run_dir();
        fs::create_dir_all(&dir).at("cannot create", &dir)?;
        let path = dir.join(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).at("cannot open", &path)?;
        if !crate::sys::lock_within(&file, operation, wait).at("cannot lock", &path)? {
            return Err(Error::LockTimeout { path });
        }
        Ok(VmLock { file })
    }
}

/// A comma separated value: `head,key=value,...` where the first part may have no key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Props {
    /// The part without a key.
    pub head: Option<String>,
    /// The others in order.
    pub pairs: Vec<(String, String)>,
}

impl Props {
    /// Splits a stored value. Never fails: what is stored was checked when it came in.
    pub fn parse(value: &str) -> Self {
        let mut props = Props::default();
        for part in value.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((key, value)) => props.pairs.push((key.to_owned(), value.to_owned())),
                None if props.head.is_none() => props.head = Some(part.to_owned()),
                None => props.pairs.push((part.to_owned(), "1".to_owned())),
            }
        }
        props
    }

    /// Value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// Sets or replaces a key.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.pairs.retain(|(name, _)| name != key);
        self.pairs.push((key.to_owned(), value.into()));
    }
}

impl std::fmt::Display for Props {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = self.head.iter().cloned();
        let pairs = self
            .pairs
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        f.write_str(&head.chain(pairs).collect::<Vec<_>>().join(","))
    }
}

/// Number in `prefixN`.
pub fn index_of(key: &str, prefix: &str) -> Option<u32> {
    let digits = key.strip_prefix(prefix)?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

fn is_key(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 32
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Percent-encodes what does not belong on one line of the file.
pub fn encode(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '%' | ':' => format!("%{:02X}", u32::from(c)),
            c if c.is_control() => {
                let mut buffer = [0; 4];
                c.encode_utf8(&mut buffer)
                    .bytes()
                    .map(|b| format!("%{b:02X}"))
                    .collect()
            }
            c => c.to_string(),
        })
        .collect()
}

/// Undoes percent-encoding; `None` for a broken escape or bytes that are no UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let pair = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&pair)
            .ok()
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_damaged_line_is_named_with_its_number() {
        let path = Path::new("/x/100.conf");
        for (text, line) in [
            ("memory 512\n", 1),
            ("cores: 1\n../x: 2\n", 2),
            ("a: 1\na: 2\n", 2),
            ("[snap]\n", 1),
        ] {
            let error = VmConfig::parse(text, path).unwrap_err();
            assert!(
                matches!(&error, Error::Config { line: at, .. } if *at == line),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn numbered_options_come_in_numeric_order_and_only_theirs() {
        let text = "scsi10: c\nscsi2: b\nscsi0: a\nscsihw: virtio-scsi-pci\n";
        let config = VmConfig::parse(text, Path::new("x")).unwrap();
        assert_eq!(config.numbered("scsi"), [(0, "a"), (2, "b"), (10, "c")]);
    }

    #[test]
    fn a_description_of_several_lines_survives_the_file() {
        let mut config = VmConfig::default();
        config.set("description", "one: 100%\n#two\n\nfour");
        let back = VmConfig::parse(&config.to_file(), Path::new("x")).unwrap();
        assert_eq!(back, config);
        assert_eq!(
            config.to_listing(),
            "description: one%3A 100%25%0A#two%0A%0Afour\n"
        );
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read_back(entries in proptest::collection::btree_map("[a-z][a-z0-9]{0,8}", "[!-~][ -~]{0,20}[!-~]", 0..8)) {
            let mut config = VmConfig::default();
            for (key, value) in entries.iter().filter(|(key, _)| *key != "description") {
                config.set(key, value);
            }
            prop_assert_eq!(VmConfig::parse(&config.to_file(), Path::new("x")).unwrap(), config);
        }

        #[test]
        fn no_input_panics(text in "\\PC*") {
            let _ = VmConfig::parse(&text, Path::new("x"));
        }
    }
}
