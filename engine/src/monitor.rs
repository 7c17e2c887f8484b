//! Watches the chain: from the last processed block to the newest one with enough confirmations, in pieces, into the
//! outbox. Notices when the history below the cursor was replaced. Decides nothing about machines.

mod again;

pub use again::{Again, read_again};

use crate::chain::logs::{self, ChunkSize};
use crate::chain::rpc::{Endpoint, MAX_LAG_BLOCKS, TransportError, describe};
use crate::chain::{Address, B256, Chain, ChainError, events};
use crate::log;
use crate::outbox::{Cursor, Ingested, Outbox, OutboxError, RolledBack};
use alloy::providers::Provider;
use alloy::rpc::types::BlockNumberOrTag;
use std::sync::Arc;

/// Where to begin when nothing was processed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At this block.
    Block(u64),
    /// Where the contract was made, found by bisection.
    Deployment,
}

/// Why a look at the chain did not end well. The next one may.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
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
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// An event that cannot be.
    #[error(transparent)]
    Event(#[from] events::DecodeError),
    /// There is no contract at the configured address.
    #[error(
        "there is no contract at {contract} on chain id {chain_id}; check blockchain.subscription_contract in web3-defaults.yaml"
    )]
    NoContract {
        /// The address.
        contract: Address,
        /// The chain.
        chain_id: u64,
    },
    /// Somebody wants to read again what was not read yet.
    #[error(
        "block {from} was not read yet ({}), so there is nothing to read again: the engine comes to it by itself",
        match .read { Some(block) => format!("the engine has read up to {block}"), None => "the engine has read nothing so far".to_owned() }
    )]
    NotYet {
        /// The first block that was wanted.
        from: u64,
        /// The last that was read.
        read: Option<u64>,
    },
    /// A node does not have the block up to which was read.
    #[error(
        "{host} has another block {block} than the one that was read, or none: it is behind or on another history. Nothing was taken over from there on; try again later, or with another node first in blockchain.rpc_urls"
    )]
    OtherHistory {
        /// Which node.
        host: String,
        /// Which block.
        block: u64,
    },
}

/// What one look brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// New jobs.
    pub new_jobs: usize,
    /// True when the newest confirmed block is reached.
    pub caught_up: bool,
    /// What a reorganisation took back.
    pub rolled_back: Option<RolledBack>,
    /// The newest block of the node that was asked.
    pub head: u64,
    /// What there is to say about a head that went back.
    pub shorter: Option<Shorter>,
}

/// The best node ends well before a block that was processed already: it catches up, or the chain itself was set back
/// further than a reorganisation does. Nobody can tell the two apart until the chain is past that block again: either its
/// hash is the known one, or everything from where the histories part is rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the chain ends at block {head} for the nodes that can be asked, and was read up to block {processed} before: nothing new is \
     seen until it is past that. A node that catches up needs time, or a better one in blockchain.rpc_urls; a chain that was set \
     back (a local one, a test network) has to grow past it, and what is no longer there is taken back then"
)]
pub struct Shorter {
    /// The newest block.
    pub head: u64,
    /// The block that was processed.
    pub processed: u64,
}

impl Shorter {
    /// Looks at a head and what was processed; nodes that are a little behind are everyday.
    #[must_use]
    pub fn of(head: u64, processed: u64) -> Option<Self> {
        (head.saturating_add(MAX_LAG_BLOCKS) < processed).then_some(Self { head, processed })
    }
}

/// Watches one contract.
#[derive(Debug)]
pub struct Monitor {
    contract: Address,
    confirmations: u64,
    start: Start,
    chunk: ChunkSize,
    outbox: Arc<Outbox>,
    said_shorter: bool,
}

impl Monitor {
    /// Watches `contract`; events count once `confirmations` blocks stand on theirs.
    #[must_use]
    pub fn new(
        contract: Address,
        confirmations: u64,
        start: Start,
        max_range: u64,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self {
            contract,
            confirmations,
            start,
            chunk: ChunkSize::new(max_range),
            outbox,
            said_shorter: false,
        }
    }

    /// Looks once: processes one piece of the chain, if there is any.
    ///
    /// # Errors
    /// [`MonitorError`]; nothing is lost, the next look begins at the same place.
    pub async fn look(&mut self, chain: &Chain) -> Result<Progress, MonitorError> {
        // One node for the whole look: two of them may see different histories.
        let (node, head) = chain.select().await?;
        let looked = self.look_with(chain, node, head).await;
        if let Err(MonitorError::Node { .. } | MonitorError::Event(_)) = looked {
            // It has a head and no answers: with it alone, nothing would ever go on.
            node.pass_over();
        }
        looked
    }

    async fn look_with(
        &mut self,
        chain: &Chain,
        node: &Endpoint,
        head: u64,
    ) -> Result<Progress, MonitorError> {
        let mut progress = Progress {
            head,
            ..Progress::default()
        };
        let mut cursor = self.outbox.cursor(chain.chain_id(), self.contract)?;
        if let Some(known) = cursor {
            if known.number <= head {
                let now = block_hash(node, known.number).await?;
                if now.is_some_and(|hash| hash != known.hash) {
                    progress.rolled_back = Some(self.roll_back(chain, node, head).await?);
                    cursor = self.outbox.cursor(chain.chain_id(), self.contract)?;
                }
            } else if self.history_is_gone(chain, node, head).await? {
                progress.rolled_back = Some(self.roll_back(chain, node, head).await?);
                cursor = self.outbox.cursor(chain.chain_id(), self.contract)?;
            } else {
                progress.shorter = Shorter::of(head, known.number);
            }
        }
        self.tell(progress.shorter);
        let Some(safe) = head.checked_sub(self.confirmations) else {
            return Ok(Progress {
                caught_up: true,
                ..progress
            });
        };
        let from = match cursor {
            Some(cursor) => cursor.number + 1,
            None => self.first_block(chain, node, head).await?,
        };
        if from > safe {
            return Ok(Progress {
                caught_up: true,
                ..progress
            });
        }
        let Some((to, ingested)) = self.piece(chain, node, from, safe).await? else {
            return Ok(progress);
        };
        progress.new_jobs = ingested.new;
        progress.caught_up = to == safe;
        Ok(progress)
    }

    /// Says once that the chain is shorter than it was, and once that it is not any more.
    fn tell(&mut self, shorter: Option<Shorter>) {
        match shorter {
            Some(shorter) if !self.said_shorter => {
                log::error("the chain went back", &[("problem", &shorter)]);
            }
            None if self.said_shorter => {
                log::info("the chain is past what was read of it again", &[]);
            }
            _ => {}
        }
        self.said_shorter = shorter.is_some();
    }

    /// Reads and takes over one piece. `None` when the node refused its size and a smaller one is next, or when the
    /// history moved while it was read.
    async fn piece(
        &mut self,
        chain: &Chain,
        node: &Endpoint,
        from: u64,
        safe: u64,
    ) -> Result<Option<(u64, Ingested)>, MonitorError> {
        let to = self.chunk.end(from, safe);
        let Some(before) = block_hash(node, to).await? else {
            return Ok(None);
        };
        let logs = match logs::fetch(node.provider(), self.contract, from, to, [None; 3]).await {
            Ok(logs) => logs,
            Err(e) if logs::may_shrink(&e) && self.chunk.refused() => {
                log::info(
                    "a node refused a range of logs; asking for less",
                    &[("host", &node.host()), ("reason", &describe(&e))],
                );
                return Ok(None);
            }
            Err(e) => return Err(failed("reading logs", node, &e)),
        };
        // Logs and hash of the last block must be of one history, or the cursor would vouch for what it never saw.
        if block_hash(node, to).await? != Some(before) {
            return Ok(None);
        }
        self.chunk.accepted();
        let mut events = Vec::with_capacity(logs.len());
        for log in &logs {
            events.extend(events::decode(log)?);
        }
        let ingested = self.outbox.ingest(
            chain.chain_id(),
            self.contract,
            &events,
            Cursor {
                number: to,
                hash: before,
            },
        )?;
        for job in &ingested.contradicting {
            log::error(
                "a purchase contradicts one that was started before a reorganisation; parked",
                &[("job", job)],
            );
        }
        for job in &ingested.returned {
            log::error(
                "the event of a job that was closed by hand is on the chain again after a reorganisation; parked",
                &[("job", job)],
            );
        }
        if ingested.new > 0 || ingested.adopted > 0 {
            log::info(
                "events taken over",
                &[
                    ("from", &from),
                    ("to", &to),
                    ("new", &ingested.new),
                    ("moved", &ingested.adopted),
                ],
            );
        }
        Ok(Some((to, ingested)))
    }

    /// The head is below the cursor: is the node only behind, or does it tell another history?
    async fn history_is_gone(
        &self,
        chain: &Chain,
        node: &Endpoint,
        head: u64,
    ) -> Result<bool, MonitorError> {
        for known in self
            .outbox
            .known_blocks(chain.chain_id(), self.contract, usize::MAX)?
        {
            if known.number <= head {
                return Ok(block_hash(node, known.number)
                    .await?
                    .is_some_and(|hash| hash != known.hash));
            }
        }
        Ok(false)
    }

    async fn roll_back(
        &self,
        chain: &Chain,
        node: &Endpoint,
        head: u64,
    ) -> Result<RolledBack, MonitorError> {
        let mut ancestor = None;
        for known in self
            .outbox
            .known_blocks(chain.chain_id(), self.contract, usize::MAX)?
        {
            if known.number <= head && block_hash(node, known.number).await? == Some(known.hash) {
                ancestor = Some(known.number);
                break;
            }
        }
        let rolled_back = self
            .outbox
            .roll_back(chain.chain_id(), self.contract, ancestor)?;
        let back_to = ancestor.map_or_else(|| "the beginning".to_owned(), |n| n.to_string());
        log::warn(
            "the chain was reorganised below the cursor",
            &[
                ("back_to", &back_to),
                ("jobs_removed", &rolled_back.removed),
            ],
        );
        for job in &rolled_back.started {
            log::error(
                "a job was started for an event that is no longer on the chain; look at it",
                &[("job", job)],
            );
        }
        Ok(rolled_back)
    }

    async fn first_block(
        &self,
        chain: &Chain,
        node: &Endpoint,
        head: u64,
    ) -> Result<u64, MonitorError> {
        if let Start::Block(block) = self.start {
            return Ok(block);
        }
        let has_code = |block: u64| async move {
            let code = node
                .provider()
                .get_code_at(self.contract)
                .number(block)
                .await;
            code.map(|code| !code.is_empty())
        };
        if !has_code(head)
            .await
            .map_err(|e| failed("reading the contract's code", node, &e))?
        {
            return Err(MonitorError::NoContract {
                contract: self.contract,
                chain_id: chain.chain_id(),
            });
        }
        let (mut without, mut with) = (0, head);
        while without < with {
            let middle = without + (with - without) / 2;
            match has_code(middle).await {
                Ok(true) => with = middle,
                Ok(false) => without = middle + 1,
                Err(e) => {
                    // A node without old states. Events from before it forgot are missed, so somebody has to know.
                    log::warn(
                        "the node does not know where the contract begins; older purchases are not seen. With an archive node in blockchain.rpc_urls: blockhost jobs read --from BLOCK",
                        &[
                            ("beginning_at", &with),
                            ("host", &node.host()),
                            ("reason", &describe(&e)),
                        ],
                    );
                    return Ok(with);
                }
            }
        }
        log::info("beginning where the contract was made", &[("block", &with)]);
        Ok(with)
    }
}

async fn block_hash(node: &Endpoint, number: u64) -> Result<Option<B256>, MonitorError> {
    let block = node
        .provider()
        .get_block_by_number(BlockNumberOrTag::Number(number))
        .await;
    Ok(block
        .map_err(|e| failed("reading a block", node, &e))?
        .map(|block| block.header.hash))
}

fn failed(what: &'static str, node: &Endpoint, error: &TransportError) -> MonitorError {
    MonitorError::Node {
        what,
        host: node.host().to_owned(),
        reason: describe(error),
    }
}
