//! Changes that can cut the operator off, on a real switch with the real agent: they keep connections, or everything is as it
//! was, whoever is killed and whenever.

mod net_world;

use net_world::{attach, guards, in_world, stopped_at, wait_for};
use serde_json::json;
use std::os::unix::fs::MetadataExt as _;

#[test]
fn an_uplink_goes_to_a_bridge_and_back_and_a_connection_goes_on() {
    in_world(
        "an_uplink_goes_to_a_bridge_and_back_and_a_connection_goes_on",
        |world| {
            let before = world.snapshot();
            let mut connection = world.connection();
            let (planned, code) = world.json(&attach(&["--dry-run", "--json"]));
            assert_eq!((&planned["outcome"], code), (&json!("planned"), 0));
            assert_eq!(planned["plan"]["steps"].as_array().map(Vec::len), Some(3));
            assert_eq!(world.snapshot(), before, "a rehearsal changes nothing");

            let (report, code) = world.json(&attach(&["--probe", "192.0.2.1", "--json"]));
            println!("attach: {report}");
            assert_eq!((&report["outcome"], code), (&json!("confirmed"), 0));
            assert_eq!(report["steps"].as_array().map(Vec::len), Some(3));
            assert_eq!(
                report["reached"],
                json!(["192.0.2.1", "gateway 192.0.2.1", "gateway fd99::1"])
            );
            let loss = &report["loss"];
            assert!(
                loss["sent"].as_u64() > Some(10) && loss["longest_gap_ms"].is_u64(),
                "{loss}"
            );
            connection.is_alive("on the bridge");
            assert!(world.vsctl("list-ports ovsbr0").contains("eth0"));
            world.is_over();

            let words = [
                "net", "uplink", "detach", "--bridge", "ovsbr0", "--uplink", "eth0", "--json",
            ];
            let (report, code) = world.json(&words);
            println!("detach: {report}");
            assert_eq!((&report["outcome"], code), (&json!("confirmed"), 0));
            connection.is_alive("back on the uplink");
            world.vsctl("del-br ovsbr0");
            world.is_again(&before, "there and back");
            let records = world.records();
            let told = |action: &str| {
                records
                    .iter()
                    .filter(|record| record["action"] == action)
                    .count()
            };
            assert_eq!(told("network-change-confirmed"), 2);
        },
    );
}

#[test]
fn a_change_that_cuts_reachability_is_taken_back_to_the_last_bit() {
    in_world(
        "a_change_that_cuts_reachability_is_taken_back_to_the_last_bit",
        |world| {
            let before = world.snapshot();
            let mut connection = world.connection();
            let probes = ["192.0.2.77", "192.0.2.1:9"];
            for probe in probes {
                let (report, code) =
                    world.json(&attach(&["--probe", probe, "--settle", "1", "--json"]));
                assert_eq!(
                    (&report["outcome"], code),
                    (&json!("reverted"), 2),
                    "{report}"
                );
                let reason = report["reason"].as_str().expect("a reason");
                assert!(
                    reason.contains("reachability") && reason.contains(probe),
                    "{reason}"
                );
                world.is_again(&before, probe);
                connection.is_alive(probe);
                world.is_over();
            }
            // The gateway goes away while the change is made.
            let mut command =
                stopped_at(world, "BLOCKHOST_FAIL_POINT", "done-2", &["--settle", "1"]);
            world.outside("ip addr del 192.0.2.1/24 dev wire");
            command.kill();
            world.is_again(&before, "with the gateway away");
            world.is_over();
            let (last, _) = world.json(&["net", "status", "--json"]);
            assert_eq!(last["last"]["confirmed"], false);
            let records = world.records();
            assert_eq!(
                records
                    .iter()
                    .filter(|record| record["action"] == "network-change-reverted")
                    .count(),
                3
            );
        },
    );
}

#[test]
fn a_bridge_that_was_there_and_what_it_carried_is_as_before() {
    in_world(
        "a_bridge_that_was_there_and_what_it_carried_is_as_before",
        |world| {
            let make = r#"options={"datapath_type":"netdev"}"#;
            let made = world.blockhost(&["agent", "call", "ovs-add-br", "bridge=ovsbr0", make]);
            assert!(made.status.success(), "{made:?}");
            for words in [
                "ip link set ovsbr0 up",
                "ip addr add 10.77.0.1/24 dev ovsbr0",
                "ip route add 10.78.0.0/24 via 10.77.0.9 dev ovsbr0",
            ] {
                net_world::run(words);
            }
            wait_for("a link-local address", || {
                let text = net_world::run("ip -6 addr show dev ovsbr0 scope link");
                (text.contains("fe80") && !text.contains("tentative")).then_some(())
            });
            let before = world.snapshot();
            let (report, code) = world.json(&attach(&[
                "--probe",
                "192.0.2.77",
                "--settle",
                "1",
                "--json",
            ]));
            assert_eq!(
                (&report["outcome"], code),
                (&json!("reverted"), 2),
                "{report}"
            );
            world.is_again(&before, "a bridge of its own");
            world.is_over();
            // One with an address that somebody gave it would change what the network outside has to know.
            let fixed = r#"options={"hwaddr":"02:00:00:00:00:99"}"#;
            let made = world.blockhost(&["agent", "call", "ovs-add-br", "bridge=ovsbr0", fixed]);
            assert!(made.status.success(), "{made:?}");
            let before = world.snapshot();
            let (report, code) = world.json(&attach(&["--json"]));
            assert_eq!(
                (&report["outcome"], code),
                (&json!("reverted"), 2),
                "{report}"
            );
            assert!(
                report["reason"]
                    .as_str()
                    .expect("a reason")
                    .contains("hardware address"),
                "{report}"
            );
            world.is_again(&before, "an address of its own");
        },
    );
}

#[test]
fn the_operator_decides_within_the_time_and_otherwise_it_is_taken_back() {
    in_world(
        "the_operator_decides_within_the_time_and_otherwise_it_is_taken_back",
        |world| {
            let before = world.snapshot();
            assert_eq!(world.blockhost(&["net", "confirm"]).status.code(), Some(1));
            let (report, code) = world.json(&attach(&["--confirm-within", "5", "--json"]));
            assert_eq!(
                (&report["outcome"], code),
                (&json!("reverted"), 2),
                "{report}"
            );
            assert!(
                report["reason"]
                    .as_str()
                    .expect("a reason")
                    .contains("in time")
            );
            world.is_again(&before, "not confirmed");
            world.is_over();

            // Whoever made it is gone, as with a connection that broke: the time goes on, and another command confirms.
            let (report, code) =
                world.json(&attach(&["--confirm-within", "60", "--no-wait", "--json"]));
            assert_eq!(
                (&report["outcome"], code),
                (&json!("waiting"), 0),
                "{report}"
            );
            let id = report["id"].as_str().expect("a name").to_owned();
            assert_eq!(guards().len(), 1);
            let (refused, code) = world.json(&attach(&["--json"]));
            assert_eq!(code, 1);
            assert!(
                refused["error"].as_str().expect("why").contains(&id),
                "{refused}"
            );
            let other = world.blockhost(&["net", "confirm", "--id", "00000000"]);
            assert_eq!(other.status.code(), Some(1));
            let (ended, code) = world.json(&["net", "confirm", "--id", &id, "--json"]);
            assert_eq!((&ended["confirmed"], code), (&json!(true), 0));
            world.is_over();
            assert!(world.vsctl("list-ports ovsbr0").contains("eth0"));
            assert_eq!(world.blockhost(&["net", "confirm"]).status.code(), Some(1));
        },
    );
}

#[test]
fn of_two_changes_at_the_same_time_one_is_made() {
    in_world("of_two_changes_at_the_same_time_one_is_made", |world| {
        let before = world.snapshot();
        let mut first = stopped_at(world, "BLOCKHOST_FAIL_POINT", "done-1", &[]);
        let during = world.snapshot();
        let (refused, code) = world.json(&attach(&["--json"]));
        assert_eq!(code, 1);
        assert!(
            refused["error"]
                .as_str()
                .expect("why")
                .contains("under way"),
            "{refused}"
        );
        assert_eq!(
            world.json(&["net", "recover", "--json"]).0[0]["looked_after"]
                .as_str()
                .map(str::len),
            Some(8)
        );
        assert_eq!(world.snapshot(), during, "the second changed nothing");
        first.kill();
        world.is_again(&before, "the first was killed");
    });
}

#[test]
fn on_a_full_disk_nothing_is_changed() {
    in_world("on_a_full_disk_nothing_is_changed", |world| {
        let before = world.snapshot();
        let state = world.layout.state();
        net_world::run(&format!(
            "mount -t tmpfs -o size=64k,nr_inodes=64 tmpfs {}",
            state.display()
        ));
        let fill = || {
            let filled = std::fs::write(state.join("filler"), vec![0; 1 << 20]);
            assert!(filled.is_err());
        };
        fill();
        let (refused, code) = world.json(&attach(&["--json"]));
        assert_eq!(code, 1);
        assert!(
            refused["error"]
                .as_str()
                .expect("why")
                .contains("No space left"),
            "{refused}"
        );
        assert_eq!(world.snapshot(), before);
        assert_eq!(guards(), Vec::<u32>::new());
        assert_eq!(
            world.json(&["net", "recover", "--json"]).0,
            json!([]),
            "no half of a record is left"
        );
        // Full after the record was written: the step that cannot be noted is not begun, and the rest is taken back. A file
        // system gives whole pages; the record is made so long that it fills its last one and the notes need another.
        let filler = std::fs::File::options()
            .write(true)
            .open(state.join("filler"))
            .expect("the filler");
        let length = filler.metadata().expect("about").len();
        filler.set_len(length - 4096).expect("room for a page");
        for number in 10..70 {
            net_world::run(&format!("ip addr add 203.0.113.{number}/32 dev eth0"));
        }
        let mut reverted = None;
        for number in 10..70 {
            let before = world.snapshot();
            let (report, code) = world.json(&attach(&["--json"]));
            assert_ne!(
                code, 0,
                "a record of more than a page fitted into one: {report}"
            );
            assert_eq!(world.snapshot(), before);
            if report["outcome"] == "reverted" {
                reverted = Some(report);
                break;
            }
            net_world::run(&format!("ip addr del 203.0.113.{number}/32 dev eth0"));
        }
        let reverted = reverted.expect("at some length the record fits and its notes do not");
        assert!(
            reverted["reason"]
                .as_str()
                .expect("why")
                .contains("No space left"),
            "{reverted}"
        );
        world.is_over();
        drop(filler);
        std::fs::remove_file(state.join("filler")).expect("removed");
        let (report, code) = world.json(&attach(&["--json"]));
        assert_eq!(
            (&report["outcome"], code),
            (&json!("confirmed"), 0),
            "{report}"
        );
    });
}

#[test]
fn a_change_without_anything_to_tell_by_or_without_permission_is_not_begun() {
    in_world(
        "a_change_without_anything_to_tell_by_or_without_permission_is_not_begun",
        |world| {
            let before = world.snapshot();
            let other = [
                "net", "uplink", "attach", "--bridge", "other0", "--uplink", "eth0", "--json",
            ];
            let (refused, code) = world.json(&other);
            assert_eq!(code, 1);
            assert!(
                refused["error"]
                    .as_str()
                    .expect("why")
                    .contains("forbidden"),
                "{refused}"
            );
            // A gateway that nobody is.
            net_world::run("ip route replace default via 192.0.2.200 dev eth0 metric 100");
            net_world::run("ip -6 route del default");
            let without = world.snapshot();
            let (refused, code) = world.json(&attach(&["--json"]));
            assert_eq!(code, 1);
            assert!(
                refused["error"].as_str().expect("why").contains("--probe"),
                "{refused}"
            );
            for words in [
                &["--uplink", "-eth0"][..],
                &["--uplink", "eth0;id"],
                &["--probe", "example.org"],
                &["--confirm-within", "0"],
                &["--settle", "0"],
            ] {
                let output = world.blockhost(
                    &[&["net", "uplink", "attach", "--bridge", "ovsbr0"], words].concat(),
                );
                assert!(!output.status.success(), "{words:?}");
            }
            assert_eq!(guards(), Vec::<u32>::new());
            assert_eq!(world.snapshot(), without);
            assert_ne!(without, before);
        },
    );
}

#[test]
fn the_process_that_watches_has_a_session_of_its_own_and_nothing_of_its_parents_open() {
    in_world(
        "the_process_that_watches_has_a_session_of_its_own_and_nothing_of_its_parents_open",
        |world| {
            // As on a host: the state is of a user that is not root, and root's command becomes that user.
            std::os::unix::fs::chown(
                world.layout.state(),
                Some(net_world::BLOCKHOST),
                Some(net_world::BLOCKHOST),
            )
            .expect("owner");
            let ledger = world.layout.ledger();
            assert!(std::fs::metadata(&ledger).expect("a ledger").gid() == net_world::BLOCKHOST);
            let inherited = world.layout.root().join("inherited");
            std::fs::write(&inherited, "x").expect("a file");
            let script = format!(
                "exec 9<{}; exec {} {}",
                inherited.display(),
                env!("CARGO_BIN_EXE_blockhost"),
                attach(&["--confirm-within", "30", "--no-wait"]).join(" ")
            );
            let status = net_world::program("sh")
                .args(["-c", &script])
                .env("BLOCKHOST_ROOT", world.layout.root())
                .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
                .status()
                .expect("sh");
            assert!(status.success(), "{}", world.agent_log());
            let pid = guards()[0];
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
            let session: Vec<&str> = stat
                .rsplit(')')
                .next()
                .expect("fields")
                .split_whitespace()
                .collect();
            assert_eq!(session[3], pid.to_string(), "session");
            assert_eq!(
                std::fs::metadata(format!("/proc/{pid}")).expect("it").uid(),
                net_world::BLOCKHOST
            );
            for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))
                .expect("descriptors")
                .flatten()
            {
                let to = std::fs::read_link(entry.path()).unwrap_or_default();
                assert_ne!(to, inherited, "{entry:?}");
                let number: u32 = entry
                    .file_name()
                    .to_str()
                    .expect("a number")
                    .parse()
                    .expect("a number");
                assert!(
                    number > 2 || to == std::path::Path::new("/dev/null"),
                    "{number} is {}",
                    to.display()
                );
            }
            let directory = world.layout.state().join("net-change");
            assert_eq!(
                std::fs::metadata(&directory).expect("it").mode() & 0o777,
                0o700
            );
            let mut seen = 0;
            for entry in std::fs::read_dir(&directory).expect("it").flatten() {
                let about = entry.metadata().expect("about");
                assert_eq!(
                    (about.uid(), about.mode() & 0o777),
                    (net_world::BLOCKHOST, 0o600),
                    "{entry:?}"
                );
                seen += usize::from(entry.file_name().to_string_lossy().starts_with("pending-"));
            }
            assert_eq!(seen, 1);
            // Asked to end, it takes the change back first.
            net_world::run(&format!("kill -TERM {pid}"));
            wait_for("it ends", || guards().is_empty().then_some(()));
            world.is_over();
            assert_eq!(world.vsctl("list-br").trim(), "");
        },
    );
}
