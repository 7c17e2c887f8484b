//! Limits of machines with a recorded `qm`: one `set` with every disk's options rewritten, or no change at all. That limits
//! reach QEMU and the kernel is tested where these are real: in the hypervisor's tests, and here for traffic control.

mod compartment_world;
mod recorded;

use blockhost_proto::response::ErrorCode;
use compartment_world::code;
use recorded::Vm;
use serde_json::json;

const CONFIG: &str = "[ \"$1\" = config ] && printf 'name: a\\ncpulimit: 2\\nnet0: virtio=BC:24:11:00:00:01,bridge=vmbr0\\nscsi0: local:100/vm-100-disk-0.qcow2,size=8G\\nscsi1: local:100/vm-100-disk-1.qcow2,iops_rd=5,size=1G\\nide2: local:100/vm-100-cloudinit.qcow2,media=cdrom\\n'";

#[test]
fn one_set_carries_all_limits_of_processor_and_disks() {
    let Some(vm) = Vm::new() else { return };
    vm.answers(CONFIG);
    for (name, params, expected) in [
        (
            "vm-throttle",
            json!({"vmid": 100, "cpulimit": "0.5", "cpuunits": 50, "iops_rd": 100}),
            Some(
                "set 100 --cpulimit 0.5 --cpuunits 50 --scsi0 local:100/vm-100-disk-0.qcow2,iops_rd=100,size=8G --scsi1 local:100/vm-100-disk-1.qcow2,iops_rd=100,size=1G",
            ),
        ),
        (
            "pve-set-throttle",
            json!({"vmid": 100, "cpuunits": 50}),
            Some("set 100 --cpuunits 50"),
        ),
        (
            "pve-set-throttle",
            json!({"vmid": 100, "reset": true}),
            Some("set 100 --delete cpulimit --scsi1 local:100/vm-100-disk-1.qcow2,size=1G"),
        ),
        (
            "pve-set-throttle",
            json!({"vmid": 100, "iops_rd": 5, "iops_wr": 7}),
            Some(
                "set 100 --scsi0 local:100/vm-100-disk-0.qcow2,iops_rd=5,iops_wr=7,size=8G --scsi1 local:100/vm-100-disk-1.qcow2,iops_rd=5,iops_wr=7,size=1G",
            ),
        ),
    ] {
        vm.ask(name, params.clone())
            .unwrap_or_else(|failure| panic!("{name}: {}", failure.message));
        let calls = vm.calls();
        assert_eq!(calls[0], ["config", "100"]);
        let words = calls.get(1).map(|call| call.join(" "));
        assert_eq!(words.as_deref(), expected, "{name} {params}");
    }
}

#[test]
fn a_failure_of_the_backend_and_an_absent_machine_are_said() {
    let Some(vm) = Vm::new() else { return };
    vm.answers(&format!(
        "{CONFIG}; [ \"$1\" = set ] && {{ echo 'no' >&2; exit 255; }}; exit 0"
    ));
    assert_eq!(
        code(vm.ask("vm-throttle", json!({"vmid": 100, "cpulimit": 1}))),
        ErrorCode::Failed
    );
    vm.answers(
        "echo \"Configuration file 'nodes/pve/qemu-server/100.conf' does not exist\" >&2; exit 2",
    );
    for name in ["vm-throttle", "pve-set-throttle", "tc-rate-limit"] {
        assert_eq!(
            code(vm.ask(name, json!({"vmid": 100, "reset": true}))),
            ErrorCode::NotFound,
            "{name}"
        );
    }
}

#[test]
fn rates_of_a_machine_without_interfaces_are_refused_before_anything_changes() {
    let Some(vm) = Vm::new() else { return };
    vm.answers(CONFIG);
    assert_eq!(
        code(vm.ask(
            "vm-throttle",
            json!({"vmid": 100, "cpulimit": 1, "rate_in_kbps": 1000})
        )),
        ErrorCode::Conflict
    );
    assert_eq!(vm.calls().len(), 1, "no set");
}
