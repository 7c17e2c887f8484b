use super::*;
use crate::chain::events::{Event, Located, Position};
use crate::chain::tx::{Call, Fees, Wallet, sign};
use crate::chain::{Address, B256, Bytes};
use crate::crypto::keys::PrivateKey;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

mod waiting;

const CHAIN: u64 = 31337;
const CONTRACT: Address = Address::repeat_byte(0xcc);

struct World {
    dir: tempfile::TempDir,
    outbox: Outbox,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(&dir.path().join("outbox.db")).unwrap();
        Self { dir, outbox }
    }

    /// As after kill -9: the file is what it was, nothing in memory is.
    fn crash(self) -> Self {
        let Self { dir, outbox } = self;
        drop(outbox);
        let outbox = Outbox::open(&dir.path().join("outbox.db")).unwrap();
        Self { dir, outbox }
    }

    fn ingest(&self, events: &[Located]) -> Ingested {
        let number = events
            .iter()
            .map(|e| e.position.block_number)
            .max()
            .unwrap_or(0);
        self.outbox
            .ingest(
                CHAIN,
                CONTRACT,
                events,
                Cursor {
                    number,
                    hash: hash(number, 0),
                },
            )
            .unwrap()
    }

    fn states(&self) -> Vec<(i64, JobState)> {
        let mut jobs: Vec<_> = self
            .outbox
            .list(None, 1000)
            .unwrap()
            .into_iter()
            .map(|j| (j.id, j.state))
            .collect();
        jobs.sort_by_key(|(id, _)| *id);
        jobs
    }
}

fn hash(block: u64, fork: u8) -> B256 {
    let mut bytes = [fork; 32];
    bytes[..8].copy_from_slice(&block.to_be_bytes());
    B256::from(bytes)
}

fn at(block: u64, fork: u8, log_index: u64, tx: u8, event: Event) -> Located {
    Located {
        position: Position {
            block_number: block,
            block_hash: hash(block, fork),
            tx_hash: B256::repeat_byte(tx),
            log_index,
        },
        event,
    }
}

fn created(id: u64) -> Event {
    Event::SubscriptionCreated {
        subscription_id: id,
        plan_id: "1".into(),
        subscriber: Address::repeat_byte(1),
        expires_at: 1000,
        paid_amount: "1".into(),
        payment_token: Address::ZERO,
        user_encrypted: Bytes::from_static(b"x"),
    }
}

fn extended(id: u64) -> Event {
    Event::SubscriptionExtended {
        subscription_id: id,
        extended_by: Address::ZERO,
        new_expires_at: 2000,
        paid_amount: "1".into(),
        payment_token: Address::ZERO,
    }
}

fn cancelled(id: u64) -> Event {
    Event::SubscriptionCancelled {
        subscription_id: id,
        subscriber: Address::repeat_byte(1),
    }
}

#[test]
fn two_engines_never_work_on_one_outbox() {
    let world = World::new();
    assert!(matches!(
        Outbox::open(&world.dir.path().join("outbox.db")),
        Err(OutboxError::Locked { .. })
    ));
    Outbox::open_beside(&world.dir.path().join("outbox.db")).unwrap();
}

#[test]
fn an_outbox_of_a_newer_program_is_refused() {
    let world = World::new();
    world
        .outbox
        .connection()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let path = world.dir.path().join("outbox.db");
    assert!(matches!(
        Outbox::open_beside(&path),
        Err(OutboxError::Newer { found: 99, .. })
    ));
}

#[test]
fn looking_at_an_outbox_that_is_not_there_does_not_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outbox.db");
    assert!(Outbox::open_beside(&path).is_err());
    assert!(!path.exists());
}

#[test]
fn only_parked_jobs_can_be_retried() {
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1))]);
    assert!(matches!(
        world.outbox.retry(1),
        Err(OutboxError::NotParked {
            state: JobState::Pending,
            ..
        })
    ));
    assert!(matches!(world.outbox.retry(7), Err(OutboxError::NoJob(7))));
    world.outbox.claim().unwrap().unwrap();
    world.outbox.park(1, "why").unwrap();
    world.outbox.retry(1).unwrap();
    assert_eq!(world.outbox.claim().unwrap().unwrap().attempt, 1);
}

#[test]
fn an_event_that_is_seen_again_stays_one_job() {
    let world = World::new();
    let events = [at(1, 0, 0, 1, created(1)), at(1, 0, 1, 1, extended(1))];
    assert_eq!(world.ingest(&events).new, 2);
    assert_eq!(world.ingest(&events).new, 0);
    let world = world.crash();
    assert_eq!(world.ingest(&events).new, 0);
    assert_eq!(world.states().len(), 2);
}

#[test]
fn a_job_waits_for_those_before_it_of_its_subscription_and_for_no_others() {
    let world = World::new();
    world.ingest(&[
        at(1, 0, 0, 1, created(1)),
        at(1, 0, 1, 2, extended(1)),
        at(2, 0, 0, 3, created(2)),
    ]);
    let ids: Vec<_> = std::iter::from_fn(|| world.outbox.claim().unwrap())
        .map(|j| j.id)
        .collect();
    assert_eq!(ids, [1, 3]);
    world.outbox.finish(1).unwrap();
    assert_eq!(world.outbox.claim().unwrap().unwrap().id, 2);
}

#[test]
fn a_parked_purchase_holds_up_extensions_but_a_cancellation_closes_it() {
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1)), at(2, 0, 0, 2, extended(1))]);
    world.outbox.claim().unwrap().unwrap();
    world.outbox.park(1, "undecryptable").unwrap();
    assert_eq!(world.outbox.claim().unwrap(), None);
    world.ingest(&[at(3, 0, 0, 3, cancelled(1))]);
    assert_eq!(world.outbox.claim().unwrap().unwrap().id, 3);
    world.outbox.finish(3).unwrap();
    assert_eq!(
        world.states(),
        [
            (1, JobState::Superseded),
            (2, JobState::Superseded),
            (3, JobState::Done)
        ]
    );
}

#[test]
fn a_postponed_job_is_not_due_and_still_blocks_its_subscription() {
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1)), at(2, 0, 0, 2, extended(1))]);
    world.outbox.claim().unwrap().unwrap();
    world
        .outbox
        .postpone(1, Duration::from_secs(100), "no")
        .unwrap();
    assert_eq!(world.outbox.claim().unwrap(), None);
}

#[test]
fn stopping_does_not_cost_an_attempt() {
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1))]);
    assert_eq!(world.outbox.claim().unwrap().unwrap().attempt, 1);
    world.outbox.put_back(1).unwrap();
    assert_eq!(world.outbox.claim().unwrap().unwrap().attempt, 1);
}

#[test]
fn a_reorganisation_removes_what_has_not_begun_and_reports_what_has() {
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1))]);
    world.ingest(&[at(5, 0, 0, 2, created(2)), at(5, 0, 1, 3, created(3))]);
    world.outbox.claim().unwrap().unwrap();
    assert_eq!(world.outbox.claim().unwrap().unwrap().id, 2);
    let back = world.outbox.roll_back(CHAIN, CONTRACT, Some(1)).unwrap();
    assert_eq!(
        back,
        RolledBack {
            removed: 1,
            started: vec![2]
        }
    );
    assert_eq!(
        world
            .outbox
            .cursor(CHAIN, CONTRACT)
            .unwrap()
            .unwrap()
            .number,
        1
    );
    assert!(world.outbox.show(2).unwrap().orphaned);
}

#[test]
fn a_purchase_that_a_reorganisation_moved_goes_on_as_the_same_job() {
    let world = World::new();
    world.ingest(&[at(5, 0, 0, 2, created(1))]);
    world.outbox.claim().unwrap().unwrap();
    world.outbox.record_step(1, "created", &"vm").unwrap();
    world.outbox.roll_back(CHAIN, CONTRACT, Some(1)).unwrap();
    assert_eq!(
        world.ingest(&[at(6, 1, 3, 2, created(1))]),
        Ingested {
            new: 0,
            adopted: 1,
            ..Ingested::default()
        }
    );
    assert!(!world.outbox.show(1).unwrap().orphaned);
    assert_eq!(
        world
            .outbox
            .step::<String>(1, "created")
            .unwrap()
            .as_deref(),
        Some("vm")
    );
}

#[test]
fn what_was_closed_by_hand_while_its_event_was_gone_is_parked_when_it_comes_back() {
    let world = World::new();
    world.ingest(&[at(5, 0, 0, 2, created(1)), at(5, 0, 1, 3, extended(2))]);
    for id in [(); 2].map(|()| world.outbox.claim().unwrap().unwrap().id) {
        world.outbox.postpone(id, Duration::ZERO, "no").unwrap();
    }
    world.outbox.roll_back(CHAIN, CONTRACT, Some(1)).unwrap();
    for id in [1, 2] {
        world.outbox.close(id, "its event is gone").unwrap();
    }
    // In another block, and in the very same one, as where a node was wrong for a while.
    let back = world.ingest(&[at(6, 1, 3, 2, created(1)), at(5, 0, 1, 3, extended(2))]);
    assert_eq!((back.new, back.returned), (0, vec![1, 2]));
    for id in [1, 2] {
        let job = world.outbox.show(id).unwrap();
        assert_eq!((job.state, job.orphaned), (JobState::Parked, false));
        assert!(job.last_error.unwrap().contains("decide anew"));
    }
    assert_eq!(world.outbox.claim().unwrap(), None, "nobody has decided");
    world.outbox.retry(1).unwrap();
    assert_eq!(world.outbox.claim().unwrap().unwrap().id, 1);
}

#[test]
fn what_a_cancellation_closed_stays_closed_when_both_come_back_and_cannot_be_retried() {
    let world = World::new();
    let end = || at(6, 0, 0, 3, cancelled(1));
    world.ingest(&[at(5, 0, 0, 2, created(1))]);
    world.outbox.claim().unwrap().unwrap();
    world.outbox.park(1, "no").unwrap();
    world.ingest(&[end()]);
    world.outbox.claim().unwrap().unwrap();
    world.outbox.finish(2).unwrap();
    world.outbox.roll_back(CHAIN, CONTRACT, Some(1)).unwrap();
    let back = world.ingest(&[at(6, 1, 3, 2, created(1)), end()]);
    assert_eq!((back.adopted, back.returned), (2, vec![]));
    let states = [(1, JobState::Superseded), (2, JobState::Done)];
    assert_eq!(world.states(), states);
    assert!(matches!(
        world.outbox.retry(1),
        Err(OutboxError::NotParked { id: 1, .. })
    ));
    assert_eq!(world.states(), states);
}

#[test]
fn what_a_cancellation_closed_that_the_chain_took_back_can_be_retried_from_the_start_unless_something_was_signed()
 {
    for signed in [false, true] {
        let world = World::new();
        world.ingest(&[at(1, 0, 0, 1, created(1))]);
        world.outbox.claim().unwrap().unwrap();
        world.outbox.record_step(1, CREATED, &"vm").unwrap();
        if signed {
            let wallet = Wallet::new(&PrivateKey::from_hex(&"01".repeat(32)).unwrap());
            let call = Call::contract(CONTRACT, Bytes::from_static(b"mint"));
            let tx = sign(&wallet, CHAIN, &call, 3, 100_000, Fees::Legacy { price: 5 }).unwrap();
            let from = wallet.address();
            world
                .outbox
                .journal(1, "mint", CHAIN, from, &call, &tx)
                .unwrap();
        }
        world.outbox.wait(1, Duration::ZERO, "no gas").unwrap();
        world.ingest(&[at(5, 0, 0, 3, cancelled(1))]);
        let end = world.outbox.claim().unwrap().unwrap().id;
        world.outbox.finish(end).unwrap();
        assert!(world.outbox.retry(1).is_err(), "it is cancelled");
        world.outbox.roll_back(CHAIN, CONTRACT, Some(1)).unwrap();
        world.outbox.retry(1).unwrap();
        let steps = world.outbox.show(1).unwrap().steps;
        assert_eq!(!steps.is_empty(), signed, "{steps:?}");
        assert_eq!(world.outbox.claim().unwrap().unwrap().id, 1);
    }
}

#[test]
fn what_was_closed_by_hand_can_be_retried_and_not_closed_again() {
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1))]);
    world.outbox.claim().unwrap().unwrap();
    world.outbox.park(1, "no").unwrap();
    world.outbox.close(1, "refunded").unwrap();
    assert_eq!(world.outbox.claim().unwrap(), None);
    assert!(world.outbox.close(1, "again").is_err());
    world.outbox.retry(1).unwrap();
    assert_eq!(world.outbox.claim().unwrap().unwrap().attempt, 1);
}

#[test]
fn another_purchase_under_the_id_of_a_started_one_is_parked_and_not_served() {
    let world = World::new();
    world.ingest(&[at(5, 0, 0, 2, created(1))]);
    world.outbox.claim().unwrap().unwrap();
    world.outbox.roll_back(CHAIN, CONTRACT, Some(1)).unwrap();
    let ingested = world.ingest(&[at(5, 1, 0, 9, created(1))]);
    assert_eq!((ingested.new, ingested.contradicting), (1, vec![2]));
    assert_eq!(world.outbox.show(2).unwrap().state, JobState::Parked);
}

#[test]
fn the_first_result_of_a_step_stays() {
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1))]);
    world.outbox.record_step(1, "minted", &7).unwrap();
    world.outbox.record_step(1, "minted", &8).unwrap();
    assert_eq!(world.outbox.step::<u64>(1, "minted").unwrap(), Some(7));
}

#[test]
fn a_signed_transaction_survives_a_crash_byte_for_byte_and_its_rivals_die_with_its_receipt() {
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1))]);
    let wallet = Wallet::new(&PrivateKey::from_hex(&"01".repeat(32)).unwrap());
    let call = Call {
        value: alloy::primitives::U256::from(7),
        ..Call::contract(CONTRACT, Bytes::from_static(b"mint"))
    };
    let fees = Fees::Dynamic { max: 10, tip: 1 };
    let first = sign(&wallet, CHAIN, &call, 3, 100_000, fees).unwrap();
    let second = sign(&wallet, CHAIN, &call, 3, 100_000, fees.bumped()).unwrap();
    for signed in [&first, &second] {
        world
            .outbox
            .journal(1, "mint", CHAIN, wallet.address(), &call, signed)
            .unwrap();
    }
    let world = world.crash();
    let rows = world.outbox.journaled(1, "mint").unwrap();
    assert_eq!(rows.len(), 2);
    assert!(
        rows.iter()
            .any(|row| row.signed == first && row.call == call)
    );
    world
        .outbox
        .settle(&second, TxState::Mined, Some(1))
        .unwrap();
    assert_eq!(world.outbox.live_txs(CHAIN, wallet.address()).unwrap(), []);
    assert_eq!(world.outbox.journaled(1, "mint").unwrap()[0].signed, second);
}

#[test]
fn a_job_retried_while_its_cancellation_runs_is_not_run_beside_it_nor_after_it() {
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1))]);
    let purchase = world.outbox.claim().unwrap().unwrap().id;
    world.outbox.park(purchase, "no").unwrap();
    world.ingest(&[at(2, 0, 0, 2, cancelled(1))]);
    let end = world.outbox.claim().unwrap().unwrap().id;
    world.outbox.retry(purchase).unwrap();
    assert_eq!(world.outbox.claim().unwrap(), None);
    world.outbox.finish(end).unwrap();
    assert_eq!(
        world.states(),
        [(purchase, JobState::Superseded), (end, JobState::Done)]
    );
}

#[test]
fn a_started_job_whose_event_is_gone_waits_for_a_decision_and_holds_up_no_cancellation() {
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1)), at(1, 0, 1, 2, created(2))]);
    let started = [(); 2].map(|()| world.outbox.claim().unwrap().unwrap().id);
    for id in started {
        world.outbox.postpone(id, Duration::ZERO, "failed").unwrap();
    }
    world.outbox.roll_back(CHAIN, CONTRACT, Some(0)).unwrap();
    assert_eq!(world.outbox.claim().unwrap(), None);
    assert_eq!(
        world.outbox.next_due().unwrap(),
        None,
        "nobody waits for it"
    );
    world.ingest(&[at(5, 1, 0, 5, cancelled(1))]);
    let end = world.outbox.claim().unwrap().unwrap();
    assert_eq!(end.event, cancelled(1));
    world.outbox.finish(end.id).unwrap();
    assert_eq!(world.states()[0].1, JobState::Superseded);
    // The operator wants it served all the same.
    world.outbox.retry(2).unwrap();
    assert_eq!(world.outbox.claim().unwrap().unwrap().id, 2);
}

#[test]
fn old_block_hashes_are_forgotten_but_for_one() {
    let world = World::new();
    for number in [1, 2, 3, 10_000] {
        world
            .outbox
            .ingest(
                CHAIN,
                CONTRACT,
                &[],
                Cursor {
                    number,
                    hash: hash(number, 0),
                },
            )
            .unwrap();
    }
    let kept: Vec<_> = world
        .outbox
        .known_blocks(CHAIN, CONTRACT, 100)
        .unwrap()
        .into_iter()
        .map(|c| c.number)
        .collect();
    assert_eq!(kept, [10_000, 3]);
}

/// One thing that can happen to an engine and its chain.
#[derive(Debug, Clone)]
enum Act {
    Seen { subscription: u64, kind: u8 },
    SeenAgain { index: prop::sample::Index },
    Claim,
    Finish,
    Fail,
    Park,
    Retry,
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1u64..4, 0u8..3).prop_map(|(subscription, kind)| Act::Seen { subscription, kind }),
        1 => any::<prop::sample::Index>().prop_map(|index| Act::SeenAgain { index }),
        4 => Just(Act::Claim),
        3 => Just(Act::Finish),
        1 => Just(Act::Fail),
        1 => Just(Act::Park),
        1 => Just(Act::Retry),
        1 => Just(Act::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens in whatever order: every event is one job, none is closed twice, and jobs of one subscription
    /// close in the order of their events, save for what a cancellation supersedes.
    #[test]
    fn no_job_is_lost_done_twice_or_out_of_order(acts in prop::collection::vec(act(), 1..60)) {
        let mut world = World::new();
        let mut seen: Vec<Located> = Vec::new();
        let mut running: Vec<(i64, u64)> = Vec::new();
        let mut closed: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Seen { subscription, kind } => {
                    let block = seen.len() as u64 + 1;
                    let event = match kind { 0 => created(subscription), 1 => extended(subscription), _ => cancelled(subscription) };
                    // The contract sells an id once.
                    if kind == 0 && seen.iter().any(|l| matches!(&l.event, Event::SubscriptionCreated { subscription_id, .. } if *subscription_id == subscription)) {
                        continue;
                    }
                    let located = at(block, 0, 0, u8::try_from(block % 251).unwrap(), event);
                    prop_assert_eq!(world.ingest(std::slice::from_ref(&located)).new, 1);
                    seen.push(located);
                }
                Act::SeenAgain { index } if !seen.is_empty() => {
                    let again = index.get(&seen).clone();
                    let head = Cursor { number: seen.len() as u64, hash: hash(seen.len() as u64, 0) };
                    prop_assert_eq!(world.outbox.ingest(CHAIN, CONTRACT, &[again], head).unwrap().new, 0);
                }
                Act::Claim => {
                    if let Some(job) = world.outbox.claim().unwrap() {
                        let subscription = job.event.subscription_id();
                        prop_assert!(!running.iter().any(|(_, s)| *s == subscription), "two jobs of one subscription at once");
                        let mut jobs = world.outbox.list(None, 1000).unwrap().into_iter();
                        let cancelled = jobs.any(|other| {
                            let open = [JobState::Pending, JobState::Running, JobState::Parked].contains(&other.state);
                            other.id > job.id && other.subscription_id == subscription && open && other.event == "SubscriptionCancelled"
                        });
                        prop_assert!(!cancelled || job.event.name() == "SubscriptionCancelled", "job {} is cancelled", job.id);
                        running.push((job.id, subscription));
                    }
                }
                Act::Finish if !running.is_empty() => {
                    let (id, subscription) = running.remove(0);
                    world.outbox.finish(id).unwrap();
                    let before = closed.entry(subscription).or_default();
                    prop_assert!(before.iter().all(|b| *b < id), "job {} closed after {:?}", id, before);
                    before.push(id);
                }
                Act::Fail if !running.is_empty() => world.outbox.postpone(running.remove(0).0, Duration::ZERO, "failed").unwrap(),
                Act::Park if !running.is_empty() => world.outbox.park(running.remove(0).0, "parked").unwrap(),
                Act::Retry => {
                    if let Some(job) = world.outbox.list(Some(JobState::Parked), 1).unwrap().first() {
                        world.outbox.retry(job.id).unwrap();
                    }
                }
                Act::Crash => {
                    running.clear();
                    world = world.crash();
                }
                _ => {}
            }
        }
        let states = world.states();
        prop_assert_eq!(states.len(), seen.len());
        let done: BTreeSet<i64> = states.iter().filter(|(_, s)| *s == JobState::Done).map(|(id, _)| *id).collect();
        prop_assert_eq!(done, closed.into_values().flatten().collect::<BTreeSet<_>>());
    }

    #[test]
    fn pauses_grow_stay_within_a_quarter_hour_and_end(attempt in 1u32..40, jitter in 0.0f64..=1.0, max in 1u32..40) {
        let retry = Retry { max_attempts: max, first: Duration::from_secs(5) };
        match retry.pause(attempt, jitter) {
            None => prop_assert!(attempt >= max),
            Some(pause) => {
                prop_assert!(attempt < max);
                prop_assert!(pause >= Duration::from_secs(4) && pause <= Duration::from_secs(1080), "{pause:?}");
                prop_assert_eq!(pause, retry.wait(attempt - 1, jitter), "waiting grows alike, and has no end");
                if let Some(next) = retry.pause(attempt + 1, jitter) {
                    prop_assert!(next >= pause);
                }
            }
        }
    }
}
