//! Reading one YAML file: typed, with the place of every error, and without showing the values of other lines.

use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why a configuration file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Missing or unreadable.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not what is expected.
    #[error("{path}:{line}:{column}: {key}: {problem}", path = .path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// The key on that line.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

/// A key that nobody knows: most often a typing error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Which file.
    pub path: PathBuf,
    /// Dotted key.
    pub key: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: unknown key {}, ignored",
            self.path.display(),
            self.key
        )
    }
}

/// Reads a file; `None` when it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Parses a file into `T`. `known` lists what may stand in it: `section` or `section.key`; others are warned about,
/// whole sections without a listed key are taken as they are.
pub(super) fn parse<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    known: &[&str],
) -> Result<(T, Vec<Warning>), ConfigError> {
    let typed = serde_saphyr::from_str_with_options::<T>(text, options())
        .map_err(|e| place(path, text, &e))?;
    let loose: BTreeMap<String, serde_json::Value> =
        serde_saphyr::from_str_with_options(text, options()).map_err(|e| place(path, text, &e))?;
    let mut warnings = Vec::new();
    let mut warn = |key: String| {
        warnings.push(Warning {
            path: path.to_owned(),
            key,
        })
    };
    for (section, value) in &loose {
        let prefix = format!("{section}.");
        let listed = known.iter().any(|k| k.starts_with(&prefix));
        if !listed && !known.contains(&section.as_str()) {
            warn(section.clone());
        }
        if let (true, Some(map)) = (listed, value.as_object()) {
            map.keys()
                .map(|key| format!("{prefix}{key}"))
                .filter(|key| !known.contains(&key.as_str()))
                .for_each(&mut warn);
        }
    }
    Ok((typed, warnings))
}

fn options() -> serde_saphyr::Options {
    // A snippet would print neighbouring lines, and some of them hold access keys of RPC providers.
    serde_saphyr::options! { with_snippet: false }
}

fn place(path: &Path, text: &str, error: &serde_saphyr::Error) -> ConfigError {
    let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
    let on_line = usize::try_from(line)
        .ok()
        .and_then(|n| text.lines().nth(n.saturating_sub(1)))
        .unwrap_or("");
    let key = on_line
        .split(':')
        .next()
        .unwrap_or("")
        .trim()
        .trim_start_matches("- ")
        .to_owned();
    let whole = error.to_string();
    let problem = whole
        .lines()
        .next()
        .unwrap_or("")
        .trim_start_matches("error: ")
        .to_owned();
    ConfigError::Value {
        path: path.to_owned(),
        line,
        column,
        key: if key.is_empty() { "(top)".into() } else { key },
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Sample {
        chain: Chain,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Chain {
        id: u64,
    }

    #[test]
    fn errors_name_file_line_and_key_but_no_other_lines() {
        let error = parse::<Sample>(
            Path::new("/etc/x.yaml"),
            "chain:\n  secret: s3cret\n  id: abc\n",
            &[],
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.starts_with("/etc/x.yaml:3:")
                && error.contains("id:")
                && !error.contains("s3cret"),
            "{error}"
        );
    }

    #[test]
    fn a_key_given_twice_is_an_error() {
        assert!(parse::<Sample>(Path::new("x"), "chain: {id: 1, id: 2}\n", &[]).is_err());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_section() {
        let text = "chain: {id: 1, idd: 2}\nother: 3\nforeign: {a: 1}\n";
        let (sample, warnings) =
            parse::<Sample>(Path::new("x"), text, &["chain.id", "foreign"]).unwrap();
        assert_eq!(sample.chain.id, 1);
        let keys: Vec<_> = warnings.iter().map(|w| w.key.as_str()).collect();
        assert_eq!(keys, ["chain.idd", "other"]);
    }
}
