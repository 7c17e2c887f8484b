//! A YAML (or JSON) document as a tree that remembers lines, and a reader that takes keys out of it one by one.
//! Every error names file, line and key; what nobody took is a warning with its name. Used by the files beside this one.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}; the setup writes this file", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("{}: {problem}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The parser's message, with line and column.
        problem: String,
    },
    /// A key is missing.
    #[error("{}:{line}: key \"{key}\" is missing", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// Line of the section it should be in.
        line: u64,
        /// The whole key, sections joined by dots.
        key: String,
    },
    /// A value has the wrong type or breaks a rule.
    #[error("{}:{line}: key \"{key}\": {problem}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// Its line.
        line: u64,
        /// The whole key, sections joined by dots.
        key: String,
        /// What is wrong, with the value in it.
        problem: String,
    },
}

/// A key that nobody reads: likely a typing error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file.
    pub file: PathBuf,
    /// Line of the value.
    pub line: u64,
    /// The whole key, sections joined by dots.
    pub key: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: unknown key \"{}\" is ignored",
            self.file.display(),
            self.line,
            self.key
        )
    }
}

#[derive(Debug, Clone)]
struct Node {
    line: u64,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Kind {
    fn name(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(value) => format!("\"{}\"", blockhost_proto::escape::shown(value)),
            Self::List(_) => "a list".into(),
            Self::Map(_) => "a section".into(),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(input)?;
        Ok(Self {
            line: spanned.referenced.line(),
            kind: spanned.value,
        })
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }
    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Int(value))
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Kind, E> {
        i64::try_from(value)
            .map(Kind::Int)
            .map_err(|_| E::custom(format!("{value} is too large")))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }
    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Kind, D::Error> {
        Kind::deserialize(input)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = access.next_element()? {
            list.push(node);
        }
        Ok(Kind::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut map: Vec<(String, Node)> = Vec::new();
        while let Some((key, node)) = access.next_entry::<String, Node>()? {
            if map.iter().any(|(other, _)| *other == key) {
                return Err(serde::de::Error::custom(format!(
                    "key \"{key}\" is given twice"
                )));
            }
            map.push((key, node));
        }
        Ok(Kind::Map(map))
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(KindVisitor)
    }
}

/// One section of a file. Keys are taken out of it; [`Section::finish`] turns the rest into warnings.
#[derive(Debug)]
pub struct Section {
    file: PathBuf,
    prefix: String,
    line: u64,
    entries: Vec<(String, Node)>,
}

impl Section {
    /// Reads and parses `file`; an empty file is an empty section.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::Syntax`].
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Read {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(file, &text)
    }

    /// Parses `text`, which came from `file`.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let syntax = |problem| ConfigError::Syntax {
            file: file.to_owned(),
            problem,
        };
        let entries = if text
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
        {
            Vec::new()
        } else {
            let node: Node = serde_saphyr::from_str(text).map_err(|e| syntax(e.to_string()))?;
            match node.kind {
                Kind::Map(entries) => entries,
                Kind::Null => Vec::new(),
                other => {
                    return Err(syntax(format!(
                        "expected keys and values at the top, found {}",
                        other.name()
                    )));
                }
            }
        };
        Ok(Self {
            file: file.to_owned(),
            prefix: String::new(),
            line: 1,
            entries,
        })
    }

    fn key(&self, key: &str) -> String {
        if self.prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.prefix)
        }
    }

    fn take(&mut self, key: &str) -> Option<Node> {
        let index = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(index).1).filter(|node| !matches!(node.kind, Kind::Null))
    }

    fn wrong(&self, key: &str, node: &Node, expected: &str) -> ConfigError {
        self.invalid(
            key,
            node.line,
            format!("{} is not {expected}", node.kind.name()),
        )
    }

    /// An error about `key`, for rules that the caller checks.
    #[must_use]
    pub fn invalid(&self, key: &str, line: u64, problem: String) -> ConfigError {
        ConfigError::Value {
            file: self.file.clone(),
            line,
            key: self.key(key),
            problem,
        }
    }

    /// The error of a key that must be there.
    #[must_use]
    pub fn missing(&self, key: &str) -> ConfigError {
        ConfigError::Missing {
            file: self.file.clone(),
            line: self.line,
            key: self.key(key),
        }
    }

    /// The file that it is in.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Where it begins.
    #[must_use]
    pub const fn line(&self) -> u64 {
        self.line
    }

    /// The keys that nobody took yet, as they are written.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.entries.iter().map(|(name, _)| name.clone()).collect()
    }

    /// True when the section still holds `key`.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name == key)
    }

    /// Takes a text.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when it is something else.
    pub fn text(&mut self, key: &str) -> Result<Option<(String, u64)>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Node {
                kind: Kind::Text(text),
                line,
            }) => Ok(Some((text, line))),
            Some(node) => Err(self.wrong(key, &node, "a text")),
        }
    }

    /// Takes a text or a number, as text: for keys such as `start: 200` or `start: 10.0.0.200`.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when it is something else.
    pub fn text_or_number(&mut self, key: &str) -> Result<Option<(String, u64)>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Node {
                kind: Kind::Text(text),
                line,
            }) => Ok(Some((text, line))),
            Some(Node {
                kind: Kind::Int(number),
                line,
            }) => Ok(Some((number.to_string(), line))),
            Some(node) => Err(self.wrong(key, &node, "a text or a number")),
        }
    }

    /// Takes a text and reads it as `T`.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when it is no text or not a `T`.
    pub fn parsed<T: std::str::FromStr<Err: fmt::Display>>(
        &mut self,
        key: &str,
    ) -> Result<Option<(T, u64)>, ConfigError> {
        match self.text(key)? {
            None => Ok(None),
            Some((text, line)) => match text.parse() {
                Ok(value) => Ok(Some((value, line))),
                Err(e) => Err(self.invalid(
                    key,
                    line,
                    format!("\"{}\": {e}", blockhost_proto::escape::shown(&text)),
                )),
            },
        }
    }

    /// Takes an integer within `range`.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when it is something else or outside.
    pub fn integer(
        &mut self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<(u64, u64)>, ConfigError> {
        let Some(node) = self.take(key) else {
            return Ok(None);
        };
        let number = match node.kind {
            Kind::Int(number) => u64::try_from(number).ok(),
            _ => None,
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some((number, node.line))),
            None => Err(self.wrong(
                key,
                &node,
                &format!("an integer from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// As [`Section::integer`], narrowed to `u32`, with a default.
    ///
    /// # Errors
    /// As there.
    pub fn u32_or(
        &mut self,
        key: &str,
        range: std::ops::RangeInclusive<u32>,
        default: u32,
    ) -> Result<u32, ConfigError> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        Ok(self
            .integer(key, range)?
            .and_then(|(n, _)| u32::try_from(n).ok())
            .unwrap_or(default))
    }

    /// Takes a number from 0 to 1.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when it is something else.
    pub fn fraction_or(&mut self, key: &str, default: f64) -> Result<f64, ConfigError> {
        let Some(node) = self.take(key) else {
            return Ok(default);
        };
        let value = match node.kind {
            Kind::Float(value) => Some(value),
            Kind::Int(0) => Some(0.0),
            Kind::Int(1) => Some(1.0),
            _ => None,
        };
        value
            .filter(|v| (0.0..=1.0).contains(v))
            .ok_or_else(|| self.wrong(key, &node, "a number from 0 to 1"))
    }

    /// Takes a list of texts.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when it is something else.
    pub fn texts(&mut self, key: &str) -> Result<Vec<String>, ConfigError> {
        let Some(node) = self.take(key) else {
            return Ok(Vec::new());
        };
        let Kind::List(items) = &node.kind else {
            return Err(self.wrong(key, &node, "a list of texts"));
        };
        items
            .iter()
            .map(|item| match &item.kind {
                Kind::Text(text) => Ok(text.clone()),
                _ => Err(self.wrong(key, item, "a text")),
            })
            .collect()
    }

    /// Takes a section.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when it is something else.
    pub fn section(&mut self, key: &str) -> Result<Option<Self>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Node {
                kind: Kind::Map(entries),
                line,
            }) => Ok(Some(Self {
                file: self.file.clone(),
                prefix: self.key(key),
                line,
                entries,
            })),
            Some(node) => Err(self.wrong(key, &node, "a section with keys of its own")),
        }
    }

    /// What nobody took becomes a warning.
    pub fn finish(self, warnings: &mut Vec<Warning>) {
        for (key, node) in &self.entries {
            warnings.push(Warning {
                file: self.file.clone(),
                line: node.line,
                key: self.key(key),
            });
        }
    }
}
