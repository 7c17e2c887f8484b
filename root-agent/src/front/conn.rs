//! One client connection as a state machine without I/O decisions of its own: bytes in, frames out, answers in order.
//! The loop in `front` owns the sockets' readiness; this owns buffers, order and limits.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use blockhost_proto::response::Response;
use blockhost_proto::wire::{FrameDecoder, WireError, encode_frame};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::ipc::Caller;
use crate::policy::authority::Rights;

/// A peer that lets more than this pile up is not read any further until it takes some.
pub const HIGH_WATER: usize = 1 << 20;
/// Answers that are small together are written together.
const PIECE: usize = 32 << 10;

/// Whether the supervisor has told who is behind the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identified {
    /// Nobody asked yet.
    No,
    /// Asked, not answered.
    Asked,
    /// Answered.
    Yes,
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    socket: OwnedFd,
    /// Cuts what arrives into frames.
    pub decoder: FrameDecoder,
    /// Who is at the other end.
    pub caller: Caller,
    /// The rules that are for it.
    pub rights: Rights,
    /// Progress of that question.
    pub identified: Identified,
    /// Answers in request order; `None` is still being worked on.
    slots: VecDeque<Option<Vec<u8>>>,
    /// Sequence number of `slots[0]`.
    first_slot: u64,
    /// What may be written, in pieces, so that what the peer took is not held any longer.
    out: VecDeque<Vec<u8>>,
    /// Of the first piece.
    written: usize,
    /// Bytes of answers that are on its user's account.
    pub charged: usize,
    /// The peer will send no more, or we will read no more.
    pub closing: bool,
    /// When the frame that is arriving began.
    pub frame_since: Option<Instant>,
    /// Last time anything moved.
    pub active: Instant,
    /// Since when the peer has taken nothing of what it could have taken.
    pub stalled: Option<Instant>,
    /// Interest registered with epoll.
    pub interest: EventFlags,
}

/// What became of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing left.
    All,
    /// The peer is slow.
    Partly,
    /// The peer is gone.
    Gone,
}

impl Conn {
    /// A fresh connection.
    pub fn new(socket: OwnedFd, caller: Caller, limit: usize, now: Instant) -> Self {
        Self {
            socket,
            decoder: FrameDecoder::new(limit),
            caller,
            rights: Rights::default(),
            identified: Identified::No,
            slots: VecDeque::new(),
            first_slot: 0,
            out: VecDeque::new(),
            written: 0,
            charged: 0,
            closing: false,
            frame_since: None,
            active: now,
            stalled: None,
            interest: EventFlags::IN,
        }
    }

    /// Feeds bytes that arrived and keeps the frame clock.
    pub fn feed(&mut self, bytes: &[u8], now: Instant) {
        self.decoder.feed(bytes);
        self.active = now;
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// [`WireError`] when the stream cannot be read on.
    pub fn next_frame(&mut self, now: Instant) -> Result<Option<Vec<u8>>, WireError> {
        let frame = self.decoder.next_frame()?;
        if frame.is_some() || !self.decoder.mid_frame() {
            self.frame_since = None;
        }
        if self.decoder.mid_frame() && self.frame_since.is_none() {
            self.frame_since = Some(now);
        }
        Ok(frame)
    }

    /// Requests that are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// Takes the next place in the order of answers.
    pub fn open_slot(&mut self) -> u64 {
        self.slots.push_back(None);
        self.first_slot + self.slots.len() as u64 - 1
    }

    /// Answers the request of that place; everything that is next in order moves to the write buffer.
    pub fn answer(&mut self, slot: u64, response: &Response, limit: usize) {
        self.answer_encoded(slot, &response.encode(limit));
    }

    /// The same with a payload that is encoded already and within the limit.
    pub fn answer_encoded(&mut self, slot: u64, payload: &[u8]) {
        let Ok(frame) = encode_frame(payload, payload.len()) else {
            return;
        };
        let index = slot
            .checked_sub(self.first_slot)
            .and_then(|i| usize::try_from(i).ok());
        if let Some(place) = index.and_then(|i| self.slots.get_mut(i)) {
            *place = Some(frame);
        }
        while let Some(Some(frame)) = self.slots.front_mut().map(Option::take) {
            self.slots.pop_front();
            self.first_slot += 1;
            match self.out.back_mut() {
                Some(last) if last.len() + frame.len() <= PIECE => last.extend_from_slice(&frame),
                _ => self.out.push_back(frame),
            }
        }
    }

    /// Bytes the peer has not taken, answers waiting for their turn included.
    pub fn backlog(&self) -> usize {
        self.unsent() + self.slots.iter().flatten().map(Vec::len).sum::<usize>()
    }

    /// Bytes that could be written now.
    pub fn unsent(&self) -> usize {
        self.out.iter().map(Vec::len).sum::<usize>() - self.written
    }

    /// Writes what the peer takes.
    pub fn flush(&mut self, now: Instant) -> Flushed {
        while let Some(piece) = self.out.front() {
            match send(&self.socket, &piece[self.written..], SendFlags::NOSIGNAL) {
                Ok(n) => {
                    self.written += n;
                    self.active = now;
                    self.stalled = None;
                    if self.written == piece.len() {
                        self.out.pop_front();
                        self.written = 0;
                    }
                }
                Err(Errno::AGAIN) => {
                    self.stalled.get_or_insert(now);
                    return Flushed::Partly;
                }
                Err(Errno::INTR) => {}
                Err(_) => return Flushed::Gone,
            }
        }
        Flushed::All
    }

    /// Nothing to read, to work on or to write any more.
    pub fn finished(&self) -> bool {
        self.closing && self.slots.is_empty() && self.unsent() == 0
    }

    /// What the peer sends is read.
    pub fn reads(&self) -> bool {
        !self.closing && self.backlog() < HIGH_WATER
    }

    /// What epoll should report.
    pub fn wanted(&self) -> EventFlags {
        let mut wanted = EventFlags::empty();
        if self.reads() {
            wanted |= EventFlags::IN;
        }
        if self.unsent() > 0 {
            wanted |= EventFlags::OUT;
        }
        wanted
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
