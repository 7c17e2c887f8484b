//! Framing: `[u32 big-endian length][payload]`, both ways, without I/O. The decoder is fed whatever arrived and gives
//! frames back; it reserves memory for what has arrived, never for what was merely announced.

use std::collections::VecDeque;

/// Default limit of one frame's payload, in bytes.
pub const MAX_FRAME: usize = 1 << 20;
/// Bytes of the length in front of each payload.
pub const HEADER: usize = 4;

/// A length that no frame may have. The stream cannot be read on after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Length 0.
    #[error("empty frame: a frame holds one JSON object")]
    Empty,
    /// Longer than the limit.
    #[error("frame of {length} bytes announced, the limit is {limit}")]
    TooLong {
        /// What was announced.
        length: u64,
        /// What is allowed.
        limit: usize,
    },
}

/// Puts the length in front of `payload`.
///
/// # Errors
/// [`WireError`] when the payload is empty or longer than `limit`.
pub fn encode_frame(payload: &[u8], limit: usize) -> Result<Vec<u8>, WireError> {
    if payload.is_empty() {
        return Err(WireError::Empty);
    }
    let too_long = || WireError::TooLong {
        length: payload.len() as u64,
        limit,
    };
    if payload.len() > limit {
        return Err(too_long());
    }
    let length = u32::try_from(payload.len()).map_err(|_| too_long())?;
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// Reads a header.
///
/// # Errors
/// [`WireError`] when the length is 0 or over `limit`.
pub fn decode_header(header: [u8; HEADER], limit: usize) -> Result<usize, WireError> {
    let length = u32::from_be_bytes(header);
    if length == 0 {
        return Err(WireError::Empty);
    }
    usize::try_from(length)
        .ok()
        .filter(|n| *n <= limit)
        .ok_or(WireError::TooLong {
            length: u64::from(length),
            limit,
        })
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub struct FrameDecoder {
    limit: usize,
    pending: VecDeque<u8>,
    broken: Option<WireError>,
}

impl FrameDecoder {
    /// A decoder for payloads of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            pending: VecDeque::new(),
            broken: None,
        }
    }

    /// Takes what arrived. Call [`Self::next_frame`] until it gives `None` before feeding more, so that at most one
    /// frame and one read are ever held.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.broken.is_none() {
            self.pending.extend(bytes);
        }
    }

    /// The next whole frame's payload, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`WireError`] once a bad length was seen, and ever after: there is no way to find the next frame.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let Some(header) = self.header() else {
            return Ok(None);
        };
        let length = match decode_header(header, self.limit) {
            Ok(length) => length,
            Err(error) => {
                self.pending = VecDeque::new();
                self.broken = Some(error);
                return Err(error);
            }
        };
        if self.pending.len() < HEADER + length {
            return Ok(None);
        }
        self.pending.drain(..HEADER);
        let payload = self.pending.drain(..length).collect();
        if self.pending.is_empty() {
            // An idle connection keeps nothing of the largest frame it ever sent.
            self.pending = VecDeque::new();
        }
        Ok(Some(payload))
    }

    /// True between the first byte of a frame and its last: the time limit for a started frame runs.
    #[must_use]
    pub fn mid_frame(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Bytes held.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.pending.len()
    }

    fn header(&self) -> Option<[u8; HEADER]> {
        let mut header = [0; HEADER];
        for (i, slot) in header.iter_mut().enumerate() {
            *slot = *self.pending.get(i)?;
        }
        Some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_payload_of_exactly_the_limit_is_a_frame_and_one_byte_more_is_none() {
        assert_eq!(encode_frame(&[7; 8], 8).map(|frame| frame.len()), Ok(12));
        assert!(encode_frame(&[7; 9], 8).is_err());
        let mut decoder = FrameDecoder::new(8);
        decoder.feed(&encode_frame(&[7; 8], 8).unwrap()[..7]);
        assert_eq!(decoder.next_frame(), Ok(None));
        assert_eq!(decoder.buffered(), 7);
        decoder.feed(&[7; 5]);
        assert_eq!(decoder.next_frame(), Ok(Some(vec![7; 8])));
        decoder.feed(&9_u32.to_be_bytes());
        assert!(decoder.next_frame().is_err());
    }

    #[test]
    fn an_announced_frame_costs_no_memory_until_it_arrives() {
        let mut decoder = FrameDecoder::new(MAX_FRAME);
        decoder.feed(&u32::try_from(MAX_FRAME).unwrap().to_be_bytes());
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(decoder.pending.capacity() < 64);
        assert!(decoder.mid_frame());
    }

    #[test]
    fn a_bad_length_poisons_the_stream() {
        for (header, error) in [
            ([0; 4], WireError::Empty),
            (
                [0, 0x10, 0, 1],
                WireError::TooLong {
                    length: 0x10_0001,
                    limit: MAX_FRAME,
                },
            ),
            (
                [0xff; 4],
                WireError::TooLong {
                    length: u64::from(u32::MAX),
                    limit: MAX_FRAME,
                },
            ),
        ] {
            let mut decoder = FrameDecoder::new(MAX_FRAME);
            decoder.feed(&header);
            assert_eq!(decoder.next_frame(), Err(error));
            decoder.feed(&encode_frame(b"{}", MAX_FRAME).unwrap());
            assert_eq!(decoder.next_frame(), Err(error));
            assert_eq!(decoder.buffered(), 0);
        }
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..8),
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let stream: Vec<u8> = payloads.iter().flat_map(|p| encode_frame(p, 200).unwrap()).collect();
            let mut decoder = FrameDecoder::new(200);
            let (mut out, mut rest, mut cut) = (Vec::new(), &stream[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
                decoder.feed(now);
                rest = later;
                while let Some(frame) = decoder.next_frame().unwrap() {
                    out.push(frame);
                }
            }
            prop_assert_eq!(out, payloads);
            prop_assert!(!decoder.mid_frame());
        }
    }
}
