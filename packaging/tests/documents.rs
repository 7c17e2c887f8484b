//! What the documents for operators name is there: commands, options, units, drop-ins, keys of the configuration.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use blockhost_engine::config::Config;
use blockhost_proto::layout::Layout;
use blockhost_root_agent::policy::Policy;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README and all of `docs`, by name.
fn documents() -> Vec<(String, String)> {
    let mut paths = vec![repository().join("README.md")];
    let directory = fs::read_dir(repository().join("docs")).unwrap();
    paths.extend(directory.map(|entry| entry.unwrap().path()));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// What stands in code: lines of blocks (one that ends with a backslash with the next one), and spans in back quotes.
fn code(document: &str) -> Vec<String> {
    let (mut all, mut prose) = (Vec::new(), String::new());
    let mut inside = false;
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            let goes_on = all.last().is_some_and(|last: &String| last.ends_with('\\'));
            if goes_on && let Some(last) = all.last_mut() {
                last.pop();
                last.push_str(line.trim());
            } else {
                all.push(line.to_owned());
            }
        } else {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    all.extend(
        prose
            .split('`')
            .skip(1)
            .step_by(2)
            .map(|span| span.replace('\n', " ")),
    );
    all
}

/// The first YAML block below a heading.
fn yaml_below(document: &str, heading: &str) -> String {
    let below = document
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no heading {heading}"))
        .1;
    let block = below.split_once("```yaml\n").expect("a block").1;
    block.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn every_command_in_a_document_is_one_that_its_program_takes() {
    let (mut wrong, mut seen) = (BTreeSet::new(), 0);
    for (name, text) in documents() {
        for line in code(&text) {
            let found = common::check_line(&line);
            seen += found.commands;
            wrong.extend(
                found
                    .wrong
                    .into_iter()
                    .map(|what| format!("{name}: {what}")),
            );
        }
    }
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(seen > 300, "only {seen} commands were found");
}

#[test]
fn every_unit_and_drop_in_that_a_document_names_is_packaged() {
    let systemd = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let mut missing = BTreeSet::new();
    let mut seen = 0;
    for (name, text) in documents() {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
        for word in words.map(|word| word.trim_end_matches('.')) {
            let is_unit = word.starts_with("blockhost-")
                && [".service", ".socket", ".timer"]
                    .iter()
                    .any(|kind| word.ends_with(kind));
            if is_unit && !systemd.join(word).exists() {
                missing.insert(format!("{name}: {word}"));
            }
            seen += usize::from(is_unit);
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(seen > 60, "only {seen} units were found");
    let install = fs::read_to_string(repository().join("docs/install.md")).unwrap();
    for entry in fs::read_dir(systemd.join("drop-ins")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            install.contains(&format!("`{file}`")),
            "install.md does not name {file}"
        );
    }
}

/// The examples of configure.md with addresses and endpoints in the place of dots.
fn filled_in(text: &str) -> String {
    text.replace("'0x...'", "'0x52908400098527886E0F7030069857D2E4169EE7'")
        .replace("https://...", "https://rpc.example")
        .replace("mailto:...", "mailto:help@example.org")
}

#[test]
fn the_configuration_that_the_manual_shows_is_read_without_a_complaint() {
    let manual = fs::read_to_string(repository().join("docs/configure.md")).unwrap();
    let world = tempfile::tempdir().unwrap();
    let layout = Layout::new(world.path());
    fs::create_dir_all(layout.etc()).unwrap();
    for file in [
        "db.yaml",
        "blockhost.yaml",
        "network.yaml",
        "web3-defaults.yaml",
    ] {
        let text = filled_in(&yaml_below(&manual, &format!("## {file}")));
        fs::write(layout.etc().join(file), text).unwrap();
    }
    let engine = Config::load(&layout).unwrap();
    assert!(engine.warnings.is_empty(), "{:?}", engine.warnings);
    let provisioner = blockhost_provisioner::config::Config::load(&layout).unwrap();
    assert!(
        provisioner.warnings.is_empty(),
        "{:?}",
        provisioner.warnings
    );

    let shown = Policy::parse(
        &yaml_below(&manual, "## root-agent.yaml"),
        "root-agent.yaml",
    )
    .unwrap();
    let shown = serde_json::to_value(shown).unwrap();
    let default = serde_json::to_value(Policy::default()).unwrap();
    for (key, value) in default.as_object().unwrap() {
        assert_eq!(
            shown[key], *value,
            "configure.md shows another default of {key}"
        );
    }
}

/// Every key of a value that has defaults, at any depth, as `a.b`.
fn keys(value: &serde_json::Value, prefix: &str, all: &mut Vec<String>) {
    for (key, below) in value.as_object().into_iter().flatten() {
        all.push(format!("{prefix}{key}"));
        keys(below, &format!("{prefix}{key}."), all);
    }
}

#[test]
fn every_key_of_the_agents_policy_is_in_the_manual() {
    let manual = fs::read_to_string(repository().join("docs/configure.md")).unwrap();
    let shown = yaml_below(&manual, "## root-agent.yaml");
    let mut all = Vec::new();
    keys(
        &serde_json::to_value(Policy::default()).unwrap(),
        "",
        &mut all,
    );
    let missing: Vec<&String> = all
        .iter()
        .filter(|key| {
            let last = key.rsplit('.').next().unwrap_or(key);
            !shown.contains(&format!("{last}:"))
                && !shown.contains(&format!(" {last},"))
                && !shown.contains(&format!("# {last}"))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn who_takes_blockhost_off_a_host_is_told_all_users_that_there_are() {
    let users = packaged_users();
    assert!(users.len() > 3);
    let manual = fs::read_to_string(repository().join("docs/maintain.md")).unwrap();
    let step = manual
        .split_once("`deluser` of ")
        .and_then(|(_, rest)| rest.split_once("lines"))
        .unwrap()
        .0;
    for user in users {
        assert!(step.contains(&format!("`{user}`")), "{user}: {step}");
    }
}

/// Names of the users that the packages make.
fn packaged_users() -> Vec<String> {
    let text =
        fs::read_to_string(repository().join("packaging/sysusers.d/blockhost.conf")).unwrap();
    let users = text.lines().filter_map(|line| line.strip_prefix("u "));
    users
        .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
        .collect()
}
