//! Requests that must be refused, as data: what an attacker or a broken client would send, with the code that it gets.
//! Used by this crate's tests and by those of everything that stands behind the socket. The list only grows.

mod attach;
mod flows;
mod frames;
mod image;
mod ledger;
mod network;
mod ovs;
mod params;
mod pct;
mod qm;
mod tunnel;
mod values;

use std::sync::LazyLock;

use crate::response::ErrorCode;
use crate::wire::{MAX_FRAME, encode_frame};

/// One hostile request.
#[derive(Debug, Clone)]
pub struct Hostile {
    /// What it tries, as a phrase; unique in the list.
    pub name: String,
    /// What is written to the socket, length included.
    pub bytes: Vec<u8>,
    /// The answer's code.
    pub expected_code: ErrorCode,
}

impl Hostile {
    /// True when the connection cannot be used after it: the length itself is bad.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        self.expected_code == ErrorCode::BadFrame
    }
}

/// All of them. None depends on policy: an agent refuses each before it looks at who asks or at what exists.
#[must_use]
pub fn hostile_requests() -> &'static [Hostile] {
    static LIST: LazyLock<Vec<Hostile>> = LazyLock::new(|| {
        let mut list = frames::frames();
        list.extend(frames::envelopes());
        list.extend(params::params());
        list.extend(qm::options());
        list.extend(network::network());
        list.extend(tunnel::tunnels());
        list.extend(ovs::switches());
        list.extend(pct::containers());
        list.extend(image::images());
        list.extend(attach::containers());
        list
    });
    &LIST
}

/// A payload in a good frame.
fn framed(name: impl Into<String>, payload: &[u8], expected_code: ErrorCode) -> Hostile {
    let bytes = encode_frame(payload, MAX_FRAME).unwrap_or_else(|_| payload.to_vec());
    Hostile {
        name: name.into(),
        bytes,
        expected_code,
    }
}

/// An action with the text of its parameters.
fn action(name: impl Into<String>, action: &str, params: &str) -> Hostile {
    framed(
        name,
        format!(r#"{{"action":"{action}","params":{params}}}"#).as_bytes(),
        ErrorCode::BadParams,
    )
}
