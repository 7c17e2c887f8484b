//! Plans and their execution against a model of the agent: an apply converges, fails cleanly, survives being killed
//! anywhere, and touches nothing that was not made here.

mod documents;
mod model;
mod restored;
mod whole;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use blockhost_proto::layout::Layout;
use serde_json::Value;

use super::engine::{Engine, Options, StateError};
use super::report::{ApplyReport, DiffReport};
use super::{Document, Fate};
use model::{Killed, Model};

/// A model with the directories that records and locks are in.
struct World {
    _directory: tempfile::TempDir,
    layout: Layout,
    model: Model,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        for path in [layout.state(), layout.run()] {
            std::fs::create_dir_all(path).expect("a directory");
        }
        Self {
            _directory: directory,
            layout,
            model: Model::default(),
        }
    }

    fn document(value: &Value) -> Document {
        Document::parse("test", &value.to_string()).expect("JSON")
    }

    fn try_apply(&mut self, value: &Value, prune: bool) -> Result<ApplyReport, StateError> {
        let document = Self::document(value);
        let options = Options { prune };
        Engine::new(&self.layout, &mut self.model).apply(&document, options, &mut |_| {})
    }

    fn apply(&mut self, value: &Value, prune: bool) -> ApplyReport {
        self.try_apply(value, prune).expect("an apply")
    }

    /// The same by a process that may be killed meanwhile; `None` when it was.
    fn apply_or_die(&mut self, value: &Value, prune: bool) -> Option<ApplyReport> {
        match catch_unwind(AssertUnwindSafe(|| self.apply(value, prune))) {
            Ok(report) => Some(report),
            Err(panic) if panic.is::<Killed>() => None,
            Err(panic) => resume_unwind(panic),
        }
    }

    fn diff(&mut self, value: &Value, prune: bool) -> DiffReport {
        let document = Self::document(value);
        Engine::new(&self.layout, &mut self.model)
            .diff(&document, prune)
            .expect("a diff")
    }

    /// Applies what must succeed, and finds that nothing is left to do.
    fn converge(&mut self, value: &Value, prune: bool) {
        let report = self.apply(value, prune);
        assert!(report.is_good(), "{report:#?}\n{value:#}");
        self.is_settled(value, prune);
    }

    fn is_settled(&mut self, value: &Value, prune: bool) {
        let diff = self.diff(value, prune);
        assert!(diff.is_empty(), "{diff:#?}\n{value:#}");
        let (events, things) = (self.model.events.len(), self.model.things.clone());
        self.model.take_done();
        let again = self.apply(value, prune);
        assert!(again.is_good() && again.outcomes.is_empty(), "{again:#?}");
        assert_eq!(self.model.take_done(), Vec::<String>::new());
        assert_eq!(
            self.model.events.len(),
            events,
            "nothing happened, so nothing is on record"
        );
        assert_eq!(self.model.things, things);
    }
}

fn fates(report: &ApplyReport) -> Vec<(String, Fate)> {
    report
        .outcomes
        .iter()
        .map(|outcome| (outcome.resource.to_string(), outcome.fate))
        .collect()
}
