//! The real command on a private root, with records that were made with `--mock`: no agent is needed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use blockhost_proto::Layout;
use blockhost_proto::value::VmName;
use blockhost_provisioner::chain_seen::ChainSeen;
use blockhost_provisioner::config::Config;
use blockhost_provisioner::lock::MachineLock;
use blockhost_provisioner::store::{self, Store as _};
use blockhost_provisioner::time::Time;
use serde_json::{Value, json};
use tempfile::TempDir;

fn command(root: &Path, arguments: &[&str]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "the program under test")]
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockhost-vm-gc"));
    command
        .args(arguments)
        .env_clear()
        .env("BLOCKHOST_ROOT", root);
    command
}

fn gc(root: &Path, arguments: &[&str]) -> Output {
    command(root, arguments).output().unwrap()
}

fn world(records: &[(u32, &str, &str, Option<&str>)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let etc = root.path().join("etc/blockhost");
    let state = root.path().join("var/lib/blockhost");
    fs::create_dir_all(&etc).unwrap();
    fs::create_dir_all(&state).unwrap();
    fs::create_dir_all(root.path().join("run/blockhost")).unwrap();
    fs::write(
        etc.join("db.yaml"),
        "ip_pool: {network: '10.77.0.0/24', start: 100, end: 200, gateway: 10.77.0.1}\ngc_grace_days: 7\n",
    )
    .unwrap();
    let vms: serde_json::Map<String, Value> = records
        .iter()
        .map(|(n, status, expires, suspended)| {
            let name = format!("vm-{n}");
            let mut record = json!({
                "vm_name": name, "vmid": 100 + n, "ip_address": format!("10.77.0.{}", 100 + n), "ipv6_address": null,
                "expires_at": expires, "owner": "o", "status": status, "created_at": "2026-01-01T00:00:00Z",
                "purpose": "", "wallet_address": null, "mock": true,
            });
            if let Some(at) = suspended {
                record["suspended_at"] = json!(at);
            }
            (name, record)
        })
        .collect();
    let database = json!({
        "vms": vms, "next_vmid": 150,
        "allocated_ips": records.iter().map(|r| format!("10.77.0.{}", 100 + r.0)).collect::<Vec<_>>(),
        "allocated_ipv6": [], "reserved_nft_tokens": {},
    });
    fs::write(state.join("vms.json"), database.to_string()).unwrap();
    root
}

fn database(root: &TempDir) -> Value {
    serde_json::from_slice(&fs::read(root.path().join("var/lib/blockhost/vms.json")).unwrap())
        .unwrap()
}

fn status(root: &TempDir, name: &str) -> String {
    database(root)["vms"][name]["status"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_dry_run_names_every_candidate_and_changes_nothing() {
    let root = world(&[(1, "active", "2026-02-01T00:00:00Z", None)]);
    let before = database(&root);
    let output = gc(root.path(), &["--mock", "--at", "2026-03-01T00:00:00Z"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout)
            .contains("phase 1: 1 to suspend\n  vm-1 (VM 101) expired 2026-02-01T00:00:00Z")
    );
    assert_eq!(database(&root), before);
}

#[test]
fn an_expired_machine_is_suspended_first_and_destroyed_only_after_its_grace() {
    let root = world(&[
        (1, "active", "2026-02-01T00:00:00Z", None),
        (2, "active", "2026-09-01T00:00:00Z", None),
    ]);
    let run = |at: &str| {
        let output = gc(root.path(), &["--mock", "--execute", "--at", at]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    run("2026-02-02T00:00:00Z");
    assert_eq!(status(&root, "vm-1"), "suspended");
    run("2026-02-08T00:00:00Z");
    assert_eq!(
        status(&root, "vm-1"),
        "suspended",
        "the grace is seven days"
    );
    run("2026-02-10T00:00:00Z");
    assert_eq!(status(&root, "vm-1"), "destroyed");
    assert_eq!(status(&root, "vm-2"), "active");
    assert_eq!(
        database(&root)["allocated_ips"],
        json!(["10.77.0.102"]),
        "its address is free again"
    );
}

#[test]
fn a_wrong_clock_does_not_wipe_a_host_unless_forced() {
    let records: Vec<_> = (1..=8)
        .map(|n| {
            (
                n,
                "suspended",
                "2026-01-01T00:00:00Z",
                Some("2026-01-02T00:00:00Z"),
            )
        })
        .collect();
    let root = world(&records);
    let before = database(&root);
    let output = gc(
        root.path(),
        &["--mock", "--execute", "--at", "2036-01-01T00:00:00Z"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("--force"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(database(&root), before);

    let forced = gc(
        root.path(),
        &[
            "--mock",
            "--execute",
            "--force",
            "--json",
            "--at",
            "2036-01-01T00:00:00Z",
        ],
    );
    assert!(forced.status.success(), "{}", text(&forced.stderr));
    let report: Value = serde_json::from_slice(&forced.stdout).unwrap();
    assert_eq!(report["results"].as_array().unwrap().len(), 8);
    assert_eq!(status(&root, "vm-8"), "destroyed");
}

#[test]
fn a_machine_that_may_have_been_paid_in_an_unread_block_runs_on_until_the_engine_has_read_it() {
    let root = world(&[
        (1, "active", "2026-02-01T00:00:00Z", None),
        (
            2,
            "suspended",
            "2099-01-01T00:00:00Z",
            Some("2026-01-02T00:00:00Z"),
        ),
    ]);
    let web3 = root.path().join("etc/blockhost/web3-defaults.yaml");
    fs::write(web3, "blockchain: {}\n").unwrap();
    let run = || {
        let output = gc(root.path(), &["--mock", "--execute"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        (status(&root, "vm-1"), text(&output.stdout))
    };
    let (now, said) = run();
    assert_eq!(now, "active", "{said}");
    assert!(said.contains("nothing is judged"), "{said}");
    assert!(
        said.contains("the engine has read nothing of it yet"),
        "{said}"
    );
    let layout = Layout::new(root.path());
    let mut seen = ChainSeen {
        block: 42,
        block_time: "2026-01-31T00:00:00Z".parse().unwrap(),
        at: Time::now(),
        owed: BTreeMap::new(),
    };
    seen.write(&layout).unwrap();
    let (now, said) = run();
    assert_eq!(now, "active", "{said}");
    assert!(
        said.contains("up to block 42 of 2026-01-31T00:00:00Z"),
        "{said}"
    );
    assert!(
        said.contains("or what was read is entered: 1\n  vm-1 (VM 101, active)"),
        "{said}"
    );
    assert!(
        said.contains("paid until 2099-01-01T00:00:00Z and suspended: vm-2 (VM 102)"),
        "{said}"
    );
    // All of it is read, and a payment in it waits to be entered.
    seen.block_time = "2026-02-01T00:00:00Z".parse().unwrap();
    let until = "2026-03-01T00:00:00Z".parse().unwrap();
    seen.owed.insert("vm-1".into(), until);
    seen.write(&layout).unwrap();
    let (now, said) = run();
    assert_eq!(now, "active", "{said}");
    assert!(said.contains("is entered: 1\n  vm-1"), "{said}");
    seen.owed.clear();
    seen.write(&layout).unwrap();
    assert_eq!(run().0, "suspended");
}

/// True as soon as the process has the file open, false when it ends before.
fn waits_for(child: &mut Child, file: &Path) -> bool {
    let descriptors = format!("/proc/{}/fd", child.id());
    loop {
        let open = fs::read_dir(&descriptors)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == file));
        if open {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_machine_that_is_resumed_while_it_is_about_to_be_destroyed_stays() {
    let root = world(&[(
        1,
        "suspended",
        "2026-01-01T00:00:00Z",
        Some("2026-01-02T00:00:00Z"),
    )]);
    let layout = Layout::new(root.path());
    let name: VmName = "vm-1".parse().unwrap();
    // As a resumption that is at work.
    let held = MachineLock::take(&layout, &name).unwrap();
    let mut run = command(
        root.path(),
        &["--mock", "--execute", "--at", "2026-03-01T00:00:00Z"],
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    assert!(
        waits_for(&mut run, &layout.run().join("vm-vm-1.lock")),
        "it did not wait for whoever is at the machine"
    );
    let config = Config::load(&layout).unwrap();
    let store = store::open(&config).unwrap();
    store
        .mark_active(&name, Some("2026-04-01T00:00:00Z".parse().unwrap()))
        .unwrap();
    drop(held);
    assert!(run.wait().unwrap().success());
    assert_eq!(status(&root, "vm-1"), "active");
    assert_eq!(database(&root)["allocated_ips"], json!(["10.77.0.101"]));
}

#[test]
fn without_an_agent_records_of_real_machines_are_left_alone() {
    let root = world(&[(1, "active", "2026-02-01T00:00:00Z", None)]);
    let path = root.path().join("var/lib/blockhost/vms.json");
    let mut real = database(&root);
    real["vms"]["vm-1"]["mock"] = json!(false);
    fs::write(&path, real.to_string()).unwrap();
    let mock = gc(
        root.path(),
        &["--mock", "--execute", "--at", "2026-03-01T00:00:00Z"],
    );
    assert!(mock.status.success());
    assert_eq!(status(&root, "vm-1"), "active");

    // And without --mock, an agent that does not answer stops the run before anything is noted.
    let lost = gc(root.path(), &["--execute", "--at", "2026-03-01T00:00:00Z"]);
    assert_eq!(lost.status.code(), Some(1));
    assert!(
        text(&lost.stderr).contains("root-agent.sock"),
        "{}",
        text(&lost.stderr)
    );
    assert_eq!(status(&root, "vm-1"), "active");
}

#[test]
fn a_damaged_database_is_left_as_it_is() {
    let root = world(&[]);
    let path = root.path().join("var/lib/blockhost/vms.json");
    fs::write(&path, b"{\"vms\": {").unwrap();
    let output = gc(root.path(), &["--mock", "--execute"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("damaged"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(fs::read(&path).unwrap(), b"{\"vms\": {");
}
