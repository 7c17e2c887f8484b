//! The asynchronous client, for the engine. The same calls as [`super::blocking`], on a tokio runtime with I/O and time
//! enabled. Dropping a call's future half-way leaves the connection marked as broken.

use std::path::Path;
use std::time::Duration;

use ::tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ::tokio::net::UnixStream;
use ::tokio::time::{sleep, timeout as within};

use super::{
    CONNECT_TIMEOUT, CallError, MAX_ANSWER, Reply, default_timeout, frame, not_taken, result_of,
    short_path,
};
use crate::action::Action;
use crate::layout::Layout;
use crate::wire::FrameDecoder;

/// Between two attempts to connect to an agent that has more to accept than it can keep.
const CONNECT_AGAIN: Duration = Duration::from_millis(20);

/// One connection to the agent.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    decoder: FrameDecoder,
    next_id: u64,
    broken: bool,
}

impl Client {
    /// Connects to the socket at `path`, within [`CONNECT_TIMEOUT`].
    ///
    /// # Errors
    /// [`CallError::Connect`].
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self, CallError> {
        let path = path.as_ref();
        let (short, _directory) =
            short_path(path).map_err(|source| CallError::connect(path, source))?;
        let stream = within(CONNECT_TIMEOUT, stream_to(&short))
            .await
            .unwrap_or_else(|_| Err(not_taken(CONNECT_TIMEOUT)))
            .map_err(|source| CallError::connect(path, source))?;
        Ok(Self {
            stream,
            decoder: FrameDecoder::new(MAX_ANSWER),
            next_id: 1,
            broken: false,
        })
    }

    /// Connects to the agent of this world.
    ///
    /// # Errors
    /// [`CallError::Connect`].
    pub async fn connect_layout(layout: &Layout) -> Result<Self, CallError> {
        Self::connect(layout.agent_socket()).await
    }

    /// Asks and waits, as long as the action may take.
    ///
    /// # Errors
    /// [`CallError`]; after anything but [`CallError::Refused`] connect anew.
    pub async fn call(&mut self, action: &Action) -> Result<Reply, CallError> {
        self.call_with_timeout(action, default_timeout(action))
            .await
    }

    /// Asks and waits for at most `timeout`.
    ///
    /// # Errors
    /// [`CallError`]; after anything but [`CallError::Refused`] connect anew.
    pub async fn call_with_timeout(
        &mut self,
        action: &Action,
        timeout: Duration,
    ) -> Result<Reply, CallError> {
        within(timeout, self.exchange(action, false))
            .await
            .unwrap_or(Err(CallError::Timeout { after: timeout }))
    }

    /// Asks what would be done: the agent validates and authorises, and does nothing.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn dry_run(&mut self, action: &Action) -> Result<Reply, CallError> {
        let timeout = default_timeout(action);
        within(timeout, self.exchange(action, true))
            .await
            .unwrap_or(Err(CallError::Timeout { after: timeout }))
    }

    async fn exchange(&mut self, action: &Action, dry_run: bool) -> Result<Reply, CallError> {
        if self.broken {
            return Err(CallError::protocol(
                "an earlier call broke off; connect anew",
            ));
        }
        let id = self.next_id;
        let bytes = frame(action, id, dry_run)?;
        self.next_id += 1;
        // Set until the answer is here: this future may be dropped at any await.
        self.broken = true;
        let written = self.stream.write_all(&bytes).await;
        // The agent may have answered before it closed, so a failed write still reads.
        let payload = match (self.payload().await, written) {
            (Ok(payload), _) => payload,
            (Err(_), Err(error)) => return Err(CallError::protocol(error.to_string())),
            (Err(error), Ok(())) => return Err(error),
        };
        let result = result_of(&payload, id)?;
        self.broken = false;
        result
    }

    async fn payload(&mut self) -> Result<Vec<u8>, CallError> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            if let Some(payload) = self
                .decoder
                .next_frame()
                .map_err(|e| CallError::protocol(e.to_string()))?
            {
                return Ok(payload);
            }
            match self.stream.read(&mut buffer).await {
                Ok(0) => return Err(CallError::protocol("the agent closed it without an answer")),
                Ok(n) => self.decoder.feed(&buffer[..n]),
                Err(error) => return Err(CallError::protocol(error.to_string())),
            }
        }
    }
}

/// Connects. With a full backlog the kernel has nobody wait who does not block, and tells nobody when there is room.
async fn stream_to(path: &Path) -> std::io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                sleep(CONNECT_AGAIN).await;
            }
            other => return other,
        }
    }
}

/// One call on a connection of its own.
///
/// # Errors
/// [`CallError`].
pub async fn call_once(layout: &Layout, action: &Action) -> Result<Reply, CallError> {
    Client::connect_layout(layout).await?.call(action).await
}
