//! A real switch of a test's or benchmark's own: ovsdb-server and ovs-vswitchd, their files in one directory, gone with it.
//! Also included by the root agent's tests (`#[path]`), so it needs nothing but the standard library.
#![allow(
    dead_code,
    reason = "whoever includes this file uses its own part of it"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether a switch can be had on this machine.
#[must_use]
pub fn installed() -> bool {
    Path::new(SCHEMA).exists()
}

/// The two processes of a switch and the tools to look at it. Everything here panics with what the tool said.
#[derive(Debug)]
pub struct Switch {
    directory: PathBuf,
    database: Option<Child>,
    daemon: Option<Child>,
}

impl Switch {
    /// Starts a switch whose files and sockets are in `directory`.
    #[must_use]
    pub fn start(directory: &Path) -> Self {
        let mut switch = Self {
            directory: directory.to_owned(),
            database: None,
            daemon: None,
        };
        std::fs::create_dir_all(directory).unwrap_or_else(|error| panic!("a directory: {error}"));
        let file = directory.join("conf.db");
        // Of one that was here before; the directory itself stays, the agent has it open.
        let _ = std::fs::remove_file(&file);
        let file = file.display().to_string();
        switch.run("ovsdb-tool", &["create", &file, SCHEMA]);
        switch.start_database();
        switch.run("ovs-vsctl", &["--no-wait", "init"]);
        switch.start_daemon();
        switch
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A program with the switch's directories in its environment, and nothing else.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the switch and its tools are programs of the host"
    )]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", PATH);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, &self.directory);
        }
        command.stdin(Stdio::null());
        command
    }

    fn spawn(&self, program: &str, arguments: &[String]) -> Child {
        let log = std::fs::File::create(self.directory.join(format!("{program}.out")))
            .unwrap_or_else(|error| panic!("a log: {error}"));
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
            .unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// Starts the database again after [`Self::kill_database`].
    pub fn start_database(&mut self) {
        let socket = self.directory.join("db.sock");
        let file = self.directory.join("conf.db");
        let arguments = [
            format!("--remote=punix:{}", socket.display()),
            file.display().to_string(),
        ];
        self.database = Some(self.spawn("ovsdb-server", &arguments));
        let answers = || std::os::unix::net::UnixStream::connect(&socket).is_ok();
        assert!(eventually(answers), "ovsdb-server does not come up");
    }

    /// Starts the switch itself again after [`Self::kill_daemon`].
    pub fn start_daemon(&mut self) {
        let socket = self.directory.join("db.sock");
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

    /// The process of ovs-vswitchd.
    #[must_use]
    pub fn daemon_id(&self) -> u32 {
        self.daemon.as_ref().map_or(0, Child::id)
    }

    /// Runs one of the switch's own tools; it must succeed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let (ok, text) = self.try_run(program, arguments);
        assert!(ok, "{program} {arguments:?}: {text}");
        text
    }

    /// Runs one of the switch's own tools.
    #[must_use]
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        let output = self
            .command(program)
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap_or_else(|error| panic!("{program}: {error}"));
        (output.status.success(), text)
    }

    /// `ovs-vsctl` with these words.
    pub fn vsctl(&self, words: &str) -> String {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.run("ovs-vsctl", &[&["--timeout=120"][..], &words].concat())
            .trim()
            .to_owned()
    }

    /// `ovs-ofctl` of OpenFlow 1.4.
    pub fn ofctl(&self, arguments: &[&str]) -> String {
        self.run(
            "ovs-ofctl",
            &[&["-O", "OpenFlow14"][..], arguments].concat(),
        )
    }

    /// The flows of a bridge as the switch prints them, without what differs by time.
    #[must_use]
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

    /// What the switch wrote.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("ovs-vswitchd.out")).unwrap_or_default()
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
        // Gone already is what is wanted.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Whether it becomes true within minutes, as on a busy machine it may.
pub fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(180);
    while Instant::now() < until {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}
