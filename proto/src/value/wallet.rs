//! Wallet names, addresses with their EIP-55 checksum, and the address book.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};
use sha3::{Digest, Keccak256};

use super::{KeyFile, Param, Text, ValueError, made_of, text_newtype, text_value};
use crate::{escape, json as strict};

/// Names that `generate-wallet` refuses, and whose existing address-book entries only uid 0 changes.
pub const RESERVED_WALLETS: [&str; 4] = ["admin", "server", "dev", "broker"];

/// Name of a wallet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalletName(String);

/// Name of a wallet that a client may make: not one of [`RESERVED_WALLETS`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NewWalletName(WalletName);

/// Address on an EVM chain. Accepted in any case, printed with its EIP-55 checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EthAddress([u8; 20]);

/// One entry of the address book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressEntry {
    /// Where it pays to.
    pub address: EthAddress,
    /// Where its private key lies, when this host holds it.
    pub keyfile: Option<KeyFile>,
}

/// The whole address book: at most 1024 entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressBook(BTreeMap<WalletName, AddressEntry>);

text_newtype!(WalletName);
text_value!(NewWalletName, EthAddress);

impl WalletName {
    /// True for `admin`, `server`, `dev` and `broker`.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        RESERVED_WALLETS.contains(&self.as_str())
    }
}

impl Text for WalletName {
    const KIND: &'static str = "wallet name";
    const RULE: &'static str = "1 to 32 of a-z, 0-9 and -, not starting with -";
    fn read(text: &str) -> Option<Self> {
        let good = made_of(text, 1..=32, |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
        }) && !text.starts_with('-');
        good.then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,31}$"})
    }
}

impl NewWalletName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// As a plain wallet name.
    #[must_use]
    pub const fn wallet_name(&self) -> &WalletName {
        &self.0
    }
}

impl fmt::Display for NewWalletName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Text for NewWalletName {
    const KIND: &'static str = "new wallet name";
    const RULE: &'static str =
        "1 to 32 of a-z, 0-9 and -, not starting with -, not one of admin, server, dev, broker";
    fn read(text: &str) -> Option<Self> {
        WalletName::read(text)
            .filter(|name| !name.is_reserved())
            .map(Self)
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,31}$", "not": {"enum": RESERVED_WALLETS}})
    }
}

impl EthAddress {
    /// The 20 bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// Lower-case form, as keys of maps and databases use it.
    #[must_use]
    pub fn to_lowercase(&self) -> String {
        format!("0x{}", escape::hex(&self.0))
    }

    /// The address of an uncompressed public key: the last 20 bytes of the Keccak-256 of its 64 bytes (without the 0x04).
    #[must_use]
    pub fn of_public_key(key: &[u8; 64]) -> Self {
        let digest = Keccak256::digest(key);
        let mut address = [0; 20];
        address.copy_from_slice(&digest[12..]);
        Self(address)
    }
}

impl From<[u8; 20]> for EthAddress {
    fn from(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for EthAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // EIP-55: a letter is upper case where the same digit of the hash of the lower-case text is 8 or more.
        let lower = escape::hex(&self.0);
        let hash = escape::hex(&Keccak256::digest(lower.as_bytes()));
        // Written at once: lists and databases hold thousands.
        let digits = lower.chars().zip(hash.chars()).map(|(digit, weight)| {
            if weight >= '8' {
                digit.to_ascii_uppercase()
            } else {
                digit
            }
        });
        f.write_str(
            &std::iter::once('0')
                .chain(['x'])
                .chain(digits)
                .collect::<String>(),
        )
    }
}

impl Text for EthAddress {
    const KIND: &'static str = "address";
    const RULE: &'static str = "0x and 40 hexadecimal digits";
    // What is longer may be a private key by mistake, and refusals go into the ledger.
    const QUOTED: bool = false;
    fn read(text: &str) -> Option<Self> {
        let digits = text
            .strip_prefix("0x")
            .filter(|d| made_of(d, 40..=40, |b| b.is_ascii_hexdigit()))?;
        let mut bytes = [0; 20];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^0x[0-9A-Fa-f]{40}$"})
    }
}

impl AddressBook {
    /// How many entries a book may have.
    pub const MAX_ENTRIES: usize = 1024;
    const KIND: &'static str = "address book";
    const RULE: &'static str =
        "an object of at most 1024 entries name -> {\"address\": ..., \"keyfile\": ...}";

    /// A book of these entries.
    ///
    /// # Errors
    /// [`ValueError`] when there are more than [`Self::MAX_ENTRIES`].
    pub fn new(entries: BTreeMap<WalletName, AddressEntry>) -> Result<Self, ValueError> {
        if entries.len() > Self::MAX_ENTRIES {
            return Err(ValueError::new(
                Self::KIND,
                &format!("{} entries", entries.len()),
                Self::RULE,
            ));
        }
        Ok(Self(entries))
    }

    /// The entries by name.
    #[must_use]
    pub const fn entries(&self) -> &BTreeMap<WalletName, AddressEntry> {
        &self.0
    }

    /// The book as JSON, as it stands in the file: every `keyfile` as a whole path.
    #[must_use]
    pub fn to_file_json(&self) -> Value {
        self.render(KeyFile::absolute)
    }

    fn render(&self, keyfile: impl Fn(&KeyFile) -> String) -> Value {
        let entry = |entry: &AddressEntry| {
            let mut map = Map::new();
            map.insert("address".into(), entry.address.to_string().into());
            if let Some(file) = &entry.keyfile {
                map.insert("keyfile".into(), keyfile(file).into());
            }
            Value::Object(map)
        };
        Value::Object(
            self.0
                .iter()
                .map(|(name, e)| (name.to_string(), entry(e)))
                .collect(),
        )
    }
}

impl Param for AddressBook {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        let wrong = |v: &Value| ValueError::new(Self::KIND, strict::kind(v), Self::RULE);
        let map = value.as_object().ok_or_else(|| wrong(value))?;
        let mut entries = BTreeMap::new();
        for (name, entry) in map {
            let name: WalletName = name.parse()?;
            let fields = entry.as_object().ok_or_else(|| wrong(entry))?;
            if let Some(unknown) = fields
                .keys()
                .find(|key| !matches!(key.as_str(), "address" | "keyfile"))
            {
                return Err(ValueError::new(
                    "address-book field",
                    unknown,
                    "only address and keyfile",
                ));
            }
            let address = EthAddress::from_json(fields.get("address").unwrap_or(&Value::Null))?;
            let keyfile = fields.get("keyfile").map(KeyFile::from_json).transpose()?;
            entries.insert(name, AddressEntry { address, keyfile });
        }
        Self::new(entries)
    }

    fn to_json(&self) -> Option<Value> {
        Some(self.render(ToString::to_string))
    }

    fn schema() -> Value {
        json!({
            "type": "object",
            "maxProperties": Self::MAX_ENTRIES,
            "propertyNames": WalletName::text_schema(),
            "additionalProperties": {
                "type": "object",
                "properties": {"address": EthAddress::text_schema(), "keyfile": KeyFile::text_schema()},
                "required": ["address"],
                "additionalProperties": false,
            },
        })
    }
}
