//! `veth-rename`: the host's end of a container's interface gets the name that the switch and people know it by.

use super::{ResourceKey, action};
use crate::catalog::FieldSpec;
use crate::value::{IfIndex, Vmid};

action! {
    /// Gives the host's end of a container's interface, `veth<vmid>i<index>`, the alternative name `vi<vmid>`, or
    /// `vi<vmid>_<index>` for all but the first. Its own name stays: the container manager depends on it.
    VethRename = "veth-rename", family "veth", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 5, read_only false, ledger "net" / "network" / "modify",
    {
        /// The container.
        vmid: Vmid,
        /// Which of its interfaces: 0 is `net0`.
        index: Option<IfIndex>,
    }
    resources |a| vec![ResourceKey::vm(a.vmid)],
    resource |a| a.wanted_name(),
    returns &[FieldSpec::text("name", "The name that the interface can be found by now.")],
    example r#"{"vmid": 100, "index": 1}"#,
}

impl VethRename {
    /// The interface's number, 0 where none was given.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.index.map_or(0, IfIndex::get)
    }

    /// What the container manager calls the host's end.
    #[must_use]
    pub fn managed_name(&self) -> String {
        format!("veth{}i{}", self.vmid, self.number())
    }

    /// The name to give.
    #[must_use]
    pub fn wanted_name(&self) -> String {
        match self.number() {
            0 => format!("vi{}", self.vmid),
            index => format!("vi{}_{index}", self.vmid),
        }
    }
}
