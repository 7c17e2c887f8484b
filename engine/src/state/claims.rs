//! What an apply writes into the record, before the first action and after the last: what it may have made, and what it has.

use super::change::{Change, Verdict};
use super::record::Record;
use super::report::{Fate, Outcome};

/// What is right already and was made here becomes known; what is known, but neither wanted nor there, is forgotten.
pub(super) fn adopt(record: &mut Record, all: &[Change], gone: &[(&'static str, String)]) {
    for change in all.iter().filter(|c| !c.is_pending() && c.ours) {
        if let Some(wanted) = &change.wanted {
            let name = change.resource.plugin;
            record.put(name, &change.resource.id, wanted.clone(), true);
        }
    }
    for (plugin, id) in gone {
        record.forget(plugin, id);
    }
}

/// Before anything is done: what may be made from now on is ours.
pub(super) fn claim(record: &mut Record, order: &[Change]) {
    for change in order.iter().filter(|change| change.blocked.is_none()) {
        let (plugin, id) = (change.resource.plugin, &change.resource.id);
        match &change.wanted {
            Some(wanted) => record.put(plugin, id, wanted.clone(), false),
            None => record.unsettle(plugin, id),
        }
    }
}

/// After it was done, or not.
pub(super) fn settle(record: &mut Record, before: &Record, outcome: &Outcome, order: &[Change]) {
    let (plugin, id) = (outcome.resource.plugin, &outcome.resource.id);
    let change = order.iter().find(|c| c.resource == outcome.resource);
    match (outcome.fate, outcome.verdict) {
        (Fate::Done, Verdict::Delete) => record.forget(plugin, id),
        (Fate::Done, _) => {
            if let Some(wanted) = change.and_then(|change| change.wanted.clone()) {
                record.put(plugin, id, wanted, true);
            }
        }
        // As it was before: nothing was changed, or all of it was taken back.
        (Fate::RolledBack | Fate::Blocked | Fate::Skipped, _) => {
            record.restore(before, plugin, id);
        }
        // Something of it is there: claimed, and not finished.
        (Fate::Failed, _) => {}
    }
}
