//! What every database of machines does, tried on both: the file and the server.

mod common;
#[path = "common/server.rs"]
mod server;

use blockhost_proto::value::{EthAddress, VmName};
use blockhost_provisioner::config::Config;
use blockhost_provisioner::record::{Holder, Reservation, Status, Step, VmRecord};
use blockhost_provisioner::store::{Pools, Store, StoreError, Wanted};
use blockhost_provisioner::throttle::{Change, Throttle};
use blockhost_provisioner::time::Time;
use common::TestWorld;
use serde_json::json;
use server::Server;

macro_rules! on_both {
    ($($name:ident)+) => {
        mod file {
            $(#[test] fn $name() {
                let world = super::TestWorld::new();
                super::$name(&world.store);
            })+
        }
        mod postgresql {
            $(#[test] fn $name() {
                let Some(server) = super::Server::new() else { return };
                super::$name(&server.store(&super::pools()));
            })+
        }
    };
}

on_both! {
    what_is_promised_is_not_promised_again
    a_pool_that_is_exhausted_says_so_and_gives_again_what_comes_back
    a_machine_goes_through_its_life_and_its_addresses_come_back
    a_machine_that_was_paid_meanwhile_is_not_suspended
    nothing_is_done_to_what_does_not_exist_or_is_destroyed
    a_token_belongs_to_one_machine
    a_token_that_was_only_promised_is_free_with_the_end_of_its_machine
    a_token_that_turns_out_to_be_anothers_changes_hands
    a_reservation_is_taken_over_only_from_the_dead
    steps_are_noted_once_and_only_in_a_reservation
    fields_of_other_versions_and_odd_texts_survive
    limits_are_kept
}

fn pools() -> Pools {
    let world = TestWorld::new();
    Pools::of(&Config::load(&world.layout).unwrap())
}

fn name(text: &str) -> VmName {
    text.parse().unwrap()
}

fn wanted(text: &str) -> Wanted {
    Wanted {
        name: name(text),
        vmid: None,
        ip: None,
        ipv6: None,
        avoid: vec![],
        holder: Holder::current(),
        mock: false,
    }
}

fn record(reservation: &Reservation) -> VmRecord {
    serde_json::from_value(json!({
        "vm_name": reservation.name, "vmid": reservation.vmid, "ip_address": reservation.ip,
        "ipv6_address": reservation.ipv6, "expires_at": "2026-03-01T00:00:00Z", "owner": "o", "status": "active",
        "created_at": "2026-01-01T00:00:00Z", "purpose": "", "wallet_address": null,
    }))
    .unwrap()
}

/// A registered machine.
fn machine(store: &dyn Store, text: &str) -> VmRecord {
    let record = record(&store.allocate(&wanted(text)).unwrap());
    store.register_vm(&record).unwrap();
    record
}

fn at(text: &str) -> Time {
    text.parse().unwrap()
}

fn what_is_promised_is_not_promised_again(store: &dyn Store) {
    let first = store.allocate(&wanted("a")).unwrap();
    assert!(matches!(
        store.allocate(&wanted("a")),
        Err(StoreError::InTheMaking(_))
    ));
    assert!(matches!(
        store.preview(&wanted("a")),
        Err(StoreError::InTheMaking(_))
    ));
    let preview = store.preview(&wanted("b")).unwrap();
    let second = store.allocate(&wanted("b")).unwrap();
    assert_eq!(
        (preview.vmid, preview.ip, preview.ipv6),
        (second.vmid, second.ip, second.ipv6)
    );
    assert!(first.vmid != second.vmid && first.ip != second.ip && first.ipv6 != second.ipv6);
    store.register_vm(&record(&first)).unwrap();
    assert!(matches!(
        store.allocate(&wanted("a")),
        Err(StoreError::NameTaken { .. })
    ));
    assert!(matches!(
        store.register_vm(&record(&first)),
        Err(StoreError::NameTaken { .. })
    ));
    for taken in [
        Wanted {
            vmid: Some(first.vmid),
            ..wanted("c")
        },
        Wanted {
            ip: Some(first.ip),
            ..wanted("c")
        },
        Wanted {
            ipv6: first.ipv6,
            ..wanted("c")
        },
        Wanted {
            vmid: Some("5000".parse().unwrap()),
            ..wanted("c")
        },
    ] {
        assert!(
            matches!(store.allocate(&taken), Err(StoreError::Unavailable { .. })),
            "{taken:?}"
        );
    }
    let avoid = vec!["102".parse().unwrap(), "103".parse().unwrap()];
    let third = store
        .allocate(&Wanted {
            avoid,
            ..wanted("c")
        })
        .unwrap();
    assert_eq!(third.vmid.get(), 104);
    let names: Vec<VmName> = store
        .reservations()
        .unwrap()
        .into_iter()
        .map(|r| r.name)
        .collect();
    assert_eq!(names, [name("b"), name("c")]);
    let (records, reservations) = store.everything().unwrap();
    assert_eq!((records.len(), reservations.len()), (1, 2));
}

fn a_pool_that_is_exhausted_says_so_and_gives_again_what_comes_back(store: &dyn Store) {
    for n in 0..10 {
        store.allocate(&wanted(&format!("vm-{n}"))).unwrap();
    }
    let error = store.allocate(&wanted("more")).unwrap_err();
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
    store.release(&name("vm-3")).unwrap();
    store.release(&name("vm-3")).unwrap();
    let again = store.allocate(&wanted("more")).unwrap();
    assert_eq!(
        (again.vmid.get(), again.ip.to_string().as_str()),
        (103, "10.77.0.103")
    );
}

fn a_machine_goes_through_its_life_and_its_addresses_come_back(store: &dyn Store) {
    let vm = machine(store, "a");
    assert!(store.reservations().unwrap().is_empty());
    // A registered machine has no reservation that could be released under it.
    store.release(&vm.vm_name).unwrap();
    assert!(
        store
            .allocate(&Wanted {
                ip: vm.ip_address,
                ..wanted("b")
            })
            .is_err()
    );
    assert_eq!(store.get(&vm.vm_name).unwrap(), vm);
    assert!(
        store
            .vms_to_suspend(at("2026-02-28T23:59:59Z"))
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        store
            .vms_to_suspend(at("2026-03-01T00:00:00Z"))
            .unwrap()
            .len(),
        1
    );
    let now = at("2026-03-02T00:00:00Z");
    let suspended = store.mark_suspended(&vm, now).unwrap();
    assert_eq!(
        (suspended.status, suspended.suspended_at),
        (Status::Suspended, Some(now))
    );
    let again = store
        .mark_suspended(&suspended, at("2026-03-05T00:00:00Z"))
        .unwrap();
    assert_eq!(again.suspended_at, Some(now), "it keeps its date");
    assert!(
        store
            .vms_to_destroy(at("2026-03-08T23:59:59Z"), 7)
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        store
            .vms_to_destroy(at("2026-03-09T00:00:00Z"), 7)
            .unwrap()
            .len(),
        1
    );
    let later = at("2026-06-01T00:00:00Z");
    store.extend_expiry(&vm.vm_name, later).unwrap();
    assert!(
        store
            .vms_to_destroy(at("2026-05-01T00:00:00Z"), 7)
            .unwrap()
            .is_empty(),
        "it is paid for, though it is not resumed yet"
    );
    let active = store.mark_active(&vm.vm_name, Some(later)).unwrap();
    assert_eq!(
        (active.status, active.suspended_at, active.expires_at),
        (Status::Active, None, later)
    );
    assert_eq!(
        store.extend_expiry(&vm.vm_name, now).unwrap().expires_at,
        now
    );
    let gone = store.mark_destroyed(&vm.vm_name, later).unwrap();
    assert_eq!(
        (gone.status, gone.destroyed_at),
        (Status::Destroyed, Some(later))
    );
    assert_eq!(
        store.mark_destroyed(&vm.vm_name, now).unwrap(),
        gone,
        "again: nothing changes"
    );
    let count = |status| store.list(status).unwrap().len();
    assert_eq!(
        (
            count(None),
            count(Some(Status::Destroyed)),
            count(Some(Status::Active))
        ),
        (1, 1, 0)
    );
    // The name, the number and the addresses are free again.
    let new = store
        .allocate(&Wanted {
            vmid: Some(vm.vmid),
            ip: vm.ip_address,
            ipv6: vm.ipv6_address,
            ..wanted("a")
        })
        .unwrap();
    store.register_vm(&record(&new)).unwrap();
    assert_eq!(count(None), 1);
}

fn a_machine_that_was_paid_meanwhile_is_not_suspended(store: &dyn Store) {
    let seen = machine(store, "a");
    let later = at("2027-01-01T00:00:00Z");
    store.extend_expiry(&seen.vm_name, later).unwrap();
    let kept = store
        .mark_suspended(&seen, at("2026-03-02T00:00:00Z"))
        .unwrap();
    assert_eq!((kept.status, kept.expires_at), (Status::Active, later));
}

fn nothing_is_done_to_what_does_not_exist_or_is_destroyed(store: &dyn Store) {
    let now = Time::now();
    let wallet: EthAddress = "0x52908400098527886E0F7030069857D2E4169EE7"
        .parse()
        .unwrap();
    let nobody = name("nobody");
    let vm = machine(store, "a");
    let everything = |name: &VmName| -> Vec<Result<VmRecord, StoreError>> {
        vec![
            store.mark_active(name, None),
            store.extend_expiry(name, now),
            store.set_access(name, wallet, Some(1), true),
            store.set_throttle(name, &Change::default()),
            store.mark_suspended(
                &VmRecord {
                    vm_name: name.clone(),
                    ..vm.clone()
                },
                now,
            ),
        ]
    };
    for result in everything(&nobody)
        .into_iter()
        .chain([store.mark_destroyed(&nobody, now), store.get(&nobody)])
    {
        assert!(
            matches!(result, Err(StoreError::UnknownVm { .. })),
            "{result:?}"
        );
    }
    assert!(matches!(
        store.mint_token(1, &nobody),
        Err(StoreError::UnknownVm { .. })
    ));
    store.mark_destroyed(&vm.vm_name, now).unwrap();
    for result in everything(&vm.vm_name) {
        assert!(
            matches!(result, Err(StoreError::WrongStatus { .. })),
            "{result:?}"
        );
    }
}

fn a_token_belongs_to_one_machine(store: &dyn Store) {
    let (a, b) = (machine(store, "a").vm_name, machine(store, "b").vm_name);
    let largest = u64::MAX;
    for token in [0, 7, largest] {
        store.reserve_token(token, &a).unwrap();
        store.reserve_token(token, &a).unwrap();
        let taken =
            |result: Result<(), StoreError>| matches!(result, Err(StoreError::TokenTaken { .. }));
        assert!(taken(store.reserve_token(token, &b)) && taken(store.mint_token(token, &b)));
        store.fail_token(token, &b).unwrap();
        assert!(
            taken(store.reserve_token(token, &b)),
            "only its own machine gives it back"
        );
        store.fail_token(token, &a).unwrap();
        store.reserve_token(token, &b).unwrap();
        store.mint_token(token, &b).unwrap();
        assert!(taken(store.reserve_token(token, &a)));
        store.fail_token(token, &b).unwrap();
        assert!(
            taken(store.reserve_token(token, &a)),
            "what is on the chain stays there"
        );
    }
    let vm = store.get(&b).unwrap();
    assert_eq!(
        (vm.nft_token_id, vm.nft_minted),
        (Some(largest), Some(true))
    );
}

fn a_token_that_was_only_promised_is_free_with_the_end_of_its_machine(store: &dyn Store) {
    let (gone, other) = (machine(store, "gone").vm_name, name("other"));
    let made = store.allocate(&wanted("made")).unwrap().name;
    for (token, holder) in [(1, &gone), (2, &gone), (3, &made), (4, &other)] {
        store.reserve_token(token, holder).unwrap();
    }
    store.mint_token(2, &gone).unwrap();
    let new = name("new");
    // There is no reservation: nothing happens.
    store.release(&other).unwrap();
    store.release(&gone).unwrap();
    for token in 1..=4 {
        assert!(store.reserve_token(token, &new).is_err(), "{token}");
    }
    store.release(&made).unwrap();
    store.mark_destroyed(&gone, Time::now()).unwrap();
    for (token, free) in [(1, true), (2, false), (3, true), (4, false)] {
        assert_eq!(store.reserve_token(token, &new).is_ok(), free, "{token}");
    }
}

fn a_token_that_turns_out_to_be_anothers_changes_hands(store: &dyn Store) {
    let (a, b) = (machine(store, "a").vm_name, machine(store, "b").vm_name);
    let of = |name| store.get(name).unwrap().nft_token_id;
    store.mint_token(5, &a).unwrap();
    store.mint_token(6, &b).unwrap();
    // What another machine has is not taken, and only the machine itself lets go.
    assert!(matches!(
        store.mint_token(6, &a),
        Err(StoreError::TokenTaken { .. })
    ));
    store.disown_token(6, &a).unwrap();
    assert_eq!((of(&a), of(&b)), (Some(5), Some(6)));
    assert!(store.mint_token(6, &a).is_err());
    // The two are exchanged.
    store.disown_token(6, &b).unwrap();
    assert_eq!((of(&a), of(&b)), (Some(5), None));
    store.mint_token(6, &a).unwrap();
    store.mint_token(5, &b).unwrap();
    assert_eq!((of(&a), of(&b)), (Some(6), Some(5)));
    // What a machine had before is free with its new one.
    store.mint_token(7, &a).unwrap();
    store.mint_token(6, &b).unwrap();
    assert_eq!((of(&a), of(&b)), (Some(7), Some(6)));
    let nobody: VmName = "nobody".parse().unwrap();
    assert!(matches!(
        store.disown_token(7, &nobody),
        Err(StoreError::UnknownVm { .. })
    ));
}

fn a_reservation_is_taken_over_only_from_the_dead(store: &dyn Store) {
    let me = Holder::current();
    let dead = Holder {
        start: me.start + 1,
        ..me.clone()
    };
    let of = |text: &str, holder: &Holder| {
        store
            .allocate(&Wanted {
                holder: holder.clone(),
                ..wanted(text)
            })
            .unwrap()
    };
    let left = of("dead", &dead);
    let living = of(
        "living",
        &Holder {
            pid: std::os::unix::process::parent_id(),
            start: parent_start(),
            ..me.clone()
        },
    );
    assert_eq!(store.take_over(&living, &me).unwrap(), None);
    let ours = store.take_over(&left, &me).unwrap().unwrap();
    assert_eq!((ours.pid, ours.pid_start), (me.pid, me.start));
    assert_eq!(
        store.take_over(&left, &me).unwrap(),
        None,
        "it is not as it was any more"
    );
    store.release(&left.name).unwrap();
    assert_eq!(store.take_over(&ours, &me).unwrap(), None);
}

fn parent_start() -> u64 {
    let pid = std::os::unix::process::parent_id();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_whitespace().nth(19).unwrap().parse().unwrap()
}

fn steps_are_noted_once_and_only_in_a_reservation(store: &dyn Store) {
    assert!(matches!(
        store.begin_step(&name("a"), Step::Clone),
        Err(StoreError::UnknownVm { .. })
    ));
    store.allocate(&wanted("a")).unwrap();
    for step in [Step::Snippet, Step::Clone, Step::Clone] {
        store.begin_step(&name("a"), step).unwrap();
    }
    assert_eq!(
        store.reservations().unwrap()[0].steps,
        [Step::Snippet, Step::Clone]
    );
}

fn fields_of_other_versions_and_odd_texts_survive(store: &dyn Store) {
    let reservation = store.allocate(&wanted("a")).unwrap();
    let mut vm = record(&reservation);
    vm.owner = "ünï \"'; DROP TABLE machine; -- \\ \u{1F600}\n\u{1}".into();
    vm.extra
        .insert("note".into(), json!([1, {"x": null, "big": u64::MAX}]));
    store.register_vm(&vm).unwrap();
    store.extend_expiry(&vm.vm_name, vm.expires_at).unwrap();
    assert_eq!(store.get(&vm.vm_name).unwrap(), vm);
    assert_eq!(store.list(Some(Status::Active)).unwrap(), [vm]);
}

fn limits_are_kept(store: &dyn Store) {
    let vm = machine(store, "a");
    let named = Throttle {
        iops_read: Some("500".parse().unwrap()),
        ..Throttle::default()
    };
    store
        .set_throttle(
            &vm.vm_name,
            &Change {
                named,
                reset: false,
            },
        )
        .unwrap();
    assert_eq!(store.get(&vm.vm_name).unwrap().throttle, named);
    let reset = Change {
        reset: true,
        ..Change::default()
    };
    for _ in 0..2 {
        assert_eq!(store.set_throttle(&vm.vm_name, &reset).unwrap(), vm);
    }
}
