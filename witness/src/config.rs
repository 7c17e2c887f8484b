//! `/etc/blockhost/witness.yaml`: which logs are witnessed, and where. Typed; unknown keys are errors.

use blockhost_ledger::note::{NoteError, Vkey};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Largest configuration that is read, bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Why the configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what is expected.
    #[error("{}: {why}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What and where.
        why: String,
    },
    /// A key of a log.
    #[error("{}: log {number}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Which entry of `logs`, from 1.
        number: usize,
        /// What is wrong.
        source: NoteError,
    },
    /// Two entries for one log.
    #[error("{}: log {number}: {origin} has an entry already; put all its keys into one", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// Which entry of `logs`, from 1.
        number: usize,
        /// The log.
        origin: String,
    },
    /// An entry without keys, or with keys of several logs.
    #[error("{}: log {number}: give the keys of one log, at least one", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// Which entry of `logs`, from 1.
        number: usize,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "listen")]
    listen: SocketAddr,
    #[serde(default)]
    logs: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    keys: Vec<String>,
}

/// Everything a witness is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The logs it knows, each with the keys whose signatures it takes: those of all epochs that may still be met.
    pub logs: Vec<Log>,
}

/// One log.
#[derive(Debug, Clone)]
pub struct Log {
    /// Its name: the origin line of its checkpoints.
    pub origin: String,
    /// Its keys.
    pub keys: Vec<Vkey>,
}

fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8780))
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        use std::io::Read as _;
        let failed = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut text = String::new();
        file.take(MAX_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
        // A part of it could be a configuration, too: of fewer logs.
        if text.len() as u64 > MAX_BYTES {
            return Err(ConfigError::Shape {
                path: path.to_owned(),
                why: "it is larger than 1 MiB".to_owned(),
            });
        }
        Self::parse(&text, path)
    }

    /// Reads the text of the file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let path = path.to_owned();
        let file: File = serde_saphyr::from_str(text).map_err(|error| ConfigError::Shape {
            path: path.clone(),
            why: error.to_string(),
        })?;
        let mut logs: Vec<Log> = Vec::new();
        for (number, entry) in (1..).zip(&file.logs) {
            let keys = entry
                .keys
                .iter()
                .map(|key| Vkey::parse(key))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|source| ConfigError::Key {
                    path: path.clone(),
                    number,
                    source,
                })?;
            let origin = keys.first().map(|key| key.name().to_owned());
            let origin = origin.filter(|origin| keys.iter().all(|key| key.name() == origin));
            let Some(origin) = origin else {
                return Err(ConfigError::Keys { path, number });
            };
            if logs.iter().any(|log| log.origin == origin) {
                return Err(ConfigError::Twice {
                    path,
                    number,
                    origin,
                });
            }
            logs.push(Log { origin, keys });
        }
        Ok(Self {
            listen: file.listen,
            logs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockhost_ledger::keys::Signer;

    fn vkey(name: &str, n: u8) -> String {
        let signer = Signer::from_bytes(name, 1, &[n; 32]).expect("valid");
        signer.vkey().to_string()
    }

    #[test]
    fn mistakes_in_the_configuration_are_refused_with_their_place() {
        let (a, b) = (vkey("a/log", 1), vkey("b/log", 2));
        let parse = |text: &str| Config::parse(text, Path::new("witness.yaml"));
        let good = parse(&format!("logs:\n- keys: [{a}, {}]\n", vkey("a/log", 3))).expect("valid");
        assert_eq!((good.logs.len(), good.logs[0].keys.len()), (1, 2));
        assert!(good.listen.ip().is_loopback(), "nobody is served unasked");
        for (text, part) in [
            (format!("logs:\n- keys: [{a}]\n- keys: [{a}]\n"), "log 2"),
            (format!("logs:\n- keys: [{a}, {b}]\n"), "log 1"),
            ("logs:\n- keys: []\n".to_owned(), "log 1"),
            ("logs:\n- keys: [x]\n".to_owned(), "log 1"),
            (format!("logs:\n- key: [{a}]\n"), "key"),
            ("listen: here\n".to_owned(), "listen"),
        ] {
            let error = parse(&text).expect_err(&text).to_string();
            assert!(
                error.contains("witness.yaml") && error.contains(part),
                "{error}"
            );
        }
    }

    #[test]
    fn a_configuration_that_is_too_large_is_refused_and_not_cut() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("witness.yaml");
        let text = format!("logs:\n- keys: [{}]\n", vkey("a/log", 1));
        let rest = "# nothing more\n".repeat(1 << 17);
        std::fs::write(&file, format!("{text}{rest}")).expect("written");
        let error = Config::read(&file).expect_err("too large").to_string();
        assert!(error.contains("1 MiB"), "{error}");
    }
}
