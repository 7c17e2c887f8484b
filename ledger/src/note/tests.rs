//! What is promised of signed notes and their keys, by themselves.

use super::*;
use crate::keys::Signer;
use proptest::prelude::*;

fn signer() -> Signer {
    Signer::from_bytes("host.example/blockhost-ledger", 1, &[7; 32]).expect("valid name")
}

#[test]
fn the_published_signed_note_example_of_go_opens_and_a_changed_one_does_not() {
    // The example key and note of golang.org/x/mod/sumdb/note, a text that is not a checkpoint.
    let key = Vkey::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
        .expect("parses");
    let note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    // Signature good, so the complaint is about the body.
    assert_eq!(
        key.open(note),
        Err(NoteError::Checkpoint("the second line is not a tree size"))
    );
    assert!(matches!(
        key.open(&note.replace("answer", "anzwer")),
        Err(NoteError::BadSignature { .. })
    ));
    assert_eq!(
        key.to_string(),
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    );
}

#[test]
fn a_mistyped_verifier_key_is_refused() {
    let good = signer().vkey().to_string();
    assert_eq!(
        Vkey::parse(&format!(" {good}\n")).expect("parses"),
        *signer().vkey()
    );
    for bad in [
        String::new(),
        "a+b".into(),
        good.replace("host", "h0st"),
        good.replace('+', " "),
        good.replacen("+A", "+B", 1),
        good[..good.len() - 4].to_owned(),
    ] {
        assert!(Vkey::parse(&bad).is_err(), "{bad}");
    }
}

#[test]
fn names_with_spaces_plus_or_newline_are_refused() {
    for name in ["", "a b", "a+b", "a\nb", "a\u{a0}b", "a\u{0}b"] {
        assert!(Signer::from_bytes(name, 1, &[1; 32]).is_err(), "{name:?}");
    }
}

#[test]
fn a_checkpoint_round_trips_and_every_other_signer_or_origin_is_refused() {
    let signer = signer();
    let head = Checkpoint {
        origin: signer.vkey().name().into(),
        size: 3,
        root: [9; 32],
    };
    let note = signer.sign_checkpoint(&head);
    assert_eq!(signer.vkey().open(&note).expect("opens"), head);
    let other = Signer::from_bytes("host.example/blockhost-ledger", 1, &[8; 32]).expect("valid");
    assert!(matches!(
        other.vkey().open(&note),
        Err(NoteError::NoSignature { .. })
    ));
    let foreign = Checkpoint {
        origin: "elsewhere".into(),
        ..head
    };
    assert!(matches!(
        signer.vkey().open(&signer.sign_checkpoint(&foreign)),
        Err(NoteError::Origin { .. })
    ));
}

#[test]
fn sizes_with_signs_or_leading_zeros_are_not_sizes() {
    for bad in ["", "+1", "-1", "01", "1 ", "1e2", "18446744073709551616"] {
        assert_eq!(parse_decimal(bad), None, "{bad:?}");
    }
    assert_eq!(parse_decimal("0"), Some(0));
}

proptest! {
    #[test]
    fn no_text_makes_the_note_reader_panic(text in any::<String>()) {
        let _ = signer().vkey().open(&text);
        let _ = Vkey::parse(&text);
        let _ = Checkpoint::parse_unverified(&text);
    }

    #[test]
    fn a_note_with_any_changed_byte_never_opens_as_something_else(at in any::<prop::sample::Index>(), with in 0x20_u8..0x7f) {
        let head = Checkpoint { origin: signer().vkey().name().into(), size: 300, root: [9; 32] };
        let note = signer().sign_checkpoint(&head);
        let mut bytes = note.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(opened) = signer().vkey().open(&text)
        {
            prop_assert_eq!(opened, head);
        }
    }
}
