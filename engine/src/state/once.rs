//! The world while it is only looked at: what the agent has answered to one plugin is not asked again for the next, so that all of
//! them see one moment. For a query and for a plan; what acts looks anew.

use std::net::IpAddr;
use std::time::Duration;

use blockhost_netlink::{Address, Link, Route};
use blockhost_proto::action::Action;
use blockhost_proto::client::{CallError, Reply};

use super::change::Careful;
use super::host::{Host, HostError};
use crate::network::confirm::{Change, ChangeError, Report};

/// Of a world, with what was heard of it.
pub(super) struct Once<'a> {
    host: &'a mut dyn Host,
    heard: Vec<(Action, Reply)>,
    links: Option<Vec<Link>>,
}

impl<'a> Once<'a> {
    /// Nothing is heard yet.
    pub(super) fn new(host: &'a mut dyn Host) -> Self {
        Self {
            host,
            heard: Vec::new(),
            links: None,
        }
    }
}

/// What more than one plugin asks for.
const fn is_shared(action: &Action) -> bool {
    matches!(
        action,
        Action::OvsList(_)
            | Action::PctList(_)
            | Action::NatList(_)
            | Action::MasqueradeList(_)
            | Action::WgShow(_)
    )
}

impl Host for Once<'_> {
    fn call(&mut self, action: &Action) -> Result<Reply, CallError> {
        if let Some((_, reply)) = self.heard.iter().find(|(known, _)| known == action) {
            return Ok(reply.clone());
        }
        let reply = self.host.call(action)?;
        if is_shared(action) {
            self.heard.push((action.clone(), reply.clone()));
        }
        Ok(reply)
    }

    fn links(&mut self) -> Result<Vec<Link>, HostError> {
        if let Some(links) = &self.links {
            return Ok(links.clone());
        }
        let links = self.host.links()?;
        Ok(self.links.insert(links).clone())
    }

    fn links_now(&mut self) -> Result<Vec<Link>, HostError> {
        self.links = None;
        self.links()
    }

    fn addresses(&mut self, index: u32) -> Result<Vec<Address>, HostError> {
        self.host.addresses(index)
    }

    fn routes(&mut self) -> Result<Vec<Route>, HostError> {
        self.host.routes()
    }

    fn proxies(&mut self) -> Result<Vec<(String, IpAddr)>, HostError> {
        self.host.proxies()
    }

    fn forwards_v6(&mut self) -> bool {
        self.host.forwards_v6()
    }

    fn is_loose(&mut self) -> bool {
        self.host.is_loose()
    }

    fn watches_over(&mut self, careful: &Careful) -> bool {
        self.host.watches_over(careful)
    }

    fn carefully(&mut self, change: &Change) -> Result<Report, ChangeError> {
        self.host.carefully(change)
    }

    fn pause(&mut self, time: Duration) {
        self.host.pause(time);
    }
}
