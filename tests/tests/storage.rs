//! A second storage of the embedded backend from the socket down: the real agent, whose machines' process sees nothing of
//! `/etc/blockhost` but the definitions of storages, and machines that lie there.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::Duration;

use blockhost_proto::action::Action;
use blockhost_proto::client::blocking::Client;
use blockhost_tests::namespace::test_ran_inside;
use blockhost_tests::world::services::start_agent;
use blockhost_tests::world::{AGENT_ONLY, World, built_programs};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(240);

/// Puts a file in place as editors do: a new one under the old name.
fn define(world: &World, text: &str) -> PathBuf {
    let file = world.layout.storage_files().join("more.yaml");
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(&new, &file).expect("in place");
    file
}

#[test]
fn machines_live_on_a_second_storage_and_its_definition_may_be_replaced_while_the_agent_runs() {
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    let name =
        "machines_live_on_a_second_storage_and_its_definition_may_be_replaced_while_the_agent_runs";
    if test_ran_inside(name, &init, LIMIT) {
        return;
    }
    let dir = tempfile::Builder::new()
        .prefix("blockhost-storage-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let world = World::create(dir.path(), &built_programs(), AGENT_ONLY).expect("a world");
    world.network().expect("a bridge");
    std::fs::write(
        world.layout.agent_policy(),
        "allow: {storages: [local, fast, late]}\n",
    )
    .expect("a policy");
    const FAST: &str = "fast: {type: dir, path: /var/lib/blockhost/fast}";
    define(&world, &format!("storages: {{{FAST}}}\n"));
    let mut agent = start_agent(&world).expect("the agent starts");
    let mut client = Client::connect(world.layout.agent_socket()).expect("the agent accepts");
    let mut ask = |name: &str, params: Value| {
        let action = Action::from_parts(name, &params).expect("a good request");
        client.call(&action)
    };
    let state = world.layout.state();

    // What is imported is opened in a narrower place than what is created.
    let image = world.layout.images().join("small.raw");
    let mut disk = vec![0; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&image, disk).expect("an image");
    chown(&image, Some(world.blockhost.uid), Some(world.blockhost.gid)).expect("an owner");
    ask(
        "qm-create",
        json!({"vmid": 9000, "name": "a", "args": ["--memory", "64", "--scsi1", "local:1"]}),
    )
    .expect("created on the first storage");
    ask(
        "qm-importdisk",
        json!({"vmid": 9000, "disk_path": "small.raw", "storage": "fast"}),
    )
    .expect("imported");
    ask(
        "qm-set",
        json!({"vmid": 9000, "options": {"scsi0": "fast:9000/vm-9000-disk-0.qcow2"}}),
    )
    .expect("attached");
    ask("qm-template", json!({"vmid": 9000})).expect("a template");
    let copy = json!({"vmid": 9000, "newid": 100, "name": "b"});
    ask("qm-clone", copy).expect("cloned");
    let disk = state.join("fast/images/100/vm-100-disk-0.qcow2");
    assert!(disk.exists());
    ask("qm-start", json!({"vmid": 100})).expect("started");

    // While it runs, and under the same name: what is read is what stands there now.
    const LATE: &str = "late: {type: dir, path: /var/lib/blockhost/late}";
    let file = define(&world, &format!("storages: {{{FAST}, {LATE}}}\n"));
    let create = |vmid: u32| {
        let args = ["--memory", "64", "--scsi0", "late:1"];
        json!({"vmid": vmid, "name": "c", "args": args})
    };
    ask("qm-create", create(101)).expect("created on the new one");
    assert!(state.join("late/images/101/vm-101-disk-0.qcow2").exists());

    // The process that keeps wallets is root and puts files there, with the services' group.
    chown(&file, None, Some(world.blockhost.gid)).expect("a group");
    let refused = ask("qm-create", create(102)).expect_err("whose it is cannot be told");
    let said = refused.to_string();
    assert!(said.contains("others than root could have"), "{said}");
    chown(&file, None, Some(0)).expect("a group");

    ask("qm-stop", json!({"vmid": 100})).expect("stopped");
    // Nothing is made or destroyed without the storages that there were: where a file of earlier versions is, or none.
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).expect("aside");
    let destroy = json!({"vmid": 101, "template": false});
    let refused = ask("qm-destroy", destroy.clone()).expect_err("its disk would stay");
    let said = refused.to_string();
    assert!(said.contains("there is no storage 'late'"), "{said}");
    let former = world.layout.etc().join("storage.yaml");
    std::fs::rename(&aside, &former).expect("as it was");
    let refused = ask("qm-destroy", destroy).expect_err("not read any more");
    let said = refused.to_string();
    assert!(said.contains("is not read any more"), "{said}");
    std::fs::rename(&former, &file).expect("moved");
    for (vmid, template) in [(100, false), (101, false), (9000, true)] {
        ask("qm-destroy", json!({"vmid": vmid, "template": template})).expect("destroyed");
        for storage in ["fast", "late"] {
            let left = state.join(format!("{storage}/images/{vmid}"));
            assert!(!left.exists(), "{}", left.display());
        }
    }
    agent.stop(Duration::from_secs(20)).expect("ends");
}
