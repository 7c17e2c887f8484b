//! What the supervisor knows of its children: what they report while they live, and how they ended.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{Duration, Instant};

use blockhost_ledger::{keys, loss};
use blockhost_proto::layout::Layout;
use rustix::process::{Signal, pidfd_send_signal};

use super::{LAST_WORDS, Supervisor, who};
use crate::control::ControlSocket;
use crate::ipc::{self, ChannelError, Control, Report, Role};
use crate::{log_error, log_info};

/// Reports of one child that are heard before the others get their turn.
const REPORTS_AT_ONCE: usize = 64;
/// A life this long clears the back-off.
const GOOD_LIFE: Duration = Duration::from_secs(30);

/// A process that runs.
pub(super) struct Running {
    pub child: Child,
    pub pidfd: OwnedFd,
    pub control: ControlSocket,
    pub started: Instant,
    pub ready: bool,
    /// When it is killed: it hung up on us, and has not ended.
    pub hung_up: Option<Instant>,
}

/// How a process ended.
pub(super) struct End {
    pub how: String,
    pub failed: bool,
}

impl End {
    /// In words, for whoever started the agent.
    pub fn detail(&self) -> String {
        format!("{}; see its message above", self.how)
    }
}

impl Supervisor {
    /// Hears what a child reports.
    pub(super) fn hear(&mut self, role: Role) {
        let Some(running) = self.running.get_mut(&role) else {
            return;
        };
        // Bounded, so that a child that never stops talking does not make us deaf to signals and to the others.
        for _ in 0..REPORTS_AT_ONCE {
            let (report, descriptor) = match running.control.receive::<Report>(false) {
                Ok(Some(message)) => message,
                Ok(None) => return,
                // Who ends says so, or why, and is gone. The socket has nothing more to say, and would wake us for ever.
                Err(ChannelError::Closed) => {
                    running.hung_up = Some(Instant::now() + LAST_WORDS);
                    return;
                }
                Err(error) => {
                    log_error!("{}: {error}; killed", role.as_str());
                    let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
                    return;
                }
            };
            match (role, report) {
                (_, Report::Ready { .. }) => {
                    running.ready = true;
                    if role == Role::Ledger {
                        withdraw_loss(&self.layout);
                    }
                }
                (
                    Role::Front,
                    Report::Who {
                        connection,
                        pid,
                        uid,
                        gid,
                    },
                ) => {
                    let (exe, unit) = who::who(pid, (uid, gid), descriptor.as_ref());
                    if let Err(error) = running.control.send(
                        &Control::Who {
                            connection,
                            exe,
                            unit,
                        },
                        None,
                    ) {
                        log_error!("front: {error}; killed");
                        let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
                        return;
                    }
                }
                (Role::Ledger, Report::Hung { role: hung }) => {
                    if let Some(hung) = self.running.get(&hung) {
                        let _ = pidfd_send_signal(&hung.pidfd, Signal::KILL);
                    }
                    return;
                }
                (Role::Ledger, Report::NextKey { epoch }) => {
                    let key = keys::prepare_next(&self.layout.ledger_keys(), epoch)
                        .map(|signer| ipc::KeySeed::new(signer.to_bytes()))
                        .map_err(|error| error.to_string());
                    let answer = Control::NextKey { epoch, key };
                    if let Err(error) = running.control.send(&answer, None) {
                        log_error!("ledger: {error}; killed");
                        let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
                        return;
                    }
                }
                (Role::Ledger, Report::KeyInUse { epoch }) => {
                    match keys::erase_before(&self.layout.ledger_keys(), epoch) {
                        Ok(0) => {}
                        Ok(erased) => {
                            log_info!("{erased} signing key(s) before epoch {epoch} erased")
                        }
                        Err(error) => {
                            log_error!("{error}; it is tried again at the next start")
                        }
                    }
                }
                (_, report) => {
                    log_error!("{}: unexpected {report:?}; killed", role.as_str());
                    let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
                    return;
                }
            }
        }
    }

    /// Kills who hung up and lives on: nobody could tell it anything any more.
    pub(super) fn end_silent(&mut self, now: Instant) {
        for (role, running) in &mut self.running {
            if running.hung_up.is_some_and(|at| at <= now) {
                log_error!("{} closed its control socket; killed", role.as_str());
                let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
                running.hung_up = Some(now + LAST_WORDS);
            }
        }
    }

    /// Reaps; says how it ended.
    pub(super) fn bury(&mut self, role: Role) -> Option<End> {
        let mut running = self.running.remove(&role)?;
        if running.started.elapsed() > GOOD_LIFE {
            self.back_off.remove(&role);
        }
        Some(match running.child.wait() {
            Ok(status) => End {
                how: status.to_string(),
                failed: !status.success(),
            },
            Err(error) => End {
                how: error.to_string(),
                failed: true,
            },
        })
    }
}

/// The ledger is open: what root accepted to lose, if anything, is on record or was not needed.
fn withdraw_loss(layout: &Layout) {
    match loss::withdraw(&layout.ledger_keys()) {
        Ok(false) => {}
        Ok(true) => log_info!(
            "the ledger is open; the request {} was removed",
            loss::REQUEST
        ),
        Err(error) => log_error!("{}: cannot {error}; remove it", loss::REQUEST),
    }
}
