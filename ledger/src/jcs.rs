//! The one JSON encoder of the ledger: RFC 8785 (JCS), restricted so that every reader agrees on the bytes.
//! Integers only, |n| <= 2^53-1; for records also: keys of a small alphabet, no U+007F (jq escapes it, JCS does not).
//! Called by `record` and `blocks`; parsing is not done here.

use serde_json::{Map, Number, Value};

/// Largest magnitude of an integer that every JSON reader (JavaScript and jq among them) keeps exact: 2^53-1.
pub const MAX_INTEGER: i64 = 9_007_199_254_740_991;
/// Deepest nesting that is written; deeper input is refused, so that no reader overflows its stack.
pub const MAX_DEPTH: usize = 32;

/// Why a value has no canonical bytes here. `key` is the dotted path to the value (`metadata.options.memory`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JcsError {
    /// A number with a fraction, an exponent, or outside of +-(2^53-1).
    #[error(
        "{key}: {value} is not an integer within +-(2^53-1); write it as a string or in a smaller unit"
    )]
    Number {
        /// Where.
        key: String,
        /// The number as serde_json prints it.
        value: String,
    },
    /// A key outside of `[A-Za-z0-9_.:-]+`.
    #[error("{key}: the key may only contain A-Z a-z 0-9 _ . : - and must not be empty")]
    Key {
        /// Where, escaped.
        key: String,
    },
    /// U+007F in a string: jq writes it escaped and JCS does not, so a check by hand would fail.
    #[error("{key}: the text contains U+007F, which tools write in two ways; remove it")]
    Delete {
        /// Where.
        key: String,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("{key}: nested deeper than {MAX_DEPTH} levels; flatten it")]
    Depth {
        /// Where.
        key: String,
    },
}

/// Canonical bytes of any JSON value of integers: RFC 8785 with its sorting by UTF-16 code units.
///
/// # Errors
/// A number that is not an integer within +-(2^53-1), or nesting over [`MAX_DEPTH`].
pub fn to_vec(value: &Value) -> Result<Vec<u8>, JcsError> {
    encode(value, false)
}

/// Canonical bytes under the rules of records: as [`to_vec`], and keys of `[A-Za-z0-9_.:-]+`, and no U+007F anywhere.
///
/// # Errors
/// As [`to_vec`], plus a key or a text outside of the alphabet; the error names the key.
pub fn to_record_vec(value: &Value) -> Result<Vec<u8>, JcsError> {
    encode(value, true)
}

/// As [`to_record_vec`] for an object that will be the member `key` of a record: errors name the whole path.
///
/// # Errors
/// As [`to_record_vec`].
pub fn to_record_vec_under(key: &str, map: &Map<String, Value>) -> Result<Vec<u8>, JcsError> {
    let mut encoder = Encoder {
        out: Vec::with_capacity(512),
        path: vec![Step::Key(key)],
        strict: true,
    };
    encoder.object(map)?;
    Ok(encoder.out)
}

/// An object under the rules of records whose members come one by one. The caller gives them in the order of their keys.
pub(crate) struct Members(Encoder<'static>);

impl Members {
    /// An object of about so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Encoder {
            out: Vec::with_capacity(bytes),
            path: Vec::with_capacity(1),
            strict: true,
        })
    }

    pub fn text(&mut self, key: &'static str, text: &str) -> Result<(), JcsError> {
        self.key(key);
        self.0.path.push(Step::Key(key));
        self.0.text(text)?;
        self.0.path.pop();
        Ok(())
    }

    pub fn number(&mut self, key: &'static str, number: i64) -> Result<(), JcsError> {
        self.key(key);
        self.0.path.push(Step::Key(key));
        self.0.number(&number.into())?;
        self.0.path.pop();
        Ok(())
    }

    /// A value that was encoded already.
    pub fn canonical(&mut self, key: &'static str, bytes: &[u8]) {
        self.key(key);
        self.0.out.extend_from_slice(bytes);
    }

    fn key(&mut self, key: &'static str) {
        let before: &[u8] = if self.0.out.is_empty() {
            b"{\""
        } else {
            b",\""
        };
        self.0.out.extend_from_slice(before);
        self.0.out.extend_from_slice(key.as_bytes());
        self.0.out.extend_from_slice(b"\":");
    }

    /// Its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.out.push(b'}');
        self.0.out
    }
}

/// Is this a key that records may have?
#[must_use]
pub fn is_record_key(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))
}

fn encode(value: &Value, strict: bool) -> Result<Vec<u8>, JcsError> {
    let mut encoder = Encoder {
        out: Vec::with_capacity(256),
        path: Vec::new(),
        strict,
    };
    encoder.value(value)?;
    Ok(encoder.out)
}

struct Encoder<'a> {
    out: Vec<u8>,
    path: Vec<Step<'a>>,
    strict: bool,
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Encoder<'a> {
    /// The dotted path to where we are; only built for an error.
    fn key(&self) -> String {
        let mut out = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.extend(key.escape_default().take(80));
                }
                Step::Index(index) => out.push_str(&format!("[{index}]")),
            }
        }
        if out.is_empty() {
            "(top)".to_owned()
        } else {
            out
        }
    }

    fn value(&mut self, value: &'a Value) -> Result<(), JcsError> {
        if self.path.len() > MAX_DEPTH {
            return Err(JcsError::Depth { key: self.key() });
        }
        match value {
            Value::Null => self.out.extend_from_slice(b"null"),
            Value::Bool(true) => self.out.extend_from_slice(b"true"),
            Value::Bool(false) => self.out.extend_from_slice(b"false"),
            Value::Number(number) => self.number(number)?,
            Value::String(text) => self.text(text)?,
            Value::Array(items) => {
                self.out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.out.push(b',');
                    }
                    self.path.push(Step::Index(index));
                    self.value(item)?;
                    self.path.pop();
                }
                self.out.push(b']');
            }
            Value::Object(map) => self.object(map)?,
        }
        Ok(())
    }

    fn number(&mut self, number: &Number) -> Result<(), JcsError> {
        use std::io::Write as _;
        match number.as_i64() {
            Some(n) if (-MAX_INTEGER..=MAX_INTEGER).contains(&n) => {
                // Writing into memory does not fail.
                let _ = write!(self.out, "{n}");
                Ok(())
            }
            _ => Err(JcsError::Number {
                key: self.key(),
                value: number.to_string(),
            }),
        }
    }

    fn object(&mut self, map: &'a Map<String, Value>) -> Result<(), JcsError> {
        if self.path.len() > MAX_DEPTH {
            return Err(JcsError::Depth { key: self.key() });
        }
        self.out.push(b'{');
        // Keys of records are ASCII, whose order is that of their bytes: the map's own.
        if map.keys().is_sorted() && map.keys().all(|key| key.is_ascii()) {
            for (index, (key, item)) in map.iter().enumerate() {
                self.member(index, key, item)?;
            }
        } else {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            for (index, (key, item)) in members.into_iter().enumerate() {
                self.member(index, key, item)?;
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn member(&mut self, index: usize, key: &'a str, item: &'a Value) -> Result<(), JcsError> {
        if index > 0 {
            self.out.push(b',');
        }
        self.path.push(Step::Key(key));
        if self.strict && !is_record_key(key) {
            return Err(JcsError::Key { key: self.key() });
        }
        self.text(key)?;
        self.out.push(b':');
        self.value(item)?;
        self.path.pop();
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), JcsError> {
        if self.strict && text.contains('\u{7f}') {
            return Err(JcsError::Delete { key: self.key() });
        }
        self.out.push(b'"');
        let mut rest = text.as_bytes();
        // What needs no escape is copied in one piece.
        while let Some(plain) = place_of_escape(rest) {
            let (before, after) = rest.split_at(plain);
            self.out.extend_from_slice(before);
            let Some((byte, after)) = after.split_first() else {
                break;
            };
            match byte {
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                0x08 => self.out.extend_from_slice(b"\\b"),
                0x09 => self.out.extend_from_slice(b"\\t"),
                0x0a => self.out.extend_from_slice(b"\\n"),
                0x0c => self.out.extend_from_slice(b"\\f"),
                0x0d => self.out.extend_from_slice(b"\\r"),
                byte => self
                    .out
                    .extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            }
            rest = after;
        }
        self.out.extend_from_slice(rest);
        self.out.push(b'"');
        Ok(())
    }
}

/// Where the first byte is that has to be escaped.
fn place_of_escape(text: &[u8]) -> Option<usize> {
    let escaped = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
    // Without a way out in the middle the compiler looks at all of a chunk at once.
    let (chunks, _) = text.as_chunks::<16>();
    let clean = chunks
        .iter()
        .take_while(|chunk| !chunk.iter().fold(false, |any, b| any | escaped(b)));
    let skip = clean.count() * 16;
    let place = text[skip..].iter().position(escaped)?;
    Some(skip + place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn text(value: &Value) -> String {
        String::from_utf8(to_vec(value).expect("encodes")).expect("UTF-8")
    }

    #[test]
    fn a_float_an_exponent_and_a_bignum_are_refused_with_their_key() {
        for (value, key) in [
            (json!({"a": {"b": [0, 1.5]}}), "a.b[1]"),
            (json!({"x": 9_007_199_254_740_992_i64}), "x"),
            (json!({"x": -9_007_199_254_740_992_i64}), "x"),
            (json!({"x": u64::MAX}), "x"),
            (json!(1.0), "(top)"),
            (serde_json::from_str("{\"x\":-0}").expect("parses"), "x"),
        ] {
            match to_vec(&value) {
                Err(JcsError::Number { key: got, .. }) => assert_eq!(got, key),
                other => panic!("{value}: {other:?}"),
            }
        }
    }

    #[test]
    fn record_keys_outside_of_the_alphabet_and_u007f_are_refused_with_their_key() {
        assert_eq!(
            to_record_vec(&json!({"a": {"b c": 1}})),
            Err(JcsError::Key {
                key: "a.b c".into()
            })
        );
        assert_eq!(
            to_record_vec(&json!({"": 1})),
            Err(JcsError::Key {
                key: "(top)".into()
            })
        );
        assert_eq!(
            to_record_vec(&json!({"k\u{e9}": 1})),
            Err(JcsError::Key {
                key: "k\\u{e9}".into()
            })
        );
        assert_eq!(
            to_record_vec(&json!({"a": ["x\u{7f}"]})),
            Err(JcsError::Delete { key: "a[0]".into() })
        );
        assert!(to_vec(&json!({"b c": "\u{7f}"})).is_ok());
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let mut value = json!(1);
        for _ in 0..=MAX_DEPTH {
            value = json!([value]);
        }
        assert!(matches!(to_vec(&value), Err(JcsError::Depth { .. })));
    }

    #[test]
    fn the_sorting_example_of_rfc_8785_comes_out_as_printed_there() {
        // RFC 8785 section 3.2.3.
        let value = json!({
            "\u{20ac}": "Euro Sign", "\r": "Carriage Return", "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\u{1f600}": "Emoji: Grinning Face", "\u{80}": "Control", "\u{f6}": "Latin Small Letter O With Diaeresis"
        });
        let expected = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"\u{f6}\":\"Latin Small Letter O With Diaeresis\",\"\u{20ac}\":\"Euro Sign\",\"\u{1f600}\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}";
        assert_eq!(text(&value), expected);
    }

    #[test]
    fn the_string_and_literals_of_the_rfc_8785_example_come_out_as_printed_there() {
        // RFC 8785 section 3.2.2, without its floats, which the ledger does not have.
        let value =
            json!({"string": "\u{20ac}$\u{f}\nA'B\"\\\\\"/", "literals": [null, true, false]});
        assert_eq!(
            text(&value),
            "{\"literals\":[null,true,false],\"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
    }

    #[test]
    fn control_characters_take_their_short_form_where_there_is_one() {
        assert_eq!(
            text(&json!("\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f}\u{7f}")),
            "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\u{7f}\""
        );
    }

    #[test]
    fn the_largest_integers_survive() {
        assert_eq!(
            text(&json!([MAX_INTEGER, -MAX_INTEGER, 0])),
            "[9007199254740991,-9007199254740991,0]"
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-MAX_INTEGER..=MAX_INTEGER).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_bytes_parse_back_to_the_same_value_and_encode_to_the_same_bytes(value in any_json()) {
            let bytes = to_vec(&value).expect("encodes");
            let back: Value = serde_json::from_slice(&bytes).expect("is JSON");
            prop_assert_eq!(&back, &value);
            prop_assert_eq!(to_vec(&back).expect("encodes"), bytes);
        }
    }
}
