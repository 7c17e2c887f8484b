//! Orders and their steps across restarts, and databases of before there were any.

use super::super::{FORMATS, SCHEMA};
use super::*;
use crate::chain::tx::{Call, Fees, Wallet, sign};
use crate::chain::{Address, Bytes, U256};
use crate::crypto::keys::PrivateKey;
use crate::outbox::TxState;
use rusqlite::Connection;

const CHAIN: u64 = 31337;

fn wallet() -> Wallet {
    Wallet::new(&PrivateKey::from_hex(&"01".repeat(32)).unwrap())
}

#[test]
fn a_database_of_before_keeps_what_is_in_it_and_can_hold_money() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outbox.db");
    let call = Call::contract(Address::repeat_byte(1), Bytes::from_static(b"mint"));
    let signed = sign(
        &wallet(),
        CHAIN,
        &call,
        3,
        100_000,
        Fees::Legacy { price: 5 },
    )
    .unwrap();
    {
        let old = Connection::open(&path).unwrap();
        old.execute_batch(SCHEMA).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        old.execute(
            "INSERT INTO txs VALUES (?, 7, 'mint', 31337, ?, ?, ?, 3, 100000, '5', ?, 'live', 1)",
            params![
                signed.hash.to_string(),
                wallet().address().to_string(),
                Address::repeat_byte(1).to_string(),
                b"mint".as_slice(),
                signed.raw.as_ref()
            ],
        )
        .unwrap();
    }
    let outbox = Outbox::open_to_send(&path).unwrap();
    let rows = outbox.journaled(7, "mint").unwrap();
    assert_eq!(
        (rows[0].call.clone(), rows[0].signed.clone()),
        (call, signed)
    );
    let pay = Call::pay(Address::repeat_byte(2), U256::MAX);
    let paid = sign(&wallet(), CHAIN, &pay, 4, 21_000, Fees::Legacy { price: 5 }).unwrap();
    outbox
        .journal(0, "pay", CHAIN, wallet().address(), &pay, &paid)
        .unwrap();
    drop(outbox);
    let outbox = Outbox::open_to_send(&path).unwrap();
    assert_eq!(outbox.journaled(0, "pay").unwrap()[0].call, pay);
    let version: i64 = outbox
        .read(|c| c.pragma_query_value(None, "user_version", |row| row.get(0)))
        .unwrap();
    assert_eq!(version, crate::sqlite::newest(&FORMATS));
}

#[test]
fn an_order_enters_its_next_part_once_and_its_steps_are_numbered_on() {
    let outbox = Outbox::in_memory().unwrap();
    let id = outbox
        .open_order(CHAIN, "round", "withdraw", &["a".into(), "b".into()])
        .unwrap();
    assert!(
        outbox
            .advance_order(id, "withdraw", "pay", &["c".into()])
            .unwrap()
    );
    assert!(
        !outbox
            .advance_order(id, "withdraw", "pay", &["c".into()])
            .unwrap()
    );
    let bodies: Vec<(i64, String)> = outbox
        .steps_of(id)
        .unwrap()
        .into_iter()
        .map(|step| (step.number, step.body))
        .collect();
    assert_eq!(bodies, [(1, "a".into()), (2, "b".into()), (3, "c".into())]);
    assert_eq!(
        outbox.last_order(CHAIN, "round").unwrap().unwrap().stage,
        "pay"
    );
    outbox.end_order(id, OrderState::Done, None).unwrap();
    outbox
        .end_order(id, OrderState::Abandoned, Some("late"))
        .unwrap();
    let order = outbox.order(id).unwrap().unwrap();
    assert_eq!((order.state, order.detail), (OrderState::Done, None));
    assert!(outbox.open_orders(CHAIN).unwrap().is_empty());
    assert!(!outbox.advance_order(id, "pay", "more", &[]).unwrap());
}

#[test]
fn what_is_done_or_given_up_stays_so_and_is_recorded_once() {
    let outbox = Outbox::in_memory().unwrap();
    let id = outbox
        .open_order(CHAIN, "hand", "all", &["a".into(), "b".into()])
        .unwrap();
    outbox.fail_attempt(id, 1, "no").unwrap();
    outbox.finish_order_step(id, 1, "done").unwrap();
    outbox.fail_attempt(id, 1, "late").unwrap();
    outbox.give_up_step(id, 1, "late").unwrap();
    outbox.give_up_step(id, 2, "never").unwrap();
    outbox.finish_order_step(id, 2, "late").unwrap();
    let steps = outbox.steps_of(id).unwrap();
    assert_eq!((steps[0].state, steps[0].attempt), (StepState::Done, 1));
    assert_eq!(steps[0].outcome.as_deref(), Some("done"));
    assert_eq!(steps[1].state, StepState::Failed);
    assert_eq!(outbox.unrecorded_steps().unwrap().len(), 1);
    outbox.step_recorded(id, 1).unwrap();
    assert!(outbox.unrecorded_steps().unwrap().is_empty());
}

#[test]
fn a_replacement_by_another_process_is_found_by_purpose_and_nonce() {
    let outbox = Outbox::in_memory().unwrap();
    let (from, call) = (wallet().address(), Call::pay(Address::ZERO, U256::from(1)));
    let fees = Fees::Legacy { price: 5 };
    let at = |nonce, fees| sign(&wallet(), CHAIN, &call, nonce, 21_000, fees).unwrap();
    let (first, second, other) = (at(1, fees), at(1, fees.bumped()), at(2, fees));
    for (purpose, signed) in [("a", &first), ("a", &second), ("b", &other)] {
        outbox
            .journal(0, purpose, CHAIN, from, &call, signed)
            .unwrap();
    }
    assert!(outbox.is_live(0, "a").unwrap());
    let rows = outbox.journaled(0, "a").unwrap();
    let found = outbox.siblings(CHAIN, from, &rows[0]).unwrap();
    assert_eq!(found.len(), 2);
    outbox.settle(&second, TxState::Mined, Some(1)).unwrap();
    assert!(!outbox.is_live(0, "a").unwrap());
    assert_eq!(
        outbox.siblings(CHAIN, from, &rows[0]).unwrap().len(),
        2,
        "also those that lost"
    );
}
