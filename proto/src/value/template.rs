//! What a container is made from: an archive of a storage, or a file below a template directory.

use std::fmt;

use serde_json::{Value, json};

use super::file::{COMPONENT, component};
use super::{ImagePath, StorageName, Text, text_value};

/// An archive with a root file system: `<storage>:vztmpl/<file>`, or a path below an allowed template directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TemplateRef {
    /// In a storage of the backend.
    Stored {
        /// The storage.
        storage: StorageName,
        /// Name of the file in it.
        file: String,
    },
    /// A file of the host; which directories are allowed is policy.
    File(ImagePath),
}

text_value!(TemplateRef);

/// What a plain name begins with.
const FIRST: &str = "[A-Za-z0-9_]";

/// How an archive is packed: what containers' tools unpack, told by the name alone.
const ENDINGS: [&str; 5] = [".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"];

fn is_archive(name: &str) -> bool {
    ENDINGS.iter().any(|ending| {
        name.strip_suffix(ending)
            .is_some_and(|stem| !stem.is_empty())
    })
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored { storage, file } => write!(f, "{storage}:vztmpl/{file}"),
            Self::File(path) => write!(f, "{path}"),
        }
    }
}

impl Text for TemplateRef {
    const KIND: &'static str = "container template";
    const RULE: &'static str = "<storage>:vztmpl/<file> or a path of plain components, ending in .tar, .tar.gz, .tar.bz2, .tar.xz or .tar.zst";
    fn read(text: &str) -> Option<Self> {
        let template = match text.split_once(':') {
            None => Self::File(ImagePath::read(text)?),
            Some((storage, rest)) => Self::Stored {
                storage: StorageName::read(storage)?,
                file: rest
                    .strip_prefix("vztmpl/")
                    .filter(|file| component(file))?
                    .to_owned(),
            },
        };
        let name = match &template {
            Self::Stored { file, .. } => file,
            Self::File(path) => path.file_name(),
        };
        is_archive(name).then_some(template)
    }
    fn text_schema() -> Value {
        json!({"type": "string", "maxLength": 1024, "pattern": format!(
            "^([a-z][a-z0-9-]{{0,31}}:vztmpl/|/?({COMPONENT}/)*)({FIRST}[A-Za-z0-9_.+-]{{0,123}}\\.tar|{FIRST}[A-Za-z0-9_.+-]{{0,120}}\\.tar\\.(gz|xz)|{FIRST}[A-Za-z0-9_.+-]{{0,119}}\\.tar\\.(bz2|zst))$")})
    }
}
