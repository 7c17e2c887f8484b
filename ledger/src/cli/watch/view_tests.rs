//! The view on a terminal of memory: what is on it, at every size, whatever the log says.

use super::keys::{Detail, Ui};
use super::model::tests::record;
use super::model::{Model, Surroundings};
use super::view::{Theme, draw};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

const NOW_US: i64 = 1_790_000_000_000_000;

fn screen(model: &Model, ui: &mut Ui, (width, height): (u16, u16)) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal
        .draw(|frame| draw(frame, model, ui, Theme::new(true), NOW_US))
        .expect("drawn");
    let buffer = terminal.backend().buffer();
    let row = |y: u16| {
        (0..width)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
    };
    (0..height).map(|y| row(y).trim_end().to_owned()).collect()
}

fn model() -> Model {
    let mut model = Model::new("host.example/blockhost-ledger");
    let mut index = 0;
    let mut learn = |fields: Value| {
        model.learn(&record(index, &fields), true);
        index += 1;
    };
    for (op, action, user, result) in [
        (
            "a",
            "qm-create",
            "blockhost",
            json!({"result": "ok", "duration_us": 1_250_000}),
        ),
        (
            "b",
            "qm-destroy",
            "operator",
            json!({"result": "error", "code": "not-found", "duration_us": 900}),
        ),
    ] {
        let part = |phase: &str, metadata: &Value| {
            json!({"phase": phase, "op_id": op, "action": action, "resource": "vm:100", "user": user,
                "ts_us": NOW_US - 30_000_000, "metadata": metadata})
        };
        learn(part("intent", &json!({})));
        learn(part("outcome", &result));
    }
    learn(
        json!({"phase": "intent", "op_id": "c", "action": "disk-import", "resource": "volume:7",
        "user": "blockhost", "ts_us": NOW_US - 3_200_000}),
    );
    (model.size, model.committed_us) = (5, NOW_US - 2_000_000);
    model.observe(Surroundings {
        published: Some(3),
        cosigners: vec!["alpha.example".to_owned()],
        disk: Some((13 << 30, 100 << 30)),
        writer: Some(true),
        problems: Vec::new(),
    });
    model
}

#[test]
fn what_runs_how_it_ended_what_is_new_and_who_holds_what_is_on_the_screen() {
    let text = screen(&model(), &mut Ui::new(""), (100, 24)).join("\n");
    for part in [
        "host.example/blockhost-ledger",
        "● live",
        "head  5 records",
        "signed 2.0 s ago",
        "2 to publish",
        "alpha.example -2",
        "disk 13.0 GiB free",
        "5 a minute",
        "▸ disk-import",
        "3.2 s",
        "✓ qm-create",
        "1.2 s",
        "✗ qm-destroy",
        "not-found",
        "★ new action",
        "▸ disk-import",
    ] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
}

#[test]
fn an_alarm_cannot_be_overlooked() {
    let mut model = model();
    model.alarm = Some("5 records were committed, now there are 3".to_owned());
    let lines = screen(&model, &mut Ui::new(""), (100, 24));
    assert!(
        lines[0].contains("▲ alarm") && !lines[0].contains("live"),
        "{lines:?}"
    );
    assert!(lines[1].contains("now there are 3"), "{lines:?}");
}

#[test]
fn every_size_of_terminal_is_drawn() {
    let model = model();
    for size in [(1, 1), (7, 3), (20, 8), (80, 24), (300, 100)] {
        let mut ui = Ui::new("");
        screen(&model, &mut ui, size);
        ui.detail = Some(Detail {
            height: 3,
            title: "qm-destroy vm:100".to_owned(),
            lines: vec![("what".to_owned(), "x".repeat(500)); 40],
            scroll: 3,
            proof: Some(Err("the signature is wrong".to_owned())),
        });
        screen(&model, &mut ui, size);
    }
    let empty = screen(&Model::new("host"), &mut Ui::new(""), (80, 24)).join("\n");
    assert!(
        empty.contains("no records yet") && empty.contains("nothing: no witness"),
        "{empty}"
    );
}

#[test]
fn nothing_from_the_log_moves_the_cursor_or_colours_the_screen() {
    let mut model = Model::new("ev\u{1b}[31mil\u{9b}2J");
    let evil = "\u{1b}]0;owned\u{7}\u{9b}2J\r\n\u{202e}\u{200b}\u{7f}\t";
    for phase in ["intent", "outcome", "event", evil] {
        let record = record(
            0,
            &json!({"phase": phase, "op_id": evil, "action": evil, "resource": evil, "user": evil,
            "ts_us": NOW_US, "metadata": {"result": "error", "code": evil}}),
        );
        model.learn(&record, true);
    }
    model.observe(Surroundings {
        published: Some(1),
        cosigners: vec![evil.to_owned()],
        ..Surroundings::default()
    });
    let mut ui = Ui::new("");
    for line in screen(&model, &mut ui, (160, 30)) {
        let bad = line
            .chars()
            .find(|c| c.is_control() || matches!(c, '\u{202e}' | '\u{200b}'));
        assert!(bad.is_none(), "{line:?}");
    }
}

#[test]
fn without_colours_nothing_is_coloured_and_everything_is_still_said() {
    let mut terminal = Terminal::new(TestBackend::new(100, 24)).expect("a terminal");
    let (model, mut ui) = (model(), Ui::new(""));
    terminal
        .draw(|frame| draw(frame, &model, &mut ui, Theme::new(false), NOW_US))
        .expect("drawn");
    for cell in terminal.backend().buffer().content() {
        assert_eq!(cell.fg, ratatui::style::Color::Reset, "{cell:?}");
    }
}

#[test]
fn how_the_log_is_has_room_on_a_narrow_terminal_too() {
    let mut model = model();
    model.around.writer = Some(false);
    let lines = screen(&model, &mut Ui::new(""), (56, 24));
    assert!(lines[0].contains("○ no agent runs"), "{lines:?}");
}
