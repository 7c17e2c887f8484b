//! Several RPC endpoints as one: the configured order is the order of preference, a node on another chain id, one
//! that is behind or one that fails is passed over. URLs often carry an access key, so only host names are shown.

use super::transport::{Bounded, TooLarge};
use alloy::network::Ethereum;
use alloy::providers::{Provider, RootProvider};
use alloy::rpc::client::RpcClient;
use alloy::transports::{RpcError, TransportErrorKind};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

/// Error of one request, as alloy reports it.
pub type TransportError = RpcError<TransportErrorKind>;

/// A node may be this many blocks behind the best one and still be used.
pub const MAX_LAG_BLOCKS: u64 = 5;
/// How long a node that knows the head but failed at what was asked next stands behind the others.
const PASS_OVER: Duration = Duration::from_secs(60);
/// Characters of a node's own words that are repeated.
pub(super) const LONGEST_QUOTE: usize = 300;

/// Why the chain could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// Not a usable URL.
    #[error("RPC URL number {number} is not an http, https, ws or wss URL: {reason}")]
    BadUrl {
        /// Its place in the list, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// No URL is configured.
    #[error("no RPC URL is configured; set blockchain.rpc_url in web3-defaults.yaml")]
    NoUrl,
    /// Nobody to ask.
    #[error(
        "the configured RPC URLs are all websockets, which only tell of new blocks; add one with http or https to blockchain.rpc_urls in web3-defaults.yaml"
    )]
    OnlyWebsockets,
    /// The HTTP client could not be made.
    #[error("cannot set up the HTTP client: {0}")]
    Client(#[source] reqwest::Error),
    /// Every endpoint failed.
    #[error("{what}: no usable RPC endpoint for chain id {chain_id}: {reasons}")]
    NoEndpoint {
        /// What was asked.
        what: &'static str,
        /// The chain we want.
        chain_id: u64,
        /// Per endpoint, why not.
        reasons: String,
    },
    /// The node answered with an error: asking another one would not help.
    #[error("{what}: {host} refused: {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Which node.
        host: String,
        /// What it said, reverts decoded where they are ours.
        message: String,
        /// JSON-RPC error code.
        code: i64,
    },
    /// The node answered with something that cannot be.
    #[error("{what}: {detail}")]
    Unexpected {
        /// What was asked.
        what: &'static str,
        /// What came.
        detail: String,
    },
}

/// A node answered, and is not believed: another one is asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Incredible(pub String);

/// One RPC endpoint.
#[derive(Debug)]
pub struct Endpoint {
    host: String,
    provider: RootProvider<Ethereum>,
    verified: AtomicBool,
    passed_over: Mutex<Option<Instant>>,
}

impl Endpoint {
    /// Host name and port, without path, user and key.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The node behind it, for a series of requests that must see the same state.
    #[must_use]
    pub fn provider(&self) -> &RootProvider<Ethereum> {
        &self.provider
    }

    /// Lets the others come first for a while: this one knows the head and cannot do what it was asked.
    pub fn pass_over(&self) {
        *self.passed_over_at() = Some(Instant::now());
    }

    fn is_passed_over(&self) -> bool {
        self.passed_over_at()
            .is_some_and(|at| at.elapsed() < PASS_OVER)
    }

    fn passed_over_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.passed_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn verify(&self, chain_id: u64) -> Result<(), String> {
        if self.verified.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.provider.get_chain_id().await {
            Ok(found) if found == chain_id => {
                self.verified.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok(found) => Err(format!("is on chain id {found}")),
            Err(e) => Err(describe(&e)),
        }
    }
}

/// The chain, by way of its endpoints.
#[derive(Debug)]
pub struct Chain {
    chain_id: u64,
    endpoints: Vec<Endpoint>,
    current: AtomicUsize,
}

impl Chain {
    /// Prepares the endpoints; nothing is sent yet. Websockets among them are left to [`crate::heads`].
    ///
    /// # Errors
    /// [`ChainError::NoUrl`], [`ChainError::BadUrl`], [`ChainError::OnlyWebsockets`], [`ChainError::Client`].
    pub fn new(chain_id: u64, urls: &[String], timeout: Duration) -> Result<Self, ChainError> {
        install_tls_provider();
        if urls.is_empty() {
            return Err(ChainError::NoUrl);
        }
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(5)))
            // A node has no business sending us elsewhere, least of all to an address inside the host's network.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(ChainError::Client)?;
        let mut endpoints = Vec::with_capacity(urls.len());
        for (i, url) in urls.iter().enumerate() {
            let address = address(i + 1, url)?;
            if !address.is_websocket() {
                endpoints.push(endpoint(address, &client));
            }
        }
        if endpoints.is_empty() {
            return Err(ChainError::OnlyWebsockets);
        }
        Ok(Self {
            chain_id,
            endpoints,
            current: AtomicUsize::new(0),
        })
    }

    /// The chain id that every endpoint must have.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Asks every endpoint for its head and makes the first one that is on our chain and not behind the current one;
    /// those that were passed over last.
    ///
    /// # Errors
    /// [`ChainError::NoEndpoint`].
    pub async fn select(&self) -> Result<(&Endpoint, u64), ChainError> {
        let mut heads = Vec::with_capacity(self.endpoints.len());
        let mut reasons = Vec::new();
        let answers = self.endpoints.iter().map(|endpoint| async move {
            endpoint.verify(self.chain_id).await?;
            endpoint.provider.get_block_number().await.map_err(|e| {
                endpoint.verified.store(false, Ordering::Relaxed);
                describe(&e)
            })
        });
        for (i, answer) in join_all(answers).await.into_iter().enumerate() {
            match answer {
                Ok(head) => heads.push((i, head)),
                Err(reason) => reasons.push(format!("{} {reason}", self.endpoints[i].host)),
            }
        }
        let best = heads.iter().map(|(_, head)| *head).max();
        heads.retain(|(_, head)| {
            best.is_some_and(|best| head.saturating_add(MAX_LAG_BLOCKS) >= best)
        });
        let chosen = heads
            .iter()
            .find(|(i, _)| !self.endpoints[*i].is_passed_over())
            .or(heads.first())
            .copied();
        let Some((i, head)) = chosen else {
            return Err(self.exhausted("reading the head of the chain", reasons));
        };
        self.current.store(i, Ordering::Relaxed);
        Ok((&self.endpoints[i], head))
    }

    /// Sends one request: to the current endpoint, then to the others while it is the node and not the request that
    /// fails.
    ///
    /// # Errors
    /// [`ChainError::Refused`] when a node answered with an error, [`ChainError::NoEndpoint`] when none answered.
    pub async fn call<T, F, Fut>(&self, what: &'static str, request: F) -> Result<T, ChainError>
    where
        F: Fn(RootProvider<Ethereum>) -> Fut,
        Fut: Future<Output = Result<T, TransportError>>,
    {
        let first = self.current.load(Ordering::Relaxed);
        let mut reasons = Vec::new();
        for offset in 0..self.endpoints.len() {
            let i = (first + offset) % self.endpoints.len();
            let endpoint = &self.endpoints[i];
            if let Err(reason) = endpoint.verify(self.chain_id).await {
                reasons.push(format!("{} {reason}", endpoint.host));
                continue;
            }
            match request(endpoint.provider.clone()).await {
                Ok(value) => {
                    self.current.store(i, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(RpcError::ErrorResp(payload)) if !is_busy(payload.code, &payload.message) => {
                    return Err(ChainError::Refused {
                        what,
                        host: endpoint.host.clone(),
                        message: super::events::explain_revert(&payload),
                        code: payload.code,
                    });
                }
                Err(e) => {
                    endpoint.verified.store(false, Ordering::Relaxed);
                    reasons.push(format!("{} {}", endpoint.host, describe(&e)));
                }
            }
        }
        Err(self.exhausted(what, reasons))
    }

    fn exhausted(&self, what: &'static str, reasons: Vec<String>) -> ChainError {
        ChainError::NoEndpoint {
            what,
            chain_id: self.chain_id,
            reasons: reasons.join("; "),
        }
    }
}

/// Where an endpoint is.
#[derive(Debug, Clone)]
pub struct Address {
    /// Host name and port, without path, user and key: what may be shown.
    pub host: String,
    /// All of it.
    pub url: reqwest::Url,
}

impl Address {
    /// Whether it tells of new blocks instead of answering questions.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        matches!(self.url.scheme(), "ws" | "wss")
    }
}

/// Reads the configured URL in this place of the list, from 1.
///
/// # Errors
/// [`ChainError::BadUrl`].
pub fn address(number: usize, url: &str) -> Result<Address, ChainError> {
    let bad = |reason: String| ChainError::BadUrl { number, reason };
    let url: reqwest::Url = url.parse().map_err(|e| bad(format!("{e}")))?;
    if !matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
        return Err(bad(format!("its scheme is {:?}", url.scheme())));
    }
    let name = url.host_str().ok_or_else(|| bad("it has no host".into()))?;
    let host = url
        .port()
        .map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
    Ok(Address { host, url })
}

fn endpoint(address: Address, client: &reqwest::Client) -> Endpoint {
    let client = RpcClient::new(Bounded::new(client.clone(), address.url), false);
    Endpoint {
        host: address.host,
        provider: RootProvider::new(client),
        verified: AtomicBool::new(false),
        passed_over: Mutex::new(None),
    }
}

/// One sentence about a failed request that shows no URL.
#[must_use]
pub fn describe(error: &TransportError) -> String {
    match error {
        RpcError::Transport(TransportErrorKind::HttpError(e)) => {
            format!("answered with HTTP status {}", e.status)
        }
        RpcError::Transport(TransportErrorKind::Custom(e)) => {
            match e.downcast_ref::<reqwest::Error>() {
                Some(e) if e.is_timeout() => "did not answer in time".into(),
                Some(e) if e.is_connect() => "cannot be reached".into(),
                _ => match e.downcast_ref::<TooLarge>() {
                    Some(e) => format!("is of no use: {e}"),
                    None => match e.downcast_ref::<Incredible>() {
                        Some(e) => format!("is not believed: it {e}"),
                        None => "failed in transport".into(),
                    },
                },
            }
        }
        RpcError::Transport(_) => "failed in transport".into(),
        RpcError::ErrorResp(payload) => {
            let said: String = payload.message.chars().take(LONGEST_QUOTE).collect();
            format!("answered with error {}: {said}", payload.code)
        }
        RpcError::DeserError { err, .. } => format!("sent an answer that cannot be read: {err}"),
        RpcError::NullResp => "sent an empty answer".into(),
        // A contract that is none: the call has an answer, and nothing is in it.
        RpcError::LocalUsageError(e) => format!("gave no usable answer: {e}"),
        _ => "could not be asked".into(),
    }
}

/// Errors that mean "not now" or "not here": another node may answer.
fn is_busy(code: i64, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    matches!(code, 429 | -32005 | -32016)
        || (message.contains("rate") && message.contains("limit"))
        || message.contains("too many requests")
        || message.contains("header not found")
}

/// Waits for all futures, in order; there are only as many as RPC URLs.
async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pinned: Vec<_> = futures.map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        let mut waiting = false;
        for (future, slot) in &mut pinned {
            if slot.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *slot = Some(value),
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    pinned.into_iter().filter_map(|(_, slot)| slot).collect()
}

/// The HTTP client asks for one as soon as it is built, whatever it is for.
pub(crate) fn install_tls_provider() {
    static ONCE: Once = Once::new();
    // An error means that one is installed already, which is as good.
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_another_scheme_or_none_is_refused_without_being_shown() {
        for bad in ["ftp://user:secret@host", "secret", "http://", "ws://"] {
            let error = Chain::new(1, &[bad.to_owned()], Duration::from_secs(1))
                .unwrap_err()
                .to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(matches!(
            Chain::new(1, &[], Duration::from_secs(1)),
            Err(ChainError::NoUrl)
        ));
    }

    #[test]
    fn websockets_alone_are_not_enough_to_ask_and_beside_others_they_are_not_asked() {
        let urls = [
            "wss://node.example/key".to_owned(),
            "ws://[::1]:1/".to_owned(),
        ];
        let refused = Chain::new(1, &urls, Duration::from_secs(1)).unwrap_err();
        assert!(matches!(refused, ChainError::OnlyWebsockets), "{refused}");
        let mixed = [urls[0].clone(), "http://127.0.0.1:1".to_owned()];
        let chain = Chain::new(1, &mixed, Duration::from_secs(1)).unwrap();
        let hosts: Vec<_> = chain.endpoints.iter().map(Endpoint::host).collect();
        assert_eq!(hosts, ["127.0.0.1:1"]);
        // Numbered as they are written.
        let wrong = [urls[0].clone(), "gopher://x".to_owned()];
        let error = Chain::new(1, &wrong, Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("number 2"), "{error}");
    }

    #[tokio::test]
    async fn an_unreachable_node_is_named_by_host_without_its_key() {
        let chain = Chain::new(
            1,
            &["http://127.0.0.1:1/v2/secret-key".to_owned()],
            Duration::from_secs(1),
        )
        .unwrap();
        let error = chain.select().await.unwrap_err().to_string();
        assert!(
            error.contains("127.0.0.1:1") && !error.contains("secret-key"),
            "{error}"
        );
    }
}
