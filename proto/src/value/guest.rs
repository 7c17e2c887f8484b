//! What is named inside a guest's file system: paths, modes, packages, and free text that only the guest reads.

use std::fmt;

use serde_json::{Value, json};

use super::{Text, made_of, text_newtype, text_value};

/// An absolute path inside a guest, never `/` itself. No blank, quote or pattern character: tools that take it see one
/// word and match nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestPath(String);

/// Name of a package in the guest's distribution.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageName(String);

/// Free text for the guest, a command or the contents of a file: at most 16384 bytes without NUL. The host never
/// interprets it. It may hold what not everyone should read: `{:?}` and messages do not show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GuestText(String);

/// Permissions of a file, three or four octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileMode(u16);

text_newtype!(GuestPath, PackageName, GuestText);
text_value!(FileMode);

impl fmt::Debug for GuestText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestText({} bytes)", self.0.len())
    }
}

impl GuestText {
    /// True when it fits one line of a file.
    #[must_use]
    pub fn is_one_line(&self) -> bool {
        !self.0.contains(['\n', '\r'])
    }
}

impl FileMode {
    /// The bits: 0..=0o7777.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Text for GuestPath {
    const KIND: &'static str = "path in the guest";
    const RULE: &'static str = "an absolute path of components of letters, digits and _ . + @ = ~ -, without . or .., not / itself";
    fn read(text: &str) -> Option<Self> {
        let part = |part: &str| {
            made_of(part, 1..=255, |b| {
                b.is_ascii_alphanumeric() || b"_.+@=~-".contains(&b)
            }) && part != "."
                && part != ".."
        };
        let rest = text.strip_prefix('/')?;
        (text.len() <= 1024 && rest.split('/').all(part)).then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "maxLength": 1024, "pattern": "^(/(?!\\.{1,2}(/|$))[A-Za-z0-9_.+@=~-]{1,255})+$"})
    }
}

impl Text for PackageName {
    const KIND: &'static str = "package name";
    const RULE: &'static str =
        "a letter a-z or a digit, then up to 127 of a-z, 0-9, + . and -, not ending with -";
    fn read(text: &str) -> Option<Self> {
        let good = made_of(text, 1..=128, |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"+.-".contains(&b)
        }) && text.as_bytes()[0].is_ascii_alphanumeric()
            // To the guest's package manager that is a package to remove.
            && !text.ends_with('-');
        good.then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[a-z0-9]([a-z0-9+.-]{0,126}[a-z0-9+.])?$"})
    }
}

impl Text for GuestText {
    const KIND: &'static str = "text for the guest";
    const RULE: &'static str = "at most 16384 bytes without NUL";
    const QUOTED: bool = false;
    fn read(text: &str) -> Option<Self> {
        (text.len() <= 16_384 && !text.contains('\0')).then(|| Self(text.to_owned()))
    }
    fn text_schema() -> Value {
        json!({"type": "string", "maxLength": 16384})
    }
}

impl Text for FileMode {
    const KIND: &'static str = "file mode";
    const RULE: &'static str = "three or four octal digits, such as 0644";
    fn read(text: &str) -> Option<Self> {
        made_of(text, 3..=4, |b| (b'0'..=b'7').contains(&b))
            .then(|| u16::from_str_radix(text, 8).ok())?
            .map(Self)
    }
    fn text_schema() -> Value {
        json!({"type": "string", "pattern": "^[0-7]{3,4}$"})
    }
}
