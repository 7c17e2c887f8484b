//! An IPv6 network from a broker, with the real agent, a real tunnel and packets through it; a broker that lies, one that gives
//! another network than before, and a client that is killed at any moment.

mod broker_world;
#[path = "net_broker/down.rs"]
mod down;
mod net_world;

use std::process::Stdio;

use blockhost_provisioner::config::Config;
use broker_world::{
    Broker, INTERNET, Machine, Manner, OTHER, PREFIX, configure, pings, router, stop_agent,
    tunnel_daemon, world_with_broker,
};
use net_world::{Running, World, in_namespaces, run, stopped, wait_for};
use serde_json::{Value, json};

const FILE: &str = "broker-allocation.json";

fn in_world(test: &str, body: impl FnOnce(&mut World, &Broker, &mut Running)) {
    in_namespaces(test, || {
        if let Some((mut world, broker, mut daemon)) = world_with_broker(test) {
            body(&mut world, &broker, &mut daemon);
        }
    });
}

fn done(world: &World, words: &[&str]) -> Value {
    let (value, code) = world.json(&[&["broker", "--json"], words].concat());
    assert_eq!(code, 0, "{value}\n{}", world.agent_log());
    value
}

/// What it complains about, having changed nothing that can be seen.
fn refused(world: &World, words: &[&str]) -> String {
    let before = seen(world);
    let output = world.blockhost(&[&["broker"], words].concat());
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(seen(world), before, "{error}");
    assert_eq!(error.trim().lines().count(), 1, "{error}");
    error
}

fn kept(world: &World) -> Value {
    match std::fs::read(world.layout.etc().join(FILE)) {
        Ok(bytes) => serde_json::from_slice(&bytes).expect("JSON"),
        Err(_) => Value::Null,
    }
}

/// File, peers, and the ways into and out of the tunnel.
fn seen(world: &World) -> (Value, String, String) {
    let peers = run("wg show wg-broker allowed-ips") + &run("wg show wg-broker endpoints");
    let routes = run("ip -6 route show dev wg-broker");
    (kept(world), peers, routes)
}

fn changes(world: &World) -> usize {
    let records = world.records();
    records
        .iter()
        .filter(|record| record["operation"] != "query")
        .count()
}

fn far(world: &World, words: &str) -> bool {
    pings(world.outside.0.id(), words)
}

/// The bridge of the machines, with their router, as the host's own configuration has it.
fn bridge(prefix: &str) {
    run("ip link add vmbr0 type bridge");
    run("ip link set vmbr0 up");
    run(&format!(
        "ip addr add {}/64 dev vmbr0 nodad",
        router(prefix)
    ));
}

#[test]
fn a_host_gets_a_network_and_its_machines_reach_the_internet_and_are_reached_by_it() {
    in_world(
        "a_host_gets_a_network_and_its_machines_reach_the_internet_and_are_reached_by_it",
        |world, broker, daemon| {
            let error = refused(world, &["renew"]);
            assert!(error.contains("blockhost broker request"), "{error}");
            let first = done(world, &["request"]);
            assert_eq!(
                (&first["prefix"], &first["asked"]),
                (&json!(PREFIX), &json!(true))
            );
            assert_eq!(
                first["steps"],
                json!([
                    "wg-setup",
                    "broker-renew",
                    "wg-set-peers",
                    "route-set",
                    "route-from-set"
                ])
            );
            assert!(
                first["remarks"].to_string().contains("is on no device"),
                "{first}"
            );
            let question = broker.asked().remove(0);
            let own_key = run("wg show wg-broker public-key").trim().to_owned();
            let expected = json!({"wg_pubkey": own_key, "nft_contract": "0x52908400098527886E0F7030069857D2E4169EE7",
                "source": "eip155:31337", "lease_duration": 3600});
            assert_eq!(question, expected);
            assert_eq!(kept(world)["broker_endpoint"], "192.0.2.1:51999");
            // What the machines' addresses are drawn from.
            let config = Config::load(&world.layout).expect("the provisioner's configuration");
            let allocation = config.broker.expect("an allocation");
            assert_eq!(allocation.prefix.to_string(), PREFIX);
            assert_eq!(
                allocation.gateway.map(|g| g.to_string()),
                Some(router(PREFIX))
            );

            bridge(PREFIX);
            let machine = Machine::new("vmbr0", "2001:db8:b10c::5", &router(PREFIX));
            wait_for("the machine reaches the internet", || {
                machine.pings(INTERNET).then_some(())
            });
            assert!(far(world, "2001:db8:b10c::5"), "and is reached by it");
            let way = run(&format!(
                "ip -6 route get {INTERNET} from 2001:db8:b10c::5 iif vmbr0"
            ));
            assert!(way.contains("dev wg-broker"), "{way}");
            let own = run(&format!("ip -6 route get {INTERNET}"));
            assert!(
                own.contains("dev eth0"),
                "the host's own packets go as before: {own}"
            );

            // A packet from outside with a machine's source; and a control that it would have arrived.
            world.outside("ip addr add 2001:db8:b10c::66/128 dev lo");
            machine.run("ip6tables-nft -A INPUT -s 2001:db8:b10c::66 -j ACCEPT");
            let arrived = || {
                let text = machine.run("ip6tables-nft-save -c -t filter");
                let line = text
                    .lines()
                    .find(|line| line.contains("::66"))
                    .expect("the rule");
                !line.starts_with("[0:")
            };
            far(world, "-I 2001:db8:b10c::66 2001:db8:b10c::5");
            assert!(!arrived(), "the broker speaks for machines");
            run(&format!(
                "wg set wg-broker peer {} allowed-ips ::/0",
                broker.key
            ));
            wait_for("without the tunnel's list it arrives", || {
                far(world, "-I 2001:db8:b10c::66 2001:db8:b10c::5");
                arrived().then_some(())
            });

            // Renewing repairs that, and when all is well it asks nobody for anything.
            let renewed = done(world, &["renew"]);
            assert_eq!(
                (&renewed["steps"], &renewed["asked"]),
                (&json!(["wg-set-peers"]), &json!(false))
            );
            let before = (seen(world), changes(world), broker.asked().len());
            let renewed = done(world, &["renew"]);
            assert_eq!(
                (&renewed["steps"], &renewed["remarks"]),
                (&json!([]), &json!([]))
            );
            assert_eq!((seen(world), changes(world), broker.asked().len()), before);
            let (status, code) = world.json(&["broker", "status", "--json"]);
            assert_eq!((&status["needs"], code), (&json!([]), 0), "{status}");
            assert!(
                status["tunnel"]["peers"][0]["last_handshake"].is_u64(),
                "{status}"
            );

            // The host starts anew, and the broker is away: the tunnel does not wait for it.
            broker.will(Manner::Says(
                b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n".to_vec(),
            ));
            daemon.kill();
            *daemon = tunnel_daemon();
            let renewed = done(world, &["renew"]);
            assert_eq!(
                renewed["steps"],
                json!(["wg-setup", "wg-set-peers", "route-set", "route-from-set"])
            );
            assert_eq!(
                run("wg show wg-broker public-key").trim(),
                own_key,
                "its key is kept"
            );
            wait_for("the machine is back", || {
                machine.pings(INTERNET).then_some(())
            });

            // All of it is on record, and no private key is.
            let records = world.records();
            for action in ["broker-renew", "wg-setup", "wg-set-peers", "route-from-set"] {
                assert!(
                    records.iter().any(|record| record["action"] == action),
                    "{action}"
                );
            }
            let keys = world.layout.wireguard_keys();
            let text = serde_json::to_string(&records).expect("JSON");
            for entry in std::fs::read_dir(keys).expect("keys").flatten() {
                let key = std::fs::read_to_string(entry.path()).expect("a key");
                assert!(!text.contains(key.trim()), "a private key is on record");
            }
        },
    );
}

#[test]
fn a_lease_is_renewed_from_its_half_on_and_its_end_is_told_where_somebody_looks() {
    in_world(
        "a_lease_is_renewed_from_its_half_on_and_its_end_is_told_where_somebody_looks",
        |world, broker, _| {
            done(world, &["request"]);
            let end = || kept(world)["lease_until"].as_i64().expect("an end");
            let now = || jiff::Timestamp::now().as_second();
            assert!((now() + 3500..=now() + 3600).contains(&end()), "{}", end());
            // As if half of it had passed.
            configure(world, broker.port(), 86_400);
            let first = end();
            let renewed = done(world, &["renew"]);
            assert_eq!(
                (&renewed["asked"], &renewed["previous"]),
                (&json!(true), &Value::Null)
            );
            assert_eq!(renewed["steps"], json!(["broker-renew"]));
            assert!(end() > first + 80_000);
            assert_eq!(done(world, &["renew"])["asked"], false);
            assert_eq!(done(world, &["renew", "--now"])["asked"], true);
            assert_eq!(broker.asked().len(), 3);

            // It has ended.
            let path = world.layout.etc().join(FILE);
            let text = std::fs::read_to_string(&path).expect("a file");
            let ended = text.replace(&end().to_string(), &(now() - 5).to_string());
            std::fs::write(&path, ended).expect("a file");
            let (status, code) = world.json(&["broker", "--json"]);
            assert_eq!(code, 1, "{status}");
            assert!(
                status["needs"].to_string().contains("has ended"),
                "{status}"
            );
            let (check, _) = world.json(&["config", "check", "--json"]);
            assert!(
                check["problems"].to_string().contains("has ended"),
                "{check}"
            );
            assert_eq!(check["values"]["broker.prefix"], PREFIX);
            let (all, _) = world.json(&["status", "--json"]);
            assert_eq!(all["broker"]["prefix"], PREFIX, "{all}");
            assert!(
                all["broker"]["complaint"].to_string().contains("has ended"),
                "{all}"
            );
            assert_eq!(done(world, &["renew"])["asked"], true);
            let (status, _) = world.json(&["broker", "--json"]);
            assert!(!status["needs"].to_string().contains("ended"), "{status}");
        },
    );
}

#[test]
fn no_lie_of_a_brokers_changes_anything_on_the_host() {
    in_world(
        "no_lie_of_a_brokers_changes_anything_on_the_host",
        |world, broker, _| {
            done(world, &["request"]);
            let own_key = run("wg show wg-broker public-key").trim().to_owned();
            for (key, lie, part) in [
                ("prefix", json!("2000::/3"), "prefix"),
                ("prefix", json!("fe80::/64"), "prefix"),
                ("prefix", json!(OTHER), "neither"),
                ("gateway", json!("fd00::1"), "neither"),
                ("gateway", json!(null), "no gateway"),
                ("broker_pubkey", json!(own_key), "this host's own"),
                ("broker_pubkey", json!("AAAA"), "broker_pubkey"),
                (
                    "broker_endpoint",
                    json!("127.0.0.1:51999"),
                    "broker_endpoint",
                ),
                (
                    "broker_endpoint",
                    json!("192.0.2.2:51999"),
                    "address of this host (eth0)",
                ),
                (
                    "broker_endpoint",
                    json!("[2001:db8:b10c::9]:51999"),
                    "reached by the tunnel",
                ),
                (
                    "broker_endpoint",
                    json!("a.example:51999\nPostUp = x"),
                    "broker_endpoint",
                ),
            ] {
                broker.will_lie(key, &lie);
                for words in [&["renew", "--now"][..], &["request", "--replace-in-use"]] {
                    let error = refused(world, words);
                    assert!(error.contains(part), "{key} {lie}: {error}");
                }
            }
            let answers: [(&[u8], &str); 6] = [
                (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "not an object"),
                (b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", "cannot be asked"),
                (b"HTTP/1.1 302 There\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "sends elsewhere"),
                (b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\n\x1b[J", "403"),
                (b"HTTP/1.1 204 Nothing\r\n\r\n", "204"),
                (b"no HTTP", "cannot be asked"),
            ];
            for (bytes, part) in answers {
                broker.will(Manner::Says(bytes.to_vec()));
                let error = refused(world, &["renew", "--now"]);
                assert!(
                    error.contains(part) && !error.contains('\u{1b}'),
                    "{part}: {error}"
                );
            }
            broker.will_say(&format!("{}{}", " ".repeat(20_000), "{}"));
            let error = refused(world, &["renew", "--now"]);
            assert!(error.contains("longer than"), "{error}");

            // A network that the host is in already; one that the pool does not fit into; one that the policy does not permit.
            std::fs::remove_file(world.layout.etc().join(FILE)).expect("removed");
            run("ip link add vmbr0 type bridge");
            run("ip addr add 2001:db8:b10c::77/64 dev vmbr0 nodad");
            broker.will(Manner::Gives(PREFIX));
            let error = refused(world, &["request"]);
            assert!(
                error.contains("vmbr0 of this host has 2001:db8:b10c::77"),
                "{error}"
            );
            run("ip link del vmbr0");
            let db = world.layout.etc().join("db.yaml");
            let text = std::fs::read_to_string(&db).expect("a file");
            std::fs::write(&db, text.replace("end: 254", "end: 300")).expect("a file");
            broker.will_lie("prefix", &json!("2001:db8:b10c::/120"));
            let error = refused(world, &["request"]);
            assert!(
                error.contains("too small") && error.contains("ipv6_pool"),
                "{error}"
            );
        },
    );
}

#[test]
fn another_network_is_refused_while_machines_use_the_present_one_and_taken_where_that_is_meant() {
    in_world(
        "another_network_is_refused_while_machines_use_the_present_one_and_taken_where_that_is_meant",
        |world, broker, _| {
            done(world, &["request"]);
            broker.will(Manner::Gives(OTHER));
            let machine = json!({"vm_name": "web-1", "vmid": 100, "ip_address": "10.77.0.100", "ipv6_address": "2001:db8:b10c::5",
                "expires_at": "2036-01-01T00:00:00Z", "owner": "x", "status": "active", "created_at": "2026-01-01T00:00:00Z"});
            let database = world.layout.state().join("vms.json");
            let store = |machines: Value| {
                let text = json!({"vms": machines, "next_vmid": 101}).to_string();
                std::fs::write(&database, text).expect("a database");
            };
            store(json!({"web-1": machine}));
            for words in [
                &["renew", "--now"][..],
                &["request"],
                &["request", "--replace"],
            ] {
                let error = refused(world, words);
                assert!(
                    error.contains("web-1")
                        && error.contains(OTHER)
                        && error.contains("destroy or renumber"),
                    "{error}"
                );
            }
            // Who has addresses is not known: that is no permission.
            std::fs::write(&database, "{").expect("damaged");
            let error = refused(world, &["request", "--replace"]);
            assert!(error.contains("not known"), "{error}");
            store(json!({}));
            let error = refused(world, &["renew", "--now"]);
            assert!(error.contains("--replace"), "{error}");
            let replaced = done(world, &["request", "--replace"]);
            assert_eq!(
                (&replaced["prefix"], &replaced["previous"]),
                (&json!(OTHER), &json!(PREFIX))
            );
            let routes = run("ip -6 route show");
            assert!(
                !routes.contains("2001:db8:b10c"),
                "the old ways are gone: {routes}"
            );
            assert!(
                routes.contains(&format!("default from {OTHER} dev wg-broker")),
                "{routes}"
            );

            // Back, although a machine has an address: that is meant.
            store(
                json!({"web-1": {"vm_name": "web-1", "vmid": 100, "ip_address": "10.77.0.100", "ipv6_address": "2001:db8:aaaa::5",
                "expires_at": "2036-01-01T00:00:00Z", "owner": "x", "status": "suspended", "created_at": "2026-01-01T00:00:00Z"}}),
            );
            broker.will(Manner::Gives(PREFIX));
            refused(world, &["request", "--replace"]);
            let replaced = done(world, &["request", "--replace-in-use"]);
            assert_eq!(replaced["previous"], OTHER);
            bridge(PREFIX);
            let machine = Machine::new("vmbr0", "2001:db8:b10c::5", &router(PREFIX));
            wait_for("the new network works", || {
                machine.pings(INTERNET).then_some(())
            });
        },
    );
}

/// Starts the command and kills it at a fail point.
fn killed_at(world: &World, point: &str, words: &[&str]) {
    let at = format!("broker:{point}");
    let mut running = stopped(world, words, ("BLOCKHOST_FAIL_POINT", &at), "broker");
    running.kill();
}

/// Starts a command of which nobody reads what it says.
fn begun(world: &World, words: &[&str]) -> Running {
    let child = world
        .command(&[&["broker"], words].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Running(child.expect("blockhost"))
}

/// Starts a renewal whose broker has heard it and says nothing.
fn waits_for_its_broker(world: &World, broker: &Broker) -> Running {
    let count = broker.asked().len();
    broker.will(Manner::Waits);
    let waiting = begun(world, &["renew", "--now"]);
    wait_for("it asks", || (broker.asked().len() > count).then_some(()));
    waiting
}

#[test]
fn killed_at_any_moment_the_next_run_finishes_what_was_begun() {
    in_world(
        "killed_at_any_moment_the_next_run_finishes_what_was_begun",
        |world, broker, daemon| {
            let finished = |world: &World| {
                let seen = seen(world);
                (seen.0["prefix"].clone(), seen.1, seen.2)
            };
            done(world, &["request"]);
            let expected = finished(world);
            let points = [
                "own-key",
                "answered",
                "kept",
                "wg-set-peers",
                "route-set",
                "route-from-set",
            ];
            for point in points {
                daemon.kill();
                *daemon = tunnel_daemon();
                std::fs::remove_file(world.layout.etc().join(FILE)).expect("removed");
                killed_at(world, point, &["broker", "request"]);
                let there = kept(world);
                let early = ["own-key", "answered"].contains(&point);
                assert_eq!(
                    there["prefix"],
                    if early { Value::Null } else { json!(PREFIX) },
                    "{point}"
                );
                let words: &[&str] = if early { &["request"] } else { &["renew"] };
                done(world, words);
                assert_eq!(finished(world), expected, "{point}");
            }
            // While it waits for the broker.
            let mut waiting = waits_for_its_broker(world, broker);
            waiting.kill();
            broker.will(Manner::Gives(PREFIX));
            assert_eq!(done(world, &["renew"])["steps"], json!([]));
            assert_eq!(finished(world), expected);
            // The agent dies in between: told, and done the next time.
            stop_agent(world);
            let output = world.blockhost(&["broker", "renew"]);
            assert_eq!(output.status.code(), Some(1));
            world.start_agent();
            done(world, &["renew", "--now"]);
            assert_eq!(finished(world), expected);
            let verified = world.blockhost(&["ledger", "verify"]);
            assert!(verified.status.success(), "{verified:?}");
        },
    );
}
