//! When having a ledger witnessed raises the alarm and when it must not: witnesses that talk nonsense, rounds that cross
//! each other, and an agent that takes nothing.

mod common;

use blockhost_ledger::policy::Policy;
use blockhost_witness::submit::{WitnessError, submit};
use common::{ORIGIN, cosigner, grow, runtime, signer, start};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

fn policy(witnesses: &[(u8, SocketAddr)]) -> String {
    let lines = witnesses
        .iter()
        .map(|(n, address)| format!("witness W{n} {} http://{address}\n", cosigner(*n).key()));
    let names: Vec<String> = witnesses.iter().map(|(n, _)| format!("W{n}")).collect();
    let group = format!("group some any {}\nquorum some\n", names.join(" "));
    lines.chain([group]).collect()
}

/// A peer that answers its first request with these bytes, after `before`.
fn answers(bytes: String, before: impl FnOnce() + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a head");
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        before();
        reader.get_mut().write_all(bytes.as_bytes()).expect("sent");
    });
    address
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn ask(ledger: &Path, address: SocketAddr) -> WitnessError {
    let policy = Policy::parse(&policy(&[(1, address)])).expect("a policy");
    let round = runtime().block_on(submit(ledger, &policy));
    let mut outcomes = round.expect("submitted").outcomes;
    outcomes.remove(0).result.expect_err("no cosignature")
}

#[test]
fn a_refusal_before_anything_was_cosigned_is_no_alarm_and_its_words_are_harmless() {
    let ledger = tempfile::tempdir().expect("temp dir");
    grow(ledger.path(), "one");
    let hostile = "no \u{1b}]0;x\u{7}\u{202e}\u{2028}\u{9b}31m\r\n<0>gone";
    for status in ["409 Conflict", "422 Unprocessable Entity"] {
        let error = ask(
            ledger.path(),
            answers(answer(status, "text/plain", hostile), || ()),
        );
        assert!(!error.is_alarm(), "{error}");
        let text = error.to_string();
        let printable = |c: char| c == ' ' || c.is_ascii_graphic();
        assert!(
            text.contains("gone") && text.chars().all(printable),
            "{text:?}"
        );
    }
}

#[test]
fn a_witness_that_was_shown_a_later_head_meanwhile_is_no_alarm_one_that_is_still_ahead_is() {
    let ledger = tempfile::tempdir().expect("temp dir");
    grow(ledger.path(), "one");
    let path = ledger.path().to_owned();
    let stale = |size: u64| answer("409 Conflict", "text/x.tlog.size", &format!("{size}\n"));
    let crossed = answers(stale(2), move || drop(grow(&path, "two")));
    let error = ask(ledger.path(), crossed);
    assert!(!error.is_alarm(), "{error}");
    let error = ask(ledger.path(), answers(stale(3), || ()));
    assert!(error.is_alarm(), "{error}");
}

#[test]
fn an_agent_that_is_not_there_does_not_hide_the_alarm() {
    let (runtime, root) = (runtime(), tempfile::tempdir().expect("temp dir"));
    let at = |name: &str| {
        let path = root.path().join(name);
        std::fs::create_dir(&path).expect("made");
        path
    };
    let (one, two, ledger, fork) = (at("one"), at("two"), at("ledger"), at("fork"));
    let (first, second) = (start(&runtime, 1, &one), start(&runtime, 2, &two));
    for what in ["one", "two"] {
        grow(&ledger, what);
    }
    let seen = Policy::parse(&policy(&[(1, first)])).expect("a policy");
    assert!(
        runtime
            .block_on(submit(&ledger, &seen))
            .expect("done")
            .enough
    );
    // The second has seen nothing and cosigns the fork: there is something to hand over, and nobody to take it.
    grow(&fork, "another history");
    let file = root.path().join("policy");
    std::fs::write(&file, policy(&[(1, first), (2, second)])).expect("written");
    #[expect(
        clippy::disallowed_methods,
        reason = "the program under test, as its unit starts it"
    )]
    let output = Command::new(env!("CARGO_BIN_EXE_blockhost-witness"))
        .args(["submit", "--policy"])
        .arg(&file)
        .arg("--ledger")
        .arg(&fork)
        .env("BLOCKHOST_ROOT", root.path())
        .env("JOURNAL_STREAM", "8:1")
        .output()
        .expect("runs");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(4), "{errors}");
    assert!(
        errors.contains("<1>witness W1: it has cosigned 2 records")
            && errors.contains("root agent"),
        "{errors}"
    );
}

#[test]
fn the_witness_says_which_log_showed_another_history_and_ends_when_it_is_told() {
    let root = tempfile::tempdir().expect("temp dir");
    let at = |name: &str| {
        let path = root.path().join(name);
        std::fs::create_dir(&path).expect("made");
        path
    };
    let (state, ledger, fork) = (at("state"), at("ledger"), at("fork"));
    for what in ["one", "two"] {
        grow(&ledger, what);
        grow(&fork, &format!("another {what}"));
    }
    let config = root.path().join("witness.yaml");
    let text = format!(
        "listen: \"127.0.0.1:0\"\nlogs:\n- keys: [\"{}\"]\n",
        signer().vkey()
    );
    std::fs::write(&config, text).expect("written");
    blockhost_witness::store::make_key(&state.join("witness.key"), "w1.example").expect("made");
    #[expect(
        clippy::disallowed_methods,
        reason = "the program under test, as its unit starts it"
    )]
    let mut witness = Command::new(env!("CARGO_BIN_EXE_blockhost-witness"))
        .args(["run", "--config"])
        .arg(&config)
        .arg("--state")
        .arg(&state)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("runs");
    let mut lines = BufReader::new(witness.stderr.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    let serves = line();
    let (_, address) = serves.split_once(" witnesses 1 logs on ").expect("it says");
    let key = blockhost_witness::store::read_key(&state.join("witness.key")).expect("reads");
    let policy = format!("witness A {} http://{address}\nquorum A\n", key.key());
    let policy = Policy::parse(&policy).expect("a policy");
    assert!(
        runtime()
            .block_on(submit(&ledger, &policy))
            .expect("done")
            .enough
    );
    assert!(
        !runtime()
            .block_on(submit(&fork, &policy))
            .expect("done")
            .enough
    );
    let said = line();
    assert!(
        said.starts_with(&format!("<4>{ORIGIN}: refused: ")),
        "{said}"
    );
    let id = rustix::process::Pid::from_child(&witness);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("told");
    assert!(witness.wait().expect("ended").success());
}
