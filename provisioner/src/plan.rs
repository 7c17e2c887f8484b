//! What creating a machine means: a pure function from the request, the configuration and the numbers given out to the
//! options, the cloud-init file and the actions in their order. [`crate::create`] carries it out.

use std::net::{Ipv4Addr, Ipv6Addr};

use blockhost_proto::action::{Action, DriveKey, Ip6RouteAdd, QmClone, QmResize, QmSet, QmStart};
use blockhost_proto::qm::{DriveBus, QmError, QmKey, QmOptions, SshKeys};
use blockhost_proto::value::{DiskSize, EthAddress, HostIpv6, ValueError, VmName, Vmid};
use serde_json::{Value, json};

use crate::cloudinit::Source;
use crate::config::Config;
use crate::record::Reservation;

/// The disk that the template boots from.
pub const BOOT_DISK: QmKey = QmKey::Drive(DriveBus::Scsi, 0);

/// What the caller asked for; what is `None` comes from the configuration or the pools.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// Name of the machine.
    pub name: VmName,
    /// The wallet that will own it.
    pub wallet: EthAddress,
    /// The owner's signature and what was signed, to encrypt the access details.
    pub signature: Option<SignedSecret>,
    /// The owner's token, where it exists.
    pub nft_token_id: Option<u64>,
    /// Days until it expires.
    pub expiry_days: Option<u32>,
    /// Virtual CPUs.
    pub cores: Option<u32>,
    /// MiB.
    pub memory_mib: Option<u32>,
    /// GiB.
    pub disk_gib: Option<u32>,
    /// What it is for.
    pub purpose: String,
    /// Where the user data comes from.
    pub source: Source,
    /// This IPv4 address.
    pub ip: Option<Ipv4Addr>,
    /// This IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// This number.
    pub vmid: Option<Vmid>,
    /// Do not mint.
    pub skip_mint: bool,
    /// Only the database, no machine.
    pub mock: bool,
}

/// A wallet's signature of a public text.
#[derive(Clone)]
pub struct SignedSecret {
    /// The signature in hexadecimal.
    pub signature: String,
    /// What was signed.
    pub public_secret: String,
}

impl std::fmt::Debug for SignedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignedSecret(..)")
    }
}

/// A value in the plan that the agent would not take.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// An option of the machine.
    #[error(transparent)]
    Option(#[from] QmError),
    /// Another value.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The operator's key file.
    #[error("{file} does not hold OpenSSH public keys, one per line")]
    SshKeys {
        /// The file.
        file: String,
    },
}

/// Everything that will be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its number and addresses.
    pub reservation: Reservation,
    /// The template it is cloned from.
    pub template: Vmid,
    /// Options to set.
    pub options: QmOptions,
    /// Size of its disk.
    pub disk: DiskSize,
    /// Its address with a host route.
    pub route: Option<HostIpv6>,
    /// Name of the cloud-init file.
    pub snippet: String,
    /// The cloud-init file.
    pub user_data: String,
}

/// Name of a machine's cloud-init file.
#[must_use]
pub fn snippet_name(name: &VmName) -> String {
    format!("{name}-user.yaml")
}

/// Plans a machine on the numbers and addresses of `reservation`.
///
/// # Errors
/// [`PlanError`].
pub fn plan(
    request: &CreateRequest,
    config: &Config,
    reservation: &Reservation,
    ssh_keys: &[String],
    user_data: String,
) -> Result<Plan, PlanError> {
    let vm = &config.host.vm;
    let snippet = snippet_name(&request.name);
    let mut options = QmOptions::default();
    options.add(
        "memory",
        &request.memory_mib.unwrap_or(vm.memory_mib).to_string(),
    )?;
    options.add("cores", &request.cores.unwrap_or(vm.cores).to_string())?;
    // Held to its own addresses: who rents it is root in it.
    let net = format!("virtio,bridge={},firewall=1", config.host.bridge);
    options.add("net0", &net)?;
    options.add("ipconfig0", &ip_config(config, reservation))?;
    options.add("ciuser", &vm.username)?;
    if !ssh_keys.is_empty() {
        options.add("sshkeys", &ssh_keys.join("\n"))?;
    }
    options.add("agent", "1")?;
    options.add("onboot", "1")?;
    options.add(
        "cicustom",
        &format!("user={}:snippets/{snippet}", config.host.snippet_storage),
    )?;
    if !vm.nameservers.is_empty() {
        let servers: Vec<String> = vm.nameservers.iter().map(ToString::to_string).collect();
        options.add("nameserver", &servers.join(" "))?;
    }
    Ok(Plan {
        template: config.host.template_vmid,
        options,
        disk: format!("{}G", request.disk_gib.unwrap_or(vm.disk_gib)).parse()?,
        route: reservation.ipv6.map(HostIpv6::try_from).transpose()?,
        snippet,
        user_data,
        reservation: reservation.clone(),
    })
}

fn ip_config(config: &Config, reservation: &Reservation) -> String {
    let pool = config.db.ip_pool;
    let mut text = format!(
        "ip={}/{},gw={}",
        reservation.ip,
        pool.network.prefix(),
        pool.gateway
    );
    if let Some(ipv6) = reservation.ipv6 {
        text.push_str(&format!(",ip6={ipv6}/128"));
        if let Some(gateway) = config.broker.and_then(|broker| broker.gateway) {
            text.push_str(&format!(",gw6={gateway}"));
        }
    }
    text
}

/// Keys of the operator (`terraform_ssh_key.pub`) that enter every machine, each checked.
///
/// # Errors
/// [`PlanError::SshKeys`].
pub fn operator_keys(file: &std::path::Path) -> Result<Vec<String>, PlanError> {
    let Ok(text) = std::fs::read_to_string(file) else {
        return Ok(Vec::new());
    };
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .collect();
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let keys = SshKeys::read(&lines.join("\n")).ok_or_else(|| PlanError::SshKeys {
        file: file.display().to_string(),
    })?;
    Ok(keys.lines().to_vec())
}

impl Plan {
    /// The disk to grow.
    ///
    /// # Errors
    /// Never in practice: the key is a drive.
    pub fn boot_disk() -> Result<DriveKey, ValueError> {
        DriveKey::try_from(BOOT_DISK)
    }

    /// The privileged actions in their order.
    ///
    /// # Errors
    /// [`ValueError`], never in practice.
    pub fn actions(&self, config: &Config) -> Result<Vec<Action>, ValueError> {
        let Reservation { vmid, name, .. } = &self.reservation;
        let vmid = *vmid;
        let mut actions: Vec<Action> = vec![
            QmClone {
                vmid: self.template,
                newid: vmid,
                name: name.clone(),
                full: false,
            }
            .into(),
            QmSet {
                vmid,
                options: self.options.clone(),
            }
            .into(),
            QmResize {
                vmid,
                disk: Self::boot_disk()?,
                size: self.disk,
            }
            .into(),
            QmStart { vmid }.into(),
        ];
        if let Some(address) = self.route {
            actions.push(
                Ip6RouteAdd {
                    address,
                    dev: config.host.bridge.clone(),
                }
                .into(),
            );
        }
        Ok(actions)
    }

    /// The plan for people and programs.
    ///
    /// # Errors
    /// [`ValueError`], never in practice.
    pub fn to_json(&self, config: &Config) -> Result<Value, ValueError> {
        let actions = self.actions(config)?;
        let actions: Vec<Value> = actions
            .iter()
            .map(|action| json!({"action": action.name(), "params": action.params()}))
            .collect();
        Ok(json!({
            "status": "plan",
            "vm_name": self.reservation.name,
            "vmid": self.reservation.vmid,
            "ip": self.reservation.ip,
            "ipv6": self.reservation.ipv6,
            "template": self.template,
            "snippet": self.snippet,
            "cloud_init": self.user_data,
            "actions": actions,
        }))
    }
}
