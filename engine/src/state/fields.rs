//! Taking a document apart, strictly: every key by its name and type, what nobody takes is an error, and every error says
//! where in the document. Used by the section readers of the plugins.

use blockhost_proto::escape::shown;
use blockhost_proto::json;
use blockhost_proto::value::{Param, ValueError};
use serde_json::{Map, Value};

/// One step from a value to a value inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A key of an object.
    Key(String),
    /// A position in a list.
    At(usize),
}

/// Where in a document: `plugins.lxc.containers[3].id`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place(Vec<Part>);

impl Place {
    /// The top.
    #[must_use]
    pub fn top() -> Self {
        Self::default()
    }

    /// A key below.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(Part::Key(key.to_owned()));
        Self(parts)
    }

    /// A position below.
    #[must_use]
    pub fn at(&self, index: usize) -> Self {
        let mut parts = self.0.clone();
        parts.push(Part::At(index));
        Self(parts)
    }

    /// The steps from the top.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.0
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the document");
        }
        for (index, part) in self.0.iter().enumerate() {
            match part {
                Part::Key(key) if index == 0 => f.write_str(&shown(key))?,
                Part::Key(key) => write!(f, ".{}", shown(key))?,
                Part::At(at) => write!(f, "[{at}]")?,
            }
        }
        Ok(())
    }
}

/// What is wrong in a document, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct Wrong {
    /// Where.
    pub place: Place,
    /// What; foreign text in it is escaped and cut.
    pub problem: String,
}

impl Wrong {
    /// A problem at a place.
    pub fn new(place: Place, problem: impl Into<String>) -> Self {
        Self {
            place,
            problem: problem.into(),
        }
    }
}

/// An object whose keys are being taken.
#[derive(Debug)]
pub struct Fields<'a> {
    place: Place,
    map: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Takes an object.
    ///
    /// # Errors
    /// [`Wrong`] when it is something else.
    pub fn new(value: &'a Value, place: Place) -> Result<Self, Wrong> {
        match value {
            Value::Object(map) => Ok(Self {
                place,
                map,
                known: Vec::new(),
            }),
            other => Err(Wrong::new(
                place,
                format!("must be an object, not {}", json::kind(other)),
            )),
        }
    }

    /// Where this object is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A problem with one of its keys.
    pub fn wrong(&self, key: &str, problem: impl Into<String>) -> Wrong {
        Wrong::new(self.place.key(key), problem)
    }

    /// The value under a key as it stands. `null` is the same as no key.
    pub fn raw(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A value of the catalog that may be missing.
    ///
    /// # Errors
    /// [`Wrong`] when it breaks its type's rule.
    pub fn get<T: Param>(&mut self, key: &'static str) -> Result<Option<T>, Wrong> {
        // The place is made for an error only: a document has thousands of values.
        self.raw(key)
            .map(|value| {
                T::from_json(value).map_err(|error| wrong_value(self.place.key(key), &error))
            })
            .transpose()
    }

    /// A value of the catalog that has to be there.
    ///
    /// # Errors
    /// [`Wrong`] when it is missing or breaks its type's rule.
    pub fn need<T: Param>(&mut self, key: &'static str) -> Result<T, Wrong> {
        match self.get(key)? {
            Some(value) => Ok(value),
            None => Err(Wrong::new(
                self.place.clone(),
                format!("the key \"{key}\" is missing"),
            )),
        }
    }

    /// A value of the catalog whose text may be written as a number, too: `id: 100`.
    ///
    /// # Errors
    /// [`Wrong`] when it is missing or breaks the rule.
    pub fn number<T: Param>(&mut self, key: &'static str) -> Result<T, Wrong> {
        let value = self.raw(key);
        let read = |value: &Value| {
            T::from_json(value).map_err(|error| wrong_value(self.place.key(key), &error))
        };
        match value {
            // "007" is no number, and neither is "+7".
            Some(Value::String(text))
                if text == "0"
                    || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit())) =>
            {
                read(&text.parse::<u64>().map_or(Value::Null, Value::from))
            }
            Some(value) => read(value),
            None => Err(Wrong::new(
                self.place.clone(),
                format!("the key \"{key}\" is missing"),
            )),
        }
    }

    /// One of these words.
    ///
    /// # Errors
    /// [`Wrong`] when it is another.
    pub fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Wrong> {
        let Some(value) = self.raw(key) else {
            return Ok(None);
        };
        let found = value
            .as_str()
            .and_then(|text| words.iter().find(|(word, _)| *word == text));
        if let Some((_, meaning)) = found {
            return Ok(Some(*meaning));
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let given = value.as_str().map_or_else(
            || json::kind(value).to_owned(),
            |t| format!("\"{}\"", shown(t)),
        );
        Err(self.wrong(key, format!("must be {}, not {given}", known.join(" or "))))
    }

    /// The entries of a list, each with its place; none where the key is missing.
    ///
    /// # Errors
    /// [`Wrong`] when it is no list.
    pub fn list(&mut self, key: &'static str) -> Result<Vec<(&'a Value, Place)>, Wrong> {
        let place = self.place.key(key);
        match self.raw(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items
                .iter()
                .enumerate()
                .map(|(index, item)| (item, place.at(index)))
                .collect()),
            Some(other) => Err(Wrong::new(
                place,
                format!("must be a list, not {}", json::kind(other)),
            )),
        }
    }

    /// An object below, if it is there.
    ///
    /// # Errors
    /// [`Wrong`] when it is something else.
    pub fn object(&mut self, key: &'static str) -> Result<Option<Fields<'a>>, Wrong> {
        let place = self.place.key(key);
        self.raw(key)
            .map(|value| Fields::new(value, place))
            .transpose()
    }

    /// Refuses what nobody took: most often a typing error.
    ///
    /// # Errors
    /// [`Wrong`] at the first unknown key.
    pub fn finish(self) -> Result<(), Wrong> {
        match self
            .map
            .keys()
            .find(|key| !self.known.contains(&key.as_str()))
        {
            None => Ok(()),
            Some(key) => Err(Wrong::new(
                self.place.key(key),
                format!("unknown key; known here: {}", self.known.join(", ")),
            )),
        }
    }
}

/// A broken rule of a type, at its place.
#[must_use]
pub fn wrong_value(place: Place, error: &ValueError) -> Wrong {
    Wrong::new(place, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockhost_proto::value::{SwitchIfName, Vmid};
    use serde_json::json;

    #[test]
    fn every_error_says_where_and_what() {
        let document = json!({"a": [{"id": "x", "odd": 1}]});
        let mut top = Fields::new(&document, Place::top().key("plugins")).expect("an object");
        let (item, place) = top.list("a").expect("a list").remove(0);
        let mut fields = Fields::new(item, place).expect("an object");
        let wrong = fields.number::<Vmid>("id").expect_err("no number");
        assert_eq!(wrong.place.to_string(), "plugins.a[0].id");
        let wrong = fields.finish().expect_err("unknown");
        assert_eq!(wrong.place.to_string(), "plugins.a[0].odd");
        assert!(wrong.problem.contains("known here: id"), "{wrong}");
    }

    #[test]
    fn a_number_may_be_a_text_but_nothing_that_only_looks_so() {
        let read = |id: Value| {
            let object = json!({ "id": id });
            Fields::new(&object, Place::top())
                .and_then(|mut fields| fields.number::<Vmid>("id"))
                .is_ok()
        };
        assert!(read(json!("100")) && read(json!(100)));
        for bad in [
            json!("0100"),
            json!("+100"),
            json!(" 100"),
            json!("100\n"),
            json!(""),
            json!(100.0),
            json!(true),
            json!("1e2"),
            json!([100]),
        ] {
            assert!(!read(bad.clone()), "{bad}");
        }
    }

    #[test]
    fn a_missing_key_and_a_wrong_kind_are_told_apart() {
        let object = json!({"bridge": 7});
        let mut fields = Fields::new(&object, Place::top()).expect("an object");
        let wrong = fields.need::<SwitchIfName>("name").expect_err("missing");
        assert!(wrong.problem.contains("\"name\" is missing"));
        let wrong = fields.need::<SwitchIfName>("bridge").expect_err("a number");
        assert_eq!(wrong.place.to_string(), "bridge");
        assert!(Fields::new(&json!([]), Place::top()).is_err());
        assert!(fields.object("bridge").is_err());
    }

    #[test]
    fn keys_of_a_stranger_do_not_reach_a_terminal_unescaped() {
        let object = json!({"a\u{1b}[2J": 1});
        let fields = Fields::new(&object, Place::top()).expect("an object");
        let text = fields.finish().expect_err("unknown").to_string();
        assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text:?}");
    }
}
