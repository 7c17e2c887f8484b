//! The features in block files, computed once more from the records. No hash covers them and no proof rests on them, and a
//! replay takes several times as long as everything else: only for who asks for it (`verify --features`).

use super::{Problem, VerifyReport};
use crate::blocks::{self, BLOCK_RECORDS};
use crate::dir::{self, LedgerDir};
use crate::features::{GENERATION_RECORDS, Generations, NAMES, Vector, replay_from};
use crate::reader::{ReadError, Reader};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

/// Adds to `report` what is wrong with the features in block files. `progress` is told records done and records in all.
///
/// # Errors
/// The ledger cannot be read; where it is damaged, or its payloads are gone, a note says what was not compared.
pub fn verify_features(
    ledger: &LedgerDir,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), ReadError> {
    let reader = match Reader::open(ledger.try_clone()?, None) {
        Ok(reader) => reader,
        Err(ReadError::File(error)) => return Err(error.into()),
        Err(error) => {
            let note = format!("the features in block files were not compared: {error}");
            report.notes.push(note);
            return Ok(());
        }
    };
    let mut found = Found::default();
    match ledger.sub(dir::BLOCKS) {
        Ok(blocks) => all_generations(&reader, &blocks, &mut found, progress),
        // That they are missing is said elsewhere.
        Err(error) if error.errno() == Some(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    report.features = Some(found.compared);
    report.problems.extend(found.problems.into_values());
    report
        .problems
        .sort_by_key(|problem| problem.height.unwrap_or(u64::MAX));
    report.ok = report.problems.is_empty();
    report.notes.extend(found.notes.into_values());
    if found.without > 0 {
        report.notes.push(format!(
            "{} block file(s) have no features: written before there were any",
            found.without
        ));
    }
    Ok(())
}

/// What was found, problems and notes by the height concerned.
#[derive(Default)]
struct Found {
    compared: u64,
    /// Block files without any features.
    without: u64,
    problems: BTreeMap<u64, Problem>,
    notes: BTreeMap<u64, String>,
}

impl Found {
    fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.without += other.without;
        self.problems.extend(other.problems);
        self.notes.extend(other.notes);
    }
}

/// Each generation can be replayed by itself, with all processors.
fn all_generations(
    reader: &Reader,
    blocks: &LedgerDir,
    found: &mut Found,
    progress: &mut dyn FnMut(u64, u64),
) {
    let (size, next) = (reader.size(), AtomicU64::new(0));
    let count = size.div_ceil(GENERATION_RECORDS);
    let (sender, told) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..crate::parallel::processors().min(usize::try_from(count).unwrap_or(1)) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let first = number * GENERATION_RECORDS;
                    let end = size.min(first + GENERATION_RECORDS);
                    // Nobody listens any more: nothing to say.
                    let _ = sender.send((end - first, generation(reader, blocks, first, end)));
                }
            });
        }
        drop(sender);
        let mut done = 0;
        for (records, some) in told {
            done += records;
            found.add(some);
            progress(done, size);
        }
    });
}

/// The records from leaf index `first`, where a generation begins, to before `end`.
fn generation(reader: &Reader, blocks: &LedgerDir, first: u64, end: u64) -> Found {
    let mut found = Found::default();
    let from = replay_from(first);
    let gone = reader.pruned();
    let gone = gone
        .iter()
        .find(|range| range.first <= end && range.last > from);
    if let Some(range) = gone {
        let note = format!(
            "the features of records {} to {end} were not compared: they rest on records {} to {}, whose payloads were pruned",
            first + 1,
            range.first,
            range.last
        );
        found.notes.insert(first, note);
        return found;
    }
    let mut replay: Generations = Generations::new(first);
    let mut vectors: Vec<Vector> = Vec::with_capacity(usize::try_from(BLOCK_RECORDS).unwrap_or(0));
    let read = reader.each(from, end, &mut |index, _, record| {
        let vector = replay.push(record);
        if index < first {
            return;
        }
        vectors.push(vector);
        if (index + 1).is_multiple_of(BLOCK_RECORDS) || index + 1 == end {
            compare(blocks, index / BLOCK_RECORDS, &vectors, &mut found);
            vectors.clear();
        }
    });
    if let Err(error) = read {
        let note = format!(
            "the features of records {} to {end} were not all compared: {error}",
            first + 1
        );
        found.notes.insert(first, note);
    }
    found
}

/// Compares the file of one block, whose number from 0 is `number`, with the features of its records.
fn compare(blocks: &LedgerDir, number: u64, vectors: &[Vector], found: &mut Found) {
    let name = blocks::file_name(number + 1);
    // A file that is missing, cannot be read or has other records is named by whoever compares these.
    let Ok(Some(file)) = blocks.read(&name, super::MAX_BLOCK_FILE) else {
        return;
    };
    let written = blocks::features_in(&file);
    if written.iter().all(Option::is_none) {
        found.without += u64::from(!written.is_empty());
        return;
    }
    for (height, (written, replayed)) in
        (number * BLOCK_RECORDS + 1..).zip(written.iter().zip(vectors))
    {
        found.compared += 1;
        let Some(what) = difference(written.as_ref(), replayed) else {
            continue;
        };
        let problem = Problem {
            height: Some(height),
            place: format!("{}/{name}", dir::BLOCKS),
            what: format!("{what}; remove the block file, it is rebuilt when the agent starts"),
        };
        found.problems.insert(height, problem);
        return;
    }
}

/// How the features of a record differ from those that it has, in words.
fn difference(written: Option<&Vector>, replayed: &Vector) -> Option<String> {
    let Some(written) = written else {
        return Some("the record has no features here, others of its block have".to_owned());
    };
    let at = written
        .0
        .iter()
        .zip(replayed.0)
        .position(|(a, b)| *a != b)?;
    let shown = |vector: &Vector| {
        let mut text = Vec::new();
        vector.write_json(&mut text);
        let text = text.escape_ascii().to_string();
        let number = text.trim_matches(['[', ']']).split(',').nth(at);
        number.unwrap_or_default().to_owned()
    };
    Some(format!(
        "feature {at} of the record ({}) is {} here, a replay of the records gives {}",
        NAMES[at],
        shown(written),
        shown(replayed)
    ))
}
