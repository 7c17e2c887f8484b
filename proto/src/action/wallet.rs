//! `generate-wallet`: a key that is made by the agent and never leaves `/etc/blockhost`.

use super::{ResourceKey, action};
use crate::catalog::FieldSpec;
use crate::value::NewWalletName;

action! {
    /// Makes a secp256k1 key in `/etc/blockhost/<name>.key` and an address-book entry. Never overwrites a key.
    /// Answers `address` and `keyfile`.
    GenerateWallet = "generate-wallet", family "wallet", compartment Keys, capabilities &[],
    time_limit_s 10, read_only false, ledger "wallet" / "settings" / "create",
    {
        /// Name of the wallet; `admin`, `server`, `dev` and `broker` are refused.
        name: NewWalletName,
    }
    resources |a| vec![ResourceKey::named("addressbook"), ResourceKey::named(format!("wallet:{}", a.name))],
    resource |a| format!("wallet:{}", a.name),
    returns &[
        FieldSpec::text("address", "Address of the new wallet, with the checksum of EIP-55."),
        FieldSpec::text("keyfile", "Path of the key on the host."),
    ],
    example r#"{"name": "hot"}"#,
}
