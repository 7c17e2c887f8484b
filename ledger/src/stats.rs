//! What a ledger holds, in numbers: how many records of which kind, since when, how fast they come, how much disk they
//! take. From the index, or counted record by record. Called by the command line and by `service`.

use crate::dir::{self, LedgerDir};
use crate::index::{Counted, Index, IndexError};
use crate::merkle::hex;
use crate::query::{Fields, QueryError};
use crate::reader::{ReadError, Reader};
use serde::Serialize;
use std::collections::BTreeMap;

/// Values of one field that are told apart; the others are counted together.
pub const MAX_VALUES: usize = 50;
/// Different values of one field that are counted at all when there is no index: hostile names are not.
const MAX_COUNTED: usize = 100_000;
const DAY_US: i64 = 86_400_000_000;

/// How often one value occurs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The value.
    pub value: String,
    /// Records that have it.
    pub records: u64,
}

/// Bytes on disk, as the file system counts them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Disk {
    /// Segments: the records themselves.
    pub segments: u64,
    /// Block files, derived.
    pub blocks: u64,
}

/// The numbers of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Records.
    pub records: u64,
    /// Root over them, hexadecimal.
    pub root: Option<String>,
    /// Time of the first record, microseconds since 1970 UTC.
    pub first_us: Option<i64>,
    /// Time of the last record, microseconds since 1970 UTC.
    pub last_us: Option<i64>,
    /// Records a day between the two, over at least a day.
    pub per_day: u64,
    /// Records of the day before the last record.
    pub last_day: u64,
    /// Bytes on disk.
    pub disk: Disk,
    /// Bytes of segments a record.
    pub bytes_per_record: u64,
    /// By phase, category, plugin, operation, action and user: the most frequent values first, at most [`MAX_VALUES`].
    pub counts: BTreeMap<&'static str, Vec<Count>>,
    /// Counted from the records themselves, not from the index.
    pub counted: bool,
}

/// Counts with the index, or every record without one.
///
/// # Errors
/// The ledger or the index.
pub fn stats(
    ledger: &LedgerDir,
    reader: &Reader,
    index: Option<&Index>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Stats, QueryError> {
    let records = reader.size();
    let time = |item: Option<Result<(u64, Vec<u8>), ReadError>>| {
        let record = item.transpose()?;
        Ok::<_, ReadError>(record.map(|(_, record)| Fields::of(&record).ts_us))
    };
    // The first that was not pruned; the newest segments never are.
    let first_us = time(reader.records(0).next())?;
    let last_us = time(reader.records(0).next_back())?;
    let since = last_us.unwrap_or(0).saturating_sub(DAY_US);
    let (counts, last_day) = match index {
        Some(index) => by_index(index, since)?,
        None => by_hand(reader, since, progress)?,
    };
    let spent = last_us.unwrap_or(0).saturating_sub(first_us.unwrap_or(0));
    let days = u128::try_from(spent.max(DAY_US)).unwrap_or(1);
    let per_day = u128::from(records) * u128::try_from(DAY_US).unwrap_or(1) / days;
    let disk = Disk {
        segments: bytes_in(ledger, dir::SEGMENTS)?,
        blocks: bytes_in(ledger, dir::BLOCKS)?,
    };
    Ok(Stats {
        records,
        root: reader.head().ok().map(|head| hex(&head.root)),
        first_us,
        last_us,
        per_day: u64::try_from(per_day).unwrap_or(u64::MAX),
        last_day,
        bytes_per_record: disk.segments.checked_div(records).unwrap_or(0),
        disk,
        counts,
        counted: index.is_none(),
    })
}

type Counts = BTreeMap<&'static str, Vec<Count>>;

fn by_index(index: &Index, since: i64) -> Result<(Counts, u64), IndexError> {
    let mut counts = Counts::new();
    for field in Counted::ALL {
        let values = index.tallies(field, MAX_VALUES)?;
        let values = values.into_iter().map(|tally| Count {
            value: tally.text,
            records: tally.count,
        });
        counts.insert(field.name(), values.collect());
    }
    Ok((counts, index.since(since)?))
}

fn by_hand(
    reader: &Reader,
    since: i64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Counts, u64), ReadError> {
    let mut maps: [BTreeMap<String, u64>; Counted::ALL.len()] = Default::default();
    let mut recent = 0;
    let total = reader.size();
    for index in 0..total {
        if index % 4096 == 0 {
            progress(index, total);
        }
        let Some(record) = reader.get_unpruned(index)? else {
            continue;
        };
        let fields = Fields::of(&record);
        recent += u64::from(fields.ts_us > since);
        let texts = [
            &fields.phase,
            &fields.category,
            &fields.plugin_id,
            &fields.operation,
            &fields.action,
            &fields.user,
        ];
        for (map, text) in maps.iter_mut().zip(texts) {
            if let Some(count) = map.get_mut(&**text) {
                *count += 1;
            } else if map.len() < MAX_COUNTED {
                map.insert(text.to_string(), 1);
            }
        }
    }
    progress(total, total);
    let mut counts = Counts::new();
    for (field, map) in Counted::ALL.into_iter().zip(maps) {
        let mut values: Vec<Count> = map
            .into_iter()
            .map(|(value, records)| Count { value, records })
            .collect();
        values.sort_by(|a, b| b.records.cmp(&a.records).then(a.value.cmp(&b.value)));
        values.truncate(MAX_VALUES);
        counts.insert(field.name(), values);
    }
    Ok((counts, recent))
}

/// Bytes that the files of a sub-directory take; none when it is not there.
fn bytes_in(ledger: &LedgerDir, name: &str) -> Result<u64, ReadError> {
    let sub = match ledger.sub(name) {
        Ok(sub) => sub,
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = 0_u64;
    for name in sub.names()? {
        bytes = bytes.saturating_add(sub.bytes_of(&name)?.unwrap_or(0));
    }
    Ok(bytes)
}
