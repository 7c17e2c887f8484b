//! The database under attack: damaged files, killed writers, many writers at once.

#![expect(
    clippy::disallowed_methods,
    reason = "the test starts copies of itself to kill them"
)]

mod common;

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use blockhost_proto::value::VmName;
use blockhost_provisioner::config::Config;
use blockhost_provisioner::record::Holder;
use blockhost_provisioner::store::{self, JsonStore, Pools, Store as _, StoreError, Wanted};
use common::TestWorld;

fn wanted(name: &str) -> Wanted {
    Wanted {
        name: name.parse().unwrap(),
        vmid: None,
        ip: None,
        ipv6: None,
        avoid: vec![],
        holder: Holder::current(),
        mock: false,
    }
}

/// A world whose pools are large.
fn large_world() -> TestWorld {
    let mut world = TestWorld::new();
    let text = "vmid_range: {start: 100, end: 9000}\nip_pool: {network: 10.77.0.0/16, start: 10.77.1.0, end: 10.77.200.0, gateway: 10.77.0.1}\nipv6_pool: {start: 16, end: 60000}\n";
    std::fs::write(world.layout.etc().join("db.yaml"), text).unwrap();
    world.config = Config::load(&world.layout).unwrap();
    world.store = JsonStore::new(&world.config.db.db_file, Pools::of(&world.config));
    world
}

const CHILD: &str = "BLOCKHOST_TEST_STORE_CHILD";

/// This test does nothing unless it is the child of one of those below: then it allocates and releases until it is
/// killed, or as often as it is told.
#[test]
fn helper_that_writes_when_it_is_a_child() {
    let Ok(text) = std::env::var(CHILD) else {
        return;
    };
    let mut words = text.split(' ');
    let (root, prefix, count): (&str, &str, u32) = (
        words.next().unwrap(),
        words.next().unwrap(),
        words.next().unwrap().parse().unwrap(),
    );
    let config = Config::load(&blockhost_proto::Layout::new(root)).unwrap();
    let store = store::open(&config).unwrap();
    for n in 0..count {
        let reservation = store.allocate(&wanted(&format!("{prefix}-{n}"))).unwrap();
        if n % 3 == 2 {
            store.release(&reservation.name).unwrap();
        }
    }
}

fn child(world: &TestWorld, prefix: &str, count: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "helper_that_writes_when_it_is_a_child",
            "--nocapture",
        ])
        .env(
            CHILD,
            format!("{} {prefix} {count}", world.directory.path().display()),
        )
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn killing_a_writer_at_any_moment_leaves_the_old_or_the_new_state() {
    let world = large_world();
    world.store.allocate(&wanted("first")).unwrap();
    for round in 0..30_u64 {
        let mut writer = child(&world, &format!("r{round}"), 100_000);
        std::thread::sleep(Duration::from_millis(15 + round * 7 % 60));
        writer.kill().unwrap();
        writer.wait().unwrap();
        // Readable, and the locks of the dead do not stop us.
        let held = world.store.reservations().unwrap();
        assert_consistent(&world.store);
        for reservation in held.iter().filter(|r| r.name.as_str() != "first") {
            assert!(!reservation.holder().is_alive());
            world.store.release(&reservation.name).unwrap();
        }
        assert_eq!(world.store.reservations().unwrap().len(), 1);
    }
}

fn assert_consistent(store: &JsonStore) {
    let text = std::fs::read_to_string(store.path()).unwrap();
    let database: serde_json::Value = serde_json::from_str(&text).unwrap();
    let held = store.reservations().unwrap();
    let ips: BTreeSet<_> = held.iter().map(|r| r.ip.to_string()).collect();
    let vmids: BTreeSet<_> = held.iter().map(|r| r.vmid).collect();
    let ipv6: BTreeSet<_> = held.iter().filter_map(|r| r.ipv6).collect();
    assert_eq!(
        (ips.len(), vmids.len(), ipv6.len()),
        (held.len(), held.len(), held.len())
    );
    let listed: BTreeSet<_> = database["allocated_ips"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, ips);
}

#[test]
fn processes_at_the_same_time_are_never_given_the_same_number_or_address() {
    let world = large_world();
    let writers: Vec<Child> = (0..6)
        .map(|n| child(&world, &format!("p{n}"), 60))
        .collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    assert_eq!(world.store.reservations().unwrap().len(), 6 * 40);
    assert_consistent(&world.store);
}

#[test]
fn a_damaged_file_is_reported_and_never_overwritten() {
    for text in [
        "",
        "{",
        "[]",
        "null",
        "{\"vms\": {}, \"vms\": {}}",
        "{\"vms\": {}, \"schema\": 1, \"schema\": 2}",
        "{\"reserved_nft_tokens\": {\"1\": {\"vm_name\": \"a\", \"status\": \"minted\", \"reserved_at\": \"2025-01-01T00:00:00Z\"}, \"1\": {\"vm_name\": \"b\", \"status\": \"minted\", \"reserved_at\": \"2025-01-01T00:00:00Z\"}}}",
        "\u{feff}{}",
        "{\"vms\": {\"a\": {}}}",
        "{\"vms\": [], \"next_vmid\": 1}",
        "{\"vms\": {}, \"allocated_ips\": [\"300.1.1.1\"]}",
        "{\"vms\": {\"b\": {\"vm_name\": \"a\", \"vmid\": 100, \"status\": \"active\", \"expires_at\": \"2026-01-01T00:00:00Z\", \"created_at\": \"2026-01-01T00:00:00Z\"}}}",
    ] {
        let world = TestWorld::new();
        std::fs::write(world.store.path(), text).unwrap();
        let name: VmName = "a".parse().unwrap();
        assert!(
            matches!(
                world.store.allocate(&wanted("x")),
                Err(StoreError::Damaged { .. })
            ),
            "{text}"
        );
        assert!(
            matches!(world.store.list(None), Err(StoreError::Damaged { .. })),
            "{text}"
        );
        assert!(
            world.store.release(&name).is_err() && world.store.reserve_token(1, &name).is_err(),
            "{text}"
        );
        assert_eq!(std::fs::read_to_string(world.store.path()).unwrap(), text);
    }
}

#[test]
fn a_database_of_many_thousands_of_machines_is_not_taken_for_damaged() {
    let world = TestWorld::new();
    let record = |n: u32| {
        let record = serde_json::json!({
            "vm_name": format!("vm-{n}"), "vmid": 100 + n, "ip_address": null, "ipv6_address": null, "owner": "o",
            "expires_at": "2026-01-01T00:00:00Z", "status": "destroyed", "created_at": "2026-01-01T00:00:00Z",
            "purpose": "", "wallet_address": null, "nft_token_id": n,
        });
        (format!("vm-{n}"), record)
    };
    let vms: serde_json::Map<_, _> = (0..20_000).map(record).collect();
    let text = serde_json::json!({"vms": vms, "next_vmid": 100}).to_string();
    std::fs::write(world.store.path(), text).unwrap();
    assert_eq!(world.store.list(None).unwrap().len(), 20_000);
    assert_eq!(
        world.store.allocate(&wanted("new")).unwrap().vmid.get(),
        100
    );
}

#[test]
fn what_root_writes_stays_the_services_and_links_in_their_directory_are_not_followed() {
    use std::os::unix::fs::MetadataExt as _;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let world = TestWorld::new();
    let state = world.layout.state();
    std::os::unix::fs::chown(&state, Some(12_345), Some(12_346)).unwrap();
    let precious = world.directory.path().join("precious");
    std::fs::write(&precious, "kept").unwrap();
    for link in ["vms.json.new", "vms.json.lock"] {
        std::os::unix::fs::symlink(&precious, state.join(link)).unwrap();
    }
    assert!(matches!(
        world.store.allocate(&wanted("web-1")),
        Err(StoreError::Io { .. })
    ));
    std::fs::remove_file(state.join("vms.json.lock")).unwrap();
    world.store.allocate(&wanted("web-1")).unwrap();
    for file in ["vms.json", "vms.json.lock"] {
        let metadata = std::fs::metadata(state.join(file)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (12_345, 12_346), "{file}");
    }
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "kept");
    assert_eq!(std::fs::metadata(&precious).unwrap().uid(), 0);
}

#[test]
fn exhausted_pools_and_wanted_values_in_use_have_their_own_errors() {
    let world = TestWorld::new();
    for n in 0..10 {
        world.store.allocate(&wanted(&format!("vm-{n}"))).unwrap();
    }
    let error = world.store.allocate(&wanted("one-more")).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Exhausted {
                what: "VM numbers",
                ..
            }
        ),
        "{error}"
    );
    world.store.release(&"vm-3".parse().unwrap()).unwrap();
    let with = |change: &dyn Fn(&mut Wanted)| {
        let mut wanted = wanted("special");
        change(&mut wanted);
        world.store.allocate(&wanted).unwrap_err().to_string()
    };
    assert!(with(&|w| w.vmid = Some("100".parse().unwrap())).contains("in use"));
    assert!(with(&|w| w.vmid = Some("5000".parse().unwrap())).contains("outside"));
    assert!(with(&|w| w.ip = Some("10.77.0.100".parse().unwrap())).contains("in use"));
    assert!(with(&|w| w.ip = Some("10.78.0.1".parse().unwrap())).contains("network"));
    assert!(with(&|w| w.ip = Some("10.77.0.1".parse().unwrap())).contains("network"));
    assert!(with(&|w| w.ipv6 = Some("fd77:b10c::1".parse().unwrap())).contains("in use"));
    assert!(with(&|w| w.ipv6 = Some("fd78::1".parse().unwrap())).contains("prefix"));
    let again = world.store.allocate(&wanted("again")).unwrap();
    assert_eq!(
        (again.vmid.get(), again.ip.to_string().as_str()),
        (103, "10.77.0.103")
    );
}

#[test]
fn numbers_of_the_backends_other_machines_are_not_given_out() {
    let world = TestWorld::new();
    let avoid = vec!["100".parse().unwrap(), "101".parse().unwrap()];
    let reservation = world
        .store
        .allocate(&Wanted {
            avoid,
            ..wanted("a")
        })
        .unwrap();
    assert_eq!(reservation.vmid.get(), 102);
}

#[test]
fn a_database_of_another_version_is_read_and_its_fields_are_kept() {
    let world = TestWorld::new();
    let text = r#"{"vms": {"old": {"vm_name": "old", "vmid": 105, "ip_address": "10.77.0.105", "ipv6_address": null,
        "expires_at": "2030-01-01T00:00:00", "owner": "o", "status": "active", "created_at": "2025-01-01T00:00:00.123456",
        "purpose": "", "wallet_address": null, "ip_note": [1, {"x": null}]}},
        "next_vmid": 105, "allocated_ips": ["10.77.0.105"], "allocated_ipv6": [], "reserved_nft_tokens": {"3": {"vm_name": "old", "status": "minted", "reserved_at": "2025-01-01T00:00:00Z", "tx": "0x1"}}, "schema": 2}"#;
    std::fs::write(world.store.path(), text).unwrap();
    assert_eq!(
        world.store.allocate(&wanted("new")).unwrap().vmid.get(),
        106
    );
    let after: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(world.store.path()).unwrap()).unwrap();
    assert_eq!(after["schema"], 2);
    assert_eq!(
        after["vms"]["old"]["ip_note"][1]["x"],
        serde_json::Value::Null
    );
    assert_eq!(after["reserved_nft_tokens"]["3"]["tx"], "0x1");
    assert!(matches!(
        world.store.reserve_token(3, &"new".parse().unwrap()),
        Err(StoreError::TokenTaken { .. })
    ));
}

#[test]
fn a_change_leaves_the_text_of_every_record_that_it_does_not_touch() {
    let world = TestWorld::new();
    // As another program may write it: its own order, spaces, escapes and numbers.
    let odd = r#"{ "colour":"\u0062lue", "weight" : 1e2,"status":"active","vmid":101,"vm_name":"odd","owner":"a\"b\\c",
"created_at":"2026-01-01T00:00:00","expires_at": "2026-01-01T00:00:00+01:00" }"#;
    let plain = r#"{"vm_name":"plain","vmid":102,"status":"active","expires_at":"2026-01-01T00:00:00Z","created_at":"2026-01-01T00:00:00Z"}"#;
    let text = format!(r#"{{"vms": {{"odd": {odd}, "plain": {plain}}}, "next_vmid": 103}}"#);
    std::fs::write(world.store.path(), text).unwrap();
    let later = "2027-01-01T00:00:00Z".parse().unwrap();
    let changed = world
        .store
        .extend_expiry(&"plain".parse().unwrap(), later)
        .unwrap();
    world.store.allocate(&wanted("new")).unwrap();
    let after = std::fs::read_to_string(world.store.path()).unwrap();
    assert!(after.contains(odd), "{after}");
    assert!(!after.contains(plain), "{after}");
    assert_eq!(world.store.get(&"plain".parse().unwrap()).unwrap(), changed);
    // And one that is touched keeps what it says.
    let touched = world
        .store
        .extend_expiry(&"odd".parse().unwrap(), later)
        .unwrap();
    assert_eq!(touched.extra["colour"], "blue");
    assert_eq!(world.store.get(&touched.vm_name).unwrap(), touched);
    let after = std::fs::read_to_string(world.store.path()).unwrap();
    assert!(!after.contains(odd), "{after}");
}

#[test]
fn damage_is_shown_at_its_line_in_the_file() {
    let world = TestWorld::new();
    let text = "{\n \"vms\": {\n  \"a\": {\n   \"vm_name\": \"a\",\n   \"vmid\": 7\n  }\n }\n}\n";
    std::fs::write(world.store.path(), text).unwrap();
    for error in [
        world.store.list(None).unwrap_err(),
        world.store.allocate(&wanted("x")).unwrap_err(),
    ] {
        assert!(error.to_string().contains("line 6 column 3"), "{error}");
    }
}
