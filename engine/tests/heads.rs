//! Being told of new blocks: by a real chain to the engine's real binary, with lines that break, and by nodes that stall,
//! lie and flood. Where an event has to come by the websocket, the engine itself looks once an hour.

mod common;

use blockhost_engine::heads::pace::LEAST_PAUSE;
use blockhost_engine::heads::socket::{Broken, Limits, Listener, listen};
use common::tap::{Mode, Tap};
use common::world::World;
use common::{Anvil, free_port, program};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const HOUR: u64 = 3600;
const LIMIT: Duration = Duration::from_secs(60);
const TELLS: &str = "a websocket tells of new blocks";

fn http(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn ws(port: u16) -> String {
    format!("ws://127.0.0.1:{port}")
}

async fn until(world: &World, what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(
            Instant::now() < deadline,
            "{what} did not come:\n{}",
            world.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_told(world: &World, times: usize) {
    until(world, "the subscription", || {
        world.log().matches(TELLS).count() >= times
    })
    .await;
}

/// The customer buys, and this is the only way for the engine to hear of it soon.
async fn buy_and_wait(world: &World, machines: usize) {
    world.buy(30, world.user_encrypted()).await;
    until(world, "the machine", || done(world) == machines).await;
    let created = world.effects().into_iter();
    let created = created.filter(|effect| effect.starts_with("create"));
    assert_eq!(created.count(), machines, "{:?}", world.effects());
}

fn done(world: &World) -> usize {
    let jobs = world.jobs().into_iter();
    jobs.filter(|job| job["event"] == "SubscriptionCreated" && job["state"] == "done")
        .count()
}

fn status(world: &World) -> Value {
    serde_json::from_str(&world.operator(&["status", "--json"])).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_is_seen_by_the_websocket_an_hour_before_the_next_poll() {
    let Some(world) = World::new().await else {
        return;
    };
    let port = world.anvil.port;
    world.set_endpoints(HOUR, &[http(port), ws(port)]);
    let checked: Value =
        serde_json::from_str(&world.operator(&["config", "check", "--json"])).unwrap();
    assert_eq!(checked["ok"], true, "{checked}");
    assert_eq!(checked["values"]["websocket_endpoints"], 1);
    let _engine = world.engine(&[]);
    until_told(&world, 1).await;
    buy_and_wait(&world, 1).await;
    buy_and_wait(&world, 2).await;
    let status = status(&world);
    assert_eq!(status["heads"]["connected"], true, "{status}");
    assert_eq!(status["heads"]["endpoint"], format!("127.0.0.1:{port}"));
    let text = world.operator(&["status", "--prometheus"]);
    assert!(text.contains("blockhost_websocket_connected 1"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_while_the_line_is_cut_is_seen_when_it_stands_again() {
    let Some(world) = World::new().await else {
        return;
    };
    let (told, asked) = (Tap::start(world.anvil.port), Tap::start(world.anvil.port));
    world.set_endpoints(HOUR, &[ws(told.port), http(asked.port)]);
    let _engine = world.engine(&[]);
    until_told(&world, 1).await;
    buy_and_wait(&world, 1).await;
    told.set(Mode::Cut);
    until(&world, "the note", || {
        status(&world)["heads"]["connected"] == false
    })
    .await;
    // What was told of before the cut has been looked for: no look is to come for an hour.
    let mut looks = 0;
    while asked.counted() > looks {
        looks = asked.counted();
        tokio::time::sleep(3 * LEAST_PAUSE).await;
    }
    world.buy(30, world.user_encrypted()).await;
    told.set(Mode::Open);
    until(&world, "the machine", || done(&world) == 2).await;
    until_told(&world, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_websockets_one_that_is_dead_or_on_another_chain_is_passed_over() {
    let (Some(world), Some(foreign)) = (World::new().await, Anvil::start(&["--chain-id", "5"]))
    else {
        return;
    };
    let port = world.anvil.port;
    let urls = [
        "ws://127.0.0.1:1/secret-key".to_owned(),
        ws(foreign.port),
        ws(port),
        http(port),
    ];
    world.set_endpoints(HOUR, &urls);
    let _engine = world.engine(&[]);
    until_told(&world, 1).await;
    buy_and_wait(&world, 1).await;
    let log = world.log();
    assert!(log.contains("is on chain id 5"), "{log}");
    assert!(!log.contains("secret-key"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_that_stalls_hides_nothing_from_the_poll() {
    let Some(world) = World::new().await else {
        return;
    };
    let tap = Tap::start(world.anvil.port);
    world.set_endpoints(1, &[ws(tap.port), http(world.anvil.port)]);
    let _engine = world.engine(&[]);
    until_told(&world, 1).await;
    tap.set(Mode::Clogged);
    buy_and_wait(&world, 1).await;
    buy_and_wait(&world, 2).await;
    assert_eq!(world.minted().await, 2);
}

/// A node that takes the subscription and then says what it wants; a word about the connection may end it.
async fn node_that(says: impl Fn(u64) -> Message + Send + Sync + Clone + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let says = says.clone();
            tokio::spawn(async move {
                let Some(mut socket) = subscribed(stream).await else {
                    return;
                };
                let mut n = 0;
                while socket.send(says(n)).await.is_ok() {
                    n += 1;
                }
            });
        }
    });
    port
}

async fn subscribed(
    stream: tokio::net::TcpStream,
) -> Option<WebSocketStream<tokio::net::TcpStream>> {
    let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
    for result in ["0x7a69", "0xname"] {
        let asked = socket.next().await?.ok()?;
        let asked: Value = serde_json::from_str(asked.to_text().ok()?).ok()?;
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
        socket.send(Message::text(answer.to_string())).await.ok()?;
    }
    Some(socket)
}

fn head(number: u64, hash: u64) -> Message {
    let result = json!({"number": format!("{number:#x}"), "hash": format!("{hash:#x}")});
    let params = json!({"subscription": "0xname", "result": result});
    let said = json!({"jsonrpc": "2.0", "method": "eth_subscription", "params": params});
    Message::text(said.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lies_and_floods_makes_no_event_and_at_most_a_look_a_second() {
    let Some(world) = World::new().await else {
        return;
    };
    // Blocks that are none, as fast as the line takes them, at the end of time.
    let liar = node_that(|n| head(u64::MAX - (n % 7), n)).await;
    let tap = Tap::start(world.anvil.port);
    world.set_endpoints(HOUR, &[ws(liar), http(tap.port)]);
    let began = Instant::now();
    let _engine = world.engine(&[]);
    until_told(&world, 1).await;
    buy_and_wait(&world, 1).await;
    until(&world, "many looks", || tap.counted() > 8).await;
    let looks = tap.counted();
    // At its start each part of the engine looks once.
    let most = usize::try_from(began.elapsed().as_secs()).unwrap() + 5;
    assert!(looks <= most, "{looks} looks in {most} s");
    assert_eq!(world.minted().await, 1);
}

/// What a listener of the tests heard.
#[derive(Default)]
struct Ear {
    subscribed: usize,
    told: Vec<u64>,
    /// The chain that our own looks see goes on at every beat.
    moves: bool,
    head: u64,
}

impl Listener for Ear {
    fn subscribed(&mut self) {
        self.subscribed += 1;
    }

    fn told(&mut self, head: u64) {
        self.told.push(head);
    }

    fn beat(&mut self) -> u64 {
        self.head += u64::from(self.moves);
        self.head
    }
}

const BEAT: Duration = Duration::from_millis(100);
/// For what comes to its end by itself, on a slow machine too.
const PATIENT: Limits = Limits {
    answer: LIMIT,
    beat: BEAT,
    silence: LIMIT,
};
/// For a node from which nothing is to come.
const SHORT: Limits = Limits {
    answer: Duration::from_millis(1500),
    beat: BEAT,
    silence: Duration::from_millis(1500),
};
/// For one that lives, and is to be found dead when it no longer does.
const SILENCE: Duration = Duration::from_secs(5);
const WATCHFUL: Limits = Limits {
    answer: LIMIT,
    beat: BEAT,
    silence: SILENCE,
};

async fn heard_of(port: u16, limits: Limits, ear: &mut Ear) -> Broken {
    let url = ws(port);
    let ended = listen(&url, 31337, limits, ear);
    tokio::time::timeout(LIMIT, ended)
        .await
        .expect("it comes to an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_too_large_or_that_nobody_asked_for_end_the_connection() {
    let large = node_that(|_| Message::text("x".repeat(300_000))).await;
    let mut ear = Ear::default();
    assert!(matches!(
        heard_of(large, PATIENT, &mut ear).await,
        Broken::TooLarge
    ));
    assert_eq!((ear.subscribed, ear.told), (1, vec![]));
    for foreign in [
        Message::text("no json"),
        Message::text(
            r#"{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"0xother","result":{"number":"0x1","hash":"0x2"}}}"#,
        ),
        Message::binary(vec![0; 100]),
        // The same block again and again.
        head(5, 5),
    ] {
        let node = node_that(move |_| foreign.clone()).await;
        let mut ear = Ear::default();
        let broken = heard_of(node, PATIENT, &mut ear).await;
        assert!(broken.to_string().contains("nobody asked for"), "{broken}");
        assert!(ear.told.len() <= 1, "{:?}", ear.told);
    }
}

/// A node that answers the handshake by hand, and then sends these bytes.
fn raw(after: &'static [u8]) -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut one = [0];
            while !request.ends_with(b"\r\n\r\n") && client.read_exact(&mut one).is_ok() {
                request.push(one[0]);
            }
            let _ = client.write_all(after);
            // Open until the other side goes.
            while matches!(client.read(&mut one), Ok(1)) {}
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_never_answers_goes_or_is_no_websocket_is_left() {
    let mut ear = Ear::default();
    let silent = heard_of(raw(b""), SHORT, &mut ear).await;
    assert!(matches!(silent, Broken::Late), "{silent}");
    let page = heard_of(
        raw(b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
        PATIENT,
        &mut ear,
    )
    .await;
    assert!(matches!(page, Broken::Http(302)), "{page}");
    let junk = heard_of(raw(b"SSH-2.0-OpenSSH\r\n\r\n"), PATIENT, &mut ear).await;
    assert!(matches!(junk, Broken::Transport(_)), "{junk}");
    let gone = heard_of(1, PATIENT, &mut ear).await.to_string();
    assert!(gone.contains("cannot be reached"), "{gone}");
    assert_eq!(ear.subscribed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_dead_is_noticed_whether_the_line_is_dead_too_or_not() {
    let Some(anvil) = Anvil::start(&[]) else {
        return;
    };
    // Pings are answered, and of new blocks it says nothing.
    let mut ear = Ear {
        moves: true,
        head: 1,
        ..Ear::default()
    };
    let stalled = heard_of(anvil.port, PATIENT, &mut ear).await;
    assert!(matches!(stalled, Broken::Stalled), "{stalled}");
    assert_eq!(ear.subscribed, 1);
    // Nothing is answered any more.
    let tap = Tap::start(anvil.port);
    let line = tap.clone();
    let mut ear = Clogs {
        ear: Ear::default(),
        tap,
    };
    let silent = tokio::time::timeout(LIMIT, listen(&ws(line.port), 31337, WATCHFUL, &mut ear))
        .await
        .expect("it comes to an end");
    assert!(matches!(silent, Broken::Silent), "{silent}");
    assert_eq!(ear.ear.subscribed, 1);
    // A chain that stands still is no dead subscription: it ends with the node.
    let mut ear = Ear::default();
    let port = anvil.port;
    let living =
        tokio::spawn(async move { (heard_of(port, WATCHFUL, &mut ear).await, ear.subscribed) });
    tokio::time::sleep(SILENCE * 2).await;
    assert!(!living.is_finished());
    drop(anvil);
    let (ended, times) = living.await.unwrap();
    assert!(matches!(ended, Broken::Closed), "{ended}");
    assert_eq!(times, 1);
}

/// Clogs its own line as soon as it is subscribed.
struct Clogs {
    ear: Ear,
    tap: Tap,
}

impl Listener for Clogs {
    fn subscribed(&mut self) {
        self.ear.subscribed();
        self.tap.set(Mode::Clogged);
    }

    fn told(&mut self, head: u64) {
        self.ear.told(head);
    }

    fn beat(&mut self) -> u64 {
        self.ear.beat()
    }
}

/// Encryption in front of a node, by a program that nobody here wrote.
struct Encrypted {
    child: Child,
    port: u16,
}

impl Encrypted {
    fn start(world: &World) -> Option<Self> {
        let dir = world.dir.path();
        let (key, certificate) = (dir.join("tls.key"), dir.join("tls.pem"));
        let made = program("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null())
            .status();
        if !made.is_ok_and(|made| made.success()) {
            eprintln!("skipped: no openssl");
            return None;
        }
        let port = free_port();
        let mut child = program("openssl")
            .args(["s_server", "-quiet", "-naccept", "1000", "-accept"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("-cert")
            .arg(&certificate)
            .arg("-key")
            .arg(&key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut node = TcpStream::connect(("127.0.0.1", world.anvil.port)).unwrap();
        let mut back = node.try_clone().unwrap();
        std::thread::spawn(move || std::io::copy(&mut from, &mut node));
        std::thread::spawn(move || {
            let mut piece = [0; 16384];
            while let Ok(n @ 1..) = back.read(&mut piece) {
                if to.write_all(&piece[..n]).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
        });
        Some(Self { child, port })
    }
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_websocket_is_used_only_with_a_certificate_that_the_system_trusts() {
    let Some(world) = World::new().await else {
        return;
    };
    let Some(encrypted) = Encrypted::start(&world) else {
        return;
    };
    let urls = [
        format!("wss://localhost:{}/?key=secret-key", encrypted.port),
        http(world.anvil.port),
    ];
    world.set_endpoints(HOUR, &urls);
    let engine = world.engine(&[]);
    until(&world, "the refusal", || {
        world.log().contains("invalid peer certificate")
    })
    .await;
    assert!(!world.log().contains(TELLS), "{}", world.log());
    drop(engine);
    let trusted = world.dir.path().join("tls.pem");
    let _engine = world.engine_with(&[], &[("SSL_CERT_FILE", trusted.to_str().unwrap())]);
    until_told(&world, 1).await;
    buy_and_wait(&world, 1).await;
    assert!(!world.log().contains("secret-key"), "{}", world.log());
}
