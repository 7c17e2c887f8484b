//! Fuzz target of what `iptables-save` prints.

use std::fmt::Write as _;
use std::net::IpAddr;

use blockhost_netlink::Address;
use blockhost_proto::fuzz::Target;

use super::masquerade;
use super::nat::{self, INWARD, OUTWARD, Pair};
use super::rules::{CHAIN, Rule, State};

pub(in crate::compartment) const TARGETS: &[Target] = &[Target {
    name: "firewall_rules",
    seeds: || SAVED.iter().map(|text| text.as_bytes().to_vec()).collect(),
    run: firewall_rules,
}];

const SAVED: &[&str] = &[
    "*filter\n:INPUT DROP [5:300]\n:BLOCKHOST-INPUT - [0:0]\n-A INPUT -j BLOCKHOST-INPUT\n\
     -A BLOCKHOST-INPUT -p tcp -m comment --comment \"knock-1\" -m tcp --dport 22 -j ACCEPT\n\
     -A BLOCKHOST-INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 22 -m comment --comment knock-1 -j ACCEPT\nCOMMIT\n",
    "*nat\n:PREROUTING ACCEPT [0:0]\n:BLOCKHOST-DNAT - [0:0]\n-A PREROUTING -j BLOCKHOST-DNAT\n\
     -A BLOCKHOST-DNAT -d 203.0.113.7/32 -m comment --comment web -j DNAT --to-destination 10.0.0.7\n\
     -A BLOCKHOST-SNAT -s 10.0.0.7/32 -m comment --comment web -j SNAT --to-source 203.0.113.7\nCOMMIT\n",
    "*nat\n:INPUT ACCEPT [0:0]\n-A INPUT -j BLOCKHOST-INPUT\nCOMMIT\n*filter\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n",
    "*nat\n:BLOCKHOST-MASQ - [0:0]\n-A POSTROUTING -j BLOCKHOST-SNAT\n-A POSTROUTING -j BLOCKHOST-MASQ\n\
     -A BLOCKHOST-MASQ -s 10.20.0.0/24 -o wg0 -j MASQUERADE\n-A BLOCKHOST-MASQ -s 10.20.0.7 -o wg0 -j MASQUERADE\nCOMMIT\n",
    "*filter\n-A BLOCKHOST-INPUT -p tcp -m tcp --dport 22 -m comment --comment \"kn\\\"ock\" -j DROP\nCOMMIT\n",
];

/// Whatever stands in the tables: what goes back names no chain but ours and the jump to it, and flushes nothing.
fn firewall_rules(data: &[u8]) {
    let mut save = String::new();
    for chunk in data.utf8_chunks() {
        let _ = write!(save, "{}", chunk.valid());
    }
    let state = State::parse(&save);
    let rule = Rule {
        protocol: "tcp".to_owned(),
        port: 22,
        source: None,
        comment: "knock-1".to_owned(),
    };
    for plan in [state.plan_open(&rule), state.plan_close(&rule)] {
        check(plan, "*filter", &["INPUT"], &[CHAIN]);
    }
    assert_eq!(state.lacks(&rule), state.plan_close(&rule).is_none());
    let all = [rule];
    check_set(state.plan_set(&all), "*filter", &["INPUT"], &[CHAIN]);
    check_set(state.plan_set(&[]), "*filter", &["INPUT"], &[CHAIN]);

    let state = nat::State::parse(&save);
    let pair = Pair {
        public: IpAddr::from([203, 0, 113, 7]),
        private: IpAddr::from([10, 0, 0, 7]),
        comment: "web".to_owned(),
    };
    // A pair that stands in the way is named, and nothing is changed.
    let mapped = state.plan_map(&pair).ok().flatten();
    let hooks = ["PREROUTING", "OUTPUT", "POSTROUTING"];
    for plan in [mapped, state.plan_unmap(&pair)] {
        check(plan, "*nat", &hooks, &[INWARD, OUTWARD]);
    }
    check_set(state.plan_set(&[pair]), "*nat", &hooks, &[INWARD, OUTWARD]);

    let state = masquerade::State::parse(&save);
    let network = Address {
        address: IpAddr::from([10, 20, 0, 0]),
        length: 24,
    };
    for networks in [&[][..], &[network]] {
        let plan = state.plan_set("wg0", networks);
        check(plan, "*nat", &["POSTROUTING"], &[masquerade::CHAIN]);
    }
}

/// The same, but that our chains may be flushed.
fn check_set(plan: Option<String>, table: &str, hooks: &[&str], ours: &[&str]) {
    let Some(plan) = plan else { return };
    let flushes = |line: &&str| ours.iter().any(|chain| *line == format!("-F {chain}"));
    let rest: Vec<&str> = plan.lines().filter(|line| !flushes(line)).collect();
    if rest.len() > 2 {
        check(Some(rest.join("\n")), table, hooks, ours);
    }
}

/// Rules come and go in our chains alone; in the kernel's, nothing but jumps to ours; no chain is flushed or declared.
fn check(plan: Option<String>, table: &str, hooks: &[&str], ours: &[&str]) {
    let Some(plan) = plan else { return };
    let lines: Vec<&str> = plan.lines().collect();
    let [first, commands @ .., last] = lines.as_slice() else {
        unreachable!("a transaction has a beginning and an end")
    };
    assert_eq!((*first, *last), (table, "COMMIT"), "{plan}");
    for command in commands {
        let good = ours.iter().any(|chain| {
            let jump = |hook: &&str| {
                let place = command.strip_prefix(&format!("-I {hook} "));
                let place = place.and_then(|rest| rest.strip_suffix(&format!(" -j {chain}")));
                place.is_some_and(|place| place.parse::<usize>().is_ok_and(|place| place > 0))
                    || *command == format!("-D {hook} -j {chain}")
            };
            *command == format!("-N {chain}")
                || command.starts_with(&format!("-A {chain} "))
                || command.starts_with(&format!("-D {chain} "))
                || hooks.iter().any(jump)
        });
        assert!(good, "{plan}");
    }
}
