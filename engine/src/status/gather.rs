//! Reads the parts side by side, each within a few seconds.

use super::{
    AccountPart, AgentPart, BrokerPart, ChainPart, HeadsPart, JobsPart, LedgerPart, Part,
    PlansPart, ReconcilePart, SpacePart, Status,
};
use crate::anchor::alarm::Standing;
use crate::anchor::local;
use crate::broker::kept::Kept;
use crate::broker::run;
use crate::chain::{Chain, plans};
use crate::config::{Config, NetworkConfig, SetupError};
use crate::heads::{self, state::State};
use crate::machines::Machines;
use crate::outbox::Outbox;
use crate::reconcile::report::Report;
use alloy::primitives::utils::format_ether;
use alloy::providers::Provider as _;
use blockhost_ledger::merkle::hex;
use blockhost_proto::action::{Action, AgentInfo};
use blockhost_proto::client::tokio::Client;
use blockhost_proto::layout::Layout;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a part may take.
const LIMIT: Duration = Duration::from_secs(5);

async fn within<T>(what: impl Future<Output = Result<T, String>>) -> Part<T> {
    match tokio::time::timeout(LIMIT, what).await {
        Ok(result) => result.into(),
        Err(_) => Part::Unknown {
            error: format!("no answer within {} s", LIMIT.as_secs()),
        },
    }
}

/// Reads everything.
pub async fn status(layout: &Layout) -> Status {
    let config = Config::load(layout).map_err(SetupError::from);
    let outbox = outbox(layout);
    let outbox = outbox.as_ref().map(Option::as_ref);
    let of_chain = async {
        match &config {
            Ok(config) => match config.chain() {
                Ok(chain) => tokio::join!(
                    within(chain_part(config, &chain, &outbox)),
                    within(account(config, &chain)),
                    within(plans_part(config, &chain))
                ),
                Err(e) => all_three(&e.to_string()),
            },
            Err(e) => all_three(&e.to_string()),
        }
    };
    let ((chain, account, plans), agent, machines) = tokio::join!(
        of_chain,
        within(agent(layout)),
        within(async {
            Machines::new(layout)
                .inventory()
                .await
                .map_err(|e| e.to_string())
        })
    );
    let heads = config
        .as_ref()
        .map_or(Ok(None), |config| heads_part(config, layout));
    // What an engine of before left is no alarm where nothing is anchored any more.
    let anchored = (config.as_ref())
        .is_ok_and(|config| config.web3.blockchain.ledger_anchor_contract.is_some());
    let anchor = match anchored {
        true => Standing::load(layout),
        false => Ok(None),
    };
    Status {
        at: jiff::Timestamp::now().to_string(),
        version: blockhost_proto::VERSION,
        engine_running: Outbox::is_in_use(&Outbox::path(layout)).into(),
        chain,
        plans,
        heads: heads.into(),
        account,
        agent,
        jobs: outbox.map_err(Clone::clone).and_then(jobs).into(),
        machines,
        ledger: ledger(layout).into(),
        anchor: anchor.into(),
        space: space(layout).into(),
        broker: broker(layout).into(),
        reconcile: Report::load(layout)
            .map(|report| {
                report.map(|report| ReconcilePart {
                    looked_at: report.looked_at,
                    findings: report
                        .findings
                        .into_iter()
                        .map(|entry| entry.text)
                        .collect(),
                })
            })
            .into(),
    }
}

fn all_three<A, B, C>(error: &str) -> (Part<A>, Part<B>, Part<C>) {
    let error = || error.to_owned();
    (
        Part::Unknown { error: error() },
        Part::Unknown { error: error() },
        Part::Unknown { error: error() },
    )
}

/// The outbox; none before there ever was an engine.
fn outbox(layout: &Layout) -> Result<Option<Outbox>, String> {
    let path = Outbox::path(layout);
    if !path.exists() {
        return Ok(None);
    }
    let opened = Outbox::open_beside(&path);
    opened.map(Some).map_err(|e| e.to_string())
}

async fn chain_part(
    config: &Config,
    chain: &Chain,
    outbox: &Result<Option<&Outbox>, &String>,
) -> Result<ChainPart, String> {
    let contract = config.subscription_contract().map_err(|e| e.to_string())?;
    let (node, head) = chain.select().await.map_err(|e| e.to_string())?;
    // Where there is no outbox, nothing was read; what is wrong with one is said about the jobs.
    let processed = match outbox {
        Ok(Some(outbox)) => outbox
            .cursor(chain.chain_id(), contract)
            .map_err(|e| e.to_string())?
            .map(|cursor| cursor.number),
        Ok(None) | Err(_) => None,
    };
    Ok(ChainPart {
        chain_id: chain.chain_id(),
        endpoint: node.host().to_owned(),
        head,
        confirmations: config.confirmations(),
        processed,
    })
}

async fn plans_part(config: &Config, chain: &Chain) -> Result<PlansPart, String> {
    let contract = config.subscription_contract().map_err(|e| e.to_string())?;
    let all = plans::all(chain, contract).await;
    let all = all.map_err(|e| e.to_string())?;
    let open = all.iter().filter(|plan| plan.active).count();
    Ok(PlansPart {
        open,
        closed: all.len() - open,
    })
}

/// What the engine wrote down of its subscription.
fn heads_part(config: &Config, layout: &Layout) -> Result<Option<HeadsPart>, String> {
    let configured = heads::endpoints(&config.web3.blockchain.urls());
    if configured.map_err(|e| e.to_string())?.is_empty() {
        return Ok(None);
    }
    let state = State::load(layout).map_err(|e| e.to_string())?;
    let state = state.unwrap_or_default();
    let since = state.since.parse().map_or(0, |since| {
        let passed = jiff::Timestamp::now().duration_since(since);
        passed.as_secs().max(0)
    });
    Ok(Some(HeadsPart {
        connected: state.connected,
        endpoint: state.endpoint,
        since_s: since,
        told: state.told,
        sessions: state.sessions,
        problem: state.problem,
    }))
}

async fn account(config: &Config, chain: &Chain) -> Result<AccountPart, String> {
    let wallet = config.deployer().map_err(|e| e.to_string())?;
    let address = wallet.address();
    let balance = chain
        .call("reading a balance", |node| async move {
            node.get_balance(address).await
        })
        .await
        .map_err(|e| e.to_string())?;
    Ok(AccountPart {
        address: address.to_string(),
        // More than there is of it in the world: a node that says so is believed to be rich, no more.
        balance_wei: u128::try_from(balance).unwrap_or(u128::MAX),
        balance_ether: format_ether(balance),
    })
}

async fn agent(layout: &Layout) -> Result<AgentPart, String> {
    let mut client = Client::connect_layout(layout)
        .await
        .map_err(|e| e.to_string())?;
    let reply = client
        .call(&Action::AgentInfo(AgentInfo {}))
        .await
        .map_err(|e| e.to_string())?;
    let text = |key: &str| {
        reply
            .extra
            .get(key)
            .and_then(|v| v.as_str())
            .unwrap_or("?")
            .to_owned()
    };
    let counters = reply.extra.get("counters");
    let count = |name: &str| {
        counters
            .and_then(|c| c.get(name))
            .and_then(serde_json::Value::as_u64)
    };
    Ok(AgentPart {
        version: text("version"),
        backend: text("backend"),
        uptime_s: reply
            .extra
            .get("uptime_s")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(0),
        requests: ["succeeded", "failed", "refused"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), count(name)?)))
            .collect(),
    })
}

fn jobs(outbox: Option<&Outbox>) -> Result<JobsPart, String> {
    let Some(outbox) = outbox else {
        return Ok(JobsPart::default());
    };
    let counts = outbox.counts().map_err(|e| e.to_string())?;
    Ok(JobsPart {
        by_state: counts
            .by_state
            .into_iter()
            .map(|(state, n)| (state.to_string(), n))
            .collect::<BTreeMap<_, _>>(),
        oldest_open_s: counts.oldest_open.map(|age| age.as_secs()),
    })
}

fn broker(layout: &Layout) -> Result<Option<BrokerPart>, String> {
    let Some(kept) = Kept::load(layout).map_err(|e| e.to_string())? else {
        return Ok(None);
    };
    // A broken file says so in another part; a lease that has ended is told in any case.
    let section = NetworkConfig::load(&Config::network_path(layout));
    let section = section.ok().and_then(|(config, _)| config.broker);
    let lease_s = section.map_or(0, |section| section.lease_s);
    Ok(Some(BrokerPart {
        prefix: kept.prefix.to_string(),
        lease_until: run::ends(&kept),
        tunnel_up: match kept.far_end() {
            Some(_) => Some(run::is_up().map_err(|e| e.to_string())?),
            None => None,
        },
        complaint: kept.complaint(run::now(), lease_s),
    }))
}

/// The file systems of all that grows. What is not there, or not ours to see, does not fill up under us.
fn space(layout: &Layout) -> Result<Vec<SpacePart>, String> {
    use rustix::io::Errno;
    let places = [
        ("state", layout.state()),
        ("ledger", layout.ledger()),
        ("machines", layout.state().join("qm-storage")),
        ("containers", layout.containers()),
    ];
    let mut all = Vec::new();
    for (name, path) in places {
        match rustix::fs::statvfs(&path) {
            Ok(found) => all.push(SpacePart {
                name,
                path: path.display().to_string(),
                size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
                free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            }),
            Err(Errno::NOENT | Errno::ACCESS) => {}
            Err(e) => return Err(format!("{}: {e}", path.display())),
        }
    }
    Ok(all)
}

fn ledger(layout: &Layout) -> Result<LedgerPart, String> {
    let head = local::published(&layout.ledger()).map_err(|e| e.to_string())?;
    let head = head.ok_or("nothing is published yet")?;
    Ok(LedgerPart {
        origin: head.origin,
        size: head.size,
        root: hex(&head.root),
    })
}
