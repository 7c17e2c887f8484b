//! What goes wrong around the compartment: no switch, a switch that stalls, dies or comes back; and its
//! work under the confinement that it really gets.

mod compartment_world;
mod ovs_world;

use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use blockhost_ledger::failpoint::meanwhile;
use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Backend, Handler, Identities, Identity, ovs};
use blockhost_root_agent::confine::irrevocably_confine;
use blockhost_root_agent::confine::profile::{Inputs, profile};
use blockhost_root_agent::ipc::Role;
use blockhost_root_agent::policy::LandlockChoice;
use compartment_world::{GROUP, USER, World, in_namespace, tool};
use ovs_world::{Switch, eventually, failed, veth, with_switch};
use serde_json::{Value, json};

fn drop_all() -> Value {
    json!({"bridge": "br0", "owner": "a", "flows": [{"priority": 5, "actions": ["drop"]}]})
}

#[test]
fn a_host_without_a_switch_says_so_and_nothing_else_happens() {
    in_namespace(
        "a_host_without_a_switch_says_so_and_nothing_else_happens",
        || {
            let world = World::new();
            let handler = world.start(ovs::prepare).expect("it starts all the same");
            for (name, params) in [
                ("ovs-list", json!({})),
                ("ovs-add-br", json!({"bridge": "br0"})),
                ("ovs-add-port", json!({"bridge": "br0", "port": "x"})),
                ("ovs-set-flows", drop_all()),
            ] {
                let failure = world.ask(&*handler, name, &params).expect_err("no switch");
                assert_eq!(failure.code, ErrorCode::Failed);
                assert!(
                    failure
                        .message
                        .contains("is the package openvswitch-switch installed"),
                    "{}",
                    failure.message
                );
            }
        },
    );
}

#[test]
fn a_switch_that_stalls_is_a_timeout_and_the_port_is_taken_back() {
    with_switch(
        "a_switch_that_stalls_is_a_timeout_and_the_port_is_taken_back",
        |switch| {
            switch.bridge("br0");
            veth("vi100");
            switch.freeze_daemon(true);
            // With more and more time: a database on a busy machine may need a while until there is something to take away.
            let within = |name: &str, params: &Value, last_words: &str| {
                let times = [1, 4, 16, 60].map(Duration::from_secs);
                let mut failures = times.into_iter().map(|soon| {
                    switch
                        .world
                        .ask_within(&*switch.handler, name, params, soon)
                        .expect_err("nobody acts")
                });
                let told = failures.find(|failure| failure.message.ends_with(last_words));
                told.unwrap_or_else(|| panic!("{name}: it never says {last_words}"))
            };
            let port = json!({"bridge": "br0", "port": "vi100"});
            let failure = within("ovs-add-port", &port, "it was taken away again");
            assert_eq!(failure.code, ErrorCode::Timeout, "{}", failure.message);
            within(
                "ovs-add-br",
                &json!({"bridge": "br1"}),
                "it was taken away again",
            );
            let failure = within("ovs-set-flows", &drop_all(), "");
            assert_eq!(failure.code, ErrorCode::Timeout, "{}", failure.message);
            assert_eq!(
                switch.vsctl("--no-wait --columns=name list Port"),
                "name                : br0"
            );
            switch.freeze_daemon(false);
            switch.must("ovs-add-port", &port);
            switch.must("ovs-set-flows", &drop_all());
        },
    );
}

#[test]
fn a_switch_killed_in_the_middle_is_an_error_and_its_successor_serves() {
    with_switch(
        "a_switch_killed_in_the_middle_is_an_error_and_its_successor_serves",
        |switch| {
            switch.bridge("br0");
            switch.freeze_daemon(true);
            let result = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| switch.ask("ovs-set-flows", &drop_all()));
                // It waits for the greeting now, or connects to a socket that will never be served.
                assert!(eventually(
                    || connections(switch) > 0 || waiting.is_finished()
                ));
                tool(&format!("kill -KILL {}", switch.daemon_id()));
                waiting.join().expect("no panic")
            });
            let failure = result.expect_err("the switch is dead");
            assert_eq!(failure.code, ErrorCode::Failed, "{}", failure.message);
            switch.kill_daemon();
            let failure = switch
                .ask("ovs-set-flows", &drop_all())
                .expect_err("still dead");
            assert_eq!(failure.code, ErrorCode::Failed, "{}", failure.message);
            switch.start_daemon();
            assert!(
                eventually(|| switch.ask("ovs-set-flows", &drop_all()).is_ok()),
                "{}",
                switch.log()
            );
            assert_eq!(switch.flows("br0").len(), 2);
        },
    );
}

/// A bridge with a meter and the flows of two owners; the flows and meters of it, as text.
fn with_flows(switch: &Switch) -> String {
    let meter = json!({"bridge": "br0", "meter": 1, "rate": 1000});
    switch.must("ovs-set-meter", &meter);
    set_flows(switch, "a");
    set_flows(switch, "b");
    held(switch)
}

fn set_flows(switch: &Switch, owner: &str) {
    let flows = match owner {
        "a" => json!([{"priority": 5, "actions": [{"meter": 1}, "normal"]}]),
        _ => json!([{"priority": 6, "match": {"dl_type": "arp"}, "actions": ["drop"]}]),
    };
    let params = json!({"bridge": "br0", "owner": owner, "flows": flows});
    switch.must("ovs-set-flows", &params);
}

fn held(switch: &Switch) -> String {
    let list = switch.list(&json!({"bridge": "br0"}));
    let bridge = &list["bridges"][0];
    let owners = bridge["owners"].as_array().expect("owners").iter();
    let owners: Vec<Value> = owners
        .filter(|owner| owner["owner"].is_string())
        .map(|owner| json!([owner["owner"], owner["flows"], owner["as_set"]]))
        .collect();
    let meters = bridge["meters"].as_array().expect("meters").len();
    json!([owners, meters, bridge["flows_lost"]]).to_string()
}

/// A request for the `fail_mode` that the bridge does not have.
fn other_mode(switch: &Switch) -> Value {
    let mode = match &*switch.vsctl("get Bridge br0 fail_mode") {
        "secure" => "standalone",
        _ => "secure",
    };
    json!({"bridge": "br0", "options": {"fail_mode": mode}})
}

#[test]
fn flows_come_back_also_when_nobody_hears_of_the_end_of_a_change_of_fail_mode() {
    let test = "flows_come_back_also_when_nobody_hears_of_the_end_of_a_change_of_fail_mode";
    with_switch(test, |switch| {
        switch.bridge("br0");
        let daemon = switch.daemon_id();
        // With more and more time, as a busy machine may need it before and after.
        let mut last = String::new();
        let times = [3, 9, 27, 60].map(Duration::from_secs);
        let told = times.into_iter().any(|soon| {
            assert_eq!(
                with_flows(switch),
                r#"[[["b",1,true],["a",1,true]],1,null]"#
            );
            let stopped = format!("kill -STOP {daemon}");
            let on = format!("kill -CONT {daemon}");
            meanwhile("ovs-fail-mode-kept", move || {
                tool(&stopped);
                meanwhile("ovs-fail-mode-awaited", move || {
                    tool(&on);
                });
            });
            let params = other_mode(switch);
            let asked = switch
                .world
                .ask_within(&*switch.handler, "ovs-add-br", &params, soon);
            let failure = asked.expect_err("nobody acts in time");
            assert_eq!(failure.code, ErrorCode::Timeout, "{}", failure.message);
            last = failure.message;
            last.contains("its flows and meters were put back")
        });
        assert!(told, "{last}");
        // The switch has acted on everything by then.
        let mode = switch.vsctl("get Bridge br0 fail_mode");
        assert_eq!(held(switch), r#"[[["b",1,true],["a",1,true]],1,true]"#);
        // Whoever asks again has that known.
        let again = json!({"bridge": "br0", "options": {"fail_mode": mode}});
        let done = switch.must("ovs-add-br", &again);
        assert_eq!(done.extra.get("flows_lost"), None, "{}", done.output);
        assert_eq!(held(switch), r#"[[["b",1,true],["a",1,true]],1,null]"#);
    });
}

#[test]
fn a_bridge_whose_flows_went_with_an_agent_that_was_killed_says_so_until_all_are_set_again() {
    let test =
        "a_bridge_whose_flows_went_with_an_agent_that_was_killed_says_so_until_all_are_set_again";
    with_switch(test, |switch| {
        switch.bridge("br0");
        with_flows(switch);
        let params = other_mode(switch);
        // Nothing that follows this point is done, as after kill -9.
        meanwhile("ovs-fail-mode-committed", || panic!("cut off"));
        let cut = AssertUnwindSafe(|| switch.ask("ovs-add-br", &params));
        assert!(std::panic::catch_unwind(cut).is_err(), "it went on");
        // Returns when the switch has acted on everything.
        switch.vsctl("set Bridge br0 external_ids:seen=1");
        assert_eq!(held(switch), r#"[[["b",0,false],["a",0,false]],0,true]"#);
        // What was asked for is reached: whoever has to reach it, to take a change back, need not try for ever.
        let lost = |params: &Value| {
            let done = switch.must("ovs-add-br", params);
            assert_eq!(done.extra["flows_lost"], true);
            assert!(done.output.contains("may be lost"), "{}", done.output);
        };
        lost(&params);
        let meter = json!({"bridge": "br0", "meter": 1, "rate": 1000});
        switch.must("ovs-set-meter", &meter);
        set_flows(switch, "a");
        lost(&params);
        // A change that is seen through does not bring back what an earlier one lost.
        lost(&other_mode(switch));
        assert_eq!(held(switch), r#"[[["b",0,false],["a",1,true]],1,true]"#);
        // Who was refused has nothing to lose: a place that is another's, a meter that is not there.
        for (actions, why) in [
            (json!(["drop"]), ErrorCode::Conflict),
            (json!([{"meter": 99}, "normal"]), ErrorCode::Failed),
        ] {
            let priority = if why == ErrorCode::Conflict { 5 } else { 9 };
            let flows = json!([{"priority": priority, "actions": actions}]);
            let params = json!({"bridge": "br0", "owner": "c", "flows": flows});
            failed(
                switch.ask("ovs-set-flows", &params),
                why,
                "nothing was changed",
            );
        }
        set_flows(switch, "b");
        assert_eq!(held(switch), r#"[[["b",1,true],["a",1,true]],1,null]"#);
        switch.must("ovs-add-br", &other_mode(switch));
        assert_eq!(held(switch), r#"[[["b",1,true],["a",1,true]],1,null]"#);
    });
}

/// Connections to the bridge's management socket that are not taken yet.
fn connections(switch: &Switch) -> usize {
    let path = switch.directory().join("br0.mgmt");
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("a list");
    let path = path.to_str().expect("text");
    // The listener is one of them.
    sockets
        .lines()
        .filter(|line| line.ends_with(path))
        .count()
        .saturating_sub(1)
}

#[test]
fn a_restarted_database_is_found_again() {
    with_switch("a_restarted_database_is_found_again", |switch| {
        switch.bridge("br0");
        switch.list(&json!({}));
        switch.kill_database();
        let failure = switch.ask("ovs-list", &json!({})).expect_err("it is gone");
        assert_eq!(failure.code, ErrorCode::Failed, "{}", failure.message);
        switch.start_database();
        assert_eq!(switch.list(&json!({}))["bridges"][0]["name"], "br0");
        veth("vi100");
        switch.must("ovs-add-port", &json!({"bridge": "br0", "port": "vi100"}));
        // And the same with a connection that was kept.
        switch.kill_database();
        switch.start_database();
        assert_eq!(switch.list(&json!({}))["bridges"][0]["ours"], true);
    });
}

/// Set in the process that locks itself in.
const CONFINED: &str = "BLOCKHOST_TEST_CONFINED";

#[test]
fn the_switch_is_driven_from_inside_the_confinement() {
    const TEST: &str = "the_switch_is_driven_from_inside_the_confinement";
    if let Some(root) = std::env::var_os(CONFINED) {
        return confined(&World::at(Path::new(&root)));
    }
    with_switch(TEST, |switch| {
        veth("vi100");
        #[expect(clippy::disallowed_methods, reason = "a test starts itself again")]
        let status = std::process::Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", TEST, "--nocapture"])
            .env(CONFINED, switch.world.path())
            // As the process itself does at its start: a second arena makes the allocator open a file of /proc.
            .env("MALLOC_ARENA_MAX", "1")
            .status()
            .expect("it starts");
        assert!(
            status.success(),
            "{TEST} failed inside: {status}\n{}",
            switch.log()
        );
        assert_eq!(switch.vsctl("list-ports br0"), "vi100");
        assert_eq!(switch.flows("br0").len(), 2);
    });
}

fn confined(world: &World) {
    let handler: Box<dyn Handler> = world.start(ovs::prepare).expect("an ovs compartment");
    let identity = Identity {
        uid: USER,
        gid: GROUP,
    };
    let identities = Identities {
        agent: identity,
        blockhost: identity,
        vm: identity,
        image: identity,
    };
    let inputs = Inputs {
        layout: &world.layout,
        identities,
        backend: Backend::Embedded,
        landlock: LandlockChoice::Required,
        wireguard: blockhost_root_agent::policy::WireguardChoice::Kernel,
        programs: &[],
        image_dirs: &[],
        template_dirs: &[],
        image_network: false,
        attach: false,
    };
    irrevocably_confine(&profile(Role::Ovs, &inputs)).expect("confined");
    for (name, params) in [
        (
            "ovs-add-br",
            json!({"bridge": "br0", "options": {"datapath_type": "netdev"}}),
        ),
        ("ovs-add-port", json!({"bridge": "br0", "port": "vi100"})),
        (
            "ovs-set-meter",
            json!({"bridge": "br0", "meter": 1, "rate": 1000}),
        ),
        ("ovs-set-flows", drop_all()),
        ("ovs-list", json!({"flows": true})),
    ] {
        if let Err(failure) = world.ask(&*handler, name, &params) {
            panic!("{name}: {}", failure.message);
        }
    }
    assert!(
        UnixStream::connect(world.layout.switch_sockets().join("db.sock")).is_err(),
        "the host's paths lead somewhere"
    );
    assert!(UnixStream::connect("/db.sock").is_ok());
}
