//! The clients against a socket that behaves, and against ones that do not.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use blockhost_proto::action::{Action, AgentInfo, QmStart};
use blockhost_proto::client::{CallError, blocking::Client};
use blockhost_proto::request::decode_request;
use blockhost_proto::response::{Receipt, Response};
use blockhost_proto::wire::{FrameDecoder, MAX_FRAME, encode_frame};
use blockhost_proto::{ErrorCode, Layout};

/// Reads requests and hands each, with the stream, to `answer`, until the peer goes.
fn serve(mut stream: UnixStream, mut answer: impl FnMut(&mut UnixStream, Option<String>, &Action)) {
    let mut decoder = FrameDecoder::new(MAX_FRAME);
    let mut buffer = [0; 512];
    loop {
        while let Some(payload) = decoder.next_frame().unwrap() {
            let request = decode_request(&payload).unwrap();
            answer(&mut stream, request.id, &request.action);
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => decoder.feed(&buffer[..n]),
        }
    }
}

fn write(stream: &mut UnixStream, response: &Response) {
    let _ = stream.write_all(&encode_frame(&response.encode(MAX_FRAME), MAX_FRAME).unwrap());
}

/// A world with a listening socket.
fn world() -> (tempfile::TempDir, Layout, UnixListener) {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path());
    std::fs::create_dir_all(layout.run()).unwrap();
    let listener = UnixListener::bind(layout.agent_socket()).unwrap();
    (directory, layout, listener)
}

fn start(vmid: u32) -> Action {
    QmStart {
        vmid: vmid.try_into().unwrap(),
    }
    .into()
}

/// Even vmids start, odd ones are not found; the output names the vmid.
fn behave(stream: &mut UnixStream, id: Option<String>, action: &Action) {
    let Action::QmStart(QmStart { vmid }) = action else {
        write(stream, &Response::success(id, "info"));
        return;
    };
    if vmid.get() % 2 == 0 {
        let mut response = Response::success(id, vmid.to_string());
        response.receipt = Some(Receipt {
            index: u64::from(vmid.get()),
            leaf: "00".repeat(32),
        });
        write(stream, &response);
    } else {
        write(
            stream,
            &Response::refusal(
                id,
                ErrorCode::NotFound,
                format!("there is no machine {vmid}"),
            ),
        );
    }
}

#[test]
fn answers_and_refusals_reach_the_caller_and_the_connection_lives_on() {
    let (_directory, layout, listener) = world();
    let server = thread::spawn(move || serve(listener.accept().unwrap().0, behave));
    let mut client = Client::connect_layout(&layout).unwrap();
    let reply = client.call(&start(100)).unwrap();
    assert_eq!(
        (reply.output.as_str(), reply.receipt.unwrap().index),
        ("100", 100)
    );
    assert_eq!(
        client.call(&start(101)).unwrap_err().code(),
        Some(ErrorCode::NotFound)
    );
    assert_eq!(client.call(&AgentInfo {}.into()).unwrap().output, "info");
    drop(client);
    server.join().unwrap();
}

#[test]
fn pipelined_calls_are_answered_in_order() {
    let (_directory, layout, listener) = world();
    let server = thread::spawn(move || serve(listener.accept().unwrap().0, behave));
    let mut client = Client::connect_layout(&layout).unwrap();
    let actions: Vec<Action> = (100..200).map(start).collect();
    let results = client.call_all(&actions, Duration::from_secs(60)).unwrap();
    for (vmid, result) in (100..200).zip(results) {
        match result {
            Ok(reply) => assert_eq!(reply.output, vmid.to_string()),
            Err(error) => assert!(
                vmid % 2 == 1 && error.to_string().contains(&vmid.to_string()),
                "{error}"
            ),
        }
    }
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_silent_agent_is_a_timeout_and_its_late_answer_is_never_taken_for_another() {
    let (_directory, layout, listener) = world();
    // It answers when the caller has given up, and not before.
    let (given_up, wait) = mpsc::channel();
    let server = thread::spawn(move || {
        serve(listener.accept().unwrap().0, |stream, id, action| {
            wait.recv().unwrap();
            behave(stream, id, action);
        });
    });
    let mut client = Client::connect_layout(&layout).unwrap();
    let error = client
        .call_with_timeout(&start(100), Duration::from_millis(60))
        .unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    given_up.send(()).unwrap();
    assert!(matches!(
        client.call(&start(102)).unwrap_err(),
        CallError::Protocol { .. }
    ));
    drop(client);
    server.join().unwrap();
}

#[test]
fn an_agent_that_answers_the_wrong_question_or_garbage_breaks_the_connection() {
    let forms: [fn(&mut UnixStream); 5] = [
        |s| write(s, &Response::success(Some("999".to_owned()), "x")),
        |s| write(s, &Response::success(None, "x")),
        |s| drop(s.write_all(&[0, 0, 0, 0])),
        |s| drop(s.write_all(&[0xff; 64])),
        |s| drop(s.write_all(b"\0\0\0\x02[]")),
    ];
    for form in forms {
        let (_directory, layout, listener) = world();
        let server =
            thread::spawn(move || serve(listener.accept().unwrap().0, |stream, _, _| form(stream)));
        let mut client = Client::connect_layout(&layout).unwrap();
        let error = client
            .call_with_timeout(&start(100), Duration::from_secs(60))
            .unwrap_err();
        assert!(matches!(error, CallError::Protocol { .. }), "{error}");
        drop(client);
        server.join().unwrap();
    }
}

#[test]
fn a_refusal_of_the_connection_itself_is_told() {
    let (_directory, layout, listener) = world();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        write(
            &mut stream,
            &Response::refusal(None, ErrorCode::Busy, "too many connections"),
        );
    });
    let mut client = Client::connect_layout(&layout).unwrap();
    server.join().unwrap();
    assert_eq!(
        client.call(&start(100)).unwrap_err().code(),
        Some(ErrorCode::Busy)
    );
}

#[test]
fn a_missing_socket_is_named_with_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let error = Client::connect_layout(&Layout::new(directory.path())).unwrap_err();
    assert!(
        error.to_string().contains("root-agent.sock")
            && error
                .to_string()
                .contains("is blockhost-root-agent running")
    );
}

#[test]
fn a_world_with_a_very_long_path_is_reached_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path().join("x".repeat(120)));
    std::fs::create_dir_all(layout.run()).unwrap();
    // Bound under a short name and moved: the server's own path is too long for bind as well.
    let short = directory.path().join("s");
    let listener = UnixListener::bind(&short).unwrap();
    std::fs::rename(&short, layout.agent_socket()).unwrap();
    let server = thread::spawn(move || serve(listener.accept().unwrap().0, behave));
    let mut client = Client::connect_layout(&layout).unwrap();
    assert_eq!(client.call(&start(100)).unwrap().output, "100");
    drop(client);
    server.join().unwrap();
}

#[cfg(feature = "tokio")]
mod asynchronous {
    use super::*;
    use blockhost_proto::client::tokio::{Client, call_once};

    #[tokio::test]
    async fn the_asynchronous_client_gives_the_same_answers() {
        let (_directory, layout, listener) = world();
        let server = thread::spawn(move || {
            for _ in 0..2 {
                serve(listener.accept().unwrap().0, behave);
            }
        });
        let mut client = Client::connect_layout(&layout).await.unwrap();
        assert_eq!(client.call(&start(100)).await.unwrap().output, "100");
        assert_eq!(
            client.call(&start(101)).await.unwrap_err().code(),
            Some(ErrorCode::NotFound)
        );
        assert_eq!(client.dry_run(&start(102)).await.unwrap().output, "102");
        drop(client);
        assert_eq!(call_once(&layout, &start(104)).await.unwrap().output, "104");
        server.join().unwrap();
    }

    #[tokio::test]
    async fn a_call_that_was_dropped_half_way_spoils_its_connection() {
        let (_directory, layout, listener) = world();
        // It answers when the caller has given up, and not before.
        let (given_up, wait) = mpsc::channel();
        let server = thread::spawn(move || {
            serve(listener.accept().unwrap().0, |stream, id, action| {
                wait.recv().unwrap();
                behave(stream, id, action);
            });
        });
        let mut client = Client::connect_layout(&layout).await.unwrap();
        let error = client
            .call_with_timeout(&start(100), Duration::from_millis(50))
            .await
            .unwrap_err();
        assert!(matches!(error, CallError::Timeout { .. }), "{error}");
        given_up.send(()).unwrap();
        assert!(matches!(
            client.call(&start(102)).await.unwrap_err(),
            CallError::Protocol { .. }
        ));
        drop(client);
        server.join().unwrap();
    }

    #[tokio::test]
    async fn an_agent_that_has_no_room_for_a_connection_at_first_is_waited_for() {
        let (_directory, layout, listener) = world();
        // It keeps as many as it can, and none is accepted before somebody else has been sent away.
        rustix::net::listen(&listener, 1).unwrap();
        let waiting: Vec<_> = std::iter::from_fn(|| {
            let socket = rustix::net::socket_with(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::STREAM,
                rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC,
                None,
            )
            .unwrap();
            let address = rustix::net::SocketAddrUnix::new(layout.agent_socket()).unwrap();
            rustix::net::connect(&socket, &address)
                .ok()
                .map(|()| socket)
        })
        .collect();
        let accepting = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            listener.accept().unwrap();
            listener
        });
        Client::connect_layout(&layout).await.unwrap();
        accepting.join().unwrap();
        drop(waiting);
    }
}
