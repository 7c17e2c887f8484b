//! The table: one line per measurement and peer, with the ratio and whether a promise is kept.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::memory;
use crate::report::say;

/// One line of the table.
pub(super) struct Row {
    what: String,
    unit: &'static str,
    ours: f64,
    peer: Option<Peer>,
    promise: Option<Promise>,
}

/// What ours is beside.
struct Peer {
    name: &'static str,
    value: f64,
}

/// A number and how far it may go.
struct Promise {
    reached: f64,
    /// The highest that keeps the promise.
    allowed: f64,
    words: String,
}

impl Promise {
    fn kept(&self) -> bool {
        self.reached <= self.allowed
    }
}

impl Row {
    fn new(what: &str, unit: &'static str, ours: f64) -> Self {
        Self {
            what: what.to_owned(),
            unit,
            ours,
            peer: None,
            promise: None,
        }
    }

    /// A time by itself.
    pub(super) fn time(what: &str, ours: Duration) -> Self {
        Self::new(what, "us", ours.as_secs_f64() * 1e6)
    }

    /// A long time by itself.
    pub(super) fn seconds(what: &str, ours: Duration) -> Self {
        Self::new(what, "s", ours.as_secs_f64())
    }

    /// Requests per second.
    pub(super) fn rate(what: &str, ours: f64) -> Self {
        Self::new(what, "/s", ours)
    }

    /// Memory or a file.
    pub(super) fn size(what: &str, mib: f64) -> Self {
        Self::new(what, "MiB", mib)
    }

    /// Beside a peer's time.
    pub(super) fn beside(self, name: &'static str, time: Duration) -> Self {
        self.beside_value(name, time.as_secs_f64() * 1e6)
    }

    /// Beside a peer's number in the same unit.
    pub(super) fn beside_value(mut self, name: &'static str, value: f64) -> Self {
        self.peer = Some(Peer { name, value });
        self
    }

    /// Ours over the peer's may be at most this.
    pub(super) fn ratio_at_most(mut self, allowed: f64) -> Self {
        let reached = self.ratio().unwrap_or(f64::INFINITY);
        self.promise = Some(Promise {
            reached,
            allowed,
            words: format!("at most {allowed} of the peer's"),
        });
        self
    }

    /// Ours may be at most this, in the row's unit.
    pub(super) fn at_most(mut self, allowed: f64) -> Self {
        self.promise = Some(Promise {
            reached: self.ours,
            allowed,
            words: format!("at most {allowed} {}", self.unit),
        });
        self
    }

    /// True unless a promise is broken.
    pub(super) fn kept(&self) -> bool {
        self.promise.as_ref().is_none_or(Promise::kept)
    }

    fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|peer| self.ours / peer.value)
    }
}

/// All that one run found.
pub(super) struct Results {
    pub(super) rows: Vec<Row>,
    /// Peers that could not run here, and why.
    pub(super) not_run: Vec<String>,
}

impl Results {
    pub(super) fn print_table(&self, dir: &Path) {
        say!("{}", memory::machine(dir));
        say!();
        let width = self
            .rows
            .iter()
            .map(|row| row.what.len())
            .max()
            .unwrap_or(0);
        say!(
            "{:width$}  {:>10}  {:>10}        {:16} {:>7}  promise",
            "",
            "BlockHost",
            "peer",
            "",
            "ratio"
        );
        let mut last = "";
        for row in &self.rows {
            let what = if row.what == last { "" } else { &row.what };
            last = &row.what;
            let (value, name) = row.peer.as_ref().map_or_else(
                || ("-".to_owned(), ""),
                |peer| (format!("{:.1}", peer.value), peer.name),
            );
            let ratio = row
                .ratio()
                .map_or_else(String::new, |ratio| format!("{ratio:.3}"));
            let promise = row.promise.as_ref().map_or_else(String::new, |promise| {
                let kept = if promise.kept() { "kept  " } else { "MISSED" };
                format!("{kept}  {}", promise.words)
            });
            let line = format!(
                "{what:width$}  {:>10.1}  {value:>10}  {:<4}  {name:16} {ratio:>7}  {promise}",
                row.ours, row.unit
            );
            say!("{}", line.trim_end());
        }
        for reason in &self.not_run {
            say!("not run: {reason}");
        }
    }

    pub(super) fn as_json(&self, dir: &Path) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "what": row.what, "unit": row.unit, "ours": row.ours,
                    "peer": row.peer.as_ref().map(|peer| peer.name),
                    "theirs": row.peer.as_ref().map(|peer| peer.value),
                    "ratio": row.ratio(),
                    "reached": row.promise.as_ref().map(|promise| promise.reached),
                    "allowed": row.promise.as_ref().map(|promise| promise.allowed),
                    "kept": row.promise.as_ref().map(Promise::kept),
                })
            })
            .collect();
        json!({"machine": memory::machine(dir), "rows": rows, "not_run": self.not_run})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_the_promise_is_not_kept() {
        let beside = |ours| {
            Row::time("x", Duration::from_micros(ours))
                .beside("Python", Duration::from_micros(100))
                .ratio_at_most(0.25)
        };
        assert!(!beside(30).kept());
        assert!(beside(20).kept());
    }

    #[test]
    fn a_peer_that_took_no_time_at_all_is_no_promise_kept() {
        let row = Row::time("x", Duration::from_micros(5)).beside("Python", Duration::ZERO);
        assert!(!row.ratio_at_most(1.3).kept());
    }

    #[test]
    fn a_row_without_a_promise_breaks_none() {
        assert!(Row::size("x", 1e9).kept());
        assert!(!Row::size("x", 24.5).at_most(24.0).kept());
    }
}
