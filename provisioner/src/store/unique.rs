//! Reading of maps that refuses a key given twice, where serde would silently keep the last. The strict parser of what comes
//! from clients does the same, but has a limit on the number of values that a database outgrows.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

/// A map that says whether a key was new.
pub(crate) trait Keyed: Default {
    /// What it holds.
    type Value;
    /// False when the key was there.
    fn put(&mut self, key: String, value: Self::Value) -> bool;
}

impl<V> Keyed for BTreeMap<String, V> {
    type Value = V;
    fn put(&mut self, key: String, value: V) -> bool {
        self.insert(key, value).is_none()
    }
}

impl Keyed for Map<String, Value> {
    type Value = Value;
    fn put(&mut self, key: String, value: Value) -> bool {
        self.insert(key, value).is_none()
    }
}

/// For `deserialize_with`.
pub(crate) fn unique<'de, D, M>(input: D) -> Result<M, D::Error>
where
    D: Deserializer<'de>,
    M: Keyed,
    M::Value: Deserialize<'de>,
{
    input.deserialize_map(Unique(PhantomData))
}

struct Unique<M>(PhantomData<M>);

impl<'de, M> Visitor<'de> for Unique<M>
where
    M: Keyed,
    M::Value: Deserialize<'de>,
{
    type Value = M;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<M, A::Error> {
        let mut map = M::default();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value()?;
            if !map.put(key, value) {
                return Err(A::Error::custom("a key stands twice"));
            }
        }
        Ok(map)
    }
}
