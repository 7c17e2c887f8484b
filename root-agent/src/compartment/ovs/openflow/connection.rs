//! One OpenFlow conversation with a bridge over its management socket: greeting, statistics, meter changes, bundles.
//! A conversation serves one action and is closed; what is said in it comes from `flows`, `meters` and `list`.

use std::time::Instant;

use super::message::{
    Cutter, Message, OfError, TooLong, bundle, bundle_add, bundle_control, hello, kind, message,
};
use crate::compartment::ovs::error::SwitchError;
use crate::compartment::ovs::line::{Flow, Line, Sockets};

const PEER: &str = "ovs-vswitchd";
/// Most bytes of statistics taken in one answer: 300 000 flows.
const MAX_STATISTICS: usize = 64 << 20;

/// Why a bundle changed nothing.
#[derive(Debug)]
pub enum BundleError {
    /// One of the messages was refused.
    Message {
        /// Which, counted from 0.
        index: usize,
        /// Why.
        error: OfError,
    },
    /// One of the messages is too long to be sent.
    TooLong {
        /// Which, counted from 0.
        index: usize,
    },
    /// Anything else. After a lost connection it may have changed everything.
    Switch(SwitchError),
}

impl BundleError {
    /// Whether it is certain that all is as it was.
    pub const fn changed_nothing(&self) -> bool {
        match self {
            Self::Message { .. } | Self::TooLong { .. } => true,
            Self::Switch(error) => matches!(error, SwitchError::Refused(_)),
        }
    }
}

impl From<SwitchError> for BundleError {
    fn from(error: SwitchError) -> Self {
        Self::Switch(error)
    }
}

/// A conversation.
#[derive(Debug)]
pub struct Conversation {
    line: Line,
    cutter: Cutter,
    xid: u32,
    deadline: Instant,
}

impl Conversation {
    /// Connects to the bridge's management socket and greets.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub fn open(sockets: &Sockets, bridge: &str, deadline: Instant) -> Result<Self, SwitchError> {
        let mut this = Self {
            line: sockets.connect(&format!("{bridge}.mgmt"), PEER)?,
            cutter: Cutter::default(),
            xid: 0,
            deadline,
        };
        let greeting = hello(this.number());
        let mut refused = None;
        let mut greeted = false;
        this.converse(&greeting, |message| {
            match message.kind {
                kind::HELLO => greeted = true,
                kind::ERROR => refused = OfError::read(&message.body),
                _ => return Ok(Flow::More),
            }
            Ok(Flow::Enough)
        })?;
        match refused {
            Some(error) => Err(SwitchError::refused(error.to_string())),
            None if greeted => Ok(this),
            None => Err(SwitchError::nonsense(PEER, "no greeting")),
        }
    }

    fn number(&mut self) -> u32 {
        self.xid = self.xid.wrapping_add(1);
        self.xid
    }

    /// Sends, and hears messages until `hear` has enough. Questions whether we live are answered on the side.
    fn converse(
        &mut self,
        out: &[u8],
        mut hear: impl FnMut(Message) -> Result<Flow, SwitchError>,
    ) -> Result<(), SwitchError> {
        let Self {
            line,
            cutter,
            deadline,
            ..
        } = self;
        let mut out = out.to_vec();
        let mut done = false;
        while !done {
            let mut echoes = Vec::new();
            line.exchange(&out, *deadline, "to an OpenFlow request", |mut bytes| {
                while let Some(message) = cutter
                    .next(&mut bytes)
                    .map_err(|error| SwitchError::nonsense(PEER, error.to_string()))?
                {
                    if message.kind == kind::ECHO_REQUEST {
                        let answer =
                            super::message::message(kind::ECHO_REPLY, message.xid, &message.body);
                        echoes.extend(answer.map_err(too_long)?);
                        if echoes.len() > 1 << 20 {
                            return Err(SwitchError::nonsense(PEER, "endless echo requests"));
                        }
                    } else if !done {
                        done = hear(message)? == Flow::Enough;
                    }
                }
                Ok(if done || !echoes.is_empty() {
                    Flow::Enough
                } else {
                    Flow::More
                })
            })?;
            out = echoes;
        }
        Ok(())
    }

    /// Sends a change that is not answered, and makes sure that it was taken.
    ///
    /// # Errors
    /// [`SwitchError`], the inner one when the switch refused.
    pub fn change(&mut self, kind: u8, body: &[u8]) -> Result<Result<(), OfError>, SwitchError> {
        let number = self.number();
        let mut out = message(kind, number, body).map_err(too_long)?;
        let barrier = self.number();
        out.extend(message(kind::BARRIER_REQUEST, barrier, &[]).map_err(too_long)?);
        let mut refused = Ok(());
        self.converse(&out, |message| {
            match (message.kind, message.xid) {
                (kind::ERROR, xid) if xid == number => refused = Err(read_error(&message)?),
                (kind::BARRIER_REPLY, xid) if xid == barrier => return Ok(Flow::Enough),
                _ => {}
            }
            Ok(Flow::More)
        })?;
        Ok(refused)
    }

    /// Asks for statistics; `each` is given the body of every part of the answer.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub fn statistics(
        &mut self,
        request: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), SwitchError>,
    ) -> Result<(), SwitchError> {
        let number = self.number();
        let asked = request.get(..2).map(<[u8]>::to_vec);
        let out = message(kind::MULTIPART_REQUEST, number, request).map_err(too_long)?;
        let mut total = 0;
        self.converse(&out, |message| {
            match (message.kind, message.xid == number) {
                (kind::ERROR, true) => {
                    return Err(SwitchError::refused(read_error(&message)?.to_string()));
                }
                (kind::MULTIPART_REPLY, true) => {}
                _ => return Ok(Flow::More),
            }
            total += message.body.len();
            if total > MAX_STATISTICS {
                return Err(SwitchError::nonsense(PEER, "endless statistics"));
            }
            let (Some(head), Some(body)) = (message.body.get(..8), message.body.get(8..)) else {
                return Err(SwitchError::nonsense(PEER, "a torn multipart reply"));
            };
            if Some(&head[..2]) != asked.as_deref() {
                return Err(SwitchError::nonsense(
                    PEER,
                    "statistics that were not asked for",
                ));
            }
            each(body)?;
            let more = head[3] & 1 != 0;
            Ok(if more { Flow::More } else { Flow::Enough })
        })
    }

    /// Does all of it or nothing.
    ///
    /// # Errors
    /// [`BundleError`]; nothing has changed then, unless the connection broke.
    pub fn bundle(&mut self, kind: u8, bodies: &[Vec<u8>]) -> Result<(), BundleError> {
        const ID: u32 = 1;
        let short =
            |body: Vec<u8>, xid| message(kind::BUNDLE_CONTROL, xid, &body).map_err(too_long);
        let mut out = short(bundle_control(ID, bundle::OPEN), self.number())?;
        let first = self.xid.wrapping_add(1);
        for (index, body) in bodies.iter().enumerate() {
            let xid = self.number();
            let add =
                bundle_add(ID, xid, kind, body).map_err(|_| BundleError::TooLong { index })?;
            out.extend(add);
        }
        let refused = self.refused(out, first, bodies.len())?;
        // A bundle in which a message failed still holds the others: it must not be committed.
        let end = if refused.is_some() {
            bundle::DISCARD
        } else {
            bundle::COMMIT
        };
        let commit = self.number();
        let out = short(bundle_control(ID, end), commit)?;
        let failed = self.refused(out, first, bodies.len())?;
        match refused.or(failed) {
            None => Ok(()),
            Some((Some(index), error)) => Err(BundleError::Message { index, error }),
            Some((None, error)) => Err(SwitchError::refused(error.to_string()).into()),
        }
    }

    /// Sends with a barrier behind it, and returns the first refusal; with the index of the message where it is about
    /// one of `count` messages numbered from `first`.
    fn refused(
        &mut self,
        mut out: Vec<u8>,
        first: u32,
        count: usize,
    ) -> Result<Option<(Option<usize>, OfError)>, SwitchError> {
        let barrier = self.number();
        out.extend(message(kind::BARRIER_REQUEST, barrier, &[]).map_err(too_long)?);
        let mut refused: Option<(Option<usize>, OfError)> = None;
        self.converse(&out, |message| {
            match message.kind {
                kind::BARRIER_REPLY if message.xid == barrier => return Ok(Flow::Enough),
                kind::ERROR => {
                    let error = read_error(&message)?;
                    let index = usize::try_from(message.xid.wrapping_sub(first)).ok();
                    let index = index.filter(|&index| index < count);
                    // What one message did wrong says more than that the whole failed.
                    if refused.is_none_or(|(known, _)| known.is_none() && index.is_some()) {
                        refused = Some((index, error));
                    }
                }
                _ => {}
            }
            Ok(Flow::More)
        })?;
        Ok(refused)
    }
}

fn too_long(error: TooLong) -> SwitchError {
    SwitchError::refused(error.to_string())
}

fn read_error(message: &Message) -> Result<OfError, SwitchError> {
    OfError::read(&message.body).ok_or_else(|| SwitchError::nonsense(PEER, "a torn error message"))
}
