//! The address book `/etc/blockhost/addressbook.json`: reading it strictly, deciding which changes a caller may make.

use std::collections::BTreeMap;

use blockhost_proto::json;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{AddressBook, AddressEntry, Param, WalletName};

use super::store::{Existing, Store};
use crate::compartment::Failure;

/// Its file name.
pub(super) const FILE: &str = "addressbook.json";

/// The book as it is; empty where there is no file. One that cannot be understood is an error, never an empty one.
pub(super) fn read(store: &Store) -> Result<AddressBook, Failure> {
    let Some(content) = store.read(FILE).map_err(failed)? else {
        return Ok(AddressBook::default());
    };
    let damaged = |why: String| {
        let path = store.path_of(FILE);
        Failure::new(
            ErrorCode::Failed,
            format!(
                "{} is damaged ({why}) and was left as it is; repair it or move it away",
                path.display()
            ),
        )
    };
    let value = json::parse(&content).map_err(|error| damaged(error.to_string()))?;
    AddressBook::from_json(&value).map_err(|error| damaged(error.to_string()))
}

/// Replaces the book as a whole, atomically.
pub(super) fn write(store: &Store, book: &AddressBook) -> Result<(), Failure> {
    let mut text = serde_json::to_vec_pretty(&book.to_file_json()).map_err(failed)?;
    text.push(b'\n');
    store.write(FILE, &text, Existing::Replace).map_err(failed)
}

/// Refuses changes to protected entries by anyone but root. Adding one that is missing is allowed: that is how a host
/// is set up.
pub(super) fn check_change(
    old: &AddressBook,
    new: &AddressBook,
    is_protected: impl Fn(&WalletName) -> bool,
    caller_uid: u32,
) -> Result<(), Failure> {
    if caller_uid == 0 {
        return Ok(());
    }
    for (name, entry) in old.entries().iter().filter(|(name, _)| is_protected(name)) {
        let verb = match new.entries().get(name) {
            Some(kept) if kept == entry => continue,
            Some(_) => "changed",
            None => "removed",
        };
        let message = format!(
            "the entry {name} of the address book can only be {verb} by root: payments go there"
        );
        return Err(Failure::new(ErrorCode::Forbidden, message));
    }
    Ok(())
}

/// The book with one entry more.
pub(super) fn with(
    book: &AddressBook,
    name: &WalletName,
    entry: AddressEntry,
) -> Result<AddressBook, Failure> {
    let mut entries: BTreeMap<WalletName, AddressEntry> = book.entries().clone();
    entries.insert(name.clone(), entry);
    AddressBook::new(entries).map_err(|error| Failure::new(ErrorCode::Conflict, error.to_string()))
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::Failed, error.to_string())
}
