//! Changes to bytes, as fuzzers make them: bits, numbers at their limits, pieces cut, doubled, and taken from elsewhere.

/// A small generator (`SplitMix64`), so that a failure is repeated from its seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % end).unwrap_or(0)
    }

    /// One of these.
    pub fn of<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len()))
    }
}

/// Texts that mean something to one parser or another.
const WORDS: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\r\n",
    b",",
    b"=",
    b":",
    b"/",
    b"..",
    b"../",
    b"-",
    b"--",
    b"\\",
    b"\"",
    b"'",
    b"%00",
    b"\\u0000",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xe2\x80\xae",
    b"\xef\xbb\xbf",
    b"null",
    b"true",
    b"1e2",
    b"-0",
    b"0.0",
    b"18446744073709551616",
    b"9223372036854775808",
    b"4294967296",
    b"65536",
    b"2147483648",
    b"{",
    b"}",
    b"[",
    b"]",
    b"{}",
    b"[]",
    b"[[[[[[[[",
    b"\"vmid\":",
    b"\"action\":",
    b"\"params\":",
    b"/dev/sda",
    b"/etc/shadow",
    b"file=",
    b"*",
];

/// Numbers at the limits of what fields hold.
const LIMITS: &[u64] = &[
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// One change of `bytes`; `other` is where pieces come from.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = (at + 1 + random.below(16)).min(bytes.len());
    match random.below(10) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.number().to_le_bytes()[0];
            }
        }
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at.min(end)..end)),
        4 => {
            let copy = bytes.get(at..end).unwrap_or_default().to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        5 => {
            let word = random.of(WORDS).copied().unwrap_or_default();
            bytes.splice(at..at, word.iter().copied());
        }
        6 => {
            let word = random.of(WORDS).copied().unwrap_or_default();
            bytes.splice(at.min(end)..end, word.iter().copied());
        }
        7 => number(bytes, at, random),
        8 => {
            let from = random.below(other.len() + 1);
            let to = (from + 1 + random.below(64)).min(other.len());
            let piece = other.get(from..to).unwrap_or_default();
            bytes.splice(at.min(end)..end, piece.iter().copied());
        }
        _ => digits(bytes, at, random),
    }
}

/// A field of one, two, four or eight bytes, in either order, to a limit or one beside it.
fn number(bytes: &mut [u8], at: usize, random: &mut Random) {
    let limit = random.of(LIMITS).copied().unwrap_or_default();
    let value = match random.below(3) {
        0 => limit,
        1 => limit.wrapping_add(1),
        _ => limit.wrapping_sub(1),
    };
    let width = 1_usize << random.below(4);
    let mut field = value.to_le_bytes();
    field[..width].reverse();
    if random.below(2) == 0 {
        field[..width].reverse();
    }
    if let Some(place) = bytes.get_mut(at..at + width) {
        place.copy_from_slice(&field[..width]);
    }
}

/// A run of decimal digits after `at` becomes another number.
fn digits(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some(start) = rest.iter().position(u8::is_ascii_digit) else {
        return;
    };
    let length = rest
        .iter()
        .skip(start)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let number = random.of(LIMITS).copied().unwrap_or_default();
    let text = match random.below(4) {
        0 => format!("-{number}"),
        1 => format!("{number}.5"),
        2 => format!("0{number}"),
        _ => number.to_string(),
    };
    bytes.splice(at + start..at + start + length, text.into_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_another_seed_others() {
        let inputs = |seed| {
            let mut random = Random::new(seed);
            let mut bytes = b"{\"vmid\": 100}".to_vec();
            for _ in 0..50 {
                mutate(&mut bytes, b"other seed", &mut random);
            }
            bytes
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }

    #[test]
    fn nothing_is_too_short_to_be_changed() {
        let mut random = Random::new(3);
        for _ in 0..2000 {
            let mut bytes = Vec::new();
            mutate(&mut bytes, b"", &mut random);
            let mut bytes = vec![b'7'];
            mutate(&mut bytes, b"x", &mut random);
        }
    }
}
