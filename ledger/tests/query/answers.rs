//! The same answers with and without the index, and none that is false.

use super::*;

fn filters() -> impl Strategy<Value = Filter> {
    let word = |words: &'static [&'static str]| {
        prop::option::weighted(0.3, prop::sample::select(words).prop_map(str::to_owned))
    };
    let resource = prop::option::weighted(
        0.3,
        prop::sample::select(vec!["vm:1", "vm:*", "v*", "vm2:1*", "none", "*"])
            .prop_map(Resource::parse),
    );
    let names = (
        word(&["compute", "network", "none"]),
        word(&["qm", "event"]),
        word(&["qm-create", "odd"]),
        word(&["create", "modify"]),
        word(&["rare", "blockhost"]),
        word(&["op0", "op70", "op999"]),
    );
    let rest = (
        resource,
        prop::option::weighted(0.2, prop::sample::select(&Phase::ALL[..3])),
        prop::option::weighted(0.3, (0_u64..700, 0_u64..700).prop_map(|(a, b)| a..=b)),
        prop::option::weighted(
            0.2,
            (0_u64..600).prop_map(|n| Text::new(&format!("NUMBER \"{n}"), true)),
        ),
    );
    (names, rest).prop_map(
        |((category, plugin, action, operation, user, op_id), (resource, phase, heights, text))| {
            Filter {
                heights,
                category,
                plugin,
                action,
                operation,
                user,
                resource,
                phase,
                op_id,
                text,
                ..Filter::default()
            }
        },
    )
}

#[test]
fn the_index_finds_what_looking_everywhere_finds() {
    let world = world(600);
    let reader = reader(&world);
    let (_dir, path) = place();
    let index = open(&path, &reader);
    let some = std::cell::Cell::new(0);
    proptest!(ProptestConfig::with_cases(300), |(filter in filters(), newest: bool, limit in prop_oneof![Just(usize::MAX), 0_usize..20])| {
        let order = if newest { Order::Newest } else { Order::Oldest };
        let query = Query { filter, order, limit };
        let by_index = ask(&reader, &Means::Index(&index), &query).expect("answers");
        let scanned = ask(&reader, &Means::Scan, &query).expect("answers");
        let verified = ask(&reader, &Means::Verified, &query).expect("answers");
        prop_assert_eq!(&by_index.found, &scanned.found);
        prop_assert_eq!(&verified.found, &scanned.found);
        prop_assert!(scanned.more || !by_index.more, "more than there is");
        some.set(some.get() + by_index.found.len());
        for found in &by_index.found {
            prop_assert_eq!(leaf_hash(&found.record), found.hash);
        }
    });
    assert!(
        some.get() > 1000,
        "the filters find hardly anything: {}",
        some.get()
    );
}

#[test]
fn a_record_is_found_by_its_hash_and_by_its_time() {
    let world = world(50);
    let reader = reader(&world);
    let (_dir, path) = place();
    let index = open(&path, &reader);
    let hash = reader.leaf(17).expect("exists");
    let filter = Filter {
        hash: Some(hash),
        ..Filter::default()
    };
    assert_eq!(
        heights(&ask(&reader, &Means::Index(&index), &all(filter)).expect("answers")),
        [18]
    );
    let time = |height: u64| {
        let record = reader.get(height - 1).expect("exists");
        serde_json::from_slice::<serde_json::Value>(&record).expect("JSON")["ts_us"]
            .as_i64()
            .expect("a time")
    };
    let filter = Filter {
        since_us: Some(time(10)),
        until_us: Some(time(30) + 1),
        ..Filter::default()
    };
    let by_index = ask(&reader, &Means::Index(&index), &all(filter.clone())).expect("answers");
    assert_eq!(
        by_index.found,
        ask(&reader, &Means::Scan, &all(filter))
            .expect("answers")
            .found
    );
    assert!(heights(&by_index).contains(&10) && heights(&by_index).contains(&30));
}

#[test]
fn an_altered_index_never_gives_a_false_record_and_the_verified_answer_has_what_it_hides() {
    let world = world(300);
    let reader = reader(&world);
    let (_dir, path) = place();
    let truth = Filter {
        user: Some("rare".into()),
        ..Filter::default()
    };
    let before = heights(
        &ask(
            &reader,
            &Means::Index(&open(&path, &reader)),
            &all(truth.clone()),
        )
        .expect("answers"),
    );
    assert_eq!(before, [297, 200, 103, 6]);
    let db = rusqlite::Connection::open(&path).expect("opens");
    db.execute_batch(&format!(
        "DELETE FROM record WHERE height = {};
         UPDATE record SET kind = (SELECT kind FROM record WHERE height = {}) WHERE height IN (1, 2, 3);
         UPDATE tally SET first = 1, last = 300;
         UPDATE record SET height = 100000 WHERE height = 250; UPDATE record SET height = -5 WHERE height = 251;",
        before[0], before[1]
    ))
    .expect("altered");
    drop(db);
    let index = open(&path, &reader);
    assert_eq!(
        index.built(),
        &Built::Current,
        "such a lie is not seen on opening"
    );
    let lied = ask(&reader, &Means::Index(&index), &all(truth.clone())).expect("answers");
    assert_eq!(heights(&lied), before[1..], "nothing false, one hidden");
    assert_eq!(lied.coverage, Coverage::Index);
    let verified = ask(&reader, &Means::Verified, &all(truth)).expect("answers");
    assert_eq!(heights(&verified), before);
    let Coverage::Verified {
        from: 1,
        to: 300,
        head_size: 300,
        ..
    } = verified.coverage
    else {
        panic!("{:?}", verified.coverage)
    };
}

#[test]
fn a_limited_answer_claims_only_the_heights_that_were_looked_at() {
    let world = world(120);
    let reader = reader(&world);
    let rare = Filter {
        user: Some("rare".into()),
        heights: Some(1..=110),
        ..Filter::default()
    };
    let query = Query {
        filter: rare,
        order: Order::Newest,
        limit: 1,
    };
    let answer = ask(&reader, &Means::Scan, &query).expect("answers");
    assert_eq!((heights(&answer), answer.more), (vec![103], true));
    assert_eq!(answer.coverage, Coverage::Scan { from: 103, to: 110 });
}

#[test]
fn the_index_follows_the_ledger_and_counts_right() {
    let world = World::new();
    let (mut writer, _) = world.open();
    let (_dir, path) = place();
    assert_eq!(
        open(&path, &reader(&world)).built(),
        &Built::Anew("there was none")
    );
    let mut size = 0;
    for more in [1, 40, 1, 500, 9000, 3] {
        append(&mut writer, size..size + more);
        size += more;
        let reader = reader(&world);
        let index = open(&path, &reader);
        assert_eq!(index.built(), &Built::Added(more));
        assert_eq!(open(&path, &reader).built(), &Built::Current);
        for (field, name) in Counted::ALL.into_iter().zip([
            "phase",
            "category",
            "plugin_id",
            "operation",
            "action",
            "user",
        ]) {
            let mut counted = std::collections::BTreeMap::<String, (u64, u64, u64)>::new();
            for item in reader.records(0) {
                let (index, record) = item.expect("read");
                let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
                let entry = counted
                    .entry(record[name].as_str().expect("text").to_owned())
                    .or_insert((0, index + 1, 0));
                *entry = (entry.0 + 1, entry.1, index + 1);
            }
            let told = index.tallies(field, 100).expect("answers");
            assert!(told.is_sorted_by(|a, b| a.count >= b.count));
            let told: std::collections::BTreeMap<_, _> = told
                .into_iter()
                .map(|tally| (tally.text, (tally.count, tally.first, tally.last)))
                .collect();
            assert_eq!(told, counted, "{name} at {size}");
        }
    }
}
