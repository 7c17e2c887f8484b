//! What there is: bridges, ports, meters, flows and counters as JSON, read from the database in one moment and from each
//! bridge by OpenFlow. Changes nothing; foreign text is passed on as JSON strings only.

use std::collections::{BTreeMap, HashMap};

use blockhost_proto::action::OvsList;
use blockhost_proto::flow::Field;
use blockhost_proto::response::ErrorCode;
use serde_json::{Map, Value, json};

use super::error::SwitchError;
use super::flows::{COOKIE_KEY, asked, digest, known_cookies};
use super::kept;
use super::meters::torn;
use super::openflow::connection::Conversation;
use super::openflow::message::{flow_request, meter_request, part, port_request};
use super::openflow::stats::{self, FlowStats, Meaning, MeterConfig, MeterStats, PortStats};
use super::qos::{self, Shapes};
use super::rows::{Row, Transaction, Uuid, equals};
use super::switch::{BRIDGE, PORT, Switch, interface_columns, is_ours};
use crate::compartment::{Done, Failure, JobCtx};

/// Bytes of flows listed one by one, of all bridges together; the others are counted.
const MAX_FLOWS_TEXT: usize = 512 << 10;

/// Lists.
///
/// # Errors
/// `not_found` for a bridge that is not there, `failed` when the switch cannot be asked.
pub fn list(switch: &Switch, action: &OvsList, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let condition = action
        .bridge
        .as_ref()
        .map_or_else(|| json!([]), |name| equals("name", name.as_str()));
    let (bridges, ports, interfaces, shapes) = switch.database(ctx.deadline, |db| {
        let columns = interface_columns(db);
        let mut t = Transaction::new();
        let bridges = t.select("Bridge", condition, BRIDGE);
        let ports = t.select("Port", json!([]), PORT);
        let interfaces = t.select("Interface", json!([]), &columns);
        let qos = t.select("QoS", json!([]), qos::SHAPE);
        let queues = t.select("Queue", json!([]), qos::QUEUE);
        let mut answers = db.transact(t, ctx.deadline)?;
        Ok((
            answers.rows(bridges),
            by_uuid(answers.rows(ports)),
            by_uuid(answers.rows(interfaces)),
            Shapes {
                qos: by_uuid(answers.rows(qos)),
                queues: by_uuid(answers.rows(queues)),
            },
        ))
    })?;
    if let (Some(name), true) = (&action.bridge, bridges.is_empty()) {
        let message = format!("there is no bridge {name} on the switch");
        return Err(Failure::new(ErrorCode::NotFound, message));
    }
    let mut shown = Vec::new();
    let mut room = MAX_FLOWS_TEXT;
    for bridge in &bridges {
        let name = bridge.text("name").unwrap_or_default();
        // A bridge that the switch could not make has rows and no management socket.
        let live = Live::ask(switch, name, action, ctx);
        let numbers = live.as_ref().map(|live| &live.ports);
        let ports: Vec<Value> = bridge
            .references("ports")
            .iter()
            .filter_map(|uuid| ports.get(uuid))
            .map(|row| port(row, &interfaces, &shapes, numbers.ok()))
            .collect();
        let mut entry = json!({
            "name": name,
            "ours": is_ours(bridge),
            "datapath_type": bridge.text("datapath_type").filter(|kind| !kind.is_empty()).unwrap_or("system"),
            "fail_mode": bridge.text("fail_mode").unwrap_or("standalone"),
            "ports": ports,
        });
        if kept::lost(bridge) {
            entry["flows_lost"] = true.into();
        }
        match live {
            Ok(live) => live.show(bridge, action, &mut entry, &mut room),
            Err(error) => entry["error"] = error.to_string().into(),
        }
        shown.push(entry);
    }
    Ok(Done {
        output: json!({ "bridges": shown }).to_string(),
        extra: Map::new(),
    })
}

fn by_uuid(rows: Vec<Row>) -> HashMap<Uuid, Row> {
    rows.into_iter()
        .filter_map(|row| Some((row.uuid()?, row)))
        .collect()
}

fn port(
    row: &Row,
    interfaces: &HashMap<Uuid, Row>,
    shapes: &Shapes,
    counters: Option<&HashMap<u32, PortStats>>,
) -> Value {
    let of_port = row.references("interfaces");
    let interface = of_port.iter().find_map(|uuid| interfaces.get(uuid));
    let text = |column| interface.and_then(|row| row.text(column));
    let belongs = |key| interface.and_then(|row| row.entry("external_ids", key));
    let number = interface.and_then(|row| row.integer("ofport"));
    let tags: Vec<i64> = row
        .elements("trunks")
        .iter()
        .filter_map(Value::as_i64)
        .collect();
    let stats = number
        .and_then(|number| u16::try_from(number).ok())
        .and_then(|number| counters?.get(&super::openflow::encode::wide_port(number)));
    json!({
        "name": row.text("name"),
        "ours": is_ours(row),
        "ofport": number,
        "type": text("type").filter(|kind| !kind.is_empty()).unwrap_or("system"),
        "tag": row.integer("tag"),
        "trunks": tags,
        "vmid": belongs("vm-id").and_then(|id| id.parse::<u32>().ok()),
        "iface_id": belongs("iface-id"),
        "attached_mac": belongs("attached-mac"),
        "mac": text("mac_in_use"),
        "link": text("link_state"),
        "error": text("error"),
        "qos": !row.references("qos").is_empty(),
        "limits": shapes.of(row, interface),
        "counters": stats.map(|stats| json!({
            "rx_packets": stats.rx_packets, "rx_bytes": stats.rx_bytes,
            "rx_dropped": stats.rx_dropped, "rx_errors": stats.rx_errors,
            "tx_packets": stats.tx_packets, "tx_bytes": stats.tx_bytes,
            "tx_dropped": stats.tx_dropped, "tx_errors": stats.tx_errors,
        })),
    })
}

/// What a bridge says of itself.
struct Live {
    ports: HashMap<u32, PortStats>,
    meters: Vec<(MeterConfig, Option<MeterStats>)>,
    flows: Vec<FlowStats>,
}

impl Live {
    fn ask(
        switch: &Switch,
        bridge: &str,
        action: &OvsList,
        ctx: &JobCtx<'_>,
    ) -> Result<Self, SwitchError> {
        let mut talk: Conversation = switch.talk(bridge, ctx.deadline)?;
        let mut ports = HashMap::new();
        talk.statistics(&port_request(), |body| {
            stats::ports(body, |port| {
                ports.insert(port.port, port);
            })
            .map_err(torn)
        })?;
        let mut counters = HashMap::new();
        talk.statistics(&meter_request(part::METER), |body| {
            stats::meter_counters(body, |meter| {
                counters.insert(meter.id, meter);
            })
            .map_err(torn)
        })?;
        let mut meters = Vec::new();
        talk.statistics(&meter_request(part::METER_CONFIG), |body| {
            stats::meters(body, |meter| {
                meters.push((meter, counters.get(&meter.id).copied()))
            })
            .map_err(torn)
        })?;
        let (cookie, mask) = action
            .owner
            .as_ref()
            .map_or((0, 0), |owner| (owner.cookie(), u64::MAX));
        let mut flows = Vec::new();
        talk.statistics(&flow_request(cookie, mask), |body| {
            stats::flows(body, |flow| flows.push(flow)).map_err(torn)
        })?;
        Ok(Self {
            ports,
            meters,
            flows,
        })
    }

    fn show(mut self, bridge: &Row, action: &OvsList, entry: &mut Value, room: &mut usize) {
        let owner =
            |cookie: u64| bridge.entry("external_ids", &format!("{COOKIE_KEY}{cookie:012x}"));
        let mut owners: BTreeMap<u64, Vec<&FlowStats>> = BTreeMap::new();
        for flow in &self.flows {
            owners.entry(flow.entry.cookie).or_default().push(flow);
        }
        if kept::lost(bridge) {
            // Whose they were, so that who set them sees that they are gone.
            for cookie in known_cookies(bridge) {
                owners.entry(cookie).or_default();
            }
        }
        entry["owners"] = owners
            .into_iter()
            .map(|(cookie, flows)| {
                let sum = |count: fn(&FlowStats) -> u64| {
                    flows
                        .iter()
                        .fold(0u64, |sum, flow| sum.saturating_add(count(flow)))
                };
                let (asked, as_set) = since_set(bridge, cookie, &flows);
                json!({
                    "owner": owner(cookie), "cookie": format!("{cookie:#x}"), "flows": flows.len(),
                    "packets": sum(|flow| flow.packets), "bytes": sum(|flow| flow.bytes),
                    "asked": asked, "as_set": as_set,
                })
            })
            .collect();
        entry["meters"] = self
            .meters
            .iter()
            .map(|(meter, stats)| {
                let unit = if meter.packets { "pktps" } else { "kbps" };
                json!({
                    "meter": meter.id, "unit": unit, "rate": meter.rate, "burst": meter.burst,
                    "packets": stats.map(|s| s.packets), "bytes": stats.map(|s| s.bytes), "dropped": stats.map(|s| s.dropped),
                })
            })
            .collect();
        if !action.flows {
            return;
        }
        self.flows
            .sort_by_key(|flow| (flow.entry.table, u16::MAX - flow.entry.priority));
        let mut shown = Vec::new();
        let total = self.flows.len();
        for flow in &self.flows {
            let value = json!({
                "table": flow.entry.table,
                "priority": flow.entry.priority,
                "owner": owner(flow.entry.cookie),
                "match": matching(&flow.entry.oxm),
                "idle_timeout": flow.entry.idle_timeout,
                "hard_timeout": flow.entry.hard_timeout,
                "packets": flow.packets,
                "bytes": flow.bytes,
            });
            let Some(left) = room.checked_sub(value.to_string().len()) else {
                break;
            };
            *room = left;
            shown.push(value);
        }
        entry["flows_left_out"] = (total - shown.len()).into();
        entry["flows"] = shown.into();
    }
}

/// What the owner asked for when these flows were set, and whether they are as they were set then.
fn since_set<'a>(
    bridge: &'a Row,
    cookie: u64,
    flows: &[&FlowStats],
) -> (Option<&'a str>, Option<bool>) {
    let Some((asked, set)) = asked(bridge, cookie) else {
        return (None, None);
    };
    let is = digest(flows.iter().map(|flow| &flow.entry));
    (Some(asked), Some(is.is_ok_and(|is| is.as_str() == set)))
}

/// A match by the names of its fields, values in hexadecimal, masks after `/`.
fn matching(oxm: &[u8]) -> Value {
    let Ok(meaning) = Meaning::read(oxm) else {
        return Value::Null;
    };
    let hex = |bytes: &[u8]| {
        let text = blockhost_proto::escape::hex(bytes);
        let text = text.trim_start_matches('0');
        format!("0x{}", if text.is_empty() { "0" } else { text })
    };
    let fields = meaning.fields().map(|(class, number, value, mask)| {
        let text = mask.map_or_else(
            || hex(value),
            |mask| format!("{}/{}", hex(value), hex(mask)),
        );
        (name(class, number), Value::String(text))
    });
    Value::Object(fields.collect())
}

fn name(class: u16, number: u8) -> String {
    if (class, number) == (0x8000, 0) {
        return "in_port".to_owned();
    }
    let protocols = [None, Some(17), Some(58), Some(132)];
    Field::ALL
        .iter()
        .find(|field| {
            protocols
                .iter()
                .any(|proto| field.oxm(*proto) == (class, number))
        })
        .map_or_else(
            || format!("oxm_{class:04x}_{number}"),
            |field| field.name().to_owned(),
        )
}
