//! The service `dev.ovs.PortAgent1` on the system bus: the host's network, the switch's ports and the ledger for desktop
//! tools, Proxmox and scripts. Unprivileged: it reads for itself, and what changes anything is asked of the root agent,
//! after polkit has permitted it to the caller. Started by `cli::bus`.

mod access;
mod answers;
mod declared;
mod desk;
mod error;
mod history;
mod interface;
mod probe;
mod watch;

pub use error::BusError;

use std::sync::Arc;

use blockhost_proto::layout::Layout;
use zbus::connection::Builder;

use crate::network::confirm::recover;
use crate::{log, notify};
use desk::Desk;
use interface::PortAgent;

/// Name on the bus.
pub const NAME: &str = "dev.ovs.PortAgent1";
/// The one object.
pub const PATH: &str = "/dev/ovs/PortAgent1";

/// Why the service could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No bus.
    #[error("cannot reach the system bus: {0}; is dbus running?")]
    Connect(#[source] zbus::Error),
    /// The object or the name.
    #[error(
        "cannot take the name {NAME} on the system bus: {0}; is another blockhost-bus running, and is its policy installed in /usr/share/dbus-1/system.d?"
    )]
    Name(#[source] zbus::Error),
    /// Signals of the system.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    /// The bus went away.
    #[error("the system bus closed the connection")]
    Closed,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`].
pub async fn run(layout: Layout) -> Result<(), RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let bus = Builder::system().build().await.map_err(RunError::Connect)?;
    // What an earlier one of us left half-way; beside everything else, since the agent may be away.
    tokio::spawn(recover::at_start(layout.clone()));
    let desk = Arc::new(Desk::new(layout, bus.clone()));
    // The object before the name: whoever is waiting for the name finds it whole.
    bus.object_server()
        .at(PATH, PortAgent::new(desk.clone()))
        .await
        .map_err(RunError::Name)?;
    bus.request_name(NAME).await.map_err(RunError::Name)?;
    log::info(
        "bus service started",
        &[("name", &NAME), ("version", &env!("CARGO_PKG_VERSION"))],
    );
    notify::state("READY=1");
    tokio::spawn(watch::run(desk));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = bus.closed() => return Err(RunError::Closed),
    }
    notify::state("STOPPING=1");
    // Nobody is given a new call; what runs in the agent goes on there and is on record.
    let _ = bus.release_name(NAME).await;
    Ok(())
}
