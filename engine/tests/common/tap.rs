//! A line to a node that can be cut, clogged and listened to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What is counted.
const LOOK: &str = "eth_blockNumber";

/// What becomes of what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// It arrives.
    Open,
    /// Connections stay open, and what the node says is swallowed.
    Clogged,
    /// Connections are closed at once.
    Cut,
}

/// The line.
#[derive(Clone)]
pub struct Tap {
    pub port: u16,
    mode: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    counted: Arc<AtomicUsize>,
}

impl Tap {
    /// One to the node at `upstream`.
    pub fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tap = Self {
            port: listener.local_addr().unwrap().port(),
            mode: Arc::new(AtomicU8::new(Mode::Open as u8)),
            open: Arc::default(),
            counted: Arc::default(),
        };
        let own = tap.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if own.is(Mode::Cut) {
                    continue;
                }
                let server = TcpStream::connect(("127.0.0.1", upstream)).unwrap();
                own.open
                    .lock()
                    .unwrap()
                    .extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                let (up, down) = (own.clone(), own.clone());
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || up.pass(from, to, Some(LOOK)));
                std::thread::spawn(move || down.pass(server, client, None));
            }
        });
        tap
    }

    /// Changes what becomes of what passes from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
        if mode == Mode::Cut {
            for stream in self.open.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// How often clients asked for the head of the chain, which every look begins with.
    pub fn counted(&self) -> usize {
        self.counted.load(Ordering::SeqCst)
    }

    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Ordering::SeqCst) == mode as u8
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, word: Option<&str>) {
        let mut piece = [0; 16384];
        while let Ok(n @ 1..) = from.read(&mut piece) {
            if let Some(word) = word {
                let found = piece[..n]
                    .windows(word.len())
                    .filter(|part| *part == word.as_bytes());
                self.counted.fetch_add(found.count(), Ordering::SeqCst);
            } else if self.is(Mode::Clogged) {
                continue;
            }
            if to.write_all(&piece[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}
