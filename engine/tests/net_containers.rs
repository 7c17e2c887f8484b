//! Containers of a real Podman that get a wire by their labels: packets between them over a real switch, through restarts of
//! containers, of the agent and of Podman's service, and nothing left when they stop.

mod net_world;

use std::path::PathBuf;
use std::process::{Output, Stdio};

use net_world::{Running, World, in_namespaces, program, run, wait_for};
use serde_json::Value;

const POLICY: &str = "  ovs_bridges: [ovsbr0]\ncontainers: {attach: true}\n";

/// Podman with storage, locks and control groups of its own, gone with the test.
struct Podman {
    place: PathBuf,
    service: Option<Running>,
}

impl Podman {
    /// `None` where it cannot run containers here.
    fn new(world: &World) -> Option<Self> {
        let place = world.layout.root().join("podman");
        std::fs::create_dir(&place).expect("a directory");
        run(&format!("mount -t tmpfs none {}", place.display()));
        // Its locks are there, whatever its storage is.
        run("mount -t tmpfs none /dev/shm");
        let kind = run("stat -f -c %T /sys/fs/cgroup");
        if kind.trim() != "cgroup2fs" {
            // Its runtime takes one hierarchy or the other, not both.
            run("umount -R /sys/fs/cgroup");
            run("mount -t cgroup2 none /sys/fs/cgroup");
        }
        let mut podman = Self {
            place,
            service: None,
        };
        podman.image();
        let tried = podman.try_run("probe", &["--network", "none"]);
        if !tried.status.success() {
            let why = String::from_utf8(tried.stderr).expect("text");
            println!("skipped: Podman runs no containers here: {why}");
            return None;
        }
        podman.podman(&["rm", "-f", "-t", "0", "probe"]);
        podman.serve();
        Some(podman)
    }

    fn command(&self) -> std::process::Command {
        let mut command = program("podman");
        for (option, name) in [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            command.arg(option).arg(self.place.join(name));
        }
        command.args(["--cgroup-manager", "cgroupfs", "--storage-driver", "vfs"]);
        command
            .args(["--events-backend", "file"])
            .stdin(Stdio::null());
        command
    }

    fn podman(&self, words: &[&str]) -> String {
        let output = self.command().args(words).output().expect("podman");
        let text = String::from_utf8(output.stdout).expect("text");
        let error = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "podman {words:?}: {error}");
        text
    }

    /// A system of one program.
    fn image(&self) {
        let root = self.place.join("image");
        for directory in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
            std::fs::create_dir_all(root.join(directory)).expect("a directory");
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
        let archive = self.place.join("image.tar");
        let (root, archive) = (root.display(), archive.display());
        run(&format!("tar -C {root} -cf {archive} ."));
        self.podman(&["import", &archive.to_string(), "localhost/small"]);
    }

    fn try_run(&self, name: &str, options: &[&str]) -> Output {
        let limits = [
            "--cgroups=disabled",
            "--ulimit=nofile=512:512",
            "--ulimit=nproc=512:512",
        ];
        self.command()
            .args(["run", "-d", "--name", name])
            .args(limits)
            .args(options)
            .args(["localhost/small", "/bin/busybox", "sleep", "100000"])
            .output()
            .expect("podman")
    }

    fn run(&self, name: &str, options: &[&str]) {
        let output = self.try_run(name, options);
        let error = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "{name}: {error}");
    }

    fn socket(&self) -> PathBuf {
        self.place.join("api.sock")
    }

    /// What Docker's clients speak to.
    fn serve(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let child = self
            .command()
            .args(["system", "service", "--time", "0"])
            .arg(format!("unix://{}", self.socket().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("podman");
        self.service = Some(Running(child));
        wait_for("Podman's service", || {
            std::os::unix::net::UnixStream::connect(self.socket()).ok()
        });
    }

    /// First process of a container, where it runs.
    fn pid(&self, name: &str) -> Option<u32> {
        let text = self.podman(&["inspect", "-f", "{{.State.Pid}}", name]);
        text.trim().parse().ok().filter(|pid| *pid != 0)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command().args(["rm", "-f", "-a", "-t", "0"]).output();
        self.service = None;
        let _ = program("umount").arg("-l").arg(&self.place).output();
    }
}

fn configure(world: &World, podman: &Podman) {
    let text = format!(
        "containers:\n  socket: {}\n  networks:\n    mesh: {{bridge: ovsbr0, ipv4: 10.101.0.0/24, gateway4: 10.101.0.1, \
         ipv6: 'fd0a:101::/64', mtu: 1400}}\n",
        podman.socket().display()
    );
    std::fs::write(world.layout.etc().join("network.yaml"), text).expect("network.yaml");
    world.vsctl("add-br ovsbr0 -- set bridge ovsbr0 datapath_type=netdev fail_mode=standalone");
}

fn in_podman(test: &str, body: impl FnOnce(&mut World, &mut Podman)) {
    in_namespaces(test, || {
        if !program("podman")
            .arg("--version")
            .output()
            .is_ok_and(|out| out.status.success())
        {
            println!("skipped: {test} needs the package podman");
            return;
        }
        let mut world = World::with(POLICY);
        let Some(mut podman) = Podman::new(&world) else {
            return;
        };
        configure(&world, &podman);
        body(&mut world, &mut podman);
    });
}

/// A container's row.
fn row<'a>(all: &'a Value, name: &str) -> &'a Value {
    let list = all["containers"].as_array().expect("a list");
    list.iter()
        .find(|row| row["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {all}"))
}

fn address(row: &Value) -> String {
    let text = row["addresses"][0].as_str().expect("an address");
    text.split('/').next().expect("an address").to_owned()
}

/// An echo from one container to another, once or not at all.
fn reaches(podman: &Podman, from: &str, to: &str) -> bool {
    let Some(pid) = podman.pid(from) else {
        return false;
    };
    let pid = pid.to_string();
    let output = program("nsenter")
        .args(["-t", &pid, "-n", "ping", "-c", "1", "-W", "1", to])
        .output()
        .expect("nsenter");
    output.status.success()
}

/// Wires and ports of containers that the host has.
fn left(world: &World) -> (usize, usize) {
    let links = run("ip -o link show");
    let wires = links.lines().filter(|line| line.contains(": bhc")).count();
    let ports = world.vsctl("list-ports ovsbr0");
    (
        wires,
        ports.lines().filter(|port| port.starts_with("bhc")).count(),
    )
}

/// How often an action was carried out.
fn times(world: &World, action: &str) -> usize {
    let records = world.records();
    let of = |record: &&Value| record["action"] == action && record["phase"] == "outcome";
    records.iter().filter(of).count()
}

#[test]
fn labelled_containers_reach_each_other_over_the_switch_and_others_are_told_why_not() {
    in_podman(
        "labelled_containers_reach_each_other_over_the_switch_and_others_are_told_why_not",
        |world, podman| {
            podman.run("one", &["--network=none", "--label=netmaker.network=mesh"]);
            let asks = "--label=blockhost.address=10.101.0.9,fd0a:101::9";
            podman.run(
                "two",
                &["--network=none", "--label=blockhost.network=mesh", asks],
            );
            podman.run(
                "other",
                &[
                    "--network=none",
                    "--label=netmaker.network=../../junk\u{1b}[2J",
                ],
            );
            podman.run("host", &["--network=host", "--label=netmaker.network=mesh"]);
            podman.run("none", &["--network=none"]);
            let taken = "--label=blockhost.address=10.101.0.1";
            podman.run(
                "greedy",
                &["--network=none", "--label=netmaker.network=mesh", taken],
            );

            let (seen, code) = world.json(&["net", "containers", "--json"]);
            assert_eq!((code, left(world)), (0, (0, 0)), "looking changes nothing");
            assert_eq!(row(&seen, "one")["status"], "would-attach", "{seen}");
            let (dry, _) = world.json(&["net", "containers", "--apply", "--dry-run", "--json"]);
            assert_eq!(
                (&dry["containers"], left(world)),
                (&seen["containers"], (0, 0))
            );

            let (done, code) = world.json(&["net", "containers", "--apply", "--json"]);
            assert_eq!(code, 0, "{done}");
            for name in ["one", "two"] {
                assert_eq!(row(&done, name)["status"], "attached", "{done}");
            }
            for (name, reason) in [
                ("other", "not in network.yaml"),
                ("host", "host's own"),
                ("greedy", "taken"),
            ] {
                let row = row(&done, name);
                assert_eq!(row["status"], "not-attached", "{row}");
                assert!(
                    row["reason"].as_str().expect("text").contains(reason),
                    "{row}"
                );
            }
            assert_eq!(
                done["containers"].as_array().map(Vec::len),
                Some(5),
                "{done}"
            );
            assert_eq!(left(world), (2, 2));
            assert_eq!(address(row(&done, "two")), "10.101.0.9");
            let one = address(row(&done, "one"));
            wait_for("an echo from one to two", || {
                reaches(podman, "one", "10.101.0.9").then_some(())
            });
            wait_for("an echo from two to one", || {
                reaches(podman, "two", &one).then_some(())
            });
            wait_for("an echo by IPv6", || {
                reaches(podman, "one", "fd0a:101::9").then_some(())
            });
            let text =
                String::from_utf8(world.blockhost(&["net", "containers"]).stdout).expect("text");
            assert!(
                text.contains("attached") && !text.contains('\u{1b}'),
                "{text}"
            );

            // What is so already is not done again.
            let before = times(world, "container-attach");
            assert_eq!(before, 2);
            let (again, _) = world.json(&["net", "containers", "--apply", "--json"]);
            assert_eq!(again["containers"], done["containers"]);
            assert_eq!(times(world, "container-attach"), before);

            podman.podman(&["rm", "-f", "-t", "0", "one", "two"]);
            let (_, code) = world.json(&["net", "containers", "--apply", "--json"]);
            assert_eq!((code, left(world)), (0, (0, 0)));
        },
    );
}

fn both(what: &str, podman: &Podman) {
    wait_for(what, || reaches(podman, "one", "10.101.0.9").then_some(()));
    wait_for(what, || reaches(podman, "two", "10.101.0.8").then_some(()));
}

#[test]
fn containers_are_followed_through_restarts_of_themselves_the_agent_and_their_manager() {
    in_podman(
        "containers_are_followed_through_restarts_of_themselves_the_agent_and_their_manager",
        |world, podman| {
            let follower = world
                .command(&["net", "containers", "--watch", "--json"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("blockhost");
            let _follower = Running(follower);
            for (name, last) in [("one", "8"), ("two", "9")] {
                let label = format!("--label=blockhost.address=10.101.0.{last}");
                podman.run(
                    name,
                    &["--network=none", "--label=netmaker.network=mesh", &label],
                );
            }
            both("found by their events", podman);

            let old = podman.pid("one");
            podman.podman(&["restart", "-t", "0", "one"]);
            assert_ne!(podman.pid("one"), old);
            both("after a restart of one", podman);
            assert_eq!(left(world), (2, 2));

            // Without the agent nothing can be done; it is done when it is back.
            world.kill_agent();
            podman.podman(&["restart", "-t", "0", "two"]);
            world.start_agent();
            both("after a restart of two without the agent", podman);

            // A manager that is gone takes nothing with it, and what happened meanwhile is found when it is back.
            podman.service = None;
            podman.podman(&["restart", "-t", "0", "one"]);
            assert!(left(world).1 == 2, "a port went with the manager");
            podman.serve();
            both("after a restart of the manager", podman);

            podman.podman(&["stop", "-t", "0", "one", "two"]);
            wait_for("nothing left", || (left(world) == (0, 0)).then_some(()));
        },
    );
}
