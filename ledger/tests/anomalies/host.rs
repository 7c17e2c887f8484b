//! The life of a host as records: services, resellers and operators with their days and nights, machines that come and
//! go, failures, novelties. What attackers add is in `attacks`.

mod people;

use crate::random::Random;
use blockhost_ledger::record::{Draft, Phase, Stamp};
use serde_json::{Value, json};

pub const DAYS: i64 = 40;
/// Days that are only learned from.
pub const PAST_DAYS: i64 = 20;
/// A Monday, 00:00 UTC.
pub const BEGIN_S: i64 = 1_767_571_200;
pub const DAY_S: i64 = 86_400;
pub const HOUR_S: i64 = 3600;

/// Somebody who asks for things.
#[derive(Debug, Clone, Copy)]
pub struct Who {
    pub user: &'static str,
    pub uid: u32,
    pub exe: &'static str,
    pub unit: &'static str,
}

const fn who(user: &'static str, uid: u32, exe: &'static str, unit: &'static str) -> Who {
    Who {
        user,
        uid,
        exe,
        unit,
    }
}

pub const CREATE: Who = who(
    "blockhost",
    990,
    "/usr/bin/blockhost-vm-create",
    "blockhost-engine.service",
);
pub const ENGINE: Who = who(
    "blockhost",
    990,
    "/usr/bin/blockhost-engine",
    "blockhost-engine.service",
);
pub const GC: Who = who(
    "blockhost",
    990,
    "/usr/bin/blockhost-vm-gc",
    "blockhost-gc.service",
);
pub const MONITOR: Who = who(
    "monitor",
    995,
    "/usr/bin/blockhost-monitor",
    "blockhost-monitor.service",
);
pub const BACKUP: Who = who("backup", 996, "/usr/bin/host-backup", "host-backup.service");
pub const METRICS: Who = who(
    "metrics",
    997,
    "/usr/bin/metrics-agent",
    "metrics-agent.service",
);
pub const SHOP_A: Who = who("shop-a", 1101, "/usr/bin/shop-worker", "shop-a.service");
pub const SHOP_B: Who = who("shop-b", 1102, "/usr/bin/shop-worker", "shop-b.service");
pub const ALICE: Who = who("alice", 1000, "/usr/bin/blockhost", "session-4.scope");
pub const BOB: Who = who("bob", 1001, "/usr/bin/blockhost", "session-7.scope");
pub const CAROL: Who = who("carol", 1002, "/usr/bin/blockhost", "session-9.scope");
pub const ROOT: Who = who("root", 0, "/usr/bin/blockhost", "");

/// One thing done: its intent and its outcome, or one event.
pub struct Did {
    pub drafts: Vec<(i64, Draft)>,
    /// Which attack it belongs to.
    pub attack: Option<usize>,
}

/// A record, and which attack it belongs to.
pub struct Labelled {
    pub bytes: Vec<u8>,
    pub draft: Draft,
    pub time_s: i64,
    pub attack: Option<usize>,
}

pub struct Machine {
    pub vmid: i64,
    pub owner: u32,
}

/// A host that is lived on.
pub struct Host {
    pub random: Random,
    pub done: Vec<Did>,
    pub machines: Vec<Machine>,
    pub next_vmid: i64,
    /// What is done now belongs to this attack.
    pub attack: Option<usize>,
    ops: u64,
}

/// (plugin, category, operation) of the actions that occur, as the catalog has them.
fn heading(action: &str) -> (&'static str, &'static str, &'static str) {
    match action {
        "qm-create" | "qm-clone" => ("qm", "compute", "create"),
        "qm-destroy" => ("qm", "compute", "delete"),
        "qm-guest-exec" | "qm-guest-ping" => ("qm", "compute", "apply"),
        "qm-status" | "qm-config" | "qm-list" => ("qm", "compute", "query"),
        "pct-exec" => ("pct", "compute", "apply"),
        "iptables-open" | "nat-map" => ("net", "network", "create"),
        "iptables-close" | "ip6-route-del" | "nat-unmap" => ("net", "network", "delete"),
        "ip6-route-add" => ("net", "network", "apply"),
        "ovs-set-flows" | "ovs-set-qos" => ("ovs", "network", "apply"),
        "wg-set-peers" => ("net", "network", "apply"),
        "virt-customize" => ("image", "storage", "modify"),
        "generate-wallet" => ("wallet", "settings", "create"),
        "addressbook-save" => ("wallet", "settings", "modify"),
        "request-refused" | "policy-reloaded" => ("agent", "settings", "query"),
        "subscription-created" | "subscription-ended" => ("event", "chain", "create"),
        _ => ("qm", "compute", "modify"),
    }
}

impl Host {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            done: Vec::new(),
            machines: Vec::new(),
            next_vmid: 100,
            attack: None,
            ops: 0,
        }
    }

    fn draft(
        &mut self,
        phase: Phase,
        who: &Who,
        action: &str,
        resource: &str,
        metadata: Value,
    ) -> Draft {
        let (plugin_id, category, operation) = heading(action);
        Draft {
            phase,
            op_id: if phase == Phase::Event {
                String::new()
            } else {
                format!("op-{}", self.ops)
            },
            plugin_id: plugin_id.into(),
            category: category.into(),
            operation: operation.into(),
            action: action.into(),
            resource: resource.into(),
            user: who.user.into(),
            uid: who.uid,
            pid: Some(1000 + i32::try_from(self.ops % 30_000).expect("small")),
            exe: Some(who.exe.into()),
            unit: (!who.unit.is_empty()).then(|| who.unit.into()),
            metadata: metadata.as_object().cloned().unwrap_or_default(),
        }
    }

    /// Does something that works, or not: `fails` of 100. Returns when it was over, in seconds.
    pub fn op(
        &mut self,
        at_s: i64,
        who: &Who,
        action: &str,
        resource: &str,
        params: Value,
        fails: i64,
    ) -> i64 {
        self.ops += 1;
        let mut metadata = params;
        metadata["right"] = json!({"rule": 1 + who.uid % 7, "gid": who.uid});
        let intent = self.draft(Phase::Intent, who, action, resource, metadata);
        let slow = if matches!(
            action,
            "qm-create" | "qm-clone" | "qm-destroy" | "virt-customize"
        ) {
            40
        } else {
            1
        };
        let took_us = slow * self.random.within(20_000, 180_000);
        let result = if self.random.chance(fails) {
            json!({"duration_us": took_us / 3, "result": "error", "code": "failed", "error": "it did not work"})
        } else {
            json!({"duration_us": took_us, "result": "ok"})
        };
        let outcome = self.draft(Phase::Outcome, who, action, resource, result);
        let at_us = at_s * 1_000_000 + self.random.within(0, 999_999);
        self.done.push(Did {
            drafts: vec![(at_us, intent), (at_us + took_us, outcome)],
            attack: self.attack,
        });
        at_s + took_us / 1_000_000 + 1
    }

    pub fn event(&mut self, at_s: i64, who: &Who, action: &str, resource: &str, metadata: Value) {
        self.ops += 1;
        let draft = self.draft(Phase::Event, who, action, resource, metadata);
        let at_us = at_s * 1_000_000 + self.random.within(0, 999_999);
        self.done.push(Did {
            drafts: vec![(at_us, draft)],
            attack: self.attack,
        });
    }

    pub fn refused(&mut self, at_s: i64, who: &Who, action: &str) {
        let metadata = json!({"requested": action, "code": "denied", "error": "no rule allows this", "suppressed_before": 0});
        self.event(at_s, who, "request-refused", "agent:front", metadata);
    }

    pub fn own_machine(&mut self, uid: u32) -> Option<i64> {
        let own: Vec<i64> = self
            .machines
            .iter()
            .filter(|m| m.owner == uid)
            .map(|m| m.vmid)
            .collect();
        (!own.is_empty()).then(|| *self.random.pick(&own))
    }

    pub fn create_machine(&mut self, at_s: i64, who: &Who) {
        let vmid = self.next_vmid;
        self.next_vmid += 1;
        let vm = format!("vm:{vmid}");
        let memory = *self.random.pick(&[1024, 2048, 4096]);
        let args = json!([
            "--memory",
            memory.to_string(),
            "--cores",
            "2",
            "--net0",
            "virtio,bridge=vmbr0"
        ]);
        let mut at = self.op(
            at_s,
            who,
            "qm-create",
            &vm,
            json!({"vmid": vmid, "name": format!("web-{vmid}"), "args": args}),
            3,
        );
        at = self.op(
            at,
            who,
            "qm-set",
            &vm,
            json!({"vmid": vmid, "options": {"memory": memory, "onboot": 1}}),
            1,
        );
        let route = format!("fd00:b10c::{vmid}/128");
        at = self.op(
            at,
            who,
            "ip6-route-add",
            &format!("route:{route}"),
            json!({"address": route, "dev": "vmbr0"}),
            1,
        );
        at = self.op(at, who, "qm-start", &vm, json!({"vmid": vmid}), 2);
        for _ in 0..self.random.within(1, 4) {
            at = self.op(at + 5, who, "qm-guest-ping", &vm, json!({"vmid": vmid}), 50);
        }
        if who.uid == ENGINE.uid {
            let data = json!({"block": 1200 + vmid, "plan": self.random.within(1, 3)});
            self.event(
                at,
                &ENGINE,
                "subscription-created",
                &format!("subscription:{vmid}"),
                data,
            );
        }
        self.machines.push(Machine {
            vmid,
            owner: who.uid,
        });
    }

    pub fn destroy_machine(&mut self, at_s: i64, who: &Who, vmid: i64) -> i64 {
        let at = self.op(
            at_s,
            who,
            "qm-stop",
            &format!("vm:{vmid}"),
            json!({"vmid": vmid}),
            2,
        );
        let at = self.op(
            at,
            who,
            "qm-destroy",
            &format!("vm:{vmid}"),
            json!({"vmid": vmid}),
            2,
        );
        self.machines.retain(|machine| machine.vmid != vmid);
        at
    }

    /// An hour of the day as people have it: hardly any at night, most in the evening.
    fn busy_hour(&mut self) -> i64 {
        loop {
            let hour = self.random.within(0, 23);
            let weight = match hour {
                0..=5 => 6,
                6..=8 => 25,
                9..=16 => 60,
                17..=21 => 100,
                _ => 35,
            };
            if self.random.chance(weight) {
                return hour;
            }
        }
    }

    fn moment(&mut self, day: i64, hour: i64) -> i64 {
        BEGIN_S + day * DAY_S + hour * HOUR_S + self.random.within(0, HOUR_S - 1)
    }

    /// One day of everybody.
    pub fn day(&mut self, day: i64) {
        self.services(day);
        for shop in [SHOP_A, SHOP_B] {
            self.shop(day, &shop);
        }
        let weekday = day % 7 < 5;
        if weekday || self.random.chance(15) {
            self.alice(day, weekday);
        }
        if weekday && self.random.chance(60) {
            self.bob(day);
        }
        // What changes in a host's life: a new colleague, a new service, a maintenance night, an upgrade.
        if day >= 27 && weekday && self.random.chance(50) {
            self.carol(day);
        }
        if day % 14 == 9 {
            let at = self.moment(day, 10);
            self.event(
                at,
                &ROOT,
                "policy-reloaded",
                "agent:policy",
                json!({"rules": 20 + day}),
            );
            let images =
                json!({"image_path": "debian-12.qcow2", "commands": [["install", "nginx"]]});
            self.op(
                at + 600,
                &ROOT,
                "virt-customize",
                "image:debian-12.qcow2",
                images,
                5,
            );
        }
        if day == 33 {
            let at = self.moment(day, 1);
            for n in 0..6 {
                self.op(at + n * 90, &BOB, "ovs-set-flows", &format!("flows:ovsbr0/core-{n}"), json!({"bridge": "ovsbr0", "owner": format!("core-{n}"), "flows": [{"table": 0, "priority": 100}]}), 2);
            }
        }
    }

    fn services(&mut self, day: i64) {
        let sale = if day == 30 { 12 } else { 0 };
        for _ in 0..self.random.within(5, 11) + sale {
            let hour = self.busy_hour();
            let at = self.moment(day, hour);
            self.create_machine(at, &CREATE);
        }
        // The collector's night: what has ended goes, a few at once.
        let at = BEGIN_S + day * DAY_S + 3 * HOUR_S + self.random.within(0, 600);
        let ended = self.random.within(3, 9);
        let mut when = at;
        for _ in 0..ended {
            if let Some(vmid) = self
                .own_machine(ENGINE.uid)
                .filter(|_| self.machines.len() > 25)
            {
                when = self.destroy_machine(when, &GC, vmid);
            }
        }
        for _ in 0..self.random.within(2, 6) {
            let hour = self.busy_hour();
            if let Some(vmid) = self.own_machine(ENGINE.uid) {
                let at = self.moment(day, hour);
                let action = *self.random.pick(&["qm-shutdown", "qm-start", "qm-set"]);
                let params = if action == "qm-set" {
                    json!({"vmid": vmid, "options": {"memory": 4096}})
                } else {
                    json!({"vmid": vmid})
                };
                self.op(at, &ENGINE, action, &format!("vm:{vmid}"), params, 4);
            }
        }
        // The monitor walks through some machines in order, every two hours.
        for hour in (0..24).step_by(2) {
            let at = BEGIN_S + day * DAY_S + hour * HOUR_S + 120;
            self.op(at, &MONITOR, "qm-list", "vm", json!({}), 1);
            let from = self.random.within(0, 20);
            let some: Vec<i64> = self
                .machines
                .iter()
                .skip(usize::try_from(from).expect("small"))
                .take(6)
                .map(|m| m.vmid)
                .collect();
            for (n, vmid) in (1..).zip(some) {
                self.op(
                    at + n * 2,
                    &MONITOR,
                    "qm-status",
                    &format!("vm:{vmid}"),
                    json!({"vmid": vmid}),
                    1,
                );
            }
        }
        let at = BEGIN_S + day * DAY_S + 2 * HOUR_S + self.random.within(0, 300);
        for n in 0..8 {
            if let Some(vmid) = self.own_machine(ENGINE.uid) {
                self.op(
                    at + n * 40,
                    &BACKUP,
                    "qm-guest-exec",
                    &format!("vm:{vmid}"),
                    json!({"vmid": vmid, "command": "fsfreeze -f /", "timeout": 30}),
                    8,
                );
            }
        }
        if day >= 24 {
            for hour in (0..24).step_by(4) {
                let at = self.moment(day, hour);
                self.op(at, &METRICS, "qm-list", "vm", json!({}), 1);
            }
        }
    }

    /// Everything in the order of its time, as the log has it.
    pub fn records(self) -> Vec<Labelled> {
        let mut drafts: Vec<(i64, Draft, Option<usize>)> = Vec::new();
        for did in self.done {
            drafts.extend(
                did.drafts
                    .into_iter()
                    .map(|(at, draft)| (at, draft, did.attack)),
            );
        }
        drafts.sort_by_key(|(at, ..)| *at);
        (1..)
            .zip(drafts)
            .map(|(height, (ts_us, draft, attack))| {
                let stamp = Stamp {
                    height,
                    prev_hash: &[0; 32],
                    ts_us,
                    hostname: "host-1",
                };
                Labelled {
                    bytes: draft.encode(&stamp).expect("a record"),
                    draft,
                    time_s: ts_us / 1_000_000,
                    attack,
                }
            })
            .collect()
    }
}
