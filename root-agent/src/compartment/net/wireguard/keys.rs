//! Keys of tunnels: `<name>.key` holds the private key as `wg genkey` writes it, `<name>.psk` the shared keys that were
//! generated here, `<name>.given` those that were given, which nobody is told. All in `/etc/blockhost/wireguard/`, mode 0600, owned by the user of this process: the directory is out
//! of reach of the process that keeps wallets, and nothing else that runs as this user can open a file at all.

use std::collections::BTreeMap;
use std::path::Path;

use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{WgKey, WgName};
use curve25519_dalek::MontgomeryPoint;
use rustix::fs::Mode;
use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

use crate::compartment::keys::store::{Existing, Store, StoreError};
use crate::compartment::{Failure, Identity};

/// Owner alone.
const MODE: Mode = Mode::from_raw_mode(0o600);

#[derive(Debug)]
pub(super) struct Keys(Store);

/// A tunnel's private key.
pub(super) struct Private(Zeroizing<[u8; 32]>);

/// Where a shared key is from. One that was given is not answered to somebody else as one that was generated.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    Generated,
    Given,
}

impl Origin {
    fn file(self, name: &WgName) -> String {
        match self {
            Self::Generated => format!("{name}.psk"),
            Self::Given => format!("{name}.given"),
        }
    }
}

/// Shared keys of one tunnel, by public key of the peer.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Shared(BTreeMap<WgKey, [u8; 32]>);

impl Drop for Shared {
    fn drop(&mut self) {
        self.0.values_mut().for_each(Zeroize::zeroize);
    }
}

impl Private {
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn public(&self) -> WgKey {
        let public = MontgomeryPoint::mul_base_clamped(*self.0).to_bytes();
        // The base point times a clamped number is never zero.
        WgKey::new(public).unwrap_or_else(|| unreachable!("a clamped scalar gives no zero"))
    }
}

impl Shared {
    pub(super) fn get(&self, peer: &WgKey) -> Option<WgKey> {
        self.0.get(peer).copied().and_then(WgKey::new)
    }

    pub(super) fn insert(&mut self, peer: WgKey, key: WgKey) {
        self.0.insert(peer, *key.bytes());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn to_json(&self) -> Value {
        let entry = |(peer, key): (&WgKey, &[u8; 32])| {
            Some((peer.to_string(), WgKey::new(*key)?.to_string().into()))
        };
        Value::Object(self.0.iter().filter_map(entry).collect::<Map<_, _>>())
    }

    fn to_text(&self) -> Zeroizing<String> {
        let line = |(peer, key): (&WgKey, &[u8; 32])| {
            WgKey::new(*key).map(|key| format!("{peer} {key}\n"))
        };
        Zeroizing::new(self.0.iter().filter_map(line).collect())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut shared = Self::default();
        for line in text.lines() {
            let (peer, key) = line.split_once(' ')?;
            shared.insert(peer.parse().ok()?, key.parse().ok()?);
        }
        Some(shared)
    }
}

/// A new random key.
pub(super) fn random() -> Result<WgKey, Failure> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    rustix::rand::getrandom(bytes.as_mut_slice(), rustix::rand::GetRandomFlags::empty())
        .ok()
        .filter(|count| *count == bytes.len())
        .and_then(|_| WgKey::new(*bytes))
        .ok_or_else(|| {
            Failure::new(
                ErrorCode::Failed,
                "the kernel gave no randomness; try again",
            )
        })
}

fn broken(error: &StoreError) -> Failure {
    Failure::new(ErrorCode::Failed, error.to_string())
}

fn damaged(store: &Store, file: &str) -> Failure {
    let path = store.path_of(file);
    let message = format!(
        "{} does not hold keys; look at it and repair or remove it",
        path.display()
    );
    Failure::new(ErrorCode::Failed, message)
}

impl Keys {
    /// Opens the directory; called before this process becomes `user`.
    pub(super) fn open(directory: &Path, user: Identity) -> Result<Self, String> {
        Store::open_of(directory, user, MODE)
            .map(Self)
            .map_err(|error| error.to_string())
    }

    /// The private key of a tunnel, if it has one.
    pub(super) fn known(&self, name: &WgName) -> Result<Option<Private>, Failure> {
        let file = format!("{name}.key");
        let Some(content) = self.0.read(&file).map_err(|error| broken(&error))? else {
            return Ok(None);
        };
        std::str::from_utf8(&content)
            .ok()
            .and_then(|text| {
                text.strip_suffix('\n')
                    .unwrap_or(text)
                    .parse::<WgKey>()
                    .ok()
            })
            .map(|key| Some(Private(Zeroizing::new(*key.bytes()))))
            .ok_or_else(|| damaged(&self.0, &file))
    }

    /// The private key of a tunnel, made the first time.
    pub(super) fn private(&self, name: &WgName) -> Result<Private, Failure> {
        if let Some(private) = self.known(name)? {
            return Ok(private);
        }
        let file = format!("{name}.key");
        let mut bytes = Zeroizing::new(*random()?.bytes());
        // As every WireGuard key is: a multiple of eight of fixed length.
        bytes[0] &= 248;
        bytes[31] = bytes[31] & 127 | 64;
        let key = WgKey::new(*bytes)
            .ok_or_else(|| Failure::new(ErrorCode::Internal, "a clamped key cannot be zero"))?;
        let text = Zeroizing::new(format!("{key}\n"));
        self.0
            .write(&file, text.as_bytes(), Existing::Keep)
            .map_err(|error| broken(&error))?;
        Ok(Private(bytes))
    }

    /// The shared keys of a tunnel that are from there.
    pub(super) fn shared(&self, name: &WgName, origin: Origin) -> Result<Shared, Failure> {
        let file = origin.file(name);
        let Some(content) = self.0.read(&file).map_err(|error| broken(&error))? else {
            return Ok(Shared::default());
        };
        std::str::from_utf8(&content)
            .ok()
            .and_then(Shared::parse)
            .ok_or_else(|| damaged(&self.0, &file))
    }

    pub(super) fn keep_shared(
        &self,
        name: &WgName,
        origin: Origin,
        shared: &Shared,
    ) -> Result<(), Failure> {
        let file = origin.file(name);
        let kept = if shared.is_empty() {
            self.0.remove(&file).map(drop)
        } else {
            self.0
                .write(&file, shared.to_text().as_bytes(), Existing::Replace)
        };
        kept.map_err(|error| broken(&error))
    }

    /// Removes a tunnel's keys; false where it had none.
    pub(super) fn forget(&self, name: &WgName) -> Result<bool, Failure> {
        let files = [
            Origin::Generated.file(name),
            Origin::Given.file(name),
            format!("{name}.key"),
        ];
        // All are tried before one that cannot be removed is told.
        let removed = files.map(|file| self.0.remove(&file));
        removed.into_iter().try_fold(false, |any, removed| {
            Ok(any | removed.map_err(|error| broken(&error))?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748, section 6.1.
    #[test]
    fn a_public_key_is_the_one_that_the_standard_gives() {
        let private = Private(Zeroizing::new([
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2,
            0x66, 0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5,
            0x1d, 0xb9, 0x2c, 0x2a,
        ]));
        assert_eq!(
            private.public().to_string(),
            "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
        );
    }

    #[test]
    fn a_damaged_list_of_shared_keys_is_not_read_as_a_shorter_one() {
        let line = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg= TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=\n";
        assert!(Shared::parse(line).is_some_and(|shared| shared.to_text().as_str() == line));
        for text in [
            "x\n",
            &line[..60],
            &format!("{line}\n"),
            &format!("{line}x y\n"),
        ] {
            assert!(Shared::parse(text).is_none(), "{text:?}");
        }
    }
}
