//! The signing key of an epoch: made once, kept as a 0600 file that only root reads, used by the writer alone.
//! The file has the text form of Go's `sumdb/note` private keys, so that other tools can sign and rotate with it.

use crate::dir::{FileError, LedgerDir, on, write_all_at};
use crate::epochs::Epoch;
use crate::merkle::Hash;
use crate::note::{Checkpoint, NoteError, Vkey, assemble, short_name};
use crate::writer::OpenError;
use base64ct::{Base64, Encoding as _};
use ed25519_dalek::{Signer as _, SigningKey};
use rustix::fd::AsFd as _;
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;
use std::path::Path;

const PREFIX: &str = "PRIVATE+KEY+";
/// The public key that the log began with, kept when its private key is erased.
const FIRST: &str = "first.vkey";
/// A private key on its way out.
const ERASING: &str = ".erasing";

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The name cannot be a key name.
    #[error(transparent)]
    Name(#[from] NoteError),
    /// The system refused.
    #[error("ledger key: {0}")]
    File(#[from] FileError),
    /// The file's content is not a key.
    #[error(
        "ledger key {file}: {why}; restore it from a backup (a new key would not continue the existing ledger)"
    )]
    Format {
        /// File name in the keys directory.
        file: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Others may read the file.
    #[error(
        "ledger key {file}: mode {mode:03o} lets others read it; set it to 600 (chmod 600) and consider the key known to them"
    )]
    Mode {
        /// File name in the keys directory.
        file: String,
        /// The mode it has.
        mode: u32,
    },
    /// The system has no random bytes.
    #[error("no random bytes for a new ledger key: {0}")]
    Random(Errno),
}

/// An Ed25519 signing key with the name (origin) of its log and the number of its epoch. Wiped on drop; `Debug` shows
/// only the public part.
pub struct Signer {
    key: SigningKey,
    vkey: Vkey,
    epoch: u32,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({}, epoch {})", self.vkey, self.epoch)
    }
}

impl Signer {
    /// From the 32 bytes of an Ed25519 seed. `name` is the origin of the log, see [`origin_for`].
    ///
    /// # Errors
    /// A name that may not be a key name.
    pub fn from_bytes(name: &str, epoch: u32, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let key = SigningKey::from_bytes(seed);
        let vkey = Vkey::new(name, key.verifying_key())?;
        Ok(Self { key, vkey, epoch })
    }

    /// A new random key.
    ///
    /// # Errors
    /// A name that may not be a key name; no random bytes.
    pub fn generate(name: &str, epoch: u32) -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        random(&mut seed).map_err(KeyError::Random)?;
        let signer = Self::from_bytes(name, epoch, &seed);
        seed.fill(0);
        signer
    }

    /// Loads the key of epoch 1 from `keys_dir`, or makes it there (0600, durable, never overwriting). A loaded key
    /// keeps the origin it was made with, whatever the host is called now.
    ///
    /// # Errors
    /// The directory is missing or not writable, the file is damaged or readable by others.
    pub fn load_or_generate(keys_dir: &Path, hostname: &str) -> Result<Self, KeyError> {
        let dir = LedgerDir::open(keys_dir)?;
        match Self::load(&dir, 1)? {
            Some(signer) => Ok(signer),
            None => {
                let signer = Self::generate(&origin_for(hostname), 1)?;
                signer.store(&dir)?;
                // Whoever was first wins: read back what is there.
                Self::load(&dir, 1)?.ok_or(KeyError::Format {
                    file: file_name(1),
                    why: "it vanished while it was made",
                })
            }
        }
    }

    /// Loads the key of `epoch` from an open directory; `None` when there is none.
    ///
    /// # Errors
    /// The file is damaged, readable by others, or cannot be read.
    pub fn load(keys_dir: &LedgerDir, epoch: u32) -> Result<Option<Self>, KeyError> {
        let file = file_name(epoch);
        let fd = match keys_dir.file(&file, OFlags::RDONLY, 0) {
            Ok(fd) => fd,
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mode = rustix::fs::fstat(&fd)
            .map_err(on("look at", &file))?
            .st_mode
            & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Mode { file, mode });
        }
        let bytes = keys_dir.read(&file, 1024)?.unwrap_or_default();
        let bad = |why| KeyError::Format {
            file: file.clone(),
            why,
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| bad("it is not text"))?;
        let rest = text
            .trim_end()
            .strip_prefix(PREFIX)
            .ok_or_else(|| bad("it does not begin with PRIVATE+KEY+"))?;
        let mut parts = rest.splitn(3, '+');
        let (Some(name), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("it does not have the parts name, id and key"));
        };
        let decoded = Base64::decode_vec(encoded).map_err(|_| bad("the key is not base64"))?;
        let seed: [u8; 32] = match decoded.split_first() {
            Some((1, seed)) => seed
                .try_into()
                .map_err(|_| bad("the key is not 32 bytes long"))?,
            _ => return Err(bad("it is not an Ed25519 key")),
        };
        let signer = Self::from_bytes(name, epoch, &seed)?;
        if format!("{:08x}", signer.vkey.id()) != id {
            return Err(bad("its id does not belong to its name and key"));
        }
        Ok(Some(signer))
    }

    /// Writes the key into an open directory as a 0600 file; an existing one is left alone.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn store(&self, keys_dir: &LedgerDir) -> Result<(), KeyError> {
        let mut bytes = vec![1];
        bytes.extend_from_slice(self.key.as_bytes());
        let line = format!(
            "{PREFIX}{}+{:08x}+{}\n",
            self.vkey.name(),
            self.vkey.id(),
            Base64::encode_string(&bytes)
        );
        let (file, temporary) = (
            file_name(self.epoch),
            format!(".{}.{}", file_name(self.epoch), std::process::id()),
        );
        keys_dir.replace(&temporary, line.as_bytes(), 0o600, true)?;
        let renamed = rustix::fs::renameat_with(
            keys_dir,
            &temporary,
            keys_dir,
            &file,
            rustix::fs::RenameFlags::NOREPLACE,
        );
        if renamed.is_err() {
            let _ = rustix::fs::unlinkat(keys_dir, &temporary, rustix::fs::AtFlags::empty());
        }
        match renamed {
            Ok(()) => Ok(keys_dir.sync()?),
            Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(on("rename into place", file)(errno).into()),
        }
    }

    /// The seed, for handing the key to the confined ledger process over a pipe. The caller wipes it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The public key with its name: what others verify with.
    #[must_use]
    pub fn vkey(&self) -> &Vkey {
        &self.vkey
    }

    /// The number of the epoch, from 1.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The signature of the head of this log with `size` records and `root`.
    #[must_use]
    pub fn sign_head(&self, size: u64, root: Hash) -> [u8; 64] {
        let head = Checkpoint {
            origin: self.vkey.name().to_owned(),
            size,
            root,
        };
        self.key.sign(head.body().as_bytes()).to_bytes()
    }

    /// A checkpoint as a signed note.
    #[must_use]
    pub fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> String {
        let body = checkpoint.body();
        let signature = self.key.sign(body.as_bytes()).to_bytes();
        assemble(&body, &self.vkey, &signature)
    }
}

/// The private keys at hand, and the public key that the log began with.
#[derive(Debug)]
pub struct Signers {
    first: Vkey,
    keys: Vec<Signer>,
}

impl From<Signer> for Signers {
    fn from(signer: Signer) -> Self {
        Self {
            first: signer.vkey.clone(),
            keys: vec![signer],
        }
    }
}

impl Signers {
    /// Several private keys of one log, of which none need be the first any more.
    #[must_use]
    pub fn new(first: Vkey, keys: Vec<Signer>) -> Self {
        Self { first, keys }
    }

    /// Loads what is in `keys_dir`, or makes the key of epoch 1 there when nothing is.
    ///
    /// # Errors
    /// The directory is missing or not writable, a file is damaged or readable by others, or the private keys are gone.
    pub fn load_or_generate(keys_dir: &Path, hostname: &str) -> Result<Self, KeyError> {
        let dir = LedgerDir::open(keys_dir)?;
        let first = match dir.read(FIRST, 1024)? {
            None => return Ok(Signer::load_or_generate(keys_dir, hostname)?.into()),
            Some(bytes) => bytes,
        };
        let first = std::str::from_utf8(&first)
            .ok()
            .and_then(|text| Vkey::parse(text).ok());
        let bad = |why| KeyError::Format {
            file: FIRST.to_owned(),
            why,
        };
        let first = first.ok_or_else(|| bad("it is not a verifier key"))?;
        let mut keys = Vec::new();
        for epoch in dir.names()?.iter().filter_map(|name| epoch_of(name)) {
            keys.extend(Signer::load(&dir, epoch)?);
        }
        if keys.is_empty() {
            return Err(bad("it is here but no epoch-N.key is"));
        }
        Ok(Self { first, keys })
    }

    /// The key that verifying begins with.
    #[must_use]
    pub fn first(&self) -> &Vkey {
        &self.first
    }

    /// The public keys at hand.
    pub fn vkeys(&self) -> impl Iterator<Item = &Vkey> {
        std::iter::once(&self.first).chain(self.keys.iter().map(Signer::vkey))
    }

    /// Is the private key of an epoch at hand?
    pub(crate) fn have(&self, epoch: &Epoch) -> bool {
        let mut keys = self.keys.iter();
        keys.any(|key| key.vkey == epoch.key && key.epoch == epoch.number)
    }

    /// The private key of an epoch.
    pub(crate) fn of(self, epoch: &Epoch) -> Result<Signer, OpenError> {
        let mut keys = self.keys.into_iter();
        let found = keys.find(|key| key.vkey == epoch.key && key.epoch == epoch.number);
        found.ok_or_else(|| OpenError::NoKey {
            epoch: epoch.number,
            key: short_name(&epoch.key),
        })
    }
}

/// Makes the key of epoch `next` durable in `keys_dir`, or loads the one that an interrupted rotation left there.
///
/// # Errors
/// No key of the epoch before is there; the directory cannot be written; no random bytes.
pub fn prepare_next(keys_dir: &Path, next: u32) -> Result<Signer, KeyError> {
    let dir = LedgerDir::open(keys_dir)?;
    if let Some(signer) = Signer::load(&dir, next)? {
        return Ok(signer);
    }
    let before = next.saturating_sub(1);
    let missing = |epoch, why| KeyError::Format {
        file: file_name(epoch),
        why,
    };
    let old = Signer::load(&dir, before)?.ok_or_else(|| missing(before, "it is missing"))?;
    if dir.read(FIRST, 1024)?.is_none() {
        if before != 1 {
            return Err(missing(1, "first.vkey is missing"));
        }
        let line = format!("{}\n", old.vkey);
        dir.replace(FIRST, line.as_bytes(), 0o600, true)?;
    }
    Signer::generate(old.vkey.name(), next)?.store(&dir)?;
    Signer::load(&dir, next)?.ok_or_else(|| missing(next, "it vanished while it was made"))
}

/// Erases the private keys of all epochs before `current`, whose key must be there: overwritten, synced, removed.
/// Says how many. Copies that a file system or a disk made by itself are out of reach.
///
/// # Errors
/// The current key is not there (nothing is erased then), or the system refused.
pub fn erase_before(keys_dir: &Path, current: u32) -> Result<usize, KeyError> {
    let dir = LedgerDir::open(keys_dir)?;
    if Signer::load(&dir, current)?.is_none() {
        return Err(KeyError::Format {
            file: file_name(current),
            why: "it is missing; older keys are kept",
        });
    }
    let mut erased = 0;
    for name in dir.names()? {
        let old = epoch_of(&name).is_some_and(|epoch| epoch < current);
        if !old && name != ERASING {
            continue;
        }
        // Under its name it is whole or gone: half a key would stop the next start.
        if old {
            rustix::fs::renameat(&dir, &name, &dir, ERASING).map_err(on("rename", &name))?;
            dir.sync()?;
        }
        let fd = dir.file(ERASING, OFlags::WRONLY, 0)?;
        let bytes = rustix::fs::fstat(&fd)
            .map_err(on("look at", &name))?
            .st_size;
        let zeros = vec![0; usize::try_from(bytes).unwrap_or(0).min(4096)];
        write_all_at(fd.as_fd(), &zeros, 0).map_err(on("overwrite", &name))?;
        rustix::fs::fsync(&fd).map_err(on("overwrite", &name))?;
        crate::failpoint::reach("ledger-key-overwritten", b"");
        rustix::fs::unlinkat(&dir, ERASING, AtFlags::empty()).map_err(on("remove", &name))?;
        erased += 1;
    }
    if erased > 0 {
        dir.sync()?;
    }
    Ok(erased)
}

/// The epoch that a key file's name announces.
fn epoch_of(name: &str) -> Option<u32> {
    let epoch = name.strip_prefix("epoch-")?.strip_suffix(".key")?;
    let epoch = epoch.parse().ok()?;
    (file_name(epoch) == name).then_some(epoch)
}

/// The origin line for a host: `<hostname>/blockhost-ledger`, with what a key name may not have replaced by `-`.
#[must_use]
pub fn origin_for(hostname: &str) -> String {
    let clean: String = hostname
        .chars()
        .take(120)
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let host = if clean.is_empty() {
        "localhost"
    } else {
        &clean
    };
    format!("{host}/blockhost-ledger")
}

/// Name of the key file of an epoch.
#[must_use]
pub fn file_name(epoch: u32) -> String {
    format!("epoch-{epoch}.key")
}

/// Fills `buffer` from the kernel's generator.
pub(crate) fn random(buffer: &mut [u8]) -> Result<(), Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::rand::getrandom(&mut buffer[filled..], rustix::rand::GetRandomFlags::empty())
        {
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_that_others_can_read_or_that_is_damaged_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        Signer::load_or_generate(dir.path(), "h").expect("made");
        let path = dir.path().join(file_name(1));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(
            Signer::load_or_generate(dir.path(), "h"),
            Err(KeyError::Mode { mode: 0o640, .. })
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        let text = std::fs::read_to_string(&path).expect("read");
        for bad in [
            text.replace("h/", "g/"),
            text[..40].to_owned(),
            String::new(),
            "\u{0}".into(),
        ] {
            std::fs::write(&path, bad).expect("write");
            assert!(matches!(
                Signer::load_or_generate(dir.path(), "h"),
                Err(KeyError::Format { .. })
            ));
        }
    }

    #[test]
    fn a_key_is_made_once_for_root_alone_and_keeps_its_origin() {
        let dir = tempfile::tempdir().expect("temp dir");
        let first = Signer::load_or_generate(dir.path(), "Host One").expect("made");
        let second = Signer::load_or_generate(dir.path(), "renamed").expect("loaded");
        assert_eq!(first.vkey(), second.vkey());
        assert_eq!(first.vkey().name(), "host-one/blockhost-ledger");
        let mode = std::fs::metadata(dir.path().join(file_name(1)))
            .expect("exists")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            std::fs::read_dir(dir.path()).expect("list").count(),
            1,
            "no temporary files left"
        );
        assert!(!format!("{first:?}").contains("PRIVATE"));
    }
}
