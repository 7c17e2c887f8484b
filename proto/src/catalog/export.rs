//! The catalog for others: JSON with JSON Schema for client generators, Markdown for people.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{ActionSpec, CATALOG, ParamSpec};
use crate::pct::PctKey;
use crate::qm::QmKey;
use crate::response::ErrorCode;
use crate::{json as strict, request, wire};

/// The catalog as JSON: limits, error codes, and per action everything the table holds with a JSON Schema of `params`.
#[must_use]
pub fn to_json() -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "limits": {
            "frame_bytes": wire::MAX_FRAME,
            "json_depth": strict::MAX_DEPTH,
            "json_values": strict::MAX_VALUES,
            "id_bytes": request::MAX_ID,
        },
        "error_codes": ErrorCode::ALL.map(ErrorCode::as_str),
        "qm_options": options(QmKey::reference()),
        "pct_options": options(PctKey::reference()),
        "actions": CATALOG.iter().map(action).collect::<Vec<_>>(),
    })
}

fn options(reference: Vec<(String, &str)>) -> Value {
    reference
        .into_iter()
        .map(|(key, rule)| json!({"key": key, "rule": rule}))
        .collect()
}

fn action(spec: &ActionSpec) -> Value {
    json!({
        "name": spec.name,
        "aliases": spec.aliases,
        "family": spec.family,
        "summary": spec.summary.trim(),
        "params": schema(spec),
        "param_order": spec.params.iter().map(|p| p.name).collect::<Vec<_>>(),
        "returns": returns(spec),
        "example": spec.example_params(),
        "compartment": spec.compartment.as_str(),
        "capabilities": spec.capabilities,
        "time_limit_s": spec.time_limit_s,
        "read_only": spec.read_only,
        "ledger": {"plugin_id": spec.plugin_id, "category": spec.category, "operation": spec.operation},
    })
}

/// JSON Schema (2020-12) of the action's `params`. Aliases are named, not accepted: new clients use the names.
fn schema(spec: &ActionSpec) -> Value {
    let properties: Map<String, Value> = spec
        .params
        .iter()
        .map(|p| (p.name.to_owned(), property(p)))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": spec.params.iter().filter(|p| p.required).map(|p| p.name).collect::<Vec<_>>(),
        "additionalProperties": false,
    })
}

/// JSON Schema of the fields that a success carries besides those that all have.
fn returns(spec: &ActionSpec) -> Value {
    let properties: Map<String, Value> = spec
        .returns
        .iter()
        .map(|field| {
            let mut schema = (field.schema)();
            schema["description"] = field.summary.into();
            (field.name.to_owned(), schema)
        })
        .collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": spec.returns.iter().filter(|f| !f.optional).map(|f| f.name).collect::<Vec<_>>(),
    })
}

fn property(spec: &ParamSpec) -> Value {
    let mut schema = (spec.schema)();
    if let Value::Object(map) = &mut schema {
        map.insert("description".into(), spec.summary.trim().into());
        if !spec.aliases.is_empty() {
            map.insert("x-aliases".into(), json!(spec.aliases));
        }
        if let Some(default) = default_of(spec) {
            map.insert("default".into(), default);
        }
    }
    schema
}

fn default_of(spec: &ParamSpec) -> Option<Value> {
    spec.default.and_then(|default| default())
}

/// The protocol reference, in Markdown. `docs/protocol.md` is made from it.
#[must_use]
pub fn to_markdown() -> String {
    let mut out = String::from(
        "# Protocol of the root agent\n\n\
         This page is generated from the catalog in `proto`; change it there.\n\n\
         A message is `[u32 big-endian length][UTF-8 JSON object]`, both ways, over the Unix stream socket\n\
         `/run/blockhost/root-agent.sock`. A request is\n\n\
         ```json\n{\"action\": \"qm-start\", \"params\": {\"vmid\": 100}}\n```\n\n\
         `params` may be missing. Optional: `id` (text, echoed back), `dry_run` (validate and authorise, do nothing).\n\
         A success is `{\"ok\": true, \"output\": \"...\"}` with fields of the action and a `receipt`;\n\
         a refusal is `{\"ok\": false, \"error\": \"...\", \"code\": \"...\"}`.\n\
         Requests may be pipelined; answers come in order.\n",
    );
    let _ = write!(
        out,
        "\n## Limits\n\n| what | limit |\n|---|---|\n| frame | {} bytes |\n| nesting | {} |\n| values in one request | {} |\n| `id` | {} bytes |\n",
        wire::MAX_FRAME,
        strict::MAX_DEPTH,
        strict::MAX_VALUES,
        request::MAX_ID,
    );
    out.push_str("\n## Codes\n\n| code | meaning |\n|---|---|\n");
    for code in ErrorCode::ALL {
        let _ = writeln!(out, "| `{code}` | {} |", code.meaning());
    }
    for family in super::families() {
        let _ = writeln!(out, "\n## {family}");
        for spec in CATALOG.iter().filter(|spec| spec.family == family) {
            one(&mut out, spec);
        }
    }
    flows(&mut out);
    out.push_str(
        "\n## Options of machines\n\n\
         For `args` of `qm-create` (with `--` in front) and `options` of `qm-set`. Values are texts or integers. What is not\n\
         here is refused: other options of `qm` reach the host.\n\n| option | value |\n|---|---|\n",
    );
    for (key, rule) in QmKey::reference() {
        let _ = writeln!(out, "| `{key}` | {} |", cell(rule));
    }
    out.push_str(
        "\n## Options of containers\n\n\
         For `options` of `pct-create` and `pct-set`, an object. Values are texts or integers. What is not here is refused:\n\
         mount points, devices, raw `lxc` settings and hooks reach the host.\n\n| option | value |\n|---|---|\n",
    );
    for (key, rule) in PctKey::reference() {
        let _ = writeln!(out, "| `{key}` | {} |", cell(rule));
    }
    out
}

/// What a flow may look at and do, for `ovs-set-flows`.
fn flows(out: &mut String) {
    out.push_str(
        "\n## Flows\n\n\
         For `flows` of `ovs-set-flows`. A flow is `{\"table\", \"priority\", \"idle_timeout\", \"hard_timeout\", \"match\", \"actions\"}`,\n\
         only `actions` is required. Flows of one owner carry its cookie and are replaced together.\n\n\
         Many flows that differ in a few values are one flow with `columns`, places that the flow itself leaves open, and\n\
         `rows`, their values:\n\n\
         ```json\n{\"match\": {\"dl_type\": \"ip\"}, \"actions\": [{}], \"columns\": [\"/match/nw_dst\", \"/actions/0/output\"],\n \
         \"rows\": [[\"10.0.0.1\", \"vi100\"], [\"10.0.0.2\", \"vi101\"]]}\n```\n\n\
         So ten thousand flows take about half a megabyte. Written out one by one they meet two limits: the frame\n\
         (`limits.request_bytes` of `root-agent.yaml` raises it, to 4 MiB at most) and the number of values in one request,\n\
         which is fixed; spread larger sets over several owners.\n\n\
         | field of `match` | bits | may be written | values |\n|---|---|---|---|\n\
         | `in_port` | 16 | no | a port's name, or its number from 1 to 65279 |\n",
    );
    for field in crate::flow::Field::ALL {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            field.name(),
            field.bits(),
            if field.writable() { "yes" } else { "no" },
            cell(field.rule())
        );
    }
    out.push_str("\n| action | does |\n|---|---|\n");
    for (action, meaning) in crate::flow::FlowAction::reference() {
        let _ = writeln!(
            out,
            "| `{}` | {} |",
            action.replace('|', "\\|"),
            cell(meaning)
        );
    }
}

/// Text for a table cell: a bar would end it even inside code, angle brackets would be taken for HTML.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

fn one(out: &mut String, spec: &ActionSpec) {
    let _ = writeln!(out, "\n### {}\n\n{}\n", spec.name, spec.summary.trim());
    let capabilities = if spec.capabilities.is_empty() {
        "none".to_owned()
    } else {
        spec.capabilities.join(", ")
    };
    let _ = writeln!(
        out,
        "Compartment `{}`, capabilities: {capabilities}, at most {} s{}.",
        spec.compartment,
        spec.time_limit_s,
        if spec.read_only { ", read-only" } else { "" }
    );
    if spec.params.is_empty() {
        out.push_str("No parameters.\n");
    } else {
        params_table(out, spec);
    }
    if !spec.returns.is_empty() {
        out.push_str("\n| answer | | meaning |\n|---|---|---|\n");
        for field in spec.returns {
            let _ = writeln!(
                out,
                "| `{}` | {}{} | {} |",
                field.name,
                (field.schema)()["type"].as_str().unwrap_or("value"),
                if field.optional { ", not always" } else { "" },
                cell(field.summary)
            );
        }
    }
    if !spec.params.is_empty() {
        let _ = writeln!(
            out,
            "\n```json\n{{\"action\": \"{}\", \"params\": {}}}\n```",
            spec.name, spec.example
        );
    }
}

fn params_table(out: &mut String, spec: &ActionSpec) {
    out.push_str("\n| param | | values | meaning |\n|---|---|---|---|\n");
    for param in spec.params {
        let presence = match default_of(param) {
            Some(default) => format!("default `{default}`"),
            None if param.required => "required".to_owned(),
            None => "optional".to_owned(),
        };
        let aliases = match param.aliases {
            [] => String::new(),
            list => format!(" (also `{}`)", list.join("`, `")),
        };
        let _ = writeln!(
            out,
            "| `{}`{aliases} | {presence} | {} | {} |",
            param.name,
            values(&(param.schema)()),
            param.summary.trim()
        );
    }
}

/// A schema in a few words for a table cell.
fn values(schema: &Value) -> String {
    let kind = match &schema["type"] {
        // Some values come as a text or a number: the text's rule says more.
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        kind => kind.as_str(),
    }
    .unwrap_or("value");
    let cell = match (kind, &schema["enum"], &schema["pattern"]) {
        (_, Value::Array(items), _) => items
            .iter()
            .map(|item| format!("`{}`", item.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(", "),
        ("integer", ..) => format!("{}..={}", schema["minimum"], schema["maximum"]),
        ("string", _, Value::String(pattern)) => format!("`{pattern}`"),
        ("string", ..) => format!("text of at most {} bytes", schema["maxLength"]),
        ("boolean", ..) => "true, false".to_owned(),
        ("array", ..) => "list".to_owned(),
        _ => "object".to_owned(),
    };
    cell.replace('|', "\\|")
}
