//! What attackers do on the host of `host`: eleven kinds, each in the days after those that are learned from.

use crate::host::{
    ALICE, BEGIN_S, BOB, CREATE, DAY_S, DAYS, GC, HOUR_S, Host, Labelled, MONITOR, PAST_DAYS, ROOT,
    SHOP_A, SHOP_B, Who,
};
use serde_json::json;

/// The kinds.
pub const KINDS: [&str; 11] = [
    "many machines destroyed by the collector's account",
    "night-time change of where funds go",
    "firewall opened to everybody",
    "slow way out through odd ports",
    "a new program with the engine's account",
    "machine numbers tried one after the other",
    "policy reloaded, then a service does what it never did",
    "commands in a machine tried again and again",
    "one reseller at another's machines",
    "an image changed by somebody who never does",
    "commands run in many machines by the monitor's account",
];

/// How many attacks there are in a life.
pub const ATTACKS: usize = 15;

/// A life of a host with attacks; the kind of each attack by its number.
pub fn life(seed: u64) -> (Vec<Labelled>, Vec<usize>) {
    let mut host = Host::new(seed);
    let mut kinds: Vec<usize> = (0..ATTACKS).map(|n| n % KINDS.len()).collect();
    for n in (1..kinds.len()).rev() {
        let other = host.random.within(0, i64::try_from(n).expect("small"));
        kinds.swap(n, usize::try_from(other).expect("positive"));
    }
    let days: Vec<i64> = kinds
        .iter()
        .map(|_| host.random.within(PAST_DAYS, DAYS - 4))
        .collect();
    for day in 0..DAYS {
        host.day(day);
        for (number, (kind, when)) in kinds.iter().zip(&days).enumerate() {
            if *when == day {
                host.attack = Some(number);
                attack(&mut host, *kind, day);
                host.attack = None;
            }
        }
    }
    (host.records(), kinds)
}

fn attack(host: &mut Host, kind: usize, day: i64) {
    let day_s = BEGIN_S + day * DAY_S;
    // Any hour unless the kind says otherwise: attackers who know the host come when people work.
    let at = day_s + host.random.within(7 * HOUR_S, 22 * HOUR_S);
    let night = day_s + host.random.within(HOUR_S, 4 * HOUR_S);
    match kind {
        0 => {
            let mut when = at;
            for _ in 0..host.random.within(12, 20) {
                let Some(vmid) = host.own_machine(GC.uid) else {
                    break;
                };
                when = host.destroy_machine(when, &GC, vmid);
            }
        }
        1 => {
            let params = json!({"entries": {"hot": {"address": "0x52908400098527886E0F7030069857D2E4169EE7", "keyfile": "hot.key"}}});
            host.op(night, &ALICE, "addressbook-save", "addressbook", params, 0);
            host.op(
                night + 90,
                &ALICE,
                "generate-wallet",
                "wallet:hot2",
                json!({"name": "hot2"}),
                0,
            );
        }
        2 => {
            let who = *host.random.pick(&[SHOP_A, BOB]);
            host.open_port(at, &who, 22, "0.0.0.0/0");
            host.open_port(at + 20, &who, 3389, "0.0.0.0/0");
        }
        3 => {
            for step in 0..4 {
                let when = day_s + step * 20 * HOUR_S + host.random.within(0, 8 * HOUR_S);
                let port = host.random.within(20_000, 60_000);
                host.open_port(when, &BOB, port, "185.0.0.0/8");
            }
        }
        5 => {
            let from = host.random.within(100, 120);
            for n in 0..host.random.within(20, 35) {
                let vmid = from + n;
                if host
                    .machines
                    .iter()
                    .any(|m| m.vmid == vmid && m.owner == SHOP_B.uid)
                {
                    host.op(
                        at + n * 3,
                        &SHOP_B,
                        "qm-config",
                        &format!("vm:{vmid}"),
                        json!({"vmid": vmid}),
                        0,
                    );
                } else {
                    host.refused(at + n * 3, &SHOP_B, "qm-config");
                }
            }
        }
        4 => {
            let thief = Who {
                exe: "/usr/bin/python3.11",
                unit: "session-31.scope",
                ..CREATE
            };
            for n in 0..host.random.within(3, 8) {
                if let Some(vmid) = host.own_machine(CREATE.uid) {
                    let action = *host.random.pick(&["qm-set", "qm-start", "qm-shutdown"]);
                    host.op(
                        at + n * 50,
                        &thief,
                        action,
                        &format!("vm:{vmid}"),
                        json!({"vmid": vmid, "options": {"memory": 4096}}),
                        0,
                    );
                }
            }
        }
        6 => {
            host.event(
                at,
                &ROOT,
                "policy-reloaded",
                "agent:policy",
                json!({"rules": 60}),
            );
            for n in 0..2 {
                host.op(
                    at + 200 + n * 30,
                    &MONITOR,
                    "virt-customize",
                    "image:debian-12.qcow2",
                    json!({"image_path": "debian-12.qcow2", "commands": [["ssh-inject", "root"]]}),
                    0,
                );
            }
        }
        7 => {
            let Some(vmid) = host.own_machine(CREATE.uid) else {
                return;
            };
            for n in 0..host.random.within(25, 60) {
                host.op(
                    at + n * 4,
                    &ALICE,
                    "qm-guest-exec",
                    &format!("vm:{vmid}"),
                    json!({"vmid": vmid, "command": "su", "timeout": 30}),
                    95,
                );
            }
        }
        8 => {
            for n in 0..host.random.within(2, 6) {
                if let Some(vmid) = host.own_machine(SHOP_B.uid) {
                    let action = *host.random.pick(&["qm-status", "qm-config", "qm-shutdown"]);
                    host.op(
                        at + n * 400,
                        &SHOP_A,
                        action,
                        &format!("vm:{vmid}"),
                        json!({"vmid": vmid}),
                        0,
                    );
                }
            }
        }
        9 => {
            let who = *host.random.pick(&[ALICE, BOB]);
            host.op(
                at,
                &who,
                "virt-customize",
                "image:debian-12.qcow2",
                json!({"image_path": "debian-12.qcow2", "commands": [["write", "/etc/cron.d/x"]]}),
                0,
            );
        }
        _ => {
            for n in 0..host.random.within(6, 15) {
                if let Some(vmid) = host.own_machine(CREATE.uid) {
                    host.op(
                        at + n * 15,
                        &MONITOR,
                        "qm-guest-exec",
                        &format!("vm:{vmid}"),
                        json!({"vmid": vmid, "command": "curl", "timeout": 30}),
                        3,
                    );
                }
            }
        }
    }
}
