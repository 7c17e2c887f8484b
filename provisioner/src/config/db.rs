//! `db.yaml`: where the machines' database lies and which numbers and addresses it may give out.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use blockhost_proto::Layout;
use blockhost_proto::value::Vmid;

use super::{ConfigError, Ipv4Net, Ipv6Net, Section, Warning};
use crate::store::postgres::{Address, Unusable};

/// The IPv4 addresses that machines get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip4Pool {
    /// The network of the bridge.
    pub network: Ipv4Net,
    /// First address given out.
    pub start: Ipv4Addr,
    /// Last address given out.
    pub end: Ipv4Addr,
    /// The guests' gateway.
    pub gateway: Ipv4Addr,
}

/// The IPv6 addresses that machines get, as offsets into the broker's prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip6Pool {
    /// First offset.
    pub start: u64,
    /// Last offset.
    pub end: u64,
    file: PathBuf,
    line: u64,
}

impl Ip6Pool {
    /// Checks that the pool lies in `prefix`, which comes from another file.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when it does not.
    pub fn check(&self, prefix: &Ipv6Net) -> Result<(), ConfigError> {
        if prefix.at(self.end).is_some() {
            return Ok(());
        }
        Err(ConfigError::Value {
            file: self.file.clone(),
            line: self.line,
            key: "ipv6_pool.end".into(),
            problem: format!(
                "offset {} lies outside the broker's prefix {prefix}",
                self.end
            ),
        })
    }
}

/// The whole file.
#[derive(Clone, PartialEq)]
pub struct DbConfig {
    /// The database file, under the world's root.
    pub db_file: PathBuf,
    /// A database server shared by several hosts, instead of the file: `db_url` and `db_ca_file`.
    pub server: Option<Address>,
    /// Where Terraform files are kept, where they are wanted.
    pub terraform_dir: Option<PathBuf>,
    /// Numbers of machines.
    pub vmids: RangeInclusive<u32>,
    /// IPv4 addresses of machines.
    pub ip_pool: Ip4Pool,
    /// IPv6 addresses of machines.
    pub ipv6_pool: Option<Ip6Pool>,
    /// Days between suspension and destruction.
    pub gc_grace_days: u32,
    /// A run of the garbage collector that would suspend or destroy more than this part of all machines stops.
    pub gc_max_destroy_fraction: f64,
    /// Days until a machine expires when nobody says otherwise.
    pub default_expiry_days: u32,
}

/// Without the password that an address may hold.
impl std::fmt::Debug for DbConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl DbConfig {
    /// Where it is in a world.
    #[must_use]
    pub fn path(layout: &Layout) -> PathBuf {
        layout.etc().join("db.yaml")
    }

    /// What is effective, key by key, without secrets.
    #[must_use]
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        let Ip4Pool {
            network,
            start,
            end,
            gateway,
        } = self.ip_pool;
        let mut shown = Vec::new();
        match &self.server {
            Some(address) => shown.push(("db_url", address.shown().to_owned())),
            None => shown.push(("db_file", self.db_file.display().to_string())),
        }
        if let Some(directory) = &self.terraform_dir {
            shown.push(("terraform_dir", directory.display().to_string()));
        }
        shown.extend([
            (
                "vmid_range",
                format!("{} to {}", self.vmids.start(), self.vmids.end()),
            ),
            (
                "ip_pool",
                format!("{start} to {end} of {network}, gateway {gateway}"),
            ),
        ]);
        if let Some(pool) = &self.ipv6_pool {
            shown.push((
                "ipv6_pool",
                format!("offsets {} to {}", pool.start, pool.end),
            ));
        }
        shown.extend([
            ("gc_grace_days", self.gc_grace_days.to_string()),
            (
                "gc_max_destroy_fraction",
                self.gc_max_destroy_fraction.to_string(),
            ),
            ("default_expiry_days", self.default_expiry_days.to_string()),
        ]);
        shown
    }

    /// Reads `/etc/blockhost/db.yaml` of this world.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and key.
    pub fn load(layout: &Layout, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let file = Self::path(layout);
        Self::read(layout, &file, Section::load(&file)?, warnings)
    }

    /// Reads the parsed file.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and key.
    pub fn read(
        layout: &Layout,
        file: &Path,
        mut top: Section,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let db_file = top.text("db_file")?.map_or_else(
            || "/var/lib/blockhost/vms.json".to_owned(),
            |(path, _)| path,
        );
        let server = server(layout, &mut top)?;
        let terraform_dir = top
            .text("terraform_dir")?
            .map(|(path, _)| layout.join(path));
        let vmids = vmids(&mut top, warnings)?;
        let mut section = top
            .section("ip_pool")?
            .ok_or_else(|| top.missing("ip_pool"))?;
        let ip_pool = ip4_pool(&mut section)?;
        section.finish(warnings);
        let ipv6_pool = match top.section("ipv6_pool")? {
            None => None,
            Some(mut section) => {
                let pool = ip6_pool(file, &mut section)?;
                section.finish(warnings);
                Some(pool)
            }
        };
        let gc_grace_days = top.u32_or("gc_grace_days", 0..=3650, 7)?;
        let gc_max_destroy_fraction = top.fraction_or("gc_max_destroy_fraction", 0.25)?;
        let default_expiry_days = top.u32_or("default_expiry_days", 1..=36500, 30)?;
        top.finish(warnings);
        Ok(Self {
            db_file: layout.join(db_file),
            server,
            terraform_dir,
            vmids,
            ip_pool,
            ipv6_pool,
            gc_grace_days,
            gc_max_destroy_fraction,
            default_expiry_days,
        })
    }
}

/// `db_url` and `db_ca_file`.
fn server(layout: &Layout, top: &mut Section) -> Result<Option<Address>, ConfigError> {
    let (url, authority) = (top.text("db_url")?, top.text("db_ca_file")?);
    let Some((url, line)) = url else {
        return match authority {
            None => Ok(None),
            Some((_, line)) => {
                let problem = "it is for the server that db_url names, and there is no db_url";
                Err(top.invalid("db_ca_file", line, problem.to_owned()))
            }
        };
    };
    let file = authority.as_ref().map(|(path, _)| layout.join(path));
    let address = Address::read(&url, file).map_err(|unusable| match unusable {
        Unusable::Url(problem) => top.invalid("db_url", line, problem),
        Unusable::Authority(problem) => {
            let line = authority.map_or(line, |(_, line)| line);
            top.invalid("db_ca_file", line, problem)
        }
    })?;
    Ok(Some(address))
}

/// `vmid_range` or, in older files, `vmid_pool`.
fn vmids(
    top: &mut Section,
    warnings: &mut Vec<Warning>,
) -> Result<RangeInclusive<u32>, ConfigError> {
    let key = if top.has("vmid_pool") && !top.has("vmid_range") {
        "vmid_pool"
    } else {
        "vmid_range"
    };
    let Some(mut section) = top.section(key)? else {
        return Ok(100..=999);
    };
    let number = |section: &mut Section, key: &str| {
        let (number, line) = section
            .integer(key, 100..=999_999)?
            .ok_or_else(|| section.missing(key))?;
        let vmid = Vmid::try_from(number).map_err(|e| section.invalid(key, line, e.to_string()))?;
        Ok::<_, ConfigError>((vmid.get(), line))
    };
    let (start, _) = number(&mut section, "start")?;
    let (end, line) = number(&mut section, "end")?;
    if end < start {
        return Err(section.invalid("end", line, format!("{end} is before the start {start}")));
    }
    section.finish(warnings);
    Ok(start..=end)
}

fn ip4_pool(section: &mut Section) -> Result<Ip4Pool, ConfigError> {
    let (network, _) = section
        .parsed::<Ipv4Net>("network")?
        .ok_or_else(|| section.missing("network"))?;
    let address = |section: &mut Section, key: &str| {
        let (text, line) = section
            .text_or_number(key)?
            .ok_or_else(|| section.missing(key))?;
        let address = match text.parse::<u8>() {
            Ok(last) => {
                let [a, b, c, _] = network.address().octets();
                Ipv4Addr::new(a, b, c, last)
            }
            Err(_) => text.parse().map_err(|_| {
                section.invalid(
                    key,
                    line,
                    format!("\"{text}\" is neither a last octet nor an address"),
                )
            })?,
        };
        if !network.is_host(address) {
            return Err(section.invalid(
                key,
                line,
                format!("{address} is not a machine's address in {network}"),
            ));
        }
        Ok((address, line))
    };
    let (start, _) = address(section, "start")?;
    let (end, line) = address(section, "end")?;
    if end < start {
        return Err(section.invalid("end", line, format!("{end} is before the start {start}")));
    }
    let (gateway, line) = address(section, "gateway")?;
    if (start..=end).contains(&gateway) {
        return Err(section.invalid(
            "gateway",
            line,
            format!("{gateway} lies inside the pool {start} to {end}"),
        ));
    }
    Ok(Ip4Pool {
        network,
        start,
        end,
        gateway,
    })
}

fn ip6_pool(file: &Path, section: &mut Section) -> Result<Ip6Pool, ConfigError> {
    let number = |section: &mut Section, key: &str| {
        section
            .integer(key, 1..=u64::from(u32::MAX))?
            .ok_or_else(|| section.missing(key))
    };
    let (start, _) = number(section, "start")?;
    let (end, line) = number(section, "end")?;
    if end < start {
        return Err(section.invalid("end", line, format!("{end} is before the start {start}")));
    }
    Ok(Ip6Pool {
        start,
        end,
        file: file.to_owned(),
        line,
    })
}
