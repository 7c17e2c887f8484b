//! The planner against every kind of balance, also those that cannot be.

use super::*;
use proptest::prelude::*;

const USD: U256 = U256::from_limbs([1_000_000, 0, 0, 0]);

fn account(n: u8) -> Account {
    Account {
        name: format!("a{n}"),
        address: Address::repeat_byte(n),
    }
}

fn usd(n: u64) -> U256 {
    U256::from(n) * USD
}

fn token(n: u8, decimals: u8) -> Token {
    Token {
        address: Some(Address::repeat_byte(n)),
        decimals,
    }
}

fn seen(held: Vec<Holding>) -> Seen {
    Seen {
        server: account(1),
        hot: account(2),
        admin: Address::repeat_byte(3),
        server_eth: U256::from(10).pow(U256::from(18)),
        hot_eth: U256::from(10).pow(U256::from(16)),
        stable: Some((token(9, 6), U256::ZERO)),
        held,
    }
}

fn rules(bps: &[u16]) -> Rules {
    Rules {
        least: usd(50),
        hot_gas: U256::from(10).pow(U256::from(16)),
        buffer: usd(50),
        recipients: bps
            .iter()
            .enumerate()
            .map(|(i, bps)| Recipient {
                name: format!("r{i}"),
                to: Address::repeat_byte(0x20 + u8::try_from(i).unwrap()),
                bps: *bps,
            })
            .collect(),
    }
}

fn stable(amount: U256) -> Holding {
    Holding {
        token: token(9, 6),
        amount,
        price: Price::Dollar,
    }
}

fn amounts(steps: &[Step]) -> Vec<(U256, Address)> {
    steps
        .iter()
        .map(|step| match step.deed {
            Deed::Transfer { amount, to, .. } => (amount, to),
            ref other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn the_buffer_comes_first_then_the_shares_then_the_admin() {
    let steps = payments(&seen(vec![stable(usd(150))]), &rules(&[1000, 250])).unwrap();
    assert_eq!(
        amounts(&steps),
        [
            (usd(50), Address::repeat_byte(1)),
            (usd(10), Address::repeat_byte(0x20)),
            (U256::from(2_500_000), Address::repeat_byte(0x21)),
            (U256::from(87_500_000), Address::repeat_byte(3)),
        ]
    );
}

#[test]
fn the_hot_wallet_gets_the_gas_that_it_lacks_and_no_more() {
    let mut poor = seen(vec![]);
    poor.hot_eth = U256::from(1);
    let steps = payments(&poor, &rules(&[])).unwrap();
    assert_eq!(
        amounts(&steps),
        [(
            U256::from(10).pow(U256::from(16)) - U256::from(1),
            Address::repeat_byte(2)
        )]
    );
    assert_eq!(payments(&seen(vec![]), &rules(&[])).unwrap(), []);
    poor.server_eth = U256::from(10).pow(U256::from(16));
    assert_eq!(
        payments(&poor, &rules(&[])).unwrap(),
        [],
        "the server keeps what it needs itself"
    );
    poor.hot_eth = U256::ZERO;
    assert!(matches!(
        payments(&poor, &rules(&[])),
        Err(PlanError::NoGas(_))
    ));
}

#[test]
fn little_stays_where_it_is_and_so_does_what_nobody_has_a_price_for() {
    let less = U256::from(49_999_999);
    let unknown = Holding {
        price: Price::Unknown,
        ..stable(usd(1000))
    };
    let empty_pair = Holding {
        price: Price::Pair {
            token_reserve: U256::ZERO,
            stable_reserve: U256::ZERO,
            stable_decimals: 6,
        },
        ..stable(usd(1000))
    };
    for held in [stable(less), unknown, empty_pair, stable(U256::ZERO)] {
        assert_eq!(payments(&seen(vec![held]), &rules(&[100])).unwrap(), []);
        let steps = withdrawals(
            Address::ZERO,
            &[held],
            usd(50),
            &account(1),
            Address::repeat_byte(2),
        );
        assert_eq!(steps, []);
    }
    let just = withdrawals(
        Address::ZERO,
        &[stable(usd(50))],
        usd(50),
        &account(1),
        Address::repeat_byte(2),
    );
    assert_eq!(just.len(), 1);
}

#[test]
fn a_pairs_reserves_give_the_worth_whatever_the_decimals() {
    let held = Holding {
        token: token(7, 18),
        amount: U256::from(10).pow(U256::from(18)),
        price: Price::Pair {
            token_reserve: U256::from(10) * U256::from(10).pow(U256::from(18)),
            stable_reserve: usd(20_000),
            stable_decimals: 6,
        },
    };
    assert_eq!(held.worth(), Some(usd(2000)));
}

#[test]
fn gas_is_bought_when_it_is_low_and_can_be_paid() {
    let seen = |worth: u64, has: u64, allowance: u64| GasSeen {
        server: account(1),
        worth: usd(worth),
        stable: token(9, 18),
        has: U256::from(has) * U256::from(10).pow(U256::from(18)),
        allowance: U256::from(allowance) * U256::from(10).pow(U256::from(18)),
        router: Address::repeat_byte(8),
    };
    let gas = |worth, has, allowance| gas(&seen(worth, has, allowance), usd(5), usd(20), 100);
    assert_eq!(gas(5, 100, 0), Gas::Enough);
    assert_eq!(gas(4, 19, 0), Gas::Poor);
    let steps = |gas: Gas| match gas {
        Gas::Buy(steps) => steps
            .into_iter()
            .map(|step| match step.deed {
                Deed::Approve { amount, .. } if amount.is_zero() => "nothing",
                Deed::Approve { .. } => "approve",
                Deed::Swap { amount, .. } => {
                    assert_eq!(amount, U256::from(20) * U256::from(10).pow(U256::from(18)));
                    "swap"
                }
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(steps(gas(4, 20, 0)), ["approve", "swap"]);
    assert_eq!(steps(gas(0, 20, 3)), ["nothing", "approve", "swap"]);
    assert_eq!(steps(gas(0, 20, 20)), ["swap"]);
}

#[test]
fn the_least_that_a_swap_has_to_bring_is_what_was_quoted_less_the_slippage() {
    assert_eq!(least_out(U256::from(1000), 100), U256::from(990));
    assert_eq!(least_out(U256::from(1000), 0), U256::from(1000));
    assert_eq!(least_out(U256::MAX, 20_000), U256::ZERO);
}

proptest! {
    #[test]
    fn what_is_paid_of_a_token_comes_exactly_to_what_there_is(
        limbs: [u64; 4], bps in prop::collection::vec(0..2000_u16, 0..6), server_has: u64,
        decimals in 0..=36_u8, token_reserve: [u64; 2], stable_reserve: [u64; 2]
    ) {
        let token = token(9, decimals);
        let wide = |limbs: [u64; 2]| U256::from_limbs([limbs[0], limbs[1], 0, 0]);
        for price in [
            Price::Dollar,
            Price::Pair { token_reserve: wide(token_reserve), stable_reserve: wide(stable_reserve), stable_decimals: 6 },
        ] {
            let amount = U256::from_limbs(limbs);
            let mut seen = seen(vec![Holding { token, amount, price }]);
            seen.stable = Some((token, U256::from(server_has)));
            let mut sum = U256::ZERO;
            let steps = payments(&seen, &rules(&bps)).unwrap();
            for (part, to) in amounts(&steps) {
                prop_assert!(!part.is_zero() && to != seen.hot.address);
                sum = sum.checked_add(part).unwrap();
            }
            prop_assert!(sum == amount || steps.is_empty());
        }
    }
}
