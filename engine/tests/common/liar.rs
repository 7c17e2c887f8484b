//! A node that tells the truth about everything but one thing: a function of contracts, that it has receipts, or old states,
//! or what a test makes up.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// What is said instead of asking: key and value of the answer.
type Instead = dyn Fn(&Value) -> Option<(&'static str, Value)> + Send + Sync;
/// What becomes of a true answer to a request.
type Bent = dyn Fn(&Value, &mut Value) + Send + Sync;

/// Starts one in front of the node at `upstream`: whoever calls a function with this selector is answered with `lie`, 64
/// hexadecimal digits. Gives its port.
pub fn start(upstream: u16, selector: &'static str, lie: String) -> u16 {
    instead(upstream, move |request| {
        let lies =
            request["method"] == "eth_call" && request["params"].to_string().contains(selector);
        lies.then(|| ("result", json!(format!("0x{lie}"))))
    })
}

/// Starts one that has blocks, states and logs, and no receipts. Gives its port.
pub fn without_receipts(upstream: u16) -> u16 {
    instead(upstream, |request| {
        (request["method"] == "eth_getTransactionReceipt").then_some(("result", Value::Null))
    })
}

/// Starts one that has all blocks, and states from this one on. Gives its port.
pub fn without_states_before(upstream: u16, block: u64) -> u16 {
    instead(upstream, move |request| {
        let error = json!({"code": -32000, "message": "missing trie node"});
        counts_before(request, block).then_some(("error", error))
    })
}

/// Starts one that answers so, or asks where this says nothing. Gives its port.
pub fn instead(
    upstream: u16,
    lie: impl Fn(&Value) -> Option<(&'static str, Value)> + Send + Sync + 'static,
) -> u16 {
    relay(upstream, Arc::new(lie), None)
}

/// Starts one that changes true answers. Gives its port.
pub fn bent(upstream: u16, lie: impl Fn(&Value, &mut Value) + Send + Sync + 'static) -> u16 {
    relay(upstream, Arc::new(|_| None), Some(Arc::new(lie)))
}

fn relay(upstream: u16, instead: Arc<Instead>, bent: Option<Arc<Bent>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (instead, bent) = (instead.clone(), bent.clone());
            std::thread::spawn(move || drop(serve(client, upstream, &*instead, bent.as_deref())));
        }
    });
    port
}

fn serve(
    mut client: TcpStream,
    upstream: u16,
    instead: &Instead,
    bent: Option<&Bent>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", upstream))?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    while let Some((head, body)) = message(&mut client)? {
        let request: Value = serde_json::from_slice(&body).unwrap_or_default();
        if let Some((key, value)) = instead(&request) {
            let answer = json!({"jsonrpc": "2.0", "id": request["id"], key: value});
            say(&mut client, &answer)?;
            continue;
        }
        server.write_all(&head)?;
        server.write_all(&body)?;
        let Some((head, body)) = message(&mut server)? else {
            return Ok(());
        };
        if let Some(bent) = bent {
            let mut answer: Value = serde_json::from_slice(&body)?;
            bent(&request, &mut answer);
            say(&mut client, &answer)?;
            continue;
        }
        client.write_all(&head)?;
        client.write_all(&body)?;
    }
    Ok(())
}

fn say(client: &mut TcpStream, answer: &Value) -> std::io::Result<()> {
    let answer = answer.to_string();
    write!(
        client,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
        answer.len()
    )
}

/// Whether somebody asks what an account's nonce was before that block.
fn counts_before(request: &Value, oldest: u64) -> bool {
    let block = request["params"][1]
        .as_str()
        .and_then(|word| word.strip_prefix("0x"))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    request["method"] == "eth_getTransactionCount" && block.is_some_and(|block| block < oldest)
}

/// Head and body of one HTTP message.
fn message(from: &mut TcpStream) -> std::io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut head = Vec::new();
    let mut one = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if from.read(&mut one)? == 0 {
            return Ok(None);
        }
        head.push(one[0]);
    }
    let text = String::from_utf8(head.clone())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some((head, body)))
}
