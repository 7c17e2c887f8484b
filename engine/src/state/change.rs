//! What a plan is made of: resources, what differs, and the steps that make it right, each with the steps that take it
//! back. Planners return these, [`super::run`] carries them out, reports and footprints print them.

use std::fmt;

use blockhost_proto::action::Action;
use blockhost_proto::value::{SwitchIfName, Vmid};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::network::confirm::uplink::Uplink;

/// A thing that a plugin looks after: `lxc/100`, `net/ovsbr0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceRef {
    /// Name of the plugin.
    pub plugin: &'static str,
    /// Its name there.
    pub id: String,
}

impl ResourceRef {
    /// A resource of a plugin.
    pub fn new(plugin: &'static str, id: impl Into<String>) -> Self {
        Self {
            plugin,
            id: id.into(),
        }
    }
}

impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.plugin, self.id)
    }
}

impl Serialize for ResourceRef {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

/// What is to become of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Verdict {
    /// It is not there and should be.
    Create,
    /// It is there and should be different.
    Modify,
    /// It is there, was made here, and is in the document no longer.
    Delete,
    /// It is as it should be.
    NoOp,
}

/// One difference. A missing value is `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Dotted: `properties.memory`.
    pub field: String,
    /// As it is.
    pub from: Value,
    /// As it should be.
    pub to: Value,
}

impl FieldChange {
    /// A difference.
    pub fn new(field: impl Into<String>, from: impl Into<Value>, to: impl Into<Value>) -> Self {
        Self {
            field: field.into(),
            from: from.into(),
            to: to.into(),
        }
    }
}

/// A change that could cut the operator off: it is carried out by [`crate::network::confirm`], which takes it back unless all
/// is well afterwards, also when this process is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Careful {
    /// A device that leads out of the host is put onto a bridge, which gets all that it carries.
    Uplink(Uplink),
    /// The steps change this bridge, which carries addresses of the host.
    Bridge(SwitchIfName),
    /// The steps change flows, meters and queues of this bridge, which decide what passes.
    Flows(SwitchIfName),
    /// The steps set flows of this bridge, and nothing passes there before: nothing of what passes can be lost.
    FirstFlows(SwitchIfName),
}

/// A look that has to succeed before a step that cannot be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnlyIf {
    /// The container bears the mark of those that are made here.
    ContainerIsOurs(Vmid),
}

/// One action of the root agent, and how it is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it does, for people.
    pub say: String,
    /// The action.
    pub action: Action,
    /// What takes it back, in this order. Empty where nothing can.
    pub undo: Vec<Step>,
    /// Skipped unless this holds.
    pub only_if: Option<OnlyIf>,
    /// Afterwards reality decides what comes next: the rest of the plan was a guess.
    pub look_again: bool,
    /// It cannot be taken back and need not be: it goes with the resource, or does no harm.
    pub leaves_nothing: bool,
    /// It gives up what another resource of the same document may be waiting for, so it is done before anything is taken.
    pub releases: bool,
}

impl Step {
    /// A step that nothing takes back.
    pub fn new(say: impl Into<String>, action: impl Into<Action>) -> Self {
        Self {
            say: say.into(),
            action: action.into(),
            undo: Vec::new(),
            only_if: None,
            look_again: false,
            leaves_nothing: false,
            releases: false,
        }
    }

    /// Taken back by this, after what was given before.
    #[must_use]
    pub fn undone_by(mut self, undo: Self) -> Self {
        self.undo.push(undo);
        self
    }

    /// Only where this holds.
    #[must_use]
    pub fn only_if(mut self, condition: OnlyIf) -> Self {
        self.only_if = Some(condition);
        self
    }

    /// It need not be taken back.
    #[must_use]
    pub fn leaving_nothing(mut self) -> Self {
        self.leaves_nothing = true;
        self
    }

    /// It gives up what another may be waiting for.
    #[must_use]
    pub fn releasing(mut self) -> Self {
        self.releases = true;
        self
    }

    /// Reality decides afterwards.
    #[must_use]
    pub fn then_look(mut self) -> Self {
        self.look_again = true;
        self
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        json!({"action": self.action.name(), "what": self.say}).serialize(out)
    }
}

/// What a planner says about one resource.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Planned {
    /// What differs.
    pub fields: Vec<FieldChange>,
    /// What to do about it.
    pub steps: Vec<Step>,
    /// What somebody should know.
    pub notes: Vec<String>,
    /// Why it cannot be made right.
    pub blocked: Option<String>,
    /// It was made through this agent, so it may be changed, and deleted later.
    pub ours: bool,
    /// What is not there yet: when it is, there is more to do.
    pub awaits: Vec<ResourceRef>,
    /// All steps are one change that could cut the operator off.
    pub careful: Option<Careful>,
}

impl Planned {
    /// It is as it should be.
    #[must_use]
    pub fn nothing(ours: bool) -> Self {
        Self {
            ours,
            ..Self::default()
        }
    }

    /// True when nothing is to be done and nothing stands in the way.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.fields.is_empty() && self.steps.is_empty() && self.blocked.is_none()
    }

    /// Refuses; the first reason stays.
    pub fn block(&mut self, why: impl Into<String>) {
        self.blocked.get_or_insert_with(|| why.into());
    }

    /// Notes a difference.
    pub fn differs(
        &mut self,
        field: impl Into<String>,
        from: impl Into<Value>,
        to: impl Into<Value>,
    ) {
        self.fields.push(FieldChange::new(field, from, to));
    }

    /// Adds a step of the catalog; parameters that the catalog refuses block the change.
    pub fn step(&mut self, step: Result<Step, String>) {
        match step {
            Ok(step) => self.steps.push(step),
            Err(why) => self.block(why),
        }
    }
}

/// A step from an action's name and parameters.
///
/// # Errors
/// What the catalog minds.
pub fn step(say: impl Into<String>, action: &str, params: &Value) -> Result<Step, String> {
    Action::from_parts(action, params)
        .map(|action| Step::new(say, action))
        .map_err(|error| error.to_string())
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Which resource.
    pub resource: ResourceRef,
    /// What is to become of it.
    pub verdict: Verdict,
    /// What differs.
    pub fields: Vec<FieldChange>,
    /// What to do about it.
    pub steps: Vec<Step>,
    /// What somebody should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why it cannot be made right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
    /// What has to be right before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<ResourceRef>,
    /// What comes before it where it is made, and is no obstacle where it is not.
    #[serde(skip)]
    pub after: Vec<ResourceRef>,
    /// What is not there yet: when it is, there is more to do.
    #[serde(skip)]
    pub awaits: Vec<ResourceRef>,
    /// As it should be, without secrets.
    #[serde(skip)]
    pub wanted: Option<Value>,
    /// It may be deleted later.
    #[serde(skip)]
    pub ours: bool,
    /// It is one that can be watched over, and taken back where it cuts the operator off.
    #[serde(skip)]
    pub watched: bool,
}

impl Change {
    /// True when there is something to do or something in the way.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.verdict != Verdict::NoOp
    }

    /// Whether the other one goes after it, and not under it.
    #[must_use]
    pub fn stands_on(&self, other: &ResourceRef) -> bool {
        self.needs.contains(other) || self.after.contains(other)
    }

    /// In the form of the ledger: `{"Create": {"resource", "config"}}`.
    #[must_use]
    pub fn as_action(&self) -> Value {
        let mut body = Map::new();
        body.insert("resource".into(), self.resource.id.clone().into());
        match self.verdict {
            Verdict::Create => {
                body.insert("config".into(), self.wanted.clone().unwrap_or(Value::Null));
            }
            _ if !self.fields.is_empty() => {
                let changes = self
                    .fields
                    .iter()
                    .map(|field| json!({"field": field.field, "from": field.from, "to": field.to}))
                    .collect();
                body.insert("changes".into(), changes);
            }
            _ => {}
        }
        let word = match self.verdict {
            Verdict::Create => "Create",
            Verdict::Modify => "Modify",
            Verdict::Delete => "Delete",
            Verdict::NoOp => "NoOp",
        };
        json!({ word: body })
    }
}

/// Every leaf of a value as a field that is new, for something that is not there yet.
#[must_use]
pub fn all_new(value: &Value) -> Vec<FieldChange> {
    let mut fields = Vec::new();
    leaves("", value, &mut fields);
    fields
}

fn leaves(path: &str, value: &Value, into: &mut Vec<FieldChange>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, inner) in map {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                leaves(&path, inner, into);
            }
        }
        other => into.push(FieldChange::new(path, Value::Null, other.clone())),
    }
}
