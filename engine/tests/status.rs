//! `blockhost status` and `GET /metrics` against a running engine, with a local chain and real jobs.

mod common;

use common::world::World;
use common::{free_port, program};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn status(world: &World) -> Value {
    serde_json::from_str(&world.operator(&["status", "--json"])).unwrap()
}

fn get(port: u16, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_screen_says_what_runs_and_what_needs_somebody() {
    let Some(world) = World::new().await else {
        return;
    };
    let before = status(&world);
    assert_eq!(before["engine_running"], false);
    assert_eq!(before["chain"]["chain_id"], 31337);
    assert_eq!(before["chain"]["processed"], Value::Null);
    let wanted = before["attention"].to_string();
    assert!(wanted.contains("does not run"), "{wanted}");

    world.buy(10, world.user_encrypted()).await;
    world.buy(10, b"not encrypted to anybody".to_vec()).await;
    let engine = world.engine(&[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let now = loop {
        let now = status(&world);
        let jobs = &now["jobs"]["by_state"];
        if jobs["parked"] == 1 && jobs["pending"].is_null() && jobs["running"].is_null() {
            break now;
        }
        assert!(Instant::now() < deadline, "{now}\n{}", world.log());
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(now["engine_running"], true);
    assert_eq!(now["machines"]["by_status"]["active"], 1);
    let pools = now["machines"]["pools"].as_array().unwrap();
    let vmid = pools.iter().find(|pool| pool["name"] == "vmid").unwrap();
    assert_eq!(
        (vmid["size"].as_u64(), vmid["free"].as_u64()),
        (Some(900), Some(899))
    );
    assert!(
        now["attention"].to_string().contains("1 jobs are parked"),
        "{now}"
    );
    assert!(
        now["account"]["balance_ether"]
            .as_str()
            .unwrap()
            .parse::<f64>()
            .unwrap()
            > 1.0
    );

    let screen = program(env!("CARGO_BIN_EXE_blockhost"))
        .arg("status")
        .env("BLOCKHOST_ROOT", world.dir.path())
        .output()
        .unwrap();
    assert_eq!(screen.status.code(), Some(1), "something needs somebody");
    let text = String::from_utf8(screen.stdout).unwrap();
    assert!(
        text.contains("engine      running") && text.contains("ATTENTION"),
        "{text}"
    );
    assert!(text.lines().count() <= 24, "one screen:\n{text}");
    drop(engine);
    assert_eq!(status(&world)["engine_running"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_reads_the_engine_and_nobody_can_make_it_work_or_wait() {
    let Some(world) = World::new().await else {
        return;
    };
    let port = free_port();
    world.set_engine(&format!(
        "max_fee_gwei: 1000\nmetrics: {{listen: '127.0.0.1:{port}'}}"
    ));
    world.buy(10, world.user_encrypted()).await;
    let _engine = world.engine(&[]);
    let ask = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let deadline = Instant::now() + Duration::from_secs(60);
    let page = loop {
        match get(port, ask) {
            Some(page) if page.contains("blockhost_machines{status=\"active\"} 1") => break page,
            other => assert!(Instant::now() < deadline, "{other:?}\n{}", world.log()),
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.contains("blockhost_engine_running 1"), "{page}");
    assert!(page.contains("blockhost_jobs{state=\"done\"}"), "{page}");
    // Clients that say nothing take places, and are put out in time.
    let silent: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    assert!(get(port, ask).is_some_and(|page| page.starts_with("HTTP/1.1 200")));
    drop(silent);
    for (request, expected) in [
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 405",
        ),
        (
            "GET /../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 404",
        ),
    ] {
        let answer = get(port, request).unwrap();
        assert!(answer.starts_with(expected), "{answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let answer = get(port, &long).unwrap_or_default();
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}
