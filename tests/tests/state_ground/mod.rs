//! A world for the declarative state: the real agent, a real switch, a real tunnel daemon, a container manager in miniature
//! whose interfaces are real devices.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use blockhost_tests::command::{Output, RunError, command, install_script, run, with_args};
use blockhost_tests::namespace::{find, test_ran_inside};
use blockhost_tests::switch::{self, Switch};
use blockhost_tests::world::services::{Service, start_agent, start_containers};
use blockhost_tests::world::{World, built_programs};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(300);
const PROGRAMS: &[&str] = &[
    "blockhost-root-agent",
    "blockhost-qm",
    "blockhost-pct",
    "blockhost-containers",
    "blockhost",
    "blockhost-net-revert",
];

/// What makes the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Files and devices only: it can be held at any verb.
    Miniature,
    /// The embedded one, with real LXC.
    Real,
}

pub struct Ground {
    pub world: World,
    pub agent: Service,
    pub switch: Switch,
    _containers: Option<Service>,
    dir: tempfile::TempDir,
}

/// `None` in the outer process, where the test has run already, and where it cannot run.
pub fn ground(test: &str) -> Option<Ground> {
    ground_with(test, Backend::Miniature)
}

/// The same with a backend.
pub fn ground_with(test: &str, backend: Backend) -> Option<Ground> {
    if backend == Backend::Real && (find("lxc-start").is_none() || find("busybox").is_none()) {
        println!("skipped: {test} needs lxc and busybox-static; run the setup script");
        return None;
    }
    if !switch::installed() {
        println!("skipped: {test} needs the package openvswitch-switch");
        return None;
    }
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    if test_ran_inside(test, &init, LIMIT) {
        return None;
    }
    let dir = tempfile::Builder::new()
        .prefix("blockhost-state-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let world = World::create(dir.path(), &built_programs(), PROGRAMS).expect("a world");
    let pct = world.bin.join("pct");
    install_script(include_str!("pct.sh"), &pct).expect("a program");
    let policy = world.layout.agent_policy();
    let mut text = std::fs::read_to_string(&policy).expect("a policy");
    if backend == Backend::Miniature {
        let real = world.bin.join("blockhost-pct").display().to_string();
        assert!(text.contains(&real), "{text}");
        text = text.replace(&real, &pct.display().to_string());
    }
    text.push_str(
        "wireguard: userspace\ntime_limits: {ovs-add-port: 5, ovs-del-port: 5, ovs-add-br: 10}\n\
         allow:\n  bridges: [vmbr0, ovsbr0, ovsbr1]\n  ovs_ports: ['vi*', 'int*']\n  public_pools: ['203.0.113.0/24']\n  uplinks: [up0]\n  host_settings: [ipv4-forwarding, ipv6-forwarding, ipv6-proxy]\n",
    );
    std::fs::write(&policy, text).expect("a policy");
    private_wireguard(&world);
    let switch = Switch::start(&world.layout.switch_sockets());
    let containers = (backend == Backend::Real)
        .then(|| start_containers(&world).expect("the containers' service starts"));
    let agent = start_agent(&world).expect("the agent starts");
    Some(Ground {
        world,
        agent,
        switch,
        _containers: containers,
        dir,
    })
}

/// The daemons' directory is fixed in them; here it is this world's.
fn private_wireguard(world: &World) {
    let sockets = world.layout.wireguard_sockets();
    for path in ["/run/wireguard".into(), sockets.clone()] {
        std::fs::create_dir_all(path).expect("a directory");
    }
    let sockets = sockets.display().to_string();
    tool("mount -t tmpfs -o mode=755,uid=0 tmpfs /run/wireguard");
    tool("chown blockhost-agent /run/wireguard");
    tool(&format!("mount --bind /run/wireguard {sockets}"));
}

/// Runs a tool that must succeed.
pub fn tool(words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    run(with_args(words[0], &words[1..]), Duration::from_secs(20))
        .unwrap_or_else(|error| panic!("{error}"))
        .stdout
}

/// How `blockhost` ended, and what it printed.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub text: String,
    pub error: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

impl Drop for Ground {
    /// What is mounted in the world would keep its directory from going with the test.
    fn drop(&mut self) {
        let root = self.world.layout.root().display().to_string();
        let _ = run(
            with_args("umount", &["--lazy", "--recursive", &root]),
            Duration::from_secs(20),
        );
    }
}

impl Ground {
    pub fn document(&self, name: &str, text: &str) -> String {
        let path = self.world.layout.state().join(name);
        std::fs::write(&path, text).expect("a document");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("a mode");
        path.display().to_string()
    }

    /// Busybox and its init, as `local:vztmpl/small.tar.gz`.
    pub fn small_template(&self) {
        let stage = self.dir.path().join("stage");
        for name in [
            "bin", "sbin", "proc", "sys", "dev", "etc", "run", "var", "root", "tmp",
        ] {
            std::fs::create_dir_all(stage.join(name)).expect("a directory");
        }
        let busybox = find("busybox").expect("busybox");
        std::fs::copy(busybox, stage.join("bin/busybox")).expect("copied");
        for name in [
            "sh",
            "cat",
            "ip",
            "sleep",
            "hostname",
            "ping",
            "id",
            "nc",
            "sha256sum",
        ] {
            std::os::unix::fs::symlink("busybox", stage.join("bin").join(name)).expect("a link");
        }
        std::os::unix::fs::symlink("../bin/busybox", stage.join("sbin/init")).expect("a link");
        std::fs::write(stage.join("etc/inittab"), "::respawn:/bin/sleep 10000\n").expect("written");
        std::fs::write(stage.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")
            .expect("written");
        let cache = self
            .world
            .layout
            .state()
            .join("pct-storage/local/template/cache");
        std::fs::create_dir_all(&cache).expect("a directory");
        let archive = cache.join("small.tar.gz");
        tool(&format!(
            "tar -C {} -czf {} .",
            stage.display(),
            archive.display()
        ));
    }

    /// `blockhost` as the user of the services.
    pub fn blockhost(&self, args: &[&str]) -> Ended {
        let ended = run(
            self.world.as_blockhost("blockhost", args),
            Duration::from_secs(120),
        );
        match ended {
            Ok(Output { stdout, stderr }) => Ended {
                code: 0,
                text: stdout,
                error: stderr,
            },
            Err(RunError::Failed {
                status,
                stdout,
                stderr,
                ..
            }) => Ended {
                code: status.code().unwrap_or(-1),
                text: stdout,
                error: stderr,
            },
            Err(error) => panic!("{error}"),
        }
    }

    /// An apply that must succeed, and another that has nothing to do and asks the agent for nothing.
    pub fn converge(&self, file: &str, more: &[&str]) {
        let mut words = vec!["apply", "--yes", "--json", file];
        words.extend(more);
        let first = self.blockhost(&words);
        assert_eq!(first.code, 0, "{}\n{}", first.text, first.error);
        let size = self.changes_on_record();
        let again = self.blockhost(&words);
        assert_eq!(again.code, 0, "{again:?}");
        assert_eq!(again.json()["outcomes"], serde_json::json!([]), "{again:?}");
        // Whatever changes something is on record before it is done.
        assert_eq!(self.changes_on_record(), size, "{again:?}");
        let mut words = vec!["diff", "--json", file];
        words.extend(more);
        let diff = self.blockhost(&words);
        assert_eq!(diff.code, 0, "{diff:?}");
    }

    /// Records of the ledger that are not about looking.
    pub fn changes_on_record(&self) -> usize {
        let list = self.blockhost(&["ledger", "list", "-n", "100000", "--json"]);
        assert_eq!(list.code, 0, "{list:?}");
        let lines = list.text.lines();
        lines
            .filter(|line| !line.contains("\"operation\":\"query\""))
            .count()
    }

    /// Has the container manager wait before this verb, or go on.
    pub fn hold(&self, verb: &str, hold: bool) {
        let directory = self.world.layout.state().join("ct");
        std::fs::create_dir_all(&directory).expect("a directory");
        let file = directory.join(format!("hold-{verb}"));
        if hold {
            std::fs::write(file, "").expect("a file");
        } else {
            std::fs::remove_file(file).expect("a file");
            let _ = std::fs::remove_file(directory.join(format!("held-{verb}")));
        }
    }

    pub fn wait_until_held(&self, verb: &str) {
        let file = self.world.layout.state().join(format!("ct/held-{verb}"));
        eventually("the container manager is held", || file.exists());
    }

    /// Starts an apply and comes back when the container manager waits.
    pub fn apply_until_held(&self, file: &str, verb: &str) -> Service {
        self.hold(verb, true);
        let args = ["apply", "--yes", "--json", file];
        let command = self.world.as_blockhost("blockhost", &args);
        let apply = Service::start(&self.world, "apply", command).expect("an apply");
        self.wait_until_held(verb);
        apply
    }

    /// Containers that the manager knows.
    pub fn containers(&self) -> Vec<String> {
        let directory = self.world.layout.state().join("ct");
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut ids: Vec<String> = names
            .filter_map(|name| name.strip_suffix(".conf").map(str::to_owned))
            .collect();
        ids.sort();
        ids
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.agent.log()).unwrap_or_default()
    }
}

/// Waits for something that must happen.
pub fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(180);
    while !happened() {
        assert!(Instant::now() < until, "{what}: it did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A tunnel daemon as the agent's user, or none where the machine has no such program.
pub fn tunnel_daemon(ground: &Ground, name: &str) -> Option<Service> {
    find("wireguard-go")?;
    let mut start = command("setpriv");
    start.args([
        "--reuid=blockhost-agent",
        "--regid=blockhost-agent",
        "--clear-groups",
        "--inh-caps=-all,+net_admin",
        "--ambient-caps=-all,+net_admin",
        "--",
        "wireguard-go",
        "-f",
        name,
    ]);
    let mut service = Service::start(&ground.world, name, start).expect("a daemon");
    let socket = PathBuf::from(format!("/run/wireguard/{name}.sock"));
    service
        .wait_until("listening", Duration::from_secs(20), || socket.exists())
        .unwrap_or_else(|error| panic!("{error}"));
    Some(service)
}
