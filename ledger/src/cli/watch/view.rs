//! How `watch` looks. Only drawing: the state comes from `model` and `keys`, the time from the caller.

use super::super::text::{bytes, clock, grouped, span};
use super::keys::{Detail, Ui};
use super::model::{Ended, Model, RATE_STEP_US, Row};
use crate::merkle::hex;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Clear, Paragraph, Sparkline, Wrap};

/// Running operations that are shown; the others are counted.
const RUNNING_ROWS: usize = 6;

/// Colours, or what does without them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theme {
    colour: bool,
}

impl Theme {
    pub fn new(colour: bool) -> Self {
        Self { colour }
    }

    fn of(self, colour: Color, otherwise: Modifier) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new().add_modifier(otherwise)
        }
    }

    fn quiet(self) -> Style {
        self.of(Color::DarkGray, Modifier::DIM)
    }
    fn good(self) -> Style {
        self.of(Color::Green, Modifier::empty())
    }
    fn busy(self) -> Style {
        self.of(Color::Cyan, Modifier::empty())
    }
    fn warn(self) -> Style {
        self.of(Color::Yellow, Modifier::BOLD)
    }
    fn bad(self) -> Style {
        self.of(Color::Red, Modifier::BOLD)
    }
    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, ui: &mut Ui, theme: Theme, now_us: i64) {
    let area = frame.area();
    let alarms = alarms(model);
    let running = model.running.len().clamp(1, RUNNING_ROWS);
    let height = |rows: usize| Constraint::Length(u16::try_from(rows).unwrap_or(u16::MAX));
    let [title, alarm, head, _, rate, _, now, _, list, foot] = Layout::vertical([
        Constraint::Length(1),
        height(alarms.len().min(3)),
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Length(1),
        height(running + 1),
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_title(frame, title, model, &alarms, theme, now_us);
    let lines: Vec<Line> = alarms
        .iter()
        .map(|text| {
            Line::styled(
                format!(" ! {text}"),
                theme.bad().add_modifier(Modifier::REVERSED),
            )
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), alarm);
    draw_head(frame, head, model, theme, now_us);
    draw_rate(frame, rate, model, theme, now_us);
    draw_running(frame, now, model, theme, now_us);
    draw_list(frame, list, model, ui, theme, now_us);
    draw_foot(frame, foot, ui, theme);
    if let Some(detail) = &ui.detail {
        draw_detail(frame, area, detail, theme);
    }
}

fn alarms(model: &Model) -> Vec<&str> {
    let problems = model.around.problems.iter().map(String::as_str);
    model.alarm.as_deref().into_iter().chain(problems).collect()
}

/// Left and right on one line; the right gives way.
fn two_sides(frame: &mut Frame<'_>, area: Rect, left: Line<'_>, right: Line<'_>) {
    let width = u16::try_from(right.width()).unwrap_or(u16::MAX);
    let free = area
        .width
        .saturating_sub(u16::try_from(left.width()).unwrap_or(u16::MAX));
    frame.render_widget(left, area);
    if width < free {
        let [_, place] =
            Layout::horizontal([Constraint::Min(0), Constraint::Length(width)]).areas(area);
        frame.render_widget(right, place);
    }
}

fn draw_title(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    alarms: &[&str],
    theme: Theme,
    now_us: i64,
) {
    let (word, style) = if !alarms.is_empty() {
        ("▲ alarm", theme.bad())
    } else if model.around.writer == Some(false) {
        ("○ no agent runs", theme.warn())
    } else {
        ("● live", theme.good())
    };
    let right = Line::from(vec![
        Span::styled(word, style),
        Span::styled(format!("  {} UTC ", clock(now_us, now_us)), theme.quiet()),
    ]);
    let name = Span::styled(" BlockHost ledger  ", theme.strong());
    // How it is goes before what it is called.
    let room = usize::from(area.width).saturating_sub(name.width() + right.width() + 1);
    let origin = Span::styled(fit(&model.origin, room), theme.quiet());
    two_sides(frame, area, Line::from(vec![name, origin]), right);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme, now_us: i64) {
    let [first, second] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
    let root = hex(&model.root);
    let label = |text: &'static str| Span::styled(text, theme.quiet());
    let ago = |us: i64| format!("{} ago", span(now_us.saturating_sub(us)));
    let mut left = vec![
        label(" head  "),
        Span::styled(grouped(model.size), theme.strong()),
        Span::raw(if model.size == 1 {
            " record"
        } else {
            " records"
        }),
        label("  root "),
        Span::raw(format!("{}…{}", &root[..12], &root[52..])),
    ];
    if model.committed_us > 0 {
        left.push(label("  signed "));
        left.push(Span::raw(ago(model.committed_us)));
    }
    let behind = model
        .around
        .published
        .map(|size| model.size.saturating_sub(size));
    let published = match behind {
        None => Span::styled("not published yet ", theme.quiet()),
        Some(0) => Span::styled("published ", theme.quiet()),
        Some(behind) => Span::styled(format!("{} to publish ", grouped(behind)), theme.busy()),
    };
    two_sides(frame, first, Line::from(left), Line::from(published));

    let mut left = vec![label(" kept elsewhere  ")];
    if model.witnesses.is_empty() && model.anchor.is_none() {
        left.push(Span::styled("nothing: no witness, no anchor", theme.warn()));
    }
    for (name, size) in model.witnesses.iter().take(4) {
        let behind = model.size.saturating_sub(*size);
        let (text, style) = match behind {
            0 => ("all".to_owned(), theme.good()),
            _ => (format!("-{}", grouped(behind)), theme.busy()),
        };
        left.push(Span::raw(format!("{name} ")));
        left.push(Span::styled(format!("{text}  "), style));
    }
    if let Some((size, ts_us)) = model.anchor {
        left.push(label("anchor "));
        let size = size.map_or(String::new(), |size| format!("{}, ", grouped(size)));
        left.push(Span::raw(format!("{size}{}", ago(ts_us))));
    }
    let disk = model.around.disk.map_or(Line::default(), |(free, all)| {
        let style = if free.saturating_mul(20) < all {
            theme.warn()
        } else {
            theme.quiet()
        };
        Line::styled(format!("disk {} free ", bytes(free)), style)
    });
    two_sides(frame, second, Line::from(left), disk);
}

fn draw_rate(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme, now_us: i64) {
    const LABEL: u16 = 16;
    let [label, chart] =
        Layout::horizontal([Constraint::Length(LABEL), Constraint::Min(0)]).areas(area);
    let columns = usize::from(chart.width.saturating_sub(1));
    let rates = model.rates(now_us, columns);
    let minutes = i64::try_from(columns).unwrap_or(0) * RATE_STEP_US / 60_000_000;
    let lines = vec![
        Line::from(vec![
            Span::styled(
                format!(" {:>5}", grouped(model.per_minute(now_us))),
                theme.strong(),
            ),
            Span::styled(" a minute", theme.quiet()),
        ]),
        Line::styled(format!("  last {minutes} min"), theme.quiet()),
    ];
    frame.render_widget(Paragraph::new(lines), label);
    let most = rates.iter().copied().max().unwrap_or(0).max(4);
    frame.render_widget(
        Sparkline::default()
            .data(&rates)
            .max(most)
            .style(theme.busy()),
        chart,
    );
}

fn heading<'a>(text: &'a str, theme: Theme, width: u16) -> Line<'a> {
    let rule = "─".repeat(usize::from(width).saturating_sub(text.chars().count() + 4));
    Line::from(vec![
        Span::styled("─ ", theme.quiet()),
        Span::styled(text, theme.strong()),
        Span::styled(format!(" {rule}"), theme.quiet()),
    ])
}

fn draw_running(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme, now_us: i64) {
    let mut lines = vec![heading("running now", theme, area.width)];
    if model.running.is_empty() {
        lines.push(Line::styled("  nothing", theme.quiet()));
    }
    // The longest first: what hangs is seen.
    let shown = if model.running.len() > RUNNING_ROWS {
        RUNNING_ROWS - 1
    } else {
        RUNNING_ROWS
    };
    for running in model.running.values().take(shown) {
        let for_us = now_us.saturating_sub(running.since_us);
        let style = if for_us > 60_000_000 {
            theme.warn()
        } else {
            theme.busy()
        };
        lines.push(Line::from(vec![
            Span::styled("  ▸ ", style),
            Span::raw(fit(&running.action, 22)),
            Span::raw(fit(&running.resource, 22)),
            Span::styled(fit(&running.user, 16), theme.quiet()),
            Span::styled(format!("{:>8}", span(for_us)), style),
        ]));
    }
    if model.running.len() > shown {
        let more = model.running.len() - shown;
        lines.push(Line::styled(format!("  and {more} more"), theme.quiet()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_list(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    ui: &mut Ui,
    theme: Theme,
    now_us: i64,
) {
    let page = usize::from(area.height.saturating_sub(1));
    ui.page = page;
    let rows = ui.rows(model);
    let at = ui.position(&rows);
    // The selection is kept in sight, with the newest above it where they fit.
    let first = (at + 1).saturating_sub(page);
    let title = if ui.filter.is_empty() {
        "latest".to_owned()
    } else {
        format!(
            "latest with “{}”: {} of {}",
            ui.filter,
            rows.len(),
            model.rows.len()
        )
    };
    let mut lines = vec![heading(&title, theme, area.width)];
    if rows.is_empty() {
        let text = if ui.filter.is_empty() {
            "  no records yet"
        } else {
            "  nothing like that among the latest"
        };
        lines.push(Line::styled(text, theme.quiet()));
    }
    for (n, row) in rows.iter().enumerate().skip(first).take(page) {
        let line = row_line(row, area.width, theme, now_us);
        let chosen = n == at && (ui.selected.is_some() || ui.detail.is_some());
        lines.push(if chosen {
            line.style(Style::new().add_modifier(Modifier::REVERSED))
        } else {
            line
        });
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn row_line<'a>(row: &Row, width: u16, theme: Theme, now_us: i64) -> Line<'a> {
    let (mark, result, style) = match &row.ended {
        Ended::Running => ("▸", "running".to_owned(), theme.busy()),
        Ended::Ok => ("✓", "ok".to_owned(), theme.good()),
        Ended::Failed(code) => ("✗", code.clone(), theme.bad()),
        Ended::Unknown => ("?", "unknown".to_owned(), theme.warn()),
        Ended::Noted => ("·", row.phase.clone(), theme.quiet()),
    };
    // Wide terminals show whole names; narrow ones leave out how long it took.
    let extra = usize::from(width.saturating_sub(90)) / 4;
    let took = row.duration_us.map_or(String::new(), |us| {
        span(i64::try_from(us).unwrap_or(i64::MAX))
    });
    let mut spans = vec![
        Span::styled(format!(" {:>7} ", row.height), theme.quiet()),
        Span::styled(format!("{} ", clock(row.ts_us, now_us)), theme.quiet()),
        Span::styled(format!("{mark} "), style),
        Span::raw(fit(&row.action, 15 + extra)),
        Span::raw(fit(&row.resource, 11 + extra)),
        Span::styled(fit(&row.user, 10 + extra / 2), theme.quiet()),
        Span::styled(fit(&result, 10 + extra / 2), style),
    ];
    if width >= 90 {
        spans.push(Span::styled(format!("{took:>7}"), theme.quiet()));
    }
    if let Some(badge) = row.badge {
        spans.push(Span::raw(" "));
        let style = theme
            .of(Color::Magenta, Modifier::BOLD)
            .add_modifier(Modifier::BOLD);
        spans.push(Span::styled(format!("★ {badge}"), style));
    }
    Line::from(spans)
}

/// Exactly `width` columns, cut with an ellipsis, a space at the end.
fn fit(text: &str, width: usize) -> String {
    let span = Span::raw(text);
    if width == 0 {
        return String::new();
    }
    if span.width() < width {
        return format!("{text}{}", " ".repeat(width - span.width()));
    }
    let mut cut = String::new();
    for c in text.chars() {
        if Span::raw(format!("{cut}{c}")).width() + 2 > width {
            break;
        }
        cut.push(c);
    }
    let used = Span::raw(cut.as_str()).width() + 1;
    format!("{cut}…{}", " ".repeat(width.saturating_sub(used)))
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, ui: &Ui, theme: Theme) {
    if ui.typing {
        let line = Line::from(vec![
            Span::styled(" / ", theme.strong()),
            Span::raw(ui.filter.clone()),
            Span::styled("▏", theme.busy()),
            Span::styled("   enter keeps it, esc takes it away", theme.quiet()),
        ]);
        return frame.render_widget(line, area);
    }
    let keys: &[(&str, &str)] = if ui.detail.is_some() {
        &[("↑↓", "scroll"), ("v", "prove"), ("esc", "back")]
    } else {
        &[
            ("q", "quit"),
            ("↑↓", "select"),
            ("enter", "details"),
            ("v", "prove"),
            ("/", "filter"),
            ("esc", "newest"),
        ]
    };
    let spans = keys.iter().flat_map(|(key, does)| {
        [
            Span::styled(format!(" {key} "), theme.strong()),
            Span::styled(format!("{does}  "), theme.quiet()),
        ]
    });
    frame.render_widget(Line::from(spans.collect::<Vec<_>>()), area);
}

fn draw_detail(frame: &mut Frame<'_>, area: Rect, detail: &Detail, theme: Theme) {
    let names = detail
        .lines
        .iter()
        .map(|(name, _)| name.chars().count())
        .max();
    let width = names.unwrap_or(0);
    let mut lines: Vec<Line> = Vec::new();
    if let Some(proof) = &detail.proof {
        let (mark, text, style) = match proof {
            Ok(text) => ("✓ ", text, theme.good()),
            Err(text) => ("✗ not proved: ", text, theme.bad()),
        };
        lines.push(Line::styled(format!("{mark}{text}"), style));
        lines.push(Line::default());
    }
    lines.extend(detail.lines.iter().map(|(name, text)| {
        Line::from(vec![
            Span::styled(format!("{name:<width$}  "), theme.quiet()),
            Span::raw(text.clone()),
        ])
    }));
    // A margin of the list stays visible, so that one knows where one is.
    let [_, middle, _] =
        Layout::horizontal([Constraint::Max(4), Constraint::Min(0), Constraint::Max(4)])
            .areas(area);
    let wanted = u16::try_from(lines.len())
        .unwrap_or(u16::MAX)
        .saturating_add(6)
        .max(10);
    let [_, place, _] = Layout::vertical([
        Constraint::Max(2),
        Constraint::Max(wanted),
        Constraint::Min(1),
    ])
    .areas(middle);
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(theme.quiet())
        .title(Line::styled(
            format!(" {}  {} ", grouped(detail.height), detail.title),
            theme.strong(),
        ));
    frame.render_widget(Clear, place);
    let text = Paragraph::new(lines)
        .wrap(Wrap { trim: false })
        .scroll((detail.scroll, 0))
        .block(block);
    frame.render_widget(text, place);
}
