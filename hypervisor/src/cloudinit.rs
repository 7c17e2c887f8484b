//! The cloud-init seed (NoCloud): user-data, meta-data, network-config from a machine's options and snippets, as an
//! ISO image. Documents are built as data and printed as JSON, which is YAML, so no value can break out of its place.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use blockhost_proto::qm::{CiCustom, Ip4Config, Ip6Config, IpConfig, QmOption, SshKeys};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::VmConfig;
use crate::error::{Error, IoContext, Result};
use crate::exec::{self, Run};
use crate::host::Host;
use crate::machine::Vmid;
use crate::{net, sys};

/// Longest snippet.
const SNIPPET_LIMIT: u64 = 1 << 20;
/// Name of the ISO in the machine's run directory.
pub const SEED: &str = "seed.iso";

/// The documents of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// `user-data`: the snippet, or generated.
    pub user: String,
    /// `meta-data`.
    pub meta: String,
    /// `network-config`, version 2.
    pub network: String,
    /// `vendor-data`: the snippet; or what was generated, when the user's snippet took the place of user-data
    /// (cloud-init merges both, user-data wins).
    pub vendor: Option<String>,
}

/// Builds the documents; snippets are read below the snippets directory only.
///
/// # Errors
/// When a snippet is missing, a link, or too long, or a stored option is not valid.
pub fn build(host: &Host, vmid: Vmid, config: &VmConfig) -> Result<Seed> {
    let custom = match config.get("cicustom") {
        Some(value) => match QmOption::parse("cicustom", value) {
            Ok(QmOption::CiCustom(custom)) => Some(custom),
            _ => {
                return Err(Error::option(
                    "cicustom",
                    format!("stored value '{}' is not valid", value.escape_default()),
                ));
            }
        },
        None => None,
    };
    let part = |name: &str| snippet(host, custom.as_ref(), name);
    let generated = format!("#cloud-config\n{}\n", user_data(vmid, config)?);
    let (user, vendor) = match (part("user")?, part("vendor")?) {
        (Some(user), Some(vendor)) => (user, Some(vendor)),
        (Some(user), None) => (user, Some(generated)),
        (None, vendor) => (generated, vendor),
    };
    let network = match part("network")? {
        Some(network) => network,
        None => format!("{}\n", network_config(config)?),
    };
    let mut hash = Sha256::new();
    for text in [&user, &network, vendor.as_ref().unwrap_or(&String::new())] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    let digest: String = hash
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let meta = json!({ "instance-id": format!("{vmid}-{digest}"), "local-hostname": hostname(vmid, config) });
    Ok(Seed {
        user,
        meta: format!("{meta}\n"),
        network,
        vendor,
    })
}

fn hostname(vmid: Vmid, config: &VmConfig) -> String {
    config
        .get("name")
        .map_or_else(|| format!("VM{vmid}"), str::to_owned)
}

fn snippet(host: &Host, custom: Option<&CiCustom>, part: &str) -> Result<Option<String>> {
    let Some(reference) = custom.and_then(|custom| custom.get(part)) else {
        return Ok(None);
    };
    let refuse =
        |problem: String| Error::option("cicustom", format!("snippet '{reference}': {problem}"));
    if reference.storage().to_string() != "local" {
        return Err(refuse("only the storage 'local' holds snippets".to_owned()));
    }
    let dir = sys::open_dir(&host.layout.snippets()).at("cannot open", host.layout.snippets())?;
    // NONBLOCK: a fifo planted under the name must not hang the start.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = sys::open_beneath(&dir, Path::new(reference.file()), flags, Mode::empty())
        .map_err(|e| refuse(e.to_string()))?;
    let bytes = sys::read_limited(file, SNIPPET_LIMIT).map_err(|e| refuse(e.to_string()))?;
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| refuse("not UTF-8".to_owned()))
}

/// The stored SSH keys, one per element.
fn ssh_keys(config: &VmConfig) -> Result<Vec<String>> {
    let Some(stored) = config.get("sshkeys") else {
        return Ok(Vec::new());
    };
    SshKeys::from_percent_encoded(stored)
        .map(|keys| keys.lines().to_vec())
        .ok_or_else(|| Error::option("sshkeys", "stored value is not valid"))
}

fn user_data(vmid: Vmid, config: &VmConfig) -> Result<Value> {
    let hostname = hostname(vmid, config);
    let mut data = json!({
        "hostname": hostname,
        "manage_etc_hosts": true,
        "fqdn": hostname,
        "chpasswd": { "expire": false },
        "users": ["default"],
        "package_upgrade": false,
    });
    if let Some(domain) = config
        .get("searchdomain")
        .and_then(|list| list.split(' ').next())
    {
        data["fqdn"] = format!("{hostname}.{domain}").into();
    }
    if let Some(user) = config.get("ciuser") {
        data["user"] = user.into();
        if user == "root" {
            data["disable_root"] = false.into();
        }
    }
    let keys = ssh_keys(config)?;
    if !keys.is_empty() {
        data["ssh_authorized_keys"] = keys.into();
    }
    Ok(data)
}

/// Network configuration version 2: every card by its MAC address, also those without an `ipconfigN` (unconfigured).
fn network_config(config: &VmConfig) -> Result<Value> {
    let mut ethernets = serde_json::Map::new();
    let list = |key: &str| -> Vec<String> {
        config
            .get(key)
            .map(|text| text.split(' ').map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let (servers, domains) = (list("nameserver"), list("searchdomain"));
    for (index, card) in net::cards(config)? {
        let Some(mac) = card.mac else { continue };
        let Some(ip) = net::addresses(config, index)? else {
            continue;
        };
        let name = format!("eth{index}");
        let mut entry = ethernet(&ip);
        entry["match"] = json!({ "macaddress": mac.to_string().to_ascii_lowercase() });
        entry["set-name"] = name.clone().into();
        if index == 0 && !(servers.is_empty() && domains.is_empty()) {
            entry["nameservers"] = json!({ "addresses": servers, "search": domains });
        }
        ethernets.insert(name, entry);
    }
    Ok(json!({ "version": 2, "ethernets": ethernets }))
}

fn ethernet(ip: &IpConfig) -> Value {
    let (mut addresses, mut routes) = (Vec::new(), Vec::new());
    let mut entry = json!({});
    match ip.ip4 {
        Some(Ip4Config::Dhcp) => entry["dhcp4"] = true.into(),
        Some(Ip4Config::Static {
            address,
            prefix,
            gateway,
        }) => {
            addresses.push(format!("{address}/{prefix}"));
            if let Some(gateway) = gateway {
                // cloud-init 22.4 drops `on-link` for systemd-networkd, so a gateway outside the prefix gets a route
                // of its own without a next hop, which says the same.
                if !covers4(address.into(), prefix, gateway.into()) {
                    routes.push(json!({ "to": format!("{gateway}/32") }));
                }
                entry["gateway4"] = gateway.to_string().into();
            }
        }
        None => {}
    }
    match ip.ip6 {
        Some(Ip6Config::Dhcp) => entry["dhcp6"] = true.into(),
        Some(Ip6Config::Auto) => entry["accept-ra"] = true.into(),
        Some(Ip6Config::Static {
            address,
            prefix,
            gateway,
        }) => {
            addresses.push(format!("{address}/{prefix}"));
            if let Some(gateway) = gateway {
                if !covers6(address.into(), prefix, gateway.into())
                    && !gateway.is_unicast_link_local()
                {
                    routes.push(json!({ "to": format!("{gateway}/128") }));
                }
                // Not a route to `::/0`: cloud-init 22.4 makes `::/64` of that for systemd-networkd.
                entry["gateway6"] = gateway.to_string().into();
            }
        }
        None => {}
    }
    if !addresses.is_empty() {
        entry["addresses"] = addresses.into();
    }
    if !routes.is_empty() {
        entry["routes"] = routes.into();
    }
    entry
}

fn covers4(address: u32, prefix: u8, other: u32) -> bool {
    prefix == 0 || (address ^ other).checked_shr(32 - u32::from(prefix)) == Some(0)
}

fn covers6(address: u128, prefix: u8, other: u128) -> bool {
    prefix == 0 || (address ^ other).checked_shr(128 - u32::from(prefix)) == Some(0)
}

/// Writes the documents and the ISO into the machine's run directory; the ISO, open for reading.
///
/// # Errors
/// When a file cannot be written or no ISO tool is installed.
pub fn write_iso(host: &Host, vmid: Vmid, seed: &Seed) -> Result<OwnedFd> {
    let path = host.machine_run_dir(vmid);
    let sources = path.join("seed");
    std::fs::create_dir_all(&sources).at("cannot create", &sources)?;
    let dir = sys::open_dir(&sources).at("cannot open", &sources)?;
    let mut names = vec!["user-data", "meta-data", "network-config"];
    let mut documents = vec![&seed.user, &seed.meta, &seed.network];
    if let Some(vendor) = &seed.vendor {
        names.push("vendor-data");
        documents.push(vendor);
    }
    for (name, text) in names.iter().zip(documents) {
        let path = sources.join(name);
        std::fs::write(&path, text).at("cannot write", &path)?;
        // Readable for the ISO tool, which runs as the machine user; the directory above is root's alone.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
            .at("cannot open up", &path)?;
    }
    let run = sys::open_dir(&path).at("cannot open", &path)?;
    let create = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
    let iso = sys::open_beneath(&run, Path::new(SEED), create, Mode::from_raw_mode(0o600))
        .at("cannot create", path.join(SEED))?;
    let options = ["-quiet", "-volid", "cidata", "-joliet", "-rock"];
    let (program, first) = match exec::find("genisoimage", "genisoimage") {
        Ok(program) => (program, &[][..]),
        Err(missing) => (
            exec::find("xorriso", "xorriso").map_err(|_| missing)?,
            &["-as", "mkisofs"][..],
        ),
    };
    let args = first.iter().chain(&options).chain(&names).copied();
    let out = File::from(iso.try_clone().at("cannot use", path.join(SEED))?);
    Run::new(program, args)
        .user(host.machine_user()?)
        .directory(dir.as_fd())
        .stdout(out)
        .output()?;
    sys::open_beneath(&run, Path::new(SEED), OFlags::RDONLY, Mode::empty())
        .at("cannot open", path.join(SEED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockhost_proto::layout::Layout;

    fn world() -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        let host = Host {
            family: crate::host::Family::Machines,
            layout: Layout::new(dir.path()),
            node: "n".to_owned(),
            pins: None,
        };
        std::fs::create_dir_all(host.layout.snippets()).unwrap();
        (dir, host)
    }

    fn config(text: &str) -> VmConfig {
        VmConfig::parse(text, Path::new("x")).unwrap()
    }

    fn vmid() -> Vmid {
        "100".parse().unwrap()
    }

    #[test]
    fn a_snippet_that_is_a_link_or_a_fifo_is_refused() {
        let (_dir, host) = world();
        let with = config("cicustom: user=local:snippets/x.yaml\n");
        assert!(build(&host, vmid(), &with).is_err(), "missing");
        let at = host.layout.snippets().join("x.yaml");
        std::os::unix::fs::symlink("/etc/shadow", &at).unwrap();
        assert!(build(&host, vmid(), &with).is_err(), "link");
        std::fs::remove_file(&at).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &at,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        assert!(build(&host, vmid(), &with).is_err(), "fifo");
    }

    #[test]
    fn a_snippets_directory_that_became_a_link_is_refused() {
        let (dir, host) = world();
        let elsewhere = dir.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("shadow"), "root's").unwrap();
        let with = config("cicustom: user=local:snippets/shadow\n");
        std::fs::remove_dir(host.layout.snippets()).unwrap();
        std::os::unix::fs::symlink(&elsewhere, host.layout.snippets()).unwrap();
        assert!(build(&host, vmid(), &with).is_err());
    }

    #[test]
    fn the_instance_id_changes_exactly_with_the_content() {
        let (_dir, host) = world();
        let one = config("name: a\nciuser: u\n");
        let first = build(&host, vmid(), &one).unwrap();
        assert_eq!(first, build(&host, vmid(), &one).unwrap());
        let two = build(&host, vmid(), &config("name: a\nciuser: v\n")).unwrap();
        assert_ne!(first.meta, two.meta);
    }

    #[test]
    fn a_host_route_gets_a_way_to_its_gateway() {
        let (_dir, host) = world();
        let text = "net0: virtio=BC:24:11:00:00:01,bridge=vmbr0\nipconfig0: ip=10.0.0.5/24,gw=10.0.0.1,ip6=fd00::5/128,gw6=fd00::1\n";
        let seed = build(&host, vmid(), &config(text)).unwrap();
        let network: Value = serde_json::from_str(&seed.network).unwrap();
        let eth0 = &network["ethernets"]["eth0"];
        assert_eq!(eth0["match"]["macaddress"], "bc:24:11:00:00:01");
        assert_eq!(eth0["addresses"], json!(["10.0.0.5/24", "fd00::5/128"]));
        assert_eq!(
            (&eth0["gateway4"], &eth0["gateway6"]),
            (&json!("10.0.0.1"), &json!("fd00::1"))
        );
        assert_eq!(eth0["routes"], json!([{ "to": "fd00::1/128" }]));
    }

    #[test]
    fn a_users_snippet_takes_the_place_of_user_data_and_the_rest_becomes_vendor_data() {
        let (_dir, host) = world();
        std::fs::write(
            host.layout.snippets().join("x.yaml"),
            "#cloud-config\nruncmd: []\n",
        )
        .unwrap();
        let seed = build(
            &host,
            vmid(),
            &config("ciuser: u\ncicustom: user=local:snippets/x.yaml\n"),
        )
        .unwrap();
        assert_eq!(seed.user, "#cloud-config\nruncmd: []\n");
        assert!(seed.vendor.unwrap().contains("\"user\":\"u\""));
    }
}
