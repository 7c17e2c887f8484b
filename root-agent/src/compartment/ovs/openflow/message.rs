//! OpenFlow 1.4 messages as bytes: header, bundles, flow and meter changes, statistics requests, errors. Pure; matches and
//! actions are encoded in `encode`, answers are read in `stats`, `connection` sends and receives.

/// `OFP_VERSION` of 1.4, the first with bundles of its own.
pub const VERSION: u8 = 5;
/// Bytes of the header.
pub const HEADER: usize = 8;
/// "Any port", "any group", "no buffer".
pub const ANY: u32 = 0xffff_ffff;
/// All tables.
pub const ALL_TABLES: u8 = 0xff;

/// Message types.
pub mod kind {
    #![allow(missing_docs, reason = "names of the OpenFlow specification")]
    pub const HELLO: u8 = 0;
    pub const ERROR: u8 = 1;
    pub const ECHO_REQUEST: u8 = 2;
    pub const ECHO_REPLY: u8 = 3;
    pub const FLOW_MOD: u8 = 14;
    pub const MULTIPART_REQUEST: u8 = 18;
    pub const MULTIPART_REPLY: u8 = 19;
    pub const BARRIER_REQUEST: u8 = 20;
    pub const BARRIER_REPLY: u8 = 21;
    pub const METER_MOD: u8 = 29;
    pub const BUNDLE_CONTROL: u8 = 33;
    pub const BUNDLE_ADD: u8 = 34;
}

/// Multipart types.
pub mod part {
    #![allow(missing_docs, reason = "names of the OpenFlow specification")]
    pub const FLOW: u16 = 1;
    pub const PORT_STATS: u16 = 4;
    pub const METER: u16 = 9;
    pub const METER_CONFIG: u16 = 10;
}

/// Bundle control types.
pub mod bundle {
    #![allow(missing_docs, reason = "names of the OpenFlow specification")]
    pub const OPEN: u16 = 0;
    pub const OPENED: u16 = 1;
    pub const COMMIT: u16 = 4;
    pub const COMMITTED: u16 = 5;
    pub const DISCARD: u16 = 6;
    /// Atomic and ordered: packets see all of it or nothing, deletions come before the additions behind them.
    pub const FLAGS: u16 = 3;
}

/// Bytes in network order.
pub trait Put {
    /// One byte.
    fn u8(&mut self, value: u8);
    /// Two bytes.
    fn u16(&mut self, value: u16);
    /// Four bytes.
    fn u32(&mut self, value: u32);
    /// Eight bytes.
    fn u64(&mut self, value: u64);
    /// That many zeros.
    fn zeros(&mut self, count: usize);
    /// Zeros up to a multiple of eight bytes since `from`.
    fn pad(&mut self, from: usize);
    /// Writes the length since `from` into the two bytes at `at`.
    fn close(&mut self, from: usize, at: usize);
}

impl Put for Vec<u8> {
    fn u8(&mut self, value: u8) {
        self.push(value);
    }
    fn u16(&mut self, value: u16) {
        self.extend(value.to_be_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.extend(value.to_be_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.extend(value.to_be_bytes());
    }
    fn zeros(&mut self, count: usize) {
        self.resize(self.len() + count, 0);
    }
    fn pad(&mut self, from: usize) {
        let length = self.len() - from;
        self.zeros(length.next_multiple_of(8) - length);
    }
    fn close(&mut self, from: usize, at: usize) {
        // What does not fit is caught by `message`: a shorter length than bytes would be another message.
        let length = u16::try_from(self.len() - from).unwrap_or(u16::MAX);
        if let Some(field) = self.get_mut(at..at + 2) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// A message that would be longer than its length field can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a flow that takes more than 65535 bytes")]
pub struct TooLong;

/// A whole message.
///
/// # Errors
/// [`TooLong`].
pub fn message(kind: u8, xid: u32, body: &[u8]) -> Result<Vec<u8>, TooLong> {
    let length = u16::try_from(HEADER + body.len()).map_err(|_| TooLong)?;
    let mut out = Vec::with_capacity(length.into());
    out.u8(VERSION);
    out.u8(kind);
    out.u16(length);
    out.u32(xid);
    out.extend_from_slice(body);
    Ok(out)
}

/// The greeting: this version and no other.
#[must_use]
pub fn hello(xid: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.u16(1); // A bitmap of versions.
    body.u16(8);
    body.u32(1 << VERSION);
    let mut out = vec![VERSION, kind::HELLO, 0, 16];
    out.u32(xid);
    out.extend(body);
    out
}

/// What a flow change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Adds, or replaces what has the same table, priority and match.
    Add,
    /// Deletes exactly that table, priority and match.
    DeleteStrict,
}

/// A flow entry, its match and instructions encoded already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Table.
    pub table: u8,
    /// Priority.
    pub priority: u16,
    /// Whose it is.
    pub cookie: u64,
    /// Seconds without a packet after which it goes; 0 never.
    pub idle_timeout: u16,
    /// Seconds after which it goes; 0 never.
    pub hard_timeout: u16,
    /// OXM fields, without `ofp_match` around them.
    pub oxm: Vec<u8>,
    /// Instructions.
    pub instructions: Vec<u8>,
}

/// `ofp_match` around OXM fields.
pub fn put_match(out: &mut Vec<u8>, oxm: &[u8]) {
    let from = out.len();
    out.u16(1); // OXM.
    out.u16(0);
    out.extend_from_slice(oxm);
    out.close(from, from + 2);
    out.pad(from);
}

/// The body of a flow change.
#[must_use]
pub fn flow_mod(change: Change, entry: &Entry) -> Vec<u8> {
    let mut body = Vec::with_capacity(64 + entry.oxm.len() + entry.instructions.len());
    body.u64(entry.cookie);
    // A deletion looks at the cookie too: a flow that another owner put in its place meanwhile stays.
    let (command, cookie_mask) = match change {
        Change::Add => (0, 0),
        Change::DeleteStrict => (4, u64::MAX),
    };
    body.u64(cookie_mask);
    body.u8(entry.table);
    body.u8(command);
    body.u16(entry.idle_timeout);
    body.u16(entry.hard_timeout);
    body.u16(entry.priority);
    body.u32(ANY); // No buffered packet.
    body.u32(ANY);
    body.u32(ANY);
    body.u16(0); // Flags.
    body.u16(0); // Importance.
    put_match(&mut body, &entry.oxm);
    if change == Change::Add {
        body.extend_from_slice(&entry.instructions);
    }
    body
}

/// The body of a bundle control message.
#[must_use]
pub fn bundle_control(id: u32, what: u16) -> Vec<u8> {
    let mut body = Vec::new();
    body.u32(id);
    body.u16(what);
    body.u16(bundle::FLAGS);
    body
}

/// A message inside a bundle, whole; the number is on both.
///
/// # Errors
/// [`TooLong`].
pub fn bundle_add(id: u32, xid: u32, kind: u8, body: &[u8]) -> Result<Vec<u8>, TooLong> {
    let mut outer = Vec::with_capacity(16 + body.len());
    outer.u32(id);
    outer.u16(0);
    outer.u16(bundle::FLAGS);
    outer.extend(message(kind, xid, body)?);
    message(kind::BUNDLE_ADD, xid, &outer)
}

/// The body of a multipart request.
#[must_use]
pub fn multipart(part: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.u16(part);
    out.u16(0);
    out.u32(0);
    out.extend_from_slice(body);
    out
}

/// Asks for all flows whose cookie has these bits.
#[must_use]
pub fn flow_request(cookie: u64, mask: u64) -> Vec<u8> {
    let mut body = Vec::new();
    body.u8(ALL_TABLES);
    body.zeros(3);
    body.u32(ANY);
    body.u32(ANY);
    body.zeros(4);
    body.u64(cookie);
    body.u64(mask);
    put_match(&mut body, &[]);
    multipart(part::FLOW, &body)
}

/// Asks for the counters of all ports.
#[must_use]
pub fn port_request() -> Vec<u8> {
    let mut body = Vec::new();
    body.u32(ANY);
    body.zeros(4);
    multipart(part::PORT_STATS, &body)
}

/// Asks for the counters or the configuration of all meters.
#[must_use]
pub fn meter_request(part: u16) -> Vec<u8> {
    let mut body = Vec::new();
    body.u32(ANY);
    body.zeros(4);
    multipart(part, &body)
}

/// What a meter change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeterChange {
    /// It must not be there yet.
    Add,
    /// It must be there.
    Modify,
    /// It need not be there.
    Delete,
}

/// A meter that drops what is over its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    /// Its number.
    pub id: u32,
    /// Packets instead of kilobits.
    pub packets: bool,
    /// Per second.
    pub rate: u32,
    /// In kilobits or packets.
    pub burst: Option<u32>,
}

impl Meter {
    const KBPS: u16 = 1;
    const PKTPS: u16 = 2;
    const BURST: u16 = 4;
    const STATS: u16 = 8;

    /// The body of a meter change.
    #[must_use]
    pub fn body(&self, change: MeterChange) -> Vec<u8> {
        let mut body = Vec::new();
        body.u16(match change {
            MeterChange::Add => 0,
            MeterChange::Modify => 1,
            MeterChange::Delete => 2,
        });
        let unit = if self.packets {
            Self::PKTPS
        } else {
            Self::KBPS
        };
        let burst = if self.burst.is_some() { Self::BURST } else { 0 };
        body.u16(unit | burst | Self::STATS);
        body.u32(self.id);
        if change != MeterChange::Delete {
            body.u16(1); // Drop.
            body.u16(16);
            body.u32(self.rate);
            body.u32(self.burst.unwrap_or(0));
            body.zeros(4);
        }
        body
    }
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Type.
    pub kind: u8,
    /// Number of the request it belongs to.
    pub xid: u32,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// Cuts a stream into messages; holds at most one, which is at most 65535 bytes long.
#[derive(Debug, Default)]
pub struct Cutter {
    held: Vec<u8>,
}

/// A length field below the header's own length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an OpenFlow message that says it is {0} bytes long")]
pub struct BadLength(pub u16);

impl Cutter {
    /// Takes bytes off the front of `input` until a message is complete; `None` when `input` is used up first.
    ///
    /// # Errors
    /// [`BadLength`]; the connection is of no use then.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Message>, BadLength> {
        self.fill(HEADER, input);
        let Some(&[_, kind, a, b, c, d, e, f]) = self.held.get(..HEADER) else {
            return Ok(None);
        };
        let length = u16::from_be_bytes([a, b]);
        if usize::from(length) < HEADER {
            return Err(BadLength(length));
        }
        self.fill(length.into(), input);
        if self.held.len() < length.into() {
            return Ok(None);
        }
        let body = self.held.split_off(HEADER);
        self.held.clear();
        let xid = u32::from_be_bytes([c, d, e, f]);
        Ok(Some(Message { kind, xid, body }))
    }

    fn fill(&mut self, length: usize, input: &mut &[u8]) {
        let missing = length.saturating_sub(self.held.len()).min(input.len());
        let (take, rest) = input.split_at(missing);
        self.held.extend_from_slice(take);
        *input = rest;
    }
}

/// An error message's type and code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfError {
    /// Type.
    pub kind: u16,
    /// Code.
    pub code: u16,
    /// ONF or Nicira code where the type is 0xffff: the experimenter.
    pub experimenter: u32,
}

impl OfError {
    /// Reads the body of an error message.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        let &[a, b, c, d, ..] = body else { return None };
        let (kind, code) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let experimenter = match (kind, body.get(4..8)) {
            (0xffff, Some(&[a, b, c, d])) => u32::from_be_bytes([a, b, c, d]),
            _ => 0,
        };
        Some(Self {
            kind,
            code,
            experimenter,
        })
    }
}

impl std::fmt::Display for OfError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = match (self.kind, self.code) {
            (0, _) => "it does not speak OpenFlow 1.4 on this bridge (column protocols)",
            (1, 5) => "no permission",
            (2, 0) => "unknown action type",
            (2, 4) => "a port that does not exist",
            (2, 5) => "a bad action argument",
            (2, 7) => "too many actions",
            (2, 8) => "a queue that does not exist",
            (2, 10) => "an action that the match does not allow",
            (2, 13) => "a bad type of value to be set",
            (2, 14) => "a value that cannot be set",
            (3, 2) => "a table that does not exist",
            (4, 4) => "a bad mask",
            (4, 6) => "an unknown match field",
            (4, 7) => "a bad match value",
            (4, 9) => "a match field without what it depends on",
            (4, 10) => "a match field twice",
            (5, 1) => "the flow table is full",
            (5, 2) => "a bad table",
            (5, 3) => "it overlaps another flow",
            (12, 1) => "the meter exists already",
            (12, 2) => "there is no such meter, or there cannot be one of this number",
            (12, 3) => "the meter does not exist",
            (12, 5) => "a bad rate",
            (12, 6) => "a bad burst",
            (12, 11) => "there are too many meters",
            (17, 4) => "a message of the bundle failed",
            _ => "",
        };
        let Self {
            kind,
            code,
            experimenter,
        } = self;
        if *kind == 0xffff {
            write!(f, "OpenFlow error {code} of {experimenter:#x}")
        } else if known.is_empty() {
            write!(f, "OpenFlow error type {kind} code {code}")
        } else {
            write!(f, "{known} (OpenFlow error type {kind} code {code})")
        }
    }
}

#[cfg(test)]
mod tests;
