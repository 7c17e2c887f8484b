//! Amounts of money: decimal text to base units and back, exactly. No floating point anywhere; what a token cannot hold is
//! an error and never rounded.

use crate::chain::U256;
use std::fmt;
use std::str::FromStr;

/// Longest text of an amount; 2^256 has 78 digits.
const MAX_TEXT: usize = 120;
/// More decimals than any real token has; one that says more is not believed.
pub const MAX_DECIMALS: u8 = 36;

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not digits with at most one point between them.
    #[error("{text:?} is not an amount: digits, and at most one point between them, such as 12.5")]
    Syntax {
        /// The text, cut.
        text: String,
    },
    /// It has more decimals than the token.
    #[error("{text} is finer than the token, which has {decimals} decimals")]
    TooFine {
        /// The amount.
        text: String,
        /// What the token has.
        decimals: u8,
    },
    /// Beyond 2^256.
    #[error("{text} is more than any token can hold")]
    TooLarge {
        /// The amount.
        text: String,
    },
    /// Nothing.
    #[error("{text} is nothing; an amount must be more than 0")]
    Zero {
        /// The amount.
        text: String,
    },
    /// The token claims absurd decimals.
    #[error("the token says that it has {0} decimals; no token has more than {MAX_DECIMALS}")]
    Decimals(u8),
}

/// A number with decimals, exactly as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    text: String,
    whole: String,
    fraction: String,
}

impl FromStr for Decimal {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let syntax = || AmountError::Syntax {
            text: text.chars().take(MAX_TEXT).collect(),
        };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) if digits(fraction) => (whole, fraction),
            Some(_) => return Err(syntax()),
            None => (text, ""),
        };
        if text.len() > MAX_TEXT || !digits(whole) {
            return Err(syntax());
        }
        Ok(Self {
            text: text.to_owned(),
            whole: whole.trim_start_matches('0').to_owned(),
            fraction: fraction.trim_end_matches('0').to_owned(),
        })
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Decimal {
    /// In base units of something with so many decimals.
    ///
    /// # Errors
    /// [`AmountError::TooFine`], [`AmountError::TooLarge`], [`AmountError::Decimals`].
    pub fn units(&self, decimals: u8) -> Result<U256, AmountError> {
        if decimals > MAX_DECIMALS {
            return Err(AmountError::Decimals(decimals));
        }
        let places = usize::from(decimals);
        if self.fraction.len() > places {
            return Err(AmountError::TooFine {
                text: self.text.clone(),
                decimals,
            });
        }
        let digits = format!("{}{:0<places$}", self.whole, self.fraction);
        if digits.is_empty() {
            return Ok(U256::ZERO);
        }
        U256::from_str_radix(&digits, 10).map_err(|_| AmountError::TooLarge {
            text: self.text.clone(),
        })
    }

    /// The same, and more than nothing.
    ///
    /// # Errors
    /// Those of [`Self::units`], and [`AmountError::Zero`].
    pub fn positive_units(&self, decimals: u8) -> Result<U256, AmountError> {
        let units = self.units(decimals)?;
        if units.is_zero() {
            return Err(AmountError::Zero {
                text: self.text.clone(),
            });
        }
        Ok(units)
    }
}

/// Base units as a decimal number without trailing zeros.
#[must_use]
pub fn format(units: &U256, decimals: u8) -> String {
    let digits = units.to_string();
    let places = usize::from(decimals);
    let padded = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = padded.split_at(padded.len() - places);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        whole.to_owned()
    } else {
        format!("{whole}.{fraction}")
    }
}

/// `a * b / c`, rounded down, without overflow in between. `None` when the result or `c` cannot be.
#[must_use]
pub fn mul_div(a: U256, b: U256, c: U256) -> Option<U256> {
    if c.is_zero() {
        return None;
    }
    let product: alloy::primitives::U512 = a.widening_mul(b);
    let quotient = product / alloy::primitives::U512::from(c);
    let limbs = quotient.as_limbs();
    if limbs[4..].iter().any(|limb| *limb != 0) {
        return None;
    }
    Some(U256::from_limbs([limbs[0], limbs[1], limbs[2], limbs[3]]))
}

/// Divides an amount by weights, exactly: each part is rounded down, and what rounding leaves goes in single units to those
/// who lost most by it, the earlier first. `None` when the weights come to nothing or beyond all bounds.
#[must_use]
pub fn divide(amount: U256, weights: &[u64]) -> Option<Vec<U256>> {
    let total = weights
        .iter()
        .try_fold(0_u64, |sum, weight| sum.checked_add(*weight))
        .filter(|total| *total > 0)?;
    let total = U256::from(total);
    let mut parts = Vec::with_capacity(weights.len());
    let mut lost = Vec::with_capacity(weights.len());
    let mut given = U256::ZERO;
    for (i, weight) in weights.iter().enumerate() {
        let weight = U256::from(*weight);
        let part = mul_div(amount, weight, total)?;
        // amount * weight mod total, from residues, so that it does not overflow either.
        let rest = ((amount % total) * weight) % total;
        given = given.checked_add(part)?;
        parts.push(part);
        lost.push((std::cmp::Reverse(rest), i));
    }
    lost.sort_unstable();
    let left: usize = (amount - given).try_into().ok()?;
    for (_, i) in lost.into_iter().take(left) {
        parts[i] += U256::from(1);
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn units(text: &str, decimals: u8) -> Result<U256, AmountError> {
        text.parse::<Decimal>()?.units(decimals)
    }

    #[test]
    fn an_amount_is_exactly_what_is_written_or_an_error_that_names_it() {
        for (text, decimals, expected) in [
            ("1", 6, 1_000_000_u64),
            ("0.1", 6, 100_000),
            ("0.000001", 6, 1),
            ("007.50", 2, 750),
            ("1.10", 1, 11),
            ("5", 0, 5),
            ("5.0", 0, 5),
            ("0", 18, 0),
        ] {
            assert_eq!(
                units(text, decimals).unwrap(),
                U256::from(expected),
                "{text}"
            );
        }
        for bad in [
            "", ".", "1.", ".5", "-1", "+1", "1e6", "1,5", "1 ", " 1", "0x10", "1_000", "١",
            "1.5.2", "NaN", "inf",
        ] {
            let error = units(bad, 6).unwrap_err();
            assert!(matches!(error, AmountError::Syntax { .. }), "{bad:?}");
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
        assert!(matches!(
            units("0.0000001", 6),
            Err(AmountError::TooFine { decimals: 6, .. })
        ));
        assert!(matches!(
            units(&"9".repeat(80), 0),
            Err(AmountError::TooLarge { .. })
        ));
        assert!(matches!(
            units(&"9".repeat(100), 36),
            Err(AmountError::TooLarge { .. })
        ));
        assert!(matches!(
            units(&"9".repeat(1000), 0),
            Err(AmountError::Syntax { .. })
        ));
        assert_eq!(units("1", 200), Err(AmountError::Decimals(200)));
        assert!(matches!(
            "0.00".parse::<Decimal>().unwrap().positive_units(6),
            Err(AmountError::Zero { .. })
        ));
    }

    #[test]
    fn the_largest_amount_of_all_can_be_written_and_read() {
        let text = format(&U256::MAX, 18);
        assert_eq!(units(&text, 18).unwrap(), U256::MAX);
        assert_eq!(mul_div(U256::MAX, U256::MAX, U256::MAX), Some(U256::MAX));
        assert_eq!(mul_div(U256::MAX, U256::from(2), U256::from(1)), None);
        assert_eq!(mul_div(U256::from(1), U256::from(1), U256::ZERO), None);
        assert_eq!(
            divide(U256::MAX, &[1, 1])
                .unwrap()
                .iter()
                .fold(U256::ZERO, |a, b| a + *b),
            U256::MAX
        );
    }

    #[test]
    fn what_rounding_leaves_goes_to_those_who_lost_most() {
        let parts = |amount: u64, weights: &[u64]| {
            divide(U256::from(amount), weights)
                .unwrap()
                .iter()
                .map(|part| u64::try_from(*part).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(parts(100, &[50, 30, 20]), [50, 30, 20]);
        assert_eq!(parts(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(parts(1, &[1, 98, 1]), [0, 1, 0]);
        assert_eq!(parts(0, &[1, 2]), [0, 0]);
        assert_eq!(divide(U256::from(5), &[]), None);
        assert_eq!(divide(U256::from(5), &[0, 0]), None);
        assert_eq!(divide(U256::from(5), &[u64::MAX, 1]), None);
    }

    proptest! {
        #[test]
        fn parts_always_come_to_the_whole(amount: [u64; 4], weights in prop::collection::vec(0..u64::from(u32::MAX), 1..8)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let amount = U256::from_limbs(amount);
            let parts = divide(amount, &weights).unwrap();
            let mut sum = U256::ZERO;
            for part in &parts {
                sum = sum.checked_add(*part).unwrap();
            }
            prop_assert_eq!(sum, amount);
            for (part, weight) in parts.iter().zip(&weights) {
                prop_assert!(*weight > 0 || part.is_zero());
            }
        }

        #[test]
        fn writing_and_reading_gives_the_same(limbs: [u64; 4], decimals in 0..=MAX_DECIMALS) {
            let amount = U256::from_limbs(limbs);
            prop_assert_eq!(units(&format(&amount, decimals), decimals).unwrap(), amount);
        }

        #[test]
        fn text_of_any_kind_never_panics(text: String, decimals: u8) {
            let _ = units(&text, decimals);
        }
    }
}
