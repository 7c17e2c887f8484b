//! Names of users and groups, read from the system's account files once per start or reload.
//! The product's users are system users, so the files are the truth; directories (LDAP) are not asked by a root process.

use std::collections::BTreeMap;
use std::path::Path;

use crate::compartment::{Identities, Identity};
use crate::ipc::ResolvedRule;
use crate::policy::{Account, Policy, PolicyError};

/// Users and groups by name.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    users: BTreeMap<String, Identity>,
    groups: BTreeMap<String, u32>,
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
            if let [name, _, gid, ..] = fields.as_slice()
                && let Ok(gid) = gid.parse()
            {
                accounts.groups.entry((*name).to_owned()).or_insert(gid);
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

    /// Replaces the names in the rules by numbers.
    ///
    /// # Errors
    /// [`PolicyError::NoAccount`] for the first unknown name.
    pub fn resolve(&self, policy: &Policy, file: &str) -> Result<Vec<ResolvedRule>, PolicyError> {
        let missing = |kind, name: &str| PolicyError::NoAccount {
            file: file.to_owned(),
            kind,
            name: name.to_owned(),
        };
        let mut rules = Vec::new();
        for rule in &policy.rules {
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
                Some(Account::Name(name)) => Some(
                    self.groups
                        .get(name)
                        .copied()
                        .ok_or_else(|| missing("group", name))?,
                ),
            };
            rules.push(ResolvedRule {
                uid,
                gid,
                actions: rule.actions.clone(),
            });
        }
        Ok(rules)
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

    #[test]
    fn a_rule_for_an_unknown_user_is_refused_by_name() {
        let accounts = Accounts::parse(b"", b"");
        let error = accounts
            .resolve(&Policy::default(), "root-agent.yaml")
            .expect_err("no blockhost")
            .to_string();
        assert!(error.contains("`blockhost`"), "{error}");
    }

    #[test]
    fn the_first_line_of_a_name_wins_and_broken_lines_are_skipped() {
        let accounts =
            Accounts::parse(b"a:x:1:1:\nbroken\na:x:0:0:\n\xff:x:0:0:\nb:x:-1:0:\n", b"");
        assert_eq!(accounts.user("a"), Some(Identity { uid: 1, gid: 1 }));
        assert_eq!(accounts.user("b"), None);
    }
}
