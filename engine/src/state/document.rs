//! The document of `blockhost apply`: JSON or YAML, `{"version": 1, "plugins": {...}}`, taken apart by the plugins. Every
//! error names file, line and place.

use std::collections::BTreeMap;
use std::path::Path;

use blockhost_proto::escape::shown;
use blockhost_proto::json;
use serde_json::Value;

use super::fields::{Fields, Place, Wrong};
use super::lines::{self, Node};
use super::plugin::{Desired, StatePlugin};

/// A document with the places of what is in it.
#[derive(Debug, Clone)]
pub struct Document {
    name: String,
    value: Value,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Json(String),
    Yaml(Node),
}

/// Why a document cannot be used. Nothing was looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Missing or unreadable.
    #[error("cannot read {name}: {source}")]
    Read {
        /// The file.
        name: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Not JSON, not YAML, or too large.
    #[error("{name}:{line}: {problem}")]
    Syntax {
        /// The file.
        name: String,
        /// Its line.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// Not what it should be.
    #[error("{name}:{line}: {wrong}")]
    Wrong {
        /// The file.
        name: String,
        /// Its line.
        line: u64,
        /// Where in the document, and what.
        wrong: Wrong,
    },
}

/// Larger documents are a mistake.
const MAX_BYTES: u64 = 16 << 20;

impl Document {
    /// Reads a file; `-` is standard input.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn load(path: &Path) -> Result<Self, DocumentError> {
        use std::io::Read as _;
        let standard = path.as_os_str() == "-";
        let name = if standard {
            "(standard input)".to_owned()
        } else {
            shown(&path.display().to_string())
        };
        let failed = |source| DocumentError::Read {
            name: name.clone(),
            source,
        };
        let mut text = String::new();
        let from: Box<dyn std::io::Read> = if standard {
            Box::new(std::io::stdin())
        } else {
            Box::new(std::fs::File::open(path).map_err(failed)?)
        };
        from.take(MAX_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
        Self::parse(&name, &text)
    }

    /// Reads a text. One that begins with `{` is JSON, everything else YAML.
    ///
    /// # Errors
    /// [`DocumentError::Syntax`].
    pub fn parse(name: &str, text: &str) -> Result<Self, DocumentError> {
        let syntax = |line: u64, problem: String| DocumentError::Syntax {
            name: name.to_owned(),
            line,
            problem,
        };
        if text.len() as u64 > MAX_BYTES {
            return Err(syntax(1, format!("more than {MAX_BYTES} bytes")));
        }
        let name = name.to_owned();
        if text.trim_start().starts_with('{') {
            let value = json::parse(text.as_bytes()).map_err(|error| match error {
                json::JsonError::Invalid { what, line, .. } => syntax(line as u64, what),
                other => syntax(1, other.to_string()),
            })?;
            let source = Source::Json(text.to_owned());
            return Ok(Self {
                name,
                value,
                source,
            });
        }
        // A snippet would print neighbouring lines, and a document may hold a shared key.
        let options = serde_saphyr::options! { with_snippet: false };
        let node: Node = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let line = error.location().map_or(1, |place| place.line());
            let whole = error.to_string();
            let first = whole.lines().next().unwrap_or_default();
            syntax(line, shown(first.trim_start_matches("error: ")))
        })?;
        Ok(Self {
            name,
            value: node.value(),
            source: Source::Yaml(node),
        })
    }

    /// What every plugin is to bring about. Plugins that the document does not name are left out: nothing of theirs is
    /// looked at or changed.
    ///
    /// # Errors
    /// [`DocumentError::Wrong`].
    pub fn desired(
        &self,
        plugins: &[Box<dyn StatePlugin>],
    ) -> Result<BTreeMap<&'static str, Desired>, DocumentError> {
        self.sections(plugins).map_err(|wrong| self.at(wrong))
    }

    fn sections(
        &self,
        plugins: &[Box<dyn StatePlugin>],
    ) -> Result<BTreeMap<&'static str, Desired>, Wrong> {
        let mut top = Fields::new(&self.value, Place::top())?;
        let version = top.raw("version");
        if version.and_then(Value::as_u64) != Some(1) {
            let problem = "must be 1, the only version there is";
            return Err(top.wrong("version", problem));
        }
        let Some(mut sections) = top.object("plugins")? else {
            return Err(Wrong::new(Place::top(), "the key \"plugins\" is missing"));
        };
        let mut desired = BTreeMap::new();
        for plugin in plugins {
            let place = sections.place().key(plugin.name());
            if let Some(section) = sections.raw(plugin.name()) {
                desired.insert(plugin.name(), plugin.read(section, place)?);
            }
        }
        sections.finish()?;
        top.finish()?;
        self.policies_are_kept()?;
        Ok(desired)
    }

    /// A bridge with a policy is secure: `standalone` would have everything pass there whenever the switch is started.
    fn policies_are_kept(&self) -> Result<(), Wrong> {
        let list = |path: &str| self.value.pointer(path).and_then(Value::as_array);
        let policies = list("/plugins/ovsflows/bridges");
        let named = |name: &Value| {
            let mut policies = policies.into_iter().flatten();
            policies.any(|policy| policy["bridge"] == *name)
        };
        let bridges = list("/plugins/net/interfaces").into_iter().flatten();
        for (at, bridge) in bridges.enumerate() {
            if bridge["fail_mode"] == "standalone" && named(&bridge["name"]) {
                let place = Place::top()
                    .key("plugins")
                    .key("net")
                    .key("interfaces")
                    .at(at);
                let problem = "the section ovsflows has a policy for this bridge, which is secure then: without flows nothing \
                               passes; leave the key out, or the policy";
                return Err(Wrong::new(place.key("fail_mode"), problem));
            }
        }
        Ok(())
    }

    fn at(&self, wrong: Wrong) -> DocumentError {
        let line = match &self.source {
            Source::Json(text) => lines::in_json(text, &wrong.place) as u64,
            Source::Yaml(node) => node.line(&wrong.place),
        };
        DocumentError::Wrong {
            name: self.name.clone(),
            line,
            wrong,
        }
    }
}
