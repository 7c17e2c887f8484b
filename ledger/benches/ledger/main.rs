//! The ledger beside others that keep records: bare append and fdatasync, journald, SQLite, ct-merkle. All in one run, on
//! one file system, in turns. `make bench` runs it; promises are those of docs/specification.md. Exit code 1 with
//! `--check` when one is missed. What cannot run here is named.
#![allow(missing_docs, reason = "a program")]
#![allow(
    clippy::disallowed_methods,
    reason = "peers are started here and nowhere else in this crate; what they print is only counted"
)]

mod journald;
mod ours;
mod peers;
mod table;

use ours::{Ours, realistic};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use table::Table;

pub(crate) type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

/// Something that keeps batches of records durably.
pub(crate) trait Store {
    /// Everything in the batch is on disk when this returns.
    fn keep(&mut self, batch: usize) -> Anyhow<()>;
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    // What strace counts the syncs of: one measurement and nothing else.
    if let [_, flag, which, count] = args.as_slice()
        && flag == "--only"
    {
        return match only(which, count.parse().unwrap_or(100)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&*error),
        };
    }
    match everything() {
        Ok(table) => {
            table.print();
            ExitCode::from(u8::from(
                args.iter().any(|arg| arg == "--check") && table.missed(),
            ))
        }
        Err(error) => fail(&*error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("ledger bench: {error}");
    ExitCode::FAILURE
}

/// Where everything is written: `BENCH_DIR`, or a directory of the system for large files.
pub(crate) fn directory() -> Anyhow<tempfile::TempDir> {
    let parent =
        std::env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    Ok(tempfile::Builder::new()
        .prefix("blockhost-bench-ledger-")
        .tempdir_in(parent)?)
}

fn everything() -> Anyhow<Table> {
    let mut table = Table::default();
    one_caller(&mut table)?;
    many_callers(&mut table)?;
    ours::syncs(&mut table)?;
    ours::verification(&mut table)?;
    ours::trees(&mut table);
    ours::sizes(&mut table)?;
    Ok(table)
}

/// The median of what each took.
fn p50(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times
        .get(times.len() / 2)
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

fn one_caller(table: &mut Table) -> Anyhow<()> {
    const TURNS: usize = 10;
    const EACH: usize = 60;
    let dir = directory()?;
    let mut stores: Vec<(Box<dyn Store>, Vec<Duration>)> = vec![
        (Box::new(Ours::open(&dir.path().join("ours"))?), Vec::new()),
        (
            Box::new(peers::Bare::open(&dir.path().join("bare"))?),
            Vec::new(),
        ),
        (
            Box::new(peers::Sqlite::open(&dir.path().join("sqlite.db"))?),
            Vec::new(),
        ),
    ];
    for _ in 0..TURNS {
        for (store, times) in &mut stores {
            for _ in 0..EACH {
                let begun = Instant::now();
                store.keep(1)?;
                times.push(begun.elapsed());
            }
        }
    }
    let medians: Vec<f64> = stores.into_iter().map(|(_, times)| p50(times)).collect();
    let what = "durable append of 800 bytes, one caller, p50";
    table
        .add(what, "us", medians[0])
        .beside("append + fdatasync", medians[1])
        .ratio_at_most(1.5);
    table
        .add(what, "us", medians[0])
        .beside("SQLite WAL FULL", medians[2]);
    Ok(())
}

/// Callers that each wait for their own record, and one that keeps what waits in one go; records per second.
fn crowd(store: &mut dyn Store, callers: usize, time: Duration) -> Anyhow<f64> {
    use std::sync::mpsc::{Sender, channel};
    let (ask, asked) = channel::<Sender<()>>();
    let begun = Instant::now();
    let threads: Vec<_> = (0..callers)
        .map(|_| {
            let ask = ask.clone();
            std::thread::spawn(move || {
                let (done, answered) = channel();
                while begun.elapsed() < time
                    && ask.send(done.clone()).is_ok()
                    && answered.recv().is_ok()
                {}
            })
        })
        .collect();
    drop(ask);
    let mut kept = 0_usize;
    while let Ok(first) = asked.recv() {
        let mut waiting = vec![first];
        waiting.extend(asked.try_iter().take(255));
        store.keep(waiting.len())?;
        kept += waiting.len();
        for caller in waiting {
            let _ = caller.send(());
        }
    }
    let rate = kept as f64 / begun.elapsed().as_secs_f64();
    for thread in threads {
        thread.join().map_err(|_| "a caller broke")?;
    }
    Ok(rate)
}

fn many_callers(table: &mut Table) -> Anyhow<()> {
    const TURNS: u32 = 3;
    const TURN: Duration = Duration::from_millis(1200);
    let dir = directory()?;
    let mut stores: Vec<(Box<dyn Store>, f64)> = vec![
        (Box::new(Ours::open(&dir.path().join("ours"))?), 0.0),
        (
            Box::new(peers::Sqlite::open(&dir.path().join("batched.db"))?),
            0.0,
        ),
        (
            Box::new(peers::OneByOne(peers::Sqlite::open(
                &dir.path().join("single.db"),
            )?)),
            0.0,
        ),
    ];
    let mut journal = table.or_note(
        "journald",
        journald::Journald::start(&dir.path().join("journal")),
    );
    let (mut critical, mut plain) = (0.0, 0.0);
    for _ in 0..TURNS {
        for (store, rate) in &mut stores {
            *rate += crowd(&mut **store, 64, TURN)? / f64::from(TURNS);
        }
        if let Some(journal) = &mut journal {
            critical += journal.rate(2, 300)? / f64::from(TURNS);
            plain += journal.rate(6, 10_000)? / f64::from(TURNS);
        }
    }
    let what = "durable appends per second, 64 callers";
    let ours = stores[0].1;
    if journal.is_some() {
        table
            .add(what, "/s", ours)
            .beside("journald, CRIT", critical)
            .ratio_at_least(100.0);
        table
            .add(what, "/s", ours)
            .beside("journald, no sync", plain);
    }
    table
        .add(what, "/s", ours)
        .beside("SQLite, batched", stores[1].1)
        .ratio_at_least(1.0);
    table
        .add(what, "/s", ours)
        .beside("SQLite, each", stores[2].1)
        .ratio_at_least(1.0);
    Ok(())
}

/// One measurement alone, so that what it asks of the disk can be counted.
fn only(which: &str, count: usize) -> Anyhow<()> {
    let dir = directory()?;
    match which {
        "one" => {
            let mut store = Ours::open(&dir.path().join("ours"))?;
            (0..count).try_for_each(|_| store.keep(1))
        }
        "many" => {
            let mut store = Ours::open(&dir.path().join("ours"))?;
            (0..count / 64).try_for_each(|_| store.keep(64))
        }
        "bare" => {
            let mut store = peers::Bare::open(&dir.path().join("bare"))?;
            (0..count).try_for_each(|_| store.keep(1))
        }
        "sqlite" => {
            let mut store = peers::Sqlite::open(&dir.path().join("db"))?;
            (0..count).try_for_each(|_| store.keep(1))
        }
        _ => Err(format!(
            "{which} is not one, many, bare or sqlite; a record is {} bytes",
            realistic(0).len()
        )
        .into()),
    }
}
