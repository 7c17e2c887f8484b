//! The units and the scripts of the packages fit each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Units by file name.
fn units() -> BTreeMap<String, String> {
    let directory = fs::read_dir(packaging().join("systemd")).unwrap();
    directory
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// What all scripts of a kind say, `postinst` or `prerm`.
fn scripts(kind: &str) -> String {
    let directory = fs::read_dir(packaging().join("debian")).unwrap();
    directory
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == kind))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

#[test]
fn every_unit_is_in_a_package() {
    let build = fs::read_to_string(packaging().join("build-deb.sh")).unwrap();
    // Their names stand there in braces: blockhost-{engine,bus}.service.
    for name in units().keys() {
        let (stem, kind) = name.rsplit_once('.').unwrap();
        let part = stem.trim_start_matches("blockhost-");
        let named = build.lines().any(|line| {
            line.starts_with("install -m 0644 packaging/systemd/")
                && (line.contains(name.as_str())
                    || line.contains(part) && line.contains(kind)
                    || *name == "blockhost-containers-network.service"
                        && line.contains("{,-network}"))
        });
        assert!(named, "build-deb.sh does not install {name}");
    }
}

#[test]
fn whatever_can_be_enabled_is_disabled_when_its_package_goes() {
    let prerm = scripts("prerm");
    for (name, text) in units() {
        if text.contains("\nWantedBy=") {
            assert!(prerm.contains(&name), "no prerm disables {name}");
        }
    }
}

#[test]
fn an_upgrade_starts_anew_what_goes_on_running() {
    let postinst = scripts("postinst");
    for (name, text) in units() {
        let runs_on = text.contains("\nRestart=on-failure") && !text.contains("\nType=oneshot");
        // Ends by itself when nothing is left to take back.
        if runs_on && name != "blockhost-net-recover.service" {
            assert!(postinst.contains(&name), "no postinst restarts {name}");
        }
    }
}

#[test]
fn the_containers_service_is_started_again_for_as_long_as_containers_keep_it_from_it() {
    let text = &units()["blockhost-containers.service"];
    let pause = text
        .lines()
        .find_map(|line| line.strip_prefix("RestartSec=")?.strip_suffix('s'));
    let pause: u32 = pause.unwrap().parse().unwrap();
    // systemd's own limit, which the unit leaves as it is: five starts in ten seconds.
    assert!(pause * 5 > 10 && !text.contains("StartLimit"), "{text}");
}

/// What a host does by itself, and what it would do it with.
#[test]
fn a_retired_host_begins_nothing_on_its_old_ledger() {
    const MARK: &str = "\nConditionPathExists=!/etc/blockhost.retired\n";
    let units = units();
    for name in [
        "blockhost-root-agent.socket",
        "blockhost-root-agent.service",
        "blockhost-engine.service",
    ] {
        assert!(units[name].contains(MARK), "{name}");
    }
    // What needs the agent gets none: nothing else starts it.
    for (name, text) in &units {
        assert!(
            !text.contains("ExecStart=/usr/sbin/blockhost-root-agent") || text.contains(MARK),
            "{name}"
        );
    }
}

/// What is enabled says `deb-systemd-helper`, which remembers what the operator turned off; tests install packages with it.
#[test]
fn no_script_enables_a_unit_and_presets_name_units_that_there_are() {
    assert!(!scripts("postinst").contains("systemctl enable"));
    let units = units();
    let presets = fs::read_dir(packaging().join("presets")).unwrap();
    let mut found = 0;
    for preset in presets {
        let text = fs::read_to_string(preset.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let unit = line.strip_prefix("disable ").unwrap();
            assert!(units[unit].contains("\n[Install]\n"), "{unit}");
            found += 1;
        }
    }
    assert!(found > 0);
}

#[test]
fn every_script_of_a_package_gets_the_names_of_its_units() {
    let build = fs::read_to_string(packaging().join("build-deb.sh")).unwrap();
    assert_eq!(
        build.matches("\npackaging/units-and-scripts.sh ").count(),
        3
    );
    for entry in fs::read_dir(packaging().join("debian")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name != "units.sh") {
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text.matches("\n#UNITS#\n").count(), 1, "{}", path.display());
        }
    }
}
