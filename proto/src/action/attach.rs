//! `container-*`: an interface for a container that another manager runs (Docker, Podman): a virtual wire from the host into
//! its network namespace. The attach compartment enters that namespace; the switch's port is `ovs-add-port`'s business.

use std::net::IpAddr;

use super::{ParamError, ResourceKey, action};
use crate::catalog::FieldSpec;
use crate::qm::MacAddress;
use crate::value::{
    ContainerId, DeviceAddresses, IfName, InterfaceAddress, Mtu, NamespaceInode, NextHop, Pid,
    SwitchIfName,
};

/// What is in a container's namespace runs one after the other, as does what is done to the host's end.
fn keys(container: &ContainerId, port: &SwitchIfName) -> Vec<ResourceKey> {
    vec![
        ResourceKey::named(format!("container:{container}")),
        ResourceKey::named(format!("link:{port}")),
    ]
}

const NETNS: FieldSpec = FieldSpec::integer("netns", "Number of the network namespace.");

action! {
    /// Says which network namespace a process is in, by the number that `container-attach` wants to hear again. A process in
    /// the host's own network is `forbidden`. Ask the container manager for the process once before and once after: where
    /// both answers are the same, the number is that of the container.
    ContainerLook = "container-look", family "container", compartment Attach,
    capabilities &["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"],
    time_limit_s 5, read_only true, ledger "net" / "network" / "query",
    {
        /// A process of the container.
        pid: Pid,
    }
    resource |a| format!("process:{}", a.pid),
    returns &[NETNS],
    example r#"{"pid": 4242}"#,
}

action! {
    /// Makes a virtual wire with one end on the host and the other in the network namespace of a process, and gives the end
    /// inside its hardware address, MTU, addresses and default routes. The end inside is never on the host: the kernel makes
    /// it where it belongs. The same again changes what differs; what fails is taken back. A process that is in
    /// another namespace than the one named, or in the host's, is refused, and so is a name that is taken by somebody else.
    ContainerAttach = "container-attach", family "container", compartment Attach,
    capabilities &["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"],
    time_limit_s 15, read_only false, ledger "net" / "network" / "create",
    {
        /// The manager's full id of the container, kept beside both ends.
        container: ContainerId,
        /// A process of the container.
        pid: Pid,
        /// The network namespace that it has to be in, as `container-look` says it.
        netns: NamespaceInode,
        /// Name of the end on the host.
        port: SwitchIfName,
        /// Name of the end inside.
        interface: IfName,
        /// All addresses of the end inside from now on.
        addresses: DeviceAddresses,
        /// Hardware address of the end inside; the kernel chooses one where none is given.
        mac: Option<MacAddress>,
        /// MTU of both ends.
        mtu: Option<Mtu>,
        /// Router for everything else of IPv4, in a network of the addresses.
        gateway4: Option<NextHop>,
        /// Router for everything else of IPv6, in a network of the addresses or one of the link.
        gateway6: Option<NextHop>,
    }
    check |a| {
        gateway("gateway4", a.gateway4, &a.addresses, IpAddr::is_ipv4)?;
        gateway("gateway6", a.gateway6, &a.addresses, IpAddr::is_ipv6)
    },
    resources |a| keys(&a.container, &a.port),
    resource |a| format!("container:{}", a.container),
    returns &[
        FieldSpec::text("mac", "Hardware address of the end inside."),
        FieldSpec::new(
            "new",
            "Whether the wire was made by this request.",
            || serde_json::json!({"type": "boolean"}),
        ),
    ],
    example r#"{"container": "4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01", "pid": 4242, "netns": 4026532281, "port": "bhc7xk2mq4a", "interface": "bh0", "addresses": ["10.101.0.7/24", "fd0a:101::7/64"], "mac": "02:00:00:00:00:07", "mtu": 1420, "gateway4": "10.101.0.1", "gateway6": "fe80::1"}"#,
}

action! {
    /// Removes the wire that `container-attach` made for the container, with both ends; `not_found` where there is none. What
    /// another program or another container has by that name stays.
    ContainerDetach = "container-detach", family "container", compartment Attach, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 15, read_only false, ledger "net" / "network" / "delete",
    {
        /// The container.
        container: ContainerId,
        /// Name of the end on the host.
        port: SwitchIfName,
    }
    resources |a| keys(&a.container, &a.port),
    resource |a| format!("container:{}", a.container),
    example r#"{"container": "4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01", "port": "bhc7xk2mq4a"}"#,
}

/// A router has to be reached without another one.
fn gateway(
    param: &'static str,
    router: Option<NextHop>,
    addresses: &DeviceAddresses,
    of_family: fn(&IpAddr) -> bool,
) -> Result<(), ParamError> {
    let Some(router) = router.map(NextHop::address) else {
        return Ok(());
    };
    if !of_family(&router) {
        return Err(ParamError::Together {
            what: format!("{param} is of the other family"),
        });
    }
    let of_the_link = matches!(router, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let near = |address: InterfaceAddress| address.reaches(router);
    if of_the_link || addresses.iter().any(near) {
        return Ok(());
    }
    Err(ParamError::Together {
        what: format!("{param} {router} is in no network of the addresses"),
    })
}
