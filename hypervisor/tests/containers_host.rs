//! Containers and what the host gives them: limits, control groups, ids; and a whole Debian in one.

mod container_world;

use std::os::unix::fs::MetadataExt;

use blockhost_hypervisor::exec::{self, Run};
use container_world::World;

#[test]
fn limits_are_kept_and_what_is_not_in_force_is_said() {
    let Some(world) = World::new() else { return };
    world.container(
        "100",
        &[
            "--memory",
            "64",
            "--swap",
            "0",
            "--cores",
            "2",
            "--cpulimit",
            "0.5",
        ],
    );
    let started = world.ok(&["start", "100"]);
    let status = world.ok(&["status", "100", "--verbose", "1"]);
    let group = status
        .lines()
        .find_map(|line| line.strip_prefix("cgroup: "))
        .unwrap()
        .to_owned();
    let read = |file: &str| world.inside("cat", &[&format!("{group}/{file}")]);
    let in_force = |file: &str| {
        let done = read(file);
        done.status.success().then(|| done.output.trim().to_owned())
    };
    if let Some(max) = in_force("memory.max") {
        assert_eq!(max, "67108864");
        let said = world.tried("100", "dd if=/dev/zero of=/dev/shm/x bs=1M count=200");
        assert_ne!(said.0, 0, "200 MiB in 64: {}", said.1);
    } else {
        assert!(
            started.contains("limits on the memory are stored but not in force")
                || started.contains("limits of CT 100"),
            "{started}"
        );
    }
    match in_force("cpu.max") {
        Some(max) => assert_eq!(max, "50000 100000"),
        None => assert!(started.contains("not in force"), "{started}"),
    }
    let changed = world.ok(&["set", "100", "--memory", "128"]);
    assert!(
        changed.contains("not in force") || in_force("memory.max").as_deref() == Some("134217728")
    );
    let later = world.ok(&["set", "100", "--net0", "name=eth0,bridge=vmbr0"]);
    assert!(later.contains("at its next start"), "{later}");
    assert!(world.ok(&["config", "100"]).contains("memory: 128\n"));
}

#[test]
fn a_container_is_in_a_control_group_of_its_own_which_goes_with_it() {
    let Some(world) = World::new() else { return };
    let Some(own) = world.group.clone() else {
        eprintln!("skipped: no control group can be delegated here");
        return;
    };
    world.container("100", &[]);
    world.ok(&["start", "100"]);
    let listed = || world.inside("find", &[&own, "-type", "d"]).output;
    assert!(listed().contains(&format!("{own}/ct-100/")), "{}", listed());
    let pid = world.pid("100");
    let place = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(
        place
            .lines()
            .any(|line| line.starts_with("0::") && line.contains("/ct-100/")),
        "{place}"
    );
    assert_eq!(
        world
            .tried("100", "mkdir /sys/fs/cgroup/x || mount -t cgroup2 x /mnt")
            .0,
        0,
        "it has its own view"
    );
    let member = |pid: &str| {
        world
            .inside("cat", &[&format!("/proc/{pid}/cgroup")])
            .output
    };
    let pid = world.pid("100");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t"));
    let (inside, monitor) = (member(&pid), member(parent.unwrap()));
    let limited = world.ok(&["status", "100", "--verbose", "1"]);
    let limited = limited
        .lines()
        .find_map(|line| line.strip_prefix("cgroup: "));
    let limited = limited.unwrap().strip_prefix("/sys/fs/cgroup").unwrap();
    assert!(
        inside.contains(&format!("0::{limited}/")),
        "{inside} is not in {limited}"
    );
    assert!(
        monitor.contains("/ct-100/") && !monitor.contains(limited),
        "the monitor is limited by what the container may have: {monitor}"
    );
    let entered = world.shell("100", "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!");
    assert!(!entered.trim().is_empty());
    let members = world.inside(
        "cat",
        &[&format!(
            "/sys/fs/cgroup{limited}/payload/.lxc/cgroup.procs"
        )],
    );
    assert!(
        members.status.success() && !members.output.trim().is_empty(),
        "what enters it is limited as well: {}",
        members.errors
    );
    world.ok(&["stop", "100"]);
    assert!(!listed().contains("ct-100"), "{}", listed());
}

/// An archive of a real Debian with systemd and sshd, made once; `None` after printing why there is none.
fn debian() -> Option<std::path::PathBuf> {
    let archive = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-12-systemd.tar");
    if archive.exists() {
        return Some(archive);
    }
    let part = archive.with_extension("part.tar");
    let include = "--include=systemd-sysv,openssh-server,iproute2";
    let made = exec::find("mmdebstrap", "mmdebstrap").and_then(|program| {
        let part = part.display().to_string();
        Run::new(
            program,
            ["--quiet", "--variant=minbase", include, "bookworm", &part],
        )
        .output()
    });
    match made.map(|_| std::fs::rename(&part, &archive)) {
        Ok(Ok(())) => Some(archive),
        other => {
            eprintln!("skipped: no Debian can be made here: {other:?}");
            None
        }
    }
}

#[test]
fn a_real_debian_boots_with_systemd_answers_by_ssh_and_shuts_down() {
    let Some(world) = World::new() else { return };
    if world.group.is_none() {
        eprintln!("skipped: systemd in a container needs a control group");
        return;
    }
    let Some(archive) = debian() else { return };
    let archive = archive.display().to_string();
    world.ok(&[
        "create",
        "100",
        &archive,
        "--unprivileged",
        "1",
        "--rootfs",
        "local:2",
        "--hostname",
        "web-1",
        "--net0",
        "name=eth0,bridge=vmbr0,ip=10.9.0.5/24,gw=10.9.0.1",
    ]);
    world.ok(&["start", "100"]);
    // Its manager listens a moment after it was started.
    let ready =
        "i=0; while [ ! -S /run/systemd/private ] && [ $i -lt 3000 ]; do i=$((i+1)); sleep 0.1; done
        systemctl is-system-running --wait; systemctl --failed --plain --no-legend";
    assert_eq!(world.tried("100", ready), (0, "running\n".to_owned()));
    let banner = world.inside("bash", &["-c", "exec 3<>/dev/tcp/10.9.0.5/22; head -1 <&3"]);
    assert!(banner.output.starts_with("SSH-2.0-"), "{}", banner.errors);
    assert_eq!(
        world.shell(
            "100",
            "stat -c %a /run /tmp; cat /etc/debian_version | head -c 3"
        ),
        "755\n1777\n12."
    );
    world.ok(&["shutdown", "100", "--timeout", "300"]);
    assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
}

#[test]
fn each_container_has_ids_of_its_own_and_nobody_else_passes_into_its_files() {
    let Some(world) = World::new() else { return };
    world.container("100", &[]);
    world.container("101", &[]);
    let owner = |vmid: &str| {
        std::fs::metadata(world.directory(vmid).join("rootfs"))
            .unwrap()
            .uid()
    };
    let (first, second) = (owner("100"), owner("101"));
    assert!(
        first >= 65_536 && second >= first + 65_536,
        "{first} {second}"
    );
    let door = std::fs::metadata(world.directory("100")).unwrap();
    assert_eq!((door.mode() & 0o7777, door.gid()), (0o710, first));
    world.ok(&["destroy", "100"]);
    world.container("102", &[]);
    assert_eq!(owner("102"), first, "ids of what is gone are used again");
}

#[test]
fn a_service_becomes_the_program_that_is_installed_now_and_who_asked_hears_when_or_why_not() {
    let Some(world) = World::new() else { return };
    world.container("100", &[]);
    world.ok(&["start", "100"]);
    let pid = world.pid("100");
    let program = world.path("bin/blockhost-containers");
    let runs = || {
        std::fs::metadata(format!("/proc/{}/exe", world.service()))
            .unwrap()
            .ino()
    };
    let renewed = || world.renewal().status().unwrap();
    // Another file of the same name, as a package's upgrade puts it there.
    let upgrade = || {
        let beside = world.path("bin/beside");
        container_world::install(&program, &beside).unwrap();
        std::fs::rename(&beside, &program).unwrap();
    };
    let before = runs();
    upgrade();
    let done = renewed();
    assert!(done.status.success(), "{}", done.errors);
    assert_ne!(runs(), before, "it is the program of before");
    assert_eq!(world.pid("100"), pid, "the container was not started again");

    // While a request is under way one waits, and who asks besides is told so.
    let busy = world.pct_command(&[
        "exec",
        "100",
        "--",
        "/bin/sh",
        "-c",
        "echo >/tmp/busy; while [ ! -e /tmp/end ]; do sleep 0.1; done; echo ended",
    ]);
    let busy = std::thread::spawn(move || busy.output().unwrap());
    container_world::until("it is busy", || {
        world.tried("100", "test -e /tmp/busy").0 == 0
    });
    let before = runs();
    upgrade();
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        for tell in [tell.clone(), tell] {
            scope.spawn(move || tell.send(renewed()).unwrap());
        }
        // The other one waits: what is under way ends only now.
        let first = told.recv().unwrap();
        assert_eq!(world.tried("100", "touch /tmp/end").0, 0);
        let second = told.recv().unwrap();
        assert!(
            !first.status.success() && first.errors.contains("has asked for that already"),
            "{}",
            first.errors
        );
        assert!(second.status.success(), "{}", second.errors);
    });
    assert!(busy.join().unwrap().contains("ended"), "it was cut off");
    assert_ne!(runs(), before, "it is the program of before");

    // What anybody could have put there is not run, and what was there serves on.
    std::fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let done = renewed();
    assert!(
        !done.status.success() && done.errors.contains("serves on"),
        "{}",
        done.errors
    );
    std::fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    assert_eq!(world.pid("100"), pid);
    // Neither does a refusal stand in the way of the next.
    let done = renewed();
    assert!(done.status.success(), "{}", done.errors);
    world.ok(&["stop", "100"]);
}
