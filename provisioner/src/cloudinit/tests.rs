//! Hostile values first.

use super::*;
use proptest::prelude::*;

fn facts() -> Facts {
    Facts {
        vm_name: "blockhost-001".parse().unwrap(),
        username: "admin".into(),
        wallet: "0x52908400098527886E0F7030069857D2E4169EE7"
            .parse()
            .unwrap(),
        nft_token_id: Some(7),
        ssh_keys: vec!["ssh-ed25519 AAAA key".into()],
        purpose: "x".into(),
        nonce: Nonce("ab".repeat(16)),
    }
}

fn made(source: &Source, facts: &Facts, etc: &Path) -> Result<Value, CloudInitError> {
    let text = user_data(etc, source, facts)?;
    assert!(text.starts_with("#cloud-config\n"));
    Ok(serde_saphyr::from_str(&text).unwrap())
}

fn from_file(text: &str) -> Result<Value, CloudInitError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.yaml");
    std::fs::write(&path, text).unwrap();
    made(&Source::File(path), &facts(), directory.path())
}

#[test]
fn content_that_is_no_cloud_config_is_refused() {
    for text in [
        "",
        "users: []",
        "#cloud-config\n- a",
        "#cloud-config\na: [",
        "#cloud-config\nusers: x",
        "#cloud-config\nruncmd: {}",
        "#cloud-config\na: 1\na: 2",
    ] {
        assert!(from_file(text).is_err(), "{text}");
    }
}

#[test]
fn template_names_cannot_leave_their_directory() {
    for name in ["", "../x", "a/b", "A", "a.b"] {
        let result = user_data(
            Path::new("/nonexistent"),
            &Source::Template(name.into()),
            &facts(),
        );
        assert!(
            matches!(result, Err(CloudInitError::Unknown { .. })),
            "{name}"
        );
    }
}

#[test]
fn an_undefined_variable_is_an_error_with_its_line() {
    let etc = tempfile::tempdir().unwrap();
    std::fs::create_dir(etc.path().join("cloud-init")).unwrap();
    std::fs::write(
        etc.path().join("cloud-init/own.yaml"),
        "#cloud-config\nmotd: x\nkey: {{ walet }}\n",
    )
    .unwrap();
    let error = made(&Source::Template("own".into()), &facts(), etc.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("own:3"), "{error}");
}

#[test]
fn a_template_cannot_add_a_second_user_of_our_name_or_the_default_one() {
    let value = from_file(
        "#cloud-config\nusers: [default, {name: admin, passwd: x}, {name: other}]\nruncmd: [ls]\n",
    )
    .unwrap();
    let names: Vec<&str> = value["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| u["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["admin", "other"]);
    assert!(value["users"][0].get("passwd").is_none());
    assert_eq!(value["runcmd"].as_array().unwrap().len(), 2);
}

#[test]
fn every_built_in_template_renders_and_ends_with_the_nonce() {
    for (name, _) in BUILT_IN {
        let value = made(
            &Source::Template(name.into()),
            &facts(),
            Path::new("/nonexistent"),
        )
        .unwrap();
        let last = value["runcmd"].as_array().unwrap().last().unwrap()[2]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            last.contains(&"ab".repeat(16)) && last.contains(READY_FILE),
            "{name}"
        );
        assert_eq!(
            value["users"][0]["gecos"],
            "wallet=0x52908400098527886E0F7030069857D2E4169EE7,nft=7"
        );
        assert_eq!(value["hostname"], "blockhost-001");
    }
}

proptest! {
    #[test]
    fn no_value_can_inject_a_key(purpose in any::<String>(), key in any::<String>()) {
        let etc = tempfile::tempdir().unwrap();
        std::fs::create_dir(etc.path().join("cloud-init")).unwrap();
        let own = "#cloud-config\nbare: {{ purpose }}\nin_list: [{{ purpose }}, {{ ssh_keys }}]\n";
        std::fs::write(etc.path().join("cloud-init/own.yaml"), own).unwrap();
        let facts = Facts { purpose: purpose.clone(), ssh_keys: vec![key.clone()], ..facts() };
        // Either it is refused, or it comes out exactly as it went in.
        if let Ok(value) = made(&Source::Template("own".into()), &facts, etc.path()) {
            prop_assert_eq!(value["bare"].as_str(), Some(purpose.as_str()));
            prop_assert_eq!(value["in_list"][0].as_str(), Some(purpose.as_str()));
            prop_assert_eq!(value["in_list"][1][0].as_str(), Some(key.as_str()));
            let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
            prop_assert_eq!(keys, ["bare", "hostname", "in_list", "preserve_hostname", "runcmd", "users"]);
        }
    }
}
