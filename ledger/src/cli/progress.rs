//! The bar of long work: only on a terminal, and gone when the work is done.

use std::io::IsTerminal as _;

/// A bar, or nothing where nobody would see it.
pub(super) struct Progress(Option<indicatif::ProgressBar>);

/// A bar that counts; `what` stands before it.
pub(super) fn bar(what: &str) -> Progress {
    with_template(&format!(
        "{what} {{bar:30}} {{human_pos}}/{{human_len}} {{eta}}"
    ))
}

/// A bar that counts bytes.
pub(super) fn bytes(what: &str) -> Progress {
    with_template(&format!(
        "{what} {{bar:30}} {{bytes}}/{{total_bytes}} {{eta}}"
    ))
}

fn with_template(template: &str) -> Progress {
    if !std::io::stderr().is_terminal() {
        return Progress(None);
    }

    let bar = indicatif::ProgressBar::new(0);
    if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    Progress(Some(bar))
}

impl Progress {
    /// So much of so much is done.
    pub fn told(&self, done: u64, total: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// Gone, and the line is clean again.
    pub fn done(self) {
        if let Some(bar) = self.0 {
            bar.finish_and_clear();
        }
    }
}
