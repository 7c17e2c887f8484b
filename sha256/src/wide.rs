//! Sixteen messages in the 512-bit registers of AVX-512, a 32-bit word of each in every register. The only unsafe code of
//! this crate is one call: of a safe function that was compiled for such a processor, on one that was found to be such.

use crate::Hash;
use core::arch::x86_64::{
    __m512i, _mm256_extract_epi64, _mm512_add_epi32, _mm512_castsi512_si256, _mm512_mask_mov_epi32,
    _mm512_ror_epi32, _mm512_set_epi64, _mm512_set1_epi32, _mm512_set4_epi32, _mm512_setzero_si512,
    _mm512_shuffle_epi8, _mm512_shuffle_i32x4, _mm512_srli_epi32, _mm512_ternarylogic_epi32,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

/// Messages at a time.
pub(crate) const LANES: usize = 16;

/// FIPS 180-4, 5.3.3.
#[rustfmt::skip]
const START: [u32; 8] = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
];
/// FIPS 180-4, 4.2.2.
#[rustfmt::skip]
const ROUNDS: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// A word of each message.
type Words = __m512i;
type Block = [u8; 64];

/// Shows that this processor was asked and has what is needed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wide(());

impl Wide {
    pub fn of_this_processor() -> Option<Self> {
        let able = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        able.then_some(Self(()))
    }

    /// The hash of each message, behind the byte `prefix` if there is one.
    pub fn hash(self, prefix: Option<u8>, messages: [&[u8]; LANES]) -> [Hash; LANES] {
        #[expect(
            unsafe_code,
            reason = "what the processor has is known at run time only"
        )]
        // SAFETY: the function is safe but for the instructions it is made of; a `Wide` exists only where they do.
        unsafe {
            hash(prefix, messages)
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn hash(prefix: Option<u8>, messages: [&[u8]; LANES]) -> [Hash; LANES] {
    let messages = messages.map(|message| Padded::new(prefix, message));
    let lengths = messages.each_ref().map(Padded::blocks);
    let longest = lengths.into_iter().max().unwrap_or(0);
    let mut state = START.map(|word| _mm512_set1_epi32(word.cast_signed()));
    for number in 0..longest {
        let next = compress(
            state,
            messages.each_ref().map(|message| message.block(number)),
        );
        // A message that has ended keeps its state.
        let mut goes_on = 0;
        for (lane, length) in lengths.iter().enumerate() {
            goes_on |= u16::from(number < *length) << lane;
        }
        for (word, next) in state.iter_mut().zip(next) {
            *word = _mm512_mask_mov_epi32(*word, goes_on, next);
        }
    }
    let mut rows = [_mm512_setzero_si512(); LANES];
    for (row, word) in rows.iter_mut().zip(state) {
        *row = _mm512_shuffle_epi8(word, most_significant_first());
    }
    transpose(rows).map(|row| {
        let half = _mm512_castsi512_si256(row);
        let mut hash = Hash::default();
        let (eights, _) = hash.as_chunks_mut::<8>();
        eights[0] = _mm256_extract_epi64::<0>(half).to_le_bytes();
        eights[1] = _mm256_extract_epi64::<1>(half).to_le_bytes();
        eights[2] = _mm256_extract_epi64::<2>(half).to_le_bytes();
        eights[3] = _mm256_extract_epi64::<3>(half).to_le_bytes();
        hash
    })
}

/// FIPS 180-4, 6.2.2: one block of each message.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn compress(state: [Words; 8], blocks: [&Block; LANES]) -> [Words; 8] {
    let mut w = words(blocks);
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
    // The eight do not move from round to round; who is who does.
    macro_rules! round {
        ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $at:expr) => {
            let constant = _mm512_set1_epi32(ROUNDS[$at].cast_signed());
            let sum = add(
                add($h, sum_1($e)),
                add(choose($e, $f, $g), add(w[$at % 16], constant)),
            );
            $d = add($d, sum);
            $h = add(sum, add(sum_0($a), majority($a, $b, $c)));
        };
    }
    macro_rules! eight_rounds {
        ($at:expr) => {
            round!(a b c d e f g h, $at);
            round!(h a b c d e f g, $at + 1);
            round!(g h a b c d e f, $at + 2);
            round!(f g h a b c d e, $at + 3);
            round!(e f g h a b c d, $at + 4);
            round!(d e f g h a b c, $at + 5);
            round!(c d e f g h a b, $at + 6);
            round!(b c d e f g h a, $at + 7);
        };
    }
    for quarter in 0..4 {
        if quarter > 0 {
            for at in 0..16 {
                let before = add(w[at], small_0(w[(at + 1) % 16]));
                w[at] = add(before, add(w[(at + 9) % 16], small_1(w[(at + 14) % 16])));
            }
        }
        eight_rounds!(16 * quarter);
        eight_rounds!(16 * quarter + 8);
    }
    let mut next = [a, b, c, d, e, f, g, h];
    for (next, before) in next.iter_mut().zip(state) {
        *next = add(*next, before);
    }
    next
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: Words, b: Words) -> Words {
    _mm512_add_epi32(a, b)
}

// The last number of each is the table of what comes out for every three bits that go in.
#[inline]
#[target_feature(enable = "avx512f")]
fn xor(a: Words, b: Words, c: Words) -> Words {
    _mm512_ternarylogic_epi32::<0x96>(a, b, c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn choose(e: Words, f: Words, g: Words) -> Words {
    _mm512_ternarylogic_epi32::<0xca>(e, f, g)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn majority(a: Words, b: Words, c: Words) -> Words {
    _mm512_ternarylogic_epi32::<0xe8>(a, b, c)
}

// FIPS 180-4, 4.1.2.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_0(x: Words) -> Words {
    xor(
        _mm512_ror_epi32::<2>(x),
        _mm512_ror_epi32::<13>(x),
        _mm512_ror_epi32::<22>(x),
    )
}

#[inline]
#[target_feature(enable = "avx512f")]
fn sum_1(x: Words) -> Words {
    xor(
        _mm512_ror_epi32::<6>(x),
        _mm512_ror_epi32::<11>(x),
        _mm512_ror_epi32::<25>(x),
    )
}

#[inline]
#[target_feature(enable = "avx512f")]
fn small_0(x: Words) -> Words {
    xor(
        _mm512_ror_epi32::<7>(x),
        _mm512_ror_epi32::<18>(x),
        _mm512_srli_epi32::<3>(x),
    )
}

#[inline]
#[target_feature(enable = "avx512f")]
fn small_1(x: Words) -> Words {
    xor(
        _mm512_ror_epi32::<17>(x),
        _mm512_ror_epi32::<19>(x),
        _mm512_srli_epi32::<10>(x),
    )
}

/// The sixteen words of each block, word by word.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn words(blocks: [&Block; LANES]) -> [Words; 16] {
    let mut rows = [_mm512_setzero_si512(); LANES];
    for (row, block) in rows.iter_mut().zip(blocks) {
        let (eights, _) = block.as_chunks::<8>();
        let n = |at: usize| i64::from_le_bytes(eights[at]);
        let bytes = _mm512_set_epi64(n(7), n(6), n(5), n(4), n(3), n(2), n(1), n(0));
        *row = _mm512_shuffle_epi8(bytes, most_significant_first());
    }
    transpose(rows)
}

/// Which byte of a word comes from where: SHA-256 has the most significant one first.
#[inline]
#[target_feature(enable = "avx512f")]
fn most_significant_first() -> Words {
    _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203)
}

/// Rows become columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [Words; 16]) -> [Words; 16] {
    // Within each quarter of a register: words of two rows, then of four, side by side.
    let mut two = rows;
    for at in (0..16).step_by(2) {
        two[at] = _mm512_unpacklo_epi32(rows[at], rows[at + 1]);
        two[at + 1] = _mm512_unpackhi_epi32(rows[at], rows[at + 1]);
    }
    let mut four = two;
    for at in (0..16).step_by(4) {
        four[at] = _mm512_unpacklo_epi64(two[at], two[at + 2]);
        four[at + 1] = _mm512_unpackhi_epi64(two[at], two[at + 2]);
        four[at + 2] = _mm512_unpacklo_epi64(two[at + 1], two[at + 3]);
        four[at + 3] = _mm512_unpackhi_epi64(two[at + 1], two[at + 3]);
    }
    // Quarter q of `four[4 * group + c]` is column 4 * q + c of four rows; the quarters of a column come together.
    let mut eight = four;
    for at in 0..4 {
        eight[at] = _mm512_shuffle_i32x4::<0x88>(four[at], four[at + 4]);
        eight[at + 4] = _mm512_shuffle_i32x4::<0xdd>(four[at], four[at + 4]);
        eight[at + 8] = _mm512_shuffle_i32x4::<0x88>(four[at + 8], four[at + 12]);
        eight[at + 12] = _mm512_shuffle_i32x4::<0xdd>(four[at + 8], four[at + 12]);
    }
    let mut columns = eight;
    for at in 0..4 {
        columns[at] = _mm512_shuffle_i32x4::<0x88>(eight[at], eight[at + 8]);
        columns[at + 8] = _mm512_shuffle_i32x4::<0xdd>(eight[at], eight[at + 8]);
        columns[at + 4] = _mm512_shuffle_i32x4::<0x88>(eight[at + 4], eight[at + 12]);
        columns[at + 12] = _mm512_shuffle_i32x4::<0xdd>(eight[at + 4], eight[at + 12]);
    }
    columns
}

/// A message as blocks. All but the first and the last one or two lie where the message lies.
struct Padded<'a> {
    /// The prefix and the first 63 bytes, where there are so many.
    head: Option<Block>,
    middle: &'a [Block],
    tail: [Block; 2],
    /// One or two.
    tails: usize,
}

impl<'a> Padded<'a> {
    fn new(prefix: Option<u8>, message: &'a [u8]) -> Self {
        let mut tail = [[0; 64]; 2];
        let bytes = tail.as_flattened_mut();
        let (mut head, mut rest, mut used) = (None, message, 0);
        if let Some(prefix) = prefix {
            if let Some((first, after)) = message.split_first_chunk::<63>() {
                let mut block = [prefix; 64];
                block[1..].copy_from_slice(first);
                (head, rest) = (Some(block), after);
            } else {
                bytes[0] = prefix;
                used = 1;
            }
        }
        // Behind a prefix that has no block to itself there is less than a block.
        let (middle, end) = rest.as_chunks();
        bytes[used..used + end.len()].copy_from_slice(end);
        used += end.len();
        bytes[used] = 0x80;
        let tails = if used + 9 <= 64 { 1 } else { 2 };
        let bits = (message.len() as u64 + u64::from(prefix.is_some())) * 8;
        bytes[tails * 64 - 8..tails * 64].copy_from_slice(&bits.to_be_bytes());
        Self {
            head,
            middle,
            tail,
            tails,
        }
    }

    fn blocks(&self) -> usize {
        usize::from(self.head.is_some()) + self.middle.len() + self.tails
    }

    /// Behind its end: one of the last, whatever.
    fn block(&self, number: usize) -> &Block {
        let number = match &self.head {
            Some(head) if number == 0 => return head,
            Some(_) => number - 1,
            None => number,
        };
        match self.middle.get(number) {
            Some(block) => block,
            None => &self.tail[(number - self.middle.len()) % 2],
        }
    }
}
