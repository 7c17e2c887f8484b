//! What the tests here share: a local chain on a free port, its accounts, and contracts on it. Every chain ends with its
//! test.
#![allow(dead_code, reason = "each test target uses its part")]

pub mod bank;
pub mod liar;
pub mod tap;
pub mod world;

use alloy::network::{Ethereum, EthereumWallet};
use alloy::primitives::{Address, B256};
use alloy::providers::{DynProvider, PendingTransactionBuilder, Provider, ProviderBuilder};
use alloy::rpc::types::TransactionReceipt;
use blockhost_engine::chain::Chain;
use blockhost_engine::chain::tx::Wallet;
use blockhost_engine::crypto::keys::PrivateKey;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Private keys of the accounts that every local chain starts with.
pub const KEYS: [&str; 3] = [
    "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
];

/// A program to start. Tests start real ones.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where tests start programs"
)]
pub fn program(path: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(path)
}

/// A port for a program that has to be told one: below those that the kernel gives away, so that nobody gets it who asks for
/// any, and another one for each process and each call.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let own = u16::try_from(std::process::id() % 1000).unwrap() * 20;
        let port = 10_000 + own + NEXT.fetch_add(1, Ordering::Relaxed) % 20;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Puts a script into a place. Another process writes it: a descriptor of ours would be in whatever another thread starts
/// meanwhile, until that is another program, and nobody runs a file that is open for writing.
pub fn install_script(text: &str, to: &Path) {
    let draft = to.with_extension("draft");
    std::fs::write(&draft, text).unwrap();
    let mut install = program("install");
    let installed = install
        .args(["--mode=755", "--"])
        .arg(&draft)
        .arg(to)
        .status();
    assert!(installed.unwrap().success(), "{}", to.display());
    std::fs::remove_file(&draft).unwrap();
}

/// A local chain.
pub struct Anvil {
    child: Child,
    pub port: u16,
    pub url: String,
}

impl Anvil {
    /// Starts one, or says why the test is skipped.
    pub fn start(args: &[&str]) -> Option<Self> {
        let Some(path) = find() else {
            eprintln!("skipped: no anvil; run `npm ci` in engine/contracts or set BLOCKHOST_ANVIL");
            return None;
        };
        let mut child = program(&path)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", path.display()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.strip_prefix("Listening on 127.0.0.1:")?
                    .trim()
                    .parse()
                    .ok()
            })
            .expect("anvil says where it listens");
        // It must never block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self {
            child,
            port,
            url: format!("http://127.0.0.1:{port}"),
        })
    }

    /// Our own face of it.
    pub fn chain(&self) -> Chain {
        Chain::new(
            31337,
            std::slice::from_ref(&self.url),
            Duration::from_secs(60),
        )
        .unwrap()
    }

    /// A provider that signs and sends for one of the accounts.
    pub fn account(&self, number: usize) -> DynProvider {
        let signer: alloy::signers::local::PrivateKeySigner = KEYS[number].parse().unwrap();
        ProviderBuilder::new()
            .wallet(EthereumWallet::from(signer))
            .connect_reqwest(client(), self.url.parse().unwrap())
            .erased()
    }

    /// One raw request.
    pub async fn ask(&self, method: &'static str, params: serde_json::Value) -> serde_json::Value {
        self.account(0)
            .raw_request(method.into(), params)
            .await
            .unwrap_or_else(|e| panic!("{method}: {e}"))
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client() -> reqwest::Client {
    // Installs the TLS provider that every client needs.
    drop(Chain::new(
        1,
        &["http://127.0.0.1:1".into()],
        Duration::from_secs(1),
    ));
    reqwest::Client::new()
}

/// One of the accounts, for our own calls.
pub fn wallet(number: usize) -> Wallet {
    Wallet::new(&PrivateKey::from_hex(KEYS[number]).unwrap())
}

/// Address of one of the accounts.
pub fn address(number: usize) -> Address {
    wallet(number).address()
}

/// Repository's directory of the contracts.
pub fn contracts_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contracts")
}

fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("BLOCKHOST_ANVIL") {
        return Some(path.into());
    }
    let packages = contracts_dir().join("node_modules/@foundry-rs");
    ["anvil-linux-amd64", "anvil-linux-arm64"]
        .iter()
        .map(|name| packages.join(name).join("bin/anvil"))
        .find(|path| path.exists())
}

/// Init code of a test contract, from its artifact.
pub fn bytecode(name: &str) -> Vec<u8> {
    let text =
        std::fs::read_to_string(contracts_dir().join(format!("artifacts/{name}.json"))).unwrap();
    let artifact: serde_json::Value = serde_json::from_str(&text).unwrap();
    hex::decode(
        artifact["bytecode"]
            .as_str()
            .unwrap()
            .trim_start_matches("0x"),
    )
    .unwrap()
}

/// Waits until what was sent is in a block, and did what it should.
pub async fn done<E: std::fmt::Debug>(
    sending: impl Future<Output = Result<PendingTransactionBuilder<Ethereum>, E>>,
) -> TransactionReceipt {
    let receipt = sending.await.unwrap().get_receipt().await.unwrap();
    assert!(receipt.status(), "{receipt:?}");
    receipt
}

/// Left-padded topic of an address.
pub fn topic(address: Address) -> B256 {
    B256::left_padding_from(address.as_slice())
}
