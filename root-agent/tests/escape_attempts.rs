//! What a process of the agent could do if somebody had taken it over, tried: `blockhost-attacker` (in `attacker/`) is
//! started in each role's place, by the supervisor's own functions and with the confinement of the real one, next to a
//! running agent, and tries everything of its list. What each attempt has to come to stands in `escape_attempts.txt`.

mod common;

use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use blockhost_root_agent::supervisor::config::{ConfigError, read_policy};
use common::{Agent, World};
use serde_json::json;

/// A line per attempt, a column per role.
const EXPECTED: &str = include_str!("escape_attempts.txt");

/// Attempts at things that not every host has; skipped where the file is missing.
const NEEDED: [(&str, &str); 5] = [
    ("memory-device", "/dev/mem"),
    ("kernel-log-device", "/dev/kmsg"),
    ("sysrq", "/proc/sysrq-trigger"),
    ("sys-write", "/sys/kernel/mm/transparent_hugepage/enabled"),
    ("control-group-of-all", "/sys/fs/cgroup/cgroup.procs"),
];

struct Ground {
    agent: Agent,
    outside: tempfile::TempDir,
    abstract_name: String,
    _abstract_socket: UnixListener,
    _bus: UnixListener,
    port: std::net::TcpListener,
}

impl Ground {
    fn new(role: &str) -> Self {
        let agent = Agent::start_in(World::with_qm(
            "echo 'status: stopped'",
            "containers: {attach: true}\n",
        ));
        let outside = tempfile::Builder::new()
            .prefix("blockhost-outside-")
            .tempdir_in("/run")
            .expect("a directory");
        mode(outside.path(), 0o755);
        std::fs::write(outside.path().join("canary"), "precious").expect("canary");
        mode(&outside.path().join("canary"), 0o600);
        let layout = &agent.world.layout;
        std::fs::write(layout.etc().join("hot.key"), "secret").expect("wallet");
        std::fs::write(layout.state().join("vms.json"), "{}").expect("state");
        let abstract_name = format!("blockhost-test-{}-{role}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("an address");
        let bus = UnixListener::bind(outside.path().join("bus")).expect("a bus");
        mode(&outside.path().join("bus"), 0o666);
        Self {
            _abstract_socket: UnixListener::bind_addr(&address).expect("an abstract socket"),
            _bus: bus,
            port: std::net::TcpListener::bind("127.0.0.1:0").expect("a port"),
            abstract_name,
            agent,
            outside,
        }
    }

    fn canary(&self) -> PathBuf {
        self.outside.path().join("canary")
    }

    fn own(&self, role: &str) -> PathBuf {
        let layout = &self.agent.world.layout;
        match role {
            "ledger" => layout.ledger(),
            "keys" => layout.etc().join("unfinished"),
            _ => layout.state(),
        }
    }

    /// Runs every attempt in the role's place.
    fn attack(&self, role: &str, sibling: &str) -> BTreeMap<String, String> {
        let own = self.own(role);
        for name in ["attempt-replace", "attempt-move"] {
            std::fs::write(own.join(name), "x").expect("a file");
        }
        std::fs::copy("/usr/bin/true", own.join("attempt-program")).expect("a program");
        symlink("/etc/shadow", own.join("link-out")).expect("a link");
        let context = json!({
            "root": self.agent.world.layout.root(),
            "canary": self.canary(),
            "sibling": self.agent.pid(sibling).expect(sibling),
            "supervisor": self.agent.supervisor(),
            "abstract_name": self.abstract_name,
            "bus": self.outside.path().join("bus"),
            "port": self.port.local_addr().expect("an address").port(),
            "own": own,
        });
        #[expect(clippy::disallowed_methods, reason = "starts the program that attacks")]
        let output = Command::new(env!("CARGO_BIN_EXE_blockhost-attacker"))
            .args(["drive", role, &context.to_string()])
            .output()
            .expect("the attacker runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let errors = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "{role}: {errors}{text}");
        text.lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(name, ended)| (name.to_owned(), word(ended)))
            .collect()
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
}

/// How an attempt ended, as the table says it.
fn word(ended: &str) -> String {
    let known = [
        ("done", "done"),
        ("signal 31", "KILL"),
        ("signal 25", "XFSZ"),
        ("errno 1", "EPERM"),
        ("errno 2", "ENOENT"),
        ("errno 11", "EAGAIN"),
        ("errno 12", "ENOMEM"),
        ("errno 13", "EACCES"),
        ("errno 18", "EXDEV"),
        ("errno 22", "EINVAL"),
        ("errno 24", "EMFILE"),
        ("errno 25", "ENOTTY"),
        ("errno 38", "ENOSYS"),
        ("errno 97", "EAFNO"),
        // The loader ran and could not open what it was to load.
        ("errno 127", "LOADER"),
    ];
    known
        .iter()
        .find(|(from, _)| *from == ended)
        .map_or_else(|| ended.replace(' ', "-"), |(_, to)| (*to).to_owned())
}

/// The column of a role: attempt to expected end.
fn expected(role: &str) -> BTreeMap<&'static str, &'static str> {
    let mut lines = EXPECTED
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut header = lines.next().expect("a header").split_whitespace().skip(1);
    let column = header.position(|name| name == role).expect(role);
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next().expect("a name");
            (name, words.nth(column).expect(line))
        })
        .collect()
}

fn siege(role: &str, sibling: &str) {
    let ground = Ground::new(role);
    let found = ground.attack(role, sibling);
    if std::env::var_os("BLOCKHOST_ATTACK").is_some_and(|word| word == "print") {
        for (name, ended) in &found {
            println!("{role}\t{name}\t{ended}");
        }
    }
    let table = expected(role);
    let mut wrong = Vec::new();
    for (name, ended) in &found {
        if let Some((_, file)) = NEEDED.iter().find(|(attempt, _)| attempt == name)
            && !Path::new(file).exists()
        {
            println!("skipped: {name}, this host has no {file}");
            continue;
        }
        match table.get(name.as_str()) {
            Some(wanted) if wanted == ended => {}
            Some(wanted) => wrong.push(format!("{name}: {ended}, must be {wanted}")),
            None => wrong.push(format!("{name}: {ended}, is not in the table")),
        }
    }
    wrong.extend(
        table
            .keys()
            .filter(|name| !found.contains_key(**name))
            .map(|name| format!("{name}: in the table and not tried")),
    );
    assert!(
        wrong.is_empty(),
        "in the place of {role}:\n{}",
        wrong.join("\n")
    );

    let canary = ground.canary();
    assert_eq!(std::fs::read(&canary).expect("the canary"), b"precious");
    let stat = canary.metadata().expect("the canary");
    // What the table calls done was done to it; nothing else was.
    let changed = |attempts: &[&str]| attempts.iter().any(|name| table.get(name) == Some(&"done"));
    let mode_may_differ = changed(&[
        "chmod-canary",
        "chmod-canary-by-descriptor",
        "chmod2-canary",
    ]);
    assert!(
        mode_may_differ || stat.mode() & 0o7777 == 0o600,
        "{:o}",
        stat.mode()
    );
    assert!(
        changed(&["chown-canary"]) || stat.gid() == 0,
        "{}",
        stat.gid()
    );
    // What a process put in the place of the policy is none: as if root's, and not of root's group.
    let layout = &ground.agent.world.layout;
    let policy = read_policy(&layout.agent_policy());
    let replaced = changed(&["put-policy-in-place"]);
    assert_eq!(
        matches!(policy, Err(ConfigError::Writable { .. })),
        replaced,
        "{policy:?}"
    );
    assert!(layout.ledger_keys().exists());
    for place in ["/etc", "/usr", "/", "/tmp", "/var/tmp", "/dev/shm"] {
        let left = Path::new(place).join("blockhost-attempt");
        assert!(!left.exists(), "{} was made", left.display());
    }
    assert_eq!(
        ground.agent.client().call(&json!({"action": "agent-info"}))["ok"],
        true,
        "the agent beside it was harmed"
    );
}

#[test]
fn a_front_that_was_taken_over_gets_nowhere() {
    siege("front", "net");
}

#[test]
fn a_ledger_process_that_was_taken_over_has_its_directory_and_nothing_else() {
    siege("ledger", "keys");
}

#[test]
fn a_keys_process_that_was_taken_over_has_its_directory_and_nothing_else() {
    siege("keys", "ledger");
}

#[test]
fn a_net_process_that_was_taken_over_has_the_network_and_nothing_else() {
    siege("net", "front");
}

#[test]
fn an_ovs_process_that_was_taken_over_has_its_switch_and_nothing_else() {
    siege("ovs", "keys");
}

#[test]
fn an_image_process_that_was_taken_over_has_its_images_and_nothing_else() {
    siege("image", "front");
}

#[test]
fn an_attach_process_that_was_taken_over_has_networks_and_nothing_else() {
    siege("attach", "net");
}

#[test]
fn a_vm_process_that_was_taken_over_gets_as_far_as_the_table_says_and_no_further() {
    siege("vm", "keys");
}
