//! OpenFlow flows as typed values: matches, actions, tables, and sets of flows with a compact form. What a switch would
//! refuse or silently drop is refused here. Compiling to messages is the ovs compartment's work; no I/O.

mod action;
mod field;
mod matching;
mod set;
mod text;
mod track;

pub use action::{FlowAction, Subfield};
pub use field::{Field, Syntax};
pub use matching::{Bits, Match, PortRef};
pub use set::FlowSet;
pub use track::{Ct, Nat, NatRange};

use serde_json::{Map, Value, json};

use crate::value::{FlowPriority, FlowTimeout, Object, Param, TableId, ValueError};

/// One flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Table of the pipeline, 0 where it is missing.
    pub table: TableId,
    /// The highest wins; 32768 where it is missing, as everywhere in OpenFlow.
    pub priority: FlowPriority,
    /// Seconds without a packet after which the switch forgets it.
    pub idle_timeout: Option<FlowTimeout>,
    /// Seconds after which the switch forgets it.
    pub hard_timeout: Option<FlowTimeout>,
    /// Which packets; all where it is empty.
    pub matching: Match,
    /// What happens to them, in order.
    pub actions: Vec<FlowAction>,
}

impl Flow {
    const KIND: &'static str = "flow";
    const RULE: &'static str =
        "an object with actions and optionally table, priority, idle_timeout, hard_timeout, match";
    pub(super) const KEYS: [&'static str; 6] = [
        "table",
        "priority",
        "idle_timeout",
        "hard_timeout",
        "match",
        "actions",
    ];
    const PRIORITY: u64 = 32_768;

    pub(super) fn read(value: &Value) -> Result<Self, ValueError> {
        let object = Object::read(Self::KIND, Self::RULE, value, &Self::KEYS)?;
        let matching = match object.raw("match") {
            Some(value) => Match::read(value).map_err(|error| error.within("match"))?,
            None => Match::default(),
        };
        let table = match object.get("table")? {
            Some(table) => table,
            None => TableId::try_from(0u64)?,
        };
        let priority = match object.get("priority")? {
            Some(priority) => priority,
            None => FlowPriority::try_from(Self::PRIORITY)?,
        };
        let actions = object.raw("actions").ok_or_else(|| {
            ValueError::new(Self::KIND, "actions", Self::RULE).within("missing key")
        })?;
        let actions = action::read_list(actions, table, &matching)
            .map_err(|error| error.within("actions"))?;
        Ok(Self {
            table,
            priority,
            idle_timeout: object.get("idle_timeout")?,
            hard_timeout: object.get("hard_timeout")?,
            matching,
            actions,
        })
    }

    pub(super) fn show(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        };
        put("table", self.table.to_json());
        put("priority", self.priority.to_json());
        put("idle_timeout", self.idle_timeout.to_json());
        put("hard_timeout", self.hard_timeout.to_json());
        if !self.matching.is_empty() {
            put("match", Some(self.matching.show()));
        }
        put(
            "actions",
            Some(self.actions.iter().map(FlowAction::show).collect()),
        );
        Value::Object(map)
    }

    pub(super) fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "table": TableId::schema(),
                "priority": FlowPriority::schema(),
                "idle_timeout": FlowTimeout::schema(),
                "hard_timeout": FlowTimeout::schema(),
                "match": Match::schema(),
                "actions": action::schema(),
                "columns": {"type": "array", "items": {"type": "string"}},
                "rows": {"type": "array", "items": {"type": "array"}},
            },
            "required": ["actions"],
            "additionalProperties": false,
        })
    }

    /// Two flows that a switch would take for one: same table, priority and match.
    #[must_use]
    pub fn identity(&self) -> (TableId, FlowPriority, &Match) {
        (self.table, self.priority, &self.matching)
    }
}

#[cfg(test)]
mod edges;
#[cfg(test)]
mod edges_actions;
#[cfg(test)]
mod edges_rules;
#[cfg(test)]
mod edges_text;
#[cfg(test)]
mod tests;
