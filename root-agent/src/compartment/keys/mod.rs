//! The `keys` compartment: wallets, the address book and the IPv6 allocation under `/etc/blockhost`. Runs as uid 0 without
//! capabilities and sees that directory alone, where it puts whole files and writes into none: the agent's policy is there too.
//! Private keys are made here and never leave it.

mod allocation;
mod book;
pub(super) mod store;
mod wallet;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use blockhost_proto::action::{Action, AddressbookSave, GenerateWallet};
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{AddressEntry, EthAddress, KeyFile, WalletName};

use super::{Done, Failure, Handler, JobCtx, StartInfo};
use store::{Existing, Store, StoreError};
use wallet::Wallet;

use crate::sys::landlock;

/// Where files are made before they are put in place: below `/etc/blockhost`, the one directory there where this process may
/// write. `None` on a kernel whose Landlock lets no file move between directories (before 5.19): it may write everywhere there.
pub fn workshop(layout: &Layout) -> Option<PathBuf> {
    (landlock::abi() != 1).then(|| layout.etc().join(WORKSHOP))
}

const WORKSHOP: &str = "unfinished";

/// Reading and writing the book is one step: wallets of different names share it.
struct Keys(Mutex<Store>);

/// Opens `/etc/blockhost`; called before confinement.
///
/// # Errors
/// One sentence when the directory is missing or not as setup makes it.
pub fn prepare(start: &StartInfo<'_>) -> Result<Box<dyn Handler>, String> {
    let store = Store::open(&start.layout.etc(), start.identities.blockhost.gid)
        .and_then(|store| match workshop(start.layout) {
            Some(_) => store.with_workshop(WORKSHOP),
            None => Ok(store),
        })
        .map_err(|error| format!("the keys compartment cannot start: {error}; `blockhost` setup makes it root:blockhost 0750"))?;
    Ok(Box::new(Keys(Mutex::new(store))))
}

impl Handler for Keys {
    fn quick(&self, _action: &Action) -> bool {
        true
    }

    fn run(&self, action: &Action, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        let store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match action {
            Action::GenerateWallet(action) => generate(&store, action, ctx),
            Action::AddressbookSave(action) => save(&store, action, ctx),
            Action::BrokerRenew(action) => allocation::renew(&store, action),
            other => Err(Failure::new(
                ErrorCode::Internal,
                format!(
                    "{} was sent to the keys compartment, which cannot do it",
                    other.name()
                ),
            )),
        }
    }
}

fn is_protected(name: &WalletName, ctx: &JobCtx<'_>) -> bool {
    name.is_reserved()
        || ctx
            .allow
            .reserved_wallets
            .iter()
            .any(|reserved| reserved == name.as_str())
}

fn generate(store: &Store, action: &GenerateWallet, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let name = action.name.wallet_name();
    if is_protected(name, ctx) {
        return Err(Failure::new(
            ErrorCode::Forbidden,
            format!("a wallet named {name} is not made by clients; the name is reserved"),
        ));
    }
    let keyfile: KeyFile = format!("{name}.key")
        .parse()
        .map_err(|error| Failure::new(ErrorCode::BadParams, format!("{error}")))?;
    // Before any key exists: a book that cannot be read now could not be written afterwards.
    let old = book::read(store)?;
    if let Some(entry) = old.entries().get(name) {
        let message = format!(
            "the address book has an entry {name} already ({}); it was left as it is",
            entry.address
        );
        return Err(Failure::new(ErrorCode::Conflict, message));
    }
    let (address, found) = match store.read(keyfile.as_str()).map_err(internal)? {
        Some(text) => (address_of_orphan(store, &keyfile, &text)?, true),
        None => (create(store, &keyfile, &old, name)?, false),
    };
    let new = book::with(
        &old,
        name,
        AddressEntry {
            address,
            keyfile: Some(keyfile.clone()),
        },
    )?;
    book::write(store, &new).map_err(|failure| {
        let message = format!("the key {keyfile} is safe, but the address book has no entry for it yet: {}; ask again to add it", failure.message);
        Failure::new(failure.code, message)
    })?;
    let output = if found {
        format!(
            "wallet {name} was left without an address-book entry by an interrupted run; {address} was added"
        )
    } else {
        format!("wallet {name}: {address}")
    };
    let mut done = Done {
        output,
        ..Done::default()
    };
    done.extra
        .insert("address".into(), address.to_string().into());
    done.extra
        .insert("keyfile".into(), keyfile.absolute().into());
    Ok(done)
}

fn create(
    store: &Store,
    keyfile: &KeyFile,
    book: &blockhost_proto::value::AddressBook,
    name: &WalletName,
) -> Result<EthAddress, Failure> {
    let wallet = Wallet::generate()
        .map_err(|error| Failure::new(ErrorCode::Failed, format!("no key was made: {error}")))?;
    let address = wallet
        .address()
        .ok_or_else(|| Failure::new(ErrorCode::Internal, "the new key has no public key"))?;
    // Fails here for a full book, while there is nothing to undo.
    book::with(
        book,
        name,
        AddressEntry {
            address,
            keyfile: None,
        },
    )?;
    store
        .write(keyfile.as_str(), &wallet.to_hex(), Existing::Keep)
        .map_err(|error| match error {
            StoreError::Exists(_) => Failure::new(ErrorCode::Conflict, error.to_string()),
            other => internal(other),
        })?;
    Ok(address)
}

/// A key file without an entry is what a crash between the two writes leaves; the key is good, the entry is missing.
fn address_of_orphan(store: &Store, keyfile: &KeyFile, text: &[u8]) -> Result<EthAddress, Failure> {
    Wallet::from_hex(text)
        .and_then(|wallet| wallet.address())
        .ok_or_else(|| {
            let path = store.path_of(keyfile.as_str());
            let message = format!(
                "{} exists, is not a private key and is never overwritten; move it away",
                path.display()
            );
            Failure::new(ErrorCode::Conflict, message)
        })
}

fn save(store: &Store, action: &AddressbookSave, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let old = book::read(store)?;
    book::check_change(
        &old,
        &action.entries,
        |name| is_protected(name, ctx),
        ctx.caller_uid,
    )?;
    book::write(store, &action.entries)?;
    Ok(Done {
        output: format!(
            "the address book has {} entries",
            action.entries.entries().len()
        ),
        ..Done::default()
    })
}

fn internal(error: StoreError) -> Failure {
    Failure::new(ErrorCode::Failed, error.to_string())
}
