//! The main job, step by step, on real components: a customer pays on the chain, a machine appears, its access details
//! reach the customer and nobody else, it is extended, it expires, it is gone, and the ledger can prove all of it.
//! Every step checks what it claims. The demo prints it, the end-to-end tests run it.

mod machine;
mod proof;
mod shop;
mod template;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::RunError;
use crate::customer::{self, Access, ChainError, Purchase, Wallet};
use crate::report::Report;
use crate::world::config::{PUBLIC_SECRET, RPC_URL, random_key};
use crate::world::services::{self, Service};
use crate::world::{PROGRAMS, World, WorldError, at};

pub use machine::{
    GuestFacts, Record, any_machine_runs, backend_config, backend_state, guest_facts, record,
};
pub use proof::LedgerFacts;
pub use shop::{Contracts, deploy, owner};
pub(crate) use template::ready as template_ready;

/// Price of the demo's plan.
pub const CENTS_PER_DAY: u64 = 50;
/// Days bought at first.
pub const DAYS: u64 = 30;
/// Days added later.
pub const MORE_DAYS: u64 = 10;
/// Time for a machine to come up without KVM, on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(280);

/// Why the main job did not get through.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The world or a program in it.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A check said no.
    #[error("{0}")]
    Wrong(String),
}

impl From<RunError> for ScenarioError {
    fn from(error: RunError) -> Self {
        Self::World(error.into())
    }
}

/// Fails with a sentence unless the condition holds.
pub(crate) fn ensure(
    condition: bool,
    sentence: impl FnOnce() -> String,
) -> Result<(), ScenarioError> {
    if condition {
        Ok(())
    } else {
        Err(ScenarioError::Wrong(sentence()))
    }
}

/// A host in business.
pub struct Host {
    /// Its files and programs.
    pub world: World,
    /// The local chain.
    pub chain: Service,
    /// The root agent.
    pub agent: Service,
    /// The engine.
    pub engine: Service,
    /// Owner of the contracts.
    pub operator: Wallet,
    /// Where they are.
    pub contracts: Contracts,
    /// The one plan.
    pub plan: u64,
}

/// What a run has shown, for the last line.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was bought.
    pub purchase: Purchase,
    /// The machine as the database knew it while it ran.
    pub record: Record,
    /// What the machine says about itself.
    pub guest: GuestFacts,
    /// The credential.
    pub nft_token_id: u64,
    /// The ledger at the end.
    pub ledger: LedgerFacts,
}

/// Opens the host for business: world, template, chain, agent, contracts, plan, engine.
///
/// # Errors
/// [`ScenarioError`]; everything that was started is stopped again.
pub fn open_host(dir: &Path, built: &Path, report: &mut Report) -> Result<Host, ScenarioError> {
    report.heading("A private host");
    let world = report.step(
        "setup",
        "directories, users, configuration, bridge",
        || -> Result<_, ScenarioError> {
            let world = World::create(dir, built, PROGRAMS)?;
            world.network()?;
            Ok(world)
        },
    )?;
    let chain = report.step("setup", "local chain (anvil) is up", || {
        services::start_chain(&world)
    })?;
    let agent = report.step("setup", "root agent is up and confined", || {
        services::start_agent(&world)
    })?;
    template::ready(&world, report)?;

    let operator = owner(&world)?;
    let (contracts, plan) = report.step(
        "contracts",
        "contracts deployed, plan \"small\" at 0.50 USD a day",
        || -> Result<_, ScenarioError> {
            let contracts = deploy(&world, &operator)?;
            let plan = operator.make_plan(contracts.subscriptions, "small", CENTS_PER_DAY)?;
            Ok((contracts, plan))
        },
    )?;
    report.note(&format!(
        "subscriptions {}  credentials {}",
        contracts.subscriptions, contracts.nft
    ));
    let engine = report.step("setup", "engine is up", || services::start_engine(&world))?;
    Ok(Host {
        world,
        chain,
        agent,
        engine,
        operator,
        contracts,
        plan,
    })
}

impl Host {
    /// A new customer with ether for gas and stablecoins for `days`.
    ///
    /// # Errors
    /// [`ScenarioError::Chain`].
    pub fn new_customer(&self) -> Result<Wallet, ScenarioError> {
        let customer = Wallet::new(&random_key().to_bytes(), RPC_URL)?;
        self.operator.give_ether(customer.address(), 10)?;
        // Anyone may print the test coin; the operator's account is the engine's now, and so are its nonces.
        customer.mint_tokens(self.contracts.stablecoin, customer.address(), 1_000_000_000)?;
        Ok(customer)
    }

    /// The owner of the contracts once more. The engine uses the same account, so what an earlier wallet remembers of
    /// its nonces is out of date.
    ///
    /// # Errors
    /// [`ScenarioError`] when the key cannot be read.
    pub fn owner(&self) -> Result<Wallet, ScenarioError> {
        owner(&self.world)
    }

    /// The customer's part: sign the public secret, encrypt the signature to the server, approve, buy.
    ///
    /// # Errors
    /// [`ScenarioError::Chain`].
    pub fn buy(&self, customer: &Wallet, days: u64) -> Result<Purchase, ScenarioError> {
        let path = self.world.layout.etc().join("server.pubkey");
        let key = at("reading", &path, std::fs::read_to_string(&path))?;
        let key = hex::decode(key.trim().trim_start_matches("0x"))
            .map_err(|error| ScenarioError::Wrong(format!("server.pubkey: {error}")))?;
        let signature = customer.sign(PUBLIC_SECRET)?;
        let encrypted =
            customer::encrypt_to_server(&key, format!("0x{}", hex::encode(signature)).as_bytes())?;
        let Contracts {
            subscriptions,
            stablecoin,
            ..
        } = self.contracts;
        Ok(customer.buy(subscriptions, stablecoin, self.plan, days, encrypted)?)
    }

    /// Waits for the credential of this customer and decrypts it.
    ///
    /// # Errors
    /// [`ScenarioError`] when it does not come, or is not for this customer.
    pub fn credential(
        &mut self,
        customer: &Wallet,
        limit: Duration,
    ) -> Result<(u64, Access), ScenarioError> {
        let nft = self.contracts.nft;
        let log = self.engine.log().to_owned();
        let late = || {
            ScenarioError::Wrong(format!(
                "no credential was minted within {} s; see {}",
                limit.as_secs(),
                log.display()
            ))
        };
        let (id, data) = customer::poll(limit, late, || -> Result<_, ScenarioError> {
            self.engine.check()?;
            self.agent.check()?;
            Ok(customer.credential(nft)?)
        })?;
        let access = customer::decrypt_access(&customer.sign(PUBLIC_SECRET)?, &data)?;
        Ok((id, access))
    }

    /// Ends engine, agent and chain in that order, each in its own time.
    ///
    /// # Errors
    /// [`ScenarioError`] naming the one that had to be killed.
    pub fn close(mut self) -> Result<World, ScenarioError> {
        self.engine.stop(Duration::from_secs(15))?;
        self.agent.stop(Duration::from_secs(45))?;
        // The chain is not ours and its state is thrown away.
        self.chain.kill();
        Ok(self.world)
    }
}

/// The whole main job.
///
/// # Errors
/// [`ScenarioError`] with the first thing that went wrong.
pub fn run(
    dir: &Path,
    built: &Path,
    report: &mut Report,
) -> Result<(Outcome, World), ScenarioError> {
    let mut host = open_host(dir, built, report)?;
    let outcome = business(&mut host, report)?;
    report.heading("The end");
    let world = report.step(
        "shutdown",
        "engine, agent and chain ended; nothing is left running",
        || -> Result<_, ScenarioError> {
            let world = host.close()?;
            machine::nothing_runs()?;
            Ok(world)
        },
    )?;
    Ok((outcome, world))
}

/// From the purchase to the proof, on a host that is open.
///
/// # Errors
/// [`ScenarioError`].
pub fn business(host: &mut Host, report: &mut Report) -> Result<Outcome, ScenarioError> {
    report.heading("The customer");
    let customer = host.new_customer()?;
    report.note(&format!("wallet {}", customer.address_text()));
    let purchase = report.step(
        "purchase",
        "signed, encrypted to the server, approved, bought 30 days",
        || host.buy(&customer, DAYS),
    )?;
    let name = format!("blockhost-{:03}", purchase.subscription);

    report.heading("The machine");
    let (token, access) = report.step(
        "machine",
        "machine is up and the credential is minted",
        || host.credential(&customer, BOOT_LIMIT),
    )?;
    report.note(&format!(
        "NFT {token} decrypts to ssh {}@{} port {}",
        access.username, access.hostname, access.port
    ));
    let record = report.step("machine", "database, credential and chain agree", || {
        machine::agreement(host, &customer, &purchase, &name, token, &access)
    })?;
    let guest = report.step(
        "guest",
        "asked through the guest agent: host name, GECOS, addresses",
        || machine::ask_agent(host, &customer, &record, token, &access),
    )?;
    report.note(&format!("{} | {}", guest.hostname, guest.gecos));
    report.note(&format!("{}  {}", record.ip, record.ipv6));
    report.step("guest", "the same over SSH", || {
        machine::ask_ssh(host, &guest, &record, &access)
    })?;
    report.step(
        "extend",
        "10 more days paid, the new end is in the database",
        || machine::extend(host, &customer, &purchase, &name),
    )?;

    report.heading("The end of the subscription");
    report.step("expiry", "gc before the end changes nothing", || {
        machine::gc_too_early(host, &name)
    })?;
    report.step("expiry", "gc after the end suspends the machine", || {
        machine::gc_suspends(host, &name, &record)
    })?;
    report.step(
        "expiry",
        "gc after the grace period destroys it, disk, route and addresses",
        || machine::gc_destroys(host, &name, &record),
    )?;

    report.heading("The ledger");
    let ledger = proof::check(host, &record, report)?;
    Ok(Outcome {
        purchase,
        record,
        guest,
        nft_token_id: token,
        ledger,
    })
}

/// Where the logs of a world are.
#[must_use]
pub fn logs(dir: &Path) -> PathBuf {
    dir.join("logs")
}
