//! The vm compartment with a recorded `pct`: what it is called with, how its answers are understood, which templates it
//! gets. What is common with machines (programs, deadlines) is tested with `qm`.

mod compartment_world;
mod recorded;

use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::vm;
use compartment_world::{World, code, set_mode};
use recorded::{Vm, output};
use serde_json::{Value, json};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2mSbTmfL0yJ0Yx5b5lQ9PZ3O8wq3E6m7yqk5Yw1p8k me@here";

fn create(template: &str) -> Value {
    json!({"vmid": 100, "template": template, "hostname": "web-1", "options": {"rootfs": "local:8"}})
}

#[test]
fn every_action_becomes_the_one_command_line_that_it_should() {
    let Some(ct) = Vm::new() else { return };
    let cases = [
        ("pct-start", json!({"vmid": 100}), "start 100"),
        ("pct-stop", json!({"vmid": 100}), "stop 100"),
        (
            "pct-shutdown",
            json!({"vmid": 100}),
            "shutdown 100 --timeout 120",
        ),
        (
            "pct-set",
            json!({"vmid": 100, "options": {"memory": 512, "net0": "name=eth0,bridge=vmbr0,ip=dhcp"}}),
            "set 100 --memory 512 --net0 name=eth0,bridge=vmbr0,ip=dhcp",
        ),
        (
            "pct-create",
            create("local:vztmpl/debian-12.tar.zst"),
            "create 100 local:vztmpl/debian-12.tar.zst --hostname web-1 --unprivileged 1 --rootfs local:8",
        ),
        (
            "pct-create",
            json!({"vmid": 100, "template": "local:vztmpl/a.tar", "hostname": "a", "options": {"rootfs": "local:8", "unprivileged": 1, "features": "nesting=1"}}),
            "create 100 local:vztmpl/a.tar --hostname a --unprivileged 1 --features nesting=1 --rootfs local:8",
        ),
    ];
    for (name, params, expected) in cases {
        ct.ask(name, params)
            .unwrap_or_else(|failure| panic!("{name}: {}", failure.message));
        assert_eq!(
            ct.calls(),
            [expected.split(' ').map(str::to_owned).collect::<Vec<_>>()],
            "{name}"
        );
    }
}

#[test]
fn a_container_is_never_created_with_the_hosts_own_root() {
    let Some(ct) = Vm::new() else { return };
    ct.ask("pct-create", create("local:vztmpl/a.tar"))
        .expect("created");
    let call = ct.calls().remove(0);
    let at = call.iter().position(|word| word == "--unprivileged");
    assert_eq!(call[at.expect("said") + 1], "1");
    assert_eq!(
        call.iter().filter(|word| *word == "--unprivileged").count(),
        1
    );
}

#[test]
fn ssh_keys_travel_in_a_file_without_a_name() {
    let Some(ct) = Vm::new() else { return };
    ct.answers("while [ \"$1\" != --ssh-public-keys ]; do shift; done; cat \"$2\" >\"$BLOCKHOST_ROOT/keys\"");
    let mut params = create("local:vztmpl/a.tar");
    params["options"]["ssh-public-keys"] = KEY.into();
    ct.ask("pct-create", params)
        .unwrap_or_else(|failure| panic!("{}", failure.message));
    let keys = std::fs::read_to_string(ct.world.path().join("keys")).expect("read by pct");
    assert_eq!(keys.trim(), KEY);
}

#[test]
fn a_template_file_is_used_only_where_nobody_but_root_can_change_it() {
    let Some(mut ct) = Vm::new() else { return };
    let allowed = PathBuf::from("/srv/templates");
    let directory = ct.world.path().join("srv/templates");
    std::fs::create_dir_all(&directory).expect("a directory");
    ct.world.policy.allow.template_dirs = vec![allowed];
    std::fs::write(directory.join("good.tar.zst"), b"x").expect("a file");
    let whole = directory.join("good.tar.zst").display().to_string();
    for name in ["good.tar.zst", "/srv/templates/good.tar.zst", &whole] {
        ct.ask("pct-create", create(name))
            .unwrap_or_else(|failure| panic!("{name}: {}", failure.message));
        assert_eq!(ct.calls()[0][2], whole, "{name}");
    }

    let refused = |name: &str, expected: ErrorCode| {
        assert_eq!(code(ct.ask("pct-create", create(name))), expected, "{name}");
        assert!(ct.calls().is_empty(), "{name} reached pct");
    };
    refused("missing.tar.zst", ErrorCode::NotFound);
    refused("/etc/x.tar.zst", ErrorCode::NotFound);
    symlink("good.tar.zst", directory.join("link.tar.zst")).expect("a link");
    refused("link.tar.zst", ErrorCode::Forbidden);
    symlink(ct.world.path(), directory.join("up")).expect("a link");
    refused("up/x.tar.zst", ErrorCode::Forbidden);
    std::fs::create_dir(directory.join("directory.tar")).expect("a directory");
    refused("directory.tar", ErrorCode::Forbidden);
    let theirs = directory.join("theirs.tar.zst");
    std::fs::write(&theirs, b"x").expect("a file");
    chown(&theirs, Some(compartment_world::USER), None).expect("an owner");
    refused("theirs.tar.zst", ErrorCode::Forbidden);
    let open = directory.join("open.tar.zst");
    std::fs::write(&open, b"x").expect("a file");
    set_mode(&open, 0o666);
    refused("open.tar.zst", ErrorCode::Forbidden);
    std::fs::hard_link(&open, directory.join("second.tar.zst")).expect("a second name");
    set_mode(&open, 0o644);
    refused("second.tar.zst", ErrorCode::Forbidden);
    // Whoever can write to a directory above can put another file there.
    chown(&directory, Some(compartment_world::USER), None).expect("an owner");
    refused("good.tar.zst", ErrorCode::Forbidden);
    chown(&directory, Some(0), None).expect("an owner");
    set_mode(directory.parent().expect("a parent"), 0o777);
    refused("good.tar.zst", ErrorCode::Forbidden);
}

#[test]
fn start_of_a_running_and_stop_of_a_stopped_container_succeed_and_nothing_else_does() {
    let Some(ct) = Vm::new() else { return };
    let state = |state: &str| {
        ct.answers(&format!("[ \"$1\" = status ] && {{ echo 'status: {state}'; exit 0; }}; echo 'it did not work' >&2; exit 255"))
    };
    state("running");
    ct.ask("pct-start", json!({"vmid": 100}))
        .expect("runs already");
    for name in ["pct-stop", "pct-shutdown"] {
        assert_eq!(
            code(ct.ask(name, json!({"vmid": 100}))),
            ErrorCode::Failed,
            "{name}"
        );
    }
    state("stopped");
    for name in ["pct-stop", "pct-shutdown"] {
        ct.ask(name, json!({"vmid": 100}))
            .expect("is stopped already");
    }
    assert_eq!(
        code(ct.ask("pct-start", json!({"vmid": 100}))),
        ErrorCode::Failed
    );
}

#[test]
fn a_container_that_ignores_the_shutdown_is_a_timeout_and_is_not_forced() {
    let Some(ct) = Vm::new() else { return };
    ct.answers("[ \"$1\" = status ] && { echo 'status: running'; exit 0; }; sleep \"$4\"; echo 'command lxc-stop failed: exit code 1' >&2; exit 255");
    assert_eq!(
        code(ct.ask("pct-shutdown", json!({"vmid": 100, "timeout": 1}))),
        ErrorCode::Timeout
    );
    let verbs: Vec<String> = ct.calls().into_iter().map(|call| call[0].clone()).collect();
    assert_eq!(verbs, ["shutdown", "status"], "no stop");
}

#[test]
fn an_absent_container_is_not_found_by_every_action() {
    let Some(ct) = Vm::new() else { return };
    ct.answers("echo \"Configuration file 'nodes/pve/lxc/100.conf' does not exist\" >&2; exit 2");
    for name in [
        "pct-start",
        "pct-stop",
        "pct-shutdown",
        "pct-destroy",
        "pct-status",
        "pct-config",
    ] {
        assert_eq!(
            code(ct.ask(name, json!({"vmid": 100}))),
            ErrorCode::NotFound,
            "{name}"
        );
    }
    for (name, params) in [
        ("pct-exec", json!({"vmid": 100, "command": "true"})),
        ("pct-set", json!({"vmid": 100, "options": {"cores": 1}})),
    ] {
        assert_eq!(code(ct.ask(name, params)), ErrorCode::NotFound, "{name}");
    }
}

#[test]
fn a_template_is_destroyed_only_when_a_template_is_meant() {
    let Some(ct) = Vm::new() else { return };
    ct.answers("[ \"$1\" = config ] && printf 'hostname: base\\ntemplate: 1\\n'");
    assert_eq!(
        code(ct.ask("pct-destroy", json!({"vmid": 100}))),
        ErrorCode::Conflict
    );
    assert_eq!(ct.calls().len(), 1, "destroy was never called");
    ct.ask("pct-destroy", json!({"vmid": 100, "template": true}))
        .expect("destroyed");
    assert_eq!(ct.calls()[1], ["destroy", "100", "--purge"]);
}

#[test]
fn status_config_and_list_come_as_json() {
    let Some(ct) = Vm::new() else { return };
    ct.answers("case $1 in status) echo 'status: stopped';; config) printf 'hostname: a\\nrootfs: local:100/vm-100-disk-0.raw,size=8G\\n';; list) printf 'VMID       Status     Lock         Name                \\n100        running                 a                   \\n';; esac");
    assert_eq!(
        output(ct.ask("pct-status", json!({"vmid": 100}))),
        json!({"vmid": 100, "status": "stopped"})
    );
    assert_eq!(
        output(ct.ask("pct-config", json!({"vmid": 100}))),
        json!({"hostname": "a", "rootfs": "local:100/vm-100-disk-0.raw,size=8G"})
    );
    assert_eq!(
        output(ct.ask("pct-list", json!({}))),
        json!([{"vmid": 100, "name": "a", "status": "running", "lock": null}])
    );
}

/// What `pct exec` does: the words behind `--` run, with its own input and exit code; here by the host's shell.
const EXEC: &str = "[ \"$1\" = status ] && { echo 'status: running'; exit 0; }; while [ \"$1\" != -- ]; do shift; done; shift; exec \"$@\"";

#[test]
fn a_command_answers_with_its_code_and_streams_even_when_it_failed() {
    let Some(ct) = Vm::new() else { return };
    ct.answers(EXEC);
    let command = "echo \"a  b\"; echo '$HOME' >&2; exit 3";
    let done = ct
        .ask("pct-exec", json!({"vmid": 100, "command": command}))
        .expect("an answer");
    assert_eq!(
        Value::Object(done.extra),
        json!({"exitcode": 3, "stdout": "a  b\n", "stderr": "$HOME\n"})
    );
    let words = ["exec", "100", "--", "/bin/sh", "-c", command];
    assert_eq!(ct.calls()[1], words);
    let done = ct
        .ask("pct-exec", json!({"vmid": 100, "command": "kill -9 $$"}))
        .expect("an answer");
    assert_eq!(done.extra["exitcode"], 137);
    let hidden = ct.ask(
        "pct-exec",
        json!({"vmid": 100, "command": "sleep 60", "timeout": 1}),
    );
    assert_eq!(code(hidden), ErrorCode::Timeout);
}

#[test]
fn a_stopped_container_runs_no_command() {
    let Some(ct) = Vm::new() else { return };
    ct.answers("[ \"$1\" = status ] && echo 'status: stopped'");
    assert_eq!(
        code(ct.ask("pct-exec", json!({"vmid": 100, "command": "true"}))),
        ErrorCode::Conflict
    );
    assert_eq!(ct.calls().len(), 1, "exec was never called");
}

#[test]
fn a_secret_command_is_not_among_the_words_of_a_process() {
    let Some(ct) = Vm::new() else { return };
    ct.answers(EXEC);
    let command = "-x 2>/dev/null\nread line\necho \"hunter2 $(printf %s b)$line\"\n(exit 3)";
    let done = ct
        .ask(
            "pct-exec",
            json!({"vmid": 100, "command": command, "secret": true}),
        )
        .expect("executed");
    assert_eq!(done.extra["exitcode"], 3);
    assert_eq!(done.extra["stdout"], "hunter2 b\n");
    let calls = ct.calls();
    assert!(
        calls.iter().flatten().all(|word| !word.contains("hunter2")),
        "{calls:?}"
    );
}

#[test]
fn a_host_without_pct_says_so_and_still_starts_its_machines() {
    let Some(ct) = Vm::new() else { return };
    let mut world = World::new();
    world.policy.programs.qm = ct.world.policy.programs.qm.clone();
    let handler = world.start(vm::prepare).expect("a vm compartment");
    world
        .ask(&*handler, "qm-start", &json!({"vmid": 100}))
        .expect("started");
    let installed = ["/usr/lib/blockhost/blockhost-pct", "/usr/bin/blockhost-pct"];
    if !installed.iter().any(|path| PathBuf::from(path).exists()) {
        let failure = world
            .ask(&*handler, "pct-list", &json!({}))
            .expect_err("there is none");
        assert_eq!(failure.code, ErrorCode::Failed);
        assert!(
            failure.message.contains("container backend"),
            "{}",
            failure.message
        );
    }
    world.policy.programs.pct = Some(world.script("pct", "#!/bin/sh\n"));
    set_mode(&world.path().join("pct"), 0o777);
    let refused = world.start(vm::prepare).err().expect("refused");
    assert!(refused.contains("programs.pct"), "{refused}");
}
