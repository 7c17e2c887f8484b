//! The blocking client: for commands and for everything that has no runtime.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::{
    CONNECT_TIMEOUT, CallError, MAX_ANSWER, Reply, default_timeout, frame, not_taken, result_of,
    short_path,
};
use crate::action::Action;
use crate::layout::Layout;
use crate::wire::FrameDecoder;

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
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, CallError> {
        Self::connect_within(path.as_ref(), CONNECT_TIMEOUT)
    }

    fn connect_within(path: &Path, limit: Duration) -> Result<Self, CallError> {
        let connect = || {
            let (short, _directory) = short_path(path)?;
            stream_to(&short, limit)
        };
        let stream = connect().map_err(|source| CallError::connect(path, source))?;
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
    pub fn connect_layout(layout: &Layout) -> Result<Self, CallError> {
        Self::connect(layout.agent_socket())
    }

    /// Asks and waits, as long as the action may take.
    ///
    /// # Errors
    /// [`CallError`]; after anything but [`CallError::Refused`] connect anew.
    pub fn call(&mut self, action: &Action) -> Result<Reply, CallError> {
        self.call_with_timeout(action, default_timeout(action))
    }

    /// Asks and waits for at most `timeout`.
    ///
    /// # Errors
    /// [`CallError`]; after anything but [`CallError::Refused`] connect anew.
    pub fn call_with_timeout(
        &mut self,
        action: &Action,
        timeout: Duration,
    ) -> Result<Reply, CallError> {
        self.ask(action, false, timeout)
    }

    /// Asks what would be done: the agent validates and authorises, and does nothing.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn dry_run(&mut self, action: &Action) -> Result<Reply, CallError> {
        self.ask(action, true, default_timeout(action))
    }

    /// Asks for it, or with `dry_run` what would be done, and waits for at most `timeout`.
    ///
    /// # Errors
    /// [`CallError`]; after anything but [`CallError::Refused`] connect anew.
    pub fn ask(
        &mut self,
        action: &Action,
        dry_run: bool,
        timeout: Duration,
    ) -> Result<Reply, CallError> {
        let deadline = Deadline::new(timeout);
        let id = self.send(action, dry_run, deadline)?;
        self.receive(id, deadline)?
    }

    /// Sends all at once and gives the answers in the same order. At most 16 are under way at a time, half of what the
    /// agent allows per connection.
    ///
    /// # Errors
    /// The outer error means that the connection broke: answers not received are lost, the ledger knows what happened.
    pub fn call_all(
        &mut self,
        actions: &[Action],
        timeout: Duration,
    ) -> Result<Vec<Result<Reply, CallError>>, CallError> {
        let deadline = Deadline::new(timeout);
        let mut results = Vec::with_capacity(actions.len());
        for batch in actions.chunks(16) {
            let ids = batch
                .iter()
                .map(|action| self.send(action, false, deadline))
                .collect::<Result<Vec<_>, _>>()?;
            for id in ids {
                results.push(self.receive(id, deadline)?);
            }
        }
        Ok(results)
    }

    fn send(
        &mut self,
        action: &Action,
        dry_run: bool,
        deadline: Deadline,
    ) -> Result<u64, CallError> {
        if self.broken {
            return Err(CallError::protocol(
                "an earlier call broke off; connect anew",
            ));
        }
        let id = self.next_id;
        let bytes = frame(action, id, dry_run)?;
        self.next_id += 1;
        self.broken = true;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            self.stream
                .set_write_timeout(Some(deadline.left()?))
                .map_err(|e| io(&e))?;
            match self.stream.write(rest) {
                Ok(0) => return Err(CallError::protocol("the agent closed it")),
                Ok(n) => rest = &rest[n..],
                Err(e) if retry(&e) => {}
                // The agent may have answered before it closed, for instance that there are too many connections.
                Err(e)
                    if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
                {
                    return Err(self.last_words(deadline, &e));
                }
                Err(e) => return Err(io(&e)),
            }
        }
        self.broken = false;
        Ok(id)
    }

    fn last_words(&mut self, deadline: Deadline, error: &std::io::Error) -> CallError {
        match self
            .payload(deadline)
            .and_then(|payload| result_of(&payload, 0))
        {
            Err(refused @ CallError::Refused { .. })
            | Ok(Err(refused @ CallError::Refused { .. })) => refused,
            _ => io(error),
        }
    }

    fn receive(
        &mut self,
        id: u64,
        deadline: Deadline,
    ) -> Result<Result<Reply, CallError>, CallError> {
        self.broken = true;
        let payload = self.payload(deadline)?;
        let result = result_of(&payload, id)?;
        self.broken = false;
        Ok(result)
    }

    fn payload(&mut self, deadline: Deadline) -> Result<Vec<u8>, CallError> {
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(payload) = self
                .decoder
                .next_frame()
                .map_err(|e| CallError::protocol(e.to_string()))?
            {
                return Ok(payload);
            }
            self.stream
                .set_read_timeout(Some(deadline.left()?))
                .map_err(|e| io(&e))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(CallError::protocol("the agent closed it without an answer")),
                Ok(n) => self.decoder.feed(&buffer[..n]),
                Err(e) if retry(&e) => {}
                Err(e) => return Err(io(&e)),
            }
        }
    }
}

/// Connects. With a full backlog the kernel has everybody wait, for as long as they say.
fn stream_to(path: &Path, limit: Duration) -> std::io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let (unix, stream) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = socket_with(unix, stream, SocketFlags::CLOEXEC, None)?;
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(not_taken(limit));
        }
        // Never zero: the kernel takes zero for "no limit".
        set_socket_timeout(
            &socket,
            Timeout::Send,
            Some(left.max(Duration::from_millis(1))),
        )?;
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket.into()),
            // The time is over, or a signal came; how much is left is looked at above.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// One call on a connection of its own.
///
/// # Errors
/// [`CallError`].
pub fn call_once(layout: &Layout, action: &Action) -> Result<Reply, CallError> {
    Client::connect_layout(layout)?.call(action)
}

#[derive(Clone, Copy)]
struct Deadline {
    end: Instant,
    after: Duration,
}

impl Deadline {
    fn new(after: Duration) -> Self {
        Self {
            end: Instant::now() + after,
            after,
        }
    }

    /// What is left, never zero: the kernel takes zero for "no limit".
    fn left(self) -> Result<Duration, CallError> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(CallError::Timeout { after: self.after })
        } else {
            Ok(left.max(Duration::from_millis(1)))
        }
    }
}

/// Interrupted, or the socket's own time limit, after which the deadline decides.
fn retry(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut
    )
}

fn io(error: &std::io::Error) -> CallError {
    CallError::protocol(error.to_string())
}

#[cfg(test)]
mod tests {
    use rustix::net::{SocketFlags, bind, listen};

    use super::*;

    #[test]
    fn an_agent_that_takes_no_connection_is_given_up_and_one_that_takes_it_in_time_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let address = SocketAddrUnix::new(&path).unwrap();
        let socket = |flags| {
            let (unix, stream) = (AddressFamily::UNIX, SocketType::STREAM);
            socket_with(unix, stream, SocketFlags::CLOEXEC | flags, None).unwrap()
        };
        let listener = socket(SocketFlags::empty());
        bind(&listener, &address).unwrap();
        listen(&listener, 1).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = socket(SocketFlags::NONBLOCK);
            match connect(&client, &address) {
                Ok(()) => waiting.push(client),
                Err(error) => {
                    assert_eq!(error, Errno::AGAIN);
                    break;
                }
            }
        }
        let error = Client::connect_within(&path, Duration::from_millis(50)).unwrap_err();
        assert!(
            matches!(&error, CallError::Connect { source, .. } if source.kind() == ErrorKind::TimedOut),
            "{error}"
        );
        // It goes on listening: who waits for room in its queue is refused when it ends.
        let accepting = std::thread::spawn(move || {
            let accepted = rustix::net::accept(&listener).unwrap();
            (listener, accepted)
        });
        Client::connect_within(&path, Duration::from_secs(60)).unwrap();
        accepting.join().unwrap();
    }
}
