//! `ledger-append`: events that unprivileged services record in their own name. `ledger-anchored`: that a head of this
//! ledger is on a chain. `ledger-blob` and `ledger-shred`: what is confidential, encrypted by its owner, and its erasure.
//! `ledger-prune`: old payloads go, their hashes and every proof stay.

use serde_json::{Map, Value, json};

use super::{ParamError, ResourceKey, action};
use crate::catalog::{self, FieldSpec};
use crate::json as strict;
use crate::value::{
    AgeFile, BlockNumber, ChainId, EthAddress, EventName, HashPath, LedgerSize, Param, Sha256Hex,
    TxHash, ValueError,
};

/// What an event says: a JSON object that the ledger can hold. Keys are `[A-Za-z0-9_.:-]{1,64}`, integers within 2^53-1,
/// texts without U+007F or NUL, nesting at most 8, at most 16384 bytes as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventData(Map<String, Value>);

impl EventData {
    const KIND: &'static str = "event data";
    const MAX_BYTES: usize = 16_384;
    const MAX_DEPTH: usize = 8;
    const MAX_INTEGER: u64 = (1 << 53) - 1;

    /// Checks and takes an object.
    ///
    /// # Errors
    /// [`ValueError`] with the rule that the object breaks.
    pub fn new(map: Map<String, Value>) -> Result<Self, ValueError> {
        for (key, value) in &map {
            Self::check_key(key)?;
            Self::check(value, 2)?;
        }
        let this = Self(map);
        let size = Value::Object(this.0.clone()).to_string().len();
        if size > Self::MAX_BYTES {
            return Err(ValueError::new(
                Self::KIND,
                &format!("{size} bytes"),
                "at most 16384 bytes of JSON",
            ));
        }
        Ok(this)
    }

    /// The object.
    #[must_use]
    pub const fn map(&self) -> &Map<String, Value> {
        &self.0
    }

    fn check_key(key: &str) -> Result<(), ValueError> {
        let good = crate::value::made_of(key, 1..=64, |b| {
            b.is_ascii_alphanumeric() || b"_.:-".contains(&b)
        });
        if good {
            Ok(())
        } else {
            Err(ValueError::new(
                "event key",
                key,
                "1 to 64 of A-Z, a-z, 0-9, _ . : and -",
            ))
        }
    }

    fn check(value: &Value, depth: usize) -> Result<(), ValueError> {
        if depth > Self::MAX_DEPTH {
            return Err(ValueError::new(
                Self::KIND,
                strict::kind(value),
                "nested at most 8 deep",
            ));
        }
        match value {
            Value::Null | Value::Bool(_) => Ok(()),
            Value::Number(n) => {
                let size = n.as_u64().or_else(|| n.as_i64().map(i64::unsigned_abs));
                if size.is_some_and(|size| size <= Self::MAX_INTEGER) {
                    Ok(())
                } else {
                    Err(ValueError::of_json(
                        Self::KIND,
                        value,
                        "integers within 2^53-1, no floats; write others as text",
                    ))
                }
            }
            Value::String(text) if text.contains(['\0', '\u{7f}']) => Err(ValueError::new(
                Self::KIND,
                text,
                "text without NUL and U+007F",
            )),
            Value::String(_) => Ok(()),
            Value::Array(items) => items
                .iter()
                .try_for_each(|item| Self::check(item, depth + 1)),
            Value::Object(map) => map.iter().try_for_each(|(key, item)| {
                Self::check_key(key)?;
                Self::check(item, depth + 1)
            }),
        }
    }
}

impl Param for EventData {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        match value {
            Value::Object(map) => Self::new(map.clone()),
            other => Err(ValueError::of_json(Self::KIND, other, "an object")),
        }
    }
    fn to_json(&self) -> Option<Value> {
        Some(Value::Object(self.0.clone()))
    }
    fn schema() -> Value {
        json!({"type": "object", "propertyNames": {"pattern": "^[A-Za-z0-9_.:-]{1,64}$"}})
    }
}

action! {
    /// Records an event in the caller's name. The agent stamps who it was; such a record cannot pass for one of its own.
    LedgerAppend = "ledger-append", family "ledger", compartment Ledger, capabilities &[],
    time_limit_s 10, read_only false, ledger "event" / "event" / "create",
    {
        /// Category of the event, such as `chain` or `network`.
        category: EventName,
        /// What happened, such as `subscription-created`; never the name of an action of this catalog.
        action: EventName,
        /// The details.
        data: EventData,
        /// What it happened to.
        resource: Option<EventResource>,
    }
    check |a| not_of_the_catalog(&a.action),
    resource |a| a.resource.as_ref().map_or_else(|| format!("event:{}", a.category), ToString::to_string),
    example r#"{"category": "chain", "action": "subscription-created", "resource": "subscription:7", "data": {"block": 1200, "plan": 1}}"#,
}

action! {
    /// Records that a head of this ledger was anchored on a chain. The agent checks with the proof that the head is one of
    /// its own history; chain, contract, transaction and block are what the caller says.
    LedgerAnchored = "ledger-anchored", family "ledger", compartment Ledger, capabilities &[],
    time_limit_s 10, read_only false, ledger "chain" / "chain" / "create",
    {
        /// Id of the chain.
        chain_id: ChainId,
        /// The contract `LedgerAnchor`.
        contract: EthAddress,
        /// The transaction that anchored it.
        tx: TxHash,
        /// The block of that transaction.
        block: BlockNumber,
        /// Number of records of the anchored head.
        size: LedgerSize,
        /// Its RFC 6962 root.
        root: Sha256Hex,
        /// Number of records of a head that the ledger has now, or had a moment ago.
        head_size: LedgerSize,
        /// RFC 6962 consistency proof from the anchored head to that one; empty when it is the same.
        proof: HashPath,
    }
    check |a| {
        if a.head_size < a.size {
            return Err(ParamError::Together {
                what: format!("head_size is {}, less than the anchored size {}", a.head_size, a.size),
            });
        }
        Ok(())
    },
    resource |a| format!("anchor:{}", a.size),
    example r#"{"chain_id": 1, "contract": "0x52908400098527886E0F7030069857D2E4169EE7", "tx": "0x00000000000000000000000000000000000000000000000000000000000000aa", "block": 1200, "size": 8, "root": "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328", "head_size": 8, "proof": []}"#,
}

action! {
    /// Keeps an encrypted file beside the ledger and records in the caller's name what it is about. The record commits to
    /// the file by the hash of its ciphertext; erasing the file, or the key to it, leaves every proof valid. Whatever does
    /// not have the form of an `age` file is refused.
    LedgerBlob = "ledger-blob", family "ledger", compartment Ledger, capabilities &[],
    time_limit_s 10, read_only false, ledger "ledger" / "storage" / "create",
    {
        /// Category of the event, such as `network`.
        category: EventName,
        /// What happened, such as `tenant-network-created`; never the name of an action of this catalog.
        action: EventName,
        /// The encrypted file.
        ciphertext: AgeFile,
        /// Details that everybody who reads the ledger may know.
        data: EventData = EventData::default(),
        /// What it happened to.
        resource: Option<EventResource>,
    }
    check |a| not_of_the_catalog(&a.action),
    resources |a| vec![blob_key(&a.ciphertext.hash())],
    resource |a| a.resource.as_ref().map_or_else(|| format!("blob:{}", a.ciphertext.hash()), ToString::to_string),
    returns &[FieldSpec::text("sha256", "Hash of the ciphertext: the name of the blob.")],
    example r#"{"category": "network", "action": "tenant-network-created", "resource": "tenant:7", "ciphertext": "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSA4ZjdOb3lRbWtMNUJPU0lyQmF1cFBoVlFudm1OVDBreG9lTnR1L29sVWlzClJ1bGRqcGJtRmtMb2phOFAvVVVqYlYxNEtGNXlnVE9VOGtuUTJrQVR0RzQKLS0tIFNSaEl4NUF2MTRhdzB3TTc4OGp2ejRNSmlPWnFXNHdXN0FlY0Q3eEhWTEkK9Xy2Aekvv3hH1TGjFdE3ngEaORKQ1ekH6qclBGiXfWvI4ccYVYoKC1kUUKV4sGTa6PHe", "data": {"subnets": 2}}"#,
}

action! {
    /// Erases an encrypted file of `ledger-blob` for good. The records that commit to it stay, and so does every proof.
    /// What was begun is finished by the next start of the agent. Copies elsewhere are beyond it: erase the key, too.
    /// A rule permits this by its name only, never by a pattern.
    LedgerShred = "ledger-shred", family "ledger", compartment Ledger, capabilities &[],
    time_limit_s 10, read_only false, ledger "ledger" / "storage" / "delete",
    {
        /// Hash of the ciphertext, as `ledger-blob` answered it.
        sha256: Sha256Hex,
        /// Why, for whoever asks later.
        reason: Reason,
    }
    resources |a| vec![blob_key(&a.sha256)],
    resource |a| format!("blob:{}", a.sha256),
    example r#"{"sha256": "36b8d81557e39cf14bc6a6644a1990ae02da3861ab66e35154a4c751b3ad3637", "reason": "erasure asked for by the tenant"}"#,
}

action! {
    /// Deletes the payloads of the oldest 65536 records that still have theirs, where all of them stand below `before` and
    /// are older than `limits.ledger_retention_days`. Hashes, signatures and every proof stay; a record says so before
    /// anything is deleted. Damage is not deleted but reported. What was begun is finished by the next start of the
    /// agent. Ask again while `left` is more than 0. A rule permits this by its name only, never by a pattern.
    LedgerPrune = "ledger-prune", family "ledger", compartment Ledger, capabilities &[],
    time_limit_s 120, read_only false, ledger "ledger" / "storage" / "delete",
    {
        /// Height of the first record that has to stay.
        before: LedgerSize,
        /// Why, for whoever asks later.
        reason: Reason,
    }
    resources |_a| vec![ResourceKey::named("ledger:payloads")],
    resource |a| format!("records:1-{}", a.before.get() - 1),
    returns &[
        FieldSpec::integer("first", "Height of the first record without its payload now."),
        FieldSpec::integer("last", "Height of the last one."),
        FieldSpec::integer("bytes", "Bytes of payloads that were deleted."),
        FieldSpec::integer("record", "Height of the record that says so."),
        FieldSpec::integer("left", "How many more of such parts there are below `before` that are old enough."),
    ],
    example r#"{"before": 65537, "reason": "older than two years"}"#,
}

/// An event's name cannot pass for an action of the agent.
fn not_of_the_catalog(name: &EventName) -> Result<(), ParamError> {
    if catalog::find(name.as_str()).is_some() {
        return Err(ParamError::Together {
            what: format!("an event cannot be called {name}: that is an action of the agent"),
        });
    }
    Ok(())
}

/// Keeping and erasing one blob go in order of arrival.
fn blob_key(hash: &Sha256Hex) -> ResourceKey {
    ResourceKey::named(format!("blob:{hash}"))
}

/// Why something irrevocable is done: 1 to 200 printable ASCII characters, neither blank nor dash first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(String);

impl crate::value::Text for Reason {
    const KIND: &'static str = "reason";
    const RULE: &'static str =
        "1 to 200 printable ASCII characters, the first no blank and no dash";
    fn read(text: &str) -> Option<Self> {
        let good = crate::value::made_of(text, 1..=200, |b| b.is_ascii_graphic() || b == b' ')
            && !text.starts_with([' ', '-']);
        good.then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[!-,.-~][ -~]{0,199}$"})
    }
}

crate::value::text_newtype!(Reason);

/// What an event is about: 1 to 128 printable ASCII characters without spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventResource(String);

impl crate::value::Text for EventResource {
    const KIND: &'static str = "event resource";
    const RULE: &'static str = "1 to 128 printable ASCII characters without spaces";
    fn read(text: &str) -> Option<Self> {
        crate::value::made_of(text, 1..=128, |b| b.is_ascii_graphic())
            .then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[!-~]{1,128}$"})
    }
}

crate::value::text_newtype!(EventResource);
