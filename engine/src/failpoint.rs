//! Where tests stop a program: armed by the environment, and only where the feature `fail-points` is built in.

/// Looks whether this process is to be stopped somewhere: `BLOCKHOST_FAIL_POINT` is a step's name.
#[inline(always)]
pub fn arm() {
    #[cfg(feature = "fail-points")]
    if let Ok(step) = std::env::var("BLOCKHOST_FAIL_POINT") {
        blockhost_ledger::failpoint::arm("net-change", &step, false);
    }
}
