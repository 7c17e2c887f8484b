//! Sources hidden behind the host's address on a tunnel, as text: what stands by `iptables-save -t nat`, what has to change for
//! a tunnel, in what `iptables-restore --noflush` takes. Planning is pure; the programs are run by [`super::firewall`].
//!
//! A chain of its own, which comes before that of public addresses: a peer takes nothing from those.

use std::net::IpAddr;
use std::time::Instant;

use blockhost_netlink::Address;
use blockhost_proto::action::MasqueradeSet;
use serde_json::{Value, json};

use super::firewall::{Firewall, too_many_given};
use super::nat::OUTWARD;
use super::rules::{Family, Saved, saved, transaction_in, words};
use crate::compartment::{Done, Failure};

const TABLE: &str = "nat";
const HOOK: &str = "POSTROUTING";
pub(super) const CHAIN: &str = "BLOCKHOST-MASQ";

/// Packets from a network that leave by a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hidden {
    pub(super) dev: String,
    pub(super) network: Address,
}

/// A rule of our chain: its text, and what it means when it is one that we make.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    specification: String,
    hidden: Option<Hidden>,
}

/// What of the nat table concerns us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    chain: bool,
    jumps: usize,
    /// The jump to the chain of public addresses stands before ours.
    late: bool,
    lines: Vec<Line>,
}

impl Hidden {
    fn specification(&self) -> String {
        let Address { address, length } = self.network;
        format!("-s {address}/{length} -o {} -j MASQUERADE", self.dev)
    }

    /// Understands the rules that we make; `None` for any other.
    fn parse(specification: &str) -> Option<Self> {
        let (mut network, mut dev, mut hides) = (None, None, false);
        let mut words = words(specification)?.into_iter();
        while let Some(option) = words.next() {
            let value = words.next()?;
            match option.as_str() {
                "-s" if network.is_none() => network = Some(parse_network(&value)?),
                "-o" if dev.is_none() => dev = Some(value),
                "-j" if value == "MASQUERADE" => hides = true,
                _ => return None,
            }
        }
        hides.then_some(Self {
            dev: dev?,
            network: network?,
        })
    }
}

/// Of one address the length is not printed.
fn parse_network(text: &str) -> Option<Address> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address.parse().ok()?, Some(length.parse().ok()?)),
        None => (text.parse().ok()?, None),
    };
    let width = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    let length = length.unwrap_or(width);
    (length <= width).then_some(Address { address, length })
}

impl State {
    /// Reads the output of `iptables-save -t nat`. Lines that are not ours are skipped, whatever they hold.
    pub(super) fn parse(save: &str) -> Self {
        let mut state = Self::default();
        for line in saved(save, TABLE) {
            match line {
                Saved::Chain(name) => state.chain |= name == CHAIN,
                Saved::Rule(CHAIN, rest) => state.lines.push(Line {
                    specification: rest.to_owned(),
                    hidden: Hidden::parse(rest),
                }),
                Saved::Rule(HOOK, rest) => {
                    let jump = rest.trim_end();
                    if jump == format!("-j {CHAIN}") {
                        state.jumps += 1;
                    } else if jump == format!("-j {OUTWARD}") {
                        state.late |= state.jumps == 0;
                    }
                }
                Saved::Rule(..) => {}
            }
        }
        state.late &= state.jumps > 0;
        state
    }

    fn in_effect(&self) -> bool {
        self.jumps > 0 && !self.late
    }

    /// How many rules there would be for others than this tunnel.
    pub(super) fn of_others(&self, dev: &str) -> usize {
        let its = |line: &&Line| line.hidden.as_ref().is_some_and(|one| one.dev == dev);
        self.lines.len() - self.lines.iter().filter(its).count()
    }

    /// What makes these the only networks that are hidden behind that device, each once; `None` when it is so already. Rules
    /// of other devices, and those that nobody here made, stay.
    pub(super) fn plan_set(&self, dev: &str, networks: &[Address]) -> Option<String> {
        let mut commands = Vec::new();
        if !networks.is_empty() {
            if !self.chain {
                commands.push(format!("-N {CHAIN}"));
            }
            let right = self.jumps == 1 && !self.late;
            if !right {
                commands.extend((0..self.jumps).map(|_| format!("-D {HOOK} -j {CHAIN}")));
                commands.push(format!("-I {HOOK} 1 -j {CHAIN}"));
            }
        }
        let mut missing: Vec<&Address> = networks.iter().collect();
        for line in &self.lines {
            let Some(hidden) = line.hidden.as_ref().filter(|one| one.dev == dev) else {
                continue;
            };
            match missing.iter().position(|one| **one == hidden.network) {
                Some(at) => drop(missing.remove(at)),
                None => commands.push(format!("-D {CHAIN} {}", line.specification)),
            }
        }
        commands.extend(missing.into_iter().map(|network| {
            let hidden = Hidden {
                dev: dev.to_owned(),
                network: *network,
            };
            format!("-A {CHAIN} {}", hidden.specification())
        }));
        transaction_in(TABLE, &commands)
    }

    /// What is hidden, each once, and whether it is in effect.
    pub(super) fn hidden(&self) -> Vec<(&Hidden, bool)> {
        let mut list: Vec<(&Hidden, bool)> = Vec::new();
        for hidden in self.lines.iter().filter_map(|line| line.hidden.as_ref()) {
            if !list.iter().any(|(known, _)| *known == hidden) {
                list.push((hidden, self.in_effect()));
            }
        }
        list
    }
}

impl Firewall {
    /// Hides these networks behind the tunnel's address, and no others.
    pub(super) fn masquerade(
        &self,
        action: &MasqueradeSet,
        most: usize,
        deadline: Instant,
    ) -> Result<Done, Failure> {
        let all = action.networks.iter().map(|network| Address {
            address: network.address(),
            length: network.length(),
        });
        let (v4, v6): (Vec<Address>, Vec<Address>) =
            all.partition(|network| network.address.is_ipv4());
        let of = |family| match family {
            Family::V4 => &v4,
            Family::V6 => &v6,
        };
        let dev = action.dev.as_str();
        let judge = |family, state: &State| {
            let networks = of(family);
            let total = state.of_others(dev) + networks.len();
            match networks.is_empty() || total <= most {
                true => Ok(()),
                false => Err(too_many_given(total, most)),
            }
        };
        // What is refused for one family is not done in the other. Taking away is refused for none.
        let asked = [Family::V4, Family::V6].into_iter();
        for family in asked.filter(|family| !of(*family).is_empty()) {
            judge(family, &State::parse(&self.read(family, TABLE, deadline)?))?;
        }
        let mut changed = false;
        let plan = |family, state: &State| {
            judge(family, state)?;
            Ok(state.plan_set(dev, of(family)).map(|plan| (plan, ())))
        };
        self.both_families(TABLE, State::parse, deadline, plan, |_, ()| changed = true)?;
        let list: Vec<String> = action.networks.iter().map(|one| one.to_string()).collect();
        let what = match list.is_empty() {
            true => format!("nothing is hidden behind {dev}"),
            false => format!("{} leave by {dev} as the host", list.join(", ")),
        };
        let before = if changed { "" } else { ", as before" };
        Ok(Done {
            output: format!("{what}{before}"),
            ..Done::default()
        })
    }

    /// What is hidden behind which tunnel, from the rules themselves. Nothing changes by it.
    pub(super) fn masquerades(&self, deadline: Instant) -> Result<Done, Failure> {
        let mut list = Vec::new();
        for family in [Family::V4, Family::V6] {
            let state = State::parse(&self.read(family, TABLE, deadline)?);
            list.extend(state.hidden().into_iter().map(|(hidden, whole)| {
                let Address { address, length } = hidden.network;
                json!({"dev": hidden.dev, "network": format!("{address}/{length}"), "whole": whole})
            }));
        }
        Ok(Done {
            output: Value::Array(list).to_string(),
            ..Done::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> Address {
        parse_network(text).expect("a network")
    }

    const SAVED: &str = "*filter\n-A BLOCKHOST-MASQ -s 10.9.0.0/24 -o wg0 -j MASQUERADE\nCOMMIT\n*nat\n\
        :POSTROUTING ACCEPT [0:0]\n:BLOCKHOST-MASQ - [0:0]\n:BLOCKHOST-SNAT - [0:0]\n-A POSTROUTING -j BLOCKHOST-MASQ\n\
        -A POSTROUTING -j BLOCKHOST-SNAT\n-A BLOCKHOST-MASQ -s 10.20.0.0/24 -o wg0 -j MASQUERADE\n\
        -A BLOCKHOST-MASQ -s 10.20.0.7/32 -o wg1 -j MASQUERADE\nCOMMIT\n";

    #[test]
    fn a_tunnels_networks_are_replaced_in_one_transaction_and_others_stay() {
        let state = State::parse(SAVED);
        assert_eq!(state.plan_set("wg0", &[network("10.20.0.0/24")]), None);
        assert_eq!(state.plan_set("wg2", &[]), None);
        assert_eq!(
            state.plan_set("wg0", &[network("10.21.0.0/24")]).unwrap(),
            "*nat\n-D BLOCKHOST-MASQ -s 10.20.0.0/24 -o wg0 -j MASQUERADE\n-A BLOCKHOST-MASQ -s 10.21.0.0/24 -o wg0 -j MASQUERADE\nCOMMIT\n"
        );
        assert_eq!(
            state.plan_set("wg1", &[]).unwrap(),
            "*nat\n-D BLOCKHOST-MASQ -s 10.20.0.7/32 -o wg1 -j MASQUERADE\nCOMMIT\n"
        );
        assert_eq!(
            State::default()
                .plan_set("wg0", &[network("10.20.0.0/24")])
                .unwrap(),
            "*nat\n-N BLOCKHOST-MASQ\n-I POSTROUTING 1 -j BLOCKHOST-MASQ\n-A BLOCKHOST-MASQ -s 10.20.0.0/24 -o wg0 -j MASQUERADE\nCOMMIT\n"
        );
    }

    #[test]
    fn a_jump_that_comes_too_late_twice_or_not_at_all_is_mended_and_said() {
        let jump = "-A POSTROUTING -j BLOCKHOST-MASQ\n";
        let other = "-A POSTROUTING -j BLOCKHOST-SNAT\n";
        let wanted = [network("10.20.0.0/24")];
        for (jumps, whole, commands) in [
            ([jump, other].concat(), true, ""),
            ([other, jump].concat(), false, "-D -I"),
            ([jump, jump, other].concat(), true, "-D -D -I"),
            (other.to_owned(), false, "-I"),
            (jump.to_owned(), true, ""),
        ] {
            let saved = SAVED.replace(&[jump, other].concat(), &jumps);
            let state = State::parse(&saved);
            assert!(state.hidden().iter().all(|(_, is)| *is == whole), "{jumps}");
            let plan = state.plan_set("wg0", &wanted).unwrap_or_default();
            let first: Vec<&str> = plan
                .lines()
                .filter_map(|line| line.split(' ').next())
                .filter(|word| word.starts_with('-'))
                .collect();
            assert_eq!(first.join(" "), commands, "{jumps}");
        }
    }

    #[test]
    fn rules_with_a_condition_are_not_taken_for_ours_and_not_deleted() {
        for text in [
            "! -s 10.20.0.0/24 -o wg0 -j MASQUERADE",
            "-s 10.20.0.0/24 ! -o wg0 -j MASQUERADE",
            "-s 10.20.0.0/24 -o wg0 -p tcp -j MASQUERADE",
            "-s 10.20.0.0/24 -o wg0 -j MASQUERADE --random",
            "-s 10.20.0.0/24 -j MASQUERADE",
            "-o wg0 -j MASQUERADE",
            "-s 10.20.0.0/33 -o wg0 -j MASQUERADE",
            "-s 10.20.0.0/24 -o wg0 -j ACCEPT",
        ] {
            assert_eq!(Hidden::parse(text), None, "{text}");
            let saved = format!("*nat\n:{CHAIN} - [0:0]\n-A {CHAIN} {text}\nCOMMIT\n");
            assert_eq!(State::parse(&saved).plan_set("wg0", &[]), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(bits: u32, length in 8u8..=32, dev in "wg[a-z0-9]{1,8}") {
            let network = Address { address: IpAddr::from(bits.to_be_bytes()), length }.network();
            let hidden = Hidden { dev, network };
            prop_assert_eq!(Hidden::parse(&hidden.specification()), Some(hidden));
        }
    }
}
