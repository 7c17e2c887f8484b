//! `qm-*`: what each action means as runs of `qm`.

use std::os::fd::AsFd;

use blockhost_proto::action::{Action, QmGuestExec, QmImportdisk};
use blockhost_proto::response::ErrorCode;

use super::answer::{self, GuestResult};
use super::argv::{self, Command};
use super::tool::{Aim, Tool};
use super::{cannot_prepare, import, misplaced};
use crate::compartment::disk::source::Sources;
use crate::compartment::{Done, Failure, JobCtx};
use crate::exec::fd_path;

pub(super) fn run(
    qm: &Tool,
    image_owners: &[u32],
    action: &Action,
    ctx: &JobCtx<'_>,
) -> Result<Done, Failure> {
    match action {
        Action::QmStart(a) => {
            let command = Command::new("start").vm(a.vmid);
            qm.reach(Aim::Running, &command, a.vmid, ctx)
        }
        Action::QmStop(a) => {
            let command = Command::new("stop").vm(a.vmid);
            qm.reach(Aim::Stopped, &command, a.vmid, ctx)
        }
        Action::QmShutdown(a) => {
            let command = argv::shutdown(a.vmid, a.timeout);
            qm.reach(Aim::Stopped, &command, a.vmid, ctx)
        }
        Action::QmDestroy(a) => qm.destroy(a.vmid, a.template, ctx),
        Action::QmImportdisk(a) => import_disk(qm, image_owners, a, ctx),
        Action::QmStatus(a) => qm.status(a.vmid, ctx),
        Action::QmConfig(a) => qm.config(a.vmid, ctx).map(super::object),
        Action::QmList(_) => qm.list(answer::list, ctx),
        Action::QmGuestExec(a) => guest_exec(qm, a, ctx),
        Action::QmClone(a) => {
            // The request names two machines; what the new one is attached to and lies on is the source's to say.
            let source = qm.config_in_force(a.vmid, ctx)?;
            ctx.allow
                .lets_bring(&source)
                .map_err(|denied| denied.brought(a.vmid))?;
            plain(qm, action, ctx)
        }
        other => plain(qm, other, ctx),
    }
}

/// What is one run of `qm` and nothing else.
fn plain(qm: &Tool, action: &Action, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let command = argv::plain(action)
        .map_err(|error| cannot_prepare(&error))?
        .ok_or_else(|| misplaced(action))?;
    qm.done(&command, ctx)
}

fn import_disk(
    qm: &Tool,
    owners: &[u32],
    action: &QmImportdisk,
    ctx: &JobCtx<'_>,
) -> Result<Done, Failure> {
    let sources = Sources {
        layout: ctx.layout,
        directories: &ctx.allow.image_dirs,
        owners,
    };
    let image = import::take(&sources, &action.disk_path, ctx.deadline)?;
    let path = fd_path(image.file.as_fd());
    let command = Command::new("importdisk")
        .vm(action.vmid)
        .word(path.display().to_string())
        .word(action.storage.to_string())
        .file(image.file);
    let mut done = qm.done(&command, ctx)?;
    if let Some(volume) = answer::imported_volume(&done.output) {
        done.extra.insert("volume".into(), volume.into());
    }
    done.extra
        .insert("format".into(), image.format.name().into());
    Ok(done)
}

fn guest_exec(qm: &Tool, action: &QmGuestExec, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let command = argv::guest_exec(action);
    let output = qm.run(&command, ctx)?;
    let result = output
        .stdout
        .whole()
        .and_then(|text| answer::guest_result(&text));
    match result {
        Some(GuestResult::Ended {
            exitcode,
            stdout,
            stderr,
        }) => Ok(super::ended(exitcode, stdout, stderr)),
        Some(GuestResult::StillRunning) => {
            let message = format!(
                "the command in VM {} had not ended in time; it goes on in the guest",
                action.vmid
            );
            Err(Failure::new(ErrorCode::Timeout, message))
        }
        None if output.ok() => Err(qm.unexpected(
            "guest exec",
            "an answer without exit code, or one that is too long",
        )),
        None => Err(qm.failure(&command, &output)),
    }
}
