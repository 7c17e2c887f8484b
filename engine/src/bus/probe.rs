//! Whether names are resolved: one question to the first name server of `resolv.conf`, for the root's own servers, so that
//! nobody learns anything from it. The answer is kept for some seconds: callers cannot make us flood a server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use blockhost_proto::layout::Layout;
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// A state query has to be answered in a fifth of a second with all of its parts.
const PATIENCE: Duration = Duration::from_millis(120);
/// How long an answer is kept.
const FRESH: Duration = Duration::from_secs(5);
/// Bytes of `resolv.conf` that are looked at.
const MAX_FILE: usize = 64 * 1024;

/// The last answer.
#[derive(Debug, Default)]
pub(super) struct Probe(Mutex<Option<(Instant, Option<bool>)>>);

impl Probe {
    /// Whether the name server answers; `None` where there is none.
    pub(super) async fn dns_works(&self, layout: &Layout) -> Option<bool> {
        // Held while asking: callers that come meanwhile share the answer.
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = *last
            && at.elapsed() < FRESH
        {
            return answer;
        }
        let path = layout.join("etc/resolv.conf");
        // A small local file; not worth another thread.
        let text = std::fs::read(path).unwrap_or_default();
        let answer = match name_server(&text) {
            Some(server) => Some(timeout(PATIENCE, ask(server)).await.unwrap_or(false)),
            None => None,
        };
        *last = Some((Instant::now(), answer));
        answer
    }
}

fn name_server(file: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(file.get(..file.len().min(MAX_FILE))?).ok()?;
    let server = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        words.next()?.parse::<IpAddr>().ok()
    })?;
    Some(SocketAddr::new(server, 53))
}

/// Root, NS, IN, recursion desired.
fn question(id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend([0, 0, 2, 0, 1]);
    bytes
}

/// An answer to this question, without an error: header flags say response and NOERROR.
fn answers(bytes: &[u8], id: u16) -> bool {
    let [high, low] = id.to_be_bytes();
    matches!(bytes, [a, b, flags, code, ..] if *a == high && *b == low && flags & 0x80 != 0 && code & 0x0f == 0)
        && bytes.len() >= 12
}

async fn ask(server: SocketAddr) -> bool {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let mut id = [0; 2];
    if getrandom::fill(&mut id).is_err() {
        return false;
    }
    let id = u16::from_be_bytes(id);
    let exchange = async {
        let socket = UdpSocket::bind(any).await?;
        // Connected: only that server's answers arrive.
        socket.connect(server).await?;
        socket.send(&question(id)).await?;
        let mut buffer = [0; 1500];
        loop {
            let count = socket.recv(&mut buffer).await?;
            if answers(&buffer[..count], id) {
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    exchange.await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_server_is_found_and_nonsense_is_none() {
        let found = |text: &str| name_server(text.as_bytes()).map(|server| server.to_string());
        assert_eq!(
            found("# nameserver 1.1.1.1\nsearch x\nnameserver  192.0.2.53\nnameserver ::1\n")
                .as_deref(),
            Some("192.0.2.53:53")
        );
        assert_eq!(
            found("nameserver fd00::53").as_deref(),
            Some("[fd00::53]:53")
        );
        for bad in [
            "",
            "nameserver",
            "nameserver example.org",
            "nameservers 1.1.1.1",
        ] {
            assert_eq!(found(bad), None, "{bad}");
        }
        assert_eq!(name_server(b"nameserver 1.1.1.1\n\xff"), None);
    }

    #[test]
    fn only_a_good_answer_to_this_question_counts() {
        let answer = |flags: u8, code: u8, id: u16| {
            let mut bytes = question(id);
            bytes[2] = flags;
            bytes[3] = code;
            bytes
        };
        assert!(answers(&answer(0x81, 0x80, 7), 7));
        assert!(!answers(&answer(0x81, 0x80, 8), 7), "another question's");
        assert!(!answers(&answer(0x01, 0x00, 7), 7), "a question");
        assert!(!answers(&answer(0x81, 0x82, 7), 7), "an error");
        assert!(!answers(&answer(0x81, 0x80, 7)[..5], 7), "cut off");
    }

    #[tokio::test]
    async fn a_server_that_answers_works_and_the_answer_is_shared() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = server.local_addr().expect("an address");
        let asked = tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (count, from) = server.recv_from(&mut buffer).await.expect("a question");
            // Another's answer first.
            buffer[2] |= 0x80;
            buffer[0] ^= 1;
            server.send_to(&buffer[..count], from).await.expect("sent");
            buffer[0] ^= 1;
            server.send_to(&buffer[..count], from).await.expect("sent");
        });
        assert!(ask(address).await);
        asked.await.expect("it was asked");
    }
}
