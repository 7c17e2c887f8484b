//! The `vm` compartment: every `qm-*` and `pct-*` action as one run of the backend's program, Proxmox's or ours, its result
//! in the wire's terms, and the limits of machines. Command lines are built in [`argv`], answers understood in [`answer`].

mod answer;
mod argv;
mod containers;
#[cfg(any(test, feature = "fuzz"))]
pub(super) mod fuzz;
mod import;
mod machines;
mod metrics;
mod taps;
mod template;
mod throttle;
mod tool;

use std::path::PathBuf;

use blockhost_proto::action::Action;
use blockhost_proto::response::ErrorCode;
use serde_json::{Map, Value};

use super::{Done, Failure, Handler, JobCtx, Share, StartInfo};
use taps::Devices;
use tool::Tool;

struct Vm {
    qm: Tool,
    pct: Tool,
    devices: Devices,
    /// The unprivileged users that images may belong to: who makes them and who customises them.
    image_owners: [u32; 2],
}

/// Finds the backend's programs; called before confinement.
///
/// # Errors
/// One sentence when the policy names a program that cannot be trusted. A host without any backend starts all the same.
pub fn prepare(start: &StartInfo<'_>) -> Result<Box<dyn Handler>, String> {
    let programs = &start.policy.programs;
    Ok(Box::new(Vm {
        qm: Tool::find(
            answer::QM,
            programs.qm.as_deref(),
            start.backend,
            start.layout,
        )?,
        pct: Tool::find(
            answer::PCT,
            programs.pct.as_deref(),
            start.backend,
            start.layout,
        )?,
        devices: Devices::open(),
        image_owners: [start.identities.blockhost.uid, start.identities.image.uid],
    }))
}

impl Handler for Vm {
    fn quick(&self, _action: &Action) -> bool {
        false
    }

    fn share(&self, action: &Action) -> Share {
        share(action)
    }

    fn run(&self, action: &Action, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        match (action, action.spec().family) {
            (Action::VmThrottle(a), _) => throttle::run(&self.qm, &self.devices, a, ctx),
            (Action::PveSetThrottle(a), _) => throttle::options(&self.qm, &a.into(), ctx),
            (Action::TcRateLimit(a), _) => throttle::rates(&self.qm, &self.devices, a, ctx),
            (Action::QmMetrics(a), _) => metrics::run(&self.qm, a.vmid, ctx),
            (_, "pct") => containers::run(&self.pct, action, ctx),
            _ => machines::run(&self.qm, &self.image_owners, action, ctx),
        }
    }

    fn programs(&self) -> Vec<PathBuf> {
        let mut programs = self.qm.files();
        programs.extend(self.pct.files());
        programs
    }
}

/// Whose threads an action has here.
const fn share(action: &Action) -> Share {
    match action {
        Action::QmGuestExec(_)
        | Action::QmGuestPing(_)
        | Action::QmMetrics(_)
        | Action::QmShutdown(_)
        | Action::PctExec(_)
        | Action::PctShutdown(_) => Share::Guest,
        Action::QmClone(clone) if clone.full => Share::Bulk,
        Action::QmImportdisk(_) | Action::PctCreate(_) => Share::Bulk,
        _ => Share::Host,
    }
}

/// A configuration as the answer.
fn object(config: Map<String, Value>) -> Done {
    Done {
        output: Value::Object(config).to_string(),
        ..Done::default()
    }
}

/// A command inside a machine ran to its end, whatever it came to.
fn ended(exitcode: i64, stdout: String, stderr: String) -> Done {
    let mut done = Done {
        output: format!("exit code {exitcode}"),
        ..Done::default()
    };
    done.extra.insert("exitcode".into(), exitcode.into());
    done.extra.insert("stdout".into(), stdout.into());
    done.extra.insert("stderr".into(), stderr.into());
    done
}

fn cannot_prepare(error: &std::io::Error) -> Failure {
    Failure::new(
        ErrorCode::Failed,
        format!("the command could not be prepared: {error}"),
    )
}

fn misplaced(action: &Action) -> Failure {
    Failure::new(
        ErrorCode::Internal,
        format!(
            "{} was sent to the vm compartment, which cannot do it",
            action.name()
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_copies_a_whole_disk_has_no_thread_of_what_starts_and_stops_machines() {
        let clone = |full: bool| json!({"vmid": 9000, "newid": 100, "name": "a", "full": full});
        let number = || json!({"vmid": 100});
        let import = json!({"vmid": 100, "disk_path": "a.qcow2", "storage": "local"});
        for (name, params, expected) in [
            ("qm-clone", clone(true), Share::Bulk),
            ("qm-clone", clone(false), Share::Host),
            ("qm-importdisk", import, Share::Bulk),
            ("qm-start", number(), Share::Host),
            ("qm-stop", number(), Share::Host),
            ("qm-destroy", number(), Share::Host),
            ("qm-shutdown", number(), Share::Guest),
            ("pct-start", number(), Share::Host),
            ("pct-destroy", number(), Share::Host),
        ] {
            let action = Action::from_parts(name, &params).expect("a valid action");
            assert_eq!(share(&action), expected, "{name} {params}");
        }
        let create = blockhost_proto::catalog::find("pct-create").expect("in the catalog");
        let create = Action::from_parts(create.name, &create.example_params());
        assert_eq!(share(&create.expect("a valid action")), Share::Bulk);
    }
}
