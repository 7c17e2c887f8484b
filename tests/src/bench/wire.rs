//! The wires of all that is measured, spoken by one client, so that nothing of anybody's own client is in a number:
//! when an answer is whole, whether it is a good one, and what the requests look like.

use serde_json::{Value, json};

/// How answers end and what a good one says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// A big-endian length and JSON: our agent and the one in Python.
    Frames,
    /// JSON up to a NUL. The daemons of systemd 252 have no `GetInfo`: the refusal is the shortest answer they can give,
    /// and takes reading, parsing and looking the method up all the same.
    Varlink,
    /// D-Bus messages, little-endian.
    Dbus,
}

impl Wire {
    /// Length of the first message when all of it is there.
    pub(super) fn whole(self, received: &[u8]) -> Option<usize> {
        let length = match self {
            Self::Frames => 4 + be_u32(received, 0)?,
            Self::Varlink => 1 + received.iter().position(|byte| *byte == 0)?,
            Self::Dbus => 16 + le_u32(received, 12)?.next_multiple_of(8) + le_u32(received, 4)?,
        };
        (received.len() >= length).then_some(length)
    }

    /// Whether a whole message is the answer of something that did what it was asked to.
    pub(super) fn good(self, answer: &[u8]) -> bool {
        match self {
            Self::Frames => answer
                .get(4..)
                .and_then(|body| serde_json::from_slice::<Value>(body).ok())
                .is_some_and(|answer| answer["ok"] == true),
            Self::Varlink => answer
                .strip_suffix(&[0])
                .and_then(|body| serde_json::from_slice::<Value>(body).ok())
                .is_some_and(|answer| {
                    answer["error"].is_null()
                        || answer["error"] == "org.varlink.service.MethodNotImplemented"
                }),
            // 2: a method's return, as opposed to an error or a signal.
            Self::Dbus => answer.get(1) == Some(&2),
        }
    }
}

fn be_u32(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(word)).ok()
}

fn le_u32(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(word)).ok()
}

/// A request of our wire.
pub(super) fn frame(request: &Value) -> Vec<u8> {
    let body = request.to_string();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], body.as_bytes()].concat()
}

/// The no-op.
pub(super) fn agent_info(_: usize) -> Vec<u8> {
    frame(&json!({"action": "agent-info"}))
}

/// Sixteen addresses in turn, so that no answer comes from a cache.
pub(super) fn route_add(number: usize) -> Vec<u8> {
    frame(
        &json!({"action": "ip6-route-add", "params": {"address": address(number), "dev": "vmbr0"}}),
    )
}

/// The address of one of the sixteen routes.
pub(super) fn address(number: usize) -> String {
    format!("fd77:b10c::1:{:x}/128", number % 16 + 1)
}

/// The no-op of varlink.
pub(super) fn get_info(_: usize) -> Vec<u8> {
    b"{\"method\":\"org.varlink.service.GetInfo\",\"parameters\":{}}\0".to_vec()
}

/// The no-op of the peer on D-Bus; a serial of its own for each, as the bus wants it.
pub(super) fn dbus_info(number: usize) -> Vec<u8> {
    dbus_call(
        u32::try_from(number).unwrap_or(0) + 2,
        "org.blockhost.Peer",
        "/org/blockhost/Peer",
        "org.blockhost.Peer",
        "Info",
    )
}

/// A method call without arguments.
pub(super) fn dbus_call(
    serial: u32,
    destination: &str,
    path: &str,
    interface: &str,
    member: &str,
) -> Vec<u8> {
    dbus_message(serial, [destination, path, interface, member], None)
}

/// A method call, with one text where it has an argument: fixed header, then the fields path (1), interface (2), member (3),
/// destination (6), signature (8), each aligned to 8 (D-Bus specification, "Message Format").
pub(super) fn dbus_message(
    serial: u32,
    [destination, path, interface, member]: [&str; 4],
    argument: Option<&str>,
) -> Vec<u8> {
    let text = |value: &str| {
        let length = u32::try_from(value.len()).unwrap_or(0).to_le_bytes();
        [&length, value.as_bytes(), &[0]].concat()
    };
    let body = argument.map(text).unwrap_or_default();
    let mut fields = Vec::new();
    for (code, signature, value) in [
        (1_u8, b'o', path),
        (2, b's', interface),
        (3, b's', member),
        (6, b's', destination),
    ] {
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend([code, 1, signature, 0]);
        fields.extend(text(value));
    }
    if argument.is_some() {
        fields.resize(fields.len().next_multiple_of(8), 0);
        // A signature's length is one byte.
        fields.extend([8, 1, b'g', 0, 1, b's', 0]);
    }
    let mut message = vec![b'l', 1, 0, 1];
    message.extend(u32::try_from(body.len()).unwrap_or(0).to_le_bytes());
    message.extend(serial.to_le_bytes());
    message.extend(u32::try_from(fields.len()).unwrap_or(0).to_le_bytes());
    message.extend(fields);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_only_with_its_last_byte() {
        let call = dbus_call(7, "a.b", "/c", "d.e", "f");
        for (wire, message) in [
            (Wire::Frames, agent_info(0)),
            (Wire::Varlink, get_info(0)),
            (Wire::Dbus, call),
            (
                Wire::Dbus,
                dbus_message(7, ["a.b", "/c", "d.e", "f"], Some("text")),
            ),
        ] {
            assert_eq!(wire.whole(&message), Some(message.len()), "{wire:?}");
            assert_eq!(wire.whole(&message[..message.len() - 1]), None, "{wire:?}");
            let two = [message.clone(), message.clone()].concat();
            assert_eq!(wire.whole(&two), Some(message.len()), "{wire:?}");
        }
    }

    #[test]
    fn a_refusal_is_not_counted_as_an_answer() {
        assert!(!Wire::Frames.good(&frame(&json!({"ok": false, "error": "no"}))));
        assert!(Wire::Frames.good(&frame(&json!({"ok": true, "output": ""}))));
        assert!(!Wire::Varlink.good(b"{\"error\":\"org.varlink.service.InvalidParameter\"}\0"));
        assert!(!Wire::Dbus.good(&[b'l', 3, 0, 1]));
    }
}
