//! The daemon: one task watches the chain, up to so many work on jobs, and a signal ends both in good order.

use crate::admin::{AdminError, Administration, Ground};
use crate::alone::{self, NotAlone};
use crate::anchor::{AnchorError, Anchorer};
use crate::chain::ChainError;
use crate::config::{Config, LOCAL_CHAIN_ID, SetupError};
use crate::funds::Manager;
use crate::handler::{self, Context, StepError};
use crate::heads::pace::{LEAST_PAUSE, Pace, Told};
use crate::heads::{Heads, Subscriber};
use crate::holds::Holds;
use crate::machines::Machines;
use crate::manifest::{Manifest, ManifestError};
use crate::monitor::{Monitor, MonitorError, Progress, Start};
use crate::network::accounts::Accounts;
use crate::network::confirm::recover;
use crate::outbox::{Job, Outbox, OutboxError, Retry};
use crate::reconcile::Reconciler;
use crate::seen::Seen;
use crate::sending::Sender;
use crate::status::serve;
use crate::{log, notify};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

const DEFAULT_POLL: Duration = Duration::from_secs(5);
/// An operator's retry comes from another process: the outbox is looked at again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// How long running jobs may go on after the signal; the unit waits a little longer.
const STOP_LIMIT: Duration = Duration::from_secs(300);

/// Why the daemon could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Configuration, keys, contracts.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The provisioner.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// Another engine works with the machines' database.
    #[error(transparent)]
    NotAlone(#[from] NotAlone),
    /// Signals.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// Administrators' commands.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A look at the chain failed, with `--once`.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// A look at ledger and anchor failed, with `--once`.
    #[error("anchoring the ledger: {0}")]
    Anchor(#[from] AnchorError),
    /// Jobs are left, with `--once`.
    #[error("{0} jobs are parked or wait for another attempt; see `blockhost jobs`")]
    Unfinished(usize),
}

impl From<ChainError> for DaemonError {
    fn from(error: ChainError) -> Self {
        Self::Setup(error.into())
    }
}

/// Runs until a signal, or with `once` until the chain is processed and every job that is due was tried.
///
/// # Errors
/// [`DaemonError`].
pub async fn run(config: Config, once: bool) -> Result<(), DaemonError> {
    for warning in &config.warnings {
        log::warn("configuration", &[("problem", warning)]);
    }
    let (stop_sender, stop) = watch::channel(false);
    let stopping = Arc::new(stop_sender);
    listen(stopping.clone())?;
    tokio::spawn(recover::at_start(config.layout.clone()));
    let (context, monitor) = prepare(&config, stop.clone())?;
    let anchorer = anchorer(&config, &context);
    log::info(
        "engine started",
        &[
            ("version", &blockhost_proto::VERSION),
            ("chain_id", &context.chain.chain_id()),
            ("account", &context.wallet().address()),
            ("provisioner", &context.manifest.name),
        ],
    );
    notify::state("READY=1");
    let ended = if once {
        match alone::take(&context.machines, &mut stop.clone()).await {
            Ok(_held) => process_once(context, monitor, anchorer).await,
            Err(e) => Err(e.into()),
        }
    } else {
        serve(context, monitor, anchorer, &config, stopping).await
    };
    notify::state("STOPPING=1");
    ended
}

/// The chain as it is watched, and the note of how far.
struct Watched {
    monitor: Monitor,
    seen: Seen,
}

impl Watched {
    async fn look(&mut self, context: &Context) -> Result<Progress, MonitorError> {
        let progress = self.monitor.look(&context.chain).await?;
        // Until then, what was noted before is earlier, which takes nothing from anybody.
        if progress.caught_up {
            self.seen.note(&context.chain, &context.outbox).await;
        }
        Ok(progress)
    }
}

fn prepare(
    config: &Config,
    stop: watch::Receiver<bool>,
) -> Result<(Arc<Context>, Watched), DaemonError> {
    let layout = config.layout.clone();
    let outbox = Arc::new(Outbox::open(&Outbox::path(&layout))?);
    let chain = &config.web3.blockchain;
    let start = match chain.start_block {
        Some(block) => Start::Block(block),
        // Short and all there: no need to search.
        None if chain.chain_id == LOCAL_CHAIN_ID => Start::Block(0),
        None => Start::Deployment,
    };
    let range = chain.log_range();
    let contract = config.subscription_contract()?;
    let monitor = Watched {
        monitor: Monitor::new(
            contract,
            config.confirmations(),
            start,
            range,
            outbox.clone(),
        ),
        seen: Seen::new(layout.clone(), contract),
    };
    let context = Context {
        chain: config.chain()?,
        nft_contract: config.nft_contract()?,
        manifest: Manifest::load(&layout)?,
        machines: Machines::new(&layout),
        server_key: config.server_key().map_err(SetupError::from)?,
        sender: Sender::new(config.deployer().map_err(SetupError::from)?, layout.state()),
        settings: config.host.engine.clone(),
        holds: Holds::default(),
        outbox,
        layout,
        stop,
    };
    Ok((Arc::new(context), monitor))
}

/// Where an administrator's wallet is configured, its commands are carried out.
fn administration(
    config: &Config,
    heads: Option<Heads>,
) -> Result<Option<Administration>, DaemonError> {
    let Some(wallet) = config.host.admin.wallet_address else {
        return Ok(None);
    };
    let ground = Ground {
        layout: config.layout.clone(),
        chain: Arc::new(config.chain()?),
        server_key: config.server_key().map_err(SetupError::from)?,
        wallet,
        settings: config.host.admin,
        poll: poll_of(config),
        heads,
    };
    Ok(Some(Administration::new(ground)?))
}

fn poll_of(config: &Config) -> Duration {
    let seconds = config.web3.blockchain.poll_interval_s;
    seconds.map_or(DEFAULT_POLL, |s| Duration::from_secs(s.max(1)))
}

/// Where a contract is configured, the ledger is anchored.
fn anchorer(config: &Config, context: &Arc<Context>) -> Option<Anchorer> {
    let contract = config.web3.blockchain.ledger_anchor_contract?;
    let (confirmations, settings) = (config.confirmations(), config.host.ledger_anchor);
    Some(Anchorer::new(
        context.clone(),
        contract,
        confirmations,
        settings,
    ))
}

fn listen(stop: Arc<watch::Sender<bool>>) -> Result<(), DaemonError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        log::info("stopping: no new jobs, running steps end", &[]);
        // Fails only when everybody who could listen is gone.
        let _ = stop.send(true);
    });
    Ok(())
}

async fn process_once(
    context: Arc<Context>,
    mut monitor: Watched,
    anchorer: Option<Anchorer>,
) -> Result<(), DaemonError> {
    while !monitor.look(&context).await?.caught_up {}
    let retry = retry_of(&context);
    while !*context.stop.borrow() {
        let Some(job) = context.outbox.claim()? else {
            break;
        };
        attempt(&context, &job, retry).await?;
    }
    if let Some(mut anchorer) = anchorer {
        anchorer.look().await?;
    }
    let open = context
        .outbox
        .list(None, 10_000)?
        .into_iter()
        .filter(|job| {
            use crate::outbox::JobState;
            matches!(job.state, JobState::Pending | JobState::Parked)
        });
    match open.count() {
        0 => Ok(()),
        left => Err(DaemonError::Unfinished(left)),
    }
}

async fn serve(
    context: Arc<Context>,
    monitor: Watched,
    anchorer: Option<Anchorer>,
    config: &Config,
    stopping: Arc<watch::Sender<bool>>,
) -> Result<(), DaemonError> {
    let stop = stopping.subscribe();
    let poll = poll_of(config);
    let news = Arc::new(Notify::new());
    let blockchain = &config.web3.blockchain;
    let subscriber = Subscriber::new(blockchain.chain_id, &blockchain.urls(), &config.layout)?;
    let heads = subscriber.as_ref().map(Subscriber::heads);
    let watching = tokio::spawn(watch_chain(
        context.clone(),
        monitor,
        (poll, heads.clone()),
        news.clone(),
        stop.clone(),
    ));
    let subscribing = subscriber.map(|subscriber| tokio::spawn(subscriber.run(stop.clone())));
    let reconciler = Reconciler::new(
        context.clone(),
        config.subscription_contract()?,
        config.confirmations(),
        Duration::from_secs(config.host.reconcile.every_s),
    );
    let administering = administration(config, heads)?
        .map(|administration| tokio::spawn(administration.run(stop.clone())));
    let measuring = (config.host.metrics.listen)
        .map(|address| tokio::spawn(serve::run(address, context.layout.clone())));
    let accounting = config.network.flow_stats.map(|settings| {
        tokio::spawn(Accounts::new(context.layout.clone()).run(settings, stop.clone()))
    });
    let funds = Manager::new(config.clone(), context.outbox.clone(), stop.clone())?;
    // Whatever signs, or changes what hosts may share, only in the one engine: two would pay out the same money and take each
    // other's nonces. What is above only reads, or acts on this host alone.
    let worked = match alone::take(&context.machines, &mut stop.clone()).await {
        Ok(held) => {
            let keeping = held.map(|held| {
                let machines = context.machines.clone();
                tokio::spawn(alone::keep(machines, held, stopping.clone()))
            });
            let reconciling = tokio::spawn(reconciler.run(news.clone()));
            let anchoring = anchorer.map(|anchorer| tokio::spawn(anchorer.run()));
            let funds = tokio::spawn(funds.run());
            let worked = work(&context, &news, stop).await;
            // Like a crash, and as harmless: each repair is right at every step.
            reconciling.abort();
            // Like the rest: an order that is under way is gone on with at the next start.
            funds.abort();
            if let Some(anchoring) = anchoring {
                // Like a crash, and as harmless: what is signed is in the journal.
                anchoring.abort();
            }
            if let Some(keeping) = keeping {
                keeping.abort();
            }
            worked
        }
        Err(e) => Err(e.into()),
    };
    // Also where it ended without a signal, by an error.
    let _ = stopping.send(true);
    watching.abort();
    if let Some(subscribing) = subscribing {
        subscribing.abort();
    }
    if let Some(measuring) = measuring {
        measuring.abort();
    }
    if let Some(accounting) = accounting {
        // What came since the last look is not recorded; the next start begins anew.
        accounting.abort();
    }
    if let Some(administering) = administering {
        // It closes what it opened, within its own time.
        let _ = administering.await;
    }
    log::info("engine stopped", &[]);
    worked
}

async fn watch_chain(
    context: Arc<Context>,
    mut monitor: Watched,
    (poll, mut heads): (Duration, Option<Heads>),
    news: Arc<Notify>,
    mut stop: watch::Receiver<bool>,
) {
    let mut last_error = String::new();
    let mut pace = Pace::new(poll);
    while !*stop.borrow() {
        // Before the look: what is told from here on is looked for by the next one.
        let told = heads.as_mut().map_or_else(Told::default, Heads::told);
        let pause = match monitor.look(&context).await {
            Ok(progress) => {
                if !last_error.is_empty() {
                    log::info("the chain answers again", &[]);
                    last_error.clear();
                }
                if progress.new_jobs > 0 {
                    news.notify_one();
                }
                if let Some(heads) = &heads {
                    heads.seen(progress.head);
                }
                if progress.caught_up {
                    Some(pace.after(told, Some(progress.head)))
                } else {
                    // Not at once: two nodes may tell two histories for a while.
                    progress.rolled_back.map(|_| poll.min(LEAST_PAUSE))
                }
            }
            Err(e) => {
                // Once per reason: a node that is down for a night must not fill the disk.
                if e.to_string() != last_error {
                    last_error = e.to_string();
                    log::error("looking at the chain", &[("error", &last_error)]);
                }
                Some(pace.after(told, None))
            }
        };
        if let Some(pause) = pause {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told_again(heads.as_mut(), poll) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
    }
}

/// Waits until a look is asked for: at most one a second, however often nodes speak.
async fn told_again(heads: Option<&mut Heads>, poll: Duration) {
    let Some(heads) = heads else {
        return std::future::pending().await;
    };
    tokio::time::sleep(LEAST_PAUSE.min(poll)).await;
    heads.more().await;
}

async fn work(
    context: &Arc<Context>,
    news: &Notify,
    mut stop: watch::Receiver<bool>,
) -> Result<(), DaemonError> {
    let retry = retry_of(context);
    let workers = context.settings.workers.max(1);
    let mut running: JoinSet<Result<(), OutboxError>> = JoinSet::new();
    while !*stop.borrow() {
        while running.len() < workers {
            let Some(job) = context.outbox.claim()? else {
                break;
            };
            let context = context.clone();
            running.spawn(async move { attempt(&context, &job, retry).await });
        }
        // A job that waits behind a running one shows as due; looking again at once would only spin.
        let due = context
            .outbox
            .next_due()?
            .unwrap_or(Duration::MAX)
            .clamp(Duration::from_millis(250), LOOK_AGAIN);
        tokio::select! {
            Some(ended) = running.join_next() => settled(ended)?,
            () = news.notified() => {}
            () = tokio::time::sleep(due), if running.len() < workers => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
    let drain = async {
        while let Some(ended) = running.join_next().await {
            settled(ended)?;
        }
        Ok(())
    };
    tokio::time::timeout(STOP_LIMIT, drain).await.unwrap_or_else(|_| {
        log::error("steps still running at the end of the time; they go on where they stopped at the next start", &[]);
        Ok(())
    })
}

fn settled(
    ended: Result<Result<(), OutboxError>, tokio::task::JoinError>,
) -> Result<(), DaemonError> {
    match ended {
        Ok(done) => Ok(done?),
        // The job stays `running` and becomes pending at the next start.
        Err(e) => {
            log::error("a job broke off", &[("error", &e)]);
            Ok(())
        }
    }
}

/// One attempt at one job, and the note of how it ended.
async fn attempt(context: &Context, job: &Job, retry: Retry) -> Result<(), OutboxError> {
    let (event, subscription) = (job.event.name(), job.event.subscription_id());
    let _held = match subscription {
        0 => None,
        id => Some(context.holds.hold(id).await),
    };
    log::info(
        "job",
        &[
            ("job", &job.id),
            ("event", &event),
            ("subscription", &subscription),
            ("attempt", &job.attempt),
        ],
    );
    match handler::handle(context, job).await {
        Ok(()) => {
            context.outbox.finish(job.id)?;
            log::info(
                "job done",
                &[
                    ("job", &job.id),
                    ("event", &event),
                    ("subscription", &subscription),
                ],
            );
        }
        Err(StepError::Stopped) => context.outbox.put_back(job.id)?,
        Err(StepError::Waiting(reason)) => {
            // Meanwhile others have their turn; then it is looked for, and replaced where that is due.
            let pause = Duration::from_secs(context.settings.replace_after_s);
            context.outbox.wait(job.id, pause, &reason)?;
            log::warn("job waits", &[("job", &job.id), ("reason", &reason)]);
        }
        Err(StepError::Park(reason)) => {
            context.outbox.park(job.id, &reason)?;
            log::error("job parked", &[("job", &job.id), ("reason", &reason)]);
        }
        Err(StepError::NotNow(reason)) => {
            // As it is now: a step that was done since began to count anew.
            let waits = context.outbox.show(job.id)?.waits;
            let pause = retry.wait(waits, jitter());
            context.outbox.wait(job.id, pause, &reason)?;
            log::warn(
                "job waits",
                &[
                    ("job", &job.id),
                    ("in_s", &pause.as_secs()),
                    ("reason", &reason),
                ],
            );
        }
        Err(StepError::Retry(reason)) => match retry.pause(job.attempt, jitter()) {
            Some(pause) => {
                context.outbox.postpone(job.id, pause, &reason)?;
                log::warn(
                    "job failed, will be tried again",
                    &[
                        ("job", &job.id),
                        ("in_s", &pause.as_secs()),
                        ("reason", &reason),
                    ],
                );
            }
            None => {
                context.outbox.park(job.id, &reason)?;
                log::error(
                    "job parked after its last attempt",
                    &[("job", &job.id), ("reason", &reason)],
                );
            }
        },
    }
    Ok(())
}

fn retry_of(context: &Context) -> Retry {
    Retry {
        max_attempts: context.settings.max_attempts.max(1),
        first: Duration::from_secs(context.settings.first_retry_s),
    }
}

/// Between 0 and 1; the middle where the kernel has no random number.
pub(crate) fn jitter() -> f64 {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).map_or(0.5, |()| {
        f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX)
    })
}
