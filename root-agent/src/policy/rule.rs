//! One rule of the policy file: who it is for, what it lets them ask for, what they may name, how often.

use serde::{Deserialize, Deserializer, Serialize};

use super::rates::OwnRates;
use super::sockets::SocketName;
use crate::allow::Only;

/// Who may ask for what. Everything that is given about the caller must be so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// User name or number.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub user: Option<Account>,
    /// Group name or number, primary or supplementary.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub group: Option<Account>,
    /// Socket the caller has to come by.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub socket: Option<SocketName>,
    /// Action names, families (`qm-*`) or `*`.
    pub actions: Vec<String>,
    /// What may be named under this rule, where that is less than `allow:`.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub only: Option<Only>,
    /// How often one user may ask under this rule, where that is not `rates:`.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub rates: Option<OwnRates>,
}

/// A user or group in a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Account {
    /// A number.
    Id(u32),
    /// A name of the system's account files.
    Name(String),
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => write!(f, "{}", name.escape_default()),
        }
    }
}

impl Rule {
    /// The whole catalog for one user, but for what has to be named.
    pub fn everything_for(user: Account) -> Self {
        Self {
            user: Some(user),
            group: None,
            socket: None,
            actions: vec!["*".to_owned()],
            only: None,
            rates: None,
        }
    }

    /// The same and what has to be named.
    pub fn truly_everything_for(user: Account) -> Self {
        let mut rule = Self::everything_for(user);
        let named = BY_NAME_ONLY.iter().map(|name| (*name).to_owned());
        rule.actions.extend(named);
        rule
    }

    /// Whether one of its patterns covers the action.
    pub fn covers(&self, action: &str) -> bool {
        self.actions.iter().any(|pattern| covers(pattern, action))
    }

    /// The caller it is for, in words.
    pub fn subject(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.user.as_ref().map(|user| format!("user {user}")));
        parts.extend(self.group.as_ref().map(|group| format!("group {group}")));
        parts.extend(self.socket.as_ref().map(|name| format!("socket {name}")));
        parts.join(", ")
    }
}

/// Actions that no pattern covers: they take something out of the evidence, or a key out of use, for good, and whoever
/// wrote `*` for a service meant its daily work.
pub const BY_NAME_ONLY: &[&str] = &["ledger-shred", "ledger-prune", "ledger-rotate-key"];

/// Whether a rule's pattern covers an action: `*`, a family `qm-*`, or the name itself.
pub fn covers(pattern: &str, action: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(_) if BY_NAME_ONLY.contains(&action) => false,
        Some("") => true,
        Some(prefix) => prefix.ends_with('-') && action.starts_with(prefix),
        None => pattern == action,
    }
}

/// Whether the pattern covers anything at all.
pub fn matches_some_action(pattern: &str) -> bool {
    blockhost_proto::catalog::CATALOG
        .iter()
        .any(|spec| covers(pattern, spec.name))
}

/// `user:` with nothing behind it is a mistake: taken for a missing key it would make the rule one for everybody.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de> + 'static>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    use serde::de::Error;
    Option::<T>::deserialize(deserializer)?
        .map(Some)
        .ok_or_else(|| D::Error::custom("nothing is given; write a value or leave the key out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_who_it_is_for() {
        let subject = |text: &str| {
            let text = format!("{{{text}, actions: [qm-start]}}");
            serde_saphyr::from_str::<Rule>(&text)
                .expect("a rule")
                .subject()
        };
        assert_eq!(subject("user: 7"), "user 7");
        assert_eq!(subject("user: alice"), "user alice");
        assert_eq!(
            subject("group: adm, socket: lane"),
            "group adm, socket lane"
        );
        assert_eq!(subject(r#"user: "a\nb""#), r"user a\nb");
    }
}
