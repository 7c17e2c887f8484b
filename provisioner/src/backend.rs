//! What a host of virtual machines can do, as one trait. [`ActionsBackend`] speaks to both Proxmox VE and the embedded
//! hypervisor, because the root agent's catalog is the same for both. Commands and the garbage collector use the trait.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use blockhost_proto::ErrorCode;
use blockhost_proto::action::{
    Action, AgentInfo, DriveKey, Ip6RouteAdd, Ip6RouteDel, OvsDelPort, OvsList, PctList, QmClone,
    QmConfig, QmCreate, QmDestroy, QmGuestExec, QmGuestPing, QmImportdisk, QmList, QmMetrics,
    QmResize, QmSet, QmShutdown, QmStart, QmStatus, QmStop, QmTemplate, VmThrottle,
};
use blockhost_proto::client::{CallError, Reply};
use blockhost_proto::qm::{QmArgs, QmError, QmOptions};
use blockhost_proto::value::{
    DiskSize, GuestCommand, HostIpv6, IfName, ImagePath, Seconds, StorageName, SwitchIfName,
    ValueError, VmName, Vmid,
};
use serde_json::Value;

use crate::agent::Agent;
use crate::metrics::Counters;

/// An action that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The agent refused, or could not be asked.
    #[error("{action} ({what}): {source}")]
    Call {
        /// The action.
        action: &'static str,
        /// What it was about.
        what: String,
        /// What the client says.
        source: CallError,
    },
    /// The agent answered something this program does not understand.
    #[error("{action}: unexpected answer of the root agent: {problem}")]
    Answer {
        /// The action.
        action: &'static str,
        /// What is odd about it.
        problem: String,
    },
    /// A value that no agent would take.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// An option likewise.
    #[error(transparent)]
    Option(#[from] QmError),
}

impl BackendError {
    /// True when the thing itself does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.is(ErrorCode::NotFound)
    }

    /// Whether the number is somebody else's: both backends say so in these words, and the code alone has other meanings, too.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.is(ErrorCode::Conflict) && self.to_string().contains("already exists")
    }

    /// Whether it took longer than it may.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.is(ErrorCode::Timeout)
    }

    /// Whether the agent is away, ended while it was asked, or has too much to do: it says nothing about the machine. What it
    /// refused or failed to do does.
    #[must_use]
    pub fn is_agent_away(&self) -> bool {
        match self {
            Self::Call { source, .. } => match source {
                CallError::Connect { .. }
                | CallError::Timeout { .. }
                | CallError::Protocol { .. } => true,
                CallError::Refused { code, .. } => *code == ErrorCode::Busy,
            },
            Self::Answer { .. } | Self::Value(_) | Self::Option(_) => false,
        }
    }

    fn is(&self, wanted: ErrorCode) -> bool {
        matches!(self, Self::Call { source, .. } if source.code() == Some(wanted))
    }
}

/// One machine of the backend, ours or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its number.
    pub vmid: Vmid,
    /// Its name.
    pub name: String,
    /// `running`, `stopped` or another word of the backend.
    pub status: String,
}

/// A port of a switch that the agent made for a machine or container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SwitchPort {
    /// The switch.
    pub bridge: SwitchIfName,
    /// The device.
    pub port: SwitchIfName,
    /// Whose it is.
    pub vmid: Vmid,
}

/// What a command in a guest came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestOutput {
    /// Its exit code.
    pub exitcode: i64,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

type Result<T> = std::result::Result<T, BackendError>;

/// A host of virtual machines.
pub trait Backend {
    /// `proxmox` or `embedded`.
    ///
    /// # Errors
    /// [`BackendError`]; so for every method.
    fn kind(&self) -> Result<String>;
    /// All machines, running or not.
    fn machines(&self) -> Result<Vec<Machine>>;
    /// The configuration as keys and values; `None` when there is no such machine.
    fn config(&self, vmid: Vmid) -> Result<Option<BTreeMap<String, String>>>;
    /// `running`, `stopped`; `None` when there is no such machine.
    fn status(&self, vmid: Vmid) -> Result<Option<String>>;
    /// A new machine without disks.
    fn create(&self, vmid: Vmid, name: &VmName, options: QmOptions) -> Result<()>;
    /// A new machine on the disks of a template.
    fn clone_machine(&self, template: Vmid, vmid: Vmid, name: &VmName) -> Result<()>;
    /// Sets options.
    fn configure(&self, vmid: Vmid, options: QmOptions) -> Result<()>;
    /// Grows a disk.
    fn resize(&self, vmid: Vmid, disk: DriveKey, size: DiskSize) -> Result<()>;
    /// Copies an image in; gives the volume's name where the backend says it.
    fn import_disk(
        &self,
        vmid: Vmid,
        image: &Path,
        storage: &StorageName,
    ) -> Result<Option<String>>;
    /// Turns a machine into a template.
    fn make_template(&self, vmid: Vmid) -> Result<()>;
    /// Starts; a running one is fine.
    fn start(&self, vmid: Vmid) -> Result<()>;
    /// Asks the guest to power off and waits.
    fn shutdown(&self, vmid: Vmid, timeout: Seconds) -> Result<()>;
    /// Pulls the plug; a stopped one is fine.
    fn stop(&self, vmid: Vmid) -> Result<()>;
    /// Removes a machine with its disks. `template` has to say whether it is one.
    fn destroy(&self, vmid: Vmid, template: bool) -> Result<()>;
    /// True when the guest agent answers.
    fn guest_ping(&self, vmid: Vmid) -> bool;
    /// Runs a command through the guest's shell.
    fn guest_exec(
        &self,
        vmid: Vmid,
        command: GuestCommand,
        timeout: Seconds,
    ) -> Result<GuestOutput>;
    /// Numbers of all containers, running or not.
    fn containers(&self) -> Result<Vec<Vmid>>;
    /// The ports that were made for machines and containers, on all switches.
    fn switch_ports(&self) -> Result<Vec<SwitchPort>>;
    /// Removes a port; an absent one is `not_found`.
    fn switch_port_del(&self, port: &SwitchPort) -> Result<()>;
    /// Counters of one machine, or of all but templates.
    fn counters(&self, only: Option<Vmid>) -> Result<Vec<Counters>>;
    /// Limits what a machine may use.
    fn throttle(&self, wanted: VmThrottle) -> Result<()>;
    /// Sends packets for `address` to the bridge; an existing route is fine.
    fn route_add(&self, address: HostIpv6, bridge: &IfName) -> Result<()>;
    /// Removes the route; an absent one is `not_found`.
    fn route_del(&self, address: HostIpv6, bridge: &IfName) -> Result<()>;
}

/// Proxmox VE or the embedded hypervisor, through the actions of the root agent's catalog.
#[derive(Debug, Clone)]
pub struct ActionsBackend<A> {
    agent: A,
}

impl<A: Agent> ActionsBackend<A> {
    /// A backend behind this agent.
    #[must_use]
    pub const fn new(agent: A) -> Self {
        Self { agent }
    }

    /// The agent.
    #[must_use]
    pub const fn agent(&self) -> &A {
        &self.agent
    }

    fn ask(&self, action: impl Into<Action>) -> Result<Reply> {
        self.ask_within(action, None)
    }

    fn ask_within(&self, action: impl Into<Action>, timeout: Option<Duration>) -> Result<Reply> {
        let action = action.into();
        self.agent
            .call(&action, timeout)
            .map_err(|source| BackendError::Call {
                action: action.name(),
                what: action.ledger_resource(),
                source,
            })
    }

    fn json(&self, action: impl Into<Action>) -> Result<Value> {
        let action = action.into();
        let name = action.name();
        let reply = self.ask(action)?;
        serde_json::from_str(&reply.output).map_err(|e| BackendError::Answer {
            action: name,
            problem: e.to_string(),
        })
    }
}

fn absent<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

pub(crate) fn odd(action: &'static str, problem: &str) -> BackendError {
    BackendError::Answer {
        action,
        problem: problem.to_owned(),
    }
}

impl<A: Agent> Backend for ActionsBackend<A> {
    fn kind(&self) -> Result<String> {
        let reply = self.ask(AgentInfo {})?;
        let kind = reply.extra.get("backend").and_then(Value::as_str);
        kind.map(str::to_owned)
            .ok_or_else(|| odd("agent-info", "it has no field \"backend\""))
    }

    fn machines(&self) -> Result<Vec<Machine>> {
        let value = self.json(QmList {})?;
        let rows = value
            .as_array()
            .ok_or_else(|| odd("qm-list", "it is no list"))?;
        rows.iter()
            .map(|row| {
                let text = |key: &str| {
                    row.get(key)
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned()
                };
                let number = row
                    .get("vmid")
                    .and_then(Value::as_u64)
                    .ok_or_else(|| odd("qm-list", "a row has no vmid"))?;
                Ok(Machine {
                    vmid: Vmid::try_from(number)?,
                    name: text("name"),
                    status: text("status"),
                })
            })
            .collect()
    }

    fn config(&self, vmid: Vmid) -> Result<Option<BTreeMap<String, String>>> {
        let Some(value) = absent(self.json(QmConfig { vmid }))? else {
            return Ok(None);
        };
        let map = value
            .as_object()
            .ok_or_else(|| odd("qm-config", "it is no object"))?;
        let text = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        Ok(Some(
            map.iter()
                .map(|(key, value)| (key.clone(), text(value)))
                .collect(),
        ))
    }

    fn status(&self, vmid: Vmid) -> Result<Option<String>> {
        let Some(value) = absent(self.json(QmStatus { vmid }))? else {
            return Ok(None);
        };
        let status = value.get("status").and_then(Value::as_str);
        status
            .map(|word| Some(word.to_owned()))
            .ok_or_else(|| odd("qm-status", "it has no status"))
    }

    fn create(&self, vmid: Vmid, name: &VmName, options: QmOptions) -> Result<()> {
        self.ask(QmCreate {
            vmid,
            name: name.clone(),
            args: QmArgs::from(options),
        })
        .map(drop)
    }

    fn clone_machine(&self, template: Vmid, vmid: Vmid, name: &VmName) -> Result<()> {
        self.ask(QmClone {
            vmid: template,
            newid: vmid,
            name: name.clone(),
            full: false,
        })
        .map(drop)
    }

    fn configure(&self, vmid: Vmid, options: QmOptions) -> Result<()> {
        self.ask(QmSet { vmid, options }).map(drop)
    }

    fn resize(&self, vmid: Vmid, disk: DriveKey, size: DiskSize) -> Result<()> {
        self.ask(QmResize { vmid, disk, size }).map(drop)
    }

    fn import_disk(
        &self,
        vmid: Vmid,
        image: &Path,
        storage: &StorageName,
    ) -> Result<Option<String>> {
        // A name in the image directory: the agent knows where that is, under whatever root.
        let name = image.file_name().unwrap_or(image.as_os_str());
        let disk_path: ImagePath = name.to_string_lossy().parse()?;
        let reply = self.ask(QmImportdisk {
            vmid,
            disk_path,
            storage: storage.clone(),
        })?;
        Ok(reply
            .extra
            .get("volume")
            .and_then(Value::as_str)
            .map(str::to_owned))
    }

    fn make_template(&self, vmid: Vmid) -> Result<()> {
        self.ask(QmTemplate { vmid }).map(drop)
    }

    fn start(&self, vmid: Vmid) -> Result<()> {
        self.ask(QmStart { vmid }).map(drop)
    }

    fn shutdown(&self, vmid: Vmid, timeout: Seconds) -> Result<()> {
        self.ask(QmShutdown { vmid, timeout }).map(drop)
    }

    fn stop(&self, vmid: Vmid) -> Result<()> {
        self.ask(QmStop { vmid }).map(drop)
    }

    fn destroy(&self, vmid: Vmid, template: bool) -> Result<()> {
        self.ask(QmDestroy { vmid, template }).map(drop)
    }

    fn guest_ping(&self, vmid: Vmid) -> bool {
        self.ask(QmGuestPing { vmid }).is_ok()
    }

    fn guest_exec(
        &self,
        vmid: Vmid,
        command: GuestCommand,
        timeout: Seconds,
    ) -> Result<GuestOutput> {
        let reply = self.ask(QmGuestExec {
            vmid,
            command,
            timeout,
            secret: false,
        })?;
        let text = |key: &str| {
            reply
                .extra
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let exitcode = reply.extra.get("exitcode").and_then(Value::as_i64);
        let exitcode = exitcode.ok_or_else(|| odd("qm-guest-exec", "it has no exitcode"))?;
        Ok(GuestOutput {
            exitcode,
            stdout: text("stdout"),
            stderr: text("stderr"),
        })
    }

    fn containers(&self) -> Result<Vec<Vmid>> {
        let value = self.json(PctList {})?;
        let rows = value
            .as_array()
            .ok_or_else(|| odd("pct-list", "it is no list"))?;
        rows.iter()
            .map(|row| {
                let number = row.get("vmid").and_then(Value::as_u64);
                let number = number.ok_or_else(|| odd("pct-list", "a row has no vmid"))?;
                Ok(Vmid::try_from(number)?)
            })
            .collect()
    }

    fn switch_ports(&self) -> Result<Vec<SwitchPort>> {
        let value = self.json(OvsList {
            bridge: None,
            flows: false,
            owner: None,
        })?;
        let bridges = value.get("bridges").and_then(Value::as_array);
        let bridges = bridges.ok_or_else(|| odd("ovs-list", "it has no bridges"))?;
        let mut found = Vec::new();
        for bridge in bridges {
            let name = bridge.get("name").and_then(Value::as_str);
            let ports = bridge.get("ports").and_then(Value::as_array);
            for port in ports.into_iter().flatten() {
                let device = port.get("name").and_then(Value::as_str);
                let ours = port.get("ours") == Some(&Value::Bool(true));
                let vmid = port.get("vmid").and_then(Value::as_u64);
                // What the agent did not make, or not for a machine, is nobody's leftover.
                if let (Some(bridge), Some(device), true, Some(vmid)) = (name, device, ours, vmid) {
                    found.push(SwitchPort {
                        bridge: bridge.parse()?,
                        port: device.parse()?,
                        vmid: Vmid::try_from(vmid)?,
                    });
                }
            }
        }
        Ok(found)
    }

    fn switch_port_del(&self, port: &SwitchPort) -> Result<()> {
        self.ask(OvsDelPort {
            bridge: port.bridge.clone(),
            port: port.port.clone(),
        })
        .map(drop)
    }

    fn counters(&self, only: Option<Vmid>) -> Result<Vec<Counters>> {
        let value = self.json(QmMetrics { vmid: only })?;
        serde_json::from_value(value).map_err(|e| odd("qm-metrics", &e.to_string()))
    }

    fn throttle(&self, wanted: VmThrottle) -> Result<()> {
        self.ask(wanted).map(drop)
    }

    fn route_add(&self, address: HostIpv6, bridge: &IfName) -> Result<()> {
        self.ask(Ip6RouteAdd {
            address,
            dev: bridge.clone(),
        })
        .map(drop)
    }

    fn route_del(&self, address: HostIpv6, bridge: &IfName) -> Result<()> {
        self.ask(Ip6RouteDel {
            address,
            dev: bridge.clone(),
        })
        .map(drop)
    }
}
