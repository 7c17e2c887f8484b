//! The policy file `/etc/blockhost/root-agent.yaml`: who may ask for what, how often, and what may be named.
//! Pure data and pure decisions; reading the file and resolving names to numbers is the supervisor's work.
//! The data stand here and in [`rule`], [`limits`], [`rates`] and [`sockets`]; [`check`] refuses what the types cannot,
//! [`authority`] decides, [`review`] says what an operator may not have meant.

pub mod authority;
mod check;
pub mod limits;
pub mod rates;
pub mod review;
pub mod rule;
pub mod sockets;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::limits::Limits;
use self::rates::Rates;
pub use self::rule::{Account, Rule};
use self::sockets::{SocketName, SocketSpec};
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
    /// An account that does not exist.
    #[error("{file}: {key}: there is no {kind} `{name}` on this host; create it or take it out")]
    NoAccount {
        /// The file as the operator knows it.
        file: String,
        /// Where it is named.
        key: String,
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
    /// How often one user may ask, where the rule does not say.
    pub rates: Rates,
    /// Sockets beside the agent's own that rules can name.
    pub sockets: BTreeMap<SocketName, SocketSpec>,
    /// Which hypervisor backend to use.
    pub backend: BackendChoice,
    /// Whether a kernel without Landlock stops the start.
    pub landlock: LandlockChoice,
    /// Who carries tunnels.
    pub wireguard: WireguardChoice,
    /// Values that clients may name.
    pub allow: Allowlists,
    /// Limits of the socket.
    pub limits: Limits,
    /// Seconds per action name, replacing the catalog's time limit.
    pub time_limits: BTreeMap<String, u64>,
    /// Programs to use instead of the ones found in the system directories.
    pub programs: Programs,
    /// Customising disk images.
    pub images: Images,
    /// Containers of other managers.
    pub containers: Containers,
    /// Numeric users to use instead of looking up the product's own.
    pub identities: IdentityOverrides,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            rules: vec![
                Rule::truly_everything_for(Account::Id(0)),
                Rule::everything_for(Account::Name("blockhost".to_owned())),
            ],
            rates: Rates::default(),
            sockets: BTreeMap::new(),
            backend: BackendChoice::Auto,
            landlock: LandlockChoice::Required,
            wireguard: WireguardChoice::Kernel,
            allow: Allowlists::default(),
            limits: Limits::default(),
            time_limits: BTreeMap::new(),
            programs: Programs::default(),
            images: Images::default(),
            containers: Containers::default(),
            identities: IdentityOverrides::default(),
        }
    }
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

/// `wireguard:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WireguardChoice {
    /// The kernel.
    Kernel,
    /// A daemon per tunnel, started by the operator, spoken to by its control socket. The net process may then open unix
    /// sockets, which it otherwise may not.
    Userspace,
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

/// `images:`. Takes effect when the agent is restarted: what a process may reach is settled at its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// Whether `virt-customize` may fetch packages while it does an `install`. Everything else that runs in the image at
    /// that time can then reach the host's own services on the ports 80 and 443, and any UDP port, too.
    pub network: bool,
}

/// `containers:`. Takes effect when the agent is restarted: what a process may hold is settled at its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Containers {
    /// Whether wires may be laid into containers that Docker, Podman or the like runs. One process of the agent may enter
    /// network namespaces then, and the service needs the drop-in `containers.conf`.
    pub attach: bool,
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

/// Longest policy file, bytes. What it comes to when it is spelled out is judged by the supervisor.
pub const MAX_POLICY_BYTES: usize = 64 << 10;

impl Policy {
    /// What the ledger calls this policy by: SHA-256 of it with all defaults, hex.
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        blockhost_proto::escape::hex(&blockhost_ledger::merkle::sha256(&text))
    }

    /// This policy as far as it takes effect in an agent that was started with that one: what a process may reach is settled at
    /// the start of all of them, also for one that is started anew in between.
    #[must_use]
    pub fn without_restart(&self, started: &Self) -> Self {
        Self {
            rules: self.rules.clone(),
            rates: self.rates,
            sockets: self.sockets.clone(),
            backend: started.backend,
            landlock: started.landlock,
            wireguard: started.wireguard,
            allow: self.allow.clone(),
            limits: self.limits,
            time_limits: self.time_limits.clone(),
            programs: started.programs.clone(),
            images: started.images,
            containers: started.containers,
            identities: started.identities,
        }
    }

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
            (
                "rules: [{user: 0, actions: ['*'], only: {image_dirs: [images]}}]\n",
                "only.image_dirs",
            ),
            ("allow: {image_dirs: [/var/../etc]}\n", "allow.image_dirs"),
            ("allow: {vmids: {first: 99, last: 100}}\n", "allow.vmids"),
            (
                "allow: {clone_from: {first: 99, last: 100}}\n",
                "allow.clone_from",
            ),
            (
                "rules: [{user: 0, actions: ['*'], only: {clone_from: []}}]\n",
                "what `vmids` says",
            ),
            (
                "allow: {vmids: {first: 100, last: 1000000}}\n",
                "allow.vmids",
            ),
            (
                "allow: {vmids: {first: 101, last: 100}}\n",
                "allow.vmids: 101-100",
            ),
            (
                "rules: [{user: 0, actions: ['*'], only: {route_prefixes: []}}]\n",
                "any address",
            ),
            ("time_limits: {qm-start: 86401}\n", "time_limits"),
            ("time_limits: {qm-start: 0}\n", "time_limits"),
            ("time_limits: {qm-begin: 10}\n", "time_limits"),
        ] {
            let error = Policy::parse(text, "p").expect_err(text).to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn the_last_values_in_range_are_taken() {
        for text in [
            "allow: {vmids: {first: 100, last: 999999}}\n",
            "allow: {vmids: {first: 100, last: 100}}\n",
            "allow: {vmids: [{first: 999999, last: 999999}]}\n",
            "time_limits: {qm-start: 1, qm-stop: 86400}\n",
        ] {
            Policy::parse(text, "p").expect(text);
        }
    }

    #[test]
    fn there_are_sixteen_sockets_at_most() {
        let sockets = |count: usize| {
            let list: Vec<String> = (0..count).map(|i| format!("s{i}: {{group: 7}}")).collect();
            Policy::parse(&format!("sockets: {{{}}}\n", list.join(", ")), "p")
        };
        assert_eq!(sockets(16).expect("sixteen").sockets.len(), 16);
        let error = sockets(17).expect_err("one more").to_string();
        assert!(error.contains("more than 16"), "{error}");
    }

    #[test]
    fn a_policy_file_has_at_most_64_kibibytes() {
        let comment = |bytes: usize| format!("#{}", "x".repeat(bytes - 1));
        let longest = Policy::parse(&comment(65_536), "p").expect("the longest");
        assert_eq!(longest, Policy::default());
        let error = Policy::parse(&comment(65_537), "p").expect_err("one more");
        assert!(error.to_string().contains("65537 bytes long"), "{error}");
        // A longer one is not read either, whatever is in it.
        assert!(Policy::parse(&comment(80_000), "p").is_err());
    }

    #[test]
    fn what_the_ledger_calls_a_policy_by_is_that_of_its_contents() {
        let digest = |text: &str| Policy::parse(text, "p").expect("valid").digest();
        assert_eq!(digest("").len(), 64);
        assert_eq!(digest(""), digest("# nothing\n"));
        assert_ne!(digest(""), digest("limits: {in_flight: 7}\n"));
    }

    #[test]
    fn what_changes_at_a_restart_only_stays_and_everything_else_is_taken() {
        let fixed = "backend: embedded\nlandlock: optional\nwireguard: userspace\nprograms: {qm: /usr/bin/qm}\n\
                     images: {network: true}\ncontainers: {attach: true}\nidentities: {vm: {uid: 7, gid: 7}}\n";
        let free = "rules: []\nrates: {read: {per_minute: 7}}\nsockets: {a: {group: 7}}\nallow: {bridges: [b]}\n\
                    limits: {in_flight: 7}\ntime_limits: {qm-start: 7}\n";
        let read = |text: &str| Policy::parse(text, "p").expect("valid");
        let new = read(&format!("{fixed}{free}"));
        let started = Policy::default();
        assert_eq!(new.without_restart(&started), read(free));
        assert_eq!(started.without_restart(&new), read(fixed));
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
        use super::rule::covers;
        assert!(
            covers("*", "agent-info")
                && covers("qm-*", "qm-start")
                && covers("qm-start", "qm-start")
        );
        assert!(
            !covers("qm-*", "ip6-route-add")
                && !covers("qm-start", "qm-stop")
                && !covers("q*", "qm-start")
                && !covers("*", "ledger-prune")
                && !covers("ledger-*", "ledger-prune")
                && !covers("*", "ledger-shred")
                && !covers("ledger-*", "ledger-shred")
                && covers("ledger-shred", "ledger-shred")
        );
    }
}
