//! The templates that come with the program, judged by cloud-init itself: what it does not know it would silently not do.

use blockhost_provisioner::cloudinit::{BUILT_IN, Facts, Nonce, Source, user_data};
use blockhost_provisioner::exec;

/// What `cloud-init schema` says of a file; `None` after printing why it cannot be asked. The package is not among those that
/// the setup installs: it would take the machine over at its next boot.
fn judged(text: &str) -> Option<Result<String, String>> {
    let Ok(program) = exec::find("cloud-init", "") else {
        println!("skipped: cloud-init is not installed");
        return None;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("user-data");
    std::fs::write(&file, text).unwrap();
    let path = file.display().to_string();
    let said = exec::run(&program, &["schema", "--config-file", &path], None);
    Some(said.map_err(|e| e.to_string()))
}

#[test]
fn every_template_is_a_cloud_config_by_cloud_inits_own_schema() {
    let facts = Facts {
        vm_name: "blockhost-001".parse().unwrap(),
        username: "admin".into(),
        wallet: "0x52908400098527886E0F7030069857D2E4169EE7"
            .parse()
            .unwrap(),
        nft_token_id: Some(7),
        ssh_keys: vec!["ssh-ed25519 AAAA key".into()],
        purpose: "a \"purpose\": with {{ everything }}".into(),
        nonce: Nonce::placeholder(),
    };
    let nowhere = std::path::Path::new("/nonexistent");
    for (name, _) in BUILT_IN {
        let text = user_data(nowhere, &Source::Template(name.to_owned()), &facts).unwrap();
        let Some(said) = judged(&text) else { return };
        assert!(said.is_ok(), "{name}: {said:?}");
    }
    // The same question finds what is wrong.
    assert!(judged("#cloud-config\npackages: 7\n").is_none_or(|said| said.is_err()));
}
