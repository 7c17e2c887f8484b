//! The declarative state: a document says what there should be (containers, bridges, flows, tunnels, public addresses), this
//! finds what differs and has the root agent make it so. Planners are pure; everything privileged is an action of the
//! catalog. Called by `blockhost diff`, `apply`, `query` and `show-diff`, and by the bus service.

mod careful;
mod carry;
pub mod change;
mod claims;
pub mod document;
pub mod engine;
pub mod fields;
pub mod flows;
pub mod footprint;
pub mod host;
pub mod kind;
mod lines;
pub mod lxc;
pub mod mesh;
pub mod net;
mod once;
pub mod order;
pub mod plugin;
pub mod publicip;
pub mod record;
pub mod report;
pub mod restore;
pub mod run;
pub mod wireguard;

#[cfg(test)]
mod tests;

pub use change::{Change, Verdict};
pub use document::{Document, DocumentError};
pub use engine::{Engine, Event, Options, StateError, plugins};
pub use host::Care;
pub use report::{ApplyReport, DiffReport, Fate, Outcome, QueryReport};

use blockhost_proto::layout::Layout;
use blockhost_provisioner::record::Status;

use crate::machines::Machines;
use crate::network::confirm::recover;

/// What there is, of all plugins or of one.
///
/// # Errors
/// [`StateError`]; a plugin that cannot be looked at is in the report.
pub async fn query(layout: &Layout, plugin: Option<&str>) -> Result<QueryReport, StateError> {
    let plugin = plugin.map(str::to_owned);
    aside(layout, Care::default(), move |engine| {
        engine.query(plugin.as_deref())
    })
    .await
}

/// What an apply of this document would do.
///
/// # Errors
/// [`StateError`]; a plugin that cannot be looked at is in the report.
pub async fn diff(
    layout: &Layout,
    document: Document,
    prune: bool,
) -> Result<DiffReport, StateError> {
    aside(layout, Care::default(), move |engine| {
        engine.diff(&document, prune)
    })
    .await
}

/// What has become different since the last apply, of all plugins or of one.
///
/// # Errors
/// [`StateError`]; a plugin that cannot be looked at is in the report.
pub async fn drift(layout: &Layout, plugin: Option<&str>) -> Result<DiffReport, StateError> {
    let plugin = plugin.map(str::to_owned);
    aside(layout, Care::default(), move |engine| {
        engine.drift(plugin.as_deref())
    })
    .await
}

/// Makes it so. `tell` hears of every step of the way; what could cut the operator off is made with `care`.
///
/// # Errors
/// [`StateError`] before anything was done; what fails later is in the report.
pub async fn apply(
    layout: &Layout,
    document: Document,
    options: Options,
    care: Care,
    mut tell: impl FnMut(Event<'_>) + Send + 'static,
) -> Result<ApplyReport, StateError> {
    take_back_what_was_left(layout).await;
    aside(layout, care, move |engine| {
        engine.apply(&document, options, &mut tell)
    })
    .await
}

/// What a restoration would do: what was applied last beside what there is, as far as a start of the machine makes it so again.
///
/// # Errors
/// [`StateError`]; a plugin that cannot be looked at is in the report.
pub async fn look_at_restoration(layout: &Layout) -> Result<DiffReport, StateError> {
    let off = off(layout).await;
    aside(layout, Care::default(), move |engine| {
        engine.look_at_restoration(&off)
    })
    .await
}

/// Makes what was applied last so again, as after a start of the machine.
///
/// # Errors
/// [`StateError`] before anything was done; what fails later is in the report.
pub async fn restore(
    layout: &Layout,
    mut tell: impl FnMut(Event<'_>) + Send + 'static,
) -> Result<ApplyReport, StateError> {
    take_back_what_was_left(layout).await;
    let off = off(layout).await;
    aside(layout, Care::default(), move |engine| {
        engine.restore(&off, &mut tell)
    })
    .await
}

/// Machines and containers whose subscription does not last; where there is no database, all are the operator's own.
async fn off(layout: &Layout) -> restore::Off {
    let configured = layout.etc().join("db.yaml");
    if !configured.exists() {
        return restore::Off::default();
    }
    match Machines::new(layout).all().await {
        Ok(all) => restore::Off {
            numbers: all
                .iter()
                .filter(|record| record.status == Status::Suspended)
                .map(|record| record.vmid.to_string())
                .collect(),
            unknown: None,
        },
        Err(error) => restore::Off {
            unknown: Some(error.to_string()),
            ..restore::Off::default()
        },
    }
}

/// What an earlier one left half-way would be planned upon. Where that cannot be ended, what it is about is refused.
async fn take_back_what_was_left(layout: &Layout) {
    if recover::is_needed(layout)
        && let Err(error) = recover::all(layout, false).await
    {
        crate::log::warn("changes of the network", &[("error", &error)]);
    }
}

/// The engine waits for answers as a thread does: an apply is one thing after the other.
async fn aside<T: Send + 'static>(
    layout: &Layout,
    care: Care,
    work: impl FnOnce(&mut Engine<'_>) -> Result<T, StateError> + Send + 'static,
) -> Result<T, StateError> {
    let layout = layout.clone();
    let done = tokio::task::spawn_blocking(move || {
        let mut host = host::AgentHost::new(&layout, care);
        work(&mut Engine::new(&layout, &mut host))
    });
    done.await.unwrap_or(Err(StateError::Broken))
}
