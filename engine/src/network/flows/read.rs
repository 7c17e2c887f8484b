//! Reading a JSON document with its places: every error says where in the document it is, unknown keys are refused, a
//! list is never taken for an object. What a switch cannot do is told as such. No rule of the policy itself is here.

use blockhost_proto::escape;
use blockhost_proto::json::kind;
use blockhost_proto::value::{Param, ValueError};
use serde_json::{Map, Value};

use super::wish::Wish;

/// What is wrong with a policy, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct PolicyError {
    /// The place in the document: `ovsflows.bridges[0].containers[2].mac`.
    pub place: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Another kind of value is expected.
    #[error("{given} stands where {wanted} is expected")]
    Kind {
        /// What is there.
        given: &'static str,
        /// What should be.
        wanted: &'static str,
    },
    /// A key that does not belong there.
    #[error("there is no key \"{given}\" here; known: {known}")]
    Unknown {
        /// The key, escaped and cut.
        given: String,
        /// Those there are.
        known: String,
    },
    /// Something that a switch does not do.
    #[error("{0}")]
    Impossible(Wish),
    /// A key that has to be there.
    #[error("the key is missing")]
    Missing,
    /// A value that breaks its type's rule.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A word that is not one of those that can stand there.
    #[error("\"{given}\" is not one of {known}")]
    Word {
        /// The word, escaped and cut.
        given: String,
        /// Those there are.
        known: String,
    },
    /// A name of something that the document does not have.
    #[error("there is no {what} \"{name}\" in this bridge's part of the document")]
    Nowhere {
        /// What it should be.
        what: &'static str,
        /// The name, escaped.
        name: String,
    },
    /// Something that can be there only once is there again.
    #[error("{what} is also at {other}")]
    Twice {
        /// What it is.
        what: String,
        /// Where the first one stands.
        other: String,
    },
    /// Good by themselves, but not together.
    #[error("{0}")]
    Together(String),
}

impl PolicyError {
    /// At that place.
    pub(super) fn at(place: impl Into<String>, problem: Problem) -> Self {
        Self {
            place: place.into(),
            problem,
        }
    }

    /// Two things that do not go together.
    pub(super) fn together(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::at(place, Problem::Together(what.into()))
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    pub(super) place: String,
    pub(super) value: &'a Value,
}

/// An object whose keys are all known.
pub(super) struct Fields<'a> {
    pub(super) place: String,
    map: &'a Map<String, Value>,
}

impl<'a> Node<'a> {
    pub(super) fn new(place: &str, value: &'a Value) -> Self {
        Self {
            place: place.to_owned(),
            value,
        }
    }

    fn wrong(&self, wanted: &'static str) -> PolicyError {
        let given = kind(self.value);
        PolicyError::at(&self.place, Problem::Kind { given, wanted })
    }

    /// An object with no other keys than these.
    pub(super) fn object(&self, known: &[&str]) -> Result<Fields<'a>, PolicyError> {
        let map = self
            .value
            .as_object()
            .ok_or_else(|| self.wrong("an object"))?;
        if let Some(key) = map.keys().find(|key| !known.contains(&key.as_str())) {
            let place = format!("{}.{}", self.place, escape::shown(key));
            let problem = Wish::of_key(key).map_or_else(
                || Problem::Unknown {
                    given: escape::shown(key),
                    known: known.join(", "),
                },
                Problem::Impossible,
            );
            return Err(PolicyError::at(place, problem));
        }
        Ok(Fields {
            place: self.place.clone(),
            map,
        })
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Result<Vec<Node<'a>>, PolicyError> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("a list"))?;
        Ok(items
            .iter()
            .enumerate()
            .map(|(at, value)| Node {
                place: format!("{}[{at}]", self.place),
                value,
            })
            .collect())
    }

    /// A value of the catalog.
    pub(super) fn read<T: Param>(&self) -> Result<T, PolicyError> {
        T::from_json(self.value).map_err(|error| PolicyError::at(&self.place, error.into()))
    }

    pub(super) fn text(&self) -> Result<&'a str, PolicyError> {
        self.value.as_str().ok_or_else(|| self.wrong("a text"))
    }

    /// An integer within a range.
    pub(super) fn number<T: TryFrom<u64>>(
        &self,
        range: std::ops::RangeInclusive<u64>,
        wanted: &'static str,
    ) -> Result<T, PolicyError> {
        self.value
            .as_u64()
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                let given = match self.value {
                    Value::Number(_) => "another number",
                    other => kind(other),
                };
                PolicyError::at(&self.place, Problem::Kind { given, wanted })
            })
    }

    /// One word of several.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, PolicyError> {
        let given = self.text()?;
        words
            .iter()
            .find(|(word, _)| *word == given)
            .map(|(_, value)| *value)
            .ok_or_else(|| {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let problem = Wish::of_key(given).map_or_else(
                    || Problem::Word {
                        given: escape::shown(given),
                        known: known.join(", "),
                    },
                    Problem::Impossible,
                );
                PolicyError::at(&self.place, problem)
            })
    }
}

impl<'a> Fields<'a> {
    /// The value of a key that may be missing.
    pub(super) fn get(&self, key: &str) -> Option<Node<'a>> {
        self.map.get(key).map(|value| Node {
            place: self.at(key),
            value,
        })
    }

    /// The value of a key that must be there.
    pub(super) fn need(&self, key: &str) -> Result<Node<'a>, PolicyError> {
        self.get(key)
            .ok_or_else(|| PolicyError::at(self.at(key), Problem::Missing))
    }

    /// The items of a list that may be missing.
    pub(super) fn list<T>(
        &self,
        key: &str,
        read: impl Fn(&Node<'a>) -> Result<T, PolicyError>,
    ) -> Result<Vec<T>, PolicyError> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(node) => node.items()?.iter().map(read).collect(),
        }
    }

    /// The place of a key.
    pub(super) fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.place)
    }
}
