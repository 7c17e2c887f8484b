//! Sets of options, whatever the program that takes them: each key once, in the two JSON forms that clients send (an
//! object, and the arguments of a command line). Which keys there are and what they take is said in [`crate::qm`] and
//! [`crate::pct`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::value::{Param, ValueError};

/// A key that is not in the table, or a value that breaks its key's rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Not an option of this catalog: misspelled, or one that reaches the host.
    #[error("option \"{key}\" is not allowed")]
    Key {
        /// The key, escaped and cut.
        key: String,
    },
    /// The value breaks the key's rule.
    #[error("option {key}: \"{given}\" is refused: {rule}")]
    Value {
        /// The key.
        key: String,
        /// The value, escaped and cut.
        given: String,
        /// The rule, as a phrase.
        rule: &'static str,
    },
    /// The same key twice.
    #[error("option {key} is given twice")]
    Twice {
        /// The key.
        key: String,
    },
}

/// One option with its value, of one program.
pub trait OneOption: Sized + Clone + fmt::Debug + PartialEq + Eq {
    /// Name of an option, with its index where it has one.
    type Key: Copy + Ord + fmt::Debug + fmt::Display;
    /// What a set of them is called in messages.
    const KIND: &'static str;
    /// JSON Schema pattern of the keys that a client may give, from `^` to `$`.
    const KEY_PATTERN: &'static str;
    /// Reads one option. `key` comes without dashes.
    ///
    /// # Errors
    /// [`OptionError`] for a key that is not in the table or a value that breaks its rule.
    fn parse(key: &str, value: &str) -> Result<Self, OptionError>;
    /// The key.
    fn key(&self) -> Self::Key;
    /// The value in canonical form, as it goes to the program.
    fn value(&self) -> String;
    /// False for options that have an action of their own: the backend takes them, a client's set of options does not.
    fn is_for_clients(&self) -> bool {
        true
    }
}

/// A set of options, each key once. In JSON as an object; see also [`Args`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options<O: OneOption>(BTreeMap<O::Key, O>);

impl<O: OneOption> Default for Options<O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<O: OneOption> Options<O> {
    /// How many options one request may hold.
    pub const MAX: usize = 256;
    const RULE: &'static str = "an object of option -> text or integer";

    /// No options.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`OptionError::Twice`] when its key is there already.
    pub fn insert(&mut self, option: O) -> Result<(), OptionError> {
        match self.0.entry(option.key()) {
            Entry::Occupied(old) => Err(OptionError::Twice {
                key: old.key().to_string(),
            }),
            Entry::Vacant(slot) => {
                slot.insert(option);
                Ok(())
            }
        }
    }

    /// Sets one, replacing what stood there: how `qm set` changes a configuration.
    pub fn set(&mut self, option: O) -> Option<O> {
        self.0.insert(option.key(), option)
    }

    /// Parses and adds one; `key` comes without dashes.
    ///
    /// # Errors
    /// [`OptionError`] for a bad key, a bad value, or a key that is there already.
    pub fn add(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        self.insert(O::parse(key, value)?)
    }

    /// The option of that key.
    #[must_use]
    pub fn get(&self, key: O::Key) -> Option<&O> {
        self.0.get(&key)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = &O> {
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

    /// `["--memory", "2048", ...]`, as a command line has them.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        self.iter()
            .flat_map(|option| [format!("--{}", option.key()), option.value()])
            .collect()
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
            return Err(ValueError::new(O::KIND, key, "at most 256 options"));
        }
        let refused = |error: OptionError| refusal(key, &text, &error);
        let option = O::parse(key, &text).map_err(refused)?;
        if !option.is_for_clients() {
            return Err(ValueError::new(
                "option",
                key,
                "set by an action of its own",
            ));
        }
        self.insert(option).map_err(refused)
    }
}

fn refusal(key: &str, text: &str, error: &OptionError) -> ValueError {
    match error {
        OptionError::Key { .. } => ValueError::new("option", key, "not a key of this catalog"),
        OptionError::Value { rule, .. } => {
            ValueError::new("option value", &format!("{key}={text}"), rule)
        }
        OptionError::Twice { .. } => ValueError::new("option", key, "each key once"),
    }
}

impl<O: OneOption> Param for Options<O> {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        let map = value
            .as_object()
            .ok_or_else(|| ValueError::of_json(O::KIND, value, Self::RULE))?;
        if map.is_empty() {
            return Err(ValueError::new(O::KIND, "{}", "at least one option"));
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
            "propertyNames": {"pattern": O::KEY_PATTERN},
            "additionalProperties": {"type": ["string", "integer"]},
        })
    }
}

/// Options in the forms of a command line: a flat list `["--memory", "2048"]` or pairs `[["--memory", "2048"]]`.
/// Canonical form: pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args<O: OneOption>(pub Options<O>);

impl<O: OneOption> std::ops::Deref for Args<O> {
    type Target = Options<O>;
    fn deref(&self) -> &Options<O> {
        &self.0
    }
}

impl<O: OneOption> From<Options<O>> for Args<O> {
    fn from(options: Options<O>) -> Self {
        Self(options)
    }
}

impl<O: OneOption> Default for Args<O> {
    fn default() -> Self {
        Self(Options::new())
    }
}

impl<O: OneOption> Args<O> {
    const KIND: &'static str = "argument list";
    const RULE: &'static str = "[\"--key\", \"value\", ...] or [[\"--key\", \"value\"], ...]";
}

impl<O: OneOption> Param for Args<O> {
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
        let mut options = Options::<O>::new();
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
            "prefixItems": [{"type": "string", "pattern": O::KEY_PATTERN.replacen('^', "^--", 1)}, {"type": ["string", "integer"]}],
        });
        json!({
            "type": "array",
            "oneOf": [{"items": pair, "minItems": 1}, {"items": {"type": ["string", "integer"]}}],
        })
    }
}
