//! Small JSON files in the state directory in which the engine tells commands how something stands: it alone writes them,
//! whole each time, and nothing is decided by them. What is in them is known by
//! [`crate::heads`], [`crate::reconcile`] and [`crate::anchor`].

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Why such a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ToldError {
    /// Reading or writing.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not the engine's.
    #[error("{path} is not as the engine writes it: {reason}; remove it, it is written anew", path = .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// As it was last written; none before it was. What has more than `largest` bytes is not read.
///
/// # Errors
/// [`ToldError`].
pub fn load<T: DeserializeOwned>(path: &Path, largest: u64) -> Result<Option<T>, ToldError> {
    let path = || path.to_owned();
    let io = |source| ToldError::Io {
        path: path(),
        source,
    };
    let file = match std::fs::File::open(path()) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    let mut bytes = Vec::new();
    let read = file.take(largest + 1).read_to_end(&mut bytes).map_err(io)?;
    let content = |reason: String| ToldError::Content {
        path: path(),
        reason,
    };
    if u64::try_from(read).map_or(true, |read| read > largest) {
        return Err(content(format!("it has more than {largest} bytes")));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| content(e.to_string()))
}

/// Writes it in one step: a reader sees the old or the new one.
///
/// # Errors
/// [`ToldError::Io`].
pub fn store<T: Serialize>(path: &Path, what: &T) -> Result<(), ToldError> {
    let text = serde_json::to_string(what).map_err(std::io::Error::from);
    text.and_then(|text| crate::cli::replace(path, &(text + "\n")))
        .map_err(|source| ToldError::Io {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_none_and_what_is_not_the_engines_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("told.json");
        assert_eq!(load::<Vec<u8>>(&path, 20).unwrap(), None);
        store(&path, &[1, 2, 3]).unwrap();
        assert_eq!(load::<Vec<u8>>(&path, 20).unwrap(), Some(vec![1, 2, 3]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        for junk in ["{", "", "[1, 2, 3] [", &format!("[1]{}", " ".repeat(18))] {
            std::fs::write(&path, junk).unwrap();
            let error = load::<Vec<u8>>(&path, 20).unwrap_err().to_string();
            assert!(
                error.contains("told.json") && error.contains("remove it"),
                "{error}"
            );
        }
        let nowhere = dir.path().join("nowhere/told.json");
        let error = store(&nowhere, &[1]).unwrap_err().to_string();
        assert!(error.contains("nowhere"), "{error}");
    }
}
