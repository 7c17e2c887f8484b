//! `bw`: the host's wallets. [`asked`] turns what is asked into steps, [`spend`] checks, orders and does them, [`tell`] answers
//! what needs none; [`plans`] changes what is sold.

mod asked;
mod plans;
mod spend;
mod tell;

use super::{fail, runtime};
use crate::chain::{Address, ChainError};
use crate::config::SetupError;
use crate::crypto::CryptoError;
use crate::funds::teller::FundsError;
use crate::outbox::OutboxError;
use crate::sending::PATIENCE;
use crate::wallets::{AmountError, BookError, Decimal, Party, PartyError, TokenError, TokenName};
use blockhost_proto::layout::Layout;
use clap::{Args, CommandFactory, Parser, Subcommand};
use plans::{PlanVerb, Wish};
use spend::Ground;
use std::process::ExitCode;

/// Slippage of a swap by hand, in hundredths of a percent, where nothing else is said.
const SLIPPAGE_BPS: u16 = 100;
const MOST_SLIPPAGE_BPS: u16 = 1000;

/// The host's wallets: balances, payments, contract settings.
#[derive(Debug, Parser)]
#[command(name = "bw", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
WHO is a name of the address book (`ab list`) or an address; only names with a key file can pay.
TOKEN is eth, stable (the primary stablecoin) or the address of a token. Amounts are decimal
numbers; what is finer than the token is refused and never rounded.

What spends has --dry-run, which checks everything and sends nothing. Once begun, it is finished
by the engine also when this command is interrupted, and every transaction is in the ledger.
One payment of a host at a time: another one is waited for, at most --wait seconds (300).

Exit codes: 0 done; 1 failed, and nothing more is sent; 2 wrong usage; 3 under way, or not
known: the engine goes on with it, so don't repeat it but look at `blockhost funds status`.

Examples:
  bw balance hot
  bw send 12.5 stable hot admin
  bw send 0.01 eth server 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266 --dry-run
  bw split 100 stable 60/30/10 hot admin dev broker
  bw withdraw stable hot
  bw swap 20 stable eth server
  bw who 17
  bw who 'some text' 0x5c1f...
  bw config stable 0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48
  bw plan create small 50
  bw plan close --all
  bw set encrypt 17 0x8a1f...";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Pay somebody
    #[command(
        after_help = "Examples:\n  bw send 12.5 stable hot admin\n  bw send 0.01 eth server 0xf39F... --json"
    )]
    Send {
        /// How much, such as 12.5
        amount: Decimal,
        /// Of what
        token: TokenName,
        /// Who pays
        from: Party,
        /// Who is paid
        to: Party,
        #[command(flatten)]
        how: How,
    },
    /// What somebody has
    #[command(
        after_help = "Examples:\n  bw balance hot\n  bw balance admin stable\n  bw balance 0xf39F... eth --json"
    )]
    Balance {
        /// Who
        who: Party,
        /// Of what; without it, eth and everything that customers can pay with
        token: Option<TokenName>,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Pay several, in proportion
    #[command(after_help = "\
The parts come exactly to the amount: what rounding leaves goes in single units to those who lost
most by it, the earlier first.

Examples:
  bw split 100 stable 60/30/10 hot admin dev broker
  bw split 1 eth 1/1/1 server admin dev broker --dry-run")]
    Split {
        /// How much in all
        amount: Decimal,
        /// Of what
        token: TokenName,
        /// The proportions, whole numbers with / between them
        ratios: Ratios,
        /// Who pays
        from: Party,
        /// Who is paid, one for each ratio
        #[arg(required = true)]
        to: Vec<Party>,
        #[command(flatten)]
        how: How,
    },
    /// Take money out of the subscription contract
    #[command(after_help = "\
Always all of a token. Without TOKEN, all tokens that customers can pay with.

Examples:
  bw withdraw hot
  bw withdraw stable admin")]
    Withdraw {
        /// Of what, and who gets it
        #[arg(num_args = 1..=2, required = true, value_names = ["TOKEN", "TO"])]
        what: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Swap a token for eth at Uniswap
    #[command(after_help = "\
The swap fails rather than bring less than was quoted when it was signed, minus the slippage.

Examples:
  bw swap 20 stable eth server
  bw swap 20 stable eth hot --slippage-bps 50 --dry-run")]
    Swap {
        /// How much
        amount: Decimal,
        /// Of what
        token: TokenName,
        /// For what; eth is all there is
        #[arg(value_parser = ["eth"])]
        into: String,
        /// Whose
        wallet: Party,
        /// How much less than quoted is still taken, in hundredths of a percent
        #[arg(long, value_name = "BPS", default_value_t = SLIPPAGE_BPS, value_parser = clap::value_parser!(u16).range(0..=i64::from(MOST_SLIPPAGE_BPS)))]
        slippage_bps: u16,
        #[command(flatten)]
        how: How,
    },
    /// Whose a credential is, who the admin is, or who signed a text
    #[command(
        after_help = "Examples:\n  bw who 17\n  bw who admin\n  bw who 'some text' 0x5c1f... --json"
    )]
    Who {
        /// A credential's id, `admin`, or a text that was signed
        what: String,
        /// The signature of the text: 65 bytes in hexadecimal, as wallets give it
        signature: Option<String>,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Settings of the subscription contract
    Config {
        #[command(subcommand)]
        key: ConfigKey,
    },
    /// Plans that customers can buy
    Plan {
        #[command(subcommand)]
        verb: PlanVerb,
    },
    /// Change a credential
    Set {
        #[command(subcommand)]
        key: SetKey,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigKey {
    /// The primary stablecoin: print it, or set it
    #[command(after_help = "Examples:\n  bw config stable\n  bw config stable 0xA0b8... --dry-run")]
    Stable {
        /// The token's address; without it, the present one is printed
        #[arg(value_parser = token_address)]
        address: Option<Address>,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Subcommand)]
enum SetKey {
    /// Replace the encrypted access details of a credential
    #[command(after_help = "Examples:\n  bw set encrypt 17 0x8a1f...")]
    Encrypt {
        /// The credential's id
        nft_id: u64,
        /// The new details, encrypted to the owner, in hexadecimal
        hex: String,
        #[command(flatten)]
        how: How,
    },
}

/// How something that spends is done.
#[derive(Debug, Clone, Copy, Args)]
struct How {
    /// Check everything, send nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for another payment of this host before this one is given up
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs())]
    wait: u64,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Proportions: whole numbers, not all of them 0.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ratios(Vec<u64>);

impl std::str::FromStr for Ratios {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} are no proportions: whole numbers with / between them, such as 60/30/10"
            )
        };
        let one = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            plain
                .then(|| part.parse::<u32>().ok())
                .flatten()
                .filter(|n| *n > 0)
        };
        text.split('/')
            .map(|part| one(part).map(u64::from))
            .collect::<Option<Vec<u64>>>()
            .map(Self)
            .ok_or_else(wrong)
    }
}

fn token_address(text: &str) -> Result<Address, PartyError> {
    crate::wallets::party::address(text)
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Sizes(#[from] blockhost_provisioner::config::ConfigError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Amount(#[from] AmountError),
    #[error(transparent)]
    Party(#[from] PartyError),
    #[error(transparent)]
    Book(#[from] BookError),
    #[error(transparent)]
    Funds(Box<FundsError>),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    #[error("{0}")]
    Usage(String),
    #[error("{0}; nothing was sent")]
    Refused(String),
    #[error("in force is not what was asked for, somebody else has changed it: plan {0}")]
    Overtaken(String),
    #[error("{who} has {has} {token} and needs {needs}")]
    Short {
        who: String,
        has: String,
        needs: String,
        token: String,
    },
    #[error(
        "{reason}; the engine goes on with it as order {order}: don't repeat it, look at `blockhost funds status`"
    )]
    UnderWay { order: i64, reason: String },
}

impl From<FundsError> for Failure {
    fn from(error: FundsError) -> Self {
        Self::Funds(Box::new(error))
    }
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::UnderWay { .. } => 3,
            _ => 1,
        }
    }
}

/// The command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    crate::failpoint::arm();
    let cli = Cli::parse();
    let done = runtime()
        .map_err(Failure::Start)
        .and_then(|runtime| runtime.block_on(run(&cli)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            fail("bw", &e);
            ExitCode::from(e.code())
        }
    }
}

async fn run(cli: &Cli) -> Result<(), Failure> {
    let ground = Ground::load(&Layout::from_env())?;
    match &cli.verb {
        Verb::Balance { who, token, json } => tell::balance(&ground, who, *token, *json).await,
        Verb::Who {
            what,
            signature,
            json,
        } => tell::who(&ground, what, signature.as_deref(), *json).await,
        Verb::Config {
            key: ConfigKey::Stable { address: None, how },
        } => tell::stable(&ground, how.json).await,
        Verb::Plan {
            verb: PlanVerb::List { json },
        } => plans::list(&ground, *json).await,
        Verb::Plan {
            verb:
                PlanVerb::Set {
                    id,
                    name,
                    cents,
                    how,
                },
        } => {
            let (id, name, cents) = (*id, name.as_ref(), *cents);
            plans::change(ground, &Wish::Named { id, name, cents }, *how).await
        }
        Verb::Plan {
            verb: PlanVerb::Close { which, how },
        } => {
            let active = false;
            plans::change(ground, &Wish::Sold { which, active }, *how).await
        }
        Verb::Plan {
            verb: PlanVerb::Open { which, how },
        } => {
            let active = true;
            plans::change(ground, &Wish::Sold { which, active }, *how).await
        }
        Verb::Send { how, .. }
        | Verb::Split { how, .. }
        | Verb::Withdraw { how, .. }
        | Verb::Swap { how, .. }
        | Verb::Config {
            key: ConfigKey::Stable { how, .. },
        }
        | Verb::Plan {
            verb: PlanVerb::Create { how, .. },
        }
        | Verb::Set {
            key: SetKey::Encrypt { how, .. },
        } => {
            let steps = asked::steps(&ground, &cli.verb).await?;
            ground.spend(&steps, *how).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn proportions_are_whole_numbers_that_are_not_nothing() {
        assert_eq!("60/30/10".parse::<Ratios>().unwrap().0, [60, 30, 10]);
        assert_eq!("1".parse::<Ratios>().unwrap().0, [1]);
        for bad in [
            "",
            "/",
            "1/",
            "0/1",
            "1/-1",
            "1.5/2",
            "1/+2",
            "1 /2",
            "4294967296/1",
            "a",
        ] {
            assert!(bad.parse::<Ratios>().is_err(), "{bad}");
        }
    }
}
