//! `blockhost-generate-signup`: writes the signup page of this host, one file for any web server.

use super::{fail, replace};
use crate::config::{Config, ConfigError, LOCAL_CHAIN_ID, SetupError, signup_endpoint};
use crate::crypto::CryptoError;
use crate::crypto::keys::PublicKey;
use crate::signup::{self, Page};
use blockhost_proto::layout::Layout;
use blockhost_provisioner::config::{ConfigError as SizeError, Sizes};
use clap::{CommandFactory, Parser};
use reqwest::Url;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write the page on which visitors buy and manage their subscriptions: one static file.
#[derive(Parser)]
#[command(name = "blockhost-generate-signup", version, after_help = EXAMPLES)]
struct Cli {
    /// Where to write it; an earlier page is replaced in one step. Without it, to stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print a JSON object about what was written
    #[arg(long, requires = "output")]
    json: bool,
}

const EXAMPLES: &str = "\
The page is made from web3-defaults.yaml and from blockhost.yaml (public_secret and the sections signup, plans and vm), and
has to be made again when they change. It needs no server code: put it on any web server, or give the file away. It asks the
chain's nodes named in it, which have to answer to browsers from anywhere (CORS), and the visitor's wallet.

Exit codes: 0 written; 1 failed, and an earlier page is as it was; 2 wrong usage.

Examples:
  blockhost-generate-signup --output /var/www/html/index.html
  blockhost-generate-signup --output signup.html --json
  blockhost-generate-signup | sha256sum        the same configuration gives the same bytes";

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Sizes(#[from] SizeError),
    #[error("{file}: blockchain.rpc_url: {problem}; set signup.rpc_urls in blockhost.yaml to endpoints for browsers", file = .file.display())]
    Endpoint { file: PathBuf, problem: String },
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{place}: {source}", place = .place.display())]
    PublicKey { place: PathBuf, source: CryptoError },
    #[error(
        "{place} does not hold the public key of {key}: nobody could decrypt what buyers send; enter the one that `bhcrypt derive-pubkey` prints", place = .place.display(), key = .key.display()
    )]
    OtherKey { place: PathBuf, key: PathBuf },
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Setup(error.into())
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
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail("blockhost-generate-signup", &e),
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let config = Config::load(&Layout::from_env())?;
    let public_secret =
        config
            .host
            .public_secret
            .as_deref()
            .ok_or_else(|| SetupError::Missing {
                file: Config::host_path(&config.layout),
                key: "public_secret",
                hint: "enter the text that buyers sign, and never change it: it is part of the key to their access details",
            })?;
    let endpoints = endpoints(&config)?;
    let server_key = server_key(&config)?;
    let page = signup::render(&Page {
        section: &config.host.signup,
        chain_id: config.web3.blockchain.chain_id,
        endpoints: &endpoints,
        subscriptions: config.subscription_contract()?,
        credentials: config.nft_contract()?,
        server_key: &server_key,
        public_secret,
        confirmations: config.confirmations(),
        sizes: &Sizes::load(&config.layout)?,
    });
    let Some(path) = &cli.output else {
        print_page(&page);
        return Ok(());
    };
    replace(path, &page).map_err(|source| Failure::Write {
        path: path.clone(),
        source,
    })?;
    report(cli, path, &page, &endpoints);
    Ok(())
}

fn report(cli: &Cli, path: &Path, page: &str, endpoints: &[Url]) {
    let digest = hex::encode(Sha256::digest(page));
    let shown: Vec<&str> = endpoints.iter().map(Url::as_str).collect();
    if cli.json {
        let object =
            json!({"path": path, "bytes": page.len(), "sha256": digest, "rpc_urls": shown});
        say!("{object}");
    } else {
        say!("{}: {} bytes, sha256 {digest}", path.display(), page.len());
        say!("everybody can read in it: {}", shown.join(", "));
    }
}

fn print_page(page: &str) {
    use std::io::Write;
    // A reader that leaves early is no error.
    let _ = std::io::stdout().lock().write_all(page.as_bytes());
}

/// What the page asks: its own endpoints, or those of the engine that browsers can use.
fn endpoints(config: &Config) -> Result<Vec<Url>, Failure> {
    let mut endpoints = config.host.signup.rpc_urls.clone();
    if endpoints.is_empty() {
        let urls = config.web3.blockchain.urls();
        let browsers = urls.iter().filter(|url| !url.starts_with("ws"));
        let checked: Result<_, _> = browsers.map(|url| signup_endpoint(url)).collect();
        endpoints = checked.map_err(|problem| Failure::Endpoint {
            file: Config::web3_path(&config.layout),
            problem,
        })?;
    }
    if endpoints.is_empty() {
        return Err(Failure::Setup(SetupError::Missing {
            file: Config::host_path(&config.layout),
            key: "signup.rpc_urls",
            hint: "name at least one http: or https: endpoint that answers to browsers",
        }));
    }
    for url in &endpoints {
        let near = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if near && config.web3.blockchain.chain_id != LOCAL_CHAIN_ID {
            warn(&format!(
                "{url} is each visitor's own machine; set signup.rpc_urls in blockhost.yaml"
            ));
        } else if !near && url.scheme() == "http" {
            warn(&format!(
                "{url} is not encrypted: a page that was loaded by https: may not ask it"
            ));
        }
    }
    Ok(endpoints)
}

fn warn(text: &str) {
    eprintln!("blockhost-generate-signup: warning: {text}");
}

/// The key that buyers encrypt to. A wrong one would take their money for nothing, so it is compared with the private
/// key where that can be read.
fn server_key(config: &Config) -> Result<PublicKey, Failure> {
    let (place, text) = match &config.web3.server_public_key {
        Some(text) if !text.trim().is_empty() => (Config::web3_path(&config.layout), text.clone()),
        _ => {
            let path = config.layout.etc().join("server.pubkey");
            let text = std::fs::read_to_string(&path).map_err(|source| Failure::Read {
                path: path.clone(),
                source,
            })?;
            (path, text)
        }
    };
    let stated = PublicKey::from_hex(text.trim()).map_err(|source| Failure::PublicKey {
        place: place.clone(),
        source,
    })?;
    match config.server_key() {
        Ok(key) if key.public_key() != stated => Err(Failure::OtherKey {
            place,
            key: config.server_key_path(),
        }),
        Ok(_) => Ok(stated),
        Err(e) => {
            warn(&format!(
                "the public key was not compared with the private one: {e}"
            ));
            Ok(stated)
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
