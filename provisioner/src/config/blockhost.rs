//! Our part of `blockhost.yaml`: the section `proxmox` (which backend objects to use; the embedded backend reads the
//! same keys) and `vm` (what a machine gets when nobody says otherwise). `plans` is read in [`super::sizes`]; the other
//! sections belong to the engine.

use std::net::IpAddr;

use blockhost_proto::Layout;
use blockhost_proto::value::{IfName, StorageName, Vmid};

use super::sizes::{CORES, DISK_GB, MEMORY_MB, Size};
use super::{ConfigError, Section, Warning};

/// What a machine gets when the command line does not say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmDefaults {
    /// Name of the user made by cloud-init.
    pub username: String,
    /// MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cores: u32,
    /// GiB.
    pub disk_gib: u32,
    /// Name servers of the guests.
    pub nameservers: Vec<IpAddr>,
    /// Seconds until a machine that does not answer is given up.
    pub ready_timeout_s: u32,
    /// Name of the cloud-init template.
    pub cloud_init: String,
}

impl VmDefaults {
    /// How large it is.
    #[must_use]
    pub const fn size(&self) -> Size {
        Size {
            cores: self.cores,
            memory_mb: self.memory_mib,
            disk_gb: self.disk_gib,
        }
    }
}

/// Our part of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockhostConfig {
    /// Name of this node in a Proxmox cluster.
    pub node: Option<String>,
    /// Storage of disks.
    pub storage: StorageName,
    /// Storage that holds snippets.
    pub snippet_storage: StorageName,
    /// Bridge of the machines.
    pub bridge: IfName,
    /// The template that machines are cloned from.
    pub template_vmid: Vmid,
    /// Defaults of machines.
    pub vm: VmDefaults,
}

impl BlockhostConfig {
    /// Reads `/etc/blockhost/blockhost.yaml` of this world; a missing file means all defaults.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and key.
    pub fn load(layout: &Layout, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        Self::read(open(layout)?, warnings)
    }

    /// Reads the parsed file.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and key.
    pub fn read(mut top: Section, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let mut config = Self {
            node: None,
            storage: fixed("local"),
            snippet_storage: fixed("local"),
            bridge: fixed("vmbr0"),
            template_vmid: fixed("9000"),
            vm: VmDefaults {
                username: "admin".into(),
                memory_mib: 1024,
                cores: 1,
                disk_gib: 10,
                nameservers: Vec::new(),
                ready_timeout_s: 300,
                cloud_init: "nft-auth".into(),
            },
        };
        if let Some(mut section) = top.section("proxmox")? {
            config.node = section.text("node")?.map(|(node, _)| node);
            if let Some((storage, _)) = section.parsed("storage")? {
                config.storage = storage;
            }
            if let Some((storage, _)) = section.parsed("snippet_storage")? {
                config.snippet_storage = storage;
            }
            if let Some((bridge, _)) = section.parsed("bridge")? {
                config.bridge = bridge;
            }
            if let Some((number, line)) = section.integer("template_vmid", 100..=999_999)? {
                config.template_vmid = Vmid::try_from(number)
                    .map_err(|e| section.invalid("template_vmid", line, e.to_string()))?;
            }
            section.finish(warnings);
        }
        if let Some(mut section) = top.section("vm")? {
            read_vm(&mut section, &mut config.vm)?;
            section.finish(warnings);
        }
        Ok(config)
    }
}

/// The file, parsed; an empty one where there is none.
pub(super) fn open(layout: &Layout) -> Result<Section, ConfigError> {
    let file = layout.etc().join("blockhost.yaml");
    match Section::load(&file) {
        Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Section::parse(&file, "")
        }
        other => other,
    }
}

fn read_vm(section: &mut Section, vm: &mut VmDefaults) -> Result<(), ConfigError> {
    if let Some((name, line)) = section.text("username")? {
        // The agent's rule for ciuser is the rule.
        blockhost_proto::qm::QmOption::parse("ciuser", &name)
            .map_err(|e| section.invalid("username", line, e.to_string()))?;
        vm.username = name;
    }
    vm.memory_mib = section.u32_or("memory_mb", MEMORY_MB, vm.memory_mib)?;
    vm.cores = section.u32_or("cores", CORES, vm.cores)?;
    vm.disk_gib = section.u32_or("disk_gb", DISK_GB, vm.disk_gib)?;
    vm.ready_timeout_s = section.u32_or("ready_timeout_s", 10..=3600, vm.ready_timeout_s)?;
    for text in section.texts("nameservers")? {
        let address = text.parse().map_err(|_| {
            section.invalid("nameservers", 0, format!("\"{text}\" is not an address"))
        })?;
        vm.nameservers.push(address);
    }
    if let Some((name, line)) = section.text("cloud_init")? {
        if !crate::cloudinit::is_template_name(&name) {
            return Err(section.invalid(
                "cloud_init",
                line,
                format!("\"{name}\" is not a template's name"),
            ));
        }
        vm.cloud_init = name;
    }
    Ok(())
}

/// A value written in this file, which its own test reads.
fn fixed<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &'static str) -> T {
    text.parse().expect("a valid default")
}
