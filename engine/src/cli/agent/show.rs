//! What `blockhost agent` prints for people: the catalog, one action, an answer.

use std::fmt::Write as _;

use blockhost_proto::catalog::{self, ActionSpec, CATALOG, ParamSpec};
use blockhost_proto::client::Reply;
use serde_json::{Map, Value};

/// All actions by family, one line each.
pub fn catalog() -> String {
    let mut out = String::new();
    let width = CATALOG
        .iter()
        .map(|spec| spec.name.len())
        .max()
        .unwrap_or(0);
    for family in catalog::families() {
        let _ = writeln!(out, "{family}");
        for spec in CATALOG.iter().filter(|spec| spec.family == family) {
            let summary = first_sentence(spec.summary);
            let _ = writeln!(out, "  {:width$}  {summary}", spec.name);
        }
    }
    out.push_str("\n`blockhost agent catalog ACTION` shows what one takes and answers.");
    out
}

/// The catalog's entry of one action.
pub fn as_json(spec: &ActionSpec) -> Value {
    let all = catalog::to_json();
    let entry = all["actions"]
        .as_array()
        .and_then(|actions| actions.iter().find(|entry| entry["name"] == spec.name));
    entry.cloned().unwrap_or_default()
}

/// Everything about one action.
pub fn action(spec: &ActionSpec) -> String {
    let mut out = format!("{}\n  {}\n\n", spec.name, spec.summary.trim());
    out.push_str(&usage(spec));
    if !spec.returns.is_empty() {
        out.push_str("\n\nanswers\n");
        let rows = spec.returns.iter().map(|field| {
            let kind = words(&(field.schema)());
            let when = if field.optional { ", not always" } else { "" };
            [
                field.name.to_owned(),
                format!("{kind}{when}"),
                field.summary.to_owned(),
            ]
        });
        out.push_str(&table(&rows.collect::<Vec<_>>()));
    }
    let capabilities = if spec.capabilities.is_empty() {
        "without capabilities".to_owned()
    } else {
        format!("with {}", spec.capabilities.join(", "))
    };
    let _ = write!(
        out,
        "\n\nruns in the {} compartment {capabilities}, at most {} s{}",
        spec.compartment,
        spec.time_limit_s,
        if spec.read_only {
            "; changes nothing"
        } else {
            ""
        }
    );
    out
}

/// How an action is called: the line, the parameters, an example.
pub fn usage(spec: &ActionSpec) -> String {
    let mut out = format!("usage: blockhost agent call {}", spec.name);
    for param in spec.params {
        let word = format!("{}={}", param.name, placeholder(param));
        let _ = if param.required {
            write!(out, " {word}")
        } else {
            write!(out, " [{word}]")
        };
    }
    if spec.params.is_empty() {
        return out;
    }
    out.push('\n');
    let rows = spec.params.iter().map(|param| {
        let default = param.default.and_then(|default| default());
        let default = default.map_or_else(String::new, |value| format!(" Without it {value}."));
        let summary = format!("{}{default}", param.summary.trim());
        [param.name.to_owned(), words(&(param.schema)()), summary]
    });
    out.push_str(&table(&rows.collect::<Vec<_>>()));
    let _ = write!(out, "\n\nexample: {}", example(spec));
    out
}

/// The catalog's example as a line that a shell takes.
fn example(spec: &ActionSpec) -> String {
    let mut line = format!("blockhost agent call {}", spec.name);
    let params = spec.example_params();
    for param in spec.params {
        let Some(value) = params.get(param.name) else {
            continue;
        };
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.,:/+".contains(&b);
        if text.bytes().all(plain) {
            let _ = write!(line, " {}={text}", param.name);
        } else {
            let _ = write!(line, " {}='{}'", param.name, text.replace('\'', r"'\''"));
        }
    }
    line
}

fn placeholder(param: &ParamSpec) -> String {
    let schema = (param.schema)();
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        return values.join("|");
    }
    match schema["type"].as_str() {
        Some("integer") => "N",
        Some("boolean") => "true|false",
        Some("array") => "LIST",
        Some("object") => "OBJECT",
        _ => "TEXT",
    }
    .to_owned()
}

/// A schema in a few words.
fn words(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        return values.join(" or ");
    }
    match schema["type"].as_str() {
        Some("integer") => match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
            (Some(least), Some(most)) => format!("{least} to {most}"),
            _ => "number".to_owned(),
        },
        Some("boolean") => "true or false".to_owned(),
        Some("array") => "list".to_owned(),
        Some("object") => "object".to_owned(),
        _ => "text".to_owned(),
    }
}

/// Rows of name, kind and meaning, in columns; no line end at the end.
fn table(rows: &[[String; 3]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    let lines: Vec<String> = rows
        .iter()
        .map(|[name, kind, meaning]| format!("  {name:first$}  {kind:second$}  {meaning}"))
        .collect();
    lines.join("\n")
}

/// The first sentence of a summary, without Markdown's back quotes.
pub fn first_sentence(summary: &str) -> String {
    let summary = summary.trim();
    let end = summary.find(". ").map_or(summary.len(), |at| at + 1);
    summary[..end].replace('`', "")
}

/// Prints a success: its output, then the fields of the action. Where it was recorded goes to standard error, so that a
/// pipe gets the result alone.
pub fn reply(reply: &Reply) {
    let output = indented_json(&reply.output).unwrap_or_else(|| reply.output.clone());
    if !output.is_empty() {
        say!("{}", printable(output.trim_end_matches('\n')));
    }
    print_fields(&reply.extra);
    if reply.extra.get("truncated") == Some(&Value::Bool(true)) {
        eprintln!("blockhost: the output was too long for one answer and is cut");
    }
    if let Some(receipt) = &reply.receipt {
        eprintln!(
            "recorded as leaf {} of the ledger ({})",
            receipt.index, receipt.leaf
        );
    }
}

/// Prints what the agent says about itself; its fields say it all.
pub fn info(reply: &Reply) {
    print_fields(&reply.extra);
}

fn print_fields(fields: &Map<String, Value>) {
    let mut rows = Vec::new();
    flatten("", fields, &mut rows);
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        let value = printable(value.trim_end_matches('\n'));
        if value.contains('\n') {
            say!("{name}");
            for line in value.lines() {
                say!("  {line}");
            }
        } else {
            say!("{}", format!("{name:width$}  {value}").trim_end());
        }
    }
}

fn flatten(prefix: &str, fields: &Map<String, Value>, rows: &mut Vec<(String, String)>) {
    for (name, value) in fields {
        let name = printable(&format!("{prefix}{name}"));
        match value {
            Value::Object(inner) if !inner.is_empty() => flatten(&format!("{name}."), inner, rows),
            Value::String(text) => rows.push((name, text.clone())),
            other => rows.push((name, other.to_string())),
        }
    }
}

/// JSON objects and lists are easier to read indented.
fn indented_json(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    (value.is_object() || value.is_array()).then(|| format!("{value:#}"))
}

/// Text from outside for a terminal: line ends and tabs as they are, every other control character as its number.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_cannot_command_the_terminal() {
        assert_eq!(
            printable("a\u{1b}[2Jb\rc\nd\u{9b}"),
            "a\\u{1b}[2Jb\\u{d}c\nd\\u{9b}"
        );
    }

    #[test]
    fn every_action_shows_all_its_parameters_and_answers_and_an_example() {
        for spec in CATALOG {
            let text = action(spec);
            for param in spec.params {
                assert!(text.contains(&format!("{}=", param.name)), "{text}");
            }
            for field in spec.returns {
                assert!(text.contains(field.name), "{text}");
            }
            assert!(
                text.contains(&format!("blockhost agent call {}", spec.name)),
                "{text}"
            );
            assert!(catalog().contains(spec.name));
            assert_eq!(as_json(spec)["name"], spec.name);
        }
    }

    #[test]
    fn an_example_line_survives_a_shell() {
        let spec = catalog::find("qm-guest-exec").unwrap();
        assert!(example(spec).contains("command='systemctl is-system-running'"));
    }
}
