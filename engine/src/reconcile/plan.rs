//! What contract, credentials and database say about each subscription, held side by side: which of them has to follow
//! another, and what only a person can decide. Pure; looking is [`super::observe`]'s, doing [`super::repair`]'s.

use crate::chain::Address;
use crate::machines::machine_name;
use blockhost_provisioner::record::Status;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A subscription as the contract has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// Until when it is paid, seconds since 1970.
    pub expires_at: i64,
    /// Its owner or ours ended it.
    pub cancelled: bool,
}

/// What is known of a machine's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// No transaction of this engine's journal minted it: which token is the machine's cannot be proved.
    Unproven,
    /// This engine minted it, and its transaction is no longer on the chain.
    TakenBack {
        /// The job that minted.
        job: i64,
    },
    /// In a block that may still go.
    Young,
    /// This engine's transaction made this token.
    Minted {
        /// Its number.
        token: u64,
        /// Whose it is; none when it was burnt.
        owner: Option<Address>,
    },
}

/// A machine of a subscription as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Where it is in its life.
    pub status: Status,
    /// Until when it runs, seconds since 1970.
    pub expires_at: i64,
    /// Who may enter it.
    pub wallet: Option<Address>,
    /// Its token.
    pub token: Option<u64>,
    /// Whether the guest was told wallet and token.
    pub guest_knows: bool,
    /// It is on this host. What is on another one of those that share the database is left to that one.
    pub here: bool,
    /// It did not run, by two lists of the agent in a row, although it is recorded as active.
    pub down: bool,
}

/// A job that is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenJob {
    /// Its number.
    pub id: i64,
    /// Whether it goes on.
    pub stands: Stands,
}

/// Whether a job goes on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// It runs, or does so soon.
    Runs,
    /// It, or one before it, waits for the chain, for cheaper gas, for a server: nobody knows how long.
    Waits,
    /// It, or one before it, waits for a person.
    Parked,
}

/// Everything that is compared, all of one block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Now, seconds since 1970: by this host's clock or by the block, as which is later. What is paid by both is paid.
    pub now: i64,
    /// How many subscriptions were ever bought: ids run from 1 to this.
    pub bought: u64,
    /// Those that were looked at.
    pub subscriptions: BTreeMap<u64, Subscription>,
    /// Machines that carry the name of a subscription, by its id.
    pub machines: BTreeMap<u64, Machine>,
    /// Credentials of machines that are not destroyed.
    pub credentials: BTreeMap<u64, Credential>,
    /// The oldest open job of each subscription that has one.
    pub open: BTreeMap<u64, OpenJob>,
}

/// Something that does not fit together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Finding {
    /// Which subscription.
    pub subscription: u64,
    /// Its machine's name.
    pub vm_name: String,
    /// What.
    #[serde(flatten)]
    pub problem: Problem,
}

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub enum Problem {
    /// The credential went to another wallet: the machine follows.
    OwnerChanged {
        /// The credential.
        token: u64,
        /// Its owner now.
        wallet: Address,
        /// Whether the guest can be told.
        running: bool,
    },
    /// The guest does not know its owner yet.
    GuestBehind {
        /// The credential.
        token: u64,
        /// Its owner.
        wallet: Address,
    },
    /// A reorganisation took the minting transaction away: it is sent again.
    MintTakenBack {
        /// The job that minted.
        job: i64,
    },
    /// The database names another token than the one that was minted.
    TokenDiffers {
        /// What the database says.
        recorded: Option<u64>,
        /// What was minted.
        token: u64,
    },
    /// The contract names another end than the database.
    ExpiryDiffers {
        /// What the database says, seconds since 1970.
        recorded: i64,
        /// What the contract says.
        expires_at: i64,
        /// Whether the machine is suspended although it is paid.
        resume: bool,
    },
    /// A machine is suspended although it is paid, and the database says so: a resume failed.
    NotResumed {
        /// Until when it is paid, seconds since 1970.
        expires_at: i64,
    },
    /// An active machine does not run.
    NotRunning,
    /// A machine runs that nobody holds a credential of.
    NoCredential,
    /// The credential was burnt.
    Burnt {
        /// Which.
        token: u64,
    },
    /// The subscription was cancelled, the machine is there.
    Cancelled,
    /// The contract has no such subscription.
    NoSubscription,
    /// A paid subscription has no machine.
    NoMachine {
        /// The job that waits for a decision, if there is one.
        job: Option<i64>,
    },
}

impl Finding {
    /// Whether the engine mends it by itself. Nothing is destroyed and nothing is given away that way.
    #[must_use]
    pub const fn is_repaired(&self) -> bool {
        matches!(
            self.problem,
            Problem::OwnerChanged { .. }
                | Problem::GuestBehind { .. }
                | Problem::MintTakenBack { .. }
                | Problem::TokenDiffers { .. }
                | Problem::ExpiryDiffers { .. }
                | Problem::NotResumed { .. }
        )
    }

    /// Whether it is mended although a job of the subscription stands still: the paid time must not run out meanwhile. It
    /// gives and takes nothing, whatever becomes of the job.
    #[must_use]
    pub const fn cannot_wait(&self) -> bool {
        match self.problem {
            Problem::ExpiryDiffers {
                recorded,
                expires_at,
                ..
            } => expires_at > recorded,
            Problem::NotResumed { .. } => true,
            _ => false,
        }
    }

    /// Whether it is left to a job of its subscription.
    #[must_use]
    pub fn is_left_to(&self, job: OpenJob) -> bool {
        match job.stands {
            Stands::Runs => true,
            Stands::Waits => !self.cannot_wait(),
            // What waits for a person is not mended behind their back.
            Stands::Parked => {
                !self.cannot_wait()
                    && !matches!(
                        self.problem,
                        Problem::Cancelled
                            | Problem::NoSubscription
                            | Problem::NoMachine { .. }
                            | Problem::NotRunning
                    )
            }
        }
    }

    /// One sentence for a person: what it is and, where the engine leaves it alone, what to do.
    #[must_use]
    pub fn sentence(&self) -> String {
        let (name, id) = (&self.vm_name, self.subscription);
        match &self.problem {
            Problem::OwnerChanged { token, wallet, .. } => {
                format!("token {token} of {name} belongs to {wallet} now")
            }
            Problem::GuestBehind { token, wallet } => {
                format!("the guest of {name} was not told that {wallet} holds token {token}")
            }
            Problem::MintTakenBack { job } => {
                format!(
                    "the credential of {name} is no longer on the chain; job {job} mints it again"
                )
            }
            Problem::TokenDiffers { recorded, token } => match recorded {
                Some(recorded) => {
                    format!("{name} is recorded with token {recorded}; it was minted as {token}")
                }
                None => format!("{name} is recorded without its token {token}"),
            },
            Problem::ExpiryDiffers {
                recorded,
                expires_at,
                ..
            } => format!(
                "{name} is recorded as paid until {}, the contract says {}",
                moment(*recorded),
                moment(*expires_at)
            ),
            Problem::NotResumed { expires_at } => format!(
                "{name} is suspended although it is paid until {}: it is resumed; where that fails, the log of blockhost-engine says why",
                moment(*expires_at)
            ),
            Problem::NotRunning => format!(
                "{name} is recorded as active and does not run: blockhost-vm-start {name}, or see its console log"
            ),
            Problem::NoCredential => format!(
                "nobody holds a credential of {name}; see `blockhost jobs` for its purchase, or mint one with blockhost-mint-nft"
            ),
            Problem::Burnt { token } => format!(
                "token {token} of {name} was burnt; the machine runs until its subscription {id} ends"
            ),
            Problem::Cancelled => format!(
                "subscription {id} was cancelled and {name} is there; look at it, then: blockhost-vm-destroy {name}"
            ),
            Problem::NoSubscription => format!(
                "{name} is there, the contract has no subscription {id}; was the contract exchanged in web3-defaults.yaml?"
            ),
            Problem::NoMachine { job: Some(job) } => format!(
                "subscription {id} is paid and has no machine; job {job} waits for you: blockhost jobs show {job}"
            ),
            Problem::NoMachine { job: None } => format!(
                "subscription {id} is paid and has no machine, and no job will make one; where `blockhost jobs` does not know its purchase, read that again: blockhost jobs read --from BLOCK, with the block of the purchase; else refund"
            ),
        }
    }
}

fn moment(seconds: i64) -> String {
    blockhost_provisioner::time::Time::from_unix(seconds).to_string()
}

/// All that does not fit, by subscription, but for what is left to a job.
#[must_use]
pub fn compare(seen: &Observed) -> Vec<Finding> {
    let ids: BTreeSet<u64> = seen
        .machines
        .keys()
        .chain(seen.subscriptions.keys())
        .copied()
        .collect();
    let mut findings = Vec::new();
    for id in ids {
        let living = seen
            .machines
            .get(&id)
            .filter(|machine| machine.status != Status::Destroyed);
        let problems = match living {
            Some(machine) if machine.here => of_machine(seen, id, machine),
            Some(_) => Vec::new(),
            None => of_nothing(seen, id),
        };
        let found = problems.into_iter().map(|problem| Finding {
            subscription: id,
            vm_name: machine_name(id),
            problem,
        });
        let job = seen.open.get(&id);
        findings.extend(found.filter(|finding| job.is_none_or(|job| !finding.is_left_to(*job))));
    }
    findings
}

/// Paid, and no machine.
fn of_nothing(seen: &Observed, id: u64) -> Vec<Problem> {
    let paid = seen
        .subscriptions
        .get(&id)
        .is_some_and(|s| !s.cancelled && s.expires_at > seen.now);
    let job = seen.open.get(&id).map(|job| job.id);
    if paid {
        vec![Problem::NoMachine { job }]
    } else {
        Vec::new()
    }
}

fn of_machine(seen: &Observed, id: u64, machine: &Machine) -> Vec<Problem> {
    if id == 0 || id > seen.bought {
        return vec![Problem::NoSubscription];
    }
    let Some(subscription) = seen.subscriptions.get(&id) else {
        return Vec::new();
    };
    if subscription.cancelled {
        return vec![Problem::Cancelled];
    }
    let mut problems = Vec::new();
    if subscription.expires_at != machine.expires_at {
        problems.push(Problem::ExpiryDiffers {
            recorded: machine.expires_at,
            expires_at: subscription.expires_at,
            resume: machine.status == Status::Suspended && subscription.expires_at > seen.now,
        });
    } else if machine.status == Status::Suspended && subscription.expires_at > seen.now {
        problems.push(Problem::NotResumed {
            expires_at: subscription.expires_at,
        });
    }
    let running = machine.status == Status::Active;
    if running && machine.down {
        problems.push(Problem::NotRunning);
    }
    match seen.credentials.get(&id) {
        Some(Credential::TakenBack { job }) => problems.push(Problem::MintTakenBack { job: *job }),
        Some(Credential::Minted { token, .. }) if machine.token != Some(*token) => {
            problems.push(Problem::TokenDiffers {
                recorded: machine.token,
                token: *token,
            });
        }
        Some(Credential::Minted { token, owner: None }) => {
            problems.push(Problem::Burnt { token: *token });
        }
        Some(Credential::Minted {
            token,
            owner: Some(owner),
        }) => {
            let (token, wallet) = (*token, *owner);
            if machine.wallet != Some(wallet) {
                problems.push(Problem::OwnerChanged {
                    token,
                    wallet,
                    running,
                });
            } else if running && !machine.guest_knows {
                problems.push(Problem::GuestBehind { token, wallet });
            }
        }
        Some(Credential::Unproven) if machine.token.is_none() => {
            problems.push(Problem::NoCredential);
        }
        Some(Credential::Young | Credential::Unproven) | None => {}
    }
    problems
}

#[cfg(test)]
mod tests;
