//! The part of `blockhost-vm-db` that is about the hosts which share a server: lists them, gives one up, lets one return.

use blockhost_proto::Layout;
use blockhost_proto::escape::shown;
use serde_json::json;

use super::{Failure, print, say};
use crate::agent::SocketAgent;
use crate::backend::{ActionsBackend, Backend as _, Machine};
use crate::config::Config;
use crate::record::Status;
use crate::store::postgres::Host;
use crate::store::{Identity, PostgresStore, Store as _, StoreError};

pub(super) fn list(config: &Config, server: &PostgresStore, json: bool) -> Result<(), Failure> {
    let hosts = server.hosts()?;
    if json {
        let rows: Vec<_> = hosts
            .iter()
            .map(|host| {
                json!({"node": host.node, "this_host": host.node == config.node(), "seen": host.seen, "connected": host.connected,
                    "given_up": host.given_up, "machines": host.machines, "reservations": host.reservations})
            })
            .collect();
        return print(&json!(rows).to_string());
    }
    print("NODE\tSTATE\tSEEN\tMACHINES\tRESERVATIONS")?;
    for host in hosts {
        let state = state(&host, &config.node());
        let seen = host
            .seen
            .map_or_else(|| "-".to_owned(), |at| at.to_string());
        let (machines, reservations) = (host.machines, host.reservations);
        print(&format!(
            "{}\t{state}\t{seen}\t{machines}\t{reservations}",
            shown(&host.node)
        ))?;
    }
    Ok(())
}

fn state(host: &Host, own: &str) -> String {
    match host.given_up {
        Some(at) => format!("given up {at}"),
        None if host.node == own => "this host".to_owned(),
        None if host.connected => "connected".to_owned(),
        None => "silent".to_owned(),
    }
}

pub(super) fn give_up(
    config: &Config,
    server: &PostgresStore,
    node: &str,
    machines: bool,
    yes: bool,
    json: bool,
) -> Result<(), Failure> {
    let own = Identity::of(config)?;
    let given_up = server.give_up(&own, node, machines, yes)?;
    let (made, there) = (&given_up.reservations, &given_up.machines);
    if json {
        let value = json!({
            "node": node, "done": yes,
            "freed": made.iter().map(|r| json!({"name": r.name, "vmid": r.vmid, "ip": r.ip, "ipv6": r.ipv6})).collect::<Vec<_>>(),
            "machines": there.iter().map(|vm| json!({"name": vm.vm_name, "vmid": vm.vmid, "ip": vm.ip_address,
                "ipv6": vm.ipv6_address, "destroyed": machines})).collect::<Vec<_>>(),
        });
        print(&value.to_string())?;
    } else {
        for left in made {
            let ipv6 = left
                .ipv6
                .map_or_else(String::new, |ip| format!(" and {ip}"));
            print(&format!(
                "{}: in the making, frees VM number {}, {}{ipv6}",
                left.name, left.vmid, left.ip
            ))?;
        }
        for vm in there {
            let fate = if machines {
                "counts as destroyed, its addresses are free"
            } else {
                "stays as it is; --with-machines if it is lost"
            };
            print(&format!(
                "{}: VM {}, {}, {fate}",
                vm.vm_name, vm.vmid, vm.status
            ))?;
        }
    }
    let node = shown(node);
    if yes {
        say(&format!(
            "the host {node} is given up: the server does not serve it any more"
        ));
    } else {
        say(&format!(
            "nothing was changed; if the host {node} is off and stays off, the same with --yes does it"
        ));
    }
    Ok(())
}

/// This host is let in again when nothing is on it that others may have the numbers of.
pub(super) fn come_back(config: &Config, server: &PostgresStore) -> Result<(), Failure> {
    let own = Identity::of(config)?;
    let given_up = server
        .hosts()?
        .into_iter()
        .any(|host| host.node == own.node && host.given_up.is_some());
    if !given_up {
        say("this host was not given up; nothing was done");
        return Ok(());
    }
    let (records, _) = server.everything()?;
    let ours = |machine: &Machine| {
        records.iter().any(|r| {
            (r.vmid, r.vm_name.as_str()) == (machine.vmid, machine.name.as_str())
                && r.status != Status::Destroyed
                && r.node.as_deref() == Some(own.node.as_str())
        })
    };
    let backend = ActionsBackend::new(SocketAgent::new(&Layout::from_env()));
    let strange: Vec<String> = backend
        .machines()?
        .into_iter()
        .filter(|machine| {
            config.db.vmids.contains(&machine.vmid.get())
                && machine.vmid != config.host.template_vmid
                && !ours(machine)
        })
        .map(|machine| machine.vmid.to_string())
        .collect();
    if !strange.is_empty() {
        return Err(Failure::new(format!(
            "there are machines here that are not this host's any more: VM {}; destroy them first",
            strange.join(", ")
        )));
    }
    if !server.let_return(&own)? {
        return Err(StoreError::Stranger {
            problem: format!("gave up another machine that was called {}", own.node),
        }
        .into());
    }
    say(&format!("the host {} is let in again", own.node));
    Ok(())
}
