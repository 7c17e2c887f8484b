//! What an apply sees of the world: the root agent's actions, and the network devices as the kernel tells anybody. One
//! trait, so that planners and executor run the same against a model in tests; the real one is [`AgentHost`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockhost_netlink::neighbour::Proxy;
use blockhost_netlink::netconf::{Netconf, Scope};
use blockhost_netlink::{Address, Link, Netlink, NetlinkError, Route};
use blockhost_proto::action::Action;
use blockhost_proto::client::blocking::Client;
use blockhost_proto::client::{CallError, Reply};
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use serde_json::Value;

use super::change::Careful;
use crate::network::confirm::probe::Target;
use crate::network::confirm::{self, Change, ChangeError, Options, Report, Stage};

/// How long an agent that restarts is waited for.
const AGENT_COMES_BACK: Duration = Duration::from_secs(15);
/// How long "busy" is taken for "later" and not for "no": a large apply runs into the agent's rates.
const BUSY_PASSES: Duration = Duration::from_secs(120);

/// Well below the agent's `limits.idle_s`.
const CONNECTION_IS_FRESH: Duration = Duration::from_secs(30);

/// `rp_filter` of a host that believes any source that it has a route to.
const LOOSE: u32 = 2;

/// Why the world could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The agent.
    #[error("{action}: {source}")]
    Call {
        /// What was asked.
        action: &'static str,
        /// The answer.
        source: CallError,
    },
    /// The agent's answer is not what the catalog says.
    #[error("{action}: the answer makes no sense: {what}")]
    Answer {
        /// What was asked.
        action: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The kernel.
    #[error("looking at the network devices: {0}")]
    Kernel(#[from] NetlinkError),
}

impl HostError {
    /// The agent's code, when it was the agent that refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Call { source, .. } => source.code(),
            _ => None,
        }
    }

    /// True when the agent is not to be reached at all.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        let Self::Call { source, .. } = self else {
            return false;
        };
        matches!(source, CallError::Connect { .. })
    }
}

/// The world.
pub trait Host {
    /// Has the agent do something, once.
    ///
    /// # Errors
    /// [`CallError`].
    fn call(&mut self, action: &Action) -> Result<Reply, CallError>;

    /// All network devices.
    ///
    /// # Errors
    /// [`HostError::Kernel`].
    fn links(&mut self) -> Result<Vec<Link>, HostError>;

    /// The same, as they are now: what was heard since may have waited for something that makes devices.
    ///
    /// # Errors
    /// As there.
    fn links_now(&mut self) -> Result<Vec<Link>, HostError> {
        self.links()
    }

    /// The addresses of a device.
    ///
    /// # Errors
    /// [`HostError::Kernel`].
    fn addresses(&mut self, index: u32) -> Result<Vec<Address>, HostError>;

    /// All routes.
    ///
    /// # Errors
    /// [`HostError::Kernel`].
    fn routes(&mut self) -> Result<Vec<Route>, HostError>;

    /// Addresses that the host answers for in the name of others through the agent, and on which devices.
    ///
    /// # Errors
    /// [`HostError::Kernel`].
    fn proxies(&mut self) -> Result<Vec<(String, IpAddr)>, HostError>;

    /// Whether the host forwards IPv6 packets. Of IPv4 each device says so itself.
    fn forwards_v6(&mut self) -> bool;

    /// Whether a setting of the whole host outweighs that a device believes no source that it would not answer there.
    fn is_loose(&mut self) -> bool;

    /// Whether a change is made so that it is taken back unless it is confirmed or all is well.
    fn watches_over(&mut self, careful: &Careful) -> bool;

    /// Makes a change that could cut the operator off, or takes it back.
    ///
    /// # Errors
    /// [`ChangeError`] where it was not begun.
    fn carefully(&mut self, change: &Change) -> Result<Report, ChangeError>;

    /// Lets time pass; a model need not.
    fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Asks the agent something that changes nothing, again where it was restarting or busy, and reads its output as JSON.
///
/// # Errors
/// [`HostError`].
pub fn read(host: &mut dyn Host, action: impl Into<Action>) -> Result<Value, HostError> {
    let action = action.into();
    let name = action.name();
    let mut wait = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    let reply = loop {
        let error = match host.call(&action) {
            Ok(reply) => break reply,
            Err(error) => error,
        };
        let patience = match &error {
            CallError::Refused {
                code: ErrorCode::Busy,
                ..
            } => BUSY_PASSES,
            CallError::Refused { .. } | CallError::Timeout { .. } => Duration::ZERO,
            CallError::Connect { .. } | CallError::Protocol { .. } => AGENT_COMES_BACK,
        };
        if waited >= patience {
            return Err(HostError::Call {
                action: name,
                source: error,
            });
        }
        host.pause(wait);
        waited += wait;
        wait = (wait * 2).min(Duration::from_secs(2));
    };
    let answer = |what: String| HostError::Answer { action: name, what };
    if reply.extra.get("truncated").is_some_and(|cut| cut == true) {
        let what = "it was cut; raise limits.response_bytes in root-agent.yaml".to_owned();
        return Err(answer(what));
    }
    serde_json::from_str(&reply.output).map_err(|error| answer(error.to_string()))
}

/// Whether waiting and asking again is worth it, and for how long altogether.
#[must_use]
pub fn worth_waiting(error: &CallError) -> Duration {
    match error {
        CallError::Refused {
            code: ErrorCode::Busy,
            ..
        } => BUSY_PASSES,
        CallError::Connect { .. } => AGENT_COMES_BACK,
        _ => Duration::ZERO,
    }
}

/// Hears of the stages of a change.
pub type Listener = Arc<dyn Fn(&Stage<'_>) + Send + Sync>;

/// How changes are made that could cut the operator off.
#[derive(Clone, Default)]
pub struct Care {
    /// The operator says that it stays, within this time; otherwise it stays when everything is well.
    pub confirm_within: Option<Duration>,
    /// What has to be reachable afterwards, beside the default gateways that are reachable before.
    pub probes: Vec<Target>,
    /// Hears of every stage.
    pub tell: Option<Listener>,
}

impl std::fmt::Debug for Care {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Care")
            .field("confirm_within", &self.confirm_within)
            .field("probes", &self.probes)
            .finish_non_exhaustive()
    }
}

/// The real world. Made in a thread that may block, of a runtime.
#[derive(Debug)]
pub struct AgentHost {
    layout: Layout,
    care: Care,
    /// The connection and when it was last used: the agent closes idle ones.
    client: Option<(Client, Instant)>,
    netlink: Option<Netlink>,
}

impl AgentHost {
    /// Whether this host is reached by a device from outside.
    fn leads_out(&mut self, name: &str) -> Result<bool, NetlinkError> {
        let netlink = self.netlink()?;
        let Some(link) = netlink.link(name)? else {
            return Ok(false);
        };
        let routes = netlink.routes()?;
        let mut defaults = routes.iter().filter(|route| route.destination.length == 0);
        Ok(defaults.any(|route| route.hops.iter().any(|hop| hop.device == Some(link.index))))
    }

    /// The world of this layout; connects when it has to.
    #[must_use]
    pub fn new(layout: &Layout, care: Care) -> Self {
        Self {
            layout: layout.clone(),
            care,
            client: None,
            netlink: None,
        }
    }

    fn netlink(&mut self) -> Result<&mut Netlink, NetlinkError> {
        match &mut self.netlink {
            Some(netlink) => Ok(netlink),
            empty => Ok(empty.insert(Netlink::open()?)),
        }
    }
}

/// What the kernel says of all devices at once. By netlink: `/proc/sys` is out of a sandboxed service's sight.
fn of_all(list: Result<Vec<Netconf>, NetlinkError>) -> Option<Netconf> {
    let list = list.unwrap_or_default();
    list.into_iter().find(|one| one.scope == Scope::All)
}

impl Host for AgentHost {
    fn call(&mut self, action: &Action) -> Result<Reply, CallError> {
        let mut client = match self.client.take() {
            Some((client, used)) if used.elapsed() < CONNECTION_IS_FRESH => client,
            _ => Client::connect_layout(&self.layout)?,
        };
        let result = client.call(action);
        // After anything but an answer the connection is not used again.
        if matches!(&result, Ok(_) | Err(CallError::Refused { .. })) {
            self.client = Some((client, Instant::now()));
        }
        result
    }

    fn links(&mut self) -> Result<Vec<Link>, HostError> {
        Ok(self.netlink()?.links()?)
    }

    fn addresses(&mut self, index: u32) -> Result<Vec<Address>, HostError> {
        Ok(self.netlink()?.addresses(index)?)
    }

    fn carefully(&mut self, change: &Change) -> Result<Report, ChangeError> {
        // Idle meanwhile, and perhaps cut.
        self.client = None;
        let options = Options {
            confirm_within: self.care.confirm_within,
            probes: self.care.probes.clone(),
            ..Options::default()
        };
        let said = self.care.tell.clone();
        let mut tell = |stage: Stage<'_>| {
            if let Some(said) = &said {
                said(&stage);
            }
        };
        let runtime = tokio::runtime::Handle::current();
        runtime.block_on(confirm::run(&self.layout, change, &options, &mut tell))
    }

    fn watches_over(&mut self, careful: &Careful) -> bool {
        let asked = self.care.confirm_within.is_some() || !self.care.probes.is_empty();
        match careful {
            // Where nobody can tell, it is what the host is reached by.
            Careful::Flows(bridge) => asked || self.leads_out(bridge.as_str()).unwrap_or(true),
            Careful::FirstFlows(_) => asked,
            Careful::Uplink(_) | Careful::Bridge(_) => true,
        }
    }

    fn routes(&mut self) -> Result<Vec<Route>, HostError> {
        Ok(self.netlink()?.routes()?)
    }

    fn proxies(&mut self) -> Result<Vec<(String, IpAddr)>, HostError> {
        let netlink = self.netlink()?;
        let proxies = netlink.proxies()?;
        let links = netlink.links()?;
        let named = |proxy: Proxy| {
            let link = links.iter().find(|link| link.index == proxy.device)?;
            Some((link.name.clone(), proxy.address))
        };
        let ours = proxies.into_iter().filter(|proxy| proxy.ours);
        Ok(ours.filter_map(named).collect())
    }

    fn forwards_v6(&mut self) -> bool {
        let list = self.netlink().and_then(Netlink::netconf_v6);
        of_all(list).is_some_and(|all| all.forwards)
    }

    fn is_loose(&mut self) -> bool {
        let list = self.netlink().and_then(Netlink::netconf_v4);
        of_all(list).is_some_and(|all| all.source_check == LOOSE)
    }
}
