//! `pct-*`: what each action means as runs of `pct`.

use std::time::Instant;

use blockhost_proto::action::{Action, PctCreate, PctExec, PctShutdown};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::TemplateRef;

use super::answer;
use super::argv::{self, Command};
use super::tool::{Aim, Tool};
use super::{cannot_prepare, misplaced, template};
use crate::compartment::{Done, Failure, JobCtx};
use crate::exec::Ended;

pub(super) fn run(pct: &Tool, action: &Action, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    match action {
        Action::PctCreate(a) => create(pct, a, ctx),
        Action::PctStart(a) => {
            let command = Command::new("start").vm(a.vmid);
            pct.reach(Aim::Running, &command, a.vmid, ctx)
        }
        Action::PctStop(a) => {
            let command = Command::new("stop").vm(a.vmid);
            pct.reach(Aim::Stopped, &command, a.vmid, ctx)
        }
        Action::PctShutdown(a) => shutdown(pct, a, ctx),
        Action::PctDestroy(a) => pct.destroy(a.vmid, a.template, ctx),
        Action::PctStatus(a) => pct.status(a.vmid, ctx),
        Action::PctConfig(a) => pct.config(a.vmid, ctx).map(super::object),
        Action::PctList(_) => pct.list(answer::containers, ctx),
        Action::PctSet(a) => {
            let command = Command::new("set")
                .vm(a.vmid)
                .container_options(&a.options)
                .map_err(|error| cannot_prepare(&error))?;
            pct.done(&command, ctx)
        }
        Action::PctExec(a) => exec(pct, a, ctx),
        other => Err(misplaced(other)),
    }
}

fn create(pct: &Tool, action: &PctCreate, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let archive = match &action.template {
        stored @ TemplateRef::Stored { .. } => stored.to_string(),
        TemplateRef::File(path) => template::find(ctx.layout, &ctx.allow.template_dirs, path)?
            .display()
            .to_string(),
    };
    let command = Command::new("create")
        .vm(action.vmid)
        .word(archive)
        .option("hostname", action.hostname.to_string())
        // Proxmox's own default is a container whose root is the host's.
        .option("unprivileged", "1")
        .container_options(&action.options)
        .map_err(|error| cannot_prepare(&error))?;
    pct.done(&command, ctx)
}

/// `pct` says in many ways that a container did not stop: that it still runs is what tells.
fn shutdown(pct: &Tool, action: &PctShutdown, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let command = argv::shutdown(action.vmid, action.timeout);
    let started = Instant::now();
    let failure = match pct.reach(Aim::Stopped, &command, action.vmid, ctx) {
        Err(failure) if failure.code == ErrorCode::Failed => failure,
        other => return other,
    };
    let waited = started.elapsed() >= action.timeout.duration();
    let code = if waited {
        ErrorCode::Timeout
    } else {
        failure.code
    };
    Err(Failure::new(code, failure.message))
}

fn exec(pct: &Tool, action: &PctExec, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let vmid = action.vmid;
    // `pct exec` hands the command's own exit code on: what is the container's fault is asked beforehand.
    let state = pct.state(vmid, ctx)?;
    if state != Aim::Running.word() {
        let message = format!("container {vmid} is {state}; start it first");
        return Err(Failure::new(ErrorCode::Conflict, message));
    }
    let command = argv::container_exec(action);
    let deadline = ctx.deadline.min(Instant::now() + action.timeout.duration());
    let output = pct.run_until(&command, ctx, deadline)?;
    let exitcode = match output.ended {
        Ended::Exited(code) => i64::from(code),
        Ended::Signalled(signal) => 128 + i64::from(signal),
        Ended::TimedOut => {
            let message = format!(
                "the command in container {vmid} had not ended in time and was stopped; what it started may go on"
            );
            return Err(Failure::new(ErrorCode::Timeout, message));
        }
    };
    Ok(super::ended(
        exitcode,
        output.stdout.to_text(),
        output.stderr.to_text(),
    ))
}
