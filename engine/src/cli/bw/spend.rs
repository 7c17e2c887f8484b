//! Doing what `bw` was asked for: checked first, then ordered, done, and told with its receipts.

use super::{Failure, How};
use crate::chain::{Address, Bytes, Chain, U256, tx};
use crate::config::{Config, SetupError};
use crate::funds::step::{Account, Deed, Outcome, Step};
use crate::funds::teller::{self, Counter, FundsError, Teller, kind};
use crate::outbox::{OrderState, Outbox, StepRow, StepState};
use crate::sending::PATIENCE;
use crate::wallets::{Book, BookError, Party, Token, TokenError, TokenName};
use blockhost_proto::layout::Layout;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What every verb needs.
pub(super) struct Ground {
    pub config: Config,
    pub chain: Chain,
    pub book: Book,
}

impl Ground {
    pub(super) fn load(layout: &Layout) -> Result<Self, Failure> {
        let config = Config::load(layout).map_err(SetupError::from)?;
        Ok(Self {
            chain: config.chain()?,
            book: Book::load(layout)?,
            config,
        })
    }

    pub(super) async fn token(&self, name: TokenName) -> Result<Token, TokenError> {
        Token::find(&self.chain, &self.config, name).await
    }

    /// Somebody whose key this host holds.
    pub(super) fn account(&self, party: &Party) -> Result<Account, BookError> {
        let wallet = self.book.wallet(&self.config, party)?;
        let name = match party {
            Party::Name(name) => name.to_string(),
            Party::Address(address) => self
                .book
                .name_of(*address)
                .map_or_else(|| address.to_string(), ToString::to_string),
        };
        Ok(Account {
            name,
            address: wallet.address(),
        })
    }

    /// The owner of the contracts.
    pub(super) fn server(&self) -> Result<Account, Failure> {
        let server: Party = "server".parse()?;
        Ok(self.account(&server)?)
    }

    /// Somebody to pay: not the address of nobody.
    pub(super) fn payee(&self, party: &Party) -> Result<Address, Failure> {
        let address = self.book.address(&self.config, party)?;
        if address.is_zero() {
            return Err(Failure::Usage(
                "what is paid to the address of nobody is lost; name another".into(),
            ));
        }
        Ok(address)
    }

    pub(super) fn invoke(
        &self,
        contract: Address,
        data: Vec<u8>,
        why: &str,
    ) -> Result<Vec<Step>, Failure> {
        Ok(vec![Step {
            from: self.server()?,
            deed: Deed::Invoke {
                contract,
                data: Bytes::from(data),
            },
            why: why.into(),
        }])
    }

    /// Checks, orders, does, tells.
    pub(super) async fn spend(self, steps: &[Step], how: How) -> Result<(), Failure> {
        check(&self.chain, steps).await?;
        if how.dry_run {
            if how.json {
                say!("{}", forecast_json(steps));
            } else {
                tell_forecast(&self.book, steps);
            }
            return Ok(());
        }
        let desk = self.desk(how).await?;
        let done = desk.carry_out(steps).await?;
        if how.json {
            say!("{}", done.json());
        } else {
            done.tell(&desk.book);
        }
        done.result
    }

    /// Waits until nobody else of this host pays. What is looked at from there on, nobody else of this host changes.
    pub(super) async fn desk(self, how: How) -> Result<Desk, Failure> {
        let state = self.config.layout.state();
        let (running, stop) = watch::channel(false);
        let teller = Teller {
            outbox: Arc::new(Outbox::open_to_send(&state.join("outbox.db"))?),
            config: self.config,
            chain: self.chain,
            stop,
        };
        let tell_whose = |who: &str| {
            eprintln!(
                "bw: another payment of this host is under way ({who}); waiting for it, at most {} s",
                how.wait
            );
        };
        let limit = Duration::from_secs(how.wait);
        let counter = teller.counter_within(limit, tell_whose).await?;
        Ok(Desk {
            teller,
            counter,
            book: self.book,
            _running: running,
        })
    }
}

/// Where this process pays, and no other of this host.
pub(super) struct Desk {
    pub teller: Teller,
    pub book: Book,
    counter: Counter,
    _running: watch::Sender<bool>,
}

/// What became of some steps.
pub(super) struct Done<'a> {
    order: i64,
    steps: &'a [Step],
    rows: Vec<StepRow>,
    pub result: Result<(), Failure>,
}

impl Desk {
    /// Orders and does. An error means that nothing was ordered.
    pub(super) async fn carry_out<'a>(&self, steps: &'a [Step]) -> Result<Done<'a>, Failure> {
        let teller = &self.teller;
        let id = teller.order(kind::HAND, "all", steps)?;
        crate::failpoint::reach("funds", "ordered");
        let order = teller
            .outbox
            .order(id)?
            .ok_or_else(|| Failure::Usage("the order is gone".into()))?;
        let done = tokio::time::timeout(PATIENCE, teller.carry_out(&self.counter, &order)).await;
        let rows = teller.outbox.steps_of(id)?;
        let result = match done {
            Ok(Ok(())) => {
                teller.outbox.end_order(id, OrderState::Done, None)?;
                Ok(())
            }
            Ok(Err(e @ FundsError::Failed { .. })) => Err(e.into()),
            Ok(Err(e)) => Err(stuck(teller, id, &rows, e.to_string())?),
            Err(_) => {
                let reason = format!("not all of it is in a block after {} s", PATIENCE.as_secs());
                Err(stuck(teller, id, &rows, reason)?)
            }
        };
        Ok(Done {
            order: id,
            steps,
            rows,
            result,
        })
    }
}

/// What can be known to fail before anything is ordered.
pub(super) async fn check(chain: &Chain, steps: &[Step]) -> Result<(), Failure> {
    let mut sums: Vec<(Account, Token, U256)> = Vec::new();
    for step in steps {
        let (Deed::Transfer { token, amount, .. } | Deed::Swap { token, amount, .. }) = &step.deed
        else {
            continue;
        };
        let known = sums
            .iter_mut()
            .find(|(from, of, _)| *from == step.from && of == token);
        match known {
            Some((_, _, sum)) => *sum = sum.saturating_add(*amount),
            None => sums.push((step.from.clone(), *token, *amount)),
        }
    }
    for (from, token, needs) in sums {
        let has = token.balance(chain, from.address).await?;
        if has < needs {
            return Err(Failure::Short {
                who: from.name,
                has: token.show(&has),
                needs: token.show(&needs),
                token: token.to_string(),
            });
        }
    }
    // The first as it will be: what would revert, reverts here. Those after it may depend on it.
    if let Some(first) = steps.first()
        && let Some(call) = first.call()
    {
        tx::estimate_gas(chain, first.from.address, &call).await?;
    }
    Ok(())
}

/// What would be done, for programs.
pub(super) fn forecast_json(steps: &[Step]) -> Value {
    let steps: Vec<Value> = steps.iter().map(Step::json).collect();
    json!({"ok": true, "dry_run": true, "steps": steps})
}

/// The same for people.
pub(super) fn tell_forecast(book: &Book, steps: &[Step]) {
    for step in steps {
        say!("would: {}", step.describe(book));
    }
}

/// What an error means that leaves an order open: where nothing was signed it is taken back, else it goes on.
fn stuck(
    teller: &Teller,
    order: i64,
    rows: &[StepRow],
    reason: String,
) -> Result<Failure, Failure> {
    let mut begun = false;
    for row in rows {
        let signed = !teller
            .outbox
            .journaled(0, &teller::purpose(row))?
            .is_empty();
        begun |= signed || row.state == StepState::Done;
    }
    if begun {
        return Ok(Failure::UnderWay { order, reason });
    }
    teller
        .outbox
        .end_order(order, OrderState::Abandoned, Some(&reason))?;
    Ok(Failure::Refused(reason))
}

impl Done<'_> {
    fn outcome(row: &StepRow) -> Option<Outcome> {
        serde_json::from_str(row.outcome.as_deref()?).ok()
    }

    /// The last block that something of it is in.
    pub(super) fn last_block(&self) -> Option<u64> {
        let outcomes = self.rows.iter().filter_map(Self::outcome);
        outcomes.map(|outcome| outcome.block).max()
    }

    /// With its receipts, for programs.
    pub(super) fn json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .zip(&self.rows)
            .map(|(step, row)| {
                let mut value = step.json();
                value["state"] = row.state.name().into();
                if let Some(error) = &row.last_error {
                    value["error"] = error.as_str().into();
                }
                if let (Some(value), Some(Value::Object(more))) = (
                    value.as_object_mut(),
                    Self::outcome(row).map(|outcome| outcome.json()),
                ) {
                    value.extend(more);
                }
                value
            })
            .collect();
        json!({"ok": self.result.is_ok(), "order": self.order, "steps": steps})
    }

    /// The same for people.
    pub(super) fn tell(&self, book: &Book) {
        for (step, row) in self.steps.iter().zip(&self.rows) {
            say!("{}: {}", row.state.name(), step.describe(book));
            if let Some(outcome) = Self::outcome(row) {
                say!(
                    "  transaction {} in block {}, fee {} eth",
                    outcome.tx,
                    outcome.block,
                    Token::ETH.show(&outcome.fee)
                );
                if let Some(received) = outcome.received {
                    say!("  brought {} eth", Token::ETH.show(&received));
                }
            }
        }
    }
}
