//! `provisioner.json`: how others find the commands of this provisioner. Installed to `/usr/share/blockhost`.

/// The file as it is installed.
pub const MANIFEST: &str = include_str!("../provisioner.json");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_manifest_is_one_of_ours_and_every_action_is_in_the_catalog() {
        let manifest = blockhost_proto::json::parse(MANIFEST.as_bytes()).unwrap();
        let ours: Vec<String> = crate::cli::commands()
            .iter()
            .map(|c| c.get_name().to_owned())
            .collect();
        for (verb, program) in manifest["commands"].as_object().unwrap() {
            let program = program.as_str().unwrap();
            assert!(
                ours.iter().any(|name| name == program) || program == "blockhost-vm-gc",
                "{verb}: {program}"
            );
        }
        for action in manifest["root_agent_actions"].as_array().unwrap() {
            assert!(
                blockhost_proto::catalog::find(action.as_str().unwrap()).is_some(),
                "{action}"
            );
        }
        assert_eq!(manifest["version"], env!("CARGO_PKG_VERSION"));
    }
}
