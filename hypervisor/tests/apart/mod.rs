//! The process whose namespaces a test's world lives in.

use std::process::Child;
use std::time::{Duration, Instant};

use blockhost_hypervisor::exec::{self, Run};

/// A process that sleeps in network and mount namespaces of its own, once it is there: made before that, a bridge would be
/// the host's.
pub fn namespaces() -> Result<Child, String> {
    let unshare = exec::find("unshare", "util-linux").map_err(|e| e.to_string())?;
    let mut sleeper = Run::new(unshare, ["--net", "--mount", "sleep", "3600"])
        .spawn()
        .map_err(|e| e.to_string())?;
    let waited = wait_for(&sleeper);
    if waited.is_err() {
        let _ = sleeper.kill();
        let _ = sleeper.wait();
    }
    waited.map(|()| sleeper)
}

fn wait_for(sleeper: &Child) -> Result<(), String> {
    let ours = std::fs::read_link("/proc/self/ns/net").map_err(|e| e.to_string())?;
    let theirs = format!("/proc/{}/ns/net", sleeper.id());
    let end = Instant::now() + Duration::from_secs(60);
    while std::fs::read_link(&theirs).map_err(|e| format!("no network namespace: {e}"))? == ours {
        if Instant::now() > end {
            return Err("no network namespace".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
