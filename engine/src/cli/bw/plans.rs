//! `bw plan`: the plans of the subscription contract, and changes of them. A change is decided by what the contract says
//! while nobody else of this host pays: of two at once neither undoes the other. Sending is [`super::spend`]'s.

use super::spend::{self, Desk, Ground};
use super::{Failure, How};
use crate::chain::bindings::BlockhostSubscriptions::updatePlanCall;
use crate::chain::plans::{self, Plan};
use crate::chain::{Address, Bytes, Chain, U256};
use crate::funds::step::{Account, Deed, Step};
use crate::funds::teller;
use crate::outbox::StepState;
use alloy::sol_types::SolCall;
use blockhost_proto::escape::shown;
use blockhost_provisioner::config::Sizes;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// Longer, a name is cut off where customers read it.
const LONGEST_NAME: usize = 60;

const CLOSING: &str = "\
What is closed cannot be bought, and subscriptions to it cannot be extended: the contract refuses both. Those that are
paid run on to their end, and what ends meanwhile is suspended as always; it can be paid for again once the plan is open.
A plan that is closed already is left alone.";

/// What is done with plans.
#[derive(Debug, Subcommand)]
pub(super) enum PlanVerb {
    /// All plans: what they cost, which can be bought, and which machine a purchase gives
    #[command(
        after_help = "Machines are as the section plans of blockhost.yaml says now, which those that are sold already do not follow. While that\ncannot be read, plans are listed with ? (JSON: null) for their machines, and it ends with 1.\n\nExamples:\n  bw plan list\n  bw plan list --json | jq -r '.plans[] | select(.active) | .id'"
    )]
    List {
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Offer a plan
    #[command(after_help = "Examples:\n  bw plan create small 50        (half a dollar a day)")]
    Create {
        /// Its name
        name: PlanName,
        /// US cents for a day
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        cents: u64,
        #[command(flatten)]
        how: How,
    },
    /// Change the name or the price of a plan
    #[command(after_help = "\
The price is that of purchases and extensions from then on; what is paid is paid. All else of the plan stays.

Examples:
  bw plan set 1 --cents 60
  bw plan set 1 --name tiny --cents 45 --dry-run")]
    Set {
        /// Its number
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// Its new name
        #[arg(long, required_unless_present = "cents")]
        name: Option<PlanName>,
        /// US cents for a day from now on
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        cents: Option<u64>,
        #[command(flatten)]
        how: How,
    },
    /// Sell plans no longer
    #[command(after_help = format!("{CLOSING}\n\nExamples:\n  bw plan close 2\n  bw plan close --all        (before maintenance)"))]
    Close {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        how: How,
    },
    /// Sell plans again
    #[command(after_help = "\
With --all, those that were given up long ago are sold again, too: name the others instead.

Examples:
  bw plan open 1 2
  bw plan open --all --dry-run")]
    Open {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        how: How,
    },
}

/// Which plans.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// Their numbers
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    ids: Vec<u64>,
    /// All of them
    #[arg(long)]
    all: bool,
}

/// A name that customers can read on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlanName(String);

impl PlanName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for PlanName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let readable = !text.trim().is_empty() && !text.chars().any(char::is_control);
        if readable && text.chars().count() <= LONGEST_NAME {
            return Ok(Self(text.into()));
        }
        Err(format!(
            "a plan's name is one line of at most {LONGEST_NAME} characters"
        ))
    }
}

/// How plans are to be.
#[derive(Debug)]
pub(super) enum Wish<'a> {
    Named {
        id: u64,
        name: Option<&'a PlanName>,
        cents: Option<u64>,
    },
    Sold {
        which: &'a Which,
        active: bool,
    },
}

impl Wish<'_> {
    /// The plans that are meant, each once, where the last one has the number `last`.
    fn ids(&self, last: u64) -> Vec<u64> {
        match self {
            Self::Named { id, .. } => vec![*id],
            Self::Sold { which, .. } if which.all => (1..=last).collect(),
            Self::Sold { which, .. } => {
                let mut ids = which.ids.clone();
                ids.sort_unstable();
                ids.dedup();
                ids
            }
        }
    }

    /// A plan as it is to be.
    fn of(&self, plan: &Plan) -> Plan {
        let mut wished = plan.clone();
        match self {
            Self::Named { name, cents, .. } => {
                if let Some(name) = name {
                    wished.name = name.0.clone();
                }
                if let Some(cents) = cents {
                    wished.cents = U256::from(*cents);
                }
            }
            Self::Sold { active, .. } => wished.active = *active,
        }
        wished
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Named { .. } => "set",
            Self::Sold { active: false, .. } => "close",
            Self::Sold { active: true, .. } => "open",
        }
    }

    /// The steps that make `plans` what is wished; none for those that are so.
    fn steps(&self, contract: Address, owner: &Account, plans: &[Plan]) -> Vec<Step> {
        let wished = plans.iter().map(|plan| (plan, self.of(plan)));
        let changed = wished.filter(|(plan, wished)| *plan != wished);
        let step = |(_, plan): (_, Plan)| Step {
            from: owner.clone(),
            why: format!("bw plan {} {}", self.verb(), line(&plan)),
            deed: Deed::Invoke {
                contract,
                data: Bytes::from(
                    updatePlanCall {
                        planId: U256::from(plan.id),
                        name: plan.name,
                        pricePerDayUsdCents: plan.cents,
                        active: plan.active,
                    }
                    .abi_encode(),
                ),
            },
        };
        changed.map(step).collect()
    }
}

/// Cents as dollars.
fn dollars(cents: U256) -> String {
    let hundred = U256::from(100);
    format!("{}.{:02}", cents / hundred, (cents % hundred).to::<u64>())
}

const fn state(plan: &Plan) -> &'static str {
    if plan.active { "open" } else { "closed" }
}

fn line(plan: &Plan) -> String {
    format!(
        "{}: \"{}\", {} usd a day, {}",
        plan.id,
        shown(&plan.name),
        dollars(plan.cents),
        state(plan)
    )
}

fn entry(plan: &Plan) -> Value {
    json!({
        "id": plan.id, "name": plan.name, "active": plan.active,
        "cents_per_day": plan.cents.to_string(), "usd_per_day": dollars(plan.cents),
    })
}

fn entries(plans: &[Plan]) -> Value {
    plans.iter().map(entry).collect()
}

pub(super) async fn list(ground: &Ground, as_json: bool) -> Result<(), Failure> {
    let contract = ground.config.subscription_contract()?;
    let all = plans::all(&ground.chain, contract).await?;
    // What an operator needs to mend the setting, the numbers of the plans, is told all the same.
    let sizes = Sizes::load(&ground.config.layout);
    let machine = |plan: &Plan| sizes.as_ref().ok().map(|sizes| sizes.of(plan.id));
    if as_json {
        let with_machine = |plan: &Plan| {
            let mut one = entry(plan);
            one["machine"] = json!(machine(plan));
            one
        };
        let contract = contract.to_string();
        let all: Vec<Value> = all.iter().map(with_machine).collect();
        say!("{}", json!({"contract": contract, "plans": all}));
    } else {
        say!("ID\tNAME\tUSD/DAY\tSTATE\tMACHINE");
        for plan in &all {
            let (name, price, state) = (shown(&plan.name), dollars(plan.cents), state(plan));
            let machine = machine(plan).map_or_else(|| "?".into(), |size| size.to_string());
            say!("{}\t{name}\t{price}\t{state}\t{machine}", plan.id);
        }
    }
    sizes?;
    Ok(())
}

/// Makes plans what is wished, and says what they are then.
pub(super) async fn change(ground: Ground, wish: &Wish<'_>, how: How) -> Result<(), Failure> {
    let contract = ground.config.subscription_contract()?;
    let owner = ground.server()?;
    if how.dry_run {
        let found = look(&ground.chain, contract, wish).await?;
        let steps = wish.steps(contract, &owner, &found);
        spend::check(&ground.chain, &steps).await?;
        let said = spend::forecast_json(&steps);
        if !how.json {
            spend::tell_forecast(&ground.book, &steps);
        }
        tell(&found, said, how);
        return Ok(());
    }
    let desk = ground.desk(how).await?;
    nobody_else_changes_plans(&desk, contract)?;
    let chain = &desk.teller.chain;
    let found = look(chain, contract, wish).await?;
    let steps = wish.steps(contract, &owner, &found);
    if steps.is_empty() {
        tell(&found, json!({"ok": true, "steps": []}), how);
        return Ok(());
    }
    spend::check(chain, &steps).await?;
    let done = desk.carry_out(&steps).await?;
    if !how.json {
        done.tell(&desk.book);
    }
    let ids = found.iter().map(|plan| plan.id);
    let after = plans::some(chain, contract, ids, done.last_block()).await;
    let mut said = done.json();
    let after = match after {
        Ok(after) => after,
        Err(e) => {
            eprintln!("bw: what is in force now could not be read: {e}");
            if how.json {
                say!("{said}");
            }
            return done.result;
        }
    };
    let other = found.iter().map(|plan| wish.of(plan)).zip(&after);
    let other = other.filter(|(wished, is)| wished != *is).map(|(_, is)| is);
    let other: Vec<String> = other.map(line).collect();
    let overtaken = done.result.is_ok() && !other.is_empty();
    if overtaken {
        said["ok"] = false.into();
    }
    tell(&after, said, how);
    done.result?;
    if overtaken {
        return Err(Failure::Overtaken(other.join("; ")));
    }
    if matches!(wish, Wish::Sold { active: false, .. }) {
        let closed = found.iter().filter(|plan| plan.active);
        let closed: Vec<String> = closed.map(|plan| plan.id.to_string()).collect();
        eprintln!("bw: to sell again: bw plan open {}", closed.join(" "));
    }
    Ok(())
}

/// The plans that are meant, as they are.
async fn look(chain: &Chain, contract: Address, wish: &Wish<'_>) -> Result<Vec<Plan>, Failure> {
    let last = plans::count(chain, contract).await?;
    let ids = wish.ids(last);
    if let Some(id) = ids.iter().find(|id| **id > last) {
        return Err(Failure::Refused(format!(
            "there is no plan {id}: the contract has {last} (bw plan list)"
        )));
    }
    Ok(plans::some(chain, contract, ids, None).await?)
}

/// An interrupted change would be gone on with later, by what it had read, and undo this one.
fn nobody_else_changes_plans(desk: &Desk, contract: Address) -> Result<(), Failure> {
    let teller = &desk.teller;
    for order in teller.outbox.open_orders(teller.chain.chain_id())? {
        for row in teller.outbox.steps_of(order.id)? {
            let is_other = match teller::parse(&row)?.deed {
                Deed::Invoke { contract: of, data } => {
                    of == contract && data.starts_with(&updatePlanCall::SELECTOR)
                }
                _ => false,
            };
            if is_other && row.state == StepState::Planned {
                return Err(Failure::Refused(format!(
                    "order {} changes plans, too, and is not at its end: the engine goes on with it (blockhost funds status); \
                     repeat this afterwards",
                    order.id
                )));
            }
        }
    }
    Ok(())
}

fn tell(plans: &[Plan], mut said: Value, how: How) {
    if how.json {
        said["plans"] = entries(plans);
        say!("{said}");
        return;
    }
    for plan in plans {
        say!("in force: plan {}", line(plan));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(id: u64, cents: u64, active: bool) -> Plan {
        let (name, cents) = (format!("p{id}"), U256::from(cents));
        Plan {
            id,
            name,
            cents,
            active,
        }
    }

    fn sent(wish: &Wish<'_>, plans: &[Plan]) -> Vec<(u64, String, u64, bool)> {
        let owner = Account {
            name: "server".into(),
            address: Address::ZERO,
        };
        let steps = wish.steps(Address::ZERO, &owner, plans).into_iter();
        let call = |step: Step| match step.deed {
            Deed::Invoke { data, .. } => {
                let call = updatePlanCall::abi_decode(&data).unwrap();
                let (id, cents) = (call.planId.to(), call.pricePerDayUsdCents.to());
                (id, call.name, cents, call.active)
            }
            other => panic!("{other:?}"),
        };
        steps.map(call).collect()
    }

    #[test]
    fn what_is_so_already_is_not_sent_and_what_nobody_named_stays() {
        let plans = [plan(1, 50, true), plan(2, 70, false), plan(3, 90, true)];
        let all = Which {
            ids: vec![],
            all: true,
        };
        for (active, expected) in [
            (
                false,
                vec![(1, "p1".into(), 50, false), (3, "p3".into(), 90, false)],
            ),
            (true, vec![(2, "p2".into(), 70, true)]),
        ] {
            let which = &all;
            assert_eq!(sent(&Wish::Sold { which, active }, &plans), expected);
        }
        let name: PlanName = "tiny".parse().unwrap();
        for (name, cents, expected) in [
            (Some(&name), None, vec![(2, "tiny".into(), 70, false)]),
            (None, Some(71), vec![(2, "p2".into(), 71, false)]),
            (None, Some(70), vec![]),
        ] {
            let wish = Wish::Named { id: 2, name, cents };
            assert_eq!(sent(&wish, &plans[1..2]), expected);
        }
    }

    #[test]
    fn a_plan_that_is_named_twice_is_changed_once() {
        let which = &Which {
            ids: vec![3, 1, 3],
            all: false,
        };
        let wish = Wish::Sold {
            which,
            active: false,
        };
        assert_eq!(wish.ids(9), [1, 3]);
    }

    #[test]
    fn a_name_that_nobody_can_read_is_refused() {
        for bad in [
            "",
            " ",
            "a\nb",
            "\u{1b}[2J",
            "a\u{85}b",
            &"x".repeat(LONGEST_NAME + 1),
        ] {
            assert!(bad.parse::<PlanName>().is_err(), "{bad:?}");
        }
        for good in ["small", "Größer & mehr", &"x".repeat(LONGEST_NAME)] {
            assert_eq!(good.parse::<PlanName>().unwrap().as_str(), good);
        }
    }
}
