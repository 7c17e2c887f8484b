//! The edges of the options of machines, as in `value/edges.rs`: the last value that is good and the first that is not.

use serde_json::json;

use super::scalar::machine;
use super::*;
use crate::value::{DiskSize, Iops, Param as _, VolumeRef};

/// Asserts what is read and what is not.
fn check<T>(read: impl Fn(&str) -> Option<T>, good: &[&str], bad: &[&str]) {
    for text in good {
        assert!(read(text).is_some(), "{text:?} is refused");
    }
    for text in bad {
        assert!(read(text).is_none(), "{text:?} is accepted");
    }
}

fn times(text: &str, count: usize, separator: &str) -> String {
    vec![text; count].join(separator)
}

#[test]
fn search_domains_are_up_to_six_names_of_labels() {
    let name = |last: usize| format!("{}.{}", times(&"a".repeat(62), 3, "."), "a".repeat(last));
    check(
        SearchDomains::read,
        &[
            "a",
            "a.b-c.D",
            "0-1",
            &"a".repeat(63),
            &times("a", 6, " "),
            &name(63),
            &format!("{}.a", name(62)),
        ],
        &[
            "",
            " ",
            "a ",
            "a  b",
            "-a",
            "a-",
            "a.-b",
            "a-.b",
            "a..b",
            "a.",
            "a_b",
            "a,b",
            &"a".repeat(64),
            &times("a", 7, " "),
            &format!("{}.aaa", name(62)),
        ],
    );
}

#[test]
fn a_user_begins_with_a_letter_or_an_underscore() {
    check(
        CiUser::read,
        &["a", "_", "z0_-", &"a".repeat(32)],
        &[
            "",
            "0a",
            "-a",
            "A",
            "aB",
            "a b",
            "a.b",
            "{",
            &"a".repeat(33),
        ],
    );
    assert_eq!(CiUser::read("root").unwrap().as_str(), "root");
}

#[test]
fn each_snippet_is_found_under_its_name() {
    let custom = CiCustom::read("vendor=b:snippets/v.yaml,user=a:snippets/u.yaml").unwrap();
    let found = |part| custom.get(part).map(ToString::to_string);
    assert_eq!(found("user").unwrap(), "a:snippets/u.yaml");
    assert_eq!(found("vendor").unwrap(), "b:snippets/v.yaml");
    assert_eq!(found("network"), None);
    check(
        CiCustom::read,
        &[],
        &[
            "",
            "user=a:snippets/u.yaml,user=a:snippets/u.yaml",
            "meta=a:snippets/u.yaml",
        ],
    );
}

#[test]
fn what_a_drive_is_and_what_it_says_agree() {
    check(
        DriveSpec::read,
        &[
            "a:1",
            "a:65536",
            "a:1,format=qcow2",
            "a:cloudinit,media=cdrom",
            "a:iso/x.iso,media=cdrom",
            "a:vm-100-disk-0,media=disk",
        ],
        &[
            ":1",
            "a",
            "a:",
            "a:0",
            "a:65537",
            "/a:1",
            "a:cloudinit,media=disk",
            "a:iso/x.iso,media=disk",
            "a:vm-100-disk-0,format=raw",
            "a:iso/x.iso,format=raw",
        ],
    );
    // Where `media` is added it stands in its place among the others.
    let iso = DriveSpec::read("a:iso/x.iso,ssd=1,cache=none").unwrap();
    assert_eq!(iso.to_string(), "a:iso/x.iso,cache=none,media=cdrom,ssd=1");
    let is_cdrom = |text: &str| DriveSpec::read(text).unwrap().is_cdrom();
    assert!(iso.is_cdrom() && is_cdrom("a:cloudinit") && is_cdrom("a:1,media=cdrom"));
    assert!(!is_cdrom("a:vm-100-disk-0") && !is_cdrom("a:1,media=disk") && !is_cdrom("a:1"));
    let volume = |text: &str| VolumeRef::read(text).unwrap();
    let drive = DriveSpec::read("a:1,cache=none,format=raw,ssd=1").unwrap();
    assert!(drive.with_volume(volume("iso/x.iso"), None).is_cdrom());
    let made = drive.with_volume(volume("vm-100-disk-0"), DiskSize::read("1G"));
    assert_eq!(made.to_string(), "a:vm-100-disk-0,cache=none,size=1G,ssd=1");
    assert_eq!(made.volume_id().as_deref(), Some("a:vm-100-disk-0"));
    assert_eq!(drive.volume_id(), None);
}

#[test]
fn limits_of_a_drive_replace_those_it_had_and_stand_in_their_place() {
    let iops = |number: u16| Some(Iops::from_json(&json!(number)).unwrap());
    let drive = DriveSpec::read("a:1,cache=none,iops_rd=5,ssd=1").unwrap();
    for (reads, writes, reset, after) in [
        (None, None, false, "a:1,cache=none,iops_rd=5,ssd=1"),
        (None, None, true, "a:1,cache=none,ssd=1"),
        (iops(7), None, false, "a:1,cache=none,iops_rd=7,ssd=1"),
        (
            None,
            iops(9),
            false,
            "a:1,cache=none,iops_rd=5,iops_wr=9,ssd=1",
        ),
        (None, iops(9), true, "a:1,cache=none,iops_wr=9,ssd=1"),
    ] {
        let limited = drive.with_limits(reads, writes, reset);
        assert_eq!(limited.to_string(), after);
    }
}

#[test]
fn a_hardware_address_is_six_pairs_of_digits() {
    check(
        MacAddress::read,
        &[
            "02:00:00:00:00:01",
            "fe:FF:ff:ff:ff:ff",
            "00:00:00:00:00:01",
        ],
        &[
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:00:00:00:00:01",
            "002:00:00:00:00:01",
            "+2:00:00:00:00:01",
            "0g:00:00:00:00:01",
            "01:00:00:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "02-00-00-00-00-01",
        ],
    );
    let address = MacAddress::read("02:ab:00:00:00:ff").unwrap();
    assert_eq!(address.bytes(), [2, 0xab, 0, 0, 0, 0xff]);
    assert_eq!(MacAddress::new(address.bytes()), Some(address));
}

#[test]
fn a_network_card_has_an_mtu_of_its_own_or_one_for_that_of_its_bridge() {
    let card = |rest: &str| NetDevice::read(&format!("virtio,bridge=a{rest}"));
    check(
        card,
        &[
            "",
            ",mtu=1",
            ",mtu=576",
            ",mtu=65520",
            ",tag=1",
            ",tag=4094",
            ",firewall=0",
        ],
        &[
            ",mtu=0",
            ",mtu=2",
            ",mtu=575",
            ",mtu=65521",
            ",tag=0",
            ",tag=4095",
            ",firewall=2",
            ",bridge=b",
            ",mtu=576,mtu=576",
            ",queues=4",
        ],
    );
    assert!(NetDevice::read("virtio").is_none());
}

#[test]
fn a_rate_has_up_to_three_decimals_and_comes_back_as_it_was() {
    for (text, kilobytes) in [
        ("0.001", 1),
        ("0.01", 10),
        ("0.5", 500),
        ("1", 1000),
        ("12.5", 12_500),
        ("9999.999", 9_999_999),
        ("10000", 10_000_000),
    ] {
        assert_eq!(rate(text), Some(kilobytes), "{text}");
        assert_eq!(thousandths(kilobytes), text);
    }
    check(
        rate,
        &["1.0", "1.000"],
        &[
            "",
            "0",
            "0.0",
            "1.",
            ".5",
            "1.0000",
            "1.2345",
            "1.a",
            "1.+1",
            "-1",
            "+1",
            "1.-1",
            "10000.001",
            "10001",
            "1.5.5",
        ],
    );
}

#[test]
fn a_machine_type_has_both_halves_of_a_version() {
    check(
        machine,
        &["pc", "q35", "pc-q35-9.2", "pc-i440fx-10.12"],
        &[
            "",
            "pc-",
            "q35-9.2",
            "pc-q35",
            "pc-q35-",
            "pc-q35-9",
            "pc-q35-9.",
            "pc-q35-.2",
            "pc-q35-a.2",
            "pc-q35-9.a",
            "pc-q35-9.2.1",
            "pc-q35-100.2",
            "pc-i440fx-9.100",
        ],
    );
}

#[test]
fn a_boot_order_has_sixteen_devices_each_once() {
    let order = |count: u8| {
        let names: Vec<String> = (0..count).map(|i| format!("net{i}")).collect();
        format!("order={}", names.join(";"))
    };
    check(
        BootOrder::read,
        &["order=scsi0", "order=net0;net1", &order(16)],
        &[
            "",
            "order=",
            "scsi0",
            "order=memory",
            "order=net0;net0",
            "order=net0;",
            &order(17),
        ],
    );
}

#[test]
fn tags_and_descriptions_end_where_they_say() {
    check(
        Tags::read,
        &[
            "a",
            "_",
            "0",
            "a_+.-",
            &"a".repeat(64),
            &times("a", 32, ";"),
        ],
        &[
            "",
            ";",
            "a;",
            "A",
            ".a",
            "-a",
            "+a",
            "a b",
            &"a".repeat(65),
            &times("a", 33, ";"),
        ],
    );
    check(
        Description::read,
        &["a", "a b", "~", &"a".repeat(1024)],
        &[
            "",
            " a",
            "-a",
            "a ",
            "a\nb",
            "\u{7f}",
            "é",
            &"a".repeat(1025),
        ],
    );
    assert_eq!(Description::read("a b").unwrap().as_str(), "a b");
}

/// Standard base64 of a blob of SSH strings.
fn blob(fields: &[&[u8]]) -> String {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
        bytes.extend(*field);
    }
    to_base64(&bytes)
}

#[test]
fn a_key_says_its_type_twice_and_its_blob_is_filled_exactly() {
    let key = |kind: &str, fields: &[&[u8]]| format!("{kind} {}", blob(fields));
    let ed = "ssh-ed25519";
    let good = key(ed, &[ed.as_bytes(), &[7; 32]]);
    let rsa = key("ssh-rsa", &[b"ssh-rsa", &[1, 0, 1], &[9; 257]]);
    check(
        SshKeys::read,
        &[
            &good,
            &format!("{good}\n"),
            &format!("{good} me@host and more"),
            &format!("{good} "),
            &rsa,
            &times(&good, 16, "\n"),
        ],
        &[
            "",
            "\n",
            ed,
            &format!("{ed} "),
            &format!("{good}\n\n"),
            &format!(" {good}"),
            &format!("{good} \u{7f}"),
            &format!("{good}\r"),
            &format!("command=\"id\" {good}"),
            &times(&good, 17, "\n"),
            &key("ssh-dss", &[b"ssh-dss", &[7; 32]]),
            &key(ed, &[b"ssh-rsa", &[7; 32]]),
            &key("ssh-rsa", &[ed.as_bytes(), &[7; 32]]),
            &key(ed, &[ed.as_bytes(), &[7; 31]]),
            &key(ed, &[ed.as_bytes(), &[7; 33]]),
            &key(ed, &[ed.as_bytes()]),
            &key("ssh-rsa", &[b"ssh-rsa"]),
            // The second length says more, or a piece follows that is none.
            &format!("{ed} {}AAAA", &blob(&[ed.as_bytes(), &[7; 31]])),
            &format!("{ed} {}", &blob(&[ed.as_bytes(), &[7; 32]])[..64]),
        ],
    );
}

#[test]
fn keys_are_written_for_a_configuration_file_and_read_back() {
    let text = format!(
        "ssh-ed25519 {} a_b.c~d",
        blob(&[b"ssh-ed25519", &[0xff; 32]])
    );
    let keys = SshKeys::read(&text).unwrap();
    let encoded = keys.to_percent_encoded();
    assert!(
        encoded.starts_with("ssh-ed25519%20AAAAC3NzaC1lZDI1NTE5AAAAIP"),
        "{encoded}"
    );
    assert!(encoded.ends_with("%2F%20a_b.c~d"), "{encoded}");
    assert_eq!(SshKeys::from_percent_encoded(&encoded), Some(keys));
    for bad in ["%", "%2", "%zz", "%+2", "%FF"] {
        assert_eq!(
            SshKeys::from_percent_encoded(&format!("{encoded}{bad}")),
            None,
            "{bad}"
        );
    }
}

#[test]
fn a_base64_text_is_whole_and_the_only_one_of_its_bytes() {
    for (text, bytes) in [
        ("AAAA", &[0, 0, 0][..]),
        ("AAA=", &[0, 0]),
        ("AA==", &[0]),
        ("////", &[255, 255, 255]),
        ("+/+/", &[0xfb, 0xff, 0xbf]),
        ("azAZ", &[0x6b, 0x30, 0x19]),
        ("AQID", &[1, 2, 3]),
    ] {
        assert_eq!(base64(text).as_deref(), Some(bytes), "{text}");
    }
    check(
        base64,
        &[],
        &[
            "", "=", "====", "A", "A===", "AA", "AA=", "AAA", "AAAAA", "AAAAA===", "AB==", "AAB=",
            "AA=A", "A\nAA", "AA-_", "AAA =",
        ],
    );
}
