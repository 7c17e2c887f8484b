//! What a flow does with a packet. Jumps only go to later tables, so no set of flows can loop; writes only go to fields
//! that the packet has; what Open vSwitch does not have (allow, delay, fragment) or what hands packets or power to others
//! (controller, learn, note) does not exist here.

use serde_json::{Value, json};

use super::field::{Field, Needs, Syntax};
use super::matching::{
    Bits, IPV4, IPV6, Known, Match, PortRef, VLAN_PRESENT, needs_rule, read_exact, show_bits,
};
use super::track::{Ct, Nat};
use crate::value::{MeterId, Object, Param, QueueId, TableId, ValueError, VlanTag};

/// Actions of one flow.
const MAX_ACTIONS: usize = 64;
/// Clauses of one conjunction.
const MAX_CLAUSES: u8 = 64;

/// One action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowAction {
    /// `"drop"`: alone.
    Drop,
    /// `"normal"`: as a learning switch would.
    Normal,
    /// `"flood"`: out of every port but the one it came in by.
    Flood,
    /// `"in_port"`: back where it came from.
    InPort,
    /// `"local"`: to the bridge's own interface.
    Local,
    /// `"dec_ttl"`
    DecTtl,
    /// `"pop_vlan"`
    PopVlan,
    /// `"pop_queue"`: back to the port's default queue.
    PopQueue,
    /// `{"output": port}`
    Output(PortRef),
    /// `{"resubmit": table}`: look there, then go on here.
    Resubmit(TableId),
    /// `{"goto_table": table}`: last.
    Goto(TableId),
    /// `{"set_field": {field: value}}`
    Set(Field, u128),
    /// `{"load": {"value": V, "into": subfield}}`
    Load(u64, Subfield),
    /// `{"move": {"from": subfield, "into": subfield}}`
    Move(Subfield, Subfield),
    /// `{"push_vlan": tag}`: a new outer tag.
    PushVlan(VlanTag),
    /// `{"set_queue": queue}`
    SetQueue(QueueId),
    /// `{"meter": meter}`: first.
    Meter(MeterId),
    /// `{"ct": {...}}`
    Ct(Ct),
    /// `{"conjunction": {"id": I, "clause": K, "of": N}}`: only with others of its kind.
    Conjunction {
        /// What `conj_id` matches then.
        id: u32,
        /// Which clause this flow belongs to, from 1.
        clause: u8,
        /// How many clauses there are: 2..=64.
        of: u8,
    },
}

/// Some bits of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subfield {
    /// The field.
    pub field: Field,
    /// Its lowest bit.
    pub start: u8,
    /// How many.
    pub bits: u8,
}

pub(super) const KIND: &str = "flow action";
const WORDS: [(&str, FlowAction); 8] = [
    ("drop", FlowAction::Drop),
    ("normal", FlowAction::Normal),
    ("flood", FlowAction::Flood),
    ("in_port", FlowAction::InPort),
    ("local", FlowAction::Local),
    ("dec_ttl", FlowAction::DecTtl),
    ("pop_vlan", FlowAction::PopVlan),
    ("pop_queue", FlowAction::PopQueue),
];
const ONE_KEY: &str = "drop, normal, flood, in_port, local, dec_ttl, pop_vlan, pop_queue, or an object with one of output, resubmit, goto_table, set_field, load, move, push_vlan, set_queue, meter, ct, conjunction";

pub(super) fn wrong(given: &str, rule: &'static str) -> ValueError {
    ValueError::new(KIND, given, rule)
}

/// Reads the actions of a flow of that table and match.
pub(super) fn read_list(
    value: &Value,
    table: TableId,
    matching: &Match,
) -> Result<Vec<FlowAction>, ValueError> {
    let items = value
        .as_array()
        .filter(|items| (1..=MAX_ACTIONS).contains(&items.len()))
        .ok_or_else(|| {
            ValueError::of_json(KIND, value, "a list of 1 to 64 actions; drop is one")
        })?;
    let mut packet = matching.known();
    let mut actions = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let action = FlowAction::read(item)
            .and_then(|action| {
                let alone = items.len() == 1;
                action.check(table, &mut packet, at == 0, at + 1 == items.len(), alone)?;
                Ok(action)
            })
            .map_err(|error| error.within(&format!("action {at}")))?;
        actions.push(action);
    }
    let conjunctions = actions
        .iter()
        .filter(|a| matches!(a, FlowAction::Conjunction { .. }))
        .count();
    if conjunctions != 0 && conjunctions != actions.len() {
        return Err(wrong(
            "conjunction",
            "it stands only with others of its kind",
        ));
    }
    Ok(actions)
}

impl FlowAction {
    /// How each action is written and what it does.
    #[must_use]
    pub const fn reference() -> &'static [(&'static str, &'static str)] {
        &[
            ("\"drop\"", "nothing; alone"),
            ("\"normal\"", "as a learning switch would"),
            ("\"flood\"", "out of every port but the one it came in by"),
            ("\"in_port\"", "back out of the port it came in by"),
            ("\"local\"", "to the bridge's own interface"),
            ("\"dec_ttl\"", "one hop less; needs `dl_type` ip or ipv6"),
            ("\"pop_vlan\"", "without its outer tag; needs a tag"),
            ("\"pop_queue\"", "back to the port's default queue"),
            ("{\"output\": port}", "out of that port"),
            (
                "{\"resubmit\": table}",
                "looked up in a later table, then on here",
            ),
            ("{\"goto_table\": table}", "on in a later table; last"),
            (
                "{\"set_field\": {field: value}}",
                "that value into a writable field; needs what a match of the field needs",
            ),
            (
                "{\"load\": {\"value\": V, \"into\": {\"field\": f, \"start\": s, \"bits\": b}}}",
                "a number into bits of a field",
            ),
            (
                "{\"move\": {\"from\": {...}, \"into\": {...}}}",
                "bits of one field into as many of another",
            ),
            ("{\"push_vlan\": tag}", "a new outer tag"),
            (
                "{\"set_queue\": queue}",
                "into a queue of the port it goes out of; see `ovs-set-qos`",
            ),
            (
                "{\"meter\": meter}",
                "dropped where the meter's rate is exceeded; first; see `ovs-set-meter`",
            ),
            (
                "{\"ct\": {\"commit\": bool, \"zone\": z, \"table\": t, \"nat\": {...}, \"mark\": m}}",
                "through connection tracking; `nat` is {}, or `src` or `dst` with an address or range, and `ports`",
            ),
            (
                "{\"conjunction\": {\"id\": i, \"clause\": k, \"of\": n}}",
                "one clause of a condition that `conj_id` matches; alone with its kind",
            ),
        ]
    }

    fn read(value: &Value) -> Result<Self, ValueError> {
        if let Some(text) = value.as_str() {
            return WORDS
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, action)| action.clone())
                .ok_or_else(|| wrong(text, why_not(text)));
        }
        let map = value
            .as_object()
            .ok_or_else(|| ValueError::of_json(KIND, value, ONE_KEY))?;
        let mut entries = map.iter();
        let (Some((name, inner)), None) = (entries.next(), entries.next()) else {
            return Err(wrong("an object without exactly one key", ONE_KEY));
        };
        let read = || -> Result<Option<Self>, ValueError> {
            Ok(Some(match name.as_str() {
                "output" => Self::Output(Param::from_json(inner)?),
                "resubmit" => Self::Resubmit(Param::from_json(inner)?),
                "goto_table" => Self::Goto(Param::from_json(inner)?),
                "set_field" => read_set(inner)?,
                "load" => read_load(inner)?,
                "move" => read_move(inner)?,
                "push_vlan" => Self::PushVlan(Param::from_json(inner)?),
                "set_queue" => Self::SetQueue(Param::from_json(inner)?),
                "meter" => Self::Meter(Param::from_json(inner)?),
                "ct" => Self::Ct(Ct::read(inner)?),
                "conjunction" => read_conjunction(inner)?,
                _ => return Ok(None),
            }))
        };
        read()
            .map_err(|error| error.within(name))?
            .ok_or_else(|| wrong(name, why_not(name)))
    }

    /// Whether it may stand here; `packet` becomes what the packet is afterwards.
    fn check(
        &self,
        table: TableId,
        packet: &mut Known,
        first: bool,
        last: bool,
        alone: bool,
    ) -> Result<(), ValueError> {
        let later = |name: &str, target: TableId| {
            if target > table {
                Ok(())
            } else {
                let rule =
                    "it goes to a table behind the flow's own, so that no packet can go in circles";
                Err(wrong(&format!("{name} {target}"), rule))
            }
        };
        let needs = |name: &str, packet: &Known, needs: Needs| {
            if packet.allows(needs) {
                Ok(())
            } else {
                Err(wrong(name, needs_rule(needs)))
            }
        };
        match self {
            Self::Drop if !alone => Err(wrong("drop", "it stands alone")),
            Self::Meter(_) if !first => Err(wrong(
                "meter",
                "it stands first: what is over its rate is dropped before anything happens",
            )),
            Self::Goto(_) if !last => Err(wrong(
                "goto_table",
                "it stands last; use resubmit to go on afterwards",
            )),
            Self::Goto(target) => later("goto_table", *target),
            Self::Resubmit(target) => later("resubmit", *target),
            Self::DecTtl => needs("dec_ttl", packet, Needs::Ip),
            Self::PopVlan => {
                needs("pop_vlan", packet, Needs::Tag)?;
                packet.tagged = false;
                Ok(())
            }
            Self::PushVlan(_) => {
                packet.tagged = true;
                Ok(())
            }
            Self::Set(Field::Vlan, _) => needs("vlan", packet, Needs::Tag),
            Self::Set(field, _) => needs(field.name(), packet, field.spec().needs),
            Self::Load(_, into) => needs(into.field.name(), packet, into.field.spec().needs),
            Self::Move(from, into) => {
                needs(from.field.name(), packet, from.field.spec().needs)?;
                needs(into.field.name(), packet, into.field.spec().needs)
            }
            Self::Ct(ct) => {
                needs("ct", packet, Needs::Ip)?;
                ct.table.map_or(Ok(()), |target| later("ct", target))?;
                let family = match ct.nat {
                    Some(Nat::Src(range) | Nat::Dst(range)) if range.first.address().is_ipv4() => {
                        IPV4
                    }
                    Some(Nat::Src(_) | Nat::Dst(_)) => IPV6,
                    Some(Nat::Known) | None => return Ok(()),
                };
                if packet.dl_type == Some(family) {
                    Ok(())
                } else {
                    Err(wrong(
                        "nat",
                        "its addresses are of the family that the match names",
                    ))
                }
            }
            _ => Ok(()),
        }
    }

    pub(super) fn show(&self) -> Value {
        let number = |field: Field, value: u128| show_bits(field, Bits::exact(field, value));
        match self {
            Self::Output(port) => json!({"output": port.to_json()}),
            Self::Resubmit(table) => json!({"resubmit": table.get()}),
            Self::Goto(table) => json!({"goto_table": table.get()}),
            Self::Set(field, value) => json!({"set_field": {field.name(): number(*field, *value)}}),
            Self::Load(value, into) => json!({"load": {"value": value, "into": into.show()}}),
            Self::Move(from, into) => json!({"move": {"from": from.show(), "into": into.show()}}),
            Self::PushVlan(tag) => json!({"push_vlan": tag.get()}),
            Self::SetQueue(queue) => json!({"set_queue": queue.get()}),
            Self::Meter(meter) => json!({"meter": meter.get()}),
            Self::Ct(ct) => json!({"ct": ct.show()}),
            Self::Conjunction { id, clause, of } => {
                json!({"conjunction": {"id": id, "clause": clause, "of": of}})
            }
            word => WORDS
                .iter()
                .find(|(_, action)| action == word)
                .map_or(Value::Null, |(word, _)| Value::from(*word)),
        }
    }
}

/// Why a name is no action, for those that people expect.
fn why_not(name: &str) -> &'static str {
    match name {
        "allow" | "accept" | "permit" => "a switch has no such action; use normal or output",
        "delay" | "jitter" | "fragment" => {
            "a switch has no such action; it belongs to the port's queue or MTU"
        }
        "controller" | "learn" | "note" | "group" | "sample" => {
            "this agent does not write it: it would hand packets or flows to others"
        }
        _ => ONE_KEY,
    }
}

fn read_set(value: &Value) -> Result<FlowAction, ValueError> {
    let entries = value.as_object().filter(|map| map.len() == 1);
    let (name, value) = entries
        .and_then(|map| map.iter().next())
        .ok_or_else(|| ValueError::of_json(KIND, value, "an object of one field and its value"))?;
    let field = writable(name)?;
    Ok(FlowAction::Set(field, read_exact(field, value)?))
}

fn writable(name: &str) -> Result<Field, ValueError> {
    Field::find(name)
        .filter(|field| field.spec().writable)
        .ok_or_else(|| wrong(name, "no field of that name can be written"))
}

fn read_load(value: &Value) -> Result<FlowAction, ValueError> {
    let rule = "an object of value and into";
    let object = Object::read(KIND, rule, value, &["value", "into"])?;
    let into = Subfield::read(object.raw("into"), true)?;
    let value = object
        .raw("value")
        .and_then(Value::as_u64)
        .filter(|value| *value < 1 << 53 && (into.bits >= 64 || value >> into.bits == 0))
        .ok_or_else(|| wrong("value", "an integer that fits into the bits and below 2^53"))?;
    Ok(FlowAction::Load(value, into))
}

fn read_move(value: &Value) -> Result<FlowAction, ValueError> {
    let object = Object::read(KIND, "an object of from and into", value, &["from", "into"])?;
    let from = Subfield::read(object.raw("from"), false)?;
    let into = Subfield::read(object.raw("into"), true)?;
    if from.bits == into.bits {
        Ok(FlowAction::Move(from, into))
    } else {
        Err(wrong("bits", "from and into have as many bits"))
    }
}

fn read_conjunction(value: &Value) -> Result<FlowAction, ValueError> {
    const RULE: &str = "id from 1 to 4294967295, of from 2 to 64, clause from 1 to of";
    let object = Object::read(KIND, RULE, value, &["id", "clause", "of"])?;
    let number = |key: &str| object.raw(key).and_then(Value::as_u64);
    let read = || {
        let id = u32::try_from(number("id")?).ok().filter(|id| *id > 0)?;
        let of = u8::try_from(number("of")?).ok()?;
        let clause = u8::try_from(number("clause")?).ok()?;
        ((2..=MAX_CLAUSES).contains(&of) && (1..=of).contains(&clause))
            .then_some(FlowAction::Conjunction { id, clause, of })
    };
    read().ok_or_else(|| wrong("conjunction", RULE))
}

impl Subfield {
    const RULE: &'static str = "an object of field, and optionally start and bits inside its width";

    fn read(value: Option<&Value>, write: bool) -> Result<Self, ValueError> {
        let value = value.ok_or_else(|| wrong("nothing", Self::RULE))?;
        let object = Object::read(KIND, Self::RULE, value, &["field", "start", "bits"])?;
        let name = object
            .raw("field")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let field = if write {
            writable(name)?
        } else {
            Field::find(name)
                .filter(|f| f.spec().writable || *f == Field::CtMark)
                .ok_or_else(|| wrong(name, "no field of that name can be copied"))?
        };
        if matches!(field.syntax(), Syntax::Vlan) {
            return Err(wrong(name, "the tag is written by set_field"));
        }
        let number = |key: &str, default: u8| match object.raw(key) {
            None => Some(default),
            Some(value) => value.as_u64().and_then(|n| u8::try_from(n).ok()),
        };
        let read = || {
            let start = number("start", 0).filter(|start| *start < field.bits())?;
            let room = field.bits() - start;
            let bits = number("bits", room).filter(|bits| (1..=room).contains(bits))?;
            Some(Self { field, start, bits })
        };
        read().ok_or_else(|| wrong(name, Self::RULE))
    }

    fn show(&self) -> Value {
        json!({"field": self.field.name(), "start": self.start, "bits": self.bits})
    }
}

pub(super) fn schema() -> Value {
    let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
    let one = |name: &str, inner: Value| json!({"type": "object", "properties": {name: inner}, "required": [name], "additionalProperties": false});
    let object = || json!({"type": "object"});
    json!({
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_ACTIONS,
        "items": {"oneOf": [
            {"type": "string", "enum": words},
            one("output", PortRef::schema()),
            one("resubmit", TableId::schema()),
            one("goto_table", TableId::schema()),
            one("set_field", object()),
            one("load", object()),
            one("move", object()),
            one("push_vlan", VlanTag::schema()),
            one("set_queue", QueueId::schema()),
            one("meter", MeterId::schema()),
            one("ct", object()),
            one("conjunction", object()),
        ]},
    })
}

/// What `push_vlan` writes into `vlan`.
pub(super) fn tag_bits(tag: VlanTag) -> u128 {
    u128::from(tag.get()) | VLAN_PRESENT
}
