//! SIGINT and SIGTERM as a flag that long work looks at between its steps, so that an interrupted command undoes what it
//! did. A second signal ends the process at once: what is left then is found by the next run or by the collector.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The flag; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches SIGINT, SIGTERM and SIGHUP from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn install() -> std::io::Result<Self> {
        let this = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: at the first signal the flag is not yet up, so it is only raised; at the second one it ends.
            signal_hook::flag::register_conditional_shutdown(
                signal,
                128 + signal,
                Arc::clone(&this.0),
            )?;
            signal_hook::flag::register(signal, Arc::clone(&this.0))?;
        }
        Ok(this)
    }

    /// True once a signal came.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// As a signal would; for tests.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
