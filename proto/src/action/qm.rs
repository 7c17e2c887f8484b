//! `qm-*`: virtual machines. The vm compartment turns each into one call of the backend's `qm`.

use super::{ParamError, ResourceKey, action};
use crate::catalog::FieldSpec;
use crate::qm::{QmArgs, QmKey, QmOptions};
use crate::value::{
    DiskSize, GuestCommand, ImagePath, Seconds, StorageName, ValueError, VmName, Vmid,
};
use crate::value::{Param, Text};

/// What the backend needs in the vm compartment.
pub(super) const VM: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_KILL",
    "CAP_NET_ADMIN",
];

/// The key of a drive, such as `scsi0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriveKey(QmKey);

impl DriveKey {
    /// As an option key.
    #[must_use]
    pub const fn key(self) -> QmKey {
        self.0
    }
}

impl std::fmt::Display for DriveKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Text for DriveKey {
    const KIND: &'static str = "drive";
    const RULE: &'static str = "ide0-3, sata0-5, scsi0-30 or virtio0-15";
    fn read(text: &str) -> Option<Self> {
        QmKey::read(text)
            .filter(|key| matches!(key, QmKey::Drive(..)))
            .map(Self)
    }
    fn text_schema() -> serde_json::Value {
        serde_json::json!({"type": "string", "pattern": "^(ide[0-3]|sata[0-5]|scsi([12]?[0-9]|30)|virtio(1[0-5]|[0-9]))$"})
    }
}

crate::value::text_value!(DriveKey);

fn own_disks(vmid: Vmid, options: &QmOptions) -> Result<(), ParamError> {
    match options.foreign_disk(vmid) {
        None => Ok(()),
        Some((key, owner)) => Err(ParamError::Together {
            what: format!("option {key} names a disk of machine {owner}, not of {vmid}"),
        }),
    }
}

macro_rules! on_vm {
    ($(#[doc = $doc:literal])+ $Name:ident = $name:literal, $limit:literal, read_only $ro:literal, $operation:literal) => {
        action! {
            $(#[doc = $doc])+
            $Name = $name, family "qm", compartment Vm, capabilities VM,
            time_limit_s $limit, read_only $ro, ledger "qm" / "compute" / $operation,
            {
                /// Number of the machine.
                vmid: Vmid,
            }
            resources |a| vec![ResourceKey::vm(a.vmid)],
            resource |a| format!("vm:{}", a.vmid),
            example r#"{"vmid": 100}"#,
        }
    };
}

on_vm! {
    /// Starts a machine; one that runs already is a success.
    QmStart = "qm-start", 120, read_only false, "apply"
}
on_vm! {
    /// Stops a machine at once, as if its power were cut; one that is stopped already is a success.
    QmStop = "qm-stop", 60, read_only false, "apply"
}
on_vm! {
    /// Turns a stopped machine into a template.
    QmTemplate = "qm-template", 600, read_only false, "modify"
}
on_vm! {
    /// State of a machine, as JSON in `output`.
    QmStatus = "qm-status", 30, read_only true, "query"
}
on_vm! {
    /// Configuration of a machine, as JSON in `output`.
    QmConfig = "qm-config", 30, read_only true, "query"
}
on_vm! {
    /// Asks the guest agent whether it answers.
    QmGuestPing = "qm-guest-ping", 30, read_only true, "query"
}

action! {
    /// All machines, as a JSON array in `output`.
    QmList = "qm-list", family "qm", compartment Vm, capabilities VM,
    time_limit_s 30, read_only true, ledger "qm" / "compute" / "query",
    {}
    resource |_| "vm".to_owned(),
}

action! {
    /// What machines but templates have used so far, as a JSON array of counters in `output`.
    QmMetrics = "qm-metrics", family "qm", compartment Vm, capabilities VM,
    time_limit_s 120, read_only true, ledger "qm" / "compute" / "query",
    {
        /// Only this machine.
        vmid: Option<Vmid>,
    }
    resource |a| a.vmid.map_or_else(|| "vm".to_owned(), |vmid| format!("vm:{vmid}")),
    example r#"{"vmid": 100}"#,
}

action! {
    /// Asks the guest to shut down and waits; never forces it. Answers `timeout` when the guest ignores it.
    QmShutdown = "qm-shutdown", family "qm", compartment Vm, capabilities VM,
    time_limit_s 630, read_only false, ledger "qm" / "compute" / "apply",
    {
        /// Number of the machine.
        vmid: Vmid,
        /// How long to wait, in seconds.
        timeout: Seconds = Seconds::SHUTDOWN,
    }
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("vm:{}", a.vmid),
    duration |a| a.timeout.duration() + std::time::Duration::from_secs(30),
    example r#"{"vmid": 100, "timeout": 60}"#,
}

action! {
    /// Destroys a stopped machine with its disks. Refuses templates unless asked for one.
    QmDestroy = "qm-destroy", family "qm", compartment Vm, capabilities VM,
    time_limit_s 300, read_only false, ledger "qm" / "compute" / "delete",
    {
        /// Number of the machine.
        vmid: Vmid,
        /// Say true to destroy a template.
        template: bool = false,
    }
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("vm:{}", a.vmid),
    example r#"{"vmid": 100}"#,
}

action! {
    /// Creates a machine.
    QmCreate = "qm-create", family "qm", compartment Vm, capabilities VM,
    time_limit_s 600, read_only false, ledger "qm" / "compute" / "create",
    {
        /// Number of the new machine.
        vmid: Vmid,
        /// Its name.
        name: VmName,
        /// Its options, as a flat list `["--memory", "2048", ...]` or as pairs `[["--memory", "2048"], ...]`.
        args: QmArgs,
    }
    check |a| {
        if a.args.get(QmKey::Name).is_some() {
            return Err(ParamError::Together { what: "the name is given twice: as name and in args".to_owned() });
        }
        own_disks(a.vmid, &a.args)
    },
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("vm:{}", a.vmid),
    example r#"{"vmid": 100, "name": "web-1", "args": ["--memory", "2048", "--cores", "2", "--scsi0", "local:8", "--net0", "virtio,bridge=vmbr0"]}"#,
}

action! {
    /// Changes options of a machine.
    QmSet = "qm-set", family "qm", compartment Vm, capabilities VM,
    time_limit_s 300, read_only false, ledger "qm" / "compute" / "modify",
    {
        /// Number of the machine.
        vmid: Vmid,
        /// Options and their new values.
        options ["config"]: QmOptions,
    }
    check |a| own_disks(a.vmid, &a.options),
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("vm:{}", a.vmid),
    example r#"{"vmid": 100, "options": {"memory": 4096, "onboot": 1}}"#,
}

action! {
    /// Imports a disk image as an unused disk of a machine.
    QmImportdisk = "qm-importdisk", family "qm", compartment Vm, capabilities VM,
    time_limit_s 1800, read_only false, ledger "qm" / "storage" / "create",
    {
        /// Number of the machine.
        vmid: Vmid,
        /// The image: a path below an allowed image directory.
        disk_path ["image_path"]: ImagePath,
        /// Storage to import to.
        storage: StorageName,
    }
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("vm:{}", a.vmid),
    returns &[
        FieldSpec::text("volume", "The volume that was made, such as `local:100/vm-100-disk-0.raw`.").sometimes(),
        FieldSpec::text("format", "Format of the image: `qcow2` or `raw`."),
    ],
    example r#"{"vmid": 100, "disk_path": "debian-12.qcow2", "storage": "local"}"#,
}

action! {
    /// Clones a machine or template.
    QmClone = "qm-clone", family "qm", compartment Vm, capabilities VM,
    time_limit_s 1800, read_only false, ledger "qm" / "compute" / "create",
    {
        /// Number of the machine to clone.
        vmid: Vmid,
        /// Number of the new machine.
        newid: Vmid,
        /// Name of the new machine.
        name: VmName,
        /// Copy the disks instead of linking to them.
        full: bool = false,
    }
    check |a| {
        if a.vmid == a.newid {
            return Err(ParamError::Together { what: format!("machine {} cannot be cloned onto itself", a.vmid) });
        }
        Ok(())
    },
    resources |a| vec![ResourceKey::vm(a.vmid), ResourceKey::vm(a.newid)],
    sources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("vm:{}", a.newid),
    example r#"{"vmid": 9000, "newid": 100, "name": "web-1", "full": true}"#,
}

action! {
    /// Grows a disk; never shrinks one.
    QmResize = "qm-resize", family "qm", compartment Vm, capabilities VM,
    time_limit_s 300, read_only false, ledger "qm" / "storage" / "modify",
    {
        /// Number of the machine.
        vmid: Vmid,
        /// The drive, such as `scsi0`.
        disk: DriveKey,
        /// New size (`20G`) or growth (`+10G`).
        size: DiskSize,
    }
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("vm:{}", a.vmid),
    example r#"{"vmid": 100, "disk": "scsi0", "size": "+10G"}"#,
}

action! {
    /// Runs a command inside the guest, through its agent and its `/bin/sh -c`. Answers `exitcode`, `stdout`, `stderr`.
    QmGuestExec = "qm-guest-exec", family "qm", compartment Vm, capabilities VM,
    time_limit_s 630, read_only false, ledger "qm" / "compute" / "apply",
    {
        /// Number of the machine.
        vmid: Vmid,
        /// The command line.
        command: GuestCommand,
        /// How long it may take, in seconds.
        timeout: Seconds = Seconds::GUEST_EXEC,
        /// The command holds a secret: log and ledger keep a salted digest of it.
        secret: bool = false,
    }
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("vm:{}", a.vmid),
    secrets |a| if a.secret { &["command"] } else { &[] },
    duration |a| a.timeout.duration() + std::time::Duration::from_secs(30),
    returns &[
        FieldSpec::integer("exitcode", "Exit code of the command; 128 and the number of the signal that ended it."),
        FieldSpec::text("stdout", "What it wrote; of a long text its beginning and its end."),
        FieldSpec::text("stderr", "What it wrote to standard error, likewise."),
    ],
    example r#"{"vmid": 100, "command": "systemctl is-system-running", "timeout": 30}"#,
}

/// Only for the type of `disk`, which callers build by parsing.
impl TryFrom<QmKey> for DriveKey {
    type Error = ValueError;
    fn try_from(key: QmKey) -> Result<Self, ValueError> {
        Self::from_json(&serde_json::Value::String(key.to_string()))
    }
}
