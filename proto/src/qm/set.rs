//! Sets of options, in the two JSON forms that clients send: an object, and the arguments of a command line.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value, json};

use super::{QmError, QmKey, QmOption};
use crate::value::{IfName, Param, SnippetRef, StorageName, ValueError, Vmid};

/// A set of options, each key once. In JSON as an object; see also [`QmArgs`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QmOptions(BTreeMap<QmKey, QmOption>);

impl QmOptions {
    /// How many options one request may hold.
    pub const MAX: usize = 256;
    const KIND: &'static str = "set of options";
    const RULE: &'static str = "an object of option -> text or integer";

    /// No options.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`QmError::Twice`] when its key is there already.
    pub fn insert(&mut self, option: QmOption) -> Result<(), QmError> {
        match self.0.entry(option.key()) {
            Entry::Occupied(old) => Err(QmError::Twice {
                key: old.key().to_string(),
            }),
            Entry::Vacant(slot) => {
                slot.insert(option);
                Ok(())
            }
        }
    }

    /// Sets one, replacing what stood there: how `qm set` changes a configuration.
    pub fn set(&mut self, option: QmOption) -> Option<QmOption> {
        self.0.insert(option.key(), option)
    }

    /// Parses and adds one; `key` comes without dashes.
    ///
    /// # Errors
    /// [`QmError`] for a bad key, a bad value, or a key that is there already.
    pub fn add(&mut self, key: &str, value: &str) -> Result<(), QmError> {
        self.insert(QmOption::parse(key, value)?)
    }

    /// The option of that key.
    #[must_use]
    pub fn get(&self, key: QmKey) -> Option<&QmOption> {
        self.0.get(&key)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = &QmOption> {
        self.0.values()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `["--memory", "2048", ...]`, as the command line of `qm` has it.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        self.iter()
            .flat_map(|option| [format!("--{}", option.key()), option.value()])
            .collect()
    }

    /// Bridges that the network devices attach to.
    pub fn bridges(&self) -> impl Iterator<Item = &IfName> {
        self.iter().filter_map(|option| match option {
            QmOption::Net(_, device) => Some(&device.bridge),
            _ => None,
        })
    }

    /// Storages that the drives live on.
    pub fn storages(&self) -> impl Iterator<Item = &StorageName> {
        self.iter().filter_map(|option| match option {
            QmOption::Drive(_, _, drive) => Some(&drive.storage),
            _ => None,
        })
    }

    /// Snippets that cloud-init takes.
    pub fn snippets(&self) -> impl Iterator<Item = &SnippetRef> {
        self.iter()
            .filter_map(|option| match option {
                QmOption::CiCustom(custom) => Some(custom.snippets()),
                _ => None,
            })
            .flatten()
    }

    /// A drive that names an existing disk of another machine than `vmid`: never let one customer attach another's disk.
    #[must_use]
    pub fn foreign_disk(&self, vmid: Vmid) -> Option<(QmKey, u32)> {
        self.iter().find_map(|option| match option {
            QmOption::Drive(_, _, drive) => drive
                .source
                .owner()
                .filter(|owner| *owner != vmid.get())
                .map(|owner| (option.key(), owner)),
            _ => None,
        })
    }

    fn to_object(&self) -> Value {
        Value::Object(
            self.iter()
                .map(|o| (o.key().to_string(), Value::String(o.value())))
                .collect::<Map<_, _>>(),
        )
    }

    fn add_json(&mut self, key: &str, value: &Value) -> Result<(), ValueError> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_u64() => number.to_string(),
            other => {
                return Err(ValueError::of_json(
                    "option value",
                    other,
                    "a text or a non-negative integer",
                ));
            }
        };
        if self.len() == Self::MAX {
            return Err(ValueError::new(Self::KIND, key, "at most 256 options"));
        }
        self.add(key, &text)
            .map_err(|error| from_qm(key, &text, &error))
    }
}

fn from_qm(key: &str, text: &str, error: &QmError) -> ValueError {
    match error {
        QmError::Key { .. } => ValueError::new("option", key, "not a key of this catalog"),
        QmError::Value { rule, .. } => {
            ValueError::new("option value", &format!("{key}={text}"), rule)
        }
        QmError::Twice { .. } => ValueError::new("option", key, "each key once"),
    }
}

impl Param for QmOptions {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        let map = value
            .as_object()
            .ok_or_else(|| ValueError::of_json(Self::KIND, value, Self::RULE))?;
        if map.is_empty() {
            return Err(ValueError::new(Self::KIND, "{}", "at least one option"));
        }
        let mut options = Self::new();
        for (key, value) in map {
            options.add_json(key, value)?;
        }
        Ok(options)
    }
    fn to_json(&self) -> Option<Value> {
        Some(self.to_object())
    }
    fn schema() -> Value {
        json!({
            "type": "object",
            "minProperties": 1,
            "maxProperties": Self::MAX,
            "propertyNames": {"pattern": KEY_PATTERN},
            "additionalProperties": {"type": ["string", "integer"]},
        })
    }
}

pub(super) const KEY_PATTERN: &str = "^(agent|bios|boot|cicustom|ciuser|cores|cpu|description|machine|memory|name|nameserver|numa|onboot|ostype|scsihw|searchdomain|serial0|sockets|sshkeys|tags|vga|(net|ipconfig|ide|sata|scsi|virtio)[0-9]{1,2})$";

/// Options in the forms of a command line: a flat list `["--memory", "2048"]` or pairs `[["--memory", "2048"]]`.
/// Canonical form: pairs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QmArgs(pub QmOptions);

impl std::ops::Deref for QmArgs {
    type Target = QmOptions;
    fn deref(&self) -> &QmOptions {
        &self.0
    }
}

impl From<QmOptions> for QmArgs {
    fn from(options: QmOptions) -> Self {
        Self(options)
    }
}

impl QmArgs {
    const KIND: &'static str = "argument list";
    const RULE: &'static str = "[\"--key\", \"value\", ...] or [[\"--key\", \"value\"], ...]";
}

impl Param for QmArgs {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        let wrong = |v: &Value| ValueError::of_json(Self::KIND, v, Self::RULE);
        let items = value.as_array().ok_or_else(|| wrong(value))?;
        let pairs: Vec<(&Value, &Value)> = if items.first().is_some_and(Value::is_array) {
            items
                .iter()
                .map(|item| match item.as_array().map(Vec::as_slice) {
                    Some([key, value]) => Ok((key, value)),
                    _ => Err(wrong(item)),
                })
                .collect::<Result<_, _>>()?
        } else {
            let (pairs, rest) = items.as_chunks::<2>();
            if let [odd] = rest {
                return Err(wrong(odd));
            }
            pairs.iter().map(|[key, value]| (key, value)).collect()
        };
        let mut options = QmOptions::new();
        for (key, value) in pairs {
            let key = key
                .as_str()
                .and_then(|k| k.strip_prefix("--"))
                .ok_or_else(|| wrong(key))?;
            options.add_json(key, value)?;
        }
        Ok(Self(options))
    }
    fn to_json(&self) -> Option<Value> {
        Some(
            self.0
                .iter()
                .map(|o| json!([format!("--{}", o.key()), o.value()]))
                .collect(),
        )
    }
    fn schema() -> Value {
        let pair = json!({
            "type": "array", "minItems": 2, "maxItems": 2,
            "prefixItems": [{"type": "string", "pattern": KEY_PATTERN.replacen('^', "^--", 1)}, {"type": ["string", "integer"]}],
        });
        json!({
            "type": "array",
            "oneOf": [{"items": pair, "minItems": 1}, {"items": {"type": ["string", "integer"]}}],
        })
    }
}
