//! Typed flows as OpenFlow bytes: OXM fields, actions with Open vSwitch's extensions, instructions. Pure. The form is the
//! one in which the switch itself writes a flow back, so that an unchanged flow is recognised by its bytes.

use std::net::IpAddr;

use blockhost_proto::flow::{Bits, Ct, Field, Flow, FlowAction, Nat, NatRange, PortRef, Subfield};
use blockhost_proto::value::SwitchIfName;

use super::message::{Entry, Put};

/// Why a flow cannot be written down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A port name that the bridge does not have.
    #[error("the bridge has no port {0} that works")]
    NoPort(SwitchIfName),
    /// The wire format has no room for it.
    #[error("load writes at most 64 bits; {0} bits of {1} are too many")]
    WideLoad(u8, &'static str),
}

const NICIRA: u32 = 0x0000_2320;
const EXPERIMENTER: u16 = 0xffff;

/// OpenFlow 1.1 and later write reserved ports in 32 bits.
mod port {
    pub const IN_PORT: u32 = 0xffff_fff8;
    pub const NORMAL: u32 = 0xffff_fffa;
    pub const FLOOD: u32 = 0xffff_fffb;
    pub const LOCAL: u32 = 0xffff_fffe;
    /// The same in 16 bits, as Nicira's actions have them.
    pub const IN_PORT_16: u16 = 0xfff8;
}

/// A 16-bit port number of the database as OpenFlow 1.1 and later write it.
#[must_use]
pub fn wide_port(number: u16) -> u32 {
    if number >= 0xff00 {
        0xffff_0000 | u32::from(number)
    } else {
        number.into()
    }
}

/// Writes flows down; `port` knows the number of a port name.
pub struct Encoder<'a> {
    /// Cookie of every entry.
    pub cookie: u64,
    /// The number of a port of the bridge.
    pub port: &'a dyn Fn(&SwitchIfName) -> Option<u16>,
}

impl Encoder<'_> {
    /// One flow.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn entry(&self, flow: &Flow) -> Result<Entry, EncodeError> {
        Ok(Entry {
            table: flow.table.get(),
            priority: flow.priority.get(),
            cookie: self.cookie,
            idle_timeout: flow.idle_timeout.map_or(0, |timeout| timeout.get()),
            hard_timeout: flow.hard_timeout.map_or(0, |timeout| timeout.get()),
            oxm: self.oxm(flow)?,
            instructions: self.instructions(flow)?,
        })
    }

    fn oxm(&self, flow: &Flow) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::new();
        if let Some(port) = flow.matching.in_port() {
            out.u32(header((0x8000, 0), 4, false));
            out.u32(self.number(port)?);
        }
        let proto = flow.matching.nw_proto();
        for (field, bits) in flow.matching.fields() {
            put_field(&mut out, field, bits, proto);
        }
        Ok(out)
    }

    fn number(&self, port: &PortRef) -> Result<u32, EncodeError> {
        match port {
            PortRef::Number(number) => Ok(wide_port(*number)),
            PortRef::Name(name) => (self.port)(name)
                .map(wide_port)
                .ok_or_else(|| EncodeError::NoPort(name.clone())),
        }
    }

    fn instructions(&self, flow: &Flow) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::new();
        let mut actions = Vec::new();
        let mut end = Vec::new();
        let proto = flow.matching.nw_proto();
        for action in &flow.actions {
            match action {
                FlowAction::Meter(meter) => {
                    out.u16(6);
                    out.u16(8);
                    out.u32(meter.get());
                }
                FlowAction::Goto(table) => {
                    end.u16(1);
                    end.u16(8);
                    end.u8(table.get());
                    end.zeros(3);
                }
                other => self.action(&mut actions, other, proto)?,
            }
        }
        if !actions.is_empty() {
            let from = out.len();
            out.u16(4); // Apply at once.
            out.u16(0);
            out.u32(0);
            out.extend(actions);
            out.close(from, from + 2);
        }
        out.extend(end);
        Ok(out)
    }

    fn action(
        &self,
        out: &mut Vec<u8>,
        action: &FlowAction,
        proto: Option<u8>,
    ) -> Result<(), EncodeError> {
        match action {
            // No action at all; the other two are instructions.
            FlowAction::Drop | FlowAction::Meter(_) | FlowAction::Goto(_) => {}
            FlowAction::Normal => put_output(out, port::NORMAL),
            FlowAction::Flood => put_output(out, port::FLOOD),
            FlowAction::InPort => put_output(out, port::IN_PORT),
            FlowAction::Local => put_output(out, port::LOCAL),
            FlowAction::Output(port) => put_output(out, self.number(port)?),
            FlowAction::DecTtl => put_short(out, 24, 0),
            FlowAction::PopVlan => put_short(out, 18, 0),
            FlowAction::PushVlan(tag) => {
                put_short(out, 17, 0x8100 << 16);
                put_set(out, Field::Vlan, 0x1000 | u128::from(tag.get()), proto);
            }
            FlowAction::SetQueue(queue) => put_short(out, 21, queue.get().into()),
            FlowAction::PopQueue => put_nicira(out, 5, |out| out.zeros(6)),
            FlowAction::Resubmit(table) => put_nicira(out, 14, |out| {
                out.u16(port::IN_PORT_16);
                out.u8(table.get());
                out.zeros(3);
            }),
            FlowAction::Set(field, value) => put_set(out, *field, *value, proto),
            FlowAction::Load(value, into) => {
                if into.bits > 64 {
                    return Err(EncodeError::WideLoad(into.bits, into.field.name()));
                }
                put_nicira(out, 7, |out| {
                    out.u16(u16::from(into.start) << 6 | u16::from(into.bits - 1));
                    out.u32(subfield(*into, proto));
                    out.u64(*value);
                });
            }
            FlowAction::Move(from, into) => put_nicira(out, 6, |out| {
                out.u16(into.bits.into());
                out.u16(from.start.into());
                out.u16(into.start.into());
                out.u32(subfield(*from, proto));
                out.u32(subfield(*into, proto));
            }),
            FlowAction::Ct(ct) => put_ct(out, ct),
            FlowAction::Conjunction { id, clause, of } => put_nicira(out, 34, |out| {
                out.u8(clause - 1);
                out.u8(*of);
                out.u32(*id);
            }),
        }
        Ok(())
    }
}

fn width(field: Field) -> u8 {
    field.bits().div_ceil(8)
}

fn header((class, number): (u16, u8), length: u8, masked: bool) -> u32 {
    u32::from(class) << 16 | u32::from(number) << 9 | u32::from(masked) << 8 | u32::from(length)
}

fn subfield(part: Subfield, proto: Option<u8>) -> u32 {
    header(nxm(part.field, proto), width(part.field), false)
}

/// In its own actions the switch writes fields by their older numbers, where they have one.
fn nxm(field: Field, proto: Option<u8>) -> (u16, u8) {
    let udp = proto == Some(17);
    let icmp6 = proto == Some(58);
    match field {
        Field::DlDst => (0, 1),
        Field::DlSrc => (0, 2),
        Field::NwSrc => (0, 7),
        Field::NwDst => (0, 8),
        Field::TpSrc if proto == Some(6) => (0, 9),
        Field::TpDst if proto == Some(6) => (0, 10),
        Field::TpSrc if udp => (0, 11),
        Field::TpDst if udp => (0, 12),
        Field::IcmpType if !icmp6 => (0, 13),
        Field::IcmpCode if !icmp6 => (0, 14),
        Field::ArpOp => (0, 15),
        Field::ArpSpa => (0, 16),
        Field::ArpTpa => (0, 17),
        Field::TunId => (1, 16),
        Field::ArpSha => (1, 17),
        Field::ArpTha => (1, 18),
        Field::Ipv6Src => (1, 19),
        Field::Ipv6Dst => (1, 20),
        Field::IcmpType => (1, 21),
        Field::IcmpCode => (1, 22),
        Field::NdTarget => (1, 23),
        Field::NdSll => (1, 24),
        Field::NdTll => (1, 25),
        other => other.oxm(proto),
    }
}

fn put_value(out: &mut Vec<u8>, value: u128, width: u8) {
    let bytes = value.to_be_bytes();
    out.extend_from_slice(&bytes[bytes.len() - usize::from(width)..]);
}

fn put_field(out: &mut Vec<u8>, field: Field, bits: Bits, proto: Option<u8>) {
    let width = width(field);
    let exact = bits.is_exact(field);
    let length = if exact { width } else { 2 * width };
    out.u32(header(field.oxm(proto), length, !exact));
    put_value(out, bits.value, width);
    if !exact {
        put_value(out, bits.mask, width);
    }
}

fn put_short(out: &mut Vec<u8>, kind: u16, argument: u32) {
    out.u16(kind);
    out.u16(8);
    out.u32(argument);
}

fn put_output(out: &mut Vec<u8>, port: u32) {
    out.u16(0);
    out.u16(16);
    out.u32(port);
    out.u16(0);
    out.zeros(6);
}

fn put_set(out: &mut Vec<u8>, field: Field, value: u128, proto: Option<u8>) {
    let from = out.len();
    out.u16(25);
    out.u16(0);
    put_field(out, field, Bits::exact(field, value), proto);
    out.pad(from);
    out.close(from, from + 2);
}

fn put_nicira(out: &mut Vec<u8>, subtype: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let from = out.len();
    out.u16(EXPERIMENTER);
    out.u16(0);
    out.u32(NICIRA);
    out.u16(subtype);
    body(out);
    out.pad(from);
    out.close(from, from + 2);
}

fn put_ct(out: &mut Vec<u8>, ct: &Ct) {
    put_nicira(out, 35, |out| {
        out.u16(ct.commit.into());
        out.u32(0); // The zone is a number.
        out.u16(ct.zone);
        out.u8(ct.table.map_or(0xff, |table| table.get()));
        out.zeros(3);
        out.u16(0); // No application protocol.
        if let Some(nat) = ct.nat {
            put_nat(out, nat);
        }
        if let Some(mark) = ct.mark {
            put_set(out, Field::CtMark, mark.into(), None);
        }
    });
}

fn put_nat(out: &mut Vec<u8>, nat: Nat) {
    let (flags, range) = match nat {
        Nat::Known => (0, None),
        Nat::Src(range) => (1, Some(range)),
        Nat::Dst(range) => (2, Some(range)),
    };
    put_nicira(out, 36, |out| {
        out.zeros(2);
        out.u16(flags);
        match range {
            None => out.u16(0),
            Some(range) => put_range(out, range),
        }
    });
}

fn put_range(out: &mut Vec<u8>, range: NatRange) {
    let at = out.len();
    out.u16(0);
    let mut present = 0;
    for (address, v4, v6) in [(range.first, 1, 4), (range.last, 2, 8)] {
        // A range of one is written as its beginning.
        if v4 == 2 && range.last == range.first {
            break;
        }
        match address.address() {
            IpAddr::V4(address) => {
                present |= v4;
                out.extend(address.octets());
            }
            IpAddr::V6(address) => {
                present |= v6;
                out.extend(address.octets());
            }
        }
    }
    if let Some((first, last)) = range.ports {
        present |= 16;
        out.u16(first);
        if last != first {
            present |= 32;
            out.u16(last);
        }
    }
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&u16::to_be_bytes(present));
    }
}
