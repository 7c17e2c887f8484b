//! `blockhost ledger grep`: records that contain a text, anywhere: in a field, in a key or value of the metadata.

use super::context::{Context, Failure};
use super::select::Select;
use crate::query::Text;

/// Options of `grep`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger grep 10.0.3.7 --since 7d
  blockhost ledger grep -i 'permission denied' --phase outcome --json

Only the newest 20 that contain it, unless -n says otherwise.")]
pub struct Args {
    /// The text, as it is (no pattern)
    #[arg(value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    text: String,
    /// Capitals of A-Z do not matter
    #[arg(short, long)]
    ignore_case: bool,
    #[command(flatten)]
    select: Select,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let text = Text::new(&args.text, args.ignore_case);
    args.select.answer(context, Some(text))
}
