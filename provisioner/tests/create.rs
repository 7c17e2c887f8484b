//! Creating, failing, crashing, resuming: what is asked of the agent in which order, and what is left behind.

mod common;

use blockhost_proto::ErrorCode;
use blockhost_proto::client::CallError;
use blockhost_provisioner::cli::Failure;
use blockhost_provisioner::create::{CreateError, create, preview};
use blockhost_provisioner::lifecycle::{self, LifecycleError};
use blockhost_provisioner::progress::Progress;
use blockhost_provisioner::record::{Holder, Status, Step};
use blockhost_provisioner::store::{Store as _, StoreError, Wanted};
use blockhost_provisioner::time::Time;
use blockhost_provisioner::undo;
use common::{FakeMachine, TestWorld, refused, request};
use std::time::Duration;

fn run(
    world: &TestWorld,
    name: &str,
) -> Result<blockhost_provisioner::create::Created, CreateError> {
    world.with(|w| create(w, &request(name), &mut Progress::silent()))
}

/// As a process that was killed leaves it.
fn leave_behind(world: &TestWorld, name: &str, steps: &[Step]) {
    let wanted = Wanted {
        name: name.parse().unwrap(),
        vmid: None,
        ip: None,
        ipv6: None,
        avoid: vec![],
        holder: Holder {
            start: 1,
            ..Holder::current()
        },
        mock: false,
    };
    world.store.allocate(&wanted).unwrap();
    for step in steps {
        world.store.begin_step(&wanted.name, *step).unwrap();
    }
}

#[test]
fn a_failure_at_any_action_leaves_nothing_behind() {
    for action in [
        "qm-clone",
        "qm-set",
        "qm-resize",
        "qm-start",
        "ip6-route-add",
    ] {
        let world = TestWorld::new();
        world.recorder.broken.borrow_mut().push(action);
        let error = run(&world, "web-1").unwrap_err();
        let CreateError::Undone { report, cause } = error else {
            panic!("{action}: {error}")
        };
        assert!(report.is_clean(), "{action}: {report:?}");
        assert!(cause.to_string().contains(action), "{cause}");
        world.assert_empty();
    }
}

#[test]
fn a_signal_at_any_action_leaves_nothing_behind() {
    for action in [
        "qm-list",
        "pct-list",
        "qm-clone",
        "qm-set",
        "qm-start",
        "ip6-route-add",
        "qm-guest-ping",
        "qm-guest-exec",
    ] {
        let world = TestWorld::new();
        *world.recorder.interrupt_after.borrow_mut() = Some((action, world.interrupt.clone()));
        let error = run(&world, "web-1").unwrap_err();
        assert!(
            matches!(&error, CreateError::Undone { cause, .. } if matches!(**cause, CreateError::Interrupted)),
            "{action}: {error}"
        );
        world.assert_empty();
    }
}

#[test]
fn what_cannot_be_undone_is_reported_and_its_number_is_not_given_out_again() {
    let world = TestWorld::new();
    *world.recorder.broken.borrow_mut() = vec!["qm-start", "qm-destroy"];
    let CreateError::Undone { report, .. } = run(&world, "web-1").unwrap_err() else {
        panic!()
    };
    assert_eq!(report.failed.len(), 1, "{report:?}");
    assert!(
        report.failed[0].contains("VM 100 could not be destroyed"),
        "{report:?}"
    );
    world.recorder.broken.borrow_mut().clear();
    assert_eq!(run(&world, "web-2").unwrap().record.vmid.get(), 101);
}

/// Ways in which the agent does not serve, and whether that is for want of it: then exit code 6 says that this attempt
/// is nobody's fault.
const UNSERVED: [(bool, fn() -> CallError); 6] = [
    (true, || CallError::Connect {
        path: "/run/blockhost/root-agent.sock".into(),
        source: std::io::ErrorKind::ConnectionRefused.into(),
    }),
    (true, || CallError::Timeout {
        after: Duration::from_secs(9),
    }),
    (true, || CallError::Protocol {
        what: "it ended in the middle".into(),
    }),
    (true, || refused(ErrorCode::Busy, "too much at once")),
    (false, || refused(ErrorCode::Failed, "no space left")),
    (false, || refused(ErrorCode::Timeout, "killed after 60 s")),
];

#[test]
fn what_fails_for_want_of_the_agent_says_so_also_in_the_middle_and_what_the_agent_refuses_does_not()
{
    for (away, how) in UNSERVED {
        let code = |error: Failure| assert_eq!(error.code == 6, away, "{:?}: {error:?}", how());
        for action in ["qm-list", "qm-clone", "qm-config", "ip6-route-del"] {
            let world = TestWorld::new();
            *world.recorder.broken.borrow_mut() = vec![action];
            *world.recorder.breaks_with.borrow_mut() = Some(how);
            if matches!(action, "qm-config" | "ip6-route-del") {
                // What an earlier one left cannot be taken back.
                let steps = [Step::Snippet, Step::Clone, Step::Route];
                leave_behind(&world, "web-1", &steps);
            }
            code(run(&world, "web-1").unwrap_err().into());
        }
        // A machine of which a part is left.
        let world = TestWorld::new();
        let made = run(&world, "web-1").unwrap().record;
        *world.recorder.breaks_with.borrow_mut() = Some(how);
        for broken in ["qm-destroy", "ip6-route-del"] {
            *world.recorder.broken.borrow_mut() = vec![broken];
            let error = world
                .with(|w| lifecycle::destroy(w, &made.vm_name))
                .unwrap_err();
            assert!(matches!(error, LifecycleError::Partly { .. }), "{error}");
            code(error.into());
        }
    }
}

#[test]
fn a_number_that_a_container_has_is_not_given_to_a_machine_and_one_that_is_taken_is_passed_over() {
    let world = TestWorld::new();
    world.recorder.containers.borrow_mut().push(100);
    // Nobody tells of these: made a moment ago, or on another node.
    world.recorder.hidden.borrow_mut().extend([101, 102]);
    let mut wanted = request("web-1");
    wanted.nft_token_id = Some(7);
    let created = world
        .with(|w| create(w, &wanted, &mut Progress::silent()))
        .unwrap();
    assert_eq!(created.record.vmid.get(), 103);
    assert_eq!(created.record.ip_address, "10.77.0.100".parse().ok());
    assert!(world.store.reservations().unwrap().is_empty());
    assert!(!world.recorder.asked.borrow().contains(&"qm-destroy"));
    assert!(
        world
            .store
            .reserve_token(7, &"other".parse().unwrap())
            .is_err()
    );
    // A number that was asked for is not exchanged, and what has it is left alone.
    let mut wanted = request("web-2");
    wanted.vmid = "102".parse().ok();
    let error = world
        .with(|w| create(w, &wanted, &mut Progress::silent()))
        .unwrap_err();
    let CreateError::Undone { report, cause } = error else {
        panic!("{error}")
    };
    assert!(matches!(*cause, CreateError::NumberTaken { .. }), "{cause}");
    assert!(report.is_clean(), "{report:?}");
    // Where everything is taken, the search ends.
    world.recorder.hidden.borrow_mut().extend(103..=109);
    assert!(run(&world, "web-3").is_err());
    assert!(world.store.reservations().unwrap().is_empty());
}

#[test]
fn a_machine_under_our_number_that_is_not_ours_is_never_destroyed() {
    let world = TestWorld::new();
    leave_behind(&world, "web-1", &[Step::Snippet, Step::Clone]);
    let foreign = FakeMachine {
        name: "somebody".into(),
        running: true,
        template: false,
        onboot: false,
    };
    world.recorder.machines.borrow_mut().insert(100, foreign);
    let error = run(&world, "web-1").unwrap_err();
    assert!(
        matches!(&error, CreateError::Undone { report, .. } if report.failed[0].contains("somebody")),
        "{error:?}"
    );
    assert!(world.recorder.machines.borrow()[&100].running);
}

#[test]
fn running_it_again_after_a_crash_at_any_step_makes_one_machine() {
    let steps = [Step::Snippet, Step::Clone, Step::Start, Step::Route];
    for count in 0..=steps.len() {
        for really_there in [false, true] {
            let world = TestWorld::new();
            leave_behind(&world, "web-1", &steps[..count]);
            if really_there && count > 1 {
                let left = FakeMachine {
                    name: "web-1".into(),
                    running: count > 2,
                    template: false,
                    onboot: false,
                };
                world.recorder.machines.borrow_mut().insert(100, left);
            }
            let created = run(&world, "web-1").unwrap();
            assert_eq!(world.recorder.machines.borrow().len(), 2, "steps {count}");
            assert_eq!(world.store.list(None).unwrap().len(), 1);
            assert!(world.store.reservations().unwrap().is_empty());
            assert_eq!(created.record.status, Status::Active);
        }
    }
}

#[test]
fn leftovers_whose_name_is_in_the_making_again_are_not_undone_under_it() {
    let world = TestWorld::new();
    leave_behind(&world, "web-1", &[Step::Snippet, Step::Clone, Step::Route]);
    let stale = world.store.reservations().unwrap().remove(0);
    world.store.release(&stale.name).unwrap();
    let wanted = Wanted {
        name: stale.name.clone(),
        vmid: Some(stale.vmid),
        ip: None,
        ipv6: None,
        avoid: Vec::new(),
        holder: Holder::current(),
        mock: false,
    };
    let fresh = world.store.allocate(&wanted).unwrap();
    assert_eq!((fresh.ip, fresh.vmid), (stale.ip, stale.vmid));
    let undone = world.with(|w| {
        undo::undo_abandoned(w.store, w.backend, w.config, &w.layout.snippets(), &stale).unwrap()
    });
    assert_eq!(undone, None);
    assert_eq!(world.store.reservations().unwrap(), [fresh]);
    assert!(world.recorder.asked.borrow().is_empty());
}

#[test]
fn a_machine_that_is_paid_for_while_it_is_being_suspended_runs_on() {
    let world = TestWorld::new();
    let seen = run(&world, "web-1").unwrap().record;
    let until = seen.expires_at.plus_days(30);
    world.store.extend_expiry(&seen.vm_name, until).unwrap();
    world
        .with(|w| lifecycle::suspend(w, &seen, Time::now()))
        .unwrap();
    let now = world.store.get(&seen.vm_name).unwrap();
    assert_eq!((now.status, now.expires_at), (Status::Active, until));
    assert!(!world.recorder.asked.borrow().contains(&"qm-shutdown"));

    // And in the middle of it.
    let (store, name) = (world.store.clone(), seen.vm_name.clone());
    let later = until.plus_days(30);
    world.recorder.after("qm-shutdown", move || {
        store.extend_expiry(&name, later).unwrap();
    });
    world
        .with(|w| lifecycle::suspend(w, &now, Time::now()))
        .unwrap();
    let now = world.store.get(&seen.vm_name).unwrap();
    assert_eq!((now.status, now.expires_at), (Status::Active, later));
    assert!(world.recorder.asked.borrow().contains(&"qm-shutdown"));
    assert!(world.recorder.machines.borrow()[&100].running);
    assert_eq!(*world.recorder.routes.borrow(), ["fd77:b10c::10/128"]);
}

#[test]
fn whoever_suspends_resumes_starts_or_destroys_a_machine_has_it_alone() {
    let world = TestWorld::new();
    let vm = run(&world, "web-1").unwrap().record;
    let path = world.layout.run().join("vm-web-1.lock");
    let held = std::rc::Rc::new(std::cell::Cell::new(false));
    let look_at = |action: &'static str| {
        held.set(false);
        let (held, path) = (held.clone(), path.clone());
        world.recorder.after(action, move || {
            let file = std::fs::File::open(&path).unwrap();
            held.set(file.try_lock().is_err());
        });
    };
    look_at("qm-shutdown");
    world
        .with(|w| lifecycle::suspend(w, &vm, Time::now()))
        .unwrap();
    assert!(held.get(), "suspend");
    look_at("qm-start");
    world.with(|w| lifecycle::resume(w, &vm, Some(1))).unwrap();
    assert!(held.get(), "resume");
    look_at("qm-start");
    world.with(|w| lifecycle::start(w, &vm)).unwrap();
    assert!(held.get(), "start");
    look_at("qm-destroy");
    world.with(|w| lifecycle::destroy(w, &vm.vm_name)).unwrap();
    assert!(held.get(), "destroy");
    assert!(!path.exists());
}

#[test]
fn a_machine_is_not_taken_for_its_successor_of_the_same_name() {
    let world = TestWorld::new();
    let old = run(&world, "web-1").unwrap().record;
    world.with(|w| lifecycle::destroy(w, &old.vm_name)).unwrap();
    let new = run(&world, "web-1").unwrap().record;
    assert_ne!(old.vmid, new.vmid);
    for result in [
        world.with(|w| lifecycle::suspend(w, &old, Time::now())),
        world.with(|w| lifecycle::resume(w, &old, Some(1)).map(drop)),
        world.with(|w| lifecycle::start(w, &old)),
    ] {
        assert!(
            matches!(result, Err(LifecycleError::Replaced(_))),
            "{result:?}"
        );
    }
    assert_eq!(world.store.get(&new.vm_name).unwrap(), new);
    assert!(world.recorder.machines.borrow()[&new.vmid.get()].running);
}

#[test]
fn what_was_extended_twice_is_extended_by_both() {
    let world = TestWorld::new();
    let seen = run(&world, "web-1").unwrap().record;
    for _ in 0..2 {
        world
            .with(|w| lifecycle::resume(w, &seen, Some(10)))
            .unwrap();
    }
    let now = world.store.get(&seen.vm_name).unwrap();
    assert_eq!(now.expires_at, seen.expires_at.plus_days(20));
}

#[test]
fn what_is_no_longer_due_when_its_turn_comes_is_not_destroyed() {
    let world = TestWorld::new();
    let vm = run(&world, "web-1").unwrap().record;
    let done = world
        .with(|w| lifecycle::destroy_if(w, &vm.vm_name, |now| now.status == Status::Suspended))
        .unwrap();
    assert_eq!(done, None);
    assert!(world.recorder.machines.borrow()[&100].running);
    let done = world
        .with(|w| lifecycle::destroy_if(w, &vm.vm_name, |now| now.status == Status::Active))
        .unwrap();
    assert!(done.is_some());
    world.assert_empty();
}

#[test]
fn a_second_create_of_a_living_name_or_of_one_in_the_making_is_refused_and_changes_nothing() {
    let world = TestWorld::new();
    run(&world, "web-1").unwrap();
    let error = run(&world, "web-1").unwrap_err();
    assert!(
        matches!(error, CreateError::Store(StoreError::NameTaken { .. })),
        "{error}"
    );
    let wanted = Wanted {
        name: "web-2".parse().unwrap(),
        vmid: None,
        ip: None,
        ipv6: None,
        avoid: vec![],
        holder: Holder::current(),
        mock: false,
    };
    world.store.allocate(&wanted).unwrap();
    let error = run(&world, "web-2").unwrap_err();
    assert!(
        matches!(error, CreateError::Store(StoreError::InTheMaking(_))),
        "{error}"
    );
    assert_eq!(world.store.reservations().unwrap().len(), 1);
    assert_eq!(
        world.store.get(&"web-1".parse().unwrap()).unwrap().status,
        Status::Active
    );
}

#[test]
fn without_a_template_nothing_is_allocated() {
    let world = TestWorld::new();
    world.recorder.machines.borrow_mut().clear();
    assert!(matches!(
        run(&world, "web-1"),
        Err(CreateError::NoTemplate(_))
    ));
    assert!(world.store.reservations().unwrap().is_empty());
}

#[test]
fn a_token_of_another_machine_is_refused_and_stays_with_it() {
    let world = TestWorld::new();
    world
        .store
        .reserve_token(7, &"other".parse().unwrap())
        .unwrap();
    let mut wanted = request("web-1");
    wanted.nft_token_id = Some(7);
    assert!(
        world
            .with(|w| create(w, &wanted, &mut Progress::silent()))
            .is_err()
    );
    world.assert_empty();
    assert!(matches!(
        world.store.reserve_token(7, &"web-1".parse().unwrap()),
        Err(StoreError::TokenTaken { .. })
    ));
}

#[test]
fn a_plan_changes_nothing_and_names_the_actions_in_their_order() {
    let world = TestWorld::new();
    let plan = world.with(|w| preview(w, &request("web-1"))).unwrap();
    let names: Vec<&str> = plan
        .actions(&world.config)
        .unwrap()
        .iter()
        .map(|a| a.name())
        .collect();
    assert_eq!(
        names,
        [
            "qm-clone",
            "qm-set",
            "qm-resize",
            "qm-start",
            "ip6-route-add"
        ]
    );
    // Who rents it is held to its addresses.
    let shown = plan.to_json(&world.config).unwrap();
    let options = &shown["actions"][1]["params"]["options"];
    assert_eq!(options["net0"], "virtio,bridge=vmbr0,firewall=1");
    assert_eq!(*world.recorder.asked.borrow(), ["qm-list", "pct-list"]);
    assert!(!world.store.path().exists());
    assert!(!world.layout.snippets().exists());
}

#[test]
fn a_machine_lives_from_creation_over_suspension_to_destruction() {
    let world = TestWorld::new();
    let created = run(&world, "web-1").unwrap();
    assert_eq!(
        *world.recorder.asked.borrow(),
        [
            "qm-list",
            "pct-list",
            "qm-clone",
            "qm-set",
            "qm-resize",
            "qm-start",
            "ip6-route-add",
            "qm-guest-ping",
            "qm-guest-exec"
        ]
    );
    let json = created.to_json();
    assert_eq!(
        (json["status"].as_str(), json["vm_name"].as_str()),
        (Some("ok"), Some("web-1"))
    );
    assert_eq!(
        (json["ip"].as_str(), json["ipv6"].as_str()),
        (Some("10.77.0.100"), Some("fd77:b10c::10"))
    );
    let name = created.record.vm_name.clone();
    world.with(|w| {
        lifecycle::suspend(w, &created.record, Time::now()).unwrap();
        let suspended = w.store.get(&name).unwrap();
        assert_eq!(suspended.status, Status::Suspended);
        assert!(
            world.recorder.routes.borrow().is_empty()
                && !world.recorder.machines.borrow()[&100].running
        );
        assert!(
            lifecycle::start(w, &suspended).is_err(),
            "a suspended machine must not be started past its resumption"
        );
        let resumed = lifecycle::resume(w, &suspended, Some(10)).unwrap();
        assert!(resumed.expires_at > created.record.expires_at && resumed.suspended_at.is_none());
        assert_eq!(*world.recorder.routes.borrow(), ["fd77:b10c::10/128"]);
        lifecycle::destroy(w, &name).unwrap();
        assert!(lifecycle::destroy(w, &name).unwrap().is_empty());
    });
    world.assert_empty();
    assert_eq!(world.store.get(&name).unwrap().status, Status::Destroyed);
    assert_eq!(
        run(&world, "web-1").unwrap().record.ip_address,
        created.record.ip_address
    );
}

#[test]
fn a_mock_asks_no_agent_and_is_marked() {
    let world = TestWorld::new();
    let mut wanted = request("web-1");
    wanted.mock = true;
    let created = world
        .with(|w| create(w, &wanted, &mut Progress::silent()))
        .unwrap();
    assert!(world.recorder.asked.borrow().is_empty());
    assert_eq!(created.to_json()["mock"], true);
    world
        .with(|w| lifecycle::destroy(w, &created.record.vm_name))
        .unwrap();
    assert!(world.recorder.asked.borrow().is_empty());
}
