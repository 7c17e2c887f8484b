//! Names of users and groups, read from the system's account files once per start or reload.
//! The product's users are system users, so the files are the truth; directories (LDAP) are not asked by a root process.

use std::collections::BTreeMap;
use std::path::Path;

use crate::compartment::{Identities, Identity};
use crate::policy::authority::{ResolvedRule, rule_for_own_process};
use crate::policy::sockets::SocketName;
use crate::policy::{Account, Policy, PolicyError};

/// Users and groups by name.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    users: BTreeMap<String, Identity>,
    groups: BTreeMap<String, u32>,
    /// Groups by the names of the users that are listed as members.
    memberships: BTreeMap<String, Vec<u32>>,
}

/// A system user of the product does not exist.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// Missing user.
    #[error(
        "there is no system user `{name}`; run the setup script (`make setup`) or install the packages, which create it, \
         or set `identities.{key}` in the policy file"
    )]
    NoUser {
        /// The user.
        name: &'static str,
        /// The override's key.
        key: &'static str,
    },
    /// The account file cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Accounts {
    /// Reads `/etc/passwd` and `/etc/group`.
    ///
    /// # Errors
    /// [`AccountsError::Read`].
    pub fn read() -> Result<Self, AccountsError> {
        let read = |path: &str| {
            std::fs::read(Path::new(path)).map_err(|source| AccountsError::Read {
                file: path.to_owned(),
                source,
            })
        };
        Ok(Self::parse(&read("/etc/passwd")?, &read("/etc/group")?))
    }

    /// Takes the two files' bytes; lines that are not what they should be are left out.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        let mut accounts = Self::default();
        for fields in lines(passwd) {
            if let [name, _, uid, gid, ..] = fields.as_slice()
                && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
            {
                accounts
                    .users
                    .entry((*name).to_owned())
                    .or_insert(Identity { uid, gid });
            }
        }
        for fields in lines(group) {
            if let [name, _, gid, members @ ..] = fields.as_slice()
                && let Ok(gid) = gid.parse()
            {
                accounts.groups.entry((*name).to_owned()).or_insert(gid);
                let members = members.first().into_iter().flat_map(|list| list.split(','));
                for member in members.filter(|member| !member.is_empty()) {
                    let groups = accounts.memberships.entry(member.to_owned()).or_default();
                    groups.push(gid);
                }
            }
        }
        accounts
    }

    /// A user by name.
    pub fn user(&self, name: &str) -> Option<Identity> {
        self.users.get(name).copied()
    }

    /// The product's users, with the policy's overrides.
    ///
    /// # Errors
    /// [`AccountsError::NoUser`] for the first that is missing.
    pub fn identities(&self, policy: &Policy) -> Result<Identities, AccountsError> {
        let find = |name: &'static str, key: &'static str, given: Option<Identity>| {
            given
                .or_else(|| self.user(name))
                .ok_or(AccountsError::NoUser { name, key })
        };
        Ok(Identities {
            agent: find("blockhost-agent", "agent", policy.identities.agent)?,
            blockhost: find("blockhost", "blockhost", policy.identities.blockhost)?,
            vm: find("blockhost-vm", "vm", policy.identities.vm)?,
            image: find("blockhost-image", "image", policy.identities.image)?,
        })
    }

    /// A group by name.
    pub fn group(&self, name: &str) -> Option<u32> {
        self.groups.get(name).copied()
    }

    /// Groups that list the user as a member.
    pub fn groups_of(&self, user: &str) -> &[u32] {
        self.memberships.get(user).map_or(&[], Vec::as_slice)
    }

    /// Names of users with that number.
    pub fn name_of(&self, uid: u32) -> Option<&str> {
        self.users
            .iter()
            .find(|(_, identity)| identity.uid == uid)
            .map(|(name, _)| name.as_str())
    }

    /// Replaces the names in the rules by numbers. `passed` are the sockets that systemd brought.
    ///
    /// # Errors
    /// [`PolicyError`] for the first unknown name, and for a rule that is for a process of the agent itself.
    pub fn resolve(
        &self,
        policy: &Policy,
        identities: &Identities,
        passed: &[SocketName],
        file: &str,
    ) -> Result<Vec<ResolvedRule>, PolicyError> {
        let mut rules = Vec::new();
        for (number, rule) in (1..).zip(&policy.rules) {
            let key = format!("rules: rule {number}");
            let missing = |kind, name: &str| PolicyError::NoAccount {
                file: file.to_owned(),
                key: key.clone(),
                kind,
                name: name.to_owned(),
            };
            let wrong = |detail: String| PolicyError::Value {
                file: file.to_owned(),
                key: key.clone(),
                detail,
            };
            let uid = match &rule.user {
                None => None,
                Some(Account::Id(uid)) => Some(*uid),
                Some(Account::Name(name)) => {
                    Some(match (name.as_str(), policy.identities.blockhost) {
                        ("blockhost", Some(identity)) => identity.uid,
                        _ => self.user(name).ok_or_else(|| missing("user", name))?.uid,
                    })
                }
            };
            let gid = match &rule.group {
                None => None,
                Some(Account::Id(gid)) => Some(*gid),
                Some(Account::Name(name)) => {
                    Some(self.group(name).ok_or_else(|| missing("group", name))?)
                }
            };
            if let Some(own) = rule_for_own_process(identities, uid, gid) {
                return Err(wrong(format!(
                    "is for {own}, which the agent's own confined processes run as; whatever connects from there was \
                     taken over and is refused. Take the rule out, or give the service a user of its own"
                )));
            }
            if let Some(socket) = &rule.socket {
                let known = *socket == SocketName::main()
                    || policy.sockets.contains_key(socket)
                    || passed.contains(socket);
                if !known {
                    return Err(wrong(format!(
                        "there is no socket `{socket}`; add it to `sockets`, or let systemd pass it with \
                         `FileDescriptorName={socket}`"
                    )));
                }
            }
            rules.push(ResolvedRule {
                uid,
                gid,
                socket: rule.socket.clone(),
                actions: rule.actions.clone(),
                only: rule.only.clone(),
                rates: rule.rates,
            });
        }
        Ok(rules)
    }

    /// The group of each socket that the policy asks for.
    ///
    /// # Errors
    /// [`PolicyError::NoAccount`] for the first unknown group.
    pub fn socket_groups(
        &self,
        policy: &Policy,
        file: &str,
    ) -> Result<BTreeMap<SocketName, u32>, PolicyError> {
        let group = |(name, spec): (&SocketName, &crate::policy::sockets::SocketSpec)| {
            let gid = match &spec.group {
                Account::Id(gid) => *gid,
                Account::Name(group) => {
                    self.group(group).ok_or_else(|| PolicyError::NoAccount {
                        file: file.to_owned(),
                        key: format!("sockets.{name}"),
                        kind: "group",
                        name: group.clone(),
                    })?
                }
            };
            Ok((name.clone(), gid))
        };
        policy.sockets.iter().map(group).collect()
    }

    /// Names for ledger records: system users and every user with a rule.
    pub fn names(&self, rules: &[ResolvedRule]) -> Vec<(u32, String)> {
        let wanted = |uid: u32| uid < 1000 || rules.iter().any(|rule| rule.uid == Some(uid));
        self.users
            .iter()
            .filter(|(_, identity)| wanted(identity.uid))
            .map(|(name, identity)| (identity.uid, name.clone()))
            .collect()
    }
}

/// The colon-separated fields of each readable line.
fn lines(bytes: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    bytes
        .split(|&b| b == b'\n')
        .filter_map(|line| Some(std::str::from_utf8(line).ok()?.split(':').collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_system_user_is_named_with_the_step_that_creates_it() {
        let accounts = Accounts::parse(b"root:x:0:0::/root:/bin/sh\n", b"root:x:0:\n");
        let error = accounts
            .identities(&Policy::default())
            .expect_err("no users there")
            .to_string();
        assert!(
            error.contains("blockhost-agent") && error.contains("make setup"),
            "{error}"
        );
    }

    const IDENTITIES: Identities = {
        const fn identity(id: u32) -> Identity {
            Identity { uid: id, gid: id }
        }
        Identities {
            agent: identity(901),
            blockhost: identity(902),
            vm: identity(903),
            image: identity(904),
        }
    };

    fn refused(accounts: &Accounts, text: &str) -> String {
        let policy = Policy::parse(text, "p").expect("valid as such");
        let groups = accounts.socket_groups(&policy, "p").map(|_| ());
        accounts
            .resolve(&policy, &IDENTITIES, &[], "p")
            .map(|_| ())
            .and(groups)
            .expect_err(text)
            .to_string()
    }

    #[test]
    fn a_rule_for_an_unknown_user_group_or_socket_is_refused_by_name() {
        let accounts = Accounts::parse(b"", b"");
        for (text, named) in [
            ("", "`blockhost`"),
            ("rules: [{group: ghosts, actions: ['*']}]", "`ghosts`"),
            ("rules: [{socket: lane, actions: ['*']}]", "`lane`"),
            ("rules: []\nsockets: {lane: {group: ghosts}}", "`ghosts`"),
        ] {
            let error = refused(&accounts, text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn a_rule_for_a_process_of_the_agent_is_refused_with_the_reason() {
        let accounts = Accounts::parse(b"blockhost-vm:x:903:903::/:/bin/false\n", b"own:x:901:\n");
        for rule in [
            "user: 901",
            "user: blockhost-vm",
            "user: 904",
            "group: own",
            "group: 904",
            "{user: 901, socket: root-agent}",
        ] {
            let rule = rule.trim_matches(|c| c == '{' || c == '}');
            let error = refused(
                &accounts,
                &format!("rules: [{{user: 0, actions: ['*']}}, {{{rule}, actions: [agent-info]}}]"),
            );
            assert!(
                error.contains("rule 2") && error.contains("taken over"),
                "{rule}: {error}"
            );
        }
    }

    #[test]
    fn a_socket_that_systemd_passed_can_be_named() {
        let policy = Policy::parse("rules: [{socket: lane, actions: ['*']}]", "p").expect("valid");
        let passed = [SocketName::try_from("lane".to_owned()).expect("a name")];
        let rules = Accounts::default().resolve(&policy, &IDENTITIES, &passed, "p");
        assert_eq!(rules.expect("known")[0].socket, Some(passed[0].clone()));
    }

    #[test]
    fn members_of_a_group_are_found_by_user() {
        let accounts = Accounts::parse(b"", b"a:x:10:bob,eve\nb:x:11:eve\nc:x:12:\n");
        assert_eq!(accounts.groups_of("eve"), [10, 11]);
        assert_eq!(accounts.groups_of("bob"), [10]);
        assert!(accounts.groups_of("").is_empty());
    }

    #[test]
    fn the_first_line_of_a_name_wins_and_broken_lines_are_skipped() {
        let accounts =
            Accounts::parse(b"a:x:1:1:\nbroken\na:x:0:0:\n\xff:x:0:0:\nb:x:-1:0:\n", b"");
        assert_eq!(accounts.user("a"), Some(Identity { uid: 1, gid: 1 }));
        assert_eq!(accounts.user("b"), None);
    }
}
