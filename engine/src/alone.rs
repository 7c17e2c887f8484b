//! One engine for one database of machines: where several hosts share it, this one takes the place of the engine before it
//! does any job or signs anything, and ends when another one has it. [`crate::daemon`] asks.

use crate::log;
use crate::machines::{Machines, Place};
use blockhost_provisioner::store::postgres::Alone;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long apart a server that does not answer is asked, and one that does is asked whether it still knows us.
const PAUSE: Duration = Duration::from_secs(5);

/// Another engine works with the database of machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "another engine works with the shared database of machines (db_url in db.yaml); several hosts that share one have one engine: \
     stop one of the two, see configure.md"
)]
pub struct NotAlone;

/// The place, as long as this lives.
#[derive(Debug)]
pub struct Held(Option<Box<Alone>>);

impl Held {
    /// Holds it.
    #[must_use]
    pub fn new(alone: Alone) -> Self {
        Self(Some(Box::new(alone)))
    }

    fn is_held(&mut self) -> bool {
        self.0.as_mut().is_some_and(|alone| alone.is_held())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The connection has a runtime of its own, which must not end on a thread of ours.
        if let Some(alone) = self.0.take() {
            std::thread::spawn(move || drop(alone));
        }
    }
}

/// Takes the place. `None` where the database is not shared, or when the engine is to end. A server that does not answer is
/// waited for.
///
/// # Errors
/// [`NotAlone`].
pub async fn take(
    machines: &Machines,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<Held>, NotAlone> {
    let mut said = String::new();
    while !*stop.borrow() {
        match machines.alone().await {
            Ok(Place::NotShared) => return Ok(None),
            Ok(Place::Ours(held)) => return Ok(Some(held)),
            Ok(Place::Taken) => return Err(NotAlone),
            Err(e) => {
                if e.to_string() != said {
                    said = e.to_string();
                    log::error(
                        "jobs and payments wait until it is known that no other engine works with the machines' database",
                        &[("error", &said)],
                    );
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
    Ok(None)
}

/// Keeps the place until this is aborted: also while an engine that is to end lets its jobs end. When the connection was lost,
/// it is taken again; where another engine was faster, this one is told to end.
pub async fn keep(machines: Machines, mut held: Held, stopping: Arc<watch::Sender<bool>>) {
    let mut stop = stopping.subscribe();
    loop {
        tokio::time::sleep(PAUSE).await;
        let asked = tokio::task::spawn_blocking(move || {
            let is_held = held.is_held();
            (held, is_held)
        });
        match asked.await {
            Ok((same, true)) => {
                held = same;
                continue;
            }
            // The old connection ends before a new one asks: it would stand in its own way.
            Ok((lost, false)) => drop(lost),
            Err(e) => log::error(
                "asking for the place of the engine broke off",
                &[("error", &e)],
            ),
        }
        match take(&machines, &mut stop).await {
            Ok(Some(again)) => held = again,
            Ok(None) => return,
            Err(e) => {
                log::error("stopping", &[("reason", &e)]);
                // Fails only when everybody who could listen is gone.
                let _ = stopping.send(true);
                return;
            }
        }
    }
}
