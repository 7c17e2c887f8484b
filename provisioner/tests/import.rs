//! From a file database to a server: all of it, or nothing.

mod common;
#[path = "common/server.rs"]
mod server;

use blockhost_provisioner::record::{Holder, Reservation, VmRecord};
use blockhost_provisioner::store::{Identity, JsonStore, Pools, Store as _, StoreError, Wanted};
use blockhost_provisioner::time::Time;
use common::TestWorld;
use serde_json::json;
use server::Server;

fn wanted(text: &str) -> Wanted {
    Wanted {
        name: text.parse().unwrap(),
        vmid: None,
        ip: None,
        ipv6: None,
        avoid: vec![],
        holder: Holder::current(),
        mock: false,
    }
}

fn machine(store: &JsonStore, text: &str) -> VmRecord {
    let held: Reservation = store.allocate(&wanted(text)).unwrap();
    let record = json!({
        "vm_name": held.name, "vmid": held.vmid, "ip_address": held.ip, "ipv6_address": held.ipv6, "owner": "o",
        "status": "active", "expires_at": "2026-03-01T00:00:00Z", "created_at": "2026-01-01T00:00:00Z",
    });
    let record = serde_json::from_value(record).unwrap();
    store.register_vm(&record).unwrap();
    record
}

/// What the file's records say, with the host's name in those that named none.
fn with_host(file: &JsonStore, here: &Identity) -> (Vec<VmRecord>, Vec<Reservation>) {
    let (mut records, mut reservations) = file.everything().unwrap();
    for record in &mut records {
        record.node.get_or_insert_with(|| here.node.clone());
    }
    for reservation in &mut reservations {
        reservation.node.clone_from(&here.host_name);
    }
    (records, reservations)
}

#[test]
fn a_file_goes_whole_into_an_empty_server_or_not_at_all() {
    let Some(server) = Server::new() else { return };
    let world = TestWorld::new();
    let file: &JsonStore = &world.store;
    let kept = machine(file, "kept");
    let gone = machine(file, "gone");
    file.mark_destroyed(&gone.vm_name, Time::now()).unwrap();
    let made = file.allocate(&wanted("made")).unwrap();
    file.reserve_token(u64::MAX, &kept.vm_name).unwrap();
    // An address that another program holds back.
    let text = std::fs::read_to_string(file.path()).unwrap();
    let mut database: serde_json::Value = serde_json::from_str(&text).unwrap();
    database["allocated_ips"]
        .as_array_mut()
        .unwrap()
        .push(json!("10.77.0.110"));
    std::fs::write(file.path(), database.to_string()).unwrap();

    let store = server.store(&Pools::of(&world.config));
    let here = Identity {
        node: "host-a".into(),
        host_name: "a".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
    };
    let contents = file.contents().unwrap();
    // Two machines with one address: the file is refused, and nothing of it is there.
    let mut double = contents.clone();
    let twin = VmRecord {
        vm_name: "twin".parse().unwrap(),
        vmid: "109".parse().unwrap(),
        ..kept.clone()
    };
    double.vms.push(twin);
    assert!(matches!(
        store.import(&double, &here),
        Err(StoreError::Unavailable {
            what: "IPv4 address",
            ..
        })
    ));
    assert!(store.list(None).unwrap().is_empty());

    assert_eq!(store.import(&contents, &here).unwrap(), 2);
    assert_eq!(store.everything().unwrap(), with_host(file, &here));
    assert!(store.import(&contents, &here).is_err(), "only once");
    assert_eq!(store.everything().unwrap(), with_host(file, &here));
    let kept = store.get(&kept.vm_name).unwrap();
    assert_eq!(kept.node.as_deref(), Some("host-a"), "whose it is");
    for ip in [
        "10.77.0.110".parse().unwrap(),
        kept.ip_address.unwrap(),
        made.ip,
    ] {
        assert!(
            store
                .allocate(&Wanted {
                    ip: Some(ip),
                    ..wanted("new")
                })
                .is_err(),
            "{ip}"
        );
    }
    assert!(matches!(
        store.reserve_token(u64::MAX, &made.name),
        Err(StoreError::TokenTaken { .. })
    ));
    let next = store.preview(&wanted("new")).unwrap();
    assert_eq!(next.vmid, file.preview(&wanted("new")).unwrap().vmid);
}
