//! Who may ask for what, rule by rule.

use serde_json::{Value, json};

use super::*;
use crate::compartment::Identity;

const fn identity(id: u32) -> Identity {
    Identity { uid: id, gid: id }
}

const IDENTITIES: Identities = Identities {
    agent: identity(901),
    blockhost: identity(902),
    vm: identity(903),
    image: identity(904),
};

fn rules(yaml: &str) -> Authority {
    #[derive(Deserialize)]
    struct File {
        rules: Vec<ResolvedRule>,
        #[serde(default)]
        allow: Allowlists,
    }
    let File { rules, allow } = serde_saphyr::from_str(yaml).expect("test rules");
    Authority::new(&allow, &rules, IDENTITIES)
}

fn by(uid: u32, gid: u32, groups: &'static [u32]) -> Subject<'static> {
    Subject {
        uid,
        gid,
        groups,
        socket: "root-agent",
    }
}

fn ask(
    authority: &Authority,
    who: Subject<'_>,
    name: &str,
    params: &Value,
) -> Result<usize, String> {
    let action = Action::from_parts(name, params).expect("valid");
    let permitted = authority.permits(&authority.rights(who), &action);
    permitted.map_err(|failure| {
        assert_eq!(failure.code, ErrorCode::Forbidden);
        failure.message
    })
}

fn start(authority: &Authority, who: Subject<'_>, vmid: u32) -> Result<usize, String> {
    ask(authority, who, "qm-start", &json!({ "vmid": vmid }))
}

#[test]
fn a_process_of_the_agent_is_called_by_its_name_and_nobody_else_is_taken_for_one() {
    let rules = rules("rules: [{uid: 5, actions: ['*']}]");
    for (uid, gid, name) in [
        (901, 1, Some("blockhost-agent")),
        (903, 1, Some("blockhost-vm")),
        (904, 904, Some("blockhost-image")),
        (0, 901, Some("root in blockhost-agent")),
        (0, 0, None),
        (902, 902, None),
        (5, 901, None),
    ] {
        assert_eq!(rules.own_process(uid, gid), name, "{uid}:{gid}");
    }
}

#[test]
fn the_rates_of_a_rule_are_its_own_and_no_other_rules() {
    let rules = rules(
        "rules: [{uid: 5, actions: ['*'], rates: {change: {per_minute: 7, burst: 2}}}, {uid: 6, actions: ['*']}]",
    );
    let own = rules.rates(0).expect("it has rates");
    assert!(own.change.is_some() && own.read.is_none());
    assert_eq!((rules.rates(1), rules.rates(2)), (None, None));
}

#[test]
fn a_rule_without_a_subject_applies_to_nobody() {
    let rules = rules("rules: [{actions: ['*']}]");
    assert!(rules.rights(by(0, 0, &[0])).is_stranger());
}

#[test]
fn everything_that_a_rule_names_must_be_so() {
    let rules =
        rules("rules: [{uid: 5, gid: 50, actions: ['*']}, {uid: 6, socket: lane, actions: ['*']}]");
    assert_eq!(start(&rules, by(5, 50, &[]), 100), Ok(0));
    assert_eq!(start(&rules, by(5, 1, &[7, 50]), 100), Ok(0));
    for who in [by(5, 1, &[]), by(1, 50, &[]), by(50, 5, &[]), by(6, 6, &[])] {
        assert!(start(&rules, who, 100).is_err(), "{who:?}");
    }
    let lane = Subject {
        socket: "lane",
        ..by(6, 6, &[])
    };
    assert_eq!(start(&rules, lane, 100), Ok(1));
    assert!(start(&rules, Subject { uid: 7, ..lane }, 100).is_err());
}

#[test]
fn a_rule_for_a_socket_alone_is_for_all_who_came_by_it_and_for_no_other() {
    let rules = rules("rules: [{socket: lane, actions: [qm-start]}]");
    let lane = Subject {
        socket: "lane",
        ..by(1234, 5, &[])
    };
    assert_eq!(start(&rules, lane, 100), Ok(0));
    for socket in ["root-agent", "", "lanes", "lan"] {
        assert!(start(&rules, Subject { socket, ..lane }, 100).is_err());
    }
    assert!(ask(&rules, lane, "qm-stop", &json!({"vmid": 100})).is_err());
}

#[test]
fn root_has_no_rights_but_those_of_the_rules() {
    assert!(
        rules("rules: [{uid: 7, actions: ['*']}]")
            .rights(by(0, 0, &[]))
            .is_stranger()
    );
}

#[test]
fn the_agents_own_processes_have_no_rights_whatever_the_rules_say() {
    let all = "rules: [{socket: root-agent, actions: ['*']}, {uid: 0, actions: ['*']}, {uid: 903, actions: ['*']}]";
    let rules = rules(all);
    for who in [
        by(901, 1, &[]),
        by(903, 1, &[]),
        by(904, 902, &[]),
        by(0, 901, &[]),
    ] {
        assert!(rules.rights(who).is_stranger(), "{who:?}");
    }
    for who in [by(0, 0, &[901]), by(902, 902, &[]), by(5, 901, &[])] {
        assert!(!rules.rights(who).is_stranger(), "{who:?}");
    }
    // Without system users of their own (a test, a container) root is root.
    let nobody = Identities {
        agent: identity(0),
        ..IDENTITIES
    };
    assert_eq!(own_process(&nobody, 0, 0), None);
}

#[test]
fn a_rule_narrows_what_its_caller_may_name_and_the_host_narrows_further() {
    let rules = rules(
        "rules:\n\
             - {uid: 5, actions: ['*'], only: {vmids: {first: 200, last: 299}, firewall_ports: ['80'], route_prefixes: ['fd00:5::/64']}}\n\
             - {uid: 6, actions: ['*']}\n\
             allow: {vmids: {first: 100, last: 250}, route_devices: [vmbr0]}\n",
    );
    let five = by(5, 5, &[]);
    assert_eq!(start(&rules, five, 200), Ok(0));
    let why = start(&rules, five, 199).expect_err("of somebody else");
    assert!(
        why.contains("rule 1: only.vmids") && why.contains("200-299"),
        "{why}"
    );
    let why = start(&rules, five, 251).expect_err("not on this host");
    assert!(why.contains("allow.vmids"), "{why}");
    assert_eq!(start(&rules, by(6, 6, &[]), 199), Ok(1));
    let route = |address: &str| json!({"address": format!("{address}/128"), "dev": "vmbr0"});
    assert!(ask(&rules, five, "ip6-route-add", &route("fd00:5::9")).is_ok());
    assert!(ask(&rules, five, "ip6-route-add", &route("fd00:6::9")).is_err());
    let port = |port: u16| json!({"port": port, "comment": "x"});
    assert!(ask(&rules, five, "iptables-open", &port(80)).is_ok());
    assert!(ask(&rules, five, "iptables-close", &port(22)).is_err());
    // Both machines of a clone have to be theirs.
    let clone = |vmid: u32, newid: u32| json!({"vmid": vmid, "newid": newid, "name": "a"});
    assert!(ask(&rules, five, "qm-clone", &clone(200, 201)).is_ok());
    assert!(ask(&rules, five, "qm-clone", &clone(150, 201)).is_err());
    assert!(ask(&rules, five, "qm-clone", &clone(200, 150)).is_err());
    // A list shows what may not be named.
    let why = ask(&rules, five, "qm-list", &json!({})).expect_err("every machine");
    assert!(why.contains("only.vmids"), "{why}");
    assert_eq!(ask(&rules, by(6, 6, &[]), "qm-list", &json!({})), Ok(1));
}

#[test]
fn who_may_clone_a_template_may_not_change_it_and_its_disk_is_named_as_a_base_only() {
    let rules = rules(
        "rules:\n\
             - {uid: 5, actions: ['qm-*'], only: {vmids: {first: 20000, last: 29999}, clone_from: {first: 9000, last: 9000}}}\n\
             - {uid: 6, actions: ['qm-*'], only: {vmids: {first: 20000, last: 29999}}}\n\
             - {uid: 7, actions: ['qm-*']}\n",
    );
    let may = |uid: u32, name: &str, params: &Value| ask(&rules, by(uid, uid, &[]), name, params);
    let clone = |vmid: u32| json!({"vmid": vmid, "newid": 20_001, "name": "a"});
    assert_eq!(may(5, "qm-clone", &clone(9000)), Ok(0));
    let why = may(5, "qm-clone", &clone(9001)).expect_err("another template");
    assert!(why.contains("rule 1: only.clone_from"), "{why}");
    let changes = [
        ("qm-set", json!({"vmid": 9000, "options": {"cores": 2}})),
        ("qm-destroy", json!({"vmid": 9000})),
        (
            "qm-resize",
            json!({"vmid": 9000, "disk": "scsi0", "size": "+1G"}),
        ),
        ("qm-template", json!({"vmid": 9000})),
        ("qm-start", json!({"vmid": 9000})),
        (
            "qm-importdisk",
            json!({"vmid": 9000, "disk_path": "/var/lib/blockhost/images/a.qcow2", "storage": "local"}),
        ),
    ];
    for (name, params) in &changes {
        let why = may(5, name, params).expect_err(name);
        assert!(why.contains("rule 1: only.vmids"), "{name}: {why}");
    }
    let based = |base: u32| {
        let disk =
            format!("local:{base}/base-{base}-disk-0.qcow2/20000/vm-20000-disk-0.qcow2,iops_rd=9");
        let flat = format!("local-lvm:base-{base}-disk-0/vm-20000-disk-0");
        [
            (
                "qm-set",
                json!({"vmid": 20_000, "options": {"scsi0": disk}}),
            ),
            (
                "qm-create",
                json!({"vmid": 20_000, "name": "a", "args": ["--scsi0", flat]}),
            ),
        ]
    };
    for (name, params) in based(9000) {
        assert_eq!(may(5, name, &params), Ok(0), "{name}");
        let why = may(6, name, &params).expect_err("not of its machines");
        assert!(why.contains("rule 2: only.vmids"), "{why}");
    }
    for (name, params) in based(9500) {
        let why = may(5, name, &params).expect_err("another's template");
        assert!(why.contains("rule 1: only.clone_from"), "{why}");
        assert!(may(6, name, &params).is_err());
        assert_eq!(may(7, name, &params), Ok(2), "{name}");
    }
    // What a rule with machines of its own may clone is not what the host's list says for others.
    let host = self::rules(
        "rules: [{uid: 6, actions: ['qm-*'], only: {vmids: {first: 20000, last: 29999}}}]\n\
         allow: {clone_from: [{first: 9000, last: 9000}, {first: 20000, last: 20000}]}\n",
    );
    let six = by(6, 6, &[]);
    assert!(ask(&host, six, "qm-clone", &clone(9000)).is_err());
    assert_eq!(ask(&host, six, "qm-clone", &clone(20_000)), Ok(0));
    assert!(ask(&host, six, "qm-clone", &clone(20_002)).is_err());
}

#[test]
fn the_cloud_init_file_of_another_machine_is_not_named_by_who_has_machines_of_its_own() {
    let rules = rules(
        "rules:\n\
             - {uid: 5, actions: ['*'], only: {vmids: {first: 200, last: 299}}}\n\
             - {uid: 6, actions: ['*'], only: {vmids: {first: 200, last: 299}, snippet_storages: [reseller]}}\n\
             - {uid: 7, actions: ['*'], only: {bridges: [vmbr0]}}\n\
             - {uid: 8, actions: ['*']}\n\
             allow: {snippet_storages: [local, reseller]}\n",
    );
    let may = |uid: u32, storage: &str| {
        let custom = format!("user={storage}:snippets/victim-user.yaml");
        let set = json!({"vmid": 200, "options": {"cicustom": custom}});
        let create = json!({"vmid": 200, "name": "a", "args": ["--cicustom", custom]});
        let asked = [("qm-set", set), ("qm-create", create)]
            .map(|(name, params)| ask(&rules, by(uid, uid, &[]), name, &params));
        assert_eq!(asked[0], asked[1], "{uid} {storage}");
        asked[0].clone()
    };
    for storage in ["local", "reseller"] {
        let why = may(5, storage).expect_err("whose it is cannot be told");
        assert!(why.contains("rule 1: only.snippet_storages"), "{why}");
    }
    // A storage that the operator gave to this caller.
    assert_eq!(may(6, "reseller"), Ok(1));
    assert!(may(6, "local").is_err());
    assert_eq!(may(7, "local"), Ok(2));
    assert_eq!(may(8, "local"), Ok(3));
}

#[test]
fn a_rule_that_gives_one_of_two_lists_permits_nothing_by_the_other() {
    let rules = rules(
        "rules:\n\
             - {uid: 5, actions: ['*'], only: {link_devices: [wg-a], route_networks: ['10.90.0.0/24']}}\n\
             - {uid: 6, actions: ['*'], only: {ovs_bridges: [ovsbr1]}}\n\
             - {uid: 7, actions: ['*'], only: {vmids: {first: 200, last: 299}}}\n\
             allow: {public_pools: ['203.0.113.0/24'], uplinks: [eth0], route_devices: [vmbr0, vi100, vi200]}\n",
    );
    let route = |uid: u32, dest: &str, dev: &str| {
        let route = json!({"dest": dest, "dev": dev});
        let asked = ["route-set", "route-del"]
            .map(|name| ask(&rules, by(uid, uid, &[]), name, &route).is_ok());
        assert_eq!(asked[0], asked[1]);
        asked[0]
    };
    assert!(route(5, "10.90.0.0/24", "wg-a"));
    assert!(!route(5, "10.90.0.0/24", "vmbr0") && !route(5, "203.0.113.7/32", "wg-a"));
    assert!(route(6, "10.90.0.0/24", "vmbr0") && route(6, "203.0.113.7/32", "wg-a"));
    assert!(route(7, "10.90.0.0/24", "vi200") && !route(7, "10.90.0.0/24", "vi100"));
    let handover = |uid: u32, to: &str| {
        let pair = json!({"from": "eth0", "to": to});
        ask(&rules, by(uid, uid, &[]), "link-handover", &pair).is_ok()
    };
    assert!(handover(6, "ovsbr1") && !handover(6, "ovsbr0") && !handover(6, "vmbr0"));
    assert!(handover(5, "ovsbr0") && handover(5, "vmbr0"));
    // What the compartment goes by is the same.
    let set = json!({"dest": "10.90.0.0/24", "dev": "wg-a"});
    let set = Action::from_parts("route-set", &set).expect("valid");
    let lists = rules.lists(0, &set);
    assert!(lists.route_devices.is_empty() && lists.public_pools.is_empty());
}

#[test]
fn a_list_of_everything_is_not_for_those_who_may_name_some() {
    let rules = rules(
        "rules:\n\
             - {uid: 5, actions: ['*'], only: {vmids: {first: 200, last: 299}}}\n\
             - {uid: 6, actions: ['*'], only: {ovs_bridges: [br7]}}\n\
             allow: {ovs_bridges: [br6, br7]}\n",
    );
    let may =
        |uid: u32, name: &str, params: Value| ask(&rules, by(uid, uid, &[]), name, &params).is_ok();
    assert!(!may(5, "qm-list", json!({})) && !may(5, "pct-list", json!({})));
    assert!(!may(5, "qm-metrics", json!({})) && may(6, "qm-metrics", json!({})));
    assert!(may(5, "qm-metrics", json!({"vmid": 200})));
    assert!(!may(5, "qm-metrics", json!({"vmid": 150})));
    assert!(may(5, "ovs-list", json!({})));
    assert!(may(6, "qm-list", json!({})) && may(6, "pct-list", json!({})));
    assert!(!may(6, "ovs-list", json!({})));
    assert!(!may(6, "ovs-list", json!({"bridge": "br6"})));
    assert!(may(6, "ovs-list", json!({"bridge": "br7"})));
}

#[test]
fn a_switch_port_named_after_a_machine_is_for_those_who_may_name_the_machine() {
    let rules = rules(
        "rules: [{uid: 5, actions: ['*'], only: {vmids: {first: 200, last: 299}}}]\n\
             allow: {ovs_bridges: [br6], ovs_ports: ['*']}\n",
    );
    let may = |port: &str| {
        let port = json!({"bridge": "br6", "port": port});
        let asked = ["ovs-add-port", "ovs-del-port", "ovs-set-qos"]
            .map(|name| ask(&rules, by(5, 5, &[]), name, &port).is_ok());
        assert!(asked.iter().all(|one| *one == asked[0]), "{asked:?}");
        asked[0]
    };
    for port in [
        "vi200",
        "vi200_3",
        "veth299i0",
        "tap250i12",
        "fwln250o0",
        "uplink",
    ] {
        assert!(may(port), "{port}");
    }
    for port in [
        "vi100",
        "vi300",
        "vi0100",
        "vi100_1",
        "veth199i0",
        "veth0199i0",
        "tap300i1",
        "fwln300o0",
        "fwln300i0",
        "fwpr300p0",
        // No machine's, and named as machines' are.
        "vi-a",
        "tap0",
    ] {
        assert!(!may(port), "{port}");
    }
}

#[test]
fn one_rule_that_permits_suffices_but_two_halves_do_not() {
    let rules = rules(
        "rules:\n\
             - {uid: 5, actions: [qm-clone, qm-start], only: {vmids: {first: 100, last: 199}}}\n\
             - {uid: 5, actions: [qm-clone], only: {vmids: {first: 200, last: 299}}}\n",
    );
    let five = by(5, 5, &[]);
    let clone = |vmid: u32, newid: u32| json!({"vmid": vmid, "newid": newid, "name": "a"});
    assert_eq!(ask(&rules, five, "qm-clone", &clone(250, 251)), Ok(1));
    assert_eq!(ask(&rules, five, "qm-clone", &clone(150, 151)), Ok(0));
    assert!(ask(&rules, five, "qm-clone", &clone(150, 251)).is_err());
    assert!(start(&rules, five, 250).is_err());
}

#[test]
fn a_rule_can_reserve_more_wallets_and_free_none() {
    let rules = rules(
        "rules: [{uid: 5, actions: ['*'], only: {reserved_wallets: [treasury]}}]\n\
             allow: {reserved_wallets: [vault]}",
    );
    let make = |name: &str| {
        ask(
            &rules,
            by(5, 5, &[]),
            "generate-wallet",
            &json!({ "name": name }),
        )
    };
    assert!(make("treasury").is_err() && make("vault").is_err());
    assert!(make("hot").is_ok());
    let any = Action::from_parts("agent-info", &json!({})).expect("valid");
    let lists = rules.lists(0, &any);
    assert!(lists.reserved_wallets.iter().any(|name| name == "vault"));
}

#[test]
fn only_groups_that_a_rule_names_travel() {
    let rules = rules("rules: [{gid: 50, actions: ['*']}, {uid: 3, actions: ['*']}]");
    assert_eq!(rules.telling_groups(&[3, 50, 51]), [50]);
}

#[test]
fn rules_for_the_agents_own_users_are_recognised() {
    for (uid, gid) in [
        (Some(901), None),
        (Some(903), None),
        (Some(904), None),
        (None, Some(901)),
        (None, Some(904)),
    ] {
        assert!(
            rule_for_own_process(&IDENTITIES, uid, gid).is_some(),
            "{uid:?} {gid:?}"
        );
    }
    for (uid, gid) in [
        (Some(0), None),
        (Some(902), None),
        (None, Some(902)),
        (None, Some(0)),
    ] {
        assert!(
            rule_for_own_process(&IDENTITIES, uid, gid).is_none(),
            "{uid:?} {gid:?}"
        );
    }
}
