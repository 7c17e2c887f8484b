use super::*;

const NOW: i64 = 1_800_000_000;

fn wallet(n: u8) -> Address {
    Address::repeat_byte(n)
}

fn machine() -> Machine {
    Machine {
        status: Status::Active,
        expires_at: NOW + 1000,
        wallet: Some(wallet(1)),
        token: Some(5),
        guest_knows: true,
        here: true,
        down: false,
    }
}

/// Everything about subscription 1 in order.
fn good() -> Observed {
    Observed {
        now: NOW,
        bought: 1,
        subscriptions: [(
            1,
            Subscription {
                expires_at: NOW + 1000,
                cancelled: false,
            },
        )]
        .into(),
        machines: [(1, machine())].into(),
        credentials: [(
            1,
            Credential::Minted {
                token: 5,
                owner: Some(wallet(1)),
            },
        )]
        .into(),
        open: BTreeMap::new(),
    }
}

fn problems(seen: &Observed) -> Vec<Problem> {
    compare(seen)
        .into_iter()
        .map(|finding| finding.problem)
        .collect()
}

fn with(change: impl FnOnce(&mut Observed)) -> Vec<Problem> {
    let mut seen = good();
    change(&mut seen);
    problems(&seen)
}

fn of_record(change: impl FnOnce(&mut Machine)) -> Vec<Problem> {
    with(|seen| change(seen.machines.get_mut(&1).unwrap()))
}

#[test]
fn what_fits_together_is_no_finding() {
    assert_eq!(problems(&good()), []);
}

#[test]
fn a_machine_follows_its_credential_and_the_guest_is_told_when_it_runs() {
    let moved = Credential::Minted {
        token: 5,
        owner: Some(wallet(2)),
    };
    for (status, running) in [(Status::Active, true), (Status::Suspended, false)] {
        let found = with(|seen| {
            seen.now = NOW + 2000;
            seen.credentials.insert(1, moved);
            seen.machines.get_mut(&1).unwrap().status = status;
        });
        assert_eq!(
            found,
            [Problem::OwnerChanged {
                token: 5,
                wallet: wallet(2),
                running
            }]
        );
    }
    let told = of_record(|machine| machine.guest_knows = false);
    assert_eq!(
        told,
        [Problem::GuestBehind {
            token: 5,
            wallet: wallet(1)
        }]
    );
    let asleep = with(|seen| {
        seen.now = NOW + 2000;
        let machine = seen.machines.get_mut(&1).unwrap();
        machine.guest_knows = false;
        machine.status = Status::Suspended;
    });
    assert_eq!(asleep, []);
}

/// After a reorganisation the recorded number may be somebody else's token: its owner must never get the machine.
#[test]
fn the_owner_of_another_token_than_the_minted_one_gets_nothing() {
    let found = of_record(|machine| machine.token = Some(4));
    assert_eq!(
        found,
        [Problem::TokenDiffers {
            recorded: Some(4),
            token: 5
        }]
    );
    for credential in [Credential::Unproven, Credential::Young] {
        let found = with(|seen| {
            seen.credentials.insert(1, credential);
            seen.machines.get_mut(&1).unwrap().wallet = Some(wallet(9));
        });
        assert_eq!(found, [], "{credential:?}");
    }
}

#[test]
fn a_mint_that_is_gone_is_done_again_and_a_burnt_one_is_reported() {
    let found = with(|seen| _ = seen.credentials.insert(1, Credential::TakenBack { job: 3 }));
    assert_eq!(found, [Problem::MintTakenBack { job: 3 }]);
    let burnt = Credential::Minted {
        token: 5,
        owner: None,
    };
    let found = with(|seen| _ = seen.credentials.insert(1, burnt));
    assert_eq!(found, [Problem::Burnt { token: 5 }]);
}

#[test]
fn the_contract_says_until_when_a_machine_runs() {
    let found = of_record(|machine| machine.expires_at = NOW - 5);
    let missed = Problem::ExpiryDiffers {
        recorded: NOW - 5,
        expires_at: NOW + 1000,
        resume: false,
    };
    assert_eq!(found, [missed]);
    let found = of_record(|machine| {
        machine.expires_at = NOW - 5;
        machine.status = Status::Suspended;
    });
    assert!(
        matches!(found[..], [Problem::ExpiryDiffers { resume: true, .. }]),
        "{found:?}"
    );
}

/// After a resume that failed, both say the same, and the customer has no machine.
#[test]
fn a_paid_machine_that_stayed_suspended_is_found_and_one_that_is_over_is_not() {
    let found = of_record(|machine| machine.status = Status::Suspended);
    let expires_at = NOW + 1000;
    assert_eq!(found, [Problem::NotResumed { expires_at }]);
    for (stands, expected) in [(Stands::Runs, 0), (Stands::Waits, 1), (Stands::Parked, 1)] {
        let found = with(|seen| {
            seen.open.insert(1, OpenJob { id: 8, stands });
            seen.machines.get_mut(&1).unwrap().status = Status::Suspended;
        });
        assert_eq!(found.len(), expected, "{stands:?}: {found:?}");
    }
    let over = with(|seen| {
        seen.now = NOW + 1000;
        seen.machines.get_mut(&1).unwrap().status = Status::Suspended;
    });
    assert_eq!(over, []);
}

#[test]
fn an_active_machine_that_does_not_run_is_reported_and_one_that_is_suspended_is_not() {
    let found = of_record(|machine| machine.down = true);
    assert_eq!(found, [Problem::NotRunning]);
    let asleep = with(|seen| {
        seen.now = NOW + 2000;
        let machine = seen.machines.get_mut(&1).unwrap();
        (machine.down, machine.status) = (true, Status::Suspended);
    });
    assert_eq!(asleep, []);
}

#[test]
fn what_is_on_another_host_is_neither_mended_nor_missed() {
    let found = of_record(|machine| {
        machine.here = false;
        machine.expires_at = NOW - 5;
        machine.wallet = Some(wallet(9));
        machine.down = true;
    });
    assert_eq!(found, []);
}

#[test]
fn nothing_is_destroyed_or_mended_while_somebody_else_is_at_it() {
    let cancelled = Subscription {
        expires_at: NOW + 1000,
        cancelled: true,
    };
    let found = with(|seen| _ = seen.subscriptions.insert(1, cancelled));
    assert_eq!(found, [Problem::Cancelled]);
    for (stands, expected) in [(Stands::Runs, 0), (Stands::Waits, 0), (Stands::Parked, 1)] {
        let found = with(|seen| {
            seen.subscriptions.insert(1, cancelled);
            seen.open.insert(1, OpenJob { id: 8, stands });
        });
        assert_eq!(found.len(), expected);
    }
    let moved = Credential::Minted {
        token: 5,
        owner: Some(wallet(2)),
    };
    for stands in [Stands::Runs, Stands::Waits, Stands::Parked] {
        let found = with(|seen| {
            seen.open.insert(1, OpenJob { id: 8, stands });
            seen.credentials.insert(1, moved);
            seen.machines.get_mut(&1).unwrap().expires_at = NOW + 2000;
        });
        assert_eq!(
            found,
            [],
            "a machine waits for the same decision as its job ({stands:?})"
        );
    }
}

#[test]
fn paid_time_is_entered_although_a_job_stands_still_and_nothing_else_is() {
    for (stands, expected) in [(Stands::Runs, 0), (Stands::Waits, 1), (Stands::Parked, 1)] {
        let found = with(|seen| {
            seen.open.insert(1, OpenJob { id: 8, stands });
            seen.machines.get_mut(&1).unwrap().expires_at = NOW - 5;
            seen.machines.get_mut(&1).unwrap().wallet = Some(wallet(9));
        });
        assert_eq!(found.len(), expected, "{stands:?}: {found:?}");
        assert!(
            found
                .iter()
                .all(|problem| matches!(problem, Problem::ExpiryDiffers { .. })),
            "{found:?}"
        );
    }
}

#[test]
fn a_paid_subscription_without_a_machine_is_reported_with_the_job_that_waits() {
    let gone = |seen: &mut Observed| seen.machines.get_mut(&1).unwrap().status = Status::Destroyed;
    assert_eq!(with(gone), [Problem::NoMachine { job: None }]);
    let found = with(|seen| {
        seen.machines.clear();
        seen.open.insert(
            1,
            OpenJob {
                id: 8,
                stands: Stands::Parked,
            },
        );
    });
    assert_eq!(found, [Problem::NoMachine { job: Some(8) }]);
    let over = with(|seen| {
        seen.machines.clear();
        seen.subscriptions.get_mut(&1).unwrap().expires_at = NOW;
    });
    assert_eq!(over, []);
}

#[test]
fn a_machine_of_a_subscription_that_never_was_is_reported() {
    assert_eq!(with(|seen| seen.bought = 0), [Problem::NoSubscription]);
    let found = with(|seen| {
        seen.credentials.insert(1, Credential::Unproven);
        seen.machines.get_mut(&1).unwrap().token = None;
    });
    assert_eq!(found, [Problem::NoCredential]);
}

#[test]
fn only_what_takes_nothing_from_anybody_is_repaired() {
    let finding = |problem| Finding {
        subscription: 1,
        vm_name: machine_name(1),
        problem,
    };
    for problem in [
        Problem::NotRunning,
        Problem::NoCredential,
        Problem::Burnt { token: 1 },
        Problem::Cancelled,
        Problem::NoSubscription,
        Problem::NoMachine { job: None },
    ] {
        let finding = finding(problem);
        assert!(!finding.is_repaired(), "{finding:?}");
        assert!(finding.sentence().contains('1'), "{finding:?}");
    }
    let json = serde_json::to_value(finding(Problem::MintTakenBack { job: 3 })).unwrap();
    assert_eq!(json["problem"], "mint-taken-back");
    assert_eq!(json["job"], 3);
}
