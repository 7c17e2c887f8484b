//! The network is given up, and nothing of it is left, also when that was killed in between.

use super::*;

/// No file, no tunnel, no way into or out of it.
fn nothing_is_left(world: &World) {
    assert_eq!(kept(world), Value::Null);
    let links = run("ip -o link show");
    assert!(!links.contains("wg-broker"), "{links}");
    for table in ["ip -6 route show", "ip -6 rule show"] {
        let routes = run(table);
        assert!(!routes.contains("b10c"), "{table}: {routes}");
    }
}

#[test]
fn a_network_is_given_up_when_no_machine_uses_it_and_nothing_of_it_is_left() {
    in_world(
        "down::a_network_is_given_up_when_no_machine_uses_it_and_nothing_of_it_is_left",
        |world, broker, daemon| {
            done(world, &["request"]);
            let machine = json!({"vm_name": "web-1", "vmid": 100, "ip_address": "10.77.0.100", "ipv6_address": "2001:db8:b10c::5",
                "expires_at": "2036-01-01T00:00:00Z", "owner": "x", "status": "active", "created_at": "2026-01-01T00:00:00Z"});
            let database = world.layout.state().join("vms.json");
            let store = |machines: Value| {
                let text = json!({"vms": machines, "next_vmid": 101}).to_string();
                std::fs::write(&database, text).expect("a database");
            };
            store(json!({"web-1": machine}));
            let error = refused(world, &["down"]);
            assert!(
                error.contains("web-1") && error.contains("--in-use"),
                "{error}"
            );
            std::fs::write(&database, "{").expect("damaged");
            let error = refused(world, &["down"]);
            assert!(error.contains("not known"), "{error}");
            store(json!({}));
            // Without the agent the tunnel would stay.
            stop_agent(world);
            refused(world, &["down"]);
            world.start_agent();

            let gone = done(world, &["down"]);
            assert_eq!(
                (&gone["given_up"], &gone["tunnel_removed"], &gone["remarks"]),
                (&json!(PREFIX), &json!(true), &json!([])),
            );
            nothing_is_left(world);
            let recorded = world.records();
            let given_up = recorded
                .iter()
                .filter(|record| record["action"] == "broker-given-up");
            assert_eq!(given_up.count(), 1);
            let again = done(world, &["down"]);
            assert_eq!(again["given_up"], Value::Null);
            let output = world.blockhost(&["broker", "renew"]);
            let error = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(1));
            assert!(error.contains("no allocation"), "{error}");

            // Killed in between: told, and finished by the next run. A machine is no obstacle where that is meant.
            daemon.kill();
            *daemon = tunnel_daemon();
            done(world, &["request"]);
            store(json!({"web-1": machine}));
            killed_at(world, "given-up", &["broker", "down", "--in-use"]);
            assert_eq!(kept(world), Value::Null);
            let (status, code) = world.json(&["broker", "--json"]);
            assert_eq!(code, 1, "{status}");
            assert!(
                status["needs"]
                    .to_string()
                    .contains("without an allocation"),
                "{status}"
            );
            let gone = done(world, &["down"]);
            assert_eq!(gone["tunnel_removed"], true);
            nothing_is_left(world);
            assert!(broker.asked().len() >= 2);
        },
    );
}

#[test]
fn two_runs_at_once_take_turns() {
    in_world("down::two_runs_at_once_take_turns", |world, broker, _| {
        done(world, &["request"]);
        // One renews, and its broker is slow.
        let mut renewing = waits_for_its_broker(world, broker);
        let mut waiting = begun(world, &["down"]);
        // It has the lock's file open, and waits for it.
        let lock = world.layout.state().join("broker.lock");
        wait_for("it waits", || {
            let open = std::fs::read_dir(format!("/proc/{}/fd", waiting.0.id())).ok()?;
            let mut files = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
            files.any(|file| file == lock).then_some(())
        });
        assert_eq!(kept(world)["prefix"], PREFIX);
        assert!(waiting.0.try_wait().expect("a child").is_none());
        renewing.kill();
        let ended = wait_for("its turn", || waiting.0.try_wait().expect("a child"));
        assert!(ended.success());
        nothing_is_left(world);
    });
}
