//! What a section means, and plans for one assignment.

use super::*;

fn read(value: &Value) -> BTreeMap<String, Assignment> {
    let fields = Fields::new(value, Place::top()).expect("an object");
    PublicIp.read(fields).expect("good")
}

fn section() -> Value {
    json!({
        "pools": [{"range": "203.0.113.0/29", "gateway": "203.0.113.1", "exclude": ["203.0.113.2"]}],
        "assignments": [{"holder": "b", "private": "10.0.0.2"}, {"holder": "a", "private": "10.0.0.1"}],
    })
}

fn entry() -> Entry {
    Entry::applied(json!({"holder": "a", "announce": {"uplink": "eth0", "behind": "ovsbr0"}}))
}

#[test]
fn an_address_is_announced_by_its_pool_and_no_longer_when_it_or_the_pool_changes() {
    let mut value = section();
    value["pools"][0]["announce"] = json!({"uplink": "eth0", "behind": "ovsbr0"});
    let mut wanted = read(&value);
    PublicIp.resolve(&mut wanted, &BTreeMap::new(), &Known::new());
    let mut wanted = wanted.remove("a").expect("it");
    assert_eq!(
        PublicIp.show(&wanted)["announce"],
        json!({"uplink": "eth0", "behind": "ovsbr0"})
    );
    assert_eq!(
        PublicIp
            .revive("a", &PublicIp.show(&wanted))
            .map(|w| w.announce),
        Some(wanted.announce.clone())
    );
    let names = |planned: &Planned| -> Vec<String> {
        let steps = planned.steps.iter();
        steps
            .map(|step| {
                format!(
                    "{} {}",
                    step.action.name(),
                    step.action.params()["address"].as_str().unwrap_or("-")
                )
            })
            .collect()
    };
    let public = wanted.public.expect("given").to_string();
    assert_eq!(
        names(&plan("a", &wanted, None, None)),
        ["nat-map -".to_owned(), format!("proxy-set {public}")]
    );
    let found = Found {
        pairs: vec![Pair {
            public: public.clone(),
            private: "10.0.0.1".into(),
            whole: true,
        }],
        announced: vec![Announced {
            address: public.clone(),
            uplink: "eth0".into(),
        }],
    };
    assert!(plan("a", &wanted, Some(&found), Some(&entry())).is_settled());
    // The pool is announced no more; or the address is another.
    let announce = wanted.announce.take();
    let gone = plan("a", &wanted, Some(&found), Some(&entry()));
    assert_eq!(names(&gone), [format!("proxy-del {public}")]);
    let by_hand = plan("a", &wanted, Some(&found), None);
    assert!(by_hand.steps.is_empty(), "nobody recorded it");
    wanted.announce = announce;
    wanted.public = NatAddress::read("203.0.113.6");
    let moved = names(&plan("a", &wanted, Some(&found), Some(&entry())));
    let expected = [
        format!("proxy-del {public}"),
        "nat-unmap -".into(),
        "nat-map -".into(),
        "proxy-set 203.0.113.6".into(),
    ];
    assert_eq!(moved, expected);
}

fn publics(wanted: &BTreeMap<String, Assignment>) -> Vec<String> {
    wanted
        .values()
        .map(|one| {
            one.public
                .map_or_else(|| "none".to_owned(), |public| public.to_string())
        })
        .collect()
}

#[test]
fn a_holder_keeps_what_was_recorded_even_when_a_reboot_took_the_rules() {
    let mut wanted = read(&section());
    let known = Known::from([(
        "b".to_owned(),
        Entry::applied(json!({"holder": "b", "private": "10.0.0.2", "public": "203.0.113.3"})),
    )]);
    assert!(
        PublicIp
            .resolve(&mut wanted, &BTreeMap::new(), &known)
            .is_empty()
    );
    assert_eq!(publics(&wanted), ["203.0.113.4", "203.0.113.3"]);
}

#[test]
fn an_empty_pool_is_a_reason_and_not_an_address() {
    let mut value = section();
    value["pools"] = json!([{"range": "203.0.113.9"}]);
    let mut wanted = read(&value);
    let refused = PublicIp.resolve(&mut wanted, &BTreeMap::new(), &Known::new());
    assert_eq!(publics(&wanted), ["203.0.113.9", "none"]);
    assert!(refused["b"].contains("no address"), "{refused:?}");
}

#[test]
fn a_pair_of_somebody_else_with_the_same_name_is_not_taken_away() {
    let wanted = &read(&json!({
        "pools": [{"range": "203.0.113.0/29"}],
        "assignments": [{"holder": "a", "private": "10.0.0.1", "public": "203.0.113.4"}],
    }))["a"];
    let found = Found {
        pairs: vec![Pair {
            public: "203.0.113.5".into(),
            private: "10.0.0.9".into(),
            whole: true,
        }],
        announced: Vec::new(),
    };
    assert!(!plan("a", wanted, Some(&found), None).ours);
    assert!(plan("a", wanted, Some(&found), Some(&entry())).ours);
}

#[test]
fn a_pair_that_somebody_made_by_hand_is_as_it_should_be_and_stays_theirs() {
    let wanted = &read(&json!({
        "pools": [{"range": "203.0.113.0/29"}],
        "assignments": [{"holder": "a", "private": "10.0.0.1", "public": "203.0.113.4"}],
    }))["a"];
    let found = |whole| Found {
        pairs: vec![Pair {
            public: "203.0.113.4".into(),
            private: "10.0.0.1".into(),
            whole,
        }],
        announced: Vec::new(),
    };
    let by_hand = plan("a", wanted, Some(&found(true)), None);
    assert!(by_hand.is_settled() && !by_hand.ours);
    assert!(by_hand.notes[0].contains("stays theirs"));
    // Half of it is somebody's work in progress, and not ours to go on with.
    assert!(!plan("a", wanted, Some(&found(false)), None).ours);
    let applied = plan("a", wanted, Some(&found(true)), Some(&entry()));
    assert!(applied.is_settled() && applied.ours && applied.notes.is_empty());
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (value, place) in [
        (
            json!({"pools": [{"range": "203.0.113.1/24"}]}),
            "pools[0].range",
        ),
        (
            json!({"pools": [{"range": "203.0.113.0/24", "exclude": ["x"]}]}),
            "pools[0].exclude[0]",
        ),
        (
            json!({"pools": [{"range": "203.0.113.0/24", "gateway": "fd00::1"}]}),
            "pools[0].range",
        ),
        (
            json!({"pools": [{"range": "203.0.113.0/24", "announce": {"uplink": "eth0", "behind": "eth0"}}]}),
            "pools[0].announce.behind",
        ),
        (
            json!({"pools": [{"range": "203.0.113.0/24", "announce": {"uplink": "eth0"}}]}),
            "pools[0].announce",
        ),
        (
            json!({"assignments": [{"holder": "-x", "private": "10.0.0.1"}]}),
            "assignments[0].holder",
        ),
        (
            json!({"assignments": [{"holder": "a", "private": "127.0.0.1"}]}),
            "assignments[0].private",
        ),
        (
            json!({"assignments": [{"holder": "a", "private": "10.0.0.1", "public": "fd00::1"}]}),
            "assignments[0].public",
        ),
        (
            json!({"assignments": [{"holder": "a", "private": "10.0.0.1", "port": 1}]}),
            "assignments[0].port",
        ),
    ] {
        let fields = Fields::new(&value, Place::top()).expect("an object");
        let wrong = PublicIp.read(fields).expect_err("wrong");
        assert_eq!(wrong.place.to_string(), place);
    }
}
