//! The pipes between our own processes: framed JSON over socket pairs, never blocking. What is said on them is in the module
//! above.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use blockhost_proto::wire::{FrameDecoder, encode_frame};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest internal message, bytes: a response frame with room for escaping and the envelope.
pub const MAX_MESSAGE: usize = 8 << 20;

/// Bytes that may wait for the other side. Whoever lets more pile up has stopped reading.
const MAX_BACKLOG: usize = 64 << 20;

/// Bytes taken in one go, so that a side that never stops sending cannot keep the other from everything else.
const MAX_INTAKE: usize = 4 << 20;

/// Why a channel is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side is gone.
    #[error("the other side closed the channel")]
    Closed,
    /// The other side sent what no working process of ours sends.
    #[error("protocol violation: {0}")]
    Violation(String),
    /// A message of ours that does not fit; nothing was sent and the channel is as before.
    #[error("a message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// The kernel's error.
    #[error("channel: {0}")]
    Io(#[from] Errno),
}

/// One end of a socket pair: framed JSON, never blocking, with a buffer for what the other side has not taken yet.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    decoder: FrameDecoder,
    out: Vec<u8>,
    written: usize,
}

impl Channel {
    /// Wraps a connected stream socket; makes it non-blocking.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&socket)?;
        rustix::fs::fcntl_setfl(&socket, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self {
            socket,
            decoder: FrameDecoder::new(MAX_MESSAGE),
            out: Vec::new(),
            written: 0,
        })
    }

    /// Queues a message; [`Self::flush`] sends it.
    ///
    /// # Errors
    /// [`ChannelError::TooLong`] above [`MAX_MESSAGE`]; [`ChannelError::Violation`] when the other side has stopped
    /// reading.
    pub fn queue<M: Serialize>(&mut self, message: &M) -> Result<(), ChannelError> {
        let body =
            serde_json::to_vec(message).map_err(|e| ChannelError::Violation(e.to_string()))?;
        let frame = encode_frame(&body, MAX_MESSAGE).map_err(|_| ChannelError::TooLong)?;
        if self.backlog() > MAX_BACKLOG {
            let text = format!("{} bytes were not read", self.backlog());
            return Err(ChannelError::Violation(text));
        }
        if self.out.is_empty() {
            self.out = frame;
        } else {
            self.out.extend_from_slice(&frame);
        }
        Ok(())
    }

    /// Sends as much as the other side takes. True when nothing is left.
    ///
    /// # Errors
    /// [`ChannelError`] when the channel is dead.
    pub fn flush(&mut self) -> Result<bool, ChannelError> {
        while self.written < self.out.len() {
            match rustix::net::send(
                &self.socket,
                &self.out[self.written..],
                rustix::net::SendFlags::NOSIGNAL,
            ) {
                Ok(n) => self.written += n,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.out.shrink_to(64 << 10);
        self.written = 0;
        Ok(true)
    }

    /// Bytes waiting for the other side.
    pub fn backlog(&self) -> usize {
        self.out.len() - self.written
    }

    /// Reads what is there, up to a bound, and gives the whole messages. With `Closed` only once nothing is left to read.
    ///
    /// # Errors
    /// [`ChannelError`] when the channel is dead or the other side misbehaves.
    pub fn receive<M: DeserializeOwned>(
        &mut self,
        buffer: &mut [u8],
    ) -> Result<Vec<M>, ChannelError> {
        let mut messages = Vec::new();
        let mut taken = 0;
        loop {
            let n = match rustix::net::recv(
                &self.socket,
                &mut *buffer,
                rustix::net::RecvFlags::empty(),
            ) {
                Ok((0, _)) | Err(Errno::CONNRESET) if messages.is_empty() => {
                    return Err(ChannelError::Closed);
                }
                Ok((0, _)) | Err(Errno::AGAIN | Errno::CONNRESET) => return Ok(messages),
                Ok((n, _)) => n,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            self.decoder.feed(&buffer[..n]);
            while let Some(frame) = self
                .decoder
                .next_frame()
                .map_err(|e| ChannelError::Violation(e.to_string()))?
            {
                messages.push(
                    serde_json::from_slice(&frame)
                        .map_err(|e| ChannelError::Violation(e.to_string()))?,
                );
            }
            taken += n;
            if n < buffer.len() || taken >= MAX_INTAKE {
                return Ok(messages);
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A pair of connected stream sockets for a [`Channel`].
///
/// # Errors
/// The kernel's.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}
