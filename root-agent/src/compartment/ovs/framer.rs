//! Cuts a stream of JSON objects into single ones: OVSDB replies have neither length nor newline. Pure, no I/O; the OVSDB
//! client feeds it, and so does the fuzzer. What is inside the objects is not judged here.

/// What bounds a hostile or broken peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest object, bytes.
    pub bytes: usize,
    /// Deepest nesting of objects and arrays; the object itself is 1.
    pub depth: usize,
}

impl Limits {
    /// For OVSDB: a switch with a thousand ports answers with about 1 MiB, nested below ten.
    pub const OVSDB: Limits = Limits {
        bytes: 4 << 20,
        depth: 32,
    };
}

/// Why a stream cannot be cut any further; the connection is of no use after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramerError {
    /// One object is longer than the limit.
    #[error("a message of more than {0} bytes")]
    TooLong(usize),
    /// One object is nested deeper than the limit.
    #[error("a message nested deeper than {0}")]
    TooDeep(usize),
    /// Something that is not an object.
    #[error("byte 0x{0:02x} where a JSON object should begin")]
    NotAnObject(u8),
    /// `]` closes `{` or the other way round.
    #[error("brackets that do not match")]
    Mismatched,
}

/// Where one byte of a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Plain,
    Text,
    Escape,
}

/// A cutter for one direction of one connection. Every byte is looked at once.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    value: Vec<u8>,
    /// Open brackets, outermost first.
    open: Vec<u8>,
    state: State,
    /// Stays once it has happened.
    broken: Option<FramerError>,
}

impl Framer {
    /// A cutter at the beginning of a stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            value: Vec::new(),
            open: Vec::new(),
            state: State::Plain,
            broken: None,
        }
    }

    /// Takes bytes off the front of `input` until an object is complete, and returns that; `None` when `input` is used
    /// up first. Holds at most the limit.
    ///
    /// # Errors
    /// [`FramerError`], and from then on always the same.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, FramerError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        for (at, &byte) in input.iter().enumerate() {
            match self.step(byte) {
                Ok(false) => {}
                Ok(true) => {
                    *input = input.get(at + 1..).unwrap_or_default();
                    return Ok(Some(std::mem::take(&mut self.value)));
                }
                Err(error) => {
                    self.broken = Some(error);
                    self.value = Vec::new();
                    return Err(error);
                }
            }
        }
        *input = &[];
        Ok(None)
    }

    /// Whether the stream ends between two objects.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.open.is_empty()
    }

    /// One byte; true when it ends an object.
    fn step(&mut self, byte: u8) -> Result<bool, FramerError> {
        if self.open.is_empty() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => return Ok(false),
                b'{' => {}
                other => return Err(FramerError::NotAnObject(other)),
            }
        }
        if self.value.len() == self.limits.bytes {
            return Err(FramerError::TooLong(self.limits.bytes));
        }
        self.value.push(byte);
        match (self.state, byte) {
            (State::Escape, _) => self.state = State::Text,
            (State::Text, b'\\') => self.state = State::Escape,
            (State::Text, b'"') => self.state = State::Plain,
            (State::Text, _) => {}
            (State::Plain, b'"') => self.state = State::Text,
            (State::Plain, b'{' | b'[') => {
                if self.open.len() == self.limits.depth {
                    return Err(FramerError::TooDeep(self.limits.depth));
                }
                self.open.push(byte);
            }
            (State::Plain, b'}' | b']') => {
                let wanted = if byte == b'}' { b'{' } else { b'[' };
                if self.open.pop() != Some(wanted) {
                    return Err(FramerError::Mismatched);
                }
                return Ok(self.open.is_empty());
            }
            (State::Plain, _) => {}
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Limits = Limits {
        bytes: 64,
        depth: 4,
    };

    fn cut(limits: Limits, chunks: &[&[u8]]) -> Result<Vec<String>, FramerError> {
        let mut framer = Framer::new(limits);
        let mut found = Vec::new();
        for chunk in chunks {
            let mut rest = *chunk;
            while let Some(value) = framer.next(&mut rest)? {
                found.push(String::from_utf8(value).expect("text"));
            }
            assert!(rest.is_empty(), "bytes are left over");
        }
        Ok(found)
    }

    #[test]
    fn objects_without_anything_between_them_are_cut_apart() {
        let found = cut(SMALL, &[br#"{"a":"}{"}{"b":[1,{}]} {"c":"\"}"}"#]);
        assert_eq!(
            found.expect("cut"),
            [r#"{"a":"}{"}"#, r#"{"b":[1,{}]}"#, r#"{"c":"\"}"}"#]
        );
    }

    #[test]
    fn what_is_not_an_object_or_does_not_match_is_refused() {
        for (input, error) in [
            (&b"[1]"[..], FramerError::NotAnObject(b'[')),
            (b"{}1", FramerError::NotAnObject(b'1')),
            (b"{}\0", FramerError::NotAnObject(0)),
            (b"\xef\xbb\xbf{}", FramerError::NotAnObject(0xef)),
            (br#"{"a":[1}"#, FramerError::Mismatched),
            (b"{]", FramerError::Mismatched),
        ] {
            assert_eq!(cut(SMALL, &[input]), Err(error));
        }
    }

    #[test]
    fn an_endless_value_stops_at_the_limit_and_is_let_go() {
        let mut framer = Framer::new(SMALL);
        let mut input: &[u8] = br#"{"endless":""#;
        assert_eq!(framer.next(&mut input), Ok(None));
        for _ in 0..10 {
            let mut more: &[u8] = &[b'x'; 16];
            if let Err(error) = framer.next(&mut more) {
                assert_eq!(error, FramerError::TooLong(64));
            }
            assert!(framer.value.len() <= 64);
        }
        assert_eq!(framer.value.capacity(), 0, "memory is kept after the end");
        let mut good: &[u8] = b"{}";
        assert_eq!(framer.next(&mut good), Err(FramerError::TooLong(64)));
    }

    #[test]
    fn nesting_stops_at_the_limit_and_not_before() {
        assert_eq!(cut(SMALL, &[br#"{"a":[[[]]]}"#]).expect("cut").len(), 1);
        assert_eq!(cut(SMALL, &[br#"{"a":[[[["#]), Err(FramerError::TooDeep(4)));
    }

    proptest! {
        #[test]
        fn where_the_stream_is_torn_changes_nothing(
            texts in proptest::collection::vec(r#"[\[\]{}"\\a ]{0,8}"#, 1..5),
            tears in proptest::collection::vec(0usize..200, 0..6),
        ) {
            let stream: String = texts
                .iter()
                .map(|text| serde_json::json!({"k": [text, {"n": text}]}).to_string())
                .collect();
            let mut tears: Vec<usize> = tears.into_iter().filter(|&at| at < stream.len()).collect();
            tears.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for at in tears {
                chunks.push(&stream.as_bytes()[from..at]);
                from = at;
            }
            chunks.push(&stream.as_bytes()[from..]);
            prop_assert_eq!(cut(Limits::OVSDB, &chunks), cut(Limits::OVSDB, &[stream.as_bytes()]));
            prop_assert_eq!(cut(Limits::OVSDB, &chunks).expect("cut").len(), texts.len());
        }

        #[test]
        fn no_bytes_at_all_can_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut framer = Framer::new(SMALL);
            let mut rest = bytes.as_slice();
            while let Ok(Some(value)) = framer.next(&mut rest) {
                prop_assert!(value.len() <= SMALL.bytes);
            }
            prop_assert!(framer.value.len() <= SMALL.bytes && framer.open.len() <= SMALL.depth);
        }
    }
}
