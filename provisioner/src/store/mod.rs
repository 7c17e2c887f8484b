//! The machines' database behind one interface. [`JsonStore`] is the embedded default, a file; [`PostgresStore`] a database
//! server for several hosts. Commands, the garbage collector and the engine use whichever the configuration names.

mod change;
pub(crate) mod file;
mod json;
mod kept;
mod pool;
pub mod postgres;
pub(crate) mod unique;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use blockhost_proto::value::{EthAddress, VmName, Vmid};

use crate::config::Config;
use crate::record::{Holder, Reservation, Status, Step, VmRecord};
use crate::throttle::Change;
use crate::time::Time;

pub use self::postgres::{Identity, PostgresStore};
pub use json::{Contents, JsonStore};
pub use pool::Pools;

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file exists and is not a database. It is never overwritten.
    #[error("{} is damaged ({problem}); it is left as it is: repair it or restore a copy", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Reading or writing failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Another process holds the lock for too long.
    #[error("{} has been locked by another process for {seconds} s; find it with fuser", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// Nothing left to give out.
    #[error("the pool of {what} ({range}) is exhausted; widen it in db.yaml or destroy machines")]
    Exhausted {
        /// VM numbers, IPv4 or IPv6 addresses.
        what: &'static str,
        /// The pool.
        range: String,
    },
    /// Something that was asked for by value is in use or outside the pools.
    #[error("{what} {value} cannot be given out: {reason}")]
    Unavailable {
        /// What was asked for.
        what: &'static str,
        /// The value.
        value: String,
        /// Why not.
        reason: &'static str,
    },
    /// A machine of that name exists.
    #[error("a machine named {name} exists already (VM {vmid}, {status})")]
    NameTaken {
        /// The name.
        name: VmName,
        /// Its number.
        vmid: Vmid,
        /// Its status.
        status: Status,
    },
    /// A machine of that name is being made.
    #[error("a machine named {} is being created by {} since {}", .0.name, .0.maker(), .0.created_at)]
    InTheMaking(Box<Reservation>),
    /// No such machine.
    #[error("there is no machine named {name}")]
    UnknownVm {
        /// The name.
        name: String,
    },
    /// The machine's status does not allow it.
    #[error("machine {name} is {status}; {needed}")]
    WrongStatus {
        /// The name.
        name: VmName,
        /// Its status.
        status: Status,
        /// What it would have to be.
        needed: &'static str,
    },
    /// The token is promised to or held by another machine.
    #[error("token {token} is {status} for machine {holder}")]
    TokenTaken {
        /// The token.
        token: u64,
        /// `reserved` or `minted`.
        status: &'static str,
        /// Its machine.
        holder: VmName,
    },
    /// The database is set to one that cannot be used so.
    #[error("db_url of db.yaml: {problem}")]
    Unsupported {
        /// Why not; without credentials.
        problem: String,
    },
    /// The server serves the hosts that it knows, and not this one as it comes.
    #[error("the shared database {problem}")]
    Stranger {
        /// Why not, and what to do.
        problem: String,
    },
    /// A host that is not to be given up.
    #[error("the host {node} is not given up: {why}")]
    Alive {
        /// Its name.
        node: String,
        /// What speaks for its life.
        why: String,
    },
    /// No such host.
    #[error("the shared database knows no host {node}; blockhost-vm-db hosts lists them")]
    UnknownHost {
        /// Its name.
        node: String,
    },
    /// The database server could not be reached, or refused.
    #[error("the database {server} {problem}")]
    Server {
        /// Its address, without credentials.
        server: String,
        /// What happened, and what is left of it.
        problem: String,
    },
}

/// What a new machine needs. What is `None` comes from the pools.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name.
    pub name: VmName,
    /// This number and no other.
    pub vmid: Option<Vmid>,
    /// This IPv4 address and no other.
    pub ip: Option<Ipv4Addr>,
    /// This IPv6 address and no other.
    pub ipv6: Option<Ipv6Addr>,
    /// Numbers that the backend uses for machines this database may not know.
    pub avoid: Vec<Vmid>,
    /// Who makes it.
    pub holder: Holder,
    /// True for `--mock`.
    pub mock: bool,
}

/// All operations. Each is one transaction: a crash leaves the state before or after it.
pub trait Store {
    /// Promises a number and addresses to a machine, in one transaction with the note of who makes it.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], [`StoreError::InTheMaking`], [`StoreError::Exhausted`], [`StoreError::Unavailable`].
    fn allocate(&self, wanted: &Wanted) -> Result<Reservation, StoreError>;

    /// The same without promising: for plans.
    ///
    /// # Errors
    /// As [`Store::allocate`].
    fn preview(&self, wanted: &Wanted) -> Result<Reservation, StoreError>;

    /// Notes that `step` is about to be taken for the machine in the making.
    ///
    /// # Errors
    /// [`StoreError::UnknownVm`] when there is no such reservation.
    fn begin_step(&self, name: &VmName, step: Step) -> Result<(), StoreError>;

    /// Makes `holder` the one who holds a reservation whose maker is dead, so that only one process at a time takes it
    /// back. `None` when it is no longer as `left` says or its maker lives: then it is not the caller's to undo.
    ///
    /// # Errors
    /// As for every transaction.
    fn take_over(
        &self,
        left: &Reservation,
        holder: &Holder,
    ) -> Result<Option<Reservation>, StoreError>;

    /// Drops a reservation; its number and addresses are free again, and tokens that were promised to it. None: nothing happens.
    ///
    /// # Errors
    /// As for every transaction.
    fn release(&self, name: &VmName) -> Result<(), StoreError>;

    /// Turns the reservation of that name into a record.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`].
    fn register_vm(&self, record: &VmRecord) -> Result<(), StoreError>;

    /// Active from now on, with another expiry where one is given.
    ///
    /// # Errors
    /// [`StoreError::UnknownVm`], [`StoreError::WrongStatus`] for a destroyed one.
    fn mark_active(&self, name: &VmName, expires_at: Option<Time>) -> Result<VmRecord, StoreError>;

    /// Suspended since `at`; a suspended one keeps its date. One whose expiry is no longer that of `seen` was paid for
    /// in the meantime and stays active: the record that comes back says so.
    ///
    /// # Errors
    /// As [`Store::mark_active`].
    fn mark_suspended(&self, seen: &VmRecord, at: Time) -> Result<VmRecord, StoreError>;

    /// Destroyed at `at`; its addresses are free again, and tokens that were promised to it and never minted. Again: nothing
    /// changes.
    ///
    /// # Errors
    /// [`StoreError::UnknownVm`].
    fn mark_destroyed(&self, name: &VmName, at: Time) -> Result<VmRecord, StoreError>;

    /// Sets another expiry.
    ///
    /// # Errors
    /// As [`Store::mark_active`].
    fn extend_expiry(&self, name: &VmName, expires_at: Time) -> Result<VmRecord, StoreError>;

    /// Notes wallet and token of a machine, and whether its guest knows.
    ///
    /// # Errors
    /// As [`Store::mark_active`].
    fn set_access(
        &self,
        name: &VmName,
        wallet: EthAddress,
        token: Option<u64>,
        gecos_synced: bool,
    ) -> Result<VmRecord, StoreError>;

    /// Changes the limits that are kept of a machine.
    ///
    /// # Errors
    /// As [`Store::mark_active`].
    fn set_throttle(&self, name: &VmName, change: &Change) -> Result<VmRecord, StoreError>;

    /// Active machines past their expiry.
    ///
    /// # Errors
    /// As for every reading.
    fn vms_to_suspend(&self, now: Time) -> Result<Vec<VmRecord>, StoreError> {
        let mut due = self.list(Some(Status::Active))?;
        due.retain(|vm| vm.expires_at <= now);
        Ok(due)
    }

    /// Suspended machines past `grace_days` of suspension that nobody has paid for since.
    ///
    /// # Errors
    /// As for every reading.
    fn vms_to_destroy(&self, now: Time, grace_days: u32) -> Result<Vec<VmRecord>, StoreError> {
        let mut due = self.list(Some(Status::Suspended))?;
        due.retain(|vm| vm.is_due(now, grace_days));
        Ok(due)
    }

    /// Promises a token to a machine.
    ///
    /// # Errors
    /// [`StoreError::TokenTaken`].
    fn reserve_token(&self, token: u64, name: &VmName) -> Result<(), StoreError>;

    /// The token is on the chain. One that the machine was recorded with before is nobody's after it.
    ///
    /// # Errors
    /// [`StoreError::UnknownVm`], [`StoreError::TokenTaken`].
    fn mint_token(&self, token: u64, name: &VmName) -> Result<(), StoreError>;

    /// The token is not this machine's after all: its record names none where it named this one, and another machine may
    /// have it.
    ///
    /// # Errors
    /// [`StoreError::UnknownVm`].
    fn disown_token(&self, token: u64, name: &VmName) -> Result<(), StoreError>;

    /// Minting failed: the promise to this machine is void.
    ///
    /// # Errors
    /// As for every transaction.
    fn fail_token(&self, token: u64, name: &VmName) -> Result<(), StoreError>;

    /// All machines, or those of one status, by name.
    ///
    /// # Errors
    /// As for every reading.
    fn list(&self, status: Option<Status>) -> Result<Vec<VmRecord>, StoreError>;

    /// One machine.
    ///
    /// # Errors
    /// [`StoreError::UnknownVm`].
    fn get(&self, name: &VmName) -> Result<VmRecord, StoreError>;

    /// Machines in the making, crash leftovers included.
    ///
    /// # Errors
    /// As for every reading.
    fn reservations(&self) -> Result<Vec<Reservation>, StoreError>;

    /// All machines and reservations, as they were at one moment.
    ///
    /// # Errors
    /// As for every reading.
    fn everything(&self) -> Result<(Vec<VmRecord>, Vec<Reservation>), StoreError>;
}

/// A database of either kind.
pub type AnyStore = Box<dyn Store + Send>;

/// Opens the database that `config` names.
///
/// # Errors
/// [`StoreError::Server`].
pub fn open(config: &Config) -> Result<AnyStore, StoreError> {
    Ok(match &config.db.server {
        Some(address) => Box::new(PostgresStore::open_as(
            Identity::of(config)?,
            address.clone(),
            Pools::of(config),
        )?),
        None => Box::new(JsonStore::new(&config.db.db_file, Pools::of(config))),
    })
}

/// What is in a box does what it does outside.
macro_rules! boxed {
    ($(fn $name:ident(&self $(, $arg:ident: $kind:ty)*) -> $result:ty;)+) => {
        impl<S: Store + ?Sized> Store for Box<S> {
            $(fn $name(&self $(, $arg: $kind)*) -> Result<$result, StoreError> { (**self).$name($($arg),*) })+
        }
    };
}

boxed! {
    fn allocate(&self, wanted: &Wanted) -> Reservation;
    fn preview(&self, wanted: &Wanted) -> Reservation;
    fn begin_step(&self, name: &VmName, step: Step) -> ();
    fn take_over(&self, left: &Reservation, holder: &Holder) -> Option<Reservation>;
    fn release(&self, name: &VmName) -> ();
    fn register_vm(&self, record: &VmRecord) -> ();
    fn mark_active(&self, name: &VmName, expires_at: Option<Time>) -> VmRecord;
    fn mark_suspended(&self, seen: &VmRecord, at: Time) -> VmRecord;
    fn mark_destroyed(&self, name: &VmName, at: Time) -> VmRecord;
    fn extend_expiry(&self, name: &VmName, expires_at: Time) -> VmRecord;
    fn set_access(&self, name: &VmName, wallet: EthAddress, token: Option<u64>, gecos_synced: bool) -> VmRecord;
    fn set_throttle(&self, name: &VmName, change: &Change) -> VmRecord;
    fn vms_to_suspend(&self, now: Time) -> Vec<VmRecord>;
    fn vms_to_destroy(&self, now: Time, grace_days: u32) -> Vec<VmRecord>;
    fn reserve_token(&self, token: u64, name: &VmName) -> ();
    fn mint_token(&self, token: u64, name: &VmName) -> ();
    fn disown_token(&self, token: u64, name: &VmName) -> ();
    fn fail_token(&self, token: u64, name: &VmName) -> ();
    fn list(&self, status: Option<Status>) -> Vec<VmRecord>;
    fn get(&self, name: &VmName) -> VmRecord;
    fn reservations(&self) -> Vec<Reservation>;
    fn everything(&self) -> (Vec<VmRecord>, Vec<Reservation>);
}
