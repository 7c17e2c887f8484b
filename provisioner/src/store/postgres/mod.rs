//! The database of several hosts that share their pools: the operations of [`Store`] as transactions of a PostgreSQL server.
//! What must never be given out twice is decided by its constraints; each host judges only its own dead processes.

mod alone;
mod connect;
mod hosts;
mod import;
mod rows;
mod tls;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use blockhost_proto::value::{EthAddress, VmName};
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::Json;
use postgres::{Client, Transaction};

use super::change;
use super::{Pools, Store, StoreError, Wanted};
use crate::record::{Holder, Reservation, Status, Step, VmRecord};
use crate::throttle::Change as ThrottleChange;
use crate::time::Time;

pub use alone::Alone;
pub use connect::{Address, Unusable};
pub use hosts::{GivenUp, Host, Identity};
use rows::{
    Outcome, Stop, choose, disown, ends_the_session, free_tokens, hold, insert_reservation, let_go,
    lock_token, lost_a_race, machine, read, reservation, signed, taken, token, write_machine,
    write_reservation, write_token,
};

/// A transaction that lost against another is tried again so often.
const TRIES: u32 = 5;

/// The server's database. One connection, made anew where it was lost between two operations.
pub struct PostgresStore {
    address: Address,
    pools: Pools,
    /// Who works with it: the server has to let it in. `None`: nobody whose machines are in it.
    own: Option<Identity>,
    client: Mutex<Option<Client>>,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PostgresStore").field(&self.address).finish()
    }
}

impl PostgresStore {
    /// The database at an address, its schema brought up to date.
    ///
    /// # Errors
    /// [`StoreError::Server`].
    pub fn open(address: Address, pools: Pools) -> Result<Self, StoreError> {
        let mut client = address.connect()?;
        address.migrate(&mut client)?;
        Ok(Self {
            address,
            pools,
            own: None,
            client: Mutex::new(Some(client)),
        })
    }

    /// The same for a host that keeps its machines there.
    ///
    /// # Errors
    /// [`StoreError::Stranger`] where the server does not let it in, [`StoreError::Server`].
    pub fn open_as(own: Identity, address: Address, pools: Pools) -> Result<Self, StoreError> {
        let mut store = Self::open(address, pools)?;
        store.own = Some(own);
        let slot = store
            .client
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(mut client) = slot.take() {
            store.enter(&mut client)?;
            store.client = Mutex::new(Some(client));
        }
        Ok(store)
    }

    fn enter(&self, client: &mut Client) -> Result<(), StoreError> {
        let Some(own) = &self.own else { return Ok(()) };
        hosts::enter(client, own).map_err(|stop| match stop {
            Stop::Refused(error) => error,
            Stop::Server(error) => self.address.failed("does not let this host in", &error),
        })
    }

    fn session(&self) -> Result<Client, StoreError> {
        let mut client = self.address.connect()?;
        self.enter(&mut client)?;
        Ok(client)
    }

    /// The address without its password.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.address.shown()
    }

    /// Waits for changes and tells the name of each machine that changed, until `heard` says no or nothing came for
    /// `silence`. The first call of `heard`, with `None`, says that from now on nothing is missed.
    ///
    /// # Errors
    /// [`StoreError::Server`].
    pub fn watch(
        &self,
        silence: Option<Duration>,
        mut heard: impl FnMut(Option<&str>) -> bool,
    ) -> Result<(), StoreError> {
        let mut client = self.session()?;
        let failed = |e: postgres::Error| self.address.failed("changes cannot be followed", &e);
        client.batch_execute("LISTEN blockhost").map_err(failed)?;
        if !heard(None) {
            return Ok(());
        }
        let mut notifications = client.notifications();
        loop {
            let next = match silence {
                Some(silence) => notifications.timeout_iter(silence).next(),
                None => notifications.blocking_iter().next(),
            };
            match next.map_err(failed)? {
                Some(change) if heard(Some(change.payload())) => {}
                Some(_) => return Ok(()),
                None if silence.is_some() => return Ok(()),
                None => {
                    return Err(StoreError::Server {
                        server: self.address.shown().to_owned(),
                        problem: "the connection ended while changes were followed".to_owned(),
                    });
                }
            }
        }
    }

    /// One transaction; what loses against another is tried again, and once more what meets a connection that was lost since it
    /// was used last. Nothing is left of one that failed, unless the server went away during its commit, which is then said.
    fn change<T>(
        &self,
        mut work: impl FnMut(&mut Transaction<'_>) -> Outcome<T>,
    ) -> Result<T, StoreError> {
        let mut slot = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turn = 0;
        let mut new = false;
        loop {
            turn += 1;
            if slot.as_ref().is_none_or(Client::is_closed) {
                *slot = Some(self.session()?);
                new = true;
            }
            let Some(client) = slot.as_mut() else {
                continue;
            };
            let mut committing = false;
            let done = client.transaction().map_err(Stop::from).and_then(|mut tx| {
                let value = work(&mut tx)?;
                committing = true;
                tx.commit()?;
                Ok(value)
            });
            match done {
                Ok(value) => return Ok(value),
                Err(Stop::Refused(error)) => return Err(error),
                Err(Stop::Server(error)) if turn < TRIES && lost_a_race(&error) => {}
                Err(Stop::Server(error)) => {
                    let lost = error.as_db_error().is_none_or(ends_the_session);
                    if lost {
                        // The connection is of no more use.
                        *slot = None;
                        // That its server had gone shows only when it is spoken to again.
                        if !new && !committing {
                            continue;
                        }
                    }
                    return Err(self.refusal(&error, committing));
                }
            }
        }
    }

    fn refusal(&self, error: &postgres::Error, committing: bool) -> StoreError {
        if let Some(taken) = taken(error) {
            return taken;
        }
        let what = if committing && error.as_db_error().is_none_or(ends_the_session) {
            "was lost while it was told to keep a change: look whether it did before you try again"
        } else {
            "did not do it; nothing was changed"
        };
        self.address.failed(what, error)
    }

    fn on_machine(
        &self,
        name: &VmName,
        work: impl Fn(&mut VmRecord) -> Result<(), StoreError>,
    ) -> Result<VmRecord, StoreError> {
        self.change(|tx| {
            let before = machine(tx, name)?.ok_or_else(|| change::unknown(name))?;
            let mut vm = before.clone();
            work(&mut vm)?;
            if vm != before {
                write_machine(tx, &vm)?;
            }
            Ok(vm)
        })
    }

    fn on_living(
        &self,
        name: &VmName,
        work: impl Fn(&mut VmRecord),
    ) -> Result<VmRecord, StoreError> {
        self.on_machine(name, |vm| {
            change::living(vm)?;
            work(vm);
            Ok(())
        })
    }
}

impl Store for PostgresStore {
    fn allocate(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        self.change(|tx| {
            let reservation = choose(tx, &self.pools, wanted, true)?;
            if wanted.vmid.is_none() {
                tx.execute(
                    "UPDATE blockhost.pool SET next_vmid = $1",
                    &[&signed(reservation.vmid.get() + 1)],
                )?;
            }
            insert_reservation(tx, &reservation)?;
            Ok(reservation)
        })
    }

    fn preview(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        self.change(|tx| choose(tx, &self.pools, wanted, false))
    }

    fn begin_step(&self, name: &VmName, step: Step) -> Result<(), StoreError> {
        self.change(|tx| {
            let mut found = reservation(tx, name)?.ok_or_else(|| change::unknown(name))?;
            change::note(&mut found, step);
            write_reservation(tx, &found)
        })
    }

    fn take_over(
        &self,
        left: &Reservation,
        holder: &Holder,
    ) -> Result<Option<Reservation>, StoreError> {
        self.change(|tx| {
            let Some(mut found) = reservation(tx, &left.name)? else {
                return Ok(None);
            };
            if !change::take_over(&mut found, left, holder) {
                return Ok(None);
            }
            write_reservation(tx, &found)?;
            Ok(Some(found))
        })
    }

    fn release(&self, name: &VmName) -> Result<(), StoreError> {
        self.change(|tx| {
            let gone = tx.execute(
                "DELETE FROM blockhost.reservation WHERE name = $1",
                &[&name.as_str()],
            )?;
            if gone > 0 {
                let_go(tx, name)?;
                free_tokens(tx, name)?;
            }
            Ok(())
        })
    }

    fn register_vm(&self, record: &VmRecord) -> Result<(), StoreError> {
        self.change(|tx| {
            let name = &record.vm_name;
            if let Some(vm) = machine(tx, name)?
                && vm.status != Status::Destroyed
            {
                return Err(change::name_taken(&vm).into());
            }
            tx.execute(
                "DELETE FROM blockhost.reservation WHERE name = $1",
                &[&name.as_str()],
            )?;
            let_go(tx, name)?;
            hold(
                tx,
                Some(name),
                Some(record.vmid.get()),
                record.ip_address,
                record.ipv6_address,
            )?;
            tx.execute(
                "INSERT INTO blockhost.machine (name, record) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET record = EXCLUDED.record",
                &[&name.as_str(), &Json(record)],
            )?;
            Ok(())
        })
    }

    fn mark_active(&self, name: &VmName, expires_at: Option<Time>) -> Result<VmRecord, StoreError> {
        self.on_living(name, |vm| change::activate(vm, expires_at))
    }

    fn mark_suspended(&self, seen: &VmRecord, at: Time) -> Result<VmRecord, StoreError> {
        self.on_living(&seen.vm_name, |vm| change::suspend(vm, seen, at))
    }

    fn mark_destroyed(&self, name: &VmName, at: Time) -> Result<VmRecord, StoreError> {
        self.change(|tx| {
            let mut vm = machine(tx, name)?.ok_or_else(|| change::unknown(name))?;
            if vm.status != Status::Destroyed {
                vm.status = Status::Destroyed;
                vm.destroyed_at = Some(at);
                write_machine(tx, &vm)?;
                let_go(tx, name)?;
                free_tokens(tx, name)?;
            }
            Ok(vm)
        })
    }

    fn extend_expiry(&self, name: &VmName, expires_at: Time) -> Result<VmRecord, StoreError> {
        self.on_living(name, |vm| vm.expires_at = expires_at)
    }

    fn set_access(
        &self,
        name: &VmName,
        wallet: EthAddress,
        token: Option<u64>,
        gecos_synced: bool,
    ) -> Result<VmRecord, StoreError> {
        self.on_living(name, |vm| {
            change::give_access(vm, wallet, token, gecos_synced);
        })
    }

    fn set_throttle(&self, name: &VmName, wanted: &ThrottleChange) -> Result<VmRecord, StoreError> {
        self.on_living(name, |vm| vm.throttle = vm.throttle.changed(wanted))
    }

    fn reserve_token(&self, number: u64, name: &VmName) -> Result<(), StoreError> {
        self.change(|tx| {
            lock_token(tx, number)?;
            let held = token(tx, number)?;
            match change::promise(held.as_ref(), number, name)? {
                Some(promise) => write_token(tx, number, &promise),
                None => Ok(()),
            }
        })
    }

    fn mint_token(&self, number: u64, name: &VmName) -> Result<(), StoreError> {
        self.change(|tx| {
            lock_token(tx, number)?;
            let held = token(tx, number)?;
            let mut vm = machine(tx, name)?.ok_or_else(|| change::unknown(name))?;
            let old = change::replaced(&vm, number);
            let minted = change::mint(held.as_ref(), &mut vm, number)?;
            write_machine(tx, &vm)?;
            write_token(tx, number, &minted)?;
            match old {
                Some(old) => disown(tx, old, name),
                None => Ok(()),
            }
        })
    }

    fn disown_token(&self, number: u64, name: &VmName) -> Result<(), StoreError> {
        self.change(|tx| {
            lock_token(tx, number)?;
            let mut vm = machine(tx, name)?.ok_or_else(|| change::unknown(name))?;
            if change::forget(&mut vm, number) {
                write_machine(tx, &vm)?;
            }
            disown(tx, number, name)
        })
    }

    fn fail_token(&self, number: u64, name: &VmName) -> Result<(), StoreError> {
        self.change(|tx| {
            lock_token(tx, number)?;
            if let Some(mut held) = token(tx, number)?
                && change::fail(&mut held, name)
            {
                write_token(tx, number, &held)?;
            }
            Ok(())
        })
    }

    fn list(&self, status: Option<Status>) -> Result<Vec<VmRecord>, StoreError> {
        self.change(|tx| {
            let rows = match status {
                None => tx.query(
                    "SELECT record FROM blockhost.machine ORDER BY name COLLATE \"C\"",
                    &[],
                )?,
                Some(status) => tx.query(
                    "SELECT record FROM blockhost.machine WHERE record->>'status' = $1 ORDER BY name COLLATE \"C\"",
                    &[&status.as_str()],
                )?,
            };
            rows.iter().map(read).collect()
        })
    }

    fn get(&self, name: &VmName) -> Result<VmRecord, StoreError> {
        self.change(|tx| {
            let row = tx.query_opt(
                "SELECT record FROM blockhost.machine WHERE name = $1",
                &[&name.as_str()],
            )?;
            match row {
                Some(row) => read(&row),
                None => Err(change::unknown(name).into()),
            }
        })
    }

    fn reservations(&self) -> Result<Vec<Reservation>, StoreError> {
        self.change(|tx| {
            let rows = tx.query(
                "SELECT record FROM blockhost.reservation ORDER BY name COLLATE \"C\"",
                &[],
            )?;
            rows.iter().map(read).collect()
        })
    }

    fn everything(&self) -> Result<(Vec<VmRecord>, Vec<Reservation>), StoreError> {
        self.change(|tx| {
            tx.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")?;
            let rows = |tx: &mut Transaction<'_>, table: &str| {
                tx.query(
                    &format!("SELECT record FROM blockhost.{table} ORDER BY name COLLATE \"C\""),
                    &[],
                )
            };
            let machines = rows(tx, "machine")?
                .iter()
                .map(read)
                .collect::<Result<_, _>>()?;
            let reservations = rows(tx, "reservation")?
                .iter()
                .map(read)
                .collect::<Result<_, _>>()?;
            Ok((machines, reservations))
        })
    }
}
