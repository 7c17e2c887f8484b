//! The shops and the people of a host, day by day.

use super::*;

impl Host {
    pub(super) fn shop(&mut self, day: i64, shop: &Who) {
        for _ in 0..self.random.within(1, 3) {
            let hour = self.busy_hour();
            let at = self.moment(day, hour);
            self.create_machine(at, shop);
        }
        for _ in 0..self.random.within(4, 10) {
            let hour = self.busy_hour();
            let at = self.moment(day, hour);
            if let Some(vmid) = self.own_machine(shop.uid) {
                let action = *self.random.pick(&[
                    "qm-status",
                    "qm-config",
                    "qm-start",
                    "qm-shutdown",
                    "qm-status",
                ]);
                self.op(
                    at,
                    shop,
                    action,
                    &format!("vm:{vmid}"),
                    json!({"vmid": vmid}),
                    5,
                );
            }
        }
        if self.random.chance(70)
            && let Some(vmid) = self.own_machine(shop.uid)
        {
            let hour = self.busy_hour();
            let at = self.moment(day, hour);
            self.destroy_machine(at, shop, vmid);
        }
        if self.random.chance(30) {
            let hour = self.busy_hour();
            let at = self.moment(day, hour);
            let port = *self.random.pick(&[80, 443, 8080, 22, 25]);
            self.open_port(at, shop, port, "192.0.2.0/24");
        }
        if self.random.chance(20) {
            let hour = self.busy_hour();
            let at = self.moment(day, hour);
            self.refused(at, shop, "qm-guest-exec");
        }
    }

    pub fn open_port(&mut self, at_s: i64, who: &Who, port: i64, source: &str) {
        let params = json!({"port": port, "proto": "tcp", "comment": format!("blockhost-{port}"), "source": source});
        self.op(
            at_s,
            who,
            "iptables-open",
            &format!("port:{port}/tcp"),
            params,
            2,
        );
    }

    pub(super) fn alice(&mut self, day: i64, weekday: bool) {
        let times = if weekday {
            self.random.within(6, 16)
        } else {
            3
        };
        for _ in 0..times {
            let hour = if weekday {
                self.random.within(8, 18)
            } else {
                self.random.within(10, 22)
            };
            let at = self.moment(day, hour);
            let vmid = self.random.within(100, self.next_vmid - 1);
            let vm = format!("vm:{vmid}");
            match self.random.within(0, 9) {
                0..=3 => self.op(at, &ALICE, "qm-config", &vm, json!({"vmid": vmid}), 6),
                4 | 5 => self.op(at, &ALICE, "qm-status", &vm, json!({"vmid": vmid}), 6),
                6 => self.op(
                    at,
                    &ALICE,
                    "qm-set",
                    &vm,
                    json!({"vmid": vmid, "options": {"cores": 4}}),
                    6,
                ),
                7 => self.op(
                    at,
                    &ALICE,
                    "qm-guest-exec",
                    &vm,
                    json!({"vmid": vmid, "command": "uptime", "timeout": 30}),
                    10,
                ),
                8 => self.op(
                    at,
                    &ALICE,
                    "qm-shutdown",
                    &vm,
                    json!({"vmid": vmid, "timeout": 60}),
                    6,
                ),
                _ => self.op(at, &ALICE, "qm-list", "vm", json!({}), 1),
            };
        }
        // On call: some night, something is looked at and started again.
        if self.random.chance(6) {
            let at = self.moment(day, 3);
            let vmid = self.random.within(100, self.next_vmid - 1);
            for n in 0..3 {
                self.op(
                    at + 60 * n,
                    &ALICE,
                    "qm-status",
                    &format!("vm:{vmid}"),
                    json!({"vmid": vmid}),
                    20,
                );
            }
            self.op(
                at + 400,
                &ALICE,
                "qm-start",
                &format!("vm:{vmid}"),
                json!({"vmid": vmid}),
                10,
            );
        }
    }

    pub(super) fn bob(&mut self, day: i64) {
        for _ in 0..self.random.within(2, 7) {
            let hour = self.random.within(9, 17);
            let at = self.moment(day, hour);
            let port = *self.random.pick(&[22, 80, 443, 8443, 53, 993, 587, 5432]);
            match self.random.within(0, 5) {
                0 => self.open_port(at, &BOB, port, "198.51.100.0/24"),
                1 => {
                    let params = json!({"port": port, "proto": "tcp", "comment": format!("blockhost-{port}"), "source": "198.51.100.0/24"});
                    self.op(
                        at,
                        &BOB,
                        "iptables-close",
                        &format!("port:{port}/tcp"),
                        params,
                        5,
                    );
                }
                2 | 3 => {
                    let owner = format!("vm-{}", self.random.within(100, self.next_vmid - 1));
                    self.op(at, &BOB, "ovs-set-flows", &format!("flows:ovsbr0/{owner}"), json!({"bridge": "ovsbr0", "owner": owner, "flows": [{"table": 0, "priority": 100}]}), 4);
                }
                4 => {
                    self.op(at, &BOB, "wg-set-peers", "wg:wg0", json!({"name": "wg0", "peers": [{"endpoint": "192.0.2.9:51820", "allowed_ips": ["10.8.0.2/32"]}]}), 3);
                }
                _ => {
                    let public = format!("203.0.113.{}", self.random.within(2, 9));
                    self.op(
                        at,
                        &BOB,
                        "nat-map",
                        &format!("nat:{public}"),
                        json!({"public": public, "private": "10.0.0.7", "comment": "vm"}),
                        3,
                    );
                }
            }
        }
    }

    pub(super) fn carol(&mut self, day: i64) {
        for _ in 0..self.random.within(2, 6) {
            let hour = self.random.within(8, 16);
            let at = self.moment(day, hour);
            let vmid = self.random.within(100, self.next_vmid - 1);
            let action = *self
                .random
                .pick(&["qm-config", "qm-status", "qm-config", "qm-set"]);
            self.op(
                at,
                &CAROL,
                action,
                &format!("vm:{vmid}"),
                json!({"vmid": vmid}),
                6,
            );
        }
    }
}
