//! Containers whose monitor is gone, or in whose monitor's place somebody else listens: nothing of them is forgotten, and
//! nobody else gets what they have.

mod container_world;

use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use blockhost_hypervisor::exec::{self, Run};
use container_world::{NEW, World, until};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A first process that does not end with whoever started it, and a second one under another id whose first thread has
/// ended.
const LOOSE: &str = r#"
#include <pthread.h>
#include <sys/prctl.h>
#include <unistd.h>
static void *stay(void *x) { for (;;) pause(); return x; }
int main(void) {
    prctl(PR_SET_PDEATHSIG, 0);
    if (fork() == 0) {
        pthread_t thread;
        setsid();
        if (setuid(1000) != 0) return 1;
        pthread_create(&thread, 0, stay, 0);
        pthread_exit(0);
    }
    for (;;) pause();
}
"#;

fn loose(world: &World) -> Option<Vec<u8>> {
    let compiler = match exec::find("gcc", "gcc") {
        Ok(compiler) => compiler,
        Err(e) => {
            eprintln!("skipped: {e}");
            return None;
        }
    };
    let (source, program) = (world.path("loose.c"), world.path("loose"));
    std::fs::write(&source, LOOSE).unwrap();
    let words = ["-static", "-pthread", "-o"].map(str::to_owned);
    let paths = [program.display().to_string(), source.display().to_string()];
    Run::new(compiler, words.into_iter().chain(paths))
        .output()
        .unwrap();
    Some(std::fs::read(program).unwrap())
}

/// Pids of everything whose ids are a container's.
fn of_ids(first: u32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let path: PathBuf = entry.path();
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let text = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let uid = text.lines().find_map(|line| line.strip_prefix("Uid:\t"));
        let uid = uid.and_then(|line| line.split('\t').next()?.parse::<u32>().ok());
        let ended = text.contains("State:\tZ") && text.contains("Threads:\t1\n");
        if !ended && uid.is_some_and(|uid| (first..first + 65_536).contains(&uid)) {
            found.push(pid);
        }
    }
    found
}

fn parent(pid: &str) -> i32 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("PPid:\t"));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_container_that_outlives_its_monitor_runs_until_it_is_stopped_and_keeps_its_ids_until_then() {
    let Some(world) = World::new() else { return };
    let Some(program) = loose(&world) else { return };
    let template = world.archive("loose.tar", |archive| {
        archive.system();
        archive.file("sbin/init", &program);
    });
    let create: Vec<&str> = ["create", "100", &template]
        .into_iter()
        .chain(NEW)
        .collect();
    world.ok(&create);
    world.ok(&["start", "100"]);
    let first = std::fs::metadata(world.directory("100").join("rootfs"))
        .unwrap()
        .uid();
    until("both processes", || of_ids(first).len() == 2);
    let (pid, monitor) = (world.pid("100"), parent(&world.pid("100")));
    assert!(
        std::fs::read_to_string(format!("/proc/{monitor}/cmdline"))
            .unwrap()
            .contains("lxc monitor")
    );
    kill_process(Pid::from_raw(monitor).unwrap(), Signal::KILL).unwrap();
    until("its monitor ends", || parent(&pid) != monitor);
    assert_eq!(of_ids(first).len(), 2, "it goes on");

    assert_eq!(world.ok(&["status", "100"]), "status: running\n");
    let said = world.ok(&["status", "100", "--verbose", "1"]);
    assert!(
        said.contains("left over") && said.contains(&format!("pid: {pid}\n")),
        "{said}"
    );
    assert!(world.ok(&["list"]).contains("running"));
    for words in [
        &["start", "100"][..],
        &["destroy", "100"],
        &["shutdown", "100"],
    ] {
        let said = world.pct(words);
        assert!(!said.status.success(), "{words:?}");
    }
    let said = world.fails(3, &["exec", "100", "--", "/bin/true"]);
    assert!(said.contains("left over"), "{said}");
    assert_eq!(of_ids(first).len(), 2, "nothing of that has ended it");
    world.container("101", &[]);
    let other = std::fs::metadata(world.directory("101").join("rootfs"));
    assert_ne!(other.unwrap().uid(), first, "its ids are still its own");

    world.ok(&["stop", "100"]);
    assert_eq!(of_ids(first), [0i32; 0], "nothing is left");
    assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
    world.ok(&["start", "100"]);
    world.ok(&["stop", "100"]);
    world.ok(&["destroy", "100"]);
    world.container("100", &[]);
    let again = std::fs::metadata(world.directory("100").join("rootfs"));
    assert_eq!(again.unwrap().uid(), first);
}

#[test]
fn what_decompresses_an_archive_has_no_network_nothing_of_the_services_open_and_no_way_to_privileges()
 {
    let Some(world) = World::new() else { return };
    world.template();
    let plain = world.path("var/lib/blockhost/pct-storage/local/template/cache/base.tar");
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).unwrap();
    let packed = container_world::packed("bzip2", &plain);
    let path = world.path("var/lib/blockhost/pct-storage/local/template/cache/base.tar.bz2");
    std::fs::write(path, packed).unwrap();
    // In its place a program that looks around, and unpacks all the same.
    let real = world.path("bin/real");
    container_world::install(&exec::find("bzip2", "bzip2").unwrap(), &real).unwrap();
    let script = format!(
        "#!/bin/sh\n\
         {} -dc || exit 40\n\
         ! grep -q ' *vmbr0:' /proc/self/net/dev || exit 41\n\
         grep -q 'NoNewPrivs:.1' /proc/self/status || exit 42\n\
         for f in /proc/$$/fd/*; do [ ! -d \"$f\" ] || exit 43; done\n",
        real.display()
    );
    let look = world.path("bin/look");
    world.script("bin/look", &script);
    let bzip2 = exec::find("bzip2", "bzip2").unwrap().display().to_string();
    let mounted = world.inside("mount", &["--bind", &look.display().to_string(), &bzip2]);
    assert!(mounted.status.success(), "{}", mounted.errors);
    let create: Vec<&str> = ["create", "100", "local:vztmpl/base.tar.bz2"]
        .into_iter()
        .chain(NEW)
        .collect();
    world.ok(&create);
}

/// Listens at an abstract socket in the world's network, as soon as that is free; with no place for anybody to wait.
fn take(world: &World, name: String) -> Vec<std::os::fd::OwnedFd> {
    let net = std::fs::File::open(world.network()).unwrap();
    std::thread::spawn(move || {
        move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let end = Instant::now() + Duration::from_secs(120);
        let listener = loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => break listener,
                Err(e) => assert!(Instant::now() < end, "{e}"),
            }
        };
        vec![listener.into()]
    })
    .join()
    .unwrap()
}

#[test]
fn whoever_takes_the_name_of_a_monitor_keeps_nobody_from_anything() {
    let Some(world) = World::new() else { return };
    world.container("100", &[]);
    world.container("101", &[]);
    world.ok(&["start", "100"]);
    world.ok(&["start", "101"]);
    let name_but = |other: &str| {
        let sockets = world.inside("cat", &["/proc/net/unix"]).output;
        let found = sockets
            .lines()
            .filter_map(|line| line.split('@').nth(1))
            .find(|name| name.ends_with("/100/command") && *name != other);
        found
            .unwrap_or_else(|| panic!("no monitor listens: {sockets}"))
            .to_owned()
    };
    let first = name_but("");
    world.ok(&["stop", "100"]);
    let taken = take(&world, first.clone());
    // It had that name; no other one is known before it is taken.
    assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
    world.ok(&["start", "100"]);
    // Beside the one that was taken there is another.
    let second = name_but(&first);

    // Its monitor is killed, and another user's process listens in its place.
    let pid = world.pid("100");
    kill_process(Pid::from_raw(parent(&pid)).unwrap(), Signal::KILL).unwrap();
    let again = take(&world, second);
    let begin = Instant::now();
    let list = world.ok(&["list"]);
    let word = |vmid: &str| {
        let line = list.lines().find(|line| line.starts_with(vmid));
        line.and_then(|line| line.split_ascii_whitespace().nth(1))
            .map(str::to_owned)
    };
    // Its first process ends with whoever started it, at some moment.
    assert_ne!(word("100").as_deref(), Some("unknown"), "{list}");
    assert_eq!(word("101").as_deref(), Some("running"), "{list}");
    assert!(
        begin.elapsed() < Duration::from_secs(60),
        "nobody is waited for"
    );
    until("it has ended", || {
        world.ok(&["stop", "100"]);
        world.ok(&["status", "100"]) == "status: stopped\n"
    });
    world.ok(&["start", "100"]);
    world.ok(&["stop", "100"]);
    world.ok(&["destroy", "100"]);
    drop((taken, again));
}
