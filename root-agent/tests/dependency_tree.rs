//! Every crate that runs inside the privileged process is on this list. A new one is a decision, made here and argued for
//! in Cargo.toml, never a side effect of an update.

use std::collections::BTreeSet;
use std::process::Command;

const ALLOWED: &str = include_str!("dependency_tree.txt");

#[test]
fn no_crate_enters_the_root_agent_unnoticed() {
    #[expect(clippy::disallowed_methods, reason = "asks cargo for the tree")]
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--offline",
            "--locked",
        ])
        .args(["-p", "blockhost-root-agent", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8(output.stderr).expect("text")
    );
    let names = |text: &str| -> BTreeSet<String> {
        text.lines()
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect()
    };
    let (found, allowed) = (names(&text), names(ALLOWED));
    let new: Vec<_> = found.difference(&allowed).collect();
    let gone: Vec<_> = allowed.difference(&found).collect();
    assert!(
        new.is_empty(),
        "new in the tree, argue for it in Cargo.toml and add it to the list: {new:?}"
    );
    assert!(
        gone.is_empty(),
        "no longer in the tree, take it off the list: {gone:?}"
    );
}
