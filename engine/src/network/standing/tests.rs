//! Ledgers in the making, and what stands by them.

use super::*;
use proptest::prelude::*;
use serde_json::json;

/// A ledger in the making: intents and outcomes as the agent writes them.
#[derive(Default)]
struct Written {
    fold: Fold,
    height: u64,
}

impl Written {
    fn record(&mut self, action: &str, phase: &str, op: &str, metadata: Value) {
        let record = json!({
            "action": action, "category": "network", "metadata": metadata, "op_id": op, "phase": phase,
            "plugin_id": "net", "ts_us": 1,
        });
        self.height += 1;
        self.fold.see(self.height, record.to_string().as_bytes());
    }

    fn intent(&mut self, op: &str, action: &str, params: &Value) {
        let action = Action::from_parts(action, params).expect("valid");
        let mut metadata = action.ledger_metadata();
        metadata.insert("right".into(), json!({"rule": 1, "gid": 5}));
        self.record(action.name(), "intent", op, metadata.into());
    }

    fn outcome(&mut self, op: &str, action: &str, result: &str) {
        self.record(
            action,
            "outcome",
            op,
            json!({"duration_us": 1, "result": result}),
        );
    }

    fn done(&mut self, action: &str, params: &Value) {
        let op = format!("op{}", self.height);
        self.intent(&op, action, params);
        self.outcome(&op, action, "ok");
    }

    fn ports(&self) -> Vec<String> {
        let standing = self.fold.standing(&[]);
        assert!(standing.gaps.is_empty(), "{:?}", standing.gaps);
        standing.ports.iter().map(ToString::to_string).collect()
    }
}

fn port(port: u16, comment: &str) -> Value {
    json!({"port": port, "comment": comment})
}

fn pair(public: u8, private: u8, comment: &str) -> Value {
    json!({"public": format!("203.0.113.{public}"), "private": format!("10.0.0.{private}"), "comment": comment})
}

#[test]
fn what_was_opened_and_not_closed_stands_but_for_what_was_open_for_a_moment() {
    let mut ledger = Written::default();
    ledger.done("iptables-open", &port(443, "web"));
    ledger.done("iptables-open", &port(80, "web"));
    ledger.done("iptables-open", &port(22, "knock-7"));
    ledger.done("iptables-open", &port(22, "blockhost-knock"));
    ledger.done(
        "iptables-open",
        &json!({"port": 53, "proto": "udp", "comment": "dns", "source": "10.0.0.0/8"}),
    );
    ledger.done("iptables-open", &port(443, "web"));
    ledger.done("iptables-close", &port(80, "web"));
    // Another comment is another rule.
    ledger.done("iptables-close", &port(443, "other"));
    assert_eq!(
        ledger.ports(),
        ["53/udp from 10.0.0.0/8 (dns)", "443/tcp (web)"]
    );
    ledger.done("iptables-set", &json!({"rules": [port(25, "mail")]}));
    ledger.done("iptables-open", &port(26, "mail"));
    assert_eq!(ledger.ports(), ["25/tcp (mail)", "26/tcp (mail)"]);
}

#[test]
fn what_failed_or_never_ended_opens_nothing_and_closes_what_it_was_to_close() {
    let mut ledger = Written::default();
    for (op, result) in [("a", "error"), ("b", "unknown")] {
        ledger.intent(op, "iptables-open", &port(1, op));
        ledger.outcome(op, "iptables-open", result);
    }
    ledger.intent("c", "iptables-open", &port(1, "c"));
    assert!(ledger.ports().is_empty());
    for comment in ["d", "e", "f"] {
        ledger.done("iptables-open", &port(1, comment));
    }
    ledger.intent("d", "iptables-close", &port(1, "d"));
    ledger.outcome("d", "iptables-close", "unknown");
    ledger.intent("e", "iptables-close", &port(1, "e"));
    assert_eq!(ledger.ports(), ["1/tcp (f)"]);
    // One of two lists, whichever: what is in both.
    ledger.done("iptables-open", &port(2, "g"));
    ledger.intent(
        "s",
        "iptables-set",
        &json!({"rules": [port(2, "g"), port(3, "h")]}),
    );
    ledger.outcome("s", "iptables-set", "unknown");
    assert_eq!(ledger.ports(), ["2/tcp (g)"]);
}

#[test]
fn it_is_the_order_of_the_outcomes_that_counts() {
    let mut ledger = Written::default();
    ledger.intent("open", "iptables-open", &port(1, "a"));
    ledger.intent("close", "iptables-close", &port(1, "a"));
    ledger.outcome("open", "iptables-open", "ok");
    ledger.outcome("close", "iptables-close", "ok");
    assert!(ledger.ports().is_empty());
}

#[test]
fn an_address_is_the_last_ones_that_it_was_mapped_to() {
    let mut ledger = Written::default();
    ledger.done("nat-map", &pair(7, 7, "a"));
    ledger.done("nat-map", &pair(8, 8, "b"));
    ledger.done("nat-unmap", &pair(7, 7, "a"));
    // Its unmapping was not written down.
    ledger.done("nat-map", &pair(8, 9, "c"));
    let standing = ledger.fold.standing(&[]);
    let pairs: Vec<String> = standing.pairs.iter().map(ToString::to_string).collect();
    assert_eq!(pairs, ["203.0.113.8 for 10.0.0.9 (c)"]);
    assert!(standing.pairs_action().is_ok());
}

#[test]
fn a_list_too_large_for_its_record_is_known_where_it_is_what_stood_before() {
    let mut ledger = Written::default();
    let many: Vec<Value> = (1..=2000)
        .map(|n| port(n, "a-comment-of-some-length"))
        .collect();
    for one in &many {
        ledger.done("iptables-open", one);
    }
    ledger.done("iptables-open", &port(22, "knock-1"));
    let asked = ledger.fold.standing(&[]).ports_action().expect("an action");
    let params = Action::from(asked.clone()).params();
    assert!(Action::from(asked).ledger_metadata()["rules"]["sha256"].is_string());
    ledger.done("iptables-set", &params);
    assert_eq!(ledger.ports().len(), many.len());
    let gaps = ledger.fold.standing(&[(1, 10)]).gaps;
    assert_eq!(gaps.len(), 1, "all ports were named later: {gaps:?}");
    assert!(gaps[0].contains("mapped addresses"), "{gaps:?}");
    // Somebody's own list of that size.
    ledger.done("iptables-set", &json!({"rules": many[..1999]}));
    let standing = ledger.fold.standing(&[]);
    assert!(standing.ports.is_empty() && standing.gaps.len() == 1);
}

#[test]
fn pruned_records_are_a_gap_until_all_was_named_again() {
    let mut ledger = Written::default();
    ledger.done("iptables-open", &port(443, "web"));
    let gaps = |ledger: &Written| ledger.fold.standing(&[(1, 1)]).gaps.len();
    assert_eq!(gaps(&ledger), 2, "ports and addresses");
    ledger.done("iptables-set", &json!({"rules": [port(443, "web")]}));
    assert_eq!(gaps(&ledger), 1);
    ledger.done("nat-set", &json!({"pairs": []}));
    assert_eq!(gaps(&ledger), 0);
}

#[test]
fn records_of_others_say_nothing_of_the_firewall() {
    let mut fold = Fold::default();
    for (plugin, category) in [("event", "network"), ("net", "chain")] {
        for phase in ["intent", "outcome"] {
            let record = json!({"action": "iptables-open", "category": category, "op_id": "x", "phase": phase,
                "plugin_id": plugin, "metadata": {"port": 22, "comment": "a", "result": "ok"}});
            fold.see(1, record.to_string().as_bytes());
        }
    }
    assert!(!fold.standing(&[]).seen);
}

proptest! {
    #[test]
    fn whatever_was_done_stands_as_if_it_had_been_set_at_once(deeds in proptest::collection::vec((0u8..3, 1u16..6, any::<bool>()), 0..40)) {
        let mut ledger = Written::default();
        let mut model = BTreeSet::new();
        for (kind, number, good) in deeds {
            let op = format!("op{}", ledger.height);
            let name = if kind == 0 { "iptables-close" } else { "iptables-open" };
            ledger.intent(&op, name, &port(number, "a"));
            ledger.outcome(&op, name, if good { "ok" } else { "error" });
            if kind == 0 {
                model.remove(&number);
            } else if good {
                model.insert(number);
            }
        }
        let standing = ledger.fold.standing(&[]);
        let ports: BTreeSet<u16> = standing.ports.iter().map(|port| port.port.get()).collect();
        prop_assert_eq!(&ports, &model);
        ledger.done("iptables-set", &Action::from(standing.ports_action().unwrap()).params());
        prop_assert_eq!(ledger.fold.standing(&[]).ports, standing.ports);
    }

    #[test]
    fn no_record_makes_it_panic(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut fold = Fold::default();
        fold.see(1, text.as_bytes());
        fold.see(2, &bytes);
        let _ = fold.standing(&[]);
    }
}
