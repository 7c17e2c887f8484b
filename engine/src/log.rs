//! Log lines on stderr: one line each, `key=value`, with the priority prefix that the journal understands when it
//! listens. Values are escaped, so that nothing from the chain or a command can forge a line.

use std::fmt::{Display, Write};
use std::sync::OnceLock;

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Somebody has to look.
    Error,
    /// Goes on, but not as it should.
    Warn,
    /// What happens.
    Info,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
        }
    }

    /// Priority of syslog.
    fn priority(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warn => 4,
            Self::Info => 6,
        }
    }
}

/// Writes one line.
pub fn line(level: Level, message: &str, fields: &[(&str, &dyn Display)]) {
    static JOURNAL: OnceLock<bool> = OnceLock::new();
    let journal = *JOURNAL.get_or_init(|| std::env::var_os("JOURNAL_STREAM").is_some());
    let mut text = String::new();
    if journal {
        let _ = write!(text, "<{}>", level.priority());
    } else {
        // The journal has its own clock.
        let _ = write!(text, "ts={:.3} ", jiff::Timestamp::now());
    }
    text.push_str(&format_fields(level, message, fields));
    eprintln!("{text}");
}

/// Writes a line of level info.
pub fn info(message: &str, fields: &[(&str, &dyn Display)]) {
    line(Level::Info, message, fields);
}

/// Writes a line of level warn.
pub fn warn(message: &str, fields: &[(&str, &dyn Display)]) {
    line(Level::Warn, message, fields);
}

/// Writes a line of level error.
pub fn error(message: &str, fields: &[(&str, &dyn Display)]) {
    line(Level::Error, message, fields);
}

fn format_fields(level: Level, message: &str, fields: &[(&str, &dyn Display)]) -> String {
    let mut text = format!("level={} msg={}", level.name(), quoted(message));
    for (key, value) in fields {
        let _ = write!(text, " {key}={}", quoted(&value.to_string()));
    }
    text
}

fn quoted(value: &str) -> String {
    let plain = !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'='));
    if plain {
        value.to_owned()
    } else {
        format!("\"{}\"", value.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_a_newline_cannot_forge_a_line() {
        let line = format_fields(
            Level::Info,
            "seen",
            &[
                ("plan", &"x\nlevel=error msg=forged"),
                ("id", &3),
                ("empty", &""),
            ],
        );
        assert_eq!(
            line,
            r#"level=info msg=seen plan="x\nlevel=error msg=forged" id=3 empty="""#
        );
    }
}
