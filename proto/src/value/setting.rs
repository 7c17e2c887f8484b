//! Settings of the host's network that are not of a device of ours: the few that the agent switches, and no others.

use super::choice;

choice! {
    /// A setting of the kernel that is on or off.
    HostSetting, "setting of the host", "ipv4-forwarding, ipv6-forwarding or ipv6-proxy", {
        /// IPv4 packets that come in by one device are forwarded.
        Ipv4Forwarding = "ipv4-forwarding",
        /// IPv6 packets are forwarded, whatever they come in by: Linux decides that for all devices at once.
        Ipv6Forwarding = "ipv6-forwarding",
        /// Neighbour solicitations for the addresses of `proxy-set` are answered on one device.
        Ipv6Proxy = "ipv6-proxy",
    }
}

impl HostSetting {
    /// Whether it is of one device, which has to be named.
    #[must_use]
    pub const fn is_of_a_device(self) -> bool {
        !matches!(self, Self::Ipv6Forwarding)
    }
}
