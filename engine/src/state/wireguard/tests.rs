//! Comparing a tunnel with what can be seen of it.

use super::*;

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

fn wanted(peer: &Value) -> Tunnel {
    let mut peer = peer.clone();
    peer["public_key"] = KEY.into();
    peer["allowed_ips"] = json!(["10.8.0.2/32"]);
    let item = json!({"name": "wg0", "addresses": ["10.8.0.1/24"], "peers": [peer]});
    tunnel(&item, Place::top()).expect("good")
}

fn found(peer: &Value) -> Found {
    let mut peer = peer.clone();
    peer["public_key"] = KEY.into();
    peer["allowed_ips"] = json!(["10.8.0.2/32"]);
    understood(&json!({
        "name": "wg0", "public_key": KEY, "listen_port": 51820, "mtu": 1420, "up": true,
        "addresses": ["10.8.0.1/24", "fe80::1/64"], "peers": [peer],
    }))
}

fn fields(wanted: &Tunnel, found: &Found, before: Option<&Tunnel>) -> Vec<String> {
    let before = before.map(|tunnel| Entry::applied(Wireguard.show(tunnel)));
    let planned = Wireguard.plan("wg0", wanted, Some(found), before.as_ref());
    planned
        .fields
        .into_iter()
        .map(|field| field.field)
        .collect()
}

#[test]
fn a_peer_that_roamed_is_left_where_it_is_and_one_that_the_document_moved_is_not() {
    let here = wanted(&json!({"endpoint": "192.0.2.1:51820"}));
    let there = wanted(&json!({"endpoint": "192.0.2.2:51820"}));
    let roamed = found(&json!({"endpoint": "198.51.100.9:1024"}));
    assert_eq!(fields(&here, &roamed, Some(&here)), Vec::<String>::new());
    let moved = format!("peers.{KEY}.endpoint");
    assert_eq!(
        fields(&there, &roamed, Some(&here)),
        std::slice::from_ref(&moved)
    );
    assert_eq!(fields(&here, &roamed, None), std::slice::from_ref(&moved));
    // Never heard of and not even set: that is no roaming.
    assert_eq!(fields(&here, &found(&json!({})), Some(&here)), [moved]);
}

#[test]
fn a_shared_key_that_cannot_be_read_back_is_compared_with_the_record() {
    let key = |text: &str| wanted(&json!({ "preshared": text }));
    let (one, other) = (
        key("TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="),
        key("gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA="),
    );
    let set = found(&json!({"preshared": true}));
    let field = format!("peers.{KEY}.preshared");
    assert_eq!(fields(&one, &set, Some(&one)), Vec::<String>::new());
    for (wanted, found, before) in [
        (&one, &set, Some(&other)),
        (&one, &set, None),
        (&one, &found(&json!({})), Some(&one)),
        (&wanted(&json!({})), &set, None),
    ] {
        assert_eq!(fields(wanted, found, before), std::slice::from_ref(&field));
    }
    let shown = Wireguard.show(&one);
    assert!(!shown.to_string().contains("TrMv"), "{shown}");
    let revived = Wireguard.revive("wg0", &shown).expect("readable");
    assert_eq!(Wireguard.show(&revived), shown);
}

#[test]
fn what_the_document_does_not_speak_of_is_not_compared() {
    let item = json!({"name": "wg0", "addresses": ["10.8.0.1/24"]});
    let silent = tunnel(&item, Place::top()).expect("good");
    assert_eq!(
        fields(&silent, &found(&json!({})), None),
        Vec::<String>::new()
    );
}

#[test]
fn a_tunnel_that_was_there_before_keeps_its_keys_where_it_cannot_be_made_again() {
    let tunnel = wanted(&json!({"preshared": "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="}));
    let undone = |before: Option<&Entry>| {
        let planned = Wireguard.plan("wg0", &tunnel, None, before);
        assert_eq!(planned.steps[0].action.name(), "wg-setup");
        planned.steps[0].undo.len()
    };
    let mut entry = Entry::applied(Wireguard.show(&tunnel));
    assert_eq!(undone(None), 1, "what is new goes whole");
    assert_eq!(undone(Some(&entry)), 0);
    entry.finished = false;
    assert_eq!(undone(Some(&entry)), 1, "it never was there whole");
    entry.before = Some(entry.wanted.clone());
    assert_eq!(undone(Some(&entry)), 0);
    // Of the key itself the record knows a digest; the agent has it.
    let revived = Wireguard.revive("wg0", &entry.wanted).expect("readable");
    let planned = Wireguard.plan("wg0", &revived, None, Some(&entry));
    assert_eq!(
        planned.steps[1].action.params()["peers"][0]["preshared"],
        "kept"
    );
    assert_eq!(Wireguard.show(&revived), entry.wanted);
}
