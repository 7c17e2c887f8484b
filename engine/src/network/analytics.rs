//! What went through the switches: two answers of `ovs-list` compared, and what came in between as events for the ledger.
//! Pure; [`super::accounts`] looks on a schedule. A packet is never counted twice: where counters began anew, what they
//! show is what is counted.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Bytes of one event's details: what `ledger-append` takes, with room for what is the same in each.
const MAX_PART: usize = 12_000;
/// Whose flows they are where nobody knows.
const UNKNOWN: &str = "unknown";
/// Counters of a port, as `ovs-list` calls them.
const PORT_COUNTERS: [&str; 8] = [
    "rx_packets",
    "rx_bytes",
    "rx_dropped",
    "rx_errors",
    "tx_packets",
    "tx_bytes",
    "tx_dropped",
    "tx_errors",
];

/// An answer of `ovs-list` that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer of ovs-list has no {0} where one belongs")]
pub struct NoCounters(&'static str);

/// What one answer says: counters by bridge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    bridges: BTreeMap<String, BridgeCounters>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct BridgeCounters {
    /// Whether it said anything of flows and meters.
    answered: bool,
    /// By owner and flow; whole only where nothing was left out.
    flows: Option<BTreeMap<(String, String), Pair>>,
    owners: BTreeMap<String, Pair>,
    ports: BTreeMap<String, Vec<u64>>,
    /// Passed and dropped, by number.
    meters: BTreeMap<String, Pair>,
}

/// Packets and bytes, or passed and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Pair(u64, u64);

impl Pair {
    fn plus(self, other: Self) -> Self {
        Self(
            self.0.saturating_add(other.0),
            self.1.saturating_add(other.1),
        )
    }
}

impl Counters {
    /// Reads the `output` of `ovs-list` with `flows`.
    ///
    /// # Errors
    /// [`NoCounters`].
    pub fn read(answer: &Value) -> Result<Self, NoCounters> {
        let mut bridges = BTreeMap::new();
        for bridge in list(answer, "bridges")? {
            let name = bridge["name"].as_str().ok_or(NoCounters("name"))?;
            let mut seen = BridgeCounters::default();
            for port in list(bridge, "ports")? {
                let Some(name) = port["name"].as_str() else {
                    return Err(NoCounters("name"));
                };
                // A port that does not work has none.
                if port["counters"].is_object() {
                    let counters = PORT_COUNTERS.map(|key| port["counters"][key].as_u64());
                    // All ones: the device does not count this.
                    let known = counters.map(|count| count.filter(|count| *count != u64::MAX));
                    seen.ports.insert(
                        name.to_owned(),
                        known.map(Option::unwrap_or_default).to_vec(),
                    );
                }
            }
            if bridge.get("error").is_none() {
                seen.answered = true;
                seen.read_flows(bridge)?;
            }
            bridges.insert(name.to_owned(), seen);
        }
        Ok(Self { bridges })
    }
}

impl BridgeCounters {
    fn read_flows(&mut self, bridge: &Value) -> Result<(), NoCounters> {
        let owner = |entry: &Value| entry["owner"].as_str().unwrap_or(UNKNOWN).to_owned();
        for entry in list(bridge, "owners")? {
            let sum = self.owners.entry(owner(entry)).or_default();
            *sum = sum.plus(pair(entry, "packets", "bytes")?);
        }
        for meter in list(bridge, "meters")? {
            let number = meter["meter"].as_u64().ok_or(NoCounters("meter"))?;
            // Some datapaths count nothing here.
            let counted = pair(meter, "packets", "dropped").unwrap_or_default();
            self.meters.insert(format!("meter-{number}"), counted);
        }
        if bridge["flows_left_out"] == 0 {
            let mut flows = BTreeMap::new();
            for flow in list(bridge, "flows")? {
                let place = json!([flow["table"], flow["priority"], flow["match"]]).to_string();
                flows.insert((owner(flow), place), pair(flow, "packets", "bytes")?);
            }
            self.flows = Some(flows);
        }
        Ok(())
    }
}

fn list<'a>(value: &'a Value, key: &'static str) -> Result<&'a Vec<Value>, NoCounters> {
    value[key].as_array().ok_or(NoCounters(key))
}

fn pair(value: &Value, first: &'static str, second: &'static str) -> Result<Pair, NoCounters> {
    let number = |key| value[key].as_u64().ok_or(NoCounters(key));
    Ok(Pair(number(first)?, number(second)?))
}

/// What came in between on one bridge; what did not move is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// The bridge.
    pub bridge: String,
    /// Packets and bytes that the flows of an owner handled: each table that a packet goes through counts it.
    owners: Map<String, Value>,
    ports: Map<String, Value>,
    meters: Map<String, Value>,
    /// Some counters began anew: the switch was restarted, or flows or ports were made again.
    pub began_anew: bool,
    /// There were too many flows to look at each: what flows had counted that are gone is missing.
    pub whole: bool,
}

/// What came between two answers, bridge by bridge. A bridge that was not there before began with nothing.
#[must_use]
pub fn between(before: &Counters, now: &Counters) -> Vec<Traffic> {
    now.bridges
        .iter()
        .filter_map(|(name, now)| {
            let nothing = BridgeCounters {
                answered: true,
                flows: Some(BTreeMap::new()),
                ..BridgeCounters::default()
            };
            let before = before.bridges.get(name).unwrap_or(&nothing);
            let traffic = before.until(name, now);
            let moved = [&traffic.owners, &traffic.ports, &traffic.meters];
            moved.iter().any(|map| !map.is_empty()).then_some(traffic)
        })
        .collect()
}

impl BridgeCounters {
    fn until(&self, name: &str, now: &Self) -> Traffic {
        let mut began_anew = false;
        let mut grown = |before: Option<&Pair>, now: Pair| match before {
            Some(before) if before.0 <= now.0 && before.1 <= now.1 => {
                Pair(now.0 - before.0, now.1 - before.1)
            }
            Some(_) => {
                began_anew = true;
                now
            }
            None => now,
        };
        let mut owners: BTreeMap<&str, Pair> = BTreeMap::new();
        // From what did not answer nothing can be taken away.
        let comparable = self.answered && now.answered;
        let whole = match (&self.flows, &now.flows) {
            (Some(before), Some(flows)) => {
                for (key, count) in flows {
                    let sum = owners.entry(&key.0).or_default();
                    *sum = sum.plus(grown(before.get(key), *count));
                }
                true
            }
            _ => {
                for (owner, count) in now.owners.iter().filter(|_| comparable) {
                    let before = self.owners.get(owner).copied().unwrap_or_default();
                    // A sum that fell holds what was counted before, too; how much, nobody can say.
                    if before.0 <= count.0 && before.1 <= count.1 {
                        owners.insert(owner, grown(Some(&before), *count));
                    }
                }
                false
            }
        };
        let mut meters = Map::new();
        for (number, count) in now.meters.iter().filter(|_| comparable) {
            let Pair(packets, dropped) = grown(self.meters.get(number), *count);
            if packets > 0 || dropped > 0 {
                meters.insert(
                    number.clone(),
                    json!({"packets": safe(packets), "dropped": safe(dropped)}),
                );
            }
        }
        let mut ports = Map::new();
        for (port, counts) in &now.ports {
            let before = self.ports.get(port);
            let again = before.is_some_and(|before| before.iter().zip(counts).any(|(b, n)| b > n));
            began_anew |= again;
            let mut grown = Map::new();
            for (at, (key, count)) in PORT_COUNTERS.iter().zip(counts).enumerate() {
                let base = before.filter(|_| !again).and_then(|before| before.get(at));
                let more = count - base.unwrap_or(&0);
                if more > 0 {
                    grown.insert((*key).to_owned(), safe(more));
                }
            }
            if !grown.is_empty() {
                ports.insert(port.clone(), grown.into());
            }
        }
        let owners = owners
            .into_iter()
            .filter(|(_, count)| *count != Pair::default())
            .map(|(owner, Pair(packets, bytes))| {
                (
                    owner.to_owned(),
                    json!({"packets": safe(packets), "bytes": safe(bytes)}),
                )
            });
        Traffic {
            bridge: name.to_owned(),
            owners: owners.collect(),
            ports,
            meters,
            began_anew,
            whole,
        }
    }
}

/// Integers beyond are not the same for every reader of JSON.
fn safe(number: u64) -> Value {
    number.min((1 << 53) - 1).into()
}

impl Traffic {
    /// The details of the events that say so, each small enough for the ledger. `since` and `until` are moments as text.
    #[must_use]
    pub fn events(&self, since: &str, until: &str) -> Vec<Value> {
        let mut parts: Vec<Map<String, Value>> = vec![Map::new()];
        let mut size = 0;
        for (kind, map) in [
            ("owners", &self.owners),
            ("ports", &self.ports),
            ("meters", &self.meters),
        ] {
            for (name, counts) in map {
                // Names of ports that others made may hold what a key of the ledger may not.
                let name: String = name
                    .chars()
                    .map(|c| {
                        if c.is_ascii_alphanumeric() || "_.:-".contains(c) {
                            c
                        } else {
                            '_'
                        }
                    })
                    .take(64)
                    .collect();
                let more = name.len() + counts.to_string().len() + 16;
                if size + more > MAX_PART {
                    parts.push(Map::new());
                    size = 0;
                }
                size += more;
                if let Some(part) = parts.last_mut() {
                    let entry = part.entry(kind).or_insert_with(|| json!({}));
                    entry[name] = counts.clone();
                }
            }
        }
        let count = parts.len();
        parts
            .into_iter()
            .enumerate()
            .map(|(at, mut part)| {
                part.insert("bridge".into(), self.bridge.as_str().into());
                part.insert("since".into(), since.into());
                part.insert("until".into(), until.into());
                part.insert("began_anew".into(), self.began_anew.into());
                part.insert("whole".into(), self.whole.into());
                if count > 1 {
                    part.insert("part".into(), (at + 1).into());
                    part.insert("parts".into(), count.into());
                }
                part.into()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockhost_proto::action::Action;
    use proptest::prelude::*;

    fn flow(owner: &str, priority: u32, packets: u64) -> Value {
        json!({"table": 0, "priority": priority, "owner": owner, "match": {}, "packets": packets, "bytes": packets * 100})
    }

    fn answer(flows: &[Value], left_out: u64, port: u64) -> Counters {
        let mut owners: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for flow in flows {
            let sum = owners
                .entry(flow["owner"].as_str().unwrap_or_default().to_owned())
                .or_default();
            *sum = (
                sum.0 + flow["packets"].as_u64().unwrap(),
                sum.1 + flow["bytes"].as_u64().unwrap(),
            );
        }
        let owners: Vec<Value> = owners.iter().map(|(owner, (packets, bytes))| json!({"owner": owner, "packets": packets, "bytes": bytes})).collect();
        let counters: Map<String, Value> = PORT_COUNTERS
            .iter()
            .map(|key| ((*key).to_owned(), port.into()))
            .collect();
        Counters::read(&json!({"bridges": [{"name": "ovsbr0", "owners": owners, "flows": flows, "flows_left_out": left_out,
            "ports": [{"name": "vi100", "counters": counters}, {"name": "broken", "counters": null}],
            "meters": [{"meter": 32_768, "packets": port, "dropped": null}]}]}))
        .expect("an answer")
    }

    #[test]
    fn what_grew_is_told_by_owner_and_port_and_what_stood_still_is_not() {
        let before = answer(
            &[
                flow("net.ct.100", 1, 10),
                flow("net.ct.100", 2, 5),
                flow("net.base", 3, 7),
            ],
            0,
            4,
        );
        let now = answer(
            &[
                flow("net.ct.100", 1, 13),
                flow("net.ct.100", 2, 6),
                flow("net.base", 3, 7),
            ],
            0,
            9,
        );
        let [traffic] = &between(&before, &now)[..] else {
            panic!("one bridge");
        };
        assert_eq!(
            Value::from(traffic.owners.clone()),
            json!({"net.ct.100": {"packets": 4, "bytes": 400}})
        );
        assert_eq!(traffic.ports["vi100"]["rx_bytes"], 5);
        assert!(!traffic.began_anew && traffic.whole);
        assert_eq!(between(&now, &now), [], "nothing moved");
        let fresh = &between(&Counters::default(), &now)[0];
        assert_eq!(
            fresh.owners["net.ct.100"]["packets"], 19,
            "a bridge that was made in between"
        );
    }

    #[test]
    fn counters_that_began_anew_count_from_there_and_it_is_said() {
        let before = answer(
            &[flow("a", 1, 1000), flow("a", 2, 1000), flow("b", 3, 50)],
            0,
            500,
        );
        // The switch was restarted: all is less than before.
        let now = answer(&[flow("a", 1, 3), flow("a", 2, 0), flow("b", 3, 60)], 0, 20);
        let [traffic] = &between(&before, &now)[..] else {
            panic!("one bridge");
        };
        assert_eq!(traffic.owners["a"]["packets"], 3);
        assert_eq!(traffic.owners["b"]["packets"], 10);
        assert_eq!(traffic.ports["vi100"]["tx_packets"], 20);
        assert!(traffic.began_anew);
    }

    #[test]
    fn a_flow_that_is_gone_hides_nothing_of_the_others() {
        let before = answer(&[flow("a", 1, 1000), flow("a", 2, 10)], 0, 1);
        let now = answer(&[flow("a", 2, 15), flow("a", 3, 4)], 0, 1);
        let traffic = &between(&before, &now)[0];
        assert_eq!(
            traffic.owners["a"]["packets"], 9,
            "the sum fell, and the traffic did not"
        );
        assert!(!traffic.began_anew);
        // Where not every flow could be looked at, the sum is all there is, and that is said.
        let now = answer(&[flow("a", 2, 15), flow("a", 3, 4)], 7, 2);
        let traffic = &between(&before, &now)[0];
        assert!(!traffic.whole && traffic.owners.is_empty(), "{traffic:?}");
    }

    #[test]
    fn the_events_of_a_large_bridge_all_fit_into_the_ledger() {
        let flows = |packets: u64| -> Vec<Value> {
            (0..2000)
                .map(|n| {
                    flow(
                        &format!("net.ct.container-with-a-long-name-{n}"),
                        n,
                        packets,
                    )
                })
                .collect()
        };
        let traffic = &between(
            &answer(&flows(1), 0, 1),
            &answer(&flows(9_000_000_000), 0, 2),
        )[0];
        let events = traffic.events("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z");
        assert!(events.len() > 10);
        let mut named = 0;
        for data in &events {
            let params = json!({"category": "network", "action": "flow-stats", "resource": "bridge:ovsbr0", "data": data});
            Action::from_parts("ledger-append", &params).expect("the agent takes it");
            assert_eq!(data["parts"], events.len());
            named += data["owners"].as_object().map_or(0, Map::len);
        }
        assert_eq!(named, 2000);
    }

    #[test]
    fn torn_answers_are_told_and_names_of_others_break_no_event() {
        for torn in [
            json!({}),
            json!({"bridges": [{}]}),
            json!({"bridges": [{"name": "a", "ports": [{}]}]}),
            json!({"bridges": [{"name": "a", "ports": []}]}),
            json!({"bridges": [{"name": "a", "ports": [], "owners": [{"packets": -1}], "meters": []}]}),
        ] {
            assert!(Counters::read(&torn).is_err(), "{torn}");
        }
        let answer = |packets: u64| {
            Counters::read(&json!({"bridges": [{"name": "a", "error": "gone", "ports": [{"name": "p\u{1b}[2J \n", "counters": {"rx_packets": packets}}]}]})).expect("an answer")
        };
        let event = &between(&answer(1), &answer(3))[0].events("x", "y")[0];
        assert_eq!(event["ports"]["p__2J__"]["rx_packets"], 2, "{event}");
        let params = json!({"category": "network", "action": "flow-stats", "data": event});
        Action::from_parts("ledger-append", &params).expect("the agent takes it");
    }

    proptest! {
        #[test]
        fn nothing_is_counted_twice_however_often_counters_begin_anew(
            steps in proptest::collection::vec((proptest::collection::vec(0u64..1000, 3), any::<bool>()), 1..20)
        ) {
            // Three flows that grow, and a switch that now and then is restarted just before a look.
            let mut counts = [0u64; 3];
            let mut sent = 0;
            let mut told = 0;
            let mut before = answer(&[flow("a", 0, 0), flow("a", 1, 0), flow("a", 2, 0)], 0, 0);
            for (more, restarted) in steps {
                if restarted {
                    counts = [0; 3];
                }
                for (count, more) in counts.iter_mut().zip(&more) {
                    *count += more;
                    sent += more;
                }
                let now = answer(&[flow("a", 0, counts[0]), flow("a", 1, counts[1]), flow("a", 2, counts[2])], 0, 0);
                told += between(&before, &now).first().and_then(|traffic| traffic.owners["a"]["packets"].as_u64()).unwrap_or(0);
                if !restarted {
                    prop_assert!(told <= sent);
                }
                before = now;
            }
            prop_assert!(told <= sent, "{} of {}", told, sent);
        }
    }
}
