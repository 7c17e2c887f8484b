//! Follows a manager: after the first look again whenever something happens there, and every minute all the same. A manager
//! that goes away takes nothing with it; when it is back everything is looked at anew.

use std::time::Duration;

use blockhost_proto::layout::Layout;

use super::manager::{Events, Manager};
use super::run::{DiscoveryError, Outcome, carry_out, look};
use crate::config::ContainersSection;

/// Looks come at least this often: events may have been missed, and the host changes too.
const EVERY: Duration = Duration::from_secs(60);
/// What comes within this time after an event is part of the same happening: a stop alone is three of them.
const TOGETHER: Duration = Duration::from_millis(200);
/// First wait after something went wrong; each next one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Something to tell.
#[derive(Debug)]
pub enum News {
    /// What is so now, and what could not be removed.
    Now(Vec<Outcome>, Vec<String>),
    /// It did not work; it is tried again.
    Trouble(DiscoveryError),
}

/// Follows for ever. `tell` answers whether somebody still listens.
pub async fn follow(
    layout: &Layout,
    section: &ContainersSection,
    manager: &Manager,
    mut tell: impl FnMut(News) -> bool,
) {
    let mut wait = FIRST_WAIT;
    loop {
        let ended = listen(layout, section, manager, &mut wait, &mut tell).await;
        let Err(error) = ended else { return };
        if !tell(News::Trouble(error)) {
            return;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// One connection to the manager's events; ends with an error, or where nobody listens any more.
async fn listen(
    layout: &Layout,
    section: &ContainersSection,
    manager: &Manager,
    wait: &mut Duration,
    tell: &mut impl FnMut(News) -> bool,
) -> Result<(), DiscoveryError> {
    // First the ear, then the eye: what happens in between is heard.
    let mut events = manager.events().await?;
    loop {
        let plan = look(layout, section, manager).await?;
        let (outcomes, problems) = carry_out(layout, &plan).await?;
        *wait = FIRST_WAIT;
        if !tell(News::Now(outcomes, problems)) {
            return Ok(());
        }
        if let Ok(heard) = tokio::time::timeout(EVERY, events.next()).await {
            heard?;
            calm(&mut events).await?;
        }
    }
}

/// Waits until nothing has happened for a moment, but not for ever.
async fn calm(events: &mut Events) -> Result<(), DiscoveryError> {
    for _ in 0..50 {
        match tokio::time::timeout(TOGETHER, events.next()).await {
            Ok(heard) => heard?,
            Err(_) => break,
        }
    }
    Ok(())
}
