//! Changes that could cut the operator off, handed to `network::confirm` and told in the words of an apply. Called by the
//! plugins' adapter.

use super::change::{Careful, Change, Step};
use super::host::Host;
use super::plugin::error;
use super::run::{Checkpoint, StepError};
use crate::network::confirm::{self, reshape::Reshape};

/// All steps as one change that stays only if all is well afterwards. What stays is not taken back for something else.
pub(super) fn make_carefully(
    host: &mut dyn Host,
    change: &Change,
    careful: &Careful,
    steps: &[Step],
    checkpoint: &mut Checkpoint,
) -> Result<(), StepError> {
    let made = match careful {
        Careful::Uplink(uplink) => confirm::Change::Attach(uplink.clone()),
        Careful::Flows(_) | Careful::FirstFlows(_)
            if steps.iter().any(|step| step.undo.is_empty()) =>
        {
            let lost = steps.iter().filter(|step| step.undo.is_empty());
            let lost: Vec<&str> = lost.map(|step| step.say.as_str()).collect();
            let why = format!(
                "nobody knows what was set before, so it could not be taken back ({}); take away what stands there, from where you \
                 are not cut off (`blockhost agent call ovs-set-flows` without flows), or, on a bridge that the default route does \
                 not lead over, apply without --confirm-within and --probe",
                lost.join(", ")
            );
            return Err(error(change, why));
        }
        Careful::Bridge(bridge) | Careful::Flows(bridge) | Careful::FirstFlows(bridge) => {
            let with_way_back = |step: &Step| confirm::plan::Step {
                requires: Vec::new(),
                forward: confirm::plan::Call(step.action.clone()),
                inverse: step
                    .undo
                    .iter()
                    .map(|undo| confirm::plan::Undo {
                        only_if: None,
                        call: confirm::plan::Call(undo.action.clone()),
                    })
                    .collect(),
            };
            confirm::Change::Reshape(Reshape {
                bridge: bridge.clone(),
                what: match careful {
                    Careful::Flows(_) | Careful::FirstFlows(_) => {
                        format!("change the flows of {bridge}")
                    }
                    _ => format!("change {bridge}"),
                },
                steps: steps.iter().map(with_way_back).collect(),
            })
        }
    };
    let report = host
        .carefully(&made)
        .map_err(|e| error(change, e.to_string()))?;
    let reason = report.reason.unwrap_or_default();
    match report.outcome {
        confirm::Outcome::Confirmed | confirm::Outcome::Waiting => {
            for step in steps {
                checkpoint.done.push(step.say.clone());
                checkpoint.lasting.push(step.say.clone());
            }
            Ok(())
        }
        confirm::Outcome::Stuck => {
            checkpoint
                .lasting
                .push(format!("{}: see `blockhost net status`", report.what));
            let why = format!("it did not work and cannot be taken back: {reason}");
            Err(error(change, why))
        }
        confirm::Outcome::Reverted | confirm::Outcome::Planned => {
            Err(error(change, format!("it was taken back: {reason}")))
        }
    }
}
