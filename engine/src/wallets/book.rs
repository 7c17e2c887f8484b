//! The address book `/etc/blockhost/addressbook.json`: who is called what, and whose keys this host holds. Read here;
//! changed by the root agent, which asks root for what is reserved.

use super::party::Party;
use crate::chain::Address;
use crate::chain::tx::Wallet;
use crate::config::Config;
use crate::crypto::keys::{KeyFileError, PrivateKey};
use blockhost_proto::action::Action;
use blockhost_proto::client::CallError;
use blockhost_proto::client::tokio::Client;
use blockhost_proto::json;
use blockhost_proto::layout::Layout;
use blockhost_proto::value::{AddressBook, AddressEntry, EthAddress, Param, WalletName};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

/// The account that owns the contracts, where the address book does not say otherwise.
const SERVER: &str = "server";

/// Why the book, or somebody in it, could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// Unreadable.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not an address book.
    #[error("{path} is no address book: {reason}; repair it or move it away", path = .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Nobody of this name.
    #[error("the address book has no {name}; it has {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Who is in it.
        known: String,
    },
    /// Somebody whose key is elsewhere.
    #[error("{name} cannot pay from here: the address book names no key file for it")]
    NoKey {
        /// The name.
        name: String,
    },
    /// An address that is nobody's of this host.
    #[error("{0} cannot pay from here: name one of the address book that has a key file")]
    NotOurs(Address),
    /// The key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The key is another's.
    #[error(
        "the key file of {name} belongs to {found}, the address book says {expected}; nothing is sent until they agree"
    )]
    OtherKey {
        /// The name.
        name: String,
        /// Whose key it is.
        found: Address,
        /// Who it should be.
        expected: Address,
    },
    /// The lock.
    #[error("cannot lock {path}: {source}", path = .path.display())]
    Lock {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The agent.
    #[error("changing the address book: {0}")]
    Agent(#[from] CallError),
    /// The change does not fit the catalog.
    #[error("the address book cannot be changed so: {0}")]
    Change(String),
}

/// The book as it is.
#[derive(Debug, Clone)]
pub struct Book {
    path: PathBuf,
    entries: AddressBook,
}

impl Book {
    /// Reads it; a missing one is empty.
    ///
    /// # Errors
    /// [`BookError::Read`], [`BookError::Content`].
    pub fn load(layout: &Layout) -> Result<Self, BookError> {
        let path = layout.addressbook();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => b"{}".to_vec(),
            Err(source) => return Err(BookError::Read { path, source }),
        };
        let entries = json::parse(&bytes)
            .map_err(|e| e.to_string())
            .and_then(|value| AddressBook::from_json(&value).map_err(|e| e.to_string()));
        match entries {
            Ok(entries) => Ok(Self { path, entries }),
            Err(reason) => Err(BookError::Content { path, reason }),
        }
    }

    /// Everybody in it.
    #[must_use]
    pub fn entries(&self) -> &BTreeMap<WalletName, AddressEntry> {
        self.entries.entries()
    }

    /// Somebody by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&AddressEntry> {
        let name: WalletName = name.parse().ok()?;
        self.entries().get(&name)
    }

    /// The name of an address, where it has one.
    #[must_use]
    pub fn name_of(&self, address: Address) -> Option<&WalletName> {
        self.entries()
            .iter()
            .find(|(_, entry)| plain(&entry.address) == address)
            .map(|(name, _)| name)
    }

    /// The address of somebody. `server` is the owner of the contracts where the book does not name it.
    ///
    /// # Errors
    /// [`BookError::Unknown`], [`BookError::Key`].
    pub fn address(&self, config: &Config, party: &Party) -> Result<Address, BookError> {
        let name = match party {
            Party::Address(address) => return Ok(*address),
            Party::Name(name) => name,
        };
        match self.entries().get(name) {
            Some(entry) => Ok(plain(&entry.address)),
            None if name.as_str() == SERVER => Ok(config.deployer()?.address()),
            None => Err(self.unknown(name)),
        }
    }

    /// The key of somebody, to pay with.
    ///
    /// # Errors
    /// [`BookError`].
    pub fn wallet(&self, config: &Config, party: &Party) -> Result<Wallet, BookError> {
        let name = match party {
            Party::Name(name) => name,
            Party::Address(address) => {
                self.name_of(*address).ok_or(BookError::NotOurs(*address))?
            }
        };
        let entry = self.entries().get(name);
        let keyfile = entry.and_then(|entry| entry.keyfile.as_ref());
        let path = match (entry, keyfile) {
            (_, Some(file)) => config.layout.etc().join(file.as_str()),
            (_, None) if name.as_str() == SERVER => config.deployer_key_path(),
            (Some(_), None) => {
                return Err(BookError::NoKey {
                    name: name.to_string(),
                });
            }
            (None, None) => return Err(self.unknown(name)),
        };
        let wallet = Wallet::new(&PrivateKey::from_file(&path)?);
        let expected = entry.map_or(wallet.address(), |entry| plain(&entry.address));
        if wallet.address() != expected {
            return Err(BookError::OtherKey {
                name: name.to_string(),
                found: wallet.address(),
                expected,
            });
        }
        Ok(wallet)
    }

    fn unknown(&self, name: &WalletName) -> BookError {
        let known: Vec<&str> = self.entries().keys().map(WalletName::as_str).collect();
        BookError::Unknown {
            name: name.to_string(),
            known: if known.is_empty() {
                "nobody in it; see `ab --init`".into()
            } else {
                known.join(", ")
            },
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// Holds off everybody else of ours who reads the book to change it.
#[derive(Debug)]
pub struct BookLock {
    _file: File,
}

impl BookLock {
    /// Waits for it.
    ///
    /// # Errors
    /// [`BookError::Lock`].
    pub fn acquire(layout: &Layout) -> Result<Self, BookError> {
        let path = layout.state().join("addressbook.lock");
        let open = || -> std::io::Result<File> {
            let file = crate::shared::open(&path)?;
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Self { _file: file }),
            Err(source) => Err(BookError::Lock { path, source }),
        }
    }
}

/// Replaces the book, under the lock.
///
/// # Errors
/// [`BookError::Change`], [`BookError::Agent`].
pub async fn save(
    layout: &Layout,
    _lock: &BookLock,
    entries: BTreeMap<WalletName, AddressEntry>,
) -> Result<(), BookError> {
    let book = AddressBook::new(entries).map_err(|e| BookError::Change(e.to_string()))?;
    let entries = book
        .to_json()
        .ok_or_else(|| BookError::Change("it has no form".into()))?;
    let params = serde_json::json!({ "entries": entries });
    ask(layout, "addressbook-save", &params).await.map(drop)
}

/// Lets the agent make a wallet, and gives its address.
///
/// # Errors
/// [`BookError::Change`], [`BookError::Agent`].
pub async fn generate(
    layout: &Layout,
    _lock: &BookLock,
    name: &WalletName,
) -> Result<Address, BookError> {
    let params = serde_json::json!({ "name": name.as_str() });
    let reply = ask(layout, "generate-wallet", &params).await?;
    reply
        .get("address")
        .and_then(serde_json::Value::as_str)
        .and_then(|text| super::party::address(text).ok())
        .ok_or_else(|| BookError::Change("the agent's answer names no address".into()))
}

async fn ask(
    layout: &Layout,
    name: &str,
    params: &serde_json::Value,
) -> Result<serde_json::Map<String, serde_json::Value>, BookError> {
    let action = Action::from_parts(name, params).map_err(|e| BookError::Change(e.to_string()))?;
    let mut client = Client::connect_layout(layout).await?;
    Ok(client.call(&action).await?.extra)
}

/// The agent's form of an address as the chain's.
#[must_use]
pub fn plain(address: &EthAddress) -> Address {
    Address::from(*address.bytes())
}
