//! Reads all segments and decides what is history: frames, chain, heights, tree, commits; torn tails against damage.
//! Shared by the writer (recovery), the reader (index) and `verify`, so that all three judge alike.

use crate::dir::{FileError, LedgerDir, on, read_at};
use crate::epochs::{Epochs, may_begin_epoch};
use crate::merkle::{Frontier, Hash, hex, leaf_hash};
use crate::note::Vkey;
use crate::record;
use crate::segment::{self, Commit, Cosigned, FrameReader, Header, Step};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::OFlags;

/// Where one record is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Which of [`Scan::segments`].
    pub segment: usize,
    /// Where its payload begins.
    pub offset: u64,
    /// Its bytes.
    pub length: usize,
    /// Its hash.
    pub leaf: Hash,
}

/// One segment that was read.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Name in the segments directory.
    pub name: String,
    /// Open for reading.
    pub fd: OwnedFd,
    /// Its header.
    pub header: Header,
    /// End of the last valid commit.
    pub end: u64,
    /// Length of the file.
    pub file_bytes: u64,
}

/// All that is committed.
#[derive(Debug)]
pub(crate) struct Scan {
    pub segments: Vec<Segment>,
    pub entries: Vec<Entry>,
    pub frontier: Frontier,
    pub last_commit: Option<Commit>,
    pub commits: u64,
    /// Bytes behind the last commit that a crash left (or a writer is just writing).
    pub torn_bytes: u64,
    /// A last segment that was made but never got a valid header: name, to be made again.
    pub unborn: Option<String>,
    /// Roots at the sizes that were asked for, as far as the log reaches.
    pub roots: Vec<(u64, Hash)>,
    /// The keys, where the first was given.
    pub epochs: Option<Epochs>,
    /// The largest head that witnesses cosigned, as the log itself says.
    pub cosigned: Option<Cosigned>,
}

/// Something that no crash explains. The first wrong place and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{segment}, byte {offset}, height {height}: {why}")]
pub struct Fault {
    /// Height of the first record that cannot be trusted.
    pub height: u64,
    /// Segment file.
    pub segment: String,
    /// Where in the file.
    pub offset: u64,
    /// What was found.
    pub why: String,
    /// Number of records before it that are committed and consistent.
    pub good: u64,
}

/// A scan that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Fault(Box<Fault>),
}

/// How the signatures of commits are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signatures {
    /// The last one: it covers the whole tree.
    Last,
    /// Every one.
    All,
}

pub(crate) struct Plan<'a> {
    /// The first key of the log; later ones are followed from it.
    pub key: Option<&'a Vkey>,
    pub signatures: Signatures,
    /// Tree sizes whose root is wanted.
    pub roots_at: Vec<u64>,
    /// Called for every committed record: index, bytes.
    pub record: &'a mut dyn FnMut(u64, &[u8]),
    /// Called now and then: bytes read, bytes in all.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

/// Reads all segments of the ledger.
pub(crate) fn scan(ledger: &LedgerDir, plan: &mut Plan<'_>) -> Result<Scan, ScanError> {
    let mut scan = Scan {
        segments: Vec::new(),
        entries: Vec::new(),
        frontier: Frontier::new(),
        last_commit: None,
        commits: 0,
        torn_bytes: 0,
        unborn: None,
        roots: Vec::new(),
        epochs: plan.key.cloned().map(Epochs::starting_with),
        cosigned: None,
    };
    if plan.roots_at.contains(&0) {
        scan.roots.push((0, scan.frontier.root()));
    }
    let dir = match ledger.sub(crate::dir::SEGMENTS) {
        Ok(dir) => dir,
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => return Ok(scan),
        Err(error) => return Err(error.into()),
    };
    let mut files = Vec::new();
    let mut total = 0;
    for name in dir.names()? {
        let Some(first) = segment::first_of(&name) else {
            continue;
        };
        let fd = dir.file(&name, OFlags::RDONLY, 0)?;
        let stat = rustix::fs::fstat(&fd).map_err(on("look at", &name))?;
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        total += bytes;
        files.push((first, name, fd, bytes));
    }
    files.sort_by_key(|(first, ..)| *first);
    let count = files.len();
    let mut before = 0;
    for (index, (first, name, fd, file_bytes)) in files.into_iter().enumerate() {
        let last = index + 1 == count;
        let fault = |scan: &Scan, offset, why: String| fault(scan, &name, offset, why);
        if first != scan.frontier.size() {
            let why = format!(
                "this segment begins with height {} but the one before it ends with height {}: a segment is missing or was moved",
                first.saturating_add(1),
                scan.frontier.size()
            );
            return Err(fault(&scan, 0, why));
        }
        let mut head = [0; 64];
        let read = read_at(fd.as_fd(), &mut head, 0).map_err(on("read", &name))?;
        let header = match Header::decode(&head) {
            Ok(header) if read == head.len() => header,
            // A segment is made durable before its first record; without any commit in it a crash explains a bad header.
            problem => {
                let why = problem.err().unwrap_or("it ends inside its header");
                let blank = head.iter().all(|b| *b == 0) || first > 0;
                if last
                    && blank
                    && (file_bytes <= segment::HEADER_BYTES
                        || is_zero(fd.as_fd(), &name, file_bytes)?)
                {
                    scan.unborn = Some(name);
                    break;
                }
                return Err(fault(&scan, 0, why.to_owned()));
            }
        };
        if header.first_height != first + 1 || header.root_before != scan.frontier.root() {
            return Err(fault(
                &scan,
                0,
                "the header does not continue the segment before it".to_owned(),
            ));
        }
        scan.segments.push(Segment {
            name,
            fd,
            header,
            end: segment::HEADER_BYTES,
            file_bytes,
        });
        read_segment(&mut scan, plan, last, before, total)?;
        before += file_bytes;
    }
    if let (Some(commit), Some(epochs)) = (scan.last_commit, &scan.epochs)
        && plan.signatures == Signatures::Last
        && let Err(why) = epochs.check(&commit)
        && let Some(segment) = scan.segments.last()
    {
        return Err(fault(&scan, &segment.name, segment.end, why));
    }
    (plan.progress)(total, total);
    Ok(scan)
}

/// Records that wait for their commit.
struct Pending {
    offset: u64,
    length: usize,
    leaf: Hash,
}

fn read_segment(
    scan: &mut Scan,
    plan: &mut Plan<'_>,
    last: bool,
    before: u64,
    total: u64,
) -> Result<(), ScanError> {
    let at = scan.segments.len() - 1;
    let (fd, name, salt) = {
        let segment = &scan.segments[at];
        (
            segment
                .fd
                .try_clone()
                .map_err(on("duplicate the descriptor of", &segment.name))?,
            segment.name.clone(),
            segment.header.salt,
        )
    };
    let mut frames = FrameReader::new(fd.as_fd(), &name, salt);
    let mut pending: Vec<Pending> = Vec::new();
    // The batch is checked on a copy: what is not committed must leave no trace.
    let mut frontier = scan.frontier.clone();
    let mut prev = scan
        .entries
        .last()
        .map_or(record::GENESIS_PREV, |entry| entry.leaf);
    let mut batch: Vec<u8> = Vec::new();
    let mut told = 0_u64;
    let (stopped, tail) = loop {
        match frames.next_frame()? {
            Step::Frame {
                offset,
                kind: segment::RECORD,
                payload,
            } => {
                let height = frontier.size() + 1;
                if record::height_of(payload) != Some(height) {
                    let found =
                        record::height_of(payload).map_or("none".to_owned(), |h| h.to_string());
                    let why = format!(
                        "the record here says height {found}: records were moved, removed or added"
                    );
                    return Err(fault_at(scan, &name, offset, height, why));
                }
                if !record::follows(payload, &prev) {
                    let why = format!(
                        "prev_hash is not the hash of the record before it ({}): one of the two was changed",
                        hex(&prev)
                    );
                    return Err(fault_at(scan, &name, offset, height, why));
                }
                let leaf = leaf_hash(payload);
                prev = leaf;
                frontier.push(leaf);
                if plan.roots_at.contains(&frontier.size()) {
                    scan.roots.push((frontier.size(), frontier.root()));
                }
                pending.push(Pending {
                    offset: offset + segment::FRAME_BYTES as u64,
                    length: payload.len(),
                    leaf,
                });
                batch.extend_from_slice(payload);
            }
            Step::Frame {
                offset,
                kind: segment::COMMIT,
                payload,
            } => {
                let height = scan.frontier.size() + 1;
                let Some(commit) = Commit::decode(payload) else {
                    return Err(fault(
                        scan,
                        &name,
                        offset,
                        "a commit of the wrong length".to_owned(),
                    ));
                };
                if commit.size != frontier.size() || commit.root != frontier.root() {
                    let why = format!(
                        "the commit signs {} records with root {}, but the records before it are {} with root {}: records were changed, removed or added",
                        commit.size,
                        hex(&commit.root),
                        frontier.size(),
                        hex(&frontier.root())
                    );
                    return Err(fault_at(scan, &name, offset, height, why));
                }
                let mut start = 0;
                let named = pending.iter().find_map(|waiting| {
                    let record = &batch[start..start + waiting.length];
                    start += waiting.length;
                    may_begin_epoch(record).then_some(record)
                });
                let all = plan.signatures == Signatures::All;
                if let Some(epochs) = &mut scan.epochs
                    && let Err(why) = epochs.accept(&commit, named, all)
                {
                    return Err(fault_at(scan, &name, offset, height, why));
                }
                let mut start = 0;
                for waiting in pending.drain(..) {
                    (plan.record)(
                        scan.entries.len() as u64,
                        &batch[start..start + waiting.length],
                    );
                    start += waiting.length;
                    scan.entries.push(Entry {
                        segment: at,
                        offset: waiting.offset,
                        length: waiting.length,
                        leaf: waiting.leaf,
                    });
                }
                batch.clear();
                scan.frontier.clone_from(&frontier);
                scan.last_commit = Some(commit);
                scan.commits += 1;
                let end = offset + (segment::FRAME_BYTES + payload.len()) as u64;
                scan.segments[at].end = end;
                if end - told > 1 << 20 {
                    told = end;
                    (plan.progress)(before + end, total);
                }
            }
            Step::Frame {
                offset,
                kind: segment::COSIGNATURE,
                payload,
            } => {
                let cosigned =
                    Cosigned::decode(payload).filter(|head| head.size <= scan.frontier.size());
                let Some(cosigned) = cosigned.filter(|_| pending.is_empty()) else {
                    let why = "cosignatures of a head that the log does not have here: records were removed, or the frame was moved";
                    return Err(fault(scan, &name, offset, why.to_owned()));
                };
                scan.segments[at].end = offset + (segment::FRAME_BYTES + payload.len()) as u64;
                let newest = scan.cosigned.as_ref().map_or(0, |newest| newest.size);
                if cosigned.size >= newest {
                    scan.cosigned = Some(cosigned);
                }
            }
            Step::Frame { offset, kind, .. } => {
                return Err(fault(
                    scan,
                    &name,
                    offset,
                    format!("a frame of the unknown type {kind}: written by a newer version?"),
                ));
            }
            stop @ (Step::End | Step::Damage(_)) => {
                let stopped = if let Step::Damage(why) = stop {
                    why
                } else {
                    "nothing is written here"
                };
                let tail = segment::look_behind(fd.as_fd(), &name, &salt, scan.segments[at].end)?;
                // Beside a writer, what stands behind may have been written since we stopped: then go on reading.
                if tail.bytes == 0 || !frames.goes_on()? {
                    break (stopped, tail);
                }
            }
        }
    };
    scan.roots.retain(|(size, _)| *size <= scan.frontier.size());
    let stopped_at = frames.position();
    let stopped_height = frontier.size() + 1;
    let good_end = scan.segments[at].end;
    if tail.bytes == 0 {
        return Ok(());
    }
    let why = stopped;
    if !last {
        return Err(fault_at(
            scan,
            &name,
            stopped_at,
            stopped_height,
            format!("{why}, and more segments follow"),
        ));
    }
    // A crash can lose sectors of the write it interrupted, and of no other: the commit at its end may then have
    // reached the disk while a sector before it reads as zeros. Anything else with a valid commit behind it is no crash.
    let interrupted = match tail.commits.as_slice() {
        [] => true,
        [(offset, commit)] => {
            let end = *offset + (segment::FRAME_BYTES + segment::COMMIT_BYTES) as u64 - good_end;
            tail.missing_sector && tail.bytes <= end && commit.size > scan.frontier.size()
        }
        _ => false,
    };
    if !interrupted {
        let (offset, commit) = tail
            .commits
            .last()
            .map_or((0, 0), |(offset, commit)| (*offset, commit.size));
        let why = format!(
            "{why}; but a valid commit of {commit} records follows at byte {offset}, so this is not a crash"
        );
        return Err(fault_at(scan, &name, stopped_at, stopped_height, why));
    }
    scan.torn_bytes = tail.bytes;
    Ok(())
}

fn fault(scan: &Scan, segment: &str, offset: u64, why: String) -> ScanError {
    fault_at(scan, segment, offset, scan.frontier.size() + 1, why)
}

fn fault_at(scan: &Scan, segment: &str, offset: u64, height: u64, why: String) -> ScanError {
    let segment = format!("{}/{segment}", crate::dir::SEGMENTS);
    ScanError::Fault(Box::new(Fault {
        height,
        segment,
        offset,
        why,
        good: scan.frontier.size(),
    }))
}

/// Does the file hold only zeros?
fn is_zero(fd: rustix::fd::BorrowedFd<'_>, name: &str, bytes: u64) -> Result<bool, FileError> {
    let mut chunk = vec![0; 64 * 1024];
    let mut at = 0;
    while at < bytes {
        let read = read_at(fd, &mut chunk, at).map_err(on("read", name))?;
        if read == 0 {
            break;
        }
        if chunk[..read].iter().any(|b| *b != 0) {
            return Ok(false);
        }
        at += read as u64;
    }
    Ok(true)
}
