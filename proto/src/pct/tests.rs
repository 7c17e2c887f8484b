//! Container options: what is accepted comes out canonical and is accepted again; what is refused stands in the hostile
//! list too.

use proptest::prelude::*;
use serde_json::json;

use super::key::{KEY_PATTERN, PLAIN_KEYS};
use super::*;
use crate::value::Param;

#[test]
fn good_options_come_out_canonical_and_are_accepted_again() {
    for (key, value, canonical) in [
        ("arch", "amd64", "amd64"),
        ("cores", "2", "2"),
        ("cpulimit", "0.50", "0.5"),
        ("cpuunits", "100", "100"),
        ("features", "nesting=1,fuse=0", "fuse=0,nesting=1"),
        ("hostname", "web-1", "web-1"),
        ("memory", "512", "512"),
        ("swap", "0", "0"),
        ("rootfs", "local-lvm:8", "local-lvm:8"),
        (
            "timezone",
            "America/Argentina/Salta",
            "America/Argentina/Salta",
        ),
        ("unprivileged", "1", "1"),
        (
            "net0",
            "ip6=auto,name=eth0,tag=7,bridge=vmbr0,hwaddr=bc:24:11:00:00:01,gw=10.0.0.1,ip=10.0.0.2/24,rate=12.50,mtu=1500,firewall=1",
            "name=eth0,bridge=vmbr0,firewall=1,hwaddr=BC:24:11:00:00:01,ip=10.0.0.2/24,gw=10.0.0.1,ip6=auto,mtu=1500,rate=12.5,tag=7",
        ),
        (
            "net31",
            "name=e,bridge=b,ip6=2001:DB8::2/64,gw6=fe80::1",
            "name=e,bridge=b,ip6=2001:db8::2/64,gw6=fe80::1",
        ),
    ] {
        let option = PctOption::parse(key, value).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(option.value(), canonical, "{key}");
        assert_eq!(option.key().to_string(), key);
        assert_eq!(PctOption::parse(key, canonical).unwrap(), option);
    }
}

#[test]
fn every_key_of_the_schema_is_a_key_and_no_more() {
    for (name, key) in PLAIN_KEYS {
        assert_eq!(PctKey::read(name), Some(key));
        assert!(KEY_PATTERN.contains(name), "{name}");
    }
    for name in [
        "mp0",
        "dev0",
        "lxc.idmap",
        "hookscript",
        "lock",
        "net32",
        "net01",
        "",
    ] {
        assert_eq!(PctKey::read(name), None, "{name}");
    }
}

#[test]
fn rules_that_list_a_closed_set_list_all_of_it() {
    for (key, set) in [
        (PctKey::Arch, scalar::ARCH),
        (PctKey::OsType, scalar::OSTYPE),
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
fn policy_sees_every_bridge_and_the_storage() {
    let options = PctOptions::from_json(&json!({
        "net0": "name=eth0,bridge=vmbr0", "net1": "name=eth1,bridge=evil0", "rootfs": "other:1",
    }))
    .unwrap();
    let bridges: Vec<&str> = options.bridges().map(IfName::as_str).collect();
    assert_eq!(bridges, ["vmbr0", "evil0"]);
    assert_eq!(options.root_storage().unwrap().as_str(), "other");
    assert_eq!(options.only_at_creation(), Some(PctKey::RootFs));
}

fn keys() -> impl Strategy<Value = String> {
    let plain = prop::sample::select(PLAIN_KEYS.to_vec()).prop_map(|(name, _)| name.to_owned());
    prop_oneof![plain, "net[0-9]{1,2}", any::<String>()]
}

fn values() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z0-9=:;,./+_\n-]{0,40}",
        "name=[a-z0-9]{1,8},bridge=[a-z0-9]{1,8}(,(tag|rate|mtu|firewall|hwaddr)=[0-9A-F:.]{1,17}){0,3}",
        "(nesting|fuse|keyctl|mount|mknod)=[01](,(nesting|fuse)=[01])?",
        "[0-9]{1,8}(\\.[0-9]{1,3})?",
    ]
}

proptest! {
    #[test]
    fn no_option_panics_and_every_accepted_one_comes_back(key in keys(), value in values()) {
        match PctOption::parse(&key, &value) {
            Ok(option) => {
                let canonical = option.value();
                prop_assert!(canonical.bytes().all(|b| (b' '..=b'~').contains(&b) || key == "ssh-public-keys"));
                prop_assert!(!canonical.starts_with('-'));
                prop_assert_eq!(PctOption::parse(&key, &canonical).unwrap(), option);
            }
            Err(error) => prop_assert!(error.to_string().bytes().all(|b| (b' '..=b'~').contains(&b))),
        }
    }
}

#[test]
fn the_reference_lists_every_option_with_its_rule_by_name() {
    let list = PctKey::reference();
    assert_eq!(list.len(), PLAIN_KEYS.len() + 1);
    assert!(list.is_sorted());
    for (name, key) in PLAIN_KEYS {
        assert!(list.contains(&(name.to_owned(), key.rule())), "{name}");
        assert!(!key.rule().is_empty());
    }
    assert!(list.contains(&("net0..net31".to_owned(), ContainerNet::RULE)));
    assert_eq!(PctKey::read("net31"), Some(PctKey::Net(31)));
    assert!(PctKey::Arch < PctKey::Cores && PctKey::Net(2) > PctKey::Net(10));
    assert_eq!(
        PctKey::Swap.partial_cmp(&PctKey::Swap),
        Some(std::cmp::Ordering::Equal)
    );
}

#[test]
fn each_feature_is_its_own_and_is_given_once() {
    let read = |text: &str| Features::read(text).map(|f| (f.fuse, f.keyctl, f.nesting));
    assert_eq!(read("fuse=1"), Some((Some(true), None, None)));
    assert_eq!(read("keyctl=1"), Some((None, Some(true), None)));
    assert_eq!(
        read("nesting=0,keyctl=0"),
        Some((None, Some(false), Some(false)))
    );
    for bad in [
        "",
        "fuse",
        "fuse=2",
        "fuse=1,fuse=1",
        "mount=1",
        "mknod=1",
        "fuse=1,",
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn a_time_zone_is_up_to_three_words_that_lead_nowhere_else() {
    let longest = format!("A{}", "b".repeat(31));
    for good in ["host", "A", "Etc/GMT+1", "a/b-c/d_e", &longest] {
        assert!(Timezone::read(good).is_some(), "{good}");
        assert_eq!(Timezone::read(good).unwrap().as_str(), good);
    }
    for bad in [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "1a",
        "_a",
        "a/1",
        "a/..",
        "..",
        "a b",
        "a.b",
        "ä",
        "a/b/c/d",
        &format!("{longest}b"),
    ] {
        assert!(Timezone::read(bad).is_none(), "{bad}");
    }
    for (text, good) in [
        ("local:1", true),
        ("local:65536", true),
        ("local:0", false),
        ("local:65537", false),
        ("local:", false),
        ("local", false),
        (":1", false),
        ("local:01", false),
        ("local:8G", false),
        ("/dev/sda:1", false),
    ] {
        assert_eq!(RootFs::read(text).is_some(), good, "{text}");
    }
}
