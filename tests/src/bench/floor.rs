//! What this machine takes for the parts by themselves: no agent can be faster than these.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use super::times::Times;
use super::wire;
use crate::scenario::ScenarioError;
use crate::world::at;

/// A round trip without any agent: a thread that echoes what it reads on a Unix socket.
pub(super) fn bare_echo(count: usize) -> Result<Times, ScenarioError> {
    let wrong = |error: std::io::Error| ScenarioError::Wrong(format!("echo: {error}"));
    let (mut near, mut far) = UnixStream::pair().map_err(wrong)?;
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = far.read(&mut buffer) {
            if far.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
    });
    let frame = wire::agent_info(0);
    let mut answer = vec![0; frame.len()];
    let times: std::io::Result<Vec<_>> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            near.write_all(&frame)?;
            near.read_exact(&mut answer)?;
            Ok(begun.elapsed())
        })
        .collect();
    drop(near);
    let _ = echo.join();
    Ok(Times::new(times.map_err(wrong)?))
}

/// What durability costs by itself.
pub(super) fn bare_fdatasync(path: &Path, count: usize) -> Result<Times, ScenarioError> {
    let mut file: File = at(
        "creating",
        path,
        OpenOptions::new().create(true).append(true).open(path),
    )?;
    let record = [0x5a_u8; 800];
    let times: Result<Vec<_>, _> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&record)?;
            file.sync_data()?;
            Ok::<_, std::io::Error>(begun.elapsed())
        })
        .collect();
    let times = at("syncing", path, times)?;
    at("removing", path, std::fs::remove_file(path))?;
    Ok(Times::new(times))
}
