//! `blockhost ledger import`: block files of earlier programs become events of this ledger, through the agent like every
//! other event. What is in already is found in the ledger itself, so it may be stopped and started again at any time.

use super::context::{Context, Failure};
use super::progress;
use super::select::without_index;
use super::text::printable;
use crate::import::{ACTION, BlockFile, MAX_FILE_BYTES, RESOURCE};
use crate::index;
use crate::plugin::{Event, Registry};
use crate::query::{self, Filter, Order, Query, Resource};
use crate::record::Phase;
use blockhost_proto::action::Action;
use blockhost_proto::client::CallError;
use blockhost_proto::client::blocking::Client;
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use serde::Serialize;
use std::collections::HashSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Options of `import`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger import /var/lib/op-dbus/blockchain --dry-run
  blockhost ledger import /var/lib/op-dbus/blockchain

Every footprint becomes one event with the original's hashes, in your name. What is damaged is told and left out. It may
be stopped and started again: what was imported is not imported twice.

Exit codes: 0 all imported, 1 something is damaged (the rest is imported), 3 the files or the agent cannot be reached.")]
pub struct Args {
    /// Directory with block_0000000001.json and so on
    #[arg(value_name = "BLOCKS")]
    blocks: PathBuf,
    /// Check the files, import nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How long the agent may be too busy before we give up.
const PATIENCE: Duration = Duration::from_secs(300);
/// Records of the ledger that are looked through at a time.
const PAGE: usize = 1000;

/// What became of one file.
#[derive(Debug, Default, Serialize)]
struct FileReport {
    file: String,
    block_id: Option<u64>,
    block_hash_confirmed: bool,
    footprints: usize,
    imported: usize,
    already: usize,
    damage: Vec<String>,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let layout = Layout::from_env();
    if !args.dry_run && context.dir != layout.ledger() {
        return Err(Failure::Usage(
            "events go into this host's own ledger: --dir is only for --dry-run".to_owned(),
        ));
    }
    let files = block_files(&args.blocks)?;
    let mut known = match context.reader() {
        Ok(reader) => imported(context, &reader)?,
        // Nothing was ever written: then nothing was imported. With the agent at hand this would be an error.
        Err(_) if args.dry_run => HashSet::new(),
        Err(failure) => return Err(failure),
    };
    let mut agent = Agent {
        layout,
        client: None,
    };
    let registry = Registry::default();
    let bar = progress::bar("importing");
    let total = files.len() as u64;
    let mut reports = Vec::new();
    let mut before: Option<(u64, String)> = None;
    let mut stopped = None;
    for (at, path) in files.iter().enumerate() {
        bar.told(at as u64, total);
        let mut report = FileReport {
            file: path
                .file_name()
                .map_or_else(String::new, |name| printable(&name.display().to_string())),
            ..FileReport::default()
        };
        match read(path).and_then(|bytes| BlockFile::parse(&bytes).map_err(|e| e.to_string())) {
            Err(why) => {
                report.damage.push(why);
                before = None;
            }
            Ok(block) => {
                let last = before.as_ref().map(|(id, hash)| (*id, hash.as_str()));
                report.damage.extend(block.follows(last));
                if Some(block.block_id) != number_of(path) {
                    report
                        .damage
                        .push(format!("the file says it is block {}", block.block_id));
                }
                before = Some((block.block_id, block.block_hash.clone()));
                let events = events(&block, &registry, &mut known, &mut report);
                for event in events {
                    if args.dry_run {
                        continue;
                    }
                    if let Err(failure) = agent.append(&event) {
                        stopped = Some(failure);
                        break;
                    }
                    report.imported += 1;
                }
            }
        }
        reports.push(report);
        if stopped.is_some() {
            break;
        }
    }
    bar.done();
    print(context, args, &reports)?;
    if let Some(failure) = stopped {
        return Err(failure);
    }
    match reports
        .iter()
        .filter(|report| !report.damage.is_empty())
        .count()
    {
        0 => Ok(()),
        damaged => Err(Failure::NotVerified(format!(
            "{damaged} of {total} files are damaged; what is whole in them was taken"
        ))),
    }
}

/// The events of a block that are not in the ledger yet.
fn events(
    block: &BlockFile,
    registry: &Registry,
    known: &mut HashSet<String>,
    report: &mut FileReport,
) -> Vec<Event> {
    report.block_id = Some(block.block_id);
    report.block_hash_confirmed = block.confirmed;
    report.footprints = block.footprints.len() + block.damage.len();
    report.damage.extend(block.damage.iter().cloned());
    let mut events = Vec::new();
    for footprint in &block.footprints {
        if known.insert(footprint.resource()) {
            events.push(footprint.event(block, registry));
        } else {
            report.already += 1;
        }
    }
    events
}

fn print(context: &mut Context, args: &Args, reports: &[FileReport]) -> Result<(), Failure> {
    let sum = |count: fn(&FileReport) -> usize| reports.iter().map(count).sum::<usize>();
    let footprints = sum(|report| report.footprints);
    let imported = sum(|report| report.imported);
    let already = sum(|report| report.already);
    if args.json {
        return context.json(&serde_json::json!({
            "dry_run": args.dry_run, "files": reports, "footprints": footprints,
            "imported": imported, "already": already,
        }));
    }
    for report in reports {
        for damage in &report.damage {
            writeln!(
                context.out,
                "DAMAGED  {}: {}",
                report.file,
                printable(damage)
            )?;
        }
    }
    let confirmed = reports
        .iter()
        .filter(|report| report.block_hash_confirmed)
        .count();
    writeln!(
        context.out,
        "{} files ({confirmed} with a block_hash that could be computed), {footprints} footprints: {imported} imported, {already} already here",
        reports.len()
    )?;
    Ok(())
}

/// The footprints that we ourselves imported before; what others call so does not count.
fn imported(context: &Context, reader: &crate::reader::Reader) -> Result<HashSet<String>, Failure> {
    let path = index::default_path(&context.dir);
    let uid = u64::from(rustix::process::geteuid().as_raw());
    let mut known = HashSet::new();
    let mut from = 1;
    loop {
        let query = Query {
            filter: Filter {
                heights: Some(from..=u64::MAX),
                phase: Some(Phase::Event),
                action: Some(ACTION.to_owned()),
                resource: Some(Resource::Prefix(RESOURCE.to_owned())),
                ..Filter::default()
            },
            order: Order::Oldest,
            limit: PAGE,
        };
        let answer = query::best(
            reader,
            path.as_deref(),
            &query,
            &mut |_, _| {},
            &mut without_index,
        )?;
        for found in &answer.found {
            let record: serde_json::Value =
                serde_json::from_slice(&found.record).unwrap_or_default();
            if record["uid"] == uid
                && let Some(resource) = record["resource"].as_str()
            {
                known.insert(resource.to_owned());
            }
        }
        match answer.found.last() {
            Some(last) if answer.more => from = last.height + 1,
            _ => return Ok(known),
        }
    }
}

/// The block files of a directory, by number.
fn block_files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fail = |error: std::io::Error| {
        Failure::Unreadable(format!(
            "cannot read the directory {}: {error}",
            dir.display()
        ))
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if let Some(number) = number_of(&path) {
            files.push((number, path));
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::Unreadable(format!(
            "there is no file block_<number>.json in {}",
            dir.display()
        )));
    }
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix("block_")?.strip_suffix(".json")?;
    let good = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    good.then(|| digits.parse().ok()).flatten()
}

/// Reads a file, not more of it than a block may have; a pipe or device is none.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let flags =
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
        .map_err(|e| format!("cannot be opened: {e}"))?;
    let file = std::fs::File::from(fd);
    let regular = file.metadata().is_ok_and(|meta| meta.is_file());
    if !regular {
        return Err("is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| format!("cannot be read: {e}"))?;
    Ok(bytes)
}

/// The agent, connected when it is needed.
struct Agent {
    layout: Layout,
    client: Option<Client>,
}

impl Agent {
    /// Appends one event; waits while the agent has too much to do.
    fn append(&mut self, event: &Event) -> Result<(), Failure> {
        let action = Action::from_parts("ledger-append", &event.params())
            .map_err(|error| Failure::Unreadable(error.to_string()))?;
        let until = Instant::now() + PATIENCE;
        loop {
            let client = match &mut self.client {
                Some(client) => client,
                None => {
                    let client = Client::connect_layout(&self.layout);
                    self.client.insert(client.map_err(failed)?)
                }
            };
            match client.call(&action) {
                Ok(_) => return Ok(()),
                Err(error) if error.code() == Some(ErrorCode::Busy) && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(500));
                }
                // Whether it is in the ledger is not known: the next run looks there.
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

fn failed(error: CallError) -> Failure {
    Failure::Unreadable(format!(
        "{error}; what was imported stays, start again to go on"
    ))
}
