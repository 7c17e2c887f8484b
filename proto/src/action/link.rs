//! `link-*`: state and addresses of this host's own devices, and the move of everything that one device carries to another.
//! The net compartment speaks netlink for them.

use serde_json::json;

use super::{ParamError, ResourceKey, action};
use crate::catalog::FieldSpec;
use crate::value::{DeviceAddresses, IfName, Mtu};

/// A tunnel is a device, too: what `wg-setup` does to it does not happen at the same time.
fn device(name: &IfName) -> [ResourceKey; 2] {
    [format!("link:{name}"), format!("wg:{name}")].map(ResourceKey::named)
}

const ADDRESSES: FieldSpec = FieldSpec::new(
    "addresses",
    "Its addresses, with the length of their networks; those of the link alone left out.",
    || json!({"type": "array", "items": {"type": "string"}}),
);

action! {
    /// Brings a device of this host to this state: bridges, switches' own devices, tunnels and the host's ends of machines'
    /// interfaces, as the policy lists them. What is not given stays as it is, and only the difference is applied; what fails
    /// half-way is taken back. A machine's interface is also found by the name that `veth-rename` gave it.
    LinkSet = "link-set", family "link", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 10, read_only false, ledger "net" / "network" / "modify",
    {
        /// The device.
        dev: IfName,
        /// Whether it is up.
        up: Option<bool>,
        /// Its MTU in bytes.
        mtu: Option<Mtu>,
        /// All its addresses from now on, but for those that the kernel makes and those of the link alone.
        addresses: Option<DeviceAddresses>,
        /// Whether IPv4 packets that come in by it are forwarded; where they are, one whose way back leads out of another
        /// device is dropped. IPv6 has no such setting of one device.
        forward: Option<bool>,
    }
    check |a| {
        if a.up.is_none() && a.mtu.is_none() && a.addresses.is_none() && a.forward.is_none() {
            let what = "at least one of up, mtu, addresses and forward must be given".to_owned();
            return Err(ParamError::Together { what });
        }
        Ok(())
    },
    resources |a| device(&a.dev).into(),
    resource |a| format!("link:{}", a.dev),
    returns &[
        FieldSpec::new("up", "Whether it is up now.", || json!({"type": "boolean"})),
        FieldSpec::integer("mtu", "Its MTU now."),
        ADDRESSES,
        FieldSpec::new("forward", "Whether IPv4 packets that come in by it are forwarded.", || json!({"type": "boolean"})),
    ],
    example r#"{"dev": "ovsbr0", "up": true, "mtu": 1500, "addresses": ["10.77.0.1/24", "fd77:b10c::1/64"], "forward": true}"#,
}

action! {
    /// Moves all addresses and routes of a device to another: from an uplink to the bridge that it became a port of, which
    /// takes over its hardware address, and back to the uplink, which keeps its own. Each is given to the one before it is
    /// taken from the other; what fails is undone, and after an interruption the same request goes on where it ended.
    /// Addresses of the link alone stay. To give a bridge's addresses back, `keep` has those that it had before, and the
    /// uplink stays its port until that is done: a switch in user space takes its device down when its ports change, and with
    /// that go routes.
    LinkHandover = "link-handover", family "link", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 30, read_only false, ledger "net" / "network" / "apply",
    {
        /// The device that has them: an uplink or a bridge of the policy.
        from: IfName,
        /// The device that gets them, likewise.
        to: IfName,
        /// Addresses that stay, with the routes into their networks.
        keep: Option<DeviceAddresses>,
    }
    check |a| {
        if a.from == a.to {
            let what = format!("from and to must be two devices, not {} twice", a.from);
            return Err(ParamError::Together { what });
        }
        Ok(())
    },
    resources |a| {
        let mut both: Vec<ResourceKey> = device(&a.from).into();
        both.extend(device(&a.to));
        both
    },
    resource |a| format!("link:{}", a.from),
    returns &[
        ADDRESSES,
        FieldSpec::integer("routes", "How many routes were moved by this request."),
    ],
    example r#"{"from": "ovsbr0", "to": "eth0", "keep": ["10.77.0.1/24"]}"#,
}
