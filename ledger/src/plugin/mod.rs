//! From what a part of the product knows (a bridge was made, a machine was changed, a subscription came) to the event that
//! the ledger holds of it: one shape, one resource, no secrets. A plugin per domain, in `builtin`; a category that none of
//! them knows is kept as it is. Who writes events (the engine, the importer) asks [`Registry`] and sends the result with
//! the action `ledger-append`; nothing here writes.

mod builtin;
mod secrets;

pub use builtin::{Domain, chain, compute, network, settings, storage, users};
pub use secrets::{is_secret_key, redact};

use serde_json::{Map, Value};

/// Bytes that the metadata of an event may take as JSON: what `ledger-append` takes.
pub const MAX_BYTES: usize = 16_384;
/// Arrays and objects in the metadata may be nested this deep, the metadata included.
pub const MAX_DEPTH: usize = 8;
/// Integers beyond are not the same number in every program that reads JSON.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Something new is there.
    Create,
    /// Something is different.
    Modify,
    /// Something is gone.
    Delete,
    /// A wanted state was brought about.
    Apply,
    /// Something was looked at.
    Query,
}

impl Operation {
    /// The word in the record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Modify => "modify",
            Self::Delete => "delete",
            Self::Apply => "apply",
            Self::Query => "query",
        }
    }

    /// From a word, also as names of events have it (`created`, `client_configured`); `None` if it says nothing of this.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        let last = word.rsplit(['_', '-', '.']).next().unwrap_or(word);
        let stem = last.to_ascii_lowercase();
        Some(match stem.as_str() {
            "create" | "created" | "add" | "added" | "allocated" | "minted" | "granted"
            | "mounted" | "integrated" | "imported" | "login" => Self::Create,
            "modify" | "modified" | "update" | "updated" | "change" | "changed" | "extended"
            | "renamed" | "configured" | "resized" => Self::Modify,
            "delete" | "deleted" | "remove" | "removed" | "destroyed" | "released" | "revoked"
            | "unmounted" | "cancelled" | "expired" | "logout" => Self::Delete,
            "apply" | "applied" => Self::Apply,
            "query" | "queried" | "collected" | "read" | "checked" | "verified" => Self::Query,
            _ => return None,
        })
    }
}

/// An event that the ledger will take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Category of the record.
    pub category: String,
    /// What happened.
    pub action: String,
    /// What it happened to: `bridge:ovsbr0`.
    pub resource: Option<String>,
    /// What was done; in the metadata as `operation`.
    pub operation: Operation,
    /// The details, with `plugin` and `operation` in them.
    pub metadata: Map<String, Value>,
}

impl Event {
    /// Says whether the agent would take it, as far as that can be known here.
    ///
    /// # Errors
    /// [`PluginError`], saying where.
    pub fn check(&self) -> Result<(), PluginError> {
        check(self)
    }

    /// The parameters of `ledger-append`.
    #[must_use]
    pub fn params(&self) -> Value {
        let mut params = serde_json::json!({
            "category": self.category,
            "action": self.action,
            "data": self.metadata,
        });
        if let Some(resource) = &self.resource {
            params["resource"] = resource.as_str().into();
        }
        params
    }
}

/// Why data is no event. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// A field has the wrong shape.
    #[error("{path}: {rule}")]
    Shape {
        /// Where, from the top: `actions[0].Create.resource`.
        path: String,
        /// What it has to be.
        rule: &'static str,
    },
    /// Secrets are never written: the history cannot forget them.
    #[error(
        "{path} is a secret, which the ledger must not hold: leave it out, or say only that it was set"
    )]
    Secret {
        /// Where.
        path: String,
    },
    /// It would not fit into a record.
    #[error("the data has {bytes} bytes as JSON; an event has at most {MAX_BYTES}")]
    Size {
        /// How many.
        bytes: usize,
    },
}

impl PluginError {
    pub(crate) fn shape(path: impl Into<String>, rule: &'static str) -> Self {
        let path = path.into();
        Self::Shape { path, rule }
    }
}

/// Turns the data of one domain into events.
pub trait LedgerPlugin: Send + Sync {
    /// Its name, also the category of its events.
    fn name(&self) -> &str;

    /// Words for what it handles, its own name among them: `bridge`, `lxc`, `netmaker`.
    fn categories(&self) -> &[&str];

    /// The events that this data stands for: one for `{action, data}`, one for each entry of `{actions}`.
    ///
    /// # Errors
    /// [`PluginError`]; then none of it is an event.
    fn process_data(&self, data: &Value) -> Result<Vec<Event>, PluginError>;

    /// Says whether [`process_data`](Self::process_data) would take it.
    ///
    /// # Errors
    /// [`PluginError`].
    fn validate_data(&self, data: &Value) -> Result<(), PluginError> {
        self.process_data(data).map(|_| ())
    }
}

/// The plugins there are.
pub struct Registry {
    plugins: Vec<Box<dyn LedgerPlugin>>,
}

impl Default for Registry {
    /// compute, network, settings, users, storage and chain.
    fn default() -> Self {
        let mut registry = Self {
            plugins: Vec::new(),
        };
        for domain in [
            compute(),
            network(),
            settings(),
            users(),
            storage(),
            chain(),
        ] {
            registry.add(Box::new(domain));
        }
        registry
    }
}

impl Registry {
    /// Adds a plugin; it goes before the ones that are there where they know the same word.
    pub fn add(&mut self, plugin: Box<dyn LedgerPlugin>) {
        self.plugins.insert(0, plugin);
    }

    /// The plugin for a category, if there is one.
    #[must_use]
    pub fn find(&self, category: &str) -> Option<&dyn LedgerPlugin> {
        let mut plugins = self.plugins.iter().map(Box::as_ref);
        plugins.find(|plugin| plugin.categories().contains(&category))
    }

    /// The events for data of this category. One that no plugin knows is kept under its own name: what is new to us
    /// happened all the same.
    ///
    /// # Errors
    /// [`PluginError`].
    pub fn process(&self, category: &str, data: &Value) -> Result<Vec<Event>, PluginError> {
        let mut events = match self.find(category) {
            Some(plugin) => plugin.process_data(data)?,
            None => builtin::free(category)?.process_data(data)?,
        };
        for event in &mut events {
            if event.category != category {
                let kind = || category.into();
                event.metadata.entry("kind").or_insert_with(kind);
            }
            check(event)?;
        }
        Ok(events)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.plugins.iter().map(|plugin| plugin.name());
        f.debug_list().entries(names).finish()
    }
}

/// What the agent would refuse is refused here, saying where; also what only a plugin of somebody else could do.
fn check(event: &Event) -> Result<(), PluginError> {
    for (field, name) in [("category", &event.category), ("action", &event.action)] {
        if !is_name(name) {
            return Err(PluginError::shape(field, NAME_RULE));
        }
    }
    let printable = |resource: &String| {
        (1..=128).contains(&resource.len()) && resource.bytes().all(|b| b.is_ascii_graphic())
    };
    if !event.resource.as_ref().is_none_or(printable) {
        return Err(PluginError::shape(
            "resource",
            "1 to 128 printable ASCII characters without spaces",
        ));
    }
    if let Some(path) = secrets::find(&event.metadata) {
        return Err(PluginError::Secret { path });
    }
    for (key, value) in &event.metadata {
        check_key(key, key)?;
        check_value(value, key, 2)?;
    }
    let bytes = Value::Object(event.metadata.clone()).to_string().len();
    if bytes > MAX_BYTES {
        return Err(PluginError::Size { bytes });
    }
    Ok(())
}

/// What [`is_name`] wants.
const NAME_RULE: &str = "a letter or digit, then up to 63 of a-z, 0-9, _ . and -";

/// Names of events as the agent takes them.
fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b);
    (1..=64).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with(['_', '.', '-'])
}

fn check_key(key: &str, path: &str) -> Result<(), PluginError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    if (1..=64).contains(&key.len()) && key.bytes().all(good) {
        Ok(())
    } else {
        let path = path.escape_debug().to_string();
        Err(PluginError::shape(
            path,
            "keys have 1 to 64 of A-Z, a-z, 0-9, _ . : and -",
        ))
    }
}

fn check_value(value: &Value, path: &str, depth: usize) -> Result<(), PluginError> {
    if depth > MAX_DEPTH {
        return Err(PluginError::shape(path, "nested at most 8 deep"));
    }
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => {
            let size = number
                .as_u64()
                .or_else(|| number.as_i64().map(i64::unsigned_abs));
            if size.is_some_and(|size| size <= MAX_INTEGER) {
                Ok(())
            } else {
                Err(PluginError::shape(
                    path,
                    "integers within 2^53-1; write other numbers as text",
                ))
            }
        }
        Value::String(text) if text.contains(['\0', '\u{7f}']) => {
            Err(PluginError::shape(path, "text without NUL and U+007F"))
        }
        Value::String(_) => Ok(()),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(at, item)| check_value(item, &format!("{path}[{at}]"), depth + 1)),
        Value::Object(map) => map.iter().try_for_each(|(key, item)| {
            let path = format!("{path}.{key}");
            check_key(key, &path)?;
            check_value(item, &path, depth + 1)
        }),
    }
}
