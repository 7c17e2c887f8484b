//! Sockets beside the agent's own: `sockets:` of the policy file, for hosts where systemd does not pass them. A rule
//! that names a socket counts for those only who came by it, so that the socket's group says who they are.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::rule::{Account, given};

/// The name of the agent's own socket.
pub const MAIN: &str = "root-agent";

/// Sockets at once.
pub const MAX_SOCKETS: usize = 16;

/// The name of a socket: `[a-z][a-z0-9-]{0,31}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SocketName(String);

impl SocketName {
    /// The agent's own.
    pub fn main() -> Self {
        Self(MAIN.to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SocketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SocketName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let good = text.len() <= 32
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if good {
            return Ok(Self(text));
        }
        Err(format!(
            "`{}` is no name of a socket; a small letter, then at most 31 of a-z, 0-9, `-`",
            text.escape_default()
        ))
    }
}

impl From<SocketName> for String {
    fn from(name: SocketName) -> Self {
        name.0
    }
}

/// A file name directly below the run directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SocketFile(String);

impl SocketFile {
    /// The file of a socket that does not say.
    pub fn of(name: &SocketName) -> Self {
        Self(format!("{name}.sock"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SocketFile {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bare = text.strip_suffix(".sock").unwrap_or("");
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        // Without the ending a name could be that of a lock or state file in the same directory.
        if (1..=64).contains(&bare.len()) && bare.bytes().all(plain) {
            return Ok(Self(text));
        }
        Err(format!(
            "`{}` is no file name for a socket; letters, digits, `-`, `_` and `.sock` at the end, without a directory",
            text.escape_default()
        ))
    }
}

impl From<SocketFile> for String {
    fn from(file: SocketFile) -> Self {
        file.0
    }
}

/// Permissions of a socket file, as four octal digits in quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SocketMode(u32);

impl SocketMode {
    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<String> for SocketMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "0600" => Ok(Self(0o600)),
            "0660" => Ok(Self(0o660)),
            "0666" => Ok(Self(0o666)),
            _ => Err(format!(
                "`{}` is no mode for a socket; '0600', '0660' or '0666', in quotes",
                text.escape_default()
            )),
        }
    }
}

impl From<SocketMode> for String {
    fn from(mode: SocketMode) -> Self {
        format!("{:04o}", mode.0)
    }
}

/// One entry of `sockets:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketSpec {
    /// File below the run directory; `NAME.sock` where it is not given.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub path: Option<SocketFile>,
    /// Group of the file.
    pub group: Account,
    /// Permissions of the file.
    #[serde(default = "SocketSpec::usual_mode")]
    pub mode: SocketMode,
}

impl SocketSpec {
    fn usual_mode() -> SocketMode {
        SocketMode(0o660)
    }

    /// The file.
    pub fn file(&self, name: &SocketName) -> SocketFile {
        self.path.clone().unwrap_or_else(|| SocketFile::of(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_stays_in_its_directory_and_out_of_the_way_of_other_files() {
        for bad in [
            "",
            ".sock",
            "/run/x.sock",
            "../x.sock",
            "a/b.sock",
            "provisioning.lock",
            "x",
            "a b.sock",
            "a\n.sock",
            "a..sock",
            "-\0.sock",
        ] {
            assert!(SocketFile::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(SocketFile::try_from("monitor.sock".to_owned()).is_ok());
    }

    #[test]
    fn names_and_modes_are_what_they_look_like() {
        for bad in ["", "-a", "A", "a_b", "0a", "a/b", &"a".repeat(33)] {
            assert!(SocketName::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        let read = |text: &str| serde_saphyr::from_str::<SocketSpec>(text);
        assert_eq!(
            read("group: adm\nmode: '0666'").expect("valid").mode.bits(),
            0o666
        );
        assert_eq!(read("group: 4").expect("valid").mode.bits(), 0o660);
        // Without quotes one reader takes 0660 for octal and another for decimal.
        for bad in [
            "group: adm\nmode: '4755'",
            "group: adm\nmode: '0777'",
            "group: adm\nmode: 432",
            "mode: '0660'",
            "group: adm\nowner: x",
            "group: adm\npath:",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
