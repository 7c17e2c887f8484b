//! Ports of the host's firewall in real network namespaces with the real iptables.

mod compartment_world;

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use blockhost_proto::action::Action;
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{
    Backend, Done, Failure, Handler, Identities, Identity, JobCtx, StartInfo, net,
};
use blockhost_root_agent::policy::Policy;
use compartment_world::{as_net_compartment, code, in_namespace, tool, try_tool};
use serde_json::{Value, json};

/// A fresh handler, as after a restart of the agent.
struct Agent {
    handler: Box<dyn Handler>,
    policy: Policy,
    layout: Layout,
}

impl Agent {
    fn start() -> Self {
        Self::start_with(Policy::default()).expect("a net compartment")
    }

    fn start_with(policy: Policy) -> Result<Self, String> {
        let layout = Layout::new("/");
        let id = Identity {
            uid: 65534,
            gid: 65534,
        };
        let identities = Identities {
            agent: id,
            blockhost: id,
            vm: id,
            image: id,
        };
        let start = StartInfo {
            layout: &layout,
            policy: &policy,
            identities,
            backend: Backend::Embedded,
        };
        let handler = net::prepare(&start)?;
        Ok(Agent {
            handler,
            policy,
            layout,
        })
    }

    fn ask(&self, verb: &str, params: &Value) -> Result<Done, Failure> {
        let action =
            Action::from_parts(&format!("iptables-{verb}"), params).expect("a valid action");
        let deadline = std::time::Instant::now() + Duration::from_secs(120);
        let ctx = JobCtx {
            deadline,
            allow: &self.policy.allow,
            limits: &self.policy.limits,
            layout: &self.layout,
            caller_uid: 0,
        };
        self.handler.run(&action, &ctx)
    }

    fn open(&self, params: &Value) {
        if let Err(failure) = self.ask("open", params) {
            panic!("{params}: {}", failure.message);
        }
    }

    fn close(&self, params: &Value) {
        if let Err(failure) = self.ask("close", params) {
            panic!("{params}: {}", failure.message);
        }
    }
}

/// The filter rules of one family, without comments and counters.
fn rules(program: &str) -> Vec<String> {
    let saved = tool(&format!("{program} -t filter"));
    saved
        .lines()
        .filter(|line| line.starts_with("-A"))
        .map(str::to_owned)
        .collect()
}

fn v4() -> Vec<String> {
    rules("iptables-nft-save")
}

fn v6() -> Vec<String> {
    rules("ip6tables-nft-save")
}

const JUMP: &str = "-A INPUT -j BLOCKHOST-INPUT";

fn accept(port: u16, comment: &str) -> String {
    format!(
        "-A BLOCKHOST-INPUT -p tcp -m tcp --dport {port} -m comment --comment {comment} -j ACCEPT"
    )
}

#[test]
fn open_ports_are_listed_from_the_rules_themselves_with_the_families_they_stand_in() {
    in_namespace(
        "open_ports_are_listed_from_the_rules_themselves_with_the_families_they_stand_in",
        || {
            let agent = Agent::start();
            let list = || -> Value {
                let done = agent.ask("list", &json!({})).expect("a list");
                serde_json::from_str(&done.output).expect("JSON")
            };
            assert_eq!(list(), json!([]));
            assert!(
                !tool("iptables-save").contains("BLOCKHOST"),
                "a look makes nothing"
            );
            let web = json!({"port": 443, "comment": "web"});
            let dns = json!({"port": 53, "proto": "udp", "comment": "dns", "source": "10.0.0.0/8"});
            agent.ask("open", &web).expect("open");
            agent.ask("open", &dns).expect("open");
            tool("iptables -A BLOCKHOST-INPUT -p tcp --dport 9 -j DROP");
            tool("iptables -A INPUT -p tcp --dport 10 -j ACCEPT");
            let web_in = |families: Value| json!({"port": 443, "proto": "tcp", "comment": "web", "families": families});
            let dns_in = json!({"port": 53, "proto": "udp", "comment": "dns", "source": "10.0.0.0/8", "families": ["IPv4"]});
            assert_eq!(list(), json!([web_in(json!(["IPv4", "IPv6"])), dns_in]));
            tool("ip6tables -D INPUT -j BLOCKHOST-INPUT");
            assert_eq!(
                list(),
                json!([web_in(json!(["IPv4"])), dns_in]),
                "what nothing jumps to opens nothing"
            );
            agent.ask("close", &web).expect("closed");
            assert_eq!(list(), json!([dns_in]));
        },
    );
}

#[test]
fn a_whole_list_of_ports_leaves_nothing_else_in_our_chain_and_everything_elsewhere() {
    in_namespace(
        "a_whole_list_of_ports_leaves_nothing_else_in_our_chain_and_everything_elsewhere",
        || {
            let agent = Agent::start();
            let set = |rules: Value| {
                let done = agent.ask("set", &json!({ "rules": rules }));
                done.unwrap_or_else(|failure| panic!("{}", failure.message))
                    .output
            };
            set(json!([]));
            assert!(
                !tool("iptables-save").contains("BLOCKHOST"),
                "nothing is made for nothing"
            );
            agent.open(&json!({"port": 22, "comment": "knock-1"}));
            agent.open(&json!({"port": 80, "comment": "web"}));
            // Made by hand in our chain, in another chain, in another table.
            tool("iptables-nft -A BLOCKHOST-INPUT -p tcp --dport 9 -j ACCEPT");
            tool("ip6tables-nft -A BLOCKHOST-INPUT -m conntrack --ctstate NEW -j ACCEPT");
            tool("iptables-nft -A INPUT -p tcp --dport 10 -j ACCEPT");
            tool("nft add table inet theirs");
            tool("nft add chain inet theirs input { type filter hook input priority 0 ; }");
            let theirs = tool("nft list table inet theirs");
            let web = json!({"port": 80, "comment": "web"});
            let dns = json!({"port": 53, "proto": "udp", "comment": "dns", "source": "10.0.0.0/8"});
            let said = set(json!([web, dns]));
            assert!(said.contains("1 rules made, 4 taken away"), "{said}");
            let jump = JUMP.to_owned();
            let dns_rule = "-A BLOCKHOST-INPUT -s 10.0.0.0/8 -p udp -m udp --dport 53 -m comment --comment dns -j ACCEPT";
            let other = "-A INPUT -p tcp -m tcp --dport 10 -j ACCEPT".to_owned();
            let expected = [
                jump.clone(),
                other.clone(),
                dns_rule.to_owned(),
                accept(80, "web"),
            ];
            assert_eq!(v4(), expected);
            assert_eq!(v6(), [jump.clone(), accept(80, "web")]);
            assert_eq!(tool("nft list table inet theirs"), theirs);
            // The same again sends nothing: counters, which a flush would begin anew, go on.
            tool(
                "iptables-nft -R BLOCKHOST-INPUT 2 -p tcp --dport 80 -m comment --comment web -j ACCEPT -c 7 700",
            );
            assert!(set(json!([dns, web])).contains("0 rules made, 0 taken away"));
            assert!(tool("iptables-nft-save -c -t filter").contains("[7:700]"));
            // All of it gone, ours comes back.
            tool("nft flush ruleset");
            set(json!([web, dns]));
            assert_eq!(v4(), [jump.clone(), dns_rule.to_owned(), accept(80, "web")]);
            set(json!([]));
            assert_eq!((v4(), v6()), (vec![jump.clone()], vec![jump]));
            let mut policy = Policy::default();
            policy.limits.firewall_rules = 1;
            let agent = Agent::start_with(policy).expect("a net compartment");
            let failure = agent
                .ask("set", &json!({"rules": [web, dns]}))
                .expect_err("too many");
            assert_eq!(failure.code, ErrorCode::Conflict);
            assert_eq!(v4().len(), 1, "nothing of it was done");
        },
    );
}

#[test]
fn many_opens_and_restarts_leave_one_jump_and_one_rule_in_each_family() {
    in_namespace(
        "many_opens_and_restarts_leave_one_jump_and_one_rule_in_each_family",
        || {
            for _ in 0..4 {
                let agent = Agent::start();
                agent.open(&json!({"port": 22, "comment": "knock-1"}));
                agent.open(&json!({"port": 22, "comment": "knock-1", "proto": "tcp"}));
            }
            let expected = [JUMP.to_owned(), accept(22, "knock-1")];
            assert_eq!(v4(), expected);
            assert_eq!(v6(), expected);
        },
    );
}

#[test]
fn one_port_more_than_the_limit_is_refused_and_leaves_neither_family_half_open() {
    in_namespace(
        "one_port_more_than_the_limit_is_refused_and_leaves_neither_family_half_open",
        || {
            let mut policy = Policy::default();
            policy.limits.firewall_rules = 3;
            let agent = Agent::start_with(policy).expect("a net compartment");
            // The second family fills up first: what the first one got is taken back.
            agent.open(&json!({"port": 1, "comment": "a", "source": "fd00::/8"}));
            agent.open(&json!({"port": 2, "comment": "a"}));
            agent.open(&json!({"port": 3, "comment": "a"}));
            let before = (v4(), v6());
            assert_eq!((before.0.len(), before.1.len()), (3, 4));
            for params in [
                json!({"port": 4, "comment": "a"}),
                json!({"port": 2, "comment": "b", "source": "fd00::/8"}),
            ] {
                let failure = agent.ask("open", &params).expect_err("one too many");
                assert_eq!(failure.code, ErrorCode::Conflict);
                assert!(
                    failure.message.contains("iptables-close"),
                    "{}",
                    failure.message
                );
                assert_eq!((v4(), v6()), before, "{params}");
            }
            // One that is open already is open, and one that is closed makes room.
            agent.open(&json!({"port": 2, "comment": "a"}));
            agent.close(&json!({"port": 3, "comment": "a"}));
            agent.open(&json!({"port": 4, "comment": "a"}));
            assert_eq!((v4().len(), v6().len()), (3, 4));
        },
    );
}

#[test]
fn a_source_picks_its_family_and_is_part_of_the_rules_identity() {
    in_namespace(
        "a_source_picks_its_family_and_is_part_of_the_rules_identity",
        || {
            let agent = Agent::start();
            for source in ["10.1.2.3", "10.1.0.0/16", "0.0.0.0/0"] {
                agent.open(&json!({"port": 22, "comment": "a", "source": source}));
                agent.open(&json!({"port": 22, "comment": "a", "source": source}));
            }
            assert_eq!(v4().len(), 4, "{:?}", v4());
            assert_eq!(v6(), Vec::<String>::new());
            agent.open(&json!({"port": 22, "comment": "a", "source": "fd77::/64"}));
            assert_eq!(v6().len(), 2, "{:?}", v6());
            assert_eq!(
                code(agent.ask(
                    "close",
                    &json!({"port": 22, "comment": "a", "source": "10.1.2.4"})
                )),
                ErrorCode::NotFound
            );
            agent.close(&json!({"port": 22, "comment": "a", "source": "10.1.2.3/32"}));
            assert!(!v4().iter().any(|rule| rule.contains("10.1.2.3/32")));
            assert_eq!(v4().len(), 3);
        },
    );
}

#[test]
fn closing_removes_only_the_rule_that_carries_the_comment_and_absent_is_not_found() {
    in_namespace(
        "closing_removes_only_the_rule_that_carries_the_comment_and_absent_is_not_found",
        || {
            let agent = Agent::start();
            let rule = json!({"port": 22, "comment": "mine"});
            assert_eq!(
                code(agent.ask("close", &rule)),
                ErrorCode::NotFound,
                "nothing is open yet"
            );
            assert_eq!(v4(), Vec::<String>::new(), "asking changed nothing");
            tool("iptables-nft -A INPUT -p tcp --dport 22 -m comment --comment mine -j ACCEPT");
            agent.open(&json!({"port": 22, "comment": "other"}));
            agent.open(&json!({"port": 22, "comment": "mine", "proto": "udp"}));
            agent.open(&json!({"port": 23, "comment": "mine"}));
            let before = (v4(), v6());
            assert_eq!(
                code(agent.ask("close", &rule)),
                ErrorCode::NotFound,
                "the operator's rule in INPUT is not ours"
            );
            agent.open(&rule);
            assert_ne!(before, (v4(), v6()));
            agent.close(&rule);
            assert_eq!(before, (v4(), v6()));
            assert_eq!(code(agent.ask("close", &rule)), ErrorCode::NotFound);
        },
    );
}

#[test]
fn what_others_made_is_untouched_and_our_chain_is_never_flushed() {
    in_namespace(
        "what_others_made_is_untouched_and_our_chain_is_never_flushed",
        || {
            tool("iptables-nft -P INPUT DROP");
            tool("iptables-nft -N fail2ban");
            tool("iptables-nft -A fail2ban -s 192.0.2.1 -j REJECT");
            tool("iptables-nft -A INPUT -j fail2ban");
            tool("iptables-nft -t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE");
            tool("nft add table inet theirs");
            tool("nft add chain inet theirs input { type filter hook input priority 10 ; }");
            let others = || {
                let saved = [
                    tool("iptables-nft-save"),
                    tool("nft list table inet theirs"),
                ]
                .concat();
                let mine =
                    |line: &&str| !line.contains("BLOCKHOST-INPUT") && !line.starts_with('#');
                saved
                    .lines()
                    .filter(mine)
                    .map(|line| line.split(" [").next().unwrap_or_default().to_owned())
                    .collect::<Vec<_>>()
            };
            let before = others();
            let agent = Agent::start();
            agent.open(&json!({"port": 1, "comment": "a"}));
            tool("iptables-nft -A BLOCKHOST-INPUT -i lo -j RETURN");
            agent.open(&json!({"port": 2, "comment": "a"}));
            agent.close(&json!({"port": 1, "comment": "a"}));
            assert_eq!(before, others());
            let ours: Vec<String> = v4()
                .into_iter()
                .filter(|rule| rule.starts_with("-A BLOCKHOST-INPUT"))
                .collect();
            assert_eq!(
                ours,
                [
                    "-A BLOCKHOST-INPUT -i lo -j RETURN".to_owned(),
                    accept(2, "a")
                ]
            );
            assert_eq!(v4()[0], JUMP, "in front of what the host drops");
        },
    );
}

#[test]
fn a_jump_or_chain_that_an_operator_broke_is_repaired_by_the_next_open() {
    in_namespace(
        "a_jump_or_chain_that_an_operator_broke_is_repaired_by_the_next_open",
        || {
            let agent = Agent::start();
            let rule = json!({"port": 22, "comment": "a"});
            let expected = [JUMP.to_owned(), accept(22, "a")];
            agent.open(&rule);
            tool("iptables-nft -D INPUT -j BLOCKHOST-INPUT");
            agent.open(&rule);
            assert_eq!(v4(), expected);
            for _ in 0..3 {
                tool("iptables-nft -I INPUT -j BLOCKHOST-INPUT");
            }
            agent.open(&rule);
            assert_eq!(v4(), expected);
            tool("iptables-nft -F");
            tool("iptables-nft -X");
            agent.open(&rule);
            assert_eq!(v4(), expected);
            tool(
                "iptables-nft -A BLOCKHOST-INPUT -p tcp --dport 22 -m comment --comment a -j ACCEPT",
            );
            agent.close(&rule);
            assert_eq!(
                v4(),
                [JUMP],
                "a closed port has no second rule that keeps it open"
            );
        },
    );
}

#[test]
fn changes_that_others_make_at_the_same_time_survive() {
    in_namespace("changes_that_others_make_at_the_same_time_survive", || {
        let others = std::thread::spawn(|| {
            for port in 1000..1040 {
                tool(&format!(
                    "iptables-nft -A INPUT -p tcp --dport {port} -j ACCEPT"
                ));
            }
        });
        let agent = Agent::start();
        for port in 1..=20 {
            agent.open(&json!({"port": port, "comment": "a"}));
            if port % 2 == 0 {
                agent.close(&json!({"port": port, "comment": "a"}));
            }
        }
        others.join().expect("the other's rules");
        let rules = v4();
        let count = |prefix: &str| rules.iter().filter(|rule| rule.starts_with(prefix)).count();
        assert_eq!(count("-A INPUT -p tcp -m tcp --dport 10"), 40);
        assert_eq!(count("-A BLOCKHOST-INPUT"), 10);
        assert_eq!(count(JUMP), 1);
    });
}

#[test]
fn the_compartments_own_rights_are_enough_for_the_firewall() {
    as_net_compartment(
        "the_compartments_own_rights_are_enough_for_the_firewall",
        || {
            // As confined processes are: their own /proc entries belong to root.
            let not_dumpable = rustix::process::DumpableBehavior::NotDumpable;
            rustix::process::set_dumpable_behavior(not_dumpable).expect("no core dumps");
            let agent = Agent::start();
            let rule = json!({"port": 22, "comment": "knock-1"});
            agent.open(&rule);
            assert_eq!(v4(), [JUMP.to_owned(), accept(22, "knock-1")]);
            assert_eq!(v4(), v6());
            agent.close(&rule);
            assert_eq!(v4(), [JUMP]);
        },
    );
}

#[test]
fn packets_pass_only_while_the_port_is_open() {
    in_namespace("packets_pass_only_while_the_port_is_open", || {
        tool("ip link set lo up");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        tool("iptables-nft -P INPUT DROP");
        // Answers come back to the same host here; only connections to the port are the question.
        tool(&format!(
            "iptables-nft -A INPUT -p tcp --sport {} -j ACCEPT",
            address.port()
        ));
        let reaches = |ms| TcpStream::connect_timeout(&address, Duration::from_millis(ms)).is_ok();
        assert!(!reaches(300), "the host drops");
        let agent = Agent::start();
        let rule = json!({"port": address.port(), "comment": "knock-1", "source": "127.0.0.1"});
        assert!(
            Action::from_parts("iptables-open", &rule).is_err(),
            "loopback is nobody's source"
        );
        let rule = json!({"port": address.port(), "comment": "knock-1"});
        agent.open(&rule);
        assert!(reaches(120_000), "the port is open");
        agent.close(&rule);
        assert!(!reaches(300), "the port is closed again");
    });
}

#[test]
fn a_table_that_iptables_cannot_express_is_refused_and_left_alone() {
    in_namespace(
        "a_table_that_iptables_cannot_express_is_refused_and_left_alone",
        || {
            tool("nft add table ip filter");
            tool("nft add chain ip filter INPUT { type filter hook input priority 0 ; }");
            tool("nft add rule ip filter INPUT ct state vmap { established : accept }");
            let before = tool("nft list ruleset");
            let agent = Agent::start();
            assert_eq!(
                code(agent.ask("open", &json!({"port": 22, "comment": "a"}))),
                ErrorCode::Failed
            );
            assert_eq!(before, tool("nft list ruleset"));
        },
    );
}

#[test]
fn a_family_that_fails_undoes_the_other() {
    in_namespace("a_family_that_fails_undoes_the_other", || {
        tool("nft add table ip6 filter");
        tool("nft add chain ip6 filter INPUT { type filter hook input priority 0 ; }");
        tool("nft add rule ip6 filter INPUT ct state vmap { established : accept }");
        let agent = Agent::start();
        assert_eq!(
            code(agent.ask("open", &json!({"port": 22, "comment": "a"}))),
            ErrorCode::Failed
        );
        assert_eq!(v4(), [JUMP], "the port must not stay half open");
    });
}

#[test]
fn a_firewall_program_that_others_could_replace_is_not_run() {
    let mut policy = Policy::default();
    policy.programs.xtables = Some("/tmp/xtables-nft-multi".into());
    let error = Agent::start_with(policy).err().expect("refused");
    assert!(error.contains("programs.xtables"), "{error}");
    let (found, _) = try_tool("test -x /usr/sbin/xtables-nft-multi");
    assert!(found, "the tests above need Debian's iptables");
}
