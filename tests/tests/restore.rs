//! `blockhost net restore` with the real agent, its ledger and the kernel's rules: what was opened and mapped comes back after
//! everything was flushed, what is not on record goes, and what is others' stays.

mod state_ground;

use blockhost_tests::world::services::start_agent;
use rustix::process::Signal;
use serde_json::{Value, json};
use state_ground::{Ground, eventually, ground, tool};

fn call(ground: &Ground, words: &[&str]) {
    let ended = ground.blockhost(&[&["agent", "call"][..], words].concat());
    assert_eq!(ended.code, 0, "{words:?}: {ended:?}");
}

fn restore(ground: &Ground, more: &[&str]) -> (i32, Value) {
    let ended = ground.blockhost(&[&["net", "restore", "--json"][..], more].concat());
    assert!(
        ended.code == 0 || ended.code == 2,
        "{ended:?}\n{}",
        ground.log()
    );
    (ended.code, ended.json())
}

fn saved(table: &str) -> Vec<String> {
    let lines = tool(&format!("iptables-nft-save -t {table}"));
    let rules = lines.lines().filter(|line| line.contains("BLOCKHOST"));
    rules
        .filter(|line| line.starts_with("-A"))
        .map(|line| line.replace('"', ""))
        .collect()
}

const WEB: &str = "-A BLOCKHOST-INPUT -p tcp -m tcp --dport 443 -m comment --comment web -j ACCEPT";
const JUMP: &str = "-A INPUT -j BLOCKHOST-INPUT";
const DNAT: &str = "-A BLOCKHOST-DNAT -d 203.0.113.5/32 -m comment --comment vm-100 -j DNAT --to-destination 10.0.0.5";

#[test]
fn what_is_on_record_comes_back_what_is_not_goes_and_what_is_others_stays() {
    const TEST: &str = "what_is_on_record_comes_back_what_is_not_goes_and_what_is_others_stays";
    let Some(mut ground) = ground(TEST) else {
        return;
    };
    let (code, empty) = restore(&ground, &[]);
    assert_eq!((code, &empty["ports"]), (0, &json!([])));
    assert!(saved("filter").is_empty(), "nothing is made for nothing");
    call(&ground, &["iptables-open", "port=443", "comment=web"]);
    call(&ground, &["iptables-open", "port=80", "comment=web"]);
    call(&ground, &["iptables-close", "port=80", "comment=web"]);
    call(&ground, &["iptables-open", "port=22", "comment=knock-1"]);
    let pair = ["public=203.0.113.5", "private=10.0.0.5", "comment=vm-100"];
    call(&ground, &[&["nat-map"][..], &pair[..]].concat());
    assert_eq!(saved("filter").len(), 3);

    // As a start of the machine leaves it, with the rules of somebody else; and an agent that was killed.
    tool("nft flush ruleset");
    tool("nft add table inet theirs");
    tool("nft add chain inet theirs input { type filter hook input priority 5 ; policy drop ; }");
    tool("iptables-nft -A INPUT -p tcp --dport 9 -j DROP");
    let theirs = tool("nft list table inet theirs");
    ground.agent.signal(Signal::KILL);
    eventually("the agent is dead", || ground.agent.check().is_err());
    ground.agent = start_agent(&ground.world).expect("the agent starts again");
    let (_, looked) = restore(&ground, &["--dry-run"]);
    assert_eq!(looked["ports"], json!(["443/tcp (web)"]));
    assert!(saved("filter").is_empty(), "a look changes nothing");

    let (code, done) = restore(&ground, &[]);
    assert_eq!(code, 0, "{done:#}");
    assert_eq!(done["ports"], json!(["443/tcp (web)"]));
    assert_eq!(done["pairs"], json!(["203.0.113.5 for 10.0.0.5 (vm-100)"]));
    assert_eq!(saved("filter"), [JUMP, WEB], "and no knock");
    assert!(tool("ip6tables-nft-save").contains("--dport 443"));
    assert!(saved("nat").contains(&DNAT.to_owned()));
    assert_eq!(tool("nft list table inet theirs"), theirs);
    assert!(tool("iptables-nft-save").contains("-A INPUT -p tcp -m tcp --dport 9 -j DROP"));

    // In our chains, made by hand; and one by the agent that was open for a moment only.
    tool("iptables-nft -A BLOCKHOST-INPUT -p tcp --dport 23 -j ACCEPT");
    tool("iptables-nft -I BLOCKHOST-INPUT -p tcp --dport 24 -m comment --comment web -j ACCEPT");
    tool("iptables-nft -t nat -A BLOCKHOST-DNAT -d 203.0.113.6 -j DNAT --to-destination 10.0.0.6");
    call(&ground, &["iptables-open", "port=22", "comment=knock-2"]);
    let nat = saved("nat");
    restore(&ground, &[]);
    assert_eq!(saved("filter"), [JUMP, WEB]);
    assert_eq!(saved("nat").len(), nat.len() - 1);
    // The same again changes nothing in the kernel.
    let handles = tool("nft -a list ruleset");
    restore(&ground, &[]);
    assert_eq!(tool("nft -a list ruleset"), handles);

    // What is given up after a restore stays given up after the next.
    call(&ground, &[&["nat-unmap"][..], &pair[..]].concat());
    call(&ground, &["iptables-open", "port=444", "comment=web"]);
    tool("nft flush ruleset");
    let (_, done) = restore(&ground, &[]);
    assert_eq!(done["ports"], json!(["443/tcp (web)", "444/tcp (web)"]));
    assert_eq!(done["pairs"], json!([]));
}

#[test]
fn what_the_policy_does_not_permit_any_more_is_left_out_and_said() {
    const TEST: &str = "what_the_policy_does_not_permit_any_more_is_left_out_and_said";
    let Some(mut ground) = ground(TEST) else {
        return;
    };
    call(&ground, &["iptables-open", "port=443", "comment=web"]);
    call(&ground, &["iptables-open", "port=8443", "comment=web"]);
    let policy = ground.world.layout.agent_policy();
    let text = std::fs::read_to_string(&policy).expect("a policy");
    let narrow = text.replace("allow:\n", "allow:\n  firewall_ports: ['1-1023']\n");
    assert_ne!(narrow, text);
    std::fs::write(&policy, narrow).expect("a policy");
    ground.agent.signal(Signal::KILL);
    eventually("the agent is dead", || ground.agent.check().is_err());
    ground.agent = start_agent(&ground.world).expect("the agent starts again");
    tool("nft flush ruleset");
    let (code, done) = restore(&ground, &[]);
    assert_eq!(code, 2, "{done:#}");
    assert_eq!(done["left_out"], json!(["8443/tcp (web)"]));
    assert_eq!(saved("filter"), [JUMP, WEB]);
}
