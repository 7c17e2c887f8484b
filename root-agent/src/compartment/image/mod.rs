//! The `image` compartment: what `virt-customize` does to a disk image, as a user that owns nothing else. The image is copied
//! ([`disk`]), files of the host that operations name are copied ([`stage`]), the operations become words ([`argv`]), and
//! virt-customize works on the copies in its own sandbox, in an appliance made beforehand ([`appliance`]).

mod appliance;
mod argv;
mod disk;
mod stage;
mod work;

use std::path::{Path, PathBuf};

use blockhost_proto::action::{Action, ImageOp, VirtCustomize};
use blockhost_proto::response::ErrorCode;

use super::disk::source::Sources;
use super::{Done, Failure, Handler, JobCtx, StartInfo};
use crate::confine::programs::{CUSTOMIZE, CUSTOMIZE_ONLINE, Places};
use crate::exec::{Ended, Output, Program, Run};
use work::{Job, Work};

/// Where Debian puts the two programs.
const CUSTOMIZE_PROGRAM: &str = "/usr/bin/virt-customize";
const SUPERMIN_PROGRAM: &str = "/usr/bin/supermin";

struct Image {
    /// The two programs, or why they are not there.
    tools: Result<Tools, String>,
    /// Who images and files may belong to, apart from root.
    owners: [u32; 2],
    work: Work,
    /// Whether packages may be fetched.
    network: bool,
}

struct Tools {
    customize: Program,
    supermin: Program,
}

/// Finds the programs; called before confinement. A host without them starts all the same.
///
/// # Errors
/// None today; the others' signature.
pub fn prepare(start: &StartInfo<'_>) -> Result<Box<dyn Handler>, String> {
    let open = |path| Program::open(Path::new(path)).map_err(|error| error.to_string());
    let tools = open(CUSTOMIZE_PROGRAM).and_then(|customize| {
        Ok(Tools {
            customize,
            supermin: open(SUPERMIN_PROGRAM)?,
        })
    });
    Ok(Box::new(Image {
        tools,
        owners: [start.identities.blockhost.uid, start.identities.image.uid],
        work: Work::new(start.layout.image_work()),
        network: start.policy.images.network,
    }))
}

impl Handler for Image {
    fn quick(&self, _action: &Action) -> bool {
        false
    }

    fn run(&self, action: &Action, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        match action {
            Action::VirtCustomize(action) => self.customize(action, ctx),
            other => Err(Failure::new(
                ErrorCode::Internal,
                format!(
                    "{} was sent to the image compartment, which cannot do it",
                    other.name()
                ),
            )),
        }
    }

    fn programs(&self) -> Vec<PathBuf> {
        self.tools
            .iter()
            .flat_map(|tools| [tools.customize.files(), tools.supermin.files()].concat())
            .collect()
    }
}

impl Image {
    fn customize(&self, action: &VirtCustomize, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        let tools = self.tools.as_ref().map_err(|why| {
            Failure::new(
                ErrorCode::Failed,
                format!("images cannot be customised on this host: {why}; install libguestfs-tools and restart the agent"),
            )
        })?;
        let sources = Sources {
            layout: ctx.layout,
            directories: &ctx.allow.image_dirs,
            owners: &self.owners,
        };
        let job = self.work.job(ctx.deadline)?;
        let mut image = disk::take(
            &sources,
            &action.image_path,
            job.path().join("disk"),
            ctx.deadline,
        )?;
        let staged = stage_all(action, &sources, &job, &mut image.space, ctx)?;
        let appliance = appliance::current(&self.work, &tools.supermin, ctx.deadline)?;
        let installs = |op: &ImageOp| matches!(op, ImageOp::Install(_));
        let online = self.network && action.commands.iter().any(installs);
        let ops = action.commands.iter();
        let words = argv::words(
            &image.copy_path,
            image.format,
            online,
            ops.zip(staged.iter().map(Option::as_ref)),
        );
        let places = Places {
            program: &tools.customize.files(),
            given: std::slice::from_ref(&appliance),
            scratch: &[job.path().to_path_buf()],
            file_size: Some(image.largest_file()),
        };
        let row = if online {
            &CUSTOMIZE_ONLINE
        } else {
            &CUSTOMIZE
        };
        let sandbox = row.sandbox(&places).map_err(|error| {
            Failure::new(
                ErrorCode::Internal,
                format!("virt-customize has no sandbox: {error}"),
            )
        })?;
        let tmp = job.directory("tmp")?;
        let mut run = Run::new(&tools.customize, ctx.deadline)
            .args(words)
            .env("LIBGUESTFS_BACKEND", "direct")
            .env("LIBGUESTFS_PATH", appliance)
            // Temporary files, what QEMU was asked for its abilities, and the socket to the appliance.
            .env("TMPDIR", &tmp)
            .env("LIBGUESTFS_CACHEDIR", &tmp)
            .env("XDG_RUNTIME_DIR", &tmp)
            .sandbox(&sandbox);
        if !kvm_is_ours() {
            run = run.env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
        }
        let output = run
            .run()
            .map_err(|error| Failure::new(ErrorCode::Failed, error.to_string()))?;
        if !output.ok() {
            return Err(explain(action, online, &output));
        }
        let format = image.format.name();
        image.publish(ctx.deadline)?;
        let count = action.commands.iter().count();
        let plural = if count == 1 { "" } else { "s" };
        let mut done = Done {
            output: format!(
                "{count} operation{plural} done in the image {}",
                action.image_path
            ),
            ..Done::default()
        };
        done.extra.insert("format".into(), format.into());
        Ok(done)
    }
}

/// For each operation, the private copy of the host's file that it names.
fn stage_all(
    action: &VirtCustomize,
    sources: &Sources<'_>,
    job: &Job<'_>,
    space: &mut u64,
    ctx: &JobCtx<'_>,
) -> Result<Vec<Option<PathBuf>>, Failure> {
    let mut staged = Vec::new();
    for (number, op) in action.commands.iter().enumerate() {
        let Some(path) = op.host_path() else {
            staged.push(None);
            continue;
        };
        let to = job.directory(&format!("in-{number}"))?;
        let trees = matches!(op, ImageOp::CopyIn { .. });
        staged.push(Some(stage::stage(
            sources,
            path,
            &to,
            trees,
            space,
            ctx.deadline,
        )?));
    }
    Ok(staged)
}

/// Whether this user may use KVM. Where it may and KVM is broken, taking the device away from it is the way out.
fn kvm_is_ours() -> bool {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}

/// What virt-customize said, without its advice on bug reports.
fn explain(action: &VirtCustomize, online: bool, output: &Output) -> Failure {
    let path = &action.image_path;
    if output.ended == Ended::TimedOut {
        return Failure::new(
            ErrorCode::Timeout,
            format!(
                "customising the image {path} took too long and was ended; the image is as it was"
            ),
        );
    }
    let said = complaint(&output.stderr.to_text()).unwrap_or_else(|| output.complaint());
    let fetches = |op: &ImageOp| matches!(op, ImageOp::Install(_));
    let hint = if said.contains("apt-get") && !online && action.commands.iter().any(fetches) {
        "; it has no network: `images: {network: true}` in root-agent.yaml lets it fetch packages"
    } else if said.contains("guestfs_launch") {
        "; its virtual machine did not start: `libguestfs-test-tool`, run as blockhost-image, says more"
    } else {
        ""
    };
    Failure::new(
        ErrorCode::Failed,
        format!("the image {path} could not be customised and is as it was: {said}{hint}"),
    )
}

/// The error and what a failing command printed before it, in one line and no longer than fits an answer; without the advice on
/// bug reports that follows it.
fn complaint(errors: &str) -> Option<String> {
    const LONGEST: usize = 600;
    let lines: Vec<&str> = errors
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("If reporting bugs"))
        .filter(|line| !line.is_empty())
        .collect();
    let said = lines.join("; ");
    let said = said.replace("virt-customize: error: ", "");
    let skip = said.chars().count().saturating_sub(LONGEST);
    (!said.is_empty()).then(|| said.chars().skip(skip).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_was_said_is_kept_and_advice_left_out() {
        let said = "E: no\nvirt-customize: error: apt-get failed\n\nIf reporting bugs, run\n  virt-customize -v\n";
        assert_eq!(complaint(said).as_deref(), Some("E: no; apt-get failed"));
        assert_eq!(complaint("\n"), None);
        let long = complaint(&format!("{}end", "x".repeat(10_000))).expect("text");
        assert!(long.ends_with("xend") && long.len() == 600);
    }
}
