//! The signup page as visitors get it: made by `blockhost-generate-signup` from a host's configuration, opened from a file
//! in a real browser, against a real chain with the contracts that `blockhost-deploy-contracts` put there. The scenarios
//! are in `engine/signup/test`; what the page encrypted and what it opened is the engine's own (`bhcrypt`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use blockhost_tests::command::{Output, RunError, command, run, with_args};
use blockhost_tests::customer::Wallet;
use blockhost_tests::namespace::{find, test_ran_inside};
use blockhost_tests::scenario::{Contracts, deploy, owner};
use blockhost_tests::world::config::{PUBLIC_SECRET, RPC_URL};
use blockhost_tests::world::services::{Service, start_chain_for_browsers};
use blockhost_tests::world::{World, built_programs, repository};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(60);
const NEEDED: &[&str] = &[
    "blockhost-deploy-contracts",
    "blockhost-mint-nft",
    "blockhost-generate-signup",
    "bhcrypt",
];
const OWNER: [u8; 32] = [0x42; 32];

fn sources() -> PathBuf {
    repository().join("engine/signup")
}

/// Why something cannot be tried here, or the programs that it needs.
fn possible(browser: bool) -> Result<PathBuf, String> {
    let missing = |what: &str| format!("{what}; run: bash scripts/setup.sh");
    let node = find("node").ok_or_else(|| missing("node is not installed"))?;
    if !sources()
        .join("node_modules/playwright-core/package.json")
        .is_file()
    {
        return Err(missing(
            "the npm packages of engine/signup are not installed",
        ));
    }
    if browser && find("chromium").is_none() {
        return Err(missing("Chromium is not installed"));
    }
    Ok(node)
}

fn must(what: &str, result: Result<Output, RunError>) -> Output {
    match result {
        Ok(output) => output,
        Err(RunError::Failed { stdout, stderr, .. }) => panic!("{what}:\n{stdout}\n{stderr}"),
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn the_committed_page_is_what_its_sources_give_and_fits_the_contracts() {
    let node = match possible(false) {
        Ok(node) => node,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let mut types = command(&node);
    types
        .args(["node_modules/typescript/bin/tsc", "-p", "."])
        .current_dir(sources());
    must("the types", run(types, LIMIT));
    let mut build = command(&node);
    build.args(["build.mjs", "--check"]).current_dir(sources());
    must("the bundle", run(build, LIMIT));
}

#[test]
fn the_pages_bytes_are_those_of_other_implementations_and_its_words_are_right() {
    let node = match possible(false) {
        Ok(node) => node,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let mut tests = command(&node);
    tests
        .args(["--test", "--test-reporter=tap", "test/unit.test.mjs"])
        .current_dir(sources());
    let output = must("the parts", run(tests, LIMIT));
    assert!(output.stdout.contains("# pass 8"), "{}", output.stdout);
}

/// A host with contracts and three tokens of one owner: access details, somebody else's, and hostile ones.
struct Host {
    world: World,
    contracts: Contracts,
}

impl Host {
    fn open(dir: &Path) -> (Self, Service) {
        let world = World::create(dir, &built_programs(), NEEDED).expect("a world");
        let chain = start_chain_for_browsers(&world).expect("the chain starts");
        let operator = owner(&world).expect("the operator's key");
        let contracts = deploy(&world, &operator).expect("contracts");
        let section = "signup:\n  title: Northwind Machines\n  chain_name: Local test chain\n  terms_url: 'https://northwind.example/terms'\n  contact: 'mailto:help@northwind.example'\n";
        append(&world.layout.etc().join("blockhost.yaml"), section);
        let sizes = "plans:\n  4: {cores: 4, memory_mb: 6500, disk_gb: 80}\n";
        append(&world.layout.etc().join("blockhost.yaml"), sizes);
        let host = Self { world, contracts };
        (host, chain)
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.world.run(program, args, SHORT);
        output.expect(program).stdout
    }

    /// The page under this name, and what the command says about it.
    fn page(&self, name: &str) -> String {
        let path = self.world.layout.state().join(name);
        let file = path.display().to_string();
        let said = self.run("blockhost-generate-signup", &["--output", &file, "--json"]);
        let said: Value = serde_json::from_str(&said).expect("JSON");
        let page = std::fs::read(&path).expect("a page");
        assert_eq!(said["bytes"], page.len());
        assert_eq!(said["rpc_urls"], json!([format!("{RPC_URL}/")]));
        assert_eq!(
            self.run("blockhost-generate-signup", &[]).into_bytes(),
            page,
            "the same configuration gives the same bytes"
        );
        format!("file://{file}")
    }

    /// Mints what the engine's own code encrypts.
    fn mint(&self, owner: &Wallet, signature: &str, details: &Value) {
        let plain = details.to_string();
        let words = [
            "encrypt-symmetric",
            "--signature",
            signature,
            "--plaintext",
            &plain,
        ];
        let sealed = self.run("bhcrypt", &words);
        let address = owner.address_text();
        let words = [
            "--owner-wallet",
            &address,
            "--user-encrypted",
            sealed.trim(),
        ];
        self.run("blockhost-mint-nft", &words);
    }
}

fn append(path: &Path, more: &str) {
    let text = std::fs::read_to_string(path).expect("readable");
    std::fs::write(path, text + more).expect("written");
}

fn wallet(key: &[u8]) -> Wallet {
    let wallet = Wallet::new(key, RPC_URL).expect("a wallet");
    wallet.give_ether(wallet.address(), 100).expect("ether");
    wallet
}

fn signature(wallet: &Wallet) -> String {
    format!(
        "0x{}",
        hex::encode(wallet.sign(PUBLIC_SECRET).expect("signed"))
    )
}

#[test]
fn somebody_buys_extends_and_opens_a_machine_in_a_real_browser_and_everything_that_fails_is_said() {
    const NAME: &str = "somebody_buys_extends_and_opens_a_machine_in_a_real_browser_and_everything_that_fails_is_said";
    let node = match possible(true) {
        Ok(node) => node,
        Err(reason) => return println!("skipped: {reason}"),
    };
    if let Some(program) = NEEDED.iter().find(|p| !built_programs().join(p).is_file()) {
        return println!("skipped: {program} is not built; run: cargo build --workspace --bins");
    }
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    if test_ran_inside(NAME, &init, LIMIT + SHORT) {
        return;
    }
    let dir = tempfile::Builder::new()
        .prefix("blockhost-signup-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let (host, _chain) = Host::open(dir.path());

    let page = host.page("signup.html");
    let web3 = host.world.layout.etc().join("web3-defaults.yaml");
    let text = std::fs::read_to_string(&web3).expect("readable");
    let waiting = text.replacen("blockchain:\n", "blockchain:\n  confirmations: 2\n", 1);
    std::fs::write(&web3, waiting).expect("written");
    let confirming_page = host.page("confirming.html");

    let owner = wallet(&OWNER);
    let own = signature(&owner);
    let access = json!({"hostname": "fd77:b10c::2", "port": 2222, "username": "admin"});
    host.mint(&owner, &own, &access);
    host.mint(&owner, &format!("0x{}", "11".repeat(65)), &access);
    let hostile = "-oProxyCommand=<img src=x onerror=alert(1)>";
    let hostile = json!({"hostname": hostile, "port": 22, "username": "admin"});
    host.mint(&owner, &own, &hostile);

    // Where somebody wants to look at the pictures.
    let pictures = std::env::var_os("BLOCKHOST_SIGNUP_PICTURES")
        .map_or_else(|| dir.path().join("pictures"), PathBuf::from);
    std::fs::create_dir_all(&pictures).expect("a directory");
    let operator_key = std::fs::read_to_string(host.world.layout.etc().join("deployer.key"));
    let operator_key = operator_key.expect("a key");
    let world = json!({
        "page": page,
        "confirming_page": confirming_page,
        "rpc": format!("{RPC_URL}/"),
        "operator_key": operator_key.trim(),
        "owner_key": hex::encode(OWNER),
        "subscriptions": host.contracts.subscriptions.to_string(),
        "nft": host.contracts.nft.to_string(),
        "stablecoin": host.contracts.stablecoin.to_string(),
        "pictures": pictures,
        "chromium": find("chromium"),
    });
    let file = dir.path().join("world.json");
    std::fs::write(&file, world.to_string()).expect("written");
    let script = sources().join("test/browser.mjs").display().to_string();
    let file = file.display().to_string();
    // Part of a scenario's name, for who works on it.
    let only = std::env::var("BLOCKHOST_SIGNUP_ONLY").unwrap_or_default();
    let mut browser = with_args(&node.display().to_string(), &[&script, &file, &only]);
    // The browser leaves what it keeps there, and it goes with the rest.
    browser.env("HOME", dir.path()).env("TMPDIR", dir.path());
    let output = must("the browser", run(browser, LIMIT));
    println!("{}", output.stdout);
    let bought: Value = serde_json::from_str(output.last_line()).expect("JSON");
    if !only.is_empty() {
        return;
    }

    let buyer = bought["buyerKey"].as_str().expect("a key");
    let buyer = wallet(&hex::decode(buyer).expect("hex"));
    let key = host.world.layout.etc().join("server.key");
    let words = [
        "decrypt",
        "--private-key-file",
        &key.display().to_string(),
        "--ciphertext",
        bought["userEncrypted"].as_str().expect("a ciphertext"),
    ];
    assert_eq!(
        host.run("bhcrypt", &words),
        signature(&buyer),
        "the engine reads what the page encrypted"
    );
}
