//! C2SP entry bundles: up to 256 records, each behind its length as two bytes, big end first. Bytes in memory only;
//! where bundles are stored is known by `export`.

/// Most bytes a bundle can have: 256 records of 65 535 bytes and their lengths.
pub const MAX_BYTES: usize = 256 * (65_535 + 2);

/// Why bytes are not a bundle, or records cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// A record that two bytes cannot give the length of.
    #[error("record {at} of the bundle has {bytes} bytes, at most 65535 are possible")]
    TooLong {
        /// Which, from 0.
        at: usize,
        /// Its length.
        bytes: usize,
    },
    /// The bytes end inside a record or its length.
    #[error("the bundle ends inside record {at}")]
    Cut {
        /// Which, from 0.
        at: usize,
    },
    /// More or fewer records than its name says.
    #[error("the bundle has {found} records, its name says {width}")]
    Count {
        /// How many there are; counting stops at one too many.
        found: usize,
        /// How many there should be.
        width: u16,
    },
}

/// The bytes of a bundle of these records.
///
/// # Errors
/// A record is too long.
pub fn encode<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, BundleError> {
    let mut out = Vec::new();
    for (at, record) in records.into_iter().enumerate() {
        let bytes = record.len();
        let length = u16::try_from(bytes).map_err(|_| BundleError::TooLong { at, bytes })?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(record);
    }
    Ok(out)
}

/// The records of a bundle, which must be exactly `width` many.
///
/// # Errors
/// Cut off, or another number of records.
pub fn decode(bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, BundleError> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let at = records.len();
        if at == usize::from(width) {
            let found = at + 1;
            return Err(BundleError::Count { found, width });
        }
        let cut = BundleError::Cut { at };
        let Some((length, behind)) = rest.split_first_chunk::<2>() else {
            return Err(cut);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((record, behind)) = behind.split_at_checked(length) else {
            return Err(cut);
        };
        records.push(record);
        rest = behind;
    }
    let found = records.len();
    if found == usize::from(width) {
        Ok(records)
    } else {
        Err(BundleError::Count { found, width })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bundle_is_lengths_of_two_bytes_and_records() {
        let bytes = encode([&b"{}"[..], b"", b"abc"]).expect("short");
        assert_eq!(bytes, b"\0\x02{}\0\0\0\x03abc");
        assert_eq!(decode(&bytes, 3), Ok(vec![&b"{}"[..], b"", b"abc"]));
    }

    #[test]
    fn cut_lengthened_and_miscounted_bundles_are_refused() {
        let bytes = encode([&b"{}"[..], b"abc"]).expect("short");
        for end in 1..bytes.len() {
            assert!(decode(&bytes[..end], 2).is_err(), "{end}");
        }
        assert_eq!(
            decode(&bytes, 1),
            Err(BundleError::Count { found: 2, width: 1 })
        );
        assert_eq!(
            decode(&bytes, 3),
            Err(BundleError::Count { found: 2, width: 3 })
        );
        assert_eq!(decode(b"\xff\xff", 1), Err(BundleError::Cut { at: 0 }));
        assert_eq!(
            encode([&vec![0; 65_536][..]]),
            Err(BundleError::TooLong {
                at: 0,
                bytes: 65_536
            })
        );
        assert!(encode([&vec![0; 65_535][..]]).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_exactly_what_would_be_written(bytes in prop::collection::vec(any::<u8>(), 0..80), width in 0_u16..9) {
            if let Ok(records) = decode(&bytes, width) {
                prop_assert_eq!(encode(records), Ok(bytes.clone()));
            }
        }
    }
}
