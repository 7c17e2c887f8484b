//! Connections that the kernel remembers: forgetting those that an address translation of ours made. Called by the net
//! compartment when a translation is removed, so that a new owner of the address gets none of the old one's packets.

use std::net::IpAddr;

use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use super::message::{Builder, NLM_F_DUMP, attribute};
use super::{Netlink, NetlinkError};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
/// Source and destination, of IPv4 and of IPv6.
const CTA_IP: [(u16, u16); 2] = [(1, 2), (3, 4)];
const NFGENMSG: usize = 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Where packets come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: IpAddr,
}

/// A connection, with the parts of the kernel's description that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// As it began.
    pub original: Ends,
    /// As answers come back; translation is the difference.
    pub reply: Ends,
    tuple: Vec<u8>,
    id: Option<Vec<u8>>,
    zone: Option<Vec<u8>>,
}

impl Connection {
    /// Whether a translation between the two addresses made it what it is.
    #[must_use]
    pub fn translated(&self, public: IpAddr, private: IpAddr) -> bool {
        let inward = self.original.destination == public && self.reply.source == private;
        let outward = self.original.source == private && self.reply.destination == public;
        inward || outward
    }
}

fn ends(tuple: &[u8]) -> Option<Ends> {
    let addresses = attribute(tuple, CTA_TUPLE_IP)?;
    let read = |kind| -> Option<IpAddr> {
        let value = attribute(addresses, kind)?;
        match value.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
            16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
            _ => None,
        }
    };
    CTA_IP.iter().find_map(|(source, destination)| {
        Some(Ends {
            source: read(*source)?,
            destination: read(*destination)?,
        })
    })
}

/// Reads what is behind the header of a message about a connection.
#[must_use]
pub fn parse_connection(body: &[u8]) -> Option<Connection> {
    let rest = body.get(NFGENMSG..)?;
    let tuple = attribute(rest, CTA_TUPLE_ORIG)?;
    let owned = |kind| attribute(rest, kind).map(<[u8]>::to_vec);
    Some(Connection {
        original: ends(tuple)?,
        reply: ends(attribute(rest, CTA_TUPLE_REPLY)?)?,
        tuple: tuple.to_vec(),
        id: owned(CTA_ID),
        zone: owned(CTA_ZONE),
    })
}

fn message(kind: u16, flags: u16, family: u8) -> Builder {
    let (version, resource) = (0, [0, 0]);
    Builder::request(kind, flags)
        .raw(&[family, version])
        .raw(&resource)
}

impl Netlink {
    /// Opens a socket for connection tracking.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`], also where the kernel has no netfilter.
    pub fn open_conntrack() -> Result<Self, NetlinkError> {
        Self::open_protocol(Some(NETFILTER))
    }

    /// Forgets every connection that a translation between the two addresses made; returns how many.
    ///
    /// # Errors
    /// [`NetlinkError`]; some may be forgotten by then.
    pub fn forget_translated(
        &mut self,
        public: IpAddr,
        private: IpAddr,
    ) -> Result<usize, NetlinkError> {
        let family = if public.is_ipv4() { AF_INET } else { AF_INET6 };
        let mut found = Vec::new();
        self.dump(message(GET, NLM_F_DUMP, family), |body| {
            found.extend(parse_connection(body).filter(|c| c.translated(public, private)));
        })?;
        let mut forgotten = 0;
        for connection in found {
            let mut request = message(DELETE, 0, family).attribute(
                // Nested as it came.
                CTA_TUPLE_ORIG | 0x8000,
                &connection.tuple,
            );
            // Without the id a connection that took the same ports meanwhile would go in its place.
            for (kind, value) in [(CTA_ID, &connection.id), (CTA_ZONE, &connection.zone)] {
                if let Some(value) = value {
                    request = request.attribute(kind, value);
                }
            }
            match self.ask(request) {
                Ok(_) => forgotten += 1,
                // It ended by itself.
                Err(error) if error.refusal() == Some(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_connection(&bytes);
        }
    }

    #[test]
    fn only_connections_between_both_addresses_count_as_translated() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let ends = |source, destination| Ends {
            source: address(source),
            destination: address(destination),
        };
        let connection = |original, reply| Connection {
            original,
            reply,
            tuple: Vec::new(),
            id: None,
            zone: None,
        };
        let (public, private) = (address("203.0.113.7"), address("10.0.0.7"));
        let inward = connection(
            ends("198.51.100.1", "203.0.113.7"),
            ends("10.0.0.7", "198.51.100.1"),
        );
        let outward = connection(
            ends("10.0.0.7", "198.51.100.1"),
            ends("198.51.100.1", "203.0.113.7"),
        );
        assert!(inward.translated(public, private) && outward.translated(public, private));
        for other in [
            connection(ends("10.0.0.7", "10.0.0.1"), ends("10.0.0.1", "10.0.0.7")),
            connection(
                ends("198.51.100.1", "203.0.113.7"),
                ends("203.0.113.7", "198.51.100.1"),
            ),
            connection(
                ends("198.51.100.1", "203.0.113.7"),
                ends("10.0.0.8", "198.51.100.1"),
            ),
        ] {
            assert!(!other.translated(public, private), "{other:?}");
        }
    }
}
