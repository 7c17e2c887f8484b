//! What is promised of what came before a record, by itself.

use super::*;

#[test]
fn what_a_user_never_did_is_surprising_unless_that_user_always_does_new_things() {
    let mut pairs = Pairs::new();
    for n in 0..1000_u64 {
        pairs.note(1, 10, 5);
        pairs.note(1, 20, 1000 + n);
        pairs.tick();
    }
    let (steady, changing) = (pairs.surprise(1, 10, 77), pairs.surprise(1, 20, 77));
    assert!(steady > 2 * changing, "{steady} {changing}");
    assert!(pairs.surprise(1, 10, 5) < 10);
    // Forgotten by half again and again, and still not new.
    for _ in 0..20 * HALVING {
        pairs.tick();
    }
    assert!(pairs.surprise(1, 10, 5) < pairs.surprise(1, 10, 77));
}

#[test]
fn a_rate_is_judged_by_the_users_own_usual() {
    let (mut calm, mut busy) = (Rate::default(), Rate::default());
    for window in 0..50 {
        calm.add(window);
        (0..40).for_each(|_| {
            busy.add(window);
        });
    }
    let burst = |rate: &mut Rate| (0..40).map(|_| rate.add(99)).max().unwrap_or(0);
    let (calm, busy) = (burst(&mut calm), burst(&mut busy));
    assert!(calm > 10_000 && busy < 1000, "{calm} {busy}");
}

#[test]
fn an_hour_beside_the_usual_one_is_less_surprising_than_one_far_away() {
    let mut hours = Hours::default();
    (0..200).for_each(|day| hours.note(day * 86_400 + 14 * HOUR_S));
    let [usual, beside, far] = [14, 15, 3].map(|hour| hours.surprise(hour * HOUR_S));
    assert!(usual < beside && beside < far, "{usual} {beside} {far}");
}
