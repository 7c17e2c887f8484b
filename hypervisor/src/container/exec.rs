//! Running a program inside. It gets pipes and never a descriptor of ours: what is open here (a terminal, a file of the
//! host) is nothing that a container's processes could write to, reopen, or put words into.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::config::VmConfig;
use crate::error::{IoContext, Result};
use crate::host::Host;
use crate::keeper::wire::{Answer, Ask};
use crate::machine::Vmid;

use super::client::{self, Request};

/// How long nothing may come of a program that has ended. What it left running inside may hold its output open for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// What a pipe holds, unless somebody made it larger: more does not come of a program that has ended.
const PIPE: usize = 64 << 10;

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
    let (over, running) = pipe()?;
    let another = over.try_clone().at("cannot copy", "a pipe")?;
    let copies = [
        copy(output, std::io::stdout(), over),
        copy(errors, std::io::stderr(), another),
    ];
    // Not waited for: it may be at a terminal that nobody types on.
    std::thread::spawn(move || std::io::copy(&mut std::io::stdin(), &mut File::from(feed)));
    let (answer, _) = request.answer()?;
    let Answer::Exited { code } = answer else {
        return Err(client::unexpected());
    };
    drop(running);
    for copied in copies {
        let _ = copied.join();
    }
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("cannot make", "a pipe")
}

/// Copies what comes as it comes, until either side ends; or, once nobody has the other end of `over` any more, until nothing
/// comes any longer: what was written before is in the pipe then, however long it takes to pass it on.
fn copy(from: OwnedFd, mut to: impl Write + Send + 'static, over: OwnedFd) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut from = File::from(from);
        let mut chunk = [0u8; 16 << 10];
        let (mut over, mut left) = (Some(over), PIPE);
        while left > 0 {
            let comes = match over.as_ref().map(|over| either(&from, over)) {
                Some(Next::Over) => {
                    over = None;
                    left = held(&from).max(PIPE);
                    continue;
                }
                Some(Next::Comes) => true,
                None => comes_within(&from, LAST_WORDS),
            };
            if !comes {
                return;
            }
            match from.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    let part = chunk.get(..count).unwrap_or_default();
                    if to.write_all(part).and_then(|()| to.flush()).is_err() {
                        return;
                    }
                    if over.is_none() {
                        left = left.saturating_sub(count);
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    })
}

/// How much a pipe holds now.
fn held(pipe: &File) -> usize {
    let held = rustix::io::ioctl_fionread(pipe).unwrap_or_default();
    usize::try_from(held).unwrap_or(usize::MAX)
}

enum Next {
    Comes,
    Over,
}

/// Which of the two is the case first; of both, that it is over: something comes for ever where the program left another
/// behind that writes faster than we pass on.
fn either(from: &File, over: &OwnedFd) -> Next {
    let mut fds = [
        PollFd::new(from, PollFlags::IN),
        PollFd::new(over, PollFlags::IN),
    ];
    loop {
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            // Reading says what is wrong.
            Err(_) => return Next::Comes,
            Ok(_) if !fds[1].revents().is_empty() => return Next::Over,
            Ok(_) => return Next::Comes,
        }
    }
}

fn comes_within(from: &File, time: Duration) -> bool {
    let wait = Timespec::try_from(time).ok();
    let mut fds = [PollFd::new(from, PollFlags::IN)];
    !matches!(poll(&mut fds, wait.as_ref()), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Whoever reads takes a while over each piece.
    #[derive(Clone)]
    struct Slow(Arc<Mutex<Vec<u8>>>, Duration);

    impl Slow {
        fn taking(pause: Duration) -> Self {
            Self(Arc::default(), pause)
        }
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            std::thread::sleep(self.1);
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_program_wrote_before_its_end_is_passed_on_whole_although_another_holds_its_output() {
        let (output, print) = pipe().unwrap();
        let (over, running) = pipe().unwrap();
        let seen = Slow::taking(LAST_WORDS / 2);
        let copied = copy(output, seen.clone(), over);
        let mut left_running = File::from(print);
        left_running.write_all(&[b'x'; 60_000]).unwrap();
        drop(running);
        copied.join().unwrap();
        assert_eq!(seen.0.lock().unwrap().len(), 60_000);
        drop(left_running);
    }

    #[test]
    fn what_goes_on_writing_after_the_end_holds_nobody_up() {
        let (output, print) = pipe().unwrap();
        let (over, running) = pipe().unwrap();
        let mut print = File::from(print);
        // Full from the start, and full again whenever something was taken, for as long as the end is not heeded.
        print.write_all(&[b'y'; PIPE]).unwrap();
        let writes =
            std::thread::spawn(move || (0..64).try_for_each(|_| print.write_all(&[b'y'; PIPE])));
        drop(running);
        copy(output, Slow::taking(Duration::from_millis(5)), over)
            .join()
            .unwrap();
        let written = writes.join().unwrap();
        assert!(written.is_err(), "all of 4 MiB was taken after the end");
    }

    #[test]
    fn what_a_pipe_that_was_made_larger_holds_at_the_end_is_passed_on_whole() {
        let (output, print) = pipe().unwrap();
        let (over, running) = pipe().unwrap();
        rustix::pipe::fcntl_setpipe_size(&print, 4 * PIPE).unwrap();
        let mut left_running = File::from(print);
        left_running.write_all(&[b'z'; 3 * PIPE]).unwrap();
        drop(running);
        let seen = Slow::taking(Duration::ZERO);
        copy(output, seen.clone(), over).join().unwrap();
        assert_eq!(seen.0.lock().unwrap().len(), 3 * PIPE);
        drop(left_running);
    }
}
