//! `iptables-*`: ports opened in the host's own INPUT, in both families unless the source picks one.

use super::{ResourceKey, action};
use crate::catalog::FieldSpec;
use crate::value::{Comment, L4Proto, OpenPorts, Port, SourceNet};

action! {
    /// Accepts packets to a port; the same again adds nothing.
    IptablesOpen = "iptables-open", family "iptables", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 15, read_only false, ledger "net" / "network" / "create",
    {
        /// The port.
        port: Port,
        /// Transport protocol.
        proto: L4Proto = L4Proto::Tcp,
        /// Marks the rule as its owner's.
        comment: Comment,
        /// Only packets from there; both families where it is missing.
        source: Option<SourceNet>,
    }
    resources |_| vec![ResourceKey::named("firewall")],
    resource |a| format!("port:{}/{}", a.port, a.proto),
    example r#"{"port": 443, "proto": "tcp", "comment": "blockhost-443", "source": "192.0.2.0/24"}"#,
}

action! {
    /// Removes exactly the rule that the same parameters opened; `not_found` where there is none.
    IptablesClose = "iptables-close", family "iptables", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 15, read_only false, ledger "net" / "network" / "delete",
    {
        /// The port.
        port: Port,
        /// Transport protocol.
        proto: L4Proto = L4Proto::Tcp,
        /// The comment that the rule was opened with.
        comment: Comment,
        /// The source that the rule was opened with.
        source: Option<SourceNet>,
    }
    resources |_| vec![ResourceKey::named("firewall")],
    resource |a| format!("port:{}/{}", a.port, a.proto),
    example r#"{"port": 443, "proto": "tcp", "comment": "blockhost-443", "source": "192.0.2.0/24"}"#,
}

action! {
    /// The ports that are open now, as a JSON array in `output`, from the rules themselves: `port`, `proto`, `comment`,
    /// `source` where there is one, and under `families` the families that the rule stands in, `IPv4` and `IPv6`. Rules in our
    /// chain that nobody here made are not shown.
    IptablesList = "iptables-list", family "iptables", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 15, read_only true, ledger "net" / "network" / "query",
    {}
    resource |_| "firewall".to_owned(),
    returns &[FieldSpec::new("clean", "Whether nothing else stands in our chain, nothing twice, and it is in effect.", || {
        serde_json::json!({"type": "boolean"})
    })],
    example "{}",
}

action! {
    /// Opens these ports and no others: whatever else stands in our chain goes, also what nobody here made. All of it in one
    /// step for each family; other chains and tables are left alone, and the same again changes nothing.
    IptablesSet = "iptables-set", family "iptables", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 30, read_only false, ledger "net" / "network" / "apply",
    {
        /// All ports that are open from now on.
        rules: OpenPorts,
    }
    resources |_| vec![ResourceKey::named("firewall")],
    resource |_| "firewall".to_owned(),
    example r#"{"rules": [{"port": 443, "proto": "tcp", "comment": "blockhost-443", "source": "192.0.2.0/24"}]}"#,
}
