//! Tells the service manager how things stand (`sd_notify`). Without one, nothing happens.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends one state line such as `READY=1`.
pub fn state(line: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let bytes = path.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    // The service manager's loss, not a reason to fail.
    let _ = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(line.as_bytes(), &address));
}
