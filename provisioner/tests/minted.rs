//! A token that was minted is told of, whatever fails afterwards. The engine's commands are found beside one's own program, so
//! a copy of this test program runs beside commands that stand for them.

#![expect(
    clippy::disallowed_methods,
    reason = "the test starts a copy of itself"
)]

mod common;

use std::process::Command;

use blockhost_provisioner::create::create;
use blockhost_provisioner::plan::SignedSecret;
use blockhost_provisioner::progress::Progress;
use blockhost_provisioner::store::Store as _;
use common::{TestWorld, request};

const CHILD: &str = "BLOCKHOST_TEST_MINTED_CHILD";

/// This test does nothing unless it is the copy of the one below.
#[test]
fn helper_that_mints_when_it_is_a_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let world = TestWorld::new();
    // The chain gives a number that the database has promised to another machine.
    let other = "other".parse().unwrap();
    world.store.reserve_token(7, &other).unwrap();
    let mut wanted = request("web-1");
    wanted.skip_mint = false;
    wanted.signature = Some(SignedSecret {
        signature: "0x00".into(),
        public_secret: "secret".into(),
    });
    let created = world
        .with(|w| create(w, &wanted, &mut Progress::silent()))
        .expect("what is on the chain is not undone");
    assert_eq!(created.to_json()["nft_token_id"], 7);
    let told = created.remarks.concat();
    assert!(
        told.contains("token 7 is minted, and the database does not say so"),
        "{told}"
    );
    assert!(
        told.contains("blockhost-vm-update-gecos web-1 0x"),
        "{told}"
    );
    assert!(world.recorder.machines.borrow()[&created.record.vmid.get()].running);
    println!("seen through");
}

/// Another process writes the program: a descriptor of ours would be in whatever another thread starts meanwhile, until that
/// is another program, and nobody runs a file that is open for writing.
fn install(from: &std::path::Path, to: &std::path::Path) {
    let mut install = Command::new("install");
    let installed = install
        .args(["--mode=755", "--"])
        .arg(from)
        .arg(to)
        .status();
    assert!(installed.unwrap().success(), "{}", to.display());
}

#[test]
fn a_token_that_the_database_cannot_note_is_told_of_and_nothing_is_undone() {
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("minted");
    install(&std::env::current_exe().unwrap(), &program);
    for (name, prints) in [("bhcrypt", "0x00"), ("blockhost-mint-nft", "7")] {
        let path = place.path().join(name);
        let draft = place.path().join("draft");
        std::fs::write(
            &draft,
            format!("#!/bin/sh\ncat >/dev/null\necho {prints}\n"),
        )
        .unwrap();
        install(&draft, &path);
    }
    let output = Command::new(&program)
        .args([
            "helper_that_mints_when_it_is_a_child",
            "--exact",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    assert!(said.contains("seen through"), "{said}");
}
