//! `ledger-append`: events that unprivileged services record in their own name.

use serde_json::{Map, Value, json};

use super::{ParamError, action};
use crate::value::{EventName, Param, ValueError};
use crate::{catalog, json as strict};

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
    check |a| {
        if catalog::find(a.action.as_str()).is_some() {
            return Err(ParamError::Together {
                what: format!("an event cannot be called {}: that is an action of the agent", a.action),
            });
        }
        Ok(())
    },
    resource |a| a.resource.as_ref().map_or_else(|| format!("event:{}", a.category), ToString::to_string),
    example r#"{"category": "chain", "action": "subscription-created", "resource": "subscription:7", "data": {"block": 1200, "plan": 1}}"#,
}

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
