//! Carrying out steps: one action of the agent after the other, patient where the agent is busy or restarting, honest where
//! nobody knows whether an action happened, and the way back. Decides nothing about what is right.

use std::time::Duration;

use blockhost_proto::action::PctConfig;
use blockhost_proto::client::CallError;
use blockhost_proto::response::ErrorCode;

use super::change::{OnlyIf, Step};
use super::host::{Host, read, worth_waiting};
use super::lxc::is_marked;

/// What takes back the steps that were made, the last one first.
#[derive(Debug, Default)]
pub struct Checkpoint {
    undo: Vec<Step>,
    /// What was done, for people.
    pub done: Vec<String>,
    /// Steps that nothing takes back.
    pub lasting: Vec<String>,
}

impl Checkpoint {
    fn note(&mut self, step: &Step) {
        if step.undo.is_empty() && !step.leaves_nothing {
            self.lasting.push(step.say.clone());
        }
        // Taken back in the order in which they stand, before those of earlier steps.
        self.undo.extend(step.undo.iter().rev().cloned());
    }

    /// True when nothing was done that could be taken back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.undo.is_empty()
    }
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{say}: {why}")]
pub struct StepError {
    /// The step.
    pub say: String,
    /// What went wrong.
    pub why: String,
    /// Nobody knows whether it happened: a look will tell.
    pub unsure: bool,
    /// Nothing reaches the agent at all.
    pub agent_is_gone: bool,
}

/// Makes one step.
///
/// # Errors
/// [`StepError`]; what the step may have left is in the checkpoint then.
pub fn make(
    host: &mut dyn Host,
    step: &Step,
    checkpoint: &mut Checkpoint,
) -> Result<(), StepError> {
    if let Some(condition) = &step.only_if
        && !holds(host, condition, step)?
    {
        return Ok(());
    }
    match call_patiently(host, step) {
        Ok(()) => {
            checkpoint.note(step);
            checkpoint.done.push(step.say.clone());
            crate::failpoint::reach("state-apply", &step.say);
            Ok(())
        }
        Err((error, may_have_happened)) => {
            if may_have_happened {
                checkpoint.note(step);
            }
            Err(error)
        }
    }
}

/// Takes back everything, the last step first, going on where one cannot be taken back. Answers what remains.
pub fn take_back(host: &mut dyn Host, checkpoint: Checkpoint) -> Vec<String> {
    let mut remains = Vec::new();
    for step in checkpoint.undo.iter().rev() {
        if let Some(condition) = &step.only_if {
            match holds(host, condition, step) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    remains.push(error.to_string());
                    continue;
                }
            }
        }
        match call_patiently(host, step) {
            Err((error, _)) => remains.push(error.to_string()),
            Ok(()) => continue,
        }
    }
    remains
}

fn holds(host: &mut dyn Host, condition: &OnlyIf, step: &Step) -> Result<bool, StepError> {
    let refused = |why: String| StepError {
        say: step.say.clone(),
        why,
        unsure: false,
        agent_is_gone: false,
    };
    match condition {
        OnlyIf::ContainerIsOurs(vmid) => match read(host, PctConfig { vmid: *vmid }) {
            Ok(config) if is_marked(&config) => Ok(true),
            Ok(_) => Err(refused(format!(
                "container {vmid} does not bear the mark of those that are made here; it was left alone"
            ))),
            Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(false),
            Err(error) => Err(StepError {
                agent_is_gone: error.is_connection(),
                ..refused(error.to_string())
            }),
        },
    }
}

/// Also says whether it may have happened all the same.
fn call_patiently(host: &mut dyn Host, step: &Step) -> Result<(), (StepError, bool)> {
    let mut wait = Duration::from_millis(100);
    let mut waited = Duration::ZERO;
    let error = loop {
        let error = match host.call(&step.action) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if waited >= worth_waiting(&error) {
            break error;
        }
        host.pause(wait);
        waited += wait;
        wait = (wait * 2).min(Duration::from_secs(2));
    };
    let removal = step.action.spec().operation == "delete";
    let code = error.code();
    if removal && code == Some(ErrorCode::NotFound) {
        // Gone is gone.
        return Ok(());
    }
    let unsure = match &error {
        CallError::Timeout { .. } | CallError::Protocol { .. } => true,
        CallError::Refused { code, .. } => *code == ErrorCode::Internal,
        CallError::Connect { .. } => false,
    };
    // These have been tried: most actions clean up behind themselves, not all can.
    let tried = matches!(code, Some(ErrorCode::Failed | ErrorCode::Timeout));
    let may_have_happened = unsure || tried;
    let error = StepError {
        say: step.say.clone(),
        why: error.to_string(),
        unsure,
        agent_is_gone: matches!(error, CallError::Connect { .. }),
    };
    Err((error, may_have_happened))
}
