//! Hosts that share one server: none is taken for another, one that lives is not given up, and one that is gone leaves nothing
//! behind that others could use.

#![expect(clippy::disallowed_methods, reason = "the program under test")]

mod common;
#[path = "common/server.rs"]
mod server;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use blockhost_provisioner::config::Config;
use blockhost_provisioner::record::{Holder, Reservation, Status, VmRecord, host_name};
use blockhost_provisioner::store::postgres::{GivenUp, Identity};
use blockhost_provisioner::store::{Pools, PostgresStore, Store as _, StoreError, Wanted};
use common::TestWorld;
use serde_json::json;
use server::Server;

const POOLS: &str = "vmid_range: {start: 100, end: 109}\nip_pool: {network: 10.77.0.0/24, start: 100, end: 150, gateway: 10.77.0.1}\nipv6_pool: {start: 16, end: 64}\n";

struct Shared {
    server: Server,
    world: TestWorld,
    pools: Pools,
}

impl Shared {
    fn new() -> Option<Self> {
        let server = Server::new()?;
        let world = TestWorld::new();
        let text = format!("db_url: '{}'\n{POOLS}", server.url());
        std::fs::write(world.layout.etc().join("db.yaml"), text).unwrap();
        let pools = Pools::of(&Config::load(&world.layout).unwrap());
        Some(Self {
            server,
            world,
            pools,
        })
    }

    fn come(&self, own: &Identity) -> Result<PostgresStore, StoreError> {
        PostgresStore::open_as(own.clone(), self.server.address(), self.pools.clone())
    }

    /// As if it had last been heard of long ago.
    fn long_ago(&self, node: &str) {
        self.server
            .session()
            .execute(
                "UPDATE blockhost.host SET seen = now() - interval '2 hours' WHERE node = $1",
                &[&node],
            )
            .unwrap();
    }

    /// Once the server has noticed that nobody of that host is connected any more.
    fn give_up(&self, own: &Identity, node: &str, machines: bool, really: bool) -> GivenUp {
        let store = self.come(own).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match store.give_up(own, node, machines, really) {
                Err(StoreError::Alive { why, .. })
                    if why.contains("connected") && Instant::now() < end =>
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                done => return done.unwrap(),
            }
        }
    }

    fn program(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_blockhost-vm-db"))
            .args(args)
            .env_clear()
            .env("BLOCKHOST_ROOT", self.world.directory.path())
            .output()
            .unwrap()
    }
}

fn host(node: &str, machine: char) -> Identity {
    Identity {
        node: node.to_owned(),
        host_name: node.to_owned(),
        machine_id: machine.to_string().repeat(32),
    }
}

fn reserve(store: &PostgresStore, own: &Identity, name: &str) -> Reservation {
    let wanted = Wanted {
        name: name.parse().unwrap(),
        vmid: None,
        ip: None,
        ipv6: None,
        avoid: vec![],
        holder: Holder {
            node: own.host_name.clone(),
            ..Holder::current()
        },
        mock: false,
    };
    store.allocate(&wanted).unwrap()
}

fn register(store: &PostgresStore, own: &Identity, name: &str) -> VmRecord {
    let held = reserve(store, own, name);
    let record = json!({
        "vm_name": name, "vmid": held.vmid, "ip_address": held.ip, "ipv6_address": held.ipv6, "node": own.node,
        "expires_at": "2099-01-01T00:00:00Z", "owner": "o", "status": "active", "created_at": "2026-01-01T00:00:00Z",
    });
    let record = serde_json::from_value(record).unwrap();
    store.register_vm(&record).unwrap();
    record
}

fn names(list: &[Reservation]) -> Vec<String> {
    list.iter().map(|r| r.name.to_string()).collect()
}

#[test]
fn two_machines_of_one_name_are_not_taken_for_one() {
    let Some(shared) = Shared::new() else { return };
    let one = host("one", 'a');
    let _first = shared.come(&one).unwrap();
    shared.come(&one).unwrap();
    shared.come(&host("two", 'b')).unwrap();
    for other in [
        host("one", 'c'),
        Identity {
            node: "other".into(),
            ..host("one", 'c')
        },
        Identity {
            host_name: "other".into(),
            ..host("one", 'c')
        },
    ] {
        let refused = shared.come(&other).unwrap_err();
        assert!(matches!(refused, StoreError::Stranger { .. }), "{refused}");
        assert!(refused.to_string().contains("give-up one"), "{refused}");
    }
    // The same machine under another name for its machines.
    shared
        .come(&Identity {
            node: "renamed".into(),
            ..one.clone()
        })
        .unwrap();
    let listed: Vec<String> = shared
        .come(&one)
        .unwrap()
        .hosts()
        .unwrap()
        .into_iter()
        .map(|host| host.node)
        .collect();
    assert_eq!(listed, ["one", "renamed", "two"]);
}

#[test]
fn one_engine_has_its_place_at_a_server_and_the_next_one_when_it_is_gone() {
    let Some(shared) = Shared::new() else { return };
    let (one, two) = (host("one", 'a'), host("two", 'b'));
    let (first, second) = (shared.come(&one).unwrap(), shared.come(&two).unwrap());
    let mut held = first.alone().unwrap().expect("nobody has it");
    assert!(held.is_held());
    assert!(second.alone().unwrap().is_none());
    assert!(first.alone().unwrap().is_none(), "nor a second one here");
    // The server ends the connection: whoever lost it knows, and it is free.
    shared
        .server
        .session()
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'",
            &[],
        )
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let next = loop {
        if let Some(next) = second.alone().unwrap() {
            break next;
        }
        assert!(Instant::now() < deadline, "the place is not free");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(!held.is_held());
    drop(next);
}

#[test]
fn a_host_that_shows_life_is_not_given_up() {
    let Some(shared) = Shared::new() else { return };
    let (one, two) = (host("one", 'a'), host("two", 'b'));
    let (first, second) = (shared.come(&one).unwrap(), shared.come(&two).unwrap());
    reserve(&first, &one, "web-1");
    let refused = |node: &str, word: &str| {
        let error = second.give_up(&two, node, true, true).unwrap_err();
        assert!(
            matches!(error, StoreError::Alive { .. }) && error.to_string().contains(word),
            "{error}"
        );
    };
    refused("one", "heard of");
    shared.long_ago("one");
    refused("one", "connected");
    shared.long_ago("two");
    refused("two", "this host itself");
    assert!(matches!(
        second.give_up(&two, "three", false, true),
        Err(StoreError::UnknownHost { .. })
    ));
    assert_eq!(names(&first.reservations().unwrap()), ["web-1"]);
    let (hosts, _) = (second.hosts().unwrap(), drop(first));
    assert_eq!(
        hosts
            .iter()
            .map(|host| (host.node.as_str(), host.connected, host.reservations))
            .collect::<Vec<_>>(),
        [("one", true, 1), ("two", true, 0)]
    );
    // Only now is nobody there.
    let given_up = shared.give_up(&two, "one", false, true);
    assert_eq!(names(&given_up.reservations), ["web-1"]);
}

#[test]
fn what_was_in_the_making_on_a_host_that_is_gone_is_free_and_its_machines_when_that_is_said() {
    let Some(shared) = Shared::new() else { return };
    let (one, two) = (host("one", 'a'), host("two", 'b'));
    let (gone, made, kept) = {
        let first = shared.come(&one).unwrap();
        let made = register(&first, &one, "web-1");
        let kept = register(&first, &two, "web-2");
        reserve(&first, &two, "web-4");
        (reserve(&first, &one, "web-3"), made, kept)
    };
    shared.long_ago("one");
    let store = shared.come(&two).unwrap();
    let before = store.everything().unwrap();
    let dry = shared.give_up(&two, "one", true, false);
    assert_eq!(
        (&dry.reservations, &dry.machines),
        (&vec![gone.clone()], &vec![made.clone()])
    );
    assert_eq!(store.everything().unwrap(), before);
    shared.come(&one).unwrap();
    shared.long_ago("one");

    assert_eq!(shared.give_up(&two, "one", false, true), dry);
    assert_eq!(names(&store.reservations().unwrap()), ["web-4"]);
    assert_eq!(store.get(&made.vm_name).unwrap(), made);
    let wanted = Wanted {
        name: "web-3".parse().unwrap(),
        vmid: Some(gone.vmid),
        ip: Some(gone.ip),
        ipv6: gone.ipv6,
        avoid: vec![],
        holder: Holder::current(),
        mock: false,
    };
    store.allocate(&wanted).unwrap();

    // Its machines as well, by a second run; those of the other host stay.
    let again = shared.give_up(&two, "one", true, true);
    assert_eq!(again.machines, std::slice::from_ref(&made));
    assert_eq!(store.get(&made.vm_name).unwrap().status, Status::Destroyed);
    assert_eq!(store.get(&kept.vm_name).unwrap(), kept);
    let wanted = Wanted {
        name: "web-5".parse().unwrap(),
        vmid: Some(made.vmid),
        ip: made.ip_address,
        ipv6: made.ipv6_address,
        ..wanted
    };
    store.allocate(&wanted).unwrap();
}

#[test]
fn a_host_that_was_given_up_changes_nothing_until_it_is_let_in_again() {
    let Some(shared) = Shared::new() else { return };
    let (one, two) = (host("one", 'a'), host("two", 'b'));
    let first = shared.come(&one).unwrap();
    reserve(&first, &one, "web-1");
    shared.long_ago("one");
    // Its connection is lost, as when its network is; it works again when all is over.
    shared
        .server
        .session()
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'blockhost'",
            &[],
        )
        .unwrap();
    shared.give_up(&two, "one", false, true);
    let refused = [
        first.list(None).map(drop),
        first.mark_active(&"web-1".parse().unwrap(), None).map(drop),
        shared.come(&one).map(drop),
    ];
    for result in refused {
        assert!(
            matches!(result, Err(StoreError::Stranger { .. })),
            "{result:?}"
        );
    }
    let raw = shared.server.store(&shared.pools);
    assert!(
        !raw.let_return(&host("one", 'c')).unwrap(),
        "another machine"
    );
    assert!(raw.let_return(&one).unwrap());
    assert!(!raw.let_return(&one).unwrap());
    assert!(first.list(None).unwrap().is_empty());
}

#[test]
fn a_successor_has_the_name_of_a_host_that_was_given_up_and_the_old_one_never_again() {
    let Some(shared) = Shared::new() else { return };
    let (old, new) = (host("one", 'a'), host("one", 'c'));
    drop(shared.come(&old).unwrap());
    assert!(shared.come(&new).is_err());
    shared.long_ago("one");
    // The new machine may do it itself.
    let raw = shared.server.store(&shared.pools);
    let end = Instant::now() + Duration::from_secs(60);
    while let Err(error) = raw.give_up(&new, "one", false, true) {
        assert!(
            error.to_string().contains("connected") && Instant::now() < end,
            "{error}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    shared.come(&new).unwrap();
    assert!(shared.come(&old).is_err());
}

#[test]
fn nobody_comes_in_while_a_host_is_being_given_up() {
    let Some(shared) = Shared::new() else { return };
    drop(shared.come(&host("one", 'a')).unwrap());
    let mut session = shared.server.session();
    let mut tx = session.transaction().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let row = tx
            .query_one(
                "SELECT pg_try_advisory_xact_lock(hashtextextended('blockhost host one', 0))",
                &[],
            )
            .unwrap();
        if row.get(0) {
            break;
        }
        assert!(Instant::now() < end, "the first connection stays");
        std::thread::sleep(Duration::from_millis(10));
    }
    let refused = shared.come(&host("one", 'a')).unwrap_err().to_string();
    assert!(refused.contains("at this moment"), "{refused}");
    shared.come(&host("two", 'b')).unwrap();
    drop(tx);
    shared.come(&host("one", 'a')).unwrap();
}

#[test]
fn the_command_says_what_it_would_free_and_does_it_only_when_told_so() {
    let Some(shared) = Shared::new() else { return };
    let one = host("gone-1", 'a');
    {
        let first = shared.come(&one).unwrap();
        reserve(&first, &one, "web-1");
        register(&first, &one, "web-2");
    }
    let text = |output: &Output| {
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    let alive = shared.program(&["give-up", "gone-1", "--yes"]);
    assert_eq!(alive.status.code(), Some(5), "{}", text(&alive));
    shared.long_ago("gone-1");
    let end = Instant::now() + Duration::from_secs(60);
    let dry = loop {
        let output = shared.program(&["give-up", "gone-1"]);
        if output.status.success() || !text(&output).contains("connected") {
            break output;
        }
        assert!(Instant::now() < end);
    };
    let said = text(&dry);
    assert!(dry.status.success(), "{said}");
    for word in [
        "web-1: in the making, frees VM number 100, 10.77.0.100 and fd77:b10c::10",
        "web-2: VM 101, active, stays as it is",
        "nothing was changed",
    ] {
        assert!(said.contains(word), "{said}");
    }
    let listed = shared.program(&["hosts", "--json"]);
    let rows: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let row = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["node"] == "gone-1")
        .unwrap();
    assert_eq!(
        (&row["reservations"], &row["machines"], &row["given_up"]),
        (&json!(1), &json!(1), &json!(null))
    );
    let done = shared.program(&["give-up", "gone-1", "--with-machines", "--yes", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        (
            &value["done"],
            &value["freed"][0]["name"],
            &value["machines"][0]["destroyed"]
        ),
        (&json!(true), &json!("web-1"), &json!(true))
    );
    assert!(text(&shared.program(&["hosts"])).contains("gone-1\tgiven up"));
    let itself = shared.program(&["give-up", &host_name(), "--yes"]);
    assert!(
        text(&itself).contains("this host itself"),
        "{}",
        text(&itself)
    );
    let unknown = shared.program(&["give-up", "nobody"]);
    assert_eq!(unknown.status.code(), Some(4), "{}", text(&unknown));
    let there = shared.program(&["return"]);
    assert!(there.status.success() && text(&there).contains("was not given up"));
}

#[test]
fn a_host_does_not_return_while_nobody_knows_what_is_on_it() {
    let Some(shared) = Shared::new() else { return };
    let config = Config::load(&shared.world.layout).unwrap();
    let own = Identity::of(&config).unwrap();
    drop(shared.come(&own).unwrap());
    shared.long_ago(&own.node);
    shared.give_up(&host("two-of-them", 'b'), &own.node, false, true);
    let refused = shared.program(&["show"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("blockhost-vm-db return"), "{said}");
    // The agent that could say it is not there.
    let returned = shared.program(&["return"]);
    assert_eq!(returned.status.code(), Some(6));
    assert_eq!(shared.program(&["show"]).status.code(), Some(3));
}
