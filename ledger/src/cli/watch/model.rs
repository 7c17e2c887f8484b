//! What `watch` knows about a log: operations with their results, what runs, what was never seen before, rates. Pure:
//! records go in, [`Model`] answers; nothing here reads a file or a clock. Every text is escaped on its way in.

use crate::follow::Followed;
use crate::merkle::{Hash, empty_root};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet, VecDeque};

use super::super::text::printable;

/// Operations that are kept for looking at.
pub(super) const ROWS: usize = 2000;
/// Running operations that are kept; more than the agent can have.
const RUNNING: usize = 4096;
/// Names that are remembered to tell what is new; then nothing is called new any more.
const SEEN: usize = 400_000;
/// Length of one step of the rate, in microseconds.
pub(super) const RATE_STEP_US: i64 = 10_000_000;
/// Steps of the rate that are kept.
const RATE_STEPS: usize = 360;
/// Characters of one text that are kept.
const TEXT_CHARS: usize = 200;

/// How an operation ended, or that it did not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// Its outcome is not there.
    Running,
    /// It succeeded.
    Ok,
    /// It failed or was refused: the code of the error.
    Failed(String),
    /// The agent ended before it did; nobody knows.
    Unknown,
    /// Not an operation: an event, an epoch, an anchor ...
    Noted,
}

/// One line of the view: an operation (intent and outcome), or another record.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Height of the record; of an operation its intent.
    pub height: u64,
    /// Height of the outcome.
    pub outcome: Option<u64>,
    /// When, in microseconds since 1970 UTC.
    pub ts_us: i64,
    pub phase: String,
    pub action: String,
    pub resource: String,
    pub user: String,
    pub op_id: String,
    pub ended: Ended,
    /// How long it took, in microseconds.
    pub duration_us: Option<u64>,
    /// What about it was never seen before, or is odd.
    pub badge: Option<&'static str>,
}

impl Row {
    /// Does any text of it contain `words`, all of them?
    pub fn matches(&self, words: &str) -> bool {
        let ended = match &self.ended {
            Ended::Running => "running",
            Ended::Ok => "ok",
            Ended::Failed(code) => code,
            Ended::Unknown => "unknown",
            Ended::Noted => "",
        };
        let badge = self.badge.unwrap_or_default();
        let height = self.height.to_string();
        let texts = [
            &self.phase,
            &self.action,
            &self.resource,
            &self.user,
            &self.op_id,
            ended,
            badge,
            &height,
        ];
        words
            .split_whitespace()
            .all(|word| texts.iter().any(|text| text.contains(word)))
    }
}

/// An operation that has begun.
#[derive(Debug, Clone)]
pub(super) struct Running {
    /// As in the record, not escaped.
    op_id: String,
    pub since_us: i64,
    pub action: String,
    pub resource: String,
    pub user: String,
}

/// What the files beside the segments and the system say; looked at now and then.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings {
    /// Size of the published checkpoint.
    pub published: Option<u64>,
    /// Names that signed it besides the log itself.
    pub cosigners: Vec<String>,
    /// Free and all bytes of the file system.
    pub disk: Option<(u64, u64)>,
    /// Somebody holds the writer's lock; `None` where that cannot be seen.
    pub writer: Option<bool>,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Everything the view shows.
#[derive(Debug)]
pub(super) struct Model {
    pub origin: String,
    pub size: u64,
    pub root: Hash,
    pub committed_us: i64,
    /// Newest first.
    pub rows: VecDeque<Row>,
    pub running: BTreeMap<u64, Running>,
    /// Name of each witness and the newest size it signed, as published.
    pub witnesses: BTreeMap<String, u64>,
    /// Size and time of the newest anchored head.
    pub anchor: Option<(Option<u64>, i64)>,
    pub around: Surroundings,
    /// What is wrong with the log itself.
    pub alarm: Option<String>,
    by_op: BTreeMap<String, u64>,
    seen: HashSet<String>,
    rate: VecDeque<(i64, u64)>,
    last_us: i64,
}

/// What is read of every record; cheap, because a long history is read for what was seen before.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Heading<'a> {
    #[serde(borrow)]
    phase: Cow<'a, str>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    resource: Cow<'a, str>,
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(borrow)]
    op_id: Cow<'a, str>,
    ts_us: i64,
}

impl Model {
    pub fn new(origin: &str) -> Self {
        Self {
            origin: clip(origin),
            size: 0,
            root: empty_root(),
            committed_us: 0,
            rows: VecDeque::new(),
            running: BTreeMap::new(),
            witnesses: BTreeMap::new(),
            anchor: None,
            around: Surroundings::default(),
            alarm: None,
            by_op: BTreeMap::new(),
            seen: HashSet::new(),
            rate: VecDeque::new(),
            last_us: 0,
        }
    }

    /// Takes the next record; `recent` ones become rows. Gives what is new about it.
    pub fn learn(&mut self, followed: &Followed, recent: bool) -> Option<&'static str> {
        let heading: Heading = serde_json::from_slice(&followed.bytes).unwrap_or_default();
        let height = followed.index + 1;
        let badge = self.badge(&heading);
        self.count(heading.ts_us);
        self.last_us = self.last_us.max(heading.ts_us);
        match &*heading.phase {
            "intent" => self.begin(height, &heading),
            "outcome" => {
                let began = self.by_op.remove(&*heading.op_id);
                if let Some(began) = began {
                    self.running.remove(&began);
                }
                if recent {
                    self.end(height, began, &heading, &followed.bytes);
                }
                return badge;
            }
            "anchor" => {
                let record: Value = serde_json::from_slice(&followed.bytes).unwrap_or_default();
                let size = ["size", "tree_size", "records", "newSize"]
                    .iter()
                    .find_map(|name| record["metadata"][*name].as_u64());
                self.anchor = Some((size, heading.ts_us));
            }
            _ => {}
        }
        if recent {
            let ended = if heading.phase == "intent" {
                Ended::Running
            } else {
                Ended::Noted
            };
            self.push(row(height, &heading, ended, badge));
        }
        badge
    }

    /// Records a minute over the last minute before `now_us`.
    pub fn per_minute(&self, now_us: i64) -> u64 {
        let from = now_us.saturating_sub(60_000_000).div_euclid(RATE_STEP_US);
        let recent = self.rate.iter().filter(|(step, _)| *step > from);
        recent.map(|(_, count)| count).sum()
    }

    /// Records in each of the last `columns` steps, oldest first.
    pub fn rates(&self, now_us: i64, columns: usize) -> Vec<u64> {
        let last = now_us.div_euclid(RATE_STEP_US);
        let mut rates = vec![0; columns];
        for (step, count) in &self.rate {
            let back = usize::try_from(last.saturating_sub(*step)).unwrap_or(usize::MAX);
            if let Some(at) = columns.checked_sub(1 + back) {
                rates[at] += count;
            }
        }
        rates
    }

    /// The published checkpoint was signed by these.
    pub fn observe(&mut self, around: Surroundings) {
        if let Some(size) = around.published {
            for name in &around.cosigners {
                let newest = self.witnesses.entry(clip(name)).or_default();
                *newest = size.max(*newest);
            }
        }
        self.around = around;
    }

    fn begin(&mut self, height: u64, heading: &Heading<'_>) {
        if self.running.len() >= RUNNING
            && let Some((_, oldest)) = self.running.pop_first()
        {
            self.by_op.remove(&oldest.op_id);
        }
        let op_id = heading.op_id.clone().into_owned();
        if let Some(doubled) = self.by_op.insert(op_id.clone(), height) {
            self.running.remove(&doubled);
        }
        self.running.insert(
            height,
            Running {
                op_id,
                since_us: heading.ts_us,
                action: clip(&heading.action),
                resource: clip(&heading.resource),
                user: clip(&heading.user),
            },
        );
    }

    fn end(&mut self, height: u64, began: Option<u64>, heading: &Heading<'_>, bytes: &[u8]) {
        let record: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let metadata = &record["metadata"];
        let ended = match metadata["result"].as_str() {
            Some("ok") => Ended::Ok,
            Some("unknown") => Ended::Unknown,
            _ => Ended::Failed(clip(metadata["code"].as_str().unwrap_or("failed"))),
        };
        let duration_us = metadata["duration_us"].as_u64();
        let place = began.and_then(|began| {
            // Newest first, so heights go down.
            let at = self.rows.partition_point(|row| row.height > began);
            self.rows.get_mut(at).filter(|row| row.height == began)
        });
        match place {
            Some(row) => {
                row.outcome = Some(height);
                row.ended = ended;
                row.duration_us = duration_us;
            }
            None => {
                let mut row = row(height, heading, ended, None);
                row.duration_us = duration_us;
                self.push(row);
            }
        }
    }

    fn push(&mut self, row: Row) {
        self.rows.push_front(row);
        self.rows.truncate(ROWS);
    }

    fn count(&mut self, ts_us: i64) {
        let step = ts_us.div_euclid(RATE_STEP_US);
        match self.rate.back_mut() {
            // A clock that was set back counts where it was.
            Some((last, count)) if step <= *last => *count += 1,
            _ => self.rate.push_back((step, 1)),
        }
        if self.rate.len() > RATE_STEPS {
            self.rate.pop_front();
        }
    }

    /// The strongest thing that is new about a record.
    fn badge(&mut self, heading: &Heading<'_>) -> Option<&'static str> {
        let class = heading.resource.split(':').next().unwrap_or_default();
        let (action, user) = (&heading.action, &heading.user);
        let full = self.seen.len() >= SEEN;
        let first = [
            ("new action", format!("a\0{action}")),
            ("new user", format!("u\0{user}")),
            ("new kind", format!("r\0{class}")),
            ("first for user", format!("p\0{user}\0{action}")),
        ]
        .into_iter()
        // Every one is remembered; the first that is new is the strongest.
        .filter_map(|(badge, key)| (!full && self.seen.insert(key)).then_some(badge))
        .collect::<Vec<_>>()
        .first()
        .copied();
        let back = self.last_us.saturating_sub(heading.ts_us) > 1_000_000;
        if back { Some("clock set back") } else { first }
    }
}

fn row(height: u64, heading: &Heading<'_>, ended: Ended, badge: Option<&'static str>) -> Row {
    Row {
        height,
        outcome: None,
        ts_us: heading.ts_us,
        phase: clip(&heading.phase),
        action: clip(&heading.action),
        resource: clip(&heading.resource),
        user: clip(&heading.user),
        op_id: clip(&heading.op_id),
        ended,
        duration_us: None,
        badge,
    }
}

/// Escaped, and not longer than anybody reads.
fn clip(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS) {
        Some((at, _)) => format!("{}…", printable(&text[..at])),
        None => printable(text),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub fn record(index: u64, fields: &Value) -> Followed {
        Followed {
            index,
            leaf: [0; 32],
            bytes: fields.to_string().into_bytes(),
        }
    }

    fn intent(index: u64, op: &str, action: &str, user: &str) -> Followed {
        record(
            index,
            &json!({"phase": "intent", "op_id": op, "action": action, "resource": "vm:100",
            "user": user, "ts_us": 1_000_000 * index}),
        )
    }

    fn outcome(index: u64, op: &str, metadata: &Value) -> Followed {
        record(
            index,
            &json!({"phase": "outcome", "op_id": op, "action": "qm-create",
            "user": "root", "ts_us": 1_000_000 * index, "metadata": metadata}),
        )
    }

    #[test]
    fn an_outcome_ends_its_own_operation_and_no_other() {
        let mut model = Model::new("host");
        model.learn(&intent(0, "a", "qm-create", "root"), true);
        model.learn(&intent(1, "b", "qm-create", "root"), true);
        assert_eq!(model.running.len(), 2);
        let failed = json!({"result": "error", "code": "not-found", "duration_us": 5});
        model.learn(&outcome(2, "a", &failed), true);
        let states: Vec<_> = model
            .rows
            .iter()
            .map(|row| (row.height, row.ended.clone()))
            .collect();
        assert_eq!(
            states,
            [
                (2, Ended::Running),
                (1, Ended::Failed("not-found".to_owned()))
            ]
        );
        assert_eq!(model.running.keys().copied().collect::<Vec<_>>(), [2]);
        model.learn(&outcome(3, "b", &json!({"result": "unknown"})), true);
        assert_eq!(model.rows[0].ended, Ended::Unknown);
        model.learn(&outcome(4, "never begun", &json!({"result": "ok"})), true);
        assert_eq!(
            (model.rows[0].height, &model.rows[0].ended),
            (5, &Ended::Ok)
        );
    }

    #[test]
    fn only_what_was_never_seen_is_new_and_the_strongest_is_said() {
        let mut model = Model::new("host");
        assert_eq!(
            model.learn(&intent(0, "a", "qm-create", "root"), false),
            Some("new action")
        );
        assert_eq!(
            model.learn(&intent(1, "b", "qm-create", "root"), true),
            None
        );
        assert_eq!(
            model.learn(&intent(2, "c", "qm-create", "eve"), true),
            Some("new user")
        );
        assert_eq!(
            model.learn(&intent(3, "d", "qm-destroy", "root"), true),
            Some("new action")
        );
        assert_eq!(
            model.learn(&intent(4, "e", "qm-destroy", "eve"), true),
            Some("first for user")
        );
        assert_eq!(
            model.learn(&intent(1, "f", "qm-destroy", "eve"), true),
            Some("clock set back")
        );
    }

    #[test]
    fn a_hostile_history_costs_bounded_memory() {
        let mut model = Model::new("host");
        for n in 0..6000 {
            model.learn(
                &intent(n, &format!("op{n}"), &"x".repeat(300), &format!("u{n}")),
                true,
            );
        }
        assert_eq!(
            (model.rows.len(), model.running.len(), model.by_op.len()),
            (ROWS, RUNNING, RUNNING)
        );
        assert!(
            model.rows[0].action.chars().count() <= TEXT_CHARS + 1
                && model.rate.len() <= RATE_STEPS
        );
        for garbage in [
            "",
            "[]",
            "{\"phase\":7}",
            "{\"phase\":\"outcome\"}",
            "{\"ts_us\":-9223372036854775808}",
        ] {
            let bytes = garbage.as_bytes().to_vec();
            model.learn(
                &Followed {
                    index: 1,
                    leaf: [0; 32],
                    bytes,
                },
                true,
            );
        }
    }

    #[test]
    fn rates_are_counted_where_they_happened() {
        let mut model = Model::new("host");
        for ts in [5, 6, 15, 31] {
            model.count(ts * 1_000_000);
        }
        assert_eq!(model.rates(35_000_000, 4), [2, 1, 0, 1]);
        assert_eq!(model.per_minute(35_000_000), 4);
        assert_eq!(model.per_minute(95_000_000), 0);
    }
}
