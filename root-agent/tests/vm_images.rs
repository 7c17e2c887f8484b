//! Disk images on their way to `qm`: what is a plain image of the services' arrives whole, and nothing else arrives.

mod compartment_world;
mod recorded;

use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Done, Failure};
use compartment_world::{code, set_mode, tool, try_tool};
use recorded::Vm;
use serde_json::{Value, json};

/// What reaches qm of an image: the script reads the descriptor that it was given.
const READ_IMAGE: &str = "cat \"$3\" >\"$BLOCKHOST_ROOT/var/lib/blockhost/read\"; echo \"unused0: successfully imported disk 'local:100/vm-100-disk-0.qcow2'\"";

fn disk() -> Vec<u8> {
    let mut disk = vec![0u8; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[700_000] = 7;
    disk
}

fn import(vm: &Vm, path: &str) -> Result<Done, Failure> {
    vm.ask(
        "qm-importdisk",
        json!({"vmid": 100, "disk_path": path, "storage": "local"}),
    )
}

#[test]
fn a_good_image_arrives_whole_by_name_and_by_either_whole_path() {
    let Some(vm) = Vm::new() else { return };
    vm.answers(READ_IMAGE);
    let path = vm.world.image("debian.raw", &disk());
    for name in [
        "debian.raw",
        "/var/lib/blockhost/images/debian.raw",
        path.to_str().expect("text"),
    ] {
        let done =
            import(&vm, name).unwrap_or_else(|failure| panic!("{name}: {}", failure.message));
        assert_eq!(
            std::fs::read(vm.world.layout.state().join("read")).expect("read by qm"),
            disk()
        );
        assert_eq!(
            Value::Object(done.extra),
            json!({"volume": "local:100/vm-100-disk-0.qcow2", "format": "raw"})
        );
        assert_eq!(vm.calls()[0][3], "local");
    }
    let left: Vec<_> = std::fs::read_dir(vm.world.layout.images())
        .expect("a directory")
        .collect();
    assert_eq!(left.len(), 1, "no copy stays");
}

#[test]
fn what_is_not_a_plain_image_of_the_services_never_reaches_qm() {
    let Some(mut vm) = Vm::new() else { return };
    vm.answers(READ_IMAGE);
    let images = vm.world.layout.images();
    let secret = vm.world.path().join("secret.raw");
    std::fs::write(&secret, disk()).expect("a file");
    chown(&secret, Some(0), Some(0)).expect("an owner");
    let refused = |vm: &Vm, name: &str, expected: ErrorCode| {
        assert_eq!(code(import(vm, name)), expected, "{name}");
        assert!(vm.calls().is_empty(), "{name} reached qm");
    };

    refused(&vm, "missing.raw", ErrorCode::NotFound);
    refused(&vm, "/etc/shadow", ErrorCode::Forbidden);
    refused(&vm, secret.to_str().expect("text"), ErrorCode::Forbidden);
    symlink(&secret, images.join("link.raw")).expect("a link");
    refused(&vm, "link.raw", ErrorCode::Forbidden);
    symlink(vm.world.path(), images.join("up")).expect("a link");
    refused(&vm, "up/secret.raw", ErrorCode::Forbidden);
    std::fs::hard_link(&secret, images.join("hard.raw")).expect("a second name");
    refused(&vm, "hard.raw", ErrorCode::Forbidden);
    std::fs::create_dir(images.join("directory")).expect("a directory");
    refused(&vm, "directory", ErrorCode::Forbidden);
    tool(&format!("mkfifo {}", images.join("fifo").display()));
    refused(&vm, "fifo", ErrorCode::Forbidden);
    set_mode(&vm.world.image("open.raw", &disk()), 0o666);
    refused(&vm, "open.raw", ErrorCode::Forbidden);
    chown(vm.world.image("theirs.raw", &disk()), Some(12345), None).expect("an owner");
    refused(&vm, "theirs.raw", ErrorCode::Forbidden);
    vm.world.image("noise.raw", &[1; 4096]);
    refused(&vm, "noise.raw", ErrorCode::Forbidden);
    vm.world.image("empty.raw", &[]);
    refused(&vm, "empty.raw", ErrorCode::Forbidden);

    // The services own the parent of the image directory: they may swap the directory itself for a link.
    vm.world.image("good.raw", &disk());
    import(&vm, "good.raw").unwrap_or_else(|failure| panic!("{}", failure.message));
    vm.calls();
    let aside = vm.world.layout.state().join("aside");
    std::fs::rename(&images, &aside).expect("moved aside");
    symlink(&aside, &images).expect("a link");
    refused(&vm, "good.raw", ErrorCode::Failed);
    vm.world.policy.allow.image_dirs = vec![PathBuf::from("/var/lib/blockhost/elsewhere")];
    refused(&vm, "good.raw", ErrorCode::NotFound);
}

#[test]
fn real_qcow2_images_that_lead_to_other_files_are_refused_and_plain_ones_pass() {
    if !try_tool("qemu-img --version").0 {
        println!("skipped: qemu-img is not installed");
        return;
    }
    let Some(vm) = Vm::new() else { return };
    vm.answers(READ_IMAGE);
    let images = vm.world.layout.images();
    let at = |name: &str| images.join(name).display().to_string();
    let own = |name: &str| {
        chown(images.join(name), Some(compartment_world::USER), None).expect("an owner")
    };
    tool(&format!(
        "qemu-img create -q -f qcow2 {} 16M",
        at("plain.qcow2")
    ));
    tool(&format!(
        "qemu-img create -q -f qcow2 -o compat=0.10 {} 16M",
        at("old.qcow2")
    ));
    tool(&format!(
        "qemu-img create -q -f qcow2 -o cluster_size=2M,extended_l2=on {} 16M",
        at("wide.qcow2")
    ));
    tool(&format!(
        "qemu-img create -q -f qcow2 -F raw -b /etc/hostname {}",
        at("backed.qcow2")
    ));
    tool(&format!(
        "qemu-img create -q -f qcow2 -o data_file={},data_file_raw=on {} 16M",
        at("data.raw"),
        at("external.qcow2")
    ));
    tool(&format!(
        "qemu-img create -q -f vmdk {} 16M",
        at("disk.vmdk")
    ));
    tool(&format!(
        "qemu-img create -q -f vmdk -o subformat=monolithicFlat {} 16M",
        at("flat.vmdk")
    ));
    tool(&format!("qemu-img create -q -f vdi {} 16M", at("disk.vdi")));
    tool(&format!(
        "qemu-img create -q -f vhdx {} 16M",
        at("disk.vhdx")
    ));
    for name in ["plain.qcow2", "old.qcow2", "wide.qcow2"] {
        own(name);
        let done =
            import(&vm, name).unwrap_or_else(|failure| panic!("{name}: {}", failure.message));
        assert_eq!(done.extra["format"], "qcow2");
        assert_eq!(
            std::fs::read(images.join(name)).expect("an image"),
            std::fs::read(vm.world.layout.state().join("read")).expect("a copy")
        );
    }
    vm.calls();
    for name in [
        "backed.qcow2",
        "external.qcow2",
        "disk.vmdk",
        "flat.vmdk",
        "disk.vdi",
        "disk.vhdx",
    ] {
        own(name);
        assert_eq!(code(import(&vm, name)), ErrorCode::Forbidden, "{name}");
        assert!(vm.calls().is_empty(), "{name} reached qm");
    }
}

#[test]
fn an_image_that_its_owner_changes_after_the_check_is_not_what_qm_reads() {
    let Some(vm) = Vm::new() else { return };
    let path = vm.world.image("debian.raw", &disk());
    // The owner overwrites the file in place while qm holds the descriptor, before it reads.
    vm.answers(&format!(
        "printf 'QFI\\373evil' | dd of={} conv=notrunc status=none; {READ_IMAGE}",
        path.display()
    ));
    import(&vm, "debian.raw").unwrap_or_else(|failure| panic!("{}", failure.message));
    assert_eq!(
        std::fs::read(vm.world.layout.state().join("read")).expect("read by qm"),
        disk()
    );
    assert!(
        std::fs::read(&path).expect("the file").starts_with(b"QFI"),
        "the attack took place"
    );
}
