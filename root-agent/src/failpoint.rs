//! Where the tests take hold of a process of the agent: the points of a request's way, and the moment after confinement.
//! Without the feature `fail-points`, which only this crate's own tests ask for, every function here is empty.
//!
//! Children have no environment and after confinement no files, so a child is armed before: it finds its name in
//! `fail-point` below the world's root, a line `role stop|refuse point [detail]`, and removes it: only one life is armed.

pub use blockhost_ledger::failpoint::reach;

pub use imp::*;

#[cfg(not(feature = "fail-points"))]
mod imp {
    use std::path::Path;

    use crate::ipc::{Role, Start};

    /// Looks whether this life is to be interrupted somewhere.
    #[inline(always)]
    pub fn arm(_role: Role, _root: &Path) {}

    /// Lets the others go on for a while.
    #[inline(always)]
    pub fn dally(_point: &str) {}

    /// The process is confined as it will be for good.
    #[inline(always)]
    pub fn confined(_role: Role, _start: &Start) {}
}

#[cfg(feature = "fail-points")]
mod imp {
    use std::path::Path;
    use std::sync::OnceLock;
    use std::time::Duration;

    use crate::ipc::{Role, Start};

    /// What takes the place of a role's work.
    type TakeOver = fn(Role, &Start);

    static TAKE_OVER: OnceLock<TakeOver> = OnceLock::new();

    /// Has `program` run in every child of this executable, in the place of what follows its confinement.
    pub fn take_over(program: TakeOver) {
        let _ = TAKE_OVER.set(program);
    }

    /// Looks whether this life is to be interrupted somewhere.
    pub fn arm(role: Role, root: &Path) {
        let file = root.join("fail-point");
        let Ok(line) = std::fs::read_to_string(&file) else {
            return;
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        let [whose, kind @ ("stop" | "refuse"), point, ref rest @ ..] = words[..] else {
            return;
        };
        if whose == role.as_str() && std::fs::remove_file(&file).is_ok() {
            let detail = rest.first().copied().unwrap_or_default();
            blockhost_ledger::failpoint::arm(point, detail, kind == "refuse");
        }
    }

    /// Lets the others go on for a while, at a point that is armed to be refused.
    pub fn dally(point: &str) {
        if blockhost_ledger::failpoint::refuses(point) {
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// The process is confined as it will be for good.
    pub fn confined(role: Role, start: &Start) {
        if let Some(program) = TAKE_OVER.get() {
            program(role, start);
        }
    }
}
