//! What each executed program may do, as data: a row per kind of program, narrower than its compartment's row in
//! [`super::profile`]. The compartments ask for a row's [`Sandbox`] and run the program in it; [`super::print`] shows the rows.

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Resource;

use super::profile::{loading_only, system_programs};
use super::syscalls::{Filter, NETLINK, UNIX, UNIX_AND_INTERNET};
use crate::exec::{OpenError, Program, Sandbox};
use crate::sys::landlock::{
    IOCTL_DEV, READ, READ_EXECUTE, READ_FILE, READ_WRITE, Ruleset, TRUNCATE, WRITE_FILE,
};

/// A place in the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The loader and libraries, nothing that could be started.
    Libraries,
    /// Every program and library of the system.
    System,
    /// The program itself.
    Program,
    /// A fixed path.
    Path(&'static str),
    /// What the run is given to read.
    Given,
    /// What the run is given to write.
    Scratch,
}

/// What a run is given, apart from what the row says.
#[derive(Debug, Default)]
pub struct Places<'a> {
    /// The program's file, and its interpreter's.
    pub program: &'a [PathBuf],
    /// [`Place::Given`].
    pub given: &'a [PathBuf],
    /// [`Place::Scratch`].
    pub scratch: &'a [PathBuf],
    /// Largest file it may make, bytes; the row's own limit where that is less.
    pub file_size: Option<u64>,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// What it is called in the printed table.
    pub name: &'static str,
    /// The compartment that runs it.
    pub compartment: &'static str,
    /// Places and rights, in groups that rows share; everything else is out of reach.
    pub files: &'static [&'static [(Place, u64)]],
    /// TCP ports that may be connected to.
    pub connect: &'static [u16],
    /// System calls and sockets.
    pub filter: fn() -> Filter,
    /// Resource limits.
    pub limits: &'static [(Resource, u64)],
}

const READ_WRITE_DEVICE: u64 = READ_FILE | WRITE_FILE | IOCTL_DEV;

/// Every row, in the order they are printed.
pub static ROWS: [&Row; 5] = [
    &FIREWALL,
    &IMPORT,
    &APPLIANCE,
    &CUSTOMIZE,
    &CUSTOMIZE_ONLINE,
];

/// `iptables-save` and `iptables-restore`: one netlink socket, no helpers, no files to write.
pub static FIREWALL: Row = Row {
    name: "iptables-save, iptables-restore",
    compartment: "net",
    files: &[&[(Place::Libraries, READ), (Place::Program, READ_EXECUTE)]],
    connect: &[],
    filter: || Filter::lone_program(NETLINK),
    limits: &[
        (Resource::Core, 0),
        (Resource::Nofile, 32),
        (Resource::Fsize, 0),
        (Resource::As, 1 << 30),
    ],
};

/// `qm importdisk` of the embedded backend with its `qemu-img`: disks and their records, no device, no socket: those of the
/// machines' monitors are open to the machines' user, who reads the image. Proxmox's own reaches its storages in too many
/// ways for a row.
pub static IMPORT: Row = Row {
    name: "qm importdisk, embedded",
    compartment: "vm",
    files: &[&[
        (Place::System, READ_EXECUTE),
        (Place::Program, READ_EXECUTE),
        (Place::Path("/etc/passwd"), READ_FILE),
        (Place::Path("/etc/group"), READ_FILE),
        (Place::Path("/etc/localtime"), READ_FILE),
        (Place::Path("/etc/qemu"), READ),
        (Place::Path("/etc/ssl/openssl.cnf"), READ_FILE),
        (Place::Path("/proc"), READ),
        (Place::Path("/sys/devices/system"), READ),
        (Place::Path("/dev/urandom"), READ_FILE),
        (Place::Given, READ),
        (Place::Scratch, READ_WRITE),
    ]],
    connect: &[],
    filter: || Filter::program(&[]),
    limits: &[(Resource::Core, 0), (Resource::Nofile, 1024)],
};

/// `supermin`, which puts the appliance together from the host's own packages and sees no image.
pub static APPLIANCE: Row = Row {
    name: "supermin",
    compartment: "image",
    files: &[&[
        (Place::System, READ_EXECUTE),
        (Place::Program, READ_EXECUTE),
        (Place::Path("/etc"), READ),
        (Place::Path("/boot"), READ),
        (Place::Path("/var/lib/dpkg"), READ),
        (Place::Path("/proc"), READ),
        (Place::Path("/dev/urandom"), READ_FILE),
        (Place::Scratch, READ_WRITE),
    ]],
    connect: &[],
    filter: || Filter::program(&[]),
    limits: &[
        (Resource::Core, 0),
        (Resource::Nofile, 256),
        (Resource::Fsize, 8 << 30),
        (Resource::Nproc, 128),
    ],
};

/// `virt-customize` with the QEMU that holds the hostile image.
pub static CUSTOMIZE: Row = Row {
    name: "virt-customize",
    compartment: "image",
    files: &[CUSTOMIZE_FILES],
    connect: &[],
    filter: || Filter::program(UNIX),
    limits: CUSTOMIZE_LIMITS,
};

/// The same while an `install` runs, where the policy lets it fetch packages: by HTTP and HTTPS. Names are asked for by UDP,
/// which Landlock does not know.
pub static CUSTOMIZE_ONLINE: Row = Row {
    name: "virt-customize with network",
    compartment: "image",
    files: &[
        CUSTOMIZE_FILES,
        &[
            (Place::Path("/etc/resolv.conf"), READ_FILE),
            (Place::Path("/etc/hosts"), READ_FILE),
        ],
    ],
    connect: &[80, 443],
    filter: || Filter::program(UNIX_AND_INTERNET),
    limits: CUSTOMIZE_LIMITS,
};

const CUSTOMIZE_FILES: &[(Place, u64)] = &[
    (Place::System, READ_EXECUTE),
    (Place::Program, READ_EXECUTE),
    (Place::Path("/etc/passwd"), READ_FILE),
    (Place::Path("/etc/group"), READ_FILE),
    (Place::Path("/etc/localtime"), READ_FILE),
    (Place::Path("/etc/magic"), READ_FILE),
    (Place::Path("/etc/qemu"), READ),
    (Place::Path("/etc/ssl/openssl.cnf"), READ_FILE),
    (Place::Path("/proc"), READ),
    (Place::Path("/sys/devices/system"), READ),
    (Place::Path("/sys/module/kvm"), READ),
    (Place::Path("/dev/urandom"), READ_FILE),
    (Place::Path("/dev/random"), READ_FILE),
    (Place::Path("/dev/zero"), READ_FILE),
    (Place::Path("/dev/kvm"), READ_WRITE_DEVICE),
    (Place::Given, READ),
    (Place::Scratch, READ_WRITE),
];

const CUSTOMIZE_LIMITS: &[(Resource, u64)] = &[
    (Resource::Core, 0),
    (Resource::Nofile, 256),
    (Resource::Nproc, 256),
];

impl Place {
    fn paths(self, rights: u64, places: &Places<'_>) -> Vec<(PathBuf, u64)> {
        let given = |paths: &[PathBuf]| paths.iter().map(|path| (path.clone(), rights)).collect();
        match self {
            Place::Libraries => loading_only(),
            Place::System => system_programs(),
            Place::Program => given(places.program),
            Place::Path(path) => vec![(PathBuf::from(path), rights)],
            Place::Given => given(places.given),
            Place::Scratch => given(places.scratch),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Place::Libraries => "libraries",
            Place::System => "system programs and libraries",
            Place::Program => "the program",
            Place::Path(path) => path,
            Place::Given => "what the job gives it to read",
            Place::Scratch => "the job's own directory",
        })
    }
}

impl Row {
    /// The rules for one run.
    pub fn ruleset(&self, places: &Places<'_>) -> Ruleset {
        let mut paths: Vec<(PathBuf, u64)> = Vec::new();
        for &(place, rights) in self.files.iter().copied().flatten() {
            paths.extend(place.paths(rights, places));
        }
        let null = Path::new("/dev/null").to_path_buf();
        paths.push((null, READ_FILE | WRITE_FILE | TRUNCATE));
        Ruleset {
            paths,
            connect: self.connect,
            ..Ruleset::default()
        }
    }

    /// Prepares the sandbox of a program that reads from and writes to the same places in every run.
    ///
    /// # Errors
    /// [`OpenError::Sandbox`] with the kernel's reason.
    pub fn for_program(
        &self,
        program: &Program,
        given: &[PathBuf],
        scratch: &[PathBuf],
    ) -> Result<Sandbox, OpenError> {
        let files = program.files();
        let places = Places {
            program: &files,
            given,
            scratch,
            ..Places::default()
        };
        self.sandbox(&places).map_err(|source| OpenError::Sandbox {
            path: program.path().to_path_buf(),
            source,
        })
    }

    /// Prepares the sandbox for one run, or for several with the same places.
    ///
    /// # Errors
    /// The kernel's.
    pub fn sandbox(&self, places: &Places<'_>) -> io::Result<Sandbox> {
        let mut limits = self.limits.to_vec();
        limits.extend(places.file_size.map(|bytes| (Resource::Fsize, bytes)));
        Sandbox::new(&self.ruleset(places), &(self.filter)(), &limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_program_may_write_where_programs_are_or_into_the_configuration() {
        for row in ROWS {
            for (path, rights) in row.ruleset(&Places::default()).paths {
                let writes = rights & READ_WRITE & !READ & !crate::sys::landlock::EXECUTE != 0;
                assert!(
                    !writes || path.starts_with("/dev"),
                    "{} may write to {}",
                    row.name,
                    path.display()
                );
            }
        }
    }
}
