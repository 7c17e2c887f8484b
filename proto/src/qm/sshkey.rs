//! `sshkeys`: OpenSSH public keys, one per line, each taken apart: no options in front, a known type, and a blob that
//! says the same type inside.

use std::fmt;

use crate::value::made_of;

/// Key types that guests accept.
const TYPES: &[&str] = &[
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// One to sixteen public keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SshKeys(Vec<String>);

impl SshKeys {
    pub(crate) const RULE: &'static str = "one to sixteen OpenSSH public keys, one per line: <type> <base64> [comment], without options";

    /// Reads keys, one per line; one newline may follow the last.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text
            .strip_suffix('\n')
            .unwrap_or(text)
            .split('\n')
            .collect();
        if lines.len() > 16 {
            return None;
        }
        lines
            .into_iter()
            .map(|line| key(line).then(|| line.to_owned()))
            .collect::<Option<_>>()
            .map(Self)
    }

    /// The keys.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.0
    }

    /// Percent-encoded, as a Proxmox configuration file holds them.
    #[must_use]
    pub fn to_percent_encoded(&self) -> String {
        use fmt::Write as _;
        self.to_string().bytes().fold(String::new(), |mut out, b| {
            if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
                out.push(char::from(b));
            } else {
                let _ = write!(out, "%{b:02X}");
            }
            out
        })
    }

    /// Reads what [`Self::to_percent_encoded`] wrote.
    #[must_use]
    pub fn from_percent_encoded(text: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            if first == b'%' {
                let (digits, tail) = rest.split_at_checked(2)?;
                let digits = std::str::from_utf8(digits)
                    .ok()
                    .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = tail;
            } else {
                bytes.push(first);
            }
        }
        Self::read(&String::from_utf8(bytes).ok()?)
    }
}

impl fmt::Display for SshKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

fn key(line: &str) -> bool {
    if !made_of(line, 1..=8192, |b| (b' '..=b'~').contains(&b)) {
        return false;
    }
    let mut parts = line.splitn(3, ' ');
    let (Some(kind), Some(blob)) = (parts.next(), parts.next()) else {
        return false;
    };
    if !TYPES.contains(&kind) {
        return false;
    }
    let Some(blob) = base64(blob) else {
        return false;
    };
    // The blob is a sequence of strings with their length in front; the first repeats the type, the rest fill it exactly.
    let mut fields = Vec::new();
    let mut rest = blob.as_slice();
    while !rest.is_empty() {
        let Some((length, tail)) = rest.split_at_checked(4) else {
            return false;
        };
        let length = length.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
        let Some((field, tail)) = tail.split_at_checked(length) else {
            return false;
        };
        fields.push(field);
        rest = tail;
    }
    fields.first().is_some_and(|name| *name == kind.as_bytes())
        && fields.len() >= 2
        && (kind != "ssh-ed25519" || fields[1].len() == 32)
}

/// Standard alphabet with padding, nothing else.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 {
        return None;
    }
    let (mut bits, mut held, mut out) = (0u32, 0u8, Vec::with_capacity(text.len() / 4 * 3));
    for b in digits.bytes() {
        let six = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    // Bits left over must be zero, or two texts would mean one key.
    (bits == 0).then_some(out)
}

/// The text of these bytes, as [`base64`] reads it.
#[cfg(test)]
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=three.len()].copy_from_slice(three);
        let bits = u32::from_be_bytes(padded);
        for digit in 0..4 {
            let six = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap();
            text.push(if digit <= three.len() {
                char::from(DIGITS[six])
            } else {
                '='
            });
        }
    }
    text
}
