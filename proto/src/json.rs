//! Strict JSON: what serde_json alone would let through (duplicate keys, a byte-order mark, deep nesting, floods of tiny
//! values) is refused here. Every JSON text from outside comes in through [`parse`]; typed decoding builds on its result.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::escape;

/// Arrays and objects may be nested this deep, the outermost included.
pub const MAX_DEPTH: usize = 16;
/// One text may hold this many values: a frame of `[0,0,0,...` must not grow sixteenfold in memory.
pub const MAX_VALUES: usize = 65_536;

/// Why a text is not acceptable JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text starts with U+FEFF.
    #[error("starts with a byte-order mark; send plain UTF-8")]
    ByteOrderMark,
    /// Not UTF-8, from this byte on.
    #[error("not UTF-8 from byte {at}")]
    NotUtf8 {
        /// Offset of the first bad byte.
        at: usize,
    },
    /// Syntax error, duplicate key, nesting or size; the text says which and where.
    #[error("{what} (line {line}, column {column})")]
    Invalid {
        /// What is wrong, with foreign text escaped and cut.
        what: String,
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
}

/// Parses one JSON text that fills `bytes`.
///
/// # Errors
/// [`JsonError`] for anything but exactly one strict JSON value. Numbers that are not integers of 64 bits come out as
/// floats, which no typed parameter accepts as an integer.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(JsonError::ByteOrderMark);
    }
    let text = std::str::from_utf8(bytes).map_err(|e| JsonError::NotUtf8 {
        at: e.valid_up_to(),
    })?;
    let count = Cell::new(0);
    let mut input = serde_json::Deserializer::from_str(text);
    let value = Strict {
        depth: 0,
        count: &count,
    }
    .deserialize(&mut input)
    .map_err(|e| invalid(&e))?;
    input.end().map_err(|e| invalid(&e))?;
    Ok(value)
}

fn invalid(error: &serde_json::Error) -> JsonError {
    let text = error.to_string();
    let what = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(what, _)| what);
    // Our own messages quote keys already escaped; serde's quote nothing of the input.
    let mut what: String = what.chars().filter(|c| matches!(c, ' '..='~')).collect();
    escape::cut(&mut what, 200);
    JsonError::Invalid {
        what,
        line: error.line(),
        column: error.column(),
    }
}

/// What kind of JSON value this is, for messages.
#[must_use]
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a number that is not an integer of 64 bits",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    count: &'a Cell<usize>,
}

impl Strict<'_> {
    fn enter<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self {
            depth: self.depth + 1,
            count: self.count,
        })
    }

    fn counted<E: serde::de::Error>(self, value: Value) -> Result<Value, E> {
        let count = self.count.get() + 1;
        self.count.set(count);
        if count > MAX_VALUES {
            return Err(E::custom(format_args!("more than {MAX_VALUES} values")));
        }
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.counted(Value::Null)
    }
    fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<Value, E> {
        self.counted(Value::Bool(v))
    }
    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Value, E> {
        self.counted(Value::from(v))
    }
    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Value, E> {
        self.counted(Value::from(v))
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        self.counted(Value::from(v))
    }
    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Value, E> {
        self.counted(Value::from(v))
    }
    fn visit_string<E: serde::de::Error>(self, v: String) -> Result<Value, E> {
        self.counted(Value::from(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.enter()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        self.counted(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.enter()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!(
                    "key \"{}\" appears twice",
                    escape::shown(&key)
                )));
            }
            let value = entries.next_value_seed(inner)?;
            map.insert(key, value);
        }
        self.counted(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn as_many_values_as_the_limit_says_and_not_one_more() {
        // The list itself is one.
        let list = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert!(parse(list(MAX_VALUES - 1).as_bytes()).is_ok());
        assert!(refusal(&list(MAX_VALUES)).contains("values"));
    }

    #[test]
    fn every_kind_of_value_comes_through_as_it_is_and_is_called_by_its_name() {
        for (text, name) in [
            ("null", "null"),
            ("true", "a boolean"),
            ("-5", "an integer"),
            ("18446744073709551615", "an integer"),
            ("\"a\\nb\"", "a string"),
            ("[1]", "an array"),
            ("{\"a\":1}", "an object"),
        ] {
            let value = parse(text.as_bytes()).unwrap();
            assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
            assert_eq!(kind(&value), name);
        }
        assert_eq!(
            kind(&Value::from(1.5)),
            "a number that is not an integer of 64 bits"
        );
    }

    #[test]
    fn duplicate_keys_are_refused_at_every_level_even_when_spelled_differently() {
        assert!(refusal(r#"{"a":1,"a":1}"#).contains("appears twice"));
        assert!(refusal(r#"{"x":[{"b":1,"b":2}]}"#).contains("appears twice"));
        assert!(refusal(r#"{"vmid":1,"\u0076mid":2}"#).contains("appears twice"));
    }

    #[test]
    fn depth_sixteen_is_accepted_and_seventeen_is_not() {
        let nest = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(nest(16).as_bytes()).is_ok());
        assert!(refusal(&nest(17)).contains("nested deeper"));
        assert!(parse("[".repeat(1 << 20).as_bytes()).is_err());
    }

    #[test]
    fn marks_garbage_and_broken_text_are_refused() {
        assert_eq!(parse(b"\xef\xbb\xbf{}"), Err(JsonError::ByteOrderMark));
        assert_eq!(
            parse(b"{\"a\":\"\xc0\xaf\"}"),
            Err(JsonError::NotUtf8 { at: 6 })
        );
        for text in [
            "",
            " ",
            "{} x",
            "{}{}",
            "{,}",
            "{\"a\":1,}",
            "[1,]",
            "NaN",
            "'a'",
            "01",
            "+1",
            "1e999",
            "\"\\ud800\"",
            "\"a\nb\"",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_flood_of_tiny_values_is_refused() {
        let text = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert!(refusal(&text).contains("more than"));
    }

    #[test]
    fn floats_and_big_numbers_stay_recognisable() {
        for text in ["100.0", "1e2", "18446744073709551616", "-0"] {
            assert!(parse(text.as_bytes()).unwrap().is_f64(), "{text}");
        }
        assert_eq!(
            parse(b"18446744073709551615").unwrap(),
            Value::from(u64::MAX)
        );
    }
}
