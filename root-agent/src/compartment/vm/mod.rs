//! The `vm` compartment: every `qm-*` action as one run of the backend's `qm`, Proxmox's or ours, and its result in the
//! wire's terms. Command lines are built in [`argv`], answers understood in [`answer`], images taken in by [`import`].

mod answer;
mod argv;
mod import;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blockhost_proto::action::{Action, QmDestroy, QmGuestExec, QmImportdisk};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::Vmid;
use serde_json::{Map, Value};

use super::disk::source::Sources;
use super::{Backend, Done, Failure, Handler, JobCtx, StartInfo};
use crate::exec::{Ended, Output, Program, Run, fd_path};
use answer::GuestResult;
use argv::Command;

/// Output that is parsed may be longer than what is only shown; beyond this it is refused as torn.
const PARSED_CAP: usize = 8 << 20;

/// What is left of a deadline for looking at the state after a command failed.
const AFTERTHOUGHT: Duration = Duration::from_secs(5);

/// The state of a machine that `start`, `stop` and `shutdown` aim at.
#[derive(Debug, Clone, Copy)]
enum Aim {
    Running,
    Stopped,
}

struct Vm {
    /// The backend's program, or why there is none.
    qm: Result<Program, String>,
    /// The unprivileged users that images may belong to: who makes them and who customises them.
    image_owners: [u32; 2],
}

/// Finds the backend's program; called before confinement.
///
/// # Errors
/// One sentence when the policy names a program that cannot be trusted. A host without any backend starts all the same.
pub fn prepare(start: &StartInfo<'_>) -> Result<Box<dyn Handler>, String> {
    let qm = match start.policy.programs.qm.as_deref() {
        Some(path) => Ok(Program::open(path)
            .map_err(|error| format!("the policy's programs.qm is not usable: {error}"))?),
        None => find_backend(start.backend),
    };
    Ok(Box::new(Vm {
        qm,
        image_owners: [start.identities.blockhost.uid, start.identities.image.uid],
    }))
}

/// The program of a backend in its usual places.
fn find_backend(backend: Backend) -> Result<Program, String> {
    let places: Vec<PathBuf> = match backend {
        Backend::Proxmox => vec![PathBuf::from("/usr/sbin/qm")],
        Backend::Embedded => {
            let beside = std::env::current_exe()
                .ok()
                .and_then(|own| own.parent().map(Path::to_path_buf));
            let installed = ["/usr/lib/blockhost", "/usr/bin"].map(PathBuf::from);
            beside
                .into_iter()
                .chain(installed)
                .map(|directory| directory.join("blockhost-qm"))
                .collect()
        }
    };
    let list = places
        .iter()
        .map(|place| place.display().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    let found = places
        .iter()
        .find(|place| place.exists())
        .ok_or_else(|| format!("there is none of {list}"))?;
    Program::open(found).map_err(|error| error.to_string())
}

impl Handler for Vm {
    fn quick(&self, _action: &Action) -> bool {
        false
    }

    fn run(&self, action: &Action, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        match action {
            Action::QmStart(action) => self.reach(
                Aim::Running,
                Command::new("start").vm(action.vmid),
                action.vmid,
                ctx,
            ),
            Action::QmStop(action) => self.reach(
                Aim::Stopped,
                Command::new("stop").vm(action.vmid),
                action.vmid,
                ctx,
            ),
            Action::QmShutdown(action) => {
                self.reach(Aim::Stopped, argv::shutdown(action), action.vmid, ctx)
            }
            Action::QmDestroy(action) => self.destroy(action, ctx),
            Action::QmImportdisk(action) => self.import(action, ctx),
            Action::QmStatus(action) => self.status(action.vmid, ctx),
            Action::QmConfig(action) => {
                Ok(json_output(&Value::Object(self.config(action.vmid, ctx)?)))
            }
            Action::QmList(_) => self.list(ctx),
            Action::QmGuestExec(action) => self.guest_exec(action, ctx),
            other => {
                let command = argv::plain(other)
                    .map_err(|error| {
                        Failure::new(
                            ErrorCode::Failed,
                            format!("the command could not be prepared: {error}"),
                        )
                    })?
                    .ok_or_else(|| {
                        Failure::new(
                            ErrorCode::Internal,
                            format!(
                                "{} was sent to the vm compartment, which cannot do it",
                                other.name()
                            ),
                        )
                    })?;
                self.done(&command, ctx)
            }
        }
    }

    fn programs(&self) -> Vec<PathBuf> {
        self.qm
            .iter()
            .flat_map(|qm| {
                std::iter::once(qm.path())
                    .chain(qm.interpreter())
                    .map(Path::to_path_buf)
            })
            .collect()
    }
}

impl Vm {
    fn run_qm(&self, command: &Command, ctx: &JobCtx<'_>) -> Result<Output, Failure> {
        self.run_qm_until(command, ctx, ctx.deadline)
    }

    fn run_qm_until(
        &self,
        command: &Command,
        ctx: &JobCtx<'_>,
        deadline: Instant,
    ) -> Result<Output, Failure> {
        let qm = self.qm.as_ref().map_err(|why| {
            Failure::new(
                ErrorCode::Failed,
                format!(
                    "there is no virtual machine backend: {why}; install one and restart the agent"
                ),
            )
        })?;
        let mut run = Run::new(qm, deadline)
            .args(command.words())
            .stdin(command.input())
            .root(ctx.layout.root());
        for file in command.files() {
            run = run.pass(file.as_fd());
        }
        if command.is_parsed() {
            run = run.keep(PARSED_CAP);
        }
        run.run()
            .map_err(|error| Failure::new(ErrorCode::Failed, error.to_string()))
    }

    /// Runs a command whose success needs no interpretation.
    fn done(&self, command: &Command, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        let output = self.run_qm(command, ctx)?;
        if output.ok() {
            Ok(text_output(&output))
        } else {
            Err(answer::failure(command.verb(), command.vmid(), &output))
        }
    }

    /// Runs a command that brings a machine into a state; one that is there already is a success.
    fn reach(
        &self,
        aim: Aim,
        command: Command,
        vmid: Vmid,
        ctx: &JobCtx<'_>,
    ) -> Result<Done, Failure> {
        let output = self.run_qm(&command, ctx)?;
        if output.ok() {
            return Ok(text_output(&output));
        }
        let failure = answer::failure(command.verb(), Some(vmid.get()), &output);
        if matches!(failure.code, ErrorCode::NotFound) || output.ended == Ended::TimedOut {
            return Err(failure);
        }
        let deadline = ctx.deadline.max(Instant::now() + AFTERTHOUGHT);
        let status = self.run_qm_until(&Command::new("status").vm(vmid).parsed(), ctx, deadline)?;
        let text = status.stdout.to_text();
        let wanted = match aim {
            Aim::Running => "running",
            Aim::Stopped => "stopped",
        };
        if status.ok() && answer::status(&text) == Some(wanted) {
            return Ok(Done {
                output: format!("VM {vmid} is {wanted} already"),
                ..Done::default()
            });
        }
        Err(failure)
    }

    fn destroy(&self, action: &QmDestroy, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        let config = self.config(action.vmid, ctx)?;
        let is_template = config
            .get("template")
            .and_then(Value::as_str)
            .is_some_and(|flag| flag != "0");
        if is_template && !action.template {
            let message = format!(
                "VM {} is a template and other machines may rest on it; say \"template\": true to destroy it",
                action.vmid
            );
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        self.done(
            &Command::new("destroy").vm(action.vmid).word("--purge"),
            ctx,
        )
    }

    fn import(&self, action: &QmImportdisk, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        let sources = Sources {
            layout: ctx.layout,
            directories: &ctx.allow.image_dirs,
            owners: &self.image_owners,
        };
        let image = import::take(&sources, &action.disk_path, ctx.deadline)?;
        let path = fd_path(image.file.as_fd());
        let command = Command::new("importdisk")
            .vm(action.vmid)
            .word(path.display().to_string())
            .word(action.storage.to_string())
            .file(image.file);
        let mut done = self.done(&command, ctx)?;
        if let Some(volume) = answer::imported_volume(&done.output) {
            done.extra.insert("volume".into(), volume.into());
        }
        done.extra
            .insert("format".into(), image.format.name().into());
        Ok(done)
    }

    fn status(&self, vmid: Vmid, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        let text = self.parsed(&Command::new("status").vm(vmid).parsed(), ctx)?;
        let status = answer::status(&text).ok_or_else(|| unexpected("status", &text))?;
        Ok(json_output(
            &serde_json::json!({"vmid": vmid.get(), "status": status}),
        ))
    }

    fn config(&self, vmid: Vmid, ctx: &JobCtx<'_>) -> Result<Map<String, Value>, Failure> {
        Ok(answer::config(
            &self.parsed(&Command::new("config").vm(vmid).parsed(), ctx)?,
        ))
    }

    fn list(&self, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        let text = self.parsed(&Command::new("list").parsed(), ctx)?;
        let rows = answer::list(&text).map_err(|row| unexpected("list", &row))?;
        Ok(json_output(&Value::Array(rows)))
    }

    fn guest_exec(&self, action: &QmGuestExec, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        let command = argv::guest_exec(action);
        let output = self.run_qm(&command, ctx)?;
        let result = output
            .stdout
            .whole()
            .and_then(|text| answer::guest_result(&text));
        match result {
            Some(GuestResult::Ended {
                exitcode,
                stdout,
                stderr,
            }) => {
                let mut done = Done {
                    output: format!("exit code {exitcode}"),
                    ..Done::default()
                };
                done.extra.insert("exitcode".into(), exitcode.into());
                done.extra.insert("stdout".into(), stdout.into());
                done.extra.insert("stderr".into(), stderr.into());
                Ok(done)
            }
            Some(GuestResult::StillRunning) => {
                let message = format!(
                    "the command in VM {} had not ended in time; it goes on in the guest",
                    action.vmid
                );
                Err(Failure::new(ErrorCode::Timeout, message))
            }
            None if output.ok() => Err(unexpected(
                "guest exec",
                "an answer without exit code, or one that is too long",
            )),
            None => Err(answer::failure(command.verb(), command.vmid(), &output)),
        }
    }

    /// Runs a command and returns its whole output as text.
    fn parsed(&self, command: &Command, ctx: &JobCtx<'_>) -> Result<String, Failure> {
        let output = self.run_qm(command, ctx)?;
        if !output.ok() {
            return Err(answer::failure(command.verb(), command.vmid(), &output));
        }
        let whole = output
            .stdout
            .whole()
            .ok_or_else(|| unexpected(command.verb(), "more output than is read"))?;
        Ok(crate::exec::escape(&whole))
    }
}

fn text_output(output: &Output) -> Done {
    Done {
        output: output.stdout.to_text().trim_end().to_owned(),
        ..Done::default()
    }
}

fn json_output(value: &Value) -> Done {
    Done {
        output: value.to_string(),
        ..Done::default()
    }
}

fn unexpected(verb: &str, what: &str) -> Failure {
    let shown: String = what.chars().take(200).collect();
    Failure::new(
        ErrorCode::Failed,
        format!("qm {verb} printed what is not understood: {}", shown.trim()),
    )
}
