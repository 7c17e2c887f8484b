//! Mends what [`super::plan`] found, one finding at a time: nobody else works on that subscription meanwhile, and what
//! was found is looked at once more in the database before anything is changed.

use super::observe;
use super::plan::{Finding, OpenJob, Problem};
use crate::agent;
use crate::chain::Address;
use crate::failpoint;
use crate::handler::{Context, StepError};
use crate::machines::{exists, subscription_of};
use blockhost_provisioner::record::Status;
use serde_json::json;
use std::collections::BTreeMap;

/// How an attempt to mend ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// Done and on record.
    Yes,
    /// A job is at it, or it is no longer so: the next look sees.
    NotNow,
}

/// Mends one finding, one of `certain`, all of which are so. What only a person can decide is left alone.
///
/// # Errors
/// [`StepError`]; what was done up to there is right by itself, and the next look finds the rest.
pub async fn repair(
    context: &Context,
    contract: Address,
    finding: &Finding,
    certain: &[Finding],
) -> Result<Mended, StepError> {
    let id = finding.subscription;
    let Some(_held) = context.holds.try_hold(id) else {
        return Ok(Mended::NotNow);
    };
    let open = context
        .outbox
        .open_jobs(context.chain.chain_id(), contract)?;
    let found = context.machines.find(&finding.vm_name).await?;
    let record = found.and_then(|(record, here)| here.then_some(record));
    if open.get(&id).is_some_and(|job| finding.is_left_to(*job)) {
        return Ok(Mended::NotNow);
    }
    let Some(record) = record.filter(|record| exists(Some(record))) else {
        return Ok(Mended::NotNow);
    };
    let now = observe::machine(&record);
    let name = finding.vm_name.as_str();
    match &finding.problem {
        Problem::OwnerChanged {
            token,
            wallet,
            running,
        } => {
            if now.token != Some(*token) || now.wallet == Some(*wallet) {
                return Ok(Mended::NotNow);
            }
            // First the database: from here on the next look finds a guest that is behind, whatever happens.
            context
                .machines
                .set_access(name, *wallet, *token, false)
                .await?;
            note(context, finding).await?;
            if *running {
                tell_guest(context, name, *wallet, *token).await?;
            }
        }
        Problem::GuestBehind { token, wallet } => {
            if now.token != Some(*token) || now.wallet != Some(*wallet) || now.guest_knows {
                return Ok(Mended::NotNow);
            }
            tell_guest(context, name, *wallet, *token).await?;
            note(context, finding).await?;
        }
        Problem::MintTakenBack { job } => {
            note(context, finding).await?;
            context.outbox.mint_again(*job)?;
        }
        Problem::TokenDiffers { recorded, token } => {
            if now.token != *recorded {
                return Ok(Mended::NotNow);
            }
            if let Some(holder) = context.machines.take_token(name, *token).await? {
                let others = (certain, &open);
                if !give_back(context, others, holder.as_str(), *token).await? {
                    return Ok(Mended::NotNow);
                }
                context.machines.set_token(name, *token).await?;
            }
            note(context, finding).await?;
        }
        Problem::ExpiryDiffers {
            recorded,
            expires_at,
            resume,
        } => {
            if now.expires_at != *recorded {
                return Ok(Mended::NotNow);
            }
            // Before the resume: the other way round, a collection in between would suspend it again.
            context.machines.set_expiry(name, *expires_at).await?;
            note(context, finding).await?;
            if *resume {
                context.command("resume", &[name]).await?;
            }
        }
        Problem::NotResumed { expires_at } => {
            if now.status != Status::Suspended || now.expires_at != *expires_at {
                return Ok(Mended::NotNow);
            }
            context.command("resume", &[name]).await?;
            // After it: one that fails is tried again with every look, and is not to fill the ledger.
            note(context, finding).await?;
        }
        Problem::NotRunning
        | Problem::NoCredential
        | Problem::Burnt { .. }
        | Problem::Cancelled
        | Problem::NoSubscription
        | Problem::NoMachine { .. } => return Ok(Mended::NotNow),
    }
    Ok(Mended::Yes)
}

/// Takes a token from a machine that is recorded with it, where the chain says that it has another one: a reorganisation
/// exchanged the two. Killed after this, the machine has no token on record, and the next look gives it its own.
async fn give_back(
    context: &Context,
    (certain, open): (&[Finding], &BTreeMap<u64, OpenJob>),
    holder: &str,
    token: u64,
) -> Result<bool, StepError> {
    let Some(id) = subscription_of(holder).filter(|id| !open.contains_key(id)) else {
        return Ok(false);
    };
    let Some(_held) = context.holds.try_hold(id) else {
        return Ok(false);
    };
    let Some((record, true)) = context.machines.find(holder).await? else {
        return Ok(false);
    };
    // Else it is only a promise that was left behind, or the machine is gone.
    if record.nft_token_id == Some(token) && exists(Some(&record)) {
        let differs = |finding: &Finding| {
            finding.subscription == id
                && matches!(finding.problem, Problem::TokenDiffers { recorded: Some(recorded), .. } if recorded == token)
        };
        if !certain.iter().any(differs) {
            return Ok(false);
        }
    }
    context.machines.disown_token(holder, token).await?;
    failpoint::reach("reconcile", "disowned");
    Ok(true)
}

async fn tell_guest(
    context: &Context,
    name: &str,
    wallet: Address,
    token: u64,
) -> Result<(), StepError> {
    let (owner, id) = (wallet.to_string(), token.to_string());
    context
        .command("update-gecos", &[name, &owner, "--nft-id", &id])
        .await?;
    context
        .machines
        .set_access(name, wallet, token, true)
        .await?;
    Ok(())
}

/// On record: what did not fit and was made to.
async fn note(context: &Context, finding: &Finding) -> Result<(), StepError> {
    let resource = format!("subscription:{}", finding.subscription);
    let mut data = json!(finding);
    data["chain_id"] = context.chain.chain_id().into();
    agent::record(&context.layout, "reconciled", &resource, data).await?;
    Ok(())
}
