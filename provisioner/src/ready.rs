//! When a machine that was started is ready: its guest agent answers, and what cloud-init does last has been done. `create`
//! waits for it.

use std::time::{Duration, Instant};

use blockhost_proto::value::{GuestCommand, Seconds, Vmid};

use crate::cloudinit::{Nonce, READY_FILE};
use crate::create::{CreateError, World, stop_here};
use crate::plan::PlanError;
use crate::progress::Progress;

/// How often a silent guest is asked.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long one question for the nonce waits inside the guest: signals are noticed between two of them.
const NONCE_WAIT_S: u16 = 10;

/// Waits until the guest agent answers and the nonce comes back: a machine that answers but has not done all of its
/// cloud-init is not ready, and an old answer cannot be taken for a new one.
pub(crate) fn wait_until_ready(
    world: &World<'_>,
    vmid: Vmid,
    nonce: &Nonce,
    progress: &Progress,
) -> Result<(), CreateError> {
    let timeout = Duration::from_secs(u64::from(world.config.host.vm.ready_timeout_s));
    let began = Instant::now();
    let not_ready = |last: &str| CreateError::NotReady {
        vmid,
        seconds: timeout.as_secs(),
        last: last.to_owned(),
    };
    // The waiting is done inside the guest, so that a slow boot does not fill the ledger with questions.
    let script = format!(
        "i=0; while [ $i -lt {} ]; do [ -f {READY_FILE} ] && exec cat {READY_FILE}; i=$((i+1)); sleep 0.5; done; exit 75",
        NONCE_WAIT_S * 2
    );
    let command: GuestCommand = script.parse().map_err(PlanError::from)?;
    let limit = Seconds::try_from(NONCE_WAIT_S * 6).map_err(PlanError::from)?;
    let mut last = "the guest agent does not answer".to_owned();
    while began.elapsed() < timeout {
        stop_here(world)?;
        if world.backend.guest_ping(vmid) {
            progress.detail("the guest agent answers, cloud-init is at work");
            match world.backend.guest_exec(vmid, command.clone(), limit) {
                Ok(output) if output.exitcode == 0 && output.stdout.trim() == nonce.as_str() => {
                    return Ok(());
                }
                Ok(output) if output.exitcode == 0 => {
                    let found = blockhost_proto::escape::shown(&output.stdout);
                    return Err(not_ready(&format!(
                        "it answered with \"{found}\" instead of this machine's nonce"
                    )));
                }
                Ok(_) => last = "the guest agent answers, cloud-init is not done".into(),
                Err(e) => last = e.to_string(),
            }
        } else {
            progress.detail("booting");
            let running = world.backend.status(vmid)?;
            if running.as_deref() == Some("stopped") {
                return Err(not_ready("it stopped on its own"));
            }
        }
        std::thread::sleep(PING_INTERVAL);
    }
    Err(not_ready(&last))
}
