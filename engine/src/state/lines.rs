//! Which line of a file a place in the document stands on. JSON is walked once more when an error has to say it, YAML is
//! read into a tree that remembers lines. Nothing here decides what is valid.

use std::collections::HashSet;
use std::fmt;

use blockhost_proto::escape::shown;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::fields::{Part, Place};

/// A YAML value with its line.
#[derive(Debug, Clone)]
pub(super) struct Node {
    line: u64,
    inside: Inside,
}

#[derive(Debug, Clone)]
enum Inside {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The same as JSON.
    pub(super) fn value(&self) -> Value {
        match &self.inside {
            Inside::Scalar(value) => value.clone(),
            Inside::List(items) => items.iter().map(Self::value).collect(),
            Inside::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, node)| (key.clone(), node.value()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// The line of the nearest thing on the way to a place.
    pub(super) fn line(&self, place: &Place) -> u64 {
        let mut node = self;
        for part in place.parts() {
            let next = match (&node.inside, part) {
                (Inside::Map(entries), Part::Key(key)) => {
                    entries.iter().find(|(name, _)| name == key).map(|e| &e.1)
                }
                (Inside::List(items), Part::At(index)) => items.get(*index),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.line
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Inside>::deserialize(input)?;
        Ok(Self {
            line: spanned.referenced.line(),
            inside: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Inside {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Inside;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Inside, E> {
        Ok(Inside::Scalar(Value::Null))
    }
    fn visit_none<E>(self) -> Result<Inside, E> {
        Ok(Inside::Scalar(Value::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Inside, D::Error> {
        Inside::deserialize(input)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Inside, E> {
        Ok(Inside::Scalar(value.into()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Inside, E> {
        Ok(Inside::Scalar(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Inside, E> {
        Ok(Inside::Scalar(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Inside, E> {
        Ok(Inside::Scalar(value.into()))
    }
    fn visit_str<E>(self, value: &str) -> Result<Inside, E> {
        Ok(Inside::Scalar(value.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Inside, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = access.next_element()? {
            list.push(node);
        }
        Ok(Inside::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Inside, A::Error> {
        let mut map: Vec<(String, Node)> = Vec::new();
        let mut seen = HashSet::new();
        while let Some((key, node)) = access.next_entry::<String, Node>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!(
                    "key \"{}\" appears twice",
                    shown(&key)
                )));
            }
            map.push((key, node));
        }
        Ok(Inside::Map(map))
    }
}

/// The line on which a place of a valid JSON text begins; that of the nearest thing around it where it is not there.
pub(super) fn in_json(text: &str, place: &Place) -> usize {
    let mut walk = Walk {
        bytes: text.as_bytes(),
        at: 0,
    };
    let mut found = 0;
    for part in place.parts() {
        walk.blanks();
        found = walk.at;
        if walk.enter(part).is_none() {
            break;
        }
        walk.blanks();
        found = walk.at;
    }
    let before = text.as_bytes().get(..found).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// Goes through a JSON text that is known to be valid; on anything else it stops.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn step(&mut self, byte: u8) -> Option<()> {
        self.blanks();
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Goes to the value of a key or at a position inside the value that begins here.
    fn enter(&mut self, part: &Part) -> Option<()> {
        match part {
            Part::Key(wanted) => {
                self.step(b'{')?;
                loop {
                    self.blanks();
                    let begins = self.at;
                    self.skip()?;
                    let key = self.bytes.get(begins..self.at)?;
                    self.step(b':')?;
                    let same = serde_json::from_slice::<String>(key).is_ok_and(|k| k == *wanted);
                    if same {
                        return Some(());
                    }
                    self.skip()?;
                    self.step(b',')?;
                }
            }
            Part::At(index) => {
                self.step(b'[')?;
                for _ in 0..*index {
                    self.skip()?;
                    self.step(b',')?;
                }
                Some(())
            }
        }
    }

    /// Goes behind the value that begins here.
    fn skip(&mut self) -> Option<()> {
        self.blanks();
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => self.text()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' if depth == 0 => return None,
                byte if depth == 0 && !byte.is_ascii_whitespace() => self.word(),
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    fn text(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                _ => self.at += 1,
            }
        }
    }

    fn word(&mut self) {
        while self
            .peek()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(parts: &[&str]) -> Place {
        parts.iter().fold(Place::top(), |place, part| {
            part.parse::<usize>()
                .map_or_else(|_| place.key(part), |index| place.at(index))
        })
    }

    const JSON: &str =
        "{\n \"a\": {\"x\\\"}\": [1,\n 2], \"b\": [\n  {\"c\": null},\n  {\"c\":\n -1.5e3}]\n }}";

    #[test]
    fn a_place_in_json_is_found_past_brackets_in_texts() {
        let cases: [(&[&str], usize); 6] = [
            (&[], 1),
            (&["a"], 2),
            (&["a", "x\"}", "1"], 3),
            (&["a", "b", "0", "c"], 4),
            (&["a", "b", "1", "c"], 6),
            // Not there: where it should have been.
            (&["a", "b", "1", "missing"], 5),
        ];
        for (parts, line) in cases {
            assert_eq!(in_json(JSON, &place(parts)), line, "{parts:?}");
        }
    }

    #[test]
    fn a_place_in_yaml_is_found_and_a_key_twice_is_refused() {
        let text = "a:\n  b:\n    - c: 1\n    - c: yes\n";
        let node: Node = serde_saphyr::from_str(text).expect("YAML");
        assert_eq!(node.line(&place(&["a", "b", "1", "c"])), 4);
        assert_eq!(node.value()["a"]["b"][0]["c"], 1);
        assert!(serde_saphyr::from_str::<Node>("a: 1\na: 2\n").is_err());
    }

    proptest! {
        #[test]
        fn no_text_and_no_place_breaks_the_walk(text in "[\\[\\]{}\",:\\\\0a \n]{0,60}", parts in proptest::collection::vec("[a0-3]", 0..5)) {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            prop_assert!(in_json(&text, &place(&parts)) >= 1);
        }
    }
}
