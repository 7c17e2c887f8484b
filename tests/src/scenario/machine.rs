//! What has to be true of the bought machine: in the database, on the chain, inside the guest, in the kernel's routing
//! table, and after the end.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use blockhost_proto::action::{Action, QmConfig, QmList};
use blockhost_proto::client::blocking::Client;
use blockhost_proto::value::Vmid;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Host, MORE_DAYS, ScenarioError, ensure};
use crate::command::{RunError, run, with_args};
use crate::customer::{Access, Purchase, Wallet, poll};
use crate::world::{World, WorldError, at};

/// A machine as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Name, `blockhost-NNN`.
    pub name: String,
    /// Number of the machine.
    pub vmid: u32,
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
    /// `active`, `suspended` or `destroyed`.
    pub status: String,
    /// When the subscription ends.
    pub expires_at: Timestamp,
    /// The buyer, as recorded.
    pub wallet: String,
    /// The credential, once reserved.
    pub nft_token_id: Option<u64>,
}

/// What a guest says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFacts {
    /// `hostname`.
    pub hostname: String,
    /// Fifth field of the user's passwd entry.
    pub gecos: String,
    /// All global addresses, without prefix lengths.
    pub addresses: Vec<String>,
}

/// Reads one machine from the database file.
///
/// # Errors
/// [`ScenarioError`] for a file that is missing or has another shape.
pub fn record(world: &World, name: &str) -> Result<Option<Record>, ScenarioError> {
    let path = world.layout.state().join("vms.json");
    let text = at("reading", &path, std::fs::read_to_string(&path))?;
    let wrong = |what: &str| ScenarioError::Wrong(format!("{}: {name}: {what}", path.display()));
    let database: Value = serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
    let value = &database["vms"][name];
    if value.is_null() {
        return Ok(None);
    }
    let text = |key: &str| {
        value[key]
            .as_str()
            .ok_or_else(|| wrong(&format!("no {key}")))
    };
    let number = value["vmid"]
        .as_u64()
        .and_then(|vmid| u32::try_from(vmid).ok());
    Ok(Some(Record {
        name: name.to_owned(),
        vmid: number.ok_or_else(|| wrong("no vmid"))?,
        ip: text("ip_address")?
            .parse()
            .map_err(|_| wrong("ip_address is no address"))?,
        ipv6: text("ipv6_address")?
            .parse()
            .map_err(|_| wrong("ipv6_address is no address"))?,
        status: text("status")?.to_owned(),
        expires_at: text("expires_at")?
            .parse()
            .map_err(|_| wrong("expires_at is no time"))?,
        wallet: text("wallet_address")?.to_owned(),
        nft_token_id: value["nft_token_id"].as_u64(),
    }))
}

fn existing(world: &World, name: &str) -> Result<Record, ScenarioError> {
    record(world, name)?
        .ok_or_else(|| ScenarioError::Wrong(format!("the database does not know {name}")))
}

/// Database, credential and chain tell the same story.
pub(super) fn agreement(
    host: &Host,
    customer: &Wallet,
    purchase: &Purchase,
    name: &str,
    token: u64,
    access: &Access,
) -> Result<Record, ScenarioError> {
    let record = existing(&host.world, name)?;
    ensure(record.status == "active", || {
        format!("{name} is {}, not active", record.status)
    })?;
    ensure(
        record.wallet.eq_ignore_ascii_case(&customer.address_text()),
        || {
            format!(
                "{name} belongs to {}, bought by {}",
                record.wallet,
                customer.address_text()
            )
        },
    )?;
    ensure(
        record.ip.octets()[..3] == [10, 77, 0] && (100..=200).contains(&record.ip.octets()[3]),
        || format!("{} is not from the pool", record.ip),
    )?;
    ensure(
        record.ipv6.segments()[..4] == [0xfd77, 0xb10c, 0, 0],
        || format!("{} is not in the allocated prefix", record.ipv6),
    )?;
    let named = [
        record.ip.to_string(),
        record.ipv6.to_string(),
        record.name.clone(),
    ];
    ensure(named.contains(&access.hostname), || {
        format!(
            "the NFT names {}, the machine has {named:?}",
            access.hostname
        )
    })?;
    let end = i64::try_from(purchase.expires_at).unwrap_or(i64::MAX);
    let apart = (record.expires_at.as_second() - end).abs();
    // The engine turns the end into whole days for the create command and settles the moment afterwards.
    ensure(apart <= 86_400, || {
        format!(
            "{name} ends {} in the database, {end} on the chain",
            record.expires_at
        )
    })?;
    let minted = host.operator.credentials_in_all(host.contracts.nft)?;
    ensure(minted == token + 1, || {
        format!("{minted} credentials exist, expected {}", token + 1)
    })?;
    ensure(route_exists(&record.ipv6)?, || {
        format!("no host route to {}", record.ipv6)
    })?;
    Ok(record)
}

/// Is there a host route to this address?
fn route_exists(address: &Ipv6Addr) -> Result<bool, ScenarioError> {
    let limit = Duration::from_secs(60);
    let output = run(
        with_args("ip", &["-6", "route", "show", "dev", "vmbr0"]),
        limit,
    )?;
    Ok(output
        .stdout
        .lines()
        .any(|line| line.split(' ').next() == Some(&address.to_string())))
}

/// Host name, GECOS of the user, addresses: what both ways into the guest have to answer alike.
fn question(user: &str) -> String {
    format!(
        "hostname; getent passwd {user} | cut -d: -f5; ip -o addr show scope global | awk '{{print $4}}'"
    )
}

/// Reads the answer to `question`.
///
/// # Errors
/// [`ScenarioError::Wrong`] when it is shorter than the question.
pub fn guest_facts(answer: &str) -> Result<GuestFacts, ScenarioError> {
    let mut lines = answer.lines().map(str::trim);
    let (Some(hostname), Some(gecos)) = (lines.next(), lines.next()) else {
        return Err(ScenarioError::Wrong(format!(
            "the guest answered only: {answer:?}"
        )));
    };
    Ok(GuestFacts {
        hostname: hostname.to_owned(),
        // passwd entries end their comment with empty office fields on some systems.
        gecos: gecos.trim_end_matches(",,,").to_owned(),
        addresses: lines
            .filter_map(|line| line.split('/').next())
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

/// Through the guest agent, until the engine has written the token into GECOS.
pub(super) fn ask_agent(
    host: &mut Host,
    customer: &Wallet,
    record: &Record,
    token: u64,
    access: &Access,
) -> Result<GuestFacts, ScenarioError> {
    let expected = format!("wallet={},nft={token}", customer.address_text());
    let mut last = String::from("nothing yet");
    let limit = Duration::from_secs(60);
    let question = question(&access.username);
    let mut said = None;
    poll(
        limit,
        || (),
        || {
            let args = [record.name.as_str(), &question];
            match host
                .world
                .run("blockhost-vm-guest-exec", &args, Duration::from_secs(30))
            {
                Ok(output) => {
                    let facts = guest_facts(&output.stdout).map_err(|_| ())?;
                    last.clone_from(&facts.gecos);
                    let synced = facts.gecos.eq_ignore_ascii_case(&expected);
                    said = Some(facts);
                    Ok(synced.then_some(()))
                }
                Err(error) => {
                    last = error.to_string();
                    Ok(None)
                }
            }
        },
    )
    .map_err(|()| {
        ScenarioError::Wrong(format!("GECOS of the guest is not {expected} but: {last}"))
    })?;
    let facts = said.ok_or_else(|| ScenarioError::Wrong("the guest said nothing".to_owned()))?;
    check_facts(&facts, record)?;
    Ok(facts)
}

fn check_facts(facts: &GuestFacts, record: &Record) -> Result<(), ScenarioError> {
    ensure(facts.hostname == record.name, || {
        format!(
            "the guest calls itself {}, not {}",
            facts.hostname, record.name
        )
    })?;
    for address in [record.ip.to_string(), record.ipv6.to_string()] {
        ensure(facts.addresses.contains(&address), || {
            format!(
                "the guest has {:?}, not the allocated {address}",
                facts.addresses
            )
        })?;
    }
    Ok(())
}

/// Over the network, with the operator's key, to both addresses.
pub(super) fn ask_ssh(
    host: &Host,
    guest: &GuestFacts,
    record: &Record,
    access: &Access,
) -> Result<(), ScenarioError> {
    let key = host
        .world
        .layout
        .etc()
        .join("terraform_ssh_key")
        .display()
        .to_string();
    let port = access.port.to_string();
    for address in [record.ip.to_string(), record.ipv6.to_string()] {
        let target = format!("{}@{address}", access.username);
        let question = question(&access.username);
        let args = [
            "-i",
            &key,
            "-p",
            &port,
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "ConnectTimeout=10",
            &target,
            &question,
        ];
        let late = || ScenarioError::Wrong(format!("nobody answers SSH at {address}"));
        let output = poll(Duration::from_secs(60), late, || {
            match host.world.run("ssh", &args, Duration::from_secs(40)) {
                Ok(output) => Ok(Some(output)),
                // The guest agent answers from early on in a boot; sshd may start a moment after it.
                Err(WorldError::Run(RunError::Failed { stderr, .. }))
                    if stderr.contains("Connection refused") =>
                {
                    Ok(None)
                }
                Err(error) => Err(ScenarioError::from(error)),
            }
        })?;
        let facts = guest_facts(&output.stdout)?;
        ensure(facts == *guest, || {
            format!("over SSH to {address} the guest says {facts:?}, through its agent {guest:?}")
        })?;
    }
    Ok(())
}

/// The customer pays for more days; the database follows.
pub(super) fn extend(
    host: &mut Host,
    customer: &Wallet,
    purchase: &Purchase,
    name: &str,
) -> Result<(), ScenarioError> {
    let before = existing(&host.world, name)?.expires_at;
    let contracts = host.contracts;
    let end = customer.extend(
        contracts.subscriptions,
        contracts.stablecoin,
        host.plan,
        purchase.subscription,
        MORE_DAYS,
    )?;
    ensure(end == purchase.expires_at + MORE_DAYS * 86_400, || {
        format!("the chain says the subscription now ends {end}")
    })?;
    let late = || ScenarioError::Wrong(format!("{name} still ends {before} in the database"));
    poll(Duration::from_secs(60), late, || {
        host.engine.check()?;
        let now = existing(&host.world, name)?.expires_at;
        Ok((u64::try_from(now.as_second()) == Ok(end)).then_some(()))
    })
}

fn collect_garbage(host: &Host, moment: Option<Timestamp>) -> Result<(), ScenarioError> {
    let mut args = vec!["--execute".to_owned()];
    if let Some(moment) = moment {
        args.extend(["--at".to_owned(), moment.to_string()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    host.world
        .run("blockhost-vm-gc", &args, Duration::from_secs(200))?;
    Ok(())
}

fn status(host: &Host, name: &str) -> Result<String, ScenarioError> {
    let output = host
        .world
        .run("blockhost-vm-status", &[name], Duration::from_secs(60))?;
    Ok(output.last_line().to_owned())
}

/// A paid machine survives the collector.
pub(super) fn gc_too_early(host: &Host, name: &str) -> Result<(), ScenarioError> {
    collect_garbage(host, None)?;
    let now = status(host, name)?;
    ensure(now == "active", || {
        format!("{name} is {now} although it is paid for")
    })
}

/// A moment after the end, the machine is stopped and kept.
pub(super) fn gc_suspends(host: &Host, name: &str, record: &Record) -> Result<(), ScenarioError> {
    collect_garbage(host, Some(end(host, name)? + SignedDuration::from_mins(1)))?;
    let now = status(host, name)?;
    ensure(now == "suspended", || {
        format!("{name} is {now}, not suspended")
    })?;
    let state = backend_state(&host.world, record.vmid)?;
    ensure(state.as_deref() == Some("stopped"), || {
        format!("{name} is suspended but its machine is {state:?}")
    })
}

/// After the grace period everything is gone and free again.
pub(super) fn gc_destroys(host: &Host, name: &str, record: &Record) -> Result<(), ScenarioError> {
    collect_garbage(
        host,
        Some(end(host, name)? + SignedDuration::from_hours(8 * 24)),
    )?;
    let now = status(host, name)?;
    ensure(now == "destroyed", || {
        format!("{name} is {now}, not destroyed")
    })?;
    let state = backend_state(&host.world, record.vmid)?;
    ensure(state.is_none(), || {
        format!("{name} is destroyed but its machine is {state:?}")
    })?;
    ensure(!route_exists(&record.ipv6)?, || {
        format!("the host route to {} is still there", record.ipv6)
    })?;
    let path = host.world.layout.state().join("vms.json");
    let text = at("reading", &path, std::fs::read_to_string(&path))?;
    let database: Value = serde_json::from_str(&text).unwrap_or_default();
    for key in ["allocated_ips", "allocated_ipv6"] {
        let left = database[key].to_string();
        ensure(left == "[]", || format!("{key} still holds {left}"))?;
    }
    Ok(())
}

fn end(host: &Host, name: &str) -> Result<Timestamp, ScenarioError> {
    Ok(existing(&host.world, name)?.expires_at)
}

/// What the backend says about a machine; `None` when it does not know it.
///
/// # Errors
/// [`ScenarioError`] when the agent does not answer.
pub fn backend_state(world: &World, vmid: u32) -> Result<Option<String>, ScenarioError> {
    let list = listed(world)?;
    let found = list
        .iter()
        .find(|machine| machine["vmid"].as_u64() == Some(vmid.into()));
    Ok(found
        .and_then(|machine| machine["status"].as_str())
        .map(str::to_owned))
}

/// What the backend has a machine configured with, such as `memory`.
///
/// # Errors
/// [`ScenarioError`] when the agent does not answer.
pub fn backend_config(world: &World, vmid: u32, key: &str) -> Result<String, ScenarioError> {
    let wrong = |error: &dyn std::fmt::Display| ScenarioError::Wrong(format!("qm-config: {error}"));
    let mut client = Client::connect_layout(&world.layout).map_err(|error| wrong(&error))?;
    let vmid = Vmid::try_from(vmid).map_err(|error| wrong(&error))?;
    let reply = client
        .call(&Action::QmConfig(QmConfig { vmid }))
        .map_err(|error| wrong(&error))?;
    let config: Value = serde_json::from_str(&reply.output).map_err(|error| wrong(&error))?;
    let value = &config[key];
    Ok(value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned))
}

/// Whether the backend runs any machine.
///
/// # Errors
/// [`ScenarioError`] when the agent does not answer.
pub fn any_machine_runs(world: &World) -> Result<bool, ScenarioError> {
    let list = listed(world)?;
    Ok(list.iter().any(|machine| machine["status"] == "running"))
}

fn listed(world: &World) -> Result<Vec<Value>, ScenarioError> {
    let wrong = |error: &dyn std::fmt::Display| ScenarioError::Wrong(format!("qm-list: {error}"));
    let mut client = Client::connect_layout(&world.layout).map_err(|error| wrong(&error))?;
    let reply = client
        .call(&Action::QmList(QmList {}))
        .map_err(|error| wrong(&error))?;
    serde_json::from_str(&reply.output).map_err(|error| wrong(&error))
}

/// No machine and no program of ours may be left inside the namespace.
pub(super) fn nothing_runs() -> Result<(), ScenarioError> {
    let mut left = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let comm = comm.trim();
        // Linux cuts names to 15 bytes: blockhost-root-agent is blockhost-root-.
        if comm.starts_with("qemu")
            || ["blockhost-root-", "blockhost-engin", "blockhost-qm"].contains(&comm)
        {
            left.push(format!("{comm} ({})", entry.file_name().display()));
        }
    }
    ensure(left.is_empty(), || {
        format!("still running: {}", left.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_guest_is_read_line_by_line() {
        let facts =
            guest_facts("blockhost-001\nwallet=0xAb,nft=0,,,\n10.77.0.100/24\nfd77:b10c::2/128\n")
                .expect("complete");
        assert_eq!(facts.hostname, "blockhost-001");
        assert_eq!(facts.gecos, "wallet=0xAb,nft=0");
        assert_eq!(facts.addresses, ["10.77.0.100", "fd77:b10c::2"]);
        assert!(guest_facts("only-a-name\n").is_err());
    }
}
