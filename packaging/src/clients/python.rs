//! The Python client's generated modules.

use std::fmt::Write as _;

use serde_json::Value;

use super::Generated;
use super::model::{Action, Field, Kind, Model, Record};
use super::text::{snake, wrapped};

const NOTE: &str = "# Generated from the catalog by `make clients`; do not edit.\n";
const WIDTH: usize = 104;

/// The files of this client.
pub fn files(model: &Model) -> Vec<Generated> {
    let place = |path, content| Generated { path, content };
    vec![
        place("python/src/blockhost_root_agent/_types.py", types(model)),
        place(
            "python/src/blockhost_root_agent/_actions.py",
            methods(model, &SYNC),
        ),
        place(
            "python/src/blockhost_root_agent/_functions.py",
            functions(model, &SYNC),
        ),
        place(
            "python/src/blockhost_root_agent/_aio_actions.py",
            methods(model, &ASYNC),
        ),
        place(
            "python/src/blockhost_root_agent/_aio_functions.py",
            functions(model, &ASYNC),
        ),
    ]
}

/// What differs between the blocking client and that of asyncio.
struct Flavour {
    class: &'static str,
    client: &'static str,
    define: &'static str,
    wait: &'static str,
    what: &'static str,
}

const SYNC: Flavour = Flavour {
    class: "Actions",
    client: "_client",
    define: "def",
    wait: "",
    what: "function",
};

const ASYNC: Flavour = Flavour {
    class: "AsyncActions",
    client: "_aio_client",
    define: "async def",
    wait: "await ",
    what: "coroutine",
};

fn types(model: &Model) -> String {
    let mut out = format!(
        "{NOTE}\"\"\"Types of parameters and answers, and what the catalog says in numbers.\"\"\"\n\n\
         from __future__ import annotations\n\n\
         from collections.abc import Mapping, Sequence\n\
         from typing import Any, Dict, Literal, Tuple, TypedDict, Union\n\n"
    );
    let codes: Vec<String> = model
        .codes
        .iter()
        .map(|code| format!("    \"{code}\",\n"))
        .collect();
    let _ = write!(
        out,
        "ErrorCode = Literal[\n{0}]\n\n#: Every code that an answer may carry.\nERROR_CODES: Tuple[ErrorCode, ...] = (\n{0})\n",
        codes.concat()
    );
    out.push_str("\n#: The longest that each action may run, in seconds.\nTIME_LIMITS_S: Dict[str, int] = {\n");
    for action in &model.actions {
        let _ = writeln!(out, "    \"{}\": {},", action.name, action.time_limit_s);
    }
    out.push_str("}\n");
    out.push_str(REPLY);
    let mut names = vec![
        "ERROR_CODES",
        "ErrorCode",
        "Receipt",
        "Reply",
        "TIME_LIMITS_S",
    ];
    for record in &model.records {
        typed_dict(&mut out, record);
        names.push(&record.name);
    }
    let replies: Vec<(String, &Action)> = model
        .actions
        .iter()
        .filter(|action| !action.returns.is_empty())
        .map(|action| (action.reply(), action))
        .collect();
    for (name, action) in &replies {
        reply(&mut out, name, action);
        names.push(name);
    }
    names.sort_unstable();
    export(&mut out, &names);
    out
}

const REPLY: &str = r#"

class Receipt(TypedDict):
    """Where the ledger holds what happened."""

    #: Leaf index, from 0.
    index: int
    #: Leaf hash of RFC 6962, 64 hex digits.
    leaf: str


class _ReplyAlways(TypedDict):
    ok: Literal[True]
    #: Text for people, or JSON where the action says so.
    output: str


class Reply(_ReplyAlways, total=False):
    """A success."""

    id: str
    receipt: Receipt
    #: The output was too long for one answer and is cut.
    truncated: bool
"#;

fn typed_dict(out: &mut String, record: &Record) {
    let usable = |field: &Field| is_identifier(&field.name);
    if !record.fields.iter().all(usable) {
        // Keys that Python's syntax has no place for: the other way of writing it, in which all may be missing.
        let _ = write!(
            out,
            "\n\n{0} = TypedDict(\n    \"{0}\",\n    {{\n",
            record.name
        );
        for field in &record.fields {
            let _ = writeln!(
                out,
                "        \"{}\": \"{}\",",
                field.name,
                annotation(&field.kind, "")
            );
        }
        out.push_str("    },\n    total=False,\n)\n");
        return;
    }
    let (always, sometimes): (Vec<&Field>, Vec<&Field>) =
        record.fields.iter().partition(|field| field.required);
    if sometimes.is_empty() {
        class(out, &record.name, "TypedDict", &always);
    } else if always.is_empty() {
        class(out, &record.name, "TypedDict, total=False", &sometimes);
    } else {
        let base = format!("_{}Always", record.name);
        class(out, &base, "TypedDict", &always);
        class(
            out,
            &record.name,
            &format!("{base}, total=False"),
            &sometimes,
        );
    }
}

fn reply(out: &mut String, name: &str, action: &Action) {
    let (always, sometimes): (Vec<&Field>, Vec<&Field>) =
        action.returns.iter().partition(|field| field.required);
    if sometimes.is_empty() {
        class(out, name, "Reply", &always);
    } else {
        let base = format!("_{name}Always");
        class(out, &base, "Reply", &always);
        class(out, name, &format!("{base}, total=False"), &sometimes);
    }
}

fn class(out: &mut String, name: &str, bases: &str, fields: &[&Field]) {
    let _ = write!(out, "\n\nclass {name}({bases}):\n");
    if fields.is_empty() {
        out.push_str("    pass\n");
    }
    for field in fields {
        for line in wrapped(&field.summary, WIDTH) {
            let _ = writeln!(out, "    #: {line}");
        }
        let _ = writeln!(out, "    {}: {}", field.name, annotation(&field.kind, ""));
    }
}

fn methods(model: &Model, flavour: &Flavour) -> String {
    let mut out = format!(
        "{NOTE}\"\"\"One method per action of the catalog. The client they are methods of brings the connection.\"\"\"\n\n\
         from __future__ import annotations\n\n\
         from collections.abc import Mapping, Sequence\n\
         from typing import Any, Dict, Literal, Optional, Union\n\n\
         from . import _types as t\n\n\n\
         class {}:\n    \"\"\"The actions of the root agent.\n\n    \
         ``call_timeout`` is how long to wait for the answer, in seconds; without it what the action may take. With\n    \
         ``dry_run`` the agent checks and authorises, and says what it would do; fields of the action are then missing.\n    \"\"\"\n\n    \
         {} _invoke(\n        self, action: str, params: Dict[str, Any], call_timeout: Optional[float], dry_run: bool\n    ) -> Any:\n        \
         raise NotImplementedError\n",
        flavour.class, flavour.define
    );
    for action in &model.actions {
        method(&mut out, action, flavour);
    }
    out
}

fn method(out: &mut String, action: &Action, flavour: &Flavour) {
    let _ = write!(
        out,
        "\n    {} {}(\n        self,\n",
        flavour.define,
        identifier(action.name)
    );
    let mut by_name_only = false;
    for param in &action.params {
        if !param.required && !by_name_only {
            by_name_only = true;
            out.push_str("        *,\n");
        }
        let name = identifier(&param.name);
        let kind = annotation(&param.kind, "t.");
        let _ = if param.required {
            writeln!(out, "        {name}: {kind},")
        } else {
            writeln!(out, "        {name}: Optional[{kind}] = None,")
        };
    }
    if !by_name_only {
        out.push_str("        *,\n");
    }
    let reply = format!("t.{}", action.reply());
    let _ = write!(
        out,
        "        call_timeout: Optional[float] = None,\n        dry_run: bool = False,\n    ) -> {reply}:\n"
    );
    docstring(out, action);
    let params: Vec<String> = action
        .params
        .iter()
        .map(|param| format!("\"{}\": {}", param.name, identifier(&param.name)))
        .collect();
    let _ = write!(
        out,
        "        reply: {reply} = {}self._invoke(\n            \"{}\", {{{}}}, call_timeout, dry_run\n        )\n        return reply\n",
        flavour.wait,
        action.name,
        params.join(", ")
    );
}

fn docstring(out: &mut String, action: &Action) {
    let mut lines = wrapped(&action.summary, WIDTH);
    if action.read_only {
        lines.push("Changes nothing.".to_owned());
    }
    let mut about: Vec<String> = Vec::new();
    for param in &action.params {
        let default = param
            .default
            .as_ref()
            .map_or_else(String::new, |default| format!(" Without it `{default}`."));
        let text = format!(
            ":param {}: {}{default}",
            identifier(&param.name),
            param.summary
        );
        about.extend(wrapped(&text, WIDTH));
    }
    if !about.is_empty() {
        lines.push(String::new());
        lines.extend(about);
    }
    let text = lines
        .join("\n")
        .replace('\\', "\\\\")
        .replace("\"\"\"", "'''");
    out.push_str("        \"\"\"");
    for (number, line) in text.lines().enumerate() {
        let indent = if number == 0 || line.is_empty() {
            ""
        } else {
            "        "
        };
        let _ = writeln!(out, "{indent}{line}");
    }
    if text.lines().count() == 1 {
        out.pop();
        out.push_str("\"\"\"\n");
    } else {
        out.push_str("        \"\"\"\n");
    }
}

fn functions(model: &Model, flavour: &Flavour) -> String {
    let mut out = format!(
        "{NOTE}\"\"\"One {} per action of the catalog, on a client that all of them share.\"\"\"\n\n\
         from __future__ import annotations\n\n\
         from .{} import default_client\n\n",
        flavour.what, flavour.client
    );
    let names: Vec<String> = model
        .actions
        .iter()
        .map(|action| identifier(action.name))
        .collect();
    for name in &names {
        let _ = writeln!(out, "{name} = default_client.{name}");
    }
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    export(&mut out, &sorted);
    out
}

fn export(out: &mut String, names: &[&str]) {
    out.push_str("\n__all__ = [\n");
    for name in names {
        let _ = writeln!(out, "    \"{name}\",");
    }
    out.push_str("]\n");
}

/// The type; `module` stands before the names of records.
fn annotation(kind: &Kind, module: &str) -> String {
    match kind {
        Kind::Text => "str".to_owned(),
        Kind::Integer => "int".to_owned(),
        Kind::Number => "float".to_owned(),
        Kind::Flag => "bool".to_owned(),
        Kind::Choice(values) => {
            let values: Vec<String> = values.iter().map(literal).collect();
            format!("Literal[{}]", values.join(", "))
        }
        Kind::List(inner) => format!("Sequence[{}]", annotation(inner, module)),
        Kind::Map(inner) => format!("Mapping[str, {}]", annotation(inner, module)),
        Kind::Record(name) => format!("{module}{name}"),
        Kind::Either(kinds) => {
            let kinds: Vec<String> = kinds.iter().map(|kind| annotation(kind, module)).collect();
            format!("Union[{}]", kinds.join(", "))
        }
        Kind::Any => "Any".to_owned(),
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Null => "None".to_owned(),
        other => other.to_string(),
    }
}

/// A name as Python can have it.
fn identifier(name: &str) -> String {
    let name = snake(name);
    if is_identifier(&name) {
        name
    } else {
        format!("{name}_")
    }
}

fn is_identifier(name: &str) -> bool {
    const KEYWORDS: &[&str] = &[
        "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
        "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is",
        "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while", "with",
        "yield",
    ];
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !KEYWORDS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parameter of one of these names could not be told from what the call itself takes.
    #[test]
    fn no_parameter_hides_what_a_call_takes() {
        for action in Model::of_catalog().actions {
            for param in &action.params {
                let name = identifier(&param.name);
                assert!(
                    !["self", "call_timeout", "dry_run", "params"].contains(&name.as_str()),
                    "{} {name}",
                    action.name
                );
            }
        }
    }

    #[test]
    fn a_keyword_is_no_name() {
        assert_eq!(identifier("from"), "from_");
        assert_eq!(identifier("ip6-route-add"), "ip6_route_add");
        assert!(!is_identifier("dl-type") && !is_identifier("6to4"));
    }
}
