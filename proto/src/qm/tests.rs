//! Options: what is accepted comes out canonical and is accepted again; what is refused stands in the hostile list too.

use proptest::prelude::*;
use serde_json::json;

use super::key::{KEY_PATTERN, PLAIN_KEYS};
use super::*;
use crate::value::{IfName, Param, StorageName, Vmid};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@host";

#[test]
fn good_options_come_out_canonical_and_are_accepted_again() {
    for (key, value, canonical) in [
        ("memory", "2048", "2048"),
        ("cores", "256", "256"),
        ("sockets", "1", "1"),
        ("numa", "1", "1"),
        ("onboot", "0", "0"),
        (
            "cpu",
            "x86-64-v2-AES,flags=+aes;-pcid",
            "x86-64-v2-AES,flags=+aes;-pcid",
        ),
        ("cpu", "host", "host"),
        ("ostype", "l26", "l26"),
        ("scsihw", "virtio-scsi-single", "virtio-scsi-single"),
        ("bios", "ovmf", "ovmf"),
        ("machine", "q35", "q35"),
        ("machine", "pc-i440fx-10.0", "pc-i440fx-10.0"),
        ("vga", "serial0", "serial0"),
        ("serial0", "socket", "socket"),
        (
            "net0",
            "virtio=bc:24:11:00:00:01,tag=7,bridge=vmbr0,rate=12.50,firewall=1,mtu=1500",
            "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,mtu=1500,rate=12.5,tag=7",
        ),
        ("net31", "e1000,bridge=br.7", "e1000,bridge=br.7"),
        (
            "scsi0",
            "local:32,ssd=1,discard=on,iothread=1",
            "local:32,discard=on,iothread=1,ssd=1",
        ),
        (
            "scsi30",
            "local:9000/base-9000-disk-0.qcow2/101/vm-101-disk-0.qcow2,size=4096M",
            "local:9000/base-9000-disk-0.qcow2/101/vm-101-disk-0.qcow2,size=4G",
        ),
        ("ide2", "local:cloudinit", "local:cloudinit"),
        (
            "ide2",
            "local:iso/debian-12.iso,media=cdrom",
            "local:iso/debian-12.iso,media=cdrom",
        ),
        (
            "scsi1",
            "local:iso/debian-12.iso",
            "local:iso/debian-12.iso,media=cdrom",
        ),
        (
            "virtio15",
            "local-lvm:vm-100-disk-0,cache=writeback,iops_rd=500",
            "local-lvm:vm-100-disk-0,cache=writeback,iops_rd=500",
        ),
        ("boot", "order=scsi0;ide2;net0", "order=scsi0;ide2;net0"),
        ("agent", "1", "1"),
        (
            "agent",
            "enabled=1,fstrim_cloned_disks=1",
            "1,fstrim_cloned_disks=1",
        ),
        ("name", "web-1", "web-1"),
        ("tags", "web;customer-7", "web;customer-7"),
        (
            "description",
            "A machine, 100% ours: x=1",
            "A machine, 100% ours: x=1",
        ),
        (
            "ipconfig0",
            "ip=10.77.0.100/24,gw=10.77.0.1,ip6=FD77:b10c::64/128,gw6=fd77:b10c::1",
            "ip=10.77.0.100/24,gw=10.77.0.1,ip6=fd77:b10c::64/128,gw6=fd77:b10c::1",
        ),
        ("ipconfig1", "ip6=auto", "ip6=auto"),
        ("ipconfig1", "ip=dhcp,ip6=dhcp", "ip=dhcp,ip6=dhcp"),
        (
            "nameserver",
            "1.1.1.1 2606:4700:4700::1111",
            "1.1.1.1 2606:4700:4700::1111",
        ),
        (
            "searchdomain",
            "example.org corp.example.org",
            "example.org corp.example.org",
        ),
        ("ciuser", "user_1", "user_1"),
        ("sshkeys", KEY, KEY),
        (
            "cicustom",
            "vendor=local:snippets/v.yaml,user=local:snippets/u.yaml",
            "user=local:snippets/u.yaml,vendor=local:snippets/v.yaml",
        ),
    ] {
        let option = QmOption::parse(key, value).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(option.key().to_string(), key);
        assert_eq!(option.value(), canonical);
        assert_eq!(QmOption::parse(key, canonical).unwrap(), option);
    }
}

#[test]
fn every_key_of_the_schema_is_a_key_and_no_more() {
    for (name, key) in PLAIN_KEYS {
        assert_eq!(QmKey::read(name), Some(key));
        assert_eq!(
            KEY_PATTERN.contains(&format!("|{name}|")) || name == "agent",
            key.is_for_clients(),
            "{name}"
        );
    }
    for name in [
        "args",
        "hookscript",
        "lock",
        "hostpci0",
        "usb0",
        "parallel0",
        "serial1",
        "smbios1",
        "net32",
        "net01",
        "scsi31",
        "delete",
        "",
    ] {
        assert_eq!(QmKey::read(name), None, "{name}");
    }
}

#[test]
fn rules_that_list_a_closed_set_list_all_of_it() {
    for (key, set) in [
        (QmKey::Bios, scalar::BIOS),
        (QmKey::OsType, scalar::OSTYPE),
        (QmKey::ScsiHw, scalar::SCSIHW),
        (QmKey::Vga, scalar::VGA),
    ] {
        let listed: Vec<String> = key
            .rule()
            .replace(" or ", ", ")
            .split(", ")
            .map(str::to_owned)
            .collect();
        assert_eq!(listed, set);
    }
}

#[test]
fn both_forms_of_args_mean_the_same() {
    let flat = QmArgs::from_json(&json!([
        "--memory",
        "2048",
        "--net0",
        "virtio,bridge=vmbr0"
    ]))
    .unwrap();
    let pairs = QmArgs::from_json(&json!([
        ["--net0", "virtio,bridge=vmbr0"],
        ["--memory", 2048]
    ]))
    .unwrap();
    assert_eq!(flat, pairs);
    assert_eq!(QmArgs::from_json(&flat.to_json().unwrap()).unwrap(), flat);
    assert_eq!(
        flat.to_args(),
        ["--memory", "2048", "--net0", "virtio,bridge=vmbr0"]
    );
    assert!(QmArgs::from_json(&json!([])).unwrap().is_empty());
}

#[test]
fn limits_on_the_processor_are_the_backends_options_but_not_a_clients() {
    for (key, value) in [("cpulimit", "0.5"), ("cpuunits", "100")] {
        assert!(QmOptions::new().add(key, value).is_ok(), "{key}");
        let set = QmOptions::from_json(&json!({"memory": 2048, key: value}));
        assert!(set.unwrap_err().to_string().contains("action of its own"));
        assert!(QmArgs::from_json(&json!([format!("--{key}"), value])).is_err());
    }
}

#[test]
fn policy_sees_every_bridge_storage_and_snippet() {
    let mut options = QmOptions::new();
    options.add("net0", "virtio,bridge=vmbr0").unwrap();
    options.add("net1", "virtio,bridge=evil0").unwrap();
    options.add("scsi0", "local:4").unwrap();
    options.add("ide2", "other:cloudinit").unwrap();
    options
        .add("cicustom", "user=third:snippets/x.yaml")
        .unwrap();
    assert_eq!(
        options.bridges().map(IfName::as_str).collect::<Vec<_>>(),
        ["vmbr0", "evil0"]
    );
    assert_eq!(
        options
            .storages()
            .map(StorageName::as_str)
            .collect::<Vec<_>>(),
        ["other", "local"]
    );
    assert_eq!(
        options
            .snippets()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["third:snippets/x.yaml"]
    );
    assert_eq!(
        options.add("net0", "virtio,bridge=vmbr1"),
        Err(QmError::Twice {
            key: "net0".to_owned()
        })
    );
}

#[test]
fn a_disk_of_another_machine_is_noticed() {
    let mut options = QmOptions::new();
    options
        .add("scsi0", "local:100/vm-100-disk-0.qcow2")
        .unwrap();
    assert_eq!(options.foreign_disk(Vmid::try_from(100u32).unwrap()), None);
    assert_eq!(
        options.foreign_disk(Vmid::try_from(101u32).unwrap()),
        Some((QmKey::Drive(DriveBus::Scsi, 0), 100))
    );
}

#[test]
fn ssh_keys_survive_the_configuration_file() {
    let keys = SshKeys::read(&format!("{KEY}\n{KEY}\n")).unwrap();
    assert_eq!(keys.lines().len(), 2);
    let encoded = keys.to_percent_encoded();
    assert!(encoded.contains("%0A") && !encoded.contains('\n'));
    assert_eq!(SshKeys::from_percent_encoded(&encoded), Some(keys));
    for broken in ["%", "%0", "%zz", "%ff"] {
        assert_eq!(SshKeys::from_percent_encoded(broken), None);
    }
}

#[test]
fn a_drive_remembers_its_volume_instead_of_its_size() {
    let drive = DriveSpec::read("local:4,ssd=1,format=qcow2").unwrap();
    let made = drive.with_volume(
        "100/vm-100-disk-0.qcow2".parse().unwrap(),
        Some("4G".parse().unwrap()),
    );
    assert_eq!(
        made.to_string(),
        "local:100/vm-100-disk-0.qcow2,size=4G,ssd=1"
    );
    assert_eq!(
        made.volume_id().as_deref(),
        Some("local:100/vm-100-disk-0.qcow2")
    );
    assert_eq!(DriveSpec::read(&made.to_string()), Some(made));
    assert!(DriveSpec::read("local:cloudinit").unwrap().is_cdrom() && !drive.is_cdrom());
}

#[test]
fn limits_of_a_drive_replace_each_other_and_touch_nothing_else() {
    let drive = DriveSpec::read("local:vm-100-disk-0,cache=none,iops_rd=9,size=4G").unwrap();
    let iops = |n: u32| Some(n.try_into().unwrap());
    for (reads, writes, reset, expected) in [
        (
            None,
            iops(5),
            false,
            "cache=none,iops_rd=9,iops_wr=5,size=4G",
        ),
        (iops(7), None, false, "cache=none,iops_rd=7,size=4G"),
        (None, iops(5), true, "cache=none,iops_wr=5,size=4G"),
        (None, None, true, "cache=none,size=4G"),
        (None, None, false, "cache=none,iops_rd=9,size=4G"),
    ] {
        let limited = drive.with_limits(reads, writes, reset).to_string();
        assert_eq!(limited, format!("local:vm-100-disk-0,{expected}"));
    }
}

fn keys() -> impl Strategy<Value = String> {
    let plain = prop::sample::select(PLAIN_KEYS.to_vec()).prop_map(|(name, _)| name.to_owned());
    prop_oneof![
        plain,
        "(net|ipconfig|ide|sata|scsi|virtio)[0-9]{1,2}",
        any::<String>()
    ]
}

fn values() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z0-9=:;,./+_\n-]{0,40}",
        "(virtio|e1000)(=[0-9A-F]{2}(:[0-9A-F]{2}){5})?,bridge=[a-z0-9]{1,8}(,(tag|rate|mtu|firewall)=[0-9.]{1,4}){0,3}",
        "[a-z]{1,6}:[a-z0-9/.-]{0,24}(,(cache|ssd|size|discard|import-from)=[a-z0-9G]{1,9}){0,3}",
        "(ip|ip6|gw|gw6)=[0-9a-f.:]{1,16}(/[0-9]{1,3})?(,(ip6|gw)=[a-f0-9:.]{1,9})?",
        "[0-9]{1,8}",
    ]
}

proptest! {
    #[test]
    fn no_option_panics_and_every_accepted_one_comes_back(key in keys(), value in values()) {
        match QmOption::parse(&key, &value) {
            Ok(option) => {
                let canonical = option.value();
                prop_assert!(canonical.bytes().all(|b| (b' '..=b'~').contains(&b) || key == "sshkeys"));
                prop_assert!(!canonical.starts_with('-'));
                prop_assert_eq!(QmOption::parse(&key, &canonical).unwrap(), option);
            }
            Err(error) => prop_assert!(error.to_string().bytes().all(|b| (b' '..=b'~').contains(&b))),
        }
    }
}

#[test]
fn the_reference_lists_every_option_of_clients_with_its_rule_by_name() {
    let list = QmKey::reference();
    let plain = PLAIN_KEYS.iter().filter(|(_, key)| key.is_for_clients());
    assert_eq!(list.len(), plain.clone().count() + 6);
    assert!(list.is_sorted());
    for (name, key) in plain {
        assert!(list.contains(&((*name).to_owned(), key.rule())), "{name}");
        assert!(!key.rule().is_empty());
    }
    for (name, rule) in [
        ("net0..net31", NetDevice::RULE),
        ("ipconfig0..ipconfig31", IpConfig::RULE),
        ("scsi0..scsi30", DriveSpec::RULE),
        ("virtio0..virtio15", DriveSpec::RULE),
        ("sata0..sata5", DriveSpec::RULE),
        ("ide0..ide3", DriveSpec::RULE),
    ] {
        assert!(list.contains(&(name.to_owned(), rule)), "{name}");
        let last = name.split("..").nth(1).unwrap_or_default();
        assert_eq!(
            QmKey::read(last).map(|key| key.to_string()),
            Some(last.to_owned())
        );
        let count = last.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let bus = last.trim_end_matches(|c: char| c.is_ascii_digit());
        let next = count.parse::<u8>().unwrap() + 1;
        assert_eq!(QmKey::read(&format!("{bus}{next}")), None);
    }
    assert!(QmKey::Agent < QmKey::Bios && QmKey::Net(2) > QmKey::Net(10));
    assert_eq!(
        QmKey::Vga.partial_cmp(&QmKey::Vga),
        Some(std::cmp::Ordering::Equal)
    );
}
