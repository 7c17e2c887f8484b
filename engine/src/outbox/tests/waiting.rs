//! Jobs that wait, what stands behind them, and what asking for the next one costs.

use super::*;

#[test]
fn waiting_for_what_is_not_the_jobs_own_costs_no_attempt_however_often() {
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1))]);
    for waits in 0..20 {
        let job = world.outbox.claim().unwrap().unwrap();
        assert_eq!((job.attempt, job.waits), (1, waits));
        world
            .outbox
            .wait(job.id, Duration::ZERO, "nobody answers")
            .unwrap();
    }
    // One that counts, in between, does.
    world.outbox.claim().unwrap().unwrap();
    world.outbox.postpone(1, Duration::ZERO, "no").unwrap();
    assert_eq!(world.outbox.claim().unwrap().unwrap().attempt, 2);
    let shown = world.outbox.show(1).unwrap();
    assert_eq!((shown.attempts, shown.waits), (22, 20));
    world.outbox.park(1, "why").unwrap();
    world.outbox.retry(1).unwrap();
    let again = world.outbox.claim().unwrap().unwrap();
    assert_eq!((again.attempt, again.waits), (1, 0));
}

#[test]
fn a_job_that_goes_on_waits_briefly_again_and_its_attempts_count_as_before() {
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1))]);
    let attempt = || world.outbox.claim().unwrap().unwrap();
    attempt();
    world.outbox.postpone(1, Duration::ZERO, "no").unwrap();
    for _ in 0..9 {
        attempt();
        world.outbox.wait(1, Duration::ZERO, "no gas").unwrap();
    }
    assert_eq!(
        (attempt().attempt, world.outbox.show(1).unwrap().waits),
        (2, 9)
    );
    world.outbox.record_step(1, "minted", &7).unwrap();
    assert_eq!(world.outbox.show(1).unwrap().waits, 0);
    // Recorded again is no progress.
    world.outbox.wait(1, Duration::ZERO, "busy").unwrap();
    world.outbox.record_step(1, "minted", &7).unwrap();
    let next = attempt();
    assert_eq!((next.attempt, next.waits), (2, 1));
}

/// What a customer pays for while an earlier job stands still has a job of its own, which does not run either: it must not
/// be taken for one that is at work.
#[test]
fn what_stands_behind_a_job_that_stands_still_does_not_count_as_at_work() {
    use crate::reconcile::plan::{OpenJob, Stands};
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1)), at(2, 0, 0, 2, extended(1))]);
    let open = || world.outbox.open_jobs(CHAIN, CONTRACT).unwrap().remove(&1);
    let first = |stands| Some(OpenJob { id: 1, stands });
    assert_eq!(open(), first(Stands::Runs));
    world.outbox.claim().unwrap().unwrap();
    assert_eq!(open(), first(Stands::Runs));
    world
        .outbox
        .wait(1, Duration::ZERO, "gas is too dear")
        .unwrap();
    assert_eq!(open(), first(Stands::Waits));
    world.outbox.claim().unwrap().unwrap();
    assert_eq!(open(), first(Stands::Runs));
    world.outbox.park(1, "no").unwrap();
    assert_eq!(open(), first(Stands::Parked));
    // Nothing holds up a cancellation, which holds up everything.
    world.ingest(&[at(3, 0, 0, 3, cancelled(1))]);
    let end = |stands| Some(OpenJob { id: 3, stands });
    assert_eq!(open(), end(Stands::Runs));
    world.outbox.claim().unwrap().unwrap();
    world.outbox.wait(3, Duration::ZERO, "agent away").unwrap();
    world.outbox.retry(1).unwrap();
    assert_eq!(open(), end(Stands::Waits));
    world.outbox.claim().unwrap().unwrap();
    world.outbox.park(3, "no").unwrap();
    assert_eq!(open(), end(Stands::Parked));
}

/// A purchase may wait for days, for cheaper gas or for the agent: who cancels meanwhile has their machine destroyed, also when
/// an extension stands in between.
#[test]
fn a_cancellation_does_not_wait_behind_what_waits_and_closes_it() {
    let put_off: [fn(&Outbox); 2] = [
        |outbox| outbox.wait(1, Duration::from_secs(900), "no gas").unwrap(),
        |outbox| outbox.postpone(1, Duration::from_secs(9), "no").unwrap(),
    ];
    for put_off in put_off {
        let world = World::new();
        world.ingest(&[at(1, 0, 0, 1, created(1))]);
        world.outbox.claim().unwrap().unwrap();
        world.ingest(&[at(2, 0, 0, 2, extended(1)), at(3, 0, 0, 3, cancelled(1))]);
        assert_eq!(world.outbox.claim().unwrap(), None, "beside one that runs");
        put_off(&world.outbox);
        let end = world.outbox.claim().unwrap().expect("its turn");
        assert_eq!(end.event, cancelled(1));
        world.outbox.finish(end.id).unwrap();
        let closed = [1, 2].map(|id| (id, JobState::Superseded));
        assert_eq!(world.states()[..2], closed);
        assert_eq!(world.outbox.claim().unwrap(), None);
    }
}

/// A cancellation is interrupted as well. The machine is destroyed then and that is not closed yet: a purchase that went on
/// in the middle of it would make another one, which nobody takes away.
#[test]
fn what_is_cancelled_does_not_go_on_while_its_cancellation_waits_is_parked_or_was_interrupted() {
    let interrupted: [fn(World) -> World; 4] = [
        |world| {
            let long = Duration::from_secs(900);
            world.outbox.wait(3, long, "agent away").unwrap();
            world
        },
        |world| {
            let long = Duration::from_secs(900);
            world.outbox.postpone(3, long, "no").unwrap();
            world
        },
        |world| {
            world.outbox.park(3, "no").unwrap();
            world
        },
        World::crash,
    ];
    for (n, interrupted) in interrupted.into_iter().enumerate() {
        let world = World::new();
        world.ingest(&[at(1, 0, 0, 1, created(1)), at(2, 0, 0, 2, extended(1))]);
        world.outbox.claim().unwrap().unwrap();
        world.outbox.wait(1, Duration::ZERO, "agent away").unwrap();
        world.ingest(&[at(3, 0, 0, 3, cancelled(1))]);
        assert_eq!(world.outbox.claim().unwrap().unwrap().id, 3);
        world.outbox.record_step(3, "destroyed", &true).unwrap();
        let world = interrupted(world);
        let behind = [1, 2, 3].map(|id| world.outbox.show(id).unwrap().behind);
        assert_eq!(behind, [Some(3), Some(3), None], "{n}");
        let next = world.outbox.claim().unwrap().map(|job| job.id);
        assert!(next.is_none_or(|id| id == 3), "{n}: job {next:?}");
        world.outbox.finish(3).unwrap();
        assert_eq!(world.outbox.claim().unwrap(), None, "{n}");
        let closed = [1, 2].map(|id| (id, JobState::Superseded));
        assert_eq!(world.states()[..2], closed, "{n}");
    }
    // One that the chain took back holds nothing up.
    let world = World::new();
    world.ingest(&[at(1, 0, 0, 1, created(1))]);
    world.ingest(&[at(3, 0, 0, 3, cancelled(1))]);
    assert_eq!(world.outbox.claim().unwrap().unwrap().id, 2);
    world.outbox.wait(2, Duration::ZERO, "agent away").unwrap();
    world.outbox.roll_back(CHAIN, CONTRACT, Some(1)).unwrap();
    assert_eq!(world.outbox.show(1).unwrap().behind, None);
    assert_eq!(world.outbox.claim().unwrap().unwrap().id, 1);
}

/// What garbage collection must not take: an extension whose job waits its turn, runs, failed or is parked.
#[test]
fn what_was_paid_for_is_owed_until_it_is_entered_or_somebody_decides() {
    let world = World::new();
    let until = |id, until| Event::SubscriptionExtended {
        subscription_id: id,
        extended_by: Address::ZERO,
        new_expires_at: until,
        paid_amount: "1".into(),
        payment_token: Address::ZERO,
    };
    let owed = || world.outbox.owed(CHAIN, CONTRACT).unwrap();
    world.ingest(&[at(1, 0, 0, 1, created(1)), at(2, 0, 0, 2, created(2))]);
    assert_eq!(owed(), [].into());
    world.ingest(&[
        at(3, 0, 0, 3, until(1, 2000)),
        at(3, 0, 1, 4, until(1, 3000)),
        at(3, 0, 2, 5, until(2, 5000)),
    ]);
    assert_eq!(owed(), [(1, 3000), (2, 5000)].into());
    for id in [1, 2] {
        world.outbox.claim().unwrap().unwrap();
        world.outbox.finish(id).unwrap();
    }
    let first = world.outbox.claim().unwrap().unwrap().id;
    assert_eq!(owed(), [(1, 3000), (2, 5000)].into(), "runs");
    world.outbox.finish(first).unwrap();
    assert_eq!(owed(), [(1, 3000), (2, 5000)].into(), "the later one");
    let second = world.outbox.claim().unwrap().unwrap().id;
    world.outbox.finish(second).unwrap();
    assert_eq!(owed(), [(2, 5000)].into());
    let last = world.outbox.claim().unwrap().unwrap().id;
    world
        .outbox
        .wait(last, Duration::ZERO, "database away")
        .unwrap();
    assert_eq!(owed(), [(2, 5000)].into(), "waits");
    world.outbox.park(last, "no").unwrap();
    assert_eq!(owed(), [(2, 5000)].into(), "is parked");
    world.outbox.close(last, "refunded").unwrap();
    assert_eq!(owed(), [].into());
    // One that the chain took back pays for nothing.
    world.ingest(&[at(9, 0, 0, 9, until(1, 9000))]);
    world.outbox.claim().unwrap().unwrap();
    world.outbox.roll_back(CHAIN, CONTRACT, Some(8)).unwrap();
    assert_eq!(owed(), [].into());
}

/// What is asked for each event and each job must not read all that ever were: a word changed in a query is enough for that.
#[test]
fn nothing_that_is_asked_for_each_event_or_job_reads_all_that_ever_were() {
    let world = World::new();
    let connection = world.outbox.connection();
    let plan = |sql: &str| -> Vec<String> {
        let mut statement = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        let rows = statement.raw_query();
        rows.mapped(|row| row.get::<_, String>(3))
            .collect::<rusqlite::Result<_>>()
            .unwrap()
    };
    let unsettled = format!("SELECT hash FROM txs WHERE {}", young::UNSETTLED);
    let queries: [(&str, &[&str]); 5] = [
        (ingest::ORPHAN, &["jobs_orphaned"]),
        (jobs::CLAIM, &["jobs_open", "jobs_waiting"]),
        (jobs::NEXT_DUE, &["jobs_open"]),
        (jobs::SUPERSEDE, &["jobs_waiting"]),
        (&unsettled, &["txs_by_nonce"]),
    ];
    for (sql, indices) in queries {
        let plan = plan(sql);
        assert!(
            !plan.iter().any(|line| line.starts_with("SCAN")),
            "{sql}: {plan:?}"
        );
        for index in indices {
            assert!(
                plan.iter().any(|line| line.contains(index)),
                "{sql}: {plan:?} without {index}"
            );
        }
    }
}
