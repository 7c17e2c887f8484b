//! `watch` without a terminal: a line for each record as it is committed, for people or as JSON for programs.

use super::super::context::Failure;
use super::super::text::{field, moment, printable};
use super::model::Model;
use crate::follow::{Followed, Follower};
use crate::merkle::hex;
use serde_json::{Value, json};
use std::io::Write;

pub(super) struct Printer {
    pub json: bool,
    /// Only lines with all of these words.
    pub filter: String,
}

impl Printer {
    /// Prints what is committed until `go_on`, which waits between two looks, says no.
    pub fn follow(
        &self,
        out: &mut dyn Write,
        follower: &mut Follower,
        model: &mut Model,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Failure> {
        let mut alarm = None;
        while go_on() {
            for followed in follower.poll().unwrap_or_default() {
                let first = model.learn(&followed, false);
                self.print(out, &followed, first)?;
            }
            let now = follower.alarm().map(printable);
            if now != alarm {
                self.alarm(out, now.as_deref())?;
                alarm = now;
            }
            out.flush()?;
        }
        Ok(())
    }

    /// One record.
    pub fn print(
        &self,
        out: &mut dyn Write,
        followed: &Followed,
        first: Option<&str>,
    ) -> Result<(), Failure> {
        let record: Value = serde_json::from_slice(&followed.bytes).unwrap_or_default();
        let metadata = &record["metadata"];
        let line = format!(
            "{:>7}  {}  {:<8}  {:<20}  {:<18}  {:<12}  {}{}",
            followed.index + 1,
            moment(record["ts_us"].as_i64().unwrap_or_default()),
            field(&record, "phase"),
            field(&record, "action"),
            field(&record, "resource"),
            field(&record, "user"),
            [field(metadata, "result"), field(metadata, "code")]
                .join(" ")
                .trim(),
            first.map_or(String::new(), |first| format!("  [{first}]")),
        );
        if !self
            .filter
            .split_whitespace()
            .all(|word| line.contains(word))
        {
            return Ok(());
        }
        if !self.json {
            return Ok(writeln!(out, "{}", line.trim_end())?);
        }
        let mut value = record;
        value["hash"] = hex(&followed.leaf).into();
        if let Some(first) = first {
            value["first"] = first.into();
        }
        Ok(writeln!(out, "{}", ascii(&value.to_string()))?)
    }

    fn alarm(&self, out: &mut dyn Write, alarm: Option<&str>) -> Result<(), Failure> {
        match (self.json, alarm) {
            (true, alarm) => writeln!(out, "{}", json!({"alarm": alarm}))?,
            (false, Some(alarm)) => writeln!(out, "ALARM  {alarm}")?,
            (false, None) => writeln!(out, "good again: the log is the one that was followed")?,
        }
        Ok(())
    }
}

/// The same JSON in ASCII: a terminal obeys U+009B as well, which JSON does not escape.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut units = [0; 2];
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: bool, filter: &str, record: &Value, first: Option<&str>) -> String {
        let printer = Printer {
            json,
            filter: filter.to_owned(),
        };
        let followed = Followed {
            index: 41,
            leaf: [7; 32],
            bytes: record.to_string().into_bytes(),
        };
        let mut out = Vec::new();
        printer.print(&mut out, &followed, first).expect("prints");
        String::from_utf8(out).expect("text")
    }

    fn hostile() -> Value {
        json!({"height": 42, "phase": "event", "action": "a\u{1b}]0;owned\u{7}", "resource": "\u{9b}2J\u{7f}",
            "user": "eve\nroot  ok", "ts_us": 1, "metadata": {"result": "\u{202e}ko", "note": "é𝄞"}})
    }

    #[test]
    fn nothing_in_a_record_reaches_the_terminal_as_a_command() {
        for json in [false, true] {
            let line = printed(json, "", &hostile(), Some("new user"));
            let inner = line.strip_suffix('\n').expect("one line");
            assert!(
                !inner.chars().any(|c| c.is_control() || c == '\u{202e}'),
                "{line:?}"
            );
        }
    }

    #[test]
    fn json_lines_say_what_the_record_says_and_its_hash() {
        let value: Value =
            serde_json::from_str(&printed(true, "", &hostile(), Some("new user"))).expect("JSON");
        assert_eq!(value["hash"], "07".repeat(32));
        assert_eq!(
            (&value["first"], &value["metadata"]["note"]),
            (&json!("new user"), &json!("é𝄞"))
        );
    }

    #[test]
    fn a_filter_needs_all_of_its_words() {
        let record = json!({"action": "qm-destroy", "resource": "vm:7", "user": "root"});
        assert!(printed(false, "destroy vm:7", &record, None).contains("qm-destroy"));
        assert_eq!(printed(false, "destroy vm:8", &record, None), "");
    }
}
