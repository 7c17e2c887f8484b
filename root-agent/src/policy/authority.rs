//! Who may ask for what: the resolved rules against what the kernel says about the caller. Asked by the front before
//! anything happens, by the gate before anything is recorded as begun, by each compartment before anything is done,
//! and by `check-policy`. The answer of all of them is the one given here.

use std::borrow::Cow;

use blockhost_proto::action::Action;
use blockhost_proto::response::ErrorCode;
use serde::{Deserialize, Serialize};

use super::rates::OwnRates;
use super::rule::covers;
use super::sockets::SocketName;
use crate::allow::{Allowlists, Only};
use crate::compartment::{Failure, Identities};

/// A rule after name lookup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolvedRule {
    /// User it applies to.
    pub uid: Option<u32>,
    /// Group it applies to, primary or supplementary.
    pub gid: Option<u32>,
    /// Socket it applies to.
    pub socket: Option<SocketName>,
    /// Action names, families or `*`.
    pub actions: Vec<String>,
    /// What its caller may name.
    pub only: Option<Only>,
    /// How often its caller may ask.
    pub rates: Option<OwnRates>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: &'a [u32],
    /// Socket it came by.
    pub socket: &'a str,
}

/// The rules that are for a caller, by their place in the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights(Vec<usize>);

impl Rights {
    /// No rule names this caller: it learns nothing but `forbidden`.
    pub fn is_stranger(&self) -> bool {
        self.0.is_empty()
    }
}

/// The rules in force, ready to be asked.
#[derive(Debug, Clone)]
pub struct Authority {
    allow: Allowlists,
    rules: Vec<Entry>,
    identities: Identities,
}

#[derive(Debug, Clone)]
struct Entry {
    rule: ResolvedRule,
    /// What may be named under the rule: the host's lists, narrowed.
    lists: Option<Allowlists>,
}

impl Authority {
    /// From a policy's rules and allowlists.
    pub fn new(allow: &Allowlists, rules: &[ResolvedRule], identities: Identities) -> Self {
        let entry = |rule: &ResolvedRule| Entry {
            lists: rule.only.as_ref().map(|only| only.over(allow)),
            rule: rule.clone(),
        };
        Self {
            allow: allow.clone(),
            rules: rules.iter().map(entry).collect(),
            identities,
        }
    }

    /// The rules that are for this caller.
    pub fn rights(&self, subject: Subject<'_>) -> Rights {
        if own_process(&self.identities, subject.uid, subject.gid).is_some() {
            return Rights::default();
        }
        let named = |(_, entry): &(usize, &Entry)| applies(&entry.rule, subject);
        let rules = self.rules.iter().enumerate().filter(named);
        Rights(rules.map(|(number, _)| number).collect())
    }

    /// The process of the agent's own that this must be, if it is one.
    pub fn own_process(&self, uid: u32, gid: u32) -> Option<&'static str> {
        own_process(&self.identities, uid, gid)
    }

    /// Those of the caller's groups that a rule names: all that has to travel with a job.
    pub fn telling_groups(&self, groups: &[u32]) -> Vec<u32> {
        let told = |gid: &u32| self.rules.iter().any(|entry| entry.rule.gid == Some(*gid));
        groups.iter().copied().filter(told).collect()
    }

    /// The first rule that permits the action.
    ///
    /// # Errors
    /// `forbidden`, with why.
    pub fn permits(&self, rights: &Rights, action: &Action) -> Result<usize, Failure> {
        self.permits_from(rights, action, 0)
    }

    /// The first rule from that place in the list on which permits the action.
    ///
    /// # Errors
    /// `forbidden`, with why.
    pub fn permits_from(
        &self,
        rights: &Rights,
        action: &Action,
        first: usize,
    ) -> Result<usize, Failure> {
        let name = action.name();
        let mut why = None;
        let mut host_asked = false;
        for &number in rights.0.iter().filter(|&&number| number >= first) {
            let Entry { rule, lists } = &self.rules[number];
            if !rule.actions.iter().any(|pattern| covers(pattern, name)) {
                continue;
            }
            if !host_asked {
                self.allow.check(action)?;
                host_asked = true;
            }
            let Some(lists) = lists else {
                return Ok(number);
            };
            match narrowed(rule, lists, action, number) {
                Ok(()) => return Ok(number),
                Err(failure) => why = Some(failure),
            }
        }
        Err(why.unwrap_or_else(|| forbidden(name)))
    }

    /// What the action may name under that rule.
    pub fn lists(&self, rule: usize, action: &Action) -> Cow<'_, Allowlists> {
        match self.rules.get(rule) {
            Some(Entry {
                rule,
                lists: Some(lists),
            }) => meant(rule, lists, action),
            _ => Cow::Borrowed(&self.allow),
        }
    }

    /// The rates of that rule.
    pub fn rates(&self, rule: usize) -> Option<&OwnRates> {
        self.rules.get(rule)?.rule.rates.as_ref()
    }
}

fn applies(rule: &ResolvedRule, subject: Subject<'_>) -> bool {
    let somebody = rule.uid.is_some() || rule.gid.is_some() || rule.socket.is_some();
    let user = rule.uid.is_none_or(|uid| uid == subject.uid);
    let group = rule
        .gid
        .is_none_or(|gid| gid == subject.gid || subject.groups.contains(&gid));
    let socket = rule
        .socket
        .as_ref()
        .is_none_or(|name| name.as_str() == subject.socket);
    somebody && user && group && socket
}

fn meant<'a>(rule: &ResolvedRule, lists: &'a Allowlists, action: &Action) -> Cow<'a, Allowlists> {
    match &rule.only {
        Some(only) => only.meant(action.name(), lists),
        None => Cow::Borrowed(lists),
    }
}

fn narrowed(
    rule: &ResolvedRule,
    lists: &Allowlists,
    action: &Action,
    number: usize,
) -> Result<(), Failure> {
    let place = format!("rule {}", number + 1);
    let keys = rule.only.as_ref().map(Only::keys).unwrap_or_default();
    let shown = shows_all(action).find(|list| keys.contains(list));
    if let Some(list) = shown {
        let message = format!(
            "{} is about everything, and you may name some things only ({place}: only.{list} of root-agent.yaml)",
            action.name()
        );
        return Err(Failure::new(ErrorCode::Forbidden, message));
    }
    meant(rule, lists, action)
        .holds(action)
        .map_err(|denied| denied.at(&format!("{place}: only")))
}

/// Actions that are about everything on a list, whatever they name. Under a rule that narrows this list they would show or
/// take away what its caller may not name.
pub const SHOWS_ALL: [(&str, &str); 12] = [
    ("qm-list", "vmids"),
    ("qm-metrics", "vmids"),
    ("pct-list", "vmids"),
    ("ovs-list", "ovs_bridges"),
    ("nat-list", "public_pools"),
    ("nat-list", "nat_private"),
    ("iptables-list", "firewall_ports"),
    ("nat-set", "public_pools"),
    ("nat-set", "nat_private"),
    ("masquerade-list", "wg_names"),
    ("masquerade-list", "nat_private"),
    ("iptables-set", "firewall_ports"),
];

/// The lists that the request shows all of.
fn shows_all(action: &Action) -> impl Iterator<Item = &'static str> {
    let one = match action {
        Action::OvsList(list) => list.bridge.is_some(),
        Action::QmMetrics(metrics) => metrics.vmid.is_some(),
        _ => false,
    };
    let shows = move |(name, _): &&(&str, &str)| !one && *name == action.name();
    SHOWS_ALL.iter().filter(shows).map(|&(_, list)| list)
}

/// The process of the agent that has these credentials. None of them has business on the agent's sockets: what
/// connects from there was taken over. Numbers of root stand for no process, or root itself would be locked out.
fn own_process(identities: &Identities, uid: u32, gid: u32) -> Option<&'static str> {
    let Identities {
        agent, vm, image, ..
    } = identities;
    [
        (agent.uid, "blockhost-agent"),
        (vm.uid, "blockhost-vm"),
        (image.uid, "blockhost-image"),
    ]
    .into_iter()
    .find(|&(own, _)| own == uid && own != 0)
    .map(|(_, name)| name)
    .or_else(|| (uid == 0 && gid == agent.gid && gid != 0).then_some("root in blockhost-agent"))
}

/// The process of the agent that a rule for this user or group would be for.
pub fn rule_for_own_process(
    identities: &Identities,
    uid: Option<u32>,
    gid: Option<u32>,
) -> Option<&'static str> {
    let by_user = uid.and_then(|uid| own_process(identities, uid, u32::MAX));
    let shared = identities.blockhost.gid;
    let by_group = [
        (identities.agent.gid, "blockhost-agent"),
        (identities.vm.gid, "blockhost-vm"),
        (identities.image.gid, "blockhost-image"),
    ]
    .into_iter()
    .find(|&(own, _)| Some(own) == gid && own != 0 && own != shared)
    .map(|(_, name)| name);
    by_user.or(by_group)
}

/// The answer to somebody no rule is for.
pub fn forbidden(what: &str) -> Failure {
    Failure::new(
        ErrorCode::Forbidden,
        format!(
            "you may not use {what}; the rules are in /etc/blockhost/root-agent.yaml on the host"
        ),
    )
}

#[cfg(test)]
mod tests;
