//! From a job to its effect: which steps, in which order, and what happens when one fails. Steps are remembered in the
//! outbox, so that a job that was interrupted anywhere goes on where it stopped.

mod created;
mod lifecycle;
mod mint;

use crate::agent::{self, RecordError};
use crate::chain::tx::Wallet;
use crate::chain::{Address, Chain, ChainError};
use crate::config::EngineSection;
use crate::crypto::keys::PrivateKey;
use crate::exec::{self, ExecError, Finished, Program};
use crate::holds::Holds;
use crate::machines::{Machines, MachinesError};
use crate::manifest::Manifest;
use crate::outbox::{Job, Outbox, OutboxError};
use crate::sending::{SendError, Sender, Sending};
use blockhost_proto::client::CallError;
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub(crate) use mint::minted_token;

/// What all jobs share.
#[derive(Debug)]
pub struct Context {
    /// Where everything lies.
    pub layout: Layout,
    /// How the engine works.
    pub settings: EngineSection,
    /// The chain.
    pub chain: Chain,
    /// The credential contract.
    pub nft_contract: Address,
    /// The jobs.
    pub outbox: Arc<Outbox>,
    /// The provisioner.
    pub manifest: Manifest,
    /// The machines' database.
    pub machines: Machines,
    /// The key that buyers encrypt to.
    pub server_key: PrivateKey,
    /// The owner of the contracts, with its nonces.
    pub sender: Sender,
    /// Who works on which subscription.
    pub holds: Holds,
    /// True once the engine is to end.
    pub stop: watch::Receiver<bool>,
}

impl Context {
    /// The account that owns the contracts.
    #[must_use]
    pub fn wallet(&self) -> &Wallet {
        self.sender.wallet()
    }

    /// To send transactions of the owner's account for one purpose, once.
    pub(crate) fn sending<'a>(
        &'a self,
        job: i64,
        purpose: &'a str,
        max_fee_gwei: u64,
    ) -> Sending<'a> {
        Sending {
            chain: &self.chain,
            outbox: &self.outbox,
            sender: &self.sender,
            stop: &self.stop,
            replace_after_s: self.settings.replace_after_s,
            job,
            purpose,
            max_fee_gwei,
        }
    }

    fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Runs a command of the provisioner.
    pub(crate) async fn command(&self, verb: &str, args: &[&str]) -> Result<Finished, StepError> {
        if self.stopping() {
            return Err(StepError::Stopped);
        }
        let limit = if verb == "create" {
            self.settings.create_timeout_s
        } else {
            self.settings.command_timeout_s
        };
        let program = Program {
            path: self.manifest.program(verb).clone(),
            args: args.iter().map(OsString::from).collect(),
            root: self.layout.root().to_owned(),
            limit: Duration::from_secs(limit),
        };
        Ok(exec::run(&program).await?)
    }

    /// Records what a job did, with the event that caused it.
    async fn record(&self, job: &Job, action: &str, mut data: Value) -> Result<(), StepError> {
        if self
            .outbox
            .step::<Option<u64>>(job.id, "recorded")?
            .is_some()
        {
            return Ok(());
        }
        let subscription = job.event.subscription_id();
        let resource = if subscription == 0 {
            format!("contract:{}", job.contract)
        } else {
            format!("subscription:{subscription}")
        };
        if let Some(map) = data.as_object_mut() {
            map.insert("chain_id".into(), json!(self.chain.chain_id()));
            map.insert("contract".into(), json!(job.contract.to_string()));
            map.insert("block".into(), json!(job.block_number));
            map.insert("event_tx".into(), json!(job.tx_hash.to_string()));
            map.insert("job".into(), json!(job.id));
        }
        let index = agent::record(&self.layout, action, &resource, data).await?;
        // Between the two, a crash leaves a second, identical record: it names the same job.
        self.outbox.record_step(job.id, "recorded", &index)?;
        Ok(())
    }
}

/// How an attempt at a job ended, when it did not end well.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Trying again can help.
    #[error("{0}")]
    Retry(String),
    /// What was sent is in no block for long. It is gone on with after a while; the attempt does not count, since the journal
    /// lets nothing be done twice.
    #[error("{0}")]
    Waiting(String),
    /// Trying again helps as soon as something else is well again: no node answers, gas is too dear, the database or the
    /// agent is away. It is not the job's fault, so the attempt does not count.
    #[error("{0}")]
    NotNow(String),
    /// Trying again cannot help; somebody has to decide.
    #[error("{0}")]
    Park(String),
    /// The engine stops; the attempt does not count.
    #[error("the engine is stopping")]
    Stopped,
}

macro_rules! retry_on {
    ($($error:ty: $waits:expr),* $(,)?) => {$(
        impl From<$error> for StepError {
            fn from(error: $error) -> Self {
                let waits: fn(&$error) -> bool = $waits;
                if waits(&error) {
                    Self::NotNow(error.to_string())
                } else {
                    Self::Retry(error.to_string())
                }
            }
        }
    )*};
}
retry_on!(
    ExecError: |e| matches!(e, ExecError::Failed { status, .. } if status.code().is_some_and(|code| NOT_THE_MACHINE.contains(&code))),
    MachinesError: machines_wait,
    ChainError: chain_waits,
    OutboxError: |e| matches!(e, OutboxError::Database { .. }),
);

/// Exit codes of the provisioner's commands for what is not about one machine: database or configuration, and the agent.
const NOT_THE_MACHINE: [i32; 2] = [3, 6];

fn chain_waits(error: &ChainError) -> bool {
    matches!(error, ChainError::NoEndpoint { .. })
}

fn machines_wait(error: &MachinesError) -> bool {
    use blockhost_provisioner::store::StoreError;
    match error {
        MachinesError::Config(_) => true,
        MachinesError::Store(e) => matches!(
            e,
            StoreError::Damaged { .. }
                | StoreError::Io { .. }
                | StoreError::Locked { .. }
                | StoreError::Unsupported { .. }
                | StoreError::Stranger { .. }
                | StoreError::Server { .. }
        ),
        MachinesError::Value(_) | MachinesError::Broken(_) => false,
    }
}

/// Whether the agent is away, has too much to do, or cannot write its ledger now: for a record there is no other failure.
fn agent_waits(error: &CallError) -> bool {
    match error {
        CallError::Connect { .. } | CallError::Timeout { .. } | CallError::Protocol { .. } => true,
        CallError::Refused { code, .. } => {
            matches!(
                code,
                ErrorCode::Busy | ErrorCode::Failed | ErrorCode::Timeout
            )
        }
    }
}

impl From<SendError> for StepError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Stopped => Self::Stopped,
            SendError::Waiting { .. } => Self::Waiting(error.to_string()),
            SendError::Empty { .. } => Self::Park(error.to_string()),
            SendError::Chain(e) => e.into(),
            SendError::Outbox(e) => e.into(),
            SendError::TooDear { .. } | SendError::Poor { .. } | SendError::NoReceipt { .. } => {
                Self::NotNow(error.to_string())
            }
            SendError::Lock(_) | SendError::Reverted { .. } => Self::Retry(error.to_string()),
        }
    }
}

impl From<RecordError> for StepError {
    fn from(error: RecordError) -> Self {
        match &error {
            RecordError::Event { .. } => Self::Park(error.to_string()),
            RecordError::Call(e) if agent_waits(e) => Self::NotNow(error.to_string()),
            RecordError::Call(_) => Self::Retry(error.to_string()),
        }
    }
}

/// Does one job, from the step where it stopped.
///
/// # Errors
/// [`StepError`].
pub async fn handle(context: &Context, job: &Job) -> Result<(), StepError> {
    use crate::chain::events::Event;
    match &job.event {
        Event::SubscriptionCreated {
            subscription_id,
            plan_id,
            subscriber,
            expires_at,
            user_encrypted,
            ..
        } => {
            let purchase = created::Purchase {
                id: *subscription_id,
                plan: plan_id,
                subscriber: *subscriber,
                expires_at: *expires_at,
                user_encrypted,
            };
            created::run(context, job, &purchase).await
        }
        Event::SubscriptionExtended {
            subscription_id,
            new_expires_at,
            ..
        } => lifecycle::extended(context, job, *subscription_id, *new_expires_at).await,
        Event::SubscriptionCancelled {
            subscription_id, ..
        } => lifecycle::cancelled(context, job, *subscription_id).await,
        Event::Other { name, detail } => {
            context
                .record(
                    job,
                    &kebab(name),
                    json!({"detail": detail.replace(['\u{7f}', '\0'], "\u{fffd}")}),
                )
                .await
        }
    }
}

/// `PlanCreated` as the ledger writes names: `plan-created`.
fn kebab(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    /// What is wrong with the world outside must never cost a job its attempts: after eight of them, within minutes, it
    /// would be parked, and each of many customers be in an operator's hands.
    #[test]
    fn what_is_not_the_jobs_fault_costs_it_no_attempt_and_what_is_does() {
        use blockhost_provisioner::store::StoreError;
        let exited = |code: i32| {
            StepError::from(ExecError::Failed {
                path: "/usr/bin/blockhost-vm-create".into(),
                status: std::process::ExitStatus::from_raw(code << 8),
                stderr: String::new(),
            })
        };
        let refused = |code| {
            StepError::from(RecordError::Call(CallError::Refused {
                code,
                message: String::new(),
            }))
        };
        let nobody = || ChainError::NoEndpoint {
            what: "asking",
            chain_id: 1,
            reasons: String::new(),
        };
        let said_no = || ChainError::Refused {
            what: "asking",
            host: String::new(),
            message: String::new(),
            code: 3,
        };
        let server = StoreError::Server {
            server: String::new(),
            problem: String::new(),
        };
        let unknown = StoreError::UnknownVm {
            name: String::new(),
        };
        let waits: Vec<StepError> = vec![
            nobody().into(),
            SendError::Chain(nobody()).into(),
            SendError::TooDear { asked: 2, limit: 1 }.into(),
            MachinesError::Store(server).into(),
            MachinesError::Config(String::new()).into(),
            exited(3),
            exited(6),
            refused(ErrorCode::Busy),
            RecordError::Call(CallError::Protocol {
                what: String::new(),
            })
            .into(),
        ];
        for error in waits {
            assert!(matches!(error, StepError::NotNow(_)), "{error:?}");
        }
        let counted: Vec<StepError> = vec![
            said_no().into(),
            SendError::Chain(said_no()).into(),
            MachinesError::Store(unknown).into(),
            exited(1),
            exited(5),
            refused(ErrorCode::BadParams),
        ];
        for error in counted {
            assert!(matches!(error, StepError::Retry(_)), "{error:?}");
        }
        assert!(matches!(
            StepError::from(SendError::Stopped),
            StepError::Stopped
        ));
    }

    #[test]
    fn event_names_become_ledger_names() {
        assert_eq!(
            super::kebab("PrimaryStablecoinSet"),
            "primary-stablecoin-set"
        );
    }
}
