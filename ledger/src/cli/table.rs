//! Records as lines: a table that fits the terminal, or one JSON object each with the record's exact fields and hash.

use super::text::{field, time};
use crate::merkle::hex;
use crate::query::Found;
use serde_json::Value;
use std::io::{IsTerminal as _, Write};

/// Widest a column gets before its text is cut on a terminal.
const WIDEST: usize = 32;
const HEADINGS: [&str; 7] = [
    "HEIGHT", "TIME", "PHASE", "CATEGORY", "ACTION", "RESOURCE", "USER",
];

/// One JSON object a line: the record's own bytes with `hash` behind.
pub(super) fn print_json(out: &mut dyn Write, found: &[Found]) -> std::io::Result<()> {
    for found in found {
        let open = found.record.strip_suffix(b"}").unwrap_or(&found.record);
        out.write_all(open)?;
        writeln!(out, ",\"hash\":\"{}\"}}", hex(&found.hash))?;
    }
    Ok(())
}

/// A table. On a terminal no line is wider than it; anywhere else nothing is cut.
pub(super) fn print(out: &mut dyn Write, found: &[Found]) -> std::io::Result<()> {
    let width = std::io::stdout()
        .is_terminal()
        .then(|| ratatui::crossterm::terminal::size().map_or(80, |(columns, _)| columns.into()));
    let rows: Vec<_> = found.iter().map(row).collect();
    for line in lines(&rows, width) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn row(found: &Found) -> [String; 7] {
    let record: Value = serde_json::from_slice(&found.record).unwrap_or_default();
    [
        found.height.to_string(),
        time(&record),
        field(&record, "phase"),
        field(&record, "category"),
        field(&record, "action"),
        field(&record, "resource"),
        field(&record, "user"),
    ]
}

fn lines(rows: &[[String; 7]], width: Option<usize>) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let headings = HEADINGS.map(str::to_owned);
    let all = || std::iter::once(&headings).chain(rows);
    let mut widths = [0; 7];
    for row in all() {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(cell.chars().count());
        }
    }
    if width.is_some() {
        for widest in &mut widths {
            *widest = (*widest).min(WIDEST);
        }
    }
    all()
        .map(|row| {
            let mut line = String::new();
            for (at, (cell, widest)) in row.iter().zip(widths).enumerate() {
                let cell = cut(cell, if width.is_some() { widest } else { usize::MAX });
                match at {
                    0 => line.push_str(&format!("{cell:>widest$}")),
                    _ => line.push_str(&format!("  {cell:<widest$}")),
                }
            }
            cut(line.trim_end(), width.unwrap_or(usize::MAX))
        })
        .collect()
}

/// At most `width` characters, the last of them a mark when something was left out.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_the_terminal_and_a_file_gets_everything() {
        let mut row = HEADINGS.map(|heading| heading.to_lowercase());
        row[5] = "r".repeat(300);
        for width in [1, 20, 80, 200] {
            let lines = lines(std::slice::from_ref(&row), Some(width));
            assert_eq!(lines.len(), 2);
            assert!(
                lines.iter().all(|line| line.chars().count() <= width),
                "{lines:?}"
            );
        }
        assert!(lines(&[row], None)[1].contains(&"r".repeat(300)));
        assert!(lines(&[], None).is_empty());
    }
}
