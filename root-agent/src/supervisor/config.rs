//! What the supervisor finds out before it starts anyone: policy, users, backend, directories.

use std::path::{Path, PathBuf};

use blockhost_ledger::policy::{self as witnessing, Policy as WitnessPolicy};
use blockhost_proto::layout::Layout;
use rustix::fs::{Mode, OFlags, chmod, chown, fchmod, fchown, mkdir, open};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::socket::Wanted;
use crate::accounts::{Accounts, AccountsError};
use crate::compartment::{Backend, Identities};
use crate::control::MAX_CONTROL;
use crate::ipc::Start;
use crate::policy::authority::ResolvedRule;
use crate::policy::sockets::SocketName;
use crate::policy::{
    BackendChoice, LandlockChoice, MAX_POLICY_BYTES, Policy, PolicyError, Programs,
};
use crate::sys::landlock;

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The policy file.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The system users.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// The policy file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The policy file could have been changed by somebody who is not root, or made by a process of the agent: those that are
    /// root have not its group.
    #[error(
        "{path}: must belong to root, user and group, and be writable by root alone (if you wrote it: `chown root:root {path}; chmod go-w {path}`)"
    )]
    Writable {
        /// The file.
        path: PathBuf,
    },
    /// A policy that the processes cannot be told.
    #[error(
        "the policy comes to {bytes} bytes when its aliases, defaults and names are spelled out, at most {most} can be passed on; \
         write fewer rules, or shorter lists in them"
    )]
    TooLarge {
        /// What it comes to.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// The witnesses of the ledger.
    #[error("{path}: {why}")]
    Witnesses {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Kernel without Landlock.
    #[error(
        "this kernel has no Landlock; boot with `lsm=...,landlock`, or accept less with `landlock: optional` in the policy"
    )]
    NoLandlock,
    /// A directory cannot be made.
    #[error("{path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What a control message holds beside the policy, its rules and the names of users.
const ENVELOPE: usize = 24 << 10;

/// Reads the policy; a missing file is the default policy.
///
/// # Errors
/// [`ConfigError`] naming the file, line and key.
pub fn read_policy(path: &Path) -> Result<Policy, ConfigError> {
    match read_file(path, true) {
        Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Policy::default())
        }
        other => other,
    }
}

/// Reads a file that is to become the policy; whose it is matters when it has.
///
/// # Errors
/// [`ConfigError`] naming the file, line and key.
pub fn read_draft(path: &Path) -> Result<Policy, ConfigError> {
    read_file(path, false)
}

fn read_file(path: &Path, in_force: bool) -> Result<Policy, ConfigError> {
    use std::io::Read;
    let read = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = std::fs::File::open(path).map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    if in_force {
        by_root(&metadata, path)?;
    }
    let mut text = String::new();
    file.by_ref()
        .take(MAX_POLICY_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(read)?;
    Ok(Policy::parse(&text, &path.display().to_string())?)
}

/// Whether root wrote it, and not the process that keeps wallets: that is root as well and puts files into the same directory,
/// but what it makes has the services' group, and it cannot write into what is there.
fn by_root(metadata: &std::fs::Metadata, path: &Path) -> Result<(), ConfigError> {
    use std::os::unix::fs::MetadataExt;
    if metadata.uid() != 0 || metadata.gid() != 0 || metadata.mode() & 0o022 != 0 {
        return Err(ConfigError::Writable {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Whether no program is meant that this process could have put there.
///
/// # Errors
/// [`ConfigError::Policy`] with the key.
pub fn programs_elsewhere(layout: &Layout, policy: &Policy, file: &str) -> Result<(), ConfigError> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let kept = [layout.etc(), real(&layout.etc())];
    let Programs { qm, pct, xtables } = &policy.programs;
    let programs = [
        ("programs.qm", qm),
        ("programs.pct", pct),
        ("programs.xtables", xtables),
    ];
    for (key, path) in programs {
        let Some(path) = path else { continue };
        let within = |path: &Path| kept.iter().any(|kept| path.starts_with(kept));
        if within(path) || within(&real(path)) {
            let detail = format!(
                "{} is below {}, where no program is run from; put it where programs are",
                path.display(),
                layout.etc().display()
            );
            return Err(ConfigError::Policy(PolicyError::Value {
                file: file.to_owned(),
                key: key.to_owned(),
                detail,
            }));
        }
    }
    Ok(())
}

/// Everything children are told, from the system as it is now.
///
/// # Errors
/// [`ConfigError`].
pub fn gather(
    layout: &Layout,
    policy: Policy,
    passed: &[SocketName],
    journal: bool,
) -> Result<(Start, Vec<Wanted>), ConfigError> {
    if policy.landlock == LandlockChoice::Required && landlock::abi() == 0 {
        return Err(ConfigError::NoLandlock);
    }
    let accounts = Accounts::read()?;
    let identities = accounts.identities(&policy)?;
    let file = layout.agent_policy().display().to_string();
    programs_elsewhere(layout, &policy, &file)?;
    let rules = accounts.resolve(&policy, &identities, passed, &file)?;
    let wanted = wanted_sockets(layout, &policy, &accounts, &identities)?;
    let users = accounts.names(&rules);
    fits(&policy, &rules, &users)?;
    let hostname = rustix::system::uname()
        .nodename()
        .to_str()
        .unwrap_or("localhost")
        .to_owned();
    let start = Start {
        root: layout.root().to_owned(),
        hostname,
        backend: backend(layout, policy.backend),
        identities,
        users,
        rules,
        policy,
        journal,
        started_s: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
        witnesses: witnesses(&layout.etc().join("ledger-witnesses"))?,
    };
    Ok((start, wanted))
}

/// The verifier keys in the policy of witnesses (C2SP tlog-policy); none where there is no such file.
///
/// # Errors
/// [`ConfigError::Writable`], [`ConfigError::Witnesses`].
pub fn witnesses(path: &Path) -> Result<Vec<String>, ConfigError> {
    use std::io::Read;
    let wrong = |why: String| ConfigError::Witnesses {
        path: path.to_owned(),
        why,
    };
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| wrong(error.to_string()))?,
    };
    let metadata = file.metadata().map_err(|error| wrong(error.to_string()))?;
    by_root(&metadata, path)?;
    let mut text = String::new();
    file.take(witnessing::MAX_POLICY_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| wrong(error.to_string()))?;
    let policy = WitnessPolicy::parse(&text).map_err(|error| wrong(error.to_string()))?;
    let keys = policy.witnesses().iter();
    Ok(keys.map(|witness| witness.key.to_string()).collect())
}

/// Whether every child can be told. A few lines of YAML can stand for megabytes; a child that is killed because its
/// message does not fit would come back to the same message.
///
/// # Errors
/// [`ConfigError::TooLarge`].
pub fn fits(
    policy: &Policy,
    rules: &[ResolvedRule],
    users: &[(u32, String)],
) -> Result<(), ConfigError> {
    let most = MAX_CONTROL - ENVELOPE;
    // What cannot be written at all does not fit either.
    let bytes = serde_json::to_vec(&(policy, rules, users)).map_or(usize::MAX, |text| text.len());
    if bytes > most {
        return Err(ConfigError::TooLarge { bytes, most });
    }
    Ok(())
}

/// The agent's own socket and those of the policy.
///
/// # Errors
/// [`ConfigError::Policy`] for a group that does not exist.
pub fn wanted_sockets(
    layout: &Layout,
    policy: &Policy,
    accounts: &Accounts,
    identities: &Identities,
) -> Result<Vec<Wanted>, ConfigError> {
    let groups = accounts.socket_groups(policy, &layout.agent_policy().display().to_string())?;
    let mut wanted = vec![Wanted {
        name: SocketName::main(),
        path: layout.agent_socket(),
        gid: identities.blockhost.gid,
        mode: 0o660,
    }];
    for (name, spec) in &policy.sockets {
        wanted.push(Wanted {
            name: name.clone(),
            path: layout.run().join(spec.file(name).as_str()),
            // Every socket of the policy has its group in the list just made.
            gid: groups.get(name).copied().unwrap_or(0),
            mode: spec.mode.bits(),
        });
    }
    Ok(wanted)
}

fn backend(layout: &Layout, choice: BackendChoice) -> Backend {
    match choice {
        BackendChoice::Proxmox => Backend::Proxmox,
        BackendChoice::Embedded => Backend::Embedded,
        BackendChoice::Auto if layout.is_host() && Path::new("/usr/sbin/qm").exists() => {
            Backend::Proxmox
        }
        BackendChoice::Auto => Backend::Embedded,
    }
}

/// Makes the directories the agent itself needs, where they are missing; existing ones are left as they are.
///
/// # Errors
/// [`ConfigError::Directory`].
pub fn make_directories(layout: &Layout, identities: &Identities) -> Result<(), ConfigError> {
    let group = identities.blockhost.gid;
    let image = identities.image;
    // The run directory is shared with the engine (its lock files), sticky so that nobody removes the socket. The state
    // directory likewise. Images are the services', and replaced whole by the process that customises them.
    for (path, uid, gid, mode) in [
        (layout.etc(), 0, group, 0o750),
        (layout.storage_files(), 0, 0, 0o755),
        (layout.run(), 0, group, 0o1775),
        (layout.ledger(), 0, group, 0o750),
        (layout.ledger_keys(), 0, 0, 0o700),
        (layout.state(), 0, group, 0o1771),
        (layout.images(), identities.blockhost.uid, image.gid, 0o2771),
        (layout.image_work(), image.uid, image.gid, 0o700),
        (
            layout.wireguard_keys(),
            identities.agent.uid,
            identities.agent.gid,
            0o700,
        ),
    ] {
        let failed = |source: Errno| ConfigError::Directory {
            path: path.clone(),
            source: source.into(),
        };
        match mkdir(&path, Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
            Ok(()) => {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                chown(&path, Some(uid), Some(gid)).map_err(failed)?;
                match chmod(&path, Mode::from_raw_mode(mode)) {
                    // RestrictSUIDSGID= of the unit; there systemd-tmpfiles has made the directory before us.
                    Err(Errno::PERM) => chmod(&path, Mode::from_raw_mode(mode & 0o1777)),
                    other => other,
                }
                .map_err(failed)?;
            }
        }
    }
    // The signing key is out of reach of the process that keeps wallets, which Landlock alone cannot say: a rule for
    // /etc/blockhost cannot leave a directory out. But that process is root without capabilities, and this not root's.
    // The keys of tunnels likewise; those are the net process's, which runs as that user.
    for keys in [layout.ledger_keys(), layout.wireguard_keys()] {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        open(&keys, flags, Mode::empty())
            .and_then(|fd| {
                fchown(&fd, Some(Uid::from_raw(identities.agent.uid)), None)?;
                fchmod(&fd, Mode::from_raw_mode(0o700))
            })
            .map_err(|source| ConfigError::Directory {
                path: keys,
                source: source.into(),
            })?;
    }
    Ok(())
}
