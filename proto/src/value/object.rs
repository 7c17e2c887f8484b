//! Objects and lists inside parameters, read strictly: known keys only, each of its own type, errors with the place.
//! Used by the structured values of switches, flows and tunnels; the parameters themselves are the `action!` macro's.

use serde_json::{Map, Value};

use super::{Param, ValueError};
use crate::escape;

/// An object that is being read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object<'a> {
    map: &'a Map<String, Value>,
    kind: &'static str,
}

impl<'a> Object<'a> {
    /// Takes an object that has no other keys than these.
    pub(crate) fn read(
        kind: &'static str,
        rule: &'static str,
        value: &'a Value,
        keys: &[&str],
    ) -> Result<Self, ValueError> {
        let map = value
            .as_object()
            .ok_or_else(|| ValueError::of_json(kind, value, rule))?;
        match map.keys().find(|key| !keys.contains(&key.as_str())) {
            Some(unknown) => Err(ValueError::new(kind, unknown, rule).within("key")),
            None => Ok(Self { map, kind }),
        }
    }

    /// The value under a key, untyped.
    pub(crate) fn raw(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    /// A value that may be missing.
    pub(crate) fn get<T: Param>(&self, key: &str) -> Result<Option<T>, ValueError> {
        self.raw(key)
            .map(|value| T::from_json(value).map_err(|error| error.within(key)))
            .transpose()
    }

    /// A value that has to be there.
    pub(crate) fn need<T: Param>(&self, key: &'static str) -> Result<T, ValueError> {
        self.get(key)?.ok_or_else(|| {
            ValueError::new(self.kind, key, "this key must be there").within("missing key")
        })
    }
}

/// A list of one kind, at most `max` long; errors say at which position.
fn list<T: Param>(
    kind: &'static str,
    rule: &'static str,
    max: usize,
    value: &Value,
) -> Result<Vec<T>, ValueError> {
    let items = value
        .as_array()
        .ok_or_else(|| ValueError::of_json(kind, value, rule))?;
    if items.len() > max {
        let count = escape::shown(&format!("{} entries", items.len()));
        return Err(ValueError::new(kind, &count, rule));
    }
    items
        .iter()
        .enumerate()
        .map(|(at, item)| T::from_json(item).map_err(|error| error.within(&format!("entry {at}"))))
        .collect()
}

/// Something that is a list in JSON.
pub(crate) trait List: Sized {
    const KIND: &'static str;
    const RULE: &'static str;
    const MAX: usize;
    type Item: Param;
    /// Checks what concerns more than one entry, and takes them.
    fn from_items(items: Vec<Self::Item>) -> Result<Self, ValueError>;
    fn items(&self) -> &[Self::Item];
}

/// The entries in order, refused when one stands twice.
pub(crate) fn each_once<L: List>(mut items: Vec<L::Item>) -> Result<Vec<L::Item>, ValueError>
where
    L::Item: Ord + std::fmt::Display,
{
    items.sort_unstable();
    match items.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(ValueError::new(L::KIND, &pair[0].to_string(), L::RULE)),
        None => Ok(items),
    }
}

impl<L: List> Param for L {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        Self::from_items(list(Self::KIND, Self::RULE, Self::MAX, value)?)
    }
    fn to_json(&self) -> Option<Value> {
        Some(self.items().iter().filter_map(Param::to_json).collect())
    }
    fn schema() -> Value {
        serde_json::json!({"type": "array", "maxItems": Self::MAX, "items": L::Item::schema()})
    }
}

/// A closed set of words: type, reading, printing, schema.
macro_rules! choice {
    ($(#[doc = $doc:literal])+ $Name:ident, $kind:literal, $rule:literal, { $($(#[doc = $vdoc:literal])+ $Variant:ident = $word:literal),+ $(,)? }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $Name { $($(#[doc = $vdoc])+ $Variant),+ }

        impl $Name {
            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$Variant => $word),+ }
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }

        impl $crate::value::Text for $Name {
            const KIND: &'static str = $kind;
            const RULE: &'static str = $rule;
            fn read(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$Variant),)+ _ => None }
            }
            fn text_schema() -> serde_json::Value {
                serde_json::json!({"type": "string", "enum": [$($word),+]})
            }
        }

        $crate::value::text_value!($Name);
    };
}

pub(crate) use choice;
