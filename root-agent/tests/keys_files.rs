//! Wallets and the address book on a real file system, with the rights that the compartment really has.

mod compartment_world;

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, chown, symlink};

use blockhost_proto::action::Action;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::EthAddress;
use blockhost_root_agent::compartment::{Handler, keys};
use compartment_world::{GROUP, World, again, code, is_root, set_mode};
use serde_json::{Value, json};

/// Where files are made.
const WORKSHOP: &str = "unfinished";
const ADMIN: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const OTHER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const KEY_OF_ADMIN: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

struct Keys {
    world: World,
    handler: Box<dyn Handler>,
}

impl Keys {
    fn new() -> Option<Self> {
        if !is_root() {
            println!("skipped: files of root's need root");
            return None;
        }
        let world = World::new();
        let handler = world.start(keys::prepare).expect("a keys compartment");
        Some(Keys { world, handler })
    }

    fn generate(&self, name: &str) -> Result<Value, ErrorCode> {
        let result = self
            .world
            .ask(&*self.handler, "generate-wallet", &json!({"name": name}));
        result
            .map(|done| Value::Object(done.extra))
            .map_err(|failure| {
                println!("{}", failure.message);
                failure.code
            })
    }

    fn save(&mut self, uid: u32, entries: Value) -> Result<(), ErrorCode> {
        self.world.caller_uid = uid;
        let result = self.world.ask(
            &*self.handler,
            "addressbook-save",
            &json!({"entries": entries}),
        );
        result.map(drop).map_err(|failure| failure.code)
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.world.layout.etc().join(name)
    }

    /// A file that root made.
    fn put(&self, name: &str, content: &str) {
        std::fs::write(self.file(name), content).expect("a file");
        chown(self.file(name), Some(0), Some(GROUP)).expect("an owner");
        set_mode(&self.file(name), 0o640);
    }

    fn content(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).expect("a file")
    }

    fn book(&self) -> Value {
        serde_json::from_str(&self.content("addressbook.json")).expect("JSON")
    }

    /// What is in the directory, and in the one where files are made.
    fn names(&self) -> BTreeSet<String> {
        let list = |directory: &std::path::Path| -> Vec<String> {
            let entries = std::fs::read_dir(directory).expect("a directory");
            let name = |entry: std::io::Result<std::fs::DirEntry>| {
                entry.expect("an entry").file_name().into_string()
            };
            entries.map(|entry| name(entry).expect("a name")).collect()
        };
        let mut names: BTreeSet<String> = list(&self.world.layout.etc()).into_iter().collect();
        if names.remove(WORKSHOP) {
            names.extend(list(&self.file(WORKSHOP)));
        }
        names
    }
}

#[test]
fn reserved_names_never_get_a_wallet() {
    for name in [
        "admin", "server", "dev", "broker", "-x", "../x", "a/b", "Hot", "",
    ] {
        assert!(
            Action::from_parts("generate-wallet", &json!({"name": name})).is_err(),
            "{name}"
        );
    }
    let Some(mut keys) = Keys::new() else { return };
    keys.world
        .policy
        .allow
        .reserved_wallets
        .push("treasury".to_owned());
    assert_eq!(keys.generate("treasury"), Err(ErrorCode::Forbidden));
    assert!(keys.names().is_empty());
}

#[test]
fn an_existing_key_is_never_overwritten() {
    let Some(keys) = Keys::new() else { return };
    for content in [
        "",
        "not a key",
        &"0".repeat(64),
        &format!("{KEY_OF_ADMIN} {KEY_OF_ADMIN}"),
    ] {
        keys.put("hot.key", content);
        assert_eq!(
            keys.generate("hot"),
            Err(ErrorCode::Conflict),
            "{content:?}"
        );
        assert_eq!(keys.content("hot.key"), content);
        assert_eq!(keys.names().len(), 1, "nothing else was made");
    }
    std::fs::remove_file(keys.file("hot.key")).expect("removed");
    keys.generate("hot").expect("a wallet");
    let key = keys.content("hot.key");
    assert_eq!(keys.generate("hot"), Err(ErrorCode::Conflict));
    assert_eq!(keys.content("hot.key"), key);
}

#[test]
fn an_entry_without_a_key_is_not_redirected_to_a_new_one() {
    let Some(keys) = Keys::new() else { return };
    keys.put(
        "addressbook.json",
        &json!({"hot": {"address": OTHER}}).to_string(),
    );
    assert_eq!(keys.generate("hot"), Err(ErrorCode::Conflict));
    assert_eq!(
        keys.names(),
        BTreeSet::from(["addressbook.json".to_owned()])
    );
}

#[test]
fn a_symbolic_link_is_neither_followed_nor_replaced() {
    let Some(mut keys) = Keys::new() else { return };
    let outside = keys.world.path().join("outside");
    std::fs::write(&outside, KEY_OF_ADMIN).expect("a file");
    symlink(&outside, keys.file("hot.key")).expect("a link");
    assert_eq!(keys.generate("hot"), Err(ErrorCode::Failed));
    symlink(&outside, keys.file("addressbook.json")).expect("a link");
    assert_eq!(keys.save(0, json!({})), Err(ErrorCode::Failed));
    assert_eq!(keys.generate("warm"), Err(ErrorCode::Failed));
    assert_eq!(
        std::fs::read_to_string(&outside).expect("a file"),
        KEY_OF_ADMIN
    );
    assert!(
        keys.file("addressbook.json")
            .symlink_metadata()
            .expect("still there")
            .is_symlink()
    );
    assert!(!keys.names().contains("warm.key"));
}

#[test]
fn a_book_that_others_could_have_written_is_not_believed() {
    let Some(mut keys) = Keys::new() else { return };
    keys.put("addressbook.json", "{}");
    set_mode(&keys.file("addressbook.json"), 0o666);
    assert_eq!(keys.save(0, json!({})), Err(ErrorCode::Failed));
    set_mode(&keys.file("addressbook.json"), 0o640);
    chown(keys.file("addressbook.json"), Some(4711), None).expect("an owner");
    assert_eq!(keys.save(0, json!({})), Err(ErrorCode::Failed));
}

#[test]
fn a_damaged_book_is_left_as_it_is_by_everything() {
    let Some(mut keys) = Keys::new() else { return };
    let twice = format!(r#"{{"hot":{{"address":"{OTHER}"}},"hot":{{"address":"{ADMIN}"}}}}"#);
    let traversal = format!(r#"{{"hot":{{"address":"{OTHER}","keyfile":"../../root/x.key"}}}}"#);
    for damaged in [
        "",
        "{",
        "[]",
        "{\"a\":1}",
        &twice,
        &traversal,
        "{\"hot\":{\"address\":\"0x12\"}}",
    ] {
        keys.put("addressbook.json", damaged);
        assert_eq!(keys.generate("hot"), Err(ErrorCode::Failed), "{damaged}");
        assert_eq!(keys.save(0, json!({})), Err(ErrorCode::Failed), "{damaged}");
        assert_eq!(keys.content("addressbook.json"), damaged);
        assert_eq!(keys.names().len(), 1, "no key without an entry");
    }
}

#[test]
fn protected_entries_change_only_when_root_asks() {
    let Some(mut keys) = Keys::new() else { return };
    let admin = json!({"admin": {"address": ADMIN}});
    keys.save(4711, admin.clone())
        .expect("a missing one may be added by anyone: that is setup");
    for (attempt, entries) in [
        ("redirected", json!({"admin": {"address": OTHER}})),
        ("removed", json!({})),
        (
            "given a key file",
            json!({"admin": {"address": ADMIN, "keyfile": "hot.key"}}),
        ),
        ("removed beside another", json!({"hot": {"address": OTHER}})),
    ] {
        assert_eq!(
            keys.save(4711, entries),
            Err(ErrorCode::Forbidden),
            "{attempt}"
        );
        assert_eq!(keys.book(), admin);
    }
    keys.save(
        4711,
        json!({"admin": {"address": ADMIN.to_lowercase()}, "hot": {"address": OTHER}}),
    )
    .expect("the same address, written differently");
    keys.save(4711, json!({"admin": {"address": ADMIN}}))
        .expect("others may come and go");
    keys.save(0, json!({"admin": {"address": OTHER}}))
        .expect("root may");
    assert_eq!(keys.book(), json!({"admin": {"address": OTHER}}));
}

#[test]
fn a_key_file_name_that_leads_elsewhere_is_refused_before_it_gets_here() {
    for keyfile in [
        "../x.key",
        "/root/x.key",
        "a/b.key",
        "..",
        ".hidden",
        "-x",
        "x.key\n",
        "/etc/blockhost/../x",
    ] {
        let entries = json!({"entries": {"hot": {"address": OTHER, "keyfile": keyfile}}});
        assert!(
            Action::from_parts("addressbook-save", &entries).is_err(),
            "{keyfile:?}"
        );
    }
}

#[test]
fn what_a_crash_left_unfinished_is_removed_at_start_and_nothing_else() {
    let Some(keys) = Keys::new() else { return };
    keys.put(".blockhost-unfinished-0123456789abcdef", KEY_OF_ADMIN);
    keys.put(
        "unfinished/.blockhost-unfinished-0123456789abcdef",
        KEY_OF_ADMIN,
    );
    keys.put("web3-defaults.yaml", "a: 1");
    keys.world.start(keys::prepare).expect("a restart");
    assert_eq!(
        keys.names(),
        BTreeSet::from(["web3-defaults.yaml".to_owned()])
    );
}

#[test]
fn a_key_without_entry_is_finished_by_asking_again() {
    let Some(keys) = Keys::new() else { return };
    keys.put("hot.key", KEY_OF_ADMIN);
    let answer = keys.generate("hot").expect("repaired");
    assert_eq!(
        answer,
        json!({"address": ADMIN, "keyfile": "/etc/blockhost/hot.key"})
    );
    assert_eq!(keys.content("hot.key"), KEY_OF_ADMIN);
    assert_eq!(keys.book()["hot"]["address"], ADMIN);
}

#[test]
fn a_directory_that_others_may_write_stops_the_start() {
    let Some(keys) = Keys::new() else { return };
    set_mode(&keys.world.layout.etc(), 0o770);
    assert!(keys.world.start(keys::prepare).is_err());
    set_mode(&keys.world.layout.etc(), 0o750);
    chown(keys.world.layout.etc(), Some(4711), None).expect("an owner");
    assert!(keys.world.start(keys::prepare).is_err());
    chown(keys.world.layout.etc(), Some(0), None).expect("an owner");
    set_mode(&keys.file(WORKSHOP), 0o770);
    assert!(keys.world.start(keys::prepare).is_err());
    std::fs::remove_dir(keys.file(WORKSHOP)).expect("removed");
    symlink("/tmp", keys.file(WORKSHOP)).expect("a link");
    assert!(keys.world.start(keys::prepare).is_err());
    std::fs::remove_dir_all(keys.world.layout.etc()).expect("removed");
    assert!(
        keys.world
            .start(keys::prepare)
            .err()
            .expect("refused")
            .contains("/etc/blockhost")
    );
}

fn make_and_check(keys: &Keys) {
    let answer = keys.generate("hot").expect("a wallet");
    let address: EthAddress = answer["address"]
        .as_str()
        .expect("an address")
        .parse()
        .expect("valid");
    assert_eq!(answer["address"], address.to_string(), "with its checksum");
    assert_eq!(answer["keyfile"], "/etc/blockhost/hot.key");
    let key = keys.content("hot.key");
    assert!(
        key.len() == 64
            && key
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)),
        "64 hex digits and nothing else"
    );
    for name in ["hot.key", "addressbook.json"] {
        let meta = keys.file(name).metadata().expect("a file");
        assert_eq!(
            (meta.uid(), meta.gid(), meta.mode() & 0o7777, meta.nlink()),
            (0, GROUP, 0o640, 1),
            "{name}"
        );
    }
    assert_eq!(
        keys.book()["hot"],
        json!({"address": address.to_string(), "keyfile": "/etc/blockhost/hot.key"})
    );
    assert_eq!(keys.names().len(), 2, "{:?}", keys.names());
}

#[test]
fn a_new_wallet_is_root_s_alone_from_its_first_byte() {
    let Some(keys) = Keys::new() else { return };
    make_and_check(&keys);
}

#[test]
fn root_without_any_capability_is_enough() {
    let wrapper = [
        "setpriv",
        "--regid",
        "4711",
        "--clear-groups",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
        "--no-new-privs",
        "--",
    ];
    again("root_without_any_capability_is_enough", &wrapper, || {
        let status = std::fs::read_to_string("/proc/self/status").expect("status");
        assert!(
            status
                .lines()
                .any(|line| line.starts_with("CapEff:") && line.ends_with("0000000000000000")),
            "{status}"
        );
        let world = World::without_services();
        let handler = world.start(keys::prepare).expect("a keys compartment");
        make_and_check(&Keys { world, handler });
    });
}

#[test]
fn a_kill_at_any_moment_leaves_whole_files_and_asking_again_finishes() {
    const WORLD: &str = "BLOCKHOST_TEST_WORLD";
    if let Some(root) = std::env::var_os(WORLD) {
        // The victim: makes wallets until it is killed.
        let world = World::at(std::path::Path::new(&root));
        let handler = world.start(keys::prepare).expect("a keys compartment");
        for number in 0.. {
            let _ = world.ask(
                &*handler,
                "generate-wallet",
                &json!({"name": format!("w{number}")}),
            );
        }
    }
    let Some(keys) = Keys::new() else { return };
    for round in 0..15u64 {
        // At work for sure, and then at some moment of it.
        let before = keys.names().len();
        compartment_world::kill_again(
            "a_kill_at_any_moment_leaves_whole_files_and_asking_again_finishes",
            (WORLD, keys.world.path()),
            || keys.names().len() > before + 1,
            std::time::Duration::from_millis(round * 3),
        );
        for name in keys.names() {
            if name.ends_with(".key") {
                assert_eq!(keys.content(&name).len(), 64, "{name} in round {round}");
            }
        }
        if keys.names().contains("addressbook.json") {
            let book = keys.book();
            for entry in book.as_object().expect("an object").values() {
                let file = entry["keyfile"]
                    .as_str()
                    .expect("a key file")
                    .rsplit('/')
                    .next()
                    .expect("a name")
                    .to_owned();
                assert!(keys.names().contains(&file), "an entry without key: {file}");
            }
        }
    }
    // At most the last wallet of each round lacks its entry; asking again adds it.
    let restarted = keys.world.start(keys::prepare).expect("a restart");
    let wallets: Vec<String> = keys
        .names()
        .into_iter()
        .filter_map(|name| name.strip_suffix(".key").map(str::to_owned))
        .collect();
    assert!(wallets.len() > 5, "the victim worked: {wallets:?}");
    for name in &wallets {
        let result = keys
            .world
            .ask(&*restarted, "generate-wallet", &json!({"name": name}));
        assert!(result.is_ok() || code(result) == ErrorCode::Conflict);
        assert!(keys.book()[name]["address"].is_string());
    }
    assert_eq!(
        keys.names().len(),
        wallets.len() + 1,
        "nothing unfinished stays"
    );
}
