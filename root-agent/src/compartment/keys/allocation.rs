//! The allocation `/etc/blockhost/broker-allocation.json`: what a renewal changes, what it keeps, and what it refuses.
//! Written for whoever may enter the directory; there is no secret in it.

use std::net::Ipv6Addr;

use blockhost_proto::action::BrokerRenew;
use blockhost_proto::json;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::Param;
use rustix::fs::Mode;
use serde_json::{Map, Value};

use super::store::{Existing, Store};
use crate::compartment::{Done, Failure};

/// Its file name.
const FILE: &str = "broker-allocation.json";

/// Owner writes, everybody reads who may enter the directory.
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// Bytes of a file with which a renewal ends: what can be written can be read the next time.
const MAX_BYTES: usize = 256 << 10;

/// Takes over a renewal; the file is the old one or the new one at any moment.
pub(super) fn renew(store: &Store, action: &BrokerRenew) -> Result<Done, Failure> {
    let old = read(store)?;
    let present = present(&old);
    let other = match &present {
        Present::None => None,
        Present::Is(address, length) => {
            let wanted = (action.prefix.address(), action.prefix.length());
            ((*address, *length) != wanted).then(|| format!("{address}/{length}"))
        }
        Present::Unreadable => Some("one that cannot be read".to_owned()),
    };
    if let Some(other) = other.as_ref().filter(|_| !action.replace) {
        let message = format!(
            "this host has another prefix already ({other}), and machines may have addresses of it; it was kept: ask with `replace` to have {} instead",
            action.prefix
        );
        return Err(Failure::new(ErrorCode::Conflict, message));
    }
    let new = renewed(old, action, other.is_some());
    let mut text = serde_json::to_vec_pretty(&new).map_err(failed)?;
    text.push(b'\n');
    if text.len() > MAX_BYTES {
        let path = store.path_of(FILE);
        let message = format!(
            "{} would have more than {MAX_BYTES} bytes; it was left as it is: remove what other programs wrote there",
            path.display()
        );
        return Err(Failure::new(ErrorCode::Conflict, message));
    }
    store
        .write_with(FILE, &text, Existing::Replace, FILE_MODE)
        .map_err(failed)?;
    let mut done = Done {
        output: match &other {
            Some(other) => format!("this host's prefix is {}, it was {other}", action.prefix),
            None => format!("this host's prefix is {}", action.prefix),
        },
        ..Done::default()
    };
    done.extra
        .insert("prefix".into(), action.prefix.to_string().into());
    if let (Some(other), Present::Is(..)) = (other, present) {
        done.extra.insert("previous".into(), other.into());
    }
    Ok(done)
}

/// The file as it is; empty where there is none. One that cannot be understood is an error, never an empty one.
fn read(store: &Store) -> Result<Map<String, Value>, Failure> {
    let Some(content) = store.read(FILE).map_err(failed)? else {
        return Ok(Map::new());
    };
    let damaged = |why: String| {
        let path = store.path_of(FILE);
        let message = format!(
            "{} is damaged ({why}) and was left as it is; repair it or move it away",
            path.display()
        );
        Failure::new(ErrorCode::Failed, message)
    };
    match json::parse(&content).map_err(|error| damaged(error.to_string()))? {
        Value::Object(map) => Ok(map),
        other => Err(damaged(format!(
            "it holds {}, not an object",
            json::kind(&other)
        ))),
    }
}

/// The prefix that a host has now.
#[derive(Debug, PartialEq, Eq)]
enum Present {
    None,
    Is(Ipv6Addr, u8),
    Unreadable,
}

/// Read more generously than a request: setup and hands have written it, too.
fn present(file: &Map<String, Value>) -> Present {
    let Some(value) = file.get("prefix").filter(|value| !value.is_null()) else {
        return Present::None;
    };
    let read = || {
        let (address, length) = value.as_str()?.split_once('/')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let length: u8 = length.parse().ok().filter(|length| *length <= 128)?;
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        Some((Ipv6Addr::from_bits(address.to_bits() & mask), length))
    };
    read().map_or(Present::Unreadable, |(address, length)| {
        Present::Is(address, length)
    })
}

/// The file after the renewal. What belongs to a prefix goes with it; what is not this action's stays in any case.
fn renewed(
    mut file: Map<String, Value>,
    action: &BrokerRenew,
    another_prefix: bool,
) -> Map<String, Value> {
    let given = [
        ("prefix", action.prefix.to_json()),
        ("gateway", action.gateway.to_json()),
        ("broker_pubkey", action.broker_pubkey.to_json()),
        ("broker_endpoint", action.broker_endpoint.to_json()),
        ("lease_until", action.lease_until.to_json()),
    ];
    for (key, value) in given {
        match value {
            Some(value) => {
                file.insert(key.to_owned(), value);
            }
            None if another_prefix => {
                file.remove(key);
            }
            None => {}
        }
    }
    file
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::Failed, error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn action(params: &Value) -> BrokerRenew {
        match blockhost_proto::Action::from_parts("broker-renew", params).expect("valid") {
            blockhost_proto::Action::BrokerRenew(action) => action,
            other => panic!("{other:?}"),
        }
    }

    fn file(value: &Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn what_other_programs_wrote_stays_and_what_belongs_to_a_prefix_goes_with_it() {
        let old = file(&json!({
            "prefix": "fd77::/64", "gateway": "fd77::1", "broker_endpoint": "a:1", "lease": {"until": 7}, "note": 1.5,
        }));
        let same = renewed(
            old.clone(),
            &action(&json!({"prefix": "fd77::/64", "gateway": "fd77::2"})),
            false,
        );
        let expected = json!({
            "prefix": "fd77::/64", "gateway": "fd77::2", "broker_endpoint": "a:1", "lease": {"until": 7}, "note": 1.5,
        });
        assert_eq!(Value::Object(same), expected);
        let other = renewed(old, &action(&json!({"prefix": "fd78::/64"})), true);
        let expected = json!({"prefix": "fd78::/64", "lease": {"until": 7}, "note": 1.5});
        assert_eq!(Value::Object(other), expected);
    }

    #[test]
    fn a_prefix_is_the_same_however_it_was_written_and_nonsense_is_none_of_them() {
        let of = |value: Value| present(&file(&json!({"prefix": value})));
        let same = Present::Is("fd77::".parse().expect("an address"), 64);
        assert_eq!(of(json!("fd77::/64")), same);
        assert_eq!(of(json!("FD77:0::1/64")), same);
        assert_ne!(of(json!("fd77::/65")), same);
        for nonsense in [json!("fd77::"), json!(""), json!(7), json!("fd77::/129")] {
            assert_eq!(of(nonsense), Present::Unreadable);
        }
        assert_eq!(of(Value::Null), Present::None);
        assert_eq!(present(&Map::new()), Present::None);
    }
}
