//! A host with money: the world's, an address book, and a real Uniswap V2 (factory, pair, router, wrapped coin) from the
//! published npm packages.
#![allow(
    clippy::too_many_arguments,
    reason = "generated from what Uniswap's router takes"
)]

use super::world::World;
use super::{KEYS, address, contracts_dir, done, program};
use alloy::network::TransactionBuilder;
use alloy::primitives::{Address, U256};
use alloy::providers::{DynProvider, Provider};
use alloy::rpc::types::TransactionRequest;
use alloy::sol;
use alloy::sol_types::SolValue;
use blockhost_engine::chain::bindings::{BlockhostSubscriptions, IERC20, MockUSD};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

sol! {
    #[sol(rpc)]
    interface Factory {
        function createPair(address a, address b) external returns (address pair);
        function getPair(address a, address b) external view returns (address pair);
    }

    #[sol(rpc)]
    interface Router {
        function addLiquidityETH(address token, uint256 amount, uint256 leastToken, uint256 leastEth, address to, uint256 deadline) external payable;
        function addLiquidity(address a, address b, uint256 amountA, uint256 amountB, uint256 leastA, uint256 leastB, address to, uint256 deadline) external;
        function swapExactTokensForETH(uint256 amountIn, uint256 amountOutMin, address[] calldata path, address to, uint256 deadline) external;
    }
}

/// Who gets the rest.
pub const ADMIN: Address = Address::repeat_byte(0xad);
/// Somebody with a share.
pub const DEV: Address = Address::repeat_byte(0xde);
/// Somebody else with a share.
pub const BROKER: Address = Address::repeat_byte(0xb0);
/// One whole coin of the chain.
pub const ETH: U256 = U256::from_limbs([1_000_000_000_000_000_000, 0, 0, 0]);
const NEVER: U256 = U256::from_limbs([u64::MAX, 0, 0, 0]);

/// The host.
pub struct Bank {
    pub world: World,
    pub factory: Address,
    pub router: Address,
    pub weth: Address,
}

/// Millions of a dollar coin's base units.
pub fn usd(dollars: u64) -> U256 {
    U256::from(dollars) * U256::from(1_000_000)
}

impl Bank {
    /// Makes one, or says why the test is skipped. One coin of the chain costs 2000 dollars.
    pub async fn new() -> Option<Self> {
        if !contracts_dir().join("node_modules/@uniswap").exists() {
            eprintln!("skipped: no Uniswap; run `npm ci` in engine/contracts");
            return None;
        }
        let world = World::new().await?;
        let maker = world.anvil.account(2);
        let factory = deploy(
            &maker,
            "v2-core",
            "UniswapV2Factory",
            address(2).abi_encode(),
        )
        .await;
        let weth = deploy(&maker, "v2-periphery", "WETH9", Vec::new()).await;
        let router = deploy(
            &maker,
            "v2-periphery",
            "UniswapV2Router02",
            (factory, weth).abi_encode(),
        )
        .await;
        let bank = Self {
            world,
            factory,
            router,
            weth,
        };
        bank.mint(bank.world.usd, address(2), usd(10_000_000)).await;
        bank.approve(bank.world.usd).await;
        done(
            Router::new(router, bank.maker())
                .addLiquidityETH(
                    bank.world.usd,
                    usd(20_000),
                    U256::ZERO,
                    U256::ZERO,
                    address(2),
                    NEVER,
                )
                .value(U256::from(10) * ETH)
                .send(),
        )
        .await;
        bank.write_book(json!({
            "admin": {"address": ADMIN.to_string()},
            "server": {"address": address(0).to_string(), "keyfile": "/etc/blockhost/deployer.key"},
            "dev": {"address": DEV.to_string()},
            "broker": {"address": BROKER.to_string()},
        }));
        let path = bank.world.layout.etc().join("web3-defaults.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{text}uniswap: {{router: '{router}'}}\n")).unwrap();
        Some(bank)
    }

    /// A fresh provider of the one who made the market: the others send from their accounts, too, and it remembers nonces.
    pub fn maker(&self) -> DynProvider {
        self.world.anvil.account(2)
    }

    /// Lets the router take all of a token of the market's maker.
    pub async fn approve(&self, token: Address) {
        let token = IERC20::new(token, self.maker());
        done(token.approve(self.router, U256::MAX).send()).await;
    }

    /// Prints a token of the tests.
    pub async fn mint(&self, token: Address, to: Address, amount: U256) {
        let token = MockUSD::new(token, self.maker());
        done(token.mint(to, amount).send()).await;
    }

    /// A second token that customers pay with, at this many dollars each, with a real pair.
    pub async fn second_token(&self, decimals: u8, dollars: u64) -> Address {
        let maker = self.maker();
        let token = *MockUSD::deploy(maker.clone(), "TKN".into(), "TKN".into(), decimals)
            .await
            .unwrap()
            .address();
        let one = U256::from(10).pow(U256::from(decimals));
        self.mint(token, address(2), U256::from(100_000) * one)
            .await;
        self.approve(token).await;
        done(
            Router::new(self.router, self.maker())
                .addLiquidity(
                    token,
                    self.world.usd,
                    U256::from(1000) * one,
                    usd(1000 * dollars),
                    U256::ZERO,
                    U256::ZERO,
                    address(2),
                    NEVER,
                )
                .send(),
        )
        .await;
        let pair = Factory::new(self.factory, self.maker())
            .getPair(token, self.world.usd)
            .call()
            .await
            .unwrap();
        let pos = BlockhostSubscriptions::new(self.world.pos, self.world.anvil.account(0));
        done(pos.addPaymentMethod(token, pair, self.world.usd).send()).await;
        token
    }

    /// Somebody sells dollars for the chain's coin, and makes it dearer with that.
    pub async fn push_price(&self, dollars: u64) {
        done(
            Router::new(self.router, self.maker())
                .swapExactTokensForETH(
                    usd(dollars),
                    U256::ZERO,
                    vec![self.world.usd, self.weth],
                    address(2),
                    NEVER,
                )
                .send(),
        )
        .await;
    }

    /// The address book, as it is to be.
    pub fn write_book(&self, book: Value) {
        std::fs::write(self.world.layout.addressbook(), book.to_string()).unwrap();
    }

    /// The address book, as it is.
    pub fn book(&self) -> Value {
        let text = std::fs::read_to_string(self.world.layout.addressbook()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The hot wallet's address.
    pub fn hot(&self) -> Address {
        self.book()["hot"]["address"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Gives the host a hot wallet with a known key.
    pub fn make_hot(&self, account: usize) {
        let mut book = self.book();
        book["hot"] = json!({"address": address(account).to_string(), "keyfile": "hot.key"});
        self.write_book(book);
        std::fs::write(self.world.layout.etc().join("hot.key"), KEYS[account]).unwrap();
    }

    /// Who gets which part.
    pub fn share(&self, text: &str) {
        std::fs::write(self.world.layout.etc().join("revenue-share.json"), text).unwrap();
    }

    /// What somebody has of a token.
    pub async fn has(&self, token: Address, owner: Address) -> U256 {
        IERC20::new(token, self.maker())
            .balanceOf(owner)
            .call()
            .await
            .unwrap()
    }

    /// What somebody has of the chain's coin.
    pub async fn eth(&self, owner: Address) -> U256 {
        self.maker().get_balance(owner).await.unwrap()
    }

    /// How many transactions of an account are in blocks.
    pub async fn sent(&self, owner: Address) -> u64 {
        self.maker().get_transaction_count(owner).await.unwrap()
    }

    /// Sets what somebody has of the chain's coin.
    pub async fn set_eth(&self, owner: Address, wei: U256) {
        let params = json!([owner.to_string(), format!("{wei:#x}")]);
        self.world.anvil.ask("anvil_setBalance", params).await;
    }

    /// One of the programs, in this world.
    pub fn command(&self, path: &str, args: &[&str]) -> Command {
        let mut command = program(path);
        command
            .args(args)
            .env("BLOCKHOST_ROOT", self.world.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs one of them.
    pub fn run(&self, path: &str, args: &[&str]) -> Output {
        self.command(path, args).output().unwrap()
    }

    /// Starts one that stops at a fail point, and gives it when it has; `None` when it ended instead.
    pub fn stopped_at(&self, path: &str, args: &[&str], point: &str) -> Option<Stopped> {
        let mut child = self
            .command(path, args)
            .env("BLOCKHOST_FAIL_POINT", point)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if line.contains("blockhost fail point") {
                return Some(Stopped(child));
            }
        }
        let _ = child.wait();
        None
    }

    /// Forgets what was ordered and signed: a test goes back in time with its chain.
    pub fn forget(&self) {
        for name in ["outbox.db", "outbox.db-wal", "outbox.db-shm"] {
            let _ = std::fs::remove_file(self.world.layout.state().join(name));
        }
    }
}

/// A program at its fail point; dropping it is kill -9.
pub struct Stopped(Child);

impl Stopped {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Stdout of a program that succeeded, as JSON.
pub fn answer(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{:?}\n{text}\n{}",
        output.status,
        std::str::from_utf8(&output.stderr).unwrap()
    );
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// What a program complained.
pub fn complaint(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

async fn deploy(by: &DynProvider, package: &str, name: &str, arguments: Vec<u8>) -> Address {
    let path = contracts_dir().join(format!("node_modules/@uniswap/{package}/build/{name}.json"));
    let artifact: Value = serde_json::from_str(&read(&path)).unwrap();
    let code = artifact["bytecode"].as_str().unwrap();
    let code = hex::decode(code.trim_start_matches("0x")).unwrap();
    let request = TransactionRequest::default().with_deploy_code([code, arguments].concat());
    let receipt = done(by.send_transaction(request)).await;
    receipt.contract_address.unwrap()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
