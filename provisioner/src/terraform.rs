//! A machine as a Terraform resource, for operators who manage their machines with it: a file beside its state, never in the
//! way of a creation. The file is a pure function of what was asked for; nothing in it is an expression but our own. What is gone
//! is left in it as `removed`: Terraform would destroy what its state remembers, under a number that is another's by then.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use blockhost_proto::value::VmName;
use serde_json::{Value, json};

use crate::config::Config;
use crate::exec;
use crate::plan::{BOOT_DISK, CreateRequest};
use crate::record::VmRecord;

/// The provider's name for a machine.
const TYPE: &str = "proxmox_virtual_environment_vm";

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
    // One name of a resource stands for one machine: its successor is another, and not this one changed.
    let label = format!("vm_{name}_{}", record.vmid);
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
        "resource": {TYPE: {&label: machine}},
        "import": [{
            "to": format!("{TYPE}.{label}"),
            "id": literal(&format!("{node}/{}", record.vmid)),
        }],
    })
}

/// Writes the file whole or not at all. What an earlier file at its place had is to be forgotten, and not destroyed.
///
/// # Errors
/// What the kernel says.
pub fn write(path: &Path, resource: &Value) -> std::io::Result<()> {
    let mut forgotten = resources(path)?;
    for own in named(resource) {
        forgotten.remove(&own);
    }
    let mut file = resource.clone();
    if !forgotten.is_empty() {
        file["removed"] = removed(&forgotten);
    }
    replace(path, &file)
}

/// The resources that a file has or had; none where it is not there or is not ours.
fn resources(path: &Path) -> std::io::Result<BTreeSet<String>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(e) => return Err(e),
    };
    let file: Value = serde_json::from_slice(&text).unwrap_or_default();
    let gone = file.get("removed").and_then(Value::as_array);
    let gone = gone.into_iter().flatten();
    let mut all: BTreeSet<String> = gone
        .filter_map(|block| block.get("from")?.as_str().map(str::to_owned))
        .collect();
    all.extend(named(&file));
    // What somebody else wrote there does not become an expression of ours.
    all.retain(|resource| {
        resource.strip_prefix(TYPE).is_some_and(|label| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
            label
                .strip_prefix('.')
                .is_some_and(|label| label.bytes().all(plain))
        })
    });
    Ok(all)
}

/// The resources of a file's contents.
fn named(file: &Value) -> impl Iterator<Item = String> {
    let machines = file.get("resource").and_then(|all| all.get(TYPE));
    let labels = machines.and_then(Value::as_object).into_iter();
    labels.flat_map(|labels| labels.keys().map(|label| format!("{TYPE}.{label}")))
}

fn removed(resources: &BTreeSet<String>) -> Value {
    let blocks = resources
        .iter()
        .map(|from| json!({"from": from, "lifecycle": [{"destroy": false}]}));
    Value::Array(blocks.collect())
}

fn replace(path: &Path, resource: &Value) -> std::io::Result<()> {
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

/// Has Terraform forget a machine that is gone, whether or not Terraform is still installed; an absent file is fine.
///
/// # Errors
/// What the kernel says, with the path.
pub fn remove(config: &Config, name: &VmName) -> Result<(), String> {
    let Some(directory) = &config.db.terraform_dir else {
        return Ok(());
    };
    let path = directory.join(file_name(name));
    let forget = || match resources(&path)? {
        none if none.is_empty() => std::fs::remove_file(&path),
        gone => replace(&path, &json!({"removed": removed(&gone)})),
    };
    match forget() {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {e}", path.display()))
        }
        _ => Ok(()),
    }
}
