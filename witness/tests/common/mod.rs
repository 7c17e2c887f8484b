//! A ledger that grows, and an honest witness as a task.
#![allow(dead_code, reason = "each test program uses a part of it")]

use blockhost_ledger::cosign::Cosigner;
use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::keys::Signer;
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::writer::{Options, Writer};
use blockhost_witness::config::Log;
use blockhost_witness::server::serve;
use blockhost_witness::store::Store;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;

pub const ORIGIN: &str = "host.example/blockhost-ledger";

pub fn signer() -> Signer {
    Signer::from_bytes(ORIGIN, 1, &[42; 32]).expect("valid")
}

pub fn cosigner(n: u8) -> Cosigner {
    Cosigner::from_bytes(&format!("w{n}.example"), &[n; 32]).expect("valid")
}

pub fn logs() -> Vec<Log> {
    vec![Log {
        origin: ORIGIN.to_owned(),
        keys: vec![signer().vkey().clone()],
    }]
}

/// Makes the ledger in `path` longer by one published record.
pub fn grow(path: &Path, what: &str) -> Writer {
    let dir = LedgerDir::open(path).expect("opens");
    let options = Options {
        preallocate_bytes: 4096,
        reserve_bytes: 4096,
        ..Options::default()
    };
    let (mut writer, _) = Writer::open(dir, signer(), "host", options).expect("opens");
    let draft = Draft {
        phase: Phase::Event,
        op_id: String::new(),
        plugin_id: "event".into(),
        category: "chain".into(),
        operation: "create".into(),
        action: "x".into(),
        resource: what.into(),
        user: "u".into(),
        uid: 1,
        pid: None,
        exe: None,
        unit: None,
        metadata: serde_json::Map::new(),
    };
    writer.append(&[draft]).expect("appended");
    writer.publish().expect("published");
    writer
}

pub fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(2).enable_all();
    builder.build().expect("a runtime")
}

/// An honest witness as a task of the runtime; ends with it.
pub fn start(runtime: &Runtime, n: u8, state: &Path) -> SocketAddr {
    let store = Arc::new(Store::open(state, cosigner(n), &logs()).expect("opens"));
    let bound = tokio::net::TcpListener::bind("127.0.0.1:0");
    let listener = runtime.block_on(bound).expect("a port");
    let address = listener.local_addr().expect("bound");
    runtime.spawn(serve(listener, store, std::future::pending()));
    address
}

pub fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("temp dir")
}
