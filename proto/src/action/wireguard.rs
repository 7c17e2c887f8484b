//! `wg-*`: WireGuard tunnels. Interface, addresses and keys are the net compartment's; private keys never leave it.

use super::{ResourceKey, action};
use crate::catalog::FieldSpec;
use crate::value::{InterfaceAddresses, Mtu, Port, WgName, WgPeers};

fn tunnel(name: &WgName) -> Vec<ResourceKey> {
    vec![ResourceKey::named(format!("wg:{name}"))]
}

action! {
    /// Makes a tunnel, or brings one of this agent's to these values; its private key is made the first time and kept.
    /// Answers `public_key` and `listen_port`.
    WgSetup = "wg-setup", family "wg", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 15, read_only false, ledger "net" / "network" / "apply",
    {
        /// The tunnel's interface.
        name: WgName,
        /// The interface's addresses, with the length of their networks.
        addresses: InterfaceAddresses,
        /// UDP port to listen on; one is chosen where it is missing.
        listen_port: Option<Port>,
        /// MTU inside the tunnel, 1420 where it is missing.
        mtu: Option<Mtu>,
    }
    resources |a| tunnel(&a.name),
    resource |a| format!("wg:{}", a.name),
    returns &[
        FieldSpec::text("public_key", "The tunnel's public key, base64."),
        FieldSpec::integer("listen_port", "The UDP port that it listens on."),
    ],
    example r#"{"name": "wg0", "addresses": ["10.8.0.1/24", "fd77:8::1/64"], "listen_port": 51820, "mtu": 1420}"#,
}

action! {
    /// Replaces the peers of a tunnel in one step; sessions of peers that stay are not disturbed. Answers
    /// `preshared_keys` for those it generated. With `kept` a peer gets the shared key that it had last; `not_found` where
    /// none is known.
    WgSetPeers = "wg-set-peers", family "wg", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 15, read_only false, ledger "net" / "network" / "apply",
    {
        /// The tunnel's interface.
        name: WgName,
        /// All its peers from now on.
        peers: WgPeers,
    }
    resources |a| tunnel(&a.name),
    resource |a| format!("wg:{}", a.name),
    secrets |a| if a.peers.holds_secret() { &["peers"] } else { &[] },
    returns &[FieldSpec::new(
        "preshared_keys",
        "Public key to shared key, for peers with `generate`: what the other side needs.",
        || serde_json::json!({"type": "object", "additionalProperties": {"type": "string"}}),
    )
    .sometimes()],
    example r#"{"name": "wg0", "peers": [{"public_key": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", "endpoint": "192.0.2.9:51820", "allowed_ips": ["10.8.0.2/32"], "keepalive": 25}]}"#,
}

action! {
    /// Removes a tunnel of this agent with its keys; `not_found` where there is none.
    WgTeardown = "wg-teardown", family "wg", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 15, read_only false, ledger "net" / "network" / "delete",
    {
        /// The tunnel's interface.
        name: WgName,
    }
    resources |a| tunnel(&a.name),
    resource |a| format!("wg:{}", a.name),
    example r#"{"name": "wg0"}"#,
}

action! {
    /// A tunnel as JSON in `output`: public key, port, addresses, and per peer endpoint, networks, last handshake and
    /// bytes. No secret key.
    WgShow = "wg-show", family "wg", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 15, read_only true, ledger "net" / "network" / "query",
    {
        /// The tunnel's interface.
        name: WgName,
    }
    resource |a| format!("wg:{}", a.name),
    example r#"{"name": "wg0"}"#,
}
