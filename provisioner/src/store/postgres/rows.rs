//! The rows of the server's tables, read and written inside a transaction, and what its refusals mean.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use blockhost_proto::value::VmName;
use postgres::Transaction;
use postgres::error::{DbError, Severity, SqlState};
use postgres::types::Json;
use serde::de::DeserializeOwned;

use crate::record::{Reservation, Status, TokenReservation, VmRecord};
use crate::store::change::{self, InUse};
use crate::store::{Pools, StoreError, Wanted};

/// What ends a transaction without its commit.
pub(super) enum Stop {
    /// An operation's own refusal.
    Refused(StoreError),
    /// The server's.
    Server(postgres::Error),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<postgres::Error> for Stop {
    fn from(error: postgres::Error) -> Self {
        Self::Server(error)
    }
}

pub(super) type Outcome<T> = Result<T, Stop>;

/// Whether the server ends the session with it, as it does when it is shut down.
pub(super) fn ends_the_session(error: &DbError) -> bool {
    matches!(
        error.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    )
}

pub(super) fn lost_a_race(error: &postgres::Error) -> bool {
    let races = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    error.code().is_some_and(|code| races.contains(code))
}

/// A constraint's refusal as one of ours.
pub(super) fn taken(error: &postgres::Error) -> Option<StoreError> {
    let said = error.as_db_error()?;
    if *said.code() != SqlState::UNIQUE_VIOLATION {
        return None;
    }
    let what = match said.constraint()? {
        "holding_vmid_key" => "VM number",
        "holding_ip_key" => "IPv4 address",
        "holding_ipv6_key" => "IPv6 address",
        "holding_name_key" | "machine_pkey" | "reservation_pkey" => "name",
        _ => return None,
    };
    // `Key (vmid)=(100) already exists.`
    let value = said
        .detail()
        .and_then(|detail| detail.split('(').nth(2)?.split(')').next());
    Some(StoreError::Unavailable {
        what,
        value: blockhost_proto::escape::shown(value.unwrap_or("?")),
        reason: "it is in use",
    })
}

pub(super) fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A record as JSON; one that cannot be read is damage, of which nothing is overwritten.
pub(super) fn read<T: DeserializeOwned>(row: &postgres::Row) -> Outcome<T> {
    let value: serde_json::Value = row.try_get(0)?;
    serde_json::from_value(value).map_err(|e| {
        Stop::Refused(StoreError::Damaged {
            path: "the server's record".into(),
            problem: e.to_string(),
        })
    })
}

pub(super) fn machine(tx: &mut Transaction<'_>, name: &VmName) -> Outcome<Option<VmRecord>> {
    tx.query_opt(
        "SELECT record FROM blockhost.machine WHERE name = $1 FOR UPDATE",
        &[&name.as_str()],
    )?
    .map(|row| read(&row))
    .transpose()
}

pub(super) fn write_machine(tx: &mut Transaction<'_>, vm: &VmRecord) -> Outcome<()> {
    tx.execute(
        "UPDATE blockhost.machine SET record = $2 WHERE name = $1",
        &[&vm.vm_name.as_str(), &Json(vm)],
    )?;
    Ok(())
}

pub(super) fn reservation(tx: &mut Transaction<'_>, name: &VmName) -> Outcome<Option<Reservation>> {
    tx.query_opt(
        "SELECT record FROM blockhost.reservation WHERE name = $1 FOR UPDATE",
        &[&name.as_str()],
    )?
    .map(|row| read(&row))
    .transpose()
}

pub(super) fn insert_reservation(
    tx: &mut Transaction<'_>,
    reservation: &Reservation,
) -> Outcome<()> {
    let Reservation {
        name,
        vmid,
        ip,
        ipv6,
        ..
    } = reservation;
    tx.execute(
        "INSERT INTO blockhost.reservation (name, record) VALUES ($1, $2)",
        &[&name.as_str(), &Json(reservation)],
    )?;
    hold(tx, Some(name), Some(vmid.get()), Some(*ip), *ipv6)
}

pub(super) fn write_reservation(
    tx: &mut Transaction<'_>,
    reservation: &Reservation,
) -> Outcome<()> {
    tx.execute(
        "UPDATE blockhost.reservation SET record = $2 WHERE name = $1",
        &[&reservation.name.as_str(), &Json(reservation)],
    )?;
    Ok(())
}

pub(super) fn hold(
    tx: &mut Transaction<'_>,
    name: Option<&VmName>,
    vmid: Option<u32>,
    ip: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
) -> Outcome<()> {
    tx.execute(
        "INSERT INTO blockhost.holding (name, vmid, ip, ipv6) VALUES ($1, $2, $3, $4)",
        &[
            &name.map(VmName::as_str),
            &vmid.map(signed),
            &ip.map(IpAddr::V4),
            &ipv6.map(IpAddr::V6),
        ],
    )?;
    Ok(())
}

pub(super) fn let_go(tx: &mut Transaction<'_>, name: &VmName) -> Outcome<()> {
    tx.execute(
        "DELETE FROM blockhost.holding WHERE name = $1",
        &[&name.as_str()],
    )?;
    Ok(())
}

pub(super) fn in_use(tx: &mut Transaction<'_>) -> Outcome<InUse> {
    let mut used = InUse::default();
    for row in tx.query("SELECT vmid, ip, ipv6 FROM blockhost.holding", &[])? {
        let vmid: Option<i32> = row.try_get(0)?;
        used.vmids
            .extend(vmid.and_then(|vmid| u32::try_from(vmid).ok()));
        for column in [1, 2] {
            let address: Option<IpAddr> = row.try_get(column)?;
            match address {
                Some(IpAddr::V4(ip)) => used.ips.extend([ip]),
                Some(IpAddr::V6(ip)) => used.ipv6.extend([ip]),
                None => {}
            }
        }
    }
    Ok(used)
}

/// The reservation that an allocation would make now. With `lock` no other can be made until the transaction's end.
pub(super) fn choose(
    tx: &mut Transaction<'_>,
    pools: &Pools,
    wanted: &Wanted,
    lock: bool,
) -> Outcome<Reservation> {
    let pool = if lock {
        "SELECT next_vmid FROM blockhost.pool FOR UPDATE"
    } else {
        "SELECT next_vmid FROM blockhost.pool"
    };
    let next: i32 = tx.query_one(pool, &[])?.try_get(0)?;
    let plain = |table: &str| format!("SELECT record FROM blockhost.{table} WHERE name = $1");
    let name = wanted.name.as_str();
    if let Some(row) = tx.query_opt(&plain("machine"), &[&name])? {
        let vm: VmRecord = read(&row)?;
        if vm.status != Status::Destroyed {
            return Err(change::name_taken(&vm).into());
        }
    }
    if let Some(row) = tx.query_opt(&plain("reservation"), &[&name])? {
        return Err(StoreError::InTheMaking(Box::new(read(&row)?)).into());
    }
    let used = in_use(tx)?;
    let next = u32::try_from(next).unwrap_or(0);
    Ok(change::reserve(pools, wanted, next, used)?)
}

pub(super) fn token(tx: &mut Transaction<'_>, token: u64) -> Outcome<Option<TokenReservation>> {
    tx.query_opt(
        "SELECT record FROM blockhost.token WHERE token = $1::text::numeric FOR UPDATE",
        &[&token.to_string()],
    )?
    .map(|row| read(&row))
    .transpose()
}

/// Two that promise the same token at once both find none: the second waits here for the first, and then must not overwrite.
pub(super) fn write_token(
    tx: &mut Transaction<'_>,
    token: u64,
    held: &TokenReservation,
) -> Outcome<()> {
    tx.execute(
        "INSERT INTO blockhost.token (token, record) VALUES ($1::text::numeric, $2)
         ON CONFLICT (token) DO UPDATE SET record = EXCLUDED.record",
        &[&token.to_string(), &Json(held)],
    )?;
    Ok(())
}

/// What was promised to a machine and is not on the chain may be promised again.
pub(super) fn free_tokens(tx: &mut Transaction<'_>, name: &VmName) -> Outcome<()> {
    tx.execute(
        "UPDATE blockhost.token SET record = jsonb_set(record, '{status}', '\"failed\"')
         WHERE record->>'vm_name' = $1 AND record->>'status' = 'reserved'",
        &[&name.as_str()],
    )?;
    Ok(())
}

/// The token is not this machine's.
pub(super) fn disown(tx: &mut Transaction<'_>, number: u64, name: &VmName) -> Outcome<()> {
    if let Some(mut held) = token(tx, number)?
        && change::disown(&mut held, name)
    {
        write_token(tx, number, &held)?;
    }
    Ok(())
}

/// Only one at a time decides about a token, also about one that nobody has yet.
pub(super) fn lock_token(tx: &mut Transaction<'_>, token: u64) -> Outcome<()> {
    tx.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('blockhost token ' || $1, 0))",
        &[&token.to_string()],
    )?;
    Ok(())
}
