//! Nothing in any action is forgotten: the catalog's own example of every action is taken apart, and in the place of every
//! value in it, at every depth, stands what does not belong there. All of it has to be refused by the types.
//! New actions are covered by having an example, which the catalog asks of them anyway.

use blockhost_proto::catalog::CATALOG;
use blockhost_proto::request::decode_request;
use serde_json::Value;

/// Every parameter has at least this many hostile values behind it.
const AT_LEAST: usize = 8;

/// Where any text is the caller's own business: commands for a guest and the words of a file in it.
const FREE_TEXT: [(&str, &str); 3] = [
    ("qm-guest-exec", "/command"),
    ("pct-exec", "/command"),
    ("virt-customize", "/commands/1/1"),
];

/// Where a number may be written as a text, or a text that is a number as one: Proxmox's own clients do.
const NUMBER_OR_TEXT: [(&str, &str); 8] = [
    ("qm-create", "/args/3"),
    ("qm-set", "/options/memory"),
    ("qm-set", "/options/onboot"),
    ("pct-create", "/options/memory"),
    ("pct-set", "/options/memory"),
    ("pct-set", "/options/onboot"),
    ("vm-throttle", "/cpulimit"),
    ("pve-set-throttle", "/cpulimit"),
];

/// Whether a hostile neighbour is one that the contract lets through.
fn is_known(action: &str, pointer: &str, text: &str) -> bool {
    match (action, pointer) {
        // The data of a service's own event.
        // These go up to 2^53-1: what is one beyond 32 bits is good.
        ("ledger-anchored", "/chain_id" | "/block" | "/head_size")
        | ("ledger-prune", "/before") => text.parse::<u64>().is_ok_and(|number| number < 1 << 33),
        ("ledger-append" | "ledger-blob", _) => pointer.starts_with("/data/"),
        // A port's number or its name.
        ("ovs-set-flows", "/flows/0/match/in_port") => text == "1",
        place if FREE_TEXT.contains(&place) => text.starts_with('"'),
        place if NUMBER_OR_TEXT.contains(&place) => text
            .trim_matches('"')
            .bytes()
            .all(|byte| byte.is_ascii_digit()),
        _ => false,
    }
}

const MARK: &str = "@@here@@";

/// A request with `text` in the place of the value at the pointer.
fn with(action: &str, params: &Value, pointer: &str, text: &str) -> String {
    let mut params = params.clone();
    *params.pointer_mut(pointer).expect("a place") = MARK.into();
    let params = params.to_string().replace(&format!("\"{MARK}\""), text);
    format!("{{\"action\":\"{action}\",\"params\":{params}}}")
}

fn refused(request: &str) -> bool {
    decode_request(request.as_bytes()).is_err()
}

/// Pointers to every value below, containers included, the whole excepted.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut go = |key: String, child: &Value| {
        let pointer = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        found.push(pointer.clone());
        places(child, &pointer, found);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, child)| go(key.clone(), child)),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(index, child)| go(index.to_string(), child)),
        _ => {}
    }
}

/// What is of another type than the value, as JSON text.
fn of_another_type(value: &Value) -> Vec<String> {
    let mut list: Vec<String> = [
        "null",
        "1.5",
        "1e2",
        "-0.0",
        "100000000000000000000000000000",
    ]
    .map(str::to_owned)
    .into();
    list.push(format!("{}1{}", "[".repeat(40), "]".repeat(40)));
    if !value.is_boolean() {
        list.extend(["true", "false"].map(str::to_owned));
    }
    if !value.is_object() {
        list.push(format!("{{\"value\":{value}}}"));
        list.push("{}".to_owned());
    }
    if !value.is_array() {
        list.push(format!("[{value}]"));
        list.push("[[]]".to_owned());
    }
    match value {
        Value::Number(number) => {
            list.push(format!("\"{number}\""));
            list.push(format!("\"+{number}\""));
            list.push(format!("{number}.0"));
        }
        Value::String(_) => list.extend(["0", "1", "4294967296"].map(str::to_owned)),
        // In the place of an object: its keys in order, as some readers take structs.
        Value::Object(map) => {
            list.push(Value::from(map.values().cloned().collect::<Vec<_>>()).to_string());
            list.push(Value::from(map.keys().cloned().collect::<Vec<_>>()).to_string());
        }
        Value::Array(_) | Value::Bool(_) | Value::Null => list.push("\"\"".to_owned()),
    }
    list
}

/// Numbers that wrap to the value in fewer bits, and its opposite.
fn numbers(value: i64) -> Vec<String> {
    let value = i128::from(value);
    let mut list: Vec<String> = [32, 53, 63, 64, 128 - 2]
        .map(|bits| (value + (1i128 << bits)).to_string())
        .into();
    list.push((-value - 1).to_string());
    list.push(format!("{value}e0"));
    list
}

/// Texts that begin, end or look like the value and are not it, as JSON text.
fn texts(value: &str) -> Vec<String> {
    let quoted = |text: String| Value::from(text).to_string();
    let mut list = vec![
        quoted(format!("{value}\n")),
        quoted(format!("{value}\0")),
        quoted(format!("\0{value}")),
        quoted(format!("{value}\r\nforged: line")),
        quoted(format!("{value}\u{1b}[2J")),
        quoted(format!("{value}\u{202e}")),
        quoted(format!("\u{feff}{value}")),
        quoted(format!("{value}{}", "x".repeat(1 << 17))),
        // A lone surrogate is no text at all.
        format!("\"{}\\ud800\"", value.replace(['"', '\\'], "")),
    ];
    for (plain, likeness) in [
        ('a', '\u{430}'),
        ('e', '\u{435}'),
        ('o', '\u{3bf}'),
        ('0', '\u{ff10}'),
        ('1', '\u{661}'),
        ('2', '\u{ff12}'),
        ('-', '\u{2010}'),
        (':', '\u{ff1a}'),
        ('.', '\u{2024}'),
        ('/', '\u{2044}'),
    ] {
        if value.contains(plain) {
            list.push(quoted(value.replacen(plain, &likeness.to_string(), 1)));
        }
    }
    list
}

#[test]
fn every_value_of_every_action_has_hostile_neighbours_and_all_are_refused() {
    let mut accepted = Vec::new();
    let mut few = Vec::new();
    let mut tried = 0;
    for spec in CATALOG {
        let example = spec.example_params();
        let good = format!("{{\"action\":\"{}\",\"params\":{example}}}", spec.name);
        assert!(!refused(&good), "the example of {} is good", spec.name);
        let mut pointers = Vec::new();
        places(&example, "", &mut pointers);
        let mut counts: Vec<(&str, usize)> = spec.params.iter().map(|p| (p.name, 0)).collect();
        for pointer in &pointers {
            let value = example.pointer(pointer).expect("a place");
            let mut hostile = of_another_type(value);
            match value {
                Value::Number(number) => hostile.extend(numbers(number.as_i64().expect("small"))),
                Value::String(text) => hostile.extend(texts(text)),
                _ => {}
            }
            for text in hostile {
                let request = with(spec.name, &example, pointer, &text);
                tried += 1;
                if refused(&request) {
                    let name = pointer.split('/').nth(1).unwrap_or_default();
                    for (param, count) in &mut counts {
                        *count += usize::from(*param == name);
                    }
                    continue;
                }
                if !is_known(spec.name, pointer, &text) {
                    let shown: String = text.chars().take(60).collect();
                    accepted.push(format!("{} {pointer}: {shown}", spec.name));
                }
            }
        }
        // What the example does not show gets what no parameter takes.
        for (param, count) in counts.iter_mut().filter(|(_, count)| *count == 0) {
            for text in [
                "1.5",
                "1e2",
                "-1.5",
                "[[[]]]",
                "{\"\":{\"\":0}}",
                "\"\\u0000\"",
                "\"\\ud800\"",
                "100000000000000000000000000000",
                "[null]",
            ] {
                let mut params = example.as_object().cloned().unwrap_or_default();
                params.insert((*param).to_owned(), Value::Null);
                let request = with(spec.name, &params.into(), &format!("/{param}"), text);
                tried += 1;
                if refused(&request) {
                    *count += 1;
                } else {
                    accepted.push(format!("{} /{param}: {text}", spec.name));
                }
            }
        }
        for (param, count) in counts {
            if count < AT_LEAST {
                few.push(format!("{} {param}: {count}", spec.name));
            }
        }
    }
    println!("{tried} requests");
    assert!(
        accepted.is_empty(),
        "{} accepted:\n{}",
        accepted.len(),
        accepted.join("\n")
    );
    assert!(
        few.is_empty(),
        "too few hostile values:\n{}",
        few.join("\n")
    );
}

#[test]
fn a_key_twice_or_unknown_is_refused_in_every_object_of_every_action() {
    for spec in CATALOG {
        let example = spec.example_params();
        let mut pointers = vec![String::new()];
        places(&example, "", &mut pointers);
        for pointer in pointers {
            let Some(map) = example.pointer(&pointer).and_then(Value::as_object) else {
                continue;
            };
            let inside = Value::from(map.clone()).to_string();
            let inside = &inside[1..inside.len() - 1];
            for (key, value) in map {
                // The same value twice harms nobody, and is refused all the same: two readers may pick differently.
                let text = format!("{{{inside},{}:{value}}}", Value::from(key.clone()));
                let request = if pointer.is_empty() {
                    format!("{{\"action\":\"{}\",\"params\":{text}}}", spec.name)
                } else {
                    with(spec.name, &example, &pointer, &text)
                };
                assert!(refused(&request), "{} {pointer}: {key} twice", spec.name);
            }
        }
        let mut unknown = example.as_object().cloned().unwrap_or_default();
        unknown.insert("__proto__".to_owned(), Value::from(1));
        let request = format!(
            "{{\"action\":\"{}\",\"params\":{}}}",
            spec.name,
            Value::from(unknown)
        );
        assert!(refused(&request), "{}: an unknown key", spec.name);
    }
}
