//! `blockhost ledger blob`: confidential payloads for their owners. Encrypts and decrypts here, with keys the agent never
//! sees; keeping and erasing are requests to the agent, which whoever mounts the commands carries there.

use super::context::{Context, Failure, ask, read_text, read_up_to};
use crate::blobs::{self, BlobIndex, State};
use crate::blobs_age::{self, MAX_PLAIN_BYTES};
use crate::merkle::{Hash, hex, sha256};
use base64ct::{Base64, Encoding as _};
use serde_json::json;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

/// Options of `blob`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  age-keygen -o tenant.key 2>recipients.txt          a key, kept elsewhere, and its public half
  blockhost ledger blob put terms.txt --recipients recipients.txt --category network --event tenant-terms
  blockhost ledger blob list
  blockhost ledger blob get 36b8d8... --identity tenant.key -o terms.txt
  blockhost ledger blob shred 36b8d8... --reason 'erasure asked for by the tenant'

Debian's age decrypts the files, too: age -d -i tenant.key /var/lib/blockhost-ledger/blobs/36/36b8d8...")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Verb {
    /// Encrypt a file and have it kept, with a record that commits to it
    Put(PutArgs),
    /// Compare a payload with its record's hash, decrypt it and print it
    Get(GetArgs),
    /// List payloads: which record commits to them, and which one says that they were shredded
    List(ListArgs),
    /// Erase a payload for good; its records and every proof stay
    Shred(ShredArgs),
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:
  blockhost ledger blob put terms.txt --recipients recipients.txt --category network --event tenant-terms")]
struct PutArgs {
    /// File to encrypt, - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Who can decrypt it: a file with a recipient (age1...) a line
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/blockhost/ledger-recipients.txt"
    )]
    recipients: PathBuf,
    /// Category of the record
    #[arg(long, value_name = "NAME", default_value = "settings")]
    category: String,
    /// What happened, for everybody to read
    #[arg(long, value_name = "NAME")]
    event: String,
    /// What it happened to, for everybody to read
    #[arg(long, value_name = "TEXT")]
    resource: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:
  blockhost ledger blob get 36b8d8... --identity tenant.key -o terms.txt")]
struct GetArgs {
    /// Hash of the ciphertext
    #[arg(value_name = "SHA256", value_parser = hash)]
    sha256: Hash,
    /// Key to decrypt it with: a file of age-keygen
    #[arg(long, value_name = "FILE", required_unless_present = "ciphertext")]
    identity: Option<PathBuf>,
    /// Do not decrypt
    #[arg(long, conflicts_with = "identity")]
    ciphertext: bool,
    /// Write to this new file (0600) instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print it even to a terminal
    #[arg(long)]
    show: bool,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:
  blockhost ledger blob list --json")]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:
  blockhost ledger blob shred 36b8d8... --reason 'erasure asked for by the tenant'")]
struct ShredArgs {
    /// Hash of the ciphertext
    #[arg(value_name = "SHA256", value_parser = hash)]
    sha256: Hash,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn hash(text: &str) -> Result<Hash, &'static str> {
    blobs::parse_hash(text).ok_or("64 of 0-9 and a-f; `blob list` shows them")
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    match &args.verb {
        Verb::Put(args) => put(context, args),
        Verb::Get(args) => get(context, args),
        Verb::List(args) => list(context, args),
        Verb::Shred(args) => shred(context, args),
    }
}

fn put(context: &mut Context, args: &PutArgs) -> Result<(), Failure> {
    let recipients = read_text(&args.recipients, "recipients' file")?;
    let plain = read_up_to(&args.file, "payload", MAX_PLAIN_BYTES as u64)?;
    let bytes = blobs_age::encrypt(&recipients, &plain)
        .map_err(|error| Failure::Unreadable(format!("{}: {error}", args.recipients.display())))?;
    let mut params = json!({
        "category": args.category, "action": args.event, "ciphertext": Base64::encode_string(&bytes),
    });
    if let Some(resource) = &args.resource {
        params["resource"] = resource.as_str().into();
    }
    let answer = ask(context, blobs::PUT, &params)?;
    let name = hex(&sha256(&bytes));
    if args.json {
        return context.json(&json!({"sha256": name, "bytes": bytes.len(), "answer": answer}));
    }
    Ok(writeln!(context.out, "{name}")?)
}

fn get(context: &mut Context, args: &GetArgs) -> Result<(), Failure> {
    if args.output.is_none() && !args.show && std::io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "this would print a confidential payload to a terminal; give --output FILE, or --show"
                .to_owned(),
        ));
    }
    let name = hex(&args.sha256);
    let found = blobs::read(&context.ledger()?, &args.sha256)
        .map_err(|error| Failure::Unreadable(format!("cannot {error}")))?;
    let Some(mut bytes) = found else {
        let text = format!("there is no payload {name}; `blob list` says what became of it");
        return Err(Failure::Unreadable(text));
    };
    if sha256(&bytes) != args.sha256 {
        let text = format!("payload {name} was altered: it has another hash");
        return Err(Failure::NotVerified(text));
    }
    if let Some(file) = &args.identity {
        let identities = read_text(file, "identity file")?;
        bytes = blobs_age::decrypt(&identities, &bytes)
            .map_err(|error| Failure::Unreadable(format!("{}: {error}", file.display())))?;
    }
    match &args.output {
        None => Ok(context.out.write_all(&bytes)?),
        Some(file) => write_private(file, &bytes).map_err(|error| {
            Failure::Unreadable(format!("cannot write {}: {error}", file.display()))
        }),
    }
}

/// A new file that nobody else may read; one that is there is not touched.
fn write_private(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    std::io::Write::write_all(&mut file, bytes)
}

fn list(context: &mut Context, args: &ListArgs) -> Result<(), Failure> {
    let reader = context.reader()?;
    let mut index = BlobIndex::default();
    for record in reader.records(0) {
        let (at, bytes) = record?;
        index.see(at, &bytes);
    }
    let mut blobs: Vec<_> = index.iter().collect();
    blobs.sort_by_key(|(_, blob)| blob.height);
    for (hash, blob) in blobs {
        let (word, by) = match blob.state {
            State::Kept => ("kept", None),
            State::Shredding(by) => ("shredding", Some(by)),
            State::Shredded(by) => ("shredded", Some(by)),
        };
        if args.json {
            let line = json!({"sha256": hex(hash), "height": blob.height, "bytes": blob.bytes, "state": word, "by": by});
            context.json(&line)?;
            continue;
        }
        let by = by.map(|by| format!(" by record {by}")).unwrap_or_default();
        writeln!(
            context.out,
            "{}  record {}  {} bytes  {word}{by}",
            hex(hash),
            blob.height,
            blob.bytes
        )?;
    }
    Ok(())
}

fn shred(context: &mut Context, args: &ShredArgs) -> Result<(), Failure> {
    let params = json!({"sha256": hex(&args.sha256), "reason": args.reason});
    let answer = ask(context, blobs::SHRED, &params)?;
    if args.json {
        return context.json(&answer);
    }
    let name = hex(&args.sha256);
    Ok(writeln!(
        context.out,
        "{name}: shredded; copies elsewhere stay readable until their key is erased, too"
    )?)
}
