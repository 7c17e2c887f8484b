//! What is promised of a compartment that works, with a handler of the tests.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::Timespec;
use serde_json::json;

use super::*;
use crate::compartment::{Backend, Identity};
use crate::ipc::{self, Caller};
use crate::policy::Policy;
use crate::policy::authority::ResolvedRule;
use crate::policy::sockets::SocketName;

/// Counts what it is asked to do.
struct Counting(Arc<AtomicUsize>);

impl Handler for Counting {
    fn quick(&self, _action: &Action) -> bool {
        true
    }

    fn run(&self, _action: &Action, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let output = ctx.allow.vmids.to_string();
        Ok(Done {
            output,
            ..Done::default()
        })
    }
}

fn work(op: u64, uid: u32, vmid: u32) -> Work {
    Work {
        op,
        action: "qm-start".to_owned(),
        params: json!({ "vmid": vmid }),
        limit_ms: 1000,
        caller: Caller {
            uid,
            gid: uid,
            groups: Vec::new(),
            socket: SocketName::main(),
            pid: None,
            exe: None,
            unit: None,
        },
    }
}

/// The numbers of `qm-*` that uid 5 may use, and nobody else anything.
fn start() -> Start {
    let identity = |id| Identity { uid: id, gid: id };
    let rule: ResolvedRule = serde_json::from_value(json!({
        "uid": 5, "gid": null, "socket": null, "actions": ["qm-*"], "rates": null,
        "only": {"vmids": {"first": 200, "last": 299}},
    }))
    .expect("a rule");
    Start {
        root: "/nowhere".into(),
        hostname: "h".to_owned(),
        backend: Backend::Embedded,
        identities: Identities {
            agent: identity(901),
            blockhost: identity(902),
            vm: identity(903),
            image: identity(904),
        },
        policy: Policy::default(),
        rules: vec![rule],
        users: Vec::new(),
        journal: false,
        started_s: 0,
        witnesses: Vec::new(),
    }
}

fn runner(
    handler: Box<dyn Handler>,
) -> (
    Channel,
    ControlSocket,
    std::thread::JoinHandle<Result<(), ChannelError>>,
) {
    let (gate, ours) = ipc::pair().expect("pair");
    let (supervisor, control) = ControlSocket::pair().expect("pair");
    let runner = Runner::new(
        Compartment::Vm,
        handler,
        Layout::new("/nowhere"),
        &start(),
        ours,
        ControlSocket::from_fd(control),
    )
    .expect("runner");
    let running = std::thread::spawn(move || runner.run());
    (Channel::new(gate).expect("channel"), supervisor, running)
}

fn hear(gate: &mut Channel, count: usize) -> Vec<FromCompartment> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let mut fds = [PollFd::new(&*gate, PollFlags::IN)];
        let long = Timespec {
            tv_sec: 120,
            tv_nsec: 0,
        };
        let ready = poll(&mut fds, Some(&long)).expect("poll");
        assert_eq!(ready, 1, "no more than {heard:?}");
        heard.extend(gate.receive(&mut [0; 4096]).expect("open"));
    }
    heard
}

#[test]
fn a_gate_that_was_taken_over_has_nothing_done_that_the_caller_may_not() {
    let done = Arc::new(AtomicUsize::new(0));
    let (mut gate, supervisor, running) = runner(Box::new(Counting(Arc::clone(&done))));
    for work in [
        work(1, 5, 200),
        work(2, 5, 100),
        work(3, 6, 200),
        work(4, 0, 200),
    ] {
        gate.queue(&work).expect("fits");
    }
    assert!(gate.flush().expect("open"));
    let heard: Vec<Finished> = hear(&mut gate, 4)
        .into_iter()
        .map(|message| match message {
            FromCompartment::Finished(finished) => finished,
            other => panic!("{other:?}"),
        })
        .collect();
    let forbidden = |finished: &Finished| {
        let refused = finished.result.as_ref().err();
        refused.is_some_and(|failure| failure.code == ErrorCode::Forbidden)
    };
    let output = heard[0].result.as_ref().map(|done| done.output.as_str());
    assert_eq!(output, Ok("200-299"), "it acts on the narrowed lists");
    assert!(heard[1..].iter().all(forbidden), "{heard:?}");
    assert_eq!(done.load(Ordering::SeqCst), 1);
    drop((gate, supervisor));
    running.join().expect("thread").expect("an orderly end");
}

/// Ends nothing before it is told to.
struct Slow(Arc<RwLock<()>>);

impl Handler for Slow {
    fn quick(&self, _action: &Action) -> bool {
        false
    }

    fn run(&self, _action: &Action, _ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        drop(self.0.read());
        Ok(Done::default())
    }
}

#[test]
fn more_slow_actions_than_threads_wait_and_say_so_before_they_count_as_hung() {
    let gate_of_time = Arc::new(RwLock::new(()));
    let (mut gate, supervisor, running) = runner(Box::new(Slow(Arc::clone(&gate_of_time))));
    let closed = gate_of_time.write().expect("lock");
    let last = HOST_THREADS as u64 + 2;
    for op in 1..=last {
        gate.queue(&work(op, 5, 200)).expect("fits");
    }
    assert!(gate.flush().expect("open"));
    let heard = hear(&mut gate, 2);
    let waiting = |message: &FromCompartment| match message {
        FromCompartment::Waiting { op } => *op,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        heard.iter().map(waiting).collect::<Vec<_>>(),
        [last - 1, last]
    );
    drop(closed);
    let heard = hear(&mut gate, HOST_THREADS + 4);
    for late in [last - 1, last] {
        let place = |wanted: fn(&FromCompartment) -> Option<u64>| {
            heard
                .iter()
                .position(|message| wanted(message) == Some(late))
        };
        let begun = place(|message| match message {
            FromCompartment::Begun { op } => Some(*op),
            _ => None,
        });
        let finished = place(|message| match message {
            FromCompartment::Finished(finished) => Some(finished.op),
            _ => None,
        });
        assert!(begun.is_some() && begun < finished, "{heard:?}");
    }
    drop((gate, supervisor));
    running.join().expect("thread").expect("an orderly end");
}

/// Copies end when they are told to, and all else at once.
struct Copying(Arc<RwLock<()>>);

impl Handler for Copying {
    fn quick(&self, _action: &Action) -> bool {
        false
    }

    fn share(&self, action: &Action) -> Share {
        match action {
            Action::QmClone(_) => Share::Bulk,
            _ => Share::Host,
        }
    }

    fn run(&self, action: &Action, _ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        if matches!(action, Action::QmClone(_)) {
            drop(self.0.read());
        }
        Ok(Done::default())
    }
}

#[test]
fn however_many_disks_are_copied_a_machine_is_started_meanwhile() {
    let gate_of_time = Arc::new(RwLock::new(()));
    let (mut gate, supervisor, running) = runner(Box::new(Copying(Arc::clone(&gate_of_time))));
    let closed = gate_of_time.write().expect("lock");
    let copies = (HOST_THREADS + BULK_THREADS) as u64;
    for op in 1..=copies {
        let params = json!({"vmid": 200, "newid": 200 + op, "name": "copy", "full": true});
        let mut clone = work(op, 5, 200);
        (clone.action, clone.params) = ("qm-clone".to_owned(), params);
        gate.queue(&clone).expect("fits");
    }
    gate.queue(&work(copies + 1, 5, 299)).expect("fits");
    assert!(gate.flush().expect("open"));
    // Those that wait say so, and the start is done.
    let heard = hear(&mut gate, HOST_THREADS + 1);
    let done = |message: &FromCompartment| match message {
        FromCompartment::Finished(finished) => {
            assert!(finished.result.is_ok(), "{finished:?}");
            Some(finished.op)
        }
        _ => None,
    };
    let finished: Vec<u64> = heard.iter().filter_map(done).collect();
    assert_eq!(finished, [copies + 1], "{heard:?}");
    drop(closed);
    // The others' beginnings, and all copies' ends.
    let heard = hear(&mut gate, HOST_THREADS + HOST_THREADS + BULK_THREADS);
    let ended = heard.iter().filter_map(done).count();
    assert_eq!(ended, HOST_THREADS + BULK_THREADS, "{heard:?}");
    drop((gate, supervisor));
    running.join().expect("thread").expect("an orderly end");
}
