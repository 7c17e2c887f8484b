//! How bytes from outside are shown: escaped to printable ASCII and cut, so that no log line can be forged with them.
//! Every error message of this crate that quotes a client's value goes through here.

use std::fmt::Write as _;

/// How many characters of a foreign value a message shows.
pub const SHOWN: usize = 64;

/// Printable ASCII as it is, everything else (and backslash, quote) escaped; cut after [`SHOWN`] source characters with `...`.
#[must_use]
pub fn shown(text: &str) -> String {
    shown_up_to(text, SHOWN)
}

/// Like [`shown`], with the number of source characters to keep.
#[must_use]
pub fn shown_up_to(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == limit {
            out.push_str("...");
            break;
        }
        match c {
            ' '..='~' if c != '\\' && c != '"' => out.push(c),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            _ => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    out
}

/// Bytes for a log: what is UTF-8 as in [`shown`], the rest as `\xNN`.
#[must_use]
pub fn shown_bytes(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes[..bytes.len().min(4 * SHOWN)].utf8_chunks() {
        out.push_str(&shown(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    if bytes.len() > 4 * SHOWN {
        out.push_str("...");
    }
    out
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// The longest beginning of `text` of at most `limit` bytes that ends at a character boundary.
#[must_use]
pub fn cut_to(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Cuts `text` to at most `limit` bytes at a character boundary; true when something was cut.
pub fn cut(text: &mut String, limit: usize) -> bool {
    let kept = cut_to(text, limit).len();
    let cut = kept < text.len();
    text.truncate(kept);
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_or_an_escape_sequence_never_reaches_a_log_raw() {
        assert_eq!(
            shown("a\nb\u{1b}[31m\u{202e}\"\\"),
            "a\\nb\\u{1b}[31m\\u{202e}\\\"\\\\"
        );
        assert_eq!(shown_bytes(b"ok\xff\n"), "ok\\xff\\n");
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        assert_eq!(shown(&"ä".repeat(100)).matches("\\u{e4}").count(), SHOWN);
        let mut text = "aä".to_owned();
        assert!(cut(&mut text, 2));
        assert_eq!(text, "a");
    }
}
