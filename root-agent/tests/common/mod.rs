//! A real agent for tests: its own root directory, its own network namespace, real processes, real socket.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::reader::Reader;
use blockhost_proto::layout::Layout;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Every process below the supervisor.
pub const ROLES: [&str; 8] = [
    "front", "ledger", "net", "ovs", "keys", "vm", "image", "attach",
];

/// Numbers for the product's users, so that the host needs none of them.
pub const AGENT: u32 = 64_101;
/// Stands for `blockhost`.
pub const BLOCKHOST: u32 = 64_102;
/// Stands for `blockhost-vm`.
pub const VM: u32 = 64_103;
/// Stands for `blockhost-image`.
pub const IMAGE: u32 = 64_104;

/// The program under test, with its fail points.
const AGENT_PROGRAM: &str = env!("CARGO_BIN_EXE_blockhost-root-agent");

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A root directory.
pub struct World {
    directory: TempDir,
    pub layout: Layout,
}

impl World {
    /// A fresh world whose policy is the default plus `policy` (YAML lines).
    pub fn new(policy: &str) -> Self {
        // Programs are only run from directories that nobody but root can write to: not from /tmp.
        let directory = tempfile::Builder::new()
            .prefix("blockhost-")
            .tempdir_in("/run")
            .expect("a temporary directory");
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("mode");
        let layout = Layout::new(directory.path());
        for path in [layout.etc(), layout.state(), layout.run()] {
            std::fs::create_dir_all(path).expect("directories of the world");
        }
        // As the packages make it: nobody but root and the services may pass, the agent's own user neither.
        std::fs::set_permissions(layout.etc(), PermissionsExt::from_mode(0o750)).expect("mode");
        std::os::unix::fs::chown(layout.etc(), Some(0), Some(BLOCKHOST)).expect("owner");
        let world = Self { directory, layout };
        world.write_policy(policy);
        world
    }

    /// Replaces the policy file.
    pub fn write_policy(&self, policy: &str) {
        let identity = |name: &str, id: u32| format!("  {name}: {{uid: {id}, gid: {id}}}\n");
        let text = format!(
            "identities:\n{}{}{}{}{policy}",
            identity("agent", AGENT),
            identity("blockhost", BLOCKHOST),
            identity("vm", VM),
            identity("image", IMAGE)
        );
        std::fs::write(self.layout.agent_policy(), text).expect("policy file");
    }

    /// Files that were not finished, of those that the keys process makes.
    pub fn unfinished(&self) -> usize {
        let etc = self.layout.etc();
        let hidden = |directory: PathBuf| {
            let entries = std::fs::read_dir(directory).expect("a directory").flatten();
            let names = entries.map(|entry| entry.file_name());
            names
                .filter(|name| name.as_encoded_bytes().starts_with(b"."))
                .count()
        };
        hidden(etc.join("unfinished")) + hidden(etc)
    }

    /// An executable script of root's in the world. Another process writes it: a descriptor of ours would be in whatever
    /// another thread starts meanwhile, until that is another program, and nobody runs a file that is open for writing.
    #[expect(clippy::disallowed_methods, reason = "a tool of the host")]
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let root = self.layout.root();
        let (path, draft) = (root.join(name), root.join("draft"));
        std::fs::write(&draft, text).expect("a script");
        let mut install = Command::new("install");
        install.args(["--mode=755", "--"]).arg(&draft).arg(&path);
        assert!(install.status().expect("install").success(), "{name}");
        std::fs::remove_file(&draft).expect("a script");
        path
    }

    /// A world whose `qm` is this shell script; `$BLOCKHOST_ROOT` is the world's root.
    pub fn with_qm(script: &str, policy: &str) -> Self {
        let world = Self::new("");
        let path = world.script("qm", &format!("#!/bin/sh\n{script}\n"));
        world.write_policy(&format!(
            "backend: embedded\nprograms: {{qm: {}}}\n{policy}",
            path.display()
        ));
        world
    }

    /// The command line of an agent in this world.
    pub fn command(&self) -> Command {
        self.command_after("")
    }

    /// The same in a mount namespace of its own, after a shell command there. A last command `exec ...` starts the agent.
    pub fn command_after(&self, preparation: &str) -> Command {
        #[expect(
            clippy::disallowed_methods,
            reason = "the test starts the program under test"
        )]
        let mut command = Command::new("unshare");
        command
            .args(match preparation {
                "" => vec!["--net", "--", AGENT_PROGRAM],
                _ => vec!["--net", "--mount", "--", "sh", "-c"],
            })
            .args((!preparation.is_empty()).then(|| {
                let (before, wrapper) = preparation
                    .rsplit_once("exec ")
                    .unwrap_or((preparation, ""));
                let and = if wrapper.is_empty() { " && " } else { "" };
                format!("{before}{and}exec {wrapper} {AGENT_PROGRAM}")
            }))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("BLOCKHOST_ROOT", self.layout.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Where the agent's messages go.
    pub fn log_path(&self) -> PathBuf {
        self.layout.root().join("agent.log")
    }

    /// The agent's messages.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Every record of the ledger, parsed; fails the test when the ledger does not verify as readable.
    pub fn records(&self) -> Vec<Value> {
        let directory = LedgerDir::open(&self.layout.ledger()).expect("ledger directory");
        let reader = Reader::open(directory, None).expect("a readable ledger");
        reader
            .records(0)
            .map(|record| {
                let (_, bytes) = record.expect("a record");
                serde_json::from_slice(&bytes).expect("JSON")
            })
            .collect()
    }
}

/// A running agent.
pub struct Agent {
    pub world: World,
    child: Child,
}

impl World {
    /// Another handle on the same directory; whoever holds the first keeps it alive.
    fn hand_over(&mut self) -> Self {
        let layout = self.layout.clone();
        let empty = tempfile::tempdir().expect("a temporary directory");
        Self {
            directory: std::mem::replace(&mut self.directory, empty),
            layout,
        }
    }
}

impl Agent {
    /// Starts one in a fresh world and waits until it answers.
    pub fn start(policy: &str) -> Self {
        Self::start_in(World::new(policy))
    }

    /// Starts one in that world and waits until it answers.
    pub fn start_in(world: World) -> Self {
        Self::start_wrapped(world, "")
    }

    /// The same after a shell command in a mount namespace of its own.
    pub fn start_wrapped(world: World, preparation: &str) -> Self {
        let ready = |log: String| log.matches(": ready on ").count();
        let before = ready(world.log());
        let mut agent = Self::spawn_after(world, preparation);
        agent.wait_until_ready();
        // The front answers a moment before the supervisor has heard from everybody.
        wait_for(|| (ready(agent.world.log()) > before).then_some(()));
        agent
    }

    /// Starts one without waiting.
    pub fn spawn_in(world: World) -> Self {
        Self::spawn_after(world, "")
    }

    fn spawn_after(world: World, preparation: &str) -> Self {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(world.log_path())
            .expect("log");
        let child = world
            .command_after(preparation)
            .stderr(log)
            .spawn()
            .expect("unshare is installed");
        Self { world, child }
    }

    /// Waits until `agent-info` answers.
    pub fn wait_until_ready(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                panic!("the agent ended with {status}: {}", self.world.log());
            }
            let answered = UnixStream::connect(self.world.layout.agent_socket())
                .ok()
                .and_then(|stream| Client::on(stream).try_call(&json!({"action": "agent-info"})));
            if answered.is_some() {
                return;
            }
            assert!(
                Instant::now() < until,
                "the agent does not answer: {}",
                self.world.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Pid of the supervisor.
    pub fn supervisor(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Pid of a child by role.
    pub fn pid(&self, role: &str) -> Option<i32> {
        let children = format!("/proc/{0}/task/{0}/children", self.supervisor());
        let children = std::fs::read_to_string(children).ok()?;
        children.split_whitespace().find_map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            line.ends_with(format!("\0internal\0{role}\0").as_bytes())
                .then(|| pid.parse().ok())?
        })
    }

    /// Waits for a child of that role other than `old`.
    pub fn wait_for_new(&self, role: &str, old: i32) -> i32 {
        wait_for(|| self.pid(role).filter(|&pid| pid != old))
    }

    /// A connection.
    pub fn client(&self) -> Client {
        let stream = UnixStream::connect(self.world.layout.agent_socket()).expect("connect");
        Client::on(stream)
    }

    /// A connection made as another user, with that primary group and nothing else.
    pub fn client_as(&self, uid: u32, gid: u32) -> Client {
        let path = self.world.layout.agent_socket();
        Client::connect_as(path, uid, gid, &[]).expect("connect")
    }

    /// What a process of that user and group hears on the socket.
    pub fn process_hears(&self, uid: u32, gid: u32, request: &Value) -> Value {
        const SCRIPT: &str = "
import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try:
    body = sys.argv[2].encode()
    s.sendall(struct.pack('>I', len(body)) + body)
except BrokenPipeError:
    pass
answer = b''
while len(answer) < 4 or len(answer) < 4 + struct.unpack('>I', answer[:4])[0]:
    piece = s.recv(65536)
    if not piece:
        break
    answer += piece
sys.stdout.write(answer[4:].decode())
";
        #[expect(
            clippy::disallowed_methods,
            reason = "a process with the credentials of one of the agent's own"
        )]
        let output = Command::new("/usr/bin/python3")
            .args(["-I", "-c", SCRIPT])
            .arg(self.world.layout.agent_socket())
            .arg(request.to_string())
            .env_clear()
            .current_dir("/")
            .uid(uid)
            .gid(gid)
            .stderr(Stdio::piped())
            .output()
            .expect("python3 is installed");
        let text = String::from_utf8(output.stdout).expect("text");
        serde_json::from_str(&text).unwrap_or_else(|_| {
            let said = String::from_utf8(output.stderr).expect("text");
            panic!("uid {uid} gid {gid} heard `{text}`: {said}")
        })
    }

    /// Sends a signal to the supervisor.
    pub fn signal(&self, signal: rustix::process::Signal) {
        signal_process(self.supervisor(), signal);
    }

    /// The world outlives its agent.
    pub fn into_world(mut self) -> World {
        self.world.hand_over()
    }

    /// SIGTERM and the exit status.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for(|| self.child.try_wait().expect("wait"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the agent's log ---\n{}", self.world.log());
        }
        // The children die with their parent.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal.
pub fn signal_process(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("kill");
}

/// Polls until there is something.
pub fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < until,
            "it did not happen within {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A raw client: writes bytes, reads frames.
pub struct Client {
    pub stream: UnixStream,
}

impl Client {
    /// On an open connection.
    pub fn on(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Self { stream }
    }

    /// A connection made as another user, with these groups and no others.
    pub fn connect_as(path: PathBuf, uid: u32, gid: u32, groups: &[u32]) -> std::io::Result<Self> {
        use rustix::thread::{Gid, Uid};
        let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
        // Credentials belong to a thread for the kernel; std's threads keep their own.
        let thread = std::thread::spawn(move || {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::thread::set_thread_groups(&groups).expect("setgroups");
            rustix::thread::set_thread_res_gid(gid, gid, gid).expect("setgid");
            rustix::thread::set_thread_res_uid(uid, uid, uid).expect("setuid");
            UnixStream::connect(path)
        });
        thread.join().expect("the thread").map(Self::on)
    }

    /// Writes bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("write");
    }

    /// Writes a framed request.
    pub fn request(&mut self, request: &Value) {
        let body = request.to_string();
        self.send(&frame(body.as_bytes()));
    }

    /// Reads one answer; `None` at the end of the stream. Silence is neither.
    pub fn answer(&mut self) -> Option<Value> {
        let mut header = [0; 4];
        ended(self.stream.read_exact(&mut header)).ok()?;
        let mut body = vec![0; u32::from_be_bytes(header) as usize];
        ended(self.stream.read_exact(&mut body)).ok()?;
        Some(serde_json::from_slice(&body).expect("an answer is JSON"))
    }

    /// One request, one answer.
    pub fn call(&mut self, request: &Value) -> Value {
        self.request(request);
        self.answer().expect("an answer")
    }

    /// The same where the agent may not be there.
    pub fn try_call(&mut self, request: &Value) -> Option<Value> {
        self.stream
            .write_all(&frame(request.to_string().as_bytes()))
            .ok()?;
        self.answer()
    }

    /// True when the agent has closed the connection; waits for it.
    pub fn is_closed(&mut self) -> bool {
        matches!(ended(self.stream.read(&mut [0; 1])), Ok(0) | Err(_))
    }
}

/// What was read; fails the test where nothing came and the connection is open all the same.
fn ended<T>(read: std::io::Result<T>) -> std::io::Result<T> {
    if let Err(error) = &read {
        let silence = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!silence, "neither an answer nor an end within {PATIENCE:?}");
    }
    read
}

/// Length and payload.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a frame's length");
    [&length.to_be_bytes(), body].concat()
}

/// What a process has of memory that is its own, in KiB: anonymous and shared-memory pages. The pages of the program's file are left
/// out: how many of those count depends on how many agents other tests run just then (`Pss` divides them among all).
pub fn own_kib(pid: i32) -> u64 {
    let kib = |key| {
        let line = status(pid, key);
        let number = line.split(' ').next().and_then(|n| n.parse::<u64>().ok());
        number.unwrap_or_else(|| panic!("{key} of {pid}: {line:?}"))
    };
    kib("RssAnon") + kib("RssShmem")
}

/// A line of `/proc/PID/status`.
pub fn status(pid: i32, key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let prefix = format!("{key}:");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&prefix))
        .unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
