//! Broken frames, broken JSON, broken envelopes, names of no action.

use super::{Hostile, framed};
use crate::response::ErrorCode::{self, BadFrame, BadJson, UnknownAction};

pub(super) fn frames() -> Vec<Hostile> {
    let raw = |name: &str, bytes: &[u8]| Hostile {
        name: name.to_owned(),
        bytes: bytes.to_vec(),
        expected_code: BadFrame,
    };
    vec![
        raw("length zero", &[0, 0, 0, 0]),
        raw(
            "length zero, then a good request",
            b"\0\0\0\0\0\0\0\x16{\"action\":\"agent-info\"}",
        ),
        raw("length one over the limit", &[0, 0x10, 0, 1]),
        raw("length of 4 GiB", &[0xff; 4]),
        raw("length with the sign bit", &[0x80, 0, 0, 0]),
        raw("little-endian length", &[22, 0, 0, 0]),
        raw("JSON without a length", b"{\"action\":\"agent-info\"}"),
        raw("an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        raw("a TLS hello", &[0x16, 3, 1, 2, 0, 1, 0]),
    ]
}

pub(super) fn envelopes() -> Vec<Hostile> {
    let deep = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    let mut list: Vec<Hostile> = JSON
        .iter()
        .map(|(name, text, code)| framed(*name, text, *code))
        .collect();
    list.extend([
        framed(
            "arrays nested 17 deep",
            deep("[", "]", 17).as_bytes(),
            BadJson,
        ),
        framed(
            "arrays nested a hundred thousand deep",
            deep("[", "]", 100_000).as_bytes(),
            BadJson,
        ),
        framed(
            "half a million open brackets",
            "[".repeat(500_000).as_bytes(),
            BadJson,
        ),
        framed(
            "objects nested a hundred thousand deep",
            deep("{\"a\":", "}", 100_000).as_bytes(),
            BadJson,
        ),
        framed(
            "params nested past the limit",
            format!(
                r#"{{"action":"qm-start","params":{{"vmid":{}}}}}"#,
                deep("[", "]", 15)
            )
            .as_bytes(),
            BadJson,
        ),
        framed(
            "three hundred thousand zeros",
            format!(
                r#"{{"action":"qm-start","params":[{}0]}}"#,
                "0,".repeat(300_000)
            )
            .as_bytes(),
            BadJson,
        ),
        framed(
            "id of 65 bytes",
            format!(r#"{{"action":"qm-list","id":"{}"}}"#, "x".repeat(65)).as_bytes(),
            BadJson,
        ),
        framed(
            "id of 33 two-byte characters",
            format!(r#"{{"action":"qm-list","id":"{}"}}"#, "ä".repeat(33)).as_bytes(),
            BadJson,
        ),
        framed(
            "an action name of 900 kB",
            format!(r#"{{"action":"{}"}}"#, "a".repeat(900_000)).as_bytes(),
            UnknownAction,
        ),
        framed(
            "a number of a thousand digits",
            format!(
                r#"{{"action":"qm-start","params":{{"vmid":{}}}}}"#,
                "9".repeat(1000)
            )
            .as_bytes(),
            BadJson,
        ),
    ]);
    list
}

const JSON: &[(&str, &[u8], ErrorCode)] = &[
    ("one space", b" ", BadJson),
    ("one NUL", b"\0", BadJson),
    ("null", b"null", BadJson),
    ("a bare text", b"\"qm-list\"", BadJson),
    ("a bare number", b"1", BadJson),
    ("an array in place of the envelope", br#"["qm-start",{"vmid":100}]"#, BadJson),
    ("an array around the envelope", br#"[{"action":"qm-list"}]"#, BadJson),
    ("an empty object", b"{}", BadJson),
    ("a byte-order mark", b"\xef\xbb\xbf{\"action\":\"qm-list\"}", BadJson),
    ("UTF-16", b"{\x00\"\x00a\x00\"\x00:\x001\x00}\x00", BadJson),
    ("half an object", br#"{"action":"qm-list""#, BadJson),
    ("half a text", br#"{"action":"qm-li"#, BadJson),
    ("a second object behind the first", br#"{"action":"qm-list"}{"action":"qm-list"}"#, BadJson),
    ("garbage behind the object", br#"{"action":"qm-list"} x"#, BadJson),
    ("a NUL behind the object", b"{\"action\":\"qm-list\"}\0", BadJson),
    ("a trailing comma", br#"{"action":"qm-list",}"#, BadJson),
    ("a comment", br#"{"action":"qm-list"/* x */}"#, BadJson),
    ("single quotes", br#"{'action':'qm-list'}"#, BadJson),
    ("an unquoted key", br#"{action:"qm-list"}"#, BadJson),
    ("NaN", br#"{"action":"qm-start","params":{"vmid":NaN}}"#, BadJson),
    ("Infinity", br#"{"action":"qm-start","params":{"vmid":Infinity}}"#, BadJson),
    ("a leading zero", br#"{"action":"qm-start","params":{"vmid":0100}}"#, BadJson),
    ("a leading plus", br#"{"action":"qm-start","params":{"vmid":+100}}"#, BadJson),
    ("a hexadecimal number", br#"{"action":"qm-start","params":{"vmid":0x64}}"#, BadJson),
    ("an exponent beyond floats", br#"{"action":"qm-start","params":{"vmid":1e999}}"#, BadJson),
    ("invalid UTF-8 in a text", b"{\"action\":\"qm-\xff\"}", BadJson),
    ("overlong UTF-8", b"{\"action\":\"qm-\xc0\xaf\"}", BadJson),
    ("a surrogate in UTF-8", b"{\"action\":\"qm-\xed\xa0\x80\"}", BadJson),
    ("cut UTF-8", b"{\"action\":\"qm-\xe2\x82", BadJson),
    ("a lone surrogate escape", br#"{"action":"qm-\ud800"}"#, BadJson),
    ("a raw newline in a text", b"{\"action\":\"qm-list\n\"}", BadJson),
    ("action twice", br#"{"action":"qm-list","action":"qm-stop","params":{"vmid":100}}"#, BadJson),
    ("action twice, once escaped", br#"{"action":"qm-list","\u0061ction":"agent-info"}"#, BadJson),
    ("params twice", br#"{"action":"qm-start","params":{"vmid":100},"params":{"vmid":101}}"#, BadJson),
    ("id twice", br#"{"action":"qm-list","id":"a","id":"b"}"#, BadJson),
    ("vmid twice", br#"{"action":"qm-start","params":{"vmid":100,"vmid":101}}"#, BadJson),
    ("vmid twice, once escaped", br#"{"action":"qm-start","params":{"vmid":100,"vm\u0069d":101}}"#, BadJson),
    ("an option twice", br#"{"action":"qm-set","params":{"vmid":100,"options":{"memory":"64","memory":"128"}}}"#, BadJson),
    ("a wallet twice in the address book", br#"{"action":"addressbook-save","params":{"entries":{"hot":{"address":"0x0000000000000000000000000000000000000001"},"hot":{"address":"0x0000000000000000000000000000000000000002"}}}}"#, BadJson),
    ("an address twice in one entry", br#"{"action":"addressbook-save","params":{"entries":{"hot":{"address":"0x0000000000000000000000000000000000000001","address":"0x0000000000000000000000000000000000000002"}}}}"#, BadJson),
    ("a key twice deep in event data", br#"{"action":"ledger-append","params":{"category":"chain","action":"x","data":{"a":[{"b":{"c":1,"c":2}}]}}}"#, BadJson),
    ("an unknown field in the envelope", br#"{"action":"qm-list","uid":0}"#, BadJson),
    ("a capital in a field of the envelope", br#"{"Action":"qm-list"}"#, BadJson),
    ("a claimed peer", br#"{"action":"qm-list","peer":{"uid":0,"pid":1}}"#, BadJson),
    ("a missing action", br#"{"params":{"vmid":100}}"#, BadJson),
    ("a null action", br#"{"action":null}"#, BadJson),
    ("a number as action", br#"{"action":1}"#, BadJson),
    ("a list as action", br#"{"action":["qm-list"]}"#, BadJson),
    ("an object as action", br#"{"action":{"name":"qm-list"}}"#, BadJson),
    ("a number as id", br#"{"action":"qm-list","id":1}"#, BadJson),
    ("a null id", br#"{"action":"qm-list","id":null}"#, BadJson),
    ("dry_run as text", br#"{"action":"qm-list","dry_run":"true"}"#, BadJson),
    ("dry_run as number", br#"{"action":"qm-list","dry_run":1}"#, BadJson),
    ("serde's own number key", br#"{"action":"qm-start","params":{"vmid":{"$serde_json::private::Number":"100"}}}"#, ErrorCode::BadParams),
    ("an unknown action", br#"{"action":"qm-explode"}"#, UnknownAction),
    ("an empty action", br#"{"action":""}"#, UnknownAction),
    ("an action in capitals", br#"{"action":"QM-START","params":{"vmid":100}}"#, UnknownAction),
    ("an action with a space behind", br#"{"action":"qm-start ","params":{"vmid":100}}"#, UnknownAction),
    ("an action with a newline behind", br#"{"action":"qm-start\n","params":{"vmid":100}}"#, UnknownAction),
    ("an action with a NUL behind", br#"{"action":"qm-start\u0000","params":{"vmid":100}}"#, UnknownAction),
    ("an underscore for the dash", br#"{"action":"qm_start","params":{"vmid":100}}"#, UnknownAction),
    ("a look-alike dash", "{\"action\":\"qm\u{2010}start\",\"params\":{\"vmid\":100}}".as_bytes(), UnknownAction),
    ("a Cyrillic letter in the action", "{\"action\":\"qm-st\u{430}rt\",\"params\":{\"vmid\":100}}".as_bytes(), UnknownAction),
    ("a zero-width space in the action", "{\"action\":\"qm-\u{200b}start\"}".as_bytes(), UnknownAction),
    ("a path as action", br#"{"action":"../qm-start"}"#, UnknownAction),
    ("a shell line as action", br#"{"action":"qm-start; reboot"}"#, UnknownAction),
    ("a family as action", br#"{"action":"qm-*"}"#, UnknownAction),
    ("an action that forges a log line", br#"{"action":"x\nroot-agent: uid=0 action=qm-destroy ok"}"#, UnknownAction),
    ("an action with terminal escapes", br#"{"action":"\u001b]0;x\u0007\u001b[2J"}"#, UnknownAction),
    ("an action of the internals", br#"{"action":"__class__"}"#, UnknownAction),
];
