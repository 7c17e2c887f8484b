//! `pct-*`: containers. The vm compartment turns each into one call of the backend's `pct`. Numbers are shared with the
//! machines of `qm-*`, and so are their locks.

use super::qm::VM;
use super::{ParamError, ResourceKey, action};
use crate::catalog::FieldSpec;
use crate::pct::{PctKey, PctOptions};
use crate::value::{GuestCommand, Seconds, TemplateRef, VmName, Vmid};

macro_rules! on_container {
    ($(#[doc = $doc:literal])+ $Name:ident = $name:literal, $limit:literal, read_only $ro:literal, $operation:literal) => {
        action! {
            $(#[doc = $doc])+
            $Name = $name, family "pct", compartment Vm, capabilities VM,
            time_limit_s $limit, read_only $ro, ledger "pct" / "compute" / $operation,
            {
                /// Number of the container.
                vmid: Vmid,
            }
            resources |a| vec![ResourceKey::vm(a.vmid)],
            resource |a| format!("ct:{}", a.vmid),
            example r#"{"vmid": 100}"#,
        }
    };
}

action! {
    /// Creates an unprivileged container. Its root file system is a new volume, so `rootfs` must be among the options.
    PctCreate = "pct-create", family "pct", compartment Vm, capabilities VM,
    time_limit_s 600, read_only false, ledger "pct" / "compute" / "create",
    {
        /// Number of the new container.
        vmid: Vmid,
        /// What its root file system is unpacked from: an archive of an allowed storage, or a file below an allowed directory.
        template: TemplateRef,
        /// Its host name.
        hostname: VmName,
        /// Its options and their values.
        options: PctOptions,
    }
    check |a| {
        let refused = |what: &str| Err(ParamError::Together { what: what.to_owned() });
        if a.options.get(PctKey::Hostname).is_some() {
            return refused("the host name is given twice: as hostname and in options");
        }
        if a.options.get(PctKey::RootFs).is_none() {
            return refused("options.rootfs is missing: say <storage>:<GiB>");
        }
        Ok(())
    },
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("ct:{}", a.vmid),
    example r#"{"vmid": 100, "template": "local:vztmpl/debian-12-standard_amd64.tar.zst", "hostname": "web-1", "options": {"rootfs": "local:8", "memory": 512, "net0": "name=eth0,bridge=vmbr0,ip=dhcp"}}"#,
}

on_container! {
    /// Starts a container; one that runs already is a success.
    PctStart = "pct-start", 120, read_only false, "apply"
}
on_container! {
    /// Stops a container at once; one that is stopped already is a success.
    PctStop = "pct-stop", 60, read_only false, "apply"
}

action! {
    /// Asks the container to shut down and waits; never forces it. Answers `timeout` when it ignores that.
    PctShutdown = "pct-shutdown", family "pct", compartment Vm, capabilities VM,
    time_limit_s 630, read_only false, ledger "pct" / "compute" / "apply",
    {
        /// Number of the container.
        vmid: Vmid,
        /// How long to wait, in seconds.
        timeout: Seconds = Seconds::SHUTDOWN,
    }
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("ct:{}", a.vmid),
    duration |a| a.timeout.duration() + std::time::Duration::from_secs(30),
    example r#"{"vmid": 100, "timeout": 60}"#,
}

action! {
    /// Destroys a stopped container with its root file system. Refuses templates unless asked for one.
    PctDestroy = "pct-destroy", family "pct", compartment Vm, capabilities VM,
    time_limit_s 300, read_only false, ledger "pct" / "compute" / "delete",
    {
        /// Number of the container.
        vmid: Vmid,
        /// Say true to destroy a template.
        template: bool = false,
    }
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("ct:{}", a.vmid),
    example r#"{"vmid": 100}"#,
}

on_container! {
    /// State of a container, as JSON in `output`.
    PctStatus = "pct-status", 30, read_only true, "query"
}
on_container! {
    /// Configuration of a container, as JSON in `output`.
    PctConfig = "pct-config", 30, read_only true, "query"
}

action! {
    /// All containers, as a JSON array in `output`.
    PctList = "pct-list", family "pct", compartment Vm, capabilities VM,
    time_limit_s 30, read_only true, ledger "pct" / "compute" / "query",
    {}
    resource |_| "ct".to_owned(),
}

action! {
    /// Changes options of a container. What belongs to its creation (`rootfs`, `ssh-public-keys`, `unprivileged`) stays.
    PctSet = "pct-set", family "pct", compartment Vm, capabilities VM,
    time_limit_s 300, read_only false, ledger "pct" / "compute" / "modify",
    {
        /// Number of the container.
        vmid: Vmid,
        /// Options and their new values.
        options ["config"]: PctOptions,
    }
    check |a| match a.options.only_at_creation() {
        None => Ok(()),
        Some(key) => Err(ParamError::Together { what: format!("option {key} can only be given to pct-create") }),
    },
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("ct:{}", a.vmid),
    example r#"{"vmid": 100, "options": {"memory": 1024, "onboot": 1}}"#,
}

action! {
    /// Runs a command inside a running container, through its `/bin/sh -c`. Answers `exitcode`, `stdout`, `stderr`.
    PctExec = "pct-exec", family "pct", compartment Vm, capabilities VM,
    time_limit_s 630, read_only false, ledger "pct" / "compute" / "apply",
    {
        /// Number of the container.
        vmid: Vmid,
        /// The command line.
        command: GuestCommand,
        /// How long it may take, in seconds.
        timeout: Seconds = Seconds::GUEST_EXEC,
        /// The command holds a secret: log and ledger keep a salted digest of it.
        secret: bool = false,
    }
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| format!("ct:{}", a.vmid),
    secrets |a| if a.secret { &["command"] } else { &[] },
    duration |a| a.timeout.duration() + std::time::Duration::from_secs(30),
    returns &[
        FieldSpec::integer("exitcode", "Exit code of the command; 128 and the number of the signal that ended it."),
        FieldSpec::text("stdout", "What it wrote; of a long text its beginning and its end."),
        FieldSpec::text("stderr", "What it wrote to standard error, likewise."),
    ],
    example r#"{"vmid": 100, "command": "systemctl is-system-running", "timeout": 30}"#,
}
