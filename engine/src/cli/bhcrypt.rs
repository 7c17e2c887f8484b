//! `bhcrypt`: keys and the two encryptions, for scripts. Raw output without a newline; errors on stderr, exit 1.

use crate::crypto::keys::{PrivateKey, PublicKey, read_secret_file};
use crate::crypto::{CryptoError, buyer, decode_hex, ecies};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use zeroize::Zeroizing;

/// Most that is read from a file or stdin.
const MAX_INPUT: u64 = 1 << 20;

/// Keys and encryption as BlockHost uses them on the chain.
#[derive(Parser)]
#[command(name = "bhcrypt", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Secrets on the command line are visible to every user of the machine while the command runs: prefer the forms with
a file, or `-` as the file for stdin (once per call). Results are printed as they are, without a line's end.

Exit codes: 0 done; 1 failed; 2 wrong usage.

Examples:
  bhcrypt generate-keypair --show-pubkey
  bhcrypt key-to-address --key-file /etc/blockhost/server.key
  bhcrypt encrypt-symmetric --signature-file sig.hex --plaintext '{\"hostname\":\"h\",\"port\":22,\"username\":\"u\"}'
  printf %s \"$SIGNATURE\" | bhcrypt decrypt-symmetric --signature-file - --ciphertext 0x...
  bhcrypt encrypt --public-key \"$(cat /etc/blockhost/server.pubkey)\" --plaintext secret
  bhcrypt decrypt --private-key-file /etc/blockhost/server.key --ciphertext 0x...";

#[derive(Subcommand)]
enum Verb {
    /// A new secp256k1 key: 64 hexadecimal digits
    #[command(
        after_help = "Examples:\n  bhcrypt generate-keypair --show-pubkey\n  bhcrypt generate-keypair | install -o root -g blockhost -m 0640 /dev/stdin /etc/blockhost/server.key"
    )]
    GenerateKeypair {
        /// Print the uncompressed public key on a second line
        #[arg(long)]
        show_pubkey: bool,
    },
    /// The public key of a private key, uncompressed
    #[command(
        after_help = "Example:\n  bhcrypt derive-pubkey --private-key-file /etc/blockhost/server.key"
    )]
    DerivePubkey(PrivateKeyArgs),
    /// The account address of a private key
    #[command(
        after_help = "Example:\n  bhcrypt key-to-address --key-file /etc/blockhost/deployer.key"
    )]
    KeyToAddress(KeyArgs),
    /// Encrypt to the buyer whose wallet made this signature
    #[command(
        after_help = "Example:\n  bhcrypt encrypt-symmetric --signature-file sig.hex --plaintext secret"
    )]
    EncryptSymmetric {
        #[command(flatten)]
        signature: SignatureArgs,
        #[command(flatten)]
        plaintext: PlaintextArgs,
    },
    /// Decrypt what was encrypted to the buyer
    #[command(
        after_help = "Example:\n  bhcrypt decrypt-symmetric --signature-file sig.hex --ciphertext 0x8a1f..."
    )]
    DecryptSymmetric {
        #[command(flatten)]
        signature: SignatureArgs,
        #[command(flatten)]
        ciphertext: CiphertextArgs,
    },
    /// Encrypt to the holder of a private key
    #[command(
        after_help = "Example:\n  bhcrypt encrypt --public-key 0x04... --plaintext-file secret.txt"
    )]
    Encrypt {
        #[command(flatten)]
        to: PublicKeyArgs,
        #[command(flatten)]
        plaintext: PlaintextArgs,
    },
    /// Decrypt what was encrypted to this private key
    #[command(
        after_help = "Example:\n  bhcrypt decrypt --private-key-file /etc/blockhost/server.key --ciphertext 0x8a1f..."
    )]
    Decrypt {
        /// File with the private key in hexadecimal, `-` for stdin
        #[arg(long, value_name = "FILE")]
        private_key_file: PathBuf,
        #[command(flatten)]
        ciphertext: CiphertextArgs,
    },
}

/// Two ways to give one value: itself, or a file with it.
macro_rules! value_or_file {
    ($name:ident, $value:ident, $file:ident, $what:literal) => {
        #[derive(Args)]
        #[group(required = true, multiple = false)]
        struct $name {
            #[arg(long, allow_hyphen_values = true, help = $what)]
            $value: Option<String>,
            #[arg(long, value_name = "FILE", help = "File with it, `-` for stdin")]
            $file: Option<PathBuf>,
        }

        impl $name {
            fn get(self) -> Result<Zeroizing<String>, Failure> {
                match (self.$value, self.$file) {
                    (Some(value), _) => Ok(Zeroizing::new(value)),
                    (None, Some(path)) => read(&path),
                    (None, None) => unreachable!("clap requires one of the two"),
                }
            }
        }
    };
}

value_or_file!(
    PrivateKeyArgs,
    private_key,
    private_key_file,
    "Private key in hexadecimal"
);
value_or_file!(KeyArgs, key, key_file, "Private key in hexadecimal");
value_or_file!(
    SignatureArgs,
    signature,
    signature_file,
    "Wallet signature in hexadecimal"
);
value_or_file!(PlaintextArgs, plaintext, plaintext_file, "Text to encrypt");
value_or_file!(
    CiphertextArgs,
    ciphertext,
    ciphertext_file,
    "Ciphertext in hexadecimal"
);
value_or_file!(
    PublicKeyArgs,
    public_key,
    public_key_file,
    "Uncompressed public key in hexadecimal"
);

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    #[error(transparent)]
    Key(#[from] crate::crypto::keys::KeyFileError),
    #[error("cannot read {what}: {source}")]
    Read {
        what: String,
        source: std::io::Error,
    },
    #[error("cannot write the result: {0}")]
    Write(std::io::Error),
}

/// The command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    // Also installed as pam_web3_tool; help and errors then carry that name.
    let name = std::env::args_os()
        .next()
        .and_then(|path| PathBuf::from(path).file_name()?.to_str().map(str::to_owned));
    let name: &'static str = if name.as_deref() == Some("pam_web3_tool") {
        "pam_web3_tool"
    } else {
        "bhcrypt"
    };
    let matches = match command().name(name).bin_name(name).try_get_matches() {
        Ok(matches) => matches,
        Err(e) => {
            let _ = e.print();
            // Scripts expect 1, not clap's 2.
            return ExitCode::from(u8::from(e.use_stderr()));
        }
    };
    let done = <Cli as clap::FromArgMatches>::from_arg_matches(&matches)
        .map_err(|e| e.to_string())
        .and_then(|cli| run(cli.verb).map_err(|e| e.to_string()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{name}: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<(), Failure> {
    let output = match verb {
        Verb::GenerateKeypair { show_pubkey } => {
            let key = PrivateKey::generate()?;
            let mut text = key.to_hex();
            if show_pubkey {
                text = Zeroizing::new(format!("{}\n{}", *text, key.public_key().to_hex()));
            }
            text
        }
        Verb::DerivePubkey(key) => {
            Zeroizing::new(PrivateKey::from_hex(&key.get()?)?.public_key().to_hex())
        }
        Verb::KeyToAddress(key) => Zeroizing::new(
            PrivateKey::from_hex(&key.get()?)?
                .public_key()
                .address()
                .to_string(),
        ),
        Verb::EncryptSymmetric {
            signature,
            plaintext,
        } => Zeroizing::new(buyer::encrypt_hex(
            &signature.get()?,
            plaintext.get()?.as_bytes(),
        )?),
        Verb::DecryptSymmetric {
            signature,
            ciphertext,
        } => text(&buyer::decrypt_hex(&signature.get()?, &ciphertext.get()?)?)?,
        Verb::Encrypt { to, plaintext } => {
            let sealed = ecies::encrypt(
                &PublicKey::from_hex(&to.get()?)?,
                plaintext.get()?.as_bytes(),
            )?;
            Zeroizing::new(format!("0x{}", hex::encode(sealed)))
        }
        Verb::Decrypt {
            private_key_file,
            ciphertext,
        } => {
            let key = PrivateKey::from_hex(&read(&private_key_file)?)?;
            text(&ecies::decrypt(
                &key,
                &decode_hex("the ciphertext", &ciphertext.get()?)?,
            )?)?
        }
    };
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(output.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(Failure::Write)
}

fn text(bytes: &Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>, Failure> {
    std::str::from_utf8(bytes)
        .map(|t| Zeroizing::new(t.to_owned()))
        .map_err(|_| CryptoError::NotText.into())
}

fn read(path: &std::path::Path) -> Result<Zeroizing<String>, Failure> {
    if path != std::path::Path::new("-") {
        return match std::fs::metadata(path) {
            // Key files are small; plaintexts and ciphertexts need not be.
            Ok(m) if m.len() > 4096 => {
                limited(std::fs::File::open(path), &path.display().to_string())
            }
            _ => Ok(read_secret_file(path)?),
        };
    }
    limited(Ok(std::io::stdin().lock()), "stdin")
}

fn limited<R: Read>(from: std::io::Result<R>, what: &str) -> Result<Zeroizing<String>, Failure> {
    let fail = |source| Failure::Read {
        what: what.to_owned(),
        source,
    };
    let mut text = Zeroizing::new(String::new());
    from.map_err(fail)?
        .take(MAX_INPUT)
        .read_to_string(&mut text)
        .map_err(fail)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
