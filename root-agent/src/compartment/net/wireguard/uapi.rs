//! The control socket of a WireGuard daemon: `key=value` lines, an empty line at the end, `errno=` in the answer. The
//! daemon is another process: what it says is bounded and checked like anything from outside.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use blockhost_proto::escape;
use blockhost_proto::value::WgName;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use zeroize::Zeroizing;

use blockhost_netlink::wireguard::{Device, Network, Peer, PeerChange};

/// A daemon answers in milliseconds.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Four thousand peers with some networks each.
const MAX_ANSWER: usize = 16 << 20;

/// Why a daemon did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum UapiError {
    #[error(
        "no WireGuard daemon serves {0}; start one: systemctl enable --now blockhost-wireguard@{0}"
    )]
    NoDaemon(WgName),
    #[error("its daemon could not be talked to: {0}")]
    Socket(#[from] std::io::Error),
    #[error("its daemon refused with error number {0}")]
    Refused(i64),
    #[error("its daemon's answer makes no sense: {0}")]
    Malformed(String),
}

/// Connects; a daemon that takes nobody any more would hold up a caller that waits without a limit.
fn reach(path: &Path) -> std::io::Result<UnixStream> {
    let (stream, flags) = (SocketType::STREAM, SocketFlags::CLOEXEC);
    let socket = socket_with(AddressFamily::UNIX, stream, flags, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_TIME))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

fn talk(sockets: &Path, name: &WgName, request: &str) -> Result<Zeroizing<String>, UapiError> {
    let mut stream = match reach(&sockets.join(format!("{name}.sock"))) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Err(UapiError::NoDaemon(name.clone()));
        }
        Err(error) => return Err(error.into()),
    };
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    stream.write_all(request.as_bytes())?;
    let give_up = Instant::now() + ANSWER_TIME;
    let mut answer = Zeroizing::new(Vec::with_capacity(4096));
    let mut part = Zeroizing::new([0u8; 4096]);
    while !answer.ends_with(b"\n\n") {
        let count = stream.read(part.as_mut_slice())?;
        answer.extend_from_slice(part.get(..count).unwrap_or_default());
        if count == 0 || answer.len() > MAX_ANSWER || Instant::now() > give_up {
            return Err(UapiError::Malformed("it has no end".to_owned()));
        }
    }
    let text = std::str::from_utf8(&answer)
        .map_err(|_| UapiError::Malformed("it is not text".to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The number behind `errno=`, which ends every answer.
fn outcome(answer: &str) -> Result<(), UapiError> {
    let number = answer
        .lines()
        .find_map(|line| line.strip_prefix("errno="))
        .and_then(|number| number.parse().ok());
    match number {
        Some(0) => Ok(()),
        Some(code) => Err(UapiError::Refused(code)),
        None => Err(UapiError::Malformed("it has no errno".to_owned())),
    }
}

pub(super) fn get(sockets: &Path, name: &WgName) -> Result<Device, UapiError> {
    let answer = talk(sockets, name, "get=1\n\n")?;
    outcome(&answer)?;
    parse(&answer)
}

pub(super) fn set(
    sockets: &Path,
    name: &WgName,
    private_key: &[u8; 32],
    port: Option<u16>,
) -> Result<(), UapiError> {
    let mut request = Zeroizing::new(String::from("set=1\nprivate_key="));
    request.push_str(&Zeroizing::new(escape::hex(private_key)));
    request.push('\n');
    if let Some(port) = port {
        let _ = writeln!(request, "listen_port={port}");
    }
    request.push('\n');
    outcome(&talk(sockets, name, &request)?)
}

pub(super) fn change(
    sockets: &Path,
    name: &WgName,
    changes: &[PeerChange],
) -> Result<(), UapiError> {
    outcome(&talk(sockets, name, &lines(changes))?)
}

fn lines(changes: &[PeerChange]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::from("set=1\n"));
    for change in changes {
        let _ = writeln!(text, "public_key={}", escape::hex(&change.public_key));
        if change.remove {
            text.push_str("remove=true\n");
            continue;
        }
        if let Some(key) = &change.preshared {
            let _ = writeln!(text, "preshared_key={}", escape::hex(key));
        }
        if let Some(endpoint) = change.endpoint {
            let _ = writeln!(text, "endpoint={endpoint}");
        }
        if let Some(seconds) = change.keepalive {
            let _ = writeln!(text, "persistent_keepalive_interval={seconds}");
        }
        if let Some(networks) = &change.allowed_ips {
            text.push_str("replace_allowed_ips=true\n");
            for (address, length) in networks {
                let _ = writeln!(text, "allowed_ip={address}/{length}");
            }
        }
    }
    text.push('\n');
    text
}

fn key(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn network(text: &str) -> Option<Network> {
    let (address, length) = text.split_once('/')?;
    Some((address.parse().ok()?, length.parse().ok()?))
}

fn parse(answer: &str) -> Result<Device, UapiError> {
    let mut device = Device::default();
    for line in answer.lines().take_while(|line| !line.is_empty()) {
        let wrong = || UapiError::Malformed(format!("line \"{}\"", escape::shown(field(line))));
        let (name, value) = line.split_once('=').ok_or_else(wrong)?;
        if name == "public_key" {
            device.peers.push(Peer {
                public_key: key(value).ok_or_else(wrong)?,
                preshared: [0; 32],
                endpoint: None,
                keepalive: 0,
                allowed_ips: Vec::new(),
                last_handshake_s: 0,
                rx_bytes: 0,
                tx_bytes: 0,
            });
            continue;
        }
        let Some(peer) = device.peers.last_mut() else {
            if name == "listen_port" {
                device.listen_port = value.parse().map_err(|_| wrong())?;
            }
            continue;
        };
        let number = || value.parse::<u64>().map_err(|_| wrong());
        match name {
            "preshared_key" => peer.preshared = key(value).ok_or_else(wrong)?,
            "endpoint" => peer.endpoint = Some(value.parse::<SocketAddr>().map_err(|_| wrong())?),
            "persistent_keepalive_interval" => {
                peer.keepalive = value.parse().map_err(|_| wrong())?;
            }
            "allowed_ip" => peer.allowed_ips.push(network(value).ok_or_else(wrong)?),
            "last_handshake_time_sec" => peer.last_handshake_s = number()?,
            "rx_bytes" => peer.rx_bytes = number()?,
            "tx_bytes" => peer.tx_bytes = number()?,
            _ => {}
        }
    }
    device.peers.sort_by_key(|peer| peer.public_key);
    for peer in &mut device.peers {
        peer.allowed_ips.sort_unstable();
    }
    Ok(device)
}

/// The name of a line's field: its value may be a key.
fn field(line: &str) -> &str {
    line.split('=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_is_read_and_a_broken_one_shows_no_key() {
        let hex = "c5".repeat(32);
        let text = format!(
            "private_key={hex}\nlisten_port=51820\npublic_key={hex}\npreshared_key={hex}\nendpoint=[fd00::1]:7\n\
             allowed_ip=10.0.0.2/32\nallowed_ip=10.0.0.1/32\nlast_handshake_time_sec=9\nerrno=0\n\n"
        );
        let device = parse(&text).unwrap();
        assert_eq!((device.listen_port, device.peers.len()), (51_820, 1));
        assert_eq!(device.peers[0].last_handshake_s, 9);
        assert!(device.peers[0].allowed_ips.is_sorted());
        let broken = format!("public_key={hex}\npreshared_key={hex}f\n\n");
        assert!(!parse(&broken).unwrap_err().to_string().contains("c5"));
    }

    #[test]
    fn a_refusal_and_a_missing_outcome_are_errors() {
        assert!(matches!(
            outcome("errno=-22\n\n"),
            Err(UapiError::Refused(-22))
        ));
        assert!(matches!(outcome("\n\n"), Err(UapiError::Malformed(_))));
        assert!(outcome("errno=0\n\n").is_ok());
    }

    #[test]
    fn a_daemon_that_takes_no_connection_is_an_error_and_holds_nobody_up_for_good() {
        use rustix::net::{bind, listen};
        let directory = tempfile::tempdir().unwrap();
        let address = SocketAddrUnix::new(directory.path().join("wg0.sock")).unwrap();
        let unix = |flags| socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let stuck = unix(SocketFlags::CLOEXEC).unwrap();
        bind(&stuck, &address).unwrap();
        listen(&stuck, 0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let next = unix(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).unwrap();
            if connect(&next, &address).is_err() {
                break;
            }
            waiting.push(next);
        }
        let asked = get(directory.path(), &"wg0".parse().unwrap());
        assert!(matches!(asked, Err(UapiError::Socket(_))), "{asked:?}");
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(text in "(?s).{0,300}") {
            let _ = parse(&text);
            let _ = outcome(&text);
            let _ = key(&text);
        }
    }
}
