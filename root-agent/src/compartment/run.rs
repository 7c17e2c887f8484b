//! The process loop of a compartment: jobs in from the gate, quick ones at once, slow ones on a bounded number of threads,
//! results out. What the jobs do is the handler's business.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use blockhost_proto::action::Action;
use blockhost_proto::catalog::Compartment;
use blockhost_proto::escape;
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::wire::encode_frame;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::{Done, Failure, Handler, Identities, JobCtx, Share};
use crate::control::ControlSocket;
use crate::failpoint;
use crate::ipc::{
    Channel, ChannelError, Control, Finished, FromCompartment, MAX_MESSAGE, Start, Work,
};
use crate::log_error;
use crate::policy::Limits;
use crate::policy::authority::Authority;

/// Slow actions that run at once; more wait in the order they came.
const HOST_THREADS: usize = 16;
/// The same for actions that end when a guest pleases. They have threads of their own: guests that never answer keep
/// others waiting for their guests at worst, never for the host.
const GUEST_THREADS: usize = 48;
/// The same for actions that copy whole disks: half an hour each, so that a few clones would keep everybody's from being started or
/// stopped. More at once would not be over earlier on the same disks.
const BULK_THREADS: usize = 8;
/// Stack of a thread that waits for a program.
const THREAD_STACK: usize = 512 << 10;
/// Longest `output` passed on, bytes; the wire cuts it further.
const MAX_OUTPUT: usize = 2 << 20;

/// A compartment ready to work.
pub struct Runner {
    shared: Arc<Shared>,
    channel: Channel,
    control: ControlSocket,
    compartment: Compartment,
}

struct Shared {
    handler: Box<dyn Handler>,
    layout: Layout,
    in_force: RwLock<Arc<InForce>>,
    identities: Identities,
    answers: Mutex<OwnedFd>,
    host: Mutex<Pool>,
    guests: Mutex<Pool>,
    bulk: Mutex<Pool>,
}

/// What of the policy jobs are judged by.
struct InForce {
    authority: Authority,
    limits: Limits,
}

struct Pool {
    queue: VecDeque<Queued>,
    threads: usize,
    most: usize,
}

/// A slow action on its way to a thread.
struct Queued {
    work: Work,
    action: Action,
    /// The gate was told that there is no thread for it yet.
    waits: bool,
}

impl Pool {
    const fn new(most: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            threads: 0,
            most,
        }
    }
}

impl Runner {
    /// Puts the parts together.
    ///
    /// # Errors
    /// When the channel cannot be duplicated for the answering threads.
    pub fn new(
        compartment: Compartment,
        handler: Box<dyn Handler>,
        layout: Layout,
        start: &Start,
        channel: OwnedFd,
        control: ControlSocket,
    ) -> std::io::Result<Self> {
        let answers = Mutex::new(channel.try_clone()?);
        let shared = Shared {
            handler,
            layout,
            in_force: RwLock::new(Arc::new(InForce {
                authority: start.authority(),
                limits: start.policy.limits,
            })),
            identities: start.identities,
            answers,
            host: Mutex::new(Pool::new(HOST_THREADS)),
            guests: Mutex::new(Pool::new(GUEST_THREADS)),
            bulk: Mutex::new(Pool::new(BULK_THREADS)),
        };
        Ok(Self {
            shared: Arc::new(shared),
            channel: Channel::new(channel)?,
            control,
            compartment,
        })
    }

    /// Works until the supervisor or the gate goes away.
    ///
    /// # Errors
    /// [`ChannelError`] on a protocol violation.
    pub fn run(mut self) -> Result<(), ChannelError> {
        let mut buffer = vec![0u8; 16 << 10];
        loop {
            let (jobs, told) = {
                let mut fds = [
                    PollFd::new(&self.channel, PollFlags::IN),
                    PollFd::new(&self.control, PollFlags::IN),
                ];
                match poll(&mut fds, None) {
                    Ok(_) => {}
                    Err(Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                }
                (!fds[0].revents().is_empty(), !fds[1].revents().is_empty())
            };
            if told && !self.hear_control()? {
                return Ok(());
            }
            if jobs {
                match self.channel.receive::<Work>(&mut buffer) {
                    Ok(works) => works.into_iter().try_for_each(|work| self.take(work))?,
                    Err(ChannelError::Closed) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// False when it is time to go.
    fn hear_control(&self) -> Result<bool, ChannelError> {
        loop {
            match self.control.receive::<Control>(false) {
                Ok(None) => return Ok(true),
                Ok(Some((Control::Policy { policy, rules, .. }, _))) => {
                    let shared = &self.shared;
                    let in_force = InForce {
                        authority: Authority::new(&policy.allow, &rules, shared.identities),
                        limits: policy.limits,
                    };
                    *shared
                        .in_force
                        .write()
                        .unwrap_or_else(PoisonError::into_inner) = Arc::new(in_force);
                }
                Ok(Some((Control::Stop, _))) | Err(ChannelError::Closed) => return Ok(false),
                Ok(Some(_)) => {
                    return Err(ChannelError::Violation(
                        "unexpected control message".to_owned(),
                    ));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&self, work: Work) -> Result<(), ChannelError> {
        // The gate sends what it has validated; anything else means the gate is not the gate any more.
        let action = Action::from_parts(&work.action, &work.params)
            .map_err(|error| ChannelError::Violation(format!("job {}: {error}", work.op)))?;
        failpoint::reach("compartment-taken", work.action.as_bytes());
        if action.spec().compartment != self.compartment {
            let text = format!(
                "job {} of compartment {}",
                work.op,
                action.spec().compartment
            );
            return Err(ChannelError::Violation(text));
        }
        if self.shared.handler.quick(&action) {
            return self.shared.finish(&work, &action);
        }
        let share = self.shared.handler.share(&action);
        let mut pool = self
            .shared
            .pool(share)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let op = work.op;
        let mut waits = pool.queue.back().is_some_and(|last| last.waits);
        pool.queue.push_back(Queued {
            work,
            action,
            waits: false,
        });
        if pool.threads < pool.most {
            let shared = Arc::clone(&self.shared);
            let spawned = std::thread::Builder::new()
                .stack_size(THREAD_STACK)
                .spawn(move || shared.drain(share));
            match spawned {
                Ok(_) => pool.threads += 1,
                // With no thread at all nobody would come to take it.
                Err(error) if pool.threads == 0 => {
                    pool.queue.pop_back();
                    drop(pool);
                    let message = format!("no thread for the action: {error}; try again");
                    return self
                        .shared
                        .send(op, Err(Failure::new(ErrorCode::Busy, message)));
                }
                Err(_) => waits = true,
            }
        } else {
            waits = true;
        }
        if waits && let Some(last) = pool.queue.back_mut() {
            last.waits = true;
            // With the queue still locked, so that no thread can say earlier that it has begun.
            return self.shared.tell(&FromCompartment::Waiting { op });
        }
        Ok(())
    }
}

impl Shared {
    const fn pool(&self, share: Share) -> &Mutex<Pool> {
        match share {
            Share::Host => &self.host,
            Share::Guest => &self.guests,
            Share::Bulk => &self.bulk,
        }
    }

    /// A thread's life: jobs of one kind until there are no more.
    fn drain(&self, share: Share) {
        loop {
            let next = {
                let mut pool = self
                    .pool(share)
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let next = pool.queue.pop_front();
                if next.is_none() {
                    pool.threads -= 1;
                }
                next
            };
            let Some(Queued {
                work,
                action,
                waits,
            }) = next
            else {
                return;
            };
            let begun = FromCompartment::Begun { op: work.op };
            let told = if waits { self.tell(&begun) } else { Ok(()) };
            if let Err(error) = told.and_then(|()| self.finish(&work, &action)) {
                // The reading thread sees the same closed channel and ends the process.
                log_error!(
                    "the result of job {} could not be delivered: {error}",
                    work.op
                );
            }
        }
    }

    fn finish(&self, work: &Work, action: &Action) -> Result<(), ChannelError> {
        let in_force = Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner));
        let InForce { authority, limits } = &*in_force;
        // The front and the gate have judged already; what one of them let through for being taken over ends here.
        let rights = authority.rights(work.caller.subject());
        let result = authority.permits(&rights, action).and_then(|rule| {
            let lists = authority.lists(rule, action);
            let ctx = JobCtx {
                deadline: Instant::now() + Duration::from_millis(work.limit_ms),
                allow: &lists,
                limits,
                layout: &self.layout,
                caller_uid: work.caller.uid,
            };
            catch_unwind(AssertUnwindSafe(|| self.handler.run(action, &ctx))).unwrap_or_else(|_| {
                log_error!("{} panicked; the panic message is above", work.action);
                let message = format!(
                    "{} failed inside the agent; its log has the details",
                    work.action
                );
                Err(Failure::new(ErrorCode::Internal, message))
            })
        });
        failpoint::reach("compartment-done", work.action.as_bytes());
        self.send(work.op, result)?;
        failpoint::reach("compartment-sent", work.action.as_bytes());
        Ok(())
    }

    fn send(&self, op: u64, mut result: Result<Done, Failure>) -> Result<(), ChannelError> {
        match &mut result {
            Ok(done) => escape::cut(&mut done.output, MAX_OUTPUT),
            Err(failure) => escape::cut(&mut failure.message, 64 << 10),
        };
        let finished = |result| FromCompartment::Finished(Finished { op, result });
        match self.tell(&finished(result)) {
            // Escapes make six bytes of one. Without any answer the job would look hung.
            Err(ChannelError::TooLong) => self.tell(&finished(Err(Failure::new(
                ErrorCode::Internal,
                "it was done, but what it printed is too long to be passed on",
            )))),
            other => other,
        }
    }

    /// One message to the gate, whichever thread it comes from.
    fn tell(&self, message: &FromCompartment) -> Result<(), ChannelError> {
        let body =
            serde_json::to_vec(message).map_err(|e| ChannelError::Violation(e.to_string()))?;
        let frame = encode_frame(&body, MAX_MESSAGE).map_err(|_| ChannelError::TooLong)?;
        let socket = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            match send(&*socket, rest, SendFlags::NOSIGNAL) {
                Ok(n) => rest = &rest[n..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // The gate is busy; it always comes back to reading.
                    let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)];
                    let _ = poll(&mut fds, None);
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
