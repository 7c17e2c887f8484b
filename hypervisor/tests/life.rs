//! Machines with a real guest: they boot, answer, crash, are cloned and end.

mod common;

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use blockhost_hypervisor::config::VmLock;
use blockhost_hypervisor::error::Error;
use blockhost_hypervisor::host::{Family, Host};
use blockhost_hypervisor::machine::Vmid;
use blockhost_proto::layout::Layout;
use common::World;

fn world_with_guest() -> Option<(World, std::path::PathBuf)> {
    let world = World::new()?;
    let image = world.guest_image()?;
    Some((world, image))
}

/// Waits for something that has to happen.
fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(180);
    while !happened() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Regular files that a process could write to.
fn writable_files(pid: &str) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    entries
        .flatten()
        .filter(|entry| {
            let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().display());
            let info = std::fs::read_to_string(info).unwrap_or_default();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
            flags.is_some_and(|flags| flags & 3 != 0)
        })
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|path| path.is_file())
        .map(|path| path.display().to_string())
        .collect()
}

fn status_of(pid: &str, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{field}:")))
        .unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_machine_boots_answers_and_shuts_down() {
    let Some((world, image)) = world_with_guest() else {
        return;
    };
    world.guest("100", &image);
    world.fails(5, &["guest", "cmd", "100", "ping"]);
    world.ok(&["start", "100"]);
    let pid = world.field("100", "pid");
    for (field, value) in [
        ("CapEff", "0000000000000000"),
        ("CapBnd", ""),
        ("Seccomp", "2"),
        ("NoNewPrivs", "1"),
    ] {
        let found = status_of(&pid, field);
        assert!(
            value.is_empty() || found == value,
            "{field} of QEMU is {found}"
        );
    }
    assert_ne!(status_of(&pid, "Uid"), "0");
    let files = writable_files(&pid);
    assert!(
        !files.is_empty()
            && files
                .iter()
                .all(|file| file.ends_with("/100/vm-100-disk-0.qcow2")),
        "QEMU may write to its disk and to no other file: {files:?}"
    );
    assert!(world.bridge_ports().contains("tap100i0"));
    world.wait_agent("100");

    let output = world.ok(&[
        "guest",
        "exec",
        "100",
        "--",
        "/bin/sh",
        "-c",
        "hostname; echo no >&2; exit 3",
    ]);
    let answer: serde_json::Value = serde_json::from_str(&output).unwrap();
    let expected: [(&str, serde_json::Value); 4] = [
        ("exitcode", 3.into()),
        ("exited", 1.into()),
        ("out-data", "probe\n".into()),
        ("err-data", "no\n".into()),
    ];
    for (key, value) in expected {
        assert_eq!(answer[key], value, "{key} in {answer}");
    }
    let output = world.ok(&["guest", "cmd", "100", "network-get-interfaces"]);
    let mac = world
        .ok(&["config", "100"])
        .split("virtio=")
        .nth(1)
        .unwrap()[..17]
        .to_lowercase();
    assert!(output.contains(&mac), "{output}");

    // Its end would be another answer than its number.
    let output = world.ok(&[
        "guest",
        "exec",
        "100",
        "--timeout",
        "1",
        "--",
        "/bin/sleep",
        "1000",
    ]);
    let pid: serde_json::Value = serde_json::from_str(&output).unwrap();
    let status = world.ok(&["guest", "exec-status", "100", &pid["pid"].to_string()]);
    assert!(status.contains("\"exited\" : 0"), "{status}");

    world.ok(&["start", "100"]);
    assert!(world.fails(3, &["destroy", "100"]).contains("is running"));
    assert!(world.ok(&["list"]).contains("running"));
    world.ok(&["resize", "100", "scsi0", "+1G"]);
    world.ok(&["guest", "exec", "100", "--", "/bin/touch", "/run/no-agent"]);

    world.ok(&["shutdown", "100", "--timeout", "180"]);
    assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
    assert!(!world.bridge_ports().contains("tap100i0"));
    world.ok(&["shutdown", "100"]);
    world.ok(&["destroy", "100", "--purge"]);
    assert!(
        world
            .fails(2, &["status", "100"])
            .contains("100.conf' does not exist")
    );
    assert!(
        !world
            .path("var/lib/blockhost/qm-storage/local/images/100")
            .exists()
    );
}

#[test]
fn a_guest_that_ignores_shutdown_costs_a_timeout_and_keeps_running() {
    let Some((world, image)) = world_with_guest() else {
        return;
    };
    world.guest("100", &image);
    world.ok(&["start", "100"]);
    world.wait_agent("100");
    world.ok(&[
        "guest",
        "exec",
        "100",
        "--",
        "/bin/sh",
        "-c",
        "touch /run/no-agent; (sleep 0.3; killall qemu-ga) >/dev/null 2>&1 &",
    ]);
    until("its agent ends", || {
        world.qm(&["guest", "cmd", "100", "ping"]).status.code() == Some(5)
    });
    assert!(
        world
            .fails(4, &["shutdown", "100", "--timeout", "4"])
            .contains("got timeout")
    );
    assert_eq!(world.ok(&["status", "100"]), "status: running\n");
    world.ok(&["shutdown", "100", "--timeout", "1", "--forceStop", "1"]);
    assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
}

#[test]
fn a_killed_qemu_is_a_stopped_machine_that_starts_again() {
    let Some((world, image)) = world_with_guest() else {
        return;
    };
    world.guest("100", &image);
    world.ok(&["start", "100"]);
    let pid = world.field("100", "pid");
    world.inside("kill", &["-KILL", &pid]);
    until("it is known to have ended", || {
        world.ok(&["status", "100"]) == "status: stopped\n"
    });
    assert!(world.ok(&["list"]).contains("stopped"));
    world.ok(&["start", "100"]);
    // One that no longer answers is ended all the same.
    let pid = world.field("100", "pid");
    world.inside("kill", &["-STOP", &pid]);
    assert_eq!(world.ok(&["status", "100"]), "status: running\n");
    world.ok(&["stop", "100"]);
    assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
    world.ok(&["stop", "100"]);
}

#[test]
fn a_linked_clone_boots_and_protects_its_template() {
    let Some((world, image)) = world_with_guest() else {
        return;
    };
    world.guest("9000", &image);
    assert!(
        world
            .fails(3, &["clone", "9000", "101", "--full", "0"])
            .contains("only supported for templates")
    );
    world.ok(&["template", "9000"]);
    let base = world.path("var/lib/blockhost/qm-storage/local/images/9000/base-9000-disk-0.qcow2");
    let meta = std::fs::metadata(base).unwrap();
    assert_eq!(
        (meta.uid(), meta.mode() & 0o777),
        (0, 0o440),
        "who owns a base could make his descriptor of it a writable one"
    );
    world.fails(3, &["template", "9000"]);
    world.fails(3, &["start", "9000"]);
    world.fails(3, &["resize", "9000", "scsi0", "+1G"]);
    world.ok(&["clone", "9000", "101", "--name", "copy"]);
    world.fails(3, &["clone", "9000", "101"]);
    let config = world.ok(&["config", "101"]);
    assert!(
        config.contains("scsi0: local:9000/base-9000-disk-0.qcow2/101/vm-101-disk-0.qcow2,size="),
        "{config}"
    );
    assert!(
        config.contains("name: copy\n") && !config.contains("template"),
        "{config}"
    );
    let mac =
        |vmid: &str| world.ok(&["config", vmid]).split("virtio=").nth(1).unwrap()[..17].to_owned();
    assert_ne!(mac("9000"), mac("101"));
    world.ok(&["set", "101", "--onboot", "1", "--name", "other"]);
    world.ok(&["autostart"]);
    world.wait_agent("101");
    let hostname = world.ok(&["guest", "exec", "101", "--", "/bin/hostname"]);
    assert!(hostname.contains("other"), "{hostname}");
    assert!(
        world
            .fails(3, &["destroy", "9000"])
            .contains("in use by linked clone 101")
    );
    world.ok(&["stop", "101"]);

    world.ok(&["clone", "9000", "102", "--full"]);
    let config = world.ok(&["config", "102"]);
    assert!(
        config.contains("scsi0: local:102/vm-102-disk-0.qcow2,size="),
        "{config}"
    );
    world.ok(&["destroy", "101"]);
    world.ok(&["destroy", "9000"]);
    world.ok(&["start", "102"]);
    world.wait_agent("102");
}

#[test]
fn two_starts_at_once_make_one_qemu() {
    let Some(world) = World::new() else { return };
    world.ok(&["create", "100", "--memory", "64", "--scsi0", "local:1"]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| world.ok(&["start", "100"]));
        }
    });
    let root = world.path("").display().to_string();
    let mine = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let fds = std::fs::read_dir(entry.path().join("fd"))
                .into_iter()
                .flatten()
                .flatten();
            line.starts_with(b"/usr/bin/qemu-system")
                && fds
                    .filter_map(|fd| std::fs::read_link(fd.path()).ok())
                    .any(|to| to.starts_with(root.trim_end_matches('/')))
        });
    assert_eq!(mine.count(), 1);
}

#[test]
fn a_guest_that_stands_because_the_disk_is_full_is_told_and_goes_on_when_there_is_space() {
    let Some(world) = World::new() else { return };
    let Some(image) = world.guest_image() else {
        return;
    };
    let etc = world.path("etc/blockhost/storage.d");
    std::fs::create_dir_all(&etc).unwrap();
    let storage = "storages: {small: {type: dir, path: /var/lib/blockhost/small}}\n";
    std::fs::write(etc.join("small.yaml"), storage).unwrap();
    let place = world.path("var/lib/blockhost/small");
    std::fs::create_dir_all(&place).unwrap();
    let place = place.display().to_string();
    let mount = |options: &str| {
        let done = world.inside("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &place]);
        assert!(done.status.success(), "{}", done.errors);
    };
    mount("size=8m");
    world.guest("100", &image);
    world.ok(&["set", "100", "--scsi1", "small:1"]);
    world.ok(&["start", "100"]);
    world.wait_agent("100");
    // Disks get their letters in the order in which they answer.
    let write = "sleep 1; while read a b blocks name; do [ $blocks = 1048576 ] && disk=$name; done </proc/partitions
        dd if=/dev/zero of=/dev/$disk bs=1M count=24 conv=notrunc && sync && echo whole >/tmp/done";
    let background = format!("({write}) >/dev/null 2>&1 </dev/null &");
    let words = ["guest", "exec", "100", "--", "/bin/sh", "-c", &background];
    world.ok(&words);
    let end = Instant::now() + Duration::from_secs(300);
    while world.ok(&["status", "100"]) != "status: io-error\n" {
        assert!(Instant::now() < end, "{}", world.ok(&["status", "100"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    let row = world.ok(&["list"]);
    assert!(row.contains(" io-error "), "{row}");
    assert!(
        world
            .ok(&["metrics", "100"])
            .contains("\"state\":\"io-error\"")
    );
    let said = world.fails(3, &["start", "100"]);
    assert!(said.contains("no space"), "{said}");
    mount("remount,size=200m");
    let said = world.ok(&["start", "100"]);
    assert!(said.contains("goes on"), "{said}");
    assert_eq!(world.ok(&["status", "100"]), "status: running\n");
    world.wait_agent("100");
    let end = Instant::now() + Duration::from_secs(300);
    loop {
        let words = [
            "guest",
            "exec",
            "100",
            "--",
            "/bin/sh",
            "-c",
            "cat /tmp/done; true",
        ];
        if world.ok(&words).contains("whole") {
            break;
        }
        assert!(Instant::now() < end, "what was being written is not whole");
        std::thread::sleep(Duration::from_millis(200));
    }
    world.ok(&["stop", "100"]);
}

/// Runs a script as the machines' user. `$0` is our program, where that user can reach it, and `$1` a directory of theirs.
fn as_machine(world: &World, script: &str) -> blockhost_hypervisor::exec::Finished {
    let scratch = world.path("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let user = blockhost_hypervisor::host::MACHINE_USER;
    let (uid, gid) = blockhost_hypervisor::sys::lookup_user(user)
        .unwrap()
        .unwrap();
    std::os::unix::fs::chown(&scratch, Some(uid), Some(gid)).unwrap();
    let (uid, gid) = (uid.to_string(), gid.to_string());
    let qm = env!("CARGO_BIN_EXE_blockhost-qm");
    // A link that the user can reach, as /proc/self/exe is in a start.
    let program = std::fs::File::open(qm).unwrap();
    let place = world.path("qm");
    std::io::copy(&mut &program, &mut std::fs::File::create(&place).unwrap()).unwrap();
    for (path, mode) in [(world.path(""), 0o755), (place.clone(), 0o755)] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let (place, scratch) = (place.display().to_string(), scratch.display().to_string());
    let words = ["--reuid", &uid, "--regid", &gid, "--clear-groups", "sh"];
    let script = ["-c", script, &place, &scratch];
    let words: Vec<&str> = words.into_iter().chain(script).collect();
    world.inside("setpriv", &words)
}

#[test]
fn no_machine_looks_into_another_and_none_opens_a_file_for_writing() {
    let Some(world) = World::new() else { return };
    let script = r#"
        sleep 1000 & other=$!
        "$0" machine-launcher /bin/sleep 1000 & machine=$!
        until grep -q sleep /proc/$machine/comm; do sleep 0.01; done
        "$0" machine-launcher /bin/sh -c '
            seen=$(ls -l /proc/self/fd) && echo reads
            seen=$(ls -l /proc/$0/fd) && echo sees a machine
            seen=$(ls -l /proc/$1/fd) && echo sees a stranger
            (echo x > $2/file) && echo writes
            echo end' $machine $other "$1"
        kill $machine $other"#;
    let done = as_machine(&world, script);
    assert_eq!(done.output, "reads\nend\n", "{}", done.errors);
}

#[test]
fn no_machine_signals_another_or_speaks_to_an_abstract_socket_of_the_host() {
    let Some(world) = World::new() else { return };
    let abi = blockhost_hypervisor::sys::landlock::abi();
    if abi < 6 {
        eprintln!(
            "skipped: Landlock of this kernel is version {abi}; signals and abstract sockets need 6"
        );
        return;
    }
    // A connection from where the machine's process was started shows that the name is right.
    let script = r#"
        listens="import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('\0' + '$1'); s.listen(); time.sleep(1000)"
        connects="import socket; socket.socket(socket.AF_UNIX).connect('\0' + '$1')"
        /usr/bin/python3 -ISBc "$listens" & other=$!
        until /usr/bin/python3 -ISBc "$connects" 2>/dev/null; do sleep 0.01; done
        "$0" machine-launcher /bin/sleep 1000 & machine=$!
        until grep -q sleep /proc/$machine/comm; do sleep 0.01; done
        "$0" machine-launcher /bin/sh -c '
            grep -q "^Max processes  *7168  *7168 " /proc/self/limits && echo bounded
            kill -0 $$ && echo itself
            sleep 1000 & kill $! && echo its own
            for of in $0 $1; do kill -STOP $of && echo signals; kill -KILL $of && echo ends; done
            /usr/bin/python3 -ISBc "$2" && echo connects
            echo end' $machine $other "$connects"
        kill -0 $machine && kill -0 $other && echo both live
        kill $machine $other"#;
    let done = as_machine(&world, script);
    assert_eq!(
        done.output, "bounded\nitself\nits own\nend\nboth live\n",
        "{}",
        done.errors
    );
    assert!(
        done.errors.contains("PermissionError"),
        "the connection: {}",
        done.errors
    );
}

#[test]
fn a_machine_is_cloned_while_others_read_it_and_nobody_may_change_it_meanwhile() {
    let Some(world) = World::new() else { return };
    world.ok(&["create", "100", "--name", "source", "--memory", "128"]);
    let host = Host {
        family: Family::Machines,
        layout: Layout::new(world.path("")),
        node: "test".to_owned(),
        pins: None,
    };
    let reader = VmLock::share(&host, Vmid::try_from(100u32).unwrap()).unwrap();
    world.ok(&["clone", "100", "101", "--full", "1"]);
    world.ok(&["clone", "100", "99100", "--full", "1"]);
    let change = || VmLock::take_file(&host, "100.lock", Duration::ZERO);
    assert!(matches!(change(), Err(Error::LockTimeout { .. })));
    drop(reader);
    drop(change().expect("nobody reads it any more"));
    world.ok(&["destroy", "100"]);
}
