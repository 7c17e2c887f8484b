//! The confinement tables for people and programs: what `blockhost-root-agent catalog` shows below the actions. Made from the
//! same rows that are enforced; decides nothing.

use std::fmt::Write as _;
use std::path::PathBuf;

use blockhost_proto::layout::Layout;
use rustix::process::Resource;
use serde_json::{Value, json};

use super::profile::{Inputs, Profile, profile};
use super::programs::{ROWS, Row};
use super::syscalls::Filter;
use crate::compartment::{Backend, Identities, Identity};
use crate::ipc::Role;
use crate::policy::{LandlockChoice, Policy, WireguardChoice};
use crate::sys::landlock::{self, Ruleset};

/// Numbers that stand for the product's users in the tables, with their names.
const USERS: [(u32, &str); 5] = [
    (0, "root"),
    (1, "blockhost-agent"),
    (2, "blockhost"),
    (3, "blockhost-vm"),
    (4, "blockhost-image"),
];

/// Processes and programs as JSON: `{"processes": [...], "programs": [...]}`.
pub fn to_json() -> Value {
    let processes: Vec<Value> = processes()
        .into_iter()
        .map(|(name, profile)| {
            let Profile {
                identity,
                capabilities,
                landlock,
                filter,
                address_space,
                file_bytes,
                processes,
                root_directory,
                ..
            } = profile;
            // Without Landlock it is the list of calls that says; one that is complete has none for these.
            let unguarded = landlock.is_none() && !filter.calls().0;
            json!({
                "name": name,
                "user": user(identity.uid),
                "group": user(identity.gid),
                "capabilities": capabilities.iter_names().map(|(name, _)| format!("CAP_{name}")).collect::<Vec<_>>(),
                "root_directory": root_directory.map(|path| path.display().to_string()),
                "files": landlock.as_ref().map_or_else(|| (!unguarded).then(Vec::new), |rules| Some(files(rules))),
                "tcp": landlock.as_ref().map_or(unguarded, |rules| rules.tcp),
                "signals_outside": landlock.as_ref().map_or(unguarded, |rules| rules.signals),
                "system_calls": system_calls(&filter),
                "sockets": filter.sockets(),
                "address_space_bytes": address_space,
                "file_bytes": file_bytes,
                "processes_of_user": processes,
            })
        })
        .collect();
    let programs: Vec<Value> = ROWS
        .iter()
        .map(|row| {
            let filter = (row.filter)();
            json!({
                "name": row.name,
                "compartment": row.compartment,
                "files": row_files(row).map(|(path, rights)| json!({"path": path, "rights": rights})).collect::<Vec<_>>(),
                "tcp_ports": row.connect,
                "system_calls": system_calls(&filter),
                "sockets": filter.sockets(),
                "limits": row.limits.iter().map(|&(resource, value)| (limit(resource).to_owned(), value.into())).collect::<serde_json::Map<_, _>>(),
            })
        })
        .collect();
    json!({"processes": processes, "programs": programs})
}

/// The same to read.
pub fn to_text() -> String {
    let tables = to_json();
    let mut text = String::from("processes\n");
    for process in list(&tables, "processes") {
        let _ = writeln!(
            text,
            "\n{}: user {}, group {}, capabilities: {}",
            word(process, "name"),
            word(process, "user"),
            word(process, "group"),
            joined(list(process, "capabilities"))
        );
        if process["files"].is_null() {
            text.push_str("  files: any\n");
        } else {
            write_files(&mut text, process);
        }
        let yes = |key: &str| process[key] == Value::Bool(true);
        let _ = writeln!(
            text,
            "  TCP: {}; signals to others: {}",
            if yes("tcp") { "any" } else { "none" },
            if yes("signals_outside") {
                "any"
            } else {
                "none"
            }
        );
        write_calls(&mut text, process);
    }
    text.push_str("\nprograms, on top of what the compartment that runs them is held to\n");
    for program in list(&tables, "programs") {
        let _ = writeln!(
            text,
            "\n{}: run by {}",
            word(program, "name"),
            word(program, "compartment")
        );
        write_files(&mut text, program);
        let ports: Vec<String> = list(program, "tcp_ports").map(Value::to_string).collect();
        if !ports.is_empty() {
            let _ = writeln!(text, "  TCP: connects to ports {}", ports.join(", "));
        }
        write_calls(&mut text, program);
        let limits: Vec<String> = program["limits"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let _ = writeln!(text, "  limits: {}", limits.join(", "));
    }
    text
}

fn processes() -> Vec<(String, Profile)> {
    let of = |uid: u32| Identity { uid, gid: uid };
    let identities = Identities {
        agent: of(1),
        blockhost: of(2),
        vm: of(3),
        image: of(4),
    };
    let allow = Policy::default().allow;
    let layout = Layout::new("/");
    let xtables = [PathBuf::from("/usr/sbin/xtables-nft-multi")];
    let with = |role: Role, backend| {
        let inputs = Inputs {
            layout: &layout,
            identities,
            backend,
            landlock: LandlockChoice::Required,
            wireguard: WireguardChoice::Kernel,
            programs: if role == Role::Net { &xtables } else { &[] },
            image_dirs: &allow.image_dirs,
            template_dirs: &allow.template_dirs,
            image_network: false,
            attach: true,
        };
        profile(role, &inputs)
    };
    let mut rows = Vec::new();
    for role in Role::ALL {
        rows.push((role.as_str().to_owned(), with(role, Backend::Embedded)));
    }
    rows.push((
        "vm on Proxmox VE".to_owned(),
        with(Role::Vm, Backend::Proxmox),
    ));
    rows
}

fn user(id: u32) -> &'static str {
    let found = USERS.iter().find(|(number, _)| *number == id);
    found.map_or("?", |(_, name)| name)
}

fn files(rules: &Ruleset) -> Vec<Value> {
    let mut rows: Vec<(String, Vec<&str>)> = Vec::new();
    for (path, rights) in &rules.paths {
        let row = (path.display().to_string(), landlock::words(*rights));
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    rows.into_iter()
        .map(|(path, rights)| json!({"path": path, "rights": rights}))
        .collect()
}

fn row_files(row: &Row) -> impl Iterator<Item = (String, Vec<&'static str>)> {
    row.files
        .iter()
        .copied()
        .flatten()
        .map(|(place, rights)| (place.to_string(), landlock::words(*rights)))
}

fn system_calls(filter: &Filter) -> Value {
    let (only, names) = filter.calls();
    let mode = if only { "only" } else { "all but" };
    json!({"mode": mode, "names": names.collect::<Vec<_>>()})
}

fn limit(resource: Resource) -> &'static str {
    match resource {
        Resource::Core => "core_bytes",
        Resource::Nofile => "open_files",
        Resource::Fsize => "file_bytes",
        Resource::Nproc => "processes_of_user",
        Resource::As => "address_space_bytes",
        _ => "other",
    }
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn joined<'a>(words: impl Iterator<Item = &'a Value>) -> String {
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.join(", ")
    }
}

fn write_files(text: &mut String, of: &Value) {
    let mut any = false;
    for file in list(of, "files") {
        any = true;
        let rights = joined(list(file, "rights"));
        let _ = writeln!(text, "  {:<34} {rights}", word(file, "path"));
    }
    if !any {
        text.push_str("  files: none\n");
    }
}

fn write_calls(text: &mut String, of: &Value) {
    let calls = &of["system_calls"];
    let _ = writeln!(
        text,
        "  sockets: {}\n  system calls, {}: {}",
        word(of, "sockets"),
        word(calls, "mode"),
        joined(list(calls, "names"))
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_and_program_is_in_the_printed_tables_with_what_it_holds() {
        let text = to_text();
        for role in Role::ALL {
            let line = format!("\n{}: user ", role.as_str());
            assert!(text.contains(&line), "{}", role.as_str());
        }
        for row in ROWS {
            assert!(text.contains(row.name), "{}", row.name);
        }
        let tables = to_json();
        let process = |name: &str| {
            list(&tables, "processes")
                .find(|process| process["name"] == name)
                .unwrap_or_else(|| panic!("no row {name}"))
        };
        assert_eq!(process("net")["capabilities"], json!(["CAP_NET_ADMIN"]));
        assert_eq!(process("front")["files"], json!([]));
        assert_eq!(process("front")["sockets"], "none");
        let attach = process("attach");
        assert_eq!(
            attach["capabilities"],
            json!(["CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN"])
        );
        assert_eq!(
            (&attach["files"], &attach["tcp"]),
            (&json!([]), &json!(false))
        );
        assert_eq!(attach["sockets"], "only AF_NETLINK");
        assert_eq!(process("image")["capabilities"], json!([]));
        assert_eq!(process("image")["user"], "blockhost-image");
        assert_eq!(process("image")["sockets"], "only AF_UNIX");
        assert!(!text.contains('?'), "a user without a name");
    }
}
