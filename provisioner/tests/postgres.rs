//! The server's database under attack: processes that race for one small pool, that are killed in the middle, and the
//! server itself killed in the middle.

#![expect(
    clippy::disallowed_methods,
    reason = "the test starts copies of itself to kill them"
)]

mod common;
#[path = "common/server.rs"]
mod server;

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use blockhost_proto::Layout;
use blockhost_proto::value::VmName;
use blockhost_provisioner::config::Config;
use blockhost_provisioner::record::Holder;
use blockhost_provisioner::store::{self, Pools, PostgresStore, Store as _, StoreError, Wanted};
use common::TestWorld;
use server::Server;

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

/// A host of those that share the server: its own root, the pools of all.
fn host(server: &Server, pools: &str) -> (TestWorld, Pools) {
    let world = TestWorld::new();
    let text = format!("db_url: '{}'\n{pools}", server.url());
    std::fs::write(world.layout.etc().join("db.yaml"), text).unwrap();
    let config = Config::load(&world.layout).unwrap();
    (world, Pools::of(&config))
}

const SMALL: &str = "vmid_range: {start: 100, end: 109}\nip_pool: {network: 10.77.0.0/24, start: 100, end: 150, gateway: 10.77.0.1}\nipv6_pool: {start: 16, end: 64}\n";
const LARGE: &str = "vmid_range: {start: 100, end: 90000}\nip_pool: {network: 10.64.0.0/10, start: 10.65.0.0, end: 10.100.0.0, gateway: 10.64.0.1}\nipv6_pool: {start: 16, end: 600000}\n";

const CHILD: &str = "BLOCKHOST_TEST_SERVER_CHILD";

/// This test does nothing unless it is the child of one of those below: then it allocates, releasing one in three, as often
/// as it is told or until the pool is exhausted.
#[test]
fn helper_that_allocates_when_it_is_a_child() {
    let Ok(text) = std::env::var(CHILD) else {
        return;
    };
    let mut words = text.split(' ');
    let mut word = || words.next().unwrap();
    let (root, prefix, count, release) = (word(), word(), word(), word() == "release");
    let config = Config::load(&Layout::new(root)).unwrap();
    let store = store::open(&config).unwrap();
    for n in 0..count.parse().unwrap() {
        match store.allocate(&wanted(&format!("{prefix}-{n}"))) {
            Ok(reservation) if release && n % 3 == 2 => store.release(&reservation.name).unwrap(),
            Ok(_) => {}
            Err(StoreError::Exhausted { .. }) => return,
            Err(e) => panic!("{e}"),
        }
    }
}

fn child(world: &TestWorld, prefix: &str, count: u32, release: bool) -> Child {
    let root = world.directory.path().display();
    let release = if release { "release" } else { "keep" };
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "helper_that_allocates_when_it_is_a_child",
            "--nocapture",
        ])
        .env(CHILD, format!("{root} {prefix} {count} {release}"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Every reservation has its number and addresses, nobody else has them, and nothing is held that nobody has.
fn assert_whole(server: &Server, store: &PostgresStore) {
    let held = store.reservations().unwrap();
    let own: BTreeSet<_> = held
        .iter()
        .map(|r| {
            (
                r.name.to_string(),
                i32::try_from(r.vmid.get()).unwrap(),
                r.ip.to_string(),
            )
        })
        .collect();
    let vmids: BTreeSet<_> = held.iter().map(|r| r.vmid).collect();
    let ips: BTreeSet<_> = held.iter().map(|r| r.ip).collect();
    let ipv6: BTreeSet<_> = held.iter().map(|r| r.ipv6.unwrap()).collect();
    assert_eq!(
        (vmids.len(), ips.len(), ipv6.len()),
        (held.len(), held.len(), held.len())
    );
    let rows = server
        .session()
        .query("SELECT name, vmid, host(ip) FROM blockhost.holding", &[])
        .unwrap();
    let listed: BTreeSet<(String, i32, String)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    assert_eq!(listed, own);
}

#[test]
fn hosts_that_race_for_one_small_pool_never_collide() {
    let Some(server) = Server::new() else { return };
    let (first, pools) = host(&server, SMALL);
    let (second, _) = host(&server, SMALL);
    let racers: Vec<Child> = (0..6)
        .map(|n| {
            child(
                if n % 2 == 0 { &first } else { &second },
                &format!("h{n}"),
                10,
                false,
            )
        })
        .collect();
    for mut racer in racers {
        assert!(racer.wait().unwrap().success());
    }
    let store = server.store(&pools);
    assert_eq!(
        store.reservations().unwrap().len(),
        10,
        "the whole pool, each number once"
    );
    assert_whole(&server, &store);
}

#[test]
fn the_server_refuses_what_two_hosts_would_share_whatever_their_programs_believe() {
    let Some(server) = Server::new() else { return };
    let (_world, pools) = host(&server, SMALL);
    let store = server.store(&pools);
    let held = store.allocate(&wanted("a")).unwrap();
    let mut session = server.session();
    for (column, value) in [
        ("vmid", held.vmid.to_string()),
        ("ip", format!("'{}'", held.ip)),
        ("ipv6", format!("'{}'", held.ipv6.unwrap())),
        ("name", "'a'".to_owned()),
    ] {
        let error = session
            .batch_execute(&format!(
                "INSERT INTO blockhost.holding ({column}) VALUES ({value})"
            ))
            .unwrap_err();
        assert_eq!(
            error.code(),
            Some(&postgres::error::SqlState::UNIQUE_VIOLATION),
            "{column}"
        );
    }
}

#[test]
fn killing_a_provisioner_at_any_moment_leaves_nothing_half() {
    let Some(server) = Server::new() else { return };
    let (world, pools) = host(&server, LARGE);
    let store = server.store(&pools);
    store.allocate(&wanted("first")).unwrap();
    for round in 0..12_u64 {
        let mut writer = child(&world, &format!("r{round}"), 100_000, true);
        // Until it writes, then a moment that differs from round to round.
        let end = Instant::now() + Duration::from_secs(60);
        while store.reservations().unwrap().len() < 3 {
            assert!(Instant::now() < end, "the child does not allocate");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_micros(round * 1700));
        writer.kill().unwrap();
        writer.wait().unwrap();
        // What it had begun when it died is over as soon as the server notices: this waits for its locks.
        store.allocate(&wanted("after")).unwrap();
        store.release(&"after".parse().unwrap()).unwrap();
        assert_whole(&server, &store);
        for left in store.reservations().unwrap() {
            if left.name.as_str() == "first" {
                continue;
            }
            assert!(!left.holder().is_alive());
            assert!(
                store
                    .take_over(&left, &Holder::current())
                    .unwrap()
                    .is_some()
            );
            store.release(&left.name).unwrap();
        }
    }
}

#[test]
fn a_server_that_is_killed_in_the_middle_is_a_clear_error_and_work_goes_on_with_the_next() {
    let Some(mut server) = Server::new() else {
        return;
    };
    let (_world, pools) = host(&server, LARGE);
    let store = server.store(&pools);
    store.allocate(&wanted("first")).unwrap();
    for round in 0..3 {
        let worker = server.store(&pools);
        let (tell, hear) = mpsc::channel();
        let busy = std::thread::spawn(move || {
            for n in 0.. {
                match worker.allocate(&wanted(&format!("r{round}-{n}"))) {
                    Ok(reservation) => tell.send(reservation.name).unwrap(),
                    Err(e) => return (worker, e),
                }
            }
            unreachable!("numbers end")
        });
        let mut known: Vec<VmName> = (0..3).map(|_| hear.recv().unwrap()).collect();
        server.crash();
        let (worker, error) = busy.join().unwrap();
        known.extend(hear.try_iter());
        assert!(matches!(error, StoreError::Server { .. }), "{error}");
        let refused = store.allocate(&wanted("while-it-is-gone")).unwrap_err();
        assert!(
            matches!(refused, StoreError::Server { .. })
                && refused.to_string().contains("postgres://blockhost@"),
            "{refused}"
        );
        server.start();
        // Both sessions are of the server that died; both work with the new one.
        let held: BTreeSet<VmName> = store
            .reservations()
            .unwrap()
            .into_iter()
            .map(|r| r.name)
            .collect();
        for name in known {
            assert!(held.contains(&name), "{name} was said to be kept");
        }
        worker.allocate(&wanted(&format!("again-{round}"))).unwrap();
        assert_whole(&server, &store);
    }
}

#[test]
fn hosts_that_start_together_make_the_schema_once_and_one_that_is_too_old_is_told() {
    let Some(server) = Server::new() else { return };
    let (_world, pools) = host(&server, SMALL);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| server.store(&pools).list(None).unwrap());
        }
    });
    let mut session = server.session();
    let versions: i64 = session
        .query_one("SELECT count(*) FROM blockhost.schema_version", &[])
        .unwrap()
        .get(0);
    assert_eq!(versions, 2, "each step once");
    session
        .batch_execute("INSERT INTO blockhost.schema_version (version) VALUES (999)")
        .unwrap();
    let error = PostgresStore::open(server.address(), pools)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("999") && error.contains("upgrade"),
        "{error}"
    );
}

#[test]
fn every_change_is_told_to_who_listens_and_a_refused_one_is_not() {
    let Some(server) = Server::new() else { return };
    let (_world, pools) = host(&server, SMALL);
    let (listener, store) = (server.store(&pools), server.store(&pools));
    let (tell, hear) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let tell = tell;
            listener
                .watch(Some(Duration::from_secs(60)), |name| {
                    tell.send(name.map(str::to_owned)).unwrap();
                    name != Some("last")
                })
                .unwrap();
        });
        assert_eq!(hear.recv().unwrap(), None);
        store.allocate(&wanted("a")).unwrap();
        store.allocate(&wanted("a")).unwrap_err();
        store.mark_active(&"b".parse().unwrap(), None).unwrap_err();
        store.release(&"a".parse().unwrap()).unwrap();
        store.allocate(&wanted("last")).unwrap();
    });
    let heard: Vec<String> = hear.try_iter().flatten().collect();
    assert_eq!(heard, ["a", "a", "last"]);
}

/// A process that ended, of a host that has another name than this one.
fn dead_elsewhere() -> Holder {
    let me = Holder::current();
    Holder {
        start: me.start + 1,
        node: format!("{}-before", me.node),
        ..me
    }
}

#[test]
fn what_a_host_left_in_a_file_is_its_own_under_any_name_and_on_a_server_only_under_this_one() {
    let left = |store: &dyn store::Store| {
        let wanted = Wanted {
            holder: dead_elsewhere(),
            ..wanted("a")
        };
        store.allocate(&wanted).unwrap();
        let left = store.reservations().unwrap().remove(0);
        let taken = store.take_over(&left, &Holder::current()).unwrap();
        (left.holder().is_alive(), taken.is_some())
    };
    let world = TestWorld::new();
    assert_eq!(left(&world.store), (false, true));
    // As an earlier version wrote it.
    let text = std::fs::read_to_string(world.store.path()).unwrap();
    let mut database: serde_json::Value = serde_json::from_str(&text).unwrap();
    database["reservations"]["a"]["node"] = "before".into();
    database["reservations"]["a"]["pid_start"] = 1.into();
    std::fs::write(world.store.path(), database.to_string()).unwrap();
    assert!(!world.store.reservations().unwrap()[0].holder().is_alive());
    let Some(server) = Server::new() else { return };
    assert_eq!(
        left(&server.store(&Pools::of(&world.config))),
        (true, false)
    );
}

#[test]
fn a_record_on_the_server_that_cannot_be_read_is_reported_and_left_as_it_is() {
    let Some(server) = Server::new() else { return };
    let (_world, pools) = host(&server, SMALL);
    let store = server.store(&pools);
    let odd = r#"{"vm_name": "a", "status": "active", "vmid": 7}"#;
    let mut session = server.session();
    session
        .batch_execute(&format!(
            "INSERT INTO blockhost.machine VALUES ('a', '{odd}')"
        ))
        .unwrap();
    let name: VmName = "a".parse().unwrap();
    for result in [
        store.get(&name).map(drop),
        store.list(None).map(drop),
        store.mark_active(&name, None).map(drop),
        store.allocate(&wanted("a")).map(drop),
    ] {
        assert!(
            matches!(result, Err(StoreError::Damaged { .. })),
            "{result:?}"
        );
    }
    let kept: serde_json::Value = session
        .query_one("SELECT record FROM blockhost.machine", &[])
        .unwrap()
        .get(0);
    assert_eq!(
        kept,
        serde_json::from_str::<serde_json::Value>(odd).unwrap()
    );
}

#[test]
fn a_connection_that_the_server_ended_between_two_uses_costs_nothing() {
    let Some(server) = Server::new() else {
        return;
    };
    let (_world, pools) = host(&server, LARGE);
    let store = server.store(&pools);
    let mut session = server.session();
    // Whether the end has been noticed yet when the next use comes is a matter of luck: many times.
    for n in 0..30 {
        let ended = session
            .query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'blockhost'",
                &[],
            )
            .unwrap();
        assert_eq!(ended.len(), 1);
        store.allocate(&wanted(&format!("vm-{n}"))).unwrap();
    }
    assert_eq!(store.reservations().unwrap().len(), 30);
    assert_whole(&server, &store);
}
