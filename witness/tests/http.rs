//! Real ledgers, real witnesses on the loopback, as processes and as tasks: what gets a cosignature, and what a witness
//! or a client does when the other side lies, stalls, is killed, or talks nonsense.

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::keys::Signer;
use blockhost_ledger::merkle::{hex, sha256};
use blockhost_ledger::policy::Policy;
use blockhost_ledger::verify::{Trust, verify};
use blockhost_ledger::witness::AddCheckpoint;
use blockhost_witness::client::ClientError;
use blockhost_witness::config::Log;
use blockhost_witness::store::{Store, StoreError, look};
use blockhost_witness::submit::{Round, WitnessError, submit};
use common::{ORIGIN, cosigner, grow, logs, runtime, signer, start, temp};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

fn policy(witnesses: &[(u8, SocketAddr)], quorum: &str) -> Policy {
    let mut text = String::new();
    for (n, address) in witnesses {
        text.push_str(&format!(
            "witness W{n} {} http://{address}\n",
            cosigner(*n).key()
        ));
    }
    let names: Vec<String> = witnesses.iter().map(|(n, _)| format!("W{n}")).collect();
    text.push_str(&format!(
        "group all-of-them {quorum} {}\nquorum all-of-them\n",
        names.join(" ")
    ));
    Policy::parse(&text).expect("a policy")
}

fn round(runtime: &tokio::runtime::Runtime, ledger: &Path, policy: &Policy) -> Round {
    runtime.block_on(submit(ledger, policy)).expect("submitted")
}

/// One request with exactly these bytes; all of the answer.
fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    let limit = Some(Duration::from_secs(60));
    stream.set_read_timeout(limit).expect("set");
    // The other side may close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("text")
}

fn post(address: SocketAddr, body: &str) -> String {
    let head = format!(
        "POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    raw(address, format!("{head}{body}").as_bytes())
}

#[test]
fn a_growing_ledger_is_cosigned_by_two_witnesses_and_verifies_with_their_policy() {
    let (runtime, ledger, one, two) = (runtime(), temp(), temp(), temp());
    let witnesses = [
        (1, start(&runtime, 1, one.path())),
        (2, start(&runtime, 2, two.path())),
    ];
    let policy = policy(&witnesses, "all");
    for size in 1..=9 {
        let mut writer = grow(ledger.path(), &size.to_string());
        let round = round(&runtime, ledger.path(), &policy);
        assert!(round.enough && round.head.size == size, "{round:?}");
        let keys: Vec<_> = policy.witnesses().iter().map(|w| w.key.clone()).collect();
        assert_eq!(writer.cosign(&round.note, &keys).expect("taken"), 2);
    }
    let trust = Trust {
        key: Some(signer().vkey().clone()),
        witnesses: Some(policy),
        ..Trust::default()
    };
    let dir = LedgerDir::open(ledger.path()).expect("opens");
    let report = verify(&dir, &trust, &mut |_, _| {}).expect("readable");
    assert!(report.ok && report.witnessed == Some(9), "{report:?}");
}

#[test]
fn a_ledger_that_was_rolled_back_or_rewritten_gets_no_cosignature_and_an_alarm() {
    let (runtime, ledger, state) = (runtime(), temp(), temp());
    let policy = policy(&[(1, start(&runtime, 1, state.path()))], "all");
    for n in 0..3 {
        drop(grow(ledger.path(), &n.to_string()));
    }
    assert!(round(&runtime, ledger.path(), &policy).enough);
    // Root, who has the key, begins again: shorter, of the same size, and longer.
    let fork = temp();
    for (size, alarm) in [
        (1, "cosigned 3 records"),
        (2, "cosigned 3 records"),
        (3, "another history"),
        (4, "another history"),
    ] {
        drop(grow(fork.path(), "another history"));
        let round = round(&runtime, fork.path(), &policy);
        let error = round.outcomes[0].result.as_ref().expect_err("refused");
        assert!(
            error.is_alarm() && error.to_string().contains(alarm),
            "{size}: {error}"
        );
        assert!(!round.enough);
    }
    drop(grow(ledger.path(), "goes on"));
    assert!(
        round(&runtime, ledger.path(), &policy).enough,
        "the true one goes on"
    );
}

#[test]
fn a_witness_that_lies_one_that_stalls_and_one_that_is_down_hold_up_nobody_elses() {
    let (runtime, ledger, state) = (runtime(), temp(), temp());
    let good = start(&runtime, 1, state.path());
    // Signs with another key than it announced.
    let other = temp();
    let liar = start(&runtime, 7, other.path());
    let stalls = TcpListener::bind("127.0.0.1:0").expect("a port");
    // A port that nobody gets who asks for any.
    let down = SocketAddr::from(([127, 0, 0, 1], 1));
    let witnesses = [
        (1, good),
        (2, liar),
        (3, stalls.local_addr().expect("bound")),
        (4, down),
    ];
    drop(grow(ledger.path(), "one"));
    let round = round(&runtime, ledger.path(), &policy(&witnesses, "any"));
    assert!(round.enough, "one honest witness is enough for `any`");
    let error = |n: usize| round.outcomes[n].result.as_ref().expect_err("none");
    assert!(round.outcomes[0].result.is_ok());
    assert!(
        matches!(error(1), WitnessError::Client(ClientError::Invalid(_))),
        "{}",
        error(1)
    );
    assert!(
        matches!(error(2), WitnessError::Client(ClientError::Slow)),
        "{}",
        error(2)
    );
    assert!(matches!(
        error(3),
        WitnessError::Client(ClientError::Unreachable(_))
    ));
    assert!(
        !round.note.contains("w7.example"),
        "what a liar says goes nowhere"
    );
}

#[test]
fn two_hosts_cosign_each_other() {
    let runtime = runtime();
    let names = ["a.example/blockhost-ledger", "b.example/blockhost-ledger"];
    let signers = [11, 12].map(|n: u8| {
        let name = names[usize::from(n) - 11];
        (name, Signer::from_bytes(name, 1, &[n; 32]).expect("valid"))
    });
    let states = [temp(), temp()];
    for (at, state) in states.iter().enumerate() {
        let (peer, key) = &signers[1 - at];
        let log = Log {
            origin: (*peer).to_owned(),
            keys: vec![key.vkey().clone()],
        };
        let number = u8::try_from(at).expect("small") + 1;
        let store = Store::open(state.path(), cosigner(number), &[log]).expect("opens");
        // Each knows its peer and not itself: nobody vouches for their own log.
        for ((name, signer), expected) in signers.iter().zip([at == 1, at == 0]) {
            let head = blockhost_ledger::note::Checkpoint {
                origin: (*name).to_owned(),
                size: 5,
                root: [1; 32],
            };
            let request = AddCheckpoint {
                old: 0,
                proof: Vec::new(),
                note: signer.sign_checkpoint(&head),
            };
            assert_eq!(store.add(&request).is_ok(), expected, "{name} at {at}");
        }
    }
    drop(runtime);
}

#[test]
fn what_was_cosigned_survives_a_restart_and_a_damaged_memory_is_not_served_from() {
    let (ledger, state) = (temp(), temp());
    for n in 0..2 {
        drop(grow(ledger.path(), &n.to_string()));
    }
    let runtime1 = runtime();
    let address = start(&runtime1, 1, state.path());
    assert!(round(&runtime1, ledger.path(), &policy(&[(1, address)], "all")).enough);
    let busy = Store::open(state.path(), cosigner(1), &logs());
    assert!(
        matches!(busy, Err(StoreError::Locked(_))),
        "one process for a memory"
    );
    drop(runtime1);
    let runtime2 = runtime();
    let address = start(&runtime2, 1, state.path());
    let fork = temp();
    drop(grow(fork.path(), "fork"));
    let answer = round(&runtime2, fork.path(), &policy(&[(1, address)], "all"));
    assert!(
        answer.outcomes[0]
            .result
            .as_ref()
            .is_err_and(WitnessError::is_alarm)
    );
    drop(runtime2);
    let entries = std::fs::read_dir(state.path()).expect("lists");
    let files: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    let file = files
        .iter()
        .find(|f| f.extension().is_some_and(|e| e == "checkpoint"));
    let file = file.expect("one log was cosigned");
    let note = std::fs::read_to_string(file).expect("text");
    for bad in [
        String::new(),
        note.replace("\n2\n", "\n1\n"),
        note[..note.len() / 2].to_owned(),
    ] {
        std::fs::write(file, bad).expect("written");
        let damaged = Store::open(state.path(), cosigner(1), &logs());
        assert!(
            matches!(damaged, Err(StoreError::Damaged { .. })),
            "{damaged:?}"
        );
        // What `check` and `status` look with.
        let looked = look(state.path(), &cosigner(1), &logs());
        assert!(
            matches!(looked, Err(StoreError::Damaged { .. })),
            "{looked:?}"
        );
    }
}

#[test]
fn hostile_requests_get_the_status_of_the_specification_and_the_witness_serves_on() {
    let (runtime, ledger, state) = (runtime(), temp(), temp());
    let address = start(&runtime, 1, state.path());
    drop(grow(ledger.path(), "one"));
    let note = std::fs::read_to_string(ledger.path().join("checkpoint")).expect("published");
    let stranger = Signer::from_bytes("unknown/log", 1, &[1; 32]).expect("valid");
    let forged = Signer::from_bytes(ORIGIN, 1, &[1; 32]).expect("valid");
    let head = |origin: &str| blockhost_ledger::note::Checkpoint {
        origin: origin.to_owned(),
        size: 1,
        root: [0; 32],
    };
    for (body, status) in [
        (String::new(), 400),
        ("old 0\n\n".to_owned(), 400),
        (format!("old 2\n\n{note}"), 400),
        (format!("old 00\n\n{note}"), 400),
        (format!("old 0\n{}\n{note}", "AAAA\n".repeat(64)), 400),
        (
            format!(
                "old 0\n\n{}",
                stranger.sign_checkpoint(&head("unknown/log"))
            ),
            404,
        ),
        (
            format!("old 0\n\n{}", forged.sign_checkpoint(&head(ORIGIN))),
            403,
        ),
        (format!("old 1\n\n{note}"), 409),
        ("x".repeat(1 << 20), 413),
        (format!("old 0\n\n{note}"), 200),
    ] {
        let answer = post(address, &body);
        let line = format!("HTTP/1.1 {status} ");
        // A body that is far too large may be cut off before our answer has been read.
        assert!(
            answer.starts_with(&line) || status == 413 && answer.is_empty(),
            "{status}: {answer}"
        );
    }
    let stale = post(address, &format!("old 0\n\n{note}"));
    assert!(
        stale.contains("409")
            && stale.contains("text/x.tlog.size")
            && stale.ends_with("\r\n\r\n1\n"),
        "{stale}"
    );
    for (bytes, status) in [
        (
            &b"GET /add-checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n"[..],
            "405",
        ),
        (
            b"GET /../../etc/passwd HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n",
            "404",
        ),
        (
            b"GET /status HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n",
            "200",
        ),
        (
            b"GET /vkey HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n",
            "200",
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00", "400"),
        (
            b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: -1\r\n\r\n",
            "400",
        ),
    ] {
        let answer = raw(address, bytes);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{status}: {answer}"
        );
    }
    let long = [b"GET /", &[b'a'; 100_000][..], b" HTTP/1.1\r\n\r\n"].concat();
    let answer = raw(address, &long);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
}

#[test]
fn clients_that_stall_are_let_go_and_do_not_keep_others_out() {
    let (runtime, ledger, state) = (runtime(), temp(), temp());
    let address = start(&runtime, 1, state.path());
    // More than half of the places, each with an unfinished head or body.
    let stalled: Vec<TcpStream> = (0..150)
        .map(|n| {
            let mut stream = TcpStream::connect(address).expect("connects");
            let head: &[u8] = if n % 2 == 0 {
                b"POST /add-checkpoint HTTP/1.1\r\nHost"
            } else {
                b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 100\r\n\r\nold"
            };
            stream.write_all(head).expect("sent");
            stream
        })
        .collect();
    drop(grow(ledger.path(), "one"));
    assert!(round(&runtime, ledger.path(), &policy(&[(1, address)], "all")).enough);
    for mut stream in stalled {
        let limit = Some(Duration::from_secs(60));
        stream.set_read_timeout(limit).expect("set");
        let mut rest = Vec::new();
        // An answer or a reset; what matters is that the witness ends it.
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

#[test]
fn requests_of_one_log_at_the_same_time_never_pass_each_other() {
    let (ledger, state) = (temp(), temp());
    let store = Store::open(state.path(), cosigner(1), &logs()).expect("opens");
    let mut requests = Vec::new();
    for n in 0..8 {
        drop(grow(ledger.path(), &n.to_string()));
        requests.push(AddCheckpoint {
            old: 0,
            proof: Vec::new(),
            note: std::fs::read_to_string(ledger.path().join("checkpoint")).expect("published"),
        });
    }
    // All of them claim to be the first: exactly one is right.
    let taken = std::thread::scope(|scope| {
        let store = &store;
        let running: Vec<_> = requests
            .iter()
            .map(|request| scope.spawn(move || store.add(request).is_ok()))
            .collect();
        running
            .into_iter()
            .map(|r| r.join().expect("ended"))
            .filter(|ok| *ok)
            .count()
    });
    assert_eq!(taken, 1);
}

#[test]
fn what_else_stands_below_a_head_is_not_remembered_and_the_same_head_again_is_not_written_again() {
    let (ledger, state) = (temp(), temp());
    drop(grow(ledger.path(), "one"));
    let note = std::fs::read_to_string(ledger.path().join("checkpoint")).expect("published");
    // Lines as if of this witness itself, more than anybody tries, and the log's own twice.
    let own = note.lines().last().expect("the log's signature");
    let mut dressed = format!("{note}{own}\n");
    for time_s in 0..20 {
        dressed += &cosigner(1).cosign("another head\n", time_s);
    }
    let request = format!("old 0\n\n{dressed}");
    let request = AddCheckpoint::parse(request.as_bytes()).expect("a request");
    let store = Store::open(state.path(), cosigner(1), &logs()).expect("opens");
    let line = store.add(&request).expect("cosigned");
    let origin = hex(&sha256(ORIGIN.as_bytes()));
    assert_eq!(store.latest(&origin), Some(format!("{note}{line}")));
    let again = AddCheckpoint::parse(format!("old 1\n\n{dressed}").as_bytes()).expect("a request");
    let file = state.path().join(format!("{origin}.checkpoint"));
    let written = std::fs::metadata(&file).expect("there").ino();
    assert_eq!(store.add(&again).expect("cosigned"), line);
    assert_eq!(std::fs::metadata(&file).expect("there").ino(), written);
    drop(store);
    let store = Store::open(state.path(), cosigner(1), &logs()).expect("it serves on");
    assert_eq!(store.add(&again).expect("cosigned"), line);
    drop(store);
    // What an older version remembered, with all of it: ours is the last line.
    std::fs::write(&file, format!("{dressed}{line}")).expect("written");
    let store = Store::open(state.path(), cosigner(1), &logs()).expect("it serves on");
    assert_eq!(store.add(&again).expect("cosigned"), line);
}
