//! What comes back after a start of the machine, against the model: everything that was applied to its end, wherever the
//! restoration itself is interrupted, and nothing else.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::documents::document;
use super::model::{FAULTS, Fault, Killed, Things};
use super::{World, fates};
use crate::state::engine::Engine;
use crate::state::restore::Off;
use crate::state::{ApplyReport, DiffReport, Fate};

impl World {
    /// As the kernel and the switch are after a start: rows of the switch's database and files stay, everything else is gone.
    fn start_again(&mut self, without_rows: bool) {
        let things = std::mem::take(&mut self.model.things);
        let Things {
            mut containers,
            mut bridges,
            devices,
            ..
        } = things;
        for container in containers.values_mut() {
            container.running = false;
        }
        for bridge in bridges.values_mut() {
            bridge.flows.clear();
        }
        if without_rows {
            bridges.clear();
        }
        self.model.things = Things {
            containers,
            bridges,
            devices,
            ..Things::default()
        };
        self.model.take_done();
    }

    fn restore(&mut self) -> ApplyReport {
        self.restore_but(&Off::default())
    }

    fn restore_but(&mut self, off: &Off) -> ApplyReport {
        Engine::new(&self.layout, &mut self.model)
            .restore(off, &mut |_| {})
            .expect("a restoration")
    }

    fn restore_or_die(&mut self) -> Option<ApplyReport> {
        match catch_unwind(AssertUnwindSafe(|| self.restore())) {
            Ok(report) => Some(report),
            Err(panic) if panic.is::<Killed>() => None,
            Err(panic) => resume_unwind(panic),
        }
    }

    fn would_restore(&mut self) -> DiffReport {
        Engine::new(&self.layout, &mut self.model)
            .look_at_restoration(&Off::default())
            .expect("a look")
    }

    /// Another one does nothing at all.
    fn is_restored(&mut self) {
        let events = self.model.events.len();
        self.model.take_done();
        let again = self.restore();
        assert!(again.is_good() && again.outcomes.is_empty(), "{again:#?}");
        assert_eq!(self.model.take_done(), Vec::<String>::new());
        assert_eq!(self.model.events.len(), events);
    }
}

/// What is not as it should be after it.
fn failures(report: &ApplyReport) -> BTreeSet<String> {
    let failed = |(resource, fate)| (fate != Fate::Done).then_some(resource);
    fates(report).into_iter().filter_map(failed).collect()
}

/// What takes part in neither side's comparison: a list of no addresses says nothing.
fn plain(mut things: Things) -> Things {
    things.addresses.retain(|_, list| !list.is_empty());
    things
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_was_applied_comes_back_after_a_start_wherever_that_is_interrupted(
        wanted in document(), at in 0usize..30, fault in 0usize..6, proxmox in any::<bool>(), without_rows in any::<bool>()
    ) {
        let mut world = World::new();
        world.model.proxmox = proxmox;
        world.model.things.devices = ["eth1", "eth2", "eth9"].map(str::to_owned).into();
        world.converge(&wanted, false);
        let before = plain(world.model.things.clone());
        world.start_again(without_rows);
        world.model.fault = Some((at, FAULTS[fault]));
        world.restore_or_die();
        world.model.fault = None;
        world.model.gone = false;
        let report = world.restore();
        prop_assert!(report.is_good(), "{:#?}", report);
        prop_assert_eq!(plain(world.model.things.clone()), before);
        world.is_restored();
        world.is_settled(&wanted, false);
    }

    #[test]
    fn an_apply_that_a_start_interrupted_is_completed_by_the_next_one(
        first in document(), second in document(), at in 0usize..20, killed_after in any::<bool>()
    ) {
        let mut world = World::new();
        world.model.things.devices = ["eth1", "eth2", "eth9"].map(str::to_owned).into();
        world.converge(&first, false);
        let fault = if killed_after { Fault::KilledAfter } else { Fault::KilledBefore };
        world.model.fault = Some((at, fault));
        world.apply_or_die(&second, true);
        world.model.fault = None;
        world.start_again(false);
        let failed = failures(&world.restore());
        world.model.take_done();
        // What could not be made again, such as a peer whose shared key the interrupted apply has taken away, is tried again,
        // and nothing else is: what was done is as it should be.
        let again = world.restore();
        let tried: BTreeSet<String> = fates(&again).into_iter().map(|(resource, _)| resource).collect();
        prop_assert_eq!(&tried, &failed, "{:#?}", again);
        let done = world.model.take_done();
        prop_assert!(!failed.is_empty() || done.is_empty(), "the second one finds nothing to do: {:?}", done);
        world.converge(&second, true);
    }
}

fn bridge(address: &str) -> Value {
    json!({"version": 1, "plugins": {"net": {"interfaces": [
        {"name": "br0", "ipv4": {"addresses": [address]}}]}}})
}

#[test]
fn what_was_being_changed_when_the_machine_went_down_is_as_it_was_before_and_what_was_being_made_is_left_out()
 {
    let mut world = World::new();
    world.converge(&bridge("10.0.0.1/24"), false);
    let mut second = bridge("10.0.0.2/24");
    second["plugins"]["wireguard"] =
        json!({"tunnels": [{"name": "wg0", "addresses": ["10.8.0.1/24"]}]});
    world.model.fault = Some((0, Fault::KilledAfter));
    assert!(world.apply_or_die(&second, false).is_none());
    world.model.fault = None;
    world.start_again(false);
    let looked = world.would_restore();
    assert_eq!(looked.changes.len(), 2, "{looked:#?}");
    let report = world.restore();
    assert_eq!(
        fates(&report),
        [
            ("net/br0".to_owned(), Fate::Done),
            ("wireguard/wg0".to_owned(), Fate::Blocked)
        ]
    );
    assert!(
        report.outcomes[1]
            .error
            .as_deref()
            .is_some_and(|why| why.contains("interrupted")),
        "{report:#?}"
    );
    assert_eq!(world.model.things.addresses["br0"], ["10.0.0.1/24"]);
    assert!(world.model.things.tunnels.is_empty());
    world.converge(&second, false);
    world.start_again(true);
    assert!(world.restore().is_good());
    assert_eq!(world.model.things.addresses["br0"], ["10.0.0.2/24"]);
}

#[test]
fn one_container_that_does_not_come_back_takes_no_flows_from_the_others() {
    let container = |id: u32| {
        json!({"id": id, "bridge": "br0", "properties": {
            "template": "local:vztmpl/d.tar.zst", "storage": "local", "rootfs_size": 4}})
    };
    let guest = |id: u32| {
        json!({"id": id.to_string(), "port": format!("vi{id}"), "mac": format!("02:00:00:00:01:{}", id - 90), "tenant": "a",
            "addresses": [format!("10.0.0.{id}")]})
    };
    // 102 is a machine of somebody else's.
    let policy = json!({"bridge": "br0", "tenants": [{"name": "a", "zone": 7}],
        "containers": [guest(100), guest(101), guest(102)]});
    let document = json!({"version": 1, "plugins": {
        "net": {"interfaces": [{"name": "br0", "ports": [{"name": "vi102"}]}]},
        "lxc": {"containers": [container(100), container(101)]},
        "ovsflows": {"bridges": [policy]}}});
    let mut world = World::new();
    world.model.things.devices = ["vi102".to_owned()].into();
    world.converge(&document, false);
    let owners = |world: &World| -> BTreeSet<String> {
        let flows = &world.model.things.bridges["br0"].flows;
        flows.keys().cloned().collect()
    };
    let all = owners(&world);
    assert!(
        all.contains("net.ct.101") && all.contains("net.base"),
        "{all:?}"
    );
    let whole = world.model.things.clone();

    world.start_again(false);
    world.model.things.devices.clear();
    let off = Off {
        numbers: ["101".to_owned()].into(),
        unknown: None,
    };
    let report = world.restore_but(&off);
    assert!(
        fates(&report).contains(&("ovsflows/br0".to_owned(), Fate::Done)),
        "{report:#?}"
    );
    assert_eq!(owners(&world), all);
    // The machine may come yet; of the suspended one it is known why it does not.
    assert_eq!(report.awaited, ["br0/vi102"]);
    // Both are there in the end, and what was left out is set.
    world.model.things.devices = ["vi102".to_owned()].into();
    let report = world.restore();
    assert!(report.is_good() && report.awaited.is_empty(), "{report:#?}");
    assert_eq!(plain(world.model.things.clone()), plain(whole));
    world.is_restored();
}

#[test]
fn a_container_that_is_gone_is_not_made_anew_and_one_that_is_suspended_is_not_started() {
    let container = |id: u32| {
        json!({"id": id, "bridge": "br0", "properties": {
            "template": "local:vztmpl/d.tar.zst", "storage": "local", "rootfs_size": 4}})
    };
    let document = json!({"version": 1, "plugins": {
        "net": {"interfaces": [{"name": "br0"}]},
        "lxc": {"containers": [container(100), container(101), container(102)]},
        "ovsflows": {"flows": [{"bridge": "br0", "owner": "web", "flows": [{"priority": 1, "actions": ["drop"]}]}]}}});
    let mut world = World::new();
    world.converge(&document, false);
    world.start_again(false);
    world.model.things.containers.remove(&100);
    let off = Off {
        numbers: ["101".to_owned()].into(),
        unknown: None,
    };
    let report = world.restore_but(&off);
    let fate = |id: &str| {
        let mut all = fates(&report).into_iter();
        all.find(|(resource, _)| resource == id)
            .map(|(_, fate)| fate)
    };
    assert_eq!(fate("lxc/100"), Some(Fate::Blocked));
    assert_eq!(fate("lxc/101"), Some(Fate::Blocked));
    assert_eq!(fate("lxc/102"), Some(Fate::Done));
    assert_eq!(fate("ovsflows/br0/web"), Some(Fate::Done));
    let running: Vec<u64> = world
        .model
        .things
        .containers
        .iter()
        .filter_map(|(id, container)| container.running.then_some(*id))
        .collect();
    assert_eq!(running, [102]);
    // Nobody knows whose they are: none is started, everything else is.
    world.start_again(false);
    let off = Off {
        unknown: Some("the database does not answer".to_owned()),
        ..Off::default()
    };
    let report = world.restore_but(&off);
    assert!(!world.model.things.containers.values().any(|c| c.running));
    assert!(fates(&report).contains(&("ovsflows/br0/web".to_owned(), Fate::Done)));
}
