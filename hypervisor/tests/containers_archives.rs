//! What archives of root file systems may not do, and creations that are killed. The names of past holes of other container
//! managers stand at the test that tries them here (docs/cve.md).

mod container_world;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use blockhost_hypervisor::exec::{self, Run};
use container_world::{Archive, NEW, World, until};
use tar::EntryType;

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
