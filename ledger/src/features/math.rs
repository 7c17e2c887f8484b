//! Logarithms and roots in integers: the same thousandths on every machine, which no floating-point library promises.
//! Used by the footprint features and by the scores built on them.

/// Fraction bits of the binary logarithms.
const BITS: u32 = 24;

/// log2(1 + i/256), with [`BITS`] fraction bits.
const TABLE: [u32; 257] = {
    let mut table = [0; 257];
    let mut index = 0;
    while index <= 256 {
        // One bit at a time: squaring doubles the logarithm.
        let mut x = (256 + index as u64) << 24;
        let (mut log, mut bit) = (0, 0);
        if x >= 1 << 33 {
            (log, x) = (1, x >> 1);
        }
        while bit < BITS {
            // Below 2^33, with 31 fraction bits: the square fits.
            x = ((x >> 1) * (x >> 1)) >> 30;
            log <<= 1;
            if x >= 1 << 33 {
                (log, x) = (log | 1, x >> 1);
            }
            bit += 1;
        }
        table[index] = log;
        index += 1;
    }
    table
};

/// The binary logarithm of `n` (of 1, when `n` is 0), with [`BITS`] fraction bits.
fn log2(n: u64) -> i64 {
    let n = n.max(1);
    let mantissa = n << n.leading_zeros();
    let at = ((mantissa >> 55) & 0xff) as usize;
    let between = (mantissa >> 39) & 0xffff;
    let (low, high) = (u64::from(TABLE[at]), u64::from(TABLE[at + 1]));
    let fraction = low + (((high - low) * between) >> 16);
    (i64::from(63 - n.leading_zeros()) << BITS) + fraction.cast_signed()
}

/// ln(n / d) in thousandths; a zero counts as one.
pub(crate) fn ln_ratio(n: u64, d: u64) -> i64 {
    let log = (log2(n) - log2(d)) * 693_147;
    let scale = 1000_i64 << BITS;
    (log + log.signum() * scale / 2) / scale
}

/// ln(1 + n) in thousandths.
pub(crate) fn ln_1p(n: u64) -> i64 {
    ln_ratio(n.saturating_add(1), 1)
}

/// A 64-bit hash of bytes (FNV-1a, then mixed so that the low bits are good). Nothing rests on its strength: who finds
/// collisions makes two names look like one in advice, and in nothing else.
#[must_use]
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// Two hashes as one; the order counts.
#[must_use]
pub(crate) fn pair(a: u64, b: u64) -> u64 {
    mix(a.rotate_left(23) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_the_mathematics_to_a_thousandth() {
        let mut n = 1_u64;
        while n < u64::MAX / 3 {
            #[expect(clippy::cast_precision_loss, reason = "compared to a thousandth")]
            let exact = (n as f64).ln() * 1000.0;
            #[expect(clippy::cast_precision_loss, reason = "compared to a thousandth")]
            let ours = ln_ratio(n, 1) as f64;
            assert!((exact - ours).abs() <= 0.75, "ln {n}: {exact} and {ours}");
            assert_eq!(ln_ratio(1, n), -ln_ratio(n, 1));
            n = n * 3 / 2 + 1;
        }
        assert_eq!((ln_ratio(0, 0), ln_1p(0), ln_1p(1)), (0, 0, 693));
        assert_eq!(ln_1p(u64::MAX), 44_361);
    }
}
