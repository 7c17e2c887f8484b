//! How changes of the network are printed: reports, what was found, what is not over. Nothing that comes from a record or a
//! system reaches a terminal unescaped. Called by `change`.

use std::process::ExitCode;

use blockhost_proto::layout::Layout;
use serde_json::json;

use super::super::fail;
use crate::network::confirm::record::{Ended, Phase, RecordError};
use crate::network::confirm::recover::Found;
use crate::network::confirm::store::Store;
use crate::network::confirm::{ChangeError, ConfirmError, Outcome, Report};

/// Exit code for a change that was taken back.
const TAKEN_BACK: u8 = 2;
/// Exit code for a change that could not be taken back.
const STUCK: u8 = 3;

pub(super) fn print_report(made: Result<Report, ChangeError>, as_json: bool) -> ExitCode {
    let report = match made {
        Ok(report) => report,
        Err(error) => {
            if as_json {
                say!(
                    "{}",
                    json!({"outcome": "refused", "error": error.to_string()})
                );
            }
            return fail("blockhost", &error);
        }
    };
    if as_json {
        say!("{}", json!(report));
    } else {
        print_for_people(&report);
    }
    match report.outcome {
        Outcome::Reverted => ExitCode::from(TAKEN_BACK),
        Outcome::Stuck => ExitCode::from(STUCK),
        _ => ExitCode::SUCCESS,
    }
}

fn print_for_people(report: &Report) {
    for step in report.plan.iter().flat_map(|plan| &plan.steps) {
        say!("would do\t{}", step.forward);
        for undo in &step.inverse {
            say!("taken back by\t{}", undo.call);
        }
    }
    for note in report.plan.iter().flat_map(|plan| &plan.notes) {
        say!("note\t{}", shown(note));
    }
    if let Some(loss) = &report.loss {
        say!(
            "lost\t{} of {} packets to {}, longest gap {} ms",
            loss.lost,
            loss.sent,
            loss.target,
            loss.longest_gap_ms
        );
    } else if report.outcome != Outcome::Planned {
        say!(
            "lost\tnot measured: this user may not send echoes, and no service was given as a probe"
        );
    }
    let reason = report.reason.as_deref().unwrap_or("");
    let what = shown(&report.what);
    match report.outcome {
        Outcome::Planned => say!("planned\t{what}; nothing was changed"),
        Outcome::Confirmed => say!("done\t{what} in {} ms", report.took_ms),
        Outcome::Waiting => say!("waiting\t{what}"),
        Outcome::Reverted => say!("taken back\t{what}: {}", reason.escape_debug()),
        Outcome::Stuck => say!("stuck\t{what}: {}", reason.escape_debug()),
    }
    for problem in &report.problems {
        eprintln!("blockhost: on the way back: {}", problem.escape_debug());
    }
}

pub(super) fn print_confirmed(confirmed: Result<Ended, ConfirmError>, as_json: bool) -> ExitCode {
    match confirmed {
        Ok(ended) => {
            if as_json {
                say!("{}", json!(ended));
            } else {
                say!("confirmed\t{}\t{}", ended.id, shown(&ended.what));
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail("blockhost", &error),
    }
}

pub(super) fn print_abandoned(
    ended: Result<Option<Ended>, RecordError>,
    as_json: bool,
) -> ExitCode {
    match ended {
        Ok(Some(ended)) => {
            if as_json {
                say!("{}", json!(ended));
            } else {
                say!("left as it is\t{}\t{}", ended.id, shown(&ended.what));
            }
            ExitCode::SUCCESS
        }
        Ok(None) => {
            eprintln!(
                "blockhost: no change of that name is stuck; `blockhost net status` lists those there are"
            );
            ExitCode::FAILURE
        }
        Err(error) => fail("blockhost", &error),
    }
}

/// One line, whatever somebody wrote into a record.
pub(super) fn shown(text: &str) -> String {
    blockhost_proto::escape::shown_up_to(text, 400)
}

pub(super) fn print_found(found: Result<Vec<Found>, RecordError>, as_json: bool) -> ExitCode {
    let found = match found {
        Ok(found) => found,
        Err(error) => return fail("blockhost", &error),
    };
    let stuck = found.iter().any(|one| matches!(one, Found::Stuck(_)));
    let code = ExitCode::from(if stuck { STUCK } else { 0 });
    if as_json {
        say!("{}", json!(found));
        return code;
    }
    if found.is_empty() {
        say!("nothing to take back");
    }
    for one in found {
        match one {
            Found::Reverted(ended) => say!("taken back\t{}\t{}", ended.id, shown(&ended.what)),
            Found::Finished(id) => say!("stays\t{id}"),
            Found::Stuck(ended) => say!("stuck\t{}\t{}", ended.id, shown(&ended.what)),
            Found::LookedAfter(id) => say!("looked after\t{id}"),
        }
    }
    code
}

pub(super) fn print_status(layout: &Layout, as_json: bool) -> ExitCode {
    let store = Store::new(layout);
    let open = match store.open_changes() {
        Ok(open) => open,
        Err(error) => return fail("blockhost", &error),
    };
    let mut shown_open = Vec::new();
    for (phase, id) in open {
        let known = match store.read(phase, &id) {
            Ok(known) => known,
            // It may be over since.
            Err(_) if !store.is(phase, &id) => continue,
            Err(error) => {
                shown_open.push(json!({"id": id, "what": null, "state": "unreadable", "error": error.to_string()}));
                continue;
            }
        };
        let state = match (phase, known.waiting()) {
            (Phase::Reverting, _) => "being taken back",
            (Phase::Stuck, _) => "stuck",
            (Phase::Confirmed, _) => "being ended",
            (Phase::Pending, Some(_)) => "waiting for you",
            (Phase::Pending, None) => "being made",
        };
        let left = known.deadline().left().as_secs();
        shown_open.push(json!({
            "id": id, "what": known.record.plan.what, "state": state, "left_s": left, "begun": known.record.begun,
        }));
    }
    let last = store.last();
    if as_json {
        say!("{}", json!({"open": shown_open, "last": last}));
        return ExitCode::SUCCESS;
    }
    for change in &shown_open {
        let text = |key: &str| shown(change[key].as_str().unwrap_or_default());
        let more = match change["state"].as_str() {
            Some("stuck") => {
                "`blockhost net recover` tries again, `blockhost net abandon` leaves it so"
                    .to_owned()
            }
            Some("unreadable") => text("error"),
            _ => format!("{} s left", change["left_s"]),
        };
        say!(
            "{}\t{}\t{}\t{more}",
            text("id"),
            text("what"),
            text("state")
        );
    }
    if let Some(last) = last {
        let end = match (last.confirmed, last.stuck) {
            (true, _) => "stays",
            (false, true) => "was not taken back",
            (false, false) => "was taken back",
        };
        say!(
            "last\t{}\t{}\t{end}\t{}\t{}",
            shown(&last.id),
            shown(&last.what),
            shown(&last.at),
            shown(last.reason.as_deref().unwrap_or_default())
        );
        for problem in last.problems {
            say!("problem\t{}", shown(&problem));
        }
    }
    ExitCode::SUCCESS
}
