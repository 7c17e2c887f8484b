//! What packages do when they are installed, in a private root directory: which ids the users get.

use std::path::Path;
use std::time::Duration;

use blockhost_tests::command::{run, with_args};

/// Users with ids that must stay theirs: one of a directory service is among those of containers.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nfar:x:17000000:17000000::/:/bin/sh\n";

fn packaging(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(file)
}

/// A root directory as `dpkg` knows it.
struct Root(tempfile::TempDir);

impl Root {
    fn new(subuid: &str, subgid: &str) -> Self {
        let root = Self(tempfile::tempdir().expect("a directory"));
        for file in ["sysusers.d/blockhost.conf", "tmpfiles.d/blockhost.conf"] {
            let to = root.0.path().join("usr/lib").join(file);
            std::fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
            std::fs::copy(packaging(file), to).expect("a copy");
        }
        std::fs::create_dir(root.0.path().join("etc")).expect("a directory");
        for (file, text) in [
            ("passwd", PASSWD),
            ("group", "root:x:0:\n"),
            ("subuid", subuid),
            ("subgid", subgid),
        ] {
            std::fs::write(root.0.path().join("etc").join(file), text).expect("written");
        }
        root
    }

    /// Configures the agent's package; what it complained.
    fn configure(&self) -> String {
        let script = packaging("debian/root-agent.postinst");
        let script = script.to_str().expect("a path");
        let mut command = with_args("sh", &[script, "configure"]);
        command.env("DPKG_ROOT", self.0.path());
        let output = run(command, Duration::from_secs(60)).expect("it succeeds");
        output.stderr
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.0.path().join("etc").join(file)).expect(file)
    }

    /// First and count of the ranges that a user has in a file.
    fn ranges(&self, file: &str, user: &str) -> Vec<(u64, u64)> {
        let text = self.text(file);
        let of = text.lines().filter_map(|line| {
            let (first, count) = line
                .strip_prefix(user)?
                .strip_prefix(':')?
                .split_once(':')?;
            Some((
                first.parse().expect("a number"),
                count.parse().expect("a number"),
            ))
        });
        of.collect()
    }

    /// The one range that a user has in both files.
    fn common(&self, user: &str) -> (u64, u64) {
        let (uids, gids) = (self.ranges("subuid", user), self.ranges("subgid", user));
        let both: Vec<_> = uids.iter().filter(|one| gids.contains(one)).collect();
        assert_eq!(both.len(), 1, "{user}: {uids:?} {gids:?}");
        *both[0]
    }

    /// No id belongs to two, in either file.
    fn nothing_overlaps(&self) {
        for file in ["subuid", "subgid"] {
            let text = self.text(file);
            let mut all: Vec<(u64, u64)> = text
                .lines()
                .filter_map(|line| {
                    let mut fields = line.split(':').skip(1);
                    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
                })
                .collect();
            all.push((17_000_000, 1));
            all.sort_unstable();
            for pair in all.windows(2) {
                assert!(
                    pair[0].0 + pair[0].1 <= pair[1].0,
                    "{file}: {pair:?}\n{text}"
                );
            }
        }
    }
}

fn unprivileged() -> bool {
    let no = !rustix::process::geteuid().is_root();
    if no {
        println!("skipped: users are made by root");
    }
    no
}

#[test]
fn no_subordinate_id_is_given_away_twice() {
    if unprivileged() {
        return;
    }
    for (subuid, subgid) in [
        ("", ""),
        ("alice:100000:65536\n", "alice:100000:65536\n"),
        // Each in one file only, over what would be taken first.
        ("alice:262144:65536\n", "bob:327680:65536\n"),
        ("alice:262143:2\n", "bob:16777216:1\n"),
        ("alice:70000:16900000\n", ""),
        // A number in the place of a name, a line that is none.
        ("1000:300000:65536\nnonsense\n", "# a word\n"),
    ] {
        let root = Root::new(subuid, subgid);
        assert!(
            !root.configure().contains("subordinate"),
            "{subuid}{subgid}"
        );
        root.nothing_overlaps();
        assert_eq!(root.common("blockhost").1, 65_536);
        let (first, count) = root.common("blockhost-ct");
        assert!(
            first >= 16_777_216 && count == 1024 * 65_536,
            "{first} {count}"
        );
        for (file, before) in [("subuid", subuid), ("subgid", subgid)] {
            assert!(root.text(file).starts_with(before), "others keep theirs");
        }
        let before = (root.text("subuid"), root.text("subgid"));
        root.configure();
        assert_eq!(
            (root.text("subuid"), root.text("subgid")),
            before,
            "a second time changes nothing"
        );
    }
}

#[test]
fn a_range_that_a_user_has_is_kept_and_half_of_one_is_completed_where_that_is_free() {
    if unprivileged() {
        return;
    }
    let given = "blockhost:100000:65536\nblockhost-ct:900000000:131072\n";
    let root = Root::new(given, given);
    root.configure();
    assert_eq!(
        (root.text("subuid"), root.text("subgid")),
        (given.to_owned(), given.to_owned())
    );

    let root = Root::new(given, "");
    root.configure();
    assert_eq!(root.common("blockhost"), (100_000, 65_536));
    assert_eq!(root.common("blockhost-ct"), (900_000_000, 131_072));
    root.nothing_overlaps();

    // Somebody else has the other half, or what is there is too small to be of use.
    let root = Root::new(
        "blockhost:100000:65536\nblockhost-ct:500000:1000\n",
        "eve:165535:1\n",
    );
    root.configure();
    assert_ne!(root.common("blockhost"), (100_000, 65_536));
    assert_eq!(root.common("blockhost-ct").1, 1024 * 65_536);
    root.nothing_overlaps();
}

#[test]
fn where_no_ids_are_free_that_is_said_and_nothing_is_taken() {
    if unprivileged() {
        return;
    }
    let all = "eve:65536:2147400000\n";
    let root = Root::new(all, "");
    let said = root.configure();
    assert!(
        said.contains("no 65536 subordinate ids are free for the user blockhost;"),
        "{said}"
    );
    assert!(said.contains("for the user blockhost-ct;"), "{said}");
    assert_eq!(root.text("subuid"), all);
    assert_eq!(root.ranges("subgid", "blockhost"), []);
}
