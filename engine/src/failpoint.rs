//! Where tests stop a program: armed by the environment, and only where the feature `fail-points` is built in.

/// Looks whether this process is to be stopped somewhere: `BLOCKHOST_FAIL_POINT` is a step of a change of the network, or
/// `send:`, `funds:`, `reconcile:` or `state-apply:` and a step there.
#[inline(always)]
pub fn arm() {
    #[cfg(feature = "fail-points")]
    if let Ok(step) = std::env::var("BLOCKHOST_FAIL_POINT") {
        let (point, step) = step.split_once(':').unwrap_or(("net-change", &step));
        blockhost_ledger::failpoint::arm(point, step, false);
    }
}

/// Stops here for good if a test wants it.
#[inline(always)]
pub fn reach(point: &str, step: &str) {
    blockhost_ledger::failpoint::reach(point, step.as_bytes());
}
