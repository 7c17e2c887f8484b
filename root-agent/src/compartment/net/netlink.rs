//! A small rtnetlink layer: one socket, one request at a time, acknowledged. Byte layout lives in [`message`].
//! Only what the catalog needs is here: find a link, replace and delete a host route. Called by the net compartment.

mod message;

use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, sendto,
    socket_with,
};

use message::{Builder, Message, messages};

/// The kernel answers in microseconds; a socket that is silent this long is broken.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Larger than any single answer to the requests made here (a link with all its statistics is about 2 KiB).
const BUFFER: usize = 32 * 1024;

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

/// A network device as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its first name; requests also find links by alternative names.
    pub name: String,
    /// Whether it is administratively up.
    pub up: bool,
}

/// The IPv6 route the kernel would use, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteEntry {
    /// Prefix length of the table entry, not of the question.
    pub prefix: u8,
    /// Device number, when it has one.
    pub device: Option<u32>,
    /// Whether it goes through a gateway.
    pub gateway: bool,
    /// Which program or protocol made it (`RTPROT_*`).
    pub protocol: u8,
}

/// A netlink route socket of the network namespace it was opened in.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens the socket. The kernel checks `CAP_NET_ADMIN` of the opener and of the user of the socket.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn open() -> Result<Self, NetlinkError> {
        let failed = |what| move |source| NetlinkError::Socket { what, source };
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(failed("open"))?;
        bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(failed("bind"))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIME))
            .map_err(failed("set its timeout"))?;
        Ok(Netlink {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Looks a device up by name; `None` when there is none.
    ///
    /// # Errors
    /// Any [`NetlinkError`] but "no such device".
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let request = Builder::get_link(self.next(), name);
        match self.ask(request) {
            Ok(Some(answer)) => message::parse_link(&answer)
                .map(Some)
                .ok_or(NetlinkError::Malformed("a link without index or name")),
            Ok(None) => Err(NetlinkError::Malformed("no link in the answer")),
            Err(error) if error.refusal() == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The entry of the main table that traffic to `address` out of `device` would use.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with `ENETUNREACH` when there is none.
    pub fn route_match(
        &mut self,
        address: Ipv6Addr,
        device: u32,
    ) -> Result<RouteEntry, NetlinkError> {
        let request = Builder::get_route(self.next(), address, device);
        let answer = self
            .ask(request)?
            .ok_or(NetlinkError::Malformed("no route in the answer"))?;
        message::parse_route(&answer).ok_or(NetlinkError::Malformed("a route without header"))
    }

    /// Makes `address`/128 go out of `device`, whatever it did before. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the kernel's reason (`ENODEV`, `ENETDOWN`, `EACCES`: IPv6 is off there).
    pub fn host_route_replace(
        &mut self,
        address: Ipv6Addr,
        device: u32,
    ) -> Result<(), NetlinkError> {
        let request = Builder::new_route(self.next(), address, device);
        self.ask(request).map(drop)
    }

    /// Deletes the route that [`Netlink::host_route_replace`] makes, and no other: same address, prefix length 128,
    /// device, table, protocol and metric.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with `ESRCH` when there is no such route.
    pub fn host_route_delete(
        &mut self,
        address: Ipv6Addr,
        device: u32,
    ) -> Result<(), NetlinkError> {
        let request = Builder::del_route(self.next(), address, device);
        self.ask(request).map(drop)
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends one acknowledged request; returns the payload that came before the acknowledgement, if any.
    fn ask(&mut self, request: Vec<u8>) -> Result<Option<Vec<u8>>, NetlinkError> {
        let failed = |what| move |source| NetlinkError::Socket { what, source };
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &request, SendFlags::empty(), &kernel).map_err(failed("send"))?;
        let sequence = self.sequence;
        let give_up = Instant::now() + ANSWER_TIME;
        let mut payload = None;
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
            if full > count {
                return Err(NetlinkError::Malformed(
                    "longer than any answer expected here",
                ));
            }
            for message in messages(self.buffer.get(..count).unwrap_or_default()) {
                let Message {
                    kind,
                    sequence: of,
                    body,
                } = message.ok_or(NetlinkError::Malformed("a length field leads outside"))?;
                if of != sequence {
                    continue;
                }
                match message::acknowledgement(kind, body) {
                    Some(Some(0)) => return Ok(payload),
                    Some(Some(code)) => {
                        return Err(NetlinkError::Refused(Errno::from_raw_os_error(code)));
                    }
                    Some(None) => return Err(NetlinkError::Malformed("a torn acknowledgement")),
                    None => payload = Some(body.to_vec()),
                }
            }
        }
        Err(NetlinkError::Socket {
            what: "receive",
            source: Errno::TIMEDOUT,
        })
    }
}
