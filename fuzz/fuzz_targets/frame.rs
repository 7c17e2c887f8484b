//! Streams cut anywhere: frames come out the same however the bytes arrive, and memory follows what arrived.
#![no_main]

use blockhost_proto::wire::{FrameDecoder, HEADER, WireError};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 300;

fn frames(stream: &[u8], step: usize) -> (Vec<Vec<u8>>, Option<WireError>) {
    let mut decoder = FrameDecoder::new(LIMIT);
    let mut out = Vec::new();
    for part in stream.chunks(step) {
        decoder.feed(part);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => out.push(frame),
                Ok(None) => break,
                Err(error) => return (out, Some(error)),
            }
        }
        assert!(decoder.buffered() <= LIMIT + HEADER);
    }
    (out, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((step, stream)) = data.split_first() else {
        return;
    };
    let one = frames(stream, 1);
    assert!(one.0.iter().all(|frame| (1..=LIMIT).contains(&frame.len())));
    assert_eq!(frames(stream, usize::from(*step).max(1)), one);
});
