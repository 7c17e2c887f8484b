//! Which packets a flow concerns: fields with value and mask, each only where the others make it meaningful.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use super::field::{Field, Needs, Syntax};
use crate::value::{Ipv4Prefix, Ipv6Prefix, Param, SwitchIfName, ValueError};

/// A port of the same bridge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortRef {
    /// By its OpenFlow number: 1..=65279.
    Number(u16),
    /// By its name, which the switch's database resolves.
    Name(SwitchIfName),
}

/// Value and mask of a field; a bit that is not in the mask is 0 in the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits {
    /// What the packet must have there.
    pub value: u128,
    /// Which bits count.
    pub mask: u128,
}

/// All conditions of a flow. Keys are in the order in which a switch wants them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Match {
    in_port: Option<PortRef>,
    fields: BTreeMap<Field, Bits>,
}

/// What a packet is known to be at some point of a flow.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    pub(super) dl_type: Option<u128>,
    pub(super) nw_proto: Option<u128>,
    pub(super) icmp_type: Option<u128>,
    pub(super) tagged: bool,
}

pub(super) const IPV4: u128 = 0x0800;
pub(super) const IPV6: u128 = 0x86dd;
const ARP: u128 = 0x0806;
const ETH_TYPES: [(&str, u128); 3] = [("ip", IPV4), ("ipv6", IPV6), ("arp", ARP)];
const PROTOS: [(&str, u128); 5] = [
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("icmp6", 58),
    ("sctp", 132),
];
/// Value and mask: bit 0 is "any fragment", bit 1 "a later one".
const FRAGS: [(&str, u128, u128); 5] = [
    ("no", 0, 3),
    ("yes", 1, 1),
    ("first", 1, 3),
    ("later", 3, 3),
    ("not_later", 0, 2),
];
const CT_FLAGS: [(&str, u32); 8] = [
    ("new", 0),
    ("est", 1),
    ("rel", 2),
    ("rpl", 3),
    ("inv", 4),
    ("trk", 5),
    ("snat", 6),
    ("dnat", 7),
];
const TRACKED: u128 = 1 << 5;
/// "Has a tag" among the bits of `vlan`.
pub(super) const VLAN_PRESENT: u128 = 0x1000;

impl PortRef {
    const KIND: &'static str = "switch port";
    const RULE: &'static str = "a port's name, or its number from 1 to 65279";
}

impl Param for PortRef {
    fn from_json(value: &Value) -> Result<Self, ValueError> {
        match value {
            Value::String(text) => text.parse().map(Self::Name),
            other => other
                .as_u64()
                .and_then(|number| u16::try_from(number).ok())
                .filter(|number| (1..=0xfeff).contains(number))
                .map(Self::Number)
                .ok_or_else(|| ValueError::of_json(Self::KIND, other, Self::RULE)),
        }
    }
    fn to_json(&self) -> Option<Value> {
        Some(match self {
            Self::Number(number) => Value::from(*number),
            Self::Name(name) => Value::String(name.to_string()),
        })
    }
    fn schema() -> Value {
        json!({"type": ["string", "integer"]})
    }
}

impl Bits {
    /// The whole field has this value.
    #[must_use]
    pub fn exact(field: Field, value: u128) -> Self {
        Self {
            value,
            mask: full(field),
        }
    }

    /// Whether every bit of the field counts.
    #[must_use]
    pub fn is_exact(self, field: Field) -> bool {
        self.mask == full(field)
    }
}

fn full(field: Field) -> u128 {
    u128::MAX >> (128 - u32::from(field.bits()))
}

fn word(table: &[(&str, u128)], value: &Value) -> Option<u128> {
    let text = value.as_str()?;
    table
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, number)| *number)
}

fn mac(text: &str) -> Option<u128> {
    let mut number = 0;
    let mut count = 0;
    for part in text.split(':') {
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        number = number << 8 | u128::from(u8::from_str_radix(part, 16).ok()?);
        count += 1;
        if count > 6 {
            return None;
        }
    }
    (count == 6).then_some(number)
}

fn mac_text(number: u128) -> String {
    let bytes = number.to_be_bytes();
    bytes[10..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
}

fn refused(field: Field, value: &Value) -> ValueError {
    ValueError::of_json("value of a packet's field", value, field.rule()).within(field.name())
}

/// How a syntax is written, as a phrase.
pub(super) const fn syntax_rule(syntax: Syntax) -> &'static str {
    match syntax {
        Syntax::Mac => {
            "six bytes as 02:00:00:00:00:01, in a match with another six as mask after /"
        }
        Syntax::V4 => {
            "an IPv4 address, in a match also a network of 1 to 32 bits without host bits"
        }
        Syntax::V6 => {
            "an IPv6 address, in a match also a network of 1 to 128 bits without host bits"
        }
        Syntax::EthType => "ip, ipv6, arp, or an integer from 1536 to 65535",
        Syntax::Proto => "icmp, tcp, udp, icmp6, sctp, or an integer from 0 to 255",
        Syntax::Vlan => "an integer from 1 to 4094, or none in a match",
        Syntax::Number => "an integer within the field",
        Syntax::Masked => {
            "an integer within the field, in a match also {\"value\":V,\"mask\":M} without value bits outside the mask"
        }
        Syntax::Frag => "no, yes, first, later or not_later",
        Syntax::CtState => {
            "an object of new, est, rel, rpl, inv, trk, snat, dnat with true or false; nothing but trk where trk is false"
        }
    }
}

/// Reads the value of a field in a match.
fn read_bits(field: Field, value: &Value) -> Option<Bits> {
    let number = |value: &Value| {
        let number = u128::from(value.as_u64()?);
        (number <= field.spec().max).then_some(number)
    };
    let exact = |number: Option<u128>| number.map(|number| Bits::exact(field, number));
    match field.syntax() {
        Syntax::Mac => {
            let (address, mask) = match value.as_str()?.split_once('/') {
                Some((address, mask)) => (mac(address)?, mac(mask)?),
                None => (mac(value.as_str()?)?, full(field)),
            };
            (mask != 0 && address & !mask == 0).then_some(Bits {
                value: address,
                mask,
            })
        }
        Syntax::V4 => {
            let prefix: Ipv4Prefix = value.as_str()?.parse().ok()?;
            Some(Bits {
                value: u32::from(prefix.address()).into(),
                mask: prefix.mask().into(),
            })
        }
        Syntax::V6 => {
            let prefix: Ipv6Prefix = value.as_str()?.parse().ok()?;
            Some(Bits {
                value: prefix.address().into(),
                mask: prefix.mask(),
            })
        }
        Syntax::EthType => exact(
            word(&ETH_TYPES, value).or_else(|| number(value).filter(|number| *number >= 0x600)),
        ),
        Syntax::Proto => exact(word(&PROTOS, value).or_else(|| number(value))),
        Syntax::Vlan if value.as_str() == Some("none") => exact(Some(0)),
        Syntax::Vlan => exact(
            number(value)
                .filter(|tag| (1..=4094).contains(tag))
                .map(|tag| tag | VLAN_PRESENT),
        ),
        Syntax::Number => exact(number(value)),
        Syntax::Masked => match value.as_object() {
            None => exact(number(value)),
            Some(map) if map.len() == 2 => {
                let (value, mask) = (number(map.get("value")?)?, number(map.get("mask")?)?);
                (mask != 0 && value & !mask == 0).then_some(Bits { value, mask })
            }
            Some(_) => None,
        },
        Syntax::Frag => {
            let text = value.as_str()?;
            let (_, value, mask) = FRAGS.iter().find(|(name, ..)| *name == text)?;
            Some(Bits {
                value: *value,
                mask: *mask,
            })
        }
        Syntax::CtState => {
            let mut bits = Bits { value: 0, mask: 0 };
            for (name, set) in value.as_object()? {
                let (_, bit) = CT_FLAGS.iter().find(|(flag, _)| flag == name)?;
                bits.mask |= 1 << bit;
                bits.value |= u128::from(set.as_bool()?) << bit;
            }
            let untracked = bits.mask & TRACKED != 0 && bits.value & TRACKED == 0;
            // A packet that was not tracked has no other flag.
            (bits.mask != 0 && !(untracked && bits.mask != TRACKED)).then_some(bits)
        }
    }
}

/// Reads a value that is to be written into a field: no mask, no prefix.
pub(super) fn read_exact(field: Field, value: &Value) -> Result<u128, ValueError> {
    read_bits(field, value)
        .filter(|bits| bits.is_exact(field) && !(field == Field::Vlan && bits.value == 0))
        .map(|bits| bits.value)
        .ok_or_else(|| refused(field, value))
}

/// A field's value as it stands in a request.
pub(super) fn show_bits(field: Field, bits: Bits) -> Value {
    let named = |table: &[(&str, u128)]| {
        table
            .iter()
            .find(|(_, number)| *number == bits.value)
            .map(|(name, _)| Value::from(*name))
    };
    // Every number that is written without a mask has at most 64 bits.
    let plain = |number: u128| Value::from(u64::try_from(number).unwrap_or(u64::MAX));
    match field.syntax() {
        Syntax::Mac if bits.is_exact(field) => Value::String(mac_text(bits.value)),
        Syntax::Mac => Value::String(format!("{}/{}", mac_text(bits.value), mac_text(bits.mask))),
        Syntax::V4 => {
            let address = Ipv4Addr::from(u32::try_from(bits.value).unwrap_or(u32::MAX));
            Value::String(prefix_text(&address, bits, 32))
        }
        Syntax::V6 => Value::String(prefix_text(&Ipv6Addr::from(bits.value), bits, 128)),
        Syntax::EthType => named(&ETH_TYPES).unwrap_or_else(|| plain(bits.value)),
        Syntax::Proto => named(&PROTOS).unwrap_or_else(|| plain(bits.value)),
        Syntax::Vlan if bits.value == 0 => Value::from("none"),
        Syntax::Vlan => plain(bits.value & 0xfff),
        Syntax::Masked if !bits.is_exact(field) => {
            json!({"value": plain(bits.value), "mask": plain(bits.mask)})
        }
        Syntax::Number | Syntax::Masked => plain(bits.value),
        Syntax::Frag => FRAGS
            .iter()
            .find(|(_, value, mask)| (*value, *mask) == (bits.value, bits.mask))
            .map_or(Value::Null, |(name, ..)| Value::from(*name)),
        Syntax::CtState => CT_FLAGS
            .iter()
            .filter(|(_, bit)| bits.mask >> bit & 1 == 1)
            .map(|(name, bit)| ((*name).to_owned(), Value::Bool(bits.value >> bit & 1 == 1)))
            .collect::<Map<_, _>>()
            .into(),
    }
}

fn prefix_text(address: &impl ToString, bits: Bits, width: u32) -> String {
    let length = bits.mask.count_ones();
    if length == width {
        address.to_string()
    } else {
        format!("{}/{length}", address.to_string())
    }
}

/// One half of a field's value as a switch's tools write it.
pub(super) fn plain_text(field: Field, number: u128) -> String {
    match field.syntax() {
        Syntax::Mac => mac_text(number),
        Syntax::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).to_string(),
        Syntax::V6 => Ipv6Addr::from(number).to_string(),
        _ => format!("{number:#x}"),
    }
}

impl Known {
    /// Whether a field means anything for such packets.
    pub(super) fn allows(&self, needs: Needs) -> bool {
        let ipv6_nd = |types: &[u128]| {
            self.dl_type == Some(IPV6)
                && self.nw_proto == Some(58)
                && self.icmp_type.is_some_and(|kind| types.contains(&kind))
        };
        match needs {
            Needs::Nothing => true,
            Needs::Tag => self.tagged,
            Needs::V4 => self.dl_type == Some(IPV4),
            Needs::V6 => self.dl_type == Some(IPV6),
            Needs::Ip => matches!(self.dl_type, Some(IPV4 | IPV6)),
            Needs::Arp => self.dl_type == Some(ARP),
            Needs::Ports => {
                matches!(self.dl_type, Some(IPV4 | IPV6))
                    && matches!(self.nw_proto, Some(6 | 17 | 132))
            }
            Needs::Icmp => matches!(
                (self.dl_type, self.nw_proto),
                (Some(IPV4), Some(1)) | (Some(IPV6), Some(58))
            ),
            Needs::Nd => ipv6_nd(&[135, 136]),
            Needs::NdSolicit => ipv6_nd(&[135]),
            Needs::NdAdvert => ipv6_nd(&[136]),
        }
    }
}

/// What is missing, in words.
pub(super) const fn needs_rule(needs: Needs) -> &'static str {
    match needs {
        Needs::Nothing => "it stands alone",
        Needs::Tag => "the match must name the vlan",
        Needs::V4 => "the match must have dl_type ip",
        Needs::V6 => "the match must have dl_type ipv6",
        Needs::Ip => "the match must have dl_type ip or ipv6",
        Needs::Arp => "the match must have dl_type arp",
        Needs::Ports => "the match must have dl_type ip or ipv6 and nw_proto tcp, udp or sctp",
        Needs::Icmp => "the match must have dl_type ip with nw_proto icmp, or ipv6 with icmp6",
        Needs::Nd => "the match must have dl_type ipv6, nw_proto icmp6 and icmp_type 135 or 136",
        Needs::NdSolicit => "the match must have dl_type ipv6, nw_proto icmp6 and icmp_type 135",
        Needs::NdAdvert => "the match must have dl_type ipv6, nw_proto icmp6 and icmp_type 136",
    }
}

impl Match {
    const KIND: &'static str = "match";

    /// The port that the packet came in by.
    #[must_use]
    pub const fn in_port(&self) -> Option<&PortRef> {
        self.in_port.as_ref()
    }

    /// The fields, what others depend on first.
    pub fn fields(&self) -> impl Iterator<Item = (Field, Bits)> + '_ {
        self.fields.iter().map(|(field, bits)| (*field, *bits))
    }

    /// The condition on a field.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<Bits> {
        self.fields.get(&field).copied()
    }

    /// True when every packet is meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_port.is_none() && self.fields.is_empty()
    }

    /// The transport protocol, where the match names one.
    #[must_use]
    pub fn nw_proto(&self) -> Option<u8> {
        self.get(Field::NwProto)
            .and_then(|bits| u8::try_from(bits.value).ok())
    }

    /// Sets a field that the match has already, and that [`Field::is_independent`], to another value.
    pub(super) fn put(&mut self, field: Field, value: &Value) -> Option<()> {
        *self.fields.get_mut(&field)? = read_bits(field, value)?;
        Some(())
    }

    pub(super) fn known(&self) -> Known {
        let exact = |field| self.get(field).map(|bits: Bits| bits.value);
        Known {
            dl_type: exact(Field::DlType),
            nw_proto: exact(Field::NwProto),
            icmp_type: exact(Field::IcmpType),
            tagged: exact(Field::Vlan).is_some_and(|vlan| vlan & VLAN_PRESENT != 0),
        }
    }

    pub(super) fn read(value: &Value) -> Result<Self, ValueError> {
        let map = value
            .as_object()
            .ok_or_else(|| ValueError::of_json(Self::KIND, value, "an object of fields"))?;
        let mut matching = Self::default();
        for (name, value) in map {
            if name == "in_port" {
                let port = PortRef::from_json(value).map_err(|error| error.within("in_port"))?;
                matching.in_port = Some(port);
                continue;
            }
            let field = Field::find(name)
                .ok_or_else(|| ValueError::new(Self::KIND, name, "no field of that name"))?;
            let bits = read_bits(field, value).ok_or_else(|| refused(field, value))?;
            matching.fields.insert(field, bits);
        }
        let known = matching.known();
        for field in matching.fields.keys() {
            let needs = field.spec().needs;
            if !known.allows(needs) {
                return Err(ValueError::new(Self::KIND, field.name(), needs_rule(needs)));
            }
        }
        Ok(matching)
    }

    pub(super) fn show(&self) -> Value {
        let mut map = Map::new();
        if let Some(port) = self.in_port.as_ref().and_then(Param::to_json) {
            map.insert("in_port".to_owned(), port);
        }
        for (field, bits) in self.fields() {
            map.insert(field.name().to_owned(), show_bits(field, bits));
        }
        Value::Object(map)
    }

    pub(super) fn schema() -> Value {
        let mut properties: Map<String, Value> = Field::ALL
            .iter()
            .map(|field| (field.name().to_owned(), field_schema(*field)))
            .collect();
        properties.insert("in_port".to_owned(), PortRef::schema());
        json!({"type": "object", "properties": properties, "additionalProperties": false})
    }
}

fn field_schema(field: Field) -> Value {
    let kind = match field.syntax() {
        Syntax::Mac | Syntax::V4 | Syntax::V6 | Syntax::Frag => json!("string"),
        Syntax::EthType | Syntax::Proto | Syntax::Vlan => json!(["string", "integer"]),
        Syntax::Number => json!("integer"),
        Syntax::Masked => json!(["integer", "object"]),
        Syntax::CtState => json!("object"),
    };
    json!({"type": kind})
}
