//! `anomalies` and `similar` on a real ledger, as the engine runs them.
#![cfg(feature = "cli")]

mod common;

use blockhost_ledger::anomaly::{Budget, Days, Scorer, reasons};
use blockhost_ledger::cli::{LedgerArgs, command, run};
use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::features::Generations;
use blockhost_ledger::reader::Reader;
use blockhost_ledger::record::{Draft, Phase};
use clap::FromArgMatches as _;
use common::{World, draft};
use std::process::ExitCode;

fn code(world: &World, args: &[&str]) -> String {
    let matches = command()
        .try_get_matches_from(["ledger"].iter().chain(args))
        .expect("parses");
    let args = LedgerArgs::from_arg_matches(&matches).expect("parses");
    format!("{:?}", run(args, world.path()))
}

fn is(code: u8) -> String {
    format!("{:?}", ExitCode::from(code))
}

/// Six hundred starts by one user, and then one destruction by that user.
fn world() -> World {
    let world = World::new();
    let (mut writer, _) = world.open();
    for batch in 0..30 {
        let mut drafts = Vec::new();
        for n in 0..20 {
            let op = format!("op{batch}-{n}");
            for phase in [Phase::Intent, Phase::Outcome] {
                let mut draft = draft(phase, &op);
                draft.action = "qm-start".into();
                draft.operation = "modify".into();
                if phase == Phase::Outcome {
                    let result = if n == 0 { "error" } else { "ok" };
                    draft.metadata.insert("result".into(), result.into());
                }
                drafts.push(draft);
            }
        }
        writer.append(&drafts).expect("appended");
    }
    let last = Draft {
        action: "qm-destroy".into(),
        operation: "delete".into(),
        exe: Some("/tmp/x\u{1b}[2J".into()),
        ..draft(Phase::Intent, "last")
    };
    writer.append(&[last]).expect("appended");
    writer.publish().expect("published");
    world
}

#[test]
fn what_was_never_done_before_is_told_with_its_reasons() {
    let world = world();
    let reader = Reader::open(LedgerDir::open(world.path()).expect("opens"), None).expect("reads");
    let mut scorer = Generations::<Scorer>::new(0);
    let mut days = Days::new(Budget::default());
    let (mut told, mut last) = (Vec::new(), None);
    for item in reader.records(0) {
        let (index, record) = item.expect("a record");
        let (vector, score) = scorer.push(&record);
        told.extend(days.push(index, score));
        last = Some((record, vector));
    }
    told.extend(days.end_of_day());
    let finding = told.last().expect("something is told");
    assert_eq!(finding.index, 1200);
    let (record, vector) = last.expect("records");
    let record = serde_json::from_slice(&record).expect("JSON");
    let words = reasons(&record, &vector, &finding.score).join("; ");
    assert!(
        words.contains("qm-destroy") && words.contains("hardly ever"),
        "{words}"
    );
}

#[test]
fn the_verbs_answer_and_say_what_is_wrong_with_their_arguments() {
    let world = world();
    for args in [
        vec!["anomalies"],
        vec!["anomalies", "--json", "--budget", "1", "--since", "1h"],
        vec!["anomalies", "--at", "700", "--since", "2020-01-01"],
        vec!["similar", "1201"],
        vec!["similar", "1", "--json"],
        vec!["similar", "1199", "-n", "3"],
    ] {
        assert_eq!(code(&world, &args), is(0), "{args:?}");
    }
    assert_eq!(code(&world, &["similar", "2"]), is(2), "an outcome");
    assert_eq!(code(&world, &["similar", "5000"]), is(3));
    assert_eq!(code(&world, &["anomalies", "--at", "5000"]), is(3));
    let empty = World::new();
    let _ = empty.open();
    assert_eq!(code(&empty, &["anomalies"]), is(3), "an empty ledger");
}
