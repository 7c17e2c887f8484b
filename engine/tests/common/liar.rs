//! A node that tells the truth about everything but one thing: a function of contracts, that it has receipts, or old states.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

#[derive(Clone)]
enum Lie {
    /// Whoever calls the function with this selector is answered with this.
    Call(&'static str, String),
    /// Nothing has a receipt, as with a node that was set up anew.
    NoReceipts,
    /// What an account had before this block is forgotten, as with a full node that is no archive.
    NoStatesBefore(u64),
}

/// Starts one in front of the node at `upstream`: whoever calls a function with this selector is answered with `lie`, 64
/// hexadecimal digits. Gives its port.
pub fn start(upstream: u16, selector: &'static str, lie: String) -> u16 {
    relay(upstream, Lie::Call(selector, format!("0x{lie}")))
}

/// Starts one that has blocks, states and logs, and no receipts. Gives its port.
pub fn without_receipts(upstream: u16) -> u16 {
    relay(upstream, Lie::NoReceipts)
}

/// Starts one that has all blocks, and states from this one on. Gives its port.
pub fn without_states_before(upstream: u16, block: u64) -> u16 {
    relay(upstream, Lie::NoStatesBefore(block))
}

fn relay(upstream: u16, lie: Lie) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let lie = lie.clone();
            std::thread::spawn(move || drop(serve(client, upstream, &lie)));
        }
    });
    port
}

fn serve(mut client: TcpStream, upstream: u16, lie: &Lie) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", upstream))?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    while let Some((head, body)) = message(&mut client)? {
        let text = String::from_utf8(body.clone()).unwrap_or_default();
        let lied = match lie {
            Lie::Call(selector, answer) => (text.contains("\"eth_call\"")
                && text.contains(selector))
            .then(|| ("result", serde_json::json!(answer))),
            Lie::NoReceipts => text
                .contains("\"eth_getTransactionReceipt\"")
                .then_some(("result", serde_json::Value::Null)),
            Lie::NoStatesBefore(oldest) => counts_before(&text, *oldest).then(|| {
                let error = serde_json::json!({"code": -32000, "message": "missing trie node"});
                ("error", error)
            }),
        };
        if let Some((key, value)) = lied {
            let request: serde_json::Value = serde_json::from_str(&text)?;
            let answer = serde_json::json!({"jsonrpc": "2.0", "id": request["id"], key: value});
            let answer = answer.to_string();
            write!(
                client,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
                answer.len()
            )?;
            continue;
        }
        server.write_all(&head)?;
        server.write_all(&body)?;
        let Some((head, body)) = message(&mut server)? else {
            return Ok(());
        };
        client.write_all(&head)?;
        client.write_all(&body)?;
    }
    Ok(())
}

/// Whether somebody asks what an account's nonce was before that block.
fn counts_before(text: &str, oldest: u64) -> bool {
    let Ok(request) = serde_json::from_str::<serde_json::Value>(text) else {
        return false;
    };
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
