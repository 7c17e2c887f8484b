//! What is promised of what came before a record, by itself.

use super::*;

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
