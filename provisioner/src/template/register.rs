//! From an image file to a template of the backend, through catalog actions: create, import, set, template.

use std::path::Path;

use blockhost_proto::qm::{QmError, QmOptions};
use blockhost_proto::value::{ValueError, VmName, Vmid};

use crate::backend::{Backend, BackendError};
use crate::config::BlockhostConfig;
use crate::progress::Progress;

/// Name of the template.
const NAME: &str = "blockhost-template";

/// A template that could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The root agent or the backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// An option of ours that the agent would refuse.
    #[error(transparent)]
    Option(#[from] QmError),
    /// Another such value.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// Under the template's number lives something else.
    #[error(
        "VM {vmid} is \"{found}\" and not a template of ours; set another proxmox.template_vmid in blockhost.yaml"
    )]
    Foreign {
        /// The number.
        vmid: Vmid,
        /// What it is called.
        found: String,
    },
    /// Machines stand on the template's disk.
    #[error(
        "template VM {vmid} cannot be replaced, and was left as it is: the disks of {count} machines stand on it ({}). Set \
         proxmox.template_vmid in blockhost.yaml to a number that is free and build again: new machines come from that one; \
         when the last of the others is gone, destroy the old template", clones.join(", ")
    )]
    InUse {
        /// The template.
        vmid: Vmid,
        /// How many machines.
        count: usize,
        /// The first of them.
        clones: Vec<String>,
    },
    /// The backend did not say where the imported disk is.
    #[error("VM {0} has no disk after the import")]
    NoDisk(Vmid),
}

/// What is under the template's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Existing {
    /// Nothing.
    None,
    /// A template of these inputs.
    Current,
    /// A template of other inputs.
    Outdated,
    /// One of ours that was not finished.
    Unfinished,
}

fn mark(digest: &str) -> String {
    format!(
        "blockhost template, inputs {}",
        &digest[..digest.len().min(32)]
    )
}

/// Looks what is there.
///
/// # Errors
/// [`RegisterError::Foreign`].
pub fn existing(
    backend: &dyn Backend,
    vmid: Vmid,
    digest: &str,
) -> Result<Existing, RegisterError> {
    let Some(config) = backend.config(vmid)? else {
        return Ok(Existing::None);
    };
    let field = |key: &str| config.get(key).map_or("", String::as_str);
    if field("name") != NAME {
        return Err(RegisterError::Foreign {
            vmid,
            found: field("name").to_owned(),
        });
    }
    Ok(match field("template") {
        "" | "0" => Existing::Unfinished,
        _ if field("description").contains(&mark(digest)) => Existing::Current,
        _ => Existing::Outdated,
    })
}

/// Insists that no machine's disk stands on the template's: neither backend gives such a template up. Asked before an image is
/// built for nothing.
///
/// # Errors
/// [`RegisterError::InUse`].
pub fn check_replaceable(backend: &dyn Backend, template: Vmid) -> Result<(), RegisterError> {
    const SHOWN: usize = 10;
    // As both backends name a volume that others stand on.
    let base = format!("base-{template}-");
    let mut count = 0;
    let mut clones = Vec::new();
    for machine in backend.machines()? {
        if machine.vmid == template {
            continue;
        }
        let config = backend.config(machine.vmid)?.unwrap_or_default();
        let stands_on_it = config
            .iter()
            .any(|(key, value)| is_disk(key) && value.contains(&base));
        if stands_on_it {
            count += 1;
            if count <= SHOWN {
                clones.push(format!("VM {} {}", machine.vmid, machine.name));
            }
        }
    }
    if count > SHOWN {
        clones.push("...".to_owned());
    }
    if count == 0 {
        return Ok(());
    }
    Err(RegisterError::InUse {
        vmid: template,
        count,
        clones,
    })
}

fn is_disk(key: &str) -> bool {
    let kind = key.trim_end_matches(|c: char| c.is_ascii_digit());
    [
        "scsi", "virtio", "sata", "ide", "efidisk", "tpmstate", "unused",
    ]
    .contains(&kind)
}

/// How many steps [`register`] reports.
pub const STEPS: usize = 1;

/// Makes `image` the template; replaces an unfinished one, and any other of ours when `replace` says so. A failure
/// removes what was made.
///
/// # Errors
/// [`RegisterError`]; [`RegisterError::InUse`] with everything as it was.
pub fn register(
    backend: &dyn Backend,
    config: &BlockhostConfig,
    image: &Path,
    digest: &str,
    replace: bool,
    progress: &mut Progress,
) -> Result<(), RegisterError> {
    let vmid = config.template_vmid;
    progress.step(format!("register as template VM {vmid}"));
    match existing(backend, vmid, digest)? {
        Existing::None => {}
        Existing::Current if !replace => return Ok(()),
        Existing::Outdated if !replace => return Ok(()),
        Existing::Unfinished => backend.destroy(vmid, false)?,
        Existing::Current | Existing::Outdated => {
            check_replaceable(backend, vmid)?;
            backend.destroy(vmid, true)?;
        }
    }
    let name: VmName = NAME.parse()?;
    let mut options = QmOptions::default();
    for (key, value) in [
        ("memory", "1024"),
        ("cores", "1"),
        ("ostype", "l26"),
        ("scsihw", "virtio-scsi-pci"),
        ("serial0", "socket"),
        ("vga", "serial0"),
        ("agent", "1"),
    ] {
        options.add(key, value)?;
    }
    // No network card: every machine gets its own with its addresses, and a clone that somebody starts as it is stays off the
    // network.
    options.add("description", &mark(digest))?;
    backend.create(vmid, &name, options)?;
    let made = finish(backend, config, vmid, image);
    if made.is_err() {
        // It has our name and no template flag: if this fails, the next run finds it unfinished and tries again.
        let _ = backend.destroy(vmid, false);
    }
    made
}

fn finish(
    backend: &dyn Backend,
    config: &BlockhostConfig,
    vmid: Vmid,
    image: &Path,
) -> Result<(), RegisterError> {
    let volume = match backend.import_disk(vmid, image, &config.storage)? {
        Some(volume) => volume,
        None => {
            let after = backend.config(vmid)?.unwrap_or_default();
            after
                .get("unused0")
                .cloned()
                .ok_or(RegisterError::NoDisk(vmid))?
        }
    };
    let mut options = QmOptions::default();
    options.add("scsi0", &volume)?;
    options.add("boot", "order=scsi0")?;
    options.add("ide2", &format!("{}:cloudinit", config.storage))?;
    backend.configure(vmid, options)?;
    Ok(backend.make_template(vmid)?)
}
