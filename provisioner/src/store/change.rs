//! What each operation means for a record or a token: pure functions that both stores apply inside their transactions, so
//! that the two cannot come to differ.

use blockhost_proto::value::{EthAddress, VmName};
use serde_json::Map;

use super::{Pools, StoreError, Wanted};
use crate::record::{Holder, Reservation, Status, Step, TokenReservation, TokenStatus, VmRecord};
use crate::time::Time;

/// Insists that the machine is not destroyed.
pub(super) fn living(vm: &VmRecord) -> Result<(), StoreError> {
    if vm.status == Status::Destroyed {
        return Err(StoreError::WrongStatus {
            name: vm.vm_name.clone(),
            status: vm.status,
            needed: "it has to be created anew",
        });
    }
    Ok(())
}

pub(super) fn name_taken(vm: &VmRecord) -> StoreError {
    StoreError::NameTaken {
        name: vm.vm_name.clone(),
        vmid: vm.vmid,
        status: vm.status,
    }
}

pub(super) fn unknown(name: &VmName) -> StoreError {
    StoreError::UnknownVm {
        name: name.to_string(),
    }
}

/// Numbers and addresses that are not to be given out.
#[derive(Debug, Default)]
pub(super) struct InUse {
    pub(super) vmids: std::collections::BTreeSet<u32>,
    pub(super) ips: std::collections::BTreeSet<std::net::Ipv4Addr>,
    pub(super) ipv6: std::collections::BTreeSet<std::net::Ipv6Addr>,
}

pub(super) fn reserve(
    pools: &Pools,
    wanted: &Wanted,
    next_vmid: u32,
    mut used: InUse,
) -> Result<Reservation, StoreError> {
    used.vmids
        .extend(wanted.avoid.iter().map(|vmid| vmid.get()));
    Ok(Reservation {
        name: wanted.name.clone(),
        vmid: pools.vmid(wanted.vmid, next_vmid, &used.vmids)?,
        ip: pools.ip(wanted.ip, &used.ips)?,
        ipv6: pools.ipv6(wanted.ipv6, &used.ipv6)?,
        pid: wanted.holder.pid,
        pid_start: wanted.holder.start,
        boot_id: wanted.holder.boot_id.clone(),
        node: wanted.holder.node.clone(),
        created_at: Time::now(),
        steps: Vec::new(),
        mock: wanted.mock,
    })
}

pub(super) fn note(reservation: &mut Reservation, step: Step) {
    if !reservation.steps.contains(&step) {
        reservation.steps.push(step);
    }
}

/// Makes `holder` the maker; false when the reservation is not as `left` says any more, or its maker lives.
pub(super) fn take_over(found: &mut Reservation, left: &Reservation, holder: &Holder) -> bool {
    let maker = found.holder();
    if maker != left.holder() || maker != *holder && maker.is_alive() {
        return false;
    }
    found.pid = holder.pid;
    found.pid_start = holder.start;
    found.boot_id.clone_from(&holder.boot_id);
    found.node.clone_from(&holder.node);
    true
}

pub(super) fn activate(vm: &mut VmRecord, expires_at: Option<Time>) {
    vm.status = Status::Active;
    vm.suspended_at = None;
    vm.expires_at = expires_at.unwrap_or(vm.expires_at);
}

pub(super) fn suspend(vm: &mut VmRecord, seen: &VmRecord, at: Time) {
    if vm.status != Status::Suspended && vm.expires_at == seen.expires_at {
        vm.status = Status::Suspended;
        vm.suspended_at = Some(at);
    }
}

pub(super) fn give_access(
    vm: &mut VmRecord,
    wallet: EthAddress,
    token: Option<u64>,
    gecos_synced: bool,
) {
    vm.wallet_address = Some(wallet);
    vm.nft_token_id = token.or(vm.nft_token_id);
    vm.gecos_synced = Some(gecos_synced);
}

fn token_of(name: &VmName, status: TokenStatus) -> TokenReservation {
    TokenReservation {
        vm_name: name.clone(),
        status,
        reserved_at: Time::now(),
        extra: Map::new(),
    }
}

fn is_free_for(
    held: Option<&TokenReservation>,
    token: u64,
    name: &VmName,
) -> Result<(), StoreError> {
    match held {
        Some(held) if held.vm_name != *name && held.status != TokenStatus::Failed => {
            let status = if held.status == TokenStatus::Minted {
                "minted"
            } else {
                "reserved"
            };
            Err(StoreError::TokenTaken {
                token,
                status,
                holder: held.vm_name.clone(),
            })
        }
        _ => Ok(()),
    }
}

/// The promise of a token; `None` when it needs none any more.
pub(super) fn promise(
    held: Option<&TokenReservation>,
    token: u64,
    name: &VmName,
) -> Result<Option<TokenReservation>, StoreError> {
    is_free_for(held, token, name)?;
    let minted =
        held.is_some_and(|held| held.vm_name == *name && held.status == TokenStatus::Minted);
    Ok((!minted).then(|| token_of(name, TokenStatus::Reserved)))
}

/// The token is on the chain.
pub(super) fn mint(
    held: Option<&TokenReservation>,
    vm: &mut VmRecord,
    token: u64,
) -> Result<TokenReservation, StoreError> {
    is_free_for(held, token, &vm.vm_name)?;
    vm.nft_token_id = Some(token);
    vm.nft_minted = Some(true);
    Ok(token_of(&vm.vm_name, TokenStatus::Minted))
}

/// The token that the machine is recorded with and that another one takes the place of.
pub(super) fn replaced(vm: &VmRecord, token: u64) -> Option<u64> {
    vm.nft_token_id.filter(|old| *old != token)
}

/// The token is not this machine's; false when it never was.
pub(super) fn disown(held: &mut TokenReservation, name: &VmName) -> bool {
    let its = held.vm_name == *name && held.status != TokenStatus::Failed;
    if its {
        held.status = TokenStatus::Failed;
    }
    its
}

/// The record of a machine whose token this is not; false when it names another one.
pub(super) fn forget(vm: &mut VmRecord, token: u64) -> bool {
    let named = vm.nft_token_id == Some(token);
    if named {
        vm.nft_token_id = None;
        vm.nft_minted = None;
    }
    named
}

/// Minting for this machine failed; false when the promise is not its.
pub(super) fn fail(held: &mut TokenReservation, name: &VmName) -> bool {
    let its = held.status == TokenStatus::Reserved && held.vm_name == *name;
    if its {
        held.status = TokenStatus::Failed;
    }
    its
}
