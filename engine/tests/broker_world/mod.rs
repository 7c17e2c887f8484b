//! A small broker: HTTP on the test's loopback, and the far end of the tunnel in the namespace at the other end of the uplink,
//! with an address that stands for the internet. It gives out networks as a real one does, or lies as it is told.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::net_world::{Running, World, program, run, wait_for};

pub const PREFIX: &str = "2001:db8:b10c::/64";
pub const OTHER: &str = "2001:db8:aaaa::/64";
pub const INTERNET: &str = "2001:db8:ffff::1";
/// The agent's user in these worlds.
const AGENT: u32 = 64_101;
const FAR_KEY: &str = "sGZbfPMLRz6fWS5VKHX1LPHzJ2HpjAIxGtXX9P0zWUs=";

/// What the broker is told.
#[derive(Debug, Clone)]
pub enum Manner {
    /// A network for whoever asks.
    Gives(&'static str),
    /// This, word for word.
    Says(Vec<u8>),
    /// Nothing: the connection stays open.
    Waits,
}

#[derive(Debug)]
struct State {
    manner: Manner,
    asked: Vec<Value>,
}

/// A mount that must not outlive the world, whose directory could not be removed with it.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = program("umount").arg("-l").arg(&self.0).status();
    }
}

/// Goes before the world that it was made for: it is declared, and so dropped, that way round.
pub struct Broker {
    _mounted: Mounted,
    port: u16,
    state: Arc<Mutex<State>>,
    pub key: String,
    namespace: u32,
    _daemon: Running,
}

/// A world whose agent has a tunnel daemon under it, and the broker. `None` where the machine has no such daemon.
pub fn world_with_broker(test: &str) -> Option<(World, Broker, Running)> {
    if program("wireguard-go").arg("--version").output().is_err()
        || program("wg").arg("help").output().is_err()
    {
        println!("skipped: {test}: it needs the packages wireguard-go and wireguard-tools");
        return None;
    }
    let allow = "  uplinks: [eth0]\n  route_networks: ['fc00::/7', '2001:db8::/32']\nwireguard: userspace\n";
    let mut world = World::with(allow);
    stop_agent(&mut world);
    // The daemons' directory is fixed in them; here it is this world's.
    let sockets = world.layout.wireguard_sockets();
    for path in [Path::new("/run/wireguard"), &sockets] {
        std::fs::create_dir_all(path).expect("a directory");
    }
    run("mount -t tmpfs -o mode=755,uid=0 tmpfs /run/wireguard");
    run(&format!("chown {AGENT} /run/wireguard"));
    run(&format!(
        "mount --bind /run/wireguard {}",
        sockets.display()
    ));
    let keys = world.layout.wireguard_keys();
    std::fs::create_dir_all(&keys).expect("a directory");
    std::fs::set_permissions(&keys, PermissionsExt::from_mode(0o700)).expect("a mode");
    chown(&keys, Some(AGENT), Some(0)).expect("an owner");
    world.start_agent();
    let daemon = tunnel_daemon();
    let broker = Broker::start(&world, Mounted(sockets));
    configure(&world, broker.port, 3600);
    std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("a setting");
    Some((world, broker, daemon))
}

/// Kills the agent, and waits until its front has gone with it.
pub fn stop_agent(world: &mut World) {
    world.kill_agent();
    let socket = world.layout.agent_socket();
    wait_for("nobody answers", || {
        UnixStream::connect(&socket).is_err().then_some(())
    });
}

/// The daemon of this host's end, as the agent's user.
pub fn tunnel_daemon() -> Running {
    let words = format!(
        "--reuid={AGENT} --regid={AGENT} --clear-groups --inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin -- \
         wireguard-go -f wg-broker"
    );
    let socket = Path::new("/run/wireguard/wg-broker.sock");
    // What one that was killed left behind.
    let _ = std::fs::remove_file(socket);
    wait_for("no device of before", || {
        let links = run("ip -o link show");
        (!links.contains(" wg-broker:")).then_some(())
    });
    let child = program("setpriv")
        .args(words.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a daemon");
    wait_for("the tunnel's daemon", || socket.exists().then_some(()));
    Running(child)
}

/// The files that the client goes by.
pub fn configure(world: &World, port: u16, lease_s: u64) {
    let etc = world.layout.etc();
    let write = |name: &str, text: &str| std::fs::write(etc.join(name), text).expect("a file");
    write(
        "network.yaml",
        &format!("broker:\n  url: http://127.0.0.1:{port}\n  lease_s: {lease_s}\n"),
    );
    write(
        "web3-defaults.yaml",
        "blockchain:\n  chain_id: 31337\n  rpc_url: 'http://127.0.0.1:1'\n  \
         nft_contract: '0x52908400098527886E0F7030069857D2E4169EE7'\n",
    );
    write(
        "db.yaml",
        "db_file: /var/lib/blockhost/vms.json\nvmid_range: {start: 100, end: 999}\n\
         ip_pool: {network: '10.77.0.0/24', start: 100, end: 200, gateway: '10.77.0.1'}\nipv6_pool: {start: 2, end: 254}\n",
    );
}

impl Broker {
    fn start(world: &World, mounted: Mounted) -> Self {
        let namespace = world.outside.0.id();
        let file = "/run/wireguard/far.key";
        std::fs::write(file, format!("{FAR_KEY}\n")).expect("a key");
        let daemon = program("nsenter")
            .args([
                "-t",
                &namespace.to_string(),
                "-n",
                "wireguard-go",
                "-f",
                "wgfar",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a daemon");
        let socket = Path::new("/run/wireguard/wgfar.sock");
        wait_for("the broker's daemon", || socket.exists().then_some(()));
        for words in [
            &format!("wg set wgfar listen-port 51999 private-key {file}") as &str,
            "ip link set wgfar up mtu 1420",
            &format!("ip addr add {INTERNET}/128 dev lo"),
            "ip -6 route add 2001:db8:b10c::/64 dev wgfar",
            "ip -6 route add 2001:db8:aaaa::/64 dev wgfar",
        ] {
            world.outside(words);
        }
        let key = world.outside("wg show wgfar public-key").trim().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State {
            manner: Manner::Gives(PREFIX),
            asked: Vec::new(),
        }));
        let (shared, own) = (state.clone(), key.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (state, key) = (shared.clone(), own.clone());
                std::thread::spawn(move || serve(stream, &state, &key, namespace));
            }
        });
        Self {
            _mounted: mounted,
            port,
            state,
            key,
            namespace,
            _daemon: Running(daemon),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn will(&self, manner: Manner) {
        self.state().manner = manner;
    }

    /// An answer with this body.
    pub fn will_say(&self, body: &str) {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        self.will(Manner::Says(format!("{head}{body}").into_bytes()));
    }

    /// What it would answer with another value for a key.
    pub fn will_lie(&self, key: &str, value: &Value) {
        let mut answer = answer(PREFIX, &self.key);
        answer[key] = value.clone();
        self.will_say(&answer.to_string());
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Value> {
        self.state().asked.clone()
    }
}

/// `2001:db8:b10c::/64` has its router at `2001:db8:b10c::1`.
pub fn router(prefix: &str) -> String {
    prefix.replace("/64", "1")
}

fn answer(prefix: &str, key: &str) -> Value {
    json!({"prefix": prefix, "gateway": router(prefix), "broker_pubkey": key, "broker_endpoint": "192.0.2.1:51999"})
}

fn serve(stream: TcpStream, state: &Mutex<State>, key: &str, namespace: u32) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if first.is_empty() {
            first.clone_from(&line);
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let question: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let manner = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.push(question.clone());
        state.manner.clone()
    };
    let mut stream = reader.into_inner();
    match manner {
        Manner::Says(bytes) => drop(stream.write_all(&bytes)),
        Manner::Waits => drop(stream.read(&mut [0; 1])),
        Manner::Gives(_) if first.trim_end() != "POST /v1/allocations HTTP/1.1" => {
            drop(stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"));
        }
        Manner::Gives(prefix) => {
            // The same key has the same network, however often it asks.
            let peer = question["wg_pubkey"].as_str().unwrap_or_default();
            run(&format!(
                "nsenter -t {namespace} -n wg set wgfar peer {peer} allowed-ips {prefix}"
            ));
            let body = answer(prefix, key).to_string();
            let text = format!(
                "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            drop(stream.write_all(text.as_bytes()));
        }
    }
}

/// A machine on the host's bridge, as a namespace with one interface.
pub struct Machine(Running);

impl Machine {
    pub fn new(bridge: &str, address: &str, router: &str) -> Self {
        let holder = program("unshare")
            .args(["--net", "--kill-child", "--fork", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare");
        let own = std::fs::read_link("/proc/self/ns/net").expect("own");
        let path = format!("/proc/{}/ns/net", holder.id());
        wait_for("a namespace", || {
            std::fs::read_link(&path)
                .is_ok_and(|its| its != own)
                .then_some(())
        });
        let machine = Self(Running(holder));
        let pid = machine.0.0.id();
        run(&format!(
            "ip link add vi100 type veth peer name eth0 netns {pid}"
        ));
        run(&format!("ip link set vi100 master {bridge} up"));
        for words in [
            "ip link set lo up",
            "ip link set eth0 up",
            &format!("ip addr add {address}/64 dev eth0 nodad"),
            &format!("ip -6 route add default via {router} dev eth0"),
        ] {
            machine.run(words);
        }
        machine
    }

    pub fn run(&self, words: &str) -> String {
        run(&format!("nsenter -t {} -n {words}", self.0.0.id()))
    }

    pub fn pings(&self, words: &str) -> bool {
        pings(self.0.0.id(), words)
    }
}

/// Whether a ping in a process's network is answered.
pub fn pings(pid: u32, words: &str) -> bool {
    let words = format!("-t {pid} -n ping -6 -n -c 1 -W 1 {words}");
    program("nsenter")
        .args(words.split_whitespace())
        .output()
        .expect("ping")
        .status
        .success()
}
