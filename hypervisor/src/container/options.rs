//! Options of containers as they come on the command line, and what they come to: lines of a configuration, and what the
//! service is told. The grammar is the catalog's (`blockhost_proto::pct`).
#![forbid(unsafe_code)]

use blockhost_proto::options::OneOption as _;
use blockhost_proto::pct::{ContainerNet, PctKey, PctOption, RootFs};
use blockhost_proto::qm::{Ip4Config, Ip6Config};

use crate::config::VmConfig;
use crate::error::{Error, Result};
use crate::keeper::wire::{Address, Interface, Limits, Settings, StartSpec};
use crate::machine::Vmid;
use crate::options::{deleted_keys, random_mac, read_keys, read_pairs};

/// Memory and swap without options, as in Proxmox.
pub const DEFAULT_MIB: u64 = 512;
/// The storage that root file systems are on: the service's own directory.
pub const STORAGE: &str = "local";

/// One change of a configuration.
#[derive(Debug, Clone)]
pub enum Change {
    /// Set an option of the grammar.
    Set(Box<PctOption>),
    /// Remove an option by its key (`--delete`).
    Delete(PctKey),
}

/// The changes that a command line asks for.
///
/// # Errors
/// [`Error::Option`] for a key or value outside the grammar.
pub fn read_args(args: &[String]) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for (key, value) in read_pairs(args)? {
        match key.as_str() {
            "delete" => {
                for key in deleted_keys(&value) {
                    changes.push(Change::Delete(deletable(key)?));
                }
            }
            "ssh-public-keys" => {
                let keys = read_keys(&key, &value)?;
                changes.push(Change::Set(Box::new(PctOption::SshPublicKeys(keys))));
            }
            _ => {
                let option = PctOption::parse(&key, &value)
                    .map_err(|e| Error::option(key.as_str(), e.to_string()))?;
                supported(&option)?;
                changes.push(Change::Set(Box::new(option)));
            }
        }
    }
    Ok(changes)
}

fn deletable(key: &str) -> Result<PctKey> {
    let wrong = |problem: &str| {
        Err(Error::option(
            "delete",
            format!("{problem} '{}'", key.escape_default()),
        ))
    };
    match PctKey::read(key) {
        None => wrong("unknown setting"),
        Some(PctKey::RootFs | PctKey::Hostname | PctKey::Unprivileged | PctKey::Arch) => {
            wrong("unable to delete required option")
        }
        Some(key) => Ok(key),
    }
}

/// What the grammar has and this backend has not is refused, not forgotten.
fn supported(option: &PctOption) -> Result<()> {
    match option {
        PctOption::Net(_, net) if net.rate_kbps.is_some() => Err(Error::option(
            option.key().to_string(),
            "rate is not supported by this backend",
        )),
        PctOption::RootFs(root) if root.storage.to_string() != STORAGE => Err(Error::option(
            "rootfs",
            format!(
                "root file systems of containers are on the storage '{STORAGE}' and not on '{}'",
                root.storage
            ),
        )),
        PctOption::Timezone(zone) if zone.as_str() == "host" => Err(Error::option(
            "timezone",
            "'host' is not supported by this backend; name the zone",
        )),
        PctOption::Arch(arch) if !runs_here(&arch.to_string()) => Err(Error::option(
            "arch",
            format!("this processor does not run '{arch}'"),
        )),
        _ => Ok(()),
    }
}

/// The architectures that this processor runs, its own first.
fn architectures() -> &'static [&'static str] {
    match std::env::consts::ARCH {
        "x86_64" => &["amd64", "i386"],
        "aarch64" => &["arm64", "armhf"],
        "riscv64" => &["riscv64", "riscv32"],
        _ => &[],
    }
}

fn runs_here(arch: &str) -> bool {
    architectures().contains(&arch)
}

/// What creating takes beside the configuration.
#[derive(Debug)]
pub struct New {
    /// The configuration, complete but for the root file system's line.
    pub config: VmConfig,
    /// The root file system.
    pub root: RootFs,
    /// Keys for its root.
    pub ssh_keys: Option<String>,
}

/// The configuration of a new container.
///
/// # Errors
/// [`Error::Option`] when something is missing or contradicts.
pub fn new(vmid: Vmid, changes: Vec<Change>) -> Result<New> {
    let mut config = VmConfig::default();
    let (mut root, mut ssh_keys) = (None, None);
    for change in changes {
        match change {
            Change::Delete(_) => {
                return Err(Error::option("delete", "there is nothing to delete yet"));
            }
            Change::Set(option) => match *option {
                PctOption::RootFs(wanted) => root = Some(wanted),
                PctOption::SshPublicKeys(keys) => ssh_keys = Some(keys.to_string()),
                option => put(&mut config, option)?,
            },
        }
    }
    let missing = |key: &str, example: &str| Error::option(key, format!("missing: say {example}"));
    let root = root.ok_or_else(|| missing("rootfs", "--rootfs local:8"))?;
    if config.get("unprivileged").is_none() {
        return Err(Error::option(
            "unprivileged",
            "missing: say --unprivileged 1; root of a privileged container is root of the host, so there are none here",
        ));
    }
    let own = architectures().first().copied().unwrap_or("amd64");
    let name = format!("ct{vmid}");
    for (key, value) in [
        ("arch", own),
        ("memory", "512"),
        ("swap", "512"),
        ("hostname", &name),
    ] {
        if config.get(key).is_none() {
            config.set(key, value);
        }
    }
    Ok(New {
        config,
        root,
        ssh_keys,
    })
}

/// Applies changes to the configuration of a container that is there.
///
/// # Errors
/// [`Error::Option`] for what belongs to its creation.
pub fn apply(config: &mut VmConfig, changes: Vec<Change>) -> Result<()> {
    for change in changes {
        match change {
            Change::Delete(key) => {
                config.remove(&key.to_string());
            }
            Change::Set(option) => match *option {
                PctOption::RootFs(_) | PctOption::SshPublicKeys(_) | PctOption::Unprivileged => {
                    let key = option.key().to_string();
                    return Err(Error::option(
                        key,
                        "can only be given when the container is created",
                    ));
                }
                option => put(config, option)?,
            },
        }
    }
    Ok(())
}

fn put(config: &mut VmConfig, option: PctOption) -> Result<()> {
    let key = option.key().to_string();
    let option = match option {
        PctOption::Net(index, mut net) => {
            if net.mac.is_none() {
                let kept = config.get(&key).and_then(ContainerNet::read);
                let kept = kept.and_then(|net| net.mac);
                net.mac = Some(kept.map_or_else(random_mac, Ok)?);
            }
            if let Some(other) = nets(config)?
                .into_iter()
                .find(|(at, other)| *at != u32::from(index) && other.name == net.name)
            {
                return Err(Error::option(
                    key,
                    format!("net{} has the name '{}' inside already", other.0, net.name),
                ));
            }
            PctOption::Net(index, net)
        }
        other => other,
    };
    config.set(key, option.value());
    Ok(())
}

/// The interfaces of a configuration, by number.
///
/// # Errors
/// [`Error::Option`] for a stored value that is none.
pub fn nets(config: &VmConfig) -> Result<Vec<(u32, ContainerNet)>> {
    config
        .numbered("net")
        .into_iter()
        .map(|(index, value)| {
            ContainerNet::read(value)
                .map(|net| (index, net))
                .ok_or_else(|| {
                    Error::option(format!("net{index}"), "the stored value is no interface")
                })
        })
        .collect()
}

/// A stored option, read again: configurations are files that people edit.
fn stored(config: &VmConfig, key: &str) -> Result<Option<PctOption>> {
    let Some(value) = config.get(key) else {
        return Ok(None);
    };
    PctOption::parse(key, value)
        .map(Some)
        .map_err(|e| Error::option(key, e.to_string()))
}

/// What is written into the root file system.
///
/// # Errors
/// [`Error::Option`] for a stored value outside the grammar.
pub fn settings(config: &VmConfig, ssh_keys: Option<String>) -> Result<Settings> {
    let words = |key: &str| -> Result<Vec<String>> {
        let value = stored(config, key)?.map(|option| option.value());
        Ok(value
            .iter()
            .flat_map(|value| value.split(' '))
            .map(str::to_owned)
            .collect())
    };
    let hostname = match stored(config, "hostname")? {
        Some(option) => option.value(),
        None => "localhost".to_owned(),
    };
    Ok(Settings {
        hostname,
        nameservers: words("nameserver")?,
        searchdomains: words("searchdomain")?,
        timezone: stored(config, "timezone")?.map(|option| option.value()),
        ssh_keys,
    })
}

/// What a container may use.
///
/// # Errors
/// [`Error::Option`] for a stored value outside the grammar.
pub fn limits(config: &VmConfig) -> Result<Limits> {
    let mut limits = Limits {
        memory_mib: DEFAULT_MIB,
        swap_mib: DEFAULT_MIB,
        cpu_hundredths: 0,
        cpu_units: 100,
    };
    for key in ["memory", "swap", "cores", "cpulimit", "cpuunits"] {
        match stored(config, key)? {
            Some(PctOption::Memory(mib)) => limits.memory_mib = u64::from(mib),
            Some(PctOption::Swap(mib)) => limits.swap_mib = u64::from(mib),
            // A number of cores is as much time as that many have.
            Some(PctOption::Cores(cores)) => limits.cpu_hundredths = u32::from(cores) * 100,
            Some(PctOption::CpuLimit(limit)) => {
                let hundredths = u32::from(limit.hundredths());
                limits.cpu_hundredths = match (hundredths, limits.cpu_hundredths) {
                    (0, cores) => cores,
                    (limit, 0) => limit,
                    (limit, cores) => limit.min(cores),
                };
            }
            Some(PctOption::CpuUnits(units)) => limits.cpu_units = units.get(),
            _ => {}
        }
    }
    Ok(limits)
}

/// What a container is started with.
///
/// # Errors
/// [`Error::Option`] for a stored value outside the grammar.
pub fn start_spec(config: &VmConfig) -> Result<StartSpec> {
    let features = match stored(config, "features")? {
        Some(PctOption::Features(features)) => features,
        _ => Default::default(),
    };
    let on = |feature: Option<bool>| feature == Some(true);
    let arch = stored(config, "arch")?.map(|option| option.value());
    let interfaces = nets(config)?
        .into_iter()
        .map(|(_, net)| interface(&net))
        .collect();
    Ok(StartSpec {
        settings: settings(config, None)?,
        interfaces,
        limits: limits(config)?,
        narrow: matches!(arch.as_deref(), Some("i386" | "armhf" | "riscv32")),
        nesting: on(features.nesting),
        keyctl: on(features.keyctl),
        fuse: on(features.fuse),
    })
}

fn interface(net: &ContainerNet) -> Interface {
    let mut addresses = Vec::new();
    if let Some(Ip4Config::Static {
        address,
        prefix,
        gateway,
    }) = net.ip4
    {
        addresses.push(Address {
            address: format!("{address}/{prefix}"),
            gateway: gateway.map(|gateway| gateway.to_string()),
        });
    }
    if let Some(Ip6Config::Static {
        address,
        prefix,
        gateway,
    }) = net.ip6
    {
        addresses.push(Address {
            address: format!("{address}/{prefix}"),
            gateway: gateway.map(|gateway| gateway.to_string()),
        });
    }
    Interface {
        name: net.name.to_string(),
        addresses,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Vec<Change>> {
        read_args(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_reaches_the_host_or_is_not_kept_is_refused() {
        for args in [
            ["--mp0", "/srv,mp=/mnt"],
            ["--dev0", "/dev/sda"],
            ["--rootfs", "/srv/root"],
            ["--rootfs", "other:8"],
            ["--unprivileged", "0"],
            ["--features", "mount=nfs"],
            ["--hookscript", "local:snippets/x"],
            ["--lxc.mount.entry", "/ host none bind"],
            ["--net0", "name=eth0,bridge=vmbr0,rate=1"],
            ["--net0", "name=eth0,bridge=vmbr0,script=/x"],
            ["--arch", "s390x"],
            ["--timezone", "host"],
            ["--delete", "rootfs"],
            ["--delete", "unprivileged"],
            ["--delete", "lxc.idmap"],
            ["memory", "512"],
        ] {
            let error = read(&args).unwrap_err();
            assert_eq!(error.exit_code(), 6, "{args:?}");
        }
    }

    #[test]
    fn a_container_that_is_not_said_to_be_unprivileged_is_not_made() {
        let vmid = "100".parse().unwrap();
        assert!(new(vmid, read(&["--rootfs", "local:1"]).unwrap()).is_err());
        assert!(new(vmid, read(&["--unprivileged", "1"]).unwrap()).is_err());
        let made = new(
            vmid,
            read(&["--rootfs", "local:1", "--unprivileged", "1"]).unwrap(),
        )
        .unwrap();
        assert_eq!(made.config.get("memory"), Some("512"));
    }

    #[test]
    fn what_belongs_to_the_creation_stays_afterwards() {
        let mut config = VmConfig::default();
        for args in [["--rootfs", "local:9"], ["--unprivileged", "1"]] {
            assert!(
                apply(&mut config, read(&args).unwrap()).is_err(),
                "{args:?}"
            );
        }
    }

    #[test]
    fn an_address_of_an_interface_survives_a_change_and_two_cannot_share_a_name() {
        let mut config = VmConfig::default();
        apply(
            &mut config,
            read(&["--net0", "name=eth0,bridge=vmbr0"]).unwrap(),
        )
        .unwrap();
        let mac = nets(&config).unwrap()[0].1.mac;
        assert!(mac.is_some());
        apply(
            &mut config,
            read(&["--net0", "name=eth0,bridge=vmbr1,ip=dhcp"]).unwrap(),
        )
        .unwrap();
        assert_eq!(nets(&config).unwrap()[0].1.mac, mac);
        assert!(
            apply(
                &mut config,
                read(&["--net1", "name=eth0,bridge=vmbr0"]).unwrap()
            )
            .is_err()
        );
    }

    #[test]
    fn cores_and_a_limit_are_both_kept_to() {
        let hundredths = |args: &[&str]| {
            let mut config = VmConfig::default();
            apply(&mut config, read(args).unwrap()).unwrap();
            limits(&config).unwrap().cpu_hundredths
        };
        assert_eq!(hundredths(&[]), 0);
        assert_eq!(hundredths(&["--cores", "2"]), 200);
        assert_eq!(hundredths(&["--cores", "2", "--cpulimit", "0.5"]), 50);
        assert_eq!(hundredths(&["--cores", "1", "--cpulimit", "4"]), 100);
        assert_eq!(hundredths(&["--cpulimit", "0"]), 0);
    }

    #[test]
    fn a_stored_line_that_somebody_edited_is_read_as_strictly_as_an_argument() {
        let mut config = VmConfig::default();
        config.set("hostname", "a b");
        assert!(start_spec(&config).is_err());
        config.set("hostname", "a");
        config.set(
            "net0",
            "name=eth0,bridge=vmbr0,ip=10.0.0.2/24,gw=10.0.0.1,ip6=auto",
        );
        let spec = start_spec(&config).unwrap();
        assert_eq!(spec.interfaces[0].addresses.len(), 1);
        config.set("features", "mount=nfs");
        assert!(start_spec(&config).is_err());
    }
}
