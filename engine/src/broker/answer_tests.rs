use super::*;
use blockhost_proto::value::Text as _;
use proptest::prelude::*;
use serde_json::json;

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OTHER: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

fn good() -> Value {
    json!({"prefix": "2001:db8:b10c::/64", "gateway": "2001:db8:b10c::1", "broker_pubkey": KEY, "broker_endpoint": "192.0.2.9:51820"})
}

fn read(value: &Value) -> Result<Allocation, Nonsense> {
    Allocation::read(value.to_string().as_bytes())
}

fn key(text: &str) -> WgKey {
    WgKey::read(text).unwrap()
}

fn own(device: &str, address: &str) -> Own {
    let (address, length) = address.split_once('/').unwrap();
    Own {
        device: device.to_owned(),
        address: address.parse().unwrap(),
        length: length.parse().unwrap(),
    }
}

fn kept(prefix: &str) -> Kept {
    Kept {
        prefix: prefix.parse().unwrap(),
        gateway: None,
        key: Some(key(KEY)),
        endpoint: None,
        lease_until: None,
    }
}

#[test]
fn an_answer_is_four_values_and_whatever_else_a_broker_says() {
    let mut answer = good();
    answer["note"] = json!({"welcome": [1, 2.5, null]});
    let read = read(&answer).unwrap();
    assert_eq!(read.prefix.to_string(), "2001:db8:b10c::/64");
    assert_eq!(read.gateway.to_string(), "2001:db8:b10c::1");
    assert_eq!(read.key, key(KEY));
    assert_eq!(read.endpoint.as_str(), "192.0.2.9:51820");
}

#[test]
fn no_lie_of_a_brokers_becomes_an_allocation() {
    let lies = [
        ("prefix", json!(null), "no prefix"),
        ("prefix", json!("::/0"), "prefix"),
        ("prefix", json!("2000::/3"), "prefix"),
        ("prefix", json!("2001:db8::/31"), "prefix"),
        ("prefix", json!("2001:db8::/121"), "prefix"),
        ("prefix", json!("2001:db8::1/64"), "prefix"),
        ("prefix", json!("fe80::/64"), "prefix"),
        ("prefix", json!("ff00::/64"), "prefix"),
        ("prefix", json!("::ffff:10.0.0.0/120"), "prefix"),
        ("prefix", json!("10.0.0.0/24"), "prefix"),
        ("prefix", json!("2001:db8::/64\n"), "prefix"),
        ("prefix", json!(["2001:db8::/64"]), "prefix"),
        ("prefix", json!("2001:db8:b10c::/64, ::/0"), "prefix"),
        ("gateway", json!("2001:db8:b10d::1"), "neither"),
        ("gateway", json!("10.0.0.1"), "gateway"),
        ("gateway", json!("::1"), "gateway"),
        ("gateway", json!("2001:db8:b10c::1/64"), "gateway"),
        ("gateway", json!(null), "no gateway"),
        ("broker_pubkey", json!("AAAA"), "broker_pubkey"),
        (
            "broker_pubkey",
            json!("A".repeat(43) + "="),
            "broker_pubkey",
        ),
        (
            "broker_pubkey",
            json!(KEY.replace('=', "")),
            "broker_pubkey",
        ),
        (
            "broker_pubkey",
            json!(format!("{KEY}\nPrivateKey = {KEY}")),
            "broker_pubkey",
        ),
        ("broker_pubkey", json!(7), "broker_pubkey"),
        ("broker_endpoint", json!("192.0.2.9"), "broker_endpoint"),
        ("broker_endpoint", json!("192.0.2.9:0"), "broker_endpoint"),
        (
            "broker_endpoint",
            json!("192.0.2.9:65536"),
            "broker_endpoint",
        ),
        (
            "broker_endpoint",
            json!("127.0.0.1:51820"),
            "broker_endpoint",
        ),
        ("broker_endpoint", json!("0.0.0.0:51820"), "broker_endpoint"),
        (
            "broker_endpoint",
            json!("[ff02::1]:51820"),
            "broker_endpoint",
        ),
        (
            "broker_endpoint",
            json!("-o.example:51820"),
            "broker_endpoint",
        ),
        (
            "broker_endpoint",
            json!("a.example:51820\nPostUp=x"),
            "broker_endpoint",
        ),
        (
            "broker_endpoint",
            json!("[2001:db8:b10c::9]:51820"),
            "reached by the tunnel",
        ),
    ];
    for (key, lie, part) in lies {
        let mut answer = good();
        answer[key] = lie.clone();
        let error = read(&answer)
            .expect_err(&format!("{key} {lie}"))
            .to_string();
        assert!(
            error.contains(part) && !error.contains('\n'),
            "{key} {lie}: {error}"
        );
    }
    let twice = good()
        .to_string()
        .replacen('{', r#"{"prefix":"fd77::/64","#, 1);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for text in ["", "null", "[]", "\"\"", "<html>", "{", &twice, &deep] {
        assert!(Allocation::read(text.as_bytes()).is_err(), "{text:.60}");
    }
    assert!(Allocation::read(b"\xff\xfe{}").is_err());
}

#[test]
fn a_host_is_not_its_own_broker() {
    let allocation = read(&good()).unwrap();
    let mut host = Surroundings {
        own_key: key(KEY),
        addresses: Vec::new(),
        kept: None,
        machines: Vec::new(),
    };
    assert_eq!(allocation.judge(&host, Accept::InUse), Err(Refusal::OwnKey));
    host.own_key = key(OTHER);
    assert_eq!(allocation.judge(&host, Accept::Same), Ok(false));
    host.addresses = vec![own("eth0", "192.0.2.9/24")];
    let refused = allocation.judge(&host, Accept::InUse).unwrap_err();
    assert!(matches!(refused, Refusal::OwnEndpoint { .. }), "{refused}");
}

#[test]
fn another_network_is_taken_only_where_that_is_meant_and_machines_are_told_of() {
    let allocation = read(&good()).unwrap();
    let (same, other) = (kept("2001:db8:b10c::/64"), kept("2001:db8:aaaa::/64"));
    let judge = |kept, machines: &[(&str, &str)], addresses: &[(&str, &str)], accept| {
        let host = Surroundings {
            own_key: key(OTHER),
            addresses: addresses
                .iter()
                .map(|(device, address)| own(device, address))
                .collect(),
            kept,
            machines: machines
                .iter()
                .map(|(name, address)| ((*name).to_owned(), address.parse().unwrap()))
                .collect(),
        };
        allocation.judge(&host, accept)
    };
    let inside = [("web-1", "2001:db8:aaaa::7")];
    let elsewhere = [("web-2", "2001:db8:bbbb::7")];
    let bridge = [("vmbr0", "2001:db8:b10c::1/64")];
    // The present one, whatever is in it.
    assert_eq!(
        judge(Some(&same), &inside, &bridge, Accept::Same),
        Ok(false)
    );
    // A first one, unless the host is in that network.
    assert_eq!(judge(None, &inside, &[], Accept::Same), Ok(false));
    let refused = judge(None, &[], &bridge, Accept::Same)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("vmbr0 of this host has 2001:db8:b10c::1"),
        "{refused}"
    );
    assert_eq!(judge(None, &[], &bridge, Accept::InUse), Ok(false));
    for (around, met) in [
        ("2001:db8::5/32", true),
        ("2001:db8:b10c:0:1::/80", true),
        ("2001:db8:b10c::9/128", true),
        ("2001:db8:b10d::5/64", false),
        ("2001:db8:b10d::5/128", false),
        ("10.0.0.1/8", false),
    ] {
        let judged = judge(None, &[], &[("eth0", around)], Accept::Same);
        assert_eq!(judged.is_err(), met, "{around}");
    }
    // Another one.
    let refused = judge(Some(&other), &elsewhere, &[], Accept::Same)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("--replace`") && refused.contains("2001:db8:aaaa::/64"),
        "{refused}"
    );
    assert_eq!(
        judge(Some(&other), &elsewhere, &[], Accept::Other),
        Ok(true)
    );
    for accept in [Accept::Same, Accept::Other] {
        let refused = judge(Some(&other), &inside, &[], accept)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("addresses at one machine: web-1;"),
            "{refused}"
        );
    }
    assert_eq!(
        judge(Some(&other), &inside, &bridge, Accept::InUse),
        Ok(true)
    );
    assert!(judge(Some(&other), &[], &bridge, Accept::Other).is_err());
}

proptest! {
    #[test]
    fn no_answer_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..200usize) {
        let _ = Allocation::read(&bytes);
        let mut text = good().to_string().into_bytes();
        if let (Some(byte), Some(other)) = (text.get_mut(at), bytes.first()) {
            *byte = *other;
        }
        let _ = Allocation::read(&text);
    }
}
