//! The lists as data: name, type and default of each stand once, and both `allow:` and `only:` are made from them.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use blockhost_proto::value::{HostSetting, RESERVED_WALLETS};
use serde::{Deserialize, Serialize};

use super::range::{PortRange, Prefix, Setting, Vmids};
use crate::policy::rule::given;

macro_rules! lists {
    (
        either { $([$($action:literal),+] $first:ident or $second:ident,)+ }
        $($(#[doc = $doc:literal])+ $list:ident: $Type:ty = $default:expr,)+
    ) => {
        /// `allow:` of the policy file: what actions may name on this host, whoever asks. Defaults are those of the
        /// reference infrastructure.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Allowlists {
            $($(#[doc = $doc])+ pub $list: $Type,)+
        }

        impl Default for Allowlists {
            fn default() -> Self {
                Self { $($list: $default,)+ }
            }
        }

        /// `only:` of a rule: what its caller may name. A list that is not given is the host's own; both apply.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Only {
            $(
                $(#[doc = $doc])+
                #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
                pub $list: Option<$Type>,
            )+
        }

        impl Only {
            /// The host's lists with those of the rule in their place, as they are written.
            pub fn in_place_of(&self, allow: &Allowlists) -> Allowlists {
                let mut lists = Allowlists {
                    $($list: self.$list.as_ref().unwrap_or(&allow.$list).clone(),)+
                };
                // The one list of what may not be named: a rule can make it longer only.
                lists.reserved_wallets.extend_from_slice(&allow.reserved_wallets);
                lists
            }

            /// What may be named under the rule. A name without a directory is looked for in the directories of this list
            /// and of no other, and what a clone brings with it is asked for on these lists and no others, so that they
            /// have to be the host's, too.
            pub fn over(&self, allow: &Allowlists) -> Allowlists {
                let mut lists = self.in_place_of(allow);
                // A rule that says which machines means no others by what stands for them: another one's disk as a source,
                // or its cloud-init file, of which the name does not say whose it is.
                if self.vmids.is_some() {
                    if self.clone_from.is_none() {
                        lists.clone_from = Vmids::default();
                    }
                    if self.snippet_storages.is_none() {
                        lists.snippet_storages.clear();
                    }
                }
                for (list, host) in [
                    (&mut lists.bridges, &allow.bridges),
                    (&mut lists.storages, &allow.storages),
                    (&mut lists.snippet_storages, &allow.snippet_storages),
                ] {
                    list.retain(|name| host.contains(name));
                }
                lists.image_dirs = common(&lists.image_dirs, &allow.image_dirs);
                lists.template_dirs = common(&lists.template_dirs, &allow.template_dirs);
                lists
            }

            /// What an action may name under the rule, of its lists. Where a value may be on either of two lists and the rule
            /// gives one of them, the other permits nothing: a rule that names its tunnels means no other device.
            pub fn meant<'a>(&self, action: &str, lists: &'a Allowlists) -> Cow<'a, Allowlists> {
                let mut lists = Cow::Borrowed(lists);
                $(if [$($action),+].contains(&action) {
                    match (&self.$first, &self.$second) {
                        (Some(_), None) => lists.to_mut().$second.clear(),
                        (None, Some(_)) => lists.to_mut().$first.clear(),
                        _ => {}
                    }
                })+
                lists
            }

            /// Names of the lists that are given.
            pub fn keys(&self) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $(if self.$list.is_some() {
                    keys.push(stringify!($list));
                })+
                keys
            }

            /// Narrows nothing.
            pub fn is_empty(&self) -> bool {
                self.keys().is_empty()
            }
        }
    };
}

// First pairs of lists of which these actions ask that a value is on either.
lists! {
    either {
        ["route-set", "route-del"] route_networks or public_pools,
        ["route-set", "route-del", "proxy-set"] route_devices or link_devices,
        ["link-handover"] bridges or ovs_bridges,
    }
    /// Bridges a virtual network card may be attached to.
    bridges: Vec<String> = names(&["vmbr0"]),
    /// Devices a host route may point to.
    route_devices: Vec<String> = names(&["vmbr0"]),
    /// Storages that disks may live on.
    storages: Vec<String> = names(&["local", "local-lvm"]),
    /// Storages that cloud-init snippets may be named from.
    snippet_storages: Vec<String> = names(&["local"]),
    /// Storages that container templates may be named from.
    template_storages: Vec<String> = names(&["local"]),
    /// Directories container templates may be taken from as files, absolute, below the root of the installation. Their
    /// files are used only where nobody but root can change them.
    template_dirs: Vec<PathBuf> = vec![PathBuf::from("/var/lib/vz/template/cache")],
    /// Directories disk images are imported from, absolute, below the root of the installation.
    image_dirs: Vec<PathBuf> = vec![PathBuf::from("/var/lib/blockhost/images")],
    /// Wallet names `generate-wallet` refuses and `addressbook-save` protects.
    reserved_wallets: Vec<String> = names(&RESERVED_WALLETS),
    /// Ports that may be opened, as `22` or `1000-2000`.
    firewall_ports: Vec<PortRange> = vec![PortRange { first: 1, last: u16::MAX }],
    /// Machines the agent may touch.
    vmids: Vmids = Vmids::range(100, 999_999),
    /// Machines that may be cloned, and be the base of a linked clone's disk; nothing else is allowed by it. Empty means those of
    /// `vmids`.
    clone_from: Vmids = Vmids::default(),
    /// Switches that bridges, ports and flows may be set on.
    ovs_bridges: Vec<String> = names(&["ovsbr0", "ovsbr1"]),
    /// Devices that may be attached to a switch; a `*` at the end stands for any rest, but of `vi`, `veth`, `tap` and `fwln` only
    /// for one that makes a machine's device (`vi100_1`, `veth100i0`, `tap100i0`, `fwln100o0`): others' have to be named whole. So has an uplink:
    /// attaching it takes the host off its network.
    ovs_ports: Vec<String> = names(&["vi*", "veth*", "tap*", "fwln*", "bhc*"]),
    /// Public addresses that `nat-map` may give away, as prefixes; empty lets none through.
    public_pools: Vec<Prefix> = Vec::new(),
    /// Private addresses that a public one may lead to, and of which packets may leave by a tunnel as the host's.
    nat_private: Vec<Prefix> = prefixes(&PRIVATE),
    /// Tunnels that may be made; a `*` at the end stands for any rest.
    wg_names: Vec<String> = names(&["wg*"]),
    /// UDP ports that tunnels may listen on.
    wg_ports: Vec<PortRange> = vec![PortRange { first: 51_820, last: 51_899 }],
    /// Networks that a tunnel's own addresses may be in: each makes a route.
    wg_addresses: Vec<Prefix> = prefixes(&PRIVATE),
    /// Host routes may only be made inside these prefixes; empty means any global unicast or ULA address.
    route_prefixes: Vec<Prefix> = Vec::new(),
    /// Devices whose state, MTU and addresses may be set; a `*` at the end stands for any rest. One that carries the host's own
    /// address has to be named by hand.
    link_devices: Vec<String> = names(&["ovsbr0", "ovsbr1", "wg*", "vi*"]),
    /// Networks that addresses given to a device may be in: each makes a route.
    link_addresses: Vec<Prefix> = prefixes(&PRIVATE),
    /// Ends on the host of wires into other managers' containers; a `*` at the end stands for any rest.
    container_ports: Vec<String> = names(&["bhc*"]),
    /// Ends of them inside, likewise.
    container_interfaces: Vec<String> = names(&["bh*", "eth*"]),
    /// Networks that addresses inside such containers may be in.
    container_addresses: Vec<Prefix> = prefixes(&PRIVATE),
    /// Networks that routes of the agent may lead to, besides those of `public_pools`.
    route_networks: Vec<Prefix> = prefixes(&PRIVATE),
    /// Devices that lead out of the host, and that may hand over what they carry to a bridge and get it back.
    uplinks: Vec<String> = Vec::new(),
    /// Settings of the host that `sysctl-set` may switch. `ipv6-forwarding` has to be named by hand: the host then forwards IPv6
    /// between all its devices.
    host_settings: Vec<Setting> = vec![Setting(HostSetting::Ipv4Forwarding), Setting(HostSetting::Ipv6Proxy)],
    /// Networks that a broker may give this host a part of.
    broker_prefixes: Vec<Prefix> = prefixes(&BROKER),
}

/// Global unicast and unique local.
const BROKER: [(IpAddr, u8); 2] = [
    (IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0)), 3),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
];

/// Addresses that nobody else on the internet has.
const PRIVATE: [(IpAddr, u8); 5] = [
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
];

/// Whether others on the internet may have it, too.
pub(super) fn is_private(address: IpAddr) -> bool {
    let mut networks = prefixes(&PRIVATE).into_iter();
    networks.any(|network| network.contains(address))
}

fn prefixes(list: &[(IpAddr, u8)]) -> Vec<Prefix> {
    list.iter()
        .map(|&(address, length)| Prefix { address, length })
        .collect()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

/// The directories below one of either list: of two that lie in each other the inner one.
fn common(rule: &[PathBuf], host: &[PathBuf]) -> Vec<PathBuf> {
    let inside = |given: &&PathBuf| host.iter().any(|allowed| given.starts_with(allowed));
    let mut list: Vec<PathBuf> = rule.iter().filter(inside).cloned().collect();
    let wider = |allowed: &&PathBuf| rule.iter().any(|given| allowed.starts_with(given));
    for allowed in host.iter().filter(wider) {
        if !list.contains(allowed) {
            list.push(allowed.clone());
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_does_not_bring_directories_that_are_not_the_hosts() {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        let allow = Allowlists {
            image_dirs: paths(&["/images", "/more"]),
            ..Allowlists::default()
        };
        for (given, left) in [
            (&["/etc/blockhost"][..], &[][..]),
            (&["/images/theirs", "/secrets"], &["/images/theirs"]),
            (&["/images"], &["/images"]),
            (&["/"], &["/images", "/more"]),
            (&["/imagesque"], &[]),
            (&[], &[]),
        ] {
            let only = Only {
                image_dirs: Some(paths(given)),
                ..Only::default()
            };
            assert_eq!(only.over(&allow).image_dirs, paths(left), "{given:?}");
        }
        assert_eq!(Only::default().over(&allow), allow_twice_reserved(&allow));
    }

    /// What no list given comes to: the host's own, with the reserved names said twice.
    fn allow_twice_reserved(allow: &Allowlists) -> Allowlists {
        let mut lists = allow.clone();
        lists
            .reserved_wallets
            .extend(allow.reserved_wallets.clone());
        lists
    }

    #[test]
    fn a_list_left_out_is_the_hosts_own_and_a_null_one_is_a_mistake() {
        let allow = Allowlists::default();
        let only: Only = serde_saphyr::from_str("storages: [ssd, local]\n").expect("valid");
        assert_eq!(only.keys(), ["storages"]);
        let narrowed = only.over(&allow);
        assert_eq!(narrowed.storages, ["local"], "ssd is not the host's");
        assert_eq!(narrowed.bridges, allow.bridges);
        for text in [
            "vmids: null\n",
            "vmids:\n",
            "bridges:\n",
            "firewall_ports: 22\n",
            "vmid: {}\n",
        ] {
            assert!(serde_saphyr::from_str::<Only>(text).is_err(), "{text}");
        }
        // A list that is given without entries lets nothing through; it is not one that was left out.
        let nothing: Only = serde_saphyr::from_str("bridges: []\n").expect("an empty list");
        assert_eq!(nothing.bridges, Some(Vec::new()));
    }

    #[test]
    fn machines_are_one_range_or_several() {
        let read = |text: &str| serde_saphyr::from_str::<Vmids>(text);
        let several = read("[{first: 100, last: 199}, {first: 9000, last: 9000}]").expect("list");
        assert!(several.contains(100) && several.contains(199) && several.contains(9000));
        assert!(!several.contains(99) && !several.contains(200) && !several.contains(9001));
        assert_eq!(
            read("{first: 5, last: 6}").expect("one"),
            Vmids::range(5, 6)
        );
        let wrong = read("{first: 5, last: 6, lost: 7}")
            .expect_err("unknown")
            .to_string();
        assert!(wrong.contains("lost"), "{wrong}");
        let shape = read("5-6").expect_err("a text").to_string();
        assert!(shape.contains("or a list of such ranges"), "{shape}");
        for text in ["5-6", "7", "[5-6]", "{first: 5}", "[{first: -1, last: 5}]"] {
            assert!(read(text).is_err(), "{text}");
        }
        let json = serde_json::to_string(&several).expect("json");
        assert_eq!(
            serde_json::from_str::<Vmids>(&json).expect("back"),
            several,
            "{json}"
        );
    }
}
