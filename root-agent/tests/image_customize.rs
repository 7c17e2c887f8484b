//! virt-customize for real: a confined agent, a real image, libguestfs's own virtual machine. What each operation leaves in the
//! image, what it runs with, and what is there after kill -9.

mod common;
mod image_world;

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Agent, BLOCKHOST, Client, IMAGE, World, signal_process, wait_for};
use image_world::Inside;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Translated on a busy machine, with everything that is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

/// An agent whose world holds `images/debian.qcow2`; `None`, with the reason printed, where that cannot be.
fn agent(test: &str) -> Option<Agent> {
    if let Some(why) = image_world::missing() {
        println!("skipped: {test}: {why}");
        return None;
    }
    let agent = Agent::start_in(World::with_qm("exit 0", ""));
    image_world::make(&image(&agent), BLOCKHOST);
    Some(agent)
}

fn image(agent: &Agent) -> PathBuf {
    agent.world.layout.images().join("debian.qcow2")
}

/// A file in the image directory, as the services put one there.
fn put(agent: &Agent, name: &str, content: &str, mode: u32) {
    let path = agent.world.layout.images().join(name);
    let parent = path.parent().expect("a parent");
    std::fs::create_dir_all(parent).expect("a directory");
    std::fs::write(&path, content).expect("a file");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
    for path in [&path, parent] {
        if path != agent.world.layout.images() {
            chown(path, Some(BLOCKHOST), Some(BLOCKHOST)).expect("an owner");
        }
    }
}

fn patient(agent: &Agent) -> Client {
    let client = agent.client();
    let timeout = client.stream.set_read_timeout(Some(PATIENCE));
    timeout.expect("a timeout");
    client
}

fn request(commands: &Value) -> Value {
    json!({"action": "virt-customize", "params": {"image_path": "debian.qcow2", "commands": commands}})
}

/// The processes of the image user below the image compartment: pid and program.
fn helpers(agent: &Agent) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    let mut parents: Vec<i32> = agent.pid("image").into_iter().collect();
    while let Some(parent) = parents.pop() {
        let tasks = std::fs::read_dir(format!("/proc/{parent}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            for pid in children
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
            {
                found.push((pid, program(pid)));
                parents.push(pid);
            }
        }
    }
    found
}

/// What a process was started as, or nothing when it is gone.
fn program(pid: i32) -> String {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let name = line.split('\0').next().unwrap_or_default();
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

fn wait_for_qemu(agent: &Agent) -> Vec<(i32, String)> {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let found = helpers(agent);
        if found
            .iter()
            .any(|(_, name)| name.starts_with("qemu-system"))
        {
            return found;
        }
        assert!(std::time::Instant::now() < until, "no QEMU appeared");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn work_entries(agent: &Agent) -> Vec<String> {
    std::fs::read_dir(agent.world.layout.image_work())
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("text"))
        .collect()
}

#[test]
fn every_operation_has_its_effect_in_the_image_and_runs_without_any_capability() {
    let Some(agent) = agent("every operation") else {
        return;
    };
    put(&agent, "site/index.html", "<p>\n", 0o644);
    put(&agent, "site/deep/er", "x", 0o755);
    let deep = agent.world.layout.images().join("site");
    chown(deep, Some(BLOCKHOST), Some(BLOCKHOST)).expect("an owner");
    put(&agent, "motd", "uploaded\n", 0o640);
    // What the services write there is the group's to read: the directory is set-group-id.
    let motd = agent.world.layout.images().join("motd");
    chown(motd, None, Some(IMAGE)).expect("a group");
    put(
        &agent,
        "script",
        "#!/bin/sh\necho scripted >/etc/scripted\n",
        0o755,
    );
    let commands = json!([
        ["install", "bhtest"],
        [
            "--run-command",
            "echo \"$(id -u)\" 'a;b' >/etc/ran; echo --upload >>/etc/ran"
        ],
        ["copy-in", "site:/srv"],
        ["upload", "motd:/etc/uploaded"],
        ["--chmod", "4711:/etc/uploaded"],
        ["mkdir", "/srv/one/two"],
        ["write", "/etc/written:a:b,c=d\n--delete /etc/hosts\n"],
        ["append-line", "/etc/hosts:::1 six # \\"],
        ["firstboot-command", "touch /first"],
        ["run", "script"],
        ["delete", "/etc/remove-me"],
    ]);
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                for (pid, name) in helpers(&agent) {
                    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
                        continue;
                    };
                    let field = |key: &str| {
                        let line = text.lines().find_map(|line| line.strip_prefix(key));
                        line.unwrap_or_default()
                            .split_whitespace()
                            .next()
                            .map(str::to_owned)
                    };
                    // Gone between the two looks: no memory, no fields.
                    if field("VmSize:").is_none() {
                        continue;
                    }
                    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
                        let value = field(set).expect("a set");
                        assert_eq!(
                            u64::from_str_radix(&value, 16),
                            Ok(0),
                            "{name} {set} {value}"
                        );
                    }
                    assert_eq!(field("NoNewPrivs:").as_deref(), Some("1"), "{name}");
                    assert_eq!(field("Seccomp:").as_deref(), Some("2"), "{name}");
                    assert_eq!(field("Uid:"), Some(IMAGE.to_string()), "{name}");
                    assert_eq!(field("Gid:"), Some(IMAGE.to_string()), "{name}");
                    assert_eq!(field("Groups:"), None, "{name}");
                    seen.insert(name);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            seen
        });
        let answer = patient(&agent).call(&request(&commands));
        done.store(true, Ordering::Relaxed);
        assert_eq!(answer["ok"], true, "{answer}\n{}", agent.world.log());
        assert_eq!(answer["format"], "qcow2");
        watcher.join().expect("no process had more than it should")
    });
    let has = |start: &str| seen.iter().any(|name| name.starts_with(start));
    assert!(has("qemu-system") && has("virt-customize"), "{seen:?}");

    let inside = Inside::of(&image(&agent));
    assert_eq!(inside.read("/usr/share/bhtest/marker"), "installed\n");
    assert_eq!(inside.read("/etc/ran"), "0 a;b\n--upload\n");
    assert_eq!(inside.read("/srv/site/index.html"), "<p>\n");
    for path in ["/srv/site", "/srv/site/index.html", "/srv/site/deep/er"] {
        let (_, uid, gid) = inside.stat(path).expect(path);
        assert_eq!((uid, gid), (0, 0), "{path}");
    }
    assert_eq!(inside.read("/etc/uploaded"), "uploaded\n");
    assert_eq!(inside.stat("/etc/uploaded"), Some((0o4711, 0, 0)));
    assert!(inside.list("/srv/one").contains(&"two".to_owned()));
    assert_eq!(
        inside.read("/etc/written"),
        "a:b,c=d\n--delete /etc/hosts\n"
    );
    assert_eq!(
        inside.read("/etc/hosts"),
        "127.0.0.1 localhost\n::1 six # \\\n"
    );
    assert_eq!(inside.read("/etc/scripted"), "scripted\n");
    assert_eq!(inside.stat("/etc/remove-me"), None);
    let scripts = inside.list("/usr/lib/virt-sysprep/scripts");
    assert!(
        scripts.iter().any(|name| name.contains("touch")),
        "{scripts:?}"
    );
    assert!(
        !inside
            .list("/tmp")
            .iter()
            .any(|name| name.ends_with(".log"))
    );

    // What came out of it is good for the next step, and nothing is left over.
    let metadata = std::fs::metadata(image(&agent)).expect("an image");
    assert_eq!(
        (metadata.uid(), metadata.mode() & 0o7777),
        (IMAGE, 0o664),
        "readable as before, and the services' through the group"
    );
    let entries = work_entries(&agent);
    assert!(
        matches!(&entries[..], [one] if one.starts_with("appliance-")),
        "{entries:?}"
    );
    let import = json!({"action": "qm-importdisk", "params": {"vmid": 100, "disk_path": "debian.qcow2", "storage": "local"}});
    let answer = agent.client().call(&import);
    assert_eq!(answer["ok"], true, "{answer}");

    // A failing operation leaves the image alone, whatever went before it.
    let before = std::fs::read(image(&agent)).expect("an image");
    let commands = json!([["write", "/etc/half:x"], ["run-command", "exit 3"]]);
    let answer = patient(&agent).call(&request(&commands));
    assert_eq!(answer["code"], "failed", "{answer}");
    let error = answer["error"].as_str().expect("a sentence");
    assert!(
        error.contains("is as it was") && error.contains("exit 3"),
        "{error}"
    );
    assert!(std::fs::read(image(&agent)).expect("an image") == before);
}

#[test]
fn killed_in_the_middle_the_old_image_is_there_and_nothing_runs_on() {
    let Some(agent) = agent("kill -9") else {
        return;
    };
    let before = std::fs::read(image(&agent)).expect("an image");
    let commands = json!([["write", "/etc/one:x"], ["run-command", "sleep 1000"]]);
    let mut client = patient(&agent);
    client.request(&request(&commands));
    let running = wait_for_qemu(&agent);
    let old = agent.pid("image").expect("image");
    signal_process(old, Signal::KILL);
    let answer = client.answer().expect("an answer");
    assert_eq!(answer["code"], "internal", "{answer}");
    agent.wait_for_new("image", old);
    wait_for(|| {
        let left = running
            .iter()
            .filter(|(pid, name)| !name.is_empty() && program(*pid) == *name);
        (left.count() == 0).then_some(())
    });
    assert!(std::fs::read(image(&agent)).expect("an image") == before);
    let names = std::fs::read_dir(agent.world.layout.images()).expect("listed");
    assert_eq!(
        names.count(),
        1,
        "something was left in the image directory"
    );

    let answer = patient(&agent).call(&request(&json!([["write", "/etc/two:y"]])));
    assert_eq!(answer["ok"], true, "{answer}\n{}", agent.world.log());
    let inside = Inside::of(&image(&agent));
    assert_eq!(
        (inside.read("/etc/two"), inside.stat("/etc/one")),
        ("y".to_owned(), None)
    );
    let entries = work_entries(&agent);
    assert_eq!(entries.len(), 1, "{entries:?}");
}

#[test]
fn images_and_files_that_are_not_what_they_seem_are_refused_before_anything_runs() {
    let Some(agent) = agent("hostile images") else {
        return;
    };
    let images = agent.world.layout.images();
    let own = |name: &str| {
        chown(images.join(name), Some(BLOCKHOST), Some(BLOCKHOST)).expect("an owner");
    };
    let secret = agent.world.layout.root().join("secret");
    std::fs::write(&secret, "secret").expect("written");
    symlink(&secret, images.join("link")).expect("a link");
    symlink(image(&agent), images.join("link.qcow2")).expect("a link");
    symlink("/etc", images.join("etc")).expect("a link");
    std::fs::hard_link(image(&agent), images.join("hard.qcow2")).expect("a link");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        images.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .expect("a fifo");
    put(&agent, "text", "no image", 0o644);
    put(&agent, "everybodys", "x", 0o666);
    put(&agent, "tree/file", "x", 0o644);
    symlink("/etc/passwd", images.join("tree/passwd")).expect("a link");
    std::fs::create_dir(images.join("elsewhere")).expect("a directory");
    own("elsewhere");
    std::fs::create_dir(images.join("theirs")).expect("a directory");
    chown(images.join("theirs"), Some(4711), None).expect("an owner");
    let copy = images.join("copy.qcow2");
    std::fs::copy(image(&agent), &copy).expect("a copy");
    own("copy.qcow2");
    let backing = images.join("backing.qcow2").display().to_string();
    image_world::run(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            "/etc/passwd",
            &backing,
        ],
    );
    own("backing.qcow2");
    let of = |image: &str, commands: Value| {
        let params = json!({"image_path": image, "commands": commands});
        let answer = agent
            .client()
            .call(&json!({"action": "virt-customize", "params": params}));
        assert_eq!(answer["ok"], false, "{image}: {answer}");
        answer
    };
    let nothing = json!([["mkdir", "/srv/x"]]);
    for (image, wanted) in [
        ("link.qcow2", "forbidden"),
        ("etc/passwd", "forbidden"),
        ("hard.qcow2", "forbidden"),
        // Two names now.
        ("debian.qcow2", "forbidden"),
        ("fifo", "forbidden"),
        ("text", "forbidden"),
        ("elsewhere", "forbidden"),
        ("backing.qcow2", "forbidden"),
        ("missing.qcow2", "not_found"),
        ("/etc/passwd", "forbidden"),
    ] {
        let answer = of(image, nothing.clone());
        assert_eq!(answer["code"], wanted, "{image}: {answer}");
    }
    for commands in [
        json!([["upload", "link:/etc/x"]]),
        json!([["upload", "etc/shadow:/etc/x"]]),
        json!([["upload", "fifo:/etc/x"]]),
        json!([["upload", "everybodys:/etc/x"]]),
        json!([["upload", "tree:/etc/x"]]),
        json!([["run", "link"]]),
        json!([["copy-in", "link:/srv"]]),
        json!([["copy-in", "tree:/srv"]]),
        json!([["copy-in", "etc:/srv"]]),
        json!([["copy-in", "theirs:/srv"]]),
    ] {
        let answer = of("copy.qcow2", commands.clone());
        assert_eq!(answer["code"], "forbidden", "{commands}: {answer}");
        let error = answer["error"].as_str().expect("a sentence");
        assert!(!error.contains("root:x"), "{error}");
    }
    let entries = work_entries(&agent);
    assert_eq!(
        entries,
        Vec::<String>::new(),
        "something was started or left"
    );
}

#[test]
fn an_image_that_is_swapped_meanwhile_is_neither_followed_nor_overwritten() {
    let Some(agent) = agent("swapped images") else {
        return;
    };
    let secret = agent.world.layout.root().join("secret");
    std::fs::write(&secret, "secret").expect("written");
    let mut client = patient(&agent);
    client.request(&request(&json!([[
        "run-command",
        "sleep 1; echo x >/etc/new"
    ]])));
    wait_for_qemu(&agent);
    std::fs::rename(image(&agent), agent.world.layout.images().join("old.qcow2")).expect("moved");
    symlink(&secret, image(&agent)).expect("a link");
    let answer = client.answer().expect("an answer");
    assert_eq!(answer["code"], "conflict", "{answer}");
    assert_eq!(std::fs::read_to_string(&secret).expect("there"), "secret");
    let link = std::fs::symlink_metadata(image(&agent)).expect("there");
    assert!(link.is_symlink(), "the link was replaced");
}

#[test]
fn killed_around_the_moment_of_replacing_there_is_a_whole_image_old_or_new() {
    for (point, replaced) in [("image-synced", false), ("image-renamed", true)] {
        if let Some(why) = image_world::missing() {
            println!("skipped: kill -9 at {point}: {why}");
            return;
        }
        let world = World::new("");
        let armed = format!("image stop {point}");
        std::fs::write(world.layout.root().join("fail-point"), armed).expect("armed");
        let agent = Agent::start_in(world);
        image_world::make(&image(&agent), BLOCKHOST);
        let before = std::fs::read(image(&agent)).expect("an image");
        let mut client = patient(&agent);
        client.request(&request(&json!([["write", "/etc/new:whole"]])));
        let reached = format!("fail point {point} reached");
        let until = std::time::Instant::now() + PATIENCE;
        while !agent.world.log().contains(&reached) {
            assert!(std::time::Instant::now() < until, "{}", agent.world.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let old = agent.pid("image").expect("image");
        signal_process(old, Signal::KILL);
        assert_eq!(client.answer().expect("an answer")["code"], "internal");
        agent.wait_for_new("image", old);
        let after = std::fs::read(image(&agent)).expect("an image");
        assert_eq!(after != before, replaced, "{point}");
        let wanted = if replaced { "whole" } else { "" };
        assert_eq!(Inside::of(&image(&agent)).read("/etc/new"), wanted);
    }
}

#[test]
fn what_customises_images_cannot_ask_the_agent_for_anything() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: another user is needed");
        return;
    }
    let agent = Agent::start("");
    let path = agent.world.layout.agent_socket();
    let tried = std::thread::spawn(move || {
        let (uid, gid) = (
            rustix::thread::Uid::from_raw(IMAGE),
            rustix::thread::Gid::from_raw(IMAGE),
        );
        rustix::thread::set_thread_groups(&[]).expect("setgroups");
        rustix::thread::set_thread_res_gid(gid, gid, gid).expect("setgid");
        rustix::thread::set_thread_res_uid(uid, uid, uid).expect("setuid");
        std::os::unix::net::UnixStream::connect(path).map(|_| ())
    });
    let error = tried
        .join()
        .expect("the thread")
        .expect_err("not its socket");
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}
