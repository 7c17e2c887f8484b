//! C2SP tlog-policy: which witnesses there are, where, and how many of them are enough. One file for the engine that
//! asks them, for the agent that takes their answers, and for whoever verifies. Reading the text and counting, no more.

use crate::cosign::{Cosignature, WitnessKey};
use crate::note::{NoteError, Vkey, parse_decimal, parts};

/// Largest policy file that is read, bytes.
pub const MAX_POLICY_BYTES: usize = 64 * 1024;
/// Most logs, witnesses, and groups of a policy, each.
const MAX_OF_A_KIND: usize = 64;

/// Why a policy is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not text, or too much of it.
    #[error("the witness policy is {0}")]
    Text(&'static str),
    /// A line that is wrong.
    #[error("line {line} of the witness policy: {why}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// There is not exactly one quorum.
    #[error("the witness policy has {0} lines `quorum NAME`; it needs exactly one")]
    Quorum(usize),
}

/// One witness of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// What the policy calls it.
    pub name: String,
    /// Its key.
    pub key: WitnessKey,
    /// Where it takes checkpoints: the prefix of `/add-checkpoint`.
    pub url: Option<String>,
}

/// What may stand in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Witness(usize),
    Group(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    threshold: usize,
    members: Vec<Member>,
}

/// A policy that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<Vkey>,
    witnesses: Vec<Witness>,
    /// Each refers to earlier ones only.
    groups: Vec<Group>,
    /// `None` is the quorum `none`.
    quorum: Option<Member>,
}

/// What a checkpoint's cosignatures come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// They satisfy the quorum.
    pub enough: bool,
    /// The cosignature of each witness, in the policy's order.
    pub found: Vec<Option<Cosignature>>,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// [`PolicyError`] with the line.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::Text("larger than 64 KiB"));
        }
        if text
            .bytes()
            .any(|b| b < 0x20 && b != b'\n' && b != b'\t' || b == 0x7f)
        {
            return Err(PolicyError::Text(
                "not plain text: it has control characters",
            ));
        }
        let mut policy = Self {
            logs: Vec::new(),
            witnesses: Vec::new(),
            groups: Vec::new(),
            quorum: None,
        };
        let mut quorums = 0;
        let mut used = Vec::new();
        for (number, line) in (1..).zip(text.split('\n')) {
            let words: Vec<&str> = line.split([' ', '\t']).filter(|w| !w.is_empty()).collect();
            let taken = match words.as_slice() {
                [] => Ok(()),
                [first, ..] if first.starts_with('#') => Ok(()),
                ["log", key] | ["log", key, _] => policy.add_log(key),
                ["witness", name, key] => policy.add_witness(name, key, None),
                ["witness", name, key, url] => policy.add_witness(name, key, Some(url)),
                ["group", name, threshold, members @ ..] => {
                    policy.add_group(name, threshold, members, &mut used)
                }
                ["quorum", name] => {
                    quorums += 1;
                    policy.set_quorum(name)
                }
                _ => Err(
                    "expected `log VKEY`, `witness NAME VKEY [URL]`, `group NAME N|any|all MEMBER...` or `quorum NAME`"
                        .to_owned(),
                ),
            };
            taken.map_err(|why| PolicyError::Line { line: number, why })?;
        }
        if quorums == 1 {
            Ok(policy)
        } else {
            Err(PolicyError::Quorum(quorums))
        }
    }

    /// The logs; empty when the policy leaves them to its reader.
    #[must_use]
    pub fn logs(&self) -> &[Vkey] {
        &self.logs
    }

    /// The witnesses, in the file's order.
    #[must_use]
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// Counts the valid cosignatures of a checkpoint. The log's own signature is for the caller to check.
    ///
    /// # Errors
    /// The note is none.
    pub fn check(&self, note: &str) -> Result<Count, NoteError> {
        let (body, lines) = parts(note)?;
        let found: Vec<Option<Cosignature>> = self
            .witnesses
            .iter()
            .map(|witness| witness.key.find(body, lines))
            .collect();
        let signed: Vec<bool> = found.iter().map(Option::is_some).collect();
        Ok(Count {
            enough: self.enough(&signed),
            found,
        })
    }

    /// Do these witnesses satisfy the quorum?
    #[must_use]
    pub fn enough(&self, signed: &[bool]) -> bool {
        let mut groups: Vec<bool> = Vec::with_capacity(self.groups.len());
        let holds = |groups: &[bool], member: &Member| match *member {
            Member::Witness(at) => signed.get(at).copied().unwrap_or(false),
            Member::Group(at) => groups.get(at).copied().unwrap_or(false),
        };
        for group in &self.groups {
            let count = group.members.iter().filter(|m| holds(&groups, m)).count();
            groups.push(count >= group.threshold);
        }
        self.quorum.is_none_or(|member| holds(&groups, &member))
    }

    fn add_log(&mut self, key: &str) -> Result<(), String> {
        let key = Vkey::parse(key).map_err(|error| error.to_string())?;
        if self.logs.iter().any(|log| log.is_same_key(&key)) {
            return Err("this log's key was given before".to_owned());
        }
        room(self.logs.len())?;
        self.logs.push(key);
        Ok(())
    }

    fn add_witness(&mut self, name: &str, key: &str, url: Option<&str>) -> Result<(), String> {
        self.is_free(name)?;
        let key = WitnessKey::parse(key).map_err(|error| error.to_string())?;
        if self
            .witnesses
            .iter()
            .any(|known| known.key.is_same_key(&key))
        {
            return Err("this witness's key was given before; it would count twice".to_owned());
        }
        room(self.witnesses.len())?;
        self.witnesses.push(Witness {
            name: name.to_owned(),
            key,
            url: url.map(str::to_owned),
        });
        Ok(())
    }

    fn add_group(
        &mut self,
        name: &str,
        threshold: &str,
        members: &[&str],
        used: &mut Vec<Member>,
    ) -> Result<(), String> {
        self.is_free(name)?;
        room(self.groups.len())?;
        let members = members
            .iter()
            .map(|member| {
                self.member(member)
                    .ok_or_else(|| format!("{} is not defined above", member.escape_default()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        for member in &members {
            if used.contains(member) {
                return Err("a member stands in a group already; it would count twice".to_owned());
            }
            used.push(*member);
        }
        let threshold = match threshold {
            "any" => 1,
            "all" => members.len(),
            number => parse_decimal(number)
                .and_then(|number| usize::try_from(number).ok())
                .ok_or("the threshold is `any`, `all` or a number")?,
        };
        if threshold == 0 || threshold > members.len() {
            let count = members.len();
            return Err(format!(
                "the threshold must be 1 to {count}, the number of members"
            ));
        }
        self.groups.push(Group {
            name: name.to_owned(),
            threshold,
            members,
        });
        Ok(())
    }

    fn set_quorum(&mut self, name: &str) -> Result<(), String> {
        self.quorum = match name {
            "none" => None,
            name => Some(
                self.member(name)
                    .ok_or_else(|| format!("{} is not defined above", name.escape_default()))?,
            ),
        };
        Ok(())
    }

    fn member(&self, name: &str) -> Option<Member> {
        let witness = self.witnesses.iter().position(|known| known.name == name);
        let group = || self.groups.iter().position(|known| known.name == name);
        witness
            .map(Member::Witness)
            .or_else(|| group().map(Member::Group))
    }

    fn is_free(&self, name: &str) -> Result<(), String> {
        if name == "none" || self.member(name).is_some() {
            return Err(format!("the name {} is taken", name.escape_default()));
        }
        Ok(())
    }
}

fn room(count: usize) -> Result<(), String> {
    if count < MAX_OF_A_KIND {
        Ok(())
    } else {
        Err(format!("more than {MAX_OF_A_KIND} of a kind"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosign::Cosigner;
    use proptest::prelude::*;

    fn cosigner(n: u8) -> Cosigner {
        Cosigner::from_bytes(&format!("w{n}"), &[n; 32]).expect("valid")
    }

    fn policy(groups: &str) -> String {
        let witnesses: String = (1..=4)
            .map(|n| format!("witness W{n} {} http://w{n}.example\n", cosigner(n).key()))
            .collect();
        format!("# four\n\n{witnesses}{groups}")
    }

    #[test]
    fn groups_of_groups_count_as_they_say() {
        let text = policy(
            "group two 2 W1 W2 W3\n\tgroup both all two W4 # no comment here\n"
                .split(" #")
                .next()
                .expect("first"),
        ) + "\nquorum both\n";
        let policy = Policy::parse(&text).expect("valid");
        for (signed, enough) in [
            ([true, true, false, true], true),
            ([true, true, true, false], false),
            ([true, false, false, true], false),
        ] {
            assert_eq!(policy.enough(&signed), enough, "{signed:?}");
        }
        assert_eq!(
            policy.witnesses()[0].url.as_deref(),
            Some("http://w1.example")
        );
    }

    #[test]
    fn only_valid_cosignatures_of_the_policys_witnesses_count() {
        let policy = Policy::parse(&policy("group g 2 W1 W2 W3 W4\nquorum g\n")).expect("valid");
        let body = "h/log\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let one = cosigner(1).cosign(body, 7);
        let stranger = cosigner(9).cosign(body, 7);
        let wrong = cosigner(2).cosign(&body.replace('1', "2"), 7);
        let count = policy
            .check(&format!("{body}\n{one}{one}{stranger}{wrong}"))
            .expect("a note");
        assert!(!count.enough, "one witness twice is one witness");
        let two = cosigner(2).cosign(body, 8);
        let count = policy
            .check(&format!("{body}\n{one}{two}"))
            .expect("a note");
        assert!(count.enough);
        assert_eq!(count.found.iter().flatten().count(), 2);
    }

    #[test]
    fn what_would_count_twice_or_is_not_defined_is_refused_with_its_line() {
        let again = format!("witness X {}\nquorum X\n", cosigner(1).key());
        for (text, line) in [
            (policy("group g 5 W1 W2\nquorum g\n"), 7),
            (policy("group g 0 W1\nquorum g\n"), 7),
            (policy("group g any\nquorum g\n"), 7),
            (policy("group g 01 W1\nquorum g\n"), 7),
            (policy("group g all W1 W1\nquorum g\n"), 7),
            (policy("group g all W1\ngroup h all W1\nquorum g\n"), 8),
            (policy("group none any W1\nquorum none\n"), 7),
            (policy("group W1 any W1\nquorum W1\n"), 7),
            (policy("quorum W9\n"), 7),
            (policy(&again), 7),
            (policy("wtiness\n"), 7),
        ] {
            match Policy::parse(&text) {
                Err(PolicyError::Line { line: found, .. }) => assert_eq!(found, line, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(Policy::parse(&policy("")), Err(PolicyError::Quorum(0)));
        let twice = policy("quorum none\nquorum W1\n");
        assert_eq!(Policy::parse(&twice), Err(PolicyError::Quorum(2)));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_policy_reader_panic(
            text in any::<String>(), lines in "((group|quorum|witness|log|any|all|2|W1|none)[ \n\t]){0,40}",
        ) {
            let _ = Policy::parse(&text);
            let _ = Policy::parse(&policy(&lines));
        }
    }
}
