//! Bytes of netlink messages of any family: building requests, splitting and reading answers. Every length that comes in
//! is checked against what is there; nothing here does I/O. Numbers are in host byte order, as netlink wants them.
//! What the fields of one family mean stands beside its requests, in `link`, `route`, `tc`, `generic`, `conntrack`.

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// This is a request.
const NLM_F_REQUEST: u16 = 1;
/// Answer with an acknowledgement.
const NLM_F_ACK: u16 = 4;
/// In an answer: what is listed changed since the list was begun.
pub const NLM_F_DUMP_INTR: u16 = 0x10;
/// Replace what is there.
pub const NLM_F_REPLACE: u16 = 0x100;
/// Fail where it is there already.
pub const NLM_F_EXCL: u16 = 0x200;
/// Everything that matches, in many messages.
pub const NLM_F_DUMP: u16 = 0x300;
/// Make it where it is not there.
pub const NLM_F_CREATE: u16 = 0x400;
/// Beside what is there.
pub const NLM_F_APPEND: u16 = 0x800;

/// Flag of an attribute that holds attributes.
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;

/// A request under construction, or the inside of one attribute of it.
#[derive(Debug, Default)]
pub struct Builder(Vec<u8>);

impl Builder {
    /// The header; length and sequence number are written by [`Builder::done`].
    #[must_use]
    pub fn request(kind: u16, flags: u16) -> Self {
        let acknowledged = if flags & NLM_F_DUMP == NLM_F_DUMP {
            0
        } else {
            NLM_F_ACK
        };
        Self(Vec::with_capacity(256))
            .raw(&[0; 4])
            .raw(&kind.to_ne_bytes())
            .raw(&(flags | NLM_F_REQUEST | acknowledged).to_ne_bytes())
            .raw(&[0; 8])
    }

    /// The inside of an attribute.
    #[must_use]
    pub fn inside() -> Self {
        Self::default()
    }

    /// Bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// One attribute, padded. Values are names, addresses, keys and numbers; a list of them is bounded by its type.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self = self
            .raw(&length.to_ne_bytes())
            .raw(&kind.to_ne_bytes())
            .raw(value);
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
        self
    }

    /// A text with the zero that ends it.
    #[must_use]
    pub fn text(self, kind: u16, text: &str) -> Self {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.attribute(kind, &value)
    }

    /// A number of 32 bits.
    #[must_use]
    pub fn u32(self, kind: u16, number: u32) -> Self {
        self.attribute(kind, &number.to_ne_bytes())
    }

    /// An attribute of attributes.
    #[must_use]
    pub fn nest(self, kind: u16, inside: Builder) -> Self {
        self.attribute(kind | NESTED, &inside.0)
    }

    /// Length so far; a message that is to be one datagram has a limit.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True before anything was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes so far, without a header.
    #[cfg(test)]
    pub(crate) fn done_inside(self) -> Vec<u8> {
        self.0
    }

    /// The whole message.
    pub(super) fn done(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        for (at, number) in [(0, length), (8, sequence)] {
            if let Some(field) = self.0.get_mut(at..at + 4) {
                field.copy_from_slice(&number.to_ne_bytes());
            }
        }
        self.0
    }
}

/// One message of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is.
    pub kind: u16,
    /// Flags, such as [`NLM_F_DUMP_INTR`].
    pub flags: u16,
    /// Which request it answers.
    pub sequence: u32,
    /// Everything behind the header.
    pub body: &'a [u8],
}

/// What a message says about the request as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Error number, 0 for success.
    Ended(i32),
    /// An end that is cut or impossible.
    Torn,
}

/// Splits a datagram; yields one `None` and ends where a length field leads outside of it.
pub fn messages(mut rest: &[u8]) -> impl Iterator<Item = Option<Message<'_>>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let taken = take_message(rest);
        rest = taken.as_ref().map_or(&[], |(_, rest)| rest);
        Some(taken.map(|(message, _)| message))
    })
}

fn take_message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER..length)?;
    let message = Message {
        kind: u16_at(bytes, 4)?,
        flags: u16_at(bytes, 6)?,
        sequence: u32_at(bytes, 8)?,
        body,
    };
    Some((message, bytes.get(align(length)..).unwrap_or_default()))
}

/// `None`: not the end of an answer.
#[must_use]
pub fn verdict(kind: u16, body: &[u8]) -> Option<Verdict> {
    // The end of a list carries a number only where something went wrong in the middle of it.
    if kind == NLMSG_DONE && body.len() < 4 {
        return Some(Verdict::Ended(0));
    }
    matches!(kind, NLMSG_ERROR | NLMSG_DONE).then(|| {
        u32_at(body, 0)
            .and_then(|code| code.cast_signed().checked_neg())
            .filter(|code| *code >= 0)
            .map_or(Verdict::Torn, Verdict::Ended)
    })
}

/// Attributes as (kind, value); ends silently where a length leads outside: what was read before stays true.
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Without the flag bits: nested, network byte order.
    const KIND: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & KIND;
        let value = rest.get(4..length)?;
        rest = rest.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of that kind.
#[must_use]
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

/// A text attribute without the zero that ends it.
#[must_use]
pub fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0])?).ok()
}

fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// A number in host byte order.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

/// A number in host byte order.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

/// A number in host byte order.
#[must_use]
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(
        bytes.get(at..at.checked_add(8)?)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_field_that_leads_outside_ends_the_reading() {
        let good = Builder::request(18, 0).text(3, "eth0").done(7);
        for claimed in [0u32, 15, u32::try_from(good.len()).unwrap() + 1, u32::MAX] {
            let mut bytes = good.clone();
            bytes[..4].copy_from_slice(&claimed.to_ne_bytes());
            assert_eq!(
                messages(&bytes).collect::<Vec<_>>(),
                [None],
                "claimed length {claimed}"
            );
        }
    }

    #[test]
    fn an_attribute_of_length_zero_does_not_loop() {
        assert_eq!(attributes(&[0, 0, 1, 0, 0, 0, 1, 0]).count(), 0);
    }

    #[test]
    fn a_positive_or_extreme_error_number_is_not_taken_for_success() {
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            for code in [1i32, i32::MAX, i32::MIN] {
                let verdict = verdict(kind, &code.to_ne_bytes());
                assert_eq!(verdict, Some(Verdict::Torn), "{code}");
            }
            let verdict = verdict(kind, &(-19i32).to_ne_bytes());
            assert_eq!(verdict, Some(Verdict::Ended(19)));
        }
        assert_eq!(verdict(NLMSG_ERROR, &[0, 0]), Some(Verdict::Torn));
        assert_eq!(verdict(NLMSG_DONE, &[]), Some(Verdict::Ended(0)));
    }

    #[test]
    fn a_request_is_one_whole_message_of_its_own_length() {
        let inside = Builder::inside().u32(1, 7).text(2, "x");
        let bytes = Builder::request(24, NLM_F_CREATE)
            .raw(&[0; 12])
            .nest(5, inside)
            .done(9);
        assert_eq!(u32_at(&bytes, 0).unwrap() as usize, bytes.len());
        let all: Vec<_> = messages(&bytes).flatten().collect();
        assert_eq!((all.len(), all[0].kind, all[0].sequence), (1, 24, 9));
        let nested = attribute(&all[0].body[12..], 5).unwrap();
        assert_eq!(attribute(nested, 2).and_then(text), Some("x"));
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_reader_panic_or_read_outside(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for message in messages(&bytes).flatten() {
                prop_assert!(message.body.len() <= bytes.len());
                let _ = verdict(message.kind, message.body);
            }
            for (_, value) in attributes(&bytes) {
                prop_assert!(attributes(value).count() <= value.len());
            }
        }
    }
}
