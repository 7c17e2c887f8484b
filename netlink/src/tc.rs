//! Limits on a machine's network device: what goes to the machine waits in a token bucket on the device; what comes from
//! it is led through a device of ours (`ifb`) with a bucket of its own. A queue instead of a policer, because it delays
//! where a policer drops, and because not every kernel has one. Called by the vm compartment.
//!
//! What is ours is recognised: the bucket by its handle, the filter by its priority, the second device by its name, kind
//! and alias. Nothing else is changed or removed; a bucket of the container manager on the device is replaced.

use rustix::io::Errno;

use super::link::Link;
use super::message::{
    Builder, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, attribute, text, u32_at, u64_at,
};
use super::{Netlink, NetlinkError};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
pub(crate) const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;

pub(crate) const TCA_KIND: u16 = 1;
pub(crate) const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;

/// Where a device's own queue sits.
const ROOT: u32 = 0xffff_ffff;
/// Where what comes in can be caught, and the same as the parent of a filter in the two kinds there are.
const INGRESS: u32 = 0xffff_fff1;
const CLSACT_IN: u32 = 0xffff_fff2;
const CLSACT_OUT: u32 = 0xffff_fff3;
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// Handle of our bucket, `b10c:`.
const OURS: u32 = 0xb10c_0000;
/// Priority of our filter.
pub(crate) const PRIORITY: u32 = 0xb10c;
/// `ETH_P_ALL` in network byte order.
pub(crate) const ALL_PROTOCOLS: u32 = 0x0003_u16.to_be() as u32;
const ETHERNET: u8 = 1;
const TERMINAL: u8 = 1;
const STOLEN: i32 = 4;
const EGRESS_REDIRECT: i32 = 1;
const TCMSG: usize = 20;

/// Smallest burst in bytes: one jumbo frame with its headers.
const LEAST_BURST: u64 = 10_240;
/// Parts of a second that a burst may last, and that a packet may wait.
const BURSTS_PER_S: u64 = 50;
const WAITS_PER_S: u64 = 10;

/// What limits a device has, in kilobits (1000 bits) per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// To the machine.
    pub in_kbps: Option<u64>,
    /// From the machine.
    pub out_kbps: Option<u64>,
}

/// A queueing discipline, or a filter, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Device.
    pub index: u32,
    /// Its handle.
    pub handle: u32,
    /// Where it hangs.
    pub parent: u32,
    /// Priority and protocol of a filter.
    pub info: u32,
    /// Its kind.
    pub kind: String,
    /// Bytes per second, of a token bucket.
    pub rate: Option<u64>,
}

/// Reads what is behind the header of an `RTM_NEWQDISC` or `RTM_NEWTFILTER`.
#[must_use]
pub fn parse_entry(body: &[u8]) -> Option<Entry> {
    let rest = body.get(TCMSG..)?;
    let kind = text(attribute(rest, TCA_KIND)?)?.to_owned();
    let rate = (kind == "tbf")
        .then(|| {
            let options = attribute(rest, TCA_OPTIONS)?;
            // The rate is the last field of the first structure; 64 bits stand apart where 32 are too few.
            attribute(options, TCA_TBF_RATE64)
                .and_then(|value| u64_at(value, 0))
                .or_else(|| u32_at(attribute(options, TCA_TBF_PARMS)?, 8).map(u64::from))
        })
        .flatten();
    Some(Entry {
        index: u32_at(body, 4)?,
        handle: u32_at(body, 8)?,
        parent: u32_at(body, 12)?,
        info: u32_at(body, 16)?,
        kind,
        rate,
    })
}

/// Limits a device. What is `None` stays as it is.
///
/// # Errors
/// `ENODEV` as [`NetlinkError::Refused`] where there is no such device; others as the kernel says.
pub fn limit(
    netlink: &mut Netlink,
    device: &str,
    in_kbps: Option<u32>,
    out_kbps: Option<u32>,
) -> Result<(), NetlinkError> {
    let link = find(netlink, device)?;
    sweep(netlink)?;
    if let Some(rate) = in_kbps {
        bucket(netlink, link.index, rate)?;
    }
    if let Some(rate) = out_kbps {
        let (second, made) = detour(netlink, &link)?;
        // First the bucket, then what leads to it: at no time is the machine's traffic lost.
        bucket(netlink, second, rate)?;
        netlink.link_up(second, None)?;
        lead(netlink, link.index, (second, made))?;
    }
    Ok(())
}

/// Removes our limits from a device; a device without any is a success.
///
/// # Errors
/// As for [`limit`].
pub fn reset(netlink: &mut Netlink, device: &str) -> Result<(), NetlinkError> {
    let link = find(netlink, device)?;
    if root_of(netlink, link.index)?.is_some_and(|root| root.handle == OURS) {
        netlink.ask(message(RTM_DELQDISC, 0, link.index, OURS, ROOT, 0))?;
    }
    if let Some(parent) = catcher(netlink, link.index)? {
        if filters(netlink, link.index, parent)?.contains(&PRIORITY) {
            let info = PRIORITY << 16 | ALL_PROTOCOLS;
            netlink.ask(message(RTM_DELTFILTER, 0, link.index, 0, parent, info))?;
        }
        // Others may have put filters of their own there.
        let used = !filters(netlink, link.index, CLSACT_IN)?.is_empty()
            || !filters(netlink, link.index, CLSACT_OUT)?.is_empty();
        if parent == CLSACT_IN && !used {
            netlink.ask(message(
                RTM_DELQDISC,
                0,
                link.index,
                INGRESS_HANDLE,
                INGRESS,
                0,
            ))?;
        }
    }
    if let Some(second) = netlink.link(&detour_name(link.index))?.filter(is_detour) {
        netlink.link_delete(second.index)?;
    }
    sweep(netlink)
}

/// The limits that a device has from us.
///
/// # Errors
/// As for [`limit`].
pub fn limits(netlink: &mut Netlink, device: &str) -> Result<Limits, NetlinkError> {
    let link = find(netlink, device)?;
    let kbps = |entry: Option<Entry>| {
        let ours = entry.filter(|entry| entry.handle == OURS);
        ours.and_then(|entry| entry.rate)
            .map(|bytes| bytes * 8 / 1000)
    };
    let in_kbps = kbps(root_of(netlink, link.index)?);
    let second = netlink.link(&detour_name(link.index))?.filter(is_detour);
    let out_kbps = match second {
        Some(second) => kbps(root_of(netlink, second.index)?),
        None => None,
    };
    Ok(Limits { in_kbps, out_kbps })
}

pub(crate) fn find(netlink: &mut Netlink, device: &str) -> Result<Link, NetlinkError> {
    netlink
        .link(device)?
        .ok_or(NetlinkError::Refused(Errno::NODEV))
}

fn detour_name(index: u32) -> String {
    format!("bhin{index}")
}

fn detour_alias(index: u32) -> String {
    format!("blockhost: limits device {index}")
}

/// The number in the name of one of our second devices.
fn detour_of(link: &Link) -> Option<u32> {
    let index = link.name.strip_prefix("bhin")?.parse().ok()?;
    let marked = link.alias.as_deref() == Some(detour_alias(index).as_str());
    let ours = link.name == detour_name(index)
        && link.kind.as_deref() == Some("ifb")
        && (marked || link.is_unfinished());
    ours.then_some(index)
}

fn is_detour(link: &Link) -> bool {
    detour_of(link).is_some()
}

/// The second device of a device, made where it is missing; true when nothing can lead to it yet.
fn detour(netlink: &mut Netlink, link: &Link) -> Result<(u32, bool), NetlinkError> {
    let name = detour_name(link.index);
    if let Some(second) = netlink.link(&name)? {
        if !is_detour(&second) {
            return Err(NetlinkError::Refused(Errno::EXIST));
        }
        let unfinished = second.is_unfinished();
        if unfinished {
            netlink.link_alias(second.index, &detour_alias(link.index))?;
        }
        return Ok((second.index, unfinished));
    }
    netlink.link_create(&name, "ifb", &detour_alias(link.index))?;
    find(netlink, &name).map(|second| (second.index, true))
}

/// Removes second devices whose first is gone: a machine that stops takes its device with it, and ours stays behind.
fn sweep(netlink: &mut Netlink) -> Result<(), NetlinkError> {
    let links = netlink.links()?;
    for link in &links {
        let Some(first) = detour_of(link) else {
            continue;
        };
        // A list that was read while devices came and went can lack one that is there: the kernel is asked for it alone.
        let orphan = links.iter().all(|other| other.index != first)
            && netlink.link_by_index(first)?.is_none();
        if orphan {
            match netlink.link_delete(link.index) {
                Err(error) if error.refusal() != Some(Errno::NODEV) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

pub(crate) fn message(
    kind: u16,
    flags: u16,
    index: u32,
    handle: u32,
    parent: u32,
    info: u32,
) -> Builder {
    Builder::request(kind, flags)
        .raw(&[0; 4])
        .raw(&index.to_ne_bytes())
        .raw(&handle.to_ne_bytes())
        .raw(&parent.to_ne_bytes())
        .raw(&info.to_ne_bytes())
}

fn qdiscs(netlink: &mut Netlink, index: u32) -> Result<Vec<Entry>, NetlinkError> {
    let mut list = Vec::new();
    let request = message(RTM_GETQDISC, NLM_F_DUMP, index, 0, 0, 0);
    netlink.dump(request, |body| {
        list.extend(parse_entry(body).filter(|entry| entry.index == index));
    })?;
    Ok(list)
}

fn root_of(netlink: &mut Netlink, index: u32) -> Result<Option<Entry>, NetlinkError> {
    Ok(qdiscs(netlink, index)?
        .into_iter()
        .find(|entry| entry.parent == ROOT))
}

/// Where filters on what comes in hang, if the device can catch it at all.
fn catcher(netlink: &mut Netlink, index: u32) -> Result<Option<u32>, NetlinkError> {
    let found = qdiscs(netlink, index)?.into_iter().find_map(|entry| {
        match (entry.parent, entry.kind.as_str()) {
            (INGRESS, "clsact") => Some(CLSACT_IN),
            (INGRESS, "ingress") => Some(INGRESS_HANDLE),
            _ => None,
        }
    });
    Ok(found)
}

/// The same, made where it is missing.
pub(crate) fn catch(netlink: &mut Netlink, index: u32) -> Result<u32, NetlinkError> {
    if let Some(parent) = catcher(netlink, index)? {
        return Ok(parent);
    }
    let create = NLM_F_CREATE | NLM_F_EXCL;
    let request = message(RTM_NEWQDISC, create, index, INGRESS_HANDLE, INGRESS, 0);
    netlink.ask(request.text(TCA_KIND, "clsact"))?;
    Ok(CLSACT_IN)
}

/// Priorities of the filters that hang there.
fn filters(netlink: &mut Netlink, index: u32, parent: u32) -> Result<Vec<u32>, NetlinkError> {
    let mut list = Vec::new();
    let request = message(RTM_GETTFILTER, NLM_F_DUMP, index, 0, parent, 0);
    let asked = netlink.dump(request, |body| {
        list.extend(parse_entry(body).map(|entry| entry.info >> 16));
    });
    match asked {
        // Nothing can hang where there is nothing.
        Err(error) if matches!(error.refusal(), Some(Errno::INVAL | Errno::NOENT)) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
        Ok(()) => Ok(list),
    }
}

fn bucket(netlink: &mut Netlink, index: u32, kbps: u32) -> Result<(), NetlinkError> {
    let rate = u64::from(kbps) * 1000 / 8;
    let burst = (rate / BURSTS_PER_S).max(LEAST_BURST);
    let bytes = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let limit = bytes(burst + rate / WAITS_PER_S);
    let mut parameters = Vec::with_capacity(36);
    // Rate: cell size, kind of link, overhead, alignment, smallest packet, bytes per second. Then the peak, unused.
    parameters.extend([0, ETHERNET, 0, 0, 0, 0, 0, 0]);
    parameters.extend(bytes(rate).to_ne_bytes());
    parameters.extend([0; 12]);
    parameters.extend(limit.to_ne_bytes());
    // The burst as time is derived from the burst in bytes below.
    parameters.extend([0; 8]);
    let mut options = Builder::inside()
        .attribute(TCA_TBF_PARMS, &parameters)
        .u32(TCA_TBF_BURST, bytes(burst));
    if rate > u64::from(u32::MAX) {
        options = options.attribute(TCA_TBF_RATE64, &rate.to_ne_bytes());
    }
    let replace = NLM_F_CREATE | NLM_F_REPLACE;
    let request = message(RTM_NEWQDISC, replace, index, OURS, ROOT, 0)
        .text(TCA_KIND, "tbf")
        .nest(TCA_OPTIONS, options);
    netlink.ask(request).map(drop)
}

/// Leads everything that comes in from `index` through `second`.
fn lead(
    netlink: &mut Netlink,
    index: u32,
    (second, made): (u32, bool),
) -> Result<(), NetlinkError> {
    let parent = catch(netlink, index)?;
    if filters(netlink, index, parent)?.contains(&PRIORITY) {
        if !made {
            return Ok(());
        }
        // It leads to an earlier second device that somebody removed, and nothing that goes there arrives.
        let info = PRIORITY << 16 | ALL_PROTOCOLS;
        netlink.ask(message(RTM_DELTFILTER, 0, index, 0, parent, info))?;
    }
    // Terminal, one key that compares nothing: every packet.
    let mut selector = vec![TERMINAL, 0, 1, 0];
    selector.extend([0; 12]);
    selector.extend([0; 16]);
    let mut redirect = Vec::with_capacity(28);
    redirect.extend([0; 8]);
    redirect.extend(STOLEN.to_ne_bytes());
    redirect.extend([0; 8]);
    redirect.extend(EGRESS_REDIRECT.to_ne_bytes());
    redirect.extend(second.to_ne_bytes());
    let action = Builder::inside().text(TCA_ACT_KIND, "mirred").nest(
        TCA_ACT_OPTIONS,
        Builder::inside().attribute(TCA_MIRRED_PARMS, &redirect),
    );
    let options = Builder::inside()
        .attribute(TCA_U32_SEL, &selector)
        .nest(TCA_U32_ACT, Builder::inside().nest(1, action));
    let create = NLM_F_CREATE | NLM_F_EXCL;
    let info = PRIORITY << 16 | ALL_PROTOCOLS;
    let request = message(RTM_NEWTFILTER, create, index, 0, parent, info)
        .text(TCA_KIND, "u32")
        .nest(TCA_OPTIONS, options);
    netlink.ask(request).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_device_of_our_kind_name_and_alias_is_taken_for_ours() {
        let ours = Link {
            index: 9,
            name: "bhin7".into(),
            alternative: Vec::new(),
            up: true,
            mtu: 1500,
            kind: Some("ifb".into()),
            alias: Some(detour_alias(7)),
            group: 0,
            forwards: false,
            strict: false,
        };
        assert_eq!(detour_of(&ours), Some(7));
        for other in [
            Link {
                name: "bhin8".into(),
                ..ours.clone()
            },
            Link {
                name: "bhin+7".into(),
                ..ours.clone()
            },
            Link {
                kind: Some("veth".into()),
                ..ours.clone()
            },
            Link {
                alias: None,
                ..ours.clone()
            },
        ] {
            assert_eq!(detour_of(&other), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_entry(&bytes);
        }
    }
}
