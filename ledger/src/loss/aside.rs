//! What is given up gets another name, beside where it was: files behind the intact part, the faulty log's original,
//! heads, block files. Called by `settle`; may be killed anywhere and called again.

use super::Loss;
use crate::block_index::{PAGE_BLOCKS, page_of};
use crate::blocks;
use crate::dir::{self, FileError, LedgerDir, SHARED_FILE, on, read_at, write_all_at};
use crate::failpoint;
use crate::scan::Fault;
use crate::segment;
use rustix::fd::AsFd as _;
use rustix::fs::{AtFlags, OFlags, RenameFlags};
use rustix::io::Errno;

/// Renames `name` so that nobody takes it for a part of the ledger, beside where it was. Nothing there is fine.
pub(super) fn aside(dir: &LedgerDir, name: &str, loss: &Loss) -> Result<(), FileError> {
    aside_as(dir, name, name, loss)
}

/// The same for a file that has another name than people look for.
fn aside_as(dir: &LedgerDir, file: &str, name: &str, loss: &Loss) -> Result<(), FileError> {
    for number in 0..100 {
        let kept = match number {
            0 => format!("lost-{}.{name}", loss.time_s),
            _ => format!("lost-{}-{number}.{name}", loss.time_s),
        };
        match rustix::fs::renameat_with(dir, file, dir, kept, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(on("set aside", name)(errno)),
        }
    }
    Err(on("set aside", name)(Errno::EXIST))
}

/// Sets aside what is behind the intact part: whole files, and of the faulty log the original, whose intact beginning
/// takes its place in one step.
pub(super) fn cut(ledger: &LedgerDir, fault: Option<&Fault>, loss: &Loss) -> Result<(), FileError> {
    let segments = ledger.make_sub(dir::SEGMENTS)?;
    // Killed in the middle of that step: whichever of the two is not the log now is under this name.
    for name in segments.names()? {
        let of = name
            .strip_prefix('.')
            .and_then(|name| name.strip_suffix(".cut"));
        let Some(log) = of.filter(|log| segment::first_of(log).is_some()) else {
            continue;
        };
        let half_made = fault.is_some_and(|fault| fault.good_bytes > 0 && faulty(fault) == log);
        if half_made {
            rustix::fs::unlinkat(&segments, &name, AtFlags::empty()).map_err(on("remove", name))?;
        } else {
            aside_as(&segments, &name, log, loss)?;
        }
    }
    let Some(fault) = fault else {
        return segments.sync();
    };
    if fault.good_bytes > 0 {
        let log = faulty(fault);
        let copy = format!(".{log}.cut");
        copy_beginning(&segments, log, &copy, fault.good_bytes)?;
        failpoint::reach("loss-copied", b"");
        rustix::fs::renameat_with(&segments, &copy, &segments, log, RenameFlags::EXCHANGE)
            .map_err(on("exchange with its intact beginning", log))?;
        failpoint::reach("loss-exchanged", b"");
        aside_as(&segments, &copy, log, loss)?;
        segments.sync()?;
    }
    for name in behind(&segments, fault)? {
        aside(&segments, &name, loss)?;
        failpoint::reach("loss-segment-set-aside", name.as_bytes());
    }
    segments.sync()
}

fn copy_beginning(segments: &LedgerDir, from: &str, to: &str, bytes: u64) -> Result<(), FileError> {
    let source = segments.file(from, OFlags::RDONLY, 0)?;
    let target = segments.file(
        to,
        OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        SHARED_FILE,
    )?;
    let mut chunk = vec![0; 256 * 1024];
    let mut at = 0;
    while at < bytes {
        let left = usize::try_from(bytes - at).unwrap_or(usize::MAX);
        let wanted = left.min(chunk.len());
        let read = read_at(source.as_fd(), &mut chunk[..wanted], at).map_err(on("read", from))?;
        if read == 0 {
            return Err(on("read", from)(Errno::IO));
        }
        write_all_at(target.as_fd(), &chunk[..read], at).map_err(on("write", to))?;
        at += read as u64;
    }
    rustix::fs::fchmod(&target, rustix::fs::Mode::from_raw_mode(SHARED_FILE))
        .and_then(|()| rustix::fs::fsync(&target))
        .map_err(on("make durable", to))
}

/// Block files from the first that is not whole any more: maybe the last readable copy of a lost record.
pub(super) fn set_aside_blocks(ledger: &LedgerDir, loss: &Loss) -> Result<(), FileError> {
    let blocks = match ledger.sub(dir::BLOCKS) {
        Ok(blocks) => blocks,
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    let whole = loss.size / blocks::BLOCK_RECORDS;
    for name in blocks.names()? {
        let lost = blocks::id_of(&name).is_some_and(|id| id > whole);
        let page = page_of(&name).is_some_and(|page| page > whole / PAGE_BLOCKS as u64);
        if lost || page {
            aside(&blocks, &name, loss)?;
        }
    }
    blocks.sync()
}

/// The first record's index in a file's name, whatever form of a segment it is.
fn first_of(name: &str) -> Option<u64> {
    let stem = ["log", "hsh", "zst", "kept"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending)?.strip_suffix('.'))?;
    segment::first_of(&format!("{stem}.log"))
}

/// Names of what is not kept; of the faulty log itself a part may be.
pub(super) fn behind(segments: &LedgerDir, fault: &Fault) -> Result<Vec<String>, FileError> {
    let faulty = faulty(fault);
    let from = first_of(faulty).unwrap_or(fault.good);
    let mut names = segments.names()?;
    names.retain(|name| first_of(name).is_some_and(|first| first >= from));
    if fault.good_bytes > 0 {
        names.retain(|name| name != faulty);
    }
    // The last first: what is left is always a log with something behind its end, or a whole one.
    names.reverse();
    Ok(names)
}

pub(super) fn faulty(fault: &Fault) -> &str {
    fault
        .segment
        .rsplit_once('/')
        .map_or(&fault.segment, |(_, name)| name)
}
