//! The firewall as text: reading what `iptables-save` prints, deciding what has to change, writing what
//! `iptables-restore --noflush` takes. Pure; [`super::firewall`] runs the programs.
//!
//! Our rules live in a chain of their own that INPUT jumps to once. Nothing here names another chain, and the chain is
//! never declared with `:`, which would flush it, but made with `-N`, which fails where it exists already. Only where all of
//! its rules are given anew is it flushed, by `-F` in the same transaction.

use std::fmt::Write as _;
use std::net::IpAddr;

/// Our chain.
pub(super) const CHAIN: &str = "BLOCKHOST-INPUT";

/// Which of the two rule sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// One accepted port, in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// `tcp` or `udp`.
    pub(super) protocol: String,
    pub(super) port: u16,
    /// Network and prefix length; `None` accepts from everywhere.
    pub(super) source: Option<(IpAddr, u8)>,
    pub(super) comment: String,
}

/// A rule as it stands in our chain: its text, and what it means when it is one that we make.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    specification: String,
    rule: Option<Rule>,
}

/// What of the filter table concerns us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    chain: bool,
    jumps: usize,
    lines: Vec<Line>,
}

impl Rule {
    /// Everything after the chain's name.
    fn specification(&self) -> String {
        let Rule {
            protocol,
            port,
            source,
            comment,
        } = self;
        let mut text = String::new();
        if let Some((address, prefix)) = source {
            let _ = write!(text, "-s {address}/{prefix} ");
        }
        let _ = write!(
            text,
            "-p {protocol} -m {protocol} --dport {port} -m comment --comment {comment} -j ACCEPT"
        );
        text
    }

    /// Understands the rules that we make, in whatever order a version prints the parts; `None` for any other.
    fn parse(specification: &str) -> Option<Rule> {
        let (mut protocol, mut port, mut source, mut comment, mut accepts) =
            (None, None, None, None, false);
        let mut words = words(specification)?.into_iter();
        while let Some(option) = words.next() {
            let value = words.next()?;
            match option.as_str() {
                "-s" if source.is_none() => source = Some(parse_source(&value)?),
                "-p" if protocol.is_none() && matches!(value.as_str(), "tcp" | "udp") => {
                    protocol = Some(value)
                }
                "-m" if matches!(value.as_str(), "tcp" | "udp" | "comment") => {}
                "--dport" if port.is_none() => port = Some(value.parse().ok()?),
                "--comment" if comment.is_none() => comment = Some(value),
                "-j" if value == "ACCEPT" => accepts = true,
                _ => return None,
            }
        }
        accepts.then_some(Rule {
            protocol: protocol?,
            port: port?,
            source,
            comment: comment?,
        })
    }
}

/// A line of a table.
pub(super) enum Saved<'a> {
    /// There is a chain of that name.
    Chain(&'a str),
    /// A rule of a chain: its name, and everything after it.
    Rule(&'a str, &'a str),
}

/// Chains and rules of one table in the output of `iptables-save`, in their order. Everything else is skipped, whatever it
/// holds.
pub(super) fn saved<'a>(save: &'a str, table: &'a str) -> impl Iterator<Item = Saved<'a>> {
    let mut inside = false;
    save.lines().filter_map(move |line| {
        if let Some(begun) = line.strip_prefix('*') {
            inside = begun == table;
            None
        } else if !inside {
            None
        } else if let Some(declared) = line.strip_prefix(':') {
            declared.split_whitespace().next().map(Saved::Chain)
        } else {
            let (chain, specification) = line.strip_prefix("-A ")?.split_once(' ')?;
            Some(Saved::Rule(chain, specification))
        }
    })
}

impl State {
    /// Reads the output of `iptables-save -t filter`. Lines that are not ours are skipped, whatever they hold.
    pub(super) fn parse(save: &str) -> State {
        let mut state = State::default();
        for line in saved(save, "filter") {
            match line {
                Saved::Chain(name) => state.chain |= name == CHAIN,
                Saved::Rule("INPUT", specification) => {
                    if specification.trim_end() == format!("-j {CHAIN}") {
                        state.jumps += 1;
                    }
                }
                Saved::Rule(CHAIN, specification) => state.lines.push(Line {
                    specification: specification.to_owned(),
                    rule: Rule::parse(specification),
                }),
                Saved::Rule(..) => {}
            }
        }
        state
    }

    /// Whether that rule stands and takes effect.
    #[cfg(test)]
    fn holds(&self, rule: &Rule) -> bool {
        self.jumps > 0 && self.matching(rule).next().is_some()
    }

    fn matching<'a>(&'a self, rule: &'a Rule) -> impl Iterator<Item = &'a Line> {
        self.lines
            .iter()
            .filter(move |line| line.rule.as_ref() == Some(rule))
    }

    /// The rules that we make and that take effect, each once.
    pub(super) fn rules(&self) -> Vec<&Rule> {
        let mut list: Vec<&Rule> = Vec::new();
        let known = self.lines.iter().filter_map(|line| line.rule.as_ref());
        for rule in known.filter(|_| self.jumps > 0) {
            if !list.contains(&rule) {
                list.push(rule);
            }
        }
        list
    }

    /// Rules in our chain.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether opening `rule` would add a rule (and not only repair the jump).
    pub(super) fn lacks(&self, rule: &Rule) -> bool {
        self.matching(rule).next().is_none()
    }

    /// What makes `rule` stand once and the jump exist once; `None` when it is so already.
    pub(super) fn plan_open(&self, rule: &Rule) -> Option<String> {
        let mut commands = self.chain_and_jump();
        if self.lacks(rule) {
            commands.push(format!("-A {CHAIN} {}", rule.specification()));
        }
        transaction(&commands)
    }

    /// What makes these the only rules of our chain, each once; `None` when it is so already.
    pub(super) fn plan_set(&self, rules: &[Rule]) -> Option<String> {
        let mut commands = Vec::new();
        if self.chain || !rules.is_empty() {
            commands = self.chain_and_jump();
        }
        let as_given = self.lines.len() == rules.len()
            && rules.iter().all(|rule| self.matching(rule).count() == 1);
        if !as_given {
            if !self.lines.is_empty() {
                commands.push(format!("-F {CHAIN}"));
            }
            let all = rules.iter();
            commands.extend(all.map(|rule| format!("-A {CHAIN} {}", rule.specification())));
        }
        transaction(&commands)
    }

    /// Whether the rules that we make are all that stands in our chain, each once and in effect.
    pub(super) fn is_clean(&self) -> bool {
        let rules: Vec<Rule> = self.rules().into_iter().cloned().collect();
        self.plan_set(&rules).is_none()
    }

    /// How many rules of our chain are none of these.
    pub(super) fn surplus(&self, rules: &[Rule]) -> usize {
        let known = |line: &&Line| line.rule.as_ref().is_some_and(|rule| rules.contains(rule));
        self.lines.len() - self.lines.iter().filter(known).count()
    }

    /// How many of these do not stand or take no effect.
    pub(super) fn missing(&self, rules: &[Rule]) -> usize {
        let gone = |rule: &&Rule| self.jumps == 0 || self.lacks(rule);
        rules.iter().filter(gone).count()
    }

    /// What makes our chain exist and be jumped to once.
    fn chain_and_jump(&self) -> Vec<String> {
        let mut commands = Vec::new();
        if !self.chain {
            commands.push(format!("-N {CHAIN}"));
        }
        if self.jumps == 0 {
            // First, because hosts end their INPUT with a drop.
            commands.push(format!("-I INPUT 1 -j {CHAIN}"));
        }
        for _ in 1..self.jumps {
            commands.push(format!("-D INPUT -j {CHAIN}"));
        }
        commands
    }

    /// What removes `rule`, every copy of it; `None` when it does not stand.
    pub(super) fn plan_close(&self, rule: &Rule) -> Option<String> {
        // Quoted back as it was printed: the order of matches is part of a rule's identity.
        let commands: Vec<String> = self
            .matching(rule)
            .map(|line| format!("-D {CHAIN} {}", line.specification))
            .collect();
        transaction(&commands)
    }
}

fn transaction(commands: &[String]) -> Option<String> {
    transaction_in("filter", commands)
}

/// All or nothing, in one table; `None` without commands.
pub(super) fn transaction_in(table: &str, commands: &[String]) -> Option<String> {
    (!commands.is_empty()).then(|| format!("*{table}\n{}\nCOMMIT\n", commands.join("\n")))
}

fn parse_source(text: &str) -> Option<(IpAddr, u8)> {
    match text.split_once('/') {
        Some((address, prefix)) => Some((address.parse().ok()?, prefix.parse().ok()?)),
        None => {
            let address: IpAddr = text.parse().ok()?;
            Some((address, if address.is_ipv4() { 32 } else { 128 }))
        }
    }
}

/// Splits a rule as `iptables-restore` does: at blanks, with double quotes and backslashes inside them.
pub(super) fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().push(characters.next()?),
            ' ' | '\t' if !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    (!quoted).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(source: Option<&str>) -> Rule {
        Rule {
            protocol: "tcp".into(),
            port: 22,
            source: source.and_then(parse_source),
            comment: "knock-1".into(),
        }
    }

    const SAVED: &str = "# Generated by iptables-nft-save\n*nat\n:INPUT ACCEPT [0:0]\n-A INPUT -j BLOCKHOST-INPUT\nCOMMIT\n*filter\n\
        :INPUT DROP [5:300]\n:BLOCKHOST-INPUT - [0:0]\n-A INPUT -i lo -j BLOCKHOST-INPUT\n-A INPUT -j BLOCKHOST-INPUT\n\
        -A BLOCKHOST-INPUT -p tcp -m comment --comment \"knock-1\" -m tcp --dport 22 -j ACCEPT\n\
        -A BLOCKHOST-INPUT -p tcp -m tcp --dport 22 -m comment --comment knock-1 -j DROP\n\
        -A BLOCKHOST-INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 22 -m comment --comment knock-1 -j ACCEPT\nCOMMIT\n";

    #[test]
    fn rules_with_another_comment_port_protocol_source_or_verdict_are_not_taken_for_ours() {
        let state = State::parse(SAVED);
        for other in [
            Rule {
                comment: "knock-2".into(),
                ..rule(None)
            },
            Rule {
                port: 2,
                ..rule(None)
            },
            Rule {
                protocol: "udp".into(),
                ..rule(None)
            },
            rule(Some("10.0.0.0/9")),
        ] {
            assert_eq!(state.plan_close(&other), None, "{other:?}");
        }
        for text in [
            "-p tcp ! --dport 22 -j ACCEPT",
            "-p tcp --dport 22:80 --comment a -j ACCEPT",
            "-i eth0 -p tcp --dport 22 --comment a -j ACCEPT",
            "-p tcp --dport",
            "-p tcp --dport 22 --comment \"a -j ACCEPT",
        ] {
            assert_eq!(Rule::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_rule_is_removed_in_the_words_it_was_printed_in() {
        let plan = State::parse(SAVED).plan_close(&rule(None)).unwrap();
        assert_eq!(
            plan,
            "*filter\n-D BLOCKHOST-INPUT -p tcp -m comment --comment \"knock-1\" -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
        );
    }

    #[test]
    fn only_rules_that_open_something_are_listed() {
        let state = State::parse(SAVED);
        assert_eq!(state.rules(), [&rule(None), &rule(Some("10.0.0.0/8"))]);
        let unused = SAVED.replace("-A INPUT -j BLOCKHOST-INPUT\n-A BLOCK", "-A BLOCK");
        assert!(
            State::parse(&unused).rules().is_empty(),
            "nothing jumps there"
        );
    }

    #[test]
    fn a_jump_in_another_table_or_with_a_condition_does_not_count() {
        let state = State::parse(SAVED);
        assert_eq!((state.jumps, state.chain), (1, true));
        assert_eq!(state.plan_open(&rule(None)), None);
    }

    #[test]
    fn surplus_jumps_are_removed_and_a_missing_one_goes_first() {
        let twice = SAVED.replace(
            "-A INPUT -i lo -j BLOCKHOST-INPUT",
            "-A INPUT -j BLOCKHOST-INPUT",
        );
        assert_eq!(
            State::parse(&twice).plan_open(&rule(None)).unwrap(),
            "*filter\n-D INPUT -j BLOCKHOST-INPUT\nCOMMIT\n"
        );
        let fresh = State::parse("")
            .plan_open(&rule(Some("fd77::/64")))
            .unwrap();
        assert_eq!(
            fresh,
            "*filter\n-N BLOCKHOST-INPUT\n-I INPUT 1 -j BLOCKHOST-INPUT\n-A BLOCKHOST-INPUT -s fd77::/64 -p tcp -m tcp --dport 22 -m comment --comment knock-1 -j ACCEPT\nCOMMIT\n"
        );
        assert!(
            !fresh.contains(':') || !fresh.lines().any(|line| line.starts_with(':')),
            "a declared chain is a flushed chain"
        );
    }

    #[test]
    fn a_whole_list_replaces_what_stands_in_our_chain_and_touches_no_other() {
        let state = State::parse(SAVED);
        let wanted = [rule(Some("10.0.0.0/8")), rule(Some("fd77::/64"))];
        assert_eq!((state.surplus(&wanted), state.missing(&wanted)), (2, 1));
        assert_eq!(
            state.plan_set(&wanted).unwrap(),
            "*filter\n-F BLOCKHOST-INPUT\n\
             -A BLOCKHOST-INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 22 -m comment --comment knock-1 -j ACCEPT\n\
             -A BLOCKHOST-INPUT -s fd77::/64 -p tcp -m tcp --dport 22 -m comment --comment knock-1 -j ACCEPT\nCOMMIT\n"
        );
        assert_eq!(
            state.plan_set(&[]).unwrap(),
            "*filter\n-F BLOCKHOST-INPUT\nCOMMIT\n"
        );
        let empty = State::default();
        assert_eq!(empty.plan_set(&[]), None, "no chain is made for nothing");
        assert_eq!(empty.plan_set(&wanted[..1]), empty.plan_open(&wanted[0]));
    }

    #[test]
    fn a_copy_of_a_rule_that_stands_twice_is_one_too_many() {
        let one = rule(Some("10.0.0.0/8"));
        let line = format!("-A {CHAIN} {}\n", one.specification());
        let saved = |lines: &str| {
            State::parse(&format!(
                "*filter\n:{CHAIN} - [0:0]\n-A INPUT -j {CHAIN}\n{lines}COMMIT\n"
            ))
        };
        assert_eq!(saved(&line).plan_set(std::slice::from_ref(&one)), None);
        let twice = saved(&line.repeat(2)).plan_set(std::slice::from_ref(&one));
        assert!(twice.unwrap().starts_with("*filter\n-F BLOCKHOST-INPUT\n"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(port in 1u16.., udp: bool, comment in "[A-Za-z0-9][A-Za-z0-9-]{0,20}", net in proptest::option::of((any::<u32>(), 1u8..=32))) {
            let source = net.map(|(address, prefix)| (IpAddr::from((address & (u32::MAX << (32 - prefix))).to_be_bytes()), prefix));
            let rule = Rule { protocol: if udp { "udp" } else { "tcp" }.into(), port, source, comment };
            let saved = format!("*filter\n:{CHAIN} - [0:0]\n-A INPUT -j {CHAIN}\n-A {CHAIN} {}\nCOMMIT\n", rule.specification());
            let state = State::parse(&saved);
            prop_assert!(state.holds(&rule));
            prop_assert_eq!(state.plan_open(&rule), None);
            prop_assert!(state.plan_close(&rule).is_some());
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,300}") {
            let _ = State::parse(&format!("*filter\n-A {CHAIN} {text}"));
            let _ = State::parse(&text);
        }
    }
}
