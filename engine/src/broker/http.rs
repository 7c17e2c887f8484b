//! Asking a broker: one `POST` over HTTP/1.1 and TLS. The answer has a time and a size; one that exceeds them, sends elsewhere
//! or has another status than 200 or 201 is no answer. What it says is [`super::answer`]'s.

use std::time::Duration;

use blockhost_proto::escape;
use blockhost_proto::value::WgKey;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Response, StatusCode};
use serde::Serialize;

use crate::chain::rpc::install_tls_provider;
use crate::config::BrokerSection;

/// How long an answer may take, from the first packet to the last byte.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer; an allocation has 200.
const MAX_ANSWER: usize = 16 << 10;
/// Bytes of a refusal that are shown.
const MAX_SHOWN: usize = 200;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The tunnel's public key on this host.
    #[serde(serialize_with = "as_text")]
    pub wg_pubkey: WgKey,
    /// The contract of this host's credentials.
    pub nft_contract: String,
    /// Where that contract is.
    pub source: String,
    /// Seconds.
    pub lease_duration: u64,
}

fn as_text<S: serde::Serializer>(key: &WgKey, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(key)
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The way there, or HTTP.
    #[error("the broker at {host} cannot be asked: {why}")]
    Http {
        /// Who.
        host: String,
        /// What happened.
        why: String,
    },
    /// It took too long.
    #[error("the broker at {host} did not answer within {} s", after.as_secs())]
    Slow {
        /// Who.
        host: String,
        /// How long that is.
        after: Duration,
    },
    /// It sends elsewhere.
    #[error(
        "the broker at {host} sends elsewhere ({status}), which is not followed: set broker.url in network.yaml to where it is"
    )]
    Elsewhere {
        /// Who.
        host: String,
        /// Its answer.
        status: StatusCode,
    },
    /// It refused.
    #[error("the broker at {host} answers {status}: {said}")]
    Status {
        /// Who.
        host: String,
        /// Its answer.
        status: StatusCode,
        /// What it says about it, cut and made harmless.
        said: String,
    },
    /// Too much of an answer.
    #[error("the answer of the broker at {host} is longer than {limit} bytes")]
    Long {
        /// Who.
        host: String,
        /// What is taken.
        limit: usize,
    },
}

/// HTTP's own sentence says little; its causes say more.
fn why(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    escape::shown_up_to(&text, MAX_SHOWN)
}

/// Asks, and gives the answer's bytes.
///
/// # Errors
/// [`AskError`].
pub async fn ask(section: &BrokerSection, request: &Request) -> Result<Vec<u8>, AskError> {
    ask_within(section, request, PATIENCE).await
}

async fn ask_within(
    section: &BrokerSection,
    request: &Request,
    patience: Duration,
) -> Result<Vec<u8>, AskError> {
    install_tls_provider();
    let host = section.host();
    let failed = |why: String| AskError::Http {
        host: host.clone(),
        why,
    };
    let client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        // What the environment names is not what the operator wrote down.
        .no_proxy()
        .build()
        .map_err(|error| failed(why(&error)))?;
    let body = serde_json::to_vec(request).map_err(|error| failed(error.to_string()))?;
    let whole = async {
        let response = client
            .post(section.allocations())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(body)
            .send()
            .await
            .map_err(|error| failed(why(&error)))?;
        let status = response.status();
        match status {
            StatusCode::OK | StatusCode::CREATED => {
                let (body, whole) = beginning(response, MAX_ANSWER)
                    .await
                    .map_err(|error| failed(why(&error)))?;
                let (host, limit) = (host.clone(), MAX_ANSWER);
                if whole {
                    Ok(body)
                } else {
                    Err(AskError::Long { host, limit })
                }
            }
            status if status.is_redirection() => Err(AskError::Elsewhere {
                host: host.clone(),
                status,
            }),
            status => {
                // The status is known; what comes with it is a help, and may be missing.
                let body = beginning(response, MAX_ANSWER).await.unwrap_or_default().0;
                let text: String = std::str::from_utf8(&body)
                    .unwrap_or("(no text)")
                    .chars()
                    .take(MAX_SHOWN)
                    .collect();
                Err(AskError::Status {
                    host: host.clone(),
                    status,
                    said: escape::shown_up_to(text.trim(), MAX_SHOWN),
                })
            }
        }
    };
    match tokio::time::timeout(patience, whole).await {
        Ok(result) => result,
        Err(_) => Err(AskError::Slow {
            host: host.clone(),
            after: patience,
        }),
    }
}

/// At most so many bytes of a body, and whether that was all.
async fn beginning(mut response: Response, limit: usize) -> reqwest::Result<(Vec<u8>, bool)> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        if body.len() + part.len() > limit {
            return Ok((body, false));
        }
        body.extend_from_slice(&part);
    }
    Ok((body, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockhost_proto::value::Text as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    fn request() -> Request {
        Request {
            wg_pubkey: WgKey::read("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=").expect("a key"),
            nft_contract: "0x52908400098527886E0F7030069857D2E4169EE7".to_owned(),
            source: "eip155:1".to_owned(),
            lease_duration: 3600,
        }
    }

    /// A broker that answers so, then filler without end where there is some, then silence; and what it was asked last.
    async fn lying(
        begins: &'static str,
        filler: &'static [u8],
    ) -> (BrokerSection, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut question = Vec::new();
                let mut part = [0; 4096];
                while !question.ends_with(b"}") {
                    match stream.read(&mut part).await {
                        Ok(count @ 1..) => question.extend_from_slice(&part[..count]),
                        _ => break,
                    }
                }
                let _ = tell.send(String::from_utf8(question).expect("text"));
                let _ = stream.write_all(begins.as_bytes()).await;
                while !filler.is_empty() && stream.write_all(filler).await.is_ok() {}
                let _ = stream.read(&mut part).await;
            }
        });
        let section = serde_saphyr::from_str(&format!("url: 'http://127.0.0.1:{port}/eu/'"));
        (section.expect("a section"), told)
    }

    #[tokio::test]
    async fn a_question_is_what_the_interface_says_and_the_answer_comes_whole() {
        for status in ["200 OK", "201 Created"] {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
            let (section, mut asked) = lying(answer.leak(), b"").await;
            assert_eq!(ask(&section, &request()).await.expect("an answer"), b"{}");
            let asked = asked.recv().await.expect("a question");
            let (head, body) = asked.split_once("\r\n\r\n").expect("a body");
            assert!(
                head.starts_with("POST /eu/v1/allocations HTTP/1.1\r\n"),
                "{head}"
            );
            let head = head.to_ascii_lowercase();
            assert!(head.contains("content-type: application/json"), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
            let expected = serde_json::json!({
                "wg_pubkey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
                "nft_contract": "0x52908400098527886E0F7030069857D2E4169EE7",
                "source": "eip155:1", "lease_duration": 3600,
            });
            assert_eq!(body, expected);
        }
    }

    #[tokio::test]
    async fn an_answer_without_end_is_given_up_whatever_its_status() {
        let filler: &'static [u8] = Box::leak(Box::new([b' '; 65536]));
        let (section, _asked) = lying("HTTP/1.1 200 OK\r\n\r\n[", filler).await;
        let error = ask(&section, &request()).await.expect_err("long");
        assert!(matches!(error, AskError::Long { .. }), "{error}");
        let (section, _asked) = lying("HTTP/1.1 500 No\r\n\r\n", filler).await;
        let error = ask(&section, &request()).await.expect_err("refused");
        assert!(matches!(error, AskError::Status { .. }), "{error}");
        let (section, _asked) = lying("HTTP/1.1 200 OK\r\nX: ", filler).await;
        let error = ask(&section, &request()).await.expect_err("a header");
        assert!(matches!(error, AskError::Http { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_broker_that_falls_silent_is_given_up() {
        for begins in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        ] {
            let (section, _asked) = lying(begins, b"").await;
            let patience = Duration::from_millis(100);
            let error = ask_within(&section, &request(), patience).await;
            let error = error.expect_err("silent");
            assert!(matches!(error, AskError::Slow { .. }), "{begins}: {error}");
        }
    }

    #[tokio::test]
    async fn detours_refusals_and_other_languages_are_told_without_what_steers_a_terminal() {
        for (begins, part) in [
            (
                "HTTP/1.1 302 There\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n",
                "sends elsewhere",
            ),
            (
                "HTTP/1.1 307 There\r\nLocation: /v2\r\nContent-Length: 0\r\n\r\n",
                "sends elsewhere",
            ),
            ("HTTP/1.1 204 Nothing\r\n\r\n", "204"),
            (
                "HTTP/1.1 403 No\r\nContent-Length: 12\r\n\r\nno\u{1b}[2J\nmore\n",
                "403",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nContent-Length: 2\r\n\r\n{}",
                "cannot be asked",
            ),
            ("SSH-2.0-OpenSSH_9.2\r\n", "cannot be asked"),
        ] {
            let (section, _asked) = lying(begins, b"").await;
            let error = ask(&section, &request())
                .await
                .expect_err(begins)
                .to_string();
            assert!(error.contains(part), "{begins}: {error}");
            assert!(!error.contains(['\n', '\u{1b}']), "{error}");
        }
        let nobody = serde_saphyr::from_str("url: 'http://127.0.0.1:1'").expect("a section");
        let error = ask(&nobody, &request())
            .await
            .expect_err("nobody")
            .to_string();
        assert!(
            error.contains("127.0.0.1:1") && error.contains("refused"),
            "{error}"
        );
    }
}
