//! The gate with a real ledger, its neighbours played by the test: neighbours that were taken over; full disks in `disk`.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use serde_json::{Value, json};

use super::*;
use crate::compartment::{Backend, Identities, Identity};
use crate::ipc::{self, Channel, Finished, FromCompartment, Report, ToGate, Work};
use crate::policy::authority::ResolvedRule;
use blockhost_ledger::keys::Signer;

mod disk;

struct Neighbours {
    control: ControlSocket,
    front: Channel,
    vm: Channel,
    directory: tempfile::TempDir,
}

fn start(directory: &tempfile::TempDir) -> Start {
    let nobody = Identity { uid: 1, gid: 1 };
    Start {
        root: directory.path().to_owned(),
        hostname: "h".to_owned(),
        backend: Backend::Embedded,
        identities: Identities {
            agent: nobody,
            blockhost: nobody,
            vm: nobody,
            image: nobody,
        },
        policy: crate::policy::Policy::default(),
        rules: vec![ResolvedRule {
            uid: Some(0),
            gid: None,
            socket: None,
            actions: vec!["*".to_owned()],
            only: None,
            rates: None,
        }],
        users: Vec::new(),
        journal: false,
        started_s: 0,
        witnesses: Vec::new(),
    }
}

fn gate() -> (Gate, Neighbours) {
    let directory = tempfile::tempdir().expect("directory");
    gate_in(directory)
}

fn gate_in(directory: tempfile::TempDir) -> (Gate, Neighbours) {
    let ledger = LedgerDir::open(directory.path()).expect("ledger");
    let signer = Signer::generate("h/ledger", 1).expect("key");
    let (ours, theirs) = ControlSocket::pair().expect("control");
    let pair = || ipc::pair().expect("pair");
    let (front, gate_front) = pair();
    let (vm, gate_vm) = pair();
    let mut ends: [OwnedFd; Role::COMPARTMENTS.len()] = Role::COMPARTMENTS.map(|_| pair().0);
    ends[3] = gate_vm;
    let gate = Gate::open(
        &start(&directory),
        ledger,
        signer,
        None,
        ControlSocket::from_fd(theirs),
        gate_front,
        ends,
    )
    .expect("gate");
    let neighbours = Neighbours {
        control: ours,
        front: Channel::new(front).expect("channel"),
        vm: Channel::new(vm).expect("channel"),
        directory,
    };
    (gate, neighbours)
}

fn ask(id: u64, action: &str, params: Value, limit_ms: u64) -> ToGate {
    ToGate::Job {
        id,
        caller: ourselves(),
        action: action.to_owned(),
        params,
        limit_ms,
    }
}

/// One turn of the loop without the waiting.
fn turn(gate: &mut Gate, roles: &[Role]) {
    for &role in roles {
        gate.hear_lane(role);
    }
    gate.commit();
    gate.flush_lanes();
}

fn told<M: serde::de::DeserializeOwned>(channel: &mut Channel) -> Vec<M> {
    channel.receive(&mut [0; 64 << 10]).expect("messages")
}

fn answers(front: &mut Channel) -> Vec<(u64, Result<Done, Failure>)> {
    told::<FromGate>(front)
        .into_iter()
        .filter_map(|message| match message {
            FromGate::Answer { id, result, .. } => Some((id, result)),
            FromGate::Head { .. } => None,
        })
        .collect()
}

fn send<M: serde::Serialize>(channel: &mut Channel, message: &M) {
    channel.queue(message).expect("fits");
    assert!(channel.flush().expect("open"));
}

#[test]
fn a_compartment_cannot_keep_its_own_loss_out_of_the_ledger_by_how_it_misbehaves() {
    let (mut gate, mut neighbours) = gate();
    let nasty = format!("\u{7f}\0{}", "\u{2028}x".repeat(1 << 13));
    send(&mut neighbours.vm, &json!({ nasty: 1 }));
    send(
        &mut neighbours.front,
        &ask(
            1,
            "ledger-append",
            json!({"category": "chain", "action": "e", "data": {}}),
            1,
        ),
    );
    turn(&mut gate, &[Role::Vm, Role::Front]);
    let answers = answers(&mut neighbours.front);
    assert!(matches!(answers[..], [(1, Ok(_))]), "{answers:?}");
    assert_eq!(gate.writer.head().size, 2, "the event and the loss");
    let report = neighbours.control.receive::<Report>(false).expect("open");
    assert!(matches!(
        report,
        Some((Report::Hung { role: Role::Vm }, None))
    ));
}

#[test]
fn an_answer_too_long_to_be_passed_on_is_answered_all_the_same_and_harms_nobody() {
    let (mut gate, mut neighbours) = gate();
    send(&mut neighbours.front, &ask(7, "qm-list", json!({}), 1000));
    turn(&mut gate, &[Role::Front]);
    let work: Vec<Work> = told(&mut neighbours.vm);
    let [Work { op, .. }] = work[..] else {
        panic!("{work:?}")
    };
    let finished = |output: String| {
        let done = Done {
            output,
            ..Done::default()
        };
        FromCompartment::Finished(Finished {
            op,
            result: Ok(done),
        })
    };
    let envelope = serde_json::to_vec(&finished(String::new())).expect("json");
    let finished = finished("x".repeat(ipc::MAX_MESSAGE - envelope.len()));
    neighbours.vm.queue(&finished).expect("just fits");
    let mut heard = Vec::new();
    for _ in 0..1000 {
        let _ = neighbours.vm.flush().expect("open");
        turn(&mut gate, &[Role::Vm]);
        heard.extend(answers(&mut neighbours.front));
        if !heard.is_empty() {
            break;
        }
    }
    assert!(
        matches!(&heard[..], [(7, Err(failure))] if failure.code == ErrorCode::Internal),
        "{} answers",
        heard.len()
    );
}

#[test]
fn a_front_can_neither_keep_an_intent_open_for_ever_nor_have_more_jobs_than_a_front_has() {
    let (mut gate, mut neighbours) = gate();
    send(
        &mut neighbours.front,
        &ask(1, "qm-list", json!({}), u64::MAX),
    );
    turn(&mut gate, &[Role::Front]);
    let latest = Instant::now() + LONGEST_LIMIT + GRACE;
    assert!(gate.ops.values().all(|op| op.deadline <= latest));
    let (_, first) = gate.ops.drain().next().expect("the job");
    for number in 0..MAX_JOBS as u64 {
        let op = Op {
            caller: first.caller.clone(),
            heading: first.heading.clone(),
            ..first
        };
        gate.ops.insert(number, op);
    }
    send(&mut neighbours.front, &ask(2, "qm-list", json!({}), 1000));
    turn(&mut gate, &[Role::Front]);
    let answers = answers(&mut neighbours.front);
    assert!(
        matches!(&answers[..], [(2, Err(failure))] if failure.code == ErrorCode::Busy),
        "{answers:?}"
    );
}

#[test]
fn what_a_dead_front_left_waiting_is_not_executed() {
    let (mut gate, mut neighbours) = gate();
    gate.lose(Role::Vm, "test");
    send(&mut neighbours.front, &ask(1, "qm-list", json!({}), 1000));
    turn(&mut gate, &[Role::Front]);
    gate.lose(Role::Front, "test");
    gate.connect(Role::Front, ipc::pair().expect("pair").0)
        .expect("connected");
    let (vm, theirs) = ipc::pair().expect("pair");
    gate.connect(Role::Vm, theirs).expect("connected");
    turn(&mut gate, &[]);
    let mut vm = Channel::new(vm).expect("channel");
    assert!(told::<Work>(&mut vm).is_empty());
    assert!(gate.ops.is_empty());
}

#[test]
fn a_front_that_was_taken_over_cannot_have_two_jobs_touch_one_machine_at_once() {
    let (mut gate, mut neighbours) = gate();
    for (id, action, vmid) in [
        (1, "qm-start", 100),
        (2, "qm-destroy", 100),
        (3, "qm-start", 101),
    ] {
        send(
            &mut neighbours.front,
            &ask(id, action, json!({ "vmid": vmid }), 1000),
        );
    }
    turn(&mut gate, &[Role::Front]);
    let works: Vec<Work> = told(&mut neighbours.vm);
    let names =
        |works: &[Work]| -> Vec<String> { works.iter().map(|work| work.action.clone()).collect() };
    assert_eq!(names(&works), ["qm-start", "qm-start"]);
    let size = gate.writer.head().size;
    assert_eq!(size, 2, "what waits is not announced");
    let finished = FromCompartment::Finished(Finished {
        op: works[0].op,
        result: Ok(Done::default()),
    });
    send(&mut neighbours.vm, &finished);
    turn(&mut gate, &[Role::Vm]);
    assert_eq!(names(&told::<Work>(&mut neighbours.vm)), ["qm-destroy"]);
    assert_eq!(gate.writer.head().size, size + 2);
}

#[test]
fn what_waits_for_its_turn_is_let_go_with_its_front_and_with_the_lost_compartment() {
    let (mut gate, mut neighbours) = gate();
    let job = |id| ask(id, "qm-start", json!({"vmid": 100}), 1000);
    for id in 1..=3 {
        send(&mut neighbours.front, &job(id));
    }
    turn(&mut gate, &[Role::Front]);
    assert_eq!((gate.ops.len(), gate.held.len()), (1, 2));
    let (front, theirs) = ipc::pair().expect("pair");
    gate.lose(Role::Front, "test");
    gate.connect(Role::Front, theirs).expect("connected");
    neighbours.front = Channel::new(front).expect("channel");
    assert_eq!((gate.ops.len(), gate.held.len()), (1, 0));
    // A job of the new front waits for the one that still runs, then for the compartment that was lost with it.
    send(&mut neighbours.front, &job(9));
    turn(&mut gate, &[Role::Front]);
    assert_eq!((gate.ops.len(), gate.held.len()), (1, 1));
    gate.lose(Role::Vm, "test");
    turn(&mut gate, &[]);
    assert_eq!((gate.ops.len(), gate.held.len()), (0, 0));
    let later = Instant::now() + RESTART_PATIENCE + Duration::from_secs(1);
    gate.watch_time(later);
    turn(&mut gate, &[]);
    let answers = answers(&mut neighbours.front);
    assert!(
        matches!(&answers[..], [(9, Err(failure))] if failure.code == ErrorCode::Busy),
        "{answers:?}"
    );
    assert!(gate.turns.is_empty(), "nothing is left behind");
}

#[test]
fn what_a_new_front_sent_does_not_wait_for_ever_behind_a_job_of_the_one_before() {
    let (mut gate, mut neighbours) = gate();
    let job = |id, limit_ms| ask(id, "qm-start", json!({"vmid": 100}), limit_ms);
    let hour = 3_600_000;
    send(&mut neighbours.front, &job(1, hour));
    turn(&mut gate, &[Role::Front]);
    let work: Vec<Work> = told(&mut neighbours.vm);
    let (front, theirs) = ipc::pair().expect("pair");
    gate.lose(Role::Front, "test");
    gate.connect(Role::Front, theirs).expect("connected");
    neighbours.front = Channel::new(front).expect("channel");
    let sent = Instant::now();
    for (id, limit_ms) in [(7, 10_000), (8, 10_000), (9, hour)] {
        send(&mut neighbours.front, &job(id, limit_ms));
    }
    turn(&mut gate, &[Role::Front]);
    assert_eq!((gate.ops.len(), gate.held.len()), (1, 3));
    // As long as the action may take is not too long.
    gate.watch_time(sent + Duration::from_secs(19));
    turn(&mut gate, &[]);
    assert!(answers(&mut neighbours.front).is_empty());
    let late = Instant::now() + Duration::from_secs(21);
    assert_eq!(gate.wait_time(late), Some(Duration::from_millis(1)));
    let before = gate.writer.head().size;
    gate.watch_time(late);
    turn(&mut gate, &[]);
    let refused = answers(&mut neighbours.front);
    let busy = |result: &Result<Done, Failure>| {
        result.as_ref().err().map(|failure| failure.code) == Some(ErrorCode::Busy)
    };
    assert!(
        matches!(&refused[..], [(8, late), (7, too)] if busy(late) && busy(too)),
        "{refused:?}"
    );
    let said = gate.writer.head().size - before;
    assert_eq!(said, 2, "they were not announced, and it is said why");
    // Who has time goes on waiting, and gets its turn.
    assert_eq!((gate.ops.len(), gate.held.len()), (1, 1));
    let finished = FromCompartment::Finished(Finished {
        op: work[0].op,
        result: Ok(Done::default()),
    });
    send(&mut neighbours.vm, &finished);
    turn(&mut gate, &[Role::Vm]);
    assert_eq!(told::<Work>(&mut neighbours.vm).len(), 1);
    assert!(gate.held.is_empty());
}

#[test]
fn a_front_that_was_taken_over_gets_for_a_caller_what_that_caller_may_and_no_more() {
    let (mut gate, mut neighbours) = gate();
    let claim = |id: u64, uid: u32, gid: u32| match ask(id, "qm-list", json!({}), 1000) {
        ToGate::Job {
            caller,
            action,
            params,
            limit_ms,
            ..
        } => ToGate::Job {
            id,
            caller: Caller { uid, gid, ..caller },
            action,
            params,
            limit_ms,
        },
        other => other,
    };
    // A stranger, and a process of the agent's own: the group of `nobody` here.
    for (id, uid, gid) in [(1, 4242, 0), (2, 0, 1)] {
        send(&mut neighbours.front, &claim(id, uid, gid));
    }
    turn(&mut gate, &[Role::Front]);
    let answers = answers(&mut neighbours.front);
    let forbidden = |answer: &(u64, Result<Done, Failure>)| matches!(&answer.1, Err(failure) if failure.code == ErrorCode::Forbidden);
    assert!(
        answers.len() == 2 && answers.iter().all(forbidden),
        "{answers:?}"
    );
    assert!(told::<Work>(&mut neighbours.vm).is_empty());
    assert_eq!(gate.writer.head().size, 2, "both are on record");
    assert!(gate.turns.is_empty());
}

#[test]
fn a_compartment_that_hangs_is_reported_until_it_is_gone() {
    let (mut gate, mut neighbours) = gate();
    send(&mut neighbours.front, &ask(1, "qm-list", json!({}), 1));
    turn(&mut gate, &[Role::Front]);
    let mut now = Instant::now() + GRACE;
    for _ in 0..2 {
        now += GRACE + Duration::from_secs(1);
        gate.watch_time(now);
        let report = neighbours.control.receive::<Report>(false).expect("open");
        assert!(matches!(
            report,
            Some((Report::Hung { role: Role::Vm }, None))
        ));
    }
}

#[test]
fn a_job_that_waits_for_a_thread_does_not_get_its_compartment_killed() {
    let (mut gate, mut neighbours) = gate();
    send(&mut neighbours.front, &ask(1, "qm-list", json!({}), 1000));
    turn(&mut gate, &[Role::Front]);
    let works: Vec<Work> = told(&mut neighbours.vm);
    let op = works[0].op;
    send(&mut neighbours.vm, &FromCompartment::Waiting { op });
    turn(&mut gate, &[Role::Vm]);
    let hung = |neighbours: &Neighbours| {
        let report = neighbours.control.receive::<Report>(false).expect("open");
        report.is_some()
    };
    let much_later = Instant::now() + LONGEST_LIMIT / 2;
    gate.watch_time(much_later);
    assert!(!hung(&neighbours), "it has not begun");
    send(&mut neighbours.vm, &FromCompartment::Begun { op });
    turn(&mut gate, &[Role::Vm]);
    gate.watch_time(Instant::now() + GRACE);
    assert!(!hung(&neighbours), "its time begins when it does");
    gate.watch_time(Instant::now() + GRACE * 2);
    assert!(hung(&neighbours), "and ends");
    // Saying so again and again is no way to live for ever.
    for _ in 0..3 {
        send(&mut neighbours.vm, &FromCompartment::Waiting { op });
    }
    turn(&mut gate, &[Role::Vm]);
    gate.watch_time(Instant::now() + LONGEST_LIMIT);
    assert!(hung(&neighbours));
}

#[test]
fn a_front_that_never_reads_costs_bounded_memory() {
    let (mut gate, neighbours) = gate();
    let message = FromGate::Head {
        size: 0,
        root: "x".repeat(1 << 20),
    };
    for _ in 0..100 {
        gate.tell_front(&message);
    }
    assert!(
        gate.lanes[&Role::Front].channel.is_none(),
        "it was given up"
    );
    let roles: HashSet<Role> = gate.lanes.keys().copied().collect();
    assert_eq!(roles.len(), 1 + Role::COMPARTMENTS.len());
    drop(neighbours.directory);
}

#[test]
fn an_anchored_head_of_this_history_is_recorded_and_another_root_is_not() {
    use blockhost_ledger::merkle::hex;
    let (mut gate, mut neighbours) = gate();
    let event = json!({"category": "chain", "action": "e", "data": {}});
    send(&mut neighbours.front, &ask(1, "ledger-append", event, 1));
    turn(&mut gate, &[Role::Front]);
    let head = gate.writer.head().clone();
    let claim = |root: &str| {
        json!({"chain_id": 1, "contract": format!("0x{}", "11".repeat(20)), "tx": format!("0x{}", "22".repeat(32)),
            "block": 1, "size": head.size, "root": root, "head_size": head.size, "proof": []})
    };
    let wrong = claim(&"ab".repeat(32));
    send(&mut neighbours.front, &ask(2, "ledger-anchored", wrong, 1));
    turn(&mut gate, &[Role::Front]);
    assert_eq!(gate.writer.head().size, head.size, "nothing was recorded");
    let right = claim(&hex(&head.root));
    send(&mut neighbours.front, &ask(3, "ledger-anchored", right, 1));
    turn(&mut gate, &[Role::Front]);
    let answers = answers(&mut neighbours.front);
    let codes: Vec<_> = answers
        .iter()
        .map(|(id, result)| (*id, result.as_ref().err().map(|failure| failure.code)))
        .collect();
    assert_eq!(
        codes,
        [(1, None), (2, Some(ErrorCode::BadParams)), (3, None)]
    );
    assert_eq!(gate.writer.head().size, head.size + 1);
}
