//! HTTP/1.1 for whoever can reach a port: so many connections, so large a head, so much time, and no more. What is answered,
//! and how much of a body is read, is the caller's. Used by the witness and by the engine's metrics.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How long it waits before it accepts again when it could not.
const PAUSE: Duration = Duration::from_millis(50);

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once. Whoever comes then waits in the kernel's queue.
    pub connections: usize,
    /// For the head of a request to arrive.
    pub head: Duration,
    /// Bytes of a head.
    pub head_bytes: usize,
    /// For a connection, however busy it is.
    pub connection: Duration,
}

/// Serves until `stop` is done; connections that are open then end with the runtime.
pub async fn serve<A, F>(
    listener: TcpListener,
    limits: Limits,
    answer: A,
    stop: impl Future<Output = ()>,
) where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(limits.connections));
    tokio::pin!(stop);
    loop {
        let permit = tokio::select! {
            permit = room.clone().acquire_owned() => permit,
            () = &mut stop => return,
        };
        // Nobody closes it.
        let Ok(permit) = permit else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, or gone before we looked.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.head)
                .max_buf_size(limits.head_bytes)
                .serve_connection(TokioIo::new(stream), service);
            // A client that breaks off or stalls is its own trouble.
            let _ = tokio::time::timeout(limits.connection, connection).await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    const ASKED: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";

    /// A server that says "here" to everything, with room for two; its end, and what ends it.
    async fn server(limit: Duration) -> (SocketAddr, JoinHandle<()>, oneshot::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let limits = Limits {
            connections: 2,
            head: limit,
            head_bytes: 8 * 1024,
            connection: limit,
        };
        let answer = |_| async { Response::new(Full::new(Bytes::from_static(b"here"))) };
        let serving = tokio::spawn(serve(listener, limits, answer, async {
            let _ = stopped.await;
        }));
        (address, serving, stop)
    }

    async fn read(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[tokio::test]
    async fn clients_that_stall_are_let_go_and_whoever_waited_is_answered() {
        let (address, _serving, _stop) = server(Duration::from_millis(200)).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        // Whoever is too slow to ask in time, as on a busy machine, asks again.
        for tries in 0.. {
            let mut third = TcpStream::connect(address).await.unwrap();
            let _ = third.write_all(ASKED).await;
            if read(&mut third).await.ends_with("here") {
                break;
            }
            assert!(tries < 100, "nobody is answered");
        }
        assert!(!read(&mut silent).await.contains("here"));
        assert!(!read(&mut slow).await.contains("here"));
    }

    #[tokio::test]
    async fn no_more_are_served_at_once_than_there_is_room() {
        let (address, _serving, _stop) = server(Duration::from_secs(3600)).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        let second = TcpStream::connect(address).await.unwrap();
        // Both inside: a kept connection that was answered, and one that says nothing.
        first
            .write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 12];
        first.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut third = TcpStream::connect(address).await.unwrap();
        third.write_all(ASKED).await.unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(100), read(&mut third)).await;
        assert!(waited.is_err(), "the third was served beside two");
        drop(second);
        assert!(read(&mut third).await.ends_with("here"));
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let (address, _serving, _stop) = server(Duration::from_secs(3600)).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(64 * 1024));
        // It may close before it has read all of that.
        let _ = client.write_all(head.as_bytes()).await;
        assert!(!read(&mut client).await.contains("here"));
    }

    #[tokio::test]
    async fn when_it_is_to_stop_nobody_is_accepted_any_more() {
        let (address, serving, stop) = server(Duration::from_secs(3600)).await;
        let _inside = TcpStream::connect(address).await.unwrap();
        stop.send(()).unwrap();
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
