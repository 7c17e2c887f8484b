//! One program of the backend, `qm` or `pct`: found once, run per command line, its refusals put into the wire's terms.
//! What both have in common lives here; what a verb means is said by [`super::machines`] and [`super::containers`].

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::Vmid;
use serde_json::{Map, Value};

use super::answer::{self, Kind};
use super::argv::Command;
use crate::compartment::{Backend, Done, Failure, JobCtx};
use crate::confine::programs::IMPORT;
use crate::exec::{Ended, Output, Program, Run, Sandbox};

/// Output that is parsed may be longer than what is only shown; beyond this it is refused as torn.
const PARSED_CAP: usize = 8 << 20;

/// What is left of a deadline for looking at the state after a command failed.
const AFTERTHOUGHT: Duration = Duration::from_secs(5);

/// The state of a machine that `start`, `stop` and `shutdown` aim at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Aim {
    Running,
    Stopped,
}

impl Aim {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// The program behind one family of actions.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) kind: Kind,
    pub(super) backend: Backend,
    /// The program, or why there is none.
    program: Result<Program, String>,
    /// What an import is locked into, where the backend is ours.
    import: Option<Sandbox>,
}

impl Tool {
    /// The program that the policy names, else that of the backend in its usual places.
    ///
    /// # Errors
    /// One sentence when the policy names a program that cannot be trusted. One that is missing fails each action.
    pub(super) fn find(
        kind: Kind,
        named: Option<&Path>,
        backend: Backend,
        layout: &Layout,
    ) -> Result<Self, String> {
        let program = match named {
            Some(path) => Ok(Program::open(path).map_err(|error| {
                format!(
                    "the policy's programs.{} is not usable: {error}",
                    kind.program
                )
            })?),
            None => find_installed(kind.program, backend),
        };
        let import = match (backend, &program) {
            (Backend::Embedded, Ok(program)) => Some(
                IMPORT
                    .for_program(
                        program,
                        &[layout.storage_files()],
                        &[layout.state(), layout.run()],
                    )
                    .map_err(|error| error.to_string())?,
            ),
            _ => None,
        };
        Ok(Self {
            kind,
            backend,
            program,
            import,
        })
    }

    /// Files that a sandbox must let it execute.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.program.iter().flat_map(Program::files).collect()
    }

    pub(super) fn run(&self, command: &Command, ctx: &JobCtx<'_>) -> Result<Output, Failure> {
        self.run_until(command, ctx, ctx.deadline)
    }

    pub(super) fn run_until(
        &self,
        command: &Command,
        ctx: &JobCtx<'_>,
        deadline: Instant,
    ) -> Result<Output, Failure> {
        let program = self.program.as_ref().map_err(|why| {
            Failure::new(
                ErrorCode::Failed,
                format!(
                    "there is no {} backend: {why}; install one and restart the agent",
                    self.kind.backend
                ),
            )
        })?;
        let mut run = Run::new(program, deadline)
            .args(command.words())
            .stdin(command.input())
            .root(ctx.layout.root());
        for file in command.files() {
            run = run.pass(file.as_fd());
        }
        if let Some(sandbox) = self
            .import
            .as_ref()
            .filter(|_| command.verb() == "importdisk")
        {
            run = run.sandbox(sandbox);
        }
        if command.is_parsed() {
            run = run.keep(PARSED_CAP);
        }
        run.run()
            .map_err(|error| Failure::new(ErrorCode::Failed, error.to_string()))
    }

    /// Runs a command whose success needs no interpretation.
    pub(super) fn done(&self, command: &Command, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        let output = self.run(command, ctx)?;
        if output.ok() {
            Ok(text_output(&output))
        } else {
            Err(self.failure(command, &output))
        }
    }

    /// Runs a command that brings a machine into a state; one that is there already is a success.
    pub(super) fn reach(
        &self,
        aim: Aim,
        command: &Command,
        vmid: Vmid,
        ctx: &JobCtx<'_>,
    ) -> Result<Done, Failure> {
        let output = self.run(command, ctx)?;
        if output.ok() {
            return Ok(text_output(&output));
        }
        let failure = self.failure(command, &output);
        if matches!(failure.code, ErrorCode::NotFound) || output.ended == Ended::TimedOut {
            return Err(failure);
        }
        let deadline = ctx.deadline.max(Instant::now() + AFTERTHOUGHT);
        let status = self.run_until(&Command::new("status").vm(vmid).parsed(), ctx, deadline)?;
        let text = status.stdout.to_text();
        if status.ok() && answer::status(&text) == Some(aim.word()) {
            return Ok(Done {
                output: format!("{} {vmid} is {} already", self.kind.thing, aim.word()),
                ..Done::default()
            });
        }
        Err(failure)
    }

    /// Destroys it, unless it is a template and none was meant. Where there is none, what is left of one goes all the same.
    pub(super) fn destroy(
        &self,
        vmid: Vmid,
        template: bool,
        ctx: &JobCtx<'_>,
    ) -> Result<Done, Failure> {
        let destroy = Command::new("destroy").vm(vmid).word("--purge");
        let look = Command::new("config").vm(vmid).parsed();
        let output = self.run(&look, ctx)?;
        let ours = self.backend == Backend::Embedded;
        let config = match self.whole(&look, &output) {
            // A creation that was cut off has left something without a configuration, or with half of one: our own programs
            // take that away, keep what others rest on, and say themselves that there was nothing. What was a template then,
            // its disks say.
            Err(failure) if ours && answer::is_left_over(&failure, &output) => {
                let meant = template && self.kind.has_bases;
                let destroy = if meant {
                    destroy.word("--template")
                } else {
                    destroy
                };
                return self.done(&destroy, ctx);
            }
            other => answer::config(&other?),
        };
        let is_template = config
            .get("template")
            .and_then(Value::as_str)
            .is_some_and(|flag| flag != "0");
        if is_template && !template {
            let message = format!(
                "{} {vmid} is a template and other machines may rest on it; say \"template\": true to destroy it",
                self.kind.thing
            );
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        self.done(&destroy, ctx)
    }

    /// The state as one word.
    pub(super) fn state(&self, vmid: Vmid, ctx: &JobCtx<'_>) -> Result<String, Failure> {
        let text = self.parsed(&Command::new("status").vm(vmid).parsed(), ctx)?;
        answer::status(&text)
            .map(str::to_owned)
            .ok_or_else(|| self.unexpected("status", &text))
    }

    pub(super) fn status(&self, vmid: Vmid, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        let status = self.state(vmid, ctx)?;
        Ok(json_output(
            &serde_json::json!({"vmid": vmid.get(), "status": status}),
        ))
    }

    pub(super) fn config(
        &self,
        vmid: Vmid,
        ctx: &JobCtx<'_>,
    ) -> Result<Map<String, Value>, Failure> {
        self.read_config(Command::new("config").vm(vmid), ctx)
    }

    /// A machine's configuration without what waits for its next start, which Proxmox shows otherwise and does not clone.
    pub(super) fn config_in_force(
        &self,
        vmid: Vmid,
        ctx: &JobCtx<'_>,
    ) -> Result<Map<String, Value>, Failure> {
        let command = Command::new("config").vm(vmid).option("current", "1");
        self.read_config(command, ctx)
    }

    fn read_config(
        &self,
        command: Command,
        ctx: &JobCtx<'_>,
    ) -> Result<Map<String, Value>, Failure> {
        Ok(answer::config(&self.parsed(&command.parsed(), ctx)?))
    }

    /// The table that `list` prints, each row read by `read`.
    pub(super) fn list(
        &self,
        read: fn(&str) -> Result<Vec<Value>, String>,
        ctx: &JobCtx<'_>,
    ) -> Result<Done, Failure> {
        let text = self.parsed(&Command::new("list").parsed(), ctx)?;
        let rows = read(&text).map_err(|row| self.unexpected("list", &row))?;
        Ok(json_output(&Value::Array(rows)))
    }

    /// Runs a command and returns its whole output as text.
    pub(super) fn parsed(&self, command: &Command, ctx: &JobCtx<'_>) -> Result<String, Failure> {
        self.whole(command, &self.run(command, ctx)?)
    }

    /// The whole output of a command that was run, as text.
    fn whole(&self, command: &Command, output: &Output) -> Result<String, Failure> {
        if !output.ok() {
            return Err(self.failure(command, output));
        }
        let whole = output
            .stdout
            .whole()
            .ok_or_else(|| self.unexpected(command.verb(), "more output than is read"))?;
        Ok(crate::exec::escape(&whole))
    }

    pub(super) fn failure(&self, command: &Command, output: &Output) -> Failure {
        answer::failure(self.kind, command.verb(), command.vmid(), output)
    }

    pub(super) fn unexpected(&self, verb: &str, what: &str) -> Failure {
        let shown: String = what.chars().take(200).collect();
        Failure::new(
            ErrorCode::Failed,
            format!(
                "{} {verb} printed what is not understood: {}",
                self.kind.program,
                shown.trim()
            ),
        )
    }
}

/// The program of a backend in its usual places.
fn find_installed(name: &str, backend: Backend) -> Result<Program, String> {
    let places: Vec<PathBuf> = match backend {
        Backend::Proxmox => vec![Path::new("/usr/sbin").join(name)],
        Backend::Embedded => {
            let beside = std::env::current_exe()
                .ok()
                .and_then(|own| own.parent().map(Path::to_path_buf));
            let installed = ["/usr/lib/blockhost", "/usr/bin"].map(PathBuf::from);
            beside
                .into_iter()
                .chain(installed)
                .map(|directory| directory.join(format!("blockhost-{name}")))
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
