//! Fuzz target of what `iptables-save` prints.

use std::fmt::Write as _;

use blockhost_proto::fuzz::Target;

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
    "*nat\n:INPUT ACCEPT [0:0]\n-A INPUT -j BLOCKHOST-INPUT\nCOMMIT\n*filter\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n",
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
    for plan in [state.plan_open(&rule), state.plan_close(&rule)]
        .into_iter()
        .flatten()
    {
        let lines: Vec<&str> = plan.lines().collect();
        let [first, commands @ .., last] = lines.as_slice() else {
            unreachable!("a transaction has a beginning and an end")
        };
        assert_eq!((*first, *last), ("*filter", "COMMIT"), "{plan}");
        let ours = [
            format!("-N {CHAIN}"),
            format!("-I INPUT 1 -j {CHAIN}"),
            format!("-D INPUT -j {CHAIN}"),
        ];
        for command in commands {
            let in_our_chain = ["-A", "-D"]
                .iter()
                .any(|verb| command.starts_with(&format!("{verb} {CHAIN} ")));
            assert!(
                in_our_chain || ours.iter().any(|line| line == command),
                "{plan}"
            );
        }
    }
    assert_eq!(state.lacks(&rule), state.plan_close(&rule).is_none());
}
