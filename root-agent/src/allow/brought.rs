//! What a clone gets from its source without anybody naming it: network cards, disks, cloud-init files. Read off the source's
//! configuration as the backend prints it, before the clone is made; pure. Called by the vm compartment.

use blockhost_proto::qm::QmOption;
use serde_json::{Map, Value};

use super::names::{listed, not_allowed};
use super::{Allowlists, NotAllowed};

/// Options whose values begin with a storage.
const DISKS: [&str; 6] = ["scsi", "virtio", "sata", "ide", "efidisk", "tpmstate"];

impl Allowlists {
    /// Whether a clone of the machine with this configuration would hang on bridges, lie on storages and read snippets that
    /// may be named. What cannot be told is refused; what stands on no list is not looked at.
    ///
    /// # Errors
    /// The first value that is on none of its list's entries.
    pub fn lets_bring(&self, config: &Map<String, Value>) -> Result<(), NotAllowed> {
        for (key, value) in config {
            let value = value.as_str().unwrap_or_default();
            match kind(key) {
                "net" => self.card(key, value)?,
                "cicustom" => self.cloud_init(value)?,
                disk if DISKS.contains(&disk) => self.disk(key, value)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A card without a bridge is on the host's own network, by the program that carries the machine.
    fn card(&self, key: &str, value: &str) -> Result<(), NotAllowed> {
        let mut bridges = value
            .split(',')
            .filter_map(|part| part.strip_prefix("bridge="));
        match (bridges.next(), bridges.next()) {
            (Some(bridge), None) => listed("bridge", bridge, &self.bridges, "bridges"),
            _ => Err(unclear(key, value, &self.bridges, "bridges")),
        }
    }

    fn disk(&self, key: &str, value: &str) -> Result<(), NotAllowed> {
        let volume = value.split(',').next().unwrap_or_default();
        let volume = volume.strip_prefix("file=").unwrap_or(volume);
        if volume == "none" {
            return Ok(());
        }
        match volume.split_once(':') {
            Some((storage, _)) => listed("storage", storage, &self.storages, "storages"),
            None => Err(unclear(key, value, &self.storages, "storages")),
        }
    }

    fn cloud_init(&self, value: &str) -> Result<(), NotAllowed> {
        let list = &self.snippet_storages;
        let Ok(QmOption::CiCustom(custom)) = QmOption::parse("cicustom", value) else {
            return Err(unclear("cicustom", value, list, "snippet_storages"));
        };
        custom.snippets().try_for_each(|snippet| {
            let storage = snippet.storage().as_str();
            listed("snippet storage", storage, list, "snippet_storages")
        })
    }
}

fn unclear(key: &str, value: &str, list: &[String], list_key: &'static str) -> NotAllowed {
    let shown: String = value.chars().take(100).collect();
    not_allowed(key, &shown, &list.join(", "), list_key)
}

/// `net` of `net0`; the whole key where it has no number.
fn kind(key: &str) -> &str {
    key.trim_end_matches(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bring(lists: &str, key: &str, value: &str) -> Result<(), String> {
        let lists: Allowlists = serde_saphyr::from_str(lists).expect("lists");
        let config = json!({"name": "a", "memory": "512", key: value});
        lists
            .lets_bring(config.as_object().expect("an object"))
            .map_err(|denied| denied.at("allow").message)
    }

    #[test]
    fn what_a_source_has_is_on_the_same_lists_as_what_is_named() {
        const LISTS: &str =
            "{bridges: [vmbr1], storages: [local, fast], snippet_storages: [theirs]}";
        for (key, value) in [
            ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr1"),
            (
                "net31",
                "e1000=BC:24:11:00:00:01,bridge=vmbr1,link_down=1,queues=4",
            ),
            ("scsi0", "fast:9000/base-9000-disk-0.qcow2,size=8G"),
            (
                "virtio15",
                "file=local:9000/base-9000-disk-0.qcow2,mbps_rd=5",
            ),
            ("ide2", "local:9000/vm-9000-cloudinit.qcow2,media=cdrom"),
            ("ide3", "none,media=cdrom"),
            ("efidisk0", "fast:base-9000-disk-1,efitype=4m,size=4M"),
            ("cicustom", "user=theirs:snippets/a.yaml"),
            // Not copied, or of no list.
            ("unused0", "slow:9000/vm-9000-disk-3.qcow2"),
            ("description", "bridge=vmbr0,slow:1"),
            ("network", "bridge=vmbr0"),
        ] {
            assert_eq!(bring(LISTS, key, value), Ok(()), "{key}: {value}");
        }
        for (key, value, list) in [
            ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0", "bridges"),
            (
                "net7",
                "virtio,bridge=vmbr1,firewall=1,bridge=vmbr0",
                "bridges",
            ),
            ("net0", "virtio,bridge=vmbr10", "bridges"),
            ("net0", "virtio=BC:24:11:00:00:01", "bridges"),
            ("net0", "user", "bridges"),
            ("net0", "", "bridges"),
            (
                "scsi0",
                "slow:9000/base-9000-disk-0.qcow2,size=8G",
                "storages",
            ),
            (
                "scsi30",
                "file=slow:9000/base-9000-disk-0.qcow2",
                "storages",
            ),
            ("virtio0", "/dev/sda", "storages"),
            ("sata0", "", "storages"),
            ("ide2", "cdrom,media=cdrom", "storages"),
            (
                "ide2",
                "slow:9000/vm-9000-cloudinit.qcow2,media=cdrom",
                "storages",
            ),
            ("efidisk0", "slow:base-9000-disk-1", "storages"),
            ("tpmstate0", "slow:base-9000-disk-2", "storages"),
            ("cicustom", "user=local:snippets/a.yaml", "snippet_storages"),
            (
                "cicustom",
                "user=theirs:snippets/a.yaml,meta=local:snippets/b.yaml",
                "snippet_storages",
            ),
            ("cicustom", "else", "snippet_storages"),
        ] {
            let why = bring(LISTS, key, value).expect_err(value);
            let place = format!("(allow.{list} of root-agent.yaml)");
            assert!(why.ends_with(&place), "{key}: {value}: {why}");
        }
    }

    #[test]
    fn a_list_of_nothing_lets_nothing_be_brought() {
        const NOTHING: &str = "{bridges: [], storages: [], snippet_storages: []}";
        for (key, value) in [
            ("net0", "virtio,bridge=vmbr0"),
            ("scsi0", "local:9000/base-9000-disk-0.qcow2"),
            ("cicustom", "user=local:snippets/a.yaml"),
        ] {
            bring(NOTHING, key, value).expect_err(value);
        }
    }
}
