//! What a client makes of an answer, and that an answer fits its limit whatever it holds.
#![no_main]

use blockhost_proto::response::Response;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(response) = Response::decode(data) {
        let payload = response.encode(1024);
        assert!(payload.len() <= 1024);
        assert!(Response::decode(&payload).is_ok());
    }
});
