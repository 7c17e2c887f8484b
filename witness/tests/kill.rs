//! A witness process that is killed at every step of remembering: what it answered it still knows, what it may have signed
//! it does not contradict, and a memory of which a part is gone is not served from.

mod common;

use blockhost_ledger::failpoint;
use blockhost_ledger::policy::Policy;
use blockhost_witness::server::serve;
use blockhost_witness::store::{Store, StoreError, look};
use blockhost_witness::submit::{Round, WitnessError, submit};
use common::{cosigner, grow, logs, runtime, temp};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};
use std::sync::Arc;

fn round(ledger: &Path, address: SocketAddr) -> Round {
    let key = cosigner(1);
    let text = format!("witness W {} http://{address}\nquorum W\n", key.key());
    let policy = Policy::parse(&text).expect("a policy");
    let round = runtime().block_on(submit(ledger, &policy));
    round.expect("submitted")
}

/// Serves until it is killed. Does nothing unless started by [`Witness::start`].
#[test]
fn child_witnesses() {
    let Some(state) = std::env::var_os("WITNESS_TEST_STATE") else {
        return;
    };
    if let Ok(point) = std::env::var("WITNESS_TEST_POINT") {
        failpoint::arm(&point, "", false);
    }
    let store = Store::open(Path::new(&state), cosigner(1), &logs()).expect("opens");
    runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("bound");
        eprintln!("\nlistening on {address}");
        serve(listener, Arc::new(store), std::future::pending()).await;
    });
}

/// A witness in a process of its own.
struct Witness {
    child: Child,
    address: SocketAddr,
    lines: std::io::Lines<BufReader<ChildStderr>>,
}

impl Witness {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has to kill a process of its own"
    )]
    fn start(state: &Path, point: Option<&str>) -> Self {
        let program = std::env::current_exe().expect("test program");
        let mut child = std::process::Command::new(program)
            .args(["--exact", "child_witnesses", "--nocapture"])
            .env("WITNESS_TEST_STATE", state)
            .envs(point.map(|point| ("WITNESS_TEST_POINT", point)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on ")?.parse().ok());
        Self {
            address: address.expect("it listens"),
            child,
            lines,
        }
    }

    /// Waits until it has stopped at its point.
    fn stopped(&mut self, point: &str) {
        let reached = format!("{point} reached");
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        assert!(lines.any(|line| line.ends_with(&reached)), "{point}");
    }

    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }
}

fn remembered(state: &Path) -> Option<u64> {
    let states = look(state, &cosigner(1), &logs()).expect("a good memory");
    states[0].size
}

#[test]
fn killed_at_any_step_a_witness_knows_what_it_answered_and_contradicts_nothing_it_may_have_signed()
{
    for (point, known) in [
        ("witness-begun", false),
        ("witness-written", false),
        ("witness-synced", false),
        ("witness-renamed", true),
        ("witness-remembered", true),
    ] {
        for first in [true, false] {
            let (ledger, state) = (temp(), temp());
            grow(ledger.path(), "one");
            if !first {
                let witness = Witness::start(state.path(), None);
                assert!(round(ledger.path(), witness.address).enough, "{point}");
                witness.kill();
                grow(ledger.path(), "two");
            }
            let size = if first { 1 } else { 2 };
            let mut witness = Witness::start(state.path(), Some(point));
            let (path, address) = (ledger.path().to_owned(), witness.address);
            let asked = std::thread::spawn(move || round(&path, address));
            witness.stopped(point);
            witness.kill();
            let answer = asked.join().expect("the client");
            assert!(!answer.enough, "{point}: it was killed before it answered");
            let expected = if known { size } else { size - 1 };
            assert_eq!(remembered(state.path()).unwrap_or(0), expected, "{point}");

            let witness = Witness::start(state.path(), None);
            // Another history of that length is refused where a head of it may have been signed.
            let fork = temp();
            for n in 0..size {
                grow(fork.path(), &format!("fork {n}"));
            }
            if known {
                let refused = round(fork.path(), witness.address);
                let result = refused.outcomes[0].result.as_ref();
                assert!(result.is_err_and(WitnessError::is_alarm), "{point}");
            }
            grow(ledger.path(), "more");
            assert!(round(ledger.path(), witness.address).enough, "{point}");
            assert_eq!(remembered(state.path()), Some(size + 1), "{point}");
            witness.kill();
        }
    }
}

#[test]
fn a_memory_of_which_a_head_is_missing_is_not_served_from() {
    let (ledger, state) = (temp(), temp());
    grow(ledger.path(), "one");
    // A log that was never cosigned is none whose head is missing.
    Witness::start(state.path(), None).kill();
    let witness = Witness::start(state.path(), None);
    assert!(round(ledger.path(), witness.address).enough);
    witness.kill();
    let list = state.path().join("cosigned-logs");
    let names = std::fs::read_dir(state.path()).expect("listed");
    let mut names = names.map(|entry| entry.expect("entry").path());
    let head = names.find(|path| path.extension().is_some_and(|e| e == "checkpoint"));
    let head = head.expect("a head");
    let note = std::fs::read(&head).expect("read");
    std::fs::remove_file(&head).expect("removed");
    let opened = Store::open(state.path(), cosigner(1), &logs());
    assert!(
        matches!(opened, Err(StoreError::Forgotten { .. })),
        "{opened:?}"
    );
    let looked = look(state.path(), &cosigner(1), &logs());
    assert!(
        matches!(looked, Err(StoreError::Forgotten { .. })),
        "{looked:?}"
    );
    std::fs::write(&head, &note).expect("put back");
    let good = std::fs::read(&list).expect("a list");
    for bad in [&good[..good.len() - 1], &b"../../x\n"[..], b"\n"] {
        std::fs::write(&list, bad).expect("written");
        let opened = Store::open(state.path(), cosigner(1), &logs());
        assert!(
            matches!(opened, Err(StoreError::Damaged { .. })),
            "{opened:?}"
        );
    }
    // A memory of before there was a list is taken over, and is complete from then on.
    std::fs::remove_file(&list).expect("removed");
    drop(Store::open(state.path(), cosigner(1), &logs()).expect("opens"));
    assert_eq!(std::fs::read(&list).expect("made again"), good);
}
