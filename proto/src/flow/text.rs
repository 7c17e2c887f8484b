//! A flow in the words of `ovs-ofctl`, for people and for comparing with what that tool understands. Port names are
//! quoted as the tool wants them. Nothing sends this text anywhere.

use std::fmt;

use super::action::tag_bits;
use super::field::{Field, Syntax};
use super::matching::{Bits, plain_text};
use super::{Ct, Flow, FlowAction, Match, Nat, NatRange, PortRef, Subfield};

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => write!(f, "\"{name}\""),
        }
    }
}

/// The tool's name for a field. Tags and fragments have a form of their own, see [`condition`].
fn name(field: Field, nw_proto: Option<u8>) -> &'static str {
    match (field, nw_proto) {
        (Field::VlanPcp, _) => "dl_vlan_pcp",
        (Field::TpSrc, Some(17)) => "udp_src",
        (Field::TpDst, Some(17)) => "udp_dst",
        (Field::TpSrc, Some(132)) => "sctp_src",
        (Field::TpDst, Some(132)) => "sctp_dst",
        (Field::TpSrc, _) => "tcp_src",
        (Field::TpDst, _) => "tcp_dst",
        (Field::IcmpType, Some(58)) => "icmpv6_type",
        (Field::IcmpCode, Some(58)) => "icmpv6_code",
        _ => field.name(),
    }
}

/// The switch's name for a field that is copied or loaded.
fn nxm(field: Field, nw_proto: Option<u8>) -> &'static str {
    match field {
        Field::DlDst => "eth_dst",
        Field::DlSrc => "eth_src",
        Field::NwSrc => "ip_src",
        Field::NwDst => "ip_dst",
        _ => name(field, nw_proto),
    }
}

fn condition(
    f: &mut fmt::Formatter<'_>,
    matching: &Match,
    field: Field,
    bits: Bits,
) -> fmt::Result {
    let name = name(field, matching.nw_proto());
    match field.syntax() {
        Syntax::Vlan if bits.value == 0 => write!(f, ",vlan_tci=0x0000/0x1fff"),
        Syntax::Vlan => write!(f, ",vlan_tci={:#x}/0x1fff", bits.value),
        Syntax::Frag => write!(
            f,
            ",ip_frag={}",
            super::matching::show_bits(field, bits)
                .as_str()
                .unwrap_or_default()
        ),
        _ if bits.is_exact(field) => write!(f, ",{name}={}", plain_text(field, bits.value)),
        _ => write!(
            f,
            ",{name}={}/{}",
            plain_text(field, bits.value),
            plain_text(field, bits.mask)
        ),
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table={},priority={}", self.table, self.priority)?;
        if let Some(seconds) = self.idle_timeout {
            write!(f, ",idle_timeout={seconds}")?;
        }
        if let Some(seconds) = self.hard_timeout {
            write!(f, ",hard_timeout={seconds}")?;
        }
        if let Some(port) = self.matching.in_port() {
            write!(f, ",in_port={port}")?;
        }
        for (field, bits) in self.matching.fields() {
            condition(f, &self.matching, field, bits)?;
        }
        f.write_str(",actions=")?;
        for (at, action) in self.actions.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            words(f, action, self.matching.nw_proto())?;
        }
        Ok(())
    }
}

fn words(f: &mut fmt::Formatter<'_>, action: &FlowAction, nw_proto: Option<u8>) -> fmt::Result {
    match action {
        FlowAction::Drop => f.write_str("drop"),
        FlowAction::Normal => f.write_str("NORMAL"),
        FlowAction::Flood => f.write_str("FLOOD"),
        FlowAction::InPort => f.write_str("IN_PORT"),
        FlowAction::Local => f.write_str("LOCAL"),
        FlowAction::DecTtl => f.write_str("dec_ttl"),
        FlowAction::PopVlan => f.write_str("pop_vlan"),
        FlowAction::PopQueue => f.write_str("pop_queue"),
        FlowAction::Output(port) => write!(f, "output:{port}"),
        FlowAction::Resubmit(table) => write!(f, "resubmit(,{table})"),
        FlowAction::Goto(table) => write!(f, "goto_table:{table}"),
        FlowAction::Set(Field::Vlan, value) => write!(f, "set_field:{value:#x}->vlan_vid"),
        FlowAction::Set(Field::VlanPcp, value) => write!(f, "set_field:{value}->vlan_pcp"),
        FlowAction::Set(field, value) => write!(
            f,
            "set_field:{}->{}",
            plain_text(*field, *value),
            name(*field, nw_proto)
        ),
        FlowAction::Load(value, into) => {
            write!(f, "load:{value:#x}->")?;
            bits(f, into, nw_proto)
        }
        FlowAction::Move(from, into) => {
            f.write_str("move:")?;
            bits(f, from, nw_proto)?;
            f.write_str("->")?;
            bits(f, into, nw_proto)
        }
        FlowAction::PushVlan(tag) => {
            write!(
                f,
                "push_vlan:0x8100,set_field:{:#x}->vlan_vid",
                tag_bits(*tag)
            )
        }
        FlowAction::SetQueue(queue) => write!(f, "set_queue:{queue}"),
        FlowAction::Meter(meter) => write!(f, "meter:{meter}"),
        FlowAction::Ct(ct) => tracking(f, ct),
        FlowAction::Conjunction { id, clause, of } => write!(f, "conjunction({id},{clause}/{of})"),
    }
}

fn bits(f: &mut fmt::Formatter<'_>, part: &Subfield, nw_proto: Option<u8>) -> fmt::Result {
    let last = part.start + part.bits - 1;
    write!(f, "{}[{}..{last}]", nxm(part.field, nw_proto), part.start)
}

fn tracking(f: &mut fmt::Formatter<'_>, ct: &Ct) -> fmt::Result {
    f.write_str("ct(")?;
    if ct.commit {
        f.write_str("commit,")?;
    }
    write!(f, "zone={}", ct.zone)?;
    if let Some(table) = ct.table {
        write!(f, ",table={table}")?;
    }
    match ct.nat {
        None => {}
        Some(Nat::Known) => f.write_str(",nat")?,
        Some(Nat::Src(range)) => translation(f, "src", range)?,
        Some(Nat::Dst(range)) => translation(f, "dst", range)?,
    }
    if let Some(mark) = ct.mark {
        write!(f, ",exec(set_field:{mark:#x}->ct_mark)")?;
    }
    f.write_str(")")
}

fn translation(f: &mut fmt::Formatter<'_>, side: &str, range: NatRange) -> fmt::Result {
    let shown = |address: std::net::IpAddr| match (address, range.ports) {
        (std::net::IpAddr::V6(v6), Some(_)) => format!("[{v6}]"),
        (other, _) => other.to_string(),
    };
    write!(f, ",nat({side}={}", shown(range.first.address()))?;
    if range.first != range.last {
        write!(f, "-{}", shown(range.last.address()))?;
    }
    if let Some((first, last)) = range.ports {
        write!(f, ":{first}-{last}")?;
    }
    f.write_str(")")
}
