//! One record as numbers and hashes: what the features need, read in one pass over its bytes without keeping any text.
//! The bytes may be anything; what is not understood is left at zero.

use super::math::{hash, pair};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::net::IpAddr;

/// Most key paths that are told apart within one record.
const MAX_PATHS: usize = 64;

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Bytes of the record.
    pub(crate) bytes: usize,
    /// Seconds since 1970 UTC.
    pub(crate) time_s: i64,
    pub(crate) phase: u64,
    pub(crate) op_id: u64,
    pub(crate) plugin: u64,
    pub(crate) category: u64,
    pub(crate) operation: u64,
    pub(crate) action: u64,
    /// Whole resource, and its kind: `vm` of `vm:100`, and its number.
    pub(crate) resource: u64,
    pub(crate) class: u64,
    pub(crate) number: Option<u64>,
    pub(crate) uid: u64,
    pub(crate) user: u64,
    /// Program or unit that asked.
    pub(crate) caller: u64,
    pub(crate) meta: Meta,
}

/// What its metadata (or payload) looks like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    pub(crate) is_object: bool,
    pub(crate) keys: u32,
    pub(crate) strings: u32,
    pub(crate) numbers: u32,
    pub(crate) bools: u32,
    pub(crate) nulls: u32,
    pub(crate) lists: u32,
    pub(crate) depth: u32,
    /// Members of its longest list.
    pub(crate) longest: u32,
    /// Hash over its set of key paths.
    pub(crate) key_set: u64,
    /// Different key paths, at most [`MAX_PATHS`].
    pub(crate) paths: Vec<u64>,
    /// Bits of freedom in the widest address range that it names, of 32.
    pub(crate) range_bits: u32,
    pub(crate) ranges: u32,
    pub(crate) tenant: u64,
    pub(crate) failed: bool,
    pub(crate) has_result: bool,
    pub(crate) has_right: bool,
    pub(crate) other_socket: bool,
    pub(crate) duration_us: Option<u64>,
}

impl Facts {
    /// Reads a record. One that is not JSON, or nested deeper than serde_json goes, is only its length.
    #[must_use]
    pub fn read(record: &[u8]) -> Self {
        let mut facts = Self::default();
        let mut deserializer = serde_json::Deserializer::from_slice(record);
        if deserializer.deserialize_any(Top(&mut facts)).is_err() || deserializer.end().is_err() {
            facts = Self::default();
        }
        facts.bytes = record.len();
        facts
    }

    fn text(&mut self, field: &str, text: &str) {
        let hashed = hash(text.as_bytes());
        match field {
            "phase" => self.phase = hashed,
            "plugin_id" => self.plugin = hashed,
            // The highest bit is free for who keeps other keys beside it.
            "op_id" if !text.is_empty() => self.op_id = (hashed >> 1).max(1),
            "category" => self.category = hashed,
            "operation" => self.operation = hashed,
            "action" => self.action = hashed,
            "user" => self.user = hashed,
            "exe" => self.caller = pair(self.caller, hashed),
            "unit" => self.caller = pair(hashed, self.caller),
            "resource" if !text.is_empty() => {
                self.resource = hashed;
                let class = text.split(':').next().unwrap_or_default();
                self.class = hash(class.as_bytes());
                let tail = text.rsplit(|c: char| !c.is_ascii_digit()).next();
                self.number = tail.and_then(|digits| digits.parse().ok());
            }
            _ => {}
        }
    }
}

struct Top<'a>(&'a mut Facts);

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Name)? {
            match name.as_str() {
                "metadata" | "payload" => map.next_value_seed(Walk::top(&mut self.0.meta))?,
                "timestamp" => {
                    let number = map.next_value_seed(Scalar(None))?;
                    self.0.time_s = number.unwrap_or(0);
                }
                "uid" => {
                    let number = map.next_value_seed(Scalar(None))?;
                    self.0.uid = number.unwrap_or(0).cast_unsigned();
                }
                field @ ("phase" | "op_id" | "plugin_id" | "category" | "operation" | "action"
                | "user" | "exe" | "unit" | "resource") => {
                    map.next_value_seed(Scalar(Some((&mut *self.0, field))))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A member's name; those that mean nothing here come out empty.
struct Name;

/// A short name without an allocation.
struct ShortName([u8; 16], usize);

impl ShortName {
    /// A name too long to mean anything here is empty.
    fn of(text: &str) -> Self {
        let mut name = Self([0; 16], 0);
        if let Some(room) = name.0.get_mut(..text.len()) {
            room.copy_from_slice(text.as_bytes());
            name.1 = text.len();
        }
        name
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.0.get(..self.1).unwrap_or_default()).unwrap_or_default()
    }
}

impl<'de> DeserializeSeed<'de> for Name {
    type Value = ShortName;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ShortName, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = ShortName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, text: &str) -> Result<ShortName, E> {
        Ok(ShortName::of(text))
    }
}

/// A number, or a text that goes to its field; anything else means nothing.
struct Scalar<'a, 'b>(Option<(&'a mut Facts, &'b str)>);

impl<'de> DeserializeSeed<'de> for Scalar<'_, '_> {
    type Value = Option<i64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar<'_, '_> {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        if let Some((facts, field)) = self.0 {
            facts.text(field, text);
        }
        Ok(None)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).ok())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// Walks through metadata, counting.
struct Walk<'a> {
    meta: &'a mut Meta,
    path: u64,
    depth: u32,
    name: ShortName,
}

impl<'a> Walk<'a> {
    fn top(meta: &'a mut Meta) -> Self {
        Self {
            meta,
            path: 1,
            depth: 0,
            name: ShortName([0; 16], 0),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A member's name and the hash of all of it.
struct HashedName;

impl<'de> DeserializeSeed<'de> for HashedName {
    type Value = (u64, ShortName);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for HashedName {
    type Value = (u64, ShortName);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok((hash(text.as_bytes()), ShortName::of(text)))
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let meta = self.meta;
        meta.is_object |= self.depth == 0;
        meta.depth = meta.depth.max(self.depth + 1);
        while let Some((hashed, name)) = map.next_key_seed(HashedName)? {
            let path = pair(self.path, hashed);
            meta.keys = meta.keys.saturating_add(1);
            if self.depth == 0 {
                meta.has_right |= name.as_str() == "right";
                meta.has_result |= matches!(name.as_str(), "result" | "code");
            }
            meta.other_socket |= name.as_str() == "socket" && self.depth == 1;
            if meta.paths.len() < MAX_PATHS && !meta.paths.contains(&path) {
                meta.paths.push(path);
                meta.key_set = meta.key_set.wrapping_add(path);
            }
            map.next_value_seed(Walk {
                meta: &mut *meta,
                path,
                depth: self.depth + 1,
                name,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let meta = self.meta;
        meta.depth = meta.depth.max(self.depth + 1);
        meta.lists = meta.lists.saturating_add(1);
        let mut members = 0_u32;
        loop {
            let member = Walk {
                meta: &mut *meta,
                path: pair(self.path, 2),
                depth: self.depth + 1,
                name: ShortName([0; 16], 0),
            };
            if list.next_element_seed(member)?.is_none() {
                break;
            }
            members = members.saturating_add(1);
        }
        meta.longest = meta.longest.max(members);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.meta.strings = self.meta.strings.saturating_add(1);
        if self.depth == 1 {
            match self.name.as_str() {
                "result" => self.meta.failed |= text != "ok",
                "code" => self.meta.failed = true,
                "tenant" => self.meta.tenant = hash(text.as_bytes()),
                _ => {}
            }
        }
        if let Some(bits) = range_bits(text) {
            self.meta.range_bits = self.meta.range_bits.max(bits);
            self.meta.ranges = self.meta.ranges.saturating_add(1);
        }
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.meta.numbers = self.meta.numbers.saturating_add(1);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.meta.numbers = self.meta.numbers.saturating_add(1);
        if self.depth == 1 && self.name.as_str() == "duration_us" {
            self.meta.duration_us = Some(number);
        }
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.meta.numbers = self.meta.numbers.saturating_add(1);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.meta.bools = self.meta.bools.saturating_add(1);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.meta.nulls = self.meta.nulls.saturating_add(1);
        Ok(())
    }
}

/// Bits left free by `address/prefix`, scaled to 32 for both families.
fn range_bits(text: &str) -> Option<u32> {
    // An IPv6 address has at most 45 characters.
    let (address, prefix) = text.get(..text.len().min(50))?.split_once('/')?;
    let prefix: u32 = prefix.parse().ok()?;
    match address.parse().ok()? {
        IpAddr::V4(_) => 32_u32.checked_sub(prefix),
        IpAddr::V6(_) => 128_u32.checked_sub(prefix).map(|bits| bits / 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_its_fields_and_the_shape_of_its_metadata() {
        let record = br#"{"action":"iptables-open","exe":"/usr/bin/x","height":1,"metadata":{"a":{"b":[1,2,null]},"duration_us":5,"ok":true,"source":"10.0.0.0/8","tenant":"t1"},"operation":"create","phase":"intent","plugin_id":"net","resource":"port:443/tcp:7","timestamp":1700000000,"uid":5,"user":"bob"}"#;
        let facts = Facts::read(record);
        assert_eq!(
            (facts.time_s, facts.uid, facts.number),
            (1_700_000_000, 5, Some(7))
        );
        assert_eq!(facts.class, hash(b"port"));
        let meta = &facts.meta;
        assert_eq!(
            (
                meta.keys,
                meta.strings,
                meta.numbers,
                meta.bools,
                meta.nulls,
                meta.longest
            ),
            (6, 2, 3, 1, 1, 3)
        );
        assert_eq!(
            (meta.range_bits, meta.depth, meta.duration_us),
            (24, 3, Some(5))
        );
        assert_eq!(meta.tenant, hash(b"t1"));
    }

    #[test]
    fn anything_that_is_no_record_is_only_its_length() {
        let deep = [vec![b'['; 5000], vec![b']'; 5000]].concat();
        for bytes in [
            &b""[..],
            b"{",
            b"[1]",
            b"{\"metadata\":1e999}",
            b"\xff\xfe",
            &deep,
        ] {
            let facts = Facts::read(bytes);
            assert_eq!(
                facts,
                Facts {
                    bytes: bytes.len(),
                    ..Facts::default()
                }
            );
        }
    }

    #[test]
    fn only_address_ranges_count_as_ranges() {
        assert_eq!(range_bits("0.0.0.0/0"), Some(32));
        assert_eq!(range_bits("::/0"), Some(32));
        assert_eq!(range_bits("10.0.0.7/32"), Some(0));
        for text in [
            "10.0.0.0/33",
            "/0",
            "a/0",
            "10.0.0.0/-1",
            "\u{e9}".repeat(40).as_str(),
        ] {
            assert_eq!(range_bits(text), None, "{text}");
        }
    }
}
