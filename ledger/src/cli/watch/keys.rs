//! What the keys of `watch` do: moving, filtering, asking for details and proofs. No drawing, no files.

use super::super::story::Line;
use super::model::{Model, Row};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key asks the program for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Nothing,
    Quit,
    Show(u64),
    Prove(u64),
}

/// One record, opened.
#[derive(Debug)]
pub(super) struct Detail {
    pub height: u64,
    pub title: String,
    pub lines: Vec<Line>,
    pub scroll: u16,
    /// What the check of its proof said.
    pub proof: Option<Result<String, String>>,
}

/// Where the user is.
#[derive(Debug)]
pub(super) struct Ui {
    /// Height of the selected row; `None` follows the newest.
    pub selected: Option<u64>,
    pub filter: String,
    /// The filter is being typed.
    pub typing: bool,
    pub detail: Option<Detail>,
    /// Rows of the list that fit, as last drawn.
    pub page: usize,
}

impl Ui {
    pub fn new(filter: &str) -> Self {
        Self {
            selected: None,
            filter: filter.to_owned(),
            typing: false,
            detail: None,
            page: 10,
        }
    }

    /// The rows that pass the filter, newest first.
    pub fn rows<'m>(&self, model: &'m Model) -> Vec<&'m Row> {
        model
            .rows
            .iter()
            .filter(|row| row.matches(&self.filter))
            .collect()
    }

    /// Where the selected row is among `rows`; the nearest older one when it is not there any more.
    pub fn position(&self, rows: &[&Row]) -> usize {
        let Some(height) = self.selected else {
            return 0;
        };
        rows.partition_point(|row| row.height > height)
            .min(rows.len().saturating_sub(1))
    }

    pub fn key(&mut self, key: KeyEvent, model: &Model) -> Ask {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') {
                Ask::Quit
            } else {
                Ask::Nothing
            };
        }
        if self.typing {
            return self.type_filter(key.code);
        }
        if let Some(detail) = &mut self.detail {
            let far = u16::try_from(detail.lines.len()).unwrap_or(u16::MAX);
            match key.code {
                KeyCode::Up | KeyCode::Char('k') => detail.scroll = detail.scroll.saturating_sub(1),
                KeyCode::Down | KeyCode::Char('j') => detail.scroll = (detail.scroll + 1).min(far),
                KeyCode::PageUp => detail.scroll = detail.scroll.saturating_sub(10),
                KeyCode::PageDown => detail.scroll = (detail.scroll + 10).min(far),
                KeyCode::Char('v') => return Ask::Prove(detail.height),
                KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q') => self.detail = None,
                _ => {}
            }
            return Ask::Nothing;
        }
        let rows = self.rows(model);
        let at = self.position(&rows);
        let page = self.page.max(1);
        let target = match key.code {
            KeyCode::Char('q') => return Ask::Quit,
            KeyCode::Char('/') => {
                self.typing = true;
                return Ask::Nothing;
            }
            KeyCode::Esc => {
                self.filter.clear();
                self.selected = None;
                return Ask::Nothing;
            }
            KeyCode::Enter => {
                return rows
                    .get(at)
                    .map_or(Ask::Nothing, |row| Ask::Show(row.height));
            }
            KeyCode::Char('v') => {
                return rows
                    .get(at)
                    .map_or(Ask::Nothing, |row| Ask::Prove(row.height));
            }
            KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => at + 1,
            KeyCode::PageUp => at.saturating_sub(page),
            KeyCode::PageDown => at + page,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => rows.len(),
            _ => return Ask::Nothing,
        };
        let target = target.min(rows.len().saturating_sub(1));
        // At the top the newest is followed again.
        self.selected = rows
            .get(target)
            .filter(|_| target > 0)
            .map(|row| row.height);
        Ask::Nothing
    }

    fn type_filter(&mut self, code: KeyCode) -> Ask {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if !c.is_control() && self.filter.len() < 100 => self.filter.push(c),
            _ => {}
        }
        Ask::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::record;
    use super::*;
    use serde_json::json;

    fn model(count: u64) -> Model {
        let mut model = Model::new("host");
        for n in 0..count {
            let action = if n % 2 == 0 {
                "qm-create"
            } else {
                "qm-destroy"
            };
            model.learn(
                &record(n, &json!({"phase": "event", "action": action, "ts_us": n})),
                true,
            );
        }
        model
    }

    fn press(ui: &mut Ui, model: &Model, codes: &[KeyCode]) -> Ask {
        codes
            .iter()
            .fold(Ask::Nothing, |_, code| ui.key((*code).into(), model))
    }

    #[test]
    fn the_selection_stays_on_its_record_while_new_ones_come() {
        let (mut ui, mut model) = (Ui::new(""), model(10));
        assert_eq!(press(&mut ui, &model, &[KeyCode::Enter]), Ask::Show(10));
        assert_eq!(
            press(
                &mut ui,
                &model,
                &[KeyCode::Down, KeyCode::Down, KeyCode::Enter]
            ),
            Ask::Show(8)
        );
        model.learn(&record(10, &json!({"phase": "event", "action": "x"})), true);
        assert_eq!(press(&mut ui, &model, &[KeyCode::Char('v')]), Ask::Prove(8));
        assert_eq!(
            press(&mut ui, &model, &[KeyCode::Home, KeyCode::Enter]),
            Ask::Show(11)
        );
        assert_eq!(
            press(
                &mut ui,
                &model,
                &[KeyCode::End, KeyCode::Down, KeyCode::Enter]
            ),
            Ask::Show(1)
        );
    }

    #[test]
    fn a_filter_is_typed_and_taken_away_and_quits_nothing() {
        let (mut ui, model) = (Ui::new(""), model(10));
        let typed: Vec<_> = "/destroqz".chars().map(KeyCode::Char).collect();
        assert_eq!(press(&mut ui, &model, &typed), Ask::Nothing);
        assert_eq!(ui.rows(&model).len(), 0);
        assert_eq!(
            press(&mut ui, &model, &[KeyCode::Enter, KeyCode::Enter]),
            Ask::Nothing,
            "nothing is there"
        );
        ui.typing = true;
        press(
            &mut ui,
            &model,
            &[KeyCode::Backspace, KeyCode::Backspace, KeyCode::Enter],
        );
        assert_eq!((ui.filter.as_str(), ui.rows(&model).len()), ("destro", 5));
        press(&mut ui, &model, &[KeyCode::Esc]);
        assert_eq!(ui.rows(&model).len(), 10);
        assert_eq!(press(&mut ui, &model, &[KeyCode::Char('q')]), Ask::Quit);
    }
}
