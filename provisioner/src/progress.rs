//! Steps on stderr: plain lines, `[2/7] clone template 9000 ... 0.8 s`; on a terminal the running step is shown and
//! rewritten. Results never go here.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

/// The steps of one command.
#[derive(Debug)]
pub struct Progress {
    total: usize,
    done: usize,
    terminal: bool,
    quiet: bool,
    start: Instant,
    current: Option<(String, Instant)>,
}

impl Progress {
    /// A command of `total` steps.
    #[must_use]
    pub fn new(total: usize) -> Self {
        Self {
            total,
            done: 0,
            terminal: std::io::stderr().is_terminal(),
            quiet: false,
            start: Instant::now(),
            current: None,
        }
    }

    /// One that says nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            quiet: true,
            ..Self::new(0)
        }
    }

    /// Ends the running step and begins another.
    pub fn step(&mut self, what: impl Into<String>) {
        self.finish();
        self.done += 1;
        let what = what.into();
        if self.terminal && !self.quiet {
            self.write(&format!(
                "\r\x1b[K[{}/{}] {what} ...",
                self.done, self.total
            ));
        }
        self.current = Some((what, Instant::now()));
    }

    /// A remark between steps.
    pub fn note(&self, text: &str) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        self.write(&format!("{clear}{text}\n"));
    }

    /// Shows how far the running step is; on a terminal only.
    pub fn detail(&self, text: &str) {
        if let (true, Some((what, began))) = (self.terminal, &self.current) {
            let seconds = began.elapsed().as_secs();
            self.write(&format!(
                "\r\x1b[K[{}/{}] {what}: {text} ({seconds} s)",
                self.done, self.total
            ));
        }
    }

    /// Ends the running step.
    pub fn finish(&mut self) {
        if let Some((what, began)) = self.current.take() {
            let clear = if self.terminal { "\r\x1b[K" } else { "" };
            let seconds = began.elapsed().as_secs_f32();
            self.write(&format!(
                "{clear}[{}/{}] {what} ({seconds:.1} s)\n",
                self.done, self.total
            ));
        }
    }

    /// Seconds since the beginning.
    #[must_use]
    pub fn seconds(&self) -> f32 {
        self.start.elapsed().as_secs_f32()
    }

    fn write(&self, text: &str) {
        if !self.quiet {
            // Nobody listens: that must not fail the work.
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    }
}
