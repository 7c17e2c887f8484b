//! Plans and reports as text: + what is made, ~ what is changed and how, - what is deleted. Colours only for people.

use std::io::IsTerminal as _;

use blockhost_proto::escape::shown_up_to;
use serde_json::Value;

use crate::state::change::{Change, FieldChange};
use crate::state::{ApplyReport, DiffReport, Fate, Outcome, QueryReport, Verdict};

/// Whether there are colours.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Paint(bool);

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const FAINT: &str = "2";

impl Paint {
    /// For a terminal whose user did not ask for none (<https://no-color.org>).
    pub(in crate::cli) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !unwanted)
    }

    fn with(self, colour: &str, text: &str) -> String {
        if self.0 {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A value in one line. Texts of others are escaped.
fn value(value: &Value) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => format!("\"{}\"", shown_up_to(text, 120)),
        other => shown_up_to(&other.to_string(), 120),
    }
}

fn mark(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Create => ("+", GREEN),
        Verdict::Modify => ("~", YELLOW),
        Verdict::Delete => ("-", RED),
        Verdict::NoOp => (" ", FAINT),
    }
}

fn field(change: &FieldChange, verdict: Verdict, width: usize) -> String {
    let name = &change.field;
    match verdict {
        Verdict::Create => format!("{name:width$} = {}", value(&change.to)),
        Verdict::Delete => format!("{name:width$} = {}", value(&change.from)),
        _ => format!(
            "{name:width$} : {} -> {}",
            value(&change.from),
            value(&change.to)
        ),
    }
}

/// One resource of a plan.
fn lines(change: &Change, paint: Paint) -> Vec<String> {
    let (sign, colour) = mark(change.verdict);
    let mut lines = vec![paint.with(colour, &format!("{sign} {}", change.resource))];
    let width = change
        .fields
        .iter()
        .map(|f| f.field.len())
        .max()
        .unwrap_or(0);
    for one in &change.fields {
        lines.push(paint.with(
            colour,
            &format!("    {sign} {}", field(one, change.verdict, width)),
        ));
    }
    if let Some(why) = &change.blocked {
        lines.push(paint.with(
            RED,
            &format!("    ! cannot be done: {}", shown_up_to(why, 600)),
        ));
    }
    for step in &change.steps {
        let line = format!("      {} ({})", step.say, step.action.name());
        lines.push(paint.with(FAINT, &line));
    }
    for note in &change.notes {
        lines.push(paint.with(FAINT, &format!("      {}", shown_up_to(note, 400))));
    }
    lines
}

/// A plan.
pub(in crate::cli) fn plan(report: &DiffReport, paint: Paint, what: &str) {
    for change in &report.changes {
        for line in lines(change, paint) {
            say!("{line}");
        }
        say!();
    }
    for error in &report.errors {
        let text = shown_up_to(&error.error, 600);
        say!(
            "{}",
            paint.with(
                RED,
                &format!("! {} cannot be looked at: {text}", error.plugin)
            )
        );
    }
    let counts = &report.counts;
    if report.is_empty() {
        say!(
            "{what} and this host agree: {} as they should be.",
            counts.unchanged
        );
        return;
    }
    let blocked = if counts.blocked > 0 {
        format!(" {} of these cannot be done.", counts.blocked)
    } else {
        String::new()
    };
    say!(
        "{} to create, {} to change, {} to delete, {} as they should be.{blocked}",
        counts.create,
        counts.modify,
        counts.delete,
        counts.unchanged
    );
}

/// One resource of an apply, as it ends.
pub(in crate::cli) fn outcome(outcome: &Outcome, paint: Paint) {
    let (sign, colour) = mark(outcome.verdict);
    match outcome.fate {
        Fate::Done => say!(
            "{}",
            paint.with(colour, &format!("{sign} {}", outcome.resource))
        ),
        fate => {
            let what = match fate {
                Fate::RolledBack => "failed and taken back",
                Fate::Failed => "failed, and not all of it is taken back",
                Fate::Blocked => "cannot be done",
                _ => "left out",
            };
            say!(
                "{}",
                paint.with(RED, &format!("! {}: {what}", outcome.resource))
            );
        }
    }
    for step in &outcome.steps {
        say!("      {}", shown_up_to(step, 400));
    }
    if let Some(error) = &outcome.error {
        say!(
            "{}",
            paint.with(RED, &format!("    ! {}", shown_up_to(error, 800)))
        );
    }
    for rest in &outcome.remains {
        say!(
            "{}",
            paint.with(RED, &format!("    ! remains: {}", shown_up_to(rest, 400)))
        );
    }
    for remark in &outcome.remarks {
        say!(
            "{}",
            paint.with(FAINT, &format!("      {}", shown_up_to(remark, 400)))
        );
    }
}

/// The end of an apply.
pub(in crate::cli) fn applied(report: &ApplyReport) {
    for note in &report.notes {
        say!("  {}", shown_up_to(note, 400));
    }
    for error in &report.errors {
        say!("! {}: {}", error.plugin, shown_up_to(&error.error, 600));
    }
    let done = report
        .outcomes
        .iter()
        .filter(|o| o.fate == Fate::Done)
        .count();
    let rest = report.outcomes.len() - done;
    let unchanged = report.counts.unchanged;
    if report.outcomes.is_empty() && report.errors.is_empty() {
        say!("Nothing to do: {unchanged} as they should be.");
    } else if rest == 0 && report.errors.is_empty() {
        say!("Done: {done} changed, {unchanged} were as they should be.");
    } else {
        say!(
            "{done} changed, {rest} not, {unchanged} were as they should be. Run it again when the cause is gone."
        );
    }
    for footprint in &report.footprints {
        if let Some(index) = footprint.index {
            say!("  {} is record {index} of the ledger", footprint.plugin);
        }
    }
}

/// What there is.
pub(super) fn query(report: &QueryReport) {
    for (plugin, resources) in &report.plugins {
        say!("{plugin}");
        for (id, about) in resources {
            say!("  {}", shown_up_to(id, 80));
            tree(about, 4);
        }
    }
    for error in &report.errors {
        say!(
            "! {} cannot be looked at: {}",
            error.plugin,
            shown_up_to(&error.error, 600)
        );
    }
}

fn tree(about: &Value, indent: usize) {
    let Value::Object(map) = about else {
        return;
    };
    for (key, inner) in map {
        let key = shown_up_to(key, 80);
        match inner {
            Value::Null => {}
            Value::Object(_) => {
                say!("{:indent$}{key}", "");
                tree(inner, indent + 2);
            }
            other => say!("{:indent$}{key}: {}", "", value(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::change::ResourceRef;
    use serde_json::json;

    fn change(verdict: Verdict, from: Value, to: Value) -> Change {
        Change {
            resource: ResourceRef::new("lxc", "100"),
            verdict,
            fields: vec![FieldChange::new("properties.memory", from, to)],
            steps: Vec::new(),
            notes: Vec::new(),
            blocked: None,
            needs: Vec::new(),
            after: Vec::new(),
            awaits: Vec::new(),
            wanted: None,
            ours: true,
            watched: false,
        }
    }

    #[test]
    fn a_plan_shows_what_is_made_what_changes_and_what_goes() {
        let text = |verdict, from, to| lines(&change(verdict, from, to), Paint(false)).join("\n");
        assert_eq!(
            text(Verdict::Create, Value::Null, json!(512)),
            "+ lxc/100\n    + properties.memory = 512"
        );
        assert_eq!(
            text(Verdict::Modify, json!("256"), json!("512")),
            "~ lxc/100\n    ~ properties.memory : \"256\" -> \"512\""
        );
        assert_eq!(
            text(Verdict::Delete, json!(512), Value::Null),
            "- lxc/100\n    - properties.memory = 512"
        );
    }

    #[test]
    fn colours_are_for_people_and_texts_of_others_never_reach_the_terminal_raw() {
        let hostile = change(Verdict::Modify, json!("\u{1b}[2Jx\n"), json!(1));
        let plain = lines(&hostile, Paint(false)).join("");
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
        let painted = lines(&hostile, Paint(true)).join("");
        assert!(
            painted.contains("\u{1b}[33m") && !painted.contains("[2J\u{0}"),
            "{painted:?}"
        );
        assert!(!painted.contains("\u{1b}[2J"));
    }
}
