//! The edges of every rule: the last value that is good and the first that is not, on each side. Tables, so that a rule
//! that is loosened or tightened by one shows here.

use super::*;

pub(super) fn check<T: Text>(good: &[&str], bad: &[&str]) {
    // Also of those that are only parts of other parameters; tests/schema.rs holds the rest against their types.
    assert_eq!(T::text_schema()["type"], "string", "{}", T::KIND);
    for text in good {
        assert!(T::read(text).is_some(), "{} {text:?} is refused", T::KIND);
    }
    for text in bad {
        assert!(T::read(text).is_none(), "{} {text:?} is accepted", T::KIND);
    }
}

pub(super) fn long(first: &str, count: usize) -> String {
    format!("{first}{}", "a".repeat(count - first.len()))
}

#[test]
fn names_have_their_lengths_their_letters_and_their_beginnings() {
    check::<VmName>(
        &["a", "0", "a-b", &long("a", 63)],
        &["", "-a", "a-", "A", "a.b", "a_b", "-", &long("a", 64)],
    );
    check::<IfName>(
        &["a", "_", ".a", "a.-_", "Z9", &long("a", 15)],
        &[
            "",
            "-a",
            ".",
            "..",
            "a/b",
            "a b",
            "a:1",
            "ä",
            &long("a", 16),
        ],
    );
    check::<StorageName>(
        &["a", "z9-", &long("a", 32)],
        &["", "9a", "-a", "A", "a_b", "a.b", &long("a", 33)],
    );
    check::<Comment>(
        &["a", "Z", "0-", &long("a", 64)],
        &["", "-a", "a_b", "a b", &long("a", 65)],
    );
    check::<EventName>(
        &["a", "0", "a_.-", &long("a", 64)],
        &["", "_a", ".a", "-a", "A", "a b", &long("a", 65)],
    );
    let id = "0123456789abcdef".repeat(4);
    check::<ContainerId>(
        &[&id],
        &[
            "",
            &id[1..],
            &format!("{id}0"),
            &id.to_uppercase(),
            &format!("{}g", &id[1..]),
        ],
    );
    check::<WalletName>(
        &["a", "0", "a-", &long("a", 32)],
        &["", "-a", "A", "a_b", "a.b", &long("a", 33)],
    );
    let hash = "0123456789abcdef".repeat(4);
    check::<Sha256Hex>(
        &[&hash],
        &[
            "",
            &hash[1..],
            &format!("{hash}0"),
            &hash.to_uppercase(),
            &format!("{}g", &hash[1..]),
            &format!("0x{}", &hash[2..]),
        ],
    );
    check::<TxHash>(
        &[&format!("0x{hash}")],
        &[
            &hash,
            &format!("0X{hash}"),
            &format!("0x{}", &hash[1..]),
            &format!("0x{hash}0"),
            &format!("0x{}", hash.to_uppercase()),
        ],
    );
    check::<NewWalletName>(
        &["hot", "admin2"],
        &["admin", "server", "dev", "broker", "-a"],
    );
}

#[test]
fn numbers_have_both_their_ends() {
    fn ends<T: Integer + Param>(min: u64, max: u64) {
        assert_eq!((T::MIN, T::MAX), (min, max), "{}", T::KIND);
        for (number, good) in [(min, true), (max, true), (max + 1, false)] {
            let read = T::from_json(&Value::from(number)).ok().map(Integer::number);
            assert_eq!(read, good.then_some(number), "{} {number}", T::KIND);
        }
        let below = min
            .checked_sub(1)
            .map(|number| T::from_json(&Value::from(number)));
        assert!(below.is_none_or(|read| read.is_err()), "{}", T::KIND);
    }
    ends::<Vmid>(100, 999_999);
    ends::<Port>(1, 65_535);
    ends::<Seconds>(1, 600);
    ends::<CpuUnits>(1, 10_000);
    ends::<Iops>(1, 1_000_000);
    ends::<Metric>(1, 4_294_967_294);
    ends::<RateKbps>(8, 100_000_000);
    ends::<LeaseEnd>(1_700_000_000, 4_102_444_800);
    assert_eq!(Seconds::try_from(600_u16).map(Seconds::get), Ok(600));
    let wait = Seconds::try_from(7_u16).map(Seconds::duration);
    assert_eq!(wait, Ok(std::time::Duration::from_secs(7)));
    assert_eq!(Port::try_from(443_u16).map(Port::get), Ok(443));
    assert_eq!(CpuUnits::try_from(50_u16).map(CpuUnits::get), Ok(50));
    assert_eq!(Iops::try_from(500_u32).map(Iops::get), Ok(500));
    assert_eq!(RateKbps::try_from(9000_u32).map(RateKbps::get), Ok(9000));
}

#[test]
fn a_volume_stands_in_the_directory_of_its_machine_behind_a_base_and_nowhere_else() {
    check::<VolumeRef>(
        &[
            "vm-100-disk-0",
            "base-100-disk-0",
            "vm-100-cloudinit.qcow2",
            "vm-100-state-a",
            "100/vm-100-disk-0.qcow2",
            "base-9000-disk-0/vm-101-disk-0",
            "9000/base-9000-disk-0.qcow2/101/vm-101-disk-0.qcow2",
            "iso/debian-12.iso",
        ],
        &[
            "",
            "vm-100-x",
            "vm--disk-0",
            "vm-0100-disk-0",
            "101/vm-100-disk-0",
            "x/vm-100-disk-0",
            "vm-9000-disk-0/vm-101-disk-0",
            "base-9000-x/vm-101-disk-0",
            "base-9000-disk-0/x",
            "9001/base-9000-disk-0/101/vm-101-disk-0",
            "9000/vm-9000-disk-0/101/vm-101-disk-0",
            "9000/base-9000-disk-0/102/vm-101-disk-0",
            "9000/base-9000-disk-0/101/x",
            "9000/base-9000-disk-0/101",
            "iso/x.qcow2",
            "iso/../x.iso",
            "vm-100-disk-0+",
            "iso/.iso",
            "../vm-100-disk-0",
        ],
    );
    // Each part has at most 128 bytes, all together at most 256.
    let disk = |count: usize| format!("vm-101-disk-{}", "0".repeat(count - 12));
    let clone = |count: usize| {
        let base = format!("9000/base-9000-disk-{}/101/", "0".repeat(113));
        format!("{base}{}", disk(count - base.len()))
    };
    check::<VolumeRef>(
        &[&disk(128), &clone(256)],
        &[&disk(129), &clone(257), &clone(258)],
    );
    assert!("iso/a.iso".parse::<VolumeRef>().unwrap().is_iso());
    assert!(!"vm-100-disk-0".parse::<VolumeRef>().unwrap().is_iso());
}

#[test]
fn files_are_named_by_plain_components() {
    let part = long("a", 128);
    check::<ImagePath>(
        &[
            "a",
            "/a",
            "a/b.c",
            "_a",
            "a+b",
            &part,
            &format!("{part}/{part}"),
        ],
        &[
            "",
            "/",
            "a/",
            "//a",
            ".a",
            "-a",
            "+a",
            "a/../b",
            "a b",
            &long("a", 129),
            &[part.as_str(); 8].join("/"),
        ],
    );
    assert_eq!("x/y.raw".parse::<ImagePath>().unwrap().file_name(), "y.raw");
    let snippet: SnippetRef = "local:snippets/u.yaml".parse().unwrap();
    assert_eq!(
        (snippet.storage().as_str(), snippet.file()),
        ("local", "u.yaml")
    );
    check::<SnippetRef>(
        &[],
        &[
            "local:u.yaml",
            "local:snippets/a/b",
            "local:snippets/.a",
            "L:snippets/a",
        ],
    );
    check::<TemplateRef>(
        &[
            "a.tar",
            "b/a.tar.gz",
            "/b/a.tar.xz",
            "local:vztmpl/a.tar.zst",
            "local:vztmpl/a.tar.bz2",
        ],
        &[
            "a",
            "a.zip",
            ".tar",
            "b/.tar",
            "local:vztmpl/a",
            "local:vztmpl/.tar.gz",
            "local:iso/a.tar",
            "local:a.tar",
            "a.tar.gz.x",
        ],
    );
    check::<KeyFile>(
        &["hot.key", "/etc/blockhost/hot.key"],
        &[
            "",
            "/etc/blockhost/",
            "/etc/hot.key",
            "a/b",
            "../a",
            ".a",
            "/etc/blockhost//etc/blockhost/a",
        ],
    );
}

#[test]
fn paths_packages_and_modes_for_a_guest_cannot_be_more_than_that() {
    let part = long("a", 255);
    check::<GuestPath>(
        &[
            "/a",
            "/.a",
            "/a/b",
            "/..a",
            "/a@b=c~+-_",
            &format!("/{part}"),
            &format!("/{}", [part.as_str(); 4].join("/")),
        ],
        &[
            "",
            "/",
            "a",
            "/.",
            "/..",
            "/a/.",
            "/a/../b",
            "/a/",
            "//a",
            "/a:b",
            "/a,b",
            "/a b",
            &format!("/{part}a"),
            &format!("/{}/a", [part.as_str(); 4].join("/")),
        ],
    );
    check::<PackageName>(
        &["a", "0ad", "libstdc++6", "a.b-c", "g++", &long("a", 128)],
        &[
            "",
            "-a",
            "+a",
            ".a",
            "a-",
            "A",
            "a=1",
            "a/b",
            "a b",
            &long("a", 129),
        ],
    );
    check::<GuestText>(
        &["", "a\nb", &long("a", 16_384)],
        &["a\0", &long("a", 16_385)],
    );
    check::<GuestCommand>(&["a", &long("a", 16_384)], &["", "a\0", &long("a", 16_385)]);
    check::<FileMode>(
        &["000", "0644", "7777"],
        &["", "64", "06444", "0648", "0o644", "+644"],
    );
    let text = |text: &str| text.parse::<GuestText>().unwrap();
    assert!(text("a").is_one_line() && !text("a\nb").is_one_line() && !text("a\rb").is_one_line());
    assert_eq!(format!("{:?}", text("secret")), "GuestText(6 bytes)");
    let command: GuestCommand = "secret".parse().unwrap();
    assert_eq!(format!("{command:?}"), "GuestCommand(6 bytes)");
    assert_eq!("0644".parse::<FileMode>().unwrap().bits(), 0o644);
}

#[test]
fn processor_limits_are_hundredths_of_a_core() {
    check::<CpuLimit>(
        &["0", "0.5", "1.25", "128", "128.00"],
        &[
            "", ".5", "1.", "1.234", "1.a", "-1", "01", "128.01", "129", "1.+5",
        ],
    );
    for (text, hundredths, shown) in [
        ("2", 200, "2"),
        ("0.5", 50, "0.5"),
        ("0.50", 50, "0.5"),
        ("1.25", 125, "1.25"),
        ("1.05", 105, "1.05"),
        ("127.99", 12_799, "127.99"),
    ] {
        let limit: CpuLimit = text.parse().unwrap();
        assert_eq!(
            (limit.hundredths(), limit.to_string().as_str()),
            (hundredths, shown)
        );
    }
    assert_eq!(CpuLimit::NONE.hundredths(), 0);
    assert!(CpuLimit::from_json(&Value::from(2)).is_ok());
    for wrong in [
        Value::from(0.5),
        Value::from(-1),
        Value::from(2.0),
        Value::Null,
    ] {
        assert!(CpuLimit::from_json(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn sizes_end_at_64_terabytes() {
    check::<DiskSize>(
        &["1M", "1G", "1T", "+1M", "64T", "65536G", "67108864M"],
        &[
            "",
            "M",
            "0M",
            "0T",
            "65T",
            "65537G",
            "67108865M",
            "1",
            "1P",
            "1g",
            "01G",
            "-1G",
            "++1G",
            "1.5G",
            "18446744073709551615T",
        ],
    );
    let size: DiskSize = "+64T".parse().unwrap();
    assert_eq!((size.is_relative(), size.mib()), (true, 64 << 20));
}

#[test]
fn a_missing_parameter_is_a_missing_value_and_not_some_default() {
    assert_eq!(<Option<bool> as Param>::absent(), Some(None));
    assert_eq!(<bool as Param>::absent(), None);
    assert_eq!(Some(true).to_json(), Some(Value::Bool(true)));
    assert_eq!(None::<bool>.to_json(), None);
}
