//! `blockhost-vm-onboot`: run once when the host has started.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use blockhost_proto::Layout;
use clap::{CommandFactory as _, Parser};

use super::{EXIT_CODES, Failure, exit, say};
use crate::agent::SocketAgent;
use crate::config::{Config, DbConfig};
use crate::host::onboot::{Database, Sold, Tries, start_all};
use crate::host::unit_tries::{Before, UnitTries};
use crate::record::VmRecord;
use crate::store::{self, Store as _, StoreError};

/// A server of this very host, or the network to it, may come up after us.
const DATABASE_WAIT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_secs(2);
/// How long the unit tries again what failed.
const TRIED: Duration = Duration::from_mins(10);
/// Exit code: not any more. The unit knows it (`RestartPreventExitStatus=`).
const GIVEN_UP: u8 = 7;

/// Start every machine and container with onboot: 1
///
/// In the order of their numbers; what runs already is fine, what is suspended stays off, and one that fails keeps no
/// other from starting. The host routes to the machines' IPv6 addresses and the limits of the database are put in force
/// again. Proxmox VE starts its own; there only routes and limits are seen to.
///
/// A database server that does not answer is waited for, one minute long. After that, containers and the machines outside
/// of vmid_range are started, and the rest is held back, since it may be suspended: exit code 1.
///
/// Its unit tries again what failed, and nothing else: what somebody stopped meanwhile stays so. It does that for ten
/// minutes and ends with exit code 7; `systemctl stop blockhost-onboot` ends it before.
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-onboot", version, after_help = format!("Examples:
  blockhost-vm-onboot
  systemctl enable blockhost-onboot.service      at every start of the host

{EXIT_CODES}
Of the unit alone: 7 tried again for ten minutes in vain."))]
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
    let unit = UnitTries::of_unit();
    let before = unit.before();
    let (failed, failure) = match pass(before.as_ref()) {
        Ok(failed) if failed.is_empty() => {
            unit.ended();
            return Ok(ExitCode::SUCCESS);
        }
        Ok(failed) => {
            let failure = Failure::new(format!(
                "not started or not as it should be: {}",
                failed.join(", ")
            ));
            (failed, failure)
        }
        // It got nowhere: what failed before still has.
        Err(failure) => {
            let before = before.as_ref().map(|before| before.failed.clone());
            (before.unwrap_or_default(), failure)
        }
    };
    if unit.failed(before.as_ref(), &failed, TRIED) {
        return Err(Failure {
            message: format!("{}; it is not tried again", failure.message),
            code: GIVEN_UP,
        });
    }
    Err(failure)
}

/// What failed of what is to be done, after the tries before.
fn pass(before: Option<&Before>) -> Result<Vec<String>, Failure> {
    let layout = Layout::from_env();
    let agent = SocketAgent::new(&layout);
    let mut tell = |line: &str| say(line);
    let tries = match before {
        Some(before) if !before.failed.is_empty() => Tries::again(before.failed.clone()),
        // The first pass, or somebody at a terminal.
        _ => Tries::ALL,
    };
    // A host that sells nothing has no database, and may have containers all the same.
    if !DbConfig::path(&layout).exists() {
        return Ok(start_all(&agent, Sold::Nothing, &tries, &mut tell)?);
    }
    let config = Config::load(&layout)?;
    for warning in &config.warnings {
        say(&format!("warning: {warning}"));
    }
    let records = patiently(DATABASE_WAIT, PAUSE, &mut tell, || records(&config));
    let why;
    let now = Database::new(&layout, &config);
    let sold = match &records {
        Ok(records) => Sold::Known {
            records,
            bridge: &config.host.bridge,
            now: &now,
        },
        Err(error) => {
            why = error.to_string();
            Sold::Unknown {
                vmids: &config.db.vmids,
                why: &why,
            }
        }
    };
    Ok(start_all(&agent, sold, &tries, &mut tell)?)
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
    fn the_unit_does_not_try_again_what_is_given_up() {
        let unit = include_str!("../../../packaging/systemd/blockhost-onboot.service");
        let line = format!("\nRestartPreventExitStatus={GIVEN_UP}\n");
        assert!(unit.contains(&line), "{line}");
        let known = super::super::EXIT_CODES.contains(&format!("{GIVEN_UP} "));
        assert!(!known, "it means something else elsewhere");
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
