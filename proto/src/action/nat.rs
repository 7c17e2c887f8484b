//! `nat-*`: a public address stands for a private one, both ways. The net compartment writes the pair in one transaction.

use super::{ParamError, ResourceKey, action};
use crate::catalog::FieldSpec;
use crate::value::{Comment, NatAddress, NatPairs, RouteNets, WgName};

action! {
    /// Sends what comes for the public address to the private one, and lets the private one appear as the public one.
    NatMap = "nat-map", family "nat", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 15, read_only false, ledger "net" / "network" / "create",
    {
        /// The public address, of a pool of this host.
        public: NatAddress,
        /// The private address behind it, of the same family.
        private: NatAddress,
        /// Marks the pair as its owner's.
        comment: Comment,
    }
    check |a| one_family(a.public, a.private),
    resources |_| vec![ResourceKey::named("firewall")],
    resource |a| format!("nat:{}", a.public),
    example r#"{"public": "203.0.113.7", "private": "10.0.0.7", "comment": "vm-100"}"#,
}

action! {
    /// Removes exactly the pair that the same parameters made, and forgets the connections that used it; `not_found`
    /// where there is none.
    NatUnmap = "nat-unmap", family "nat", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 15, read_only false, ledger "net" / "network" / "delete",
    {
        /// The public address.
        public: NatAddress,
        /// The private address behind it.
        private: NatAddress,
        /// The comment that the pair was made with.
        comment: Comment,
    }
    check |a| one_family(a.public, a.private),
    resources |_| vec![ResourceKey::named("firewall")],
    resource |a| format!("nat:{}", a.public),
    example r#"{"public": "203.0.113.7", "private": "10.0.0.7", "comment": "vm-100"}"#,
}

action! {
    /// The pairs that stand now, as a JSON array in `output`, from the rules themselves: `public`, `private`, `comment`, and
    /// `whole`, which is false where one of the two directions is missing. Rules of ours that nobody here made are not shown.
    NatList = "nat-list", family "nat", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 15, read_only true, ledger "net" / "network" / "query",
    {}
    resource |_| "nat".to_owned(),
    returns &[FieldSpec::new("clean", "Whether nothing else stands in our chains, nothing twice, and they are in effect.", || {
        serde_json::json!({"type": "boolean"})
    })],
    example "{}",
}

action! {
    /// Maps these pairs and no others: whatever else stands in our chains goes, also what nobody here made, and the
    /// connections of pairs that are gone are forgotten. All of it in one step for each family; the same again changes nothing.
    NatSet = "nat-set", family "nat", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 30, read_only false, ledger "net" / "network" / "apply",
    {
        /// All pairs that stand from now on.
        pairs: NatPairs,
    }
    resources |_| vec![ResourceKey::named("firewall")],
    resource |_| "nat".to_owned(),
    example r#"{"pairs": [{"public": "203.0.113.7", "private": "10.0.0.7", "comment": "vm-100"}]}"#,
}

action! {
    /// Lets packets from these networks, and from no others, leave by a tunnel with the host's own address there as their
    /// source: for others in the mesh that know no way back to the networks. What was set for the tunnel before is replaced, in
    /// one step for each family; an empty list ends it. Connections that are under way keep what they have. It comes before
    /// public addresses of `nat-map`, which are none that a peer would take.
    MasqueradeSet = "masquerade-set", family "masquerade", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 15, read_only false, ledger "net" / "network" / "apply",
    {
        /// The tunnel, one of this agent.
        dev: WgName,
        /// All networks whose packets get the host's address there from now on.
        networks: RouteNets,
    }
    resources |_| vec![ResourceKey::named("firewall")],
    resource |a| format!("masquerade:{}", a.dev),
    example r#"{"dev": "wg0", "networks": ["10.20.0.0/24"]}"#,
}

action! {
    /// What `masquerade-set` set, as a JSON array in `output`, from the rules themselves: `dev`, `network`, and `whole`, which
    /// is false where the rule is there and not in effect.
    MasqueradeList = "masquerade-list", family "masquerade", compartment Net, capabilities &["CAP_NET_ADMIN"],
    time_limit_s 15, read_only true, ledger "net" / "network" / "query",
    {}
    resource |_| "masquerade".to_owned(),
    example "{}",
}

fn one_family(public: NatAddress, private: NatAddress) -> Result<(), ParamError> {
    let wrong = if public.address().is_ipv4() != private.address().is_ipv4() {
        "public and private must be of one family"
    } else if public == private {
        "public and private must be two addresses"
    } else {
        return Ok(());
    };
    Err(ParamError::Together {
        what: format!("{wrong}, not {public} and {private}"),
    })
}
