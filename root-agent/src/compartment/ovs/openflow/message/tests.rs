//! Messages as a switch takes and sends them.

use super::*;
use proptest::prelude::*;

fn cut(bytes: &[u8], chunk: usize) -> Result<Vec<Message>, BadLength> {
    let mut cutter = Cutter::default();
    let mut found = Vec::new();
    for mut piece in bytes.chunks(chunk.max(1)) {
        while let Some(message) = cutter.next(&mut piece)? {
            found.push(message);
        }
    }
    Ok(found)
}

#[test]
fn a_length_below_the_header_ends_the_connection_and_not_the_process() {
    for length in 0..8u8 {
        let bytes = [VERSION, kind::HELLO, 0, length, 0, 0, 0, 1];
        assert_eq!(cut(&bytes, 3), Err(BadLength(length.into())));
    }
}

#[test]
fn what_does_not_fit_a_length_field_is_refused_and_not_cut() {
    assert_eq!(message(kind::FLOW_MOD, 1, &vec![0; 65528]), Err(TooLong));
    assert_eq!(
        message(kind::FLOW_MOD, 1, &vec![0; 65527]).map(|m| m.len()),
        Ok(65535)
    );
    assert_eq!(
        bundle_add(1, 1, kind::FLOW_MOD, &vec![0; 65520]),
        Err(TooLong)
    );
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
        chunk in 1usize..50,
    ) {
        let mut stream = Vec::new();
        for (xid, body) in (0u32..).zip(&bodies) {
            stream.extend(message(kind::ECHO_REQUEST, xid, body).expect("short"));
        }
        let found = cut(&stream, chunk).expect("cut");
        prop_assert_eq!(found.len(), bodies.len());
        for ((xid, body), message) in (0u32..).zip(&bodies).zip(&found) {
            prop_assert!(message.xid == xid && &message.body == body);
        }
    }
}
