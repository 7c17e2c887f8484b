//! Payload to action: never a panic; what is accepted comes back from its canonical form; messages are safe to log.
#![no_main]

use blockhost_proto::action::Action;
use blockhost_proto::request::decode_request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match decode_request(data) {
        Ok(request) => {
            assert_eq!(decode_request(&request.encode()).as_ref(), Ok(&request));
            let action = &request.action;
            assert_eq!(
                Action::from_parts(action.name(), &action.params()).as_ref(),
                Ok(action)
            );
            assert!(
                action
                    .ledger_resource()
                    .bytes()
                    .all(|b| b.is_ascii_graphic())
            );
            assert!(
                serde_json::Value::Object(action.ledger_metadata())
                    .to_string()
                    .len()
                    < 60_000
            );
            let _ = (
                action.resources(),
                action.time_limit(),
                action.ledger_category(),
            );
        }
        Err(refusal) => {
            assert!(refusal.message.len() <= 512);
            for text in [Some(&refusal.message), refusal.action_name.as_ref()]
                .into_iter()
                .flatten()
            {
                assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)));
            }
            assert!(!refusal.to_response().encode(1 << 20).is_empty());
        }
    }
});
