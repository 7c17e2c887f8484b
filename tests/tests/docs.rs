//! The documents name tests as evidence; evidence that does not exist is worse than none.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use blockhost_tests::world::repository;

/// Names in back quotes that are test names: lower case words joined by underscores, long enough to be a sentence.
fn claimed(document: &str) -> BTreeSet<String> {
    document
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.len() > 20 && word.matches('_').count() >= 3)
        .filter(|word| {
            word.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        })
        .map(str::to_owned)
        .collect()
}

/// All functions below a directory that carry `#[test]` or tokio's, proptest's included.
fn collect_tests(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory)
        .expect("a directory of the repository")
        .flatten()
    {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if !["target", "node_modules", ".git"]
                .iter()
                .any(|skipped| name == *skipped)
            {
                collect_tests(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("source is text");
            let mut marked = false;
            for line in text.lines().map(str::trim) {
                if line == "#[test]" || line.starts_with("#[tokio::test") {
                    marked = true;
                } else if let Some(rest) = line
                    .strip_prefix("async ")
                    .unwrap_or(line)
                    .strip_prefix("fn ")
                    && marked
                {
                    found.insert(rest.split('(').next().unwrap_or_default().to_owned());
                    marked = false;
                }
            }
        }
    }
}

#[test]
fn every_test_that_a_document_names_exists() {
    let root = repository();
    let mut tests = BTreeSet::new();
    collect_tests(&root, &mut tests);
    assert!(tests.len() > 100, "only {} tests were found", tests.len());
    let mut missing = Vec::new();
    for name in ["cve.md", "specification.md", "threat-model.md"] {
        let text = fs::read_to_string(root.join("docs").join(name)).expect(name);
        let claimed = claimed(&text);
        assert!(!claimed.is_empty(), "{name} names no test");
        missing.extend(
            claimed
                .difference(&tests)
                .map(|test| format!("{name}: {test}")),
        );
    }
    assert!(
        missing.is_empty(),
        "named but not there:\n{}",
        missing.join("\n")
    );
}

#[test]
fn every_file_that_a_document_links_to_exists() {
    let root = repository();
    let mut missing = Vec::new();
    let mut paths = vec!["README.md".to_owned()];
    for entry in fs::read_dir(root.join("docs")).expect("docs").flatten() {
        let name = entry.file_name().into_string().expect("a name in UTF-8");
        // What the catalog writes has patterns that look like links.
        if name.ends_with(".md") && name != "protocol.md" {
            paths.push(format!("docs/{name}"));
        }
    }
    assert!(
        paths.len() > 20,
        "only {} documents were found",
        paths.len()
    );
    for path in &paths {
        let text = fs::read_to_string(root.join(path)).expect(path);
        let place = root
            .join(path)
            .parent()
            .expect("it is in a directory")
            .to_owned();
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !place.join(target).exists() {
                missing.push(format!("{path} -> {target}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
