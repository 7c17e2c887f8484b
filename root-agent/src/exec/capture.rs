//! What is kept of a program's output: its first and its last bytes, and how many were dropped between them.

use std::collections::VecDeque;
use std::fmt::Write as _;

/// Output of bounded size. Bytes that are not printable text are escaped, never changed silently.
#[derive(Debug, Clone)]
pub struct Captured {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    half: usize,
    total: u64,
}

impl Captured {
    /// Keeps at most `keep` bytes, half of them from the end.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Captured {
            head: Vec::new(),
            tail: VecDeque::new(),
            half: keep / 2,
            total: 0,
        }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.half.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        let rest = rest
            .get(rest.len().saturating_sub(self.half)..)
            .unwrap_or_default();
        let surplus = (self.tail.len() + rest.len()).saturating_sub(self.half);
        self.tail.drain(..surplus);
        self.tail.extend(rest);
    }

    /// How many bytes between head and tail were not kept.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.total - (self.head.len() + self.tail.len()) as u64
    }

    /// The kept bytes as they came; `None` when some are missing, so that nobody parses a torn document.
    #[must_use]
    pub fn whole(&self) -> Option<Vec<u8>> {
        (self.dropped() == 0).then(|| self.head.iter().chain(&self.tail).copied().collect())
    }

    /// Readable text: UTF-8 as it is, line feeds and tabs kept, every other control character, changer of
    /// direction or broken byte escaped, a line that says what is missing in the middle.
    #[must_use]
    pub fn to_text(&self) -> String {
        if let Some(whole) = self.whole() {
            return escape(&whole);
        }
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        format!(
            "{}\n[... {} bytes left out ...]\n{}",
            escape(&self.head),
            self.dropped(),
            escape(&tail)
        )
    }
}

/// Printable form of bytes from outside: reversible but for what it shows, never lossy by replacement characters.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' | '\t' => text.push(character),
                c if c.is_control() || rearranges(c) => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Characters that separate lines or turn the direction of what follows: in a log they forge what the eye reads.
fn rearranges(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_output_keeps_only_its_ends() {
        let mut captured = Captured::new(8);
        for chunk in [&b"ab"[..], b"cdefgh", b"ijklmnopqrstuvw", b"xyz"] {
            captured.push(chunk);
        }
        assert_eq!(captured.dropped(), 18);
        assert!(captured.whole().is_none());
        assert_eq!(
            captured.to_text(),
            "abcd\n[... 18 bytes left out ...]\nwxyz"
        );
    }

    #[test]
    fn output_that_just_fits_is_whole() {
        let mut captured = Captured::new(8);
        captured.push(b"abc");
        captured.push(b"defgh");
        assert_eq!(captured.whole().as_deref(), Some(&b"abcdefgh"[..]));
    }

    #[test]
    fn a_line_cannot_be_made_to_read_backwards_or_to_look_like_two() {
        let text = escape("to\u{202e}dab\u{2066}\u{2028}line é".as_bytes());
        assert_eq!(text, "to\\u{202e}dab\\u{2066}\\u{2028}line é");
    }

    #[test]
    fn terminal_sequences_and_broken_bytes_cannot_reach_a_log_raw() {
        assert_eq!(
            escape(b"a\x1b[31m\r\0\xff\xc3\xa9\n"),
            "a\\u{1b}[31m\\r\\u{0}\\xff\u{e9}\n"
        );
    }
}
