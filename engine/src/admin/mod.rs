//! Commands that administrators send as transactions: encrypted to the host, signed by the wallet in `blockhost.yaml`,
//! each carried out once. So far they knock: ports open for a while, and close on every way out. Reading is [`read`]'s,
//! the decision [`message`]'s and [`knocks`]'; here it is asked of the agent and put on record.

pub mod knocks;
pub mod login;
pub mod message;
pub mod read;
pub mod store;

use crate::chain::{Address, Chain, ChainError};
use crate::config::AdminSection;
use crate::crypto::ecies;
use crate::crypto::keys::PrivateKey;
use crate::heads::Heads;
use crate::outbox::now_ms;
use crate::{agent, log};
use blockhost_proto::action::{Action, IptablesClose, IptablesOpen};
use blockhost_proto::client::CallError;
use blockhost_proto::client::tokio::Client;
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::Comment;
use knocks::{Knocks, MOST_AT_ONCE, Rule};
use message::{Commands, Message, Refusal};
use read::{Filter, ReadError, Reader, Sent};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use store::{Store, StoreError};
use tokio::sync::watch;

/// Between two looks at clocks and logins.
const TICK: Duration = Duration::from_secs(1);
/// How long closing may take when the engine ends.
const CLOSING_LIMIT: Duration = Duration::from_secs(20);
/// What marks our rules.
const COMMENT: &str = "blockhost-knock";

/// Why administration cannot begin, or a look did not end well.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The file of commands.
    #[error("{path}: {reason}", path = .path.display())]
    Commands {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What must survive.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The endpoints.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// One of them.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The agent.
    #[error("{what}: {source}")]
    Agent {
        /// What was asked.
        what: String,
        /// What came of it.
        source: CallError,
    },
}

/// What administration needs of the host.
#[derive(Debug)]
pub struct Ground {
    /// Where everything lies.
    pub layout: Layout,
    /// The chain, with nodes of its own choosing.
    pub chain: Arc<Chain>,
    /// The key that commands are encrypted to.
    pub server_key: PrivateKey,
    /// The administrator's wallet.
    pub wallet: Address,
    /// How it is configured.
    pub settings: AdminSection,
    /// Between two looks at the chain.
    pub poll: Duration,
    /// What tells of new blocks in between.
    pub heads: Option<Heads>,
}

/// Carries out what administrators send.
#[derive(Debug)]
pub struct Administration {
    ground: Ground,
    commands: Commands,
    filter: Filter,
    store: Store,
    reader: Reader,
    knocks: Knocks,
    /// Rules that the agent refused: not asked for again while their knocks last.
    refused: BTreeSet<Rule>,
}

/// What a look found.
struct Looked {
    /// How far the chain is read with it.
    reader: Reader,
    /// What an administrator sent.
    sent: Vec<Sent>,
    /// That there is nothing more.
    caught_up: bool,
}

/// A look that is under way.
type Looking = Pin<Box<dyn Future<Output = Result<Looked, AdminError>> + Send>>;

/// Waits for the end of a look; for ever where there is none.
async fn end_of(looking: &mut Option<Looking>) -> Result<Looked, AdminError> {
    match looking {
        Some(looking) => looking.await,
        None => std::future::pending().await,
    }
}

/// `/etc/blockhost/admin-commands.json`.
#[must_use]
pub fn commands_path(layout: &Layout) -> PathBuf {
    layout.etc().join("admin-commands.json")
}

/// Reads the commands that this host knows; none where there is no file.
///
/// # Errors
/// [`AdminError::Commands`].
pub fn load_commands(layout: &Layout) -> Result<Commands, AdminError> {
    let path = commands_path(layout);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Commands::default()),
        Err(e) => {
            return Err(AdminError::Commands {
                path,
                reason: e.to_string(),
            });
        }
    };
    Commands::parse(&text).map_err(|e| AdminError::Commands {
        path,
        reason: e.to_string(),
    })
}

impl Administration {
    /// Prepares it. Nothing is opened or closed yet.
    ///
    /// # Errors
    /// [`AdminError::Commands`], [`AdminError::Store`].
    pub fn new(ground: Ground) -> Result<Self, AdminError> {
        let filter = Filter {
            from: ground.wallet,
            to: ground
                .settings
                .destination(ground.wallet, ground.server_key.public_key().address()),
            chain_id: ground.chain.chain_id(),
        };
        Ok(Self {
            commands: load_commands(&ground.layout)?,
            store: Store::open(&ground.layout)?,
            ground,
            filter,
            reader: Reader::default(),
            knocks: Knocks::default(),
            refused: BTreeSet::new(),
        })
    }

    /// Closes what an earlier engine left open, then looks until the engine is to end, and closes everything. However long
    /// nodes take to answer, ports close in their time.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut said = Said::default();
        let mut next_look = Instant::now();
        let mut looking = None;
        while !*stop.borrow() {
            match self.settle().await {
                Ok(()) => said.agent.clear(),
                Err(e) => said.once("ports of knocks", &e, |s| &mut s.agent),
            }
            if looking.is_none() {
                let told = self.ground.heads.as_mut().is_some_and(Heads::is_news);
                if told || next_look <= Instant::now() {
                    looking = Some(self.look());
                }
            }
            let looked = tokio::select! {
                () = tokio::time::sleep(TICK) => None,
                _ = stop.wait_for(|stop| *stop) => None,
                looked = end_of(&mut looking) => Some(looked),
            };
            let Some(looked) = looked else {
                continue;
            };
            looking = None;
            next_look = Instant::now() + self.ground.poll;
            match self.take_in(looked).await {
                Ok(true) => said.chain.clear(),
                // More is there than one look takes.
                Ok(false) => next_look = Instant::now(),
                Err(e) => said.once("administrators' commands cannot be read", &e, |s| {
                    &mut s.chain
                }),
            }
        }
        drop(looking);
        self.knocks.close_all();
        let closing = async {
            while let Err(e) = self.settle().await {
                said.once("ports of knocks", &e, |s| &mut s.agent);
                tokio::time::sleep(TICK).await;
            }
        };
        if tokio::time::timeout(CLOSING_LIMIT, closing).await.is_err() {
            log::error(
                "ports that knocks opened are still open; the next start closes them",
                &[],
            );
        }
    }

    /// Begins to read new blocks.
    fn look(&self) -> Looking {
        let oldest =
            (now_ms() / 1000).saturating_sub_unsigned(self.ground.settings.max_command_age);
        // A block is made after what is in it, and clocks of chains are coarse.
        let oldest = u64::try_from(oldest.saturating_sub(900)).unwrap_or(0);
        let (chain, filter, mut reader) = (self.ground.chain.clone(), self.filter, self.reader);
        Box::pin(async move {
            let (node, head) = chain.select().await?;
            let sent = reader.look(node, head, &filter, oldest).await?;
            Ok(Looked {
                caught_up: reader.is_at(head),
                reader,
                sent,
            })
        })
    }

    /// Lets in what may be let in. False when there is more to read.
    ///
    /// # Errors
    /// [`AdminError`]. The next look begins at the same place: what was heard already is known by its nonce.
    async fn take_in(&mut self, looked: Result<Looked, AdminError>) -> Result<bool, AdminError> {
        let looked = looked?;
        for sent in &looked.sent {
            self.hear(sent).await?;
        }
        self.reader = looked.reader;
        Ok(looked.caught_up)
    }

    async fn hear(&mut self, sent: &Sent) -> Result<(), AdminError> {
        let Ok(plain) = ecies::decrypt(&self.ground.server_key, &sent.data) else {
            // Not for this host: administrators send other transactions too.
            return Ok(());
        };
        let now = now_ms() / 1000;
        let decided = match Message::parse(&plain) {
            Err(refusal) => Err((None, refusal)),
            Ok(message) => self
                .decide(&message, sent, now)
                .map_err(|refusal| (Some(message.command), refusal)),
        };
        match decided {
            // Blocks are read again after a restart.
            Err((_, Refusal::Replayed)) => Ok(()),
            Err((_, refusal @ Refusal::Old { .. })) => {
                log::info(
                    "an administrator's command is too old",
                    &[("transaction", &sent.tx_hash), ("reason", &refusal)],
                );
                Ok(())
            }
            Err((command, refusal)) => {
                log::warn(
                    "an administrator's command is refused",
                    &[("transaction", &sent.tx_hash), ("reason", &refusal)],
                );
                self.note(
                    sent,
                    "admin-command-refused",
                    &json!({"command": command, "reason": refusal.to_string()}),
                )
                .await;
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Ok(Ok(knock)) => {
                log::info(
                    "an administrator knocks",
                    &[("transaction", &sent.tx_hash), ("command", &knock.command)],
                );
                let data = json!({
                    "command": knock.command,
                    "ports": knock.ports,
                    "proto": knock.proto,
                    "source": knock.source,
                    "duration_s": knock.duration.as_secs(),
                });
                self.note(sent, "admin-command", &data).await;
                self.knocks.open(knock, Instant::now(), SystemTime::now());
                Ok(())
            }
        }
    }

    /// Decides about a message. Its nonce is used up, for good, before anything is done; one that is refused for its age or
    /// its command uses none.
    fn decide(
        &self,
        message: &Message,
        sent: &Sent,
        now: i64,
    ) -> Result<Result<message::Knock, AdminError>, Refusal> {
        message.check_age(now, self.ground.settings.max_command_age)?;
        let knock = message.knock(&self.commands)?;
        if self.knocks.len() >= MOST_AT_ONCE {
            return Err(Refusal::TooMany(MOST_AT_ONCE));
        }
        match self
            .store
            .use_nonce(&message.nonce, &sent.tx_hash.to_string(), now)
        {
            Ok(true) => Ok(Ok(knock)),
            Ok(false) => Err(Refusal::Replayed),
            Err(error) => Ok(Err(error.into())),
        }
    }

    async fn note(&self, sent: &Sent, action: &str, data: &serde_json::Value) {
        let mut data = data.clone();
        data["tx"] = json!(sent.tx_hash.to_string());
        data["block"] = json!(sent.block);
        let resource = format!("wallet:{}", self.ground.wallet);
        if let Err(e) = agent::record(&self.ground.layout, action, &resource, data).await {
            log::error(
                "an administrator's command could not be recorded",
                &[("error", &e)],
            );
        }
    }

    /// Makes the firewall as the knocks want it: first closes what is to be closed, then opens.
    ///
    /// # Errors
    /// [`AdminError`]; what is left is done at the next tick.
    async fn settle(&mut self) -> Result<(), AdminError> {
        let login = login::read(&self.ground.layout);
        let mut wanted = self.knocks.rules(Instant::now(), SystemTime::now(), login);
        self.refused.retain(|rule| wanted.contains(rule));
        wanted.retain(|rule| !self.refused.contains(rule));
        let standing = self.store.rules()?;
        if wanted == standing {
            return Ok(());
        }
        // Narrow before closing the wide one: a session that is just beginning goes on.
        let narrow = |rule: &&Rule| rule.source.is_some();
        let opening: BTreeSet<&Rule> = wanted.difference(&standing).collect();
        for rule in opening.iter().filter(|rule| narrow(rule)) {
            self.open(rule).await?;
        }
        for rule in standing.difference(&wanted) {
            self.close(rule).await?;
        }
        for rule in opening.iter().filter(|rule| !narrow(rule)) {
            self.open(rule).await?;
        }
        Ok(())
    }

    async fn open(&mut self, rule: &Rule) -> Result<(), AdminError> {
        self.store.about_to_open(rule)?;
        let action = Action::IptablesOpen(IptablesOpen {
            port: rule.port,
            proto: rule.proto,
            comment: comment(),
            source: rule.source,
        });
        match self.ask(&action).await {
            Ok(()) => Ok(()),
            Err(source @ CallError::Refused { .. }) => {
                // It does not stand and will not: asking every second would fill the ledger.
                self.store.closed(rule)?;
                self.refused.insert(rule.clone());
                Err(self.failed("opening", rule, source))
            }
            Err(source) => Err(self.failed("opening", rule, source)),
        }
    }

    async fn close(&self, rule: &Rule) -> Result<(), AdminError> {
        let action = Action::IptablesClose(IptablesClose {
            port: rule.port,
            proto: rule.proto,
            comment: comment(),
            source: rule.source,
        });
        match self.ask(&action).await {
            Ok(()) => {}
            Err(CallError::Refused {
                code: ErrorCode::NotFound,
                ..
            }) => {}
            Err(source) => return Err(self.failed("closing", rule, source)),
        }
        Ok(self.store.closed(rule)?)
    }

    async fn ask(&self, action: &Action) -> Result<(), CallError> {
        let mut client = Client::connect_layout(&self.ground.layout).await?;
        client.call(action).await.map(drop)
    }

    fn failed(&self, what: &str, rule: &Rule, source: CallError) -> AdminError {
        AdminError::Agent {
            what: format!("{what} port {}/{}", rule.port, rule.proto),
            source,
        }
    }
}

fn comment() -> Comment {
    COMMENT
        .parse()
        .expect("a word of small letters and a dash is a comment")
}

/// What was said in the log and is still so.
#[derive(Debug, Default)]
struct Said {
    chain: String,
    agent: String,
}

impl Said {
    fn once(&mut self, what: &str, error: &AdminError, of: impl FnOnce(&mut Self) -> &mut String) {
        let last = of(self);
        if *last != error.to_string() {
            *last = error.to_string();
            log::error(what, &[("error", &last)]);
        }
    }
}
