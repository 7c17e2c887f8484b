//! Names that change while they are used: another thread exchanges a good file for a link, a hard link or a pipe without
//! pause, while the agent works with it. Whatever a request comes to, nothing outside is ever read or written.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Agent, BLOCKHOST, World};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use serde_json::{Value, json};

/// Does `work` while another thread does `change` again and again.
fn meanwhile<T>(mut change: impl FnMut() + Send, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                change();
            }
        });
        // Also when an assertion in the work fails: the other thread has to end.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn disk(mark: &[u8]) -> Vec<u8> {
    let mut disk = vec![0u8; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[600..600 + mark.len()].copy_from_slice(mark);
    disk
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn an_image_that_is_exchanged_while_it_is_imported_never_lets_another_file_through() {
    let script = r#"S="$BLOCKHOST_ROOT/var/lib/blockhost"
if [ "$1" = importdisk ]; then
  echo x >>"$S/reads"; grep -q PRECIOUS "$3" && echo x >>"$S/leaks"
  echo "unused0: successfully imported disk 'local:100/vm-100-disk-0.qcow2'"
fi"#;
    let agent = Agent::start_in(World::with_qm(script, ""));
    let layout = &agent.world.layout;
    let images = layout.images();
    std::fs::create_dir_all(&images).expect("a directory");
    chown(&images, Some(BLOCKHOST), Some(BLOCKHOST)).expect("an owner");
    let secret = layout.root().join("secret.raw");
    std::fs::write(&secret, disk(b"PRECIOUS")).expect("a secret");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).expect("mode");
    let image = images.join("x.raw");
    let before = std::fs::metadata(&secret).expect("the secret");

    type Make = fn(&Path, &Path);
    let kinds: [(&str, Make); 3] = [
        ("a link", |secret, place| {
            symlink(secret, place).expect("a link")
        }),
        ("a hard link", |secret, place| {
            std::fs::hard_link(secret, place).expect("a hard link");
        }),
        ("a pipe", |_, place| {
            mknodat(CWD, place, FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        }),
    ];
    let (mut good, mut bad) = (0, 0);
    for (kind, make) in kinds {
        std::fs::write(&image, disk(b"harmless")).expect("an image");
        chown(&image, Some(BLOCKHOST), Some(BLOCKHOST)).expect("an owner");
        let other = images.join("other");
        make(&secret, &other);
        let exchange = || {
            renameat_with(CWD, &image, CWD, &other, RenameFlags::EXCHANGE).expect("exchanged");
        };
        let mut client = agent.client();
        meanwhile(exchange, || {
            for _ in 0..40 {
                let answer = client.call(&json!({"action": "qm-importdisk", "params":
                    {"vmid": 100, "disk_path": "x.raw", "storage": "local"}}));
                match answer["ok"] == true {
                    true => good += 1,
                    false => bad += 1,
                }
                let code = answer["code"].as_str().unwrap_or("ok");
                let expected = [
                    "ok",
                    "forbidden",
                    "bad_params",
                    "failed",
                    "not_found",
                    "conflict",
                ];
                assert!(expected.contains(&code), "{kind}: {answer}");
            }
        });
        std::fs::remove_file(&image).expect("removed");
        std::fs::remove_file(&other).expect("removed");
    }
    assert_eq!(
        lines(&layout.state().join("leaks")),
        0,
        "another file reached qm"
    );
    assert_eq!(
        lines(&layout.state().join("reads")),
        good,
        "qm ran without an answer of success"
    );
    assert!(
        good > 0 && bad > 0,
        "the exchange was never seen: {good} good, {bad} bad"
    );
    let after = std::fs::metadata(&secret).expect("the secret");
    assert_eq!(
        (after.len(), after.mode(), after.uid()),
        (before.len(), before.mode(), before.uid())
    );
}

/// Puts a link or a file in the place of a name, in one step.
fn place(scratch: &Path, name: &Path, link_to: Option<&Path>) {
    let _ = std::fs::remove_file(scratch);
    match link_to {
        Some(target) => symlink(target, scratch).expect("a link"),
        None => std::fs::write(scratch, "{}\n").expect("a file"),
    }
    std::fs::rename(scratch, name).expect("renamed");
}

fn canary(world: &World) -> (PathBuf, String) {
    let path = world.layout.root().join("canary.json");
    let text =
        json!({"evil": {"address": "0x00000000000000000000000000000000000e71f0"}}).to_string();
    std::fs::write(&path, &text).expect("a canary");
    (path, text)
}

#[test]
fn an_address_book_that_is_exchanged_for_a_link_is_never_followed() {
    let agent = Agent::start("");
    let (canary, text) = canary(&agent.world);
    let book = agent.world.layout.etc().join("addressbook.json");
    // Not a name that the agent sweeps or knows.
    let scratch = agent.world.layout.etc().join("scratch");
    let mut linked = false;
    let change = || {
        linked = !linked;
        place(&scratch, &book, linked.then_some(&canary));
    };
    let mut client = agent.client();
    let mut answers: Vec<Value> = Vec::new();
    meanwhile(change, || {
        for number in 0..150 {
            let save = json!({"action": "addressbook-save", "params": {"entries": {}}});
            let name = format!("swap-{number}");
            let wallet = json!({"action": "generate-wallet", "params": {"name": name}});
            answers.push(client.call(&save));
            answers.push(client.call(&wallet));
        }
    });
    assert_eq!(
        std::fs::read_to_string(&canary).expect("the canary"),
        text,
        "it was written"
    );
    let count = |ok: bool| {
        answers
            .iter()
            .filter(|answer| (answer["ok"] == true) == ok)
            .count()
    };
    assert!(
        count(true) > 0 && count(false) > 0,
        "the link was never in the way"
    );
    for answer in &answers {
        let text = answer.to_string();
        assert!(
            // As many digits as no hash of a receipt has by chance.
            !text.contains("0000000000e71f0") && !text.contains("evil"),
            "it was read: {text}"
        );
    }
    for entry in std::fs::read_dir(agent.world.layout.etc()).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "key") {
            let stat = path.symlink_metadata().expect("a file");
            assert!(
                stat.is_file() && stat.mode() & 0o7777 == 0o640,
                "{}",
                path.display()
            );
            assert_eq!((stat.uid(), stat.gid(), stat.nlink()), (0, BLOCKHOST, 1));
        }
    }
}

#[test]
fn a_link_that_comes_and_goes_in_the_place_of_a_key_is_neither_followed_nor_replaced() {
    let agent = Agent::start("");
    let (canary, text) = canary(&agent.world);
    let etc = agent.world.layout.etc();
    let mut client = agent.client();
    let (mut made, mut kept) = (0, 0);
    for number in 0..60 {
        let name = format!("key-{number}");
        let file = etc.join(format!("{name}.key"));
        let change = || {
            // Never over a key that is there: that is what the agent is to be caught at.
            if symlink(&canary, &file).is_ok() {
                std::thread::yield_now();
                if file.is_symlink() {
                    let _ = std::fs::remove_file(&file);
                }
            }
        };
        let answer = meanwhile(change, || {
            client.call(&json!({"action": "generate-wallet", "params": {"name": name}}))
        });
        if answer["ok"] == true {
            made += 1;
            let stat = file.symlink_metadata().expect("the key");
            assert!(stat.is_file() && stat.len() >= 64, "{answer}");
        } else {
            kept += 1;
        }
        let _ = std::fs::remove_file(&file);
    }
    assert_eq!(std::fs::read_to_string(&canary).expect("the canary"), text);
    println!("{made} made, {kept} refused");
    assert!(
        made + kept == 60 && kept > 0,
        "the link was never in the way"
    );
}
