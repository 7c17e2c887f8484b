//! What containers and accidents may not do; archives are in `containers_archives`. The names of past holes of other container
//! managers stand at the test that tries them here (docs/cve.md).

mod container_world;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use blockhost_hypervisor::exec;
use blockhost_hypervisor::keeper::wire::{Ask, Line};
use container_world::{World, until};

#[test]
fn root_of_a_container_is_nobody_on_the_host() {
    let Some(world) = World::new() else { return };
    world.container("100", &["--net0", "name=eth0,bridge=vmbr0"]);
    world.ok(&["start", "100"]);
    for (what, command) in [
        ("a device of the host", "mknod /tmp/sda b 8 0"),
        ("a file system of the host", "mount -t ext4 /dev/vda /mnt"),
        (
            "CVE-2022-0492: a control group's release agent",
            "mount -t cgroup -o memory x /mnt && echo /x > /mnt/release_agent",
        ),
        (
            "CVE-2022-0811: how the kernel starts programs",
            "echo '|/x' > /proc/sys/kernel/core_pattern",
        ),
        ("the kernel's keyboard", "echo h > /proc/sysrq-trigger"),
        (
            "the clock",
            "date -s 2001-01-01 >/dev/null 2>&1; [ $(date +%Y) = 2001 ]",
        ),
        ("the kernel's log", "dd if=/dev/kmsg of=/dev/null count=1"),
        (
            "a user name space, where the kernel is wide",
            "unshare -U true",
        ),
        ("the same with all the others", "unshare -Urmpf true"),
        ("sys, for writing", "echo 1 > /sys/kernel/mm/ksm/run"),
        ("memory of the host", "dd if=/dev/mem of=/dev/null count=1"),
    ] {
        let (code, said) = world.tried("100", command);
        assert_ne!(code, 0, "{what}: {said}");
    }
    assert_eq!(
        world
            .shell("100", "ls /proc | grep -c '^[0-9]'")
            .trim()
            .parse::<u32>()
            .map(|n| n < 12),
        Ok(true)
    );
    let first = std::fs::metadata(world.directory("100").join("rootfs"))
        .unwrap()
        .uid();
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.pid("100"))).unwrap();
    assert!(status.contains(&format!("Uid:\t{first}\t")), "{status}");
    assert!(
        world
            .shell("100", "cat /proc/self/status")
            .contains("NoNewPrivs:\t0"),
        "sudo works inside"
    );
    assert!(
        world
            .shell("100", "su user -s /bin/sh -c id")
            .contains("uid=1000")
    );
    // With the feature, and only then, it may make containers of its own.
    world.ok(&["stop", "100"]);
    world.ok(&["set", "100", "--features", "nesting=1"]);
    world.ok(&["start", "100"]);
    assert_eq!(world.tried("100", "unshare -U true").0, 0);
}

#[test]
fn a_program_inside_finds_nothing_of_the_hosts_open_and_no_terminal() {
    let Some(world) = World::new() else { return };
    world.container("100", &[]);
    world.ok(&["start", "100"]);
    // CVE-2024-21626: a directory of the host left open, or as the working directory. The service of these tests inherits one.
    let listed = world.shell(
        "100",
        "readlink /proc/self/cwd; for f in /proc/self/fd/*; do readlink $f; done; umask; true",
    );
    let mut lines = listed.lines();
    assert_eq!(lines.next(), Some("/"));
    assert_eq!(listed.lines().last(), Some("0022"));
    for line in lines.filter(|line| *line != "0022") {
        assert!(
            line.starts_with("pipe:") || line.starts_with("/proc/"),
            "{line} in {listed}"
        );
    }
    let init = world.shell("100", "for f in /proc/1/fd/*; do readlink $f; done; true");
    for line in init.lines() {
        assert!(
            line.starts_with("/dev/") || line.starts_with("pipe:") || line.starts_with("socket:"),
            "{line}"
        );
    }
    // CVE-2016-10124: words put into the terminal of whoever looks in.
    let script = exec::find("script", "bsdutils")
        .unwrap()
        .display()
        .to_string();
    let pct = env!("CARGO_BIN_EXE_blockhost-pct");
    let command = format!(
        "{pct} exec 100 -- /bin/sh -c 'if [ -t 0 ] || [ -t 1 ] || [ -t 2 ]; then echo TERMINAL; else echo NONE; fi'"
    );
    let seen = world.inside(&script, &["-qec", &command, "/dev/null"]);
    assert!(
        seen.output.contains("NONE"),
        "{} {}",
        seen.output,
        seen.errors
    );
}

#[test]
fn a_container_cannot_write_to_the_program_that_enters_it() {
    // CVE-2019-5736.
    let Some(world) = World::new() else { return };
    world.container("100", &[]);
    world.ok(&["start", "100"]);
    let program = exec::find("lxc-attach", "lxc").unwrap();
    let before = std::fs::read(&program).unwrap();
    world.shell(
        "100",
        "ln -s /proc/self/exe /evil
        (while :; do for e in /proc/[0-9]*/exe; do case $(readlink $e) in *lxc*) echo seen >/var/seen; (echo x >>$e) 2>/dev/null && echo won >/var/won;; esac; done; done) >/dev/null 2>&1 </dev/null &",
    );
    for _ in 0..20 {
        world.pct(&["exec", "100", "--", "/evil", "-n", "x", "--", "/bin/true"]);
    }
    assert_eq!(world.tried("100", "[ -e /var/won ]").0, 1);
    assert!(
        std::fs::read(&program).unwrap() == before,
        "the host's program was changed"
    );
}

#[test]
fn links_that_a_container_makes_lead_into_the_container_when_the_host_writes_there() {
    let Some(world) = World::new() else { return };
    world.container(
        "100",
        &["--nameserver", "10.9.0.1", "--timezone", "Europe/Berlin"],
    );
    let outside = world.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::set_permissions(&outside, PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(outside.join("resolv.conf"), "precious").unwrap();
    std::fs::set_permissions(
        outside.join("resolv.conf"),
        PermissionsExt::from_mode(0o666),
    )
    .unwrap();
    let place = outside.display();
    world.ok(&["start", "100"]);
    assert_eq!(
        world.shell("100", "readlink /etc/localtime").trim(),
        "/usr/share/zoneinfo/Europe/Berlin"
    );
    world.shell(
        "100",
        &format!("rm -f /etc/resolv.conf && ln -s {place}/resolv.conf /etc/resolv.conf"),
    );
    world.ok(&["stop", "100"]);
    world.ok(&["start", "100"]);
    assert_eq!(
        world.shell("100", "cat /etc/resolv.conf"),
        "nameserver 10.9.0.1\n"
    );
    world.shell("100", &format!("cp -r /etc /etc2; rm -rf /etc; mkdir -p {place}; ln -s ../../../../../../../../../..{place} /etc; cp -r /etc2/* {place}/"));
    world.ok(&["stop", "100"]);
    world.ok(&["start", "100"]);
    assert_eq!(
        std::fs::read_to_string(outside.join("resolv.conf")).unwrap(),
        "precious"
    );
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    // And when the service takes it away.
    world.shell(
        "100",
        &format!("ln -s {place} /var/out; ln {place}/x /var/y 2>/dev/null; true"),
    );
    world.ok(&["stop", "100"]);
    world.ok(&["destroy", "100"]);
    assert!(outside.join("resolv.conf").exists());
}

#[test]
fn a_tree_too_deep_to_be_walked_by_names_is_still_removed() {
    let Some(world) = World::new() else { return };
    world.container("100", &[]);
    world.ok(&["start", "100"]);
    // Wrapped from outside: no name of it is ever spoken whole.
    world.shell(
        "100",
        "cd /var; n=$(head -c 100 /dev/zero | tr '\\0' d); mkdir $n; i=0
        while [ $i -lt 1500 ]; do mkdir x && mv $n x && mv x $n || exit 1; i=$((i+1)); done; chmod 0 $n",
    );
    world.ok(&["stop", "100"]);
    world.ok(&["destroy", "100"]);
    assert!(!world.directory("100").exists());
}

#[test]
fn whoever_else_listens_where_the_service_should_is_told_nothing() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.container("100", &[]);
    world.end_service();
    let path = world.path("run/blockhost-ct/keeper.sock");
    std::fs::remove_file(&path).unwrap();
    let listener = Line::listen(&path).unwrap();
    let said = world.fails(7, &["status", "100"]);
    assert!(
        said.contains("runs as uid 0 and not as 'blockhost-ct'"),
        "{said}"
    );
    let line = Line::new(rustix::net::accept(&listener).unwrap());
    assert!(line.receive::<Ask>().is_err(), "it was asked something");
    drop(listener);
    world.serve();
    assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
    // The service itself hears nobody but root, wherever they connect from.
    let door = std::fs::metadata(world.path("run/blockhost-ct")).unwrap();
    assert_eq!(door.mode() & 0o7777, 0o700);
    let link = world.path("var/lib/blockhost/pct/100.conf");
    let kept = world.path("kept.conf");
    std::fs::rename(&link, &kept).unwrap();
    symlink(&kept, &link).unwrap();
    world.fails(1, &["config", "100"]);
    std::fs::remove_file(&link).unwrap();
    std::fs::rename(&kept, &link).unwrap();
}

#[test]
fn a_container_that_restarts_itself_has_ended() {
    let Some(world) = World::new() else { return };
    world.container("100", &["--net0", "name=eth0,bridge=vmbr0,ip=10.9.0.5/24"]);
    world.ok(&["start", "100"]);
    world.tried("100", "reboot -f");
    until("it ends", || {
        world.ok(&["status", "100"]) == "status: stopped\n"
    });
    world.ok(&["start", "100"]);
    assert!(world.answers("10.9.0.5"));
}

#[test]
fn what_a_container_that_restarts_itself_has_run_outside_is_the_installed_program_whoever_has_which_number()
 {
    let Some(mut world) = World::new() else {
        return;
    };
    world.container("100", &[]);
    let (bin, program) = (world.path("bin"), world.path("bin/blockhost-containers"));
    std::fs::set_permissions(&bin, PermissionsExt::from_mode(0o777)).unwrap();
    let said = world.fails(7, &["start", "100"]);
    assert!(said.contains("may be written by others"), "{said}");
    std::fs::set_permissions(&bin, PermissionsExt::from_mode(0o755)).unwrap();
    world.ok(&["start", "100"]);
    let config = std::fs::read_to_string(world.directory("100").join("config")).unwrap();
    let line = format!("lxc.hook.start-host = {} hook\n", program.display());
    assert!(config.contains(&line), "{config}");
    // The service is gone, and its number free for anybody: what the monitor then runs says its name here.
    world.shell(
        "100",
        "(while [ ! -e /var/go ]; do sleep 0.1; done; reboot -f) >/dev/null 2>&1 </dev/null &",
    );
    world.end_service();
    let (kept, seen) = (world.path("bin/kept"), world.path("run/blockhost-ct/seen"));
    std::fs::rename(&program, &kept).unwrap();
    let script = format!("#!/bin/sh\necho \"$0 $1\" >>{}\nexit 1\n", seen.display());
    world.script("bin/blockhost-containers", &script);
    std::fs::write(world.directory("100").join("rootfs/var/go"), "").unwrap();
    until("the hook of the installed program is run", || {
        std::fs::read_to_string(&seen).is_ok_and(|text| text.ends_with('\n'))
    });
    assert_eq!(
        std::fs::read_to_string(&seen).unwrap(),
        format!("{} hook\n", program.display())
    );
    std::fs::rename(&kept, &program).unwrap();
    world.serve();
    until("it ends", || {
        world.ok(&["status", "100"]) == "status: stopped\n"
    });
    // And with a service that was restarted: it knows of no such start.
    world.ok(&["start", "100"]);
    world.end_service();
    world.serve();
    world.tried("100", "reboot -f");
    until("it ends again", || {
        world.ok(&["status", "100"]) == "status: stopped\n"
    });
}

#[test]
fn a_change_that_cannot_be_told_of_is_not_stored() {
    let Some(mut world) = World::new() else {
        return;
    };
    world.container("100", &["--memory", "256"]);
    world.end_service();
    let change = ["set", "100", "--memory", "300"];
    world.fails(7, &change);
    assert!(world.ok(&["config", "100"]).contains("memory: 256\n"));
    world.serve();
    world.ok(&change);
    assert!(world.ok(&["config", "100"]).contains("memory: 300\n"));
}

#[test]
fn who_asks_while_too_many_are_served_is_told_so() {
    let Some(world) = World::new() else { return };
    world.container("100", &[]);
    let socket = world.path("run/blockhost-ct/keeper.sock");
    let idle: Vec<Line> = (0..128).map(|_| Line::connect(&socket).unwrap()).collect();
    let said = world.fails(1, &["status", "100"]);
    assert!(said.contains("128 requests"), "{said}");
    drop(idle);
    until("they are forgotten", || {
        world.pct(&["status", "100"]).status.success()
    });
    let said = world.pct(&["shutdown", "100", "--timeout", "86401"]);
    assert!(
        !said.status.success() && said.errors.contains("86400"),
        "{}",
        said.errors
    );
}

#[test]
fn the_service_refuses_to_run_with_privileges() {
    let Some(world) = World::new() else { return };
    let program = world.path("bin/blockhost-containers").display().to_string();
    let done = world.inside(&program, &["run"]);
    assert!(
        !done.status.success() && done.errors.contains("needs no privileges"),
        "{}",
        done.errors
    );
}
