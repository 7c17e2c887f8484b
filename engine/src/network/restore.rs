//! The firewall as the ledger says: what stands by the records is set by the root agent as a whole, so that what went at a start
//! comes back and what nobody recorded goes. Where it is so already nothing is done. Called by `blockhost net restore`, which a unit runs at each start of the machine.

use std::collections::BTreeSet;
use std::time::Duration;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::query::Fields;
use blockhost_ledger::reader::{ReadError, Reader};
use blockhost_proto::action::{Action, IptablesList, IptablesOpen, NatList, NatMap};
use blockhost_proto::client::blocking::Client;
use blockhost_proto::client::{CallError, Reply};
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{NatPair, OpenPort, Param};
use serde::Serialize;
use serde_json::Value;

use super::standing::{Fold, Standing};
use crate::state::host::worth_waiting;

/// Others may open and close ports meanwhile: as often as that is seen, it is set again.
const ROUNDS: usize = 5;

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The ledger.
    #[error("the ledger cannot be read: {0}")]
    Ledger(#[from] ReadError),
    /// More than one request takes.
    #[error("what the ledger says cannot be set: {0}")]
    TooMuch(String),
    /// The agent.
    #[error("{action}: {source}")]
    Call {
        /// What was asked.
        action: &'static str,
        /// The answer.
        source: CallError,
    },
    /// Others did not stop.
    #[error("ports or addresses were changed by others all the time; try again")]
    Unsettled,
}

/// What was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Ports that are open, and no others are.
    pub ports: Vec<String>,
    /// Public addresses that are mapped, and no others are.
    pub pairs: Vec<String>,
    /// What stands by the ledger, but the policy does not permit any more.
    pub left_out: Vec<String>,
    /// What the ledger should say and does not any more.
    pub gaps: Vec<String>,
    /// What the agent said.
    pub said: Vec<String>,
}

/// Sets what stands by the ledger; with `look` it only says what that is.
///
/// # Errors
/// [`RestoreError`]. What was set before stays set.
pub fn restore(layout: &Layout, look: bool) -> Result<Restored, RestoreError> {
    let mut fold = Fold::default();
    let mut read = 0;
    let mut ours: BTreeSet<String> = BTreeSet::new();
    let mut last: Option<(Standing, Restored, Vec<u64>)> = None;
    for _ in 0..ROUNDS {
        let ledger = Reader::open(
            LedgerDir::open(&layout.ledger()).map_err(ReadError::from)?,
            None,
        )?;
        let receipts = last.iter().flat_map(|(_, _, receipts)| receipts);
        for index in receipts {
            let record = ledger.get(*index)?;
            ours.insert(Fields::of(&record).op_id.into_owned());
        }
        ledger.each(read, ledger.size(), &mut |index, _, record| {
            if !ours.contains(&*Fields::of(record).op_id) {
                fold.see(index + 1, record);
            }
        })?;
        read = ledger.size();
        let pruned: Vec<(u64, u64)> = ledger
            .pruned()
            .into_iter()
            .map(|range| (range.first, range.last))
            .collect();
        let standing = fold.standing(&pruned);
        // What others did between our look and our deed was undone by it, and nobody told them: then once more.
        match last.take() {
            Some((set, restored, _)) if set.says_the_same(&standing) => return Ok(restored),
            _ => {}
        }
        if look || !standing.seen {
            return Ok(Restored::of(&standing));
        }
        if last.is_none() && standing.settled && stands(layout, &standing)? {
            return Ok(Restored::of(&standing));
        }
        let (restored, receipts) = set(layout, &standing)?;
        last = Some((standing, restored, receipts));
    }
    Err(RestoreError::Unsettled)
}

impl Restored {
    fn of(standing: &Standing) -> Self {
        Self {
            ports: standing.ports.iter().map(ToString::to_string).collect(),
            pairs: standing.pairs.iter().map(ToString::to_string).collect(),
            left_out: Vec::new(),
            gaps: standing.gaps.clone(),
            said: Vec::new(),
        }
    }
}

/// Asks the agent. What the policy does not permit any more is left out, one by one.
fn set(layout: &Layout, standing: &Standing) -> Result<(Restored, Vec<u64>), RestoreError> {
    let mut allowed = standing.clone();
    let mut left_out = Vec::new();
    let mut receipts = Vec::new();
    let mut said = Vec::new();
    let mut take = |reply: Reply| {
        receipts.extend(reply.receipt.map(|receipt| receipt.index));
        said.push(reply.output);
    };
    let ports = |standing: &Standing| standing.ports_action().map_err(RestoreError::TooMuch);
    match ask(layout, &ports(&allowed)?.into(), false) {
        Err(error) if is_forbidden(&error) => {
            allowed.ports = permitted(layout, &allowed.ports, &mut left_out, |port| {
                Action::from(IptablesOpen {
                    port: port.port,
                    proto: port.proto,
                    comment: port.comment.clone(),
                    source: port.source,
                })
            })?;
            take(ask(layout, &ports(&allowed)?.into(), false)?);
        }
        other => take(other?),
    }
    let pairs = |standing: &Standing| standing.pairs_action().map_err(RestoreError::TooMuch);
    match ask(layout, &pairs(&allowed)?.into(), false) {
        Err(error) if is_forbidden(&error) => {
            allowed.pairs = permitted(layout, &allowed.pairs, &mut left_out, |pair| {
                Action::from(NatMap {
                    public: pair.public,
                    private: pair.private,
                    comment: pair.comment.clone(),
                })
            })?;
            take(ask(layout, &pairs(&allowed)?.into(), false)?);
        }
        other => take(other?),
    }
    let restored = Restored {
        left_out,
        said,
        ..Restored::of(&allowed)
    };
    Ok((restored, receipts))
}

/// Whether the kernel has exactly that, and nothing else in our chains.
fn stands(layout: &Layout, standing: &Standing) -> Result<bool, RestoreError> {
    let entries = |reply: &Reply| -> Vec<Value> {
        let list: Option<Vec<Value>> = serde_json::from_str(&reply.output).ok();
        list.filter(|_| reply.extra.get("clean").is_some_and(|clean| clean == true))
            .unwrap_or_else(|| vec![Value::Null])
    };
    let ports = ask(layout, &IptablesList {}.into(), false)?;
    let ports: Option<BTreeSet<OpenPort>> = entries(&ports).iter().map(open_port).collect();
    if ports.as_ref() != Some(&standing.ports) {
        return Ok(false);
    }
    let pairs = ask(layout, &NatList {}.into(), false)?;
    let pairs: Option<BTreeSet<NatPair>> = entries(&pairs).iter().map(nat_pair).collect();
    Ok(pairs.as_ref() == Some(&standing.pairs))
}

/// A port of the list that stands in all the families that it is for.
fn open_port(listed: &Value) -> Option<OpenPort> {
    let mut listed = listed.as_object()?.clone();
    let families = listed.remove("families")?;
    let port = OpenPort::from_json(&listed.into()).ok()?;
    let wanted = if port.source.is_some() { 1 } else { 2 };
    (families.as_array()?.len() == wanted).then_some(port)
}

fn nat_pair(listed: &Value) -> Option<NatPair> {
    let mut listed = listed.as_object()?.clone();
    let whole = listed.remove("whole")?;
    let pair = NatPair::from_json(&listed.into()).ok()?;
    (whole == true).then_some(pair)
}

fn is_forbidden(error: &RestoreError) -> bool {
    matches!(error, RestoreError::Call { source, .. } if source.code() == Some(ErrorCode::Forbidden))
}

/// Those of which the agent would still do each alone; `left_out` gets the others.
fn permitted<T: Ord + Clone + ToString>(
    layout: &Layout,
    all: &BTreeSet<T>,
    left_out: &mut Vec<String>,
    alone: impl Fn(&T) -> Action,
) -> Result<BTreeSet<T>, RestoreError> {
    let mut permitted = BTreeSet::new();
    for one in all {
        match ask(layout, &alone(one), true) {
            Ok(_) => {
                permitted.insert(one.clone());
            }
            Err(error) if is_forbidden(&error) => left_out.push(one.to_string()),
            Err(error) => return Err(error),
        }
    }
    Ok(permitted)
}

/// One request, again where the agent is busy or is just starting.
fn ask(layout: &Layout, action: &Action, dry_run: bool) -> Result<Reply, RestoreError> {
    let once = || {
        let mut client = Client::connect_layout(layout)?;
        if dry_run {
            client.dry_run(action)
        } else {
            client.call(action)
        }
    };
    let mut wait = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    loop {
        match once() {
            Ok(reply) => return Ok(reply),
            Err(error) if waited < worth_waiting(&error) => {
                std::thread::sleep(wait);
                waited += wait;
                wait = (wait * 2).min(Duration::from_secs(2));
            }
            Err(source) => {
                return Err(RestoreError::Call {
                    action: action.name(),
                    source,
                });
            }
        }
    }
}
