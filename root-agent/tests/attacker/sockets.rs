//! Sockets: services of the host, the agent's own socket, networks and buses that nobody here needs.

use libc::{
    AF_BLUETOOTH, AF_INET, AF_NETLINK, AF_PACKET, AF_UNIX, AF_VSOCK, SOCK_DGRAM, SOCK_RAW,
    SOCK_STREAM,
};

use crate::{Attempt, Tried, sys};

pub const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "agents-own-socket",
        run: |c| {
            connect_unix(
                c.root
                    .join("run/blockhost/root-agent.sock")
                    .as_os_str()
                    .as_encoded_bytes(),
            )
        },
    },
    Attempt {
        name: "system-bus",
        run: |c| connect_unix(c.bus.as_os_str().as_encoded_bytes()),
    },
    Attempt {
        name: "abstract-socket",
        run: |c| connect_unix(&[b"\0", c.abstract_name.as_bytes()].concat()),
    },
    Attempt {
        name: "tcp-connect",
        run: |c| {
            let fd = socket(AF_INET, SOCK_STREAM, 0)?;
            sys!(libc::SYS_connect, fd, &inet(c.port)[..], 16).map(drop)
        },
    },
    Attempt {
        name: "tcp-bind",
        run: |_| {
            let fd = socket(AF_INET, SOCK_STREAM, 0)?;
            sys!(libc::SYS_bind, fd, &inet(0)[..], 16).map(drop)
        },
    },
    Attempt {
        name: "udp-send",
        run: |c| {
            let fd = socket(AF_INET, SOCK_DGRAM, 0)?;
            sys!(libc::SYS_sendto, fd, c"x", 1, 0, &inet(c.port)[..], 16).map(drop)
        },
    },
    Attempt {
        name: "raw-socket",
        run: |_| socket(AF_INET, SOCK_RAW, libc::IPPROTO_ICMP).map(drop),
    },
    Attempt {
        name: "packet-socket",
        run: |_| socket(AF_PACKET, SOCK_RAW, 0).map(drop),
    },
    Attempt {
        name: "vsock",
        run: |_| socket(AF_VSOCK, SOCK_STREAM, 0).map(drop),
    },
    Attempt {
        name: "bluetooth",
        run: |_| socket(AF_BLUETOOTH, SOCK_RAW, 1).map(drop),
    },
    Attempt {
        name: "kernel-crypto",
        run: |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0).map(drop),
    },
    Attempt {
        name: "netlink-route",
        run: |_| socket(AF_NETLINK, SOCK_RAW, libc::NETLINK_ROUTE).map(drop),
    },
    Attempt {
        name: "netlink-audit",
        run: |_| socket(AF_NETLINK, SOCK_RAW, libc::NETLINK_AUDIT).map(drop),
    },
    Attempt {
        name: "unix-pair",
        run: |_| {
            let mut pair = [0i32; 2];
            sys!(libc::SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair[..]).map(drop)
        },
    },
];

fn socket(family: i32, kind: i32, protocol: i32) -> Result<usize, i32> {
    sys!(libc::SYS_socket, family, kind, protocol)
}

fn connect_unix(name: &[u8]) -> Tried {
    let family = u16::try_from(AF_UNIX).expect("small").to_ne_bytes();
    let address = [&family[..], name].concat();
    let fd = socket(AF_UNIX, SOCK_STREAM, 0)?;
    sys!(libc::SYS_connect, fd, &address[..], address.len()).map(drop)
}

/// 127.0.0.1 with that port.
fn inet(port: u16) -> [u8; 16] {
    let mut address = [0; 16];
    address[..2].copy_from_slice(&u16::try_from(AF_INET).expect("small").to_ne_bytes());
    address[2..4].copy_from_slice(&port.to_be_bytes());
    address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    address
}
