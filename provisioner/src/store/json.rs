//! The embedded database: `vms.json`. Readers that only know this file keep working, so its five first keys are fixed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use blockhost_proto::value::{EthAddress, VmName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::change::{self, InUse};
use super::kept::Kept;
use super::unique::unique;
use super::{Pools, Store, StoreError, Wanted, file};
use crate::record::{Holder, Reservation, Status, Step, TokenReservation, VmRecord};
use crate::throttle::Change as ThrottleChange;
use crate::time::Time;

/// The file's contents, with its records for reading ([`VmRecord`]) or for writing ([`Kept`]).
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
struct Database<R> {
    #[serde(default, deserialize_with = "unique")]
    vms: BTreeMap<String, R>,
    #[serde(default)]
    next_vmid: u32,
    #[serde(default)]
    allocated_ips: BTreeSet<Ipv4Addr>,
    #[serde(default)]
    allocated_ipv6: BTreeSet<Ipv6Addr>,
    #[serde(default, deserialize_with = "unique")]
    reserved_nft_tokens: BTreeMap<String, TokenReservation>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "unique"
    )]
    reservations: BTreeMap<String, Reservation>,
    #[serde(flatten, deserialize_with = "unique")]
    extra: Map<String, Value>,
}

impl<R> Default for Database<R> {
    fn default() -> Self {
        Self {
            vms: BTreeMap::new(),
            next_vmid: 0,
            allocated_ips: BTreeSet::new(),
            allocated_ipv6: BTreeSet::new(),
            reserved_nft_tokens: BTreeMap::new(),
            reservations: BTreeMap::new(),
            extra: Map::new(),
        }
    }
}

impl<R: AsRef<VmRecord>> Database<R> {
    fn living(&self) -> impl Iterator<Item = &VmRecord> {
        self.vms
            .values()
            .map(AsRef::as_ref)
            .filter(|vm| vm.status != Status::Destroyed)
    }
}

impl Database<Kept<'_>> {
    fn vm(&mut self, name: &VmName) -> Result<&mut VmRecord, StoreError> {
        let kept = self
            .vms
            .get_mut(name.as_str())
            .ok_or_else(|| change::unknown(name))?;
        Ok(kept.touched())
    }

    fn living_vm(&mut self, name: &VmName) -> Result<&mut VmRecord, StoreError> {
        let vm = self.vm(name)?;
        change::living(vm)?;
        Ok(vm)
    }

    fn allocate(&self, pools: &Pools, wanted: &Wanted) -> Result<Reservation, StoreError> {
        if let Some(vm) = self.living().find(|vm| vm.vm_name == wanted.name) {
            return Err(change::name_taken(vm));
        }
        if let Some(reservation) = self.reservations.get(wanted.name.as_str()) {
            return Err(StoreError::InTheMaking(Box::new(reservation.clone())));
        }
        let mut used = InUse {
            ips: self.allocated_ips.clone(),
            ipv6: self.allocated_ipv6.clone(),
            ..InUse::default()
        };
        for vm in self.living() {
            used.vmids.insert(vm.vmid.get());
            used.ips.extend(vm.ip_address);
            used.ipv6.extend(vm.ipv6_address);
        }
        for reservation in self.reservations.values() {
            used.vmids.insert(reservation.vmid.get());
            used.ips.insert(reservation.ip);
            used.ipv6.extend(reservation.ipv6);
        }
        let mut reservation = change::reserve(pools, wanted, self.next_vmid, used)?;
        reservation.node.clear();
        Ok(reservation)
    }

    fn free_tokens(&mut self, name: &VmName) {
        for held in self.reserved_nft_tokens.values_mut() {
            change::fail(held, name);
        }
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

/// What a database holds, for moving to another.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Machines, destroyed ones too.
    pub vms: Vec<VmRecord>,
    /// Machines in the making.
    pub reservations: Vec<Reservation>,
    /// Where the search for a free number begins.
    pub next_vmid: u32,
    /// IPv4 addresses that are held back for none of them.
    pub other_ips: BTreeSet<Ipv4Addr>,
    /// IPv6 addresses likewise.
    pub other_ipv6: BTreeSet<Ipv6Addr>,
    /// Access tokens.
    pub tokens: Vec<(u64, TokenReservation)>,
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

    /// Everything in it, for another database.
    ///
    /// # Errors
    /// As for every reading.
    pub fn contents(&self) -> Result<Contents, StoreError> {
        let db = self.read()?;
        let mut other_ips = db.allocated_ips.clone();
        let mut other_ipv6 = db.allocated_ipv6.clone();
        for (ip, ipv6) in db
            .living()
            .map(|vm| (vm.ip_address, vm.ipv6_address))
            .chain(db.reservations.values().map(|r| (Some(r.ip), r.ipv6)))
        {
            if let Some(ip) = ip {
                other_ips.remove(&ip);
            }
            if let Some(ipv6) = ipv6 {
                other_ipv6.remove(&ipv6);
            }
        }
        let tokens = db
            .reserved_nft_tokens
            .into_iter()
            .map(|(token, held)| match token.parse() {
                Ok(number) => Ok((number, held)),
                Err(_) => Err(StoreError::Damaged {
                    path: self.path.clone(),
                    problem: format!("\"{}\" is no token", blockhost_proto::escape::shown(&token)),
                }),
            })
            .collect::<Result<_, _>>()?;
        Ok(Contents {
            vms: db.vms.into_values().collect(),
            reservations: db.reservations.into_values().collect(),
            next_vmid: db.next_vmid,
            other_ips,
            other_ipv6,
            tokens,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self) -> Result<Database<VmRecord>, StoreError> {
        match file::read(&self.path)? {
            Some(bytes) => self.parse(&bytes),
            None => Ok(Database::default()),
        }
    }

    /// The file's bytes, or those of an empty one where there is none.
    fn bytes(&self) -> Result<Vec<u8>, StoreError> {
        match file::read(&self.path)? {
            Some(bytes) => Ok(bytes),
            None => self.text(&Database::default(), 0),
        }
    }

    fn parse<'a, R>(&self, bytes: &'a [u8]) -> Result<Database<R>, StoreError>
    where
        R: AsRef<VmRecord> + Deserialize<'a>,
    {
        let mut database: Database<R> = serde_json::from_slice(bytes).map_err(|e| {
            // Read so, the line in it is that of the file, and not one of a record.
            let plain = serde_json::from_slice::<Database<VmRecord>>(bytes);
            self.damaged(plain.err().unwrap_or(e).to_string())
        })?;
        // The file is of one host, whatever that is called by now: no name of it makes its processes another host's.
        for reservation in database.reservations.values_mut() {
            reservation.node.clear();
        }
        match database
            .vms
            .iter()
            .find(|(key, vm)| key.as_str() != vm.as_ref().vm_name.as_str())
        {
            Some((key, vm)) => Err(self.damaged(format!(
                "the record of {} stands under the name {key}",
                vm.as_ref().vm_name
            ))),
            None => Ok(database),
        }
    }

    fn damaged(&self, problem: String) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            problem,
        }
    }

    /// One transaction. Nothing is written when `change` fails, or when the file would be the same.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Database<Kept<'_>>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let held = file::lock(&self.path)?;
        let before = self.bytes()?;
        let mut database = self.parse(&before)?;
        let result = change(&mut database)?;
        let after = self.text(&database, before.len())?;
        if after != before {
            file::replace(&held, &self.path, &after)?;
        }
        Ok(result)
    }

    /// The file's bytes with this in it, about as many as there were.
    fn text(&self, database: &Database<Kept<'_>>, about: usize) -> Result<Vec<u8>, StoreError> {
        let mut text = Vec::with_capacity(about + 4096);
        serde_json::to_writer_pretty(&mut text, database)
            .map_err(|e| self.damaged(e.to_string()))?;
        text.push(b'\n');
        Ok(text)
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
        let bytes = self.bytes()?;
        self.parse::<Kept<'_>>(&bytes)?
            .allocate(&self.pools, wanted)
    }

    fn begin_step(&self, name: &VmName, step: Step) -> Result<(), StoreError> {
        self.change(|db| {
            let reservation = db
                .reservations
                .get_mut(name.as_str())
                .ok_or_else(|| change::unknown(name))?;
            change::note(reservation, step);
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
            let mut left = left.clone();
            left.node.clear();
            let holder = Holder {
                node: String::new(),
                ..holder.clone()
            };
            if !change::take_over(found, &left, &holder) {
                return Ok(None);
            }
            Ok(Some(found.clone()))
        })
    }

    fn release(&self, name: &VmName) -> Result<(), StoreError> {
        self.change(|db| {
            if let Some(reservation) = db.reservations.remove(name.as_str()) {
                db.free(Some(reservation.ip), reservation.ipv6);
                db.free_tokens(name);
            }
            Ok(())
        })
    }

    fn register_vm(&self, record: &VmRecord) -> Result<(), StoreError> {
        self.change(|db| {
            if let Some(vm) = db.living().find(|vm| vm.vm_name == record.vm_name) {
                return Err(change::name_taken(vm));
            }
            db.reservations.remove(record.vm_name.as_str());
            db.allocated_ips.extend(record.ip_address);
            db.allocated_ipv6.extend(record.ipv6_address);
            db.vms
                .insert(record.vm_name.to_string(), record.clone().into());
            Ok(())
        })
    }

    fn mark_active(&self, name: &VmName, expires_at: Option<Time>) -> Result<VmRecord, StoreError> {
        self.change(|db| {
            let vm = db.living_vm(name)?;
            change::activate(vm, expires_at);
            Ok(vm.clone())
        })
    }

    fn mark_suspended(&self, seen: &VmRecord, at: Time) -> Result<VmRecord, StoreError> {
        self.change(|db| {
            let vm = db.living_vm(&seen.vm_name)?;
            change::suspend(vm, seen, at);
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
            db.free_tokens(name);
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
            change::give_access(vm, wallet, token, gecos_synced);
            Ok(vm.clone())
        })
    }

    fn set_throttle(&self, name: &VmName, wanted: &ThrottleChange) -> Result<VmRecord, StoreError> {
        self.change(|db| {
            let vm = db.living_vm(name)?;
            vm.throttle = vm.throttle.changed(wanted);
            Ok(vm.clone())
        })
    }

    fn reserve_token(&self, token: u64, name: &VmName) -> Result<(), StoreError> {
        self.change(|db| {
            let key = token.to_string();
            if let Some(promise) = change::promise(db.reserved_nft_tokens.get(&key), token, name)? {
                db.reserved_nft_tokens.insert(key, promise);
            }
            Ok(())
        })
    }

    fn mint_token(&self, token: u64, name: &VmName) -> Result<(), StoreError> {
        self.change(|db| {
            let key = token.to_string();
            let held = db.reserved_nft_tokens.get(&key).cloned();
            let vm = db.vm(name)?;
            let old = change::replaced(vm, token);
            let minted = change::mint(held.as_ref(), vm, token)?;
            db.reserved_nft_tokens.insert(key, minted);
            if let Some(held) = old.and_then(|old| db.reserved_nft_tokens.get_mut(&old.to_string()))
            {
                change::disown(held, name);
            }
            Ok(())
        })
    }

    fn disown_token(&self, token: u64, name: &VmName) -> Result<(), StoreError> {
        self.change(|db| {
            change::forget(db.vm(name)?, token);
            if let Some(held) = db.reserved_nft_tokens.get_mut(&token.to_string()) {
                change::disown(held, name);
            }
            Ok(())
        })
    }

    fn fail_token(&self, token: u64, name: &VmName) -> Result<(), StoreError> {
        self.change(|db| {
            if let Some(held) = db.reserved_nft_tokens.get_mut(&token.to_string()) {
                change::fail(held, name);
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
        let mut vms = self.read()?.vms;
        vms.remove(name.as_str())
            .ok_or_else(|| change::unknown(name))
    }

    fn reservations(&self) -> Result<Vec<Reservation>, StoreError> {
        Ok(self.read()?.reservations.into_values().collect())
    }

    fn everything(&self) -> Result<(Vec<VmRecord>, Vec<Reservation>), StoreError> {
        let db = self.read()?;
        Ok((
            db.vms.into_values().collect(),
            db.reservations.into_values().collect(),
        ))
    }
}
