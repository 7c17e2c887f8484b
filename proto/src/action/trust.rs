//! `ledger-cosign` and `ledger-rotate-key`: what makes the ledger's head worth more than this host's word.

use serde_json::{Value, json};

use super::action;
use crate::catalog::FieldSpec;

/// A checkpoint with cosignatures: a C2SP signed note of at most 32768 bytes. What it says is checked by the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignedCheckpoint(String);

impl crate::value::Text for CosignedCheckpoint {
    const KIND: &'static str = "cosigned checkpoint";
    const RULE: &'static str =
        "a signed note of at most 32768 bytes, its lines ended and without control characters";
    fn read(text: &str) -> Option<Self> {
        let good = text.len() <= 32_768
            && text.ends_with('\n')
            && !text.ends_with("\n\n")
            && text.contains("\n\n\u{2014} ")
            && !text.starts_with([' ', '\n'])
            && text
                .chars()
                .all(|c| matches!(c, ' '..='~' | '\n' | '\u{2014}'));
        good.then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({
            "type": "string", "maxLength": 32768,
            "pattern": "^[!-~\u{2014}][ -~\\n\u{2014}]*\\n\\n\u{2014} ([ -~\\n\u{2014}]*[ -~\u{2014}])?\\n$",
        })
    }
}

crate::value::text_newtype!(CosignedCheckpoint);

action! {
    /// Takes what witnesses said about a head that was published lately: valid cosignatures of the witnesses in
    /// `/etc/blockhost/ledger-witnesses` are kept in the ledger and published with the head. It makes no record: that
    /// would be a new head, to be cosigned again.
    LedgerCosign = "ledger-cosign", family "ledger", compartment Ledger, capabilities &[],
    time_limit_s 10, read_only false, ledger "ledger" / "settings" / "modify",
    {
        /// The checkpoint with the cosignatures.
        checkpoint: CosignedCheckpoint,
    }
    resource |_| "ledger:cosignatures".to_owned(),
    returns &[FieldSpec::integer("witnesses", "How many witnesses have cosigned this head.")],
    example r#"{"checkpoint": "host.example/blockhost-ledger\n8\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u2014 w.example jWbPPwAAAABkGFDL\n"}"#,
}

action! {
    /// Begins an epoch of the ledger: makes a new signing key, names it in a record signed with the old one, signs on
    /// with the new one, and erases the old one. By default for root alone.
    LedgerRotateKey = "ledger-rotate-key", family "ledger", compartment Ledger, capabilities &[],
    time_limit_s 30, read_only false, ledger "ledger" / "settings" / "modify",
    {}
    resource |_| "ledger:key".to_owned(),
    returns &[
        FieldSpec::integer("epoch", "Number of the new epoch."),
        FieldSpec::text("vkey", "Its verifier key."),
    ],
}
