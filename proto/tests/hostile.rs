//! The list of hostile requests, sent through the decoder as the agent uses it.

use std::collections::HashSet;

use blockhost_proto::ErrorCode;
use blockhost_proto::corpus::{Hostile, hostile_requests};
use blockhost_proto::request::decode_request;
use blockhost_proto::wire::{FrameDecoder, MAX_FRAME};

/// What the agent would answer, with the message; `None` when it would accept.
fn answer(bytes: &[u8]) -> Option<(ErrorCode, String)> {
    let mut decoder = FrameDecoder::new(MAX_FRAME);
    decoder.feed(bytes);
    match decoder.next_frame() {
        Err(error) => Some((ErrorCode::BadFrame, error.to_string())),
        Ok(None) => panic!("incomplete frame in the list"),
        Ok(Some(payload)) => decode_request(&payload).err().map(|r| (r.code, r.message)),
    }
}

#[test]
fn every_hostile_request_gets_its_code() {
    let wrong: Vec<String> = hostile_requests()
        .iter()
        .filter_map(
            |Hostile {
                 name,
                 bytes,
                 expected_code,
             }| match answer(bytes) {
                Some((code, _)) if code == *expected_code => None,
                Some((code, message)) => Some(format!(
                    "{name}: {code} ({message}) instead of {expected_code}"
                )),
                None => Some(format!("{name}: accepted")),
            },
        )
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_message_carries_a_raw_byte_of_the_client_or_grows_with_it() {
    for hostile in hostile_requests() {
        let (_, message) = answer(&hostile.bytes).unwrap();
        assert!(
            message.bytes().all(|b| (b' '..=b'~').contains(&b)),
            "{}: {message:?}",
            hostile.name
        );
        assert!(
            message.len() <= 512,
            "{}: {} bytes",
            hostile.name,
            message.len()
        );
    }
}

#[test]
fn the_list_is_long_and_its_names_are_unique() {
    let list = hostile_requests();
    assert!(list.len() >= 150, "{}", list.len());
    let names: HashSet<_> = list.iter().map(|h| &h.name).collect();
    assert_eq!(names.len(), list.len());
}
