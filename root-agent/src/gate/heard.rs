//! What the supervisor and the front tell the gate. What it does about it is for others to say.

use std::time::Duration;

use blockhost_proto::action::Action;
use blockhost_proto::response::ErrorCode;
use serde_json::Map;

use super::records::Names;
use super::{Entry, Gate, GateError, LONGEST_LIMIT, MAX_JOBS, Pending, payloads, pruning, records};
use crate::compartment::Failure;
use crate::ipc::{ChannelError, Control, ToGate};
use crate::log_error;
use crate::policy::Policy;
use crate::policy::authority::{Authority, ResolvedRule};

impl Gate {
    pub(super) fn hear_control(&mut self) -> Result<(), GateError> {
        while let Some((message, descriptor)) = self
            .control
            .receive::<Control>(false)
            .map_err(GateError::Control)?
        {
            match (message, descriptor) {
                (Control::Channel { role }, Some(socket)) => {
                    self.lose(role, "was replaced");
                    if let Err(error) = self.connect(role, socket) {
                        log_error!("channel to {}: {error}", role.as_str());
                    }
                }
                (Control::Stop, _) => self.stopping = true,
                (Control::NextKey { epoch, key }, _) => self.rotate(epoch, key),
                (
                    Control::Policy {
                        policy,
                        rules,
                        users,
                    },
                    _,
                ) => {
                    self.names = Names::new(&users);
                    self.take_policy(&policy, &rules);
                }
                (Control::PolicyRefused { reason }, _) => {
                    let reason = records::printable(&reason);
                    let fact = [("reason".to_owned(), reason.into())];
                    self.note("policy-refused", "agent:policy", Map::from_iter(fact));
                }
                _ => {
                    let text = "unexpected message for the ledger".to_owned();
                    return Err(GateError::Control(ChannelError::Violation(text)));
                }
            }
        }
        Ok(())
    }

    fn take_policy(&mut self, policy: &Policy, rules: &[ResolvedRule]) {
        self.authority = Authority::new(&policy.allow, rules, self.identities);
        self.quota = payloads::quota(&policy.limits);
        self.retention = pruning::retention(&policy.limits);
        let mut facts = Map::new();
        facts.insert("rules".to_owned(), rules.len().into());
        // Which policy it was can be shown later by whoever kept the file.
        facts.insert("sha256".to_owned(), policy.digest().into());
        self.note("policy-changed", "agent:policy", facts);
    }

    pub(super) fn hear_front(&mut self, message: ToGate) {
        match message {
            ToGate::Job {
                id,
                caller,
                action,
                params,
                limit_ms,
            } => match Action::from_parts(&action, &params) {
                Ok(action) => {
                    let limit = Duration::from_millis(limit_ms).min(LONGEST_LIMIT);
                    let life = self.front_life;
                    if self.jobs() >= MAX_JOBS {
                        let failure = Failure::new(ErrorCode::Busy, "too many jobs at once");
                        return self.answer(life, id, Err(failure), None);
                    }
                    let rights = self.authority.rights(caller.subject());
                    match self.authority.permits(&rights, &action) {
                        Ok(rule) => {
                            let turn = self.next_turn;
                            self.next_turn += 1;
                            self.take_turn(Pending {
                                id,
                                life,
                                caller,
                                action,
                                limit,
                                rule,
                                turn,
                            });
                        }
                        // The policy has changed on the way, or this is not our front any more.
                        Err(failure) => {
                            let (name, code) = (action.name(), failure.code.as_str());
                            let text = &failure.message;
                            let draft = records::refusal(&caller, &self.names, name, code, text, 0);
                            self.batch.push(Entry::Note(draft));
                            self.answer(life, id, Err(failure), None);
                        }
                    }
                }
                Err(error) => {
                    // The front validated it; what arrives here invalid was not written by our front.
                    let failure = Failure::new(error.code(), error.to_string());
                    self.answer(self.front_life, id, Err(failure), None);
                }
            },
            ToGate::Refusal {
                caller,
                action,
                code,
                message,
                suppressed,
            } => {
                let draft =
                    records::refusal(&caller, &self.names, &action, &code, &message, suppressed);
                if draft.check().is_ok() {
                    self.batch.push(Entry::Note(draft));
                }
            }
        }
    }
}
