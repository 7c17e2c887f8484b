//! Longer texts: sizes of disks and commands for the inside of a guest.

use std::fmt;

use serde_json::{Value, json};

use super::{Text, decimal, text_newtype, text_value};

/// Target of a resize: `20G` (never smaller than it is) or `+10G`; units M, G, T.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DiskSize {
    relative: bool,
    mib: u64,
}

/// A command line for `/bin/sh -c` inside the guest: 1 to 16384 bytes without NUL. It never reaches a shell of the host.
/// It may hold a secret: neither messages nor `{:?}` show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GuestCommand(String);

impl fmt::Debug for GuestCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestCommand({} bytes)", self.0.len())
    }
}

impl DiskSize {
    /// 64 TiB.
    const MAX_MIB: u64 = 64 << 20;

    /// True for `+N`: grow by that much.
    #[must_use]
    pub const fn is_relative(self) -> bool {
        self.relative
    }

    /// The number in MiB.
    #[must_use]
    pub const fn mib(self) -> u64 {
        self.mib
    }
}

impl fmt::Display for DiskSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.relative { "+" } else { "" };
        if self.mib.is_multiple_of(1024) {
            write!(f, "{sign}{}G", self.mib / 1024)
        } else {
            write!(f, "{sign}{}M", self.mib)
        }
    }
}

impl Text for DiskSize {
    const KIND: &'static str = "disk size";
    const RULE: &'static str = "a whole number with M, G or T, such as 20G or +10G, at most 64T";
    fn read(text: &str) -> Option<Self> {
        let (relative, rest) = text
            .strip_prefix('+')
            .map_or((false, text), |rest| (true, rest));
        let unit = rest.bytes().last()?;
        let factor = match unit {
            b'M' => 1,
            b'G' => 1024,
            b'T' => 1 << 20,
            _ => return None,
        };
        let mib = decimal(&rest[..rest.len() - 1])?.checked_mul(factor)?;
        (1..=Self::MAX_MIB)
            .contains(&mib)
            .then_some(Self { relative, mib })
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^\\+?[1-9][0-9]{0,7}[MGT]$"})
    }
}

impl Text for GuestCommand {
    const KIND: &'static str = "guest command";
    const RULE: &'static str = "1 to 16384 bytes without NUL";
    const QUOTED: bool = false;
    fn read(text: &str) -> Option<Self> {
        ((1..=16_384).contains(&text.len()) && !text.contains('\0')).then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "minLength": 1, "maxLength": 16384})
    }
}

text_newtype!(GuestCommand);
text_value!(DiskSize);
