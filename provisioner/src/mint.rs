//! The owner's access token, when a create is asked to make it: the access details are encrypted to the owner's
//! signature and minted by the engine's commands, which hold the keys. Nothing of the chain is known here.

use serde_json::json;

use crate::exec::{self, ExecError};
use crate::plan::SignedSecret;
use blockhost_proto::value::EthAddress;

const HINT: &str =
    "it comes with the engine (package blockhost-engine); or create with --skip-mint";

/// A token that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// A command of the engine failed or is missing.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// It printed something else than a token.
    #[error("{program} printed \"{printed}\" where a token's number was expected")]
    Odd {
        /// The command.
        program: &'static str,
        /// What it printed.
        printed: String,
    },
}

/// Encrypts how to reach the machine so that only the owner's wallet reads it; gives `0x` and hexadecimal.
///
/// # Errors
/// [`MintError`].
pub fn encrypt_access(
    secret: &SignedSecret,
    hostname: &str,
    username: &str,
) -> Result<String, MintError> {
    let program = exec::find("bhcrypt", HINT)?;
    let plaintext = json!({"hostname": hostname, "port": 22, "username": username}).to_string();
    let args = [
        "encrypt-symmetric",
        "--signature-file",
        "-",
        "--plaintext",
        &plaintext,
    ];
    let printed = exec::run(&program, &args, Some(&secret.signature))?;
    let printed = printed.trim();
    let good = printed
        .strip_prefix("0x")
        .is_some_and(|hex| !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if good {
        Ok(printed.to_owned())
    } else {
        Err(odd("bhcrypt", printed))
    }
}

/// Mints a token to `owner` that carries `encrypted`; gives its number.
///
/// # Errors
/// [`MintError`].
pub fn mint(owner: EthAddress, encrypted: &str) -> Result<u64, MintError> {
    let program = exec::find("blockhost-mint-nft", HINT)?;
    let owner = owner.to_string();
    let printed = exec::run(
        &program,
        &["--owner-wallet", &owner, "--user-encrypted", encrypted],
        None,
    )?;
    let last = printed.trim().lines().last().unwrap_or_default().trim();
    last.parse().map_err(|_| odd("blockhost-mint-nft", last))
}

fn odd(program: &'static str, printed: &str) -> MintError {
    MintError::Odd {
        program,
        printed: blockhost_proto::escape::shown(printed),
    }
}
