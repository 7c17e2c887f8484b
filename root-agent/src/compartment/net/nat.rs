//! Address translation as text: reading what `iptables-save -t nat` prints, deciding what has to change, writing what
//! `iptables-restore --noflush` takes. Pure; [`super::firewall`] runs the programs.
//!
//! One chain of ours for each direction, jumped to first: a public address of ours must win over a masquerade behind it.
//! Nothing here names another chain but to jump from it.

use std::net::IpAddr;

use super::masquerade::CHAIN as HIDING;
use super::rules::{Saved, saved, transaction_in, words};

const TABLE: &str = "nat";
pub(super) const INWARD: &str = "BLOCKHOST-DNAT";
pub(super) const OUTWARD: &str = "BLOCKHOST-SNAT";
/// From where our chains are jumped to. Packets of the host itself to a public address pass OUTPUT.
const JUMPS: [(&str, &str); 3] = [
    ("PREROUTING", INWARD),
    ("OUTPUT", INWARD),
    ("POSTROUTING", OUTWARD),
];

/// One public address and the private one behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) public: IpAddr,
    pub(super) private: IpAddr,
    pub(super) comment: String,
}

/// One rule of ours: half of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Half {
    /// As it was printed: the order of matches is part of a rule's identity.
    specification: String,
    /// What it means when it is one that we make.
    pair: Option<Pair>,
}

/// What of the nat table concerns us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    chains: [bool; 2],
    jumps: [usize; 3],
    halves: [Vec<Half>; 2],
    /// How many rules there are where packets leave, up to the jump to what hides sources on tunnels: that comes first.
    hiding: usize,
    leaving: usize,
}

/// Why a pair cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// One of the addresses is in another pair.
    Taken(Pair),
}

const CHAINS: [&str; 2] = [INWARD, OUTWARD];

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Pair {
    fn specification(&self, chain: usize) -> String {
        let Self {
            public,
            private,
            comment,
        } = self;
        let length = width(*public);
        match chain {
            0 => format!(
                "-d {public}/{length} -m comment --comment {comment} -j DNAT --to-destination {private}"
            ),
            _ => format!(
                "-s {private}/{length} -m comment --comment {comment} -j SNAT --to-source {public}"
            ),
        }
    }

    /// Understands the rules that we make; `None` for any other.
    fn parse(chain: usize, specification: &str) -> Option<Self> {
        let (matched, target, translated) = if chain == 0 {
            ("-d", "DNAT", "--to-destination")
        } else {
            ("-s", "SNAT", "--to-source")
        };
        let (mut from, mut to, mut comment, mut jumps) = (None, None, None, false);
        let mut words = words(specification)?.into_iter();
        while let Some(option) = words.next() {
            let value = words.next()?;
            match option.as_str() {
                name if name == matched && from.is_none() => {
                    let (address, length) = value.split_once('/').unwrap_or((&value, ""));
                    let address: IpAddr = address.parse().ok()?;
                    let whole = length.is_empty() || length == width(address).to_string();
                    from = Some(address).filter(|_| whole);
                    from?;
                }
                "-m" if value == "comment" => {}
                "--comment" if comment.is_none() => comment = Some(value),
                "-j" if value == target => jumps = true,
                name if name == translated && to.is_none() => to = Some(value.parse().ok()?),
                _ => return None,
            }
        }
        let (from, to) = (from?, to?);
        let (public, private) = if chain == 0 { (from, to) } else { (to, from) };
        jumps.then_some(Self {
            public,
            private,
            comment: comment?,
        })
    }
}

impl State {
    /// Reads the output of `iptables-save -t nat`. Lines that are not ours are skipped, whatever they hold.
    pub(super) fn parse(save: &str) -> Self {
        let mut state = Self::default();
        for line in saved(save, TABLE) {
            match line {
                Saved::Chain(name) => {
                    for (known, chain) in state.chains.iter_mut().zip(CHAINS) {
                        *known |= name == chain;
                    }
                }
                Saved::Rule(chain, rest) => state.rule(chain, rest),
            }
        }
        state
    }

    fn rule(&mut self, chain: &str, rest: &str) {
        if chain == "POSTROUTING" {
            self.leaving += 1;
            if self.hiding == 0 && rest.trim_end() == format!("-j {HIDING}") {
                self.hiding = self.leaving;
            }
        }
        for (count, (from, to)) in self.jumps.iter_mut().zip(JUMPS) {
            if chain == from && rest.trim_end() == format!("-j {to}") {
                *count += 1;
            }
        }
        if let Some(at) = CHAINS.iter().position(|ours| *ours == chain) {
            self.halves[at].push(Half {
                specification: rest.to_owned(),
                pair: Pair::parse(at, rest),
            });
        }
    }

    fn holds(&self, chain: usize, pair: &Pair) -> bool {
        self.halves[chain]
            .iter()
            .any(|half| half.pair.as_ref() == Some(pair))
    }

    /// Whether mapping would add something.
    pub(super) fn lacks(&self, pair: &Pair) -> bool {
        !(self.holds(0, pair) && self.holds(1, pair))
    }

    /// The pairs, in the order in which they stand, each with whether both its directions do and take effect.
    pub(super) fn pairs(&self) -> Vec<(&Pair, bool)> {
        let jumped_to = self.jumps.iter().all(|count| *count > 0);
        let mut list: Vec<(&Pair, bool)> = Vec::new();
        for pair in self.halves.iter().flatten().filter_map(|h| h.pair.as_ref()) {
            if !list.iter().any(|(known, _)| *known == pair) {
                list.push((pair, jumped_to && !self.lacks(pair)));
            }
        }
        list
    }

    /// How many pairs there are, halves counted.
    pub(super) fn len(&self) -> usize {
        self.halves.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Whether no pair has either address.
    pub(super) fn is_free(&self, pair: &Pair) -> bool {
        let mut taken = self
            .halves
            .iter()
            .flatten()
            .filter_map(|half| half.pair.as_ref());
        taken.all(|other| other.public != pair.public && other.private != pair.private)
    }

    /// What makes the pair stand once and the jumps exist once; `None` when it is so already.
    pub(super) fn plan_map(&self, pair: &Pair) -> Result<Option<String>, Refusal> {
        let taken = self.halves.iter().flatten().find_map(|half| {
            half.pair.as_ref().filter(|other| {
                (other.public == pair.public || other.private == pair.private) && *other != pair
            })
        });
        if let Some(other) = taken {
            return Err(Refusal::Taken(other.clone()));
        }
        let mut commands = self.chains_and_jumps();
        for (at, chain) in CHAINS.iter().enumerate() {
            if !self.holds(at, pair) {
                commands.push(format!("-A {chain} {}", pair.specification(at)));
            }
        }
        Ok(transaction_in(TABLE, &commands))
    }

    /// What makes these the only rules of our chains, each once; `None` when it is so already.
    pub(super) fn plan_set(&self, pairs: &[Pair]) -> Option<String> {
        let mut commands = Vec::new();
        if self.chains.contains(&true) || !pairs.is_empty() {
            commands = self.chains_and_jumps();
        }
        for (at, (chain, halves)) in CHAINS.iter().zip(&self.halves).enumerate() {
            let as_given = halves.len() == pairs.len() && pairs.iter().all(|p| self.holds(at, p));
            if as_given {
                continue;
            }
            if !halves.is_empty() {
                commands.push(format!("-F {chain}"));
            }
            let all = pairs.iter();
            commands.extend(all.map(|pair| format!("-A {chain} {}", pair.specification(at))));
        }
        transaction_in(TABLE, &commands)
    }

    /// Whether whole pairs are all that stands in our chains, each once and in effect.
    pub(super) fn is_clean(&self) -> bool {
        let pairs: Vec<Pair> = self
            .pairs()
            .into_iter()
            .map(|(pair, _)| pair.clone())
            .collect();
        self.plan_set(&pairs).is_none()
    }

    /// Rules of ours that belong to none of these pairs, of the chain that has more of them.
    pub(super) fn surplus(&self, pairs: &[Pair]) -> usize {
        let count = |halves: &Vec<Half>| {
            let known = |half: &&Half| half.pair.as_ref().is_some_and(|pair| pairs.contains(pair));
            halves.len() - halves.iter().filter(known).count()
        };
        self.halves.iter().map(count).max().unwrap_or(0)
    }

    /// Pairs that stand and are none of these.
    pub(super) fn gone(&self, pairs: &[Pair]) -> Vec<Pair> {
        let known = self.pairs().into_iter().map(|(pair, _)| pair);
        known
            .filter(|pair| !pairs.contains(pair))
            .cloned()
            .collect()
    }

    /// How many of these do not stand whole.
    pub(super) fn missing(&self, pairs: &[Pair]) -> usize {
        let known = self.pairs();
        let whole = |pair: &&Pair| known.contains(&(pair, true));
        pairs.len() - pairs.iter().filter(whole).count()
    }

    /// What makes our chains exist and be jumped to once from each place.
    fn chains_and_jumps(&self) -> Vec<String> {
        let mut commands = Vec::new();
        for (known, chain) in self.chains.iter().zip(CHAINS) {
            if !known {
                commands.push(format!("-N {chain}"));
            }
        }
        for (count, (from, to)) in self.jumps.iter().zip(JUMPS) {
            if *count == 0 {
                let place = if to == OUTWARD { self.hiding + 1 } else { 1 };
                commands.push(format!("-I {from} {place} -j {to}"));
            }
            for _ in 1..*count {
                commands.push(format!("-D {from} -j {to}"));
            }
        }
        commands
    }

    /// What removes the pair, every copy of both halves; `None` when neither stands.
    pub(super) fn plan_unmap(&self, pair: &Pair) -> Option<String> {
        let commands: Vec<String> = CHAINS
            .iter()
            .zip(&self.halves)
            .flat_map(|(chain, halves)| {
                halves
                    .iter()
                    .filter(|half| half.pair.as_ref() == Some(pair))
                    .map(move |half| format!("-D {chain} {}", half.specification))
            })
            .collect();
        transaction_in(TABLE, &commands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(public: &str, private: &str) -> Pair {
        Pair {
            public: public.parse().unwrap(),
            private: private.parse().unwrap(),
            comment: "vm-100".into(),
        }
    }

    const SAVED: &str = "*filter\n-A BLOCKHOST-DNAT -d 203.0.113.9/32 -m comment --comment x -j DNAT --to-destination 10.0.0.9\nCOMMIT\n\
        *nat\n:PREROUTING ACCEPT [0:0]\n:BLOCKHOST-DNAT - [0:0]\n:BLOCKHOST-SNAT - [0:0]\n-A PREROUTING -j BLOCKHOST-DNAT\n\
        -A OUTPUT -j BLOCKHOST-DNAT\n-A POSTROUTING -j BLOCKHOST-SNAT\n-A POSTROUTING -j MASQUERADE\n\
        -A BLOCKHOST-DNAT -d 203.0.113.7/32 -m comment --comment \"vm-100\" -j DNAT --to-destination 10.0.0.7\n\
        -A BLOCKHOST-SNAT -s 10.0.0.7/32 -m comment --comment vm-100 -j SNAT --to-source 203.0.113.7\nCOMMIT\n";

    #[test]
    fn an_address_of_another_pair_or_another_owner_is_refused() {
        let state = State::parse(SAVED);
        let ours = pair("203.0.113.7", "10.0.0.7");
        assert_eq!(state.plan_map(&ours), Ok(None));
        for other in [
            pair("203.0.113.7", "10.0.0.8"),
            pair("203.0.113.8", "10.0.0.7"),
            Pair {
                comment: "vm-101".into(),
                ..ours.clone()
            },
        ] {
            assert_eq!(state.plan_map(&other), Err(Refusal::Taken(ours.clone())));
            assert_eq!(state.plan_unmap(&other), None);
        }
    }

    #[test]
    fn both_halves_go_in_one_transaction_in_the_words_they_were_printed_in() {
        let plan = State::parse(SAVED)
            .plan_unmap(&pair("203.0.113.7", "10.0.0.7"))
            .unwrap();
        assert_eq!(
            plan,
            "*nat\n-D BLOCKHOST-DNAT -d 203.0.113.7/32 -m comment --comment \"vm-100\" -j DNAT --to-destination 10.0.0.7\n\
             -D BLOCKHOST-SNAT -s 10.0.0.7/32 -m comment --comment vm-100 -j SNAT --to-source 203.0.113.7\nCOMMIT\n"
        );
    }

    #[test]
    fn a_missing_half_a_missing_jump_and_one_too_many_are_mended() {
        let half = SAVED.replace(
            "-A BLOCKHOST-SNAT -s 10.0.0.7/32 -m comment --comment vm-100 -j SNAT --to-source 203.0.113.7\n",
            "",
        );
        let half = half.replace("-A OUTPUT -j BLOCKHOST-DNAT\n", "");
        let half = half.replace(
            "-A PREROUTING -j BLOCKHOST-DNAT\n",
            "-A PREROUTING -j BLOCKHOST-DNAT\n-A PREROUTING -j BLOCKHOST-DNAT\n",
        );
        let plan = State::parse(&half).plan_map(&pair("203.0.113.7", "10.0.0.7"));
        assert_eq!(
            plan.unwrap().unwrap(),
            "*nat\n-D PREROUTING -j BLOCKHOST-DNAT\n-I OUTPUT 1 -j BLOCKHOST-DNAT\n\
             -A BLOCKHOST-SNAT -s 10.0.0.7/32 -m comment --comment vm-100 -j SNAT --to-source 203.0.113.7\nCOMMIT\n"
        );
    }

    #[test]
    fn what_hides_sources_on_tunnels_stays_before_public_addresses() {
        for (rules, place) in [
            ("-A POSTROUTING -j BLOCKHOST-MASQ\n", 2),
            (
                "-A POSTROUTING -o x -j RETURN\n-A POSTROUTING -j BLOCKHOST-MASQ\n-A POSTROUTING -j BLOCKHOST-MASQ\n",
                3,
            ),
            ("-A POSTROUTING -o x -j BLOCKHOST-MASQ\n", 1),
            ("", 1),
        ] {
            let saved = format!("*nat\n{rules}COMMIT\n");
            let plan = State::parse(&saved).plan_map(&pair("203.0.113.7", "10.0.0.7"));
            let jump = format!("-I POSTROUTING {place} -j BLOCKHOST-SNAT\n");
            assert!(plan.unwrap().unwrap().contains(&jump), "{rules}");
        }
    }

    #[test]
    fn a_whole_list_replaces_what_stands_in_our_chains_and_touches_no_other() {
        let state = State::parse(SAVED);
        let ours = pair("203.0.113.7", "10.0.0.7");
        assert_eq!(state.plan_set(std::slice::from_ref(&ours)), None);
        let other = [pair("203.0.113.8", "10.0.0.7")];
        assert_eq!((state.surplus(&other), state.missing(&other)), (1, 1));
        assert_eq!(state.gone(&other), [ours]);
        assert_eq!(
            state.plan_set(&other).unwrap(),
            "*nat\n-F BLOCKHOST-DNAT\n\
             -A BLOCKHOST-DNAT -d 203.0.113.8/32 -m comment --comment vm-100 -j DNAT --to-destination 10.0.0.7\n\
             -F BLOCKHOST-SNAT\n\
             -A BLOCKHOST-SNAT -s 10.0.0.7/32 -m comment --comment vm-100 -j SNAT --to-source 203.0.113.8\nCOMMIT\n"
        );
        assert_eq!(
            state.plan_set(&[]).unwrap(),
            "*nat\n-F BLOCKHOST-DNAT\n-F BLOCKHOST-SNAT\nCOMMIT\n"
        );
        assert_eq!(State::default().plan_set(&[]), None);
        // A rule that nobody here made, and one half twice.
        for extra in [
            "-A BLOCKHOST-DNAT -d 203.0.113.9/32 -j DNAT --to-destination 10.0.0.9\nCOMMIT\n",
            "-A BLOCKHOST-SNAT -s 10.0.0.7/32 -m comment --comment vm-100 -j SNAT --to-source 203.0.113.7\nCOMMIT\n",
        ] {
            let (before, _) = SAVED.rsplit_once("COMMIT\n").unwrap();
            let state = State::parse(&format!("{before}{extra}"));
            let ours = [pair("203.0.113.7", "10.0.0.7")];
            assert!(state.plan_set(&ours).unwrap().contains("-F "), "{extra}");
        }
    }

    #[test]
    fn each_pair_is_listed_once_and_a_half_one_is_said_to_be_half() {
        let ours = pair("203.0.113.7", "10.0.0.7");
        let state = State::parse(SAVED);
        assert_eq!(state.pairs(), [(&ours, true)]);
        let half = SAVED.replace(
            "-A BLOCKHOST-SNAT -s 10.0.0.7/32",
            "-A OTHER -s 10.0.0.7/32",
        );
        assert_eq!(State::parse(&half).pairs(), [(&ours, false)]);
        let unused = SAVED.replace("-A OUTPUT -j BLOCKHOST-DNAT\n", "");
        assert_eq!(State::parse(&unused).pairs(), [(&ours, false)]);
        assert!(State::parse("").pairs().is_empty());
    }

    #[test]
    fn rules_with_a_condition_are_not_taken_for_ours() {
        for text in [
            "-d 203.0.113.7/24 -m comment --comment a -j DNAT --to-destination 10.0.0.7",
            "! -d 203.0.113.7/32 -m comment --comment a -j DNAT --to-destination 10.0.0.7",
            "-d 203.0.113.7/32 -p tcp -m comment --comment a -j DNAT --to-destination 10.0.0.7",
            "-d 203.0.113.7/32 -m comment --comment a -j DNAT --to-destination 10.0.0.7:80",
            "-d 203.0.113.7/32 -m comment --comment a -j DNAT --to-destination 10.0.0.7 --random",
            "-d 203.0.113.7/32 -j DNAT --to-destination 10.0.0.7",
            "-s 203.0.113.7/32 -m comment --comment a -j DNAT --to-destination 10.0.0.7",
        ] {
            assert_eq!(Pair::parse(0, text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(public: u32, private: u32, comment in "[A-Za-z0-9][A-Za-z0-9-]{0,20}") {
            let pair = Pair { public: IpAddr::from(public.to_be_bytes()), private: IpAddr::from(private.to_be_bytes()), comment };
            for chain in [0, 1] {
                prop_assert_eq!(Pair::parse(chain, &pair.specification(chain)), Some(pair.clone()));
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,300}") {
            let _ = State::parse(&format!("*nat\n-A {INWARD} {text}"));
        }
    }
}
