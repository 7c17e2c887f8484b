//! A system bus of a world: the host's own `dbus-daemon` with the host's own configuration and our packaged policy, on a
//! `/run` of the world's; the real polkitd with our actions, or none; and the bus service as its own user.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::accounts::account;
use super::services::Service;
use super::{World, WorldError, at, make_directory, repository};
use crate::command::{Output, RunError, command, run, with_args};

const DAEMON: &str = "/usr/bin/dbus-daemon";
const POLKITD: &str = "/usr/lib/polkit-1/polkitd";
const SOCKET: &str = "/run/dbus/system_bus_socket";
/// The service's name.
pub const NAME: &str = "dev.ovs.PortAgent1";
/// Its object.
pub const PATH: &str = "/dev/ovs/PortAgent1";

/// Who decides what is permitted.
#[derive(Debug, Clone, Copy)]
pub enum Polkit<'a> {
    /// Nobody: polkit is not installed.
    Absent,
    /// The real one, with these rules of an administrator (JavaScript).
    Rules(&'a str),
}

/// The bus, polkit and the service.
pub struct SystemBus {
    /// `dbus-daemon`.
    pub daemon: Service,
    /// `polkitd`.
    pub polkit: Option<Service>,
    /// `blockhost-bus`.
    pub service: Service,
}

/// What is missing on this machine for a bus, if anything.
#[must_use]
pub fn missing(polkit: bool) -> Option<String> {
    let needed = [(DAEMON, "dbus-daemon", true), (POLKITD, "polkitd", polkit)];
    needed
        .into_iter()
        .find(|(path, _, wanted)| *wanted && !Path::new(path).is_file())
        .map(|(_, package, _)| format!("needs the package {package}"))
}

fn limit() -> Duration {
    Duration::from_secs(60)
}

/// A `/run` of the world's own, where the bus has the place that every client knows.
fn own_run() -> Result<(), RunError> {
    let words = ["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"];
    run(with_args("mount", &words), limit()).map(drop)
}

/// Puts a directory of the world in the place of one of the host's.
fn instead_of(place: &str, own: &Path) -> Result<(), WorldError> {
    if !Path::new(place).is_dir() {
        return Ok(());
    }
    let own = own.display().to_string();
    run(with_args("mount", &["--bind", &own, place]), limit())?;
    Ok(())
}

impl SystemBus {
    /// Starts everything; ready when the service answers. The world needs a mount namespace of its own.
    ///
    /// # Errors
    /// [`WorldError`] with what did not come up.
    pub fn start(world: &World, polkit: Polkit<'_>) -> Result<Self, WorldError> {
        own_run()?;
        let bus = account("messagebus")?;
        make_directory(Path::new("/run/dbus"), bus.uid, bus.gid, 0o755)?;
        let own = |name: &str| world.dir.join("bus").join(name);
        for directory in ["", "services", "actions", "rules"] {
            make_directory(&own(directory), 0, 0, 0o755)?;
        }
        // Nothing is started behind our back.
        instead_of("/usr/share/dbus-1/system-services", &own("services"))?;
        let daemon = start_daemon(world, &own("bus.conf"))?;
        let polkit = match polkit {
            Polkit::Absent => None,
            Polkit::Rules(rules) => {
                Some(start_polkit(world, &own("actions"), &own("rules"), rules)?)
            }
        };
        let service = start_service(world)?;
        Ok(Self {
            daemon,
            polkit,
            service,
        })
    }

    /// Starts the service again after it was ended.
    ///
    /// # Errors
    /// [`WorldError`].
    pub fn restart_service(&mut self, world: &World) -> Result<(), WorldError> {
        self.service.kill();
        self.service = start_service(world)?;
        Ok(())
    }
}

fn start_daemon(world: &World, config: &PathBuf) -> Result<Service, WorldError> {
    let policy = repository().join("packaging/dbus/dev.ovs.PortAgent1.conf");
    let text = format!(
        "<busconfig><include>/usr/share/dbus-1/system.conf</include><include>{}</include></busconfig>\n",
        policy.display()
    );
    at("writing", config, fs::write(config, text))?;
    let mut start = command(DAEMON);
    start
        .args(["--nofork", "--nopidfile", "--config-file"])
        .arg(config)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let mut daemon = Service::start(world, "dbus-daemon", start)?;
    daemon.wait_until("listening", limit(), || UnixStream::connect(SOCKET).is_ok())?;
    Ok(daemon)
}

fn start_polkit(
    world: &World,
    actions: &Path,
    rules: &Path,
    text: &str,
) -> Result<Service, WorldError> {
    let file = "dev.ovs.portagent1.policy";
    let packaged = repository().join("packaging/polkit").join(file);
    let copied = fs::copy(&packaged, actions.join(file));
    at("installing", &packaged, copied)?;
    let rule = rules.join("10-test.rules");
    at("writing", &rule, fs::write(&rule, text))?;
    let user = account("polkitd")?;
    for path in [rules, &rule] {
        at("giving away", path, chown(path, Some(user.uid), Some(0)))?;
    }
    at(
        "changing the mode of",
        rules,
        fs::set_permissions(rules, fs::Permissions::from_mode(0o700)),
    )?;
    instead_of("/usr/share/polkit-1/actions", actions)?;
    instead_of("/etc/polkit-1/rules.d", rules)?;
    let mut start = command(POLKITD);
    start
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/");
    let mut polkit = Service::start(world, "polkitd", start)?;
    polkit.wait_until("being on the bus", limit(), || {
        owned("org.freedesktop.PolicyKit1")
    })?;
    Ok(polkit)
}

fn start_service(world: &World) -> Result<Service, WorldError> {
    let start = world.as_blockhost("blockhost-bus", &[]);
    let mut service = Service::start(world, "blockhost-bus", start)?;
    service.wait_until("being on the bus", limit(), || owned(NAME))?;
    Ok(service)
}

/// Whether somebody has this name.
fn owned(name: &str) -> bool {
    let words = [
        "call",
        "--timeout=5",
        "org.freedesktop.DBus",
        "/org/freedesktop/DBus",
    ];
    let mut ask = with_args("busctl", &words);
    ask.args(["org.freedesktop.DBus", "NameHasOwner", "s", name]);
    run(ask, limit()).is_ok_and(|output| output.stdout.trim() == "b true")
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// Uid 0.
    Root,
    /// The services' user, in their group.
    Blockhost,
    /// A user that has nothing to do with us.
    Nobody,
}

/// A client program run as somebody.
#[must_use]
pub fn client(who: As, program: &str, args: &[&str]) -> Command {
    let mut words = match who {
        As::Root => vec!["--"],
        As::Blockhost => vec![
            "--reuid=blockhost",
            "--regid=blockhost",
            "--init-groups",
            "--",
        ],
        As::Nobody => vec!["--reuid=65534", "--regid=65534", "--clear-groups", "--"],
    };
    words.push(program);
    words.extend(args);
    let mut command = with_args("setpriv", &words);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8");
    command
}

/// `busctl call` on our object: method, signature, arguments. Its one line of answer.
///
/// # Errors
/// [`RunError`] with what busctl says.
pub fn call(who: As, method: &str, arguments: &[&str]) -> Result<Output, RunError> {
    let mut ask = client(
        who,
        "busctl",
        &["call", "--timeout=60", NAME, PATH, NAME, method],
    );
    ask.args(arguments);
    run(ask, Duration::from_secs(90))
}
