//! `GET /metrics` for Prometheus, where `metrics.listen` is configured. Reading is bounded in size, time and number, and
//! one page serves everybody who asks within a few seconds: whoever may reach the port cannot make the host work.

use super::{gather, prometheus};
use crate::log;
use blockhost_proto::layout::Layout;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};

/// Connections at once.
const CONNECTIONS: usize = 16;
/// For the head of a request.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// For a connection.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a request's head.
const MAX_HEAD: usize = 8 * 1024;
/// How long a page is good for.
const FRESH: Duration = Duration::from_secs(5);

/// Serves until the task is aborted. A port that cannot be had is logged, and the engine goes on without.
pub async fn run(address: SocketAddr, layout: Layout) {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(e) => {
            log::error(
                "metrics.listen in blockhost.yaml cannot be used; there are no metrics",
                &[("address", &address), ("error", &e)],
            );
            return;
        }
    };
    let page: Arc<Page> = Arc::new(Page {
        layout,
        last: Mutex::new(None),
    });
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, or gone before we looked.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let page = page.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let page = page.clone();
                async move { Ok::<_, Infallible>(answer(&request, &page).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(READ_LIMIT)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), service);
            // A client that breaks off or stalls is its own trouble.
            let _ = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
            drop(permit);
        });
    }
}

struct Page {
    layout: Layout,
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl Page {
    async fn get(&self) -> Bytes {
        let mut last = self.last.lock().await;
        if let Some((at, page)) = &*last
            && at.elapsed() < FRESH
        {
            return page.clone();
        }
        let page = Bytes::from(prometheus::render(&gather::status(&self.layout).await));
        *last = Some((Instant::now(), page.clone()));
        page
    }
}

async fn answer(request: &Request<Incoming>, page: &Page) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, page.get().await),
        (_, "/metrics") => (
            StatusCode::METHOD_NOT_ALLOWED,
            Bytes::from_static(b"GET it\n"),
        ),
        _ => (StatusCode::NOT_FOUND, Bytes::from_static(b"GET /metrics\n")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static(prometheus::CONTENT_TYPE),
    );
    response
}
