//! `provisioner.json`: which executable does what. The engine knows verbs only.

use crate::exec;
use blockhost_proto::layout::Layout;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The verbs that the engine uses.
pub const VERBS: [&str; 4] = ["create", "resume", "destroy", "update-gecos"];

/// The provisioner of this host.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its name, for people.
    pub name: String,
    programs: BTreeMap<String, PathBuf>,
}

/// Why the manifest could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Missing or unreadable.
    #[error("cannot read the provisioner's manifest {path}: {source}; is a provisioner installed?", path = .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not what is expected.
    #[error("{path}: {reason}", path = .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A verb without a program.
    #[error("{path} names no program for {verb:?}", path = .path.display())]
    NoVerb {
        /// Which file.
        path: PathBuf,
        /// Which verb.
        verb: String,
    },
    /// A program that does not exist.
    #[error("{path}: the program {program:?} for {verb:?} is not an absolute path and not in the system's directories", path = .path.display())]
    NoProgram {
        /// Which file.
        path: PathBuf,
        /// Which verb.
        verb: String,
        /// What it names.
        program: String,
    },
}

#[derive(Deserialize)]
struct Raw {
    name: String,
    commands: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads the manifest and finds the programs of all verbs that the engine uses.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn load(layout: &Layout) -> Result<Self, ManifestError> {
        let path = layout.provisioner_manifest();
        let bytes = std::fs::read(&path).map_err(|source| ManifestError::Read {
            path: path.clone(),
            source,
        })?;
        let content = |reason: String| ManifestError::Content {
            path: path.clone(),
            reason,
        };
        let value = blockhost_proto::json::parse(&bytes).map_err(|e| content(e.to_string()))?;
        let raw: Raw = serde_json::from_value(value).map_err(|e| content(e.to_string()))?;
        let mut programs = BTreeMap::new();
        for verb in VERBS {
            let named = raw
                .commands
                .get(verb)
                .ok_or_else(|| ManifestError::NoVerb {
                    path: path.clone(),
                    verb: verb.into(),
                })?;
            let program = exec::find(named.as_ref()).ok_or_else(|| ManifestError::NoProgram {
                path: path.clone(),
                verb: verb.into(),
                program: named.clone(),
            })?;
            programs.insert(verb.to_owned(), program);
        }
        Ok(Self {
            name: raw.name,
            programs,
        })
    }

    /// The program of a verb.
    ///
    /// # Panics
    /// For a verb that is not one of [`VERBS`].
    #[must_use]
    pub fn program(&self, verb: &str) -> &PathBuf {
        &self.programs[verb]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Manifest, ManifestError> {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let path = layout.provisioner_manifest();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        Manifest::load(&layout)
    }

    #[test]
    fn a_missing_verb_is_named_at_start_and_not_when_it_is_needed() {
        let error = load(r#"{"name":"x","commands":{"create":"/bin/true","resume":"/bin/true","destroy":"/bin/true"}}"#).unwrap_err();
        assert!(error.to_string().contains("update-gecos"), "{error}");
    }

    #[test]
    fn a_program_named_by_a_relative_path_is_refused() {
        let error = load(r#"{"name":"x","commands":{"create":"../evil","resume":"true","destroy":"true","update-gecos":"true"}}"#).unwrap_err();
        assert!(matches!(error, ManifestError::NoProgram { .. }), "{error}");
    }

    #[test]
    fn the_documented_shape_is_understood() {
        let text = r#"{"name":"embedded","version":"1","display_name":"E","commands":{"create":"/x/create","resume":"true","destroy":"true","update-gecos":"true","list":"nowhere"},"setup":{},"root_agent_actions":[],"config_keys":[]}"#;
        assert_eq!(
            load(text).unwrap().program("create"),
            std::path::Path::new("/x/create")
        );
    }
}
