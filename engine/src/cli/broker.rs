//! `blockhost broker`: the IPv6 network that this host has of a broker. What it means for the host is decided in
//! [`crate::broker`].

use super::{fail, runtime};
use crate::broker::TUNNEL;
use crate::broker::answer::Accept;
use crate::broker::down::{self, Gone};
use crate::broker::kept::Kept;
use crate::broker::run::{self, BrokerError, Done, Mode};
use crate::config::{Config, NetworkConfig, SetupError};
use crate::network::observe::{Tunnel, links, tunnels};
use blockhost_proto::escape;
use blockhost_proto::layout::Layout;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::process::ExitCode;

/// The host's IPv6 network.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BrokerArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Print a JSON object
    #[arg(long, global = true)]
    json: bool,
}

const EXAMPLES: &str = "\
The broker is named in the section broker of network.yaml. Its answer is kept in broker-allocation.json by the root agent,
which also has the tunnel and its private key; machines get their addresses from it by ipv6_pool in db.yaml.
blockhost-broker.timer runs `blockhost broker renew`, which asks once half of the lease has passed.

Exit codes: 0 done, and nothing needs you; 1 failed, or something does: what was in force before still is.

Examples:
  blockhost broker
  blockhost broker status --json | jq .lease_until
  blockhost broker request
  blockhost broker request --replace
  blockhost broker renew
  blockhost broker renew --now
  blockhost broker down";

#[derive(Debug, Subcommand)]
enum Verb {
    /// The network, its lease and its tunnel (the default)
    #[command(after_help = EXAMPLES)]
    Status,
    /// Ask for a network, the first or, with --replace, another one
    #[command(after_help = EXAMPLES)]
    Request {
        /// Take another network than the present one, where no machine has an address of that
        #[arg(long)]
        replace: bool,
        /// The same, whatever machines and devices have addresses of either: they are not reached by IPv6 until renumbered
        #[arg(long, conflicts_with = "replace")]
        replace_in_use: bool,
    },
    /// Renew the lease where that is due, and see that the tunnel is up; another network is refused
    #[command(after_help = EXAMPLES)]
    Renew {
        /// Also where it is not due
        #[arg(long)]
        now: bool,
    },
    /// Give the network up, as root: the allocation goes, and the tunnel with its key and its routes
    #[command(after_help = EXAMPLES)]
    Down {
        /// Also while machines have addresses of it: they are not reached by IPv6 from then on
        #[arg(long)]
        in_use: bool,
    },
}

/// Runs the command.
#[must_use]
pub fn run(args: &BrokerArgs, layout: &Layout) -> ExitCode {
    crate::failpoint::arm();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail("blockhost", &error),
    };
    let mode = match args.verb {
        None | Some(Verb::Status) => {
            return match runtime.block_on(status(layout, args.json)) {
                Ok(code) => code,
                Err(error) => fail("blockhost", &error),
            };
        }
        Some(Verb::Request {
            replace,
            replace_in_use,
        }) => Mode::Request(match (replace, replace_in_use) {
            (_, true) => Accept::InUse,
            (true, false) => Accept::Other,
            (false, false) => Accept::Same,
        }),
        Some(Verb::Renew { now }) => Mode::Renew { now },
        Some(Verb::Down { in_use }) => {
            return match runtime.block_on(down::down(layout, in_use)) {
                Ok(gone) => {
                    tell_gone(&gone, args.json);
                    ExitCode::SUCCESS
                }
                Err(error) => fail("blockhost", &error),
            };
        }
    };
    let config = match Config::load(layout).map_err(SetupError::from) {
        Ok(config) => config,
        Err(error) => return fail("blockhost", &error),
    };
    match runtime.block_on(run::run(&config, mode)) {
        Ok(done) => {
            tell(&done, args.json);
            ExitCode::SUCCESS
        }
        Err(error) => fail("blockhost", &error),
    }
}

fn tell(done: &Done, as_json: bool) {
    let until = run::ends(&done.kept);
    if as_json {
        let mut shown = shown(&done.kept);
        shown["asked"] = done.asked.into();
        shown["previous"] = json!(done.previous);
        shown["steps"] = json!(done.steps);
        shown["remarks"] = json!(done.remarks);
        say!("{shown}");
        return;
    }
    let prefix = done.kept.prefix;
    match (&done.previous, done.asked) {
        (Some(old), _) => say!("this host's network is {prefix} now, it was {old}"),
        (None, true) => say!("this host's network is {prefix}"),
        (None, false) => say!("{prefix} is not due for renewal"),
    }
    if let Some(until) = until {
        say!("leased until {until}");
    }
    if !done.steps.is_empty() {
        say!("done: {}", done.steps.join(", "));
    }
    for remark in &done.remarks {
        eprintln!("blockhost: {remark}");
    }
}

fn tell_gone(gone: &Gone, as_json: bool) {
    if as_json {
        let Gone {
            prefix,
            tunnel,
            remarks,
        } = gone;
        say!(
            "{}",
            json!({"given_up": prefix, "tunnel_removed": tunnel, "remarks": remarks})
        );
        return;
    }
    match (&gone.prefix, gone.tunnel) {
        (None, false) => say!("this host has no network of a broker"),
        (None, true) => say!("{TUNNEL} is gone; there was no allocation any more"),
        (Some(prefix), tunnel) => {
            let tunnel = if tunnel {
                ", and the tunnel with it"
            } else {
                ""
            };
            say!(
                "{prefix} is not this host's any more{tunnel}; the broker has it back when the lease ends"
            );
        }
    }
    for remark in &gone.remarks {
        eprintln!("blockhost: {remark}");
    }
}

fn shown(kept: &Kept) -> Value {
    json!({
        "prefix": kept.prefix.to_string(),
        "gateway": kept.gateway.map(|gateway| gateway.to_string()),
        "broker_pubkey": kept.key.map(|key| key.to_string()),
        "broker_endpoint": kept.endpoint.as_ref().map(ToString::to_string),
        "lease_until": run::ends(kept),
    })
}

async fn status(layout: &Layout, as_json: bool) -> Result<ExitCode, BrokerError> {
    let kept = Kept::load(layout)?;
    let (network, _) =
        NetworkConfig::load(&Config::network_path(layout)).map_err(SetupError::from)?;
    let mut needs = Vec::new();
    let mut tunnel = None;
    if let Some(kept) = &kept {
        let lease_s = network.broker.as_ref().map_or(0, |section| section.lease_s);
        needs.extend(kept.complaint(run::now(), lease_s));
        if kept.far_end().is_some() {
            let found = links()?.into_iter().find(|link| link.name == TUNNEL);
            let found: Vec<_> = found.into_iter().collect();
            tunnel = tunnels(layout, &found).await?.pop();
            if !tunnel.as_ref().is_some_and(|tunnel| tunnel.up) {
                needs.push(format!("{TUNNEL} is not up: blockhost broker renew"));
            }
            if network.broker.is_none() {
                needs.push("network.yaml has no section broker: nobody renews it".to_owned());
            }
        }
        needs.extend(run::remarks(layout, kept)?);
    }
    if kept.is_none() && links()?.iter().any(|link| link.name == TUNNEL) {
        needs.push(format!(
            "{TUNNEL} is there without an allocation: blockhost broker request, or down"
        ));
    }
    if as_json {
        let mut shown = kept.as_ref().map_or_else(|| json!({"prefix": null}), shown);
        shown["broker"] = json!(network.broker.as_ref().map(|section| section.url.as_str()));
        shown["tunnel"] = json!(tunnel);
        shown["needs"] = json!(needs);
        say!("{shown}");
    } else {
        match &network.broker {
            Some(section) => say!("broker   {}", section.url),
            None => say!("broker   none: section broker of network.yaml"),
        }
        match &kept {
            None => say!("network  none: blockhost broker request"),
            Some(kept) => network_lines(kept, tunnel.as_ref()),
        }
        for need in &needs {
            say!("NEEDED   {need}");
        }
    }
    Ok(ExitCode::from(u8::from(!needs.is_empty())))
}

fn network_lines(kept: &Kept, tunnel: Option<&Tunnel>) {
    match kept.gateway {
        Some(gateway) => say!("network  {}, router {gateway}", kept.prefix),
        None => say!("network  {}", kept.prefix),
    }
    match run::ends(kept) {
        Some(until) => say!("lease    until {until}"),
        None => say!("lease    without end"),
    }
    let Some((_, endpoint)) = kept.far_end() else {
        return say!("tunnel   none: no broker gave this network");
    };
    let Some(tunnel) = tunnel else {
        return say!("tunnel   {TUNNEL} is not there, to {endpoint}");
    };
    for peer in &tunnel.peers {
        let heard = peer.last_handshake.and_then(|at| i64::try_from(at).ok());
        let heard = match heard {
            Some(at) => format!("last heard {} s ago", run::now().saturating_sub(at).max(0)),
            None => "never heard".to_owned(),
        };
        let at = peer.endpoint.as_deref().unwrap_or("nowhere");
        say!(
            "tunnel   {TUNNEL} to {endpoint} ({}), {heard}, {} bytes in, {} out",
            escape::shown(at),
            peer.rx_bytes,
            peer.tx_bytes
        );
    }
}
