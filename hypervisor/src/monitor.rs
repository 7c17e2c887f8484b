//! Talking to a running QEMU (QMP) and to the agent in its guest, with time limits and bounded answers.
//! A guest is hostile: its agent may send anything, late, or never.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use qapi::{Command, ExecuteError, Qga, Qmp, Stream};

use crate::config::VmLock;
use crate::error::{Error, IoContext, Result};
use crate::host::Host;
use crate::machine::Vmid;
use crate::sys;

/// Longest answer that is read. Parsing makes many bytes of one, and the sender may be hostile.
const ANSWER_LIMIT: usize = 4 << 20;
/// The same for answers that hold the output of a program.
pub const OUTPUT_LIMIT: usize = 16 << 20;
/// How long QEMU may take for an ordinary answer.
pub const QMP_LIMIT: Duration = Duration::from_secs(10);

/// Name of the QMP socket in a machine's run directory.
pub const QMP_SOCKET: &str = "qmp.sock";
/// Name of the guest agent's socket.
pub const AGENT_SOCKET: &str = "qga.sock";
/// Name of the first serial port's socket.
pub const SERIAL_SOCKET: &str = "serial0.sock";

/// Path of a socket through a descriptor of its directory, because socket paths are limited to 107 bytes.
fn socket_path(dir: &impl AsRawFd, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())
}

/// Creates a listening socket in the machine's run directory.
///
/// # Errors
/// When the directory or the socket cannot be used.
pub fn listen(host: &Host, vmid: Vmid, name: &str) -> Result<UnixListener> {
    let path = host.machine_run_dir(vmid);
    let dir = sys::open_dir(&path).at("cannot open", &path)?;
    UnixListener::bind(socket_path(&dir, name)).at("cannot listen on", path.join(name))
}

fn connect(host: &Host, vmid: Vmid, name: &str) -> io::Result<UnixStream> {
    let dir = sys::open_dir(&host.machine_run_dir(vmid))?;
    UnixStream::connect(socket_path(&dir, name))
}

/// Reading side of a socket that ends at a deadline and after so many bytes.
struct Bounded {
    stream: UnixStream,
    end: Instant,
    left: usize,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wait = self.end.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if self.left == 0 {
            // Not "invalid data": that would be skipped in the hope of something better.
            return Err(io::Error::other("the answer is too long"));
        }
        self.stream.set_read_timeout(Some(wait))?;
        let want = buffer.len().min(self.left);
        let read = self
            .stream
            .read(buffer.get_mut(..want).unwrap_or_default())?;
        self.left -= read;
        Ok(read)
    }
}

type Line = Stream<BufReader<Bounded>, UnixStream>;

fn line(stream: UnixStream, limit: Duration) -> io::Result<Line> {
    stream.set_write_timeout(Some(limit))?;
    let bounded = Bounded {
        stream: stream.try_clone()?,
        end: Instant::now() + limit,
        left: ANSWER_LIMIT,
    };
    Ok(Stream::new(BufReader::new(bounded), stream))
}

fn reset(line: &mut Line, limit: Duration, bytes: usize) {
    let bounded = line.get_mut_read().get_mut();
    bounded.end = Instant::now() + limit;
    bounded.left = bytes;
}

/// Whether an I/O error is "no answer in time".
fn is_timeout(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

/// A QMP session.
pub struct Monitor {
    qmp: Qmp<Line>,
    vmid: Vmid,
}

impl Monitor {
    /// Connects and shakes hands. Sessions queue: QEMU serves one at a time.
    ///
    /// # Errors
    /// [`Error::Qmp`] when nobody answers in time.
    pub fn open(host: &Host, vmid: Vmid, limit: Duration) -> Result<Self> {
        let fail = |problem: String| Error::Qmp {
            vmid,
            command: "qmp_capabilities".to_owned(),
            problem,
        };
        let stream =
            connect(host, vmid, QMP_SOCKET).map_err(|e| fail(format!("unable to connect: {e}")))?;
        let mut line = line(stream, limit).map_err(|e| fail(e.to_string()))?;
        let greeted = line.fill_buf().map(|greeting| !greeting.is_empty());
        match greeted {
            Ok(true) => {}
            Ok(false) => return Err(fail("QEMU closed the connection".to_owned())),
            Err(e) if is_timeout(&e) => return Err(fail("got timeout".to_owned())),
            Err(e) => return Err(fail(e.to_string())),
        }
        let mut qmp = Qmp::new(line);
        qmp.handshake().map_err(|e| fail(e.to_string()))?;
        Ok(Monitor { qmp, vmid })
    }

    /// Runs one command.
    ///
    /// # Errors
    /// [`Error::Qmp`] with QEMU's words.
    pub fn run<C: Command>(&mut self, command: &C) -> Result<C::Ok> {
        reset(self.qmp.inner_mut(), QMP_LIMIT, ANSWER_LIMIT);
        let vmid = self.vmid;
        self.qmp.execute(command).map_err(|e| {
            let problem = match e {
                ExecuteError::Io(e) if is_timeout(&e) => "got timeout".to_owned(),
                other => other.to_string(),
            };
            Error::Qmp {
                vmid,
                command: C::NAME.to_owned(),
                problem,
            }
        })
    }
}

/// A session with the agent in the guest.
pub struct Agent {
    qga: Qga<Line>,
    _turn: VmLock,
}

impl Agent {
    /// Connects and synchronises: what an earlier, interrupted session left in the channel is skipped.
    ///
    /// # Errors
    /// [`Error::Agent`] when it does not answer within `limit`.
    pub fn open(host: &Host, vmid: Vmid, limit: Duration) -> Result<Self> {
        let silent = || Error::Agent("QEMU guest agent is not running".to_owned());
        // The channel has one user at a time; without this a second session would wait inside QEMU without a limit.
        let turn = VmLock::take_file(host, &format!("{vmid}.agent.lock"), limit)?;
        let stream = connect(host, vmid, AGENT_SOCKET).map_err(|_| silent())?;
        let mut qga = Qga::new(line(stream, limit).map_err(|_| silent())?);
        let id = i64::from(u32::from_ne_bytes(
            sys::random().at("cannot read", "/dev/urandom")?,
        ));
        let sync = qapi::qga::guest_sync { id };
        qga.write_command(&sync).map_err(|_| silent())?;
        loop {
            match qga.read_response::<qapi::qga::guest_sync>() {
                Ok(answer) if answer == id => break,
                // An answer to somebody else's question, or half of one.
                Ok(_) | Err(ExecuteError::Qapi(_)) => {}
                Err(ExecuteError::Io(e))
                    if e.kind() == io::ErrorKind::InvalidData && !is_timeout(&e) => {}
                Err(ExecuteError::Io(_)) => return Err(silent()),
            }
        }
        Ok(Agent { qga, _turn: turn })
    }

    /// Runs one command.
    ///
    /// # Errors
    /// [`Error::Agent`] with the agent's words.
    pub fn run<C: Command>(&mut self, command: &C, limit: Duration) -> Result<C::Ok> {
        self.run_up_to(command, limit, ANSWER_LIMIT)
    }

    /// As [`Agent::run`] for answers of up to so many bytes.
    ///
    /// # Errors
    /// As there.
    pub fn run_up_to<C: Command>(
        &mut self,
        command: &C,
        limit: Duration,
        bytes: usize,
    ) -> Result<C::Ok> {
        reset(self.qga.inner_mut(), limit, bytes);
        self.qga.execute(command).map_err(|e| match e {
            ExecuteError::Io(e) if is_timeout(&e) => Error::Agent(format!(
                "QEMU guest agent: command '{}' - got timeout",
                C::NAME
            )),
            other => Error::Agent(format!("Agent error: {other}")),
        })
    }

    /// Sends a command that answers with the end of the machine or not at all.
    ///
    /// # Errors
    /// [`Error::Agent`] when it cannot be sent.
    pub fn send<C: Command>(&mut self, command: &C) -> Result<()> {
        self.qga
            .write_command(command)
            .map_err(|e| Error::Agent(format!("Agent error: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockhost_proto::layout::Layout;
    use std::io::Write;

    #[test]
    fn an_agent_that_babbles_without_end_is_given_up_soon() {
        let root = tempfile::tempdir().unwrap();
        let host = Host {
            family: crate::host::Family::Machines,
            layout: Layout::new(root.path()),
            node: "n".to_owned(),
            pins: None,
        };
        let vmid: Vmid = "100".parse().unwrap();
        std::fs::create_dir_all(host.machine_run_dir(vmid)).unwrap();
        let listener = listen(&host, vmid, AGENT_SOCKET).unwrap();
        let babble = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let nonsense = b"{\n[0,0\n".repeat(1 << 10);
            let mut bytes = 0;
            while stream.write_all(&nonsense).is_ok() {
                bytes += nonsense.len();
            }
            bytes
        });
        assert!(Agent::open(&host, vmid, Duration::from_secs(600)).is_err());
        assert!(babble.join().unwrap() < 2 * ANSWER_LIMIT);
    }
}
