//! `GET /metrics` for Prometheus, where `metrics.listen` is configured. Reading is bounded in size, time and number, and
//! one page serves everybody who asks within a few seconds: whoever may reach the port cannot make the host work.

use super::{gather, prometheus};
use crate::log;
use blockhost_http::Limits;
use blockhost_proto::layout::Layout;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

const LIMITS: Limits = Limits {
    connections: 16,
    head: Duration::from_secs(5),
    head_bytes: 8 * 1024,
    connection: Duration::from_secs(60),
};
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
    let answer = move |request| {
        let page = page.clone();
        async move { answer(&request, &page).await }
    };
    blockhost_http::serve(listener, LIMITS, answer, std::future::pending()).await;
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
