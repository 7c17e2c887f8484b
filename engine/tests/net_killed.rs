//! Whoever is killed, and whenever, while an uplink is changed on a real switch with the real agent: everything is as it was.

mod net_world;

use std::process::Stdio;

use net_world::{World, attach, guards, in_world, kill, stopped_at, wait_for};
use serde_json::{Value, json};

const POINTS: [&str; 9] = [
    "recorded",
    "watched",
    "starting-0",
    "done-0",
    "starting-1",
    "done-1",
    "starting-2",
    "done-2",
    "judged",
];

#[test]
fn killed_at_any_step_the_change_is_taken_back_by_the_process_that_watches() {
    in_world(
        "killed_at_any_step_the_change_is_taken_back_by_the_process_that_watches",
        |world| {
            let before = world.snapshot();
            let mut connection = world.connection();
            for point in &POINTS[1..] {
                let mut command = stopped_at(world, "BLOCKHOST_FAIL_POINT", point, &[]);
                assert_eq!(guards().len(), 1, "{point}");
                command.kill();
                world.is_again(&before, point);
                world.is_over();
                connection.is_alive(point);
            }
        },
    );
}

#[test]
fn with_the_agent_killed_as_well_it_is_taken_back_when_the_agent_is_there_again() {
    in_world(
        "with_the_agent_killed_as_well_it_is_taken_back_when_the_agent_is_there_again",
        |world| {
            let before = world.snapshot();
            for point in &POINTS[1..] {
                let mut command = stopped_at(world, "BLOCKHOST_FAIL_POINT", point, &[]);
                world.kill_agent();
                command.kill();
                std::thread::sleep(std::time::Duration::from_millis(300));
                assert_eq!(guards().len(), 1, "it waits for the agent: {point}");
                world.start_agent();
                world.is_again(&before, point);
                world.is_over();
            }
        },
    );
}

#[test]
fn with_everybody_killed_the_next_command_takes_it_back() {
    in_world(
        "with_everybody_killed_the_next_command_takes_it_back",
        |world| {
            let before = world.snapshot();
            for point in POINTS {
                let mut command = stopped_at(world, "BLOCKHOST_FAIL_POINT", point, &[]);
                guards().into_iter().for_each(kill);
                command.kill();
                let (found, code) = world.json(&["net", "recover", "--wait", "--json"]);
                assert_eq!(code, 0);
                assert!(found[0]["reverted"]["id"].is_string(), "{point}: {found}");
                assert_eq!(world.snapshot(), before, "{point}");
                world.is_over();
                let (found, _) = world.json(&["net", "recover", "--json"]);
                assert_eq!(found, json!([]), "a second time does nothing");
            }
            // A record that is only half there is none.
            let mut command = stopped_at(world, "BLOCKHOST_FAIL_POINT", "record-drafted", &[]);
            command.kill();
            assert_eq!(guards(), Vec::<u32>::new());
            assert_eq!(world.json(&["net", "recover", "--json"]).0, json!([]));
            // Killed while taking back, at any step of that: the next one begins again.
            for point in ["reverting", "undone-2", "undone-1", "undone-0", "reverted"] {
                let mut command = stopped_at(
                    world,
                    "BLOCKHOST_FAIL_POINT",
                    point,
                    &["--probe", "192.0.2.77", "--settle", "1"],
                );
                guards().into_iter().for_each(kill);
                command.kill();
                let (found, _) = world.json(&["net", "recover", "--wait", "--json"]);
                assert!(found[0]["reverted"]["id"].is_string(), "{point}: {found}");
                assert_eq!(world.snapshot(), before, "{point}");
            }
            // The next change finds it, too.
            let mut command = stopped_at(world, "BLOCKHOST_FAIL_POINT", "done-2", &[]);
            guards().into_iter().for_each(kill);
            command.kill();
            wait_for("everybody is dead", || guards().is_empty().then_some(()));
            let (report, code) = world.json(&attach(&["--json"]));
            assert_eq!(
                (&report["outcome"], code),
                (&json!("confirmed"), 0),
                "{report}"
            );
            assert!(world.vsctl("list-ports ovsbr0").contains("eth0"));
        },
    );
}

#[test]
fn without_the_process_that_watches_nothing_goes_on() {
    in_world(
        "without_the_process_that_watches_nothing_goes_on",
        |world| {
            let before = world.snapshot();
            // It dies while it takes back: whoever made the change ends it.
            let mut command = stopped_at(
                world,
                "BLOCKHOST_FAIL_POINT_GUARD",
                "undone-2",
                &["--confirm-within", "5"],
            );
            guards().into_iter().for_each(kill);
            // Who made the change has seen that it is taken back and let go of it; nobody is left but `recover`.
            let _ = command.0.try_wait();
            let (found, _) = world.json(&["net", "recover", "--wait", "--json"]);
            assert!(found[0]["reverted"]["id"].is_string(), "{found}");
            world.is_again(&before, "the watching process died while taking back");
            let ended = command.0.wait().expect("an end");
            assert_eq!(ended.code(), Some(2));

            let started = world
                .command(&attach(&["--confirm-within", "60", "--json"]))
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("blockhost");
            wait_for("waiting", || (waiting(world)).then_some(()));
            guards().into_iter().for_each(kill);
            let output = started.wait_with_output().expect("an end");
            let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert!(
                report["reason"]
                    .as_str()
                    .expect("a reason")
                    .contains("died"),
                "{report}"
            );
            world.is_again(&before, "the watching process died while waiting");
            world.is_over();
        },
    );
}

#[test]
fn a_change_whose_maker_hangs_is_taken_back_and_is_over_only_when_that_is_gone() {
    in_world(
        "a_change_whose_maker_hangs_is_taken_back_and_is_over_only_when_that_is_gone",
        |world| {
            let before = world.snapshot();
            let mut command = stopped_at(world, "BLOCKHOST_FAIL_POINT", "starting-2", &[]);
            net_world::run(&format!("kill -TERM {}", guards()[0]));
            world.is_again(&before, "taken back beside a maker that hangs");
            // One more step of it could still come, so it is not over.
            let (status, _) = world.json(&["net", "status", "--json"]);
            assert_eq!(status["open"][0]["state"], "being taken back", "{status}");
            let (refused, code) = world.json(&attach(&["--json"]));
            assert_eq!(code, 1, "{refused}");
            command.kill();
            world.is_over();
            assert_eq!(world.snapshot(), before);
        },
    );
}

fn waiting(world: &World) -> bool {
    let (status, _) = world.json(&["net", "status", "--json"]);
    status["open"][0]["state"] == "waiting for you"
}
