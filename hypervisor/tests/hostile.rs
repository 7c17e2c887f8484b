//! What must be refused: absent machines, options that reach the host, images that reach outside themselves.

#[expect(dead_code, reason = "each test file uses its part of the world")]
mod common;

use common::World;

#[test]
fn every_command_on_an_absent_machine_says_not_found() {
    let Some(world) = World::new() else { return };
    for args in [
        &["config", "100"][..],
        &["set", "100", "--memory", "512"],
        &["start", "100"],
        &["stop", "100"],
        &["shutdown", "100"],
        &["reset", "100"],
        &["destroy", "100", "--purge"],
        &["status", "100"],
        &["template", "100"],
        &["clone", "100", "101"],
        &["resize", "100", "scsi0", "+1G"],
        &["importdisk", "100", "/dev/null", "local"],
        &["guest", "cmd", "100", "ping"],
        &["guest", "exec", "100", "--", "true"],
        &["guest", "exec-status", "100", "1"],
        &["showcmd", "100"],
    ] {
        let complaint = world.fails(2, args);
        assert!(
            complaint.contains("qemu-server/100.conf' does not exist"),
            "{args:?}: {complaint}"
        );
    }
    assert_eq!(world.ok(&["list"]), "");
}

#[test]
fn options_that_reach_the_host_leave_no_machine_behind() {
    let Some(world) = World::new() else { return };
    for options in [
        &["--args", "-drive file=/etc/shadow"][..],
        &["--scsi0", "/dev/sda"],
        &["--scsi0", "local:1,import-from=/etc/shadow"],
        &["--scsi0", "local:101/vm-101-disk-0.qcow2"],
        &["--scsi0", "local:1", "--virtio0", "nowhere:1"],
        &["--scsi0", "local:1", "--hookscript", "local:snippets/x"],
        &["--net0", "virtio,bridge=vmbr0,script=/bin/sh"],
        &["--serial0", "/dev/ttyS0"],
        &["--sshkeys", "/etc/hostname"],
        &["--memory"],
    ] {
        let args: Vec<&str> = ["create", "100"].iter().chain(options).copied().collect();
        world.fails(6, &args);
        assert_eq!(world.ok(&["list"]), "", "{options:?}");
        let images = std::fs::read_dir(world.path("var/lib/blockhost/qm-storage/local/images"));
        let left: Vec<_> = images
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert!(
            left.iter()
                .all(|dir| std::fs::read_dir(dir).unwrap().next().is_none()),
            "{options:?}: {left:?}"
        );
    }
}

#[test]
fn an_image_that_reaches_outside_itself_is_refused_and_leaves_nothing() {
    let Some(world) = World::new() else { return };
    world.ok(&["create", "100"]);
    let images = world.path("var/lib/blockhost/images");
    let at = |name: &str| images.join(name).display().to_string();
    let qemu_img =
        |args: &[&str]| assert!(world.inside("qemu-img", args).status.success(), "{args:?}");
    std::fs::write(at("secret.raw"), vec![b's'; 1 << 20]).unwrap();
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-b",
        &at("secret.raw"),
        "-F",
        "raw",
        &at("backed.qcow2"),
    ]);
    let data = format!("data_file={},data_file_raw=on", at("secret.raw"));
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &data,
        &at("outside.qcow2"),
        "1M",
    ]);
    std::fs::copy(at("backed.qcow2"), at("disguised.raw")).unwrap();
    std::fs::write(at("short.qcow2"), b"QFI\xfb").unwrap();
    std::fs::write(at("empty.raw"), b"").unwrap();
    std::fs::create_dir(at("directory.raw")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("fifo.raw"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    for name in [
        "backed.qcow2",
        "outside.qcow2",
        "disguised.raw",
        "short.qcow2",
        "empty.raw",
        "directory.raw",
        "fifo.raw",
        "absent.raw",
    ] {
        let complaint = world.fails(1, &["importdisk", "100", &at(name), "local"]);
        assert!(complaint.contains(name), "{name}: {complaint}");
    }
    world.fails(6, &["importdisk", "100", &at("secret.raw"), "nowhere"]);
    let volumes = std::fs::read_dir(world.path("var/lib/blockhost/qm-storage/local/images/100"));
    assert_eq!(volumes.into_iter().flatten().count(), 0);
    assert!(!world.ok(&["config", "100"]).contains("unused"));
}

/// A qcow2 image of five clusters that all of a disk of 64 GiB leads to: each of its tables' entries names the same.
fn image_of_one_cluster_again_and_again() -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    let mut bytes = vec![0; 5 * CLUSTER];
    let mut put = |at: usize, part: &[u8]| {
        bytes.splice(at..at + part.len(), part.iter().copied());
    };
    put(0, b"QFI\xfb");
    put(4, &3u32.to_be_bytes());
    put(20, &16u32.to_be_bytes());
    put(24, &(64u64 << 30).to_be_bytes());
    let entries = 128;
    put(36, &u32::try_from(entries).unwrap().to_be_bytes());
    put(40, &(2 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    for entry in 0..entries {
        put(2 * CLUSTER + 8 * entry, &(3 * CLUSTER as u64).to_be_bytes());
    }
    for entry in 0..CLUSTER / 8 {
        put(3 * CLUSTER + 8 * entry, &(4 * CLUSTER as u64).to_be_bytes());
    }
    put(4 * CLUSTER, &[b'x'; CLUSTER]);
    bytes
}

#[test]
fn an_image_that_is_larger_than_it_looks_is_refused_before_the_disk_is_full_and_leaves_nothing() {
    let Some(world) = World::new() else { return };
    world.ok(&["create", "100"]);
    let images = world.path("var/lib/blockhost/images");
    let at = |name: &str| images.join(name).display().to_string();
    std::fs::create_dir_all(world.path("etc/blockhost/storage.d")).unwrap();
    let storage = "storages: {small: {type: dir, path: /var/lib/blockhost/small}}\n";
    std::fs::write(world.path("etc/blockhost/storage.d/small.yaml"), storage).unwrap();
    let place = world.path("var/lib/blockhost/small").display().to_string();
    std::fs::create_dir_all(&place).unwrap();
    let options = ["-t", "tmpfs", "-o", "size=40m", "tmpfs", &place];
    assert!(world.inside("mount", &options).status.success());
    let left = || world.inside("ls", &["-A", &format!("{place}/images/100")]);
    std::fs::write(at("bomb.qcow2"), image_of_one_cluster_again_and_again()).unwrap();
    std::fs::write(at("full.raw"), vec![b'x'; 39 << 20]).unwrap();
    let sparse = ["create", "-q", "-f", "qcow2", &at("wide.qcow2"), "65T"];
    assert!(world.inside("qemu-img", &sparse).status.success());
    // What an import that was killed has left goes with the next one.
    std::fs::create_dir_all(world.path("var/lib/blockhost/qm-storage/local/images/100")).unwrap();
    let killed = world.path("var/lib/blockhost/qm-storage/local/images/100/.import-1-disk");
    std::fs::write(&killed, "x").unwrap();
    for (name, why) in [
        ("bomb.qcow2", "it holds more than"),
        ("full.raw", "there is space for"),
        ("wide.qcow2", "none is larger than 64 TiB"),
    ] {
        let said = world.fails(1, &["importdisk", "100", &at(name), "small"]);
        assert!(said.contains(why), "{name}: {said}");
        assert_eq!(left().output, "", "{name}");
    }
    assert!(!killed.exists());
    std::fs::write(at("fits.raw"), vec![b'x'; (10 << 20) + 512]).unwrap();
    world.ok(&["importdisk", "100", &at("fits.raw"), "small"]);
    assert_eq!(left().output, "vm-100-disk-0.qcow2\n");
    world.ok(&["set", "100", "--scsi0", "small:100/vm-100-disk-0.qcow2"]);
    let config = world.ok(&["config", "100"]);
    assert!(config.contains("size=11M"), "{config}");
}

#[test]
fn what_a_creation_that_was_cut_off_has_left_goes_with_destroy_and_nothing_that_others_need() {
    let Some(world) = World::new() else { return };
    let conf = |vmid: &str| world.path(&format!("var/lib/blockhost/qm/{vmid}.conf"));
    let disks =
        |vmid: &str| world.path(&format!("var/lib/blockhost/qm-storage/local/images/{vmid}"));
    world.ok(&["create", "100", "--scsi0", "local:1"]);
    std::fs::remove_file(conf("100")).unwrap();
    world.fails(2, &["destroy", "100", "--purge"]);
    assert!(!disks("100").exists());
    world.ok(&["create", "9000", "--scsi0", "local:1"]);
    world.ok(&["create", "9001", "--scsi0", "local:1"]);
    world.ok(&["template", "9000"]);
    world.ok(&["template", "9001"]);
    world.ok(&["clone", "9000", "101"]);
    world.ok(&["create", "102", "--scsi0", "local:1"]);
    // One damaged configuration keeps nobody but its own base.
    std::fs::write(conf("101"), "nonsense\n").unwrap();
    world.ok(&["destroy", "102"]);
    world.ok(&["destroy", "9001"]);
    // Nor does a template lose its clones' base because it, too, is damaged, or gone.
    for damage in [false, true] {
        if damage {
            std::fs::write(conf("9000"), "nonsense\n").unwrap();
        }
        let said = world.fails(3, &["destroy", "9000"]);
        assert!(said.contains("still in use by linked clone 101"), "{said}");
    }
    std::fs::remove_file(conf("9000")).unwrap();
    world.fails(3, &["destroy", "9000"]);
    assert!(disks("9000").join("base-9000-disk-0.qcow2").exists());
    world.ok(&["destroy", "101"]);
    // Only its disks say still that it is a template, which is not destroyed by mistake.
    for damage in [false, true] {
        if damage {
            std::fs::write(conf("9000"), "nonsense\n").unwrap();
        }
        let said = world.fails(3, &["destroy", "9000"]);
        assert!(said.contains("is a template by its disks"), "{said}");
        assert!(disks("9000").join("base-9000-disk-0.qcow2").exists());
    }
    world.ok(&["destroy", "9000", "--template"]);
    assert!(!disks("9000").exists() && !conf("9000").exists());
    world.fails(2, &["destroy", "9000", "--template"]);
}

#[test]
fn a_link_planted_among_the_volumes_is_not_followed() {
    let Some(world) = World::new() else { return };
    world.ok(&["create", "100", "--scsi0", "local:1"]);
    let volume = world.path("var/lib/blockhost/qm-storage/local/images/100/vm-100-disk-0.qcow2");
    std::fs::rename(&volume, world.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(world.path("elsewhere"), &volume).unwrap();
    world.fails(1, &["start", "100"]);
    assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
}

#[test]
fn a_missing_bridge_is_named_and_nothing_stays_running() {
    let Some(world) = World::new() else { return };
    world.ok(&["create", "100", "--net0", "virtio,bridge=vmbr9"]);
    assert!(world.fails(7, &["start", "100"]).contains("vmbr9"));
    assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
}

#[test]
fn a_damaged_configuration_is_reported_with_its_line_and_kept() {
    let Some(world) = World::new() else { return };
    world.ok(&["create", "100", "--memory", "64"]);
    let path = world.path("var/lib/blockhost/qm/100.conf");
    std::fs::write(&path, "memory: 64\nnonsense\n").unwrap();
    assert!(
        world
            .fails(8, &["set", "100", "--memory", "128"])
            .contains("line 2")
    );
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "memory: 64\nnonsense\n"
    );
    assert!(world.ok(&["list"]).contains("damaged"));
    // So is one that is not read to its end.
    std::fs::write(&path, "#x\n".repeat(100_000)).unwrap();
    assert!(world.fails(8, &["config", "100"]).contains("longer than"));
    world.ok(&["destroy", "100"]);
}

#[test]
fn a_disk_that_loses_its_place_is_kept_as_unused() {
    let Some(world) = World::new() else { return };
    world.ok(&["create", "100", "--scsi0", "local:1"]);
    world.fails(3, &["create", "100"]);
    world.ok(&["set", "100", "--delete", "scsi0"]);
    assert!(
        world
            .ok(&["config", "100"])
            .contains("unused0: local:100/vm-100-disk-0.qcow2\n")
    );
    world.ok(&["set", "100", "--virtio0", "local:100/vm-100-disk-0.qcow2"]);
    let config = world.ok(&["config", "100"]);
    assert!(
        config.contains("virtio0: local:100/vm-100-disk-0.qcow2,size=1G\n")
            && !config.contains("unused"),
        "{config}"
    );
    world.fails(6, &["resize", "100", "virtio0", "512M"]);
    world.ok(&["resize", "100", "virtio0", "2G"]);
    world.ok(&["set", "100", "--delete", "virtio0"]);
    world.ok(&["set", "100", "--delete", "unused0"]);
    assert!(
        !world
            .path("var/lib/blockhost/qm-storage/local/images/100/vm-100-disk-0.qcow2")
            .exists()
    );
}

#[test]
fn a_state_directory_that_is_a_link_or_belongs_to_another_user_stops_everything() {
    let Some(world) = World::new() else { return };
    let conf = world.path("var/lib/blockhost/qm");
    std::os::unix::fs::symlink("/etc", &conf).unwrap();
    assert!(world.fails(7, &["list"]).contains("var/lib/blockhost/qm'"));
    std::fs::remove_file(&conf).unwrap();
    std::fs::create_dir(&conf).unwrap();
    std::os::unix::fs::chown(&conf, Some(1), None).unwrap();
    world.fails(7, &["create", "100"]);
    std::fs::remove_dir(&conf).unwrap();
}

#[test]
fn an_edited_configuration_carries_nothing_into_qemus_command_line() {
    let Some(world) = World::new() else { return };
    world.ok(&["create", "100", "--memory", "64"]);
    let path = world.path("var/lib/blockhost/qm/100.conf");
    for line in [
        "machine: pc,firmware=/etc/shadow",
        "name: x,process=y",
        "cpu: max,flags=+aes,vendor=x",
        "smbios1: uuid=1;file=/etc/shadow",
        "scsi0: local:100/../../x",
    ] {
        std::fs::write(&path, format!("{line}\n")).unwrap();
        world.fails(6, &["showcmd", "100"]);
        world.fails(6, &["start", "100"]);
    }
}
