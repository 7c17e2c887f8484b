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
            .fails(1, &["set", "100", "--memory", "128"])
            .contains("line 2")
    );
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "memory: 64\nnonsense\n"
    );
    assert!(world.ok(&["list"]).contains("damaged"));
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
