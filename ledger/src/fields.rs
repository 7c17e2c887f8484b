//! The fields of a record that questions are about, read from its bytes: by `query` to judge a record, by the index to
//! know it, by `stats` to count it. As records are canonical, most of a parser is not needed.

use serde::Deserialize;
use std::borrow::Cow;

/// The fields of a record that questions are about, borrowed from its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Fields<'a> {
    /// Microseconds since 1970 UTC.
    pub ts_us: i64,
    /// Why it was written.
    #[serde(borrow)]
    pub phase: Cow<'a, str>,
    /// Part of the product.
    #[serde(borrow)]
    pub plugin_id: Cow<'a, str>,
    /// Its category.
    #[serde(borrow)]
    pub category: Cow<'a, str>,
    /// create, modify, delete, apply, query.
    #[serde(borrow)]
    pub operation: Cow<'a, str>,
    /// Catalog action or name of the event.
    #[serde(borrow)]
    pub action: Cow<'a, str>,
    /// What it acts on.
    #[serde(borrow)]
    pub resource: Cow<'a, str>,
    /// Who asked.
    #[serde(borrow)]
    pub user: Cow<'a, str>,
    /// Joins intent and outcome; empty without.
    #[serde(borrow)]
    pub op_id: Cow<'a, str>,
}

impl<'a> Fields<'a> {
    /// Reads the fields. Bytes that are no such record have only empty ones: they are still found by height and hash.
    #[must_use]
    pub fn of(record: &'a [u8]) -> Self {
        let canonical = Self::of_canonical(record);
        canonical.unwrap_or_else(|| serde_json::from_slice(record).unwrap_or_default())
    }

    /// Reads them from a record as they are written, passing over what is not asked for; several times as fast as a
    /// parser. `None` for whatever needs one.
    fn of_canonical(record: &'a [u8]) -> Option<Self> {
        let mut fields = Self::default();
        let mut rest = record.strip_prefix(b"{")?;
        let mut last: &[u8] = b"";
        loop {
            let (key, after) = plain_text(rest)?;
            rest = after.strip_prefix(b":")?;
            // As they are sorted, none is there twice.
            if key <= last {
                return None;
            }
            last = key;
            let place = match key {
                b"phase" => Some(&mut fields.phase),
                b"plugin_id" => Some(&mut fields.plugin_id),
                b"category" => Some(&mut fields.category),
                b"operation" => Some(&mut fields.operation),
                b"action" => Some(&mut fields.action),
                b"resource" => Some(&mut fields.resource),
                b"user" => Some(&mut fields.user),
                b"op_id" => Some(&mut fields.op_id),
                _ => None,
            };
            rest = match place {
                Some(place) => {
                    let (text, after) = plain_text(rest)?;
                    *place = Cow::Borrowed(std::str::from_utf8(text).ok()?);
                    after
                }
                None if key == b"ts_us" => {
                    let (number, after) = integer(rest)?;
                    fields.ts_us = number;
                    after
                }
                None => behind_value(rest)?,
            };
            match rest {
                b"}" => return Some(fields),
                [b',', after @ ..] => rest = after,
                _ => return None,
            }
        }
    }
}

/// The text that stands here in quotes, without any escape, and what is behind it.
fn plain_text(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = rest.strip_prefix(b"\"")?;
    let end = memchr::memchr2(b'"', b'\\', rest)?;
    let text = &rest[..end];
    let plain = rest[end] == b'"' && text.iter().all(|b| *b >= 0x20);
    plain.then(|| (text, &rest[end + 1..]))
}

fn integer(rest: &[u8]) -> Option<(i64, &[u8])> {
    let digits = rest
        .iter()
        .take_while(|b| b.is_ascii_digit() || **b == b'-');
    let (text, after) = rest.split_at(digits.count());
    // The one way of writing it that JSON has.
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let plain = text != b"-0" && !text.starts_with(b"0") && !text.starts_with(b"-0");
    (plain || text == b"0").then_some((number, after))
}

/// What stands behind the value that stands here. Of lists and objects only the brackets are looked at.
fn behind_value(rest: &[u8]) -> Option<&[u8]> {
    match rest.first()? {
        b'"' => behind_text(rest),
        b'{' | b'[' => {
            let (mut rest, mut depth) = (rest, 0_usize);
            loop {
                let next = rest.iter().position(|b| b"\"{}[]".contains(b))?;
                rest = &rest[next..];
                match rest.first()? {
                    b'"' => {
                        rest = behind_text(rest)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    _ => depth -= 1,
                }
                rest = &rest[1..];
                if depth == 0 {
                    return Some(rest);
                }
            }
        }
        b'-' | b'0'..=b'9' => Some(integer(rest)?.1),
        _ => [&b"true"[..], b"false", b"null"]
            .iter()
            .find_map(|word| rest.strip_prefix(*word)),
    }
}

fn behind_text(rest: &[u8]) -> Option<&[u8]> {
    let mut rest = rest.strip_prefix(b"\"")?;
    loop {
        let end = memchr::memchr2(b'"', b'\\', rest)?;
        if rest[end] == b'"' {
            return Some(&rest[end + 1..]);
        }
        rest = rest.get(end + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    #[test]
    fn fields_are_read_beside_metadata_that_imitates_them() {
        let record = br#"{"action":"a\"b","category":"net","height":1,"metadata":{"category":"x","user":"root","deep":[{"phase":"y"}]},"operation":"create","phase":"event","plugin_id":"event","resource":"vm:1","ts_us":5,"user":"bob","v":1}"#;
        let fields = Fields::of(record);
        assert_eq!(
            (&*fields.action, &*fields.category, &*fields.user),
            ("a\"b", "net", "bob")
        );
        assert_eq!(
            (&*fields.phase, &*fields.op_id, fields.ts_us),
            ("event", "", 5)
        );
        assert_eq!(Fields::of(b"{\"user\":1}"), Fields::default());
        assert_eq!(Fields::of(b"\xff"), Fields::default());
    }

    fn parsed(record: &[u8]) -> Option<Fields<'_>> {
        serde_json::from_slice(record).ok()
    }

    #[test]
    fn a_record_as_it_is_written_needs_no_parser() {
        let record = br#"{"action":"qm-create","category":"compute","exe":"a\"b","metadata":{"args":["[","}\"",[{}]],"n":-1},"op_id":"1","operation":"create","phase":"intent","pid":4,"plugin_id":"qm","resource":"vm:1","timestamp":-7,"ts_us":-7000000,"unit":null,"user":"b","v":1}"#;
        let fields = Fields::of_canonical(record);
        assert!(fields.is_some());
        assert_eq!(fields, parsed(record));
        // Out of order, twice, cut off, followed by more: for a parser to judge.
        for other in [
            &br#"{"user":"a","action":"b"}"#[..],
            br#"{"user":"a","user":"b"}"#,
            br#"{"user":"a"} "#,
            br#"{"user":"a"}}"#,
            br#"{"ts_us":05,"user":"a"}"#,
            br#"{"user":"a""#,
            br#"{"user":"a\nb"}"#,
            b"{\"user\":\"a\nb\"}",
            b"{}",
        ] {
            assert_eq!(
                Fields::of_canonical(other),
                None,
                "{}",
                other.escape_ascii()
            );
        }
    }

    /// Names that mean something and a few that do not; texts with what has to be escaped and what looks like JSON.
    fn record() -> impl Strategy<Value = Map<String, Value>> {
        let name = prop::sample::select(vec![
            "action",
            "category",
            "exe",
            "height",
            "metadata",
            "op_id",
            "operation",
            "phase",
            "plugin_id",
            "resource",
            "ts_us",
            "user",
            "x",
        ]);
        let text = "[a-z\"\\\\{}\\[\\],:\n\u{e9}]{0,6}".prop_map(Value::from);
        let leaf = prop_oneof![
            3 => text,
            1 => (-1000_i64..1000).prop_map(Value::from),
            1 => Just(Value::Null),
            1 => any::<bool>().prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(3, 20, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-z]{1,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        prop::collection::vec((name, value), 0..9).prop_map(|members| {
            members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn both_ways_of_reading_a_record_agree(record in record(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let bytes = crate::jcs::to_vec(&json!(record)).expect("integers only");
            if let Some(fields) = Fields::of_canonical(&bytes) {
                prop_assert_eq!(Some(fields), parsed(&bytes));
            }
            // Of what somebody changed, nothing else is read than a parser would; it may refuse to read it at all.
            let mut changed = bytes;
            let at = at.index(changed.len());
            changed[at] = with;
            if let (Some(fields), Some(parsed)) = (Fields::of_canonical(&changed), parsed(&changed)) {
                prop_assert_eq!(fields, parsed);
            }
        }
    }
}
