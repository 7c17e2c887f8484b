//! The words of the ledger: how intents, outcomes, refusals and the agent's own events become records. Pure.

use std::collections::HashMap;

use blockhost_ledger::record::{Draft, Phase};
use blockhost_proto::action::{Action, LedgerAnchored};
use blockhost_proto::escape::cut;
use serde_json::{Map, Value};

use crate::compartment::{Done, Failure};
use crate::ipc::Caller;
use crate::policy::sockets::MAIN;

/// Bytes of a failure's sentence that a record keeps.
const MAX_MESSAGE: usize = 1024;
/// Fields of an answer that are facts about what was done, and never secrets.
const KEPT_FIELDS: [&str; 4] = ["address", "keyfile", "exitcode", "public_key"];

/// Names of users.
#[derive(Debug, Clone, Default)]
pub struct Names(HashMap<u32, String>);

impl Names {
    /// From pairs of uid and name; the first name of a uid wins.
    pub fn new(pairs: &[(u32, String)]) -> Self {
        let mut names = HashMap::new();
        for (uid, name) in pairs {
            names.entry(*uid).or_insert_with(|| name.clone());
        }
        Self(names)
    }

    /// The name, or `uid:N`.
    pub fn of(&self, uid: u32) -> String {
        self.0
            .get(&uid)
            .cloned()
            .unwrap_or_else(|| format!("uid:{uid}"))
    }
}

/// What all records of one operation share.
#[derive(Debug, Clone)]
pub struct Heading {
    /// Joins intent and outcome.
    pub op_id: String,
    /// Catalog name.
    pub action: String,
    /// What it acts on.
    pub resource: String,
    plugin_id: String,
    category: String,
    operation: String,
}

impl Heading {
    /// The heading of an action's records.
    pub fn of(action: &Action, op_id: String) -> Self {
        let spec = action.spec();
        Self {
            op_id,
            action: spec.name.to_owned(),
            resource: action.ledger_resource(),
            plugin_id: spec.plugin_id.to_owned(),
            category: action.ledger_category(),
            operation: spec.operation.to_owned(),
        }
    }

    fn draft(
        &self,
        phase: Phase,
        caller: &Caller,
        names: &Names,
        metadata: Map<String, Value>,
    ) -> Draft {
        Draft {
            phase,
            op_id: self.op_id.clone(),
            plugin_id: self.plugin_id.clone(),
            category: self.category.clone(),
            operation: self.operation.clone(),
            action: self.action.clone(),
            resource: self.resource.clone(),
            user: names.of(caller.uid),
            uid: caller.uid,
            pid: caller.pid,
            exe: caller.exe.clone(),
            unit: caller.unit.clone(),
            metadata,
        }
    }
}

/// "This is about to be done", and by what right: the rule's place in the policy, and what it went by beside the user.
pub fn intent(
    heading: &Heading,
    caller: &Caller,
    names: &Names,
    action: &Action,
    rule: usize,
) -> Draft {
    let mut right = Map::new();
    right.insert("rule".to_owned(), (rule + 1).into());
    right.insert("gid".to_owned(), caller.gid.into());
    if !caller.groups.is_empty() {
        right.insert("groups".to_owned(), caller.groups.clone().into());
    }
    if caller.socket.as_str() != MAIN {
        right.insert("socket".to_owned(), caller.socket.as_str().into());
    }
    let mut metadata = action.ledger_metadata();
    metadata.insert("right".to_owned(), right.into());
    heading.draft(Phase::Intent, caller, names, metadata)
}

/// "This is what became of it."
pub fn outcome(
    heading: &Heading,
    caller: &Caller,
    names: &Names,
    result: &Result<Done, Failure>,
    duration_us: u64,
) -> Draft {
    let mut metadata = Map::new();
    metadata.insert("duration_us".to_owned(), duration_us.into());
    match result {
        Ok(done) => {
            metadata.insert("result".to_owned(), "ok".into());
            for field in KEPT_FIELDS {
                if let Some(value @ (Value::String(_) | Value::Number(_))) = done.extra.get(field) {
                    metadata.insert(field.to_owned(), value.clone());
                }
            }
        }
        Err(failure) => {
            metadata.insert("result".to_owned(), "error".into());
            metadata.insert("code".to_owned(), failure.code.as_str().into());
            metadata.insert("error".to_owned(), printable(&failure.message).into());
        }
    }
    heading.draft(Phase::Outcome, caller, names, metadata)
}

/// An event that a service records in its own name.
pub fn event(action: &Action, caller: &Caller, names: &Names) -> Option<Draft> {
    let Action::LedgerAppend(event) = action else {
        return None;
    };
    let spec = action.spec();
    let heading = Heading {
        op_id: String::new(),
        action: event.action.to_string(),
        resource: action.ledger_resource(),
        plugin_id: spec.plugin_id.to_owned(),
        category: event.category.to_string(),
        operation: spec.operation.to_owned(),
    };
    Some(heading.draft(Phase::Event, caller, names, event.data.map().clone()))
}

/// That a head of this ledger is on a chain, once [`super::heads::Heads::check`] found it to be one. The proof is left
/// out: it follows from the ledger.
pub fn anchored(action: &LedgerAnchored, caller: &Caller, names: &Names) -> Draft {
    let mut metadata = Map::new();
    metadata.insert("chain_id".to_owned(), action.chain_id.get().into());
    metadata.insert("contract".to_owned(), action.contract.to_string().into());
    metadata.insert("tx".to_owned(), action.tx.to_string().into());
    metadata.insert("block".to_owned(), action.block.get().into());
    metadata.insert("size".to_owned(), action.size.get().into());
    metadata.insert("root".to_owned(), action.root.to_string().into());
    let heading = Heading::of(&Action::from(action.clone()), String::new());
    heading.draft(Phase::Anchor, caller, names, metadata)
}

/// An event that commits to a confidential payload. Its names are the catalog's, which no client's event can have.
pub fn payload(
    action: &Action,
    caller: &Caller,
    names: &Names,
    metadata: Map<String, Value>,
) -> Draft {
    Heading::of(action, String::new()).draft(Phase::Event, caller, names, metadata)
}

/// The agent's own events carry the plugin `agent`, which no client's event can.
pub fn agent_event(
    action: &str,
    resource: &str,
    metadata: Map<String, Value>,
    caller: &Caller,
    names: &Names,
) -> Draft {
    let heading = Heading {
        op_id: String::new(),
        action: action.to_owned(),
        resource: resource.to_owned(),
        plugin_id: "agent".to_owned(),
        category: "settings".to_owned(),
        operation: "query".to_owned(),
    };
    heading.draft(Phase::Event, caller, names, metadata)
}

/// A request that was refused before anything happened.
pub fn refusal(
    caller: &Caller,
    names: &Names,
    action: &str,
    code: &str,
    message: &str,
    suppressed: u64,
) -> Draft {
    let mut metadata = Map::new();
    metadata.insert("requested".to_owned(), printable(action).into());
    metadata.insert("code".to_owned(), printable(code).into());
    metadata.insert("error".to_owned(), printable(message).into());
    metadata.insert(
        "suppressed_before".to_owned(),
        suppressed.min((1 << 53) - 1).into(),
    );
    agent_event("request-refused", "agent:front", metadata, caller, names)
}

/// Text for a record: bounded, and without the characters its canonical form excludes.
pub fn printable(text: &str) -> String {
    let mut text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    cut(&mut text, MAX_MESSAGE);
    text
}

#[cfg(test)]
mod tests {
    use blockhost_proto::response::ErrorCode;
    use serde_json::json;

    use super::*;
    use crate::policy::sockets::SocketName;

    fn caller() -> Caller {
        Caller {
            uid: 1234,
            gid: 1234,
            groups: Vec::new(),
            socket: SocketName::main(),
            pid: Some(5),
            exe: None,
            unit: None,
        }
    }

    #[test]
    fn an_intent_says_by_what_right() {
        let action = Action::from_parts("qm-start", &json!({"vmid": 100})).expect("valid");
        let heading = Heading::of(&action, "x-1".to_owned());
        let right = |caller: &Caller| {
            let draft = intent(&heading, caller, &Names::default(), &action, 2);
            draft.check().expect("the ledger takes it");
            draft.metadata["right"].clone()
        };
        assert_eq!(right(&caller()), json!({"rule": 3, "gid": 1234}));
        let by_lane = Caller {
            groups: vec![7],
            socket: SocketName::try_from("lane".to_owned()).expect("a name"),
            ..caller()
        };
        assert_eq!(
            right(&by_lane),
            json!({"rule": 3, "gid": 1234, "groups": [7], "socket": "lane"})
        );
    }

    #[test]
    fn a_secret_command_is_not_in_the_intent() {
        let params = json!({"vmid": 100, "command": "echo hunter2 | passwd", "secret": true});
        let action = Action::from_parts("qm-guest-exec", &params).expect("valid");
        let heading = Heading::of(&action, "x-1".to_owned());
        let draft = intent(&heading, &caller(), &Names::default(), &action, 0);
        assert!(
            !serde_json::to_string(&draft.metadata)
                .expect("json")
                .contains("hunter2")
        );
    }

    #[test]
    fn output_of_a_guest_is_not_in_the_outcome() {
        let action = Action::from_parts("qm-list", &json!({})).expect("valid");
        let mut done = Done {
            output: "secret output".to_owned(),
            ..Done::default()
        };
        done.extra
            .insert("stdout".to_owned(), "secret output".into());
        done.extra.insert("exitcode".to_owned(), 0.into());
        let draft = outcome(
            &Heading::of(&action, "x-1".to_owned()),
            &caller(),
            &Names::default(),
            &Ok(done),
            7,
        );
        let text = serde_json::to_string(&draft.metadata).expect("json");
        assert!(
            !text.contains("secret output") && text.contains("exitcode"),
            "{text}"
        );
    }

    #[test]
    fn every_draft_passes_the_ledgers_own_check() {
        let names = Names::new(&[(1234, "bob".to_owned())]);
        let action = Action::from_parts("qm-start", &json!({"vmid": 100})).expect("valid");
        let heading = Heading::of(&action, "0a-1".to_owned());
        let failed = Err(Failure::new(
            ErrorCode::Failed,
            "line\nbreak \u{7f}".repeat(200),
        ));
        let drafts = [
            intent(&heading, &caller(), &names, &action, 0),
            outcome(&heading, &caller(), &names, &failed, 1),
            refusal(&caller(), &names, "\u{7f}x", "bad_json", "no\0", u64::MAX),
        ];
        for draft in drafts {
            draft.check().expect("the ledger takes it");
            assert_eq!(draft.user, "bob");
        }
    }
}
