//! `blockhost-build-template`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use blockhost_proto::Layout;
use clap::{CommandFactory as _, Parser};
use serde_json::json;

use super::{EXIT_CODES, Failure, Setup, exit, print};
use crate::exec::ExecError;
use crate::lock::ImagesLock;
use crate::progress::Progress;
use crate::signals::Interrupt;
use crate::template::build::{self, Inputs};
use crate::template::register::{self, Existing, RegisterError};
use crate::template::sources::{self, Mirror};

/// Build the template that machines are cloned from
///
/// A small Debian of this host's release, from this host's own mirrors, built as an ordinary user with subordinate ids.
/// An image or a template that was made of the same inputs is used again.
///
/// A template on whose disk machines stand cannot be replaced, with --force neither: set proxmox.template_vmid in
/// blockhost.yaml to a free number and build again; new machines come from that one from then on.
#[derive(Debug, Parser)]
#[command(name = "blockhost-build-template", version, after_help = format!("Examples:
  blockhost-build-template
  blockhost-build-template --force
  blockhost-build-template --output debian.qcow2 --mirror https://mirror.example.org/debian

{EXIT_CODES}"))]
struct Args {
    /// Only build the image, into this file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Build again and replace the template even when the inputs are the same
    #[arg(long)]
    force: bool,
    /// Debian release [default: this host's]
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    /// Mirror to use instead of this host's apt sources
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Another package for every machine (may be repeated)
    #[arg(long = "package", value_name = "NAME", value_parser = package)]
    packages: Vec<String>,
    /// Virtual size of the image in MB; machines grow it to their disk
    #[arg(long, value_name = "MB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(800..=65_536))]
    size: u32,
}

fn package(name: &str) -> Result<String, String> {
    let good = name.len() > 1
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+.-".contains(&b));
    if good {
        Ok(name.to_owned())
    } else {
        Err("expected a Debian package name".into())
    }
}

/// The definition.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn inputs(args: &Args, layout: &Layout) -> Result<Inputs, Failure> {
    let suite = match &args.suite {
        Some(suite) if sources::is_suite(suite) => suite.clone(),
        Some(suite) => {
            return Err(Failure {
                message: format!("\"{suite}\" is not the name of a Debian release"),
                code: 2,
            });
        }
        None => sources::host_suite().map_err(Failure::new)?,
    };
    let mirrors = match &args.mirror {
        Some(uri) if uri.starts_with("http") && !uri.contains(char::is_whitespace) => {
            vec![Mirror {
                uri: uri.clone(),
                suite: suite.clone(),
            }]
        }
        Some(uri) => {
            return Err(Failure {
                message: format!("\"{uri}\" is not the address of a mirror"),
                code: 2,
            });
        }
        None => sources::host_mirrors(&suite).map_err(Failure::new)?,
    };
    let entries = std::fs::read_dir(layout.state().join("template-packages"))
        .into_iter()
        .flatten()
        .flatten();
    let mut debs: Vec<PathBuf> = entries
        .map(|e| e.path())
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .collect();
    debs.sort();
    Ok(Inputs {
        suite,
        mirrors,
        packages: args.packages.clone(),
        debs,
        size_mib: args.size,
    })
}

fn run(args: &Args) -> Result<ExitCode, Failure> {
    let layout = Layout::from_env();
    let inputs = inputs(args, &layout)?;
    let digest = inputs.digest().map_err(Failure::new)?;
    let interrupt = Interrupt::install().map_err(Failure::new)?;
    if let Some(output) = &args.output {
        let directory = output.parent().filter(|p| !p.as_os_str().is_empty());
        let _lock = alone(directory.unwrap_or(Path::new(".")), &interrupt)?;
        let mut progress = Progress::new(build::STEPS);
        build::build(&inputs, output, &interrupt, &mut progress).map_err(failed)?;
        return report(output, &digest, None, false, &progress);
    }
    let setup = Setup::load()?;
    let images = layout.images();
    std::fs::create_dir_all(&images)
        .map_err(|e| Failure::new(format!("{}: {e}", images.display())))?;
    // From the look at what is there to its end: who comes second finds a template that is new, and builds none.
    let _lock = alone(&images, &interrupt)?;
    let template = setup.config.host.template_vmid;
    let existing = register::existing(&setup.backend, template, &digest).map_err(Failure::new)?;
    let image = images.join(format!("template-{}.qcow2", &digest[..16]));
    let reuse_template = match existing {
        Existing::Current => !args.force,
        Existing::Outdated if !args.force => {
            super::say(&format!(
                "warning: template VM {template} was made of other inputs; it is kept, --force replaces it where no machine stands on it"
            ));
            true
        }
        _ => false,
    };
    if reuse_template {
        return report(
            &image,
            &digest,
            Some(template.get()),
            true,
            &Progress::silent(),
        );
    }
    if matches!(existing, Existing::Current | Existing::Outdated) {
        register::check_replaceable(&setup.backend, template).map_err(|e| Failure {
            code: if matches!(e, RegisterError::InUse { .. }) {
                5
            } else {
                1
            },
            message: e.to_string(),
        })?;
    }
    let reuse_image = image.exists() && !args.force;
    let mut progress = Progress::new(register::STEPS + if reuse_image { 0 } else { build::STEPS });
    if !reuse_image {
        build::build(&inputs, &image, &interrupt, &mut progress).map_err(failed)?;
    }
    register::register(
        &setup.backend,
        &setup.config.host,
        &image,
        &digest,
        args.force,
        &mut progress,
    )
    .map_err(Failure::new)?;
    progress.finish();
    report(&image, &digest, Some(template.get()), false, &progress)
}

fn alone(directory: &Path, interrupt: &Interrupt) -> Result<ImagesLock, Failure> {
    let waits = || super::say("waiting for another build of a template to end");
    match ImagesLock::take(directory, interrupt, waits) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(failed(build::BuildError::Exec(ExecError::Interrupted))),
        Err(e) => Err(Failure::new(e)),
    }
}

fn failed(error: build::BuildError) -> Failure {
    let interrupted = matches!(error, build::BuildError::Exec(ExecError::Interrupted));
    Failure {
        message: error.to_string(),
        code: if interrupted { 130 } else { 1 },
    }
}

fn report(
    image: &Path,
    digest: &str,
    vmid: Option<u32>,
    reused: bool,
    progress: &Progress,
) -> Result<ExitCode, Failure> {
    // Tenths are enough, and integers print the same everywhere.
    let seconds = f64::from((progress.seconds() * 10.0).round()) / 10.0;
    let line = json!({"status": "ok", "image": image, "inputs": digest, "vmid": vmid, "reused": reused, "seconds": seconds});
    print(&line.to_string())?;
    Ok(ExitCode::SUCCESS)
}
