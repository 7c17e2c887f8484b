//! Money from end to end: real agent, real chain, the commands as operators type them. The agent makes the wallets and keeps
//! the address book, a customer's payment is shared out, and the ledger tells all of it.

use std::path::PathBuf;
use std::time::Duration;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::reader::Reader;
use blockhost_proto::action::Action;
use blockhost_proto::client::blocking::Client;
use blockhost_tests::command::RunError;
use blockhost_tests::customer::Wallet;
use blockhost_tests::namespace::test_ran_inside;
use blockhost_tests::scenario::{Contracts, deploy, owner};
use blockhost_tests::world::config::{RPC_URL, random_key};
use blockhost_tests::world::services::{Service, start_agent, start_chain};
use blockhost_tests::world::{AGENT_ONLY, World, WorldError, built_programs, possible};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(60);
const COMMANDS: &[&str] = &["ab", "bw", "is", "blockhost", "blockhost-deploy-contracts"];
const FIRST_PLAN: u64 = 1;
const DEV: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const BROKER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

struct Host {
    world: World,
    contracts: Contracts,
    operator: Wallet,
    _agent: Service,
    _chain: Service,
    _dir: tempfile::TempDir,
}

impl Host {
    fn open() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("blockhost-wallets-")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        let programs = [AGENT_ONLY, COMMANDS].concat();
        let world = World::create(dir.path(), &built_programs(), &programs).expect("a world");
        let chain = start_chain(&world).expect("the chain starts");
        let agent = start_agent(&world).expect("the agent starts");
        let operator = owner(&world).expect("the operator's key");
        let contracts = deploy(&world, &operator).expect("contracts");
        Self {
            world,
            contracts,
            operator,
            _agent: agent,
            _chain: chain,
            _dir: dir,
        }
    }

    /// Runs a command as `blockhost`, who has no privileges; its JSON.
    fn ok(&self, program: &str, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        let output = self.world.run(program, &args, SHORT);
        let output = output.unwrap_or_else(|e| panic!("{program} {args:?}: {e}"));
        serde_json::from_str(output.last_line()).expect("JSON")
    }

    /// Runs one that has to fail; what it said.
    fn fails(&self, program: &str, args: &[&str]) -> String {
        match self.world.run(program, args, SHORT) {
            Err(WorldError::Run(RunError::Failed { stderr, .. })) => stderr,
            Err(other) => panic!("{program} {args:?}: {other}"),
            Ok(output) => panic!("{program} {args:?} did not fail: {}", output.stdout),
        }
    }

    /// What somebody has of the stablecoin, in its smallest units.
    fn dollars(&self, who: &str) -> String {
        let said = self.ok("bw", &["balance", who, "stable"]);
        said["balances"][0]["units"]
            .as_str()
            .unwrap_or_else(|| panic!("{said}"))
            .to_owned()
    }

    fn records(&self) -> Vec<Value> {
        let directory = LedgerDir::open(&self.world.layout.ledger()).expect("the ledger");
        let reader = Reader::open(directory, None).expect("a readable ledger");
        reader
            .records(0)
            .map(|record| serde_json::from_slice(&record.expect("a record").1).expect("JSON"))
            .collect()
    }
}

#[test]
fn a_payment_is_shared_out_by_wallets_that_the_agent_made_and_the_ledger_tells_all_of_it() {
    const NAME: &str =
        "a_payment_is_shared_out_by_wallets_that_the_agent_made_and_the_ledger_tells_all_of_it";
    if let Err(reason) = possible(AGENT_ONLY.iter().chain(COMMANDS)) {
        println!("skipped: {reason}");
        return;
    }
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    if test_ran_inside(NAME, &init, LIMIT) {
        return;
    }
    let host = Host::open();
    let etc = host.world.layout.etc();
    let server = host.operator.address_text();
    let admin = Wallet::new(&random_key().to_bytes(), RPC_URL).expect("a wallet");
    let admin = admin.address_text();

    // The book and a wallet, both by the agent: the commands' user can write neither.
    host.ok("ab", &["--init", &admin, &server, DEV, BROKER]);
    let made = host.ok("ab", &["new", "savings"]);
    let savings = made["entry"]["address"]
        .as_str()
        .expect("an address")
        .to_owned();
    let key = std::fs::read_to_string(etc.join("savings.key")).expect("a key");
    let key = Wallet::new(&hex::decode(key.trim()).expect("hex"), RPC_URL).expect("a wallet");
    assert_eq!(key.address_text(), savings, "the key is the address's");
    let said = host.fails("ab", &["new", "savings"]);
    assert!(said.contains("savings"), "{said}");

    // Who is paid does not change by anybody but root, not even asking the agent directly.
    host.fails("ab", &["up", "admin", DEV]);
    let book = std::fs::read_to_string(etc.join("addressbook.json")).expect("a book");
    let mut stolen: Value = serde_json::from_str(&book).expect("JSON");
    stolen["admin"]["address"] = json!(DEV);
    let params = json!({"entries": stolen}).to_string();
    let said = host.fails("blockhost", &["agent", "call", "addressbook-save", &params]);
    assert!(said.contains("admin"), "{said}");
    let now = std::fs::read_to_string(etc.join("addressbook.json")).expect("a book");
    assert_eq!(now, book, "nothing changed");

    // A payment by hand.
    let stable = host.contracts.stablecoin;
    let server_address = host.operator.address();
    host.operator
        .mint_tokens(stable, server_address, 100_000_000)
        .expect("minted");
    let sent = host.ok("bw", &["send", "12.5", "stable", "server", "savings"]);
    assert_eq!(sent["steps"][0]["state"], "done", "{sent}");
    assert_eq!(host.dollars("savings"), "12500000");

    // A customer pays 200 dollars; a round shares them out.
    host.ok("bw", &["plan", "create", "small", "200"]);
    let customer = Wallet::new(&random_key().to_bytes(), RPC_URL).expect("a wallet");
    host.operator
        .give_ether(customer.address(), 10)
        .expect("ether");
    customer
        .mint_tokens(stable, customer.address(), 200_000_000)
        .expect("minted");
    let subscriptions = host.contracts.subscriptions;
    customer
        .buy(subscriptions, stable, FIRST_PLAN, 100, vec![0x42; 200])
        .expect("bought");
    let shares = json!({"enabled": true, "total_percent": 3.5, "recipients": [
        {"role": "dev", "percent": 1}, {"role": "broker", "bps": 250}]});
    std::fs::write(etc.join("revenue-share.json"), shares.to_string()).expect("written");
    host.ok("blockhost", &["funds", "run"]);
    // The server has 87.50 and its buffer of 50 already.
    assert_eq!(
        [
            host.dollars(DEV),
            host.dollars(BROKER),
            host.dollars("admin"),
            host.dollars("hot")
        ],
        ["2000000", "5000000", "193000000", "0"]
    );
    assert_eq!(host.dollars("server"), "87500000");
    assert!(
        etc.join("hot.key").is_file(),
        "the agent made the hot wallet"
    );

    // Every movement is on record with its transaction, every change of keys and book by the action that made it.
    let records = host.records();
    let count = |action: &str| {
        let done = |record: &&Value| record["action"] == action && record["phase"] == "outcome";
        records.iter().filter(done).count()
    };
    assert!(count("generate-wallet") >= 2, "savings and hot");
    assert!(count("addressbook-save") >= 1);
    let text = records.iter().map(Value::to_string).collect::<String>();
    let transaction = sent["steps"][0]["tx"].as_str().expect("a hash");
    assert!(text.contains(transaction), "the payment is in the ledger");
    for secret in ["savings.key", "hot.key", "deployer.key"] {
        let key = std::fs::read_to_string(etc.join(secret)).expect("a key");
        assert!(!text.contains(key.trim()), "the ledger holds {secret}");
    }
    host.world
        .run("blockhost", &["ledger", "verify"], SHORT)
        .expect("the ledger is whole");

    // Questions whose answer is an exit code.
    let nft = host.contracts.nft.to_string();
    host.ok("is", &["contract", &nft]);
    host.fails("is", &["contract", &savings]);
    let orders = host.ok("blockhost", &["funds", "status"]);
    assert!(orders.to_string().contains(transaction), "{orders}");

    // The agent is there and well after all this.
    let mut client = Client::connect_layout(&host.world.layout).expect("the agent accepts");
    let info = Action::from_parts("agent-info", &json!({})).expect("valid");
    client.call(&info).expect("it answers");
}
