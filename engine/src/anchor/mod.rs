//! Anchors the ledger's head on the chain, now and then, and notices when ledger and chain contradict each other. The
//! decision is [`plan`]'s; here it is looked, sent, and put on record. Runs beside the jobs of the engine.
//!
//! Nothing has to be remembered: what was anchored is asked of the contract, what was recorded of the ledger, what was
//! signed of the journal. So a crash anywhere leads back to a look, and the contract takes every head only once.

pub mod alarm;
pub mod local;
pub mod onchain;
pub mod plan;

use crate::agent::{self, RecordError};
use crate::chain::{Address, ChainError};
use crate::config::LedgerAnchorSection;
use crate::handler::Context;
use crate::sending::{SendError, Sending};
use crate::{log, notify};
use alarm::Standing;
use blockhost_ledger::merkle::{Hash, hex};
use blockhost_ledger::note::Checkpoint;
use blockhost_proto::response::ErrorCode;
use local::{History, LocalError};
use onchain::{Kept, LogId};
use plan::{Alarm, OnChain, Plan, Seen, Waiting};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PURPOSE: &str = "anchor";
/// The journal's number for what no event of the chain asked for.
const NO_JOB: i64 = 0;
/// How long a comparison of the whole ledger with its newest anchor holds, when neither seems to have changed.
const BELIEVED_FOR: Duration = Duration::from_secs(3600);
/// How often an alarm that goes on is raised again.
const RAISE_EVERY: Duration = Duration::from_secs(3600);

/// Why a look did not end well. The next one may.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The endpoints, or the contract.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The ledger's files.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// Sending.
    #[error(transparent)]
    Sending(#[from] SendError),
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] crate::outbox::OutboxError),
    /// The agent.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The task that reads the ledger broke off.
    #[error("reading the ledger broke off: {0}")]
    Task(tokio::task::JoinError),
    /// The log has another name than a moment ago.
    #[error("the ledger is called {now:?}, a moment ago {before:?}: it was exchanged")]
    Renamed {
        /// What its checkpoint says.
        before: String,
        /// What its records say.
        now: String,
    },
}

/// What a look came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// The ledger has no records yet.
    Empty,
    /// Nothing to do.
    Waiting(Waiting),
    /// A head of this size is on the chain now, by us.
    Anchored(u64),
    /// Ledger and chain contradict each other.
    Alarm(Alarm),
}

/// Compared and found to be the same history: up to which anchor, with how many records in the ledger, when.
#[derive(Debug, Clone, Copy)]
struct Believed {
    chain: OnChain,
    size: u64,
    at: Instant,
}

/// The engine's anchoring.
#[derive(Debug)]
pub struct Anchorer {
    context: Arc<Context>,
    contract: Address,
    confirmations: u64,
    settings: LedgerAnchorSection,
    believed: Option<Believed>,
    /// Size of the newest anchor on record in the ledger, once it was looked for.
    recorded: Option<u64>,
    raised: Option<(Alarm, Instant)>,
    /// True once `blockhost status` was told that no alarm stands; one of an earlier engine may.
    calm: bool,
    /// The alarm that is on record, so that it is recorded once.
    alarm_recorded: Option<Alarm>,
}

impl Anchorer {
    /// Anchors this host's ledger with the deployer's account.
    #[must_use]
    pub fn new(
        context: Arc<Context>,
        contract: Address,
        confirmations: u64,
        settings: LedgerAnchorSection,
    ) -> Self {
        Self {
            context,
            contract,
            confirmations,
            settings,
            believed: None,
            recorded: None,
            raised: None,
            calm: false,
            alarm_recorded: None,
        }
    }

    /// Looks until the engine is to end.
    pub async fn run(mut self) {
        let mut stop = self.context.stop.clone();
        let pause = Duration::from_secs(self.settings.look_every_s);
        let mut last_error = String::new();
        while !*stop.borrow() {
            match self.look().await {
                Ok(_) | Err(AnchorError::Sending(SendError::Stopped)) => {
                    if !std::mem::take(&mut last_error).is_empty() {
                        log::info("anchoring the ledger goes on", &[]);
                    }
                }
                Err(e) => {
                    // Once per reason: a node that is down for a night must not fill the disk.
                    if e.to_string() != last_error {
                        last_error = e.to_string();
                        log::error("anchoring the ledger", &[("error", &last_error)]);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// Looks at ledger and contract once, anchors if that is due, and puts confirmed anchors on record.
    ///
    /// # Errors
    /// [`AnchorError`]; nothing is lost, the next look begins anew.
    pub async fn look(&mut self) -> Result<Looked, AnchorError> {
        self.follow_up().await?;
        let Some(head) = self.published().await? else {
            return Ok(Looked::Empty);
        };
        let owner = self.context.wallet().address();
        let id = LogId::new(self.contract, owner, &head.origin);
        // One node for the whole look: two of them may see different histories.
        let (_, top) = self.context.chain.select().await?;
        let kept = onchain::latest(&self.context.chain, id, None).await?;
        let chain = OnChain {
            size: kept.size,
            root: kept.root,
            time_s: kept.time_s,
        };
        let mut history = None;
        if self.recorded.is_none() {
            self.read(&head.origin, &mut history).await?;
        }
        let mut seen = Seen {
            chain,
            size: history.as_ref().map_or(head.size, |history| history.size()),
            root_then: self.believes(chain, head.size),
            recorded: self.recorded.unwrap_or(0),
        };
        let mut planned = plan::plan(&seen, now_s(), &self.settings);
        // What is published may be a second behind; nothing is claimed or anchored before the records were read.
        if planned != Plan::Wait(Waiting::NotDue) {
            let history = self.read(&head.origin, &mut history).await?;
            seen.size = history.size();
            seen.root_then = history.root_at(chain.size)?;
            planned = plan::plan(&seen, now_s(), &self.settings);
            if seen.root_then == Some(chain.root) || chain.size == 0 {
                self.believed = Some(Believed {
                    chain,
                    size: seen.size,
                    at: Instant::now(),
                });
            }
        }
        if let Plan::Alarm(alarm) = planned {
            self.believed = None;
            self.raise(alarm, id).await?;
            return Ok(Looked::Alarm(alarm));
        }
        if !self.calm {
            match Standing::clear(&self.context.layout) {
                Ok(()) => self.calm = true,
                Err(e) => log::warn("the alarm that is over", &[("error", &e)]),
            }
        }
        if self.raised.take().is_some() {
            self.alarm_recorded = None;
            log::warn("the ledger is again the one that was anchored", &[]);
            notify::state("STATUS=the ledger is again the one that was anchored");
        }
        self.put_on_record(id, kept, top, &head.origin, &mut history)
            .await?;
        match planned {
            Plan::Anchor => {
                let history = self.read(&head.origin, &mut history).await?;
                self.anchor(id, chain, &head, &history).await
            }
            Plan::Wait(waiting) => {
                if let Waiting::NodeForgot { known, recorded } = waiting {
                    log::warn(
                        "the node does not know an anchor that was confirmed; waiting for one that does",
                        &[("known", &known), ("confirmed", &recorded)],
                    );
                }
                Ok(Looked::Waiting(waiting))
            }
            Plan::Read | Plan::Alarm(_) => Ok(Looked::Waiting(Waiting::NotDue)),
        }
    }

    fn sending(&self) -> Sending<'_> {
        self.context
            .sending(NO_JOB, PURPOSE, self.settings.max_fee_gwei)
    }

    /// What an earlier look, or an earlier life, signed and did not see the end of.
    async fn follow_up(&self) -> Result<(), AnchorError> {
        let context = &self.context;
        let mut open = context
            .outbox
            .live_txs(context.chain.chain_id(), context.wallet().address())?;
        open.retain(|row| row.call.to == Some(self.contract));
        if !open.is_empty() {
            self.sending().follow(open).await?;
        }
        Ok(())
    }

    async fn published(&self) -> Result<Option<Checkpoint>, AnchorError> {
        let path = self.context.layout.ledger();
        let read = tokio::task::spawn_blocking(move || local::published(&path)).await;
        let head = read.map_err(AnchorError::Task)??;
        Ok(head.filter(|head| head.size > 0))
    }

    /// Reads the whole ledger, at most once a look.
    async fn read(
        &mut self,
        origin: &str,
        into: &mut Option<Arc<History>>,
    ) -> Result<Arc<History>, AnchorError> {
        if let Some(history) = into {
            return Ok(history.clone());
        }
        let path = self.context.layout.ledger();
        let (chain_id, contract) = (self.context.chain.chain_id(), self.contract.to_string());
        let known = self.recorded;
        let read = tokio::task::spawn_blocking(move || {
            let history = History::read(&path)?;
            let recorded = match known {
                Some(size) => size,
                None => history.recorded(chain_id, &contract)?,
            };
            Ok::<_, LocalError>((history, recorded))
        });
        let (history, recorded) = read.await.map_err(AnchorError::Task)??;
        if history.origin != origin {
            return Err(AnchorError::Renamed {
                before: origin.to_owned(),
                now: history.origin,
            });
        }
        self.recorded = Some(recorded);
        Ok(into.insert(Arc::new(history)).clone())
    }

    /// The root of the anchored records, where it is known without reading them again.
    fn believes(&self, chain: OnChain, size: u64) -> Option<Hash> {
        let believed = self.believed?;
        let holds = believed.chain == chain
            && believed.size <= size
            && believed.at.elapsed() < BELIEVED_FOR;
        holds.then_some(chain.root)
    }

    async fn anchor(
        &self,
        id: LogId,
        chain: OnChain,
        head: &Checkpoint,
        history: &History,
    ) -> Result<Looked, AnchorError> {
        // What is published is durable. Records behind it are in the file and may not be on the disk: without them after a
        // crash, the chain would bear witness against this host for ever.
        let (size, root) = (head.size, head.root);
        if size <= chain.size {
            return Ok(Looked::Waiting(Waiting::NotDue));
        }
        if history.root_at(size)? != Some(root) {
            return Err(LocalError::Unlike(size).into());
        }
        let proof = history.prove(chain.size, size)?;
        let call = onchain::anchor_call(id, size, root, &proof);
        let sending = self.sending();
        let signed = sending.sign_new(call).await?;
        if sending.follow(vec![signed]).await?.is_none() {
            // Its nonce went to another transaction; the next look sees what is to be done.
            return Ok(Looked::Waiting(Waiting::NotDue));
        }
        log::info(
            "ledger head anchored on the chain",
            &[("size", &size), ("root", &hex(&root))],
        );
        notify::state(&format!("STATUS=ledger anchored at {size} records"));
        Ok(Looked::Anchored(size))
    }

    /// Records the newest anchor that has enough blocks on it, unless it is on record.
    async fn put_on_record(
        &mut self,
        id: LogId,
        newest: Kept,
        top: u64,
        origin: &str,
        history: &mut Option<Arc<History>>,
    ) -> Result<(), AnchorError> {
        let recorded = self.recorded.unwrap_or(0);
        let Some(settled) = top.checked_sub(self.confirmations) else {
            return Ok(());
        };
        if newest.size <= recorded {
            return Ok(());
        }
        let kept = if newest.block <= settled {
            newest
        } else {
            onchain::latest(&self.context.chain, id, Some(settled)).await?
        };
        if kept.size <= recorded {
            return Ok(());
        }
        let event = onchain::event_of(&self.context.chain, id, kept).await?;
        let history = self.read(origin, history).await?;
        // Only what is ours: the agent would refuse anything else.
        if history.root_at(kept.size)? != Some(kept.root) {
            return Ok(());
        }
        let proof = history.prove(kept.size, history.size())?;
        let proof: Vec<String> = proof.iter().map(|hash| hex(hash)).collect();
        let params = json!({
            "chain_id": self.context.chain.chain_id(), "contract": self.contract.to_string(),
            "tx": event.tx.to_string(), "block": kept.block, "size": kept.size, "root": hex(&kept.root),
            "head_size": history.size(), "proof": proof,
        });
        match agent::anchored(&self.context.layout, &params).await {
            Ok(index) => {
                self.recorded = Some(kept.size);
                log::info(
                    "a confirmed anchor is on record",
                    &[
                        ("size", &kept.size),
                        ("block", &kept.block),
                        (
                            "record",
                            &index.map_or_else(String::new, |index| index.to_string()),
                        ),
                    ],
                );
                Ok(())
            }
            // The ledger grew by a great deal meanwhile; the next look proves it from a newer head.
            Err(RecordError::Call(e)) if is_busy(&e) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Says loudly that the ledger is not the one that was anchored, and puts that on record.
    async fn raise(&mut self, alarm: Alarm, id: LogId) -> Result<(), AnchorError> {
        let raise = self
            .raised
            .is_none_or(|(last, at)| last != alarm || at.elapsed() >= RAISE_EVERY);
        if raise {
            log::error(
                "ALARM: ledger and chain contradict each other; nothing is anchored",
                &[
                    ("alarm", &alarm),
                    ("contract", &self.contract),
                    (
                        "do",
                        &"keep a copy of the ledger's directory as evidence; see docs/anchor.md",
                    ),
                ],
            );
            notify::state(&format!("STATUS=ALARM: {alarm}"));
            self.calm = false;
            if let Err(e) = Standing::raise(&self.context.layout, &alarm.to_string()) {
                log::warn("the alarm is not in blockhost status", &[("error", &e)]);
            }
            self.raised = Some((alarm, Instant::now()));
        }
        if self.alarm_recorded != Some(alarm) {
            let data = json!({"alarm": alarm.to_string(), "chain_id": self.context.chain.chain_id(),
                "contract": self.contract.to_string(), "owner": id.owner.to_string()});
            agent::record(&self.context.layout, "anchor-alarm", "ledger", data).await?;
            self.alarm_recorded = Some(alarm);
        }
        Ok(())
    }
}

fn is_busy(error: &blockhost_proto::client::CallError) -> bool {
    error.code() == Some(ErrorCode::Busy)
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
