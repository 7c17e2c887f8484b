//! The policy file `/etc/blockhost/root-agent.yaml`: who may ask for what, and the allowlists validation uses.
//! Pure data and pure decisions; reading the file and resolving names to numbers is the supervisor's work.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::allow::Allowlists;
use crate::compartment::Identity;

/// Why a policy is not usable.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The text is not the YAML we expect; the message carries line, column and key.
    #[error("{file}: {detail}")]
    Syntax {
        /// The file as the operator knows it.
        file: String,
        /// The parser's sentence, with line and column.
        detail: String,
    },
    /// A value is well-formed but makes no sense.
    #[error("{file}: {key}: {detail}")]
    Value {
        /// The file as the operator knows it.
        file: String,
        /// Dotted key.
        key: String,
        /// What is wrong and what would be right.
        detail: String,
    },
    /// A rule names an account that does not exist.
    #[error(
        "{file}: rules: there is no {kind} `{name}` on this host; create it or remove the rule"
    )]
    NoAccount {
        /// The file as the operator knows it.
        file: String,
        /// `user` or `group`.
        kind: &'static str,
        /// The name in the rule.
        name: String,
    },
}

/// The whole policy. Every key is optional; a missing file is `Policy::default()`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Who may ask for what. First match does not matter: any rule that matches allows.
    pub rules: Vec<Rule>,
    /// Which hypervisor backend to use.
    pub backend: BackendChoice,
    /// Whether a kernel without Landlock stops the start.
    pub landlock: LandlockChoice,
    /// Values that clients may name.
    pub allow: Allowlists,
    /// Limits of the socket.
    pub limits: Limits,
    /// Seconds per action name, replacing the catalog's time limit.
    pub time_limits: BTreeMap<String, u64>,
    /// Programs to use instead of the ones found in the system directories.
    pub programs: Programs,
    /// Numeric users to use instead of looking up the product's own.
    pub identities: IdentityOverrides,
}

impl Default for Policy {
    fn default() -> Self {
        let everything = vec!["*".to_owned()];
        Self {
            rules: vec![
                Rule {
                    user: Some(Account::Id(0)),
                    group: None,
                    actions: everything.clone(),
                },
                Rule {
                    user: Some(Account::Name("blockhost".to_owned())),
                    group: None,
                    actions: everything,
                },
            ],
            backend: BackendChoice::Auto,
            landlock: LandlockChoice::Required,
            allow: Allowlists::default(),
            limits: Limits::default(),
            time_limits: BTreeMap::new(),
            programs: Programs::default(),
            identities: IdentityOverrides::default(),
        }
    }
}

/// One rule: a user or a group, and what it may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// User name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Account>,
    /// Group name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Account>,
    /// Action names, families (`qm-*`) or `*`.
    pub actions: Vec<String>,
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

/// `backend:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// Proxmox where its `qm` is installed, else the embedded one.
    Auto,
    /// Proxmox VE.
    Proxmox,
    /// `blockhost-qm`.
    Embedded,
}

/// `landlock:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LandlockChoice {
    /// Refuse to start without it.
    Required,
    /// Start without it, and say so.
    Optional,
}

/// Limits of the socket; the defaults are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest request frame, bytes.
    pub request_bytes: u32,
    /// Longest response frame, bytes.
    pub response_bytes: u32,
    /// Seconds for a started frame to arrive whole.
    pub frame_s: u64,
    /// Seconds a connection may be idle.
    pub idle_s: u64,
    /// Seconds a peer may leave an answer unread.
    pub write_stall_s: u64,
    /// Connections per uid.
    pub connections_per_uid: usize,
    /// Connections in all.
    pub connections: usize,
    /// Requests in flight per connection.
    pub in_flight: usize,
    /// Seconds that running actions get to finish after SIGTERM.
    pub drain_s: u64,
    /// Refusals recorded in the ledger per minute and uid; the rest is counted.
    pub refusals_per_minute: u32,
    /// `ledger-append` requests accepted per minute and uid.
    pub appends_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 1 << 20,
            response_bytes: 1 << 20,
            frame_s: 10,
            idle_s: 300,
            write_stall_s: 30,
            connections_per_uid: 64,
            connections: 256,
            in_flight: 32,
            drain_s: 30,
            refusals_per_minute: 30,
            appends_per_minute: 6000,
        }
    }
}

impl Limits {
    /// Time for a started frame to arrive whole.
    pub fn frame_time(&self) -> Duration {
        Duration::from_secs(self.frame_s)
    }

    /// Time a connection may be idle.
    pub fn idle_time(&self) -> Duration {
        Duration::from_secs(self.idle_s)
    }
}

/// Programs to use instead of the ones found in the system directories.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Programs {
    /// `qm` of the chosen backend; absolute, in root-owned directories.
    pub qm: Option<PathBuf>,
    /// `pct` of the chosen backend, likewise.
    pub pct: Option<PathBuf>,
    /// The xtables multi-call binary; absolute, in root-owned directories.
    pub xtables: Option<PathBuf>,
}

/// Numeric users, for hosts without the system users (and for tests).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityOverrides {
    /// Instead of `blockhost-agent`.
    pub agent: Option<Identity>,
    /// Instead of `blockhost`.
    pub blockhost: Option<Identity>,
    /// Instead of `blockhost-vm`.
    pub vm: Option<Identity>,
    /// Instead of `blockhost-image`.
    pub image: Option<Identity>,
}

/// Longest policy file, bytes: it has to fit into one message to each child.
pub const MAX_POLICY_BYTES: usize = 64 << 10;

impl Policy {
    /// Reads the text of a policy file; `file` names it in errors. An empty text is the default policy.
    ///
    /// # Errors
    /// [`PolicyError`] with line and key.
    pub fn parse(text: &str, file: &str) -> Result<Self, PolicyError> {
        let syntax = |detail: String| PolicyError::Syntax {
            file: file.to_owned(),
            detail,
        };
        if text.len() > MAX_POLICY_BYTES {
            return Err(syntax(format!(
                "{} bytes long, at most {MAX_POLICY_BYTES} are read",
                text.len()
            )));
        }
        let only_comments = text.lines().all(|line| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#') || line == "---"
        });
        if only_comments {
            return Ok(Self::default());
        }
        let policy: Self =
            serde_saphyr::from_str(text).map_err(|e| syntax(e.to_string().replace('\n', " ")))?;
        policy.check(file)?;
        Ok(policy)
    }

    /// What the types cannot say.
    fn check(&self, file: &str) -> Result<(), PolicyError> {
        let wrong = |key: &str, detail: String| {
            Err(PolicyError::Value {
                file: file.to_owned(),
                key: key.to_owned(),
                detail,
            })
        };
        for rule in &self.rules {
            if rule.user.is_some() == rule.group.is_some() {
                return wrong(
                    "rules",
                    "each rule names either a user or a group".to_owned(),
                );
            }
            for pattern in &rule.actions {
                if !matches_some_action(pattern) {
                    let detail = format!(
                        "`{}` names no action of the catalog",
                        pattern.escape_default()
                    );
                    return wrong("rules", detail);
                }
            }
        }
        for (name, seconds) in &self.time_limits {
            if blockhost_proto::catalog::find(name).is_none() {
                return wrong(
                    "time_limits",
                    format!("`{}` is no action of the catalog", name.escape_default()),
                );
            }
            if !(1..=86_400).contains(seconds) {
                return wrong(
                    "time_limits",
                    format!("{name}: {seconds} s; between 1 and 86400"),
                );
            }
        }
        let limits = &self.limits;
        let in_range = |key: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                wrong(key, format!("{value}; between {low} and {high}"))
            }
        };
        in_range(
            "limits.request_bytes",
            limits.request_bytes.into(),
            1024,
            4 << 20,
        )?;
        in_range(
            "limits.response_bytes",
            limits.response_bytes.into(),
            1024,
            4 << 20,
        )?;
        in_range("limits.frame_s", limits.frame_s, 1, 3600)?;
        in_range("limits.idle_s", limits.idle_s, 1, 86_400)?;
        in_range("limits.write_stall_s", limits.write_stall_s, 1, 3600)?;
        in_range("limits.connections", limits.connections as u64, 1, 480)?;
        in_range(
            "limits.connections_per_uid",
            limits.connections_per_uid as u64,
            1,
            480,
        )?;
        in_range("limits.in_flight", limits.in_flight as u64, 1, 1024)?;
        in_range("limits.drain_s", limits.drain_s, 0, 3600)?;
        for range in self.allow.vmids.ranges() {
            if range.first < 100 || range.last > 999_999 || range.first > range.last {
                return wrong(
                    "allow.vmids",
                    format!("{}-{}; inside 100-999999", range.first, range.last),
                );
            }
        }
        let absolute = |key: &str, path: &std::path::Path| {
            let plain = path
                .components()
                .all(|part| !matches!(part, std::path::Component::ParentDir));
            if path.is_absolute() && plain {
                Ok(())
            } else {
                wrong(
                    key,
                    format!("`{}` is not an absolute path without `..`", path.display()),
                )
            }
        };
        self.allow
            .image_dirs
            .iter()
            .try_for_each(|path| absolute("allow.image_dirs", path))?;
        self.allow
            .template_dirs
            .iter()
            .try_for_each(|path| absolute("allow.template_dirs", path))?;
        self.programs
            .qm
            .iter()
            .try_for_each(|path| absolute("programs.qm", path))?;
        self.programs
            .pct
            .iter()
            .try_for_each(|path| absolute("programs.pct", path))?;
        self.programs
            .xtables
            .iter()
            .try_for_each(|path| absolute("programs.xtables", path))
    }
}

/// Whether a rule's pattern covers an action: `*`, a family `qm-*`, or the name itself.
pub fn covers(pattern: &str, action: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(prefix) => prefix.ends_with('-') && action.starts_with(prefix),
        None => pattern == action,
    }
}

fn matches_some_action(pattern: &str) -> bool {
    blockhost_proto::catalog::CATALOG
        .iter()
        .any(|spec| covers(pattern, spec.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_its_name_and_line() {
        let error = Policy::parse("backend: embedded\nbridgez: [vmbr0]\n", "root-agent.yaml")
            .expect_err("unknown key");
        let text = error.to_string();
        assert!(text.contains("bridgez") && text.contains('2'), "{text}");
    }

    #[test]
    fn an_unknown_key_inside_the_allowlists_is_refused() {
        let error = Policy::parse("allow:\n  bridgez: [vmbr0]\n", "p")
            .expect_err("unknown key")
            .to_string();
        assert!(error.contains("bridgez"), "{error}");
    }

    #[test]
    fn duplicate_keys_are_refused() {
        assert!(Policy::parse("backend: auto\nbackend: embedded\n", "p").is_err());
    }

    #[test]
    fn a_rule_for_an_action_that_does_not_exist_is_refused() {
        let text = "rules:\n  - user: root\n    actions: [\"rm-rf\"]\n";
        assert!(
            Policy::parse(text, "p")
                .expect_err("no such action")
                .to_string()
                .contains("rm-rf")
        );
    }

    #[test]
    fn a_rule_without_or_with_two_subjects_is_refused() {
        assert!(Policy::parse("rules: [{actions: [\"*\"]}]\n", "p").is_err());
        assert!(
            Policy::parse(
                "rules: [{user: root, group: root, actions: [\"*\"]}]\n",
                "p"
            )
            .is_err()
        );
    }

    #[test]
    fn values_out_of_range_are_refused_with_their_key() {
        for (text, key) in [
            ("limits: {in_flight: 0}\n", "limits.in_flight"),
            ("limits: {request_bytes: 10}\n", "limits.request_bytes"),
            ("allow: {vmids: {first: 1, last: 5}}\n", "allow.vmids"),
            ("allow: {image_dirs: [images]}\n", "allow.image_dirs"),
            ("allow: {template_dirs: [cache]}\n", "allow.template_dirs"),
            ("programs: {pct: pct}\n", "programs.pct"),
            ("allow: {image_dirs: [/var/../etc]}\n", "allow.image_dirs"),
            ("time_limits: {qm-start: 0}\n", "time_limits"),
            ("time_limits: {qm-begin: 10}\n", "time_limits"),
        ] {
            let error = Policy::parse(text, "p").expect_err(text).to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn an_empty_file_is_the_default_policy() {
        for text in ["", "# nothing\n", "---\n"] {
            assert_eq!(
                Policy::parse(text, "p").expect("default"),
                Policy::default()
            );
        }
    }

    #[test]
    fn a_policy_survives_the_way_to_a_child() {
        let policy = Policy::parse(
            "rules: [{group: blockhost, actions: [\"qm-*\"]}]\nallow: {firewall_ports: [\"22\"]}\n",
            "p",
        )
        .expect("valid");
        let text = serde_json::to_string(&policy).expect("serialises");
        assert_eq!(
            serde_json::from_str::<Policy>(&text).expect("reads back"),
            policy
        );
    }

    #[test]
    fn a_family_pattern_covers_its_family_only() {
        assert!(
            covers("*", "agent-info")
                && covers("qm-*", "qm-start")
                && covers("qm-start", "qm-start")
        );
        assert!(
            !covers("qm-*", "ip6-route-add")
                && !covers("qm-start", "qm-stop")
                && !covers("q*", "qm-start")
        );
    }
}
