//! The Python and TypeScript clients' generated files, rendered from the catalog. What is said about an action stands in
//! the catalog alone; what is written by hand (transport, errors) lies beside the generated files and is not touched.

mod model;
mod python;
mod text;
mod typescript;

use std::path::{Path, PathBuf};

use crate::{WriteError, write};
use model::Model;

/// One generated file.
#[derive(Debug)]
pub struct Generated {
    /// Below `proto/clients`.
    pub path: &'static str,
    /// The whole file.
    pub content: String,
}

/// Every generated file of both clients.
#[must_use]
pub fn files() -> Vec<Generated> {
    let model = Model::of_catalog();
    let mut files = python::files(&model);
    files.extend(typescript::files(&model));
    files
}

/// Writes them below `directory`, which is `proto/clients`; returns how many.
///
/// # Errors
/// [`WriteError`] names the file.
pub fn write_all(directory: &Path) -> Result<usize, WriteError> {
    let files = files();
    for file in &files {
        write(&directory.join(file.path), file.content.as_bytes())?;
    }
    Ok(files.len())
}

/// Where they are in the repository.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/clients")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_clients_are_what_the_catalog_says() {
        for file in files() {
            let committed =
                std::fs::read_to_string(directory().join(file.path)).unwrap_or_default();
            assert!(
                committed == file.content,
                "proto/clients/{} is out of date: run `make clients`",
                file.path
            );
        }
    }
}
