//! One line per event on standard error: `level process: sentence`. Everything from outside is escaped by the caller
//! through `blockhost_proto::escape`; control characters that slip through are replaced here.

use std::io::Write;
use std::sync::OnceLock;

static SETTINGS: OnceLock<(&'static str, bool)> = OnceLock::new();

/// How much a line matters; the number is syslog's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Somebody has to act.
    Error = 3,
    /// Somebody should look.
    Warning = 4,
    /// Normal life.
    Info = 6,
}

/// Names this process in every line; `journal` adds the `<N>` priority prefix journald reads.
pub fn init(process: &'static str, journal: bool) {
    let _ = SETTINGS.set((process, journal));
}

/// Writes one line.
pub fn line(level: Level, sentence: &str) {
    let (process, journal) = SETTINGS.get().copied().unwrap_or(("agent", false));
    let clean: String = sentence
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let prefix = if journal {
        format!("<{}>", level as u8)
    } else {
        String::new()
    };
    let word = match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "info",
    };
    // One write, so that lines of several processes do not mix; a closed standard error must not stop us.
    let _ = std::io::stderr().write_all(format!("{prefix}{word} {process}: {clean}\n").as_bytes());
}

/// Logs at [`Level::Error`].
#[macro_export]
macro_rules! log_error { ($($arg:tt)*) => { $crate::log::line($crate::log::Level::Error, &format!($($arg)*)) } }
/// Logs at [`Level::Warning`].
#[macro_export]
macro_rules! log_warning { ($($arg:tt)*) => { $crate::log::line($crate::log::Level::Warning, &format!($($arg)*)) } }
/// Logs at [`Level::Info`].
#[macro_export]
macro_rules! log_info { ($($arg:tt)*) => { $crate::log::line($crate::log::Level::Info, &format!($($arg)*)) } }
