//! Our own program by its installed name, for LXC's monitors: each keeps its configuration as long as its container lives,
//! across restarts of the service, and runs the hook in it again when the container restarts itself. A name in `/proc`
//! would lead to whoever has that number by then. Checked before each start, as the agent checks what it starts.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, RawMode, fstat, open, openat};

use crate::error::{Error, IoContext, Result};

/// The name that this program was started under. Asked when the service starts: later its file may have been replaced.
///
/// # Errors
/// When `/proc` is missing.
pub fn installed() -> Result<PathBuf> {
    fs::read_link("/proc/self/exe").at("cannot read", "/proc/self/exe")
}

/// Refuses a program that anybody but root could put something else in the place of, or whose name would not be one word
/// of a shell, which is what LXC has hooks run by.
///
/// # Errors
/// [`Error::Environment`] with what is wrong.
pub fn check(program: &Path) -> Result<()> {
    let refused = |at: &Path, why: &str| {
        Error::Environment(format!(
            "{} is run by LXC as a hook, and {} {why}: install it where only root may write",
            program.display(),
            at.display()
        ))
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    let text = program.to_str().unwrap_or_default();
    if !text.starts_with('/') || !text.chars().all(plain) {
        return Err(refused(program, "is no plain absolute path"));
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut walked = PathBuf::from("/");
    let mut at = open("/", flags, Mode::empty()).at("cannot open", "/")?;
    let mut names = program.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    loop {
        let stat = fstat(&at).at("cannot inspect", &walked)?;
        let next = names.next();
        if let Some(why) = fault(stat.st_uid, stat.st_mode, next.is_some()) {
            return Err(refused(&walked, why));
        }
        let Some(name) = next else { return Ok(()) };
        walked.push(name);
        at = openat(&at, name, flags, Mode::empty()).at("cannot open", &walked)?;
    }
}

/// What is wrong with a part of a program's path, the program itself being the last.
fn fault(owner: u32, mode: RawMode, has_next: bool) -> Option<&'static str> {
    let wanted = if has_next {
        FileType::Directory
    } else {
        FileType::RegularFile
    };
    // What is root's in a directory with this bit, as the next part is, can only be renamed or removed by root.
    let shared = has_next && mode & Mode::SVTX.as_raw_mode() != 0;
    if FileType::from_raw_mode(mode) != wanted {
        Some("is a link, or no directory or file where one is needed")
    } else if owner != 0 {
        Some("does not belong to root")
    } else if mode & 0o022 != 0 && !shared {
        Some("may be written by others")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    #[test]
    fn a_part_of_a_path_is_roots_and_only_root_can_exchange_it() {
        const DIRECTORY: RawMode = 0o040_000;
        const FILE: RawMode = 0o100_000;
        for (owner, mode, has_next, good) in [
            (0, DIRECTORY | 0o755, true, true),
            (0, DIRECTORY | 0o1777, true, true),
            (0, FILE | 0o755, false, true),
            (991, DIRECTORY | 0o755, true, false),
            (0, DIRECTORY | 0o775, true, false),
            (0, DIRECTORY | 0o757, true, false),
            (0, DIRECTORY | 0o755, false, false),
            (0, FILE | 0o755, true, false),
            (0, 0o120_777, true, false),
            (991, FILE | 0o755, false, false),
            (0, FILE | 0o775, false, false),
            (0, FILE | 0o1777, false, false),
        ] {
            let found = fault(owner, mode, has_next);
            assert_eq!(
                found.is_none(),
                good,
                "{owner} {mode:o} {has_next}: {found:?}"
            );
        }
    }

    #[test]
    fn a_hook_that_others_could_replace_or_a_shell_would_take_apart_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("bin");
        fs::create_dir(&directory).unwrap();
        let program = directory.join("program");
        fs::copy(exec::find("true", "coreutils").unwrap(), &program).unwrap();
        check(&program).unwrap();
        let refused = |path: &Path, what: &str| {
            assert!(
                matches!(check(path), Err(Error::Environment(_))),
                "{what}: {}",
                path.display()
            );
        };
        let link = directory.join("link");
        symlink(&program, &link).unwrap();
        refused(&link, "a link");
        symlink(&directory, root.path().join("way")).unwrap();
        refused(&root.path().join("way/program"), "a link on the way");
        for name in ["two words", "a;b", "a$b", "program (deleted)"] {
            fs::copy(&program, directory.join(name)).unwrap();
            refused(&directory.join(name), "no plain name");
        }
        fs::set_permissions(&directory, PermissionsExt::from_mode(0o775)).unwrap();
        refused(&program, "a directory of a group");
        fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
        chown(&program, Some(65_534), None).unwrap();
        refused(&program, "somebody's program");
    }
}
