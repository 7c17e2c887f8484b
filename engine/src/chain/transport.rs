//! HTTP to a node, with an end: alloy's own transport reads an answer to its last byte, however many a node sends. One that
//! is larger than any honest one is given up; for a range of logs that is a reason to ask for less ([`super::logs`]).

use alloy::rpc::json_rpc::{RequestPacket, ResponsePacket};
use alloy::transports::{TransportError, TransportErrorKind, TransportFut, TransportResult};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use std::task::{Context, Poll};
use tower_service::Service;

/// Bytes of an answer. What one block can hold of one contract's events is well below, in hexadecimal digits too.
pub const LARGEST_ANSWER: usize = 32 << 20;
/// Bytes of an answer that is none which are kept for whoever explains it.
const KEPT: usize = 512;

/// More of an answer than anything that is asked for can have.
#[derive(Debug, thiserror::Error)]
#[error("its answer is larger than {} MiB", LARGEST_ANSWER >> 20)]
pub struct TooLarge;

/// Speaks JSON-RPC with one URL.
#[derive(Debug, Clone)]
pub struct Bounded {
    client: Client,
    url: Url,
}

impl Bounded {
    /// By way of a client that knows how long an answer may take.
    #[must_use]
    pub fn new(client: Client, url: Url) -> Self {
        Self { client, url }
    }

    async fn ask(self, request: RequestPacket) -> TransportResult<ResponsePacket> {
        let question = serde_json::to_vec(&request).map_err(TransportError::ser_err)?;
        let sent = self.client.post(self.url);
        let sent = sent.header(CONTENT_TYPE, "application/json").body(question);
        let mut response = sent.send().await.map_err(TransportErrorKind::custom)?;
        let status = response.status();
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(None) => break,
                Ok(Some(part)) if body.len() + part.len() <= LARGEST_ANSWER => {
                    body.extend_from_slice(&part);
                }
                Ok(Some(_)) => return Err(TransportErrorKind::custom(TooLarge)),
                // The status says enough.
                Err(_) if !status.is_success() => break,
                Err(e) => return Err(TransportErrorKind::custom(e)),
            }
        }
        let beginning = || {
            let part = &body[..body.len().min(KEPT)];
            let text = std::str::from_utf8(part).map(str::to_owned);
            text.unwrap_or_else(|_| part.escape_ascii().to_string())
        };
        let read = serde_json::from_slice::<ResponsePacket>(&body);
        match read {
            Ok(answer) if status.is_success() || answer.is_error() => Ok(answer),
            Err(e) if status.is_success() => Err(TransportError::deser_err(e, beginning())),
            _ => Err(TransportErrorKind::http_error(status.as_u16(), beginning())),
        }
    }
}

impl Service<RequestPacket> for Bounded {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: RequestPacket) -> Self::Future {
        Box::pin(self.clone().ask(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::rpc::{Chain, describe};
    use alloy::providers::Provider;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A node that answers so, whatever it is asked, and then fills the line for as long as somebody reads.
    async fn node(begins: &'static str, filler: &'static [u8]) -> Chain {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut part = [0; 4096];
                    let _ = stream.read(&mut part).await;
                    let _ = stream.write_all(begins.as_bytes()).await;
                    while !filler.is_empty() && stream.write_all(filler).await.is_ok() {}
                    let _ = stream.read(&mut part).await;
                });
            }
        });
        let url = format!("http://127.0.0.1:{port}/v2/secret-key");
        Chain::new(1, &[url], Duration::from_secs(60)).unwrap()
    }

    #[tokio::test]
    async fn an_answer_without_end_is_given_up_and_its_url_is_not_shown() {
        let filler: &'static [u8] = Box::leak(Box::new([b' '; 1 << 20]));
        for status in ["200 OK", "500 No"] {
            let begins = format!("HTTP/1.1 {status}\r\n\r\n{{\"jsonrpc\":\"2.0\",\"id\":0,");
            let chain = node(begins.leak(), filler).await;
            let error = chain.select().await.unwrap_err().to_string();
            assert!(error.contains("larger than 32 MiB"), "{error}");
            assert!(!error.contains("secret-key"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_error_is_told_from_an_answer_and_a_page_from_both() {
        let refused = r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32005,"message":"slow down"}}"#;
        for (status, body, part) in [
            ("200 OK", "<html>secret-key</html>", "cannot be read"),
            ("404 No", "<html>secret-key</html>", "HTTP status 404"),
            ("429 No", refused, "slow down"),
            ("200 OK", refused, "slow down"),
            // A result cannot come with a refusal.
            (
                "500 No",
                r#"{"jsonrpc":"2.0","id":0,"result":"0x1"}"#,
                "HTTP status 500",
            ),
        ] {
            let length = body.len();
            let text = format!(
                "HTTP/1.1 {status}\r\nRetry-After: 1\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            let chain = node(text.leak(), b"").await;
            let error = chain.select().await.unwrap_err().to_string();
            assert!(error.contains(part), "{status} {body}: {error}");
            assert!(!error.contains("secret-key"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_range_whose_logs_are_too_many_is_asked_for_in_smaller_pieces() {
        let filler: &'static [u8] = Box::leak(Box::new([b' '; 1 << 20]));
        crate::chain::rpc::install_tls_provider();
        let client = Client::builder().build().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n[").await;
                while stream.write_all(filler).await.is_ok() {}
            }
        });
        let bounded = Bounded::new(client, url.parse().unwrap());
        let client = alloy::rpc::client::RpcClient::new(bounded, true);
        let provider = alloy::providers::RootProvider::<alloy::network::Ethereum>::new(client);
        let error = provider.get_block_number().await.unwrap_err();
        assert!(
            crate::chain::logs::may_shrink(&error),
            "{}",
            describe(&error)
        );
    }
}
