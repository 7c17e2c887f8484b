//! A private host: one directory that is the root of everything BlockHost reads and writes, with the owners and modes
//! of a real installation, the programs installed in it, and the services started as their own users.

pub mod accounts;
pub mod bus;
pub mod config;
pub mod services;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use blockhost_proto::layout::{Layout, ROOT_VARIABLE};

use crate::command::{Output, RunError, command, install, run, with_args};
use accounts::{Account, account};

/// The programs of the product, as `cargo build` names them.
pub const PROGRAMS: &[&str] = &[
    "blockhost",
    "blockhost-root-agent",
    "blockhost-qm",
    "blockhost-pct",
    "blockhost-containers",
    "blockhost-engine",
    "blockhost-bus",
    "blockhost-net-revert",
    "blockhost-deploy-contracts",
    "blockhost-mint-nft",
    "blockhost-generate-signup",
    "ab",
    "bw",
    "is",
    "bhcrypt",
    "blockhost-build-template",
    "blockhost-vm-create",
    "blockhost-vm-resume",
    "blockhost-vm-destroy",
    "blockhost-vm-start",
    "blockhost-vm-stop",
    "blockhost-vm-kill",
    "blockhost-vm-status",
    "blockhost-vm-list",
    "blockhost-vm-metrics",
    "blockhost-vm-throttle",
    "blockhost-vm-onboot",
    "blockhost-vm-stop-all",
    "blockhost-vm-update-gecos",
    "blockhost-vm-guest-exec",
    "blockhost-vm-gc",
    "blockhost-witness",
];

/// Where a world appears inside its mount namespace. The agent runs only programs in directories that only root may
/// write, all the way up; a demo in `/var/tmp` or a test in a temporary directory would not qualify by its own path.
const MOUNTED_AT: &str = "/srv";

/// What is needed where only the agent is looked at.
pub const AGENT_ONLY: &[&str] = &[
    "blockhost-root-agent",
    "blockhost-qm",
    "blockhost-pct",
    "blockhost-containers",
];

/// The directories of an installed host.
const TMPFILES: &str = include_str!("../../../packaging/tmpfiles.d/blockhost.conf");

/// Why a world cannot be made or a program in it failed.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A file or directory of the world.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A system user is missing.
    #[error("there is no user {name}; run: bash scripts/setup.sh")]
    NoUser {
        /// Which one.
        name: String,
    },
    /// One of our programs was not built.
    #[error("{} is missing; build it with: cargo build --workspace --bins", path.display())]
    NotBuilt {
        /// Where it was expected.
        path: PathBuf,
    },
    /// A program failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A service did not come up or went away.
    #[error("{service}: {reason}; its log ({}) ends with:\n{tail}", log.display())]
    Service {
        /// Which one.
        service: String,
        /// What was waited for.
        reason: String,
        /// Its log file.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// The local chain was not installed.
    #[error(
        "the local chain (anvil) is not installed under engine/contracts/node_modules; run: bash scripts/setup.sh"
    )]
    NoAnvil,
}

/// Adds path and intent to an I/O error.
pub(crate) fn at<T>(
    what: &'static str,
    path: &Path,
    result: std::io::Result<T>,
) -> Result<T, WorldError> {
    result.map_err(|source| WorldError::File {
        what,
        path: path.to_owned(),
        source,
    })
}

/// A private host.
pub struct World {
    /// The directory that holds the root and the logs.
    pub dir: PathBuf,
    /// Where everything of the product lies.
    pub layout: Layout,
    /// One log per service and program run.
    pub logs: PathBuf,
    /// Who the unprivileged services run as.
    pub blockhost: Account,
    /// Where the programs are installed inside.
    pub bin: PathBuf,
}

impl World {
    /// Makes the directories, installs these programs from `built` (a cargo target directory's profile) and writes the
    /// configuration that does not depend on the chain. An earlier world in the same place is removed.
    ///
    /// # Errors
    /// [`WorldError`] with path and reason.
    pub fn create(dir: &Path, built: &Path, programs: &[&str]) -> Result<Self, WorldError> {
        let files = dir.join("world");
        if files.exists() {
            clear(&files, &dir.join("images"))?;
        }
        let logs = dir.join("logs");
        if logs.exists() {
            at("removing earlier logs", &logs, fs::remove_dir_all(&logs))?;
        }
        let world = Self {
            dir: dir.to_owned(),
            layout: Layout::new(MOUNTED_AT),
            logs,
            blockhost: account("blockhost")?,
            bin: Path::new(MOUNTED_AT).join("usr/bin"),
        };
        account("blockhost-agent")?;
        account("blockhost-vm")?;
        make_directory(&world.dir, 0, 0, 0o755)?;
        make_directory(&world.logs, 0, 0, 0o755)?;
        make_directory(&files, 0, 0, 0o755)?;
        let (from, to) = (files.display().to_string(), MOUNTED_AT);
        run(
            with_args("mount", &["--bind", &from, to]),
            Duration::from_secs(60),
        )?;
        world.make_directories()?;
        world.install(built, programs)?;
        config::write_static(&world)?;
        world.bring_images()?;
        Ok(world)
    }

    /// Directories as the packages make them: from the very file that systemd-tmpfiles reads on a real host.
    fn make_directories(&self) -> Result<(), WorldError> {
        for plain in [
            "",
            "etc",
            "usr",
            "usr/bin",
            "usr/share",
            "usr/share/blockhost",
            "var",
            "var/lib",
            "run",
        ] {
            make_directory(&self.layout.root().join(plain), 0, 0, 0o755)?;
        }
        for line in TMPFILES.lines().filter(|line| line.starts_with("d ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, path, mode, user, group, ..] = words[..] else {
                continue;
            };
            let mode = u32::from_str_radix(mode, 8).unwrap_or(0o700);
            make_directory(
                &self.layout.join(path),
                account(user)?.uid,
                account(group)?.gid,
                mode,
            )?;
        }
        Ok(())
    }

    /// Copies the programs, owned by root as a package would, so that a clone in somebody's home works too.
    fn install(&self, built: &Path, programs: &[&str]) -> Result<(), WorldError> {
        for program in programs {
            let from = built.join(program);
            if !from.is_file() {
                return Err(WorldError::NotBuilt { path: from });
            }
            let to = self.bin.join(program);
            at("installing", &to, install(&from, &to))?;
        }
        Ok(())
    }

    /// The network of the host: bridge `vmbr0` with the gateway addresses of both pools.
    ///
    /// # Errors
    /// [`WorldError::Run`] with the command that failed.
    pub fn network(&self) -> Result<(), WorldError> {
        let limit = Duration::from_secs(60);
        for words in [
            "link add vmbr0 type bridge stp_state 0 forward_delay 0",
            "addr add 10.77.0.1/24 dev vmbr0",
            "-6 addr add fd77:b10c::1/64 dev vmbr0 nodad",
            "link set vmbr0 up",
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            run(with_args("ip", &words), limit)?;
        }
        Ok(())
    }

    /// A command inside the world, as `blockhost`, with an empty environment but the usual.
    #[must_use]
    pub fn as_blockhost(&self, program: &str, args: &[&str]) -> Command {
        let mut command = command("setpriv");
        command.args([
            "--reuid=blockhost",
            "--regid=blockhost",
            "--init-groups",
            "--",
        ]);
        command.arg(self.program(program)).args(args);
        self.environment(&mut command);
        command
    }

    /// A command inside the world, as root.
    #[must_use]
    pub fn as_root(&self, program: &str, args: &[&str]) -> Command {
        let mut command = command(self.program(program));
        command.args(args);
        self.environment(&mut command);
        command
    }

    fn program(&self, program: &str) -> PathBuf {
        if PROGRAMS.contains(&program) {
            self.bin.join(program)
        } else {
            PathBuf::from(program)
        }
    }

    /// The environment a service manager would give: nothing of ours but the root of the world.
    pub fn environment(&self, command: &mut Command) {
        command
            .env_clear()
            .env(ROOT_VARIABLE, self.layout.root())
            .env(
                "PATH",
                format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.bin.display()),
            )
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", self.layout.state())
            .current_dir("/");
    }

    /// Runs one of our programs as `blockhost` to its end; what it wrote to stderr is kept in the logs.
    ///
    /// # Errors
    /// [`WorldError::Run`].
    pub fn run(&self, program: &str, args: &[&str], limit: Duration) -> Result<Output, WorldError> {
        self.keep_log(program, run(self.as_blockhost(program, args), limit))
    }

    /// Puts what a program wrote into `<logs>/<program>.log`, whether it succeeded or not.
    ///
    /// # Errors
    /// The error of the run, unchanged.
    pub fn keep_log(
        &self,
        program: &str,
        result: Result<Output, RunError>,
    ) -> Result<Output, WorldError> {
        let text = match &result {
            Ok(output) => format!("{}{}", output.stderr, output.stdout),
            Err(RunError::Failed { stderr, stdout, .. }) => format!("{stderr}{stdout}"),
            Err(error) => error.to_string(),
        };
        let path = self.logs.join(format!("{program}.log"));
        let opened = fs::OpenOptions::new().create(true).append(true).open(&path);
        let mut file = at("opening the log", &path, opened)?;
        at(
            "writing the log",
            &path,
            std::io::Write::write_all(&mut file, text.as_bytes()),
        )?;
        Ok(result?)
    }

    /// Puts back the template images that an earlier world of this directory has built.
    fn bring_images(&self) -> Result<(), WorldError> {
        let kept = self.dir.join("images");
        if kept.exists() {
            // By its path below the mount: files do not move between mounts.
            let images = Layout::new(self.dir.join("world")).images();
            at("replacing", &images, fs::remove_dir(&images))?;
            at("moving the images to", &images, fs::rename(&kept, &images))?;
        }
        Ok(())
    }

    /// Removes the world but not the logs; the template images stay in the directory for the next one.
    ///
    /// # Errors
    /// [`WorldError::File`].
    pub fn remove(self) -> Result<(), WorldError> {
        run(
            with_args("umount", &["--lazy", MOUNTED_AT]),
            Duration::from_secs(60),
        )?;
        clear(&self.dir.join("world"), &self.dir.join("images"))
    }
}

/// Removes a world after taking its template images out.
fn clear(root: &Path, kept: &Path) -> Result<(), WorldError> {
    let images = Layout::new(root).images();
    if images.exists() && !kept.exists() {
        at("keeping the images in", kept, fs::rename(&images, kept))?;
    }
    at("removing the earlier world", root, fs::remove_dir_all(root))
}

/// Makes a directory with exactly this owner and mode, whatever the umask.
pub(crate) fn make_directory(path: &Path, uid: u32, gid: u32, mode: u32) -> Result<(), WorldError> {
    at("making the directory", path, fs::create_dir_all(path))?;
    at(
        "changing the owner of",
        path,
        chown(path, Some(uid), Some(gid)),
    )?;
    at(
        "changing the mode of",
        path,
        fs::set_permissions(path, fs::Permissions::from_mode(mode)),
    )
}

/// Writes a file with exactly this owner and mode; the mode is set before the content is written.
pub(crate) fn write_file(
    path: &Path,
    content: &str,
    uid: u32,
    gid: u32,
    mode: u32,
) -> Result<(), WorldError> {
    at("creating", path, fs::write(path, ""))?;
    at(
        "changing the owner of",
        path,
        chown(path, Some(uid), Some(gid)),
    )?;
    at(
        "changing the mode of",
        path,
        fs::set_permissions(path, fs::Permissions::from_mode(mode)),
    )?;
    at("writing", path, fs::write(path, content))
}

/// Where `cargo` put the programs of this build: beside the running one, or one up for a test binary in `deps`.
#[must_use]
pub fn built_programs() -> PathBuf {
    let mut directory = std::env::current_exe().unwrap_or_default();
    directory.pop();
    if directory.ends_with("deps") {
        directory.pop();
    }
    directory
}

/// Why a world with these programs and a local chain cannot be made here, if it cannot. The programs belong to other
/// packages of the workspace; `make test` builds them first.
///
/// # Errors
/// What is missing, and how to get it.
pub fn possible<'a>(programs: impl IntoIterator<Item = &'a &'a str>) -> Result<(), String> {
    let missing = programs
        .into_iter()
        .map(|program| built_programs().join(program))
        .find(|path| !path.is_file());
    if let Some(path) = missing {
        return Err(WorldError::NotBuilt { path }.to_string());
    }
    let anvil = repository().join("engine/contracts/node_modules/.bin/anvil");
    if anvil.is_file() {
        Ok(())
    } else {
        Err(WorldError::NoAnvil.to_string())
    }
}

/// The pid 1 of private worlds, beside the other programs.
#[must_use]
pub fn init_program() -> PathBuf {
    built_programs().join("blockhost-world-init")
}

/// The repository this was built from: contracts, the local chain.
#[must_use]
pub fn repository() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}
