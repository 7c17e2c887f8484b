//! The vm compartment with a recorded `qm`: what it is called with, how its answers are understood, which images it gets.
//! The machines themselves are tested where the hypervisor is.

mod compartment_world;
mod recorded;

use std::path::PathBuf;
use std::time::Duration;

use blockhost_proto::action::Action;
use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::allow::{Allowlists, Only};
use blockhost_root_agent::compartment::{Backend, vm};
use compartment_world::{World, code, set_mode};
use recorded::{Vm, output};
use serde_json::{Value, json};

#[test]
fn every_action_becomes_the_one_command_line_that_it_should() {
    let Some(vm) = Vm::new() else { return };
    let cases = [
        ("qm-start", json!({"vmid": 100}), "start 100"),
        ("qm-stop", json!({"vmid": 100}), "stop 100"),
        ("qm-template", json!({"vmid": 100}), "template 100"),
        (
            "qm-shutdown",
            json!({"vmid": 100}),
            "shutdown 100 --timeout 120",
        ),
        (
            "qm-shutdown",
            json!({"vmid": 100, "timeout": 5}),
            "shutdown 100 --timeout 5",
        ),
        (
            "qm-create",
            json!({"vmid": 100, "name": "a", "args": ["--memory", "2048", "--net0", "virtio,bridge=vmbr0"]}),
            "create 100 --name a --memory 2048 --net0 virtio,bridge=vmbr0",
        ),
        (
            "qm-set",
            json!({"vmid": 100, "options": {"cores": 2}}),
            "set 100 --cores 2",
        ),
        (
            "qm-resize",
            json!({"vmid": 100, "disk": "scsi0", "size": "+10G"}),
            "resize 100 scsi0 +10G",
        ),
        ("qm-guest-ping", json!({"vmid": 100}), "guest cmd 100 ping"),
    ];
    for (name, params, expected) in cases {
        vm.ask(name, params)
            .unwrap_or_else(|failure| panic!("{name}: {}", failure.message));
        assert_eq!(
            vm.calls(),
            [expected.split(' ').map(str::to_owned).collect::<Vec<_>>()],
            "{name}"
        );
    }
}

#[test]
fn a_machine_is_cloned_after_a_look_at_what_the_clone_would_have() {
    let Some(vm) = Vm::new() else { return };
    for (full, word) in [(false, "0"), (true, "1")] {
        let params = json!({"vmid": 100, "newid": 101, "name": "b", "full": full});
        vm.ask("qm-clone", params).expect("cloned");
        let clone = ["clone", "100", "101", "--name", "b", "--full", word];
        // What waits for the next start of the source is not cloned.
        let look = ["config", "100", "--current", "1"];
        assert_eq!(vm.calls(), [&look[..], &clone]);
    }
}

#[test]
fn a_clone_does_not_bring_a_bridge_or_storage_past_the_lists_of_the_rule() {
    let Some(mut vm) = Vm::new() else { return };
    let hosts = "{bridges: [vmbr0, vmbr1], storages: [local, fast], snippet_storages: [local]}";
    let hosts: Allowlists = serde_saphyr::from_str(hosts).expect("lists");
    let rule = "{bridges: [vmbr1, vmbr9], storages: [fast], vmids: {first: 200, last: 299}, clone_from: {first: 100, last: 100}}";
    let rule: Only = serde_saphyr::from_str(rule).expect("a rule");
    let clone = json!({"vmid": 100, "newid": 201, "name": "b"});
    for (config, by_rule, by_host) in [
        ("net0: virtio=02:00:00:00:00:01,bridge=vmbr1", true, true),
        ("net0: virtio=02:00:00:00:00:01,bridge=vmbr0", false, true),
        // On the rule's list and not on the host's.
        ("net0: virtio=02:00:00:00:00:01,bridge=vmbr9", false, false),
        ("scsi0: fast:100/base-100-disk-0.qcow2,size=8G", true, true),
        (
            "scsi0: local:100/base-100-disk-0.qcow2,size=8G",
            false,
            true,
        ),
        (
            "scsi0: slow:100/base-100-disk-0.qcow2,size=8G",
            false,
            false,
        ),
        ("cicustom: user=local:snippets/a.yaml", false, true),
        ("unused0: slow:100/vm-100-disk-0.qcow2", true, true),
    ] {
        vm.answers(&format!("[ \"$1\" = config ] && echo 'name: a\n{config}'"));
        for (lists, allowed) in [(rule.over(&hosts), by_rule), (hosts.clone(), by_host)] {
            vm.world.policy.allow = lists;
            let result = vm.ask("qm-clone", clone.clone());
            let cloned = vm.calls().iter().any(|call| call[0] == "clone");
            assert_eq!(cloned, allowed, "{config}");
            if !allowed {
                assert_eq!(code(result), ErrorCode::Forbidden, "{config}");
            }
        }
    }
    // What cannot be read is not cloned.
    vm.answers("[ \"$1\" = config ] && exit 1");
    assert_eq!(code(vm.ask("qm-clone", clone)), ErrorCode::Failed);
    assert_eq!(vm.calls().len(), 1);
}

#[test]
fn no_value_of_a_client_becomes_an_option_or_a_second_word() {
    for (name, params) in [
        ("qm-start", json!({"vmid": "100"})),
        ("qm-start", json!({"vmid": "--help"})),
        (
            "qm-clone",
            json!({"vmid": 100, "newid": 101, "name": "--full"}),
        ),
        (
            "qm-create",
            json!({"vmid": 100, "name": "a", "args": ["--memory", "2048 --args"]}),
        ),
        (
            "qm-create",
            json!({"vmid": 100, "name": "a", "args": ["--args", "-device x"]}),
        ),
        (
            "qm-create",
            json!({"vmid": 100, "name": "a", "args": ["--scsi0", "/dev/sda"]}),
        ),
        (
            "qm-set",
            json!({"vmid": 100, "options": {"hookscript": "local:snippets/x"}}),
        ),
        (
            "qm-set",
            json!({"vmid": 100, "options": {"cores": "--delete"}}),
        ),
        (
            "qm-resize",
            json!({"vmid": 100, "disk": "--scsi0", "size": "+1G"}),
        ),
        (
            "qm-resize",
            json!({"vmid": 100, "disk": "scsi0", "size": "-1G"}),
        ),
        (
            "qm-importdisk",
            json!({"vmid": 100, "disk_path": "--format", "storage": "local"}),
        ),
        (
            "qm-importdisk",
            json!({"vmid": 100, "disk_path": "x.qcow2", "storage": "--local"}),
        ),
    ] {
        assert!(
            Action::from_parts(name, &params).is_err(),
            "{name} {params}"
        );
    }
    let Some(vm) = Vm::new() else { return };
    vm.answers("[ \"$1\" = guest ] && echo '{\"exited\":1,\"exitcode\":0}'");
    let command = "--timeout 9; echo \"$(id)\" -- \n x";
    vm.ask(
        "qm-guest-exec",
        json!({"vmid": 100, "command": command, "timeout": 7}),
    )
    .expect("executed");
    assert_eq!(
        vm.calls(),
        [[
            "guest",
            "exec",
            "100",
            "--timeout",
            "7",
            "--",
            "/bin/sh",
            "-c",
            command
        ]
        .map(str::to_owned)
        .to_vec()]
    );
}

/// Other users of the host see the words of every process; the inside of a pipe they do not.
#[test]
fn a_secret_command_is_not_among_the_words_of_a_process() {
    let Some(vm) = Vm::new() else { return };
    // What the guest's agent would do: run the words with the input, here by the host's own shell.
    vm.answers(
        "while [ \"$1\" != -- ]; do shift; done; shift; \"$@\" >\"$BLOCKHOST_ROOT/ran\"; echo \"{\\\"exited\\\":1,\\\"exitcode\\\":$?}\"",
    );
    let command = "-x 2>/dev/null\nread line\necho \"hunter2 $(printf %s b)$line\"\n(exit 3)";
    let done = vm
        .ask(
            "qm-guest-exec",
            json!({"vmid": 100, "command": command, "secret": true}),
        )
        .expect("executed");
    assert_eq!(done.extra["exitcode"], 3);
    let ran = std::fs::read_to_string(vm.world.path().join("ran")).expect("run");
    assert_eq!(ran, "hunter2 b\n");
    let calls = vm.calls();
    assert!(
        calls.iter().flatten().all(|word| !word.contains("hunter2")),
        "{calls:?}"
    );
    assert!(calls[0].contains(&"--pass-stdin".to_owned()), "{calls:?}");
}

#[test]
fn ssh_keys_travel_in_a_file_without_a_name() {
    let Some(vm) = Vm::new() else { return };
    vm.answers("shift 3; cat \"$1\" >\"$BLOCKHOST_ROOT/keys\"");
    let key =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2mSbTmfL0yJ0Yx5b5lQ9PZ3O8wq3E6m7yqk5Yw1p8k me@here";
    let result = vm.ask("qm-set", json!({"vmid": 100, "options": {"sshkeys": key}}));
    result.unwrap_or_else(|failure| panic!("{}", failure.message));
    let call = vm.calls().remove(0);
    assert!(call[3].starts_with("/proc/self/fd/"), "{call:?}");
    assert_eq!(
        std::fs::read_to_string(vm.world.path().join("keys"))
            .expect("read by qm")
            .trim(),
        key
    );
}

#[test]
fn start_of_a_running_and_stop_of_a_stopped_machine_succeed_and_nothing_else_does() {
    let Some(vm) = Vm::new() else { return };
    let state = |state: &str| {
        vm.answers(&format!("[ \"$1\" = status ] && {{ echo 'status: {state}'; exit 0; }}; echo 'it did not work' >&2; exit 255"))
    };
    state("running");
    vm.ask("qm-start", json!({"vmid": 100}))
        .expect("runs already");
    assert_eq!(
        code(vm.ask("qm-stop", json!({"vmid": 100}))),
        ErrorCode::Failed
    );
    state("stopped");
    vm.ask("qm-stop", json!({"vmid": 100}))
        .expect("is stopped already");
    vm.ask("qm-shutdown", json!({"vmid": 100}))
        .expect("is stopped already");
    assert_eq!(
        code(vm.ask("qm-start", json!({"vmid": 100}))),
        ErrorCode::Failed
    );
    state("paused");
    assert_eq!(
        code(vm.ask("qm-start", json!({"vmid": 100}))),
        ErrorCode::Failed
    );
}

#[test]
fn a_guest_that_ignores_the_shutdown_is_a_timeout_and_is_not_forced() {
    let Some(vm) = Vm::new() else { return };
    vm.answers("[ \"$1\" = status ] && { echo 'status: running'; exit 0; }; echo 'VM quit/powerdown failed - got timeout' >&2; exit 255");
    assert_eq!(
        code(vm.ask("qm-shutdown", json!({"vmid": 100, "timeout": 1}))),
        ErrorCode::Timeout
    );
    let verbs: Vec<String> = vm.calls().into_iter().map(|call| call[0].clone()).collect();
    assert_eq!(verbs, ["shutdown", "status"], "no stop");
}

#[test]
fn a_command_that_hangs_is_stopped_at_its_deadline() {
    let Some(vm) = Vm::new() else { return };
    vm.answers("sleep 60");
    let result = vm.world.ask_within(
        &*vm.handler,
        "qm-template",
        &json!({"vmid": 100}),
        Duration::from_millis(300),
    );
    assert_eq!(code(result), ErrorCode::Timeout);
}

#[test]
fn an_absent_machine_is_not_found_by_every_action() {
    let Some(vm) = Vm::new() else { return };
    vm.answers(
        "echo \"Configuration file 'nodes/pve/qemu-server/100.conf' does not exist\" >&2; exit 2",
    );
    for name in [
        "qm-start",
        "qm-stop",
        "qm-template",
        "qm-shutdown",
        "qm-destroy",
        "qm-status",
        "qm-config",
        "qm-guest-ping",
    ] {
        assert_eq!(
            code(vm.ask(name, json!({"vmid": 100}))),
            ErrorCode::NotFound,
            "{name}"
        );
    }
    assert_eq!(
        code(vm.ask("qm-guest-exec", json!({"vmid": 100, "command": "true"}))),
        ErrorCode::NotFound
    );
    assert_eq!(
        code(vm.ask("qm-set", json!({"vmid": 100, "options": {"cores": 1}}))),
        ErrorCode::NotFound
    );
}

#[test]
fn a_template_is_destroyed_only_when_a_template_is_meant() {
    let Some(vm) = Vm::new() else { return };
    vm.answers("[ \"$1\" = config ] && printf 'name: base\\ntemplate: 1\\n'");
    assert_eq!(
        code(vm.ask("qm-destroy", json!({"vmid": 100}))),
        ErrorCode::Conflict
    );
    assert_eq!(vm.calls().len(), 1, "destroy was never called");
    vm.ask("qm-destroy", json!({"vmid": 100, "template": true}))
        .expect("destroyed");
    assert_eq!(vm.calls()[1], ["destroy", "100", "--purge"]);
    vm.answers("[ \"$1\" = config ] && printf 'name: base\\ndescription: x%%0Atemplate%%3A 1\\n'");
    vm.ask("qm-destroy", json!({"vmid": 100}))
        .expect("not a template, whatever its description says");
}

#[test]
fn what_a_creation_that_was_cut_off_has_left_is_destroyed_whatever_its_configuration_says() {
    let Some(vm) = Vm::new() else { return };
    let absent =
        "echo \"Configuration file 'nodes/x/qemu-server/100.conf' does not exist\" >&2; exit 2";
    vm.answers(absent);
    let params = json!({"vmid": 100});
    assert_eq!(
        code(vm.ask("qm-destroy", params.clone())),
        ErrorCode::NotFound
    );
    assert_eq!(vm.calls().last().unwrap(), &["destroy", "100", "--purge"]);
    // However long the line is that is damaged.
    vm.answers("[ $1 = config ] || exit 0; printf '/x/100.conf: line 1: %0999d; the file was left as it is' 0 >&2; exit 8");
    vm.ask("qm-destroy", params.clone()).expect("destroyed");
    assert_eq!(vm.calls().last().unwrap(), &["destroy", "100", "--purge"]);
    // Whether it was a template its disks say: only who means one says so to the program.
    vm.ask("qm-destroy", json!({"vmid": 100, "template": true}))
        .expect("destroyed");
    assert_eq!(
        vm.calls().last().unwrap(),
        &["destroy", "100", "--purge", "--template"]
    );
    vm.ask("pct-destroy", json!({"vmid": 100, "template": true}))
        .expect("destroyed");
    assert_eq!(vm.calls().last().unwrap(), &["destroy", "100", "--purge"]);
    vm.answers("[ $1 = config ] && exit 8; echo 'VM 100 is a template by its disks, and its configuration is damaged' >&2; exit 3");
    assert_eq!(
        code(vm.ask("qm-destroy", params.clone())),
        ErrorCode::Conflict
    );
    vm.calls();
    // What cannot be told for another reason is not taken for that, whatever the words.
    vm.answers("[ $1 = config ] || exit 0; echo 'cannot read /x/100.conf; the file was left as it is' >&2; exit 1");
    assert_eq!(
        code(vm.ask("qm-destroy", params.clone())),
        ErrorCode::Failed
    );
    assert_eq!(vm.calls().len(), 1, "destroy was never called");
    let Some(vm) = Vm::on(Backend::Proxmox) else {
        return;
    };
    vm.answers(absent);
    assert_eq!(code(vm.ask("qm-destroy", params)), ErrorCode::NotFound);
    assert_eq!(vm.calls().len(), 1, "of others' programs nothing is known");
}

#[test]
fn status_config_and_list_come_as_json() {
    let Some(vm) = Vm::new() else { return };
    vm.answers("case $1 in status) echo 'status: stopped';; config) printf 'boot: order=scsi0\\nname: a\\n';; list) printf '      VMID NAME                 STATUS     MEM(MB)    BOOTDISK(GB) PID       \\n       100 a                    running    512                2.00 77        \\n';; esac");
    assert_eq!(
        output(vm.ask("qm-status", json!({"vmid": 100}))),
        json!({"vmid": 100, "status": "stopped"})
    );
    assert_eq!(
        output(vm.ask("qm-config", json!({"vmid": 100}))),
        json!({"boot": "order=scsi0", "name": "a"})
    );
    let expected = json!([{"vmid": 100, "name": "a", "status": "running", "memory_mb": 512, "bootdisk_gb": 2.0, "pid": 77}]);
    assert_eq!(output(vm.ask("qm-list", json!({}))), expected);
    vm.answers("echo '\u{1b}[31mwhat'");
    assert_eq!(
        code(vm.ask("qm-status", json!({"vmid": 100}))),
        ErrorCode::Failed
    );
    assert_eq!(code(vm.ask("qm-list", json!({}))), ErrorCode::Failed);
}

#[test]
fn counters_come_of_one_run_for_all_machines_and_only_as_a_list_of_objects() {
    let Some(vm) = Vm::new() else { return };
    vm.answers("echo '[{\"vmid\": 100, \"state\": \"running\"}]'");
    let rows = json!([{"vmid": 100, "state": "running"}]);
    assert_eq!(output(vm.ask("qm-metrics", json!({}))), rows);
    assert_eq!(output(vm.ask("qm-metrics", json!({"vmid": 100}))), rows);
    assert_eq!(vm.calls(), [vec!["metrics"], vec!["metrics", "100"]]);
    for answer in ["", "{}", "[1]", "[{\"vmid\": 100}", "what"] {
        vm.answers(&format!("echo '{answer}'"));
        assert_eq!(
            code(vm.ask("qm-metrics", json!({}))),
            ErrorCode::Failed,
            "{answer}"
        );
    }
    vm.answers(
        "echo \"Configuration file 'nodes/pve/qemu-server/100.conf' does not exist\" >&2; exit 2",
    );
    assert_eq!(
        code(vm.ask("qm-metrics", json!({"vmid": 100}))),
        ErrorCode::NotFound
    );
}

#[test]
fn on_proxmox_each_machine_is_asked_and_one_that_went_meanwhile_is_left_out() {
    let Some(vm) = Vm::on(Backend::Proxmox) else {
        return;
    };
    vm.answers("case $1 in
        list) printf '      VMID NAME                 STATUS     MEM(MB)    BOOTDISK(GB) PID       \\n       100 a                    running    512                2.00 77        \\n       101 b                    stopped    512                2.00 0         \\n       102 c                    running    512                2.00 78        \\n';;
        status) case $2 in
            100) printf 'blockstat:\\n\\tscsi0:\\n\\t\\trd_operations: 7\\n\\t\\twr_operations: 3\\ncpus: 2\\nname: a\\nnetin: 5\\nnetout: 6\\npid: 1\\nqmpstatus: running\\nstatus: running\\nuptime: 60\\n';;
            101) printf 'name: b\\nqmpstatus: stopped\\nstatus: stopped\\n';;
            *) echo \"Configuration file 'nodes/pve/qemu-server/$2.conf' does not exist\" >&2; exit 2;;
            esac;;
        guest) exit 0;;
        esac");
    let rows = output(vm.ask("qm-metrics", json!({})));
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(
        (&rows[0]["disk_reads"], &rows[0]["guest_agent"]),
        (&json!(7), &json!(true))
    );
    // Process 1 always runs, and its processor time is read beside `qm`, which does not know it.
    assert!(rows[0]["cpu_ms"].is_u64() && rows[0]["started"].is_u64());
    assert_eq!(
        (
            &rows[1]["state"],
            &rows[1]["started"],
            &rows[1]["guest_agent"]
        ),
        (&json!("stopped"), &json!(0), &json!(false))
    );
    assert_eq!(
        code(vm.ask("qm-metrics", json!({"vmid": 102}))),
        ErrorCode::NotFound
    );
}

#[test]
fn a_guest_command_answers_with_its_code_and_streams_even_when_it_failed() {
    let Some(vm) = Vm::new() else { return };
    vm.answers(
        "echo '{\"exited\":1,\"exitcode\":3,\"out-data\":\"a\\\\n\",\"err-data\":\"b\"}'; exit 0",
    );
    let done = vm
        .ask("qm-guest-exec", json!({"vmid": 100, "command": "x"}))
        .expect("an answer");
    assert_eq!(
        Value::Object(done.extra),
        json!({"exitcode": 3, "stdout": "a\n", "stderr": "b"})
    );
    vm.answers("echo '{\"pid\":9}'; exit 1");
    assert_eq!(
        code(vm.ask("qm-guest-exec", json!({"vmid": 100, "command": "x"}))),
        ErrorCode::Timeout
    );
    vm.answers("echo 'QEMU guest agent is not running' >&2; exit 255");
    assert_eq!(
        code(vm.ask("qm-guest-exec", json!({"vmid": 100, "command": "x"}))),
        ErrorCode::Failed
    );
}

#[test]
fn a_backend_that_others_could_replace_stops_the_start_and_a_missing_one_fails_each_action() {
    let Some(vm) = Vm::new() else { return };
    let mut world = World::new();
    let script = world.script("qm", "#!/bin/sh\n");
    set_mode(&script, 0o777);
    world.policy.programs.qm = Some(script);
    assert!(
        world
            .start(vm::prepare)
            .err()
            .expect("refused")
            .contains("programs.qm")
    );
    world.policy.programs.qm = None;
    if let Ok(handler) = world.start(vm::prepare) {
        let found = PathBuf::from("/usr/lib/blockhost/blockhost-qm").exists()
            || PathBuf::from("/usr/bin/blockhost-qm").exists();
        if !found {
            assert_eq!(
                code(world.ask(&*handler, "qm-list", &json!({}))),
                ErrorCode::Failed
            );
        }
    }
    assert_eq!(
        vm.handler.programs().len(),
        4,
        "both scripts and their interpreters"
    );
}
