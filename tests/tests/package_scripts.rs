//! What packages do when they are installed, in a private root directory: which ids the users get, which units start with the
//! host. What they do with services that run, in a private system.

mod units_world;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use blockhost_tests::command::{command, run, with_args};
use blockhost_tests::namespace::find;
use blockhost_tests::systemd::{Booted, File};
use serde_json::json;
use units_world::{CONTAINERS, booted, succeeds, wait_for};

/// Users with ids that must stay theirs: one of a directory service is among those of containers.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nfar:x:17000000:17000000::/:/bin/sh\n";

fn packaging(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(file)
}

/// Units of the agent's package.
const AGENT: &[&str] = &[
    "blockhost-root-agent.socket",
    "blockhost-root-agent.service",
];

/// Puts units and scripts of a package where it is built, as `build-deb.sh` does.
fn package(tree: &Path, name: &str, units: &[&str]) {
    let place = tree.join("usr/lib/systemd/system");
    std::fs::create_dir_all(&place).expect("a directory");
    for unit in units {
        let from = packaging("systemd").join(unit);
        std::fs::copy(from, place.join(unit)).expect(unit);
    }
    let mut command = command(packaging("units-and-scripts.sh"));
    command.arg(name).arg(tree);
    run(command, Duration::from_secs(60)).expect("the scripts are made");
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
        package(root.0.path(), "blockhost-root-agent", AGENT);
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
        let mut command = command(self.0.path().join("DEBIAN/postinst"));
        command.arg("configure").env("DPKG_ROOT", self.0.path());
        command.env("DPKG_MAINTSCRIPT_PACKAGE", "blockhost-root-agent");
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

/// A root directory with `dpkg`'s own database and nothing in it, and packages to install there.
struct Installed(tempfile::TempDir);

/// What the version before kept no record of its units did when it was installed.
const OLD: &[&str] = &[
    "blockhost-net-recover.service",
    "blockhost-net-restore.service",
    "blockhost-onboot.service",
];

impl Installed {
    fn new() -> Self {
        let new = Self(tempfile::tempdir().expect("a directory"));
        for directory in [
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "usr/bin",
            "tmp",
        ] {
            std::fs::create_dir_all(new.root().join(directory)).expect("a directory");
        }
        std::fs::write(new.root().join("var/lib/dpkg/status"), "").expect("written");
        std::os::unix::fs::symlink("/usr/bin/systemctl", new.root().join("usr/bin/systemctl"))
            .expect("a link");
        new
    }

    fn root(&self) -> std::path::PathBuf {
        self.0.path().join("root")
    }

    /// Where a package of ours is laid out.
    fn tree(&self, name: &str, version: u32) -> std::path::PathBuf {
        let tree = self.0.path().join(format!("{name}-{version}"));
        std::fs::create_dir_all(tree.join("DEBIAN")).expect("a directory");
        let mut control = format!("Package: {name}\nVersion: {version}\nArchitecture: all\n");
        control.push_str("Maintainer: a test <test@localhost>\nDescription: a test\n");
        std::fs::write(tree.join("DEBIAN/control"), control).expect("written");
        tree
    }

    fn new_version(&self, name: &str, version: u32, units: &[&str]) -> std::path::PathBuf {
        let tree = self.tree(name, version);
        package(&tree, name, units);
        tree
    }

    /// A package whose scripts enable units by themselves, as they were before there was a record.
    fn old_version(&self, name: &str, units: &[&str], enabled: &[&str]) -> std::path::PathBuf {
        let tree = self.new_version(name, 1, units);
        for (kind, when, verb) in [
            ("postinst", "configure", "enable"),
            ("prerm", "remove", "disable"),
        ] {
            let mut script = "#!/bin/sh\nset -e\n".to_owned();
            let units = enabled.join(" ");
            writeln!(
                script,
                "[ \"$1\" != {when} ] || systemctl --root=\"$DPKG_ROOT\" {verb} {units}"
            )
            .expect("written");
            std::fs::write(tree.join("DEBIAN").join(kind), script).expect("written");
        }
        std::fs::remove_file(tree.join("DEBIAN/preinst")).expect("removed");
        let nothing = "#!/bin/sh\nexit 0\n";
        std::fs::write(tree.join("DEBIAN/postrm"), nothing).expect("written");
        tree
    }

    fn dpkg(&self, words: &[&str]) {
        let root = self.root();
        let mut command = command("dpkg");
        command
            .arg(format!("--root={}", root.display()))
            .arg(format!("--log={}", self.0.path().join("log").display()))
            .args(["--force-script-chrootless", "--no-triggers"])
            .args(words);
        run(command, Duration::from_secs(120)).expect("dpkg succeeds");
    }

    fn install(&self, tree: &Path, verb: &str) {
        let tree = tree.to_str().expect("a path");
        let built = format!("{tree}.deb");
        let build = with_args("dpkg-deb", &["--root-owner-group", "--build", tree, &built]);
        run(build, Duration::from_secs(60)).expect("it is built");
        self.dpkg(&[verb, &built]);
    }

    /// The operator.
    fn systemctl(&self, verb: &str, unit: &str) {
        let root = format!("--root={}", self.root().display());
        run(
            with_args("systemctl", &[&root, verb, unit]),
            Duration::from_secs(60),
        )
        .expect(unit);
    }

    /// `TARGET.wants/UNIT` for all units that start by themselves.
    fn on(&self) -> BTreeSet<String> {
        let mut on = BTreeSet::new();
        let Ok(places) = std::fs::read_dir(self.root().join("etc/systemd/system")) else {
            return on;
        };
        for place in places.flatten() {
            for link in std::fs::read_dir(place.path())
                .into_iter()
                .flatten()
                .flatten()
            {
                let (place, link) = (place.file_name(), link.file_name());
                on.insert(format!("{}/{}", place.display(), link.display()));
            }
        }
        on
    }

    fn is_on(&self, unit: &str) -> bool {
        self.on()
            .iter()
            .any(|link| link.ends_with(&format!("/{unit}")))
    }
}

#[test]
fn an_upgrade_turns_on_what_it_brings_and_leaves_off_what_the_operator_turned_off() {
    if unprivileged() {
        return;
    }
    const STOP_ALL: &str = "blockhost-stop-all.service";
    const LATER: &str = "blockhost-later.service";
    let host = Installed::new();
    let before = [OLD, &["blockhost-engine.service"]].concat();
    let old = host.old_version("blockhost", &before, OLD);
    // It was wanted by less.
    let restore = old.join("usr/lib/systemd/system/blockhost-net-restore.service");
    let text = std::fs::read_to_string(&restore).expect("a unit");
    let less = text.replace(" ovs-vswitchd.service\n", "\n");
    assert_ne!(less, text);
    std::fs::write(&restore, less).expect("written");
    host.install(&old, "--install");
    host.systemctl("disable", "blockhost-onboot.service");
    host.systemctl("enable", "blockhost-engine.service");

    let now = [before.as_slice(), &[STOP_ALL, "blockhost-gc.timer"]].concat();
    host.install(&host.new_version("blockhost", 2, &now), "--install");
    let wanted = [
        "multi-user.target.wants/blockhost-engine.service",
        "multi-user.target.wants/blockhost-net-recover.service",
        "multi-user.target.wants/blockhost-net-restore.service",
        "multi-user.target.wants/blockhost-stop-all.service",
        "ovs-vswitchd.service.wants/blockhost-net-restore.service",
    ];
    assert_eq!(host.on(), wanted.map(str::to_owned).into());

    // One that is turned off, and an upgrade that is interrupted between its two halves.
    host.systemctl("disable", STOP_ALL);
    let next = host.tree("blockhost", 3);
    let units = next.join("usr/lib/systemd/system");
    std::fs::create_dir_all(&units).expect("a directory");
    let text = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n";
    std::fs::write(units.join(LATER), text).expect("written");
    package(&next, "blockhost", &now);
    host.install(&next, "--unpack");
    host.install(&next, "--install");
    assert!(host.is_on(LATER), "{:?}", host.on());
    assert!(!host.is_on(STOP_ALL) && !host.is_on("blockhost-onboot.service"));
    assert!(!host.is_on("blockhost-gc.timer"), "nobody asked for it");
    host.systemctl("disable", LATER);
    host.install(&next, "--install");
    assert!(!host.is_on(LATER));
}

#[test]
fn what_is_removed_and_installed_again_starts_as_at_first_and_what_was_off_stays_off() {
    if unprivileged() {
        return;
    }
    const SOCKET: &str = "blockhost-root-agent.socket";
    const SERVICE: &str = "blockhost-root-agent.service";
    const NAME: &str = "blockhost-root-agent";
    let host = Installed::new();
    for file in ["sysusers.d/blockhost.conf", "tmpfiles.d/blockhost.conf"] {
        let to = host.root().join("usr/lib").join(file);
        std::fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        std::fs::copy(packaging(file), to).expect("a copy");
    }
    std::fs::create_dir_all(host.root().join("etc")).expect("a directory");
    for (file, text) in [("passwd", PASSWD), ("group", "root:x:0:\n")] {
        std::fs::write(host.root().join("etc").join(file), text).expect("written");
    }
    host.install(&host.old_version(NAME, AGENT, &[SOCKET]), "--install");
    host.dpkg(&["--remove", NAME]);
    assert!(!host.is_on(SOCKET));
    let new = host.new_version(NAME, 2, AGENT);
    host.install(&new, "--install");
    assert!(
        host.is_on(SOCKET),
        "its configuration was all that was left of it"
    );
    assert!(!host.is_on(SERVICE), "the socket starts it");

    // Removed and installed again; also with a service that is on by itself and brings the socket.
    for more in [&[][..], &[SERVICE]] {
        for unit in more {
            host.systemctl("enable", unit);
        }
        host.dpkg(&["--remove", NAME]);
        assert_eq!(host.on(), BTreeSet::new());
        host.install(&new, "--install");
        assert!(host.is_on(SOCKET), "{:?}", host.on());
    }
    host.systemctl("disable", SOCKET);
    host.dpkg(&["--remove", NAME]);
    host.install(&new, "--install");
    assert!(!host.is_on(SOCKET));
    // Machines that run are known by what stands there.
    let run = host.root().join("run/blockhost");
    std::fs::create_dir_all(run.join("qm")).expect("a directory");
    for file in ["root-agent.sock", "qm/100.alive"] {
        std::fs::write(run.join(file), "").expect("written");
    }
    host.dpkg(&["--purge", NAME]);
    assert!(!run.join("root-agent.sock").exists());
    assert!(run.join("qm/100.alive").exists());
    host.install(&new, "--install");
    assert!(host.is_on(SOCKET), "nobody remembers");
}

/// An upgrade of a package in a system that runs, as far as `dpkg` runs scripts for it; what it says.
fn upgraded(booted: &Booted, name: &str, units: &[&str]) -> String {
    let inside = format!("/tmp/{name}");
    package(&booted.path(&inside), name, units);
    let script = |words: &str| {
        let ran = format!("DPKG_MAINTSCRIPT_PACKAGE={name} {inside}/DEBIAN/{words} 2>&1");
        booted.output(&["sh", "-c", &ran])
    };
    let _ = booted.output(&["cp", "-r", &format!("{inside}/usr"), "/"]);
    script("preinst upgrade 1") + &script("postinst configure 1")
}

#[test]
fn an_upgrade_leaves_alone_what_would_not_start_and_says_what_to_do() {
    const SERVICE: &str = "blockhost-root-agent.service";
    const POLICY: &str = "/etc/blockhost/root-agent.yaml";
    let file = |path, bytes| File {
        path,
        bytes,
        mode: 0o640,
    };
    let files = [
        file(POLICY, b"limits: {in_flight: 16}\n".as_slice()),
        // One from before there was a way to become the new program.
        file(
            "/units/blockhost-containers.service.d/old.conf",
            b"[Service]\nExecReload=\nExecReload=/bin/false\n",
        ),
    ];
    let Some(booted) = booted(&["blockhost-root-agent.socket", CONTAINERS], &files) else {
        return;
    };
    succeeds(&booted, "agent-info", &json!({}));
    let pid = |unit: &str| booted.property(unit, "MainPID");
    let before = pid(SERVICE);

    // As the manual of an earlier version had it.
    let _ = booted.output(&["chgrp", "blockhost", POLICY]);
    let said = upgraded(&booted, "blockhost-root-agent", AGENT);
    assert!(
        said.contains(&format!("chown root:root {POLICY}")),
        "{said}"
    );
    assert!(said.contains("was not restarted"), "{said}");
    assert_eq!(pid(SERVICE), before);
    succeeds(&booted, "agent-info", &json!({}));

    let _ = booted.output(&["chgrp", "root", POLICY]);
    let said = upgraded(&booted, "blockhost-root-agent", AGENT);
    assert!(!said.contains("restart"), "{said}");
    assert_ne!(pid(SERVICE), before);
    succeeds(&booted, "agent-info", &json!({}));

    // Somebody works on the agent's files and has stopped it: no upgrade starts it, and what has to be active becomes so.
    const SOCKET: &str = "blockhost-root-agent.socket";
    const STOP_ALL: &str = "blockhost-stop-all.service";
    let _ = upgraded(&booted, "blockhost", &[STOP_ALL]);
    let _ = booted.output(&["systemctl", "enable", STOP_ALL]);
    let _ = booted.output(&["systemctl", "stop", SOCKET, SERVICE]);
    for _ in ["it comes", "it is there"] {
        let said = upgraded(&booted, "blockhost", &[STOP_ALL]);
        assert_eq!(booted.property(STOP_ALL, "ActiveState"), "active", "{said}");
        assert_eq!(booted.property(SOCKET, "ActiveState"), "inactive", "{said}");
    }
    let _ = booted.output(&["systemctl", "start", SOCKET]);
    succeeds(&booted, "agent-info", &json!({}));

    if find("lxc-start").is_none() {
        println!("skipped in part: lxc-start is not installed");
        return;
    }
    wait_for("the containers' service does not run", &booted, || {
        booted.property(CONTAINERS, "ActiveState") == "active"
    });
    let before = pid(CONTAINERS);
    let said = upgraded(&booted, "blockhost-hypervisor", &[CONTAINERS]);
    assert!(
        said.contains("then: systemctl restart blockhost-containers"),
        "{said}"
    );
    assert_eq!(pid(CONTAINERS), before);
}
