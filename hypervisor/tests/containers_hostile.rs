//! What archives, containers and accidents may not do. The names of past holes of other container managers stand at the test
//! that tries them here (docs/cve.md).

mod container_world;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, Instant};

use blockhost_hypervisor::exec::{self, Run};
use blockhost_hypervisor::keeper::wire::{Ask, Line};
use container_world::{Archive, NEW, World};
use tar::EntryType;

/// Waits for something that has to happen.
fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(180);
    while !happened() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn create<'a>(vmid: &'a str, template: &'a str) -> Vec<&'a str> {
    ["create", vmid, template].into_iter().chain(NEW).collect()
}

#[test]
fn no_archive_reaches_anything_outside_of_its_root_file_system() {
    let Some(world) = World::new() else { return };
    let outside = world.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::set_permissions(&outside, PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(outside.join("precious"), "x").unwrap();
    std::fs::set_permissions(outside.join("precious"), PermissionsExt::from_mode(0o666)).unwrap();
    let place = outside.display().to_string();
    let into = |name: &str| format!("{place}/{name}");
    type Fill = Box<dyn FnOnce(&mut Archive)>;
    let up = "../".repeat(12);
    let (link_out, hard, deep) = (
        place.clone(),
        into("precious"),
        format!("{up}{}", &into("precious")[1..]),
    );
    let cases: Vec<(&str, Fill)> = vec![
        (
            "a name that goes up",
            Box::new(|a| a.raw(EntryType::Regular, "../../evil", "", b"x")),
        ),
        (
            "a name that goes up in the middle",
            Box::new(|a| a.raw(EntryType::Regular, "a/../../../evil", "", b"x")),
        ),
        (
            "a directory that goes up",
            Box::new(|a| a.raw(EntryType::Directory, "../", "", b"")),
        ),
        (
            "a file through a link",
            Box::new(move |a| {
                a.raw(EntryType::Symlink, "out", &link_out, b"");
                a.raw(EntryType::Regular, "out/precious", "", b"evil");
            }),
        ),
        (
            "a hard link to a file of the host",
            Box::new(move |a| {
                a.raw(EntryType::Link, "hard", &hard, b"");
                a.raw(EntryType::Regular, "hard", "", b"evil");
            }),
        ),
        (
            "a hard link that goes up",
            Box::new(move |a| a.raw(EntryType::Link, "hard", &deep, b"")),
        ),
        (
            "somebody's id that is none here",
            Box::new(|a| a.owned("a", 0o644, 70_000, b"x")),
        ),
        (
            "an unknown kind",
            Box::new(|a| a.raw(EntryType::new(b'Z'), "a", "", b"")),
        ),
        (
            "a root that is a file",
            Box::new(|a| a.raw(EntryType::Regular, "./", "", b"x")),
        ),
        (
            "a link to nothing",
            Box::new(|a| a.raw(EntryType::Symlink, "a", "", b"")),
        ),
        ("nothing", Box::new(|_| {})),
    ];
    for (what, fill) in cases {
        let template = world.archive("evil.tar", fill);
        let said = world.fails(1, &create("100", &template));
        assert!(
            !said.is_empty() && !world.directory("100").exists(),
            "{what}: {said}"
        );
        assert_eq!(
            std::fs::read_to_string(outside.join("precious")).unwrap(),
            "x",
            "{what}"
        );
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "{what}");
        world.fails(2, &["config", "100"]);
    }
    for (name, bytes) in [
        ("noise.tar", vec![0x5au8; 4096]),
        ("empty.tar", Vec::new()),
        ("noise.tar.gz", vec![1; 99]),
    ] {
        let path = world.path(name);
        std::fs::write(&path, bytes).unwrap();
        let path = path.display().to_string();
        world.fails(1, &create("100", &path));
        assert!(!world.directory("100").exists());
    }
}

#[test]
fn an_archives_devices_are_left_out_and_its_programs_belong_to_ids_of_the_container() {
    let Some(world) = World::new() else { return };
    let template = world.archive("odd.tar", |archive| {
        archive.system();
        for (kind, name) in [
            (EntryType::Block, "dev/sda"),
            (EntryType::Char, "dev/mem"),
            (EntryType::Fifo, "run/fifo"),
        ] {
            archive.raw(kind, name, "", b"");
        }
        archive.owned("bin/setuid", 0o4755, 0, b"x");
        archive.owned("home/file", 0o644, 1000, b"x");
        archive.link("abs", "/etc/passwd");
    });
    let said = world.ok(&create("100", &template));
    assert!(
        said.contains("2 device nodes of the archive were left out"),
        "{said}"
    );
    let root = world.directory("100").join("rootfs");
    let first = std::fs::metadata(&root).unwrap().uid();
    for name in ["dev/sda", "dev/mem"] {
        assert!(!root.join(name).exists(), "{name}");
    }
    let setuid = std::fs::metadata(root.join("bin/setuid")).unwrap();
    assert_eq!((setuid.uid(), setuid.mode() & 0o7777), (first, 0o4755));
    assert_eq!(
        std::fs::metadata(root.join("home/file")).unwrap().uid(),
        first + 1000
    );
    // A setuid program of the container's is out of reach for the users of the host.
    let path = root.join("bin/setuid").display().to_string();
    let nobody = world.inside(
        "setpriv",
        &[
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "cat",
            &path,
        ],
    );
    assert!(
        !nobody.status.success(),
        "nobody passes the container's door"
    );
}

#[test]
fn no_archive_unpacks_to_more_than_its_root_file_system_may_have() {
    let Some(world) = World::new() else { return };
    let refused = |path: &str| {
        let said = world.fails(1, &create("100", path));
        assert!(said.contains("more than the 1024 MiB"), "{said}");
        assert!(!world.directory("100").exists());
    };
    // A hole of 3 GiB, as GNU tar writes it: some bytes of archive.
    let hole = world.path("hole");
    std::fs::File::create(&hole)
        .unwrap()
        .set_len(3 << 30)
        .unwrap();
    let sparse = world.path("sparse.tar").display().to_string();
    let tar = exec::find("tar", "tar").unwrap();
    Run::new(
        &tar,
        [
            "-cSf",
            &sparse,
            "-C",
            &world.path("").display().to_string(),
            "hole",
        ],
    )
    .output()
    .unwrap();
    assert!(std::fs::metadata(&sparse).unwrap().len() < 100_000);
    refused(&sparse);
    // The same size said and not there.
    let said = world.archive("said.tar", |archive| {
        let mut header = tar::Header::new_gnu();
        header.set_path("big").unwrap();
        header.set_size(2 << 30);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        archive.0.append(&header, &b""[..]).unwrap();
    });
    refused(&said);
    // What expands: zeros behind the end, packed a thousand to one.
    let template = world.archive("long.tar", |archive| archive.system());
    let plain = world.path("var/lib/blockhost/pct-storage/local/template/cache/long.tar");
    let mut file = std::fs::File::options().append(true).open(&plain).unwrap();
    std::io::copy(
        &mut std::io::Read::take(std::io::repeat(0), 40 << 20),
        &mut file,
    )
    .unwrap();
    let said = world.fails(1, &create("100", &template));
    assert!(said.contains("something else follows"), "{said}");
}

#[test]
fn a_creation_that_is_killed_leaves_nothing_that_the_next_one_minds() {
    let Some(mut world) = World::new() else {
        return;
    };
    let template = world.template();
    let large = world.archive("large.tar", |archive| {
        archive.system();
        let part = vec![7u8; 64 << 10];
        for number in 0..8000 {
            archive.file(&format!("var/{number}"), &part);
        }
    });
    let begun = |world: &World| world.directory("100").join("rootfs/var/10").exists();
    // The command: the service takes away what nobody waits for.
    let mut command = world.pct_command(&create("100", &large)).spawn().unwrap();
    until("it begins", || begun(&world));
    // nsenter becomes the command: one process.
    command.kill().unwrap();
    command.wait().unwrap();
    until("what was begun is removed", || {
        !world.directory("100").exists()
    });
    world.fails(2, &["config", "100"]);
    // The service: the next command finds what it left.
    let mut command = world.pct_command(&create("100", &large)).spawn().unwrap();
    until("it begins", || begun(&world));
    world.end_service();
    command.wait().unwrap();
    assert!(world.directory("100").exists());
    world.serve();
    world.fails(2, &["destroy", "100"]);
    assert!(
        !world.directory("100").exists(),
        "destroy takes it away, too"
    );
    let mut command = world.pct_command(&create("100", &large)).spawn().unwrap();
    until("it begins", || begun(&world));
    world.end_service();
    command.wait().unwrap();
    world.serve();
    world.ok(&create("100", &template));
    assert!(
        !world.directory("100").join("rootfs/var/10").exists(),
        "nothing of the first is in the second"
    );
    world.ok(&["start", "100"]);
}

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
