//! Limits of machines with a recorded `qm`: one `set` with every disk's options rewritten, or no change at all. That limits
//! reach QEMU and the kernel is tested where these are real: in the hypervisor's tests, and here for traffic control.

mod compartment_world;
mod recorded;

use blockhost_proto::response::ErrorCode;
use compartment_world::{code, in_namespace, tool};
use recorded::Vm;
use serde_json::{Value, json};

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

/// Bytes per second of the bucket at the root of a device.
fn rate(device: &str) -> Option<u64> {
    let text = tool(&format!("tc -j -d qdisc show dev {device}"));
    let list: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let root = list
        .iter()
        .find(|q| q["root"] == true && q["kind"] == "tbf")?;
    root["options"]["rate"].as_u64()
}

/// A device in a tap's place, and the name of the one that holds what comes from it.
fn tap(name: &str) -> String {
    tool(&format!("ip link add {name} type veth peer name p{name}"));
    tap_detour(name)
}

fn tap_detour(name: &str) -> String {
    let text = tool(&format!("ip -j link show {name}"));
    let links: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    format!("bhin{}", links[0]["ifindex"])
}

#[test]
fn rates_are_what_tc_shows_on_every_tap_of_the_machine_and_on_no_other() {
    in_namespace(
        "rates_are_what_tc_shows_on_every_tap_of_the_machine_and_on_no_other",
        || {
            let Some(vm) = Vm::new() else { return };
            vm.answers("[ \"$1\" = config ] && printf 'net0: virtio,bridge=a\\nnet3: virtio,bridge=b\\nscsi0: local:100/vm-100-disk-0.qcow2\\n'");
            let (first, second) = (tap("tap100i0"), tap("tap100i3"));
            tap("tap100i1");
            tap("tap101i0");
            let done = vm
                .ask(
                    "vm-throttle",
                    json!({"vmid": 100, "rate_in_kbps": 8000, "rate_out_kbps": 800, "iops_rd": 5}),
                )
                .unwrap_or_else(|failure| panic!("{}", failure.message));
            assert!(
                done.output
                    .contains("tap100i3: in 8000 kbit/s, out 800 kbit/s"),
                "{}",
                done.output
            );
            assert_eq!(vm.calls().len(), 2, "config and set");
            for (device, from) in [("tap100i0", &first), ("tap100i3", &second)] {
                assert_eq!(rate(device), Some(1_000_000), "{device}");
                assert_eq!(rate(from), Some(100_000), "{device}");
            }
            assert_eq!((rate("tap100i1"), rate("tap101i0")), (None, None));

            // What is not named stays.
            vm.ask(
                "tc-rate-limit",
                json!({"vmid": 100, "rate_in_kbps": 16_000}),
            )
            .unwrap_or_else(|failure| panic!("{}", failure.message));
            assert_eq!(
                (rate("tap100i0"), rate(&first)),
                (Some(2_000_000), Some(100_000))
            );
            // Neither a limit on disks nor the removal of one touches the network.
            for params in [
                json!({"vmid": 100, "iops_rd": 9}),
                json!({"vmid": 100, "reset": true}),
            ] {
                vm.ask("pve-set-throttle", params)
                    .unwrap_or_else(|failure| panic!("{}", failure.message));
            }
            assert_eq!(rate("tap100i0"), Some(2_000_000));
            vm.ask(
                "tc-rate-limit",
                json!({"vmid": 100, "rate_out_kbps": 1600, "reset": true}),
            )
            .unwrap_or_else(|failure| panic!("{}", failure.message));
            let second = tap_detour("tap100i0");
            assert_eq!((rate("tap100i0"), rate(&second)), (None, Some(200_000)));
            vm.ask("vm-throttle", json!({"vmid": 100, "reset": true}))
                .unwrap_or_else(|failure| panic!("{}", failure.message));
            assert_eq!(rate("tap100i0"), None);
            assert!(
                !tool("ip link show").contains("bhin"),
                "nothing of ours is left"
            );
        },
    );
}

#[test]
fn a_device_that_only_has_the_name_of_a_tap_as_an_alternative_is_left_alone() {
    in_namespace(
        "a_device_that_only_has_the_name_of_a_tap_as_an_alternative_is_left_alone",
        || {
            let Some(vm) = Vm::new() else { return };
            vm.answers("[ \"$1\" = config ] && printf 'net0: virtio,bridge=a\\n'");
            tap("uplink");
            tool("ip link property add dev uplink altname tap100i0");
            assert_eq!(
                code(vm.ask("tc-rate-limit", json!({"vmid": 100, "rate_in_kbps": 8}))),
                ErrorCode::Conflict
            );
            assert_eq!(rate("uplink"), None);
        },
    );
}
