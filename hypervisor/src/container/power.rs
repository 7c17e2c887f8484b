//! start, stop, shutdown, status, list, autostart. What a container does is asked of the thing itself, by the service.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::config::{VmConfig, VmLock};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::keeper::wire::{Answer, Ask, State};
use crate::machine::Vmid;

use super::client::{self, Request};
use super::{options, veth};

/// Starts a container; what is to be said about it. One that runs already is left alone, with a note.
///
/// # Errors
/// When it is a template or cannot be started; nothing of it runs then.
pub fn start(host: &Host, vmid: Vmid) -> Result<Vec<String>> {
    let _lock = VmLock::take(host, vmid)?;
    let config = VmConfig::load(host, vmid)?;
    if config.is_template() {
        return Err(Error::Conflict(
            "you can't start a CT if it's a template".to_owned(),
        ));
    }
    let state = client::state(host, vmid)?;
    if state.left_over {
        return Err(Error::Conflict(format!(
            "CT {vmid} is left over: it runs without LXC's monitor; stop it before it is started"
        )));
    }
    if state.pid.is_some() {
        eprintln!("CT {vmid} already running");
        return Ok(Vec::new());
    }
    let nets = options::nets(&config)?;
    veth::check(&nets)?;
    let ask = Ask::Start {
        vmid: vmid.get(),
        spec: Box::new(options::start_spec(&config)?),
    };
    let request = Request::send(host, &ask, &[])?;
    let mut notes = Vec::new();
    loop {
        match request.answer()? {
            (Answer::Done { notes: more }, _) => {
                notes.extend(more);
                return Ok(notes);
            }
            (Answer::Network, mut descriptors) => {
                let space = descriptors.pop().ok_or_else(client::unexpected)?;
                let plugged = veth::plug(vmid, &nets, &space);
                request.tell(&Ask::Plugged {
                    done: plugged.is_ok(),
                })?;
                match plugged {
                    Ok(more) => notes.extend(more),
                    Err(e) => {
                        // Waits until nothing of it runs any more.
                        let _ = request.answer();
                        return Err(e);
                    }
                }
            }
            _ => return Err(client::unexpected()),
        }
    }
}

/// Ends a container at once.
///
/// # Errors
/// When it survives that.
pub fn stop(host: &Host, vmid: Vmid) -> Result<()> {
    let _lock = VmLock::take(host, vmid)?;
    VmConfig::load(host, vmid)?;
    client::ask(host, &Ask::Kill { vmid: vmid.get() }, &[]).map(drop)
}

/// Asks a container to shut down, and waits. `force` stops it after that.
///
/// # Errors
/// [`Error::Timeout`] when it does not comply.
pub fn shutdown(host: &Host, vmid: Vmid, limit: Duration, force: bool) -> Result<()> {
    let lock = VmLock::take(host, vmid)?;
    VmConfig::load(host, vmid)?;
    let ask = Ask::Shutdown {
        vmid: vmid.get(),
        timeout_s: limit.as_secs().max(1),
    };
    match client::ask(host, &ask, &[]) {
        Err(Error::Timeout(_)) if force => {
            drop(lock);
            stop(host, vmid)
        }
        other => other.map(drop),
    }
}

/// What `pct status` prints.
///
/// # Errors
/// [`Error::NotFound`], or when the service cannot be asked.
pub fn status(host: &Host, vmid: Vmid, verbose: bool) -> Result<String> {
    let config = VmConfig::load(host, vmid)?;
    let state = client::state(host, vmid)?;
    let word = word(&state);
    if !verbose {
        return Ok(format!("status: {word}\n"));
    }
    let limits = options::limits(&config)?;
    let mut lines = vec![
        format!("cgroup: {}", state.cgroup),
        format!("maxmem: {}", limits.memory_mib << 20),
        format!("maxswap: {}", limits.swap_mib << 20),
        format!("status: {word}"),
        "type: lxc".to_owned(),
        format!("vmid: {vmid}"),
    ];
    lines.extend(config.get("hostname").map(|name| format!("name: {name}")));
    lines.extend(state.pid.map(|pid| format!("pid: {pid}")));
    if state.left_over {
        lines.push("left over: it runs without LXC's monitor; stop it".to_owned());
    }
    lines.sort_unstable();
    Ok(lines.join("\n") + "\n")
}

fn word(state: &State) -> &'static str {
    match state {
        State {
            problem: Some(_), ..
        } => "unknown",
        State { pid: Some(_), .. } => "running",
        State { pid: None, .. } => "stopped",
    }
}

/// What `pct list` prints; nothing without containers, as in Proxmox.
///
/// # Errors
/// When the configurations cannot be listed or the service cannot be asked.
pub fn list(host: &Host) -> Result<String> {
    let vmids = VmConfig::all(host)?;
    let states = client::states(host, &vmids)?;
    let mut text = String::new();
    for (vmid, state) in vmids.into_iter().zip(states) {
        if text.is_empty() {
            text = row("VMID", "Status", "Lock", "Name");
        }
        let name = match VmConfig::load(host, vmid) {
            Ok(config) => config.get("hostname").unwrap_or_default().to_owned(),
            Err(e) => {
                eprintln!("{}", host.shown(&e.to_string()));
                String::new()
            }
        };
        if let Some(problem) = &state.problem {
            eprintln!("{}", host.shown(&format!("CT {vmid}: {problem}")));
        }
        text.push_str(&row(&vmid.to_string(), word(&state), "", &name));
    }
    Ok(text)
}

fn row(vmid: &str, status: &str, lock: &str, name: &str) -> String {
    format!("{vmid:<10} {status:<10} {lock:<12} {name:<20}\n")
}

/// Starts every container with `onboot: 1`; one that fails does not stop the others.
///
/// # Errors
/// When at least one could not be started.
pub fn autostart(host: &Host) -> Result<()> {
    let mut failed = Vec::new();
    for vmid in VmConfig::all(host)? {
        let started = match VmConfig::load(host, vmid) {
            Ok(config) if config.flag("onboot") && !config.is_template() => {
                println!("Starting CT {vmid}");
                start(host, vmid).map(|notes| notes.iter().for_each(|note| println!("{note}")))
            }
            Ok(_) => Ok(()),
            Err(e) => Err(e),
        };
        if let Err(e) = started {
            eprintln!("CT {vmid}: {}", host.shown(&e.to_string()));
            failed.push(vmid.to_string());
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Error::Failed(format!("not started: {}", failed.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn the_name_stands_where_readers_of_the_table_look_for_it() {
        let line = row("100", "running", "", "web-1");
        assert_eq!(line.find("web-1"), Some(35));
    }
}
