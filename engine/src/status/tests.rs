use super::*;

/// A good day.
pub(crate) fn good() -> Status {
    Status {
        at: "2026-01-01T00:00:00Z".into(),
        version: "0.1.0",
        engine_running: Part::Known(true),
        chain: Part::Known(ChainPart {
            chain_id: 1,
            endpoint: "node.example".into(),
            head: 1000,
            confirmations: 12,
            processed: Some(988),
        }),
        plans: Part::Known(PlansPart { open: 1, closed: 1 }),
        heads: Part::Known(Some(HeadsPart {
            connected: true,
            endpoint: "node.example".into(),
            since_s: 60,
            told: 5,
            sessions: 1,
            problem: None,
        })),
        account: Part::Known(AccountPart {
            address: "0x00".into(),
            balance_wei: 10 * LOW_WEI,
            balance_ether: "0.1".into(),
        }),
        agent: Part::Known(AgentPart {
            version: "0.1.0".into(),
            backend: "embedded".into(),
            uptime_s: 90_061,
            requests: [("succeeded".to_owned(), 7)].into(),
        }),
        jobs: Part::Known(JobsPart {
            by_state: [("done".to_owned(), 3)].into(),
            oldest_open_s: None,
        }),
        machines: Part::Known(MachinesPart {
            by_status: [("active".to_owned(), 2)].into(),
            in_the_making: 0,
            expire_within_a_day: 1,
            pools: vec![Pool {
                name: "vmid",
                size: 100,
                free: 98,
            }],
        }),
        ledger: Part::Known(LedgerPart {
            origin: "host.example/blockhost".into(),
            size: 42,
            root: "ab".repeat(32),
        }),
        anchor: Part::Known(None),
        space: Part::Known(vec![SpacePart {
            name: "ledger",
            path: "/var/lib/blockhost-ledger".into(),
            size_bytes: 100 << 30,
            free_bytes: 6 << 30,
        }]),
        broker: Part::Known(Some(BrokerPart {
            prefix: "2001:db8:b10c::/64".into(),
            lease_until: Some("2026-02-01T00:00:00Z".into()),
            tunnel_up: Some(true),
            complaint: None,
        })),
        reconcile: Part::Known(None),
    }
}

#[test]
fn a_good_day_needs_nobody_and_each_trouble_is_named() {
    assert_eq!(good().attention(), Vec::<String>::new());
    type Change = fn(&mut Status);
    let cases: [(Change, &str); 19] = [
        (
            |s| {
                s.anchor = Part::Known(Some(Standing {
                    since: "t".into(),
                    alarm: "the ledger is shorter".into(),
                }));
            },
            "ALARM since t: the ledger is shorter",
        ),
        (
            |s| {
                let Part::Known(space) = &mut s.space else {
                    return;
                };
                space[0].free_bytes = 4 << 30;
            },
            "4096 of 102400 MiB are free of the file system of /var/lib/blockhost-ledger",
        ),
        (
            |s| {
                let Part::Known(jobs) = &mut s.jobs else {
                    return;
                };
                jobs.oldest_open_s = Some(7300);
            },
            "the oldest open job is 2 h old",
        ),
        (
            |s| {
                s.space = Part::Unknown {
                    error: "no such device".into(),
                };
            },
            "no such device",
        ),
        (
            |s| s.plans = Part::Known(PlansPart { open: 0, closed: 2 }),
            "nothing can be bought and nothing extended: bw plan open",
        ),
        (
            |s| s.plans = Part::Known(PlansPart { open: 0, closed: 0 }),
            "no plan is offered, nothing can be bought: bw plan create",
        ),
        (
            |s| {
                s.plans = Part::Unknown {
                    error: "no such contract".into(),
                }
            },
            "no such contract",
        ),
        (
            |s| s.engine_running = Part::Known(false),
            "systemctl status",
        ),
        (
            |s| {
                s.agent = Part::Unknown {
                    error: "no socket".into(),
                }
            },
            "no socket",
        ),
        (
            |s| {
                s.chain = Part::Unknown {
                    error: "nobody answers".into(),
                }
            },
            "nobody answers",
        ),
        (
            |s| {
                let Part::Known(chain) = &mut s.chain else {
                    return;
                };
                chain.processed = Some(10);
            },
            "978 blocks",
        ),
        (
            |s| {
                let Part::Known(chain) = &mut s.chain else {
                    return;
                };
                chain.processed = Some(1006);
            },
            "was read up to block 1006 before",
        ),
        (
            |s| {
                let Part::Known(Some(heads)) = &mut s.heads else {
                    return;
                };
                (heads.connected, heads.since_s) = (false, 960);
                heads.problem = Some("node.example is silent".into());
            },
            "for 16 min, events are seen later: node.example is silent",
        ),
        (
            |s| {
                let Part::Known(jobs) = &mut s.jobs else {
                    return;
                };
                jobs.by_state.insert("parked".into(), 2);
            },
            "2 jobs are parked",
        ),
        (
            |s| {
                let Part::Known(account) = &mut s.account else {
                    return;
                };
                account.balance_wei = LOW_WEI - 1;
            },
            "send some to 0x00",
        ),
        (
            |s| {
                let Part::Known(machines) = &mut s.machines else {
                    return;
                };
                machines.pools[0].free = 9;
            },
            "9 of 100 vmid",
        ),
        (
            |s| {
                let Part::Known(Some(broker)) = &mut s.broker else {
                    return;
                };
                broker.tunnel_up = Some(false);
            },
            "blockhost broker renew",
        ),
        (
            |s| {
                let Part::Known(Some(broker)) = &mut s.broker else {
                    return;
                };
                broker.complaint = Some("the lease has ended".into());
            },
            "the lease has ended",
        ),
        (
            |s| {
                s.reconcile = Part::Known(Some(ReconcilePart {
                    looked_at: "t".into(),
                    findings: vec!["subscription 4 is paid".into()],
                }));
            },
            "subscription 4",
        ),
    ];
    for (change, expected) in cases {
        let mut status = good();
        change(&mut status);
        let wanted = status.attention();
        assert!(
            wanted.len() == 1 && wanted[0].contains(expected),
            "{expected}: {wanted:?}"
        );
    }
}

#[test]
fn programs_read_an_error_where_a_part_is_missing_and_whole_wei() {
    let mut status = good();
    status.agent = Part::Unknown {
        error: "no socket".into(),
    };
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["agent"]["error"], "no socket");
    assert_eq!(json["account"]["balance_wei"], (10 * LOW_WEI).to_string());
}
