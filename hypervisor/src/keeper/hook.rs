//! What LXC runs when a container is set up and its first process waits: the service hands the container's network name
//! space out, the interfaces are plugged in, and this gives them their addresses. The container starts when it succeeds.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Error, IoContext, Result};
use crate::exec::{self, Run};
use crate::host::Ids;
use crate::keeper::lxc::{SOCKET_VARIABLE, START_VARIABLE};
use crate::keeper::wire::{Address, Answer, Ask, Interface, Line};

/// Hidden command under which the program runs as the hook.
pub const COMMAND: &str = "hook";

/// Runs as the hook of a container.
pub fn run() -> ExitCode {
    match hook() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).map_err(|e| Error::Environment(format!("{name}: {e}")))
}

fn hook() -> Result<()> {
    let pid: u32 = variable("LXC_PID")?
        .parse()
        .map_err(|_| Error::Environment("LXC_PID is no number".to_owned()))?;
    let (socket, start) = (variable(SOCKET_VARIABLE)?, variable(START_VARIABLE)?);
    let open = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        File::open(&path).at("cannot open", path)
    };
    let (user, net) = (open("user")?, open("net")?);
    let line = Line::connect(Path::new(&socket)).at("cannot reach", &socket)?;
    line.send(&Ask::Hook { start }, &[net.as_fd()])
        .at("cannot reach", &socket)?;
    let (answer, _) = line.receive::<Answer>().at("no answer from", &socket)?;
    let Answer::Interfaces { interfaces } = answer else {
        return Err(Error::Failed(
            "the service answers something else".to_owned(),
        ));
    };
    set_up(&interfaces, &user, &net).inspect_err(|e| {
        // LXC says of a hook no more than that it failed.
        let message = e.to_string();
        let _ = line.send(&Ask::HookFailed { message }, &[]);
    })
}

fn set_up(interfaces: &[Interface], user: &File, net: &File) -> Result<()> {
    let ip = exec::find("ip", "iproute2")?;
    for (space, kind) in [
        (user, LinkNameSpaceType::User),
        (net, LinkNameSpaceType::Network),
    ] {
        move_into_link_name_space(space.as_fd(), Some(kind))
            .at("cannot enter", "its name space")?;
    }
    for words in interfaces.iter().flat_map(commands) {
        Run::new(&ip, words).user(Ids { uid: 0, gid: 0 }).output()?;
    }
    Ok(())
}

/// What `ip` is run with for one interface.
fn commands(interface: &Interface) -> Vec<Vec<String>> {
    let name = interface.name.as_str();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut list: Vec<Vec<String>> = vec![words(&["link", "set", "dev", name, "up"])];
    for Address { address, gateway } in &interface.addresses {
        let mut add: Vec<String> = words(&["address", "add", address, "dev", name]);
        if address.contains(':') {
            // Nobody else has it: the host gave it out. Waiting for that would be a second without the address.
            add.push("nodad".to_owned());
        }
        list.push(add);
        if let Some(gateway) = gateway {
            let family = if gateway.contains(':') { "-6" } else { "-4" };
            // The gateway may be outside of the container's own network, as where each has one address.
            list.push(words(&[
                family, "route", "add", "default", "via", gateway, "dev", name, "onlink",
            ]));
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_up_before_it_gets_addresses_and_has_them_before_the_way_out() {
        let interface = Interface {
            name: "eth0".to_owned(),
            addresses: vec![
                Address {
                    address: "10.0.0.2/24".to_owned(),
                    gateway: Some("10.0.0.1".to_owned()),
                },
                Address {
                    address: "fd00::2/128".to_owned(),
                    gateway: Some("fe80::1".to_owned()),
                },
            ],
        };
        let lines: Vec<String> = commands(&interface)
            .into_iter()
            .map(|words| words.join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "link set dev eth0 up",
                "address add 10.0.0.2/24 dev eth0",
                "-4 route add default via 10.0.0.1 dev eth0 onlink",
                "address add fd00::2/128 dev eth0 nodad",
                "-6 route add default via fe80::1 dev eth0 onlink",
            ]
        );
    }
}
