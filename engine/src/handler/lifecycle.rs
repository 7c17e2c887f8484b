//! What happens to a machine after the purchase: more days, or the end.

use super::{Context, StepError};
use crate::machines::machine_name;
use crate::outbox::Job;
use blockhost_provisioner::record::Status;
use serde_json::json;

pub(super) async fn extended(
    context: &Context,
    job: &Job,
    id: u64,
    until: i64,
) -> Result<(), StepError> {
    let name = machine_name(id);
    if context.outbox.step::<i64>(job.id, "expiry")?.is_none() {
        let record = context.machines.get(&name).await?;
        let Some(record) = record.filter(|record| record.status != Status::Destroyed) else {
            return Err(StepError::Park(format!(
                "subscription {id} was extended, but its machine {name} is gone; make a new one or refund"
            )));
        };
        // Never back: while this job stood still, a later extension may have been entered.
        if record.expires_at.unix() < until {
            // Before the resume: the other way round, a collection in between would suspend it again.
            context.machines.set_expiry(&name, until).await?;
        }
        context.outbox.record_step(job.id, "expiry", &until)?;
    }
    if context.outbox.step::<bool>(job.id, "resumed")?.is_none() {
        let suspended = context
            .machines
            .get(&name)
            .await?
            .is_some_and(|record| record.status == Status::Suspended);
        if suspended {
            context.command("resume", &[&name]).await?;
        }
        context.outbox.record_step(job.id, "resumed", &suspended)?;
    }
    context
        .record(
            job,
            "subscription-extended",
            json!({"subscription": id, "vm_name": name, "expires_at": until}),
        )
        .await
}

pub(super) async fn cancelled(context: &Context, job: &Job, id: u64) -> Result<(), StepError> {
    let name = machine_name(id);
    if context.outbox.step::<bool>(job.id, "destroyed")?.is_none() {
        // Also when no machine is known: a create that died may have left a half-made one, and destroying none is no error.
        context.command("destroy", &[&name]).await?;
        context.outbox.record_step(job.id, "destroyed", &true)?;
    }
    context
        .record(
            job,
            "subscription-cancelled",
            json!({"subscription": id, "vm_name": name}),
        )
        .await
}
