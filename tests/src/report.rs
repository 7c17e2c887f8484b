//! What a person sees while the demo runs: live steps with elapsed time on a terminal, plain lines in a pipe, nothing
//! but the last JSON line when asked for.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// `println!` for a reader that may leave early (`| head`): the work goes on, nothing panics.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}
pub(crate) use say;

/// The same without an end of the line.
macro_rules! say_part {
    ($($text:tt)*) => {{
        let _ = write!(std::io::stdout(), $($text)*);
    }};
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One live line per running step.
    Terminal,
    /// One line per finished step.
    Plain,
    /// Nothing.
    Silent,
}

impl Style {
    /// What suits stdout.
    #[must_use]
    pub fn detect(json_only: bool) -> Self {
        if json_only {
            Self::Silent
        } else if std::io::stdout().is_terminal() {
            Self::Terminal
        } else {
            Self::Plain
        }
    }
}

/// Prints steps and remembers how long each phase took.
pub struct Report {
    style: Style,
    started: Instant,
    phases: Vec<(String, Duration)>,
}

impl Report {
    /// The clock starts now.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Self {
            style,
            started: Instant::now(),
            phases: Vec::new(),
        }
    }

    /// A heading between groups of steps.
    pub fn heading(&self, text: &str) {
        match self.style {
            Style::Terminal => say!("\n\x1b[1m{text}\x1b[0m"),
            Style::Plain => say!("== {text}"),
            Style::Silent => {}
        }
    }

    /// A fact worth reading, under the step it belongs to.
    pub fn note(&self, text: &str) {
        match self.style {
            Style::Terminal => say!("      \x1b[2m{text}\x1b[0m"),
            Style::Plain => say!("      {text}"),
            Style::Silent => {}
        }
    }

    /// Runs one step; its time is added to `phase`.
    ///
    /// # Errors
    /// Whatever the step answers.
    pub fn step<T, E>(
        &mut self,
        phase: &str,
        text: &str,
        body: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let ticker = (self.style == Style::Terminal).then(|| Ticker::start(text.to_owned(), begun));
        let result = body();
        if let Some(ticker) = ticker {
            ticker.stop();
        }
        let took = begun.elapsed();
        match self.phases.iter_mut().find(|(name, _)| name == phase) {
            Some((_, total)) => *total += took,
            None => self.phases.push((phase.to_owned(), took)),
        }
        let seconds = took.as_secs_f64();
        match (self.style, result.is_ok()) {
            (Style::Terminal, true) => {
                say!("\r\x1b[K  \x1b[32m\u{2713}\x1b[0m {text} \x1b[2m{seconds:.1} s\x1b[0m")
            }
            (Style::Terminal, false) => {
                say!("\r\x1b[K  \x1b[31m\u{2717}\x1b[0m {text} \x1b[2m{seconds:.1} s\x1b[0m")
            }
            (Style::Plain, true) => say!("  ok   {text} ({seconds:.1} s)"),
            (Style::Plain, false) => say!("  FAIL {text} ({seconds:.1} s)"),
            (Style::Silent, _) => {}
        }
        // A pipe is block-buffered by its reader's end only; ours must not hold lines back.
        let _ = std::io::stdout().flush();
        result
    }

    /// Seconds per phase, in order, and their sum, with one decimal.
    #[must_use]
    pub fn seconds(&self) -> serde_json::Map<String, serde_json::Value> {
        let round = |time: Duration| serde_json::json!((time.as_secs_f64() * 10.0).round() / 10.0);
        let mut map: serde_json::Map<_, _> = self
            .phases
            .iter()
            .map(|(name, time)| (name.clone(), round(*time)))
            .collect();
        map.insert("total".to_owned(), round(self.started.elapsed()));
        map
    }
}

/// Redraws the running step's line while its body works.
struct Ticker {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Ticker {
    fn start(text: String, begun: Instant) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            loop {
                say_part!(
                    "\r\x1b[K  \x1b[33m\u{2026}\x1b[0m {text} \x1b[2m{} s\x1b[0m",
                    begun.elapsed().as_secs()
                );
                let _ = std::io::stdout().flush();
                if stopped.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        // The thread may have ended already; both are fine.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_one_phase_add_up_and_failures_are_passed_on() {
        let mut report = Report::new(Style::Silent);
        let pause = || -> Result<(), String> {
            thread::sleep(Duration::from_millis(60));
            Ok(())
        };
        report.step("boot", "a", pause).expect("ok");
        report.step("boot", "b", pause).expect("ok");
        assert_eq!(
            report.step("end", "c", || Err::<(), _>("reason")),
            Err("reason")
        );
        let seconds = report.seconds();
        assert!(
            seconds["boot"].as_f64().expect("a number") >= 0.1,
            "{seconds:?}"
        );
        assert!(seconds.contains_key("end") && seconds.contains_key("total"));
    }
}
