//! Where the monitor of a container listens. LXC takes an abstract socket with the path of its directory in its name, and
//! whoever is quicker may have such a name. So each start of a container gives the directory another one, which nobody
//! can know before, and who listens there is asked of the kernel before they are heard.
#![forbid(unsafe_code)]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::lxc::Lxc;
use crate::config::write_atomically;
use crate::error::{Error, IoContext, Result};
use crate::sys;

/// The file in a container's directory with what is random in the name.
const FILE: &str = "monitor";
/// Random bytes of a name.
const RANDOM: usize = 16;
/// Longest name of an abstract socket for which LXC takes no other one.
const LONGEST: usize = 107;

/// In the directory itself: LXC wants a path that root of the container may pass through.
fn link(lxc: &Lxc, word: &str) -> PathBuf {
    lxc.containers.join(format!(".lxc-{word}"))
}

fn file(lxc: &Lxc, vmid: u32) -> PathBuf {
    lxc.containers.join(vmid.to_string()).join(FILE)
}

/// The word that was drawn at the last start; `None` before the first one.
fn word(lxc: &Lxc, vmid: u32) -> Result<Option<String>> {
    let path = file(lxc, vmid);
    let text = match fs::read_to_string(&path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        other => other.at("cannot read", &path)?,
    };
    let word = text.trim();
    if word.len() == 2 * RANDOM && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(Some(word.to_owned()))
    } else {
        Err(Error::Failed(format!(
            "{}: '{}' is no name of a monitor; stop the container, which forgets it",
            path.display(),
            word.escape_default()
        )))
    }
}

/// Draws a new name for the directory of all containers, under which one of them is started.
///
/// # Errors
/// When it cannot be written down.
pub fn fresh(lxc: &Lxc, vmid: u32) -> Result<PathBuf> {
    forget(lxc, vmid);
    let random = sys::random::<RANDOM>().at("cannot read", "random bytes")?;
    let word: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let place = link(lxc, &word);
    let name = socket(&place, vmid);
    if name.len() > LONGEST {
        return Err(Error::Environment(format!(
            "the path {} is too long for the name of a socket: {} bytes are {} too many",
            place.display(),
            name.len(),
            name.len() - LONGEST
        )));
    }
    write_atomically(&file(lxc, vmid), format!("{word}\n").as_bytes(), 0o600)?;
    symlink(".", &place).at("cannot create", &place)?;
    Ok(place)
}

/// The name of the directory under which a container was started last; `None` where that is known to be over.
///
/// # Errors
/// When what is written down cannot be read.
pub fn of(lxc: &Lxc, vmid: u32) -> Result<Option<PathBuf>> {
    let Some(word) = word(lxc, vmid)? else {
        return Ok(None);
    };
    let place = link(lxc, &word);
    // It is gone where somebody tidied up.
    match symlink(".", &place) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e).at("cannot create", &place),
        _ => Ok(Some(place)),
    }
}

/// Forgets the name of a container of which nothing runs.
pub fn forget(lxc: &Lxc, vmid: u32) {
    if let Ok(Some(word)) = word(lxc, vmid) {
        let place = link(lxc, &word);
        // Where LXC keeps its locks for what lies at a path.
        let locks = place.strip_prefix("/").unwrap_or(&place);
        let _ = fs::remove_dir_all(lxc.run.join("lxc/lock").join(locks));
        let _ = fs::remove_file(place);
    }
    let _ = fs::remove_file(file(lxc, vmid));
}

/// Name of the abstract socket where LXC's monitor of a container listens.
pub fn socket(place: &Path, vmid: u32) -> String {
    format!("{}/{vmid}/command", place.display())
}

/// Asks the kernel whose process listens at an abstract socket; `None` where there is none.
///
/// # Errors
/// When it lets nobody in for this long.
pub fn who_listens(name: &str, limit: Duration) -> Result<Option<u32>> {
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())
        .map_err(|e| Error::Failed(format!("@{name}: {e}")))?;
    let end = Instant::now() + limit;
    loop {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .at("cannot make", "a socket")?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => {
                let peer = rustix::net::sockopt::socket_peercred(&socket)
                    .at("cannot ask for", "the other end")?;
                return Ok(Some(peer.uid.as_raw()));
            }
            Err(Errno::CONNREFUSED) => return Ok(None),
            Err(Errno::AGAIN) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(e) => {
                return Err(Error::Failed(format!(
                    "what listens at the abstract socket @{name} lets nobody in ({e}): if that is no lxc-start of this service, somebody took the name; 'ss -xlp' shows who"
                )));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    use super::*;

    fn places() -> (tempfile::TempDir, Lxc) {
        let root = tempfile::tempdir().unwrap();
        let lxc = Lxc {
            containers: root.path().join("containers"),
            run: root.path().join("run"),
        };
        fs::create_dir_all(lxc.containers.join("100")).unwrap();
        fs::create_dir(&lxc.run).unwrap();
        (root, lxc)
    }

    #[test]
    fn each_start_has_a_name_that_nobody_could_know_and_the_last_one_leads_nowhere() {
        let (_root, lxc) = places();
        assert_eq!(of(&lxc, 100).unwrap(), None, "never started");
        let first = fresh(&lxc, 100).unwrap();
        assert_eq!(of(&lxc, 100).unwrap().as_ref(), Some(&first));
        assert!(first.join("100/monitor").exists());
        let locks = lxc
            .run
            .join("lxc/lock")
            .join(first.strip_prefix("/").unwrap());
        fs::create_dir_all(&locks).unwrap();
        let second = fresh(&lxc, 100).unwrap();
        assert_ne!(first, second);
        assert!(first.symlink_metadata().is_err() && !locks.exists());
        // Tidied up: it is found again.
        fs::remove_file(&second).unwrap();
        assert_eq!(of(&lxc, 100).unwrap().as_ref(), Some(&second));
        assert!(second.join("100").exists());
        forget(&lxc, 100);
        assert_eq!(of(&lxc, 100).unwrap(), None);
        let left: Vec<_> = fs::read_dir(&lxc.containers).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_name_that_leads_out_of_the_directory_is_refused_and_one_too_long_is_not_begun_with() {
        let (_root, mut lxc) = places();
        for text in ["../../etc\n", "", "0123456789abcdef0123456789abcde/\n"] {
            fs::write(lxc.containers.join("100/monitor"), text).unwrap();
            assert!(of(&lxc, 100).is_err(), "{text:?}");
        }
        forget(&lxc, 100);
        assert_eq!(of(&lxc, 100).unwrap(), None, "forgotten");
        lxc.containers = lxc.containers.join("x".repeat(80));
        assert!(matches!(fresh(&lxc, 100), Err(Error::Environment(_))));
    }

    #[test]
    fn who_listens_is_what_the_kernel_says_and_one_who_lets_nobody_in_holds_nobody_up() {
        let own = sys::random::<8>().unwrap();
        let name = format!("blockhost-test-{own:?}");
        let short = Duration::from_millis(50);
        assert_eq!(who_listens(&name, short).unwrap(), None);
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let user = rustix::process::geteuid().as_raw();
        assert_eq!(who_listens(&name, short).unwrap(), Some(user));
        rustix::net::listen(&listener, 0).unwrap();
        // Whoever came before fills it.
        let held: Vec<_> = (0..2)
            .map(|_| {
                let socket = rustix::net::socket_with(
                    AddressFamily::UNIX,
                    SocketType::STREAM,
                    SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                    None,
                );
                let socket = socket.unwrap();
                let to = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
                let _ = rustix::net::connect(&socket, &to);
                socket
            })
            .collect();
        let said = who_listens(&name, short).unwrap_err().to_string();
        assert!(said.contains(&name) && said.contains("ss -xlp"), "{said}");
        drop(held);
    }
}
