//! Everything that can go wrong, with the value that was wrong, and the exit code a caller can rely on.
//! The texts follow Proxmox's where scripts match on them.

use std::io;
use std::path::PathBuf;

use crate::host::Family;
use crate::machine::Vmid;

/// Result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What stopped a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no machine with this number.
    #[error("Configuration file 'nodes/{node}/{}/{vmid}.conf' does not exist", family.proxmox_dir())]
    NotFound {
        /// Machine or container.
        family: Family,
        /// The number that was asked for.
        vmid: Vmid,
        /// This host's name.
        node: String,
    },
    /// A machine or container with this number is there already.
    #[error("unable to create {} {vmid} - {} {vmid} already exists on node '{node}'", wanted.thing(), holder.thing())]
    Exists {
        /// What was to be made.
        wanted: Family,
        /// What has the number.
        holder: Family,
        /// The number that is taken.
        vmid: Vmid,
        /// This host's name.
        node: String,
    },
    /// The state of the machine forbids the command.
    #[error("{0}")]
    Conflict(String),
    /// Another command holds the machine's lock for too long.
    #[error("can't lock file '{}' - got timeout", path.display())]
    LockTimeout {
        /// The lock file.
        path: PathBuf,
    },
    /// Something did not happen in time.
    #[error("{0}")]
    Timeout(String),
    /// The machine must run for this command.
    #[error("{} {vmid} not running", family.thing())]
    NotRunning {
        /// Machine or container.
        family: Family,
        /// Which.
        vmid: Vmid,
    },
    /// The guest agent is not configured, not there or refuses.
    #[error("{0}")]
    Agent(String),
    /// An option or argument has no valid value.
    #[error("400 Parameter verification failed.\n{key}: {problem}")]
    Option {
        /// Name of the option.
        key: String,
        /// What is wrong, with the value.
        problem: String,
    },
    /// The host lacks something.
    #[error("{0}")]
    Environment(String),
    /// A stored configuration cannot be read.
    #[error("{}: line {line}: {problem}; the file was left as it is", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A disk image is not acceptable.
    #[error("image '{image}' refused: {problem}")]
    Image {
        /// Which image.
        image: String,
        /// Why.
        problem: String,
    },
    /// A helper program failed.
    #[error("command '{program}' failed: {problem}")]
    Program {
        /// Name of the program.
        program: String,
        /// Exit status and what it said.
        problem: String,
    },
    /// QEMU answered with an error or not at all.
    #[error("VM {vmid} qmp command '{command}' failed - {problem}")]
    Qmp {
        /// Which machine.
        vmid: Vmid,
        /// Which command.
        command: String,
        /// QEMU's words, or the time-out.
        problem: String,
    },
    /// A system call on a file failed.
    #[error("{action} '{}': {source}", path.display())]
    Io {
        /// What was being done, as "cannot write".
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Nothing of the above; the sentence says what.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Exit code of `blockhost-qm` and `blockhost-pct`. 2 absent machine, 3 conflict, 4 time-out, 5 guest agent, 6 usage, 7 host not set up,
    /// 8 damaged configuration of the machine, 1 everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::NotFound { .. } => 2,
            Error::Exists { .. } | Error::Conflict(_) => 3,
            Error::LockTimeout { .. } | Error::Timeout(_) => 4,
            Error::NotRunning { .. } | Error::Agent(_) => 5,
            Error::Option { .. } => 6,
            Error::Environment(_) => 7,
            Error::Config { .. } => 8,
            Error::Image { .. }
            | Error::Program { .. }
            | Error::Qmp { .. }
            | Error::Io { .. }
            | Error::Failed(_) => 1,
        }
    }

    /// Whether this is a configuration that is there and cannot be understood.
    pub fn is_damage(&self) -> bool {
        matches!(self, Error::Config { .. })
    }

    /// An [`Error::Option`] from anything printable.
    pub fn option(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Error::Option {
            key: key.into(),
            problem: problem.into(),
        }
    }
}

/// Adds action and path to an I/O result.
pub trait IoContext<T> {
    /// "cannot write '/path': ..."
    ///
    /// # Errors
    /// The same failure, with its circumstances.
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::Io {
            action,
            path: path.into(),
            source: source.into(),
        })
    }
}
