//! The host's money: once a day it is withdrawn from the contract and paid out, and the server buys gas when it has little.
//! [`plan`] decides, [`teller`] does, [`crate::outbox`] remembers; here is when. Commands give orders to the same teller.

pub mod error;
pub mod look;
pub mod plan;
mod records;
pub mod shares;
pub mod step;
pub mod teller;
mod undone;

use crate::chain::{Address, U256};
use crate::config::{Config, FundManagerSection, SetupError};
use crate::log;
use crate::outbox::{Order, OrderState, Outbox, StepState, now_ms};
use crate::sending::{PATIENCE, SendError, Sender};
use crate::wallets::token::primary_stablecoin;
use crate::wallets::{Book, Party, Token, book};
use error::Troubles;
use plan::{Gas, GasSeen, Holding, Rules, Seen};
use std::sync::Arc;
use std::time::{Duration, Instant};
use step::{Account, Step};
use teller::{FundsError, Teller, kind};
use tokio::sync::watch;

const ADMIN: &str = "admin";
const SERVER: &str = "server";
const HOT: &str = "hot";
/// Parts of a round.
const WITHDRAW: &str = "withdraw";
const PAY: &str = "pay";
/// The only part of everything else.
const ALL: &str = "all";
/// How long a round that could not go on waits.
const POSTPONE: Duration = Duration::from_secs(300);

/// The funds manager.
#[derive(Debug)]
pub struct Manager {
    teller: Teller,
    settings: FundManagerSection,
    gas_looked: Option<Instant>,
}

/// What would be done now.
#[derive(Debug, Clone, Default)]
pub struct Forecast {
    /// The hot wallet would be made first.
    pub makes_hot: bool,
    /// What would be withdrawn from the contract.
    pub withdrawals: Vec<Step>,
    /// What would be paid then.
    pub payments: Vec<Step>,
    /// How gas would be bought.
    pub gas: Vec<Step>,
    /// What stands in the way.
    pub notes: Vec<String>,
}

impl Manager {
    /// Looks after the money of a host.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(
        config: Config,
        outbox: Arc<Outbox>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, SetupError> {
        let settings = config.host.fund_manager;
        Ok(Self {
            teller: Teller {
                chain: config.chain()?,
                config,
                outbox,
                stop,
            },
            settings,
            gas_looked: None,
        })
    }

    /// Who pays.
    #[must_use]
    pub fn teller(&self) -> &Teller {
        &self.teller
    }

    /// Looks until the engine is to end.
    pub async fn run(mut self) {
        let mut stop = self.teller.stop.clone();
        let pause = Duration::from_secs(self.settings.look_every_s);
        let mut last_error = String::new();
        while !*stop.borrow() {
            match self.look(false).await {
                Ok(()) | Err(FundsError::Sending(SendError::Stopped)) => {
                    if !std::mem::take(&mut last_error).is_empty() {
                        log::info("the funds manager goes on", &[]);
                    }
                }
                Err(e) => {
                    // Once per reason: a node that is down for a night must not fill the disk.
                    if e.to_string() != last_error {
                        last_error = e.to_string();
                        log::error("moving funds", &[("error", &last_error)]);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(_) = stop.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// Goes on with what was begun, and begins what is due; with `now`, whether it is due or not.
    ///
    /// # Errors
    /// [`FundsError`]; nothing is lost, the next look goes on.
    pub async fn look(&mut self, now: bool) -> Result<(), FundsError> {
        let counter = if now {
            let tell = |who: &str| {
                log::info("waiting for another payment of this host", &[("of", &who)]);
            };
            self.teller.counter_within(PATIENCE, tell).await?
        } else {
            self.teller.counter().await?
        };
        if let Err(e) = self.teller.catch_up_records(&counter).await {
            log::warn("movements that are not in the ledger yet", &[("error", &e)]);
        }
        let mut troubles = Troubles::default();
        for name in [SERVER, HOT] {
            troubles.add(name, self.tend(name).await)?;
        }
        let undone = self.look_for_undone().await;
        // What is shared out is what is there: money whose payment may have to be made again is there twice.
        let may_share = undone.is_ok();
        troubles.add("looking for what was taken back", undone)?;
        let mut round_open = false;
        let mut gas_open = false;
        let mut orders = self
            .teller
            .outbox
            .open_orders(self.teller.chain.chain_id())?;
        // A round shares out what the others leave.
        orders.sort_by_key(|order| order.kind == kind::ROUND);
        for order in orders {
            round_open |= order.kind == kind::ROUND;
            gas_open |= order.kind == kind::GAS;
            let is_early = !now && order.not_before_ms > now_ms();
            if is_early || (order.kind == kind::ROUND && !may_share) {
                continue;
            }
            let what = format!("order {}", order.id);
            troubles.add(&what, self.go_on(&counter, order).await)?;
        }
        if self.settings.enabled {
            if !gas_open && (now || self.gas_is_due()) {
                self.gas_looked = Some(Instant::now());
                troubles.add("gas", self.buy_gas(&counter).await)?;
            }
            if may_share && !round_open && (now || self.round_is_due()?) {
                troubles.add("the daily round", self.begin_round(&counter).await)?;
            }
        }
        troubles.end()
    }

    fn gas_is_due(&self) -> bool {
        let every =
            Duration::from_secs(self.settings.gas_check_interval_minutes.saturating_mul(60));
        self.gas_looked.is_none_or(|at| at.elapsed() >= every)
    }

    fn round_is_due(&self) -> Result<bool, FundsError> {
        let every = self
            .settings
            .fund_cycle_interval_hours
            .saturating_mul(3_600_000);
        let every = i64::try_from(every).unwrap_or(i64::MAX);
        let last = self
            .teller
            .outbox
            .last_order(self.teller.chain.chain_id(), kind::ROUND)?;
        Ok(last.is_none_or(|order| now_ms().saturating_sub(order.created_ms) >= every))
    }

    /// Looks after transactions of a wallet that a command left behind.
    async fn tend(&self, name: &'static str) -> Result<(), FundsError> {
        let book = Book::load(&self.teller.config.layout)?;
        if name == HOT && book.get(HOT).is_none() {
            return Ok(());
        }
        let wallet = book.wallet(&self.teller.config, &named(name)?)?;
        let sender = Sender::new(wallet, self.teller.config.layout.state());
        let confirmations = self.teller.config.confirmations();
        let sending = self.teller.sending(&sender, "");
        Ok(sending.tend(confirmations).await?)
    }

    /// Goes on with an order to its end, or to what stops it.
    async fn go_on(&self, counter: &teller::Counter, order: Order) -> Result<(), FundsError> {
        let id = order.id;
        let is_round = order.kind == kind::ROUND;
        let done = if is_round {
            self.round(counter, order).await
        } else {
            self.teller.carry_out(counter, &order).await
        };
        match done {
            Ok(()) => self.close(id),
            Err(FundsError::Sending(SendError::Stopped)) => Err(SendError::Stopped.into()),
            Err(e) => {
                if is_round {
                    self.teller
                        .outbox
                        .postpone_order(id, POSTPONE, &e.to_string())?;
                }
                Err(e)
            }
        }
    }

    fn close(&self, id: i64) -> Result<(), FundsError> {
        let steps = self.teller.outbox.steps_of(id)?;
        let failed = steps.iter().filter(|step| step.state == StepState::Failed);
        let detail = match failed.count() {
            0 => None,
            n => Some(format!("{n} of {} steps were given up", steps.len())),
        };
        self.teller
            .outbox
            .end_order(id, OrderState::Done, detail.as_deref())?;
        if !steps.is_empty() {
            log::info(
                "money was moved",
                &[("order", &id), ("transactions", &steps.len())],
            );
        }
        Ok(())
    }

    async fn round(&self, counter: &teller::Counter, mut order: Order) -> Result<(), FundsError> {
        self.teller.carry_out(counter, &order).await?;
        if order.stage == WITHDRAW {
            let parties = self.parties()?;
            let hot = (parties.hot.clone()).ok_or(FundsError::NotSetUp(HOT))?;
            self.nothing_promised(&parties, Some(order.id))?;
            let seen = self.seen(&parties.server, &hot, parties.admin, &[]).await?;
            let steps = plan::payments(&seen, &self.rules()?)?;
            crate::failpoint::reach("funds", "planned");
            self.teller
                .outbox
                .advance_order(order.id, WITHDRAW, PAY, &teller::bodies(&steps)?)?;
            crate::failpoint::reach("funds", "advanced");
            if let Some(again) = self.teller.outbox.order(order.id)? {
                order = again;
            }
            self.teller.carry_out(counter, &order).await?;
        }
        Ok(())
    }

    /// What is shared out is what the accounts have: a payment that waits for its block, or was not signed yet, is still in
    /// that, and would be paid twice over. Nothing is begun before it is done or given up.
    fn nothing_promised(&self, parties: &Parties, round: Option<i64>) -> Result<(), FundsError> {
        let Teller { outbox, chain, .. } = &self.teller;
        let chain_id = chain.chain_id();
        let accounts: Vec<Address> = [Some(&parties.server), parties.hot.as_ref()]
            .into_iter()
            .flatten()
            .map(|account| account.address)
            .collect();
        for order in outbox.open_orders(chain_id)? {
            if Some(order.id) == round {
                continue;
            }
            for row in outbox.steps_of(order.id)? {
                if row.state == StepState::Planned
                    && accounts.contains(&teller::parse(&row)?.from.address)
                {
                    return Err(FundsError::Promised { order: order.id });
                }
            }
        }
        // Of orders that were given up, too: what a reorganisation takes back may be mined again.
        for account in accounts {
            for row in outbox.live_txs(chain_id, account)? {
                let order = undone::step_of(&row.purpose).map(|step| step.order);
                if let Some(order) = order.filter(|order| Some(*order) != round) {
                    return Err(FundsError::Promised { order });
                }
            }
        }
        Ok(())
    }

    async fn begin_round(&self, counter: &teller::Counter) -> Result<(), FundsError> {
        // Before anything moves, everything is there that the round will need.
        let mut parties = self.parties()?;
        self.nothing_promised(&parties, None)?;
        let rules = self.rules()?;
        if parties.hot.is_none() {
            let layout = &self.teller.config.layout;
            let lock = book::BookLock::acquire(layout)?;
            let address = book::generate(
                layout,
                &lock,
                &HOT.parse().map_err(|_| FundsError::NotSetUp(HOT))?,
            )
            .await?;
            log::info("the hot wallet was made", &[("address", &address)]);
            parties = self.parties()?;
        }
        let hot = parties.hot.ok_or(FundsError::NotSetUp(HOT))?;
        Book::load(&self.teller.config.layout)?.wallet(&self.teller.config, &named(HOT)?)?;
        let steps = self
            .withdrawals(&parties.server, hot.address, &rules)
            .await?
            .0;
        let id = self.teller.order(kind::ROUND, WITHDRAW, &steps)?;
        crate::failpoint::reach("funds", "ordered");
        match self.teller.outbox.order(id)? {
            Some(order) => self.go_on(counter, order).await,
            None => Ok(()),
        }
    }

    async fn buy_gas(&self, counter: &teller::Counter) -> Result<(), FundsError> {
        let steps = match self.gas().await? {
            Ok(Gas::Buy(steps)) => steps,
            Ok(Gas::Enough) => return Ok(()),
            Ok(Gas::Poor) => {
                log::warn(
                    "the server has little gas and not enough of the stablecoin to buy more",
                    &[],
                );
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        let id = self.teller.order(kind::GAS, ALL, &steps)?;
        crate::failpoint::reach("funds", "ordered");
        match self.teller.outbox.order(id)? {
            Some(order) => self.go_on(counter, order).await,
            None => Ok(()),
        }
    }

    /// How the server's gas stands; the inner error says why that is not looked after.
    async fn gas(&self) -> Result<Result<Gas, String>, FundsError> {
        let Teller { config, chain, .. } = &self.teller;
        let Some(router) = look::router(config) else {
            return Ok(Err(
                "no router is known for this chain; set uniswap.router in web3-defaults.yaml"
                    .into(),
            ));
        };
        let Some(stable) = primary_stablecoin(chain, config).await? else {
            return Ok(Err("no primary stablecoin is set".into()));
        };
        let stable = Token::of(chain, stable).await?;
        let server = self.parties_server()?;
        let wrapped = look::wrapped(chain, router).await?;
        let has = Token::ETH.balance(chain, server.address).await?;
        let worth = match look::worth_of_eth(chain, router, wrapped, stable, has).await {
            Ok(worth) => worth,
            Err(crate::chain::ChainError::Refused { message, .. }) => {
                return Ok(Err(format!(
                    "the router has no price for eth in the stablecoin: {message}"
                )));
            }
            Err(e) => return Err(e.into()),
        };
        let seen = GasSeen {
            worth,
            has: stable.balance(chain, server.address).await?,
            allowance: look::allowance(
                chain,
                stable.address.unwrap_or_default(),
                server.address,
                router,
            )
            .await?,
            server,
            stable,
            router,
        };
        Ok(Ok(plan::gas(
            &seen,
            self.settings.gas_low_threshold_usd,
            self.settings.gas_swap_amount_usd,
            self.settings.slippage_bps,
        )))
    }

    async fn withdrawals(
        &self,
        server: &Account,
        hot: Address,
        rules: &Rules,
    ) -> Result<(Vec<Step>, Vec<Holding>), FundsError> {
        let contract = self.teller.config.subscription_contract()?;
        let chain = &self.teller.chain;
        let accepted = look::accepted(chain, contract).await?;
        let held = look::holdings(chain, &accepted, contract).await?;
        let steps = plan::withdrawals(contract, &held, rules.least, server, hot);
        Ok((steps, held))
    }

    /// What the payments are decided by; `more` is what will have come by then.
    async fn seen(
        &self,
        server: &Account,
        hot: &Account,
        admin: Address,
        more: &[(Token, U256)],
    ) -> Result<Seen, FundsError> {
        let Teller { config, chain, .. } = &self.teller;
        let accepted = look::accepted(chain, config.subscription_contract()?).await?;
        let mut held = look::holdings(chain, &accepted, hot.address).await?;
        for (token, amount) in more {
            for one in held.iter_mut().filter(|one| one.token == *token) {
                one.amount = one.amount.saturating_add(*amount);
            }
        }
        let stable = match primary_stablecoin(chain, config).await? {
            None => None,
            Some(address) => {
                let token = Token::of(chain, address).await?;
                Some((token, token.balance(chain, server.address).await?))
            }
        };
        Ok(Seen {
            server_eth: Token::ETH.balance(chain, server.address).await?,
            hot_eth: Token::ETH.balance(chain, hot.address).await?,
            server: server.clone(),
            hot: hot.clone(),
            admin,
            stable,
            held,
        })
    }

    fn rules(&self) -> Result<Rules, FundsError> {
        let config = &self.teller.config;
        let book = Book::load(&config.layout)?;
        let shares = shares::load(&config.layout)?;
        Ok(Rules {
            least: self.settings.min_withdrawal_usd,
            hot_gas: self.settings.hot_wallet_gas_eth,
            buffer: self.settings.server_stablecoin_buffer_usd,
            recipients: shares::recipients(&config.layout, config, &book, &shares)?,
        })
    }

    fn parties_server(&self) -> Result<Account, FundsError> {
        let config = &self.teller.config;
        let book = Book::load(&config.layout)?;
        Ok(Account {
            name: SERVER.into(),
            address: book.wallet(config, &named(SERVER)?)?.address(),
        })
    }

    fn parties(&self) -> Result<Parties, FundsError> {
        let book = Book::load(&self.teller.config.layout)?;
        let address = |name: &str| book.get(name).map(|entry| book::plain(&entry.address));
        Ok(Parties {
            server: self.parties_server()?,
            admin: address(ADMIN).ok_or(FundsError::NotSetUp(ADMIN))?,
            hot: address(HOT).map(|address| Account {
                name: HOT.into(),
                address,
            }),
        })
    }

    /// What a round would do now. Nothing is changed.
    ///
    /// # Errors
    /// [`FundsError`].
    pub async fn forecast(&self) -> Result<Forecast, FundsError> {
        let parties = self.parties()?;
        let rules = self.rules()?;
        let mut forecast = Forecast {
            makes_hot: parties.hot.is_none(),
            ..Forecast::default()
        };
        let hot = parties.hot.unwrap_or(Account {
            name: HOT.into(),
            address: Address::ZERO,
        });
        let withdrawn = self
            .withdrawals(&parties.server, hot.address, &rules)
            .await?;
        forecast.withdrawals = withdrawn.0;
        let more: Vec<(Token, U256)> = forecast
            .withdrawals
            .iter()
            .filter_map(|step| match &step.deed {
                step::Deed::Withdraw { token, amount, .. } => Some((*token, *amount)),
                _ => None,
            })
            .collect();
        let mut seen = self
            .seen(&parties.server, &hot, parties.admin, &more)
            .await?;
        if forecast.makes_hot {
            // The address of nobody owns what people lost.
            seen.hot_eth = U256::ZERO;
            for one in &mut seen.held {
                let came = more.iter().find(|(token, _)| *token == one.token);
                one.amount = came.map_or(U256::ZERO, |(_, amount)| *amount);
            }
        }
        match plan::payments(&seen, &rules) {
            Ok(steps) => forecast.payments = steps,
            Err(e) => forecast.notes.push(e.to_string()),
        }
        match self.gas().await? {
            Ok(Gas::Buy(steps)) => forecast.gas = steps,
            Ok(Gas::Enough) => {}
            Ok(Gas::Poor) => forecast.notes.push(
                "the server has little gas and not enough of the stablecoin to buy more".into(),
            ),
            Err(why) => forecast
                .notes
                .push(format!("gas is not looked after: {why}")),
        }
        Ok(forecast)
    }
}

/// Who takes part in a round.
struct Parties {
    server: Account,
    admin: Address,
    hot: Option<Account>,
}

/// A role as a party.
fn named(role: &'static str) -> Result<Party, FundsError> {
    role.parse().map_err(|_| FundsError::NotSetUp(role))
}
