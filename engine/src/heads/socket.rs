//! One connection to one endpoint, from the handshake to whatever ends it. Bounded in every way: in size, in messages a
//! second, in how long a node may be silent. What is said is [`super::session`]'s.

use super::pace::Pulse;
use super::session::{Breach, Heard, Session};
use futures_util::{SinkExt, StreamExt};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::{Instant as TokioInstant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// A block's header has some 2 kB; some chains put more into it.
const LARGEST_MESSAGE: usize = 256 << 10;
/// What may wait to be sent: two requests and answers to pings.
const LARGEST_BACKLOG: usize = 64 << 10;
/// Frames that are read in a second. What comes faster waits with the sender.
const FRAMES_A_SECOND: u32 = 200;

/// How long what may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first packet to the accepted subscription, and for each message that is sent.
    pub answer: Duration,
    /// Between two pings.
    pub beat: Duration,
    /// Without a frame, be it the answer to a ping.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(15),
            beat: Duration::from_secs(20),
            silence: Duration::from_secs(50),
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// What was said.
    #[error("{0}")]
    Breach(#[from] Breach),
    /// It takes too long.
    #[error("did not answer in time")]
    Late,
    /// The other side has gone.
    #[error("closed the connection")]
    Closed,
    /// Nothing comes, not even the answer to a ping.
    #[error("is silent")]
    Silent,
    /// Blocks come and it says nothing.
    #[error("does not tell of blocks that are there")]
    Stalled,
    /// A message, or an announcement of one, beyond every header.
    #[error("sent a message that is too large")]
    TooLarge,
    /// No websocket.
    #[error("answered with HTTP status {0}")]
    Http(u16),
    /// Reaching it, encryption, or the protocol.
    #[error("{0}")]
    Transport(String),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        match error {
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Closed,
            Error::Capacity(_) => Self::TooLarge,
            Error::Http(response) => Self::Http(response.status().as_u16()),
            Error::Io(e) => match e.kind() {
                std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::UnexpectedEof => {
                    Self::Closed
                }
                // Without what was asked for: a URL often holds a key.
                _ => Self::Transport(format!("cannot be reached: {e}")),
            },
            Error::Protocol(e) => Self::Transport(format!("broke the protocol: {e}")),
            Error::Url(e) => Self::Transport(format!("has no usable URL: {e}")),
            _ => Self::Transport("failed in transport".into()),
        }
    }
}

/// Who hears of what comes over a connection.
pub trait Listener {
    /// The subscription stands. Something may have happened before it did.
    fn subscribed(&mut self);
    /// There is a new block, it is said.
    fn told(&mut self, head: u64);
    /// A moment to do other things; gives the newest block that our own looks saw.
    fn beat(&mut self) -> u64;
}

/// Connects, subscribes, and listens until something ends it.
pub async fn listen(
    url: &str,
    chain_id: u64,
    limits: Limits,
    listener: &mut impl Listener,
) -> Broken {
    let end = async {
        let config = WebSocketConfig::default()
            .max_message_size(Some(LARGEST_MESSAGE))
            .max_frame_size(Some(LARGEST_MESSAGE))
            .max_write_buffer_size(LARGEST_BACKLOG)
            .write_buffer_size(0);
        let connecting = connect_async_with_config(url, Some(config), true);
        let (socket, _) = within(limits.answer, connecting).await?;
        Talk {
            socket,
            session: Session::new(chain_id),
            limits,
            began: Instant::now(),
            heard: Instant::now(),
            pulse: Pulse::default(),
            times: 0,
        }
        .run(listener)
        .await
    };
    match end.await {
        Ok(never) => match never {},
        Err(broken) => broken,
    }
}

async fn within<T>(
    limit: Duration,
    what: impl Future<Output = Result<T, Error>>,
) -> Result<T, Broken> {
    match timeout(limit, what).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Broken::Late),
    }
}

struct Talk {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Session,
    limits: Limits,
    began: Instant,
    heard: Instant,
    pulse: Pulse,
    /// How often it told of a block.
    times: u64,
}

impl Talk {
    async fn run(
        mut self,
        listener: &mut impl Listener,
    ) -> Result<std::convert::Infallible, Broken> {
        let first = Message::text(self.session.begin());
        self.send(first).await?;
        let mut beats = interval_at(TokioInstant::now() + self.limits.beat, self.limits.beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut throttle = Throttle::new();
        loop {
            let greeted = self.session.is_subscribed();
            let patience = self.limits.answer.saturating_sub(self.began.elapsed());
            tokio::select! {
                frame = self.socket.next() => {
                    let frame = frame.ok_or(Broken::Closed)??;
                    self.heard = Instant::now();
                    self.take(frame, listener).await?;
                    throttle.frame().await;
                }
                _ = beats.tick() => self.beat(listener).await?,
                () = tokio::time::sleep(patience), if !greeted => return Err(Broken::Late),
            }
        }
    }

    async fn take(&mut self, frame: Message, listener: &mut impl Listener) -> Result<(), Broken> {
        let heard = match frame {
            Message::Text(text) => self.session.heard(&text)?,
            Message::Binary(_) => self.session.heard_bytes()?,
            Message::Close(_) => return Err(Broken::Closed),
            // Pings are answered below us.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Heard::Nothing,
        };
        match heard {
            Heard::Nothing => {}
            Heard::Ask(request) => self.send(Message::text(request)).await?,
            Heard::Subscribed => listener.subscribed(),
            Heard::Head(head) => {
                self.times += 1;
                listener.told(head);
            }
        }
        Ok(())
    }

    async fn beat(&mut self, listener: &mut impl Listener) -> Result<(), Broken> {
        if self.heard.elapsed() > self.limits.silence {
            return Err(Broken::Silent);
        }
        let head = listener.beat();
        if self.session.is_subscribed() && self.pulse.beat(head, self.times) {
            return Err(Broken::Stalled);
        }
        self.send(Message::Ping(Vec::new().into())).await
    }

    /// A node that does not read must not hold us up.
    async fn send(&mut self, message: Message) -> Result<(), Broken> {
        within(self.limits.answer, self.socket.send(message)).await
    }
}

/// Lets what floods us wait with its sender, where it fills their memory and not ours.
struct Throttle {
    since: Instant,
    frames: u32,
}

impl Throttle {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            frames: 0,
        }
    }

    async fn frame(&mut self) {
        const WINDOW: Duration = Duration::from_secs(1);
        self.frames += 1;
        let elapsed = self.since.elapsed();
        if elapsed < WINDOW && self.frames < FRAMES_A_SECOND {
            return;
        }
        if self.frames >= FRAMES_A_SECOND {
            tokio::time::sleep(WINDOW.saturating_sub(elapsed)).await;
        }
        *self = Self::new();
    }
}
