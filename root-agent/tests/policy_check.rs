//! `check-policy` as an operator uses it: exit codes, warnings, JSON, and the answer to "would this be allowed".

mod common;

use std::process::Command;

use common::World;
use serde_json::Value;

struct Said {
    code: i32,
    out: String,
    err: String,
}

fn check(world: &World, arguments: &[&str]) -> Said {
    #[expect(clippy::disallowed_methods, reason = "the program under test")]
    let output = Command::new(env!("CARGO_BIN_EXE_blockhost-root-agent"))
        .arg("check-policy")
        .args(arguments)
        .env("BLOCKHOST_ROOT", world.layout.root())
        .output()
        .expect("run");
    Said {
        code: output.status.code().expect("a code"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}{}", said.out, said.err))
}

const RULES: &str = "rules:\n\
    - {user: 0, actions: ['*']}\n\
    - {user: 65001, actions: ['qm-*'], only: {vmids: {first: 200, last: 299}}}\n\
    - {group: 65100, socket: lane, actions: [qm-list]}\n\
    - {user: 65002, actions: ['*']}\n\
    sockets: {lane: {group: 65100}}\n";

#[test]
fn a_good_file_is_shown_with_what_may_not_be_meant() {
    let world = World::new(RULES);
    let said = check(&world, &[]);
    assert_eq!(said.code, 0, "{}", said.err);
    for part in [
        "can be used",
        "2. user 65001: qm-*",
        "rules: rule 4: lets user 65002 have everything done",
        "rules: rule 2: qm-list",
        "allow.route_prefixes",
    ] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    let said = check(&world, &["--json"]);
    let shown = json(&said);
    assert_eq!((said.code, &shown["ok"]), (0, &Value::Bool(true)));
    assert_eq!(
        shown["policy"]["limits"]["in_flight"], 32,
        "defaults are written out"
    );
    let keys: Vec<&str> = shown["warnings"]
        .as_array()
        .expect("warnings")
        .iter()
        .filter_map(|warning| warning["key"].as_str())
        .collect();
    assert!(keys.contains(&"rules: rule 4") && keys.contains(&"allow.route_prefixes"));
}

#[test]
fn a_bad_file_is_an_error_with_its_place_whoever_owns_it() {
    let world = World::new("");
    let draft = world.layout.root().join("draft.yaml");
    let path = draft.to_str().expect("text").to_owned();
    std::os::unix::fs::symlink(world.layout.etc(), world.layout.root().join("link")).expect("link");
    std::fs::write(world.layout.etc().join("x"), "#!/bin/sh\n").expect("a program");
    for (text, named) in [
        ("rulez: []\n", "rulez"),
        (
            "rules: [{user: no-such-user, actions: ['*']}]\n",
            "no-such-user",
        ),
        ("rules: [{user: 64103, actions: ['*']}]\n", "taken over"),
        ("sockets: {lane: {group: no-such-group}}\n", "no-such-group"),
        (
            "rules: [{user: 0, actions: ['*'], only: {}}]\n",
            "narrows nothing",
        ),
        (
            "rules: [{user: 0, actions: ['*'], only: {route_prefixes: []}}]\n",
            "any address",
        ),
        (
            "rules: [{user: , socket: root-agent, actions: ['*']}]\n",
            "nothing is given",
        ),
        (
            "rules: [{user: 0, actions: ['*'], only: }]\n",
            "nothing is given",
        ),
        ("rules: [{user: 0, group: 0, actions: ['*']}]\n", "rule 1"),
        (
            "sockets: {a: {group: 0, path: x.sock}, b: {group: 0, path: x.sock}}\n",
            "another socket",
        ),
        ("sockets: {root-agent: {group: 0}}\n", "another socket"),
        ("rates: {read: {per_minute: 0}}\n", "no rate"),
        // Where the keys process puts files: it would be root by one of them.
        ("programs: {qm: ROOT/etc/blockhost/x}\n", "programs.qm"),
        ("programs: {pct: ROOT/link/x}\n", "programs.pct"),
        (
            "programs: {xtables: ROOT/etc/blockhost/unfinished/x}\n",
            "no program is run from",
        ),
    ] {
        let text = text.replace("ROOT", world.layout.root().to_str().expect("text"));
        // The identities of the world, in front of what is tested.
        world.write_policy(&text);
        std::fs::copy(world.layout.agent_policy(), &draft).expect("copy");
        let ordinary = rustix::fs::Uid::from_raw(65_001);
        rustix::fs::chown(&draft, Some(ordinary), None).expect("chown");
        let said = check(&world, &[&path]);
        assert_eq!(said.code, 1, "{text}: {}", said.out);
        assert!(said.err.contains(named), "{text}: {}", said.err);
        let said = check(&world, &[&path, "--json"]);
        let shown = json(&said);
        assert_eq!((said.code, &shown["ok"]), (1, &Value::Bool(false)));
    }
    let missing = check(&world, &["/nonexistent/root-agent.yaml"]);
    assert_eq!(
        missing.code, 1,
        "a file that is not there is not the default policy"
    );
}

#[test]
fn the_longest_policy_that_is_read_is_the_longest_that_is_taken() {
    let world = World::new("");
    let path = world.layout.agent_policy();
    let text = std::fs::read_to_string(&path).expect("a policy");
    let filled = |bytes: usize| format!("{text}#{}\n", "x".repeat(bytes - text.len() - 2));
    std::fs::write(&path, filled(65_536)).expect("written");
    let said = check(&world, &[]);
    assert_eq!(said.code, 0, "{}", said.err);
    std::fs::write(&path, filled(65_537)).expect("written");
    let said = check(&world, &[]);
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.err.contains("at most 65536 are read"), "{}", said.err);
}

#[test]
fn whether_a_request_would_be_allowed_is_answered_by_the_rules_themselves() {
    let world = World::new(RULES);
    for (arguments, code, said) in [
        (&["--as", "root", "qm-start", "vmid=100"][..], 0, "rule 1"),
        (
            &["--as", "65001:65001", "qm-start", "vmid=200"],
            0,
            "rule 2 (user 65001)",
        ),
        (
            &["--as", "65001:65001", "qm-start", "vmid=300"],
            3,
            "only.vmids",
        ),
        (
            &["--as", "65001:65001", "agent-info"],
            3,
            "may not use agent-info",
        ),
        (
            &["--as", "7:65100", "qm-list"],
            3,
            "no rule is for this caller",
        ),
        (
            &["--as", "7:65100", "--socket", "lane", "qm-list"],
            0,
            "rule 3",
        ),
        (
            &["--as", "7:7", "--socket", "lane", "qm-list"],
            3,
            "no rule",
        ),
        (&["--as", "64103:64102", "qm-list"], 3, "own processes"),
        (
            &[
                "--as",
                "65002:7",
                "qm-create",
                "vmid=100",
                "name=a",
                r#"args=["--memory","512"]"#,
            ],
            0,
            "rule 4",
        ),
        (
            &[
                "--as",
                "65002:7",
                "qm-create",
                "vmid=100",
                "name=a",
                r#"args=["--net0","virtio,bridge=br9"]"#,
            ],
            3,
            "allow.bridges",
        ),
        (&["--as", "root", "qm-begin"], 2, ""),
        (&["--as", "root", "qm-start", "vmid=x"], 2, ""),
        (&["--as", "no-such-user", "qm-list"], 2, ""),
        (&["--as", "root"], 2, ""),
        (&["--socket", "lane"], 2, ""),
        (&["a", "b"], 2, ""),
    ] {
        let answer = check(&world, arguments);
        let all = format!("{arguments:?}: {}{}", answer.out, answer.err);
        assert_eq!(answer.code, code, "{all}");
        assert!(answer.out.contains(said), "{all}");
    }
    let answer = check(
        &world,
        &["--json", "--as", "65001:65001", "qm-start", "vmid=300"],
    );
    let shown = json(&answer);
    assert_eq!(
        (answer.code, &shown["allowed"], &shown["rule"]),
        (3, &Value::Bool(false), &Value::Null)
    );
    // A draft, before it is put in place.
    let draft = world.layout.root().join("draft.yaml");
    world.write_policy("rules: [{user: 65001, actions: [agent-info]}]\n");
    std::fs::rename(world.layout.agent_policy(), &draft).expect("rename");
    world.write_policy(RULES);
    let file = draft.to_str().expect("text");
    let arguments = ["--file", file, "--as", "65001:65001", "agent-info"];
    assert_eq!(check(&world, &arguments).code, 0);
}

/// What an upgrade asks before it starts the agent anew: files that an earlier version took end it.
#[test]
fn what_keeps_the_agent_from_starting_is_said_before_it_is_started() {
    let world = World::new(RULES);
    assert_eq!(check(&world, &[]).code, 0);
    for (name, text) in [
        ("ledger-witnesses", "quorum none\n"),
        ("root-agent.yaml", RULES),
    ] {
        let file = world.layout.etc().join(name);
        std::fs::write(&file, text).expect("written");
        // As the group of the services has it by the manual of an earlier version.
        std::os::unix::fs::chown(&file, None, Some(1)).expect("chown");
        let said = check(&world, &[]);
        assert_eq!(said.code, 1, "{name}: {}", said.out);
        let advice = format!("chown root:root {}", file.display());
        assert!(said.err.contains(&advice), "{name}: {}", said.err);
        std::os::unix::fs::chown(&file, None, Some(0)).expect("chown");
        assert_eq!(check(&world, &[]).code, 0, "{name}");
    }
}
