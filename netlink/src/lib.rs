//! A small netlink layer: one socket, one request at a time, acknowledged. Byte layout lives in [`message`], what is said
//! about devices, routes, limits and so on in a file each. The root agent writes through it, from compartments that hold
//! `CAP_NET_ADMIN` and open the socket before they are confined; whoever only looks needs no privileges.
#![forbid(unsafe_code)]

pub mod carry;
pub mod conntrack;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod guard;
pub mod link;
pub mod message;
pub mod neighbour;
pub mod netconf;
pub mod route;
pub mod survey;
pub mod table;
pub mod tc;
pub mod wire;
pub mod wireguard;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, sendto,
    socket_with,
};

pub use link::{Address, Link};
pub use neighbour::Neighbour;
pub use route::RouteEntry;
pub use survey::{Device, Route};

use message::{Builder, Message, NLM_F_DUMP_INTR, Verdict, messages, verdict};

/// The kernel answers in microseconds; a socket that is silent this long is broken.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Larger than any single answer to the requests made here; the kernel fills lists up to 32 KiB at a time.
const BUFFER: usize = 64 * 1024;

/// Bytes of one list. A host with ten thousand devices stays below.
const MAX_LIST: usize = 64 << 20;

/// Why a request to the kernel did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel understood and refused.
    #[error("the kernel answered: {0}")]
    Refused(#[source] Errno),
    /// The socket itself failed.
    #[error("the netlink socket failed to {what}: {source}")]
    Socket {
        /// What was being done.
        what: &'static str,
        /// The kernel's reason.
        source: Errno,
    },
    /// The answer is not what the protocol promises.
    #[error("the kernel's answer makes no sense: {0}")]
    Malformed(&'static str),
    /// A list that was never the same from its first entry to its last.
    #[error("the list changed each time it was read; try again")]
    Changing,
}

impl NetlinkError {
    /// The kernel's refusal, if that is what this is.
    #[must_use]
    pub fn refusal(&self) -> Option<Errno> {
        if let NetlinkError::Refused(errno) = self {
            Some(*errno)
        } else {
            None
        }
    }
}

/// A netlink socket of the network namespace it was opened in.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
    /// The last list changed while it was read: something in it may be missing or twice.
    interrupted: bool,
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Netlink {
    /// Opens a socket for devices, addresses, routes and traffic control. The kernel checks `CAP_NET_ADMIN` of the opener
    /// and of the user of the socket.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn open() -> Result<Self, NetlinkError> {
        Self::open_protocol(None)
    }

    fn open_protocol(protocol: Option<Protocol>) -> Result<Self, NetlinkError> {
        let failed = |what| move |source| NetlinkError::Socket { what, source };
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )
        .map_err(failed("open"))?;
        bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(failed("bind"))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIME))
            .map_err(failed("set its timeout"))?;
        Ok(Netlink {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
            interrupted: false,
        })
    }

    /// Sends one request; returns the payload that came before its end, if any.
    fn ask(&mut self, request: Builder) -> Result<Option<Vec<u8>>, NetlinkError> {
        let mut payload = None;
        self.dump(request, |body| payload = Some(body.to_vec()))?;
        Ok(payload)
    }

    /// Sends one request and hands out what comes until its end.
    fn dump(&mut self, request: Builder, mut each: impl FnMut(&[u8])) -> Result<(), NetlinkError> {
        let failed = |what| move |source| NetlinkError::Socket { what, source };
        self.sequence = self.sequence.wrapping_add(1);
        self.interrupted = false;
        let sequence = self.sequence;
        let kernel = SocketAddrNetlink::new(0, 0);
        let request = request.done(sequence);
        sendto(&self.socket, &request, SendFlags::empty(), &kernel).map_err(failed("send"))?;
        let give_up = Instant::now() + ANSWER_TIME;
        let mut taken = 0;
        // A late answer to an older request, or a datagram of somebody else, must not keep us here for ever.
        while Instant::now() < give_up {
            let (count, full, from) =
                match recvfrom(&self.socket, &mut self.buffer, RecvFlags::TRUNC) {
                    Ok(received) => received,
                    Err(Errno::INTR) => continue,
                    Err(source) => return Err(failed("receive")(source)),
                };
            let from_kernel = from
                .and_then(|from| SocketAddrNetlink::try_from(from).ok())
                .is_some_and(|from| from.pid() == 0);
            if !from_kernel {
                continue;
            }
            taken += count;
            if full > count || taken > MAX_LIST {
                return Err(NetlinkError::Malformed(
                    "longer than any answer expected here",
                ));
            }
            for message in messages(self.buffer.get(..count).unwrap_or_default()) {
                let Message {
                    kind,
                    flags,
                    sequence: of,
                    body,
                } = message.ok_or(NetlinkError::Malformed("a length field leads outside"))?;
                if of != sequence {
                    continue;
                }
                self.interrupted |= flags & NLM_F_DUMP_INTR != 0;
                match verdict(kind, body) {
                    Some(Verdict::Ended(0)) => return Ok(()),
                    Some(Verdict::Ended(code)) => {
                        return Err(NetlinkError::Refused(Errno::from_raw_os_error(code)));
                    }
                    Some(Verdict::Torn) => return Err(NetlinkError::Malformed("a torn end")),
                    None => each(body),
                }
            }
        }
        Err(NetlinkError::Socket {
            what: "receive",
            source: Errno::TIMEDOUT,
        })
    }
}
