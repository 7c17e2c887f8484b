//! What an apply leaves in the ledger: for each plugin one event with the actions, the hashes of what was and of what should
//! be, and the result, in the form of the plugins' own documents. What does not fit is replaced by its digest or counted,
//! never silently left out.

use std::time::Duration;

use blockhost_ledger::jcs;
use blockhost_ledger::plugin::{MAX_BYTES, Registry, redact};
use blockhost_proto::action::Action;
use blockhost_proto::client::CallError;
use blockhost_proto::escape;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::change::Change;
use super::host::{Host, worth_waiting};
use super::report::{Fate, Outcome};

/// What an apply leaves.
pub const APPLIED: &str = "state-applied";
/// What a start of the machine leaves.
pub const RESTORED: &str = "state-restored";
/// Room for what the ledger's plugin adds.
const ROOM: usize = MAX_BYTES - 1024;
/// Configurations longer than this are the first to go.
const SHORT: usize = 512;
/// Of the eight levels of an event, data, list, action and body take four, what stands in the innermost one.
const CONFIG_DEPTH: usize = 3;

/// One plugin's part of an apply.
#[derive(Debug)]
pub struct Footprint<'a> {
    /// [`APPLIED`] or [`RESTORED`].
    pub event: &'static str,
    /// The plugin.
    pub plugin: &'static str,
    /// What was to be done.
    pub changes: Vec<&'a Change>,
    /// What became of it.
    pub outcomes: Vec<&'a Outcome>,
    /// Seconds since 1970.
    pub timestamp: i64,
    /// Of what was found.
    pub current_hash: String,
    /// Of what the document wanted.
    pub desired_hash: String,
}

/// SHA-256 of a value's canonical JSON.
#[must_use]
pub fn hash(value: &Value) -> String {
    // What has no canonical form (a number beyond 2^53) has a text all the same.
    let bytes = jcs::to_vec(value).unwrap_or_else(|_| value.to_string().into_bytes());
    escape::hex(&Sha256::digest(bytes))
}

impl Footprint<'_> {
    /// The action that records it.
    ///
    /// # Errors
    /// What ledger or catalog mind.
    pub fn action(&self) -> Result<Action, String> {
        event(self.plugin, self.event, self.data())
    }

    /// The details, as large as an event may be.
    fn data(&self) -> Map<String, Value> {
        let whole: Vec<Value> = self.changes.iter().map(|c| c.as_action()).collect();
        let shallow: Vec<Value> = whole.iter().map(|a| shortened(a, usize::MAX)).collect();
        let all_changes: Vec<String> = self
            .outcomes
            .iter()
            .flat_map(|outcome| {
                let of = outcome.resource.id.as_str();
                outcome
                    .steps
                    .iter()
                    .map(move |step| format!("{of}: {step}"))
            })
            .collect();
        let all_errors: Vec<String> = self
            .outcomes
            .iter()
            .filter_map(|outcome| {
                let error = outcome.error.as_ref()?;
                let mut text = format!("{}: {error}", outcome.resource.id);
                if outcome.fate == Fate::RolledBack {
                    text.push_str("; taken back");
                }
                for rest in &outcome.remains {
                    text.push_str("; remains: ");
                    text.push_str(rest);
                }
                Some(text)
            })
            .collect();
        let make = |actions: &[Value], texts: usize| {
            let mut data = Map::new();
            let left_out = whole.len() - actions.len();
            data.insert("actions".into(), actions.into());
            if left_out > 0 {
                data.insert("actions_left_out".into(), left_out.into());
            }
            if actions.len() < whole.len() || actions != whole {
                data.insert("actions_sha256".into(), hash(&json!(whole)).into());
            }
            let metadata = json!({
                "timestamp": self.timestamp,
                "current_hash": self.current_hash,
                "desired_hash": self.desired_hash,
            });
            data.insert("metadata".into(), metadata);
            let mut result = Map::new();
            let success = self.outcomes.iter().all(|o| o.fate == Fate::Done);
            result.insert("success".into(), success.into());
            for (key, all) in [("changes", &all_changes), ("errors", &all_errors)] {
                let some: Vec<Value> = all.iter().take(texts).map(|t| plain(t)).collect();
                if some.len() < all.len() {
                    let left_out = all.len() - some.len();
                    result.insert(format!("{key}_left_out"), left_out.into());
                }
                result.insert(key.into(), some.into());
            }
            data.insert("result".into(), result.into());
            data.insert("plugin".into(), self.plugin.into());
            data
        };
        let fits = |data: &Map<String, Value>| json!(data).to_string().len() <= ROOM;
        let data = make(&shallow, usize::MAX);
        if fits(&data) {
            return data;
        }
        let short: Vec<Value> = whole.iter().map(|a| shortened(a, SHORT)).collect();
        // Half as much each time: some of each stays as long as anything does.
        let (mut actions, mut texts) = (short.len(), all_changes.len().max(all_errors.len()));
        loop {
            let data = make(&short[..actions], texts);
            if fits(&data) || (actions == 0 && texts == 0) {
                return data;
            }
            actions /= 2;
            texts /= 2;
        }
    }
}

/// An action whose configuration is replaced by its digest where it is too long or too deep for an event.
fn shortened(action: &Value, limit: usize) -> Value {
    let mut action = action.clone();
    let bodies = action
        .as_object_mut()
        .into_iter()
        .flat_map(|a| a.values_mut());
    for body in bodies {
        for key in ["config", "changes"] {
            let Some(value) = body.get_mut(key) else {
                continue;
            };
            let bytes = value.to_string().len();
            if bytes > limit || depth(value) > CONFIG_DEPTH || has_float(value) {
                *value = json!({"sha256": hash(value), "bytes": bytes});
            } else {
                clean(value);
            }
        }
    }
    action
}

fn depth(value: &Value) -> usize {
    let inside = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(map) => map.values().map(depth).max(),
        _ => return 0,
    };
    1 + inside.unwrap_or(0)
}

fn has_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_float),
        Value::Object(map) => map.values().any(has_float),
        _ => false,
    }
}

fn clean(value: &mut Value) {
    match value {
        Value::String(text) => *value = plain(text),
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Object(map) => map.values_mut().for_each(clean),
        _ => {}
    }
}

/// A text that an event may hold.
fn plain(text: &str) -> Value {
    escape::shown_up_to(text, 400).into()
}

/// Has the agent record it, again where it is busy; a record twice is better than none. Answers its number.
///
/// # Errors
/// The agent's refusal.
pub fn leave(host: &mut dyn Host, action: &Action) -> Result<Option<u64>, CallError> {
    let mut waited = Duration::ZERO;
    let wait = Duration::from_millis(500);
    loop {
        match host.call(action) {
            Ok(reply) => return Ok(reply.receipt.map(|receipt| receipt.index)),
            Err(error) if waited < worth_waiting(&error) => {
                host.pause(wait);
                waited += wait;
            }
            Err(error) => return Err(error),
        }
    }
}

/// An event about a plugin.
///
/// # Errors
/// What ledger or catalog mind.
pub fn event(plugin: &str, action: &str, mut data: Map<String, Value>) -> Result<Action, String> {
    redact(&mut data);
    let category = match plugin {
        "ovsflows" => "ovs",
        "publicip" => "firewall",
        "mesh" => "net",
        other => other,
    };
    let data = json!({
        "action": action,
        "resource": format!("state:{plugin}"),
        "operation": "apply",
        "data": data,
    });
    let events = Registry::default()
        .process(category, &data)
        .map_err(|error| error.to_string())?;
    match events.as_slice() {
        [event] => Action::from_parts("ledger-append", &event.params()).map_err(|e| e.to_string()),
        _ => Err("it is not one event".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::change::{FieldChange, ResourceRef, Verdict};

    fn made(count: usize, config: &Value) -> (Vec<Change>, Vec<Outcome>) {
        (0..count)
            .map(|n| {
                let resource = ResourceRef::new("lxc", n.to_string());
                let change = Change {
                    resource: resource.clone(),
                    verdict: Verdict::Create,
                    fields: Vec::<FieldChange>::new(),
                    steps: Vec::new(),
                    notes: Vec::new(),
                    blocked: None,
                    needs: Vec::new(),
                    after: Vec::new(),
                    awaits: Vec::new(),
                    wanted: Some(config.clone()),
                    ours: true,
                    watched: false,
                };
                let outcome = Outcome {
                    resource,
                    verdict: Verdict::Create,
                    fate: Fate::Done,
                    steps: vec![format!("Created container {n}")],
                    error: None,
                    remains: Vec::new(),
                    remarks: Vec::new(),
                };
                (change, outcome)
            })
            .unzip()
    }

    fn data(changes: &[Change], outcomes: &[Outcome]) -> Map<String, Value> {
        let footprint = Footprint {
            event: APPLIED,
            plugin: "lxc",
            changes: changes.iter().collect(),
            outcomes: outcomes.iter().collect(),
            timestamp: 1_729_414_800,
            current_hash: hash(&json!({})),
            desired_hash: hash(&json!({"100": {}})),
        };
        let Ok(Action::LedgerAppend(append)) = footprint.action() else {
            panic!("{:?}", footprint.action())
        };
        assert_eq!(append.category.as_str(), "compute");
        append.data.map().clone()
    }

    #[test]
    fn a_small_apply_is_recorded_whole_in_the_form_of_the_seed() {
        let config = json!({"id": "100", "veth": "vi100", "bridge": "ovsbr0", "properties": {"network_type": "netmaker"}});
        let (changes, outcomes) = made(1, &config);
        let data = data(&changes, &outcomes);
        assert_eq!(data["plugin"], "lxc");
        assert_eq!(data["actions"][0]["Create"]["resource"], "0");
        assert_eq!(data["actions"][0]["Create"]["config"], config);
        assert_eq!(data["metadata"]["timestamp"], 1_729_414_800);
        assert_eq!(
            data["metadata"]["current_hash"].as_str().map(str::len),
            Some(64)
        );
        assert_eq!(data["result"]["success"], true);
        assert_eq!(data["result"]["changes"][0], "0: Created container 0");
        assert!(!data.contains_key("actions_left_out") && !data.contains_key("actions_sha256"));
    }

    #[test]
    fn a_large_apply_says_how_much_is_left_out_and_commits_to_all_of_it() {
        let config = json!({"id": "100", "text": "x".repeat(900)});
        let (changes, outcomes) = made(2000, &config);
        let data = data(&changes, &outcomes);
        let kept = data["actions"].as_array().expect("a list").len();
        assert!(kept > 0);
        assert_eq!(data["actions_left_out"], 2000 - kept);
        assert_eq!(
            data["actions"][0]["Create"]["config"]["sha256"],
            hash(&config)
        );
        assert!(data["result"]["changes_left_out"].is_u64());
        assert_eq!(data["actions_sha256"].as_str().map(str::len), Some(64));
    }

    #[test]
    fn what_an_event_cannot_hold_is_a_digest_and_a_secret_never_arrives() {
        let deep = json!({"a": {"b": {"c": {"d": {"e": 1}}}}});
        for config in [deep, json!({"f": 1.5})] {
            let (changes, outcomes) = made(1, &config);
            let data = data(&changes, &outcomes);
            assert_eq!(
                data["actions"][0]["Create"]["config"]["sha256"],
                hash(&config)
            );
        }
        let (changes, outcomes) = made(1, &json!({"password": "hunter2", "text": "a\u{7f}\u{0}b"}));
        let text = json!(data(&changes, &outcomes)).to_string();
        assert!(
            !text.contains("hunter2") && !text.contains('\u{7f}'),
            "{text}"
        );
    }
}
