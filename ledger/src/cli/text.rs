//! How records and times look on a terminal. Everything that comes from a record is escaped here, once.

use serde_json::Value;

/// Nothing that a terminal would obey, or that changes the order of what stands beside it.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() || is_invisible(c) {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

/// Marks that reorder, hide or join text: a record could otherwise look like another one.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text field of a record, printable; empty when it is not there.
pub(super) fn field(record: &Value, key: &str) -> String {
    printable(record[key].as_str().unwrap_or_default())
}

/// When a record was written, UTC.
pub(super) fn time(record: &Value) -> String {
    let seconds = record["timestamp"].as_i64().unwrap_or_default();
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(printable("a\u{1b}[2J\u{9b}b"), "a\\u{1b}[2J\\u{9b}b");
    }

    #[test]
    fn what_would_reorder_or_hide_text_is_escaped() {
        assert_eq!(
            printable("vm\u{202e}001\u{200b}é"),
            "vm\\u{202e}001\\u{200b}é"
        );
    }
}
