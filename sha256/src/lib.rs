//! SHA-256 of many messages at a time: sixteen in the wide registers of a processor that has AVX-512, which is nearly
//! twice as fast as one after the other by its own SHA instructions. Called by the ledger where it reads many records,
//! for their leaf hashes and for the nodes of the tree; never by the writer, whose records wait for each other's hashes.

#[cfg(target_arch = "x86_64")]
mod wide;

use sha2::{Digest as _, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// Fewer than these are faster one after the other.
#[cfg(target_arch = "x86_64")]
const WORTHWHILE: usize = 10;

/// SHA-256 of each of `messages`, behind the byte `prefix` if there is one, in order.
#[must_use]
pub fn of_each(prefix: Option<u8>, messages: &[&[u8]]) -> Vec<Hash> {
    #[cfg(target_arch = "x86_64")]
    if messages.len() >= WORTHWHILE
        && let Some(wide) = wide::Wide::of_this_processor()
    {
        return sixteen_by_sixteen(wide, prefix, messages);
    }
    messages
        .iter()
        .map(|message| one(prefix, message))
        .collect()
}

/// The same for a single message.
#[must_use]
pub fn one(prefix: Option<u8>, message: &[u8]) -> Hash {
    Sha256::new()
        .chain_update(prefix.as_slice())
        .chain_update(message)
        .finalize()
        .into()
}

#[cfg(target_arch = "x86_64")]
fn sixteen_by_sixteen(wide: wide::Wide, prefix: Option<u8>, messages: &[&[u8]]) -> Vec<Hash> {
    let mut hashes = vec![Hash::default(); messages.len()];
    // Sixteen take as long as the longest of them.
    let mut order: Vec<usize> = (0..messages.len()).collect();
    if messages.iter().any(|m| m.len() != messages[0].len()) {
        order.sort_by_key(|at| messages[*at].len());
    }
    let (groups, rest) = order.as_chunks::<{ wide::LANES }>();
    for group in groups {
        let found = wide.hash(prefix, group.map(|at| messages[at]));
        for (at, hash) in group.iter().zip(found) {
            hashes[*at] = hash;
        }
    }
    if rest.len() >= WORTHWHILE {
        // What comes out of the other places is not used.
        let at = |lane: usize| rest.get(lane).map_or(&[][..], |at| messages[*at]);
        let found = wide.hash(prefix, std::array::from_fn(at));
        for (at, hash) in rest.iter().zip(found) {
            hashes[*at] = hash;
        }
    } else {
        for at in rest {
            hashes[*at] = one(prefix, messages[*at]);
        }
    }
    hashes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn singly(prefix: Option<u8>, messages: &[&[u8]]) -> Vec<Hash> {
        messages
            .iter()
            .map(|message| one(prefix, message))
            .collect()
    }

    #[test]
    fn every_length_up_to_five_blocks_in_every_place_has_the_hash_that_sha2_gives_it() {
        let byte = |at: usize| (at.wrapping_mul(0x9e37_79b9) >> 11).to_le_bytes()[0];
        let bytes: Vec<u8> = (0..400).map(byte).collect();
        for first in 0..=320 {
            // Alike, so that none is moved to another place; and a few that are not.
            let alike: Vec<&[u8]> = (0..37).map(|at| &bytes[at..at + first]).collect();
            assert_eq!(of_each(Some(7), &alike), singly(Some(7), &alike), "{first}");
            let others: Vec<&[u8]> = (0..33)
                .map(|at| &bytes[at..at + first / (1 + at % 5)])
                .collect();
            assert_eq!(of_each(None, &others), singly(None, &others), "{first}");
        }
    }

    #[test]
    fn the_vectors_of_fips_180_are_these() {
        let hex = |hash: &Hash| hash.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let messages: Vec<&[u8]> = (0..32)
            .map(|at| match at % 2 {
                0 => &b"bc"[..],
                _ => b"bcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            })
            .collect();
        for (at, hash) in of_each(Some(b'a'), &messages).iter().enumerate() {
            let wanted = match at % 2 {
                0 => "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                _ => "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            };
            assert_eq!(hex(hash), wanted, "{at}");
        }
    }

    proptest! {
        #[test]
        fn any_messages_have_the_hashes_that_sha2_gives_them(
            prefix in any::<Option<u8>>(),
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 0..70),
        ) {
            let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(of_each(prefix, &messages), singly(prefix, &messages));
        }
    }
}
