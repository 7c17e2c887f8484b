//! System users, read from `/etc/passwd`.

use std::path::Path;

use super::{WorldError, at};

/// A system user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Number of its main group.
    pub gid: u32,
}

/// Looks a user up.
///
/// # Errors
/// [`WorldError::NoUser`] when there is none of that name.
pub fn account(name: &str) -> Result<Account, WorldError> {
    let path = Path::new("/etc/passwd");
    let text = at("reading", path, std::fs::read_to_string(path))?;
    find(&text, name).ok_or_else(|| WorldError::NoUser {
        name: name.to_owned(),
    })
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(Account {
        name: name.to_owned(),
        uid: fields.next()?.parse().ok()?,
        gid: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_only_begins_alike_is_another_user() {
        let passwd = "blockhost-vm:x:994:993::/nonexistent:/usr/sbin/nologin\nblockhost:x:997:996::/:/bin/false\n";
        assert_eq!(find(passwd, "blockhost").map(|found| found.uid), Some(997));
        assert_eq!(find(passwd, "block"), None);
    }
}
