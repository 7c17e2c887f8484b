//! The engine beside its chain: how long the past takes to read, and what a rush costs. A real local chain, the real agent
//! with its ledger, the real provisioner with `--mock`: there is no machine behind its records, everything else is as always.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::primitives::{Address, U256};
use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use alloy::rpc::types::Filter;
use alloy::sol;
use alloy::sol_types::SolCall;
use blockhost_engine::chain::Chain;
use blockhost_engine::monitor::{Monitor, Start};
use blockhost_engine::outbox::{JobState, Outbox};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::row::{Results, Row};
use crate::command::install_script;
use crate::namespace;
use crate::scenario::{CENTS_PER_DAY, Contracts, ScenarioError, deploy, ensure, owner};
use crate::world::config::{self, CHAIN_ID, Deployed, RPC_URL};
use crate::world::services::{Service, start_agent, start_anvil, start_engine};
use crate::world::{AGENT_ONLY, World, at, built_programs};

sol! {
    interface Calls {
        function approve(address spender, uint256 amount);
        function mint(address to, uint256 amount);
        function buySubscription(uint256 planId, uint256 numDays, uint256 paymentMethodId, bytes userEncrypted);
        function extendSubscription(uint256 subscriptionId, uint256 numDays, uint256 paymentMethodId);
    }
}

/// Events of the past.
const PAST: u64 = 10_000;
/// Promised in docs/specification.md, in seconds.
const PAST_LIMIT_S: f64 = 30.0;
/// Of them in one block, with empty blocks behind it: the past is as long as it has events.
const PAST_IN_A_BLOCK: u64 = 5;
/// Blocks in one request for logs, the engine's default.
const RANGE: u64 = 2000;
/// Subscriptions that are bought in one block; each is extended in the same block.
const RUSH: u64 = 1000;
/// What the engine may take at most for that, in MiB.
const RUSH_MEMORY: f64 = 64.0;
const RUSH_LIMIT: Duration = Duration::from_secs(1800);
/// The local chain's first account, which it signs for.
const CUSTOMER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
/// More gas than any of these calls takes, and a thousand of them in a block.
const GAS: u64 = 600_000;
const BLOCK_GAS: &str = "3000000000";

/// Measures everything, in one private world that is gone afterwards.
pub(super) fn measure(dir: &Path) -> Result<Results, ScenarioError> {
    namespace::prepare().map_err(|error| ScenarioError::Wrong(error.to_string()))?;
    let programs = [
        AGENT_ONLY,
        &[
            "blockhost",
            "blockhost-engine",
            "blockhost-deploy-contracts",
            "blockhost-vm-create",
        ],
    ]
    .concat();
    let world = World::create(dir, &built_programs(), &programs)?;
    world.network()?;
    provision_nothing(&world)?;
    let mut chain = start_anvil(&world, &["--no-cors", "--gas-limit", BLOCK_GAS])?;
    let mut agent = start_agent(&world)?;
    let operator = owner(&world)?;
    let contracts = deploy(&world, &operator)?;
    let plan = operator.make_plan(contracts.subscriptions, "small", CENTS_PER_DAY)?;
    let customer = Customer::new(&contracts, plan)?;

    let mut rows = past(&world, &contracts, &customer)?;
    let block = customer.head()? + 1;
    let deployed = Deployed {
        nft: contracts.nft.to_string(),
        subscriptions: contracts.subscriptions.to_string(),
        stablecoin: contracts.stablecoin.to_string(),
        block,
    };
    config::write_chain(&world, Some(&deployed), &operator.address_text())?;
    let path = world.layout.etc().join("blockhost.yaml");
    let text = at("reading", &path, fs::read_to_string(&path))?;
    let text = format!("{text}engine: {{workers: 8}}\nfund_manager: {{enabled: false}}\n");
    at("writing", &path, fs::write(&path, text))?;
    rows.extend(rush(&world, &contracts, &customer)?);
    agent.stop(Duration::from_secs(45))?;
    chain.kill();
    world.remove()?;
    Ok(Results {
        rows,
        not_run: Vec::new(),
    })
}

/// A provisioner that only writes records, and pools that are wide enough for a rush.
fn provision_nothing(world: &World) -> Result<(), ScenarioError> {
    let create = world.bin.join("bench-create");
    let real = world.bin.join("blockhost-vm-create");
    let text = format!("#!/bin/sh\nexec '{}' --mock \"$@\"\n", real.display());
    at("installing", &create, install_script(&text, &create))?;
    let path = world.layout.provisioner_manifest();
    let text = at("reading", &path, fs::read_to_string(&path))?;
    let mut manifest: Value =
        serde_json::from_str(&text).map_err(|e| ScenarioError::Wrong(e.to_string()))?;
    manifest["commands"]["create"] = create.display().to_string().into();
    manifest["commands"]["update-gecos"] = "/usr/bin/true".into();
    at("writing", &path, fs::write(&path, manifest.to_string()))?;
    let pools = "db_file: /var/lib/blockhost/vms.json\nvmid_range: {start: 100, end: 9999}\n\
        ip_pool: {network: '10.64.0.0/16', start: '10.64.1.0', end: '10.64.99.255', gateway: '10.64.0.1'}\n\
        ipv6_pool: {start: 2, end: 9000}\ndefault_expiry_days: 30\n";
    let path = world.layout.etc().join("db.yaml");
    Ok(at("writing", &path, fs::write(&path, pools))?)
}

/// The events of the past into the outbox, beside merely asking the same node for them.
fn past(
    world: &World,
    contracts: &Contracts,
    customer: &Customer,
) -> Result<Vec<Row>, ScenarioError> {
    // Blocks are made here and not by the node: one that makes a block for each transaction leaves some behind when they
    // come fast, until the next one.
    customer.hold_blocks()?;
    customer.prepare()?;
    customer.buy(1)?;
    customer.wait_for_all()?;
    for _ in 0..PAST / PAST_IN_A_BLOCK {
        for _ in 0..PAST_IN_A_BLOCK {
            customer.extend(1)?;
        }
        customer.mine(PAST_IN_A_BLOCK)?;
    }
    customer.wait_for_all()?;
    let head = customer.head()?;
    let dir = at(
        "making a place",
        &world.dir,
        tempfile::tempdir_in(&world.dir),
    )?;
    let outbox = Outbox::open(&dir.path().join("outbox.db")).map_err(wrong)?;
    let outbox = Arc::new(outbox);
    let contract = contracts.subscriptions;
    let mut monitor = Monitor::new(contract, 0, Start::Deployment, RANGE, outbox.clone());
    let urls = [RPC_URL.to_owned()];
    let chain = Chain::new(CHAIN_ID, &urls, Duration::from_secs(60)).map_err(wrong)?;
    let begun = Instant::now();
    let taken: usize = customer.runtime.block_on(async {
        let mut taken = 0;
        loop {
            let progress = monitor.look(&chain).await.map_err(wrong)?;
            taken += progress.new_jobs;
            if progress.caught_up {
                return Ok::<_, ScenarioError>(taken);
            }
        }
    })?;
    let ours = begun.elapsed();
    let expected = usize::try_from(PAST + 1).unwrap_or(usize::MAX);
    ensure(taken >= expected, || {
        format!("{taken} of {expected} events of the past were read")
    })?;
    let begun = Instant::now();
    let mut found = 0;
    let mut from = 0;
    while from <= head {
        let to = head.min(from + RANGE - 1);
        let filter = Filter::new()
            .address(contract)
            .from_block(from)
            .to_block(to);
        let logs = customer
            .runtime
            .block_on(customer.node.get_logs(&filter))
            .map_err(wrong)?;
        found += logs.len();
        from = to + 1;
    }
    let theirs = begun.elapsed();
    // A contract says more than what makes jobs.
    ensure(found >= taken, || {
        format!("the node has {found} events, {taken} were read")
    })?;
    Ok(vec![
        Row::seconds("10 000 events of the past, each a durable job", ours)
            .at_most(PAST_LIMIT_S)
            .beside_value("eth_getLogs", theirs.as_secs_f64()),
    ])
}

/// Everybody buys at once.
fn rush(
    world: &World,
    contracts: &Contracts,
    customer: &Customer,
) -> Result<Vec<Row>, ScenarioError> {
    let first = 2;
    customer.hold_blocks()?;
    for _ in 0..RUSH {
        customer.buy(30)?;
    }
    for id in first..first + RUSH {
        customer.extend(id)?;
    }
    customer.mine(1)?;
    customer.nothing_waits()?;
    // From here on as on a real chain, and faster: a block a second, with whatever waits for one.
    customer.blocks_every_second()?;
    let begun = Instant::now();
    let mut engine = start_engine(world)?;
    let path = Outbox::path(&world.layout);
    let done = |state| {
        Outbox::open_beside(&path)
            .and_then(|outbox| outbox.counts())
            .map_or(0, |counts| {
                let found = counts.by_state.iter().find(|(found, _)| *found == state);
                found.map_or(0, |(_, n)| *n)
            })
    };
    engine.wait_until("every job done", RUSH_LIMIT, || {
        done(JobState::Done) + done(JobState::Parked) >= 2 * RUSH
    })?;
    let took = begun.elapsed();
    let memory = peak(&engine);
    engine.stop(Duration::from_secs(30))?;
    in_order(world, customer, contracts, first)?;
    Ok(vec![
        Row::seconds(
            "1 000 subscriptions bought and extended in one block: all done",
            took,
        ),
        Row::size("the same: the engine's memory at its peak", memory).at_most(RUSH_MEMORY),
    ])
}

/// Each purchase was done before its extension was begun, and each machine lasts as long as the chain says.
fn in_order(
    world: &World,
    customer: &Customer,
    contracts: &Contracts,
    first: u64,
) -> Result<(), ScenarioError> {
    let outbox = Outbox::open_beside(&Outbox::path(&world.layout)).map_err(wrong)?;
    let jobs = outbox.list(None, 100_000).map_err(wrong)?;
    let of = |event: &str, id: u64| {
        let mut found = jobs
            .iter()
            .filter(|job| job.event == event && job.subscription_id == id);
        match (found.next(), found.next()) {
            (Some(job), None) if job.state == JobState::Done => Ok(job),
            (job, more) => Err(ScenarioError::Wrong(format!(
                "{event} of {id}: {job:?} {more:?}"
            ))),
        }
    };
    let path = world.layout.state().join("vms.json");
    let text = at("reading", &path, fs::read_to_string(&path))?;
    let machines: Value = serde_json::from_str(&text).map_err(wrong)?;
    for id in first..first + RUSH {
        let (bought, extended) = (
            of("SubscriptionCreated", id)?,
            of("SubscriptionExtended", id)?,
        );
        ensure(
            bought.id < extended.id && bought.updated_ms <= extended.updated_ms,
            || format!("subscription {id} was extended before it was provisioned"),
        )?;
        let record = &machines["vms"][format!("blockhost-{id:03}")];
        let until: Option<jiff::Timestamp> =
            record["expires_at"].as_str().and_then(|at| at.parse().ok());
        let paid = customer.paid_until(contracts, id)?;
        ensure(until.is_some_and(|at| at.as_second() == paid), || {
            format!("subscription {id} is paid until {paid}, its machine says {record}")
        })?;
    }
    Ok(())
}

/// The most memory that a program has had, MiB.
fn peak(service: &Service) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    // Unknown keeps no promise.
    kib.map_or(f64::INFINITY, |kib| kib / 1024.0)
}

/// Somebody who buys a lot, by an account that the local chain signs for.
struct Customer {
    node: DynProvider,
    runtime: Runtime,
    account: Address,
    contracts: Contracts,
    plan: u64,
}

impl Customer {
    fn new(contracts: &Contracts, plan: u64) -> Result<Self, ScenarioError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(wrong)?;
        let node = {
            let _entered = runtime.enter();
            let url = RPC_URL.parse().map_err(wrong)?;
            ProviderBuilder::new()
                .disable_recommended_fillers()
                .connect_http(url)
                .erased()
        };
        Ok(Self {
            node,
            runtime,
            account: CUSTOMER.parse().map_err(wrong)?,
            contracts: *contracts,
            plan,
        })
    }

    fn ask(&self, method: &'static str, params: Value) -> Result<Value, ScenarioError> {
        let asked = self.node.raw_request(method.into(), params);
        self.runtime
            .block_on(asked)
            .map_err(|error| ScenarioError::Wrong(format!("{method}: {error}")))
    }

    fn send(&self, to: Address, data: Vec<u8>) -> Result<(), ScenarioError> {
        let call = json!([{
            "from": self.account.to_string(), "to": to.to_string(),
            "data": format!("0x{}", hex::encode(data)), "gas": format!("{GAS:#x}"),
        }]);
        self.ask("eth_sendTransaction", call).map(drop)
    }

    /// Money, and leave to take it.
    fn prepare(&self) -> Result<(), ScenarioError> {
        let ether = format!("{:#x}", U256::from(10).pow(U256::from(24)));
        self.ask("anvil_setBalance", json!([self.account.to_string(), ether]))?;
        let (amount, coin) = (U256::from(u64::MAX), self.contracts.stablecoin);
        let to = self.account;
        self.send(coin, Calls::mintCall { to, amount }.abi_encode())?;
        let spender = self.contracts.subscriptions;
        self.send(coin, Calls::approveCall { spender, amount }.abi_encode())
    }

    fn buy(&self, days: u64) -> Result<(), ScenarioError> {
        let call = Calls::buySubscriptionCall {
            planId: U256::from(self.plan),
            numDays: U256::from(days),
            paymentMethodId: U256::from(1),
            // A signature as a page without a server key sends it.
            userEncrypted: vec![7; 65].into(),
        };
        self.send(self.contracts.subscriptions, call.abi_encode())
    }

    fn extend(&self, id: u64) -> Result<(), ScenarioError> {
        let call = Calls::extendSubscriptionCall {
            subscriptionId: U256::from(id),
            numDays: U256::from(1),
            paymentMethodId: U256::from(1),
        };
        self.send(self.contracts.subscriptions, call.abi_encode())
    }

    fn hold_blocks(&self) -> Result<(), ScenarioError> {
        self.ask("evm_setAutomine", json!([false])).map(drop)
    }

    fn blocks_every_second(&self) -> Result<(), ScenarioError> {
        self.ask("evm_setIntervalMining", json!([1])).map(drop)
    }

    /// So many blocks, the first with everything that waits.
    fn mine(&self, blocks: u64) -> Result<(), ScenarioError> {
        let params = json!([format!("{blocks:#x}")]);
        self.ask("anvil_mine", params).map(drop)
    }

    fn head(&self) -> Result<u64, ScenarioError> {
        self.runtime
            .block_on(self.node.get_block_number())
            .map_err(wrong)
    }

    /// Makes blocks until nothing waits for one.
    fn wait_for_all(&self) -> Result<(), ScenarioError> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while let Err(waiting) = self.nothing_waits() {
            ensure(Instant::now() < deadline, || waiting.to_string())?;
            self.mine(1)?;
        }
        Ok(())
    }

    fn nothing_waits(&self) -> Result<(), ScenarioError> {
        let status = self.ask("txpool_status", json!([]))?;
        let empty = status["pending"] == "0x0" && status["queued"] == "0x0";
        ensure(empty, || {
            format!("the chain holds back transactions: {status}")
        })
    }

    fn paid_until(&self, contracts: &Contracts, id: u64) -> Result<i64, ScenarioError> {
        let call = json!([{"to": contracts.subscriptions.to_string(),
            "data": format!("0x{}{id:064x}", hex::encode(&alloy::primitives::keccak256("getSubscription(uint256)")[..4]))}, "latest"]);
        let answer = self.ask("eth_call", call)?;
        // The third word.
        let word = answer
            .as_str()
            .and_then(|text| text.get(2 + 128..2 + 192))
            .and_then(|word| i64::from_str_radix(word.trim_start_matches('0'), 16).ok());
        word.ok_or_else(|| ScenarioError::Wrong(format!("getSubscription({id}): {answer}")))
    }
}

fn wrong(error: impl std::fmt::Display) -> ScenarioError {
    ScenarioError::Wrong(format!("benchmark of the chain: {error}"))
}
