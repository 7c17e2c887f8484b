//! A record as people read it: an operation is its intent and its outcome together, joined by `op_id`. For `show` and
//! the view of `watch`; everything is escaped.

use super::text::{field, grouped, moment, printable, span};
use crate::merkle::{hex, leaf_hash};
use crate::reader::{ReadError, Reader};
use serde_json::Value;

/// How far an outcome is looked for behind its intent, and an intent before its outcome.
const FAR: u64 = 20_000;

/// One line: what, and how it is. An empty name continues the line before.
pub(super) type Line = (String, String);

/// A record, and the one that belongs to it.
#[derive(Debug)]
pub(super) struct Story {
    /// Height of the record that was asked for.
    pub height: u64,
    record: Value,
    hash: String,
    /// Intent or outcome of the same operation: height and record.
    pub other: Option<(u64, Value)>,
}

/// The record at `height` and its partner.
///
/// # Errors
/// No such record.
pub(super) fn story(reader: &Reader, height: u64) -> Result<Story, ReadError> {
    let bytes = reader.get(height - 1)?;
    let record: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut story = Story {
        height,
        hash: hex(&leaf_hash(&bytes)),
        record,
        other: None,
    };
    story.other = match story.record["phase"].as_str() {
        Some("intent") => {
            let last = reader.size().min(height.saturating_add(FAR));
            partner(reader, &story.record, "outcome", height..last)?
        }
        Some("outcome") => {
            let first = height.saturating_sub(1 + FAR);
            partner(reader, &story.record, "intent", (first..height - 1).rev())?
        }
        _ => None,
    };
    Ok(story)
}

fn partner(
    reader: &Reader,
    record: &Value,
    phase: &str,
    indexes: impl Iterator<Item = u64>,
) -> Result<Option<(u64, Value)>, ReadError> {
    let Some(op_id) = record["op_id"].as_str().filter(|op| !op.is_empty()) else {
        return Ok(None);
    };
    // Most records need not be parsed to see that they are another operation's.
    let quoted = format!("\"op_id\":\"{op_id}\"");
    for index in indexes {
        let bytes = reader.get(index)?;
        if !memmem(&bytes, quoted.as_bytes()) {
            continue;
        }
        let other: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if other["phase"] == phase && other["op_id"] == record["op_id"] {
            return Ok(Some((index + 1, other)));
        }
    }
    Ok(None)
}

fn memmem(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

impl Story {
    /// What happened, in a line.
    pub fn title(&self) -> String {
        let resource = field(&self.record, "resource");
        let on = if resource.is_empty() {
            String::new()
        } else {
            format!(" {resource}")
        };
        format!("{}{on}", field(&self.record, "action"))
    }

    /// The record as it is, with its hash and with its partner, for programs.
    pub fn json(&self) -> Value {
        let mut value = self.record.clone();
        value["hash"] = self.hash.clone().into();
        if let Some((_, other)) = &self.other {
            let name = other["phase"].as_str().unwrap_or("other").to_owned();
            value[name] = other.clone();
        }
        value
    }

    /// Line by line; `now_us` for how long ago.
    pub fn lines(&self, now_us: i64) -> Vec<Line> {
        let is_outcome = self.record["phase"] == "outcome";
        let (intent, outcome) = match (&self.other, is_outcome) {
            (Some((height, other)), true) => {
                (Some((*height, other)), Some((self.height, &self.record)))
            }
            (None, true) => (None, Some((self.height, &self.record))),
            (other, false) => (
                Some((self.height, &self.record)),
                other.as_ref().map(|(height, other)| (*height, other)),
            ),
        };
        let mut lines = Vec::new();
        let mut line = |name: &str, text: String| {
            if !text.is_empty() {
                lines.push((name.to_owned(), text));
            }
        };
        let main = intent
            .or(outcome)
            .map_or(&self.record, |(_, record)| record);
        line("what", self.title());
        line("who", who(main));
        let operation = [
            field(main, "category"),
            field(main, "operation"),
            field(main, "plugin_id"),
        ];
        line("kind", operation.join(" · "));
        line("op", field(main, "op_id"));
        line("host", field(main, "hostname"));
        for (word, part) in [("begun", intent), ("ended", outcome)] {
            let Some((height, record)) = part else {
                continue;
            };
            let ts_us = record["ts_us"].as_i64().unwrap_or_default();
            let phase = field(record, "phase");
            let word = if matches!(&*phase, "intent" | "outcome") {
                word
            } else {
                &phase
            };
            let ago = span(now_us.saturating_sub(ts_us));
            line(
                word,
                format!("{}, {ago} ago, record {}", moment(ts_us), grouped(height)),
            );
            if phase == "outcome" {
                line("result", result(&record["metadata"]));
            }
            let mut details = Vec::new();
            flatten(&record["metadata"], "", &mut details);
            let told = ["result", "code", "error", "duration_us"];
            details.retain(|(name, _)| phase != "outcome" || !told.contains(&name.as_str()));
            for (name, text) in details {
                line(&format!("  {name}"), text);
            }
        }
        if outcome.is_none() && self.record["phase"] == "intent" {
            line("ended", "not yet, or the outcome is far behind".to_owned());
        }
        line("hash", self.hash.clone());
        line("before", field(&self.record, "prev_hash"));
        lines
    }
}

fn who(record: &Value) -> String {
    let mut text = field(record, "user");
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!(", {name} {value}"));
        }
    };
    add(
        "uid",
        record["uid"]
            .as_u64()
            .map(|n| n.to_string())
            .unwrap_or_default(),
    );
    add(
        "pid",
        record["pid"]
            .as_i64()
            .map(|n| n.to_string())
            .unwrap_or_default(),
    );
    add("program", field(record, "exe"));
    add("unit", field(record, "unit"));
    text
}

fn result(metadata: &Value) -> String {
    let mut text = field(metadata, "result");
    for name in ["code", "error"] {
        let more = field(metadata, name);
        if !more.is_empty() {
            text.push_str(if name == "code" { ", " } else { ": " });
            text.push_str(&more);
        }
    }
    if let Some(us) = metadata["duration_us"].as_i64() {
        text.push_str(&format!(", took {}", span(us)));
    }
    text
}

/// `a.b: text` for everything in the details. Records are bounded, so this is.
fn flatten(value: &Value, path: &str, lines: &mut Vec<Line>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let name = printable(name);
                let path = if path.is_empty() {
                    name
                } else {
                    format!("{path}.{name}")
                };
                flatten(value, &path, lines);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (at, item) in items.iter().enumerate() {
                flatten(item, &format!("{path}[{at}]"), lines);
            }
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(scalar).collect();
            lines.push((path.to_owned(), items.join(", ")));
        }
        Value::Null if path.is_empty() => {}
        Value::Object(_) if path.is_empty() => {}
        other => lines.push((path.to_owned(), scalar(other))),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}
