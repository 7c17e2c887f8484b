//! create, set, template, destroy. The configuration is written last and removed last, so that a command that was cut off
//! leaves either nothing that anybody sees, or a container that can be destroyed again.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use crate::config::{VmConfig, VmLock, remove};
use crate::error::{Error, IoContext, Result};
use crate::host::Host;
use crate::keeper::not_in_force;
use crate::keeper::wire::{Ask, Packing};
use crate::machine::Vmid;
use crate::storage::{Storages, is_storage_name};
use crate::sys;

use super::client;
use super::options::{self, Change};

/// Makes a container from an archive of a root file system; what is to be said about it.
///
/// # Errors
/// [`Error::Exists`], or when the archive or an option cannot be used; nothing stays then.
pub fn create(
    host: &Host,
    vmid: Vmid,
    template: &str,
    changes: Vec<Change>,
) -> Result<Vec<String>> {
    let _lock = VmLock::take(host, vmid)?;
    host.refuse_existing(vmid)?;
    let options::New {
        mut config,
        root,
        ssh_keys,
    } = options::new(vmid, changes)?;
    options::start_spec(&config)?;
    let packing = packing_of(template)?;
    let archive = open_template(host, template)?;
    let ask = Ask::Create {
        vmid: vmid.get(),
        packing,
        bytes: u64::from(root.gib) << 30,
        settings: options::settings(&config, ssh_keys)?,
    };
    let notes = client::ask(host, &ask, &[archive.as_fd()])?;
    let volume = format!(
        "{}:{vmid}/subvol-{vmid}-disk-0.subvol,size={}G",
        root.storage, root.gib
    );
    config.set("rootfs", volume);
    if let Err(e) = config.store(host, vmid) {
        let _ = client::ask(host, &Ask::Remove { vmid: vmid.get() }, &[]);
        return Err(e);
    }
    Ok(notes)
}

/// How an archive is packed is told by its name, as in Proxmox.
fn packing_of(template: &str) -> Result<Packing> {
    let endings = [
        (".tar", Packing::Plain),
        (".tar.gz", Packing::Gzip),
        (".tar.bz2", Packing::Bzip2),
        (".tar.xz", Packing::Xz),
        (".tar.zst", Packing::Zstd),
    ];
    endings
        .into_iter()
        .find_map(|(ending, packing)| template.ends_with(ending).then_some(packing))
        .ok_or_else(|| {
            Error::option(
                "ostemplate",
                format!(
                    "'{}' does not end in .tar, .tar.gz, .tar.bz2, .tar.xz or .tar.zst",
                    template.escape_default()
                ),
            )
        })
}

/// Opens `<storage>:vztmpl/<file>`, or a file by its path.
fn open_template(host: &Host, template: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = match template.split_once(':') {
        Some((storage, rest)) if is_storage_name(storage) => {
            let name = rest
                .strip_prefix("vztmpl/")
                .filter(|name| !name.contains('/') && !name.starts_with('.'))
                .ok_or_else(|| Error::option("ostemplate", "expected <storage>:vztmpl/<file>"))?;
            let directory = Storages::load(host)?.root(storage)?.join("template/cache");
            let missing = || {
                Error::option(
                    "ostemplate",
                    format!("there is no '{name}' in {}", directory.display()),
                )
            };
            let opened = sys::open_dir(&directory).map_err(|_| missing())?;
            match sys::open_beneath(&opened, Path::new(name), flags, Mode::empty()) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
                other => other.at("cannot open", directory.join(name))?,
            }
        }
        _ => rustix::fs::open(template, flags, Mode::empty()).at("cannot open", template)?,
    };
    let stat = rustix::fs::fstat(&file).at("cannot inspect", template)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::option(
            "ostemplate",
            format!("'{}' is not a regular file", template.escape_default()),
        ));
    }
    Ok(file)
}

/// Changes options. Limits of a running container change at once, the rest at its next start; what is to be said about it.
///
/// # Errors
/// When an option cannot be used here; the configuration is then as before.
pub fn set(host: &Host, vmid: Vmid, changes: Vec<Change>) -> Result<Vec<String>> {
    let _lock = VmLock::take(host, vmid)?;
    let before = VmConfig::load(host, vmid)?;
    let mut after = before.clone();
    options::apply(&mut after, changes)?;
    let limits = options::limits(&after)?;
    let changed = limits != options::limits(&before)?;
    let others = |config: &VmConfig| {
        options::start_spec(config).map(|spec| (spec.settings, spec.interfaces))
    };
    let restart = others(&after)? != others(&before).unwrap_or_else(|_| Default::default())
        || after.get("features") != before.get("features");
    // Asked before anything is stored: an error says that nothing was.
    let running = (changed || restart) && client::state(host, vmid)?.pid.is_some();
    after.store(host, vmid)?;
    if !running {
        return Ok(Vec::new());
    }
    let mut notes = Vec::new();
    if changed {
        let ask = Ask::Limit {
            vmid: vmid.get(),
            limits,
        };
        match client::ask(host, &ask, &[]) {
            Ok(said) => notes.extend(said),
            Err(e) => notes.push(not_in_force(vmid.get(), &e.to_string())),
        }
    }
    if restart {
        notes.push(format!(
            "CT {vmid} is running; names, interfaces and features change at its next start"
        ));
    }
    Ok(notes)
}

/// Marks a stopped container as a template, which does not start.
///
/// # Errors
/// When it runs.
pub fn template(host: &Host, vmid: Vmid) -> Result<()> {
    let _lock = VmLock::take(host, vmid)?;
    let mut config = VmConfig::load(host, vmid)?;
    if client::state(host, vmid)?.pid.is_some() {
        return Err(Error::Conflict(format!(
            "you can't convert CT {vmid} to a template while it is running"
        )));
    }
    config.set("template", "1");
    config.store(host, vmid)
}

/// Removes a container with its root file system.
///
/// # Errors
/// When it runs and is not to be forced.
pub fn destroy(host: &Host, vmid: Vmid, force: bool) -> Result<()> {
    let _lock = VmLock::take(host, vmid)?;
    let ask = |ask: &Ask| client::ask(host, ask, &[]);
    match VmConfig::load(host, vmid) {
        Err(Error::Config { .. }) => eprintln!(
            "warning: the configuration of CT {vmid} is damaged; removing it all the same"
        ),
        Err(e @ Error::NotFound { .. }) => {
            // What a creation that was cut off has left has no configuration.
            ask(&Ask::Remove { vmid: vmid.get() })?;
            return Err(e);
        }
        other => drop(other?),
    }
    if client::state(host, vmid)?.pid.is_some() {
        if !force {
            return Err(Error::Conflict(format!(
                "unable to destroy CT {vmid} - container is running"
            )));
        }
        ask(&Ask::Kill { vmid: vmid.get() })?;
    }
    ask(&Ask::Remove { vmid: vmid.get() })?;
    remove(host, vmid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_told_by_its_name_alone() {
        assert_eq!(packing_of("local:vztmpl/a.tar.zst").unwrap(), Packing::Zstd);
        assert_eq!(packing_of("/srv/a.tar").unwrap(), Packing::Plain);
        for bad in ["a.zip", "a.tar.lz4", "tar", "a.tar.gz.exe"] {
            assert!(packing_of(bad).is_err(), "{bad}");
        }
    }
}
