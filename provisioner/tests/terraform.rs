//! The file for Terraform, read by Terraform itself where it is installed: `terraform providers` parses a directory without
//! any network.

mod common;

use std::path::Path;

use blockhost_provisioner::config::Config;
use blockhost_provisioner::create::create;
use blockhost_provisioner::exec;
use blockhost_provisioner::lifecycle;
use blockhost_provisioner::progress::Progress;
use blockhost_provisioner::record::VmRecord;
use blockhost_provisioner::terraform::{place, remove, resource, write};
use common::{DB_YAML, TestWorld, request};
use serde_json::json;

fn world() -> TestWorld {
    let mut world = TestWorld::new();
    let text = format!("{DB_YAML}terraform_dir: /var/lib/blockhost/terraform\n");
    std::fs::write(world.layout.etc().join("db.yaml"), text).unwrap();
    world.config = Config::load(&world.layout).unwrap();
    world
}

fn record(purpose: &str) -> VmRecord {
    serde_json::from_value(json!({
        "vm_name": "9-web", "vmid": 104, "ip_address": "10.77.0.104", "ipv6_address": "fd77:b10c::17",
        "expires_at": "2099-01-01T00:00:00Z", "owner": "o", "status": "active",
        "created_at": "2026-01-01T00:00:00Z", "purpose": purpose, "wallet_address": null,
    }))
    .unwrap()
}

/// What `terraform providers` says of a directory; `None` after printing why it cannot be asked.
fn providers(directory: &Path) -> Option<Result<String, String>> {
    let Ok(program) = exec::find("terraform", "") else {
        eprintln!("skipped: terraform is not installed");
        return None;
    };
    let chdir = format!("-chdir={}", directory.display());
    Some(exec::run(&program, &[chdir.as_str(), "providers"], None).map_err(|e| e.to_string()))
}

#[test]
fn terraform_reads_the_file_and_nothing_in_it_is_an_expression() {
    let world = world();
    let directory = world.layout.state().join("terraform");
    let hostile = "${file(\"/etc/passwd\")} %{ if true }x%{ endif } $${a} \" \\ \n ${";
    let value = resource(&request("9-web"), &world.config, &record(hostile));
    let vm = &value["resource"]["proxmox_virtual_environment_vm"]["vm_9-web_104"];
    assert_eq!(
        (&vm["vm_id"], &vm["clone"][0]["vm_id"]),
        (&json!(104), &json!(9000))
    );
    let ip = &vm["initialization"][0]["ip_config"][0];
    assert_eq!(
        (&ip["ipv4"][0]["address"], &ip["ipv6"][0]["address"]),
        (&json!("10.77.0.104/24"), &json!("fd77:b10c::17/128"))
    );
    // As it is made, or the next apply would take it away from its firewall.
    assert_eq!(vm["network_device"][0]["firewall"], true);
    let text = vm["description"].as_str().unwrap();
    assert!(!text.contains("${") && !text.contains("%{"), "{text}");
    write(&directory.join("9-web.tf.json"), &value).unwrap();
    let others =
        json!({"terraform": {"required_providers": {"proxmox": {"source": "bpg/proxmox"}}}});
    std::fs::write(directory.join("providers.tf.json"), others.to_string()).unwrap();
    let Some(said) = providers(&directory) else {
        return;
    };
    assert!(said.unwrap().contains("bpg/proxmox"));
    // The same question finds a file that is none.
    std::fs::write(
        directory.join("bad.tf.json"),
        "{\"resource\": {\"x\": [1]}}",
    )
    .unwrap();
    assert!(providers(&directory).unwrap().is_err());
}

#[test]
fn the_file_comes_with_the_machine_and_goes_with_it() {
    let world = world();
    let name = "web-1".parse().unwrap();
    let mut progress = Progress::silent();
    world
        .with(|w| create(w, &request("web-1"), &mut progress))
        .unwrap();
    let file = world.layout.state().join("terraform/web-1.tf.json");
    let installed = place(&world.config, &name).is_some();
    assert_eq!(
        file.exists(),
        installed,
        "exactly where Terraform is installed"
    );
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "{}").unwrap();
    world.with(|w| lifecycle::destroy(w, &name)).unwrap();
    assert!(!file.exists());
}

#[test]
fn a_machine_that_is_gone_is_forgotten_and_never_destroyed_by_terraform_nor_is_its_successor() {
    let world = world();
    let directory = world.layout.state().join("terraform");
    let file = directory.join("9-web.tf.json");
    let read = || -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap()
    };
    let forgotten = |label: &str| {
        let from = format!("proxmox_virtual_environment_vm.{label}");
        json!({"from": from, "lifecycle": [{"destroy": false}]})
    };
    let others =
        json!({"terraform": {"required_providers": {"proxmox": {"source": "bpg/proxmox"}}}});
    let name = "9-web".parse().unwrap();
    let of = |vmid: u32| {
        let mut record = record("x");
        record.vmid = vmid.try_into().unwrap();
        resource(&request("9-web"), &world.config, &record)
    };
    write(&file, &of(104)).unwrap();
    std::fs::write(directory.join("providers.tf.json"), others.to_string()).unwrap();
    for _ in 0..2 {
        remove(&world.config, &name).unwrap();
        assert_eq!(read(), json!({"removed": [forgotten("vm_9-web_104")]}));
    }
    if let Some(said) = providers(&directory) {
        said.unwrap();
    }
    // The next of that name is another resource; the first one stays forgotten.
    write(&file, &of(105)).unwrap();
    assert_eq!(read()["removed"], json!([forgotten("vm_9-web_104")]));
    assert!(read()["resource"]["proxmox_virtual_environment_vm"]["vm_9-web_105"].is_object());
    if let Some(said) = providers(&directory) {
        said.unwrap();
    }
    remove(&world.config, &name).unwrap();
    let both = [forgotten("vm_9-web_104"), forgotten("vm_9-web_105")];
    assert_eq!(read(), json!({"removed": both}));
    // The same number again is the same resource, and there.
    write(&file, &of(104)).unwrap();
    assert_eq!(read()["removed"], json!([forgotten("vm_9-web_105")]));
    // What others wrote there is not taken over.
    let hostile = json!({"removed": [{"from": "${file(\"/etc/passwd\")}"}, {"from": 7}, 8]});
    std::fs::write(&file, hostile.to_string()).unwrap();
    remove(&world.config, &name).unwrap();
    assert!(!file.exists());
}

#[test]
fn a_file_that_cannot_be_written_does_not_stop_a_machine() {
    let world = world();
    if place(&world.config, &"web-1".parse().unwrap()).is_none() {
        println!("skipped: neither terraform nor tofu is installed");
        return;
    }
    std::fs::write(world.layout.state().join("terraform"), "in the way").unwrap();
    let mut progress = Progress::silent();
    let created = world
        .with(|w| create(w, &request("web-1"), &mut progress))
        .unwrap();
    assert!(
        created
            .remarks
            .iter()
            .any(|remark| remark.contains("terraform")),
        "{:?}",
        created.remarks
    );
}
