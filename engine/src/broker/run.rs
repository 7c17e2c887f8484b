//! Carries out: looks at the host, asks the broker where that is due, has the root agent keep the answer and bring up the
//! tunnel. Every step may be repeated, and what a killed run left undone the next one finds and does.

use std::net::IpAddr;
use std::time::Duration;

use blockhost_netlink::route::{MAIN_TABLE, METRIC, PROTOCOL};
use blockhost_netlink::{Netlink, NetlinkError};
use blockhost_proto::action::{Action, ActionError};
use blockhost_proto::client::CallError;
use blockhost_proto::client::tokio::Client;
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{BrokerEndpoint, MachinePrefix, Text as _, WgEndpoint, WgKey};
use blockhost_provisioner::config::{ConfigError, DbConfig, Ipv6Net};
use serde_json::json;

use super::TUNNEL;
use super::answer::{Accept, Allocation, Nonsense, Own, Refusal, Surroundings};
use super::down::turn;
use super::http::{self, AskError, Request};
use super::kept::{Kept, KeptError};
use super::plan::{self, ADDRESS, LAST, Seen, Wanted};
use crate::config::{BrokerSection, Config, SetupError};
use crate::failpoint;
use crate::machines::{Machines, MachinesError};
use crate::network::observe::{Link, ObserveError, links, tunnels};

/// What a host has to do for machines' packets to go anywhere. It holds from start to start, so it is not the agent's to set.
const NO_IPV6: &str = "this host does not forward IPv6, which Linux decides for all devices at once: see \
     /usr/share/doc/blockhost/blockhost-ipv6.conf (net.ipv6.conf.all.forwarding = 1) and copy it to /etc/sysctl.d";

/// How long a name may take to look up.
const LOOKUP: Duration = Duration::from_secs(10);

/// Why there is no allocation, or no tunnel for it.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The configuration.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// No broker is configured.
    #[error("{} has no section broker; docs/configure.md has one", path.display())]
    NoBroker {
        /// The file.
        path: std::path::PathBuf,
    },
    /// Nothing to renew.
    #[error("this host has no allocation of a broker; ask for one by `blockhost broker request`")]
    NoAllocation,
    /// The present allocation.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// The broker could not be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// What it answered.
    #[error("the answer of the broker at {host} is no allocation: {problem}; nothing was changed")]
    Nonsense {
        /// Who.
        host: String,
        /// What is wrong.
        problem: Nonsense,
    },
    /// What it answered is not taken.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The provisioner takes the network for none.
    #[error("addresses for machines cannot be taken from {prefix}; nothing was changed")]
    NoNetwork {
        /// The network.
        prefix: MachinePrefix,
    },
    /// The pool of addresses does not fit what it answered.
    #[error("the broker's network is too small: {0}; nothing was changed")]
    Pool(ConfigError),
    /// `db.yaml`.
    #[error(transparent)]
    Database(ConfigError),
    /// Who has addresses of the present network is not known.
    #[error(
        "the broker gives another network than the present one, and whether machines use that is not known: {0}"
    )]
    Machines(#[from] MachinesError),
    /// Another run.
    #[error("another `blockhost broker` changes the network just now; try again when it is done")]
    Busy,
    /// Its lock.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// Which file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The network is not given up.
    #[error(
        "{prefix} is in use by {machines}; nothing was changed. Destroy or renumber these machines first, or give it up all the \
         same by `blockhost broker down --in-use`: they are not reached by IPv6 from then on"
    )]
    StillUsed {
        /// The network.
        prefix: MachinePrefix,
        /// Who has addresses of it.
        machines: String,
    },
    /// Whether somebody uses it is not known.
    #[error("whether machines use the network is not known, so it is not given up: {0}")]
    Users(MachinesError),
    /// The allocation stays.
    #[error("cannot remove {}: {source}; nothing was changed. It is root's: run this as root", path.display())]
    Remove {
        /// Which file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The host.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The host's routes.
    #[error("the host's routes could not be looked at: {0}")]
    Routes(#[from] NetlinkError),
    /// The name of the broker's tunnel.
    #[error("the broker's tunnel at {endpoint} cannot be looked up: {why}")]
    Lookup {
        /// Its name.
        endpoint: BrokerEndpoint,
        /// What is wrong.
        why: String,
    },
    /// The agent does not do it.
    #[error("{step}: {source}{hint}")]
    Agent {
        /// Which action.
        step: &'static str,
        /// What it says.
        source: CallError,
        /// What to do.
        hint: &'static str,
    },
    /// The agent cannot be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A step is not in the catalog's form.
    #[error(transparent)]
    Action(#[from] ActionError),
    /// The agent made a tunnel and did not say its key.
    #[error("the root agent did not say the public key of {TUNNEL}")]
    NoKey,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The allocation that is in force.
    pub kept: Kept,
    /// Whether the broker was asked.
    pub asked: bool,
    /// The network before, where it was another one.
    pub previous: Option<String>,
    /// Actions of the root agent, in their order.
    pub steps: Vec<&'static str>,
    /// What else is needed so that machines are reached.
    pub remarks: Vec<String>,
}

/// What is asked of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Renew where that is due; see that the tunnel is up in any case.
    Renew {
        /// Also where it is not due.
        now: bool,
    },
    /// Ask for a network, the first or another one.
    Request(Accept),
}

/// The section of this host.
///
/// # Errors
/// [`BrokerError::NoBroker`].
pub fn section(config: &Config) -> Result<&BrokerSection, BrokerError> {
    let section = config.network.broker.as_ref();
    section.ok_or_else(|| BrokerError::NoBroker {
        path: Config::network_path(&config.layout),
    })
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// When a lease ends, RFC 3339.
#[must_use]
pub fn ends(kept: &Kept) -> Option<String> {
    let seconds = i64::try_from(kept.lease_until?.get()).ok()?;
    let time = jiff::Timestamp::from_second(seconds).ok()?;
    Some(time.to_string())
}

/// The whole of a run.
///
/// # Errors
/// [`BrokerError`]; an allocation that was kept before stays in force.
pub async fn run(config: &Config, mode: Mode) -> Result<Done, BrokerError> {
    let section = section(config)?;
    let _turn = turn(&config.layout).await?;
    let mut worker = Worker {
        config,
        agent: Client::connect_layout(&config.layout).await?,
        steps: Vec::new(),
    };
    let kept = Kept::load(&config.layout)?;
    let renewing = matches!(mode, Mode::Renew { .. });
    // A network that a hand wrote down is no broker's to renew, and has no tunnel.
    let brokers = kept.as_ref().filter(|kept| kept.far_end().is_some());
    let ask = match (mode, brokers) {
        (Mode::Request(_), _) => true,
        (Mode::Renew { .. }, None) => return Err(BrokerError::NoAllocation),
        (Mode::Renew { now: true }, Some(_)) => true,
        (Mode::Renew { now: false }, Some(kept)) => kept.is_due(now(), section.lease_s),
    };
    // After a start of the host machines do not wait for the broker to answer, nor for ever if it does not.
    let mut up = match brokers.filter(|_| renewing) {
        Some(kept) => worker.bring_up(kept).await,
        None => Ok(()),
    };
    let (mut current, mut previous) = (kept.clone(), None);
    if ask {
        let accept = match mode {
            Mode::Request(accept) => accept,
            Mode::Renew { .. } => Accept::Same,
        };
        (current, previous) = worker.renew(section, kept.as_ref(), accept).await?;
        if let Some(new) = &current {
            up = worker.bring_up(new).await;
        }
    }
    up?;
    let kept = current.ok_or(BrokerError::NoAllocation)?;
    let remarks = remarks(&config.layout, &kept)?;
    Ok(Done {
        kept,
        asked: ask,
        previous,
        steps: worker.steps,
        remarks,
    })
}

struct Worker<'a> {
    config: &'a Config,
    agent: Client,
    steps: Vec<&'static str>,
}

impl Worker<'_> {
    async fn call(
        &mut self,
        action: &Action,
    ) -> Result<blockhost_proto::client::Reply, BrokerError> {
        let reply = self.agent.call(action).await;
        let reply = reply.map_err(|source| refused(action.name(), source))?;
        self.steps.push(action.name());
        Ok(reply)
    }

    /// This host's key in the tunnel, which is made where there is none.
    async fn own_key(&mut self) -> Result<WgKey, BrokerError> {
        let seen = self.look().await?;
        let known = match plan::setup(&seen)? {
            Some(setup) => {
                let reply = self.call(&setup).await?;
                let key = reply.extra.get("public_key").and_then(|key| key.as_str());
                key.map(str::to_owned)
            }
            None => seen.tunnel.and_then(|tunnel| tunnel.public_key),
        };
        failpoint::reach("broker", "own-key");
        let key = known.as_deref().and_then(WgKey::read);
        key.ok_or(BrokerError::NoKey)
    }

    /// Asks, judges, and has the answer kept.
    async fn renew(
        &mut self,
        section: &BrokerSection,
        kept: Option<&Kept>,
        accept: Accept,
    ) -> Result<(Option<Kept>, Option<String>), BrokerError> {
        let layout = &self.config.layout;
        let chain_id = self.config.web3.blockchain.chain_id;
        let contract = self.config.nft_contract()?;
        // What the network has to hold is known before the broker commits itself.
        let pool = DbConfig::load(layout, &mut Vec::new())
            .map_err(BrokerError::Database)?
            .ipv6_pool;
        let own_key = self.own_key().await?;
        let request = Request {
            wg_pubkey: own_key,
            nft_contract: contract.to_string(),
            source: section
                .source
                .clone()
                .unwrap_or_else(|| format!("eip155:{chain_id}")),
            lease_duration: section.lease_s,
        };
        // The lease counts from the question on: whatever the answer's way took is not counted twice.
        let asked_at = now();
        let body = http::ask(section, &request).await?;
        let allocation = Allocation::read(&body).map_err(|problem| BrokerError::Nonsense {
            host: section.host(),
            problem,
        })?;
        failpoint::reach("broker", "answered");
        let changes = kept.is_some_and(|kept| kept.prefix != allocation.prefix);
        let host = Surroundings {
            own_key,
            addresses: own_addresses(&links()?),
            kept,
            machines: match changes {
                true => Machines::new(layout).with_ipv6().await?,
                false => Vec::new(),
            },
        };
        let replaces = allocation.judge(&host, accept)?;
        if let Some(pool) = pool {
            let net = allocation.prefix.to_string().parse::<Ipv6Net>();
            let net = net.map_err(|_| BrokerError::NoNetwork {
                prefix: allocation.prefix,
            })?;
            pool.check(&net).map_err(BrokerError::Pool)?;
        }
        let until = u64::try_from(asked_at).unwrap_or(0) + section.lease_s;
        let params = json!({
            "prefix": allocation.prefix.to_string(), "gateway": allocation.gateway.to_string(),
            "broker_pubkey": allocation.key.to_string(), "broker_endpoint": allocation.endpoint.as_str(),
            "lease_until": until, "replace": replaces,
        });
        let keep = Action::from_parts("broker-renew", &params)?;
        let reply = self.call(&keep).await?;
        failpoint::reach("broker", "kept");
        let previous = reply.extra.get("previous").and_then(|old| old.as_str());
        Ok((Kept::load(layout)?, previous.map(str::to_owned)))
    }

    /// Sees to it that the tunnel of an allocation is there, with the ways into and out of it.
    async fn bring_up(&mut self, kept: &Kept) -> Result<(), BrokerError> {
        let Some((key, endpoint)) = kept.far_end() else {
            return Ok(());
        };
        let seen = self.look().await?;
        let found = look_up(endpoint).await;
        let there = seen.tunnel.as_ref().is_some_and(|t| !t.peers.is_empty());
        // A name server that is away is no reason to touch a tunnel that works.
        let found = match found {
            Err(_) if there => Vec::new(),
            other => other?,
        };
        let endpoints = plan::usable(kept.prefix, found.into_iter());
        if endpoints.is_empty() && !there {
            return Err(BrokerError::Lookup {
                endpoint: endpoint.clone(),
                why: "none of its addresses can be the end of a tunnel".to_owned(),
            });
        }
        let wanted = Wanted {
            prefix: kept.prefix,
            key,
            endpoints,
        };
        let at = u64::try_from(now()).unwrap_or(0);
        for step in plan::steps(&wanted, &seen, at)? {
            self.call(&step).await?;
            failpoint::reach("broker", step.name());
        }
        Ok(())
    }

    async fn look(&self) -> Result<Seen, BrokerError> {
        let all = links()?;
        let link = all.iter().find(|link| link.name == TUNNEL);
        let Some(link) = link.cloned() else {
            return Ok(Seen::default());
        };
        let index = link.index;
        let mut found = tunnels(&self.config.layout, &[link]).await?;
        let mut seen = Seen {
            tunnel: found.pop(),
            ..Seen::default()
        };
        let routes = Netlink::open()?.routes_like(IpAddr::from([0; 16]))?;
        for (device, route) in routes {
            let ours = device == index && route.protocol() == PROTOCOL && route.leads();
            if !ours || route.table() != MAIN_TABLE {
                continue;
            }
            let shown = |network: blockhost_netlink::Address| {
                format!("{}/{}", network.address, network.length)
            };
            match (route.from(), route.destination(), route.metric()) {
                (Some(from), None, METRIC) => seen.ways.push(shown(from)),
                (None, Some(to), LAST) => seen.ends.push(shown(to)),
                _ => {}
            }
        }
        Ok(seen)
    }
}

/// What an operator can do about a refusal.
fn refused(step: &'static str, source: CallError) -> BrokerError {
    let forbidden = source.code() == Some(ErrorCode::Forbidden);
    let hint = match step {
        "route-set" | "route-from-set" if forbidden => {
            "; add the broker's range to allow.route_networks in root-agent.yaml, reload the agent, and run `blockhost broker renew`"
        }
        "broker-renew" if forbidden => {
            "; if the broker may give this host such a network, add it to allow.broker_prefixes in root-agent.yaml"
        }
        _ => "",
    };
    BrokerError::Agent { step, source, hint }
}

/// The addresses behind a name, or the one that stands there.
async fn look_up(endpoint: &BrokerEndpoint) -> Result<Vec<WgEndpoint>, BrokerError> {
    if let Some(address) = WgEndpoint::read(endpoint.as_str()) {
        return Ok(vec![address]);
    }
    let failed = |why: String| BrokerError::Lookup {
        endpoint: endpoint.clone(),
        why,
    };
    let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host(endpoint.as_str())).await;
    let found = found
        .map_err(|_| failed(format!("no answer within {} s", LOOKUP.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    // What is no place for the end of a tunnel, such as this host itself, is left out.
    Ok(found
        .filter_map(|socket| WgEndpoint::read(&socket.to_string()))
        .collect())
}

/// The host's addresses with the length of their networks, but for the tunnel's own.
fn own_addresses(links: &[Link]) -> Vec<Own> {
    let others = links.iter().filter(|link| link.name != TUNNEL);
    others
        .flat_map(|link| {
            let own = |text: &String| {
                let (address, length) = text.split_once('/')?;
                Some(Own {
                    device: link.name.clone(),
                    address: address.parse().ok()?,
                    length: length.parse().ok()?,
                })
            };
            link.addresses.iter().filter_map(own).collect::<Vec<_>>()
        })
        .collect()
}

/// What is missing that is not this program's to do.
///
/// # Errors
/// [`BrokerError`] where the host cannot be looked at.
pub fn remarks(layout: &Layout, kept: &Kept) -> Result<Vec<String>, BrokerError> {
    let mut remarks = Vec::new();
    let setting = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding");
    // Where the settings are out of sight, as in the unit's sandbox, nothing is said about them.
    if setting.is_ok_and(|value| value.trim() == "0") {
        remarks.push(NO_IPV6.to_owned());
    }
    let gateway = kept.gateway.map(|gateway| IpAddr::V6(gateway.address()));
    if let Some(gateway) = gateway
        && own_addresses(&links()?)
            .iter()
            .all(|own| own.address != gateway)
    {
        remarks.push(format!(
            "{gateway}, the machines' router, is on no device of this host: give it to their bridge, in the host's network \
             configuration or in a document for `blockhost apply`"
        ));
    }
    let db = DbConfig::load(layout, &mut Vec::new()).map_err(BrokerError::Database)?;
    if db.ipv6_pool.is_none() {
        remarks
            .push("db.yaml has no ipv6_pool, so machines get no address of the network".to_owned());
    }
    Ok(remarks)
}

/// Whether the tunnel is there, as far as can be seen without asking for anything: its own address.
///
/// # Errors
/// [`ObserveError`].
pub fn is_up() -> Result<bool, ObserveError> {
    let ours = |link: &Link| {
        link.name == TUNNEL && link.up && link.addresses.iter().any(|address| address == ADDRESS)
    };
    Ok(links()?.iter().any(ours))
}
