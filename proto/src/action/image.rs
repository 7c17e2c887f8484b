//! `virt-customize`: changes inside a disk image. The image compartment carries it out, without privileges; what the
//! operations are and what each may name is said here.

use std::fmt;

use serde_json::{Value, json};

use super::{ResourceKey, action};
use crate::catalog::FieldSpec;
use crate::value::{
    FileMode, GuestPath, GuestText, ImagePath, PackageName, Param, Text, ValueError,
};

action! {
    /// Changes the inside of a disk image, operation by operation, in the order given. The image is replaced only when
    /// all of them have succeeded.
    VirtCustomize = "virt-customize", family "virt", compartment Image, capabilities &[],
    time_limit_s 1800, read_only false, ledger "image" / "storage" / "modify",
    {
        /// The image: a path below an allowed image directory.
        image_path: ImagePath,
        /// The operations, each as a list of its name (with or without `--`) and its one argument, written as the tool of
        /// that name takes it: `["install", "nginx,curl"]`, `["write", "/etc/motd:hello"]`, `["copy-in", "site:/var/www"]`.
        commands: ImageOps,
    }
    // By its last component: both spellings of one image, relative and whole, wait for each other.
    resources |a| vec![ResourceKey::named(format!("image:{}", a.image_path.file_name()))],
    resource |a| format!("image:{}", a.image_path),
    returns &[FieldSpec::text("format", "Format of the image: `qcow2` or `raw`.")],
    example r#"{"image_path": "debian-12.qcow2", "commands": [["install", "nginx"], ["write", "/etc/motd:welcome"]]}"#,
}

/// One change inside an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageOp {
    /// `install`: packages of the guest's distribution.
    Install(Vec<PackageName>),
    /// `run-command`: a command for the guest's shell, run inside the image.
    RunCommand(GuestText),
    /// `copy-in`: a file or directory of the host into a directory of the guest.
    CopyIn {
        /// Below an allowed image directory of the host.
        source: ImagePath,
        /// Directory of the guest.
        directory: GuestPath,
    },
    /// `upload`: a file of the host to a path in the guest.
    Upload {
        /// Below an allowed image directory of the host.
        source: ImagePath,
        /// File of the guest.
        file: GuestPath,
    },
    /// `chmod`.
    Chmod {
        /// Permissions.
        mode: FileMode,
        /// File or directory of the guest.
        path: GuestPath,
    },
    /// `mkdir`, with its parents.
    Mkdir(GuestPath),
    /// `write`: replaces the contents of a file.
    Write {
        /// File of the guest.
        file: GuestPath,
        /// Its new contents; may be empty, may have several lines.
        content: GuestText,
    },
    /// `append-line`.
    AppendLine {
        /// File of the guest.
        file: GuestPath,
        /// One line, without its end.
        line: GuestText,
    },
    /// `firstboot-command`: a command for the guest's shell, run when the machine first boots.
    FirstbootCommand(GuestText),
    /// `run`: a script of the host, run inside the image.
    Run(ImagePath),
    /// `delete`: a file or directory of the guest.
    Delete(GuestPath),
}

const NAMES: [&str; 11] = [
    "append-line",
    "chmod",
    "copy-in",
    "delete",
    "firstboot-command",
    "install",
    "mkdir",
    "run",
    "run-command",
    "upload",
    "write",
];

/// Packages in one `install`.
const MAX_PACKAGES: usize = 64;

impl ImageOp {
    const KIND: &'static str = "image operation";

    /// Its name, without dashes.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Install(_) => "install",
            Self::RunCommand(_) => "run-command",
            Self::CopyIn { .. } => "copy-in",
            Self::Upload { .. } => "upload",
            Self::Chmod { .. } => "chmod",
            Self::Mkdir(_) => "mkdir",
            Self::Write { .. } => "write",
            Self::AppendLine { .. } => "append-line",
            Self::FirstbootCommand(_) => "firstboot-command",
            Self::Run(_) => "run",
            Self::Delete(_) => "delete",
        }
    }

    /// Its argument in canonical form.
    #[must_use]
    pub fn argument(&self) -> String {
        match self {
            Self::Install(packages) => packages
                .iter()
                .map(PackageName::as_str)
                .collect::<Vec<_>>()
                .join(","),
            Self::RunCommand(text) | Self::FirstbootCommand(text) => text.to_string(),
            Self::CopyIn { source, directory } => format!("{source}:{directory}"),
            Self::Upload { source, file } => format!("{source}:{file}"),
            Self::Chmod { mode, path } => format!("{mode}:{path}"),
            Self::Mkdir(path) | Self::Delete(path) => path.to_string(),
            Self::Write { file, content } => format!("{file}:{content}"),
            Self::AppendLine { file, line } => format!("{file}:{line}"),
            Self::Run(script) => script.to_string(),
        }
    }

    /// The file of the host that it names.
    #[must_use]
    pub const fn host_path(&self) -> Option<&ImagePath> {
        match self {
            Self::CopyIn { source, .. } | Self::Upload { source, .. } | Self::Run(source) => {
                Some(source)
            }
            _ => None,
        }
    }

    /// Reads one operation from its name, with or without `--`, and its argument.
    ///
    /// # Errors
    /// [`ValueError`] with what the operation takes. Free text (commands, contents) is not quoted in it.
    pub fn parse(name: &str, argument: &str) -> Result<Self, ValueError> {
        let plain = name.strip_prefix("--").unwrap_or(name);
        let name = NAMES
            .into_iter()
            .find(|known| *known == plain)
            .ok_or_else(|| ValueError::new(Self::KIND, name, OPERATIONS))?;
        Self::read(name, argument).ok_or_else(|| {
            let shown = if name == "install" || argument.starts_with('/') && !argument.contains(':')
            {
                argument.to_owned()
            } else {
                format!("{} bytes", argument.len())
            };
            ValueError::new(Self::KIND, &format!("{name} {shown}"), rule(name))
        })
    }

    fn read(name: &str, argument: &str) -> Option<Self> {
        // Neither a path nor a mode can hold the separator, so the first one is it.
        let pair = || argument.split_once(':');
        let text = || GuestText::read(argument).filter(|text| !text.as_str().is_empty());
        Some(match name {
            "install" => {
                let packages: Vec<PackageName> = argument
                    .split(',')
                    .map(PackageName::read)
                    .collect::<Option<_>>()?;
                (packages.len() <= MAX_PACKAGES).then_some(Self::Install(packages))?
            }
            "run-command" => Self::RunCommand(text()?),
            "firstboot-command" => Self::FirstbootCommand(text()?),
            "copy-in" => {
                let (source, directory) = pair()?;
                Self::CopyIn {
                    source: ImagePath::read(source)?,
                    directory: GuestPath::read(directory)?,
                }
            }
            "upload" => {
                let (source, file) = pair()?;
                Self::Upload {
                    source: ImagePath::read(source)?,
                    file: GuestPath::read(file)?,
                }
            }
            "chmod" => {
                let (mode, path) = pair()?;
                Self::Chmod {
                    mode: FileMode::read(mode)?,
                    path: GuestPath::read(path)?,
                }
            }
            "mkdir" => Self::Mkdir(GuestPath::read(argument)?),
            "delete" => Self::Delete(GuestPath::read(argument)?),
            "write" => {
                let (file, content) = pair()?;
                Self::Write {
                    file: GuestPath::read(file)?,
                    content: GuestText::read(content)?,
                }
            }
            "append-line" => {
                let (file, line) = pair()?;
                Self::AppendLine {
                    file: GuestPath::read(file)?,
                    line: GuestText::read(line).filter(GuestText::is_one_line)?,
                }
            }
            "run" => Self::Run(ImagePath::read(argument)?),
            _ => return None,
        })
    }
}

const OPERATIONS: &str = "one of append-line, chmod, copy-in, delete, firstboot-command, install, mkdir, run, run-command, upload, write";

fn rule(name: &str) -> &'static str {
    match name {
        "install" => "one to 64 package names separated by commas, none ending with -",
        "run-command" | "firstboot-command" => "a command of 1 to 16384 bytes without NUL",
        "copy-in" => {
            "<file or directory below an image directory>:<absolute directory of the guest>"
        }
        "upload" => "<file below an image directory>:<absolute path in the guest>",
        "chmod" => "<three or four octal digits>:<absolute path in the guest>",
        "mkdir" | "delete" => GuestPath::RULE,
        "write" => "<absolute path in the guest>:<at most 16384 bytes without NUL>",
        "append-line" => "<absolute path in the guest>:<one line of at most 16384 bytes>",
        "run" => "a script below an image directory",
        _ => OPERATIONS,
    }
}

impl fmt::Display for ImageOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One to 256 operations in order. In JSON a list of `[name, argument]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOps(Vec<ImageOp>);

impl ImageOps {
    /// How many operations one request may hold.
    pub const MAX: usize = 256;
    const KIND: &'static str = "list of image operations";
    const RULE: &'static str = "1 to 256 operations, each [name, argument]";

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &ImageOp> {
        self.0.iter()
    }

    /// The files of the host that they name.
    pub fn host_paths(&self) -> impl Iterator<Item = &ImagePath> {
        self.iter().filter_map(ImageOp::host_path)
    }
}

impl TryFrom<Vec<ImageOp>> for ImageOps {
    type Error = ValueError;
    fn try_from(list: Vec<ImageOp>) -> Result<Self, ValueError> {
        if (1..=Self::MAX).contains(&list.len()) {
            Ok(Self(list))
        } else {
            let given = format!("{} operations", list.len());
            Err(ValueError::new(Self::KIND, &given, Self::RULE))
        }
    }
}

impl Param for ImageOps {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        let list = value
            .as_array()
            .ok_or_else(|| ValueError::of_json(Self::KIND, value, Self::RULE))?;
        let ops: Vec<ImageOp> = list
            .iter()
            .map(|entry| match entry.as_array().map(Vec::as_slice) {
                Some([Value::String(name), Value::String(argument)]) => {
                    ImageOp::parse(name, argument)
                }
                _ => Err(ValueError::of_json(
                    ImageOp::KIND,
                    entry,
                    "a list of two texts: its name and its one argument",
                )),
            })
            .collect::<Result<_, _>>()?;
        Self::try_from(ops)
    }
    fn to_json(&self) -> Option<Value> {
        Some(
            self.iter()
                .map(|op| json!([op.name(), op.argument()]))
                .collect(),
        )
    }
    fn schema() -> Value {
        let names = format!("^(--)?({})$", NAMES.join("|"));
        json!({
            "type": "array", "minItems": 1, "maxItems": Self::MAX,
            "items": {
                "type": "array", "minItems": 2, "maxItems": 2,
                "prefixItems": [{"type": "string", "pattern": names}, {"type": "string", "maxLength": 17_410}],
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(commands: &Value) -> Result<ImageOps, ValueError> {
        ImageOps::from_json(commands)
    }

    #[test]
    fn every_operation_is_taken_apart_with_and_without_dashes_and_comes_back() {
        let given = json!([
            ["--install", "nginx,g++"],
            ["run-command", "echo a:b > /tmp/x\ntrue"],
            ["--copy-in", "site:/var/www"],
            ["upload", "/var/lib/blockhost/images/motd:/etc/motd"],
            ["chmod", "755:/usr/local/bin/x"],
            ["--mkdir", "/srv/a/b"],
            ["write", "/etc/x.conf:a = b:c\n"],
            ["write", "/etc/empty:"],
            ["append-line", "/etc/hosts:10.0.0.1 gateway"],
            ["firstboot-command", "systemctl enable --now x"],
            ["run", "setup.sh"],
            ["--delete", "/etc/machine-id"],
        ]);
        let ops = read(&given).unwrap();
        let names: Vec<&str> = ops.iter().map(ImageOp::name).collect();
        for name in NAMES {
            assert!(names.contains(&name), "{name} is not in the example");
            assert!(
                OPERATIONS.contains(name) && rule(name) != OPERATIONS,
                "{name}"
            );
        }
        let canonical = ops.to_json().unwrap();
        assert_eq!(read(&canonical).unwrap(), ops);
        assert_eq!(canonical[4], json!(["chmod", "0755:/usr/local/bin/x"]));
        assert_eq!(ops.host_paths().count(), 3);
    }

    #[test]
    fn a_refusal_says_what_the_operation_takes_and_keeps_contents_to_itself() {
        let message = read(&json!([["write", "etc/x:hunter2"]]))
            .unwrap_err()
            .to_string();
        assert!(message.contains("absolute path in the guest") && !message.contains("hunter2"));
        let message = read(&json!([["install", "a", "b"]]))
            .unwrap_err()
            .to_string();
        assert!(message.contains("its one argument"), "{message}");
        let ops = read(&json!([
            ["write", "/x:hunter2"],
            ["run-command", "hunter2"]
        ]))
        .unwrap();
        assert!(!format!("{ops:?}").contains("hunter2"));
    }
}
