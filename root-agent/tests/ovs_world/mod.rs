//! A real switch of a test's own: ovsdb-server and ovs-vswitchd with the userspace datapath, their files under the world's
//! root, in a network namespace of their own, gone with the test.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use blockhost_root_agent::compartment::{Done, Failure, Handler, ovs};
use serde_json::{Value, json};

use crate::compartment_world::{World, in_namespace, is_root, tool};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A world with a switch and the handler that drives it.
pub struct Switch {
    pub world: World,
    pub handler: Box<dyn Handler>,
    database: Option<Child>,
    daemon: Option<Child>,
}

/// Runs `body` in a network namespace with a running switch; says so where there is none to be had.
pub fn with_switch(test: &str, body: impl FnOnce(&mut Switch)) {
    if !Path::new(SCHEMA).exists() {
        println!("skipped: {test} needs the package openvswitch-switch");
        return;
    }
    in_namespace(test, || {
        tool("ip link set lo up");
        body(&mut Switch::start());
    });
}

/// Whether these tests can run at all, for those that do not use [`with_switch`].
pub fn possible() -> bool {
    is_root() && Path::new(SCHEMA).exists()
}

impl Switch {
    pub fn start() -> Self {
        Self::start_in(World::new())
    }

    /// In a world that is there already, as an agent's is.
    pub fn start_in(world: World) -> Self {
        let handler = world.start(ovs::prepare).expect("an ovs compartment");
        let mut switch = Self {
            world,
            handler,
            database: None,
            daemon: None,
        };
        std::fs::create_dir_all(switch.directory()).expect("a directory");
        // The directory was not there when the handler was made: as on a host where the switch is installed later.
        let file = switch.directory().join("conf.db");
        switch.run(
            "ovsdb-tool",
            &["create", file.to_str().expect("text"), SCHEMA],
        );
        switch.start_database();
        switch.run("ovs-vsctl", &["--no-wait", "init"]);
        switch.start_daemon();
        switch
    }

    pub fn directory(&self) -> PathBuf {
        self.world.layout.switch_sockets()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "tests drive the host's own tools"
    )]
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let directory = self.directory();
        command.env_clear().env("PATH", PATH);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, &directory);
        }
        command.stdin(Stdio::null());
        command
    }

    fn spawn(&self, program: &str, arguments: &[String]) -> Child {
        let log =
            std::fs::File::create(self.directory().join(format!("{program}.out"))).expect("a file");
        self.command("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                program,
                "--no-chdir",
                "--pidfile",
            ])
            .args(arguments)
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .expect("the switch starts")
    }

    pub fn start_database(&mut self) {
        let socket = self.directory().join("db.sock");
        let file = self.directory().join("conf.db");
        let arguments = [
            format!("--remote=punix:{}", socket.display()),
            file.display().to_string(),
        ];
        self.database = Some(self.spawn("ovsdb-server", &arguments));
        let answers = || std::os::unix::net::UnixStream::connect(&socket).is_ok();
        assert!(eventually(answers), "ovsdb-server does not come up");
    }

    pub fn start_daemon(&mut self) {
        let socket = self.directory().join("db.sock");
        self.daemon = Some(self.spawn("ovs-vswitchd", &[format!("unix:{}", socket.display())]));
    }

    /// Ends ovsdb-server at once.
    pub fn kill_database(&mut self) {
        end(&mut self.database);
    }

    /// Ends ovs-vswitchd at once.
    pub fn kill_daemon(&mut self) {
        end(&mut self.daemon);
    }

    pub fn daemon_id(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").id()
    }

    /// Stops ovs-vswitchd where it is, or lets it go on.
    pub fn freeze_daemon(&self, frozen: bool) {
        let id = self.daemon_id();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        tool(&format!("kill {signal} {id}"));
    }

    /// Runs one of the switch's own tools; it must succeed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let (ok, text) = self.try_run(program, arguments);
        assert!(ok, "{program} {arguments:?}: {text}");
        text
    }

    pub fn try_run(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        let output = self
            .command(program)
            .args(arguments)
            .output()
            .expect("the tool runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8(text).expect("text"),
        )
    }

    pub fn vsctl(&self, words: &str) -> String {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.run("ovs-vsctl", &[&["--timeout=20"][..], &words].concat())
            .trim()
            .to_owned()
    }

    pub fn ofctl(&self, arguments: &[&str]) -> String {
        self.run(
            "ovs-ofctl",
            &[&["-O", "OpenFlow14"][..], arguments].concat(),
        )
    }

    /// The flows of a bridge as the switch prints them, without what differs by time.
    pub fn flows(&self, bridge: &str) -> Vec<String> {
        let text = self.ofctl(&["--no-stats", "--no-names", "dump-flows", bridge]);
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| line.contains("actions="))
            .map(|line| line.trim().to_owned())
            .collect();
        lines.sort();
        lines
    }

    pub fn ask(&self, name: &str, params: &Value) -> Result<Done, Failure> {
        self.world.ask(&*self.handler, name, params)
    }

    /// An action that must succeed.
    pub fn must(&self, name: &str, params: &Value) -> Done {
        match self.ask(name, params) {
            Ok(done) => done,
            Err(failure) => panic!("{name} {params}: {}\n{}", failure.message, self.log()),
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory().join("ovs-vswitchd.out")).unwrap_or_default()
    }

    /// A bridge of the userspace datapath.
    pub fn bridge(&self, name: &str) {
        self.must(
            "ovs-add-br",
            &json!({"bridge": name, "options": {"datapath_type": "netdev"}}),
        );
    }

    pub fn list(&self, params: &Value) -> Value {
        serde_json::from_str(&self.must("ovs-list", params).output).expect("JSON")
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        end(&mut self.daemon);
        end(&mut self.database);
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        child.kill().expect("a signal");
        child.wait().expect("an end");
    }
}

/// Whether it becomes true within half a minute.
pub fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// An Ethernet device with its other end, both up.
pub fn veth(name: &str) {
    tool(&format!(
        "ip link add {name} type veth peer name {name}-peer"
    ));
    for end in [name.to_owned(), format!("{name}-peer")] {
        tool(&format!("ip link set {end} up"));
    }
}
