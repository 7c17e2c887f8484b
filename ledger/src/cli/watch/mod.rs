//! `blockhost ledger watch`: what the root agent is doing now, on a terminal; without one, a line for each record. Reads
//! the log by [`Follower`] a few times a second: no agent, no privileges, nothing is written. The state is in `model`,
//! the drawing in `view`, keys in `keys`; this file brings them together.

mod keys;
mod lines;
mod model;
mod view;
#[cfg(test)]
mod view_tests;

use super::context::{Context, Failure, read_key};
use super::story::story;
use super::text::{now_us, printable};
use crate::dir::{self, LedgerDir};
use crate::epochs::Epochs;
use crate::follow::Follower;
use crate::merkle::hex;
use crate::note::{Checkpoint, Vkey};
use crate::proof::verify_proof;
use crate::reader::{ReadError, Reader, key_beside};
use keys::{Ask, Detail, Ui};
use model::{Model, Surroundings};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the log is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often the files beside it and the system are looked at.
const AROUND: Duration = Duration::from_secs(1);

/// Options of `watch`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger watch                            on a terminal: q ends, enter shows, / filters, v proves
  blockhost ledger watch --json | jq -c 'select(.first)'    what was never seen before, as it happens
  blockhost ledger watch -n 0 --filter destroy      a line for each destruction, from now on
  NO_COLOR=1 blockhost ledger watch                 without colours

It reads the log by itself: the agent need not run, and sees nothing of it.")]
pub struct Args {
    /// Print one JSON object a line for each record: the record, its hash, and what about it is new
    #[arg(long)]
    json: bool,
    /// Print a line for each record, also on a terminal
    #[arg(long, conflicts_with = "json")]
    plain: bool,
    /// How many of the records that are already there (with --json, --plain or no terminal)
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    last: u64,
    /// Only what has all of these words in its action, resource, user, result, height ...
    #[arg(long, value_name = "WORDS", default_value = "")]
    filter: String,
    /// The verifier key you trust, or a file with it; otherwise the one beside the ledger
    #[arg(long, value_name = "VKEY")]
    key: Option<String>,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let key = args.key.as_deref().map(read_key).transpose()?;
    let ledger = context.ledger()?;
    let origin = match &key {
        Some(key) => Some(key.name().to_owned()),
        None => key_beside(&ledger)?.map(|key| key.name().to_owned()),
    };
    let mut model = Model::new(origin.as_deref().unwrap_or("a ledger without a key yet"));
    let plain = args.json || args.plain || !std::io::stdout().is_terminal();
    let printer = lines::Printer {
        json: args.json,
        filter: args.filter.clone(),
    };
    let bar = super::progress::bar("reading the history");
    let mut early = Vec::new();
    let mut follower = Follower::open(ledger, key.clone(), &mut |index, size, followed| {
        bar.told(index + 1, size);
        let recent = size - index <= model::ROWS as u64;
        let first = model.learn(followed, recent);
        if plain && size - index <= args.last {
            early.push((followed.clone(), first));
        }
    })?;
    bar.done();
    let end = Arc::new(AtomicBool::new(false));
    for signal in [
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
    ] {
        signal_hook::flag::register(signal, Arc::clone(&end))?;
    }
    if plain {
        for (followed, first) in &early {
            printer.print(context.out, followed, *first)?;
        }
        context.out.flush()?;
        return printer.follow(context.out, &mut follower, &mut model, &mut || {
            std::thread::sleep(TICK);
            !end.load(Ordering::Relaxed)
        });
    }
    let mut ui = Ui::new(&args.filter);
    let mut terminal = ratatui::try_init()?;
    let result = screen(
        &mut terminal,
        &context.dir,
        key.as_ref(),
        &mut follower,
        &mut model,
        &mut ui,
        &end,
    );
    ratatui::restore();
    result
}

fn screen(
    terminal: &mut ratatui::DefaultTerminal,
    dir: &Path,
    key: Option<&Vkey>,
    follower: &mut Follower,
    model: &mut Model,
    ui: &mut Ui,
    end: &AtomicBool,
) -> Result<(), Failure> {
    let theme = view::Theme::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    let mut looked: Option<Instant> = None;
    let mut known = None;
    while !end.load(Ordering::Relaxed) {
        match follower.poll() {
            Ok(new) => {
                for followed in &new {
                    model.learn(followed, true);
                }
            }
            Err(error) => model.alarm = Some(printable(&error.to_string())),
        }
        model.alarm = follower.alarm().map(printable);
        (model.size, model.root, model.committed_us) =
            (follower.size(), follower.root(), follower.committed_us());
        if looked.is_none_or(|at| at.elapsed() >= AROUND) {
            looked = Some(Instant::now());
            model.observe(around(dir, key, &mut known, follower));
        }
        terminal.draw(|frame| view::draw(frame, model, ui, theme, now_us()))?;
        let until = Instant::now() + TICK;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if !event::poll(left)? {
                break;
            }
            let Event::Key(pressed) = event::read()? else {
                break;
            };
            if pressed.kind == KeyEventKind::Release {
                continue;
            }
            match ui.key(pressed, model) {
                Ask::Nothing => {}
                Ask::Quit => return Ok(()),
                Ask::Show(height) => ui.detail = Some(detail(dir, key, height)),
                Ask::Prove(height) => {
                    let mut shown = ui.detail.take().unwrap_or_else(|| detail(dir, key, height));
                    shown.proof = Some(prove(dir, key, height));
                    ui.detail = Some(shown);
                }
            }
            break;
        }
    }
    Ok(())
}

fn reader(dir: &Path, key: Option<&Vkey>) -> Result<Reader, ReadError> {
    Reader::open(LedgerDir::open(dir)?, key.cloned())
}

fn detail(dir: &Path, key: Option<&Vkey>, height: u64) -> Detail {
    let story = reader(dir, key).and_then(|reader| story(&reader, height));
    let (title, lines) = match story {
        Ok(story) => (story.title(), story.lines(now_us())),
        Err(error) => (
            "cannot be shown".to_owned(),
            vec![(String::new(), printable(&error.to_string()))],
        ),
    };
    Detail {
        height,
        title,
        lines,
        scroll: 0,
        proof: None,
    }
}

/// Makes the proof as `prove` does, and checks it as a stranger would: from its text alone.
fn prove(dir: &Path, key: Option<&Vkey>, height: u64) -> Result<String, String> {
    let text = |error: &dyn std::fmt::Display| printable(&error.to_string());
    let reader = reader(dir, key).map_err(|error| text(&error))?;
    let proof = reader
        .prove(height - 1, true)
        .map_err(|error| text(&error))?;
    // The head is signed by the key of its time, which the reader followed from the first one.
    let epochs = reader
        .epochs()
        .ok_or("there is no verifier key beside this ledger")?;
    let trusted = &epochs.of_size(reader.size()).key;
    let proven = verify_proof(&proof, None, trusted).map_err(|error| text(&error))?;
    let source = if key.is_some() {
        "the key you gave"
    } else {
        "the key beside the ledger"
    };
    Ok(format!(
        "proved: record {height} is in the {} records with root {}…, signed with {source} ({} bytes of proof)",
        super::text::grouped(proven.size),
        &hex(&proven.root)[..16],
        proof.len()
    ))
}

/// Is the published checkpoint signed by the key of its time? The keys are looked for in the whole log when those that
/// are `known` do not do: seldom, after a new one was made.
fn check_published(
    dir: &Path,
    key: &Vkey,
    known: &mut Option<Epochs>,
    note: &str,
) -> Result<(), String> {
    if known.as_ref().is_some_and(|keys| keys.open(note).is_ok()) {
        return Ok(());
    }
    let reader = reader(dir, Some(key)).map_err(|error| error.to_string())?;
    *known = reader.epochs().cloned();
    let keys = known.as_ref().ok_or("it has no key")?;
    keys.open(note)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// What the files beside the segments and the system say.
fn around(
    dir: &Path,
    key: Option<&Vkey>,
    known: &mut Option<Epochs>,
    follower: &Follower,
) -> Surroundings {
    let mut around = Surroundings::default();
    let mut problem = |text: String| around.problems.push(printable(&text));
    let ledger = LedgerDir::open(dir);
    let note = ledger
        .as_ref()
        .ok()
        .and_then(|ledger| ledger.read(dir::CHECKPOINT, 64 * 1024).ok().flatten());
    if let Some(note) = note.and_then(|bytes| String::from_utf8(bytes).ok()) {
        match Checkpoint::parse_unverified(&note) {
            Err(error) => problem(format!("the published checkpoint: {error}")),
            Ok(published) => {
                if let Some(key) = key
                    && let Err(error) = check_published(dir, key, known, &note)
                {
                    problem(format!("the published checkpoint: {error}"));
                }
                if published.size > follower.size()
                    && follower.unfinished().is_none()
                    && follower.alarm().is_none()
                {
                    let (more, have) = (published.size, follower.size());
                    // A moment may lie between reading the one and the other.
                    if more - have > 4096 {
                        problem(format!("{more} records were published, the log has {have}"));
                    }
                }
                around.published = Some(published.size);
                around.cosigners = cosigners(&note, &published.origin);
            }
        }
    }
    if follower
        .unfinished()
        .is_some_and(|since| since > Duration::from_secs(3))
    {
        problem("an append was begun and not finished: the agent was killed or its disk failed; it cuts that off when it starts".to_owned());
    }
    if let Ok(stat) = rustix::fs::statvfs(dir) {
        let (free, all) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
        if free < 64 << 20 {
            problem(format!(
                "the disk is full: {} are free; the agent refuses new work",
                super::text::bytes(free)
            ));
        }
        around.disk = Some((free, all));
    }
    around.writer = writer_lock(dir);
    around
}

/// Who signed the published checkpoint besides the log itself. Not checked here: `verify` does.
fn cosigners(note: &str, origin: &str) -> Vec<String> {
    let names = note
        .lines()
        .filter_map(|line| line.strip_prefix("\u{2014} ")?.split(' ').next())
        .filter(|name| *name != origin);
    names.take(64).map(printable).collect()
}

/// Does somebody hold the writer's lock? The kernel says so to everybody.
fn writer_lock(dir: &Path) -> Option<bool> {
    let lock = std::fs::metadata(dir.join(dir::WRITER_LOCK)).ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let (major, minor) = (rustix::fs::major(lock.dev()), rustix::fs::minor(lock.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", lock.ino());
    Some(
        locks
            .lines()
            .any(|line| line.split_whitespace().any(|word| word == place)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epochs::By;
    use crate::keys::Signer;
    use crate::record::{Draft, Phase};
    use crate::writer::{Options, Writer};

    fn signer(n: u8, epoch: u32) -> Signer {
        Signer::from_bytes("host.example/log", epoch, &[n; 32]).expect("valid")
    }

    #[test]
    fn after_a_new_signing_key_proofs_are_good_and_the_checkpoint_is_no_problem() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = LedgerDir::open(temp.path()).expect("opens");
        let opened = Writer::open(dir, signer(1, 1), "host", Options::default());
        let (mut writer, _) = opened.expect("opens");
        let draft = Draft {
            phase: Phase::Event,
            op_id: String::new(),
            plugin_id: "event".into(),
            category: "chain".into(),
            operation: "create".into(),
            action: "x".into(),
            resource: "y".into(),
            user: "u".into(),
            uid: 1,
            pid: None,
            exe: None,
            unit: None,
            metadata: serde_json::Map::new(),
        };
        let first = signer(1, 1).vkey().clone();
        let mut known = None;
        let mut look = |writer: &mut Writer| {
            writer
                .append(std::slice::from_ref(&draft))
                .expect("appended");
            writer.publish().expect("published");
            let dir = LedgerDir::open(temp.path()).expect("opens");
            let mut nothing = |_: u64, _: u64, _: &crate::follow::Followed| {};
            let opened = Follower::open(dir, Some(first.clone()), &mut nothing);
            let follower = opened.expect("opens");
            let around = around(temp.path(), Some(&first), &mut known, &follower);
            let proof = prove(temp.path(), Some(&first), 1);
            (around.problems.concat(), proof.map(|_| ()))
        };
        let signed = |(problems, proof): (String, Result<(), String>)| {
            assert_eq!(proof, Ok(()));
            assert!(!problems.contains("checkpoint"), "{problems}");
        };
        signed(look(&mut writer));
        writer
            .rotate(signer(2, 2), &By::default())
            .expect("rotated");
        signed(look(&mut writer));
        // One that the log's keys did not sign stays a problem.
        let note = std::fs::read_to_string(temp.path().join(dir::CHECKPOINT)).expect("text");
        let head = Checkpoint::parse_unverified(&note).expect("a head");
        let forged = signer(9, 2).sign_checkpoint(&head);
        let error = check_published(temp.path(), &first, &mut known, &forged);
        assert!(error.is_err(), "{error:?}");
    }
}
