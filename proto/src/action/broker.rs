//! `broker-renew`: the IPv6 allocation of this host. No process of the agent speaks to a broker: the broker's client, which
//! has no privileges, fetches the allocation and hands it over; here it is checked, kept and put on record.

use super::{ParamError, ResourceKey, action};
use crate::catalog::FieldSpec;
use crate::value::{BrokerEndpoint, GatewayIpv6, LeaseEnd, MachinePrefix, WgKey};

action! {
    /// Keeps what a broker gave this host in `/etc/blockhost/broker-allocation.json`, replaced atomically. What other
    /// programs wrote there stays; a parameter that is left out stays too, as long as the prefix does. Another prefix than
    /// the present one is a `conflict` unless `replace` is true: machines may have addresses of the present one.
    BrokerRenew = "broker-renew", family "broker", compartment Keys, capabilities &[],
    time_limit_s 10, read_only false, ledger "net" / "settings" / "modify",
    {
        /// The network that machines draw their addresses from.
        prefix: MachinePrefix,
        /// Their router: an address of the network, or a link-local one. The first of the network where there is none.
        gateway: Option<GatewayIpv6>,
        /// The public key of the broker's end of the tunnel.
        broker_pubkey: Option<WgKey>,
        /// Where the broker's end of the tunnel listens.
        broker_endpoint: Option<BrokerEndpoint>,
        /// When the allocation ends, in seconds since 1970; without end where it is missing.
        lease_until: Option<LeaseEnd>,
        /// Also where the host has another prefix now.
        replace: bool = false,
    }
    check check,
    resources |_| vec![ResourceKey::named("broker-allocation")],
    resource |_| "broker-allocation".to_owned(),
    returns &[
        FieldSpec::text("prefix", "The prefix that the host has now."),
        FieldSpec::text("previous", "The prefix before, where it was another one.").sometimes(),
    ],
    example r#"{"prefix": "2001:db8:b10c::/64", "gateway": "2001:db8:b10c::1", "broker_pubkey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", "broker_endpoint": "broker.example:51820", "lease_until": 1800000000}"#,
}

fn check(action: &BrokerRenew) -> Result<(), ParamError> {
    match action.gateway {
        Some(gateway) if !gateway.serves(action.prefix) => Err(ParamError::Together {
            what: format!(
                "gateway {gateway} is neither in {} nor link-local",
                action.prefix
            ),
        }),
        _ => Ok(()),
    }
}
