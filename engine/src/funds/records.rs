//! Each movement of money is a record of the ledger: at once where the agent answers, else later.

use super::error::FundsError;
use super::step::{Outcome, Step};
use super::teller::{Counter, Teller, parse};
use crate::agent::{self, Kind};
use crate::log;
use crate::outbox::StepRow;

impl Teller {
    /// Records a movement. One that cannot be recorded now is recorded later.
    pub(super) async fn put_on_record(&self, row: &StepRow, step: &Step, outcome: &Outcome) {
        if let Err(error) = self.record(row, step, outcome).await {
            log::warn(
                "a movement of money is not in the ledger yet",
                &[
                    ("order", &row.order),
                    ("step", &row.number),
                    ("error", &error),
                ],
            );
        }
    }

    async fn record(
        &self,
        row: &StepRow,
        step: &Step,
        outcome: &Outcome,
    ) -> Result<(), FundsError> {
        let mut data = step.json();
        if let (Some(data), Some(more)) = (data.as_object_mut(), outcome.json().as_object()) {
            data.extend(more.clone());
            // The ledger takes a `token` for a secret.
            if let Some(token) = data.remove("token") {
                data.insert("currency".into(), token);
            }
            data.insert("chain_id".into(), self.chain.chain_id().into());
            data.insert("order".into(), row.order.into());
            data.insert("step".into(), row.number.into());
        }
        let resource = format!("wallet:{}", step.from.name);
        let kind = Kind {
            category: "chain",
            operation: None,
        };
        agent::record_in(&self.config.layout, kind, step.verb(), &resource, data).await?;
        // Between the two, a crash leaves a second, identical record: it names the same order and step.
        self.outbox.step_recorded(row.order, row.number)?;
        Ok(())
    }

    /// Records what could not be recorded when it happened. Nobody else pays meanwhile: who has just paid records it itself.
    ///
    /// # Errors
    /// [`FundsError`].
    pub async fn catch_up_records(&self, _counter: &Counter) -> Result<(), FundsError> {
        for row in self.outbox.unrecorded_steps()? {
            let outcome = row
                .outcome
                .as_deref()
                .ok_or("it has no outcome".to_owned())
                .and_then(|text| serde_json::from_str(text).map_err(|e| e.to_string()));
            let outcome: Outcome = outcome.map_err(|reason| FundsError::Step {
                order: row.order,
                number: row.number,
                reason,
            })?;
            self.record(&row, &parse(&row)?, &outcome).await?;
        }
        Ok(())
    }
}
