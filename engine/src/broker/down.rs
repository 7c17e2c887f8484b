//! Gives the network of a broker up: the file goes first, so that nobody brings the tunnel up again, then the tunnel with its
//! key and its routes. A run that was killed between the two is finished by the next. The broker is told nothing: its
//! interface has no word for it, and the lease ends.

use std::fs::File;
use std::time::Duration;

use blockhost_proto::action::Action;
use blockhost_proto::client::tokio::Client;
use blockhost_proto::layout::Layout;
use serde_json::json;

use super::TUNNEL;
use super::answer::{count, named};
use super::kept::Kept;
use super::run::BrokerError;
use crate::agent::{self, Kind};
use crate::failpoint;
use crate::machines::Machines;
use crate::network::observe::links;
use crate::shared;

/// How long another run may take: a broker that is silent, and two names that cannot be looked up.
const PATIENCE: Duration = Duration::from_secs(90);

/// What is not there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The network; none where only the tunnel was left.
    pub prefix: Option<String>,
    /// Whether there was a tunnel.
    pub tunnel: bool,
    /// What needs somebody.
    pub remarks: Vec<String>,
}

/// Held by whoever changes allocation or tunnel: a renewal must not bring up again what another run takes down.
#[derive(Debug)]
pub struct Turn {
    _file: Option<File>,
}

/// Waits until nobody else of this host is at it.
///
/// # Errors
/// [`BrokerError::Busy`], [`BrokerError::Lock`].
pub async fn turn(layout: &Layout) -> Result<Turn, BrokerError> {
    let path = layout.state().join("broker.lock");
    let fail = |source| BrokerError::Lock {
        path: path.clone(),
        source,
    };
    let file = match shared::open(&path) {
        Ok(file) => file,
        // Before setup there is nobody else.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Turn { _file: None }),
        Err(e) => return Err(fail(e)),
    };
    match tokio::time::timeout(PATIENCE, shared::lock(&file)).await {
        Ok(Ok(())) => Ok(Turn { _file: Some(file) }),
        Ok(Err(e)) => Err(fail(e)),
        Err(_) => Err(BrokerError::Busy),
    }
}

/// Takes file and tunnel away. With `in_use` also while machines have addresses of the network.
///
/// # Errors
/// [`BrokerError`]; nothing was changed where it is about the machines, the agent or who may remove the file.
pub async fn down(layout: &Layout, in_use: bool) -> Result<Gone, BrokerError> {
    let _turn = turn(layout).await?;
    let kept = Kept::load(layout)?;
    let path = Kept::path(layout);
    if let Some(kept) = &kept {
        let with_ipv6 = Machines::new(layout).with_ipv6().await;
        let machines: Vec<String> = match with_ipv6 {
            Ok(machines) => machines
                .into_iter()
                .filter(|(_, address)| kept.prefix.contains(*address))
                .map(|(name, _)| name)
                .collect(),
            Err(_) if in_use => Vec::new(),
            Err(e) => return Err(BrokerError::Users(e)),
        };
        if !machines.is_empty() && !in_use {
            return Err(BrokerError::StillUsed {
                prefix: kept.prefix,
                machines: format!("{}: {}", count(&machines), named(&machines)),
            });
        }
    }
    // Before anything is gone: without the agent, the tunnel would stay.
    let mut agent = Client::connect_layout(layout).await?;
    if kept.is_some() {
        remove(&path).map_err(|source| BrokerError::Remove {
            path: path.clone(),
            source,
        })?;
    }
    failpoint::reach("broker", "given-up");
    let tunnel = links()?.iter().any(|link| link.name == TUNNEL);
    if tunnel {
        let teardown = Action::from_parts("wg-teardown", &json!({"name": TUNNEL}))?;
        agent
            .call(&teardown)
            .await
            .map_err(|source| BrokerError::Agent {
                step: teardown.name(),
                source,
                hint: "; the allocation is gone already: run `blockhost broker down` again",
            })?;
    }
    let prefix = kept.map(|kept| kept.prefix.to_string());
    let mut remarks = Vec::new();
    // Also what a run before this one took away and could not note.
    if prefix.is_some() || tunnel {
        let data = json!({"prefix": prefix, "tunnel": tunnel});
        let kind = Kind {
            category: "network",
            operation: None,
        };
        let noted = agent::record_in(layout, kind, "broker-given-up", "broker-allocation", data);
        if let Err(e) = noted.await {
            let what = prefix.as_deref().unwrap_or("the tunnel");
            remarks.push(format!(
                "that {what} was given up is not in the ledger: {e}"
            ));
        }
    }
    Ok(Gone {
        prefix,
        tunnel,
        remarks,
    })
}

/// The directory is root's, and so is whoever may take something out of it.
fn remove(path: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
