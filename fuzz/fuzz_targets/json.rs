//! Strict JSON: never a panic, and what is accepted is accepted again as it is printed.
#![no_main]

use blockhost_proto::json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match json::parse(data) {
        Ok(value) => {
            // serde_json is the laxer parser: whatever we accept it accepts, with the same meaning.
            assert_eq!(
                serde_json::from_slice::<serde_json::Value>(data).unwrap(),
                value
            );
            assert!(json::parse(value.to_string().as_bytes()).is_ok());
        }
        Err(error) => assert!(
            error
                .to_string()
                .bytes()
                .all(|b| (b' '..=b'~').contains(&b))
        ),
    }
});
