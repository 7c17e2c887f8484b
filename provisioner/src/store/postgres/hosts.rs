//! The hosts that share a server: each is known by its name and by its machine, says that it lives whenever it comes, and can
//! be given up by another when it is gone for good. `blockhost-vm-db` shows and gives up; connections come in by [`enter`].

use postgres::{Client, Transaction};

use super::PostgresStore;
use super::rows::{Outcome, free_tokens, let_go, read, write_machine};
use crate::config::Config;
use crate::record::{Reservation, Status, VmRecord, host_name};
use crate::store::StoreError;
use crate::time::Time;

/// A host that was heard of this recently is not given up.
const LIFE: &str = "1 hour";
/// Whoever comes again within it is not noted again.
const NOTED: &str = "1 minute";
/// Held while a host is entered into the list, so that two of one name are not entered at once.
const LIST_LOCK: i64 = 0x626c_6f63_6b68_6f74;

/// This host among those that share the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What its machines' records call it.
    pub node: String,
    /// What its reservations call it.
    pub host_name: String,
    /// Its `/etc/machine-id`.
    pub machine_id: String,
}

/// A host, as the server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What its machines' records call it.
    pub node: String,
    /// When it was last heard of; `None` for one that never came since hosts are listed.
    pub seen: Option<Time>,
    /// True while a command or a service of it is connected.
    pub connected: bool,
    /// When it was given up.
    pub given_up: Option<Time>,
    /// Its machines that are not destroyed.
    pub machines: usize,
    /// Its machines in the making.
    pub reservations: usize,
}

/// What giving a host up frees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Machines that were in the making there: their numbers and addresses are free.
    pub reservations: Vec<Reservation>,
    /// Machines that were there. Destroyed now, their addresses free, if that was asked for.
    pub machines: Vec<VmRecord>,
}

fn key(node: &str) -> String {
    format!("blockhost host {node}")
}

fn moment(row: &postgres::Row, column: usize) -> Outcome<Option<Time>> {
    let seconds: Option<i64> = row.try_get(column)?;
    Ok(seconds.map(Time::from_unix))
}

/// Tells the server that this host is here, and finds out whether it may be. From now on and as long as the connection lasts
/// nobody can give it up.
pub(super) fn enter(client: &mut Client, own: &Identity) -> Outcome<()> {
    let free: bool = client
        .query_one(
            "SELECT pg_try_advisory_lock_shared(hashtextextended($1, 0))",
            &[&key(&own.node)],
        )?
        .try_get(0)?;
    if !free {
        return refuse(format!(
            "is giving up the host {} at this moment: somebody runs blockhost-vm-db give-up",
            own.node
        ));
    }
    let known = client.query_opt(
        &format!(
            "SELECT given_up IS NULL AND seen > now() - interval '{NOTED}'
             FROM blockhost.host WHERE node = $1 AND host_name = $2 AND machine_id = $3"
        ),
        &[&own.node, &own.host_name, &own.machine_id],
    )?;
    if known.is_some_and(|row| row.try_get(0).unwrap_or(false)) {
        return Ok(());
    }
    let mut tx = client.transaction()?;
    tx.execute("SELECT pg_advisory_xact_lock($1)", &[&LIST_LOCK])?;
    admit(&mut tx, own)?;
    tx.execute(
        "INSERT INTO blockhost.host (node, host_name, machine_id) VALUES ($1, $2, $3)
         ON CONFLICT (node) DO UPDATE SET host_name = $2, machine_id = $3, seen = now(), given_up = NULL",
        &[&own.node, &own.host_name, &own.machine_id],
    )?;
    tx.commit()?;
    Ok(())
}

/// Whether the host may come: under no other's name, and not when it was given up.
fn admit(tx: &mut Transaction<'_>, own: &Identity) -> Outcome<()> {
    let rows = tx.query(
        "SELECT node, machine_id IN ($3, ''), extract(epoch FROM given_up)::bigint FROM blockhost.host
         WHERE node = $1 OR host_name = $2",
        &[&own.node, &own.host_name, &own.machine_id],
    )?;
    for row in rows {
        let (node, same): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
        match moment(&row, 2)? {
            Some(at) if same && node == own.node => {
                return refuse(format!(
                    "does not serve this host ({node}): it was given up {at}, and its numbers and addresses may be others' by now; \
                     blockhost-vm-db return says how it comes back"
                ));
            }
            // A successor takes the name over.
            Some(_) => {}
            None if same => {}
            None => {
                return refuse(format!(
                    "knows another machine as the host {node} ({}): each needs a host name and a proxmox.node of its own; \
                     if that one is gone for good: blockhost-vm-db give-up {node}",
                    own.host_name
                ));
            }
        }
    }
    Ok(())
}

fn refuse<T>(problem: String) -> Outcome<T> {
    Err(StoreError::Stranger { problem }.into())
}

fn machines_of(tx: &mut Transaction<'_>, node: &str) -> Outcome<Vec<VmRecord>> {
    let rows = tx.query(
        "SELECT record FROM blockhost.machine WHERE record->>'node' = $1 AND record->>'status' <> 'destroyed'
         ORDER BY name COLLATE \"C\" FOR UPDATE",
        &[&node],
    )?;
    rows.iter().map(read).collect()
}

/// What is in the making there. Reservations name the host by its host name, which is the node where none is configured.
fn reservations_of(tx: &mut Transaction<'_>, host_name: &str) -> Outcome<Vec<Reservation>> {
    let rows = tx.query(
        "SELECT record FROM blockhost.reservation WHERE record->>'node' = $1 ORDER BY name COLLATE \"C\" FOR UPDATE",
        &[&host_name],
    )?;
    rows.iter().map(read).collect()
}

impl Identity {
    /// This host, by its configuration.
    ///
    /// # Errors
    /// [`StoreError::Stranger`] where `/etc/machine-id` does not name it.
    pub fn of(config: &Config) -> Result<Self, StoreError> {
        let machine_id = config.machine_id.clone();
        Ok(Self {
            node: config.node(),
            host_name: host_name(),
            machine_id: machine_id.ok_or_else(|| StoreError::Stranger {
                problem: "knows hosts by /etc/machine-id, and there is none here: run systemd-machine-id-setup".to_owned(),
            })?,
        })
    }
}

impl PostgresStore {
    /// Every host that the server knows, and those that only records speak of.
    ///
    /// # Errors
    /// [`StoreError::Server`].
    pub fn hosts(&self) -> Result<Vec<Host>, StoreError> {
        self.change(|tx| {
            let rows = tx.query(
                "WITH known AS (
                     SELECT node, host_name, seen, given_up FROM blockhost.host
                     UNION
                     SELECT record->>'node', record->>'node', NULL, NULL FROM blockhost.machine
                     WHERE record->>'status' <> 'destroyed' AND record->>'node' NOT IN (SELECT node FROM blockhost.host)
                     UNION
                     SELECT record->>'node', record->>'node', NULL, NULL FROM blockhost.reservation
                     WHERE record->>'node' NOT IN (SELECT host_name FROM blockhost.host)
                 )
                 SELECT node, extract(epoch FROM seen)::bigint, extract(epoch FROM given_up)::bigint,
                     (SELECT count(*) FROM blockhost.machine WHERE record->>'node' = known.node AND record->>'status' <> 'destroyed'),
                     (SELECT count(*) FROM blockhost.reservation WHERE record->>'node' = known.host_name),
                     EXISTS (SELECT 1 FROM pg_locks, (SELECT hashtextextended('blockhost host ' || known.node, 0) AS number) AS held
                         WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND mode = 'ShareLock'
                         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                         AND classid::bigint = (held.number >> 32) & 4294967295 AND objid::bigint = held.number & 4294967295)
                 FROM known ORDER BY node COLLATE \"C\"",
                &[],
            )?;
            rows.iter()
                .map(|row| {
                    let count = |column| -> Outcome<usize> {
                        let count: i64 = row.try_get(column)?;
                        Ok(usize::try_from(count).unwrap_or(0))
                    };
                    Ok(Host {
                        node: row.try_get(0)?,
                        seen: moment(row, 1)?,
                        given_up: moment(row, 2)?,
                        machines: count(3)?,
                        reservations: count(4)?,
                        connected: row.try_get(5)?,
                    })
                })
                .collect()
        })
    }

    /// Gives another host up, in one transaction: what was in the making there is free, and with `machines` what was there
    /// counts as destroyed. From then on that host is refused. Without `really` nothing is changed, and the answer is the same.
    ///
    /// # Errors
    /// [`StoreError::Alive`] for one that shows life and for `own`; [`StoreError::UnknownHost`].
    pub fn give_up(
        &self,
        own: &Identity,
        node: &str,
        machines: bool,
        really: bool,
    ) -> Result<GivenUp, StoreError> {
        let alive = |why: String| StoreError::Alive {
            node: node.to_owned(),
            why,
        };
        self.change(|tx| {
            tx.execute("SELECT pg_advisory_xact_lock($1)", &[&LIST_LOCK])?;
            let row = tx.query_opt(
                &format!(
                    "SELECT host_name, machine_id, given_up IS NULL AND seen > now() - interval '{LIFE}',
                         extract(epoch FROM seen)::bigint
                     FROM blockhost.host WHERE node = $1 FOR UPDATE"
                ),
                &[&node],
            )?;
            // One that came before hosts were listed is known by what it left.
            let mut host_name = node.to_owned();
            if row.is_none() && (node == own.node || node == own.host_name) {
                return Err(alive("it is this host itself".to_owned()).into());
            }
            if let Some(row) = &row {
                let (machine, recent): (String, bool) = (row.try_get(1)?, row.try_get(2)?);
                host_name = row.try_get(0)?;
                if node == own.node && machine == own.machine_id {
                    return Err(alive("it is this host itself".to_owned()).into());
                }
                if recent {
                    let seen = moment(row, 3)?.map_or_else(String::new, |at| at.to_string());
                    return Err(alive(format!(
                        "it was heard of {seen}, and has to be silent for {LIFE}"
                    ))
                    .into());
                }
            }
            // Its connections hold this lock, so that it is given up between them or not at all.
            let silent: bool = tx
                .query_one(
                    "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))",
                    &[&key(node)],
                )?
                .try_get(0)?;
            if !silent {
                return Err(alive(
                    "a command or a service of it is connected to the server".to_owned(),
                )
                .into());
            }
            // Reservations go by the host name, and that may be one of another host, which lives.
            let anothers: bool = tx
                .query_one(
                    "SELECT EXISTS (SELECT 1 FROM blockhost.host WHERE host_name = $1 AND node <> $2 AND given_up IS NULL)",
                    &[&host_name, &node],
                )?
                .try_get(0)?;
            let given_up = GivenUp {
                reservations: match anothers {
                    true => Vec::new(),
                    false => reservations_of(tx, &host_name)?,
                },
                machines: machines_of(tx, node)?,
            };
            if row.is_none() && given_up.reservations.is_empty() && given_up.machines.is_empty() {
                return Err(StoreError::UnknownHost {
                    node: node.to_owned(),
                }
                .into());
            }
            if really {
                for left in &given_up.reservations {
                    tx.execute(
                        "DELETE FROM blockhost.reservation WHERE name = $1",
                        &[&left.name.as_str()],
                    )?;
                    let_go(tx, &left.name)?;
                    free_tokens(tx, &left.name)?;
                }
                for vm in given_up.machines.iter().filter(|_| machines) {
                    let mut vm = vm.clone();
                    vm.status = Status::Destroyed;
                    vm.destroyed_at = Some(Time::now());
                    write_machine(tx, &vm)?;
                    let_go(tx, &vm.vm_name)?;
                    free_tokens(tx, &vm.vm_name)?;
                }
                tx.execute(
                    "INSERT INTO blockhost.host (node, host_name, machine_id, given_up) VALUES ($1, $2, '', now())
                     ON CONFLICT (node) DO UPDATE SET given_up = COALESCE(blockhost.host.given_up, now())",
                    &[&node, &host_name],
                )?;
            }
            Ok(given_up)
        })
    }

    /// Lets this host in again after it was given up. False when it was not.
    ///
    /// # Errors
    /// [`StoreError::Server`].
    pub fn let_return(&self, own: &Identity) -> Result<bool, StoreError> {
        self.change(|tx| {
            let returned = tx.execute(
                "UPDATE blockhost.host SET given_up = NULL, seen = now(), machine_id = $2
                 WHERE node = $1 AND machine_id IN ($2, '') AND given_up IS NOT NULL",
                &[&own.node, &own.machine_id],
            )?;
            Ok(returned > 0)
        })
    }
}
