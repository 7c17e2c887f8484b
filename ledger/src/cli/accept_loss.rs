//! `blockhost ledger accept-loss`: root says in so many words which part of a damaged ledger is to be kept. Writes the
//! request only; the agent carries it out at its next start and records it.

use super::context::{Context, Failure, confirmed, read_key};
use crate::loss::{self, Look, Loss};
use crate::merkle::hex;
use crate::note::parse_vkeys;
use serde_json::json;
use std::path::PathBuf;

/// Options of `accept-loss`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger accept-loss               what is intact, what is wrong; changes nothing
  blockhost ledger accept-loss --size 4711 --root 5f1d... --reason 'disk failed on 3 May'

Nothing is destroyed: at its next start the agent sets aside what is given up, as lost-TIME.* beside where it was,
and appends a record that says so. Witnesses, anchors and checkpoints kept elsewhere go on telling of it.

Exit codes: 0 asked for (or, without --size, nothing is wrong), 1 refused or something is wrong, 2 wrong usage, 3 the
ledger cannot be read.")]
pub struct Args {
    /// How many records to keep: exactly those that are intact
    #[arg(long, value_name = "N", requires = "root", requires = "reason")]
    size: Option<u64>,
    /// Root of the tree over these, in hexadecimal
    #[arg(long, value_name = "HEX", requires = "size", value_parser = root)]
    root: Option<crate::merkle::Hash>,
    /// How many of these have lost their payloads: exactly as many as are said, where a record about pruning is lost
    #[arg(long, value_name = "N", requires = "size", default_value_t = 0)]
    without_payloads: u64,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", requires = "size")]
    reason: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Verifier key to check with, if not the one beside the ledger
    #[arg(long, value_name = "KEY|FILE")]
    key: Option<String>,
    /// Where the agent looks for the request
    #[arg(long, value_name = "DIR", default_value = "/etc/blockhost/ledger")]
    requests: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn root(text: &str) -> Result<crate::merkle::Hash, String> {
    let lower = text.to_ascii_lowercase();
    crate::blobs::parse_hash(&lower).ok_or_else(|| "64 hexadecimal digits".to_owned())
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let ledger = context.ledger()?;
    let key = match &args.key {
        Some(given) => read_key(given)?,
        None => {
            let text = ledger
                .read(crate::dir::VKEY, 64 * 1024)
                .map_err(|error| Failure::Unreadable(format!("cannot {error}")))?;
            let keys = text.and_then(|text| parse_vkeys(std::str::from_utf8(&text).ok()?).ok());
            keys.and_then(|keys| keys.into_iter().next())
                .ok_or_else(|| {
                    Failure::Unreadable(
                        "there is no verifier key beside the ledger: give it with --key".to_owned(),
                    )
                })?
        }
    };
    let found = loss::look(&ledger, Some(&key))
        .map_err(|error| Failure::Unreadable(format!("cannot {error}")))?;
    if args.json {
        let heads: Vec<_> = found
            .known
            .iter()
            .map(|head| head.map(|(size, root)| json!({"size": size, "root": hex(&root)})))
            .collect();
        context.json(&json!({
            "intact": found.size, "root": hex(&found.root), "damaged": found.is_damaged(), "why": found.why(),
            "lost_bytes": found.lost_bytes, "published": heads[0], "cosigned": heads[1],
            "without_payloads": found.without_payloads(),
        }))?;
    } else {
        show(context, &found)?;
    }
    let (Some(size), Some(root), Some(reason)) = (args.size, args.root, &args.reason) else {
        return match found.is_damaged() {
            true => Err(Failure::NotVerified("nothing was changed".to_owned())),
            false => Ok(()),
        };
    };
    if !found.is_damaged()
        && ledger
            .identity(loss::BEGUN)
            .is_ok_and(|begun| begun.is_none())
    {
        return Err(Failure::NotVerified(
            "nothing is wrong with this ledger: there is nothing to give up".to_owned(),
        ));
    }
    if (size, root) != (found.size, found.root) {
        return Err(Failure::NotVerified(
            "--size and --root are not those of what is intact; nothing was changed".to_owned(),
        ));
    }
    if args.without_payloads != found.without_payloads() {
        return Err(Failure::NotVerified(format!(
            "the payloads of {} of the records to keep are gone without an intact record that says why: accept that with --without-payloads {0}; nothing was changed",
            found.without_payloads()
        )));
    }
    let now = jiff::Timestamp::now().as_second();
    let loss = Loss::new(size, root, reason, u64::try_from(now).unwrap_or(0));
    let mut loss = loss.map_err(Failure::Usage)?;
    loss.without_payloads = args.without_payloads;
    let question = format!("Keep {size} records and give up everything behind them?");
    if !args.yes && !confirmed(&question, &size.to_string())? {
        return Err(Failure::NotVerified("nothing was changed".to_owned()));
    }
    loss.store(&args.requests)
        .map_err(|error| Failure::Unreadable(format!("cannot {error}")))?;
    if !args.json {
        let file = args.requests.join(loss::REQUEST);
        writeln!(
            context.out,
            "{} is written; start the agent (`systemctl restart blockhost-root-agent`), it keeps {size} records and says so in the next",
            file.display()
        )?;
    }
    Ok(())
}

fn show(context: &mut Context, found: &Look) -> Result<(), Failure> {
    let out = &mut context.out;
    writeln!(
        out,
        "intact    {} records, root {}",
        found.size,
        hex(&found.root)
    )?;
    for (head, name) in found.known.iter().zip(["published", "cosigned"]) {
        if let Some((size, root)) = head {
            let lost = match size.saturating_sub(found.size) {
                0 => String::new(),
                lost => format!("; at least {lost} of them would be given up"),
            };
            writeln!(out, "{name:<9} {size} records, root {}{lost}", hex(root))?;
        }
    }
    if !found.is_damaged() {
        return Ok(writeln!(out, "nothing is wrong")?);
    }
    writeln!(out, "wrong     {}", found.why())?;
    writeln!(
        out,
        "behind    {} bytes of segments, which would be set aside, not destroyed",
        found.lost_bytes
    )?;
    writeln!(
        out,
        "Restore a backup if there is one. To go on without what is lost:\n  blockhost ledger accept-loss --size {} --root {}{} --reason '...'",
        found.size,
        hex(&found.root),
        match found.without_payloads() {
            0 => String::new(),
            records => format!(" --without-payloads {records}"),
        }
    )?;
    Ok(())
}
