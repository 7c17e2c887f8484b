//! `agent-info`: what the agent says about itself, answered without touching anything.

use serde_json::{Value, json};

use super::action;
use crate::catalog::FieldSpec;

fn counters() -> Value {
    let names = [
        "connections",
        "connections_refused",
        "open_connections",
        "requests",
        "refused",
        "succeeded",
        "failed",
        "in_flight",
    ];
    object(&names.map(|name| (name, json!({"type": "integer"}))))
}

fn ledger_head() -> Value {
    object(&[
        ("size", json!({"type": "integer"})),
        ("root", json!({"type": "string"})),
    ])
}

fn object(fields: &[(&str, Value)]) -> Value {
    json!({
        "type": "object",
        "properties": fields.iter().cloned().map(|(name, schema)| (name.to_owned(), schema)).collect::<serde_json::Map<_, _>>(),
        "required": fields.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
    })
}

action! {
    /// Version, backend, Landlock ABI, uptime, counters and ledger head.
    AgentInfo = "agent-info", family "agent", compartment Front, capabilities &[],
    time_limit_s 5, read_only true, ledger "agent" / "settings" / "query",
    {}
    resource |_| "agent".to_owned(),
    returns &[
        FieldSpec::text("version", "Version of the agent."),
        FieldSpec::text("backend", "`proxmox` or `embedded`."),
        FieldSpec::integer("landlock_abi", "Landlock ABI in force; 0 without."),
        FieldSpec::integer("uptime_s", "Seconds since the agent started."),
        FieldSpec::new("counters", "Connections and requests since the front started.", counters),
        FieldSpec::new("ledger", "Number of records and Merkle root of the ledger.", ledger_head),
    ],
}
