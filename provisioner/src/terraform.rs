//! A machine as a Terraform resource, for operators who manage their machines with it: a file beside its state, never in the
//! way of a creation. The file is a pure function of what was asked for; nothing in it is an expression but our own.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use blockhost_proto::value::VmName;
use serde_json::{Value, json};

use crate::config::Config;
use crate::exec;
use crate::plan::{BOOT_DISK, CreateRequest};
use crate::record::VmRecord;

/// Name of a machine's file.
#[must_use]
pub fn file_name(name: &VmName) -> String {
    format!("{name}.tf.json")
}

/// Where the file of a machine belongs: nowhere without `terraform_dir`, or where neither `terraform` nor `tofu` is installed.
#[must_use]
pub fn place(config: &Config, name: &VmName) -> Option<PathBuf> {
    let directory = config.db.terraform_dir.as_ref()?;
    let installed = ["terraform", "tofu"]
        .iter()
        .any(|program| exec::find(program, "").is_ok());
    installed.then(|| directory.join(file_name(name)))
}

/// A text in which no expression begins: in Terraform's JSON, `${` and `%{` do. A blank is unmistakable, where its own escapes
/// depend on what stands before them.
fn literal(text: &str) -> String {
    text.replace("${", "$ {").replace("%{", "% {")
}

/// The resource of `bpg/proxmox`, with an `import` block, so that Terraform takes over the machine that is there.
#[must_use]
pub fn resource(request: &CreateRequest, config: &Config, record: &VmRecord) -> Value {
    let host = &config.host;
    let vm = &host.vm;
    let (name, node) = (&record.vm_name, config.node());
    let pool = config.db.ip_pool;
    let mut addresses = json!({});
    if let Some(ip) = record.ip_address {
        let address = format!("{ip}/{}", pool.network.prefix());
        addresses["ipv4"] = json!([{"address": address, "gateway": pool.gateway}]);
    }
    if let Some(ipv6) = record.ipv6_address {
        let mut entry = json!({"address": format!("{ipv6}/128")});
        if let Some(gateway) = config.broker.and_then(|broker| broker.gateway) {
            entry["gateway"] = json!(gateway);
        }
        addresses["ipv6"] = json!([entry]);
    }
    let user_data = format!(
        "{}:snippets/{}",
        host.snippet_storage,
        crate::plan::snippet_name(name)
    );
    let mut initialization = json!({
        "datastore_id": host.storage,
        "ip_config": [addresses],
        "user_data_file_id": user_data,
    });
    if !vm.nameservers.is_empty() {
        initialization["dns"] = json!([{"servers": vm.nameservers}]);
    }
    let label = format!("vm_{name}");
    let machine = json!({
        "name": name,
        "node_name": literal(&node),
        "vm_id": record.vmid,
        "description": literal(&record.purpose),
        "tags": ["blockhost"],
        "on_boot": true,
        "clone": [{"vm_id": host.template_vmid, "full": false}],
        "agent": [{"enabled": true}],
        "cpu": [{"cores": request.cores.unwrap_or(vm.cores)}],
        "memory": [{"dedicated": request.memory_mib.unwrap_or(vm.memory_mib)}],
        "disk": [{
            "interface": BOOT_DISK.to_string(),
            "datastore_id": host.storage,
            "size": request.disk_gib.unwrap_or(vm.disk_gib),
        }],
        "network_device": [{"model": "virtio", "bridge": host.bridge, "firewall": true}],
        "initialization": [initialization],
        // BlockHost starts, stops and limits it; what cloud-init did at the first boot is done.
        "lifecycle": [{"ignore_changes": ["started", "on_boot", "clone", "cpu", "disk", "initialization"]}],
    });
    json!({
        "resource": {"proxmox_virtual_environment_vm": {&label: machine}},
        "import": [{
            "to": format!("proxmox_virtual_environment_vm.{label}"),
            "id": literal(&format!("{node}/{}", record.vmid)),
        }],
    })
}

/// Writes the file whole or not at all.
///
/// # Errors
/// What the kernel says.
pub fn write(path: &Path, resource: &Value) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let temporary = path.with_extension(format!("json.{}", std::process::id()));
    let text = format!("{resource:#}\n");
    let written = std::fs::File::create_new(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
        })
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Removes the file of a machine that is gone, whether or not Terraform is still installed; an absent one is fine.
///
/// # Errors
/// What the kernel says, with the path.
pub fn remove(config: &Config, name: &VmName) -> Result<(), String> {
    let Some(directory) = &config.db.terraform_dir else {
        return Ok(());
    };
    let path = directory.join(file_name(name));
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {e}", path.display()))
        }
        _ => Ok(()),
    }
}
