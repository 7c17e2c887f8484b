//! create, set, destroy, importdisk, template, clone, resize: everything that changes a configuration or its volumes.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use qapi::qmp;
use rustix::fs::OFlags;

use crate::config::{Props, VmConfig, VmLock, remove};
use crate::error::{Error, IoContext, Result};
use crate::host::Host;
use crate::image::{self, Format};
use crate::limits;
use crate::machine::Vmid;
use crate::monitor::{Monitor, QMP_LIMIT};
use crate::options::{self, Change};
use crate::runtime;
use crate::storage::{Storages, Volume};

/// Makes a machine.
///
/// # Errors
/// [`Error::Exists`], or when an option cannot be used here; nothing stays then.
pub fn create(host: &Host, vmid: Vmid, changes: Vec<Change>) -> Result<()> {
    let _lock = VmLock::take(host, vmid)?;
    host.refuse_existing(vmid)?;
    let storages = Storages::load(host)?;
    let mut config = VmConfig::default();
    config.set("smbios1", format!("uuid={}", new_uuid()?));
    let made = options::apply(host, &storages, vmid, &mut config, changes)
        .and_then(|()| config.store(host, vmid));
    if made.is_err() {
        let _ = storages.free_all(vmid);
    }
    made
}

/// A random (version 4) UUID.
fn new_uuid() -> Result<String> {
    let mut bytes: [u8; 16] = crate::sys::random().at("cannot read", "/dev/urandom")?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [
        hex.get(..8),
        hex.get(8..12),
        hex.get(12..16),
        hex.get(16..20),
        hex.get(20..),
    ];
    Ok(parts.into_iter().flatten().collect::<Vec<_>>().join("-"))
}

/// Changes options; a running machine takes them over at its next start.
///
/// # Errors
/// When an option cannot be used here; the configuration is then as before.
pub fn set(host: &Host, vmid: Vmid, changes: Vec<Change>) -> Result<()> {
    let _lock = VmLock::take(host, vmid)?;
    let mut config = VmConfig::load(host, vmid)?;
    let running = runtime::is_running(host, vmid)?;
    for change in &changes {
        match change {
            Change::Delete(key) if key.starts_with("unused") => {
                let base = config.get(key).and_then(options::volume_of);
                if let Some(volume) = base.filter(Volume::is_base) {
                    refuse_bases_in_use(host, &Storages::load(host)?, &[volume])?;
                }
                if running {
                    return Err(Error::Conflict(format!(
                        "VM is running - cannot remove the volume of {key}"
                    )));
                }
            }
            _ => {}
        }
    }
    let names: Vec<String> = changes
        .iter()
        .map(|change| match change {
            Change::Set(option) => format!("-{} {}", option.key(), option.value().escape_default()),
            Change::Delete(key) => format!("-delete {key}"),
        })
        .collect();
    println!("update VM {vmid}: {}", names.join(" "));
    let before = config.clone();
    options::apply(host, &Storages::load(host)?, vmid, &mut config, changes)?;
    config.store(host, vmid)?;
    if running {
        limits::follow(host, vmid, &before, &config);
    }
    Ok(())
}

/// Removes a machine with its volumes, and what a creation that was cut off has left of one that is not there.
///
/// # Errors
/// When it runs or others are cloned from it; when only its disks say still that it is a template, and `template` does not;
/// [`Error::NotFound`] when it was not there.
pub fn destroy(host: &Host, vmid: Vmid, template: bool) -> Result<()> {
    let _lock = VmLock::take(host, vmid)?;
    let storages = Storages::load(host)?;
    let (unread, absent) = match VmConfig::load(host, vmid) {
        Ok(config) => {
            refuse_unknown_storages(host, &storages, vmid, &config)?;
            (None, None)
        }
        Err(e) if e.is_damage() => (Some("damaged"), None),
        Err(e @ Error::NotFound { .. }) => (Some("gone"), Some(e)),
        Err(e) => return Err(e),
    };
    let bases = storages.bases(vmid)?;
    refuse_bases_in_use(host, &storages, &bases)?;
    if let Some(state) = unread.filter(|_| !bases.is_empty() && !template) {
        return Err(Error::Conflict(format!(
            "VM {vmid} is a template by its disks, and its configuration is {state}; to remove it all the same say that it is one (--template, to the agent \"template\": true)"
        )));
    }
    if unread == Some("damaged") {
        eprintln!("warning: the configuration of VM {vmid} is damaged; removing it all the same");
    }
    if runtime::is_running(host, vmid)? {
        return Err(Error::Conflict(format!(
            "VM {vmid} is running - destroy failed"
        )));
    }
    // Volumes first: while the configuration stands, an interrupted destroy can be repeated.
    storages.free_all(vmid)?;
    match absent {
        Some(e) => Err(e),
        None => {
            remove(host, vmid)?;
            runtime::forget(host, vmid);
            Ok(())
        }
    }
}

/// Refuses to leave disks behind where they are not looked for.
fn refuse_unknown_storages(
    host: &Host,
    storages: &Storages,
    vmid: Vmid,
    config: &VmConfig,
) -> Result<()> {
    for (key, value) in config.iter() {
        let unknown =
            options::volume_of(value).filter(|disk| storages.root(&disk.storage).is_err());
        if let Some(disk) = unknown {
            return Err(Error::Conflict(format!(
                "VM {vmid} has {disk} as {key}, and there is no storage '{}': define it in {} as it was, or where the disk is gone take the line out of {}",
                disk.storage,
                host.layout.storage_files().display(),
                host.conf_path(vmid).display()
            )));
        }
    }
    Ok(())
}

/// Refuses to lose volumes that linked clones read from.
fn refuse_bases_in_use(host: &Host, storages: &Storages, bases: &[Volume]) -> Result<()> {
    if bases.is_empty() {
        return Ok(());
    }
    for vmid in VmConfig::all(host)? {
        let read: Vec<Volume> = match VmConfig::load(host, vmid) {
            Ok(config) => config
                .iter()
                .filter_map(|(_, value)| options::volume_of(value)?.backing())
                .collect(),
            // Destroyed since it was listed.
            Err(Error::NotFound { .. }) => continue,
            // Its disks themselves say what they are based on.
            Err(e) if e.is_damage() => image::backings(storages, vmid)?,
            Err(e) => return Err(e),
        };
        if let Some(base) = bases.iter().find(|base| read.contains(base)) {
            return Err(Error::Conflict(format!(
                "base volume '{base}' is still in use by linked clone {vmid}"
            )));
        }
    }
    Ok(())
}

/// Brings a foreign image in as an unused disk.
///
/// # Errors
/// [`Error::Image`] when the image is refused.
pub fn importdisk(
    host: &Host,
    vmid: Vmid,
    source: &Path,
    storage: &str,
    format: Option<Format>,
) -> Result<()> {
    let _lock = VmLock::take(host, vmid)?;
    let mut config = VmConfig::load(host, vmid)?;
    let storages = Storages::load(host)?;
    storages.root(storage)?;
    storages.sweep(vmid);
    let name = source.display().to_string();
    let file = rustix::fs::open(
        source,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        rustix::fs::Mode::empty(),
    );
    let file = File::from(file.at("cannot open image", source)?);
    let format = match format.or_else(|| Format::declared_by(source)) {
        Some(format) => format,
        None => image::detect(&file, &name)?,
    };
    println!("importing disk '{name}' to VM {vmid} ...");
    let place = (storage, vmid);
    let volume = image::import(host, &storages, &file, format, &name, place)?;
    let key = config.free_unused();
    config.set(&key, volume.to_string());
    match config.store(host, vmid) {
        Ok(()) => {
            println!("{key}: successfully imported disk '{volume}'");
            Ok(())
        }
        Err(e) => {
            let _ = storages.free(&volume);
            Err(e)
        }
    }
}

/// Turns a machine into a template: its disks become bases that are never written again.
///
/// # Errors
/// When it runs or is itself a linked clone.
pub fn template(host: &Host, vmid: Vmid) -> Result<()> {
    let _lock = VmLock::take(host, vmid)?;
    let mut config = VmConfig::load(host, vmid)?;
    if config.is_template() {
        return Err(Error::Conflict(
            "you can't convert a template to a template".to_owned(),
        ));
    }
    if runtime::is_running(host, vmid)? {
        return Err(Error::Conflict(format!(
            "you can't convert a VM to template if VM is running (VM {vmid})"
        )));
    }
    let storages = Storages::load(host)?;
    let drives: Vec<(String, String)> = config
        .drives()
        .into_iter()
        .map(|(key, value)| (key, value.to_owned()))
        .collect();
    for (key, value) in drives {
        let Some(volume) = options::volume_of(&value).filter(|volume| !volume.is_cloudinit())
        else {
            continue;
        };
        if volume.base.is_some() {
            return Err(Error::Conflict(format!(
                "VM {vmid} is a linked clone; clone it with --full and make that the template"
            )));
        }
        let base = volume.as_base();
        let (from, to) = (storages.path(&volume)?, storages.path(&base)?);
        // A run that was interrupted here has renamed the file already.
        if from.exists() || !to.exists() {
            std::fs::rename(&from, &to).at("cannot rename", &from)?;
        }
        protect(host, &to)?;
        let mut props = Props::parse(&value);
        props.head = Some(base.to_string());
        config.set(key, props.to_string());
    }
    config.set("template", "1");
    config.store(host, vmid)
}

/// Takes a base away from the machines' user, who may only read it then: every machine cloned from it holds a descriptor
/// of it, and the owner of a file can make any descriptor of it a writable one.
fn protect(host: &Host, base: &Path) -> Result<()> {
    let readers = host.machine_user()?.gid;
    std::os::unix::fs::lchown(base, Some(0), Some(readers)).at("cannot take over", base)?;
    std::fs::set_permissions(base, std::fs::Permissions::from_mode(0o440))
        .at("cannot protect", base)
}

/// What `qm clone` is told.
#[derive(Debug, Clone)]
pub struct Clone {
    /// Name of the new machine.
    pub name: Option<String>,
    /// Copy everything instead of building on the template's disks.
    pub full: Option<bool>,
    /// Description of the new machine.
    pub description: Option<String>,
}

/// Makes a copy of a machine: linked to a template's disks unless `full`, always whole from an ordinary machine.
///
/// # Errors
/// When the source runs, the number is taken or a volume cannot be made; nothing stays then.
pub fn clone(host: &Host, vmid: Vmid, newid: Vmid, request: &Clone) -> Result<()> {
    // Any number of clones may read one source; what would change or end it waits for them. Always in the same order, so
    // that no two can wait for each other.
    let source = || VmLock::share(host, vmid);
    let target = || VmLock::take(host, newid);
    let _locks = match vmid.cmp(&newid) {
        Ordering::Less => (source()?, Some(target()?)),
        // Refused below.
        Ordering::Equal => (source()?, None),
        Ordering::Greater => {
            let target = target()?;
            (source()?, Some(target))
        }
    };
    let source = VmConfig::load(host, vmid)?;
    host.refuse_existing(newid)?;
    let full = request.full.unwrap_or(!source.is_template());
    if !full && !source.is_template() {
        return Err(Error::Conflict(
            "Linked clone feature is only supported for templates (use --full)".to_owned(),
        ));
    }
    if !source.is_template() && runtime::is_running(host, vmid)? {
        return Err(Error::Conflict(format!(
            "VM is running: stop VM {vmid} before it is cloned"
        )));
    }
    let storages = Storages::load(host)?;
    let done = clone_into(host, &storages, newid, &source, full, request)
        .and_then(|config| config.store(host, newid));
    if done.is_err() {
        let _ = storages.free_all(newid);
    }
    done
}

fn clone_into(
    host: &Host,
    storages: &Storages,
    newid: Vmid,
    source: &VmConfig,
    full: bool,
    request: &Clone,
) -> Result<VmConfig> {
    let mut config = VmConfig::default();
    let volumes = source.drives();
    for (key, value) in source.iter() {
        let skip = key == "template" || key == "smbios1" || key.starts_with("unused");
        if skip || volumes.iter().any(|(drive, _)| drive == key) {
            continue;
        }
        match options::stored_mac(value).filter(|_| crate::config::index_of(key, "net").is_some()) {
            Some(old) => config.set(
                key,
                value.replace(&old.to_string(), &options::random_mac()?.to_string()),
            ),
            None => config.set(key, value),
        }
    }
    config.set("smbios1", format!("uuid={}", new_uuid()?));
    if let Some(name) = &request.name {
        config.set("name", name);
    }
    if let Some(description) = &request.description {
        config.set("description", description);
    }
    for (key, value) in volumes {
        let Some(old) = options::volume_of(value) else {
            continue;
        };
        let mut props = Props::parse(value);
        let new = if old.is_cloudinit() {
            Volume {
                vmid: newid,
                file: format!("vm-{newid}-cloudinit.qcow2"),
                base: None,
                storage: old.storage.clone(),
            }
        } else {
            let mut new = storages.allocate(host, &old.storage, newid)?;
            if full {
                println!("create full clone of drive {key} ({old})");
                image::copy(host, storages, &old, &new)?;
            } else {
                println!("create linked clone of drive {key} ({old})");
                new.base = Some((old.vmid, old.file.clone()));
                image::create(host, storages, &new, None)?;
            }
            new
        };
        props.head = Some(new.to_string());
        config.set(key, props.to_string());
    }
    Ok(config)
}

/// Grows a disk to `size` (`20G`) or by it (`+10G`), also under a running machine.
///
/// # Errors
/// When there is no such disk or it would shrink.
pub fn resize(host: &Host, vmid: Vmid, disk: &str, size: &str) -> Result<()> {
    let _lock = VmLock::take(host, vmid)?;
    let mut config = VmConfig::load(host, vmid)?;
    let drives = config.drives();
    let value = drives
        .iter()
        .find(|(key, _)| key == disk)
        .map(|(_, value)| (*value).to_owned());
    let value = value.ok_or_else(|| {
        Error::option(
            "disk",
            format!("disk '{}' does not exist", disk.escape_default()),
        )
    })?;
    let volume = options::volume_of(&value).filter(|volume| !volume.is_cloudinit());
    let volume = volume
        .ok_or_else(|| Error::option("disk", format!("'{disk}' is no disk that can grow")))?;
    if config.is_template() {
        return Err(Error::Conflict(
            "you can't resize a disk of a template".to_owned(),
        ));
    }
    let storages = Storages::load(host)?;
    let old = image::virtual_size(&storages, &volume)?;
    let wrong = || {
        Error::option(
            "size",
            format!("'{}' is no size such as 20G or +10G", size.escape_default()),
        )
    };
    let new = match size.strip_prefix('+') {
        Some(more) => options::parse_size(more).and_then(|more| old.checked_add(more)),
        None => options::parse_size(size),
    };
    let new = new
        .filter(|new| *new > 0 && *new <= image::DISK_LIMIT && new.is_multiple_of(512))
        .ok_or_else(wrong)?;
    if new < old {
        return Err(Error::option(
            "size",
            format!(
                "shrinking disks is not supported ({} to {size})",
                options::size_text(old)
            ),
        ));
    }
    if new > old {
        if runtime::is_running(host, vmid)? {
            let size = i64::try_from(new).map_err(|_| wrong())?;
            let command = qmp::block_resize {
                device: None,
                node_name: Some(format!("drive-{disk}")),
                size,
            };
            Monitor::open(host, vmid, QMP_LIMIT)?.run(&command)?;
        } else {
            image::resize(host, &storages, &volume, new)?;
        }
    }
    let mut props = Props::parse(&value);
    props.set("size", options::size_text(new));
    config.set(disk, props.to_string());
    config.store(host, vmid)
}
