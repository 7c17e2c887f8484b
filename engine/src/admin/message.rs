//! What an administrator sends, and what the host lets be asked: from decrypted bytes to a knock, or to a refusal with
//! its reason. Pure.

use blockhost_proto::value::{L4Proto, Port, SourceNet};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Seconds that a command's clock may be ahead of ours.
const MOST_AHEAD_S: i64 = 60;
/// Bytes of a nonce.
const MAX_NONCE: usize = 128;
/// Ports that one knock may open.
const MAX_PORTS: usize = 16;
/// The longest that any knock may last.
pub const LONGEST_S: u64 = 86_400;
/// How long one lasts that does not say.
const DEFAULT_S: u64 = 300;

/// `admin-commands.json`: the commands that this host knows, by the name that a message gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// By name.
    pub commands: BTreeMap<String, Definition>,
}

/// One command.
// No `deny_unknown_fields` beside `flatten`: serde cannot have both, so [`Commands::parse`] looks itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Definition {
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// What it does, and within which bounds.
    #[serde(flatten)]
    pub action: ActionKind,
}

/// What a command can do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "action", content = "params", rename_all = "kebab-case")]
pub enum ActionKind {
    /// Opens ports for a while.
    Knock(KnockBounds),
}

/// How far a knock may go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KnockBounds {
    /// The ports that may be opened.
    pub allowed_ports: BTreeSet<Port>,
    /// Seconds for a knock that does not say.
    #[serde(default = "default_s")]
    pub default_duration: u64,
    /// The most seconds that may be asked for.
    #[serde(default = "longest_s")]
    pub max_duration: u64,
    /// Transport protocol.
    #[serde(default = "tcp")]
    pub proto: L4Proto,
}

const fn tcp() -> L4Proto {
    L4Proto::Tcp
}

const fn default_s() -> u64 {
    DEFAULT_S
}

const fn longest_s() -> u64 {
    LONGEST_S
}

/// Why `admin-commands.json` is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CommandsError(String);

impl Commands {
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`CommandsError`], with the place in the text.
    pub fn parse(text: &[u8]) -> Result<Self, CommandsError> {
        let value = blockhost_proto::json::parse(text).map_err(|e| CommandsError(e.to_string()))?;
        let known = ["description", "action", "params"];
        let given = value.get("commands").and_then(Value::as_object);
        for (name, definition) in given.into_iter().flatten() {
            let keys = definition.as_object().into_iter().flat_map(|d| d.keys());
            if let Some(key) = keys.clone().find(|key| !known.contains(&key.as_str())) {
                return Err(CommandsError(format!(
                    "commands.{name}: unknown key {key:?}"
                )));
            }
        }
        let commands: Self =
            serde_json::from_value(value).map_err(|e| CommandsError(e.to_string()))?;
        for (name, definition) in &commands.commands {
            let ActionKind::Knock(bounds) = &definition.action;
            let wrong = if bounds.allowed_ports.is_empty() {
                "allowed_ports is empty"
            } else if !(1..=LONGEST_S).contains(&bounds.max_duration) {
                "max_duration must be 1 to 86400 seconds"
            } else if !(1..=bounds.max_duration).contains(&bounds.default_duration) {
                "default_duration must be at least 1 and at most max_duration"
            } else {
                continue;
            };
            return Err(CommandsError(format!("commands.{name}.params: {wrong}")));
        }
        Ok(commands)
    }
}

/// The decrypted message.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Which command.
    pub command: String,
    /// With which parameters.
    #[serde(default)]
    pub params: Value,
    /// Something that was never sent before: text or a whole number.
    #[serde(deserialize_with = "nonce")]
    pub nonce: String,
    /// When it was made, seconds since 1970.
    pub timestamp: i64,
}

fn nonce<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Text(String),
        Number(u64),
    }
    let text = match Given::deserialize(from)? {
        Given::Text(text) => text,
        Given::Number(number) => number.to_string(),
    };
    if (1..=MAX_NONCE).contains(&text.len()) {
        Ok(text)
    } else {
        Err(serde::de::Error::custom("a nonce has 1 to 128 bytes"))
    }
}

/// Ports to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knock {
    /// The command that it was asked by.
    pub command: String,
    /// Which ones.
    pub ports: BTreeSet<Port>,
    /// Transport protocol.
    pub proto: L4Proto,
    /// From where; from everywhere where it is missing.
    pub source: Option<SourceNet>,
    /// For how long.
    pub duration: Duration,
}

/// Why a command is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a message.
    #[error("it is not a command: {0}")]
    Malformed(String),
    /// Made too long ago.
    #[error("it is {age_s} s old, at most {most_s} s are taken (max_command_age)")]
    Old {
        /// How old.
        age_s: i64,
        /// The limit.
        most_s: u64,
    },
    /// Made in the future.
    #[error("its clock is {0} s ahead of this host's")]
    Ahead(i64),
    /// Seen before.
    #[error("its nonce was used before")]
    Replayed,
    /// Not in `admin-commands.json`.
    #[error("this host knows no such command")]
    Unknown,
    /// Parameters that are none, or too much.
    #[error("its parameters: {0}")]
    Params(String),
    /// Too many at a time.
    #[error("{0} knocks are open already")]
    TooMany(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KnockParams {
    ports: Vec<Port>,
    #[serde(default)]
    duration: Option<u64>,
    #[serde(default)]
    source: Option<SourceNet>,
}

impl Message {
    /// Reads the decrypted bytes.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = |e: String| Refusal::Malformed(e);
        let value = blockhost_proto::json::parse(bytes).map_err(|e| malformed(e.to_string()))?;
        serde_json::from_value(value).map_err(|e| malformed(e.to_string()))
    }

    /// Whether it is of now: `now` and the message's own time in seconds since 1970.
    ///
    /// # Errors
    /// [`Refusal::Old`], [`Refusal::Ahead`].
    pub fn check_age(&self, now: i64, most_s: u64) -> Result<(), Refusal> {
        let age_s = now.saturating_sub(self.timestamp);
        if age_s < -MOST_AHEAD_S {
            return Err(Refusal::Ahead(age_s.saturating_neg()));
        }
        if age_s > i64::try_from(most_s).unwrap_or(i64::MAX) {
            return Err(Refusal::Old { age_s, most_s });
        }
        Ok(())
    }

    /// What it asks for, within what this host allows.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Params`].
    pub fn knock(&self, commands: &Commands) -> Result<Knock, Refusal> {
        let definition = commands
            .commands
            .get(&self.command)
            .ok_or(Refusal::Unknown)?;
        let ActionKind::Knock(bounds) = &definition.action;
        let params: KnockParams = serde_json::from_value(self.params.clone())
            .map_err(|e| Refusal::Params(e.to_string()))?;
        let ports: BTreeSet<Port> = params.ports.into_iter().collect();
        if ports.is_empty() || ports.len() > MAX_PORTS {
            return Err(Refusal::Params(format!(
                "1 to {MAX_PORTS} ports can be opened"
            )));
        }
        if let Some(port) = ports
            .iter()
            .find(|port| !bounds.allowed_ports.contains(port))
        {
            return Err(Refusal::Params(format!(
                "port {port} is not in allowed_ports"
            )));
        }
        let seconds = params.duration.unwrap_or(bounds.default_duration);
        if !(1..=bounds.max_duration).contains(&seconds) {
            return Err(Refusal::Params(format!(
                "a duration has 1 to {} seconds",
                bounds.max_duration
            )));
        }
        Ok(Knock {
            command: self.command.clone(),
            ports,
            proto: bounds.proto,
            source: params.source,
            duration: Duration::from_secs(seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn commands() -> Commands {
        Commands::parse(
            br#"{"commands": {"let-me-in": {"action": "knock", "description": "ssh",
                "params": {"allowed_ports": [22, 443], "default_duration": 60, "max_duration": 600}}}}"#,
        )
        .unwrap()
    }

    fn message(params: Value) -> Message {
        let text =
            json!({"command": "let-me-in", "params": params, "nonce": "n1", "timestamp": 1000});
        Message::parse(text.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_knock_within_the_bounds_is_what_was_asked_for() {
        let knock = message(json!({"ports": [443, 22, 22], "source": "192.0.2.0/24"}))
            .knock(&commands())
            .unwrap();
        assert_eq!(knock.ports.len(), 2);
        assert_eq!(knock.duration, Duration::from_secs(60));
        assert_eq!(knock.source.unwrap().to_string(), "192.0.2.0/24");
    }

    #[test]
    fn whatever_is_outside_of_the_bounds_is_refused() {
        for params in [
            json!({}),
            json!(null),
            json!([22]),
            json!({"ports": []}),
            json!({"ports": [23]}),
            json!({"ports": [22, 23]}),
            json!({"ports": ["22"]}),
            json!({"ports": [0]}),
            json!({"ports": [22], "duration": 0}),
            json!({"ports": [22], "duration": 601}),
            json!({"ports": [22], "duration": -1}),
            json!({"ports": [22], "source": "0.0.0.0/0 -j ACCEPT"}),
            json!({"ports": [22], "source": "example.org"}),
            json!({"ports": [22], "comment": "x"}),
            json!({"ports": (1..=17).collect::<Vec<_>>()}),
        ] {
            let refused = message(params.clone()).knock(&commands());
            assert!(
                matches!(refused, Err(Refusal::Params(_))),
                "{params}: {refused:?}"
            );
        }
        let mut other = message(json!({"ports": [22]}));
        other.command = "Let-me-in".into();
        assert_eq!(other.knock(&commands()), Err(Refusal::Unknown));
    }

    #[test]
    fn only_what_was_made_just_now_is_taken() {
        let message = message(json!({"ports": [22]}));
        for (now, good) in [
            (1000, true),
            (1300, true),
            (1301, false),
            (940, true),
            (939, false),
            (i64::MAX, false),
            (i64::MIN, false),
        ] {
            assert_eq!(message.check_age(now, 300).is_ok(), good, "{now}");
        }
    }

    #[test]
    fn what_is_not_exactly_a_message_is_none() {
        for text in [
            "",
            "null",
            "[]",
            r#"{"command": "x", "nonce": "n", "timestamp": 1, "more": 1}"#,
            r#"{"command": "x", "nonce": "n"}"#,
            r#"{"command": "x", "nonce": "", "timestamp": 1}"#,
            r#"{"command": "x", "nonce": "n", "timestamp": 1.5}"#,
            r#"{"command": "x", "nonce": ["n"], "timestamp": 1}"#,
            r#"{"command": "x", "command": "y", "nonce": "n", "timestamp": 1}"#,
            &format!(
                r#"{{"command": "x", "nonce": "{}", "timestamp": 1}}"#,
                "n".repeat(129)
            ),
        ] {
            assert!(
                matches!(Message::parse(text.as_bytes()), Err(Refusal::Malformed(_))),
                "{text}"
            );
        }
        let number = Message::parse(br#"{"command": "x", "nonce": 7, "timestamp": 1}"#).unwrap();
        assert_eq!(number.nonce, "7");
    }

    #[test]
    fn a_file_of_commands_that_could_do_more_than_it_says_is_refused() {
        for text in [
            r#"{"commands": {"a": {"action": "shell", "params": {}}}}"#,
            r#"{"commands": {"a": {"action": "knock", "params": {"allowed_ports": []}}}}"#,
            r#"{"commands": {"a": {"action": "knock", "params": {"allowed_ports": [22], "max_duration": 86401}}}}"#,
            r#"{"commands": {"a": {"action": "knock", "params": {"allowed_ports": [22], "max_duration": 10}}}}"#,
            r#"{"commands": {"a": {"action": "knock", "params": {"allowed_ports": [22], "allowed": 1}}}}"#,
            r#"{"commands": {"a": {"action": "knock"}}}"#,
            r#"{"commands": {"a": {"action": "knock", "params": {"allowed_ports": [22]}, "more": 1}}}"#,
            r#"{"command": {}}"#,
        ] {
            assert!(Commands::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
