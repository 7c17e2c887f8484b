//! What is done inside a machine's guest. The commands and the engine call it by way of [`super`].

use blockhost_proto::value::{EthAddress, GuestCommand, Seconds, ValueError};

use super::{LifecycleError, Result, living};
use crate::backend::GuestOutput;
use crate::cloudinit::gecos;
use crate::create::World;
use crate::record::VmRecord;

/// Runs a command through the guest's shell.
///
/// # Errors
/// [`LifecycleError`].
pub fn guest_exec(
    world: &World<'_>,
    record: &VmRecord,
    command: GuestCommand,
    timeout: Seconds,
) -> Result<GuestOutput> {
    living(world, record, "there is no guest")?;
    if record.mock {
        return Err(LifecycleError::Mock(record.vm_name.clone()));
    }
    Ok(world.backend.guest_exec(record.vmid, command, timeout)?)
}

/// Writes wallet and token into the GECOS field of the guest's user and into the record. Every part of the command is a
/// typed value, so none can end the quotes it stands in.
///
/// # Errors
/// [`LifecycleError`].
pub fn update_gecos(
    world: &World<'_>,
    record: &VmRecord,
    wallet: EthAddress,
    nft: u64,
) -> Result<VmRecord> {
    let name = &record.vm_name;
    let username = record
        .username
        .as_deref()
        .unwrap_or(&world.config.host.vm.username);
    // A record comes from a file that others write too: the agent's rule for user names is checked again.
    blockhost_proto::qm::QmOption::parse("ciuser", username).map_err(|_| {
        ValueError::new(
            "user name",
            username,
            "a letter or _, then up to 31 of a-z, 0-9, _ and -",
        )
    })?;
    let command: GuestCommand =
        format!("usermod -c '{}' '{username}'", gecos(wallet, Some(nft))).parse()?;
    if !record.mock {
        let output = guest_exec(world, record, command, Seconds::GUEST_EXEC)?;
        if output.exitcode != 0 {
            let stderr = blockhost_proto::escape::shown(&output.stderr);
            return Err(LifecycleError::Guest {
                name: name.clone(),
                what: "usermod",
                exitcode: output.exitcode,
                stderr,
            });
        }
    }
    Ok(world.store.set_access(name, wallet, Some(nft), true)?)
}
