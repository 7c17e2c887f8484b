//! The embedded database: `vms.json`. Readers that only know this file keep working, so its five first keys are fixed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use blockhost_proto::value::{EthAddress, VmName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Pools, Store, StoreError, Wanted, file};
use crate::record::{Holder, Reservation, Status, Step, TokenReservation, TokenStatus, VmRecord};
use crate::time::Time;

/// The file's contents.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Database {
    #[serde(default)]
    vms: BTreeMap<String, VmRecord>,
    #[serde(default)]
    next_vmid: u32,
    #[serde(default)]
    allocated_ips: BTreeSet<Ipv4Addr>,
    #[serde(default)]
    allocated_ipv6: BTreeSet<Ipv6Addr>,
    #[serde(default)]
    reserved_nft_tokens: BTreeMap<String, TokenReservation>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    reservations: BTreeMap<String, Reservation>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl Database {
    fn living(&self) -> impl Iterator<Item = &VmRecord> {
        self.vms
            .values()
            .filter(|vm| vm.status != Status::Destroyed)
    }

    fn vm(&mut self, name: &VmName) -> Result<&mut VmRecord, StoreError> {
        self.vms
            .get_mut(name.as_str())
            .ok_or_else(|| StoreError::UnknownVm {
                name: name.to_string(),
            })
    }

    fn living_vm(&mut self, name: &VmName) -> Result<&mut VmRecord, StoreError> {
        let vm = self.vm(name)?;
        if vm.status == Status::Destroyed {
            return Err(StoreError::WrongStatus {
                name: name.clone(),
                status: vm.status,
                needed: "it has to be created anew",
            });
        }
        Ok(vm)
    }

    fn allocate(&self, pools: &Pools, wanted: &Wanted) -> Result<Reservation, StoreError> {
        if let Some(vm) = self.living().find(|vm| vm.vm_name == wanted.name) {
            return Err(StoreError::NameTaken {
                name: vm.vm_name.clone(),
                vmid: vm.vmid,
                status: vm.status,
            });
        }
        if let Some(reservation) = self.reservations.get(wanted.name.as_str()) {
            return Err(StoreError::InTheMaking(Box::new(reservation.clone())));
        }
        let reserved = self.reservations.values();
        let vmids = self
            .living()
            .map(|vm| vm.vmid)
            .chain(reserved.clone().map(|r| r.vmid))
            .chain(wanted.avoid.iter().copied());
        let ips = self
            .living()
            .filter_map(|vm| vm.ip_address)
            .chain(reserved.clone().map(|r| r.ip));
        let ipv6 = self
            .living()
            .filter_map(|vm| vm.ipv6_address)
            .chain(reserved.filter_map(|r| r.ipv6));
        Ok(Reservation {
            name: wanted.name.clone(),
            vmid: pools.vmid(
                wanted.vmid,
                self.next_vmid,
                &vmids.map(|vmid| vmid.get()).collect(),
            )?,
            ip: pools.ip(
                wanted.ip,
                &ips.chain(self.allocated_ips.iter().copied()).collect(),
            )?,
            ipv6: pools.ipv6(
                wanted.ipv6,
                &ipv6.chain(self.allocated_ipv6.iter().copied()).collect(),
            )?,
            pid: wanted.holder.pid,
            pid_start: wanted.holder.start,
            boot_id: wanted.holder.boot_id.clone(),
            created_at: Time::now(),
            steps: Vec::new(),
            mock: wanted.mock,
        })
    }

    fn free(&mut self, ip: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) {
        if let Some(ip) = ip {
            self.allocated_ips.remove(&ip);
        }
        if let Some(ipv6) = ipv6 {
            self.allocated_ipv6.remove(&ipv6);
        }
    }
}

/// The file database.
#[derive(Debug, Clone)]
pub struct JsonStore {
    path: PathBuf,
    pools: Pools,
}

impl JsonStore {
    /// A database in the file `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl AsRef<Path>, pools: Pools) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            pools,
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self) -> Result<Database, StoreError> {
        let Some(bytes) = file::read(&self.path)? else {
            return Ok(Database::default());
        };
        let damaged = |problem: String| StoreError::Damaged {
            path: self.path.clone(),
            problem,
        };
        let value = blockhost_proto::json::parse(&bytes).map_err(|e| damaged(e.to_string()))?;
        let database: Database =
            serde_json::from_value(value).map_err(|e| damaged(e.to_string()))?;
        match database
            .vms
            .iter()
            .find(|(key, vm)| key.as_str() != vm.vm_name.as_str())
        {
            Some((key, vm)) => Err(damaged(format!(
                "the record of {} stands under the name {key}",
                vm.vm_name
            ))),
            None => Ok(database),
        }
    }

    /// One transaction. Nothing is written when nothing changed or `change` fails.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let held = file::lock(&self.path)?;
        let before = self.read()?;
        let mut after = before.clone();
        let result = change(&mut after)?;
        if after != before {
            let mut bytes = serde_json::to_vec_pretty(&after).map_err(|e| StoreError::Damaged {
                path: self.path.clone(),
                problem: e.to_string(),
            })?;
            bytes.push(b'\n');
            file::replace(&held, &self.path, &bytes)?;
        }
        Ok(result)
    }
}

impl Store for JsonStore {
    fn allocate(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        self.change(|db| {
            let reservation = db.allocate(&self.pools, wanted)?;
            if wanted.vmid.is_none() {
                db.next_vmid = reservation.vmid.get() + 1;
            }
            db.allocated_ips.insert(reservation.ip);
            db.allocated_ipv6.extend(reservation.ipv6);
            db.reservations
                .insert(wanted.name.to_string(), reservation.clone());
            Ok(reservation)
        })
    }

    fn preview(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        self.read()?.allocate(&self.pools, wanted)
    }

    fn begin_step(&self, name: &VmName, step: Step) -> Result<(), StoreError> {
        self.change(|db| {
            let reservation =
                db.reservations
                    .get_mut(name.as_str())
                    .ok_or_else(|| StoreError::UnknownVm {
                        name: name.to_string(),
                    })?;
            if !reservation.steps.contains(&step) {
                reservation.steps.push(step);
            }
            Ok(())
        })
    }

    fn take_over(
        &self,
        left: &Reservation,
        holder: &Holder,
    ) -> Result<Option<Reservation>, StoreError> {
        self.change(|db| {
            let Some(found) = db.reservations.get_mut(left.name.as_str()) else {
                return Ok(None);
            };
            let maker = found.holder();
            if maker != left.holder() || maker != *holder && maker.is_alive() {
                return Ok(None);
            }
            found.pid = holder.pid;
            found.pid_start = holder.start;
            found.boot_id.clone_from(&holder.boot_id);
            Ok(Some(found.clone()))
        })
    }

    fn release(&self, name: &VmName) -> Result<(), StoreError> {
        self.change(|db| {
            if let Some(reservation) = db.reservations.remove(name.as_str()) {
                db.free(Some(reservation.ip), reservation.ipv6);
            }
            Ok(())
        })
    }

    fn register_vm(&self, record: &VmRecord) -> Result<(), StoreError> {
        self.change(|db| {
            if let Some(vm) = db.living().find(|vm| vm.vm_name == record.vm_name) {
                return Err(StoreError::NameTaken {
                    name: vm.vm_name.clone(),
                    vmid: vm.vmid,
                    status: vm.status,
                });
            }
            db.reservations.remove(record.vm_name.as_str());
            db.allocated_ips.extend(record.ip_address);
            db.allocated_ipv6.extend(record.ipv6_address);
            db.vms.insert(record.vm_name.to_string(), record.clone());
            Ok(())
        })
    }

    fn mark_active(&self, name: &VmName, expires_at: Option<Time>) -> Result<VmRecord, StoreError> {
        self.change(|db| {
            let vm = db.living_vm(name)?;
            vm.status = Status::Active;
            vm.suspended_at = None;
            vm.expires_at = expires_at.unwrap_or(vm.expires_at);
            Ok(vm.clone())
        })
    }

    fn mark_suspended(&self, seen: &VmRecord, at: Time) -> Result<VmRecord, StoreError> {
        self.change(|db| {
            let vm = db.living_vm(&seen.vm_name)?;
            if vm.status != Status::Suspended && vm.expires_at == seen.expires_at {
                vm.status = Status::Suspended;
                vm.suspended_at = Some(at);
            }
            Ok(vm.clone())
        })
    }

    fn mark_destroyed(&self, name: &VmName, at: Time) -> Result<VmRecord, StoreError> {
        self.change(|db| {
            let vm = db.vm(name)?;
            if vm.status == Status::Destroyed {
                return Ok(vm.clone());
            }
            vm.status = Status::Destroyed;
            vm.destroyed_at = Some(at);
            let vm = vm.clone();
            db.free(vm.ip_address, vm.ipv6_address);
            Ok(vm)
        })
    }

    fn extend_expiry(&self, name: &VmName, expires_at: Time) -> Result<VmRecord, StoreError> {
        self.change(|db| {
            let vm = db.living_vm(name)?;
            vm.expires_at = expires_at;
            Ok(vm.clone())
        })
    }

    fn set_access(
        &self,
        name: &VmName,
        wallet: EthAddress,
        token: Option<u64>,
        gecos_synced: bool,
    ) -> Result<VmRecord, StoreError> {
        self.change(|db| {
            let vm = db.living_vm(name)?;
            vm.wallet_address = Some(wallet);
            vm.nft_token_id = token.or(vm.nft_token_id);
            vm.gecos_synced = Some(gecos_synced);
            Ok(vm.clone())
        })
    }

    fn vms_to_suspend(&self, now: Time) -> Result<Vec<VmRecord>, StoreError> {
        Ok(self
            .list(Some(Status::Active))?
            .into_iter()
            .filter(|vm| vm.expires_at <= now)
            .collect())
    }

    fn vms_to_destroy(&self, now: Time, grace_days: u32) -> Result<Vec<VmRecord>, StoreError> {
        // A suspended record without a date (another version's) counts from its expiry.
        let due = |vm: &VmRecord| {
            vm.suspended_at
                .unwrap_or(vm.expires_at)
                .plus_days(grace_days)
                <= now
        };
        Ok(self
            .list(Some(Status::Suspended))?
            .into_iter()
            .filter(due)
            .collect())
    }

    fn reserve_token(&self, token: u64, name: &VmName) -> Result<(), StoreError> {
        self.change(|db| {
            match db.reserved_nft_tokens.get(&token.to_string()) {
                Some(held) if held.vm_name != *name && held.status != TokenStatus::Failed => {
                    return Err(taken(token, held));
                }
                Some(held) if held.status == TokenStatus::Minted => return Ok(()),
                _ => {}
            }
            let reservation = TokenReservation {
                vm_name: name.clone(),
                status: TokenStatus::Reserved,
                reserved_at: Time::now(),
                extra: Map::new(),
            };
            db.reserved_nft_tokens
                .insert(token.to_string(), reservation);
            Ok(())
        })
    }

    fn mint_token(&self, token: u64, name: &VmName) -> Result<(), StoreError> {
        self.change(|db| {
            match db.reserved_nft_tokens.get(&token.to_string()) {
                Some(held) if held.vm_name != *name && held.status != TokenStatus::Failed => {
                    return Err(taken(token, held));
                }
                _ => {}
            }
            let vm = db.vm(name)?;
            vm.nft_token_id = Some(token);
            vm.nft_minted = Some(true);
            let reservation = TokenReservation {
                vm_name: name.clone(),
                status: TokenStatus::Minted,
                reserved_at: Time::now(),
                extra: Map::new(),
            };
            db.reserved_nft_tokens
                .insert(token.to_string(), reservation);
            Ok(())
        })
    }

    fn fail_token(&self, token: u64, name: &VmName) -> Result<(), StoreError> {
        self.change(|db| {
            if let Some(held) = db.reserved_nft_tokens.get_mut(&token.to_string())
                && held.status == TokenStatus::Reserved
                && held.vm_name == *name
            {
                held.status = TokenStatus::Failed;
            }
            Ok(())
        })
    }

    fn list(&self, status: Option<Status>) -> Result<Vec<VmRecord>, StoreError> {
        let vms = self.read()?.vms.into_values();
        Ok(vms
            .filter(|vm| status.is_none_or(|status| vm.status == status))
            .collect())
    }

    fn get(&self, name: &VmName) -> Result<VmRecord, StoreError> {
        self.read()?.vm(name).cloned()
    }

    fn reservations(&self) -> Result<Vec<Reservation>, StoreError> {
        Ok(self.read()?.reservations.into_values().collect())
    }
}

fn taken(token: u64, held: &TokenReservation) -> StoreError {
    let status = if held.status == TokenStatus::Minted {
        "minted"
    } else {
        "reserved"
    };
    StoreError::TokenTaken {
        token,
        status,
        holder: held.vm_name.clone(),
    }
}
