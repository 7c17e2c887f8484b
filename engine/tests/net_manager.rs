//! NetworkManager's own way back, with a real NetworkManager on a bus of its own: a checkpoint is made, given up when the
//! change stays, gone back to when it does not, and gone back to by NetworkManager's own timer when everybody of ours is dead.

mod net_world;

use std::path::Path;
use std::process::Stdio;

use net_world::{Running, World, guards, in_namespaces, kill, program, run, stopped_at, wait_for};
use serde_json::json;

const MANAGER: &str = "/usr/sbin/NetworkManager";
const DAEMON: &str = "/usr/bin/dbus-daemon";
const NAME: &str = "org.freedesktop.NetworkManager";
const OBJECT: &str = "/org/freedesktop/NetworkManager";
const CHECKPOINT: &str = "org.freedesktop.NetworkManager.Checkpoint";

const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/nm/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
<allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
<allow receive_type="signal"/><allow receive_type="method_return"/><allow receive_type="error"/></policy></busconfig>"#;

const SETTINGS: &str = "[main]\nplugins=keyfile\nauth-polkit=false\ndns=none\nrc-manager=unmanaged\nno-auto-default=*\n\
    [keyfile]\npath=/run/nm/connections\n[connectivity]\nenabled=false\n\
    [device-others]\nmatch-device=except:interface-name:eth0\nmanaged=0\n";

/// The uplink as it is set up by the test, but by NetworkManager.
const CONNECTION: &str = "[connection]\nid=uplink\nuuid=5fb06bd0-0bb0-7ffb-45f1-d6edd65f3e03\ntype=ethernet\n\
    interface-name=eth0\n[ipv4]\nmethod=manual\naddress1=192.0.2.2/24,192.0.2.1\nroute-metric=100\n\
    [ipv6]\nmethod=manual\naddr-gen-mode=eui64\naddress1=fd99::2/64,fd99::1\n";

struct Manager {
    world: World,
    _bus: Running,
    _manager: Running,
}

/// Runs `body` with the uplink under NetworkManager.
fn with_manager(test: &str, body: impl FnOnce(&mut Manager)) {
    if !Path::new(MANAGER).exists() || !Path::new(DAEMON).exists() {
        println!("skipped: {test} needs the packages network-manager and dbus-daemon");
        return;
    }
    in_namespaces(test, || {
        // A directory for its files that no other has; /sys of this namespace, read-only: without udev, as in a container,
        // NetworkManager does not wait for udev to tell it about devices.
        run("mount -t tmpfs -o mode=755 tmpfs /run");
        run("mount -t sysfs -o ro sysfs /sys");
        for directory in ["/run/nm/connections", "/run/nm/state", "/run/dbus"] {
            std::fs::create_dir_all(directory).expect("a directory");
        }
        std::fs::write("/run/nm/bus.conf", BUS).expect("a file");
        std::fs::write("/run/nm/nm.conf", SETTINGS).expect("a file");
        let file = "/run/nm/connections/uplink.nmconnection";
        std::fs::write(file, CONNECTION).expect("a file");
        run(&format!("chmod 600 {file}"));
        let bus = Running(
            program(DAEMON)
                .args(["--config-file=/run/nm/bus.conf", "--nofork"])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("a bus"),
        );
        wait_for("the bus", || {
            std::os::unix::net::UnixStream::connect("/run/nm/bus").ok()
        });
        let mut world = World::new();
        world
            .environment
            .push(("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/nm/bus"));
        for words in [
            "ip addr flush dev eth0 scope global",
            "ip route flush table 77",
            "ip -6 route flush table 77",
        ] {
            run(words);
        }
        let log = std::fs::File::create("/run/nm/log").expect("a log");
        let manager = program(MANAGER)
            .args([
                "--no-daemon",
                "--config=/run/nm/nm.conf",
                "--config-dir=/run/nm/none",
                "--system-config-dir=/run/nm/none",
                "--intern-config=/run/nm/intern.conf",
                "--state-file=/run/nm/state/state",
                "--pid-file=/run/nm/pid",
            ])
            .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/nm/bus")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("NetworkManager");
        let mut manager = Manager {
            world,
            _bus: bus,
            _manager: Running(manager),
        };
        manager.is_active();
        body(&mut manager);
    });
}

impl Manager {
    fn ask(&self, words: &[&str]) -> String {
        let output = program("nmcli")
            .args(words)
            .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/nm/bus")
            .output()
            .expect("nmcli");
        String::from_utf8([output.stdout, output.stderr].concat()).expect("text")
    }

    /// The device is up with NetworkManager's connection, and has what that says.
    fn is_active(&self) {
        wait_for("the uplink is active", || {
            let text = self.ask(&[
                "-t",
                "-f",
                "GENERAL.STATE,GENERAL.CONNECTION",
                "device",
                "show",
                "eth0",
            ]);
            let addresses = run("ip addr show dev eth0");
            let ready = text.contains("100 (connected)")
                && text.contains("uplink")
                && addresses.contains("192.0.2.2/24")
                && addresses.contains("fd99::2/64")
                && !addresses.contains("tentative");
            ready.then_some(())
        });
    }

    /// A property of NetworkManager, as `busctl` prints it.
    fn property(&self, object: &str, interface: &str, name: &str) -> String {
        self.busctl(&["get-property", NAME, object, interface, name])
    }

    fn busctl(&self, words: &[&str]) -> String {
        let output = program("busctl")
            .arg("--address=unix:path=/run/nm/bus")
            .args(words)
            .output()
            .expect("busctl");
        assert!(output.status.success(), "{words:?}: {output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.trim().to_owned()
    }

    /// The only checkpoint there is.
    fn checkpoint(&self) -> String {
        let all = self.property(OBJECT, NAME, "Checkpoints");
        let mut paths = all.split('"').filter(|word| word.contains("/Checkpoint/"));
        let path = paths.next().expect("a checkpoint").to_owned();
        assert_eq!(paths.next(), None, "{all}");
        path
    }

    /// Has the time of a checkpoint be over so many seconds from now.
    fn hurry(&self, checkpoint: &str, seconds: u32) {
        let time = seconds.to_string();
        let method = ["CheckpointAdjustRollbackTimeout", "ou", checkpoint, &time];
        self.busctl(&[&["call", NAME, OBJECT, NAME][..], &method].concat());
    }

    /// How many checkpoints there are, by NetworkManager's own property.
    fn checkpoints(&self) -> usize {
        let all = self.property(OBJECT, NAME, "Checkpoints");
        all.matches("/Checkpoint/").count()
    }

    fn attach(&self, more: &[&str]) -> (serde_json::Value, i32) {
        let words = [
            "net",
            "uplink",
            "attach",
            "--bridge",
            "ovsbr0",
            "--uplink",
            "eth0",
            "--datapath",
            "netdev",
            "--json",
        ];
        self.world.json(&[&words[..], more].concat())
    }

    /// Starts a change that stops at a fail point.
    fn stopped_at(&self, point: &str) -> Running {
        stopped_at(&self.world, "BLOCKHOST_FAIL_POINT", point, &[])
    }
}

#[test]
fn a_checkpoint_of_networkmanager_is_given_up_when_the_change_stays() {
    with_manager(
        "a_checkpoint_of_networkmanager_is_given_up_when_the_change_stays",
        |manager| {
            let (report, code) = manager.attach(&["--confirm-within", "30", "--no-wait"]);
            assert_eq!(
                (&report["outcome"], &report["checkpoint"], code),
                (&json!("waiting"), &json!(true), 0),
                "{report}"
            );
            assert!(
                report["notes"].to_string().contains("NetworkManager"),
                "{report}"
            );
            assert_eq!(manager.checkpoints(), 1);
            let (ended, code) = manager.world.json(&["net", "confirm", "--json"]);
            assert_eq!((&ended["confirmed"], code), (&json!(true), 0));
            assert_eq!(manager.checkpoints(), 0);
            manager.world.is_over();
            assert!(run("ip addr show dev ovsbr0").contains("192.0.2.2/24"));
            // NetworkManager leaves it alone.
            std::thread::sleep(std::time::Duration::from_secs(2));
            assert!(run("ip addr show dev ovsbr0").contains("192.0.2.2/24"));
            assert!(!run("ip addr show dev eth0").contains("192.0.2.2/24"));
        },
    );
}

#[test]
fn networkmanager_goes_back_to_its_checkpoint_when_the_change_is_taken_back() {
    with_manager(
        "networkmanager_goes_back_to_its_checkpoint_when_the_change_is_taken_back",
        |manager| {
            let before = manager.world.snapshot();
            let (report, code) = manager.attach(&["--probe", "192.0.2.77", "--settle", "1"]);
            assert_eq!(
                (&report["outcome"], &report["checkpoint"], code),
                (&json!("reverted"), &json!(true), 2),
                "{report}"
            );
            assert_eq!(report["problems"], json!([]), "{report}");
            assert_eq!(manager.checkpoints(), 0);
            manager.is_active();
            manager.world.is_again(&before, "taken back");
            // What NetworkManager itself did meanwhile is taken back by it.
            let mut command = manager.stopped_at("done-2");
            let text = manager.ask(&[
                "connection",
                "modify",
                "uplink",
                "ipv4.addresses",
                "192.0.2.66/24",
            ]);
            assert!(!text.contains("Error"), "{text}");
            command.kill();
            manager.world.is_over();
            manager.is_active();
            assert_eq!(manager.checkpoints(), 0);
            let text = manager.ask(&["-t", "-f", "ipv4.addresses", "connection", "show", "uplink"]);
            assert_eq!(text.trim(), "ipv4.addresses:192.0.2.2/24");
        },
    );
}

#[test]
fn with_everybody_of_ours_killed_networkmanager_goes_back_by_its_own_timer() {
    with_manager(
        "with_everybody_of_ours_killed_networkmanager_goes_back_by_its_own_timer",
        |manager| {
            let mut command = manager.stopped_at("checkpointed");
            let text = manager.ask(&[
                "connection",
                "modify",
                "uplink",
                "ipv4.addresses",
                "192.0.2.66/24",
            ]);
            assert!(!text.contains("Error"), "{text}");
            guards().into_iter().for_each(kill);
            command.kill();
            manager.world.kill_agent();
            // Its time is over a quarter of a minute after ours: what is left of it is made shorter here, and nothing else.
            let checkpoint = manager.checkpoint();
            assert_eq!(
                manager.property(&checkpoint, CHECKPOINT, "RollbackTimeout"),
                "u 75"
            );
            manager.hurry(&checkpoint, 5);
            wait_for("its own time is over", || {
                (manager.checkpoints() == 0).then_some(())
            });
            manager.is_active();
            let text = manager.ask(&["-t", "-f", "ipv4.addresses", "connection", "show", "uplink"]);
            assert_eq!(text.trim(), "ipv4.addresses:192.0.2.2/24");
            // What is left for us says that there is no checkpoint any more, and is done.
            manager.world.start_agent();
            let (found, _) = manager.world.json(&["net", "recover", "--wait", "--json"]);
            assert!(
                found[0]["reverted"]["problems"]
                    .to_string()
                    .contains("NetworkManager"),
                "{found}"
            );
            manager.world.is_over();
        },
    );
}

#[test]
fn networkmanager_hears_of_what_is_decided_and_not_before() {
    with_manager(
        "networkmanager_hears_of_what_is_decided_and_not_before",
        |manager| {
            let before = manager.world.snapshot();
            // About to keep it, and somebody else is first: there is still something to go back to.
            let mut command = manager.stopped_at("confirming");
            assert_eq!(manager.checkpoints(), 1);
            for pid in guards() {
                run(&format!("kill -TERM {pid}"));
            }
            manager.world.is_again(&before, "taken back");
            command.kill();
            manager.world.is_over();
            let (status, _) = manager.world.json(&["net", "status", "--json"]);
            assert_eq!(status["last"]["problems"], json!([]), "{status}");
            assert_eq!(manager.checkpoints(), 0);
            manager.is_active();

            // Killed when it was decided and NetworkManager had not heard of it: whoever watches tells it.
            let mut command = manager.stopped_at("confirmed");
            assert_eq!(manager.checkpoints(), 1);
            command.kill();
            manager.world.is_over();
            assert_eq!(manager.checkpoints(), 0);
            let (status, _) = manager.world.json(&["net", "status", "--json"]);
            assert_eq!(status["last"]["confirmed"], true, "{status}");
            assert!(run("ip addr show dev ovsbr0").contains("192.0.2.2/24"));
        },
    );
}

#[test]
fn with_everybody_killed_what_was_decided_is_finished_by_the_next_one() {
    with_manager(
        "with_everybody_killed_what_was_decided_is_finished_by_the_next_one",
        |manager| {
            let mut command = manager.stopped_at("confirmed");
            guards().into_iter().for_each(kill);
            command.kill();
            let (found, code) = manager.world.json(&["net", "recover", "--json"]);
            assert_eq!(code, 0);
            assert!(found[0]["finished"].is_string(), "{found}");
            assert_eq!(manager.checkpoints(), 0);
            manager.world.is_over();
            assert!(run("ip addr show dev ovsbr0").contains("192.0.2.2/24"));
        },
    );
}
