//! Finding a program once, at start, so that what was checked is what runs later.
//! A program is a regular file of root's that nobody else may write, in directories of root's that nobody else may
//! write; it is held as a descriptor. Scripts (Proxmox's `qm` is one) are held together with their interpreter.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, open, openat};

/// Why a program is not trusted or not there.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not an absolute path.
    #[error("{path} is not an absolute path; programs are named by their full path", path = .0.display())]
    NotAbsolute(PathBuf),
    /// It, or a directory above it, cannot be opened.
    #[error("{path} cannot be opened: {source}", path = path.display())]
    Open {
        /// What could not be opened.
        path: PathBuf,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// Somebody else than root could put another program there.
    #[error("{path} {why}; a program run by the agent must be root's, in directories that only root may write", path = path.display())]
    Untrusted {
        /// The offending file or directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no sandbox to run it in.
    #[error("{path} cannot be run: its sandbox could not be prepared: {source}", path = path.display())]
    Sandbox {
        /// The program.
        path: PathBuf,
        /// The kernel's reason.
        source: std::io::Error,
    },
}

/// A program that was checked and is held open. Its directory may change afterwards; what runs does not.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    executable: OwnedFd,
    script: Option<Script>,
}

/// The text of an interpreted program and how its first line wants it to be run.
#[derive(Debug)]
pub(super) struct Script {
    /// Readable descriptor of the script.
    pub(super) file: OwnedFd,
    /// Path of the interpreter, for its own `argv[0]`.
    pub(super) interpreter: PathBuf,
    /// The one argument that may follow the interpreter.
    pub(super) argument: Option<OsString>,
}

impl Program {
    /// Finds and checks the program at an absolute path. Links are followed beforehand; the result has none.
    ///
    /// # Errors
    /// [`OpenError`] when it is missing or when anyone but root could have put it there.
    pub fn open(path: &Path) -> Result<Program, OpenError> {
        let file = open_checked(path, OFlags::PATH)?;
        let readable = open_checked(path, OFlags::RDONLY);
        // An unreadable executable cannot be a script; anything else about it was checked by the first open.
        let first_line = readable
            .ok()
            .and_then(|fd| first_line(&fd).map(|line| (fd, line)));
        let Some((text, (interpreter, argument))) = first_line else {
            return Ok(Program {
                path: path.to_path_buf(),
                executable: file,
                script: None,
            });
        };
        let executable = open_checked(&interpreter, OFlags::PATH)?;
        Ok(Program {
            path: path.to_path_buf(),
            executable,
            script: Some(Script {
                file: text,
                interpreter,
                argument,
            }),
        })
    }

    /// The path it was found under; for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The interpreter's path when this is a script; sandboxes must allow it too.
    #[must_use]
    pub fn interpreter(&self) -> Option<&Path> {
        self.script
            .as_ref()
            .map(|script| script.interpreter.as_path())
    }

    /// The files that a sandbox has to allow: the program, and its interpreter when it is a script.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        std::iter::once(self.path())
            .chain(self.interpreter())
            .map(Path::to_path_buf)
            .collect()
    }

    pub(super) fn executable(&self) -> BorrowedFd<'_> {
        self.executable.as_fd()
    }

    pub(super) fn script(&self) -> Option<&Script> {
        self.script.as_ref()
    }
}

/// Opens a file by walking down from `/` without links, every step of the way owned and writable by root alone.
fn open_checked(path: &Path, access: OFlags) -> Result<OwnedFd, OpenError> {
    if !path.is_absolute() {
        return Err(OpenError::NotAbsolute(path.to_path_buf()));
    }
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source: std::io::Error| OpenError::Open { path, source }
    };
    // Resolved by name first, then walked without links: a link swapped in between fails the walk.
    let real = std::fs::canonicalize(path).map_err(failed(path))?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at =
        open("/", directory, Mode::empty()).map_err(|e| failed(Path::new("/"))(e.into()))?;
    let mut walked = PathBuf::from("/");
    check(&at, &walked, FileType::Directory)?;
    let names: Vec<&OsStr> = real
        .components()
        .filter_map(|c| {
            if let Component::Normal(name) = c {
                Some(name)
            } else {
                None
            }
        })
        .collect();
    let Some((name, parents)) = names.split_last() else {
        return Err(OpenError::Untrusted {
            path: real,
            why: "is a directory".to_owned(),
        });
    };
    for parent in parents {
        walked.push(parent);
        at = openat(&at, *parent, directory, Mode::empty())
            .map_err(|e| failed(&walked)(e.into()))?;
        check(&at, &walked, FileType::Directory)?;
    }
    walked.push(name);
    let flags = access
        | OFlags::NOFOLLOW
        | OFlags::CLOEXEC
        | if access.contains(OFlags::PATH) {
            OFlags::empty()
        } else {
            OFlags::NONBLOCK
        };
    let file = openat(&at, *name, flags, Mode::empty()).map_err(|e| failed(&walked)(e.into()))?;
    let stat = check(&file, &walked, FileType::RegularFile)?;
    if stat.st_mode & 0o111 == 0 {
        return Err(OpenError::Untrusted {
            path: walked,
            why: "is not executable".to_owned(),
        });
    }
    Ok(file)
}

fn check(fd: &OwnedFd, path: &Path, wanted: FileType) -> Result<Stat, OpenError> {
    let untrusted = |why: String| OpenError::Untrusted {
        path: path.to_path_buf(),
        why,
    };
    let stat = fstat(fd).map_err(|e| OpenError::Open {
        path: path.to_path_buf(),
        source: e.into(),
    })?;
    if FileType::from_raw_mode(stat.st_mode) != wanted {
        let expected = if wanted == FileType::Directory {
            "directory"
        } else {
            "regular file"
        };
        return Err(untrusted(format!("is not a {expected}")));
    }
    if stat.st_uid != 0 {
        return Err(untrusted(format!("belongs to uid {}", stat.st_uid)));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(untrusted(format!(
            "may be written by others (mode {:04o})",
            stat.st_mode & 0o7777
        )));
    }
    Ok(stat)
}

/// The interpreter line, when the file starts with one.
fn first_line(fd: &OwnedFd) -> Option<(PathBuf, Option<OsString>)> {
    let mut buffer = [0u8; 256];
    let count = rustix::io::pread(fd, &mut buffer, 0).ok()?;
    parse_first_line(buffer.get(..count)?)
}

fn parse_first_line(bytes: &[u8]) -> Option<(PathBuf, Option<OsString>)> {
    let rest = bytes.strip_prefix(b"#!")?;
    let line = rest.split(|&byte| byte == b'\n').next()?.trim_ascii();
    let end = line
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(line.len());
    let (interpreter, argument) = line.split_at(end);
    let argument = argument.trim_ascii();
    let to_os = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    (!interpreter.is_empty()).then(|| {
        (
            PathBuf::from(to_os(interpreter)),
            (!argument.is_empty()).then(|| to_os(argument)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_line_splits_as_the_kernel_does_into_at_most_two_words() {
        type Words = Option<(&'static str, Option<&'static str>)>;
        let cases: [(&[u8], Words); 6] = [
            (b"\x7fELF", None),
            (b"#!\n", None),
            (b"#!/bin/sh\necho", Some(("/bin/sh", None))),
            (
                b"#! /usr/bin/perl -T\n",
                Some(("/usr/bin/perl", Some("-T"))),
            ),
            (
                b"#!/usr/bin/env python3 -x \n",
                Some(("/usr/bin/env", Some("python3 -x"))),
            ),
            (b"#!/bin/sh", Some(("/bin/sh", None))),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|(i, a)| (PathBuf::from(i), a.map(OsString::from)));
            assert_eq!(parse_first_line(line), expected, "{line:?}");
        }
    }
}
