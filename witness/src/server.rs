//! The witness's HTTP: `POST /add-checkpoint`, `GET /<sha256 of the origin>/checkpoint`, `GET /vkey`, `GET /status`.
//! Every size and every time is bounded before anything is read.

use crate::store::{AddError, Store};
use blockhost_http::Limits;
use blockhost_ledger::witness::{AddCheckpoint, MAX_REQUEST_BYTES, Refusal};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// For the head of a request, and again for its body.
const READ_LIMIT: Duration = Duration::from_secs(5);
const LIMITS: Limits = Limits {
    connections: 256,
    head: READ_LIMIT,
    head_bytes: 8 * 1024,
    connection: Duration::from_secs(60),
};

/// How often it was asked what, since it started.
#[derive(Debug, Default)]
pub struct Counters {
    cosigned: AtomicU64,
    malformed: AtomicU64,
    unknown: AtomicU64,
    unsigned: AtomicU64,
    stale: AtomicU64,
    split: AtomicU64,
    inconsistent: AtomicU64,
    failed: AtomicU64,
}

impl Counters {
    fn count(&self, outcome: &Result<String, AddError>) {
        let counter = match outcome {
            Ok(_) => &self.cosigned,
            Err(AddError::Store(_)) => &self.failed,
            Err(AddError::Refused(refusal)) => match refusal {
                Refusal::Malformed(_) | Refusal::Note(_) | Refusal::OldLarger { .. } => {
                    &self.malformed
                }
                Refusal::UnknownLog => &self.unknown,
                Refusal::NotSigned => &self.unsigned,
                Refusal::Stale(_) => &self.stale,
                Refusal::Split(_) => &self.split,
                Refusal::Proof { .. } => &self.inconsistent,
            },
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn to_json(&self) -> serde_json::Value {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "cosigned": of(&self.cosigned), "malformed": of(&self.malformed), "unknown_log": of(&self.unknown),
            "not_signed": of(&self.unsigned), "stale": of(&self.stale), "split": of(&self.split),
            "inconsistent": of(&self.inconsistent), "failed": of(&self.failed),
        })
    }
}

/// Serves until `stop` is done; connections that are open then are cut.
pub async fn serve(listener: TcpListener, store: Arc<Store>, stop: impl Future<Output = ()>) {
    let counters = Arc::new(Counters::default());
    let answer = move |request| {
        let (store, counters) = (store.clone(), counters.clone());
        async move { answer(request, store, &counters).await }
    };
    blockhost_http::serve(listener, LIMITS, answer, stop).await;
}

async fn answer(
    request: Request<Incoming>,
    store: Arc<Store>,
    counters: &Counters,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::POST, "/add-checkpoint") => add(request, store, counters).await,
        (_, "/add-checkpoint") => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "POST a request\n");
            let headers = response.headers_mut();
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
            response
        }
        (&Method::GET, "/vkey") => text(StatusCode::OK, &format!("{}\n", store.key())),
        (&Method::GET, "/status") => {
            let status = json!({
                "witness": store.key().to_string(), "logs": store.states(), "requests": counters.to_json(),
            });
            typed(StatusCode::OK, "application/json", &format!("{status}\n"))
        }
        (&Method::GET, path) => {
            let origin = path
                .strip_prefix('/')
                .and_then(|p| p.strip_suffix("/checkpoint"));
            match origin.and_then(|origin| store.latest(origin)) {
                Some(note) => text(StatusCode::OK, &note),
                None => text(StatusCode::NOT_FOUND, "nothing here\n"),
            }
        }
        _ => text(StatusCode::NOT_FOUND, "nothing here\n"),
    }
}

async fn add(
    request: Request<Incoming>,
    store: Arc<Store>,
    counters: &Counters,
) -> Response<Full<Bytes>> {
    let body = Limited::new(request.into_body(), MAX_REQUEST_BYTES).collect();
    let body = match tokio::time::timeout(READ_LIMIT, body).await {
        Err(_) => return closing(StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
        Ok(Err(_)) => {
            return closing(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large or broke off\n",
            );
        }
        Ok(Ok(body)) => body.to_bytes(),
    };
    // Judging hashes and remembering syncs: not on a thread that serves others.
    let judged = tokio::task::spawn_blocking(move || {
        let request = AddCheckpoint::parse(&body);
        let origin = request
            .as_ref()
            .ok()
            .and_then(|r| Some(r.claim().ok()?.origin));
        let outcome = request.map_err(AddError::from).and_then(|r| store.add(&r));
        (origin.unwrap_or_default(), outcome)
    });
    let Ok((origin, outcome)) = judged.await else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n");
    };
    counters.count(&outcome);
    match outcome {
        Ok(line) => text(StatusCode::OK, &line),
        Err(AddError::Refused(Refusal::Stale(size))) => typed(
            StatusCode::CONFLICT,
            "text/x.tlog.size",
            &format!("{size}\n"),
        ),
        Err(AddError::Refused(refusal)) => {
            // Two histories of a log are what a witness is there for.
            if matches!(refusal, Refusal::Split(_) | Refusal::Proof { .. }) {
                eprintln!("<4>{}: refused: {refusal}", origin.escape_debug());
            }
            let status = StatusCode::from_u16(refusal.status());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            text(status, &format!("{refusal}\n"))
        }
        Err(AddError::Store(error)) => {
            eprintln!("<3>{}: {error}", origin.escape_debug());
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "cannot remember it, so it is not cosigned\n",
            )
        }
    }
}

fn closing(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = text(status, body);
    let close = HeaderValue::from_static("close");
    response
        .headers_mut()
        .insert(hyper::header::CONNECTION, close);
    response
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_owned())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
