//! What a start, a suspension and a resumption leave at the backend, with a recorder in the agent's place.

mod common;

use blockhost_provisioner::create::create;
use blockhost_provisioner::host::onboot::{Database, Now as _};
use blockhost_provisioner::lifecycle;
use blockhost_provisioner::lock::MachineLock;
use blockhost_provisioner::progress::Progress;
use blockhost_provisioner::record::{Status, VmRecord};
use blockhost_provisioner::store::Store as _;
use blockhost_provisioner::store::postgres::Address;
use blockhost_provisioner::time::Time;
use common::{TestWorld, request};

fn machine(world: &TestWorld) -> VmRecord {
    let made = world.with(|w| create(w, &request("web-1"), &mut Progress::silent()));
    made.unwrap().record
}

#[test]
fn a_start_brings_back_the_host_route_that_the_kernel_forgot() {
    let world = TestWorld::new();
    let vm = machine(&world);
    // As after a start of the host, or of its bridge.
    world.recorder.routes.borrow_mut().clear();
    world
        .recorder
        .machines
        .borrow_mut()
        .get_mut(&100)
        .unwrap()
        .running = false;
    world.with(|w| lifecycle::start(w, &vm)).unwrap();
    assert_eq!(*world.recorder.routes.borrow(), ["fd77:b10c::10/128"]);
    assert!(world.recorder.machines.borrow()[&100].running);
}

#[test]
fn a_suspended_machine_does_not_start_with_the_host_and_a_resumed_one_does() {
    let world = TestWorld::new();
    let vm = machine(&world);
    let onboot = || world.recorder.machines.borrow()[&100].onboot;
    let running = || world.recorder.machines.borrow()[&100].running;
    assert!(onboot());
    let past = world.store.extend_expiry(&vm.vm_name, Time::now()).unwrap();
    let suspend = || world.with(|w| lifecycle::suspend(w, &past, Time::now()));
    suspend().unwrap();
    assert!(!onboot() && !running());
    // A resumption that fails leaves it suspended, whatever it had begun; who looks next stops what runs.
    let suspended = world.store.get(&vm.vm_name).unwrap();
    for broken in ["qm-set", "ip6-route-add", "qm-start"] {
        *world.recorder.broken.borrow_mut() = vec![broken];
        assert!(
            world
                .with(|w| lifecycle::resume(w, &suspended, Some(1)))
                .is_err()
        );
        assert_eq!(world.store.get(&vm.vm_name).unwrap(), suspended);
    }
    world.recorder.broken.borrow_mut().clear();
    assert!(
        !world
            .with(|w| lifecycle::stop_suspended(w, &suspended, Time::now()))
            .unwrap()
    );
    world
        .recorder
        .machines
        .borrow_mut()
        .get_mut(&100)
        .unwrap()
        .running = true;
    assert!(
        onboot(),
        "as a resumption that failed, or an earlier version, left it"
    );
    assert!(
        world
            .with(|w| lifecycle::stop_suspended(w, &suspended, Time::now()))
            .unwrap()
    );
    assert!(!onboot() && !running());
    // A suspension that fails at the option leaves nothing active that would not come back with the host.
    let active = world
        .with(|w| lifecycle::resume(w, &suspended, None))
        .unwrap();
    assert!(onboot() && running());
    *world.recorder.broken.borrow_mut() = vec!["qm-set"];
    assert!(suspend().is_err());
    assert_eq!(
        world.store.get(&vm.vm_name).unwrap().status,
        Status::Suspended
    );
    world.recorder.broken.borrow_mut().clear();
    // What is paid for runs on, though nobody has resumed it yet.
    world
        .recorder
        .machines
        .borrow_mut()
        .get_mut(&100)
        .unwrap()
        .running = true;
    let paid = world
        .store
        .extend_expiry(&vm.vm_name, Time::now().plus_days(1))
        .unwrap();
    assert!(
        !world
            .with(|w| lifecycle::stop_suspended(w, &paid, Time::now()))
            .unwrap()
    );
    assert!(running() && active.status == Status::Active);
}

#[test]
fn who_starts_a_hosts_machines_has_each_to_itself_and_knows_what_became_of_it() {
    let world = TestWorld::new();
    let vm = machine(&world);
    let now = Database::new(&world.layout, &world.config);
    let held = now.hold(&vm).unwrap().unwrap();
    assert_eq!(held.record, vm);
    let (layout, name) = (world.layout.clone(), vm.vm_name.clone());
    let other = std::thread::spawn(move || drop(MachineLock::take(&layout, &name).unwrap()));
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!other.is_finished(), "two have it");
    drop(held);
    other.join().unwrap();
    // What it was read as is not what it is.
    let past = world.store.extend_expiry(&vm.vm_name, Time::now()).unwrap();
    world
        .with(|w| lifecycle::suspend(w, &past, Time::now()))
        .unwrap();
    let held = now.hold(&vm).unwrap().unwrap();
    assert_eq!(held.record.status, Status::Suspended);
    drop(held);
    world.with(|w| lifecycle::destroy(w, &vm.vm_name)).unwrap();
    assert!(now.hold(&vm).unwrap().is_none(), "it was destroyed");
    let again = machine(&world);
    assert_eq!(again.vm_name, vm.vm_name);
    assert!(now.hold(&vm).unwrap().is_none(), "another of that name");
    assert!(now.hold(&again).unwrap().is_some());
}

#[test]
fn a_database_that_goes_away_while_the_host_starts_is_asked_once_and_not_about_each_machine() {
    let world = TestWorld::new();
    let vm = machine(&world);
    // A server that hangs up.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&asked);
    std::thread::spawn(move || {
        for connection in server.incoming() {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            drop(connection);
        }
    });
    let mut config = world.config.clone();
    let url = format!("postgres://blockhost@127.0.0.1:{port}/machines");
    config.db.server = Some(Address::read(&url, None).unwrap());
    let now = Database::new(&world.layout, &config);
    let away = || now.hold(&vm).unwrap_err().to_string();
    let first = away();
    assert!(first.contains("cannot be reached"), "{first}");
    let once = asked.load(std::sync::atomic::Ordering::SeqCst);
    assert!(once > 0);
    assert_eq!(away(), first);
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), once);
}
