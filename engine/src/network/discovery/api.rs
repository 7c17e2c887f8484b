//! What a manager says about its containers, as far as it matters here. It is believed as far as its words have the right
//! form; whether a process is what it is said to be, the root agent asks the kernel. Pure.

use std::collections::BTreeMap;

use blockhost_proto::value::{ContainerId, Pid};
use serde::Deserialize;

/// The labels that name a container's network; the first one counts.
pub const NETWORK_LABELS: [&str; 2] = ["blockhost.network", "netmaker.network"];
/// The label that asks for addresses, separated by commas.
pub const ADDRESS_LABEL: &str = "blockhost.address";
/// More containers than this are not looked at; whoever has them has another problem.
pub const MAX_CONTAINERS: usize = 1024;
/// Longest name or label that is kept, bytes.
const MAX_TEXT: usize = 255;

/// Words of a manager that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the container manager's answer makes no sense: {0}")]
pub struct Nonsense(pub String);

/// A container of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: ContainerId,
    /// What people call it; foreign text.
    pub name: String,
    /// The network that its label names; foreign text.
    pub network: String,
    /// The addresses that its label asks for; foreign text.
    pub addresses: Option<String>,
}

/// A container looked at by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Its first process, where it runs.
    pub pid: Option<Pid>,
    /// When it was started, as the manager writes it: tells two lives apart.
    pub started: String,
    /// Whether it is in the host's own network.
    pub on_host: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawListed {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawInspected {
    id: String,
    state: RawState,
    #[serde(default)]
    host_config: Option<RawHost>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawState {
    running: bool,
    pid: u64,
    #[serde(default)]
    started_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHost {
    #[serde(default)]
    network_mode: String,
}

fn cut(mut text: String) -> String {
    blockhost_proto::escape::cut(&mut text, MAX_TEXT);
    text
}

/// Reads a list; those without a label of ours are left out.
///
/// # Errors
/// [`Nonsense`].
pub fn listed(bytes: &[u8]) -> Result<Vec<Listed>, Nonsense> {
    let raw: Vec<RawListed> =
        serde_json::from_slice(bytes).map_err(|error| Nonsense(error.to_string()))?;
    if raw.len() > MAX_CONTAINERS {
        return Err(Nonsense(format!(
            "it lists {} containers, more than {MAX_CONTAINERS}",
            raw.len()
        )));
    }
    let mut list: Vec<Listed> = Vec::new();
    for raw in raw {
        let mut labels = raw.labels.unwrap_or_default();
        let Some(network) = NETWORK_LABELS
            .iter()
            .find_map(|label| labels.remove(*label))
        else {
            continue;
        };
        let id: ContainerId = raw
            .id
            .parse()
            .map_err(|error| Nonsense(format!("{error}")))?;
        if list.iter().any(|other| other.id == id) {
            return Err(Nonsense(format!("it lists {id} twice")));
        }
        let name = raw.names.unwrap_or_default().into_iter().next();
        let name = name.map_or_else(String::new, |name| {
            name.strip_prefix('/').unwrap_or(&name).to_owned()
        });
        list.push(Listed {
            id,
            name: cut(name),
            network: cut(network),
            addresses: labels.remove(ADDRESS_LABEL).map(cut),
        });
    }
    Ok(list)
}

/// Reads what is said about one container.
///
/// # Errors
/// [`Nonsense`], also where it is about another one.
pub fn inspected(bytes: &[u8], id: &ContainerId) -> Result<Inspected, Nonsense> {
    let raw: RawInspected =
        serde_json::from_slice(bytes).map_err(|error| Nonsense(error.to_string()))?;
    if raw.id != id.as_str() {
        return Err(Nonsense("it is about another container".to_owned()));
    }
    let pid = if raw.state.running {
        let pid = Pid::try_from(raw.state.pid);
        Some(pid.map_err(|error| Nonsense(format!("{error}")))?)
    } else {
        None
    };
    Ok(Inspected {
        pid,
        started: cut(raw.state.started_at),
        on_host: raw
            .host_config
            .is_some_and(|host| host.network_mode == "host"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As Podman 4.3 answered, shortened.
    const LIST: &str = r#"[{"Id":"2d7f061680ba82224d1988da5d24710a3bc39d139ef31c96e3688c52d2cc5d39","Names":["/one"],
        "Image":"localhost/bb:latest","Labels":{"netmaker.network":"mesh","blockhost.address":"10.101.0.9"},"State":"running"},
        {"Id":"x","Names":null,"Labels":null,"State":"running"}]"#;
    const INSPECT: &str = r#"{"Id":"2d7f061680ba82224d1988da5d24710a3bc39d139ef31c96e3688c52d2cc5d39","State":{"Status":"running",
        "Running":true,"Paused":false,"Pid":10018,"StartedAt":"2026-11-28T13:08:27.039132995Z"},"HostConfig":{"NetworkMode":"none"}}"#;

    #[test]
    fn what_a_real_manager_said_is_understood_and_what_is_not_ours_is_left_out() {
        let list = listed(LIST.as_bytes()).unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!(
            (list[0].name.as_str(), list[0].network.as_str()),
            ("one", "mesh")
        );
        assert_eq!(list[0].addresses.as_deref(), Some("10.101.0.9"));
        let one = inspected(INSPECT.as_bytes(), &list[0].id).unwrap();
        assert_eq!(one.pid.map(Pid::get), Some(10018));
        assert!(!one.on_host);
        let stopped = INSPECT.replace("\"Running\":true", "\"Running\":false");
        assert_eq!(
            inspected(stopped.as_bytes(), &list[0].id).unwrap().pid,
            None
        );
        let host = INSPECT.replace("none", "host");
        assert!(inspected(host.as_bytes(), &list[0].id).unwrap().on_host);
    }

    #[test]
    fn a_lying_manager_is_not_believed() {
        let id = listed(LIST.as_bytes()).unwrap().remove(0).id;
        for pid in [
            "0",
            "1",
            "-1",
            "4194305",
            "\"10018\"",
            "1e3",
            "18446744073709551616",
        ] {
            let text = INSPECT.replace("10018", pid);
            assert!(inspected(text.as_bytes(), &id).is_err(), "{pid}");
        }
        let other: ContainerId = "ab".repeat(32).parse().unwrap();
        assert!(inspected(INSPECT.as_bytes(), &other).is_err());
        for id in ["", "one", "../../containers", "2d7f061680ba"] {
            let text = LIST.replace(
                "2d7f061680ba82224d1988da5d24710a3bc39d139ef31c96e3688c52d2cc5d39",
                id,
            );
            assert!(listed(text.as_bytes()).is_err(), "{id}");
        }
        let entry = &LIST[1..LIST.find("},\n").unwrap() + 1];
        let twice = format!("[{entry},{entry}]");
        assert!(listed(twice.as_bytes()).is_err());
        let many = format!(
            "[{}{{\"Id\":\"x\"}}]",
            "{\"Id\":\"x\"},".repeat(MAX_CONTAINERS)
        );
        assert!(listed(many.as_bytes()).is_err());
        let long = LIST.replace("mesh", &"m".repeat(100_000));
        assert!(listed(long.as_bytes()).unwrap()[0].network.len() <= MAX_TEXT + 16);
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_reader_panic(text in ".{0,300}") {
            let id = "ab".repeat(32).parse().unwrap();
            let _ = listed(text.as_bytes());
            let _ = inspected(text.as_bytes(), &id);
        }
    }
}
