//! Whether something outside can be reached, without privileges: an ICMP echo through a ping socket where the kernel lets
//! this user have one, a TCP connection to a given port, and for gateways that they answered on the wire. And a prober that
//! goes on in the background and counts what is lost meanwhile.

use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use blockhost_netlink::Netlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use serde::{Deserialize, Serialize};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Between two packets of the prober.
const EVERY: Duration = Duration::from_millis(10);
/// What is not answered by then is lost.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// The discard port: what goes there makes the kernel look for the neighbour.
const DISCARD: u16 = 9;
const ECHO_V4: u8 = 8;
const ECHO_V6: u8 = 128;
/// More than any change takes.
const MAX_SENT: u16 = u16::MAX;

/// Something outside that has to be reachable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Target {
    /// A gateway: it answers an echo, or on the wire.
    Gateway {
        /// Its address.
        address: IpAddr,
        /// Number of the device that it is behind, for an address of the link alone.
        device: u32,
    },
    /// A host: it answers an echo, or refuses a connection.
    Host(IpAddr),
    /// A service: it takes a connection.
    Service(SocketAddr),
}

impl Target {
    const fn address(&self) -> IpAddr {
        match self {
            Self::Gateway { address, .. } | Self::Host(address) => *address,
            Self::Service(service) => service.ip(),
        }
    }

    /// Where packets for it go.
    fn to(&self, port: u16) -> SocketAddr {
        match self {
            Self::Gateway {
                address: IpAddr::V6(address),
                device,
            } if address.is_unicast_link_local() => {
                SocketAddrV6::new(*address, port, 0, *device).into()
            }
            Self::Gateway { address, .. } | Self::Host(address) => (*address, port).into(),
            Self::Service(service) => *service,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway { address, .. } => write!(f, "gateway {address}"),
            Self::Host(address) => write!(f, "{address}"),
            Self::Service(service) => write!(f, "{service}"),
        }
    }
}

/// A text that is no `ADDRESS` and no `ADDRESS:PORT`.
#[derive(Debug, thiserror::Error)]
#[error(
    "a probe is an IP address, with a port or without: 192.0.2.1, 192.0.2.1:22, 2001:db8::1, [2001:db8::1]:22"
)]
pub struct NoTarget;

impl FromStr for Target {
    type Err = NoTarget;
    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let target = match text.parse::<IpAddr>() {
            Ok(address) => Self::Host(address),
            Err(_) => Self::Service(text.parse().map_err(|_| NoTarget)?),
        };
        let address = target.address();
        let port = !matches!(target, Self::Service(service) if service.port() == 0);
        if port && !address.is_unspecified() && !address.is_multicast() {
            Ok(target)
        } else {
            Err(NoTarget)
        }
    }
}

/// Tries once. `since` is when the change ended, if there was one: what a neighbour said before does not count.
///
/// # Errors
/// Why not, in words.
pub fn reach(target: &Target, since: Option<Instant>) -> Result<(), String> {
    match target {
        Target::Service(service) => match TcpStream::connect_timeout(service, ATTEMPT) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{service} takes no connection: {error}")),
        },
        Target::Host(address) => match echo_once(target) {
            Ok(()) => Ok(()),
            Err(why) => match TcpStream::connect_timeout(&target.to(DISCARD), ATTEMPT) {
                Ok(_) => Ok(()),
                // Somebody had to say so.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
                Err(_) => Err(format!("{address} does not answer: {why}")),
            },
        },
        Target::Gateway { address, .. } => match echo_once(target) {
            Ok(()) => Ok(()),
            Err(why) => on_the_wire(target, since)
                .map_err(|wire| format!("gateway {address} does not answer: {why}; {wire}")),
        },
    }
}

/// Makes the kernel ask for a neighbour and waits until it has answered.
fn on_the_wire(target: &Target, since: Option<Instant>) -> Result<(), String> {
    let until = Instant::now() + ATTEMPT;
    let address = target.address();
    let socket = UdpSocket::bind(any(address)).map_err(|error| error.to_string())?;
    let mut netlink = Netlink::open().map_err(|error| error.to_string())?;
    while Instant::now() < until {
        // Whether anybody takes it does not matter.
        let _ = socket.send_to(b"\0", target.to(DISCARD));
        let neighbours = netlink.neighbours().map_err(|error| error.to_string())?;
        let heard = neighbours
            .iter()
            .filter(|neighbour| neighbour.address == address)
            .filter_map(|neighbour| neighbour.confirmed)
            .min();
        if heard.is_some_and(|ago| since.is_none_or(|since| ago < since.elapsed())) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err("it was not heard of on the wire either".to_owned())
}

fn any(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// A ping socket to one address. The kernel puts in the identifier and the checksum, and gives only answers to us.
struct Echo {
    socket: UdpSocket,
    kind: u8,
}

impl Echo {
    fn open(to: SocketAddr) -> std::io::Result<Self> {
        let (family, protocol, kind) = match to {
            SocketAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, ECHO_V4),
            SocketAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, ECHO_V6),
        };
        let socket = socket_with(
            family,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(protocol),
        )?;
        let socket = UdpSocket::from(socket);
        socket.connect(to)?;
        Ok(Self { socket, kind })
    }

    fn send(&self, sequence: u16) -> std::io::Result<()> {
        let [high, low] = sequence.to_be_bytes();
        let packet = [self.kind, 0, 0, 0, 0, 0, high, low, b'b', b'h'];
        self.socket.send(&packet).map(drop)
    }

    /// The number of an answer that comes within that time.
    fn answer(&self, within: Duration) -> Option<u16> {
        self.socket
            .set_read_timeout(Some(within.max(Duration::from_millis(1))))
            .ok()?;
        let mut packet = [0; 64];
        let count = self.socket.recv(&mut packet).ok()?;
        let answer = packet.get(..count)?;
        let kind = if self.kind == ECHO_V4 { 0 } else { ECHO_V6 + 1 };
        (answer.first() == Some(&kind)).then_some(())?;
        Some(u16::from_be_bytes(answer.get(6..8)?.try_into().ok()?))
    }
}

fn echo_once(target: &Target) -> Result<(), String> {
    let echo = Echo::open(target.to(0)).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => {
            "this user may not send echoes (net.ipv4.ping_group_range)".to_owned()
        }
        _ => error.to_string(),
    })?;
    let until = Instant::now() + ATTEMPT;
    let mut why = "no answer to an echo".to_owned();
    for sequence in 0..10 {
        if let Err(error) = echo.send(sequence) {
            why = error.to_string();
            std::thread::sleep(Duration::from_millis(50));
        } else if echo.answer(Duration::from_millis(100)).is_some() {
            return Ok(());
        }
        if Instant::now() > until {
            break;
        }
    }
    Err(why)
}

/// What was lost on the way during a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Whom the packets went to.
    pub target: String,
    /// Milliseconds between two of them.
    pub interval_ms: u64,
    /// How many.
    pub sent: u32,
    /// How many of them were not answered.
    pub lost: u32,
    /// The longest time without an answer, in milliseconds.
    pub longest_gap_ms: u64,
}

/// Goes on until it is asked what was lost.
#[derive(Debug)]
pub struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Loss>,
}

impl Prober {
    /// Starts to send to a target; `None` where that cannot be: no ping socket for a target without a port.
    #[must_use]
    pub fn start(target: &Target) -> Option<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let name = target.to_string();
        let thread = match target {
            Target::Service(service) => {
                let service = *service;
                std::thread::spawn(move || connections(name, service, &asked))
            }
            Target::Gateway { .. } | Target::Host(_) => {
                let echo = Echo::open(target.to(0)).ok()?;
                std::thread::spawn(move || echoes(name, &echo, &asked))
            }
        };
        Some(Self { stop, thread })
    }

    /// Ends it. What was sent last has its time to be answered.
    #[must_use]
    pub fn stop(self) -> Option<Loss> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().ok()
    }
}

/// When answers came.
struct Answers {
    last: Instant,
    longest: Duration,
    count: u32,
}

impl Answers {
    fn new() -> Self {
        Self {
            last: Instant::now(),
            longest: Duration::ZERO,
            count: 0,
        }
    }

    fn came(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
        self.count += 1;
    }

    fn loss(mut self, target: String, sent: u32) -> Loss {
        // The last answer may have been long ago, too.
        let silent = self.last.elapsed();
        if sent > self.count {
            self.longest = self.longest.max(silent);
        }
        Loss {
            target,
            interval_ms: u64::try_from(EVERY.as_millis()).unwrap_or_default(),
            sent,
            lost: sent.saturating_sub(self.count),
            longest_gap_ms: u64::try_from(self.longest.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

fn echoes(target: String, echo: &Echo, stop: &AtomicBool) -> Loss {
    let mut answers = Answers::new();
    let mut seen = vec![false; usize::from(MAX_SENT) + 1];
    let mut take = |answers: &mut Answers, within| {
        if let Some(number) = echo.answer(within) {
            // An answer that comes twice is one.
            if !std::mem::replace(&mut seen[usize::from(number)], true) {
                answers.came();
            }
        }
    };
    let mut sent: u16 = 0;
    while !stop.load(Ordering::Acquire) && sent < MAX_SENT {
        let next = Instant::now() + EVERY;
        // One that the kernel refuses, as without a route, is lost as well.
        let _ = echo.send(sent);
        sent += 1;
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            take(&mut answers, left);
        }
    }
    let until = Instant::now() + LOST_AFTER;
    while u32::from(sent) > answers.count && Instant::now() < until {
        take(&mut answers, EVERY);
    }
    answers.loss(target, sent.into())
}

fn connections(target: String, service: SocketAddr, stop: &AtomicBool) -> Loss {
    let mut answers = Answers::new();
    let mut sent = 0;
    while !stop.load(Ordering::Acquire) {
        sent += 1;
        if TcpStream::connect_timeout(&service, LOST_AFTER).is_ok() {
            answers.came();
        }
        std::thread::sleep(EVERY);
    }
    answers.loss(target, sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_an_address_or_a_service_and_nothing_else() {
        for (text, wanted) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:22", "192.0.2.1:22"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:22", "[2001:db8::1]:22"),
        ] {
            assert_eq!(text.parse::<Target>().expect(text).to_string(), wanted);
        }
        for text in [
            "",
            "example.org",
            "192.0.2.1:0",
            "192.0.2.1:65536",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "[::]:22",
            "192.0.2.1 ",
            "-1",
            "192.0.2.1/24",
            "fe80::1%eth0",
            "192.0.2.1\n",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_service_that_listens_is_reached_and_one_that_does_not_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let service = listener.local_addr().expect("an address");
        reach(&Target::Service(service), None).expect("reached");
        let prober = Prober::start(&Target::Service(service)).expect("a prober");
        // That of the one attempt, and one of the prober's.
        for _ in 0..2 {
            listener.accept().expect("a connection");
        }
        let loss = prober.stop().expect("counted");
        assert!(loss.sent > 0 && loss.lost == 0, "{loss:?}");
        drop(listener);
        // What other tests start meanwhile has it, too, until it becomes another program.
        let end = Instant::now() + Duration::from_secs(60);
        while reach(&Target::Service(service), None).is_ok() {
            assert!(Instant::now() < end, "nobody listens");
        }
    }

    #[test]
    fn silence_at_the_end_is_the_longest_gap_when_something_was_lost() {
        let mut answers = Answers::new();
        answers.came();
        answers.last = Instant::now() - Duration::from_secs(2);
        let loss = answers.loss("a".to_owned(), 3);
        assert_eq!(loss.lost, 2);
        assert!(loss.longest_gap_ms >= 2000);
    }
}
