//! Who comes in: the sockets that are accepted on, whose connection it is, and who is turned away at the door.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use blockhost_proto::response::{ErrorCode, Response};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, sockopt::socket_peercred};

use super::conn::Conn;
use super::{FIRST_LISTENER, Front, FrontError, MAX_LISTENERS};
use crate::ipc::Caller;
use crate::policy::sockets::SocketName;
use crate::{log_warning, sys};

/// Connections accepted before others get their turn.
const ACCEPT_BURST: usize = 32;

impl Front {
    /// One more socket to accept on. A name that is there already gets the new descriptor.
    pub(super) fn listen(&mut self, name: SocketName, socket: OwnedFd) -> Result<(), FrontError> {
        self.unlisten(&name);
        let free = self.listeners.iter().position(Option::is_none);
        let place = free.unwrap_or(self.listeners.len());
        if place >= MAX_LISTENERS {
            log_warning!("{name}: more than {MAX_LISTENERS} sockets; not listened on");
            return Ok(());
        }
        let token = EventData::new_u64(FIRST_LISTENER + place as u64);
        epoll::add(&self.epoll, &socket, token, EventFlags::IN)?;
        if place == self.listeners.len() {
            self.listeners.push(None);
        }
        self.listeners[place] = Some((name, socket));
        Ok(())
    }

    /// Accepts there no longer. Taken out by hand: the supervisor's copy of the descriptor would keep it in epoll.
    pub(super) fn unlisten(&mut self, name: &SocketName) {
        let of_name = |entry: &&mut Option<(SocketName, OwnedFd)>| {
            entry.as_ref().is_some_and(|(other, _)| other == name)
        };
        if let Some((_, socket)) = self
            .listeners
            .iter_mut()
            .find(of_name)
            .and_then(Option::take)
        {
            let _ = epoll::delete(&self.epoll, &socket);
        }
    }

    pub(super) fn accept(&mut self, token: u64, now: Instant) {
        let place = usize::try_from(token - FIRST_LISTENER).unwrap_or(usize::MAX);
        for _ in 0..ACCEPT_BURST {
            let Some(Some((name, listener))) = self.listeners.get(place) else {
                return;
            };
            match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => {
                    let name = name.clone();
                    self.admit(socket, name, now);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    log_warning!("accept: {error}");
                    return;
                }
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd, name: SocketName, now: Instant) {
        let Ok(peer) = socket_peercred(&socket) else {
            return;
        };
        let (uid, gid) = (peer.uid.as_raw(), peer.gid.as_raw());
        let caller = Caller {
            uid,
            gid,
            groups: Vec::new(),
            socket: name,
            pid: Some(peer.pid.as_raw_nonzero().get()),
            exe: None,
            unit: None,
        };
        let frame_limit = self.policy.limits.request_bytes as usize;
        let mut conn = Conn::new(socket, caller, frame_limit, now);
        if let Some(own) = self.authority.own_process(uid, gid) {
            let message = format!(
                "connections from the agent's own processes ({own}) are refused, whatever the rules say"
            );
            self.turn_away(&mut conn, ErrorCode::Forbidden, &message, now);
            let caller = conn.caller.clone();
            self.record_refusal(caller, "", ErrorCode::Forbidden, &message, now);
            return;
        }
        let taken = self.per_uid.get(&uid).copied().unwrap_or(0);
        let limits = &self.policy.limits;
        if self.connections.len() >= limits.connections || taken >= limits.connections_per_uid {
            self.counters.connections_refused += 1;
            let message = format!(
                "too many connections ({} of yours, {} in all); close some or try again",
                taken,
                self.connections.len()
            );
            self.turn_away(&mut conn, ErrorCode::Busy, &message, now);
            return;
        }
        conn.caller.groups = sys::peer_groups(conn.as_fd());
        conn.rights = self.authority.rights(conn.caller.subject());
        let number = self.next_connection;
        if let Err(error) = epoll::add(
            &self.epoll,
            &conn,
            EventData::new_u64(number),
            conn.interest,
        ) {
            log_warning!("a connection could not be watched: {error}");
            return;
        }
        self.next_connection += 1;
        self.counters.connections += 1;
        *self.per_uid.entry(uid).or_insert(0) += 1;
        self.connections.insert(number, conn);
        self.sweep_before(now + self.policy.limits.idle_time());
    }

    /// The last word to a connection that is not taken.
    fn turn_away(&self, conn: &mut Conn, code: ErrorCode, message: &str, now: Instant) {
        let slot = conn.open_slot();
        let limit = self.policy.limits.response_bytes as usize;
        conn.answer(slot, &Response::refusal(None, code, message), limit);
        conn.flush(now);
    }
}
