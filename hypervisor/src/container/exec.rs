//! Running a program inside. It gets pipes and never a descriptor of ours: what is open here (a terminal, a file of the
//! host) is nothing that a container's processes could write to, reopen, or put words into.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::config::VmConfig;
use crate::error::{IoContext, Result};
use crate::host::Host;
use crate::keeper::wire::{Answer, Ask};
use crate::machine::Vmid;

use super::client::{self, Request};

/// How long the last words of a program that has ended may take. What it left running inside may hold its output open
/// for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs a program in a container, with our input and output; its exit code.
///
/// # Errors
/// When the container does not run.
pub fn exec(host: &Host, vmid: Vmid, words: Vec<String>) -> Result<u8> {
    VmConfig::load(host, vmid)?;
    let (input, feed) = pipe()?;
    let (output, print) = pipe()?;
    let (errors, complain) = pipe()?;
    let ask = Ask::Exec {
        vmid: vmid.get(),
        words,
    };
    let request = Request::send(
        host,
        &ask,
        &[input.as_fd(), print.as_fd(), complain.as_fd()],
    )?;
    // The other ends are the container's now; kept here, ours would never end.
    drop((input, print, complain));
    let copies = [
        copy(File::from(output), std::io::stdout()),
        copy(File::from(errors), std::io::stderr()),
    ];
    // Not waited for: it may be at a terminal that nobody types on.
    let _typed = copy(std::io::stdin(), File::from(feed));
    let (answer, _) = request.answer()?;
    let Answer::Exited { code } = answer else {
        return Err(client::unexpected());
    };
    for copied in copies {
        let _ = copied.recv_timeout(LAST_WORDS);
    }
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("cannot make", "a pipe")
}

/// Copies what comes as it comes, until either side ends; the receiver hears of that.
fn copy(mut from: impl Read + Send + 'static, mut to: impl Write + Send + 'static) -> Receiver<()> {
    let (ended, hear) = channel();
    std::thread::spawn(move || {
        let _ended = ended;
        let mut chunk = [0u8; 16 << 10];
        loop {
            match from.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    let part = chunk.get(..count).unwrap_or_default();
                    if to.write_all(part).and_then(|()| to.flush()).is_err() {
                        return;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    hear
}
