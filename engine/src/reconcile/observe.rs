//! Looks at contract, credentials and database, all as of the block up to which the outbox has read: what happened
//! later has its events still to come, and comparing it would find differences that are none.

use super::ReconcileError;
use super::plan::{Credential, Machine, Observed, OpenJob, Subscription};
use crate::agent;
use crate::chain::bindings::{AccessCredentialNFT, BlockhostSubscriptions};
use crate::chain::nonce::{self, Holder};
use crate::chain::rpc::{Endpoint, TransportError};
use crate::chain::{Address, B256, U256};
use crate::handler::Context;
use crate::handler::minted_token;
use crate::log;
use crate::machines::subscription_of;
use crate::outbox::{Cursor, Purchase, now_ms};
use alloy::eips::BlockId;
use alloy::network::Ethereum;
use alloy::providers::{Provider, RootProvider};
use blockhost_provisioner::record::{Status, VmRecord};
use blockhost_provisioner::time::Time;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use tokio::task::JoinSet;

/// Requests to one node at the same time: public ones count them.
const AT_ONCE: usize = 8;
/// A mint this deep below the head is not asked for again.
const FINAL_DEPTH: u64 = 256;
/// The agent is asked what runs with every so many looks: each question is in the ledger.
const LIST_EVERY: u32 = 3;
/// The outbox may be so many blocks behind what is confirmed and still be compared.
const MAX_LAG: u64 = 64;

/// What need not be asked again.
#[derive(Debug, Default)]
pub struct Known {
    /// Tokens of jobs whose mint is deep in the chain.
    minted: HashMap<i64, u64>,
    /// Mints that are in a block deep in the chain, and of which the node has no receipt.
    bare: HashSet<B256>,
    /// Mints whose receipt names no token; said once.
    unproven: HashSet<B256>,
    /// How often it was looked.
    looks: u32,
    /// Active machines that the agent's last list did not show as running.
    stopped_then: BTreeSet<u32>,
    /// Those that neither of the last two did.
    stopped: BTreeSet<u32>,
    /// Subscriptions without a machine that are over: what brings one back is an event, and events make jobs.
    over: HashSet<u64>,
}

impl Known {
    /// Which of these machines did not run, by the last two lists of the agent.
    async fn stopped(&mut self, context: &Context, active: &BTreeSet<u32>) -> BTreeSet<u32> {
        let is_due = self.looks.is_multiple_of(LIST_EVERY);
        self.looks = self.looks.wrapping_add(1);
        if is_due && !active.is_empty() {
            // An agent that is away has a line of its own in `blockhost status`.
            let stopped = match agent::running(&context.layout).await {
                Ok(running) => active.difference(&running).copied().collect(),
                Err(_) => BTreeSet::new(),
            };
            self.stopped = stopped.intersection(&self.stopped_then).copied().collect();
            self.stopped_then = stopped;
        }
        self.stopped.intersection(active).copied().collect()
    }
}

/// Looks. `None` when this is no moment for it: nothing was read yet, the outbox is behind, or the node is on another
/// history.
///
/// # Errors
/// [`ReconcileError`].
pub async fn observe(
    context: &Context,
    contract: Address,
    confirmations: u64,
    known: &mut Known,
) -> Result<Option<(Cursor, Observed)>, ReconcileError> {
    let chain_id = context.chain.chain_id();
    let Some(cursor) = context.outbox.cursor(chain_id, contract)? else {
        return Ok(None);
    };
    let (node, head) = context.chain.select().await?;
    if cursor.number > head || head - cursor.number > confirmations.saturating_add(MAX_LAG) {
        return Ok(None);
    }
    let Some(block_time) = time_of(node, cursor).await? else {
        return Ok(None);
    };
    let at = BlockId::number(cursor.number);
    // The database after the jobs: one that ended in between is then in the database.
    let open: BTreeMap<u64, OpenJob> = context.outbox.open_jobs(chain_id, contract)?;
    let purchases = context.outbox.purchases(chain_id, contract)?;
    let records = context.machines.all_with_place().await?;
    let active = records
        .iter()
        .filter(|(record, here)| *here && record.status == Status::Active && !record.mock);
    let active = active.map(|(record, _)| record.vmid.get()).collect();
    let stopped = known.stopped(context, &active).await;
    let machines: BTreeMap<u64, Machine> = records
        .iter()
        .filter_map(|(record, here)| {
            let down = stopped.contains(&record.vmid.get());
            let found = Machine {
                down: down && *here,
                here: *here,
                ..machine(record)
            };
            Some((subscription_of(record.vm_name.as_str())?, found))
        })
        .collect();
    let pos = BlockhostSubscriptions::new(contract, node.provider());
    let bought = pos
        .getTotalSubscriptionCount()
        .block(at)
        .call()
        .await
        .map_err(|e| refused("counting subscriptions", node, e))?;
    let bought = u64::try_from(bought)
        .map_err(|_| ReconcileError::Absurd(format!("{bought} subscriptions")))?;
    let living = |id: &u64| {
        machines
            .get(id)
            .is_some_and(|m| m.status != Status::Destroyed)
    };
    let wanted: Vec<u64> = (1..=bought)
        .filter(|id| living(id) || !known.over.contains(id))
        .collect();
    let subscriptions: BTreeMap<u64, Subscription> = many(node, wanted, move |node, id| {
        subscription(node, contract, at, id)
    })
    .await?
    .into_iter()
    .collect();
    // A clock that is behind makes nothing paid that is not.
    let now = block_time.max(now_ms() / 1000);
    for (id, subscription) in &subscriptions {
        // By the block alone: this is kept, and a clock that leapt ahead for a moment would hide what is paid for good.
        if !living(id) && (subscription.cancelled || subscription.expires_at <= block_time) {
            known.over.insert(*id);
        }
    }
    let of_living: Vec<(u64, Option<Purchase>)> = machines
        .iter()
        .filter(|(_, machine)| machine.here && machine.status != Status::Destroyed)
        .map(|(id, _)| (*id, purchases.get(id).copied()))
        .collect();
    let mints = mints(context, node, cursor, &of_living, known).await?;
    let nft = context.nft_contract;
    let credentials = many(node, mints, move |node, (id, mint)| async move {
        let credential = match mint {
            Mint::Unproven => Credential::Unproven,
            Mint::TakenBack { job } => Credential::TakenBack { job },
            Mint::Young => Credential::Young,
            Mint::Of(token) => Credential::Minted {
                token,
                owner: owner(&node, nft, at, token).await?,
            },
        };
        Ok((id, credential))
    })
    .await?
    .into_iter()
    .collect();
    // A history that moved while it was read would be a mixture.
    if time_of(node, cursor).await?.is_none() {
        return Ok(None);
    }
    let seen = Observed {
        now,
        bought,
        subscriptions,
        machines,
        credentials,
        open,
    };
    Ok(Some((cursor, seen)))
}

/// A record as it is compared.
#[must_use]
pub fn machine(record: &VmRecord) -> Machine {
    Machine {
        status: record.status,
        expires_at: record.expires_at.unix(),
        wallet: record
            .wallet_address
            .as_ref()
            .and_then(|wallet| wallet.to_string().parse().ok()),
        token: record.nft_token_id,
        guest_knows: record.gecos_synced.unwrap_or(true),
        here: true,
        down: false,
    }
}

#[derive(Debug, Clone, Copy)]
enum Mint {
    Unproven,
    TakenBack { job: i64 },
    Young,
    Of(u64),
}

/// Which token this engine's own transactions made for each machine.
async fn mints(
    context: &Context,
    node: &Endpoint,
    cursor: Cursor,
    of: &[(u64, Option<Purchase>)],
    known: &mut Known,
) -> Result<Vec<(u64, Mint)>, ReconcileError> {
    let mut mints = Vec::with_capacity(of.len());
    let mut ask: Vec<(u64, i64, B256)> = Vec::new();
    for (id, purchase) in of {
        match purchase {
            Some(Purchase { job, mint: Some(_) }) if known.minted.contains_key(job) => {
                mints.push((*id, Mint::Of(known.minted[job])));
            }
            Some(Purchase {
                job,
                mint: Some(hash),
            }) => ask.push((*id, *job, *hash)),
            _ => mints.push((*id, Mint::Unproven)),
        }
    }
    let nft = context.nft_contract;
    let receipts = many(node, ask, |node, (id, job, hash)| async move {
        Ok((id, job, hash, node.get_transaction_receipt(hash).await?))
    })
    .await?;
    for (id, job, hash, receipt) in receipts {
        let mint = match receipt {
            // Without a receipt, the blocks say it.
            None if known.bare.contains(&hash) => Mint::Young,
            None => match block_of(context, node, hash).await {
                Ok(None) => Mint::TakenBack { job },
                Ok(Some(block)) => {
                    if cursor.number.saturating_sub(block) >= FINAL_DEPTH {
                        known.bare.insert(hash);
                    }
                    Mint::Young
                }
                // One that cannot be judged must not keep the others from being looked at.
                Err(e) => {
                    log::warn(
                        "a mint cannot be looked up",
                        &[("job", &job), ("tx", &hash), ("error", &e)],
                    );
                    Mint::Young
                }
            },
            Some(receipt) if receipt.block_number.is_none_or(|n| n > cursor.number) => Mint::Young,
            // Taken into another block, where the contract undid it: as good as gone.
            Some(receipt) if !receipt.status() => Mint::TakenBack { job },
            Some(receipt) => {
                let deep = receipt
                    .block_number
                    .is_some_and(|n| cursor.number - n >= FINAL_DEPTH);
                match minted_token(nft, &receipt) {
                    Ok(token) => {
                        if deep {
                            known.minted.insert(job, token);
                        }
                        Mint::Of(token)
                    }
                    // As where a node lies, or the contract was exchanged: of the others it says nothing.
                    Err(problem) => {
                        if known.unproven.insert(hash) {
                            log::warn(
                                "a mint proves no token",
                                &[("job", &job), ("problem", &problem)],
                            );
                        }
                        Mint::Unproven
                    }
                }
            }
        };
        mints.push((id, mint));
    }
    Ok(mints)
}

/// The block that has our transaction although the node has no receipt of it. One that nothing more is known of than its
/// hash is as deep as anything.
async fn block_of(
    context: &Context,
    node: &Endpoint,
    hash: B256,
) -> Result<Option<u64>, ReconcileError> {
    let Some(young) = context.outbox.young_tx(hash)? else {
        return Ok(Some(0));
    };
    let hint = Some(young.block);
    let holder = nonce::holder(node, young.sender, young.row.signed.nonce, hint).await?;
    Ok(match holder {
        Holder::Transaction { hash: found, block } if found == hash => Some(block),
        _ => None,
    })
}

async fn subscription(
    node: RootProvider<Ethereum>,
    contract: Address,
    at: BlockId,
    id: u64,
) -> Result<(u64, Subscription), TransportError> {
    let pos = BlockhostSubscriptions::new(contract, node);
    let found = pos
        .getSubscription(U256::from(id))
        .block(at)
        .call()
        .await
        .map_err(crate::cli::mint_nft::contract_error)?;
    Ok((
        id,
        Subscription {
            expires_at: recordable(found.expiresAt),
            cancelled: found.cancelled,
        },
    ))
}

/// As the database can hold it: beyond what it can say is for ever, and no difference.
fn recordable(expires_at: U256) -> i64 {
    Time::from_unix(i64::try_from(expires_at).unwrap_or(i64::MAX)).unix()
}

/// Whose a token is; none when there is no such token.
async fn owner(
    node: &RootProvider<Ethereum>,
    nft: Address,
    at: BlockId,
    token: u64,
) -> Result<Option<Address>, TransportError> {
    let asked = AccessCredentialNFT::new(nft, node)
        .ownerOf(U256::from(token))
        .block(at)
        .call()
        .await;
    match asked.map_err(crate::cli::mint_nft::contract_error) {
        Ok(owner) => Ok(Some(owner)),
        // The contract itself said no. Any other refusal is about the node.
        Err(TransportError::ErrorResp(payload)) if payload.as_revert_data().is_some() => Ok(None),
        Err(e) => Err(e),
    }
}

/// When the block up to which was read was made, seconds since 1970; none where the node has another one there.
async fn time_of(node: &Endpoint, cursor: Cursor) -> Result<Option<i64>, ReconcileError> {
    let block = node
        .provider()
        .get_block_by_number(cursor.number.into())
        .await
        .map_err(|e| node_failed("reading a block", node, &e))?;
    Ok(block
        .filter(|block| block.header.hash == cursor.hash)
        .map(|block| i64::try_from(block.header.timestamp).unwrap_or(i64::MAX)))
}

/// Asks for each of many things, some at a time, all of one node.
async fn many<K, T, F, Fut>(node: &Endpoint, keys: Vec<K>, ask: F) -> Result<Vec<T>, ReconcileError>
where
    F: Fn(RootProvider<Ethereum>, K) -> Fut,
    Fut: Future<Output = Result<T, TransportError>> + Send + 'static,
    T: Send + 'static,
{
    let mut answers = Vec::with_capacity(keys.len());
    let mut running = JoinSet::new();
    let mut keys = keys.into_iter();
    loop {
        while running.len() < AT_ONCE
            && let Some(key) = keys.next()
        {
            running.spawn(ask(node.provider().clone(), key));
        }
        match running.join_next().await {
            None => return Ok(answers),
            Some(Ok(Ok(answer))) => answers.push(answer),
            Some(Ok(Err(e))) => return Err(node_failed("reading the contracts", node, &e)),
            Some(Err(e)) => return Err(ReconcileError::Task(e)),
        }
    }
}

fn refused(what: &'static str, node: &Endpoint, error: alloy::contract::Error) -> ReconcileError {
    node_failed(what, node, &crate::cli::mint_nft::contract_error(error))
}

fn node_failed(what: &'static str, node: &Endpoint, error: &TransportError) -> ReconcileError {
    ReconcileError::Node {
        what,
        host: node.host().to_owned(),
        reason: crate::chain::rpc::describe(error),
    }
}
