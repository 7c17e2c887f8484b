//! What an operator may not have meant: warnings about a policy that is valid. Asked by `check-policy` alone; nothing
//! is decided here.

use blockhost_proto::catalog::CATALOG;
use serde::Serialize;

use super::Policy;
use super::authority::SHOWS_ALL;
use super::rule::{Account, BY_NAME_ONLY, Rule};
use super::sockets::MAIN;
use crate::allow::{Allowlists, Only, PortRange, VmidRange};

/// One warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Where in the policy.
    pub key: String,
    /// What may not be meant, and what to do.
    pub text: String,
}

/// Everything that looks unintended.
pub fn review(policy: &Policy) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |key: String, text: String| warnings.push(Warning { key, text });
    if policy.rules.is_empty() {
        let text = "there is none: nobody may ask for anything, root included";
        warn("rules".to_owned(), text.to_owned());
    }
    for (place, rule) in policy.rules.iter().enumerate() {
        let key = format!("rules: rule {}", place + 1);
        if let Some(other) = shadow(&policy.rules, place) {
            let text = format!(
                "adds nothing: rule {} gives {} all of it already",
                other + 1,
                rule.subject()
            );
            warn(key.clone(), text);
        }
        if gives_everything(rule) && !is_expected_to(rule) {
            let text = format!(
                "lets {} have everything done that root could; name actions, or narrow with `only`",
                rule.subject()
            );
            warn(key.clone(), text);
        }
        if rule.actions.is_empty() {
            let text = "names no action, so nothing is permitted by it; take it out";
            warn(key.clone(), text.to_owned());
        }
        if let Some(only) = &rule.only {
            for list in never_met(only, &policy.allow) {
                let text = format!(
                    "`only.{list}` has nothing in common with `allow.{list}`: whatever names one of these is forbidden"
                );
                warn(key.clone(), text);
            }
            if let Some(action) = changes_templates(rule, only) {
                let text = format!(
                    "whoever may clone a machine by it may do {action} to the same one: where that is a template, give its number as \
                     `only.clone_from` and not in `only.vmids`"
                );
                warn(key.clone(), text);
            }
            for (action, list) in SHOWS_ALL {
                if rule.covers(action) && only.keys().contains(&list) {
                    let text = format!(
                        "{action} is not permitted by it although `actions` has it: it would show more than `only.{list}`"
                    );
                    warn(key.clone(), text);
                }
            }
        }
        if let Some(name) = &rule.socket
            && name.as_str() != MAIN
            && !policy.sockets.contains_key(name)
        {
            let text = format!(
                "socket `{name}` is not in `sockets`: the start fails unless systemd passes one with `FileDescriptorName={name}`"
            );
            warn(key, text);
        }
    }
    for (name, spec) in &policy.sockets {
        let key = format!("sockets.{name}");
        let named = |rule: &Rule| rule.socket.as_ref() == Some(name);
        if !policy.rules.iter().any(named) {
            let text = "no rule names it, so it is one more way to the main socket's rules";
            warn(key.clone(), text.to_owned());
        }
        if spec.mode.bits() & 0o006 != 0 {
            let text = "everybody on this host may connect, and every connection counts against `limits.connections`";
            warn(key, text.to_owned());
        }
    }
    let routes = |rule: &Rule| rule.covers("ip6-route-add");
    if policy.allow.route_prefixes.is_empty() && policy.rules.iter().any(routes) {
        let text = "is empty: a host route to any global or unique local address may be made; name the host's own prefixes";
        warn("allow.route_prefixes".to_owned(), text.to_owned());
    }
    warnings
}

/// A rule that permits at least as much to at least as many, if there is one. Of two that are alike the first stays.
fn shadow(rules: &[Rule], place: usize) -> Option<usize> {
    let rule = &rules[place];
    (0..rules.len()).find(|&other| {
        other != place
            && contains(&rules[other], rule)
            && (other < place || !contains(rule, &rules[other]))
    })
}

fn contains(wide: &Rule, narrow: &Rule) -> bool {
    fn within<T: PartialEq>(wide: Option<&T>, narrow: Option<&T>) -> bool {
        wide.is_none() || wide == narrow
    }
    within(wide.user.as_ref(), narrow.user.as_ref())
        && within(wide.group.as_ref(), narrow.group.as_ref())
        && within(wide.socket.as_ref(), narrow.socket.as_ref())
        && within(wide.only.as_ref(), narrow.only.as_ref())
        && wide.rates == narrow.rates
        && CATALOG
            .iter()
            .all(|spec| wide.covers(spec.name) || !narrow.covers(spec.name))
}

/// What the rule lets its caller do to the very machines that it may clone, where nothing tells them apart.
fn changes_templates(rule: &Rule, only: &Only) -> Option<&'static str> {
    const CHANGES: [&str; 5] = [
        "qm-destroy",
        "qm-set",
        "qm-resize",
        "qm-importdisk",
        "qm-template",
    ];
    if only.vmids.is_none() || only.clone_from.is_some() || !rule.covers("qm-clone") {
        return None;
    }
    CHANGES.into_iter().find(|action| rule.covers(action))
}

fn gives_everything(rule: &Rule) -> bool {
    let every_day = |name: &str| !BY_NAME_ONLY.contains(&name);
    rule.only.is_none()
        && CATALOG
            .iter()
            .filter(|spec| every_day(spec.name))
            .all(|spec| rule.covers(spec.name))
}

/// Root, and the product's own user, which is what the agent is there for.
fn is_expected_to(rule: &Rule) -> bool {
    match &rule.user {
        Some(Account::Id(uid)) => *uid == 0,
        Some(Account::Name(name)) => name == "root" || name == "blockhost",
        None => false,
    }
}

/// Lists of a rule that cannot be met on this host.
fn never_met(only: &Only, allow: &Allowlists) -> Vec<&'static str> {
    let vmids = |list: &[VmidRange], other: &[VmidRange]| {
        let meet = |a: &VmidRange| {
            let meets = |b: &VmidRange| a.first <= b.last && b.first <= a.last;
            other.iter().any(meets)
        };
        list.iter().any(meet)
    };
    let ports = |list: &[PortRange], other: &[PortRange]| {
        let meet = |a: &PortRange| {
            let meets = |b: &PortRange| a.first <= b.last && b.first <= a.last;
            other.iter().any(meets)
        };
        list.iter().any(meet)
    };
    let names = |list: &[String], other: &[String]| list.iter().any(|name| other.contains(name));
    let mut lists = Vec::new();
    let mut judge = |list, meets: Option<bool>| {
        if meets == Some(false) {
            lists.push(list);
        }
    };
    judge(
        "vmids",
        only.vmids
            .as_ref()
            .map(|list| vmids(list.ranges(), allow.vmids.ranges())),
    );
    let sources = match &allow.clone_from {
        list if list.is_empty() => &allow.vmids,
        list => list,
    };
    judge(
        "clone_from",
        only.clone_from
            .as_ref()
            .map(|list| vmids(list.ranges(), sources.ranges())),
    );
    judge(
        "firewall_ports",
        only.firewall_ports
            .as_ref()
            .map(|list| ports(list, &allow.firewall_ports)),
    );
    for (list, given, host) in [
        ("bridges", &only.bridges, &allow.bridges),
        ("route_devices", &only.route_devices, &allow.route_devices),
        ("storages", &only.storages, &allow.storages),
        (
            "snippet_storages",
            &only.snippet_storages,
            &allow.snippet_storages,
        ),
        (
            "template_storages",
            &only.template_storages,
            &allow.template_storages,
        ),
        ("ovs_bridges", &only.ovs_bridges, &allow.ovs_bridges),
    ] {
        judge(list, given.as_ref().map(|given| names(given, host)));
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(text: &str) -> Vec<String> {
        let policy = Policy::parse(text, "p").expect("valid");
        let prefixes = |warning: &Warning| warning.key != "allow.route_prefixes";
        let list = review(&policy).into_iter().filter(prefixes);
        list.map(|warning| format!("{}: {}", warning.key, warning.text))
            .collect()
    }

    #[test]
    fn the_shipped_policy_warns_of_open_prefixes_and_of_nothing_else() {
        let list = review(&Policy::default());
        assert_eq!(list.len(), 1, "{list:?}");
        assert_eq!(list[0].key, "allow.route_prefixes");
        let named = Policy::parse("allow: {route_prefixes: ['fd00::/64']}", "p").expect("valid");
        assert!(review(&named).is_empty());
    }

    #[test]
    fn what_is_not_meant_is_said_with_its_place() {
        for (text, place, said) in [
            ("rules: []", "rules:", "nobody"),
            (
                "rules: [{user: 7, actions: ['qm-*']}, {user: 7, actions: [qm-start]}]",
                "rule 2",
                "rule 1",
            ),
            (
                "rules: [{user: 7, actions: [qm-start]}, {user: 7, actions: ['qm-*']}]",
                "rule 1",
                "rule 2",
            ),
            (
                "rules: [{user: 7, actions: [qm-start]}, {user: 7, actions: [qm-start]}]",
                "rule 2",
                "rule 1",
            ),
            (
                "rules: [{user: 7, socket: root-agent, actions: [qm-start], only: {storages: [local]}}, \
                 {user: 7, actions: [qm-start]}]",
                "rule 1",
                "rule 2",
            ),
            (
                "rules: [{group: 7, actions: ['*']}]",
                "rule 1",
                "root could",
            ),
            (
                "rules: [{socket: root-agent, actions: ['*']}]",
                "rule 1",
                "root could",
            ),
            ("rules: [{user: 7, actions: []}]", "rule 1", "no action"),
            (
                "rules: [{user: 7, actions: [qm-start], only: {vmids: {first: 500, last: 600}}}]\n\
                 allow: {vmids: {first: 100, last: 499}}",
                "rule 1",
                "only.vmids",
            ),
            (
                "rules: [{user: 7, actions: [qm-clone], only: {clone_from: {first: 9000, last: 9000}}}]\n\
                 allow: {vmids: {first: 100, last: 499}}",
                "rule 1",
                "only.clone_from",
            ),
            (
                "rules: [{user: 7, actions: [qm-clone], only: {clone_from: {first: 200, last: 300}}}]\n\
                 allow: {clone_from: {first: 9000, last: 9000}}",
                "rule 1",
                "only.clone_from",
            ),
            (
                "rules: [{user: 7, actions: [qm-set], only: {bridges: [vmbr9]}}]",
                "rule 1",
                "only.bridges",
            ),
            (
                "rules: [{user: 7, actions: [iptables-open], only: {firewall_ports: ['80']}}]\n\
                 allow: {firewall_ports: ['81-90']}",
                "rule 1",
                "only.firewall_ports",
            ),
            (
                "rules: [{user: 7, actions: [qm-list, qm-start], only: {vmids: {first: 500, last: 600}}}]",
                "rule 1",
                "qm-list",
            ),
            (
                "rules: [{user: 7, socket: lane, actions: [qm-start]}]",
                "rule 1",
                "FileDescriptorName=lane",
            ),
            (
                "rules: [{user: 0, actions: ['*']}]\nsockets: {lane: {group: 7}}",
                "sockets.lane",
                "no rule",
            ),
            (
                "rules: [{socket: lane, actions: [qm-list]}]\nsockets: {lane: {group: 7, mode: '0666'}}",
                "sockets.lane",
                "everybody",
            ),
        ] {
            let list = warnings(text);
            assert_eq!(list.len(), 1, "{text}: {list:?}");
            let (key, why) = list[0].split_once(": ").expect("a key");
            let (key, why) = match why.split_once(": ") {
                Some((rule, rest)) if key == "rules" && rule.starts_with("rule ") => (rule, rest),
                _ => (key, why),
            };
            assert!(
                key == place.trim_end_matches(':') && why.contains(said),
                "{text}: {list:?}"
            );
        }
    }

    #[test]
    fn a_rule_by_which_the_machines_that_are_cloned_can_be_changed_is_pointed_out() {
        let warned = |actions: &str, only: &str| {
            let list = warnings(&format!(
                "rules: [{{user: 7, actions: [{actions}], only: {{{only}}}}}]"
            ));
            assert!(list.len() < 2, "{list:?}");
            list.first().is_some_and(|text| text.contains("template"))
        };
        let own = "vmids: {first: 200, last: 299}";
        for change in [
            "qm-destroy",
            "qm-set",
            "qm-resize",
            "qm-importdisk",
            "qm-template",
        ] {
            assert!(warned(&format!("qm-clone, {change}"), own), "{change}");
            assert!(!warned(change, own), "{change}");
            let apart = format!("{own}, clone_from: {{first: 9000, last: 9000}}");
            assert!(!warned(&format!("qm-clone, {change}"), &apart), "{change}");
        }
        assert!(!warned("qm-clone, qm-start, qm-status", own));
        assert!(!warned("qm-clone, qm-set", "bridges: [vmbr0]"));
    }

    #[test]
    fn lists_that_have_one_number_in_common_can_be_met() {
        let warned = |only: &str, allow: &str| {
            let rule = format!("{{user: 7, actions: [qm-start], only: {{{only}}}}}");
            let list = warnings(&format!("rules: [{rule}]\nallow: {{{allow}}}"));
            assert!(list.len() < 2, "{list:?}");
            list.len() == 1
        };
        for (first, last, apart) in [
            (100, 199, true),
            (100, 200, false),
            (250, 260, false),
            (100, 999, false),
            (300, 400, false),
            (301, 400, true),
        ] {
            let range = format!("vmids: {{first: {first}, last: {last}}}");
            assert_eq!(
                warned(&range, "vmids: {first: 200, last: 300}"),
                apart,
                "{range}"
            );
            let range = format!("firewall_ports: ['{first}-{last}']");
            assert_eq!(
                warned(&range, "firewall_ports: ['200-300']"),
                apart,
                "{range}"
            );
        }
        assert!(!warned("bridges: [a, b]", "bridges: [b, c]"));
        assert!(warned("bridges: [a, b]", "bridges: [c, d]"));
    }

    #[test]
    fn everything_is_expected_of_root_and_of_the_product_and_of_nobody_else() {
        for (user, expected) in [
            ("0", true),
            ("root", true),
            ("blockhost", true),
            ("1", false),
            ("alice", false),
        ] {
            let list = warnings(&format!("rules: [{{user: {user}, actions: ['*']}}]"));
            assert_eq!(list.is_empty(), expected, "{list:?}");
        }
    }

    #[test]
    fn the_main_socket_and_those_of_the_policy_are_there_to_be_named() {
        for socket in ["root-agent", "lane"] {
            let text = format!(
                "rules: [{{user: 7, socket: {socket}, actions: [qm-start]}}, {{socket: lane, actions: [qm-stop]}}]\n\
                 sockets: {{lane: {{group: 7}}}}"
            );
            assert_eq!(warnings(&text), Vec::<String>::new(), "{socket}");
        }
    }

    #[test]
    fn what_differs_in_anything_shadows_nothing() {
        for text in [
            "rules: [{user: 7, actions: [qm-start]}, {user: 8, actions: [qm-start]}]",
            "rules: [{user: 7, actions: [qm-start]}, {group: 7, actions: [qm-start]}]",
            "rules: [{user: 7, actions: [qm-start]}, {user: 7, actions: [qm-stop]}]",
            "rules: [{user: 7, actions: [qm-start], rates: {change: unlimited}}, {user: 7, actions: [qm-start]}]",
            "rules: [{user: 7, socket: root-agent, actions: [qm-start]}, {user: 7, actions: [qm-stop]}]",
            "rules: [{user: 7, actions: [qm-start], only: {storages: [local]}}, \
             {user: 7, actions: [qm-start], only: {storages: [local-lvm]}}]",
        ] {
            assert_eq!(warnings(text), Vec::<String>::new(), "{text}");
        }
    }
}
