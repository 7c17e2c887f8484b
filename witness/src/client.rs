//! One `add-checkpoint` to one witness: bounded in time and bytes, and nothing it says is believed but a cosignature
//! that verifies.

use blockhost_ledger::cosign::{Cosignature, WitnessKey};
use blockhost_ledger::witness::{AddCheckpoint, parse_size};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::time::Duration;

/// Largest answer that is read, bytes.
const MAX_ANSWER: usize = 16 * 1024;
/// For all of one exchange.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be used.
    #[error(
        "{0}: only http://HOST[:PORT][/PREFIX] can be used; what is signed needs no secrecy, put a proxy before it for TLS"
    )]
    Url(String),
    /// Nobody there, or the connection broke.
    #[error("cannot reach it: {0}")]
    Unreachable(String),
    /// Too slow.
    #[error("no answer within {} s", LIMIT.as_secs())]
    Slow,
    /// The witness has seen another size.
    #[error("it has cosigned {0} records")]
    Stale(u64),
    /// It refuses.
    #[error("it refuses with {status}: {text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words, cut and made printable.
        text: String,
    },
    /// What it sent is no cosignature of its key over this head.
    #[error("its answer is no cosignature of the key {0}")]
    Invalid(String),
}

/// Asks once.
///
/// # Errors
/// [`ClientError`].
pub async fn add_checkpoint(
    url: &str,
    key: &WitnessKey,
    request: &AddCheckpoint,
) -> Result<Cosignature, ClientError> {
    let exchange = tokio::time::timeout(LIMIT, exchange(url, request.to_string()));
    let (status, kind, body) = exchange.await.map_err(|_| ClientError::Slow)??;
    match status {
        StatusCode::OK => {
            let text = std::str::from_utf8(&body).unwrap_or_default();
            let signed = request.body().unwrap_or_default();
            key.find(signed, text)
                .ok_or_else(|| ClientError::Invalid(key.to_string()))
        }
        StatusCode::CONFLICT if kind == "text/x.tlog.size" && parse_size(&body).is_some() => {
            Err(ClientError::Stale(parse_size(&body).unwrap_or(0)))
        }
        status => {
            let text: String = std::str::from_utf8(&body)
                .unwrap_or("(no text)")
                .chars()
                .take(200)
                // Nothing that a terminal obeys or shows in another order.
                .map(|c| if c.is_ascii_graphic() { c } else { ' ' })
                .collect();
            Err(ClientError::Refused {
                status: status.as_u16(),
                text: text.trim().to_owned(),
            })
        }
    }
}

async fn exchange(url: &str, body: String) -> Result<(StatusCode, String, Bytes), ClientError> {
    let bad = || ClientError::Url(url.escape_default().take(200).collect());
    let broken = |error: &dyn std::fmt::Display| ClientError::Unreachable(error.to_string());
    let full = format!("{}/add-checkpoint", url.trim_end_matches('/'));
    let uri: Uri = full.parse().map_err(|_| bad())?;
    if uri.scheme_str() != Some("http") {
        return Err(bad());
    }
    let host = uri.host().ok_or_else(bad)?;
    let authority = uri.authority().ok_or_else(bad)?.as_str().to_owned();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = tokio::net::TcpStream::connect((bare, uri.port_u16().unwrap_or(80)))
        .await
        .map_err(|e| broken(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| broken(&e))?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri.path())
        .header(HOST, authority)
        .header(CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| bad())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let status = response.status();
        let kind = response.headers().get(CONTENT_TYPE);
        let kind = kind
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await;
        let body = body.map_err(|e| broken(&e))?.to_bytes();
        Ok((status, kind, body))
    };
    let answer = answer.await;
    driver.abort();
    answer
}
