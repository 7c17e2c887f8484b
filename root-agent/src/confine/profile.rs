//! What each process may do, as data: one function per role that reads like a table row.

use std::path::{Path, PathBuf};

use blockhost_proto::layout::{Layout, MACHINES_GROUP};
use rustix::thread::CapabilitySet;

use super::programs::{APPLIANCE, CUSTOMIZE, CUSTOMIZE_ONLINE, Places};
use super::syscalls::{Filter, UNIX, UNIX_AND_INTERNET};
use crate::compartment::keys::workshop;
use crate::compartment::net::settings::DIRECTORY as IPV6_SETTINGS;
use crate::compartment::{Backend, Identities, Identity};
use crate::ipc::Role;
use crate::policy::{LandlockChoice, WireguardChoice};
use crate::sys::landlock::{
    EXCHANGE, IOCTL_DEV, READ, READ_EXECUTE, READ_FILE, READ_WRITE, Ruleset, TRUNCATE, WRITE_FILE,
};

/// Everything [`super::irrevocably_confine`] needs to know.
#[derive(Debug, Clone)]
pub struct Profile {
    /// User and group; supplementary groups are always dropped.
    pub identity: Identity,
    /// All that is left in every capability set.
    pub capabilities: CapabilitySet,
    /// Whether executed programs of an ordinary user keep them.
    pub ambient: bool,
    /// The only directory there is, where the process may still make it that: what Landlock below ABI 9 does not guard is
    /// connecting to sockets by path.
    pub root_directory: Option<PathBuf>,
    /// Reachable files, ports and processes; `None` where Landlock does not fit (Proxmox's `qm`).
    pub landlock: Option<Ruleset>,
    /// What a kernel without Landlock means.
    pub landlock_choice: LandlockChoice,
    /// System calls.
    pub filter: Filter,
    /// Bytes of address space.
    pub address_space: Option<u64>,
    /// Bytes of one file; the process that writes more is killed.
    pub file_bytes: Option<u64>,
    /// Processes and threads of its user, all of them together. Does not bind uid 0, which the unit's task limit binds.
    pub processes: Option<u64>,
}

/// Descriptors a process may open.
pub const fn open_files(role: Role) -> u64 {
    match role {
        Role::Front => 1024,
        Role::Vm => 8192,
        Role::Ledger | Role::Net | Role::Ovs | Role::Keys | Role::Image => 256,
        Role::Attach => 32,
    }
}

const SMALL_ADDRESS_SPACE: u64 = 1 << 30;

/// What a process writes that has only small files, its messages included.
const SMALL_FILE: u64 = 64 << 20;

/// A full segment of the longest records, several times over.
const SEGMENT_FILE: u64 = 16 << 30;

/// Front and net share a user, and several agents may run at once.
const PROCESSES: u64 = 1024;

/// What the profiles are made from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Where everything lives.
    pub layout: &'a Layout,
    /// Numeric users.
    pub identities: Identities,
    /// Chosen backend.
    pub backend: Backend,
    /// Policy on kernels without Landlock.
    pub landlock: LandlockChoice,
    /// Who carries tunnels.
    pub wireguard: WireguardChoice,
    /// Programs the compartment executes.
    pub programs: &'a [PathBuf],
    /// Where disk images are, absolute, below the layout's root.
    pub image_dirs: &'a [PathBuf],
    /// Where container templates may be, likewise.
    pub template_dirs: &'a [PathBuf],
    /// Whether packages may be fetched for images.
    pub image_network: bool,
    /// Whether wires may be laid into other managers' containers.
    pub attach: bool,
}

/// The profile of a role.
pub fn profile(role: Role, inputs: &Inputs<'_>) -> Profile {
    let root = Identity {
        uid: 0,
        gid: inputs.identities.blockhost.gid,
    };
    let sealed = |identity, landlock, filter| Profile {
        identity,
        capabilities: CapabilitySet::empty(),
        ambient: false,
        root_directory: None,
        landlock: Some(landlock),
        landlock_choice: inputs.landlock,
        filter,
        address_space: Some(SMALL_ADDRESS_SPACE),
        file_bytes: Some(SMALL_FILE),
        processes: Some(PROCESSES),
    };
    match role {
        Role::Front => sealed(
            inputs.identities.agent,
            Ruleset::default(),
            Filter::sockets_only(),
        ),
        Role::Ledger => Profile {
            file_bytes: Some(SEGMENT_FILE),
            ..sealed(
                root,
                only([(inputs.layout.ledger(), READ_WRITE)]),
                Filter::files_only(),
            )
        },
        Role::Keys => sealed(root, keys_files(inputs), Filter::modest_files_only()),
        Role::Net => Profile {
            capabilities: CapabilitySet::NET_ADMIN,
            ambient: true,
            ..sealed(
                inputs.identities.agent,
                net_files(inputs),
                match inputs.wireguard {
                    WireguardChoice::Kernel => Filter::no_unix_sockets(),
                    WireguardChoice::Userspace => Filter::unix_sockets_for_tunnels(),
                },
            )
        },
        // Its primary group tells the front that a connection comes from here, and such connections are refused.
        Role::Ovs => Profile {
            root_directory: Some(inputs.layout.switch_sockets()),
            ..sealed(
                Identity {
                    uid: 0,
                    gid: inputs.identities.agent.gid,
                },
                Ruleset::default(),
                Filter::unix_clients(),
            )
        },
        Role::Image => Profile {
            address_space: None,
            file_bytes: None,
            ..sealed(
                inputs.identities.image,
                image_files(inputs),
                Filter::program(if inputs.image_network {
                    UNIX_AND_INTERNET
                } else {
                    UNIX
                }),
            )
        },
        Role::Vm => vm(inputs, root),
        Role::Attach if inputs.attach => Profile {
            capabilities: ATTACHING,
            // Landlock lets nobody in a domain of it near processes outside, not even to name their namespaces. What
            // it would keep away is out of reach without it: the filter has no call that takes a path, a signal or a port.
            landlock: None,
            ..sealed(
                inputs.identities.agent,
                Ruleset::default(),
                Filter::network_namespaces(),
            )
        },
        Role::Attach => sealed(
            inputs.identities.agent,
            Ruleset::default(),
            Filter::network_namespaces(),
        ),
    }
}

/// `SYS_PTRACE` is what the kernel asks of whoever names the namespaces of another user's process, `SYS_ADMIN` of whoever
/// enters one, `NET_ADMIN` of whoever changes something there.
pub const ATTACHING: CapabilitySet = CapabilitySet::SYS_PTRACE
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::NET_ADMIN);

fn vm(inputs: &Inputs<'_>, identity: Identity) -> Profile {
    let (capabilities, landlock) = match inputs.backend {
        Backend::Proxmox => (CapabilitySet::from_bits_truncate(every_capability()), None),
        Backend::Embedded => (
            CapabilitySet::CHOWN
                | CapabilitySet::DAC_OVERRIDE
                | CapabilitySet::FOWNER
                | CapabilitySet::SETUID
                | CapabilitySet::SETGID
                | CapabilitySet::KILL
                | CapabilitySet::NET_ADMIN,
            Some(vm_files(inputs)),
        ),
    };
    let identity = match inputs.backend {
        Backend::Proxmox => Identity { uid: 0, gid: 0 },
        Backend::Embedded => identity,
    };
    let filter = Filter::no_kernel_tampering(inputs.backend);
    Profile {
        identity,
        capabilities,
        ambient: false,
        root_directory: None,
        landlock,
        landlock_choice: inputs.landlock,
        filter,
        // Machines are its children, and as large as they are.
        address_space: None,
        file_bytes: None,
        processes: None,
    }
}

/// Capabilities 0 to 40, as of Linux 5.9.
fn every_capability() -> u64 {
    (1 << 41) - 1
}

fn only<const N: usize>(paths: [(PathBuf, u64); N]) -> Ruleset {
    Ruleset {
        paths: paths.into(),
        ..Ruleset::default()
    }
}

/// The policy stands in the same directory, and whoever writes there is root at the next start. So nothing can be written there,
/// only put there whole, and what comes from this process has not the group that a policy must have. No directory can be moved
/// there either: those of the signing key and of tunnels' keys.
fn keys_files(inputs: &Inputs<'_>) -> Ruleset {
    let etc = inputs.layout.etc();
    match workshop(inputs.layout) {
        Some(workshop) => only([(etc, READ | EXCHANGE), (workshop, READ_WRITE)]),
        None => only([(etc, READ_WRITE)]),
    }
}

pub(super) fn loading_only() -> Vec<(PathBuf, u64)> {
    let programs = ["/usr", "/bin", "/sbin", "/lib", "/lib64"].map(PathBuf::from);
    let mut paths = system_programs();
    paths.retain(|(path, _)| !programs.contains(path));
    paths.extend(["/usr/lib", "/lib", "/lib64"].map(|path| (PathBuf::from(path), READ)));
    paths.extend(LOADERS.map(|path| (PathBuf::from(path), READ_EXECUTE)));
    paths
}

/// What a dynamically linked program needs to start.
pub(super) fn system_programs() -> Vec<(PathBuf, u64)> {
    let mut paths: Vec<(PathBuf, u64)> = ["/usr", "/bin", "/sbin", "/lib", "/lib64"]
        .iter()
        .map(|path| (PathBuf::from(path), READ_EXECUTE))
        .collect();
    for file in [
        "/etc/ld.so.cache",
        "/etc/ld.so.preload",
        "/etc/nsswitch.conf",
        "/etc/protocols",
        "/etc/services",
    ] {
        paths.push((PathBuf::from(file), READ_FILE));
    }
    paths.push((
        PathBuf::from("/dev/null"),
        READ_FILE | WRITE_FILE | TRUNCATE,
    ));
    paths
}

/// Programs outside the system directories: the file itself.
fn with_programs(mut paths: Vec<(PathBuf, u64)>, programs: &[PathBuf]) -> Vec<(PathBuf, u64)> {
    paths.extend(
        programs
            .iter()
            .map(|program| (program.clone(), READ_EXECUTE)),
    );
    paths
}

/// The loaders of the architectures Debian has; one that is not there is left out.
const LOADERS: [&str; 4] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux-armhf.so.3",
    "/lib/ld-linux-riscv64-lp64d.so.1",
];

/// One program with its loader and its libraries. The directories of programs cannot even be read: the loader would run
/// whatever can be.
/// Besides them the keys of tunnels and the kernel's settings of IPv6, which the program cannot reach: its own rules leave them
/// out.
fn net_files(inputs: &Inputs<'_>) -> Ruleset {
    let mut paths = with_programs(loading_only(), inputs.programs);
    paths.push((PathBuf::from("/proc"), READ));
    paths.push((inputs.layout.wireguard_keys(), READ_WRITE));
    paths.push((PathBuf::from(IPV6_SETTINGS), READ_FILE | WRITE_FILE));
    Ruleset {
        paths,
        ..Ruleset::default()
    }
}

/// All that the two programs of this compartment need between them; each gets its own part of it when it runs.
fn image_files(inputs: &Inputs<'_>) -> Ruleset {
    let mut paths = Vec::new();
    let scratch = [inputs.layout.image_work()];
    let places = Places {
        program: inputs.programs,
        scratch: &scratch,
        ..Places::default()
    };
    let customize = if inputs.image_network {
        &CUSTOMIZE_ONLINE
    } else {
        &CUSTOMIZE
    };
    for row in [&APPLIANCE, customize] {
        paths.extend(row.ruleset(&places).paths);
    }
    let outside = inputs
        .image_dirs
        .iter()
        .map(|path| inputs.layout.join(path));
    paths.extend(outside.map(|path| (path, READ_WRITE)));
    Ruleset {
        paths,
        ..Ruleset::default()
    }
}

fn vm_files(inputs: &Inputs<'_>) -> Ruleset {
    let layout = inputs.layout;
    let mut paths = with_programs(system_programs(), inputs.programs);
    let templates = inputs.template_dirs.iter();
    paths.extend(templates.map(|path| (layout.join(path), READ)));
    let mut add = |path: &Path, rights| paths.push((path.to_owned(), rights));
    for directory in [layout.state(), layout.run()] {
        add(&directory, READ_WRITE);
    }
    add(&layout.storage_files(), READ);
    // Account names, for handing files to the machines' user.
    for file in [
        "/etc/passwd",
        "/etc/group",
        "/etc/localtime",
        "/etc/qemu",
        "/etc/ssl/openssl.cnf",
    ] {
        add(Path::new(file), READ);
    }
    for device in ["/dev/kvm", "/dev/net/tun", "/dev/vhost-net"] {
        add(Path::new(device), READ_FILE | WRITE_FILE | IOCTL_DEV);
    }
    for device in ["/dev/urandom", "/dev/random", "/dev/zero"] {
        add(Path::new(device), READ_FILE);
    }
    // QEMU reads the machine's topology; qm reads and judges its own children's state.
    for tree in [
        "/proc",
        "/sys/devices/system",
        "/sys/class/net",
        "/sys/devices/virtual/net",
        "/sys/module/kvm",
    ] {
        add(Path::new(tree), READ);
    }
    if layout.is_host() {
        add(&Path::new(CONTROL_GROUPS).join(MACHINES_GROUP), READ_WRITE);
    }
    if let Some(group) = own_control_group() {
        add(&group, READ_WRITE);
    }
    Ruleset {
        paths,
        tcp: true,
        connect: &[],
        signals: true,
    }
}

/// Where control groups v2 are mounted by systemd, and by whoever has no other hierarchy.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// The agent's own control group, below which machines get theirs where there is no unit for them; `None` in the host's root
/// group.
fn own_control_group() -> Option<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let plain = !own.is_empty() && !own.split('/').any(|part| part == "..");
    plain.then(|| Path::new(CONTROL_GROUPS).join(own))
}
