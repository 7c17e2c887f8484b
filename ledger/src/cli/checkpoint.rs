//! `blockhost ledger checkpoint`: the signed head to keep elsewhere, as text or for a telephone's camera.

use super::context::{Context, Failure};
use crate::merkle::{Hash, hex};
use crate::note::Checkpoint;
use crate::reader::{ReadError, Reader};
use qrcodegen::{QrCode, QrCodeEcc};
use serde_json::json;
use std::io::IsTerminal as _;

/// Options of `checkpoint`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger checkpoint >> kept.txt    text, for a file on another machine
  blockhost ledger checkpoint --qr           photograph it: the picture shows later whether the history was rewritten")]
pub struct Args {
    /// Draw it as a QR code that holds exactly the text
    #[arg(long)]
    qr: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "qr")]
    json: bool,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let ledger = context.ledger()?;
    // The published one, a second behind at most: it is durable, and may carry cosignatures of witnesses. What is in the file
    // and not on the disk yet could be lost, and a checkpoint of it would accuse this host for ever. It is read first: the
    // records that are read afterwards are then at least those that it is of, whatever the agent publishes meanwhile.
    let published = ledger
        .read(crate::dir::CHECKPOINT, 64 * 1024)
        .map_err(ReadError::from)?;
    let reader = context.reader()?;
    let (size, root, note) = match published {
        Some(bytes) => judged(&reader, bytes)?,
        // Nothing was ever published here.
        None => {
            let head = reader.head()?;
            (head.size, head.root, head.note)
        }
    };
    if args.json {
        return context.json(&json!({"records": size, "root": hex(&root), "checkpoint": note}));
    }
    if !args.qr {
        return Ok(write!(context.out, "{note}")?);
    }
    let code = QrCode::encode_binary(note.as_bytes(), QrCodeEcc::Low).map_err(|_| {
        Failure::Unreadable(
            "the checkpoint has too many signatures for a QR code; leave --qr out".to_owned(),
        )
    })?;
    for line in draw(&code) {
        // Black on white whatever the terminal's colours are; a file gets the characters alone.
        if std::io::stdout().is_terminal() {
            writeln!(context.out, "\u{1b}[30;107m{line}\u{1b}[0m")?;
        } else {
            writeln!(context.out, "{line}")?;
        }
    }
    Ok(write!(context.out, "{note}")?)
}

/// What is published, where it is of these records: size, root and the note itself.
fn judged(reader: &Reader, bytes: Vec<u8>) -> Result<(u64, Hash, String), Failure> {
    let wrong = |why: &str| {
        Failure::NotVerified(format!(
            "the published checkpoint and the records contradict each other: {why}; see `blockhost ledger verify`, and keep neither"
        ))
    };
    let note = String::from_utf8(bytes).map_err(|_| wrong("it is not text"))?;
    let found: Checkpoint = reader
        .epochs()
        .ok_or_else(|| wrong("the records name no key"))?
        .open(&note)
        .map_err(|error| wrong(&error.to_string()))?;
    if found.size > reader.size() {
        let why = format!(
            "it is of {} records, and there are {}",
            found.size,
            reader.size()
        );
        return Err(wrong(&why));
    }
    if reader.root_of_range(0, found.size)? != found.root {
        return Err(wrong("the first records are others"));
    }
    Ok((found.size, found.root, note))
}

/// Two rows of modules in each line, with the border of four that scanners need.
fn draw(code: &QrCode) -> Vec<String> {
    const BORDER: i32 = 4;
    let range = -BORDER..code.size() + BORDER;
    range
        .clone()
        .step_by(2)
        .map(|y| {
            let module = |x| match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (true, true) => '\u{2588}',
                (true, false) => '\u{2580}',
                (false, true) => '\u{2584}',
                (false, false) => ' ',
            };
            range.clone().map(module).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the picture as a camera would, with a decoder that somebody else wrote.
    #[test]
    fn what_is_drawn_is_read_back_by_another_decoder_byte_for_byte() {
        let signer = crate::keys::Signer::from_bytes("host.example/blockhost-ledger", 1, &[3; 32])
            .expect("valid");
        let mut note = signer.sign_checkpoint(&Checkpoint {
            origin: signer.vkey().name().into(),
            size: 123_456,
            root: [9; 32],
        });
        for witnesses in 0..4 {
            let code = QrCode::encode_binary(note.as_bytes(), QrCodeEcc::Low).expect("fits");
            let lines: Vec<Vec<char>> = draw(&code)
                .iter()
                .map(|line| line.chars().collect())
                .collect();
            let (width, height) = (lines[0].len(), lines.len() * 2);
            assert!(width <= 120, "{width} columns");
            const SCALE: usize = 4;
            let dark = |x: usize, y: usize| match lines[y / 2][x] {
                '\u{2588}' => true,
                '\u{2580}' => y.is_multiple_of(2),
                '\u{2584}' => !y.is_multiple_of(2),
                _ => false,
            };
            let mut image = rqrr::PreparedImage::prepare_from_greyscale(
                width * SCALE,
                height * SCALE,
                |x, y| {
                    if dark(x / SCALE, y / SCALE) { 0 } else { 255 }
                },
            );
            let grids = image.detect_grids();
            let (_, text) = grids.first().expect("found").decode().expect("decoded");
            assert_eq!(text, note, "{witnesses} cosignatures");
            note.push_str(&format!(
                "\u{2014} witness{witnesses}.example/w {}\n",
                "A".repeat(103) + "="
            ));
        }
    }
}
