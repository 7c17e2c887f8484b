//! A private place to run in: own mount, pid and network namespaces, entered by starting the same program again.
//! Whatever happens to us, the kernel ends everything that was started in there.
//!
//! Shape: `unshare --mount --pid` (dies with its caller) -> `blockhost-world-init` (pid 1, reaps orphans, keeps the
//! host's network namespace reachable as `/proc/1/ns/net`) -> `unshare --net` -> the same program again.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::{RunError, command, run, with_args};

/// Set for the program that runs inside.
const INSIDE: &str = "BLOCKHOST_WORLD_INSIDE";

/// Why no private place can be had.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// Namespaces, users and the agent need it.
    #[error("this needs root (it creates namespaces and starts the root agent); run it with sudo")]
    NotRoot,
    /// A program of the world is missing.
    #[error("{program} is not installed; run: bash scripts/setup.sh")]
    Missing {
        /// Which one.
        program: String,
    },
    /// The helper that is pid 1 inside was not built.
    #[error("{} is missing; build it with: cargo build -p blockhost-tests --bins", path.display())]
    NoInit {
        /// Where it was expected.
        path: PathBuf,
    },
    /// Starting ourselves again failed.
    #[error("cannot enter the namespaces: {0}")]
    Enter(#[from] std::io::Error),
    /// A step of the preparation inside failed.
    #[error("preparing the namespaces: {0}")]
    Prepare(#[from] RunError),
}

/// True for the program that was started inside.
#[must_use]
pub fn inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Checks what can be checked before anything is started.
///
/// # Errors
/// [`NamespaceError::NotRoot`] and [`NamespaceError::Missing`], with what to do.
pub fn check_host() -> Result<(), NamespaceError> {
    if !rustix::process::geteuid().is_root() {
        return Err(NamespaceError::NotRoot);
    }
    for program in ["unshare", "setpriv", "nsenter", "ip", "mount"] {
        if find(program).is_none() {
            return Err(NamespaceError::Missing {
                program: program.to_owned(),
            });
        }
    }
    Ok(())
}

/// The absolute path of a program in `PATH` or the system directories.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let mut directories: Vec<PathBuf> = env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default();
    directories.extend(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from));
    directories
        .into_iter()
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Replaces this program by itself inside; returns only on failure.
///
/// # Errors
/// [`NamespaceError`]; on success this never returns.
pub fn enter(init: &Path) -> Result<std::convert::Infallible, NamespaceError> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    Err(NamespaceError::Enter(
        inner_command(init, &arguments)?.exec(),
    ))
}

/// Runs this same test binary again inside for one test and passes its verdict on. Returns `true` in the outer
/// process when the test ran inside and passed, `false` inside (where the body has to be run).
///
/// # Panics
/// When the test failed inside, or when no test of that name exists.
#[must_use]
pub fn test_ran_inside(test: &str, init: &Path, limit: Duration) -> bool {
    if inside() {
        prepare().expect("the namespaces can be prepared");
        return false;
    }
    if let Err(reason) = check_host() {
        println!("skipped: {reason}");
        return true;
    }
    let arguments = ["--exact", test, "--nocapture", "--test-threads=1"].map(OsString::from);
    let command = inner_command(init, &arguments).expect("the world's init is built");
    match run(command, limit) {
        Ok(output) => {
            print!("{}", output.stdout);
            eprint!("{}", output.stderr);
            assert!(
                output.stdout.contains("1 passed"),
                "no test named {test} ran inside"
            );
        }
        Err(RunError::Failed {
            status,
            stdout,
            stderr,
            ..
        }) => {
            panic!("{test} failed inside the world ({status}):\n{stdout}\n{stderr}")
        }
        Err(error) => panic!("{test}: {error}"),
    }
    true
}

fn inner_command(init: &Path, arguments: &[OsString]) -> Result<Command, NamespaceError> {
    if !init.is_file() {
        return Err(NamespaceError::NoInit {
            path: init.to_owned(),
        });
    }
    let mut command = command("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .arg(init)
        .args(["unshare", "--net"])
        .arg(env::current_exe()?)
        .args(arguments)
        .env(INSIDE, "1");
    Ok(command)
}

/// To be called once, inside, before anything else: loopback up, `/sys` of the new network namespace, forwarding on.
///
/// # Errors
/// [`NamespaceError::Prepare`] with the command that failed.
pub fn prepare() -> Result<(), NamespaceError> {
    let limit = Duration::from_secs(60);
    run(with_args("mount", &["-t", "sysfs", "sysfs", "/sys"]), limit)?;
    run(with_args("ip", &["link", "set", "lo", "up"]), limit)?;
    // The machines' own world: a guest is reachable from here, nothing is reachable from a guest but this namespace.
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        std::fs::write(Path::new("/proc/sys").join(key), "1")?;
    }
    Ok(())
}

/// Prefix of a command that must run in the host's network, because it talks to the package mirror.
#[must_use]
pub fn host_network_prefix() -> [&'static str; 3] {
    ["nsenter", "--net=/proc/1/ns/net", "--"]
}
