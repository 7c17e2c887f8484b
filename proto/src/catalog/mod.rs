//! The catalog as data: one table, made from the action families, from which JSON, documentation, clients and policy
//! checks are derived.

mod export;

pub use export::{to_json, to_markdown};

use serde_json::{Value, json};

use crate::action::SPECS;

/// The process that carries an action out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compartment {
    /// Answers by itself, without privileges.
    Front,
    /// The only writer of the ledger.
    Ledger,
    /// Routes, links, traffic control, firewall, NAT and WireGuard, by netlink.
    Net,
    /// Open vSwitch, by its own sockets.
    Ovs,
    /// Wallets and address book.
    Keys,
    /// Virtual machines and containers.
    Vm,
    /// What is inside disk images.
    Image,
    /// Wires into the network of containers that another manager runs.
    Attach,
}

impl Compartment {
    /// Its name in logs, arguments and documentation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Ledger => "ledger",
            Self::Net => "net",
            Self::Ovs => "ovs",
            Self::Keys => "keys",
            Self::Vm => "vm",
            Self::Image => "image",
            Self::Attach => "attach",
        }
    }
}

impl std::fmt::Display for Compartment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One parameter of an action.
#[derive(Debug, Clone, Copy)]
pub struct ParamSpec {
    /// Name.
    pub name: &'static str,
    /// Other names that older clients use.
    pub aliases: &'static [&'static str],
    /// Must be given.
    pub required: bool,
    /// What a missing one means, where that is a value.
    pub default: Option<fn() -> Option<Value>>,
    /// What it is, in Markdown, with a leading space per line.
    pub summary: &'static str,
    /// JSON Schema of its values.
    pub schema: fn() -> Value,
}

/// One field that a success of an action carries besides `output` and `receipt`.
#[derive(Debug, Clone, Copy)]
pub struct FieldSpec {
    /// Name; never one of [`crate::response::RESERVED_FIELDS`].
    pub name: &'static str,
    /// What it is, in Markdown.
    pub summary: &'static str,
    /// JSON Schema of its values.
    pub schema: fn() -> Value,
    /// Not there in every success.
    pub optional: bool,
}

impl FieldSpec {
    /// A field that every success of the action carries.
    #[must_use]
    pub const fn new(name: &'static str, summary: &'static str, schema: fn() -> Value) -> Self {
        Self {
            name,
            summary,
            schema,
            optional: false,
        }
    }

    /// The same, where only some successes carry it.
    #[must_use]
    pub const fn sometimes(mut self) -> Self {
        self.optional = true;
        self
    }

    /// A text.
    #[must_use]
    pub const fn text(name: &'static str, summary: &'static str) -> Self {
        Self::new(name, summary, || json!({"type": "string"}))
    }

    /// An integer.
    #[must_use]
    pub const fn integer(name: &'static str, summary: &'static str) -> Self {
        Self::new(name, summary, || json!({"type": "integer"}))
    }
}

/// One action.
#[derive(Debug, Clone, Copy)]
pub struct ActionSpec {
    /// Name on the wire.
    pub name: &'static str,
    /// Other names that are accepted.
    pub aliases: &'static [&'static str],
    /// Family, for policy: `qm` stands for `qm-*`.
    pub family: &'static str,
    /// What it does, in Markdown, with a leading space per line.
    pub summary: &'static str,
    /// Its parameters.
    pub params: &'static [ParamSpec],
    /// Who carries it out.
    pub compartment: Compartment,
    /// Capabilities that the compartment needs for it.
    pub capabilities: &'static [&'static str],
    /// The longest it may ever run, in seconds.
    pub time_limit_s: u32,
    /// Changes nothing.
    pub read_only: bool,
    /// `plugin_id` of its ledger records.
    pub plugin_id: &'static str,
    /// `category` of its ledger records.
    pub category: &'static str,
    /// `operation` of its ledger records.
    pub operation: &'static str,
    /// What a success carries besides `output` and `receipt`.
    pub returns: &'static [FieldSpec],
    /// Good `params`, as JSON: for documentation and for tests that ask for everything once.
    pub example: &'static str,
}

impl ActionSpec {
    /// [`Self::example`], parsed.
    ///
    /// # Panics
    /// Never for an action of the catalog: a test reads them all.
    #[must_use]
    pub fn example_params(&self) -> Value {
        serde_json::from_str(self.example).expect("the catalog's examples are JSON")
    }
}

/// Every action of this version.
pub const CATALOG: &[ActionSpec] = SPECS;

/// The action of that name or alias.
#[must_use]
pub fn find(name: &str) -> Option<&'static ActionSpec> {
    CATALOG
        .iter()
        .find(|spec| spec.name == name || spec.aliases.contains(&name))
}

/// The families, in catalog order.
#[must_use]
pub fn families() -> Vec<&'static str> {
    let mut list: Vec<&'static str> = Vec::new();
    for spec in CATALOG {
        if !list.contains(&spec.family) {
            list.push(spec.family);
        }
    }
    list
}

#[cfg(test)]
mod tests;
