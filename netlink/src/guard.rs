//! A program that judges every frame a device brings in, before a bridge, a limit or the host sees it. It is part of the
//! device: no change of the firewall's rules touches it, and it goes when the device goes. What the programs say is their
//! makers' business: blockhost-qm and blockhost-pct, which make the devices.

use rustix::io::Errno;

use super::message::{Builder, NLM_F_CREATE, NLM_F_EXCL};
use super::tc::{
    ALL_PROTOCOLS, PRIORITY as LIMIT, RTM_NEWTFILTER, TCA_KIND, TCA_OPTIONS, catch, find, message,
};
use super::{Netlink, NetlinkError};

const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
const TCA_BPF_FLAGS: u16 = 8;
/// Instructions that the kernel takes (`BPF_MAXINSNS`).
const MOST: u16 = 4096;
/// What the program returns is the verdict itself.
const DIRECT: u32 = 1;

/// Before every other filter: one that leads frames elsewhere, as limits do, must not have them first.
const PRIORITY: u32 = 1;
/// The kernel numbers programs of one priority from here: with this number, a second one is refused.
const HANDLE: u32 = 1;
const _: () = assert!(PRIORITY < LIMIT);

/// The verdict that drops a frame.
pub const DROP: u32 = 2;
/// The verdict that leaves a frame to the filters after this one, and then to the device's bridge (`TC_ACT_UNSPEC`).
pub const GO_ON: u32 = u32::MAX;

/// One instruction of a classic packet filter (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// Instructions to skip when its test is true.
    pub yes: u8,
    /// Instructions to skip when it is not.
    pub no: u8,
    /// Its number.
    pub k: u32,
}

/// Puts a program in force on a device that has none.
///
/// # Errors
/// `EEXIST` where the device has one, `EINVAL` for a program that the kernel does not take, `ENOENT` where it has no such
/// filters.
pub fn guard(
    netlink: &mut Netlink,
    device: &str,
    program: &[Instruction],
) -> Result<(), NetlinkError> {
    let count = u16::try_from(program.len()).ok().filter(|n| *n <= MOST);
    let count = count.ok_or(NetlinkError::Refused(Errno::TOOBIG))?;
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.yes, instruction.no]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    let options = Builder::inside()
        .attribute(TCA_BPF_OPS_LEN, &count.to_ne_bytes())
        .attribute(TCA_BPF_OPS, &bytes)
        .u32(TCA_BPF_FLAGS, DIRECT);
    let link = find(netlink, device)?;
    let parent = catch(netlink, link.index)?;
    let create = NLM_F_CREATE | NLM_F_EXCL;
    let info = PRIORITY << 16 | ALL_PROTOCOLS;
    let request = message(RTM_NEWTFILTER, create, link.index, HANDLE, parent, info)
        .text(TCA_KIND, "bpf")
        .nest(TCA_OPTIONS, options);
    netlink.ask(request).map(drop)
}
