//! What is: devices, routes, the switch, tunnels, NetworkManager, read anew at each call and never assumed. A component
//! that is not there is `None` and no error; one that is there and does not answer is `None` with a [`Problem`] beside it,
//! so that nobody plans on an empty list that is not one. Reads only; the switch and tunnels through the root agent.

mod host;
mod manager;
mod switch;
mod tunnel;

pub use host::{Counters, Forwarding, Hop, Link, Route, forwarding, links, routes};
pub use manager::{ManagedDevice, NetworkManager, introspection, network_manager};
pub use switch::{Bridge, Flow, Meter, Owner, Port, PortCounters, Switch, look_at_switch};
pub use tunnel::{Peer, Tunnel, tunnels};

use blockhost_proto::action::OvsList;
use blockhost_proto::client::CallError;
use blockhost_proto::escape;
use blockhost_proto::layout::Layout;
use serde::{Deserialize, Serialize};
use zbus::Connection;

/// Everything at one moment, as nearly as several sources can be read at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// Network devices, by number.
    pub links: Option<Vec<Link>>,
    /// Routes of all tables but the kernel's own of local addresses.
    pub routes: Option<Vec<Route>>,
    /// What is passed on that is for others.
    #[serde(default)]
    pub forwarding: Option<Forwarding>,
    /// Open vSwitch; `None` where it is not running, or the root agent is not.
    pub switch: Option<Switch>,
    /// Tunnels of the root agent; `None` where it cannot be asked.
    pub tunnels: Option<Vec<Tunnel>>,
    /// NetworkManager; `None` where it is not running.
    pub network_manager: Option<NetworkManager>,
    /// What is there and could not be read.
    pub problems: Vec<Problem>,
}

/// Something that is there and could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `links`, `routes`, `forwarding`, `switch`, `tunnels` or `network_manager`.
    pub part: String,
    /// One sentence.
    pub what: String,
}

impl Observed {
    /// The device of this name or alternative name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links
            .as_ref()?
            .iter()
            .find(|link| link.is_called(name))
    }

    /// The bridge of this name.
    #[must_use]
    pub fn bridge(&self, name: &str) -> Option<&Bridge> {
        self.switch.as_ref()?.bridge(name)
    }

    fn note<T>(&mut self, part: &str, read: Result<T, ObserveError>) -> Option<T> {
        read.map_err(|error| {
            self.problems.push(Problem {
                part: part.to_owned(),
                what: error.to_string(),
            });
        })
        .ok()
    }
}

/// Why something that is there could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The kernel.
    #[error("the kernel's list could not be read: {0}")]
    Netlink(#[from] blockhost_netlink::NetlinkError),
    /// The root agent.
    #[error(transparent)]
    Agent(#[from] CallError),
    /// Its answer did not fit into one message.
    #[error(
        "the agent's answer to {action} is longer than its limit (limits.response_bytes in root-agent.yaml) and was cut; ask for one bridge, or raise the limit"
    )]
    Cut {
        /// The action.
        action: &'static str,
    },
    /// Its answer is not what this version knows.
    #[error(
        "the agent's answer to {action} is not understood: {reason}; are agent and engine of one version?"
    )]
    Answer {
        /// The action.
        action: &'static str,
        /// What about it.
        reason: String,
    },
    /// D-Bus.
    #[error("{service} does not answer on the system bus: {reason}")]
    Bus {
        /// Whom we asked.
        service: &'static str,
        /// What came instead.
        reason: String,
    },
    /// The reading task died.
    #[error("reading was broken off: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl ObserveError {
    fn bus(service: &'static str, error: &zbus::Error) -> Self {
        Self::Bus {
            service,
            reason: escape::shown_up_to(&error.to_string(), 200),
        }
    }
}

/// Looks at everything. `bus` is a connection to the system bus where the caller has one already.
pub async fn observe(layout: &Layout, bus: Option<&Connection>) -> Observed {
    observe_beside(layout, bus, look_at_switch(layout, &EVERYTHING)).await
}

/// What to ask for to be told of every bridge and port, without the flows.
pub const EVERYTHING: OvsList = OvsList {
    bridge: None,
    flows: false,
    owner: None,
};

/// Looks at everything but the switch, and beside it waits for what somebody else says of that one.
pub async fn observe_beside(
    layout: &Layout,
    bus: Option<&Connection>,
    switch: impl Future<Output = Result<Option<Switch>, ObserveError>>,
) -> Observed {
    let (kernel, switch, manager) = tokio::join!(
        tokio::task::spawn_blocking(|| {
            let links = links();
            let routes = links.as_ref().ok().map(|links| routes(links));
            (links, routes, forwarding())
        }),
        switch,
        manager_of(bus),
    );
    let mut observed = Observed::default();
    match kernel {
        Ok((links, routes, forwarding)) => {
            observed.forwarding = observed.note("forwarding", forwarding);
            observed.links = observed.note("links", links);
            observed.routes = routes.and_then(|routes| observed.note("routes", routes));
        }
        Err(error) => {
            let _: Option<()> = observed.note("links", Err(error.into()));
        }
    }
    observed.switch = observed.note("switch", switch).flatten();
    if let Some(links) = observed.links.take() {
        let found = tunnels(layout, &links).await;
        observed.tunnels = observed.note("tunnels", found);
        observed.links = Some(links);
    }
    observed.network_manager = observed.note("network_manager", manager).flatten();
    observed
}

async fn manager_of(bus: Option<&Connection>) -> Result<Option<NetworkManager>, ObserveError> {
    if let Some(bus) = bus {
        return network_manager(bus).await;
    }
    // A host without a system bus has no NetworkManager either.
    match Connection::system().await {
        Ok(bus) => network_manager(&bus).await,
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_without_agent_switch_and_manager_is_observed_without_an_error() {
        let root = tempfile::tempdir().expect("a directory");
        let observed = observe(&Layout::new(root.path()), None).await;
        assert!(observed.link("lo").is_some(), "{observed:?}");
        assert!(observed.routes.is_some());
        assert_eq!(
            (&observed.switch, &observed.tunnels),
            (&None, &Some(vec![]))
        );
        assert_eq!(observed.problems, []);
        let text = serde_json::to_string(&observed).expect("JSON");
        let again: Observed = serde_json::from_str(&text).expect("JSON");
        assert_eq!(again, observed);
    }
}
