//! `blockhost-vm-onboot`: run once when the host has started.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use blockhost_proto::Layout;
use clap::{CommandFactory as _, Parser};

use super::{EXIT_CODES, Failure, exit, say};
use crate::agent::SocketAgent;
use crate::config::{Config, DbConfig};
use crate::host::onboot::{Database, Sold, Tries, start_all};
use crate::record::VmRecord;
use crate::store::{self, Store as _, StoreError};

/// A server of this very host, or the network to it, may come up after us.
const DATABASE_WAIT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_secs(2);

/// Start every machine and container with onboot: 1
///
/// In the order of their numbers; what runs already is fine, what is suspended stays off, and one that fails keeps no
/// other from starting. The host routes to the machines' IPv6 addresses and the limits of the database are put in force
/// again. Proxmox VE starts its own; there only routes and limits are seen to.
///
/// A database server that does not answer is waited for, one minute long. After that, containers and the machines outside
/// of vmid_range are started, and the rest is held back, since it may be suspended: exit code 1.
///
/// Its unit tries again what failed, and nothing else: what somebody stopped meanwhile stays so. It does that for some ten
/// minutes; `systemctl stop blockhost-onboot` ends it.
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-onboot", version, after_help = format!("Examples:
  blockhost-vm-onboot
  systemctl enable blockhost-onboot.service      at every start of the host

{EXIT_CODES}"))]
struct OnbootArgs {}

/// The definition.
#[must_use]
pub fn command() -> clap::Command {
    OnbootArgs::command()
}

/// The program `blockhost-vm-onboot`.
#[must_use]
pub fn main() -> ExitCode {
    let OnbootArgs {} = OnbootArgs::parse();
    exit(run())
}

fn run() -> Result<ExitCode, Failure> {
    let layout = Layout::from_env();
    let agent = SocketAgent::new(&layout);
    let mut tell = |line: &str| say(line);
    let left = Left::of_unit();
    let tries = left.tries();
    // A host that sells nothing has no database, and may have containers all the same.
    let failed = if DbConfig::path(&layout).exists() {
        let config = Config::load(&layout)?;
        for warning in &config.warnings {
            say(&format!("warning: {warning}"));
        }
        match patiently(DATABASE_WAIT, PAUSE, &mut tell, || records(&config)) {
            Ok(records) => {
                let now = Database {
                    layout: &layout,
                    config: &config,
                };
                let sold = Sold::Known {
                    records: &records,
                    bridge: &config.host.bridge,
                    now: &now,
                };
                start_all(&agent, sold, &tries, &mut tell)?
            }
            Err(error) => {
                let sold = Sold::Unknown {
                    vmids: &config.db.vmids,
                    why: &error.to_string(),
                };
                start_all(&agent, sold, &tries, &mut tell)?
            }
        }
    } else {
        start_all(&agent, Sold::Nothing, &tries, &mut tell)?
    };
    left.note(&failed);
    if failed.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::new(format!(
            "not started or not as it should be: {}",
            failed.join(", ")
        )))
    }
}

/// What failed in the pass before, for the next one of the same unit: in its own directory, which systemd keeps as long as it
/// tries again by itself, and makes anew for every other start.
struct Left(Option<PathBuf>);

impl Left {
    fn of_unit() -> Self {
        let directory = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
        Self(directory.map(|directory| directory.join("failed")))
    }

    fn tries(&self) -> Tries {
        let text = self.0.as_ref().map(std::fs::read_to_string);
        match text {
            Some(Ok(text)) => Tries::again(text.lines().map(str::to_owned)),
            // The first pass, or somebody at a terminal.
            _ => Tries::ALL,
        }
    }

    /// Without it the next pass is about everything again.
    fn note(&self, failed: &[String]) {
        let Some(path) = &self.0 else { return };
        let _ = std::fs::remove_file(path);
        if !failed.is_empty() {
            let _ = std::fs::write(path, failed.join("\n"));
        }
    }
}

fn records(config: &Config) -> Result<Vec<VmRecord>, StoreError> {
    let mut records = store::open(config)?.list(None)?;
    records.retain(|record| config.is_here(record.node.as_deref()));
    Ok(records)
}

/// What `read` gives; a database server that does not answer is asked again until `limit` is over.
fn patiently<T>(
    limit: Duration,
    pause: Duration,
    say: &mut dyn FnMut(&str),
    mut read: impl FnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let end = Instant::now() + limit;
    let mut said = false;
    loop {
        match read() {
            Err(error @ StoreError::Server { .. }) if Instant::now() + pause < end => {
                if !said {
                    say(&format!("waiting for the database: {error}"));
                    said = true;
                }
                std::thread::sleep(pause);
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_known_to_the_next_pass_of_the_unit_and_to_nobody_after_a_good_one() {
        let directory = tempfile::tempdir().unwrap();
        let left = Left(Some(directory.path().join("failed")));
        assert_eq!(left.tries(), Tries::ALL, "the first pass");
        let failed = ["VM 101".to_owned(), "the route to VM 102".to_owned()];
        left.note(&failed);
        assert_eq!(left.tries(), Tries::again(failed));
        left.note(&[]);
        assert_eq!(left.tries(), Tries::ALL);
        Left(None).note(&["VM 101".to_owned()]);
        assert_eq!(Left(None).tries(), Tries::ALL, "no unit");
    }

    fn away() -> StoreError {
        StoreError::Server {
            server: "postgres://db/vms".into(),
            problem: "cannot be reached".into(),
        }
    }

    #[test]
    fn a_database_that_is_late_is_waited_for_and_one_that_refuses_is_not() {
        let mut answers = vec![Ok(7), Err(away()), Err(away())];
        let mut said = Vec::new();
        let (limit, pause) = (Duration::from_secs(3600), Duration::ZERO);
        let mut note = |line: &str| said.push(line.to_owned());
        let read = patiently(limit, pause, &mut note, || answers.pop().unwrap());
        assert_eq!(read.unwrap(), 7);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("cannot be reached"), "{said:?}");

        let refused = |error: fn() -> StoreError, limit| {
            let mut asked = 0;
            let read = || {
                asked += 1;
                Err::<(), _>(error())
            };
            assert!(patiently(limit, pause, &mut |_| (), read).is_err());
            asked
        };
        assert_eq!(refused(away, Duration::ZERO), 1, "the wait ends");
        let other = || StoreError::Stranger {
            problem: "does not serve this host".into(),
        };
        assert_eq!(refused(other, limit), 1, "there is nothing to wait for");
    }
}
