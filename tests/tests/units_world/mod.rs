//! A private system that a real systemd runs, with the product's units as the packages install them, and the agent asked from
//! inside.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blockhost_tests::systemd::{Booted, File, Installation};
use blockhost_tests::world::{PROGRAMS, built_programs};
use serde_json::{Value, json};

pub const AGENT: &str = "blockhost-root-agent.service";
pub const CONTAINERS: &str = "blockhost-containers.service";

/// `db.yaml`.
pub const POOLS: &[u8] =
    b"db_file: /var/lib/blockhost/vms.json\nvmid_range: {start: 100, end: 199}\n\
    ip_pool: {network: 192.168.122.0/24, start: 200, end: 250, gateway: 192.168.122.1}\n";

pub fn packaged(unit: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging/systemd")
        .join(unit)
}

/// Where the packages install a program.
pub fn installed(name: &str) -> String {
    match name {
        "blockhost-root-agent" => format!("/usr/sbin/{name}"),
        "blockhost-qm" | "blockhost-pct" | "blockhost-containers" => {
            format!("/usr/lib/blockhost/{name}")
        }
        _ => format!("/usr/bin/{name}"),
    }
}

/// A system with the product installed, or `None` where none can be had.
pub fn booted(enabled: &[&str], files: &[File<'_>]) -> Option<Booted> {
    booted_with(enabled, files, &[])
}

/// The same with further programs.
pub fn booted_with(
    enabled: &[&str],
    files: &[File<'_>],
    extra: &[(String, PathBuf)],
) -> Option<Booted> {
    let built = built_programs();
    let mut programs: Vec<(String, PathBuf)> = PROGRAMS
        .iter()
        .map(|name| (installed(name), built.join(name)))
        .collect();
    programs.extend_from_slice(extra);
    let installation = Installation {
        programs: &programs,
        files,
        enabled,
    };
    match Booted::boot(
        Path::new(env!("CARGO_BIN_EXE_blockhost-systemd-init")),
        &installation,
    ) {
        Ok(booted) => Some(booted),
        Err(reason) => {
            println!("skipped: {}", reason.0);
            None
        }
    }
}

/// Asks the agent from inside, as root, with nothing of ours in between.
pub fn call(booted: &Booted, action: &str, params: &Value) -> Value {
    const CLIENT: &str = "\
import json, socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect('/run/blockhost/root-agent.sock')
b = sys.argv[1].encode()
s.sendall(struct.pack('>I', len(b)) + b)
n = struct.unpack('>I', s.recv(4, socket.MSG_WAITALL))[0]
print(s.recv(n, socket.MSG_WAITALL).decode())
";
    let request = json!({"action": action, "params": params}).to_string();
    let words = ["/usr/bin/python3", "-c", CLIENT, &request];
    match booted.run_within(&words, Duration::from_secs(600)) {
        Ok(output) => serde_json::from_str(&output.stdout).expect("the agent answers JSON"),
        Err(error) => panic!("{action}: {error}\n{}", booted.journal()),
    }
}

pub fn succeeds(booted: &Booted, action: &str, params: &Value) -> Value {
    let answer = call(booted, action, params);
    assert_eq!(
        answer["ok"],
        true,
        "{action}: {answer}\n{}",
        booted.journal()
    );
    answer
}

pub fn wait_for(what: &str, booted: &Booted, mut ready: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(900);
    while !ready() {
        assert!(Instant::now() < until, "{what}:\n{}", booted.journal());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A drop-in of ours, where the administrator would copy it.
pub fn drop_in(name: &str) -> Vec<u8> {
    std::fs::read(packaged(&format!("drop-ins/{name}"))).expect("a drop-in")
}
