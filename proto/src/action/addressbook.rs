//! `addressbook-save`: replaces the address book. That existing reserved entries change only for uid 0 depends on the
//! file and is the keys compartment's rule; names, addresses and key files are checked here.

use super::{ResourceKey, action};
use crate::value::AddressBook;

action! {
    /// Replaces the address book atomically. Existing entries `admin`, `server`, `dev` and `broker` change or vanish only
    /// when uid 0 asks.
    AddressbookSave = "addressbook-save", family "addressbook", compartment Keys, capabilities &[],
    time_limit_s 10, read_only false, ledger "wallet" / "settings" / "modify",
    {
        /// Name -> `{"address": "0x...", "keyfile": "name.key"}`; `keyfile` may be missing.
        entries: AddressBook,
    }
    resources |_| vec![ResourceKey::named("addressbook")],
    resource |_| "addressbook".to_owned(),
    example r#"{"entries": {"hot": {"address": "0x52908400098527886E0F7030069857D2E4169EE7", "keyfile": "hot.key"}}}"#,
}
