//! Every few minutes: do contract, credentials, database and guests still say the same? What follows from the chain is
//! mended (an owner who changed, a mint that a reorganisation took back, an extension that was missed), everything else
//! is reported. The decision is [`plan`]'s; runs beside the jobs of the engine.
//!
//! A finding counts when two looks in a row see it: a job that is just ending, or a node that is a little behind, is no
//! finding.

pub mod observe;
pub mod plan;
pub mod repair;
pub mod report;

use crate::chain::{Address, ChainError};
use crate::handler::{Context, StepError};
use crate::log;
use crate::machines::MachinesError;
use crate::outbox::OutboxError;
use crate::told::ToldError;
use observe::Known;
use plan::Finding;
use repair::Mended;
use report::{Entry, Report};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Why a look did not end well. The next one may.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The endpoints.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// One endpoint, in the middle.
    #[error("{what}: {host} {reason}")]
    Node {
        /// What was asked.
        what: &'static str,
        /// Which node.
        host: String,
        /// What it said.
        reason: String,
    },
    /// An answer that cannot be.
    #[error("an answer that cannot be: {0}")]
    Absurd(String),
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The machines' database.
    #[error(transparent)]
    Machines(#[from] MachinesError),
    /// The report.
    #[error(transparent)]
    Report(#[from] ToldError),
    /// A task broke off.
    #[error("a request broke off: {0}")]
    Task(tokio::task::JoinError),
}

/// The engine's looking after what it has made.
#[derive(Debug)]
pub struct Reconciler {
    context: Arc<Context>,
    contract: Address,
    confirmations: u64,
    every: Duration,
    known: Known,
    /// What the last look found.
    before: HashSet<Finding>,
    /// What was said in the log and is still so.
    said: HashSet<Finding>,
}

impl Reconciler {
    /// Compares machines with the subscriptions of `contract`.
    #[must_use]
    pub fn new(
        context: Arc<Context>,
        contract: Address,
        confirmations: u64,
        every: Duration,
    ) -> Self {
        Self {
            context,
            contract,
            confirmations,
            every,
            known: Known::default(),
            before: HashSet::new(),
            said: HashSet::new(),
        }
    }

    /// Looks until the engine is to end. `news` is told when there is a job again.
    pub async fn run(mut self, news: Arc<Notify>) {
        let mut stop = self.context.stop.clone();
        let mut last_error = String::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            match self.look().await {
                Ok(repaired) => {
                    last_error.clear();
                    if repaired > 0 {
                        news.notify_one();
                    }
                }
                Err(e) => {
                    // Once per reason: a node that is down for a night must not fill the disk.
                    if e.to_string() != last_error {
                        last_error = e.to_string();
                        log::error(
                            "comparing machines with the chain",
                            &[("error", &last_error)],
                        );
                    }
                }
            }
        }
    }

    /// Looks once, mends what was seen twice, writes the report. Gives how many findings were mended.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub async fn look(&mut self) -> Result<usize, ReconcileError> {
        let context = self.context.clone();
        let looked =
            observe::observe(&context, self.contract, self.confirmations, &mut self.known).await?;
        let Some((cursor, seen)) = looked else {
            return Ok(0);
        };
        let found: HashSet<Finding> = plan::compare(&seen).into_iter().collect();
        let mut certain: Vec<Finding> = found.intersection(&self.before).cloned().collect();
        certain.sort();
        self.before = found;
        self.said.retain(|finding| certain.contains(finding));
        let now = jiff::Timestamp::now().to_string();
        let (mut repaired, mut left) = (Vec::new(), Vec::new());
        for finding in certain.clone() {
            if finding.is_repaired() && self.mend(&finding, &certain).await {
                repaired.push(Entry::new(&finding, &now));
                continue;
            }
            if !finding.is_repaired() && self.said.insert(finding.clone()) {
                log::error(
                    "machines and chain do not fit",
                    &[("problem", &finding.sentence())],
                );
            }
            left.push(Entry::new(&finding, &now));
        }
        let mended = repaired.len();
        let mut report = match Report::load(&context.layout) {
            Ok(report) => report.unwrap_or_default(),
            Err(e) => {
                log::warn(
                    "the last report cannot be read; it is replaced",
                    &[("error", &e)],
                );
                Report::default()
            }
        };
        report.looked_at = now;
        report.block = cursor.number;
        report.findings = left;
        report.add_repairs(repaired);
        report.store(&context.layout)?;
        Ok(mended)
    }

    async fn mend(&mut self, finding: &Finding, certain: &[Finding]) -> bool {
        match repair::repair(&self.context, self.contract, finding, certain).await {
            Ok(Mended::Yes) => {
                log::warn("mended", &[("problem", &finding.sentence())]);
                self.said.remove(finding);
                true
            }
            Ok(Mended::NotNow) | Err(StepError::Stopped) => false,
            Err(e) => {
                if self.said.insert(finding.clone()) {
                    log::error(
                        "could not be mended; it is tried again",
                        &[("problem", &finding.sentence()), ("reason", &e)],
                    );
                }
                false
            }
        }
    }
}
