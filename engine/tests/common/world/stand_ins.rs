//! What stands between a test's engine and the world: a relay to the chain that can kill it, and something that answers on the
//! agent's socket.

use super::{CrashAt, World};
use blockhost_engine::crypto::keys::PrivateKey;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

impl World {
    /// The relay between engine and chain. It kills the engine before or after a request passes.
    pub(super) fn start_relay(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (upstream, crash_at, pid) = (
            self.anvil.port,
            self.crash_at.clone(),
            self.dir.path().join("engine.pid"),
        );
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (crash_at, pid) = (crash_at.clone(), pid.clone());
                std::thread::spawn(move || relay(client, upstream, &crash_at, &pid));
            }
        });
        port
    }

    /// Answers on the agent's socket in its protocol and keeps what it is told.
    pub(super) fn start_agent(&self) {
        let listener = UnixListener::bind(self.layout.agent_socket()).unwrap();
        let (events, crash_at, pid) = (
            self.events.clone(),
            self.crash_at.clone(),
            self.dir.path().join("engine.pid"),
        );
        let etc = self.layout.etc();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (events, crash_at, pid, etc) =
                    (events.clone(), crash_at.clone(), pid.clone(), etc.clone());
                std::thread::spawn(move || drop(answer(client, &events, &crash_at, &pid, &etc)));
            }
        });
    }
}

fn kill(pid_file: &Path) {
    let pid = std::fs::read_to_string(pid_file).unwrap().parse().unwrap();
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    );
}

/// Takes the wish for a crash if it is this one.
fn due(crash_at: &CrashAt, matches: impl Fn(&str) -> bool) -> bool {
    let mut wish = crash_at.lock().unwrap();
    let due = wish.is_some_and(matches);
    if due {
        *wish = None;
    }
    due
}

fn relay(mut client: TcpStream, upstream: u16, crash_at: &CrashAt, pid: &Path) {
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).unwrap();
    let (mut back_from, mut back_to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    // Once set, what the chain answers no longer arrives.
    let mute = Arc::new(AtomicBool::new(false));
    let muted = mute.clone();
    std::thread::spawn(move || {
        let mut piece = [0; 16384];
        while let Ok(n @ 1..) = back_from.read(&mut piece) {
            if muted.load(Ordering::SeqCst) || back_to.write_all(&piece[..n]).is_err() {
                return;
            }
        }
        let _ = back_to.shutdown(std::net::Shutdown::Both);
    });
    while let Some(request) = read_request(&mut client) {
        let body = String::from_utf8(request.clone()).unwrap_or_default();
        let asks = |wish: &str, moment: &str| {
            wish.strip_prefix("rpc:")
                .and_then(|w| w.strip_suffix(moment))
                .is_some_and(|method| body.contains(&format!("\"{method}\"")))
        };
        if due(crash_at, |wish| asks(wish, ":before")) {
            kill(pid);
            return;
        }
        let kill_after = due(crash_at, |wish| asks(wish, ":after"));
        mute.store(kill_after, Ordering::SeqCst);
        if server.write_all(&request).is_err() {
            return;
        }
        if kill_after {
            // Long enough for the chain to take it.
            std::thread::sleep(Duration::from_millis(300));
            kill(pid);
            return;
        }
    }
}

/// One HTTP request with its body.
fn read_request(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16384];
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = std::str::from_utf8(&bytes[..end])
                .ok()?
                .to_ascii_lowercase();
            let length: usize = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok())
                .unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                return Some(bytes);
            }
        }
        match client.read(&mut piece) {
            Ok(n @ 1..) => bytes.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    }
}

fn answer(
    mut client: UnixStream,
    events: &Mutex<Vec<serde_json::Value>>,
    crash_at: &CrashAt,
    pid: &Path,
    etc: &Path,
) -> std::io::Result<()> {
    loop {
        let mut length = [0; 4];
        client.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        client.read_exact(&mut body)?;
        if due(crash_at, |wish| wish == "ledger:before") {
            kill(pid);
            return Ok(());
        }
        let request: serde_json::Value = serde_json::from_slice(&body)?;
        let mut event = request["params"].clone();
        match request["action"].as_str() {
            Some("agent-info") => {
                let info = serde_json::json!({
                    "ok": true, "output": "", "id": request["id"], "version": "0", "backend": "embedded", "uptime_s": 1,
                    "counters": {"succeeded": 1, "failed": 0, "refused": 0},
                });
                send(&mut client, &info)?;
                continue;
            }
            Some("qm-list") => {
                let list =
                    serde_json::json!({"ok": true, "output": machines(etc), "id": request["id"]});
                send(&mut client, &list)?;
                continue;
            }
            Some("ledger-append") => {}
            Some(action @ ("ledger-anchored" | "iptables-open" | "iptables-close")) => {
                event["action"] = action.into();
            }
            Some(action @ ("generate-wallet" | "addressbook-save")) => {
                let extra = keys(action, &request["params"], etc);
                let mut answer = serde_json::json!({"ok": true, "output": ""});
                if let (Some(answer), Some(extra)) = (answer.as_object_mut(), extra.as_object()) {
                    answer.extend(extra.clone());
                }
                if let Some(id) = request.get("id") {
                    answer["id"] = id.clone();
                }
                send(&mut client, &answer)?;
                continue;
            }
            other => panic!("the engine asked for {other:?}"),
        }
        let index = {
            let mut events = events.lock().unwrap();
            events.push(event);
            events.len() - 1
        };
        if due(crash_at, |wish| wish == "ledger:after") {
            kill(pid);
            return Ok(());
        }
        let mut answer = serde_json::json!({"ok": true, "output": "", "receipt": {"index": index, "leaf": "00".repeat(32)}});
        if let Some(id) = request.get("id") {
            answer["id"] = id.clone();
        }
        send(&mut client, &answer)?;
    }
}

/// What is active runs, but for the machine whose name is in the file `stopped` of the world.
fn machines(etc: &Path) -> String {
    let root = etc.join("../..");
    let text = std::fs::read_to_string(root.join("var/lib/blockhost/vms.json"));
    let all: serde_json::Value =
        serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
    let stopped = std::fs::read_to_string(root.join("stopped")).unwrap_or_default();
    let vms = all["vms"].as_object().cloned().unwrap_or_default();
    let rows = vms.iter().map(|(name, vm)| {
        let runs = vm["status"] == "active" && *name != stopped;
        let status = if runs { "running" } else { "stopped" };
        serde_json::json!({"vmid": vm["vmid"], "name": name, "status": status})
    });
    serde_json::Value::from_iter(rows).to_string()
}

/// What the agent does with wallets, read by the catalog's own types. Its rules are tested with the agent.
fn keys(action: &str, params: &serde_json::Value, etc: &Path) -> serde_json::Value {
    use blockhost_proto::action::Action;
    use blockhost_proto::value::{AddressBook, Param};
    let path = etc.join("addressbook.json");
    match Action::from_parts(action, params).unwrap() {
        Action::AddressbookSave(save) => {
            std::fs::write(&path, save.entries.to_file_json().to_string()).unwrap();
            serde_json::json!({})
        }
        Action::GenerateWallet(new) => {
            let key = PrivateKey::generate().unwrap();
            let file = format!("{}.key", new.name);
            std::fs::write(etc.join(&file), key.to_hex().as_bytes()).unwrap();
            let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".into());
            let mut book: serde_json::Value = serde_json::from_str(&text).unwrap();
            let address = key.public_key().address().to_string();
            book[new.name.as_str()] = serde_json::json!({"address": address, "keyfile": file});
            let book = AddressBook::from_json(&book).unwrap();
            std::fs::write(&path, book.to_file_json().to_string()).unwrap();
            serde_json::json!({"address": address, "keyfile": format!("/etc/blockhost/{file}")})
        }
        other => panic!("{other:?}"),
    }
}

fn send(client: &mut UnixStream, answer: &serde_json::Value) -> std::io::Result<()> {
    let text = answer.to_string();
    client.write_all(&u32::try_from(text.len()).unwrap().to_be_bytes())?;
    client.write_all(text.as_bytes())
}
