//! Being told of new blocks over a websocket, where a `ws:` or `wss:` endpoint is configured. What comes is a hint to look
//! now and nothing else: events are read and checked by [`crate::monitor`] over the other endpoints, which also looks by
//! itself every few seconds, so that a node that stalls, lies or floods can neither hide an event nor make one.

pub mod pace;
pub mod session;
pub mod socket;
pub mod state;

use crate::chain::ChainError;
use crate::chain::rpc::{Address, address, install_tls_provider};
use crate::daemon::jitter;
use crate::log;
use blockhost_proto::layout::Layout;
use pace::Told;
use socket::{Limits, Listener};
use state::State;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A subscription that lasted so long was a good one: the next attempt comes at once.
const LASTING: Duration = Duration::from_secs(60);
/// Between two notes of how often something was told.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// What watchers of the chain have of the subscription.
#[derive(Debug, Clone)]
pub struct Heads {
    told: watch::Receiver<Told>,
    seen: Arc<AtomicU64>,
}

impl Heads {
    /// What was told until now. Only what comes later ends [`Self::more`].
    pub fn told(&mut self) -> Told {
        *self.told.borrow_and_update()
    }

    /// Whether something was told since this was asked last.
    pub fn is_news(&mut self) -> bool {
        let news = self.told.has_changed().unwrap_or(false);
        if news {
            self.told.mark_unchanged();
        }
        news
    }

    /// Waits until something is told again; for ever where nobody tells any more.
    pub async fn more(&mut self) {
        if self.told.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What a look of our own saw.
    pub fn seen(&self, head: u64) {
        self.seen.store(head, Ordering::Relaxed);
    }
}

/// Listens to one of several endpoints.
#[derive(Debug)]
pub struct Subscriber {
    chain_id: u64,
    endpoints: Vec<Address>,
    limits: Limits,
    layout: Layout,
    told: watch::Sender<Told>,
    seen: Arc<AtomicU64>,
    state: State,
    noted: Option<Instant>,
    complained: bool,
    /// When the subscription was made that stands.
    made: Option<Instant>,
}

impl Subscriber {
    /// Prepares it; none where no such endpoint is configured.
    ///
    /// # Errors
    /// [`ChainError::BadUrl`].
    pub fn new(
        chain_id: u64,
        urls: &[String],
        layout: &Layout,
    ) -> Result<Option<Self>, ChainError> {
        let endpoints = endpoints(urls)?;
        if endpoints.is_empty() {
            return Ok(None);
        }
        install_tls_provider();
        Ok(Some(Self {
            chain_id,
            endpoints,
            limits: Limits::default(),
            layout: layout.clone(),
            told: watch::Sender::new(Told::default()),
            seen: Arc::default(),
            state: State::default(),
            noted: None,
            complained: false,
            made: None,
        }))
    }

    /// With other limits, for tests.
    #[must_use]
    pub fn limited(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// For somebody who watches the chain.
    #[must_use]
    pub fn heads(&self) -> Heads {
        Heads {
            told: self.told.subscribe(),
            seen: self.seen.clone(),
        }
    }

    /// Listens until the engine is to end, to the first endpoint of the list that lets it, the next when that one fails.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.listen() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.change(false, None);
    }

    async fn listen(&mut self) {
        let mut failures = 0_u32;
        let mut said = String::new();
        for number in (0..self.endpoints.len()).cycle() {
            let Address { host, url } = self.endpoints[number].clone();
            self.state.endpoint.clone_from(&host);
            self.made = None;
            let (chain_id, limits) = (self.chain_id, self.limits);
            let broken = socket::listen(url.as_str(), chain_id, limits, self).await;
            let lasted = self.made.is_some_and(|at| at.elapsed() >= LASTING);
            failures = if lasted {
                1
            } else {
                failures.saturating_add(1)
            };
            let problem = format!("{host} {broken}");
            // Once per reason: a node that is down for a night must not fill the disk.
            if lasted || problem != said {
                log::warn(
                    "a websocket does not tell of new blocks; looking at the chain as often as configured",
                    &[("problem", &problem)],
                );
                said.clone_from(&problem);
            }
            self.change(false, Some(problem));
            tokio::time::sleep(pace::pause(failures, self.endpoints.len(), jitter())).await;
        }
    }

    fn change(&mut self, connected: bool, problem: Option<String>) {
        if connected != self.state.connected || self.state.since.is_empty() {
            self.state.since = jiff::Timestamp::now().to_string();
        }
        self.state.connected = connected;
        self.state.problem = problem;
        self.note();
    }

    fn note(&mut self) {
        self.noted = Some(Instant::now());
        let stored = self.state.store(&self.layout);
        if let Err(e) = &stored
            && !self.complained
        {
            log::warn(
                "how the websocket stands cannot be written down",
                &[("file", &State::path(&self.layout).display()), ("error", e)],
            );
        }
        self.complained = stored.is_err();
    }
}

impl Listener for Subscriber {
    fn subscribed(&mut self) {
        self.made = Some(Instant::now());
        self.state.sessions += 1;
        log::info(
            "a websocket tells of new blocks",
            &[("host", &self.state.endpoint)],
        );
        self.change(true, None);
        // Something may have come while nobody told.
        self.told.send_modify(|told| told.times += 1);
    }

    fn told(&mut self, head: u64) {
        self.state.told += 1;
        self.told.send_modify(|told| {
            told.times += 1;
            told.head = head;
        });
    }

    fn beat(&mut self) -> u64 {
        if self.noted.is_none_or(|at| at.elapsed() >= NOTE_EVERY) {
            self.note();
        }
        self.seen.load(Ordering::Relaxed)
    }
}

/// Those of the configured endpoints that tell of new blocks, in order.
///
/// # Errors
/// [`ChainError::BadUrl`], with its place in the whole list.
pub fn endpoints(urls: &[String]) -> Result<Vec<Address>, ChainError> {
    let mut found = Vec::new();
    for (i, url) in urls.iter().enumerate() {
        let address = address(i + 1, url)?;
        if address.is_websocket() {
            found.push(address);
        }
    }
    Ok(found)
}
