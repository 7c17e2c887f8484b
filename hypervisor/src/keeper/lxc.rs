//! LXC as the service uses it: the configuration and system call filter of a container (pure), and its tools, run by an
//! ordinary user. LXC's setuid helper for networks is never used.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cgroup;
use crate::error::{Error, Result};
use crate::exec::{self, Run};
use crate::host::Ids;
use crate::keeper::names;
use crate::keeper::slots::IDS_EACH;
use crate::keeper::wire::StartSpec;

/// Where the hook of a starting container finds the service.
pub const SOCKET_VARIABLE: &str = "BLOCKHOST_CONTAINERS_SOCKET";
/// Where it finds which start it belongs to.
pub const START_VARIABLE: &str = "BLOCKHOST_CONTAINERS_START";

/// How long a monitor may take for an answer.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// System calls that no container needs: they reach the kernel itself, or are where its holes were.
const NEVER: [&str; 14] = [
    "kexec_load errno 1",
    "kexec_file_load errno 1",
    "open_by_handle_at errno 1",
    "init_module errno 1",
    "finit_module errno 1",
    "delete_module errno 1",
    "bpf errno 1",
    "perf_event_open errno 1",
    "userfaultfd errno 1",
    "io_uring_setup errno 38",
    "io_uring_enter errno 38",
    "io_uring_register errno 38",
    "swapon errno 1",
    "swapoff errno 1",
];
/// Refused without `features: keyctl=1`: key rings know nothing of containers.
const KEYS: [&str; 3] = [
    "keyctl errno 38",
    "add_key errno 38",
    "request_key errno 38",
];
/// Refused without `features: nesting=1`: user name spaces, which open much of the kernel to an ordinary user inside.
/// The flags of clone3 are where no filter looks; told that it does not exist, C libraries take clone.
const NESTING: [&str; 3] = [
    "unshare errno 1 [0,0x10000000,SCMP_CMP_MASKED_EQ,0x10000000]",
    "clone errno 1 [0,0x10000000,SCMP_CMP_MASKED_EQ,0x10000000]",
    "clone3 errno 38",
];

/// The file of the system call filter.
pub fn filter_text(spec: &StartSpec) -> String {
    let mut lines = vec!["2", "denylist", "[all]"];
    lines.extend(NEVER);
    if !spec.keyctl {
        lines.extend(KEYS);
    }
    if !spec.nesting {
        lines.extend(NESTING);
    }
    lines.join("\n") + "\n"
}

/// Paths that a configuration names.
pub struct Places<'a> {
    /// The container's own directory.
    pub directory: &'a Path,
    /// This program, for the hook: a name that leads to it as long as the container lives.
    pub program: &'a Path,
}

/// The configuration file of a container. Nothing in it comes from a template or from LXC's own defaults.
///
/// # Errors
/// When a value would not stay on its line.
pub fn config_text(spec: &StartSpec, first_id: u32, places: &Places<'_>) -> Result<String> {
    let directory = places.directory.display();
    let mut lines: Vec<(&str, String)> = vec![
        ("lxc.rootfs.path", format!("dir:{directory}/rootfs")),
        ("lxc.uts.name", spec.settings.hostname.clone()),
        ("lxc.idmap", format!("u 0 {first_id} {IDS_EACH}")),
        ("lxc.idmap", format!("g 0 {first_id} {IDS_EACH}")),
        (
            "lxc.mount.auto",
            "proc:mixed sys:mixed cgroup:mixed".to_owned(),
        ),
        // Interfaces are moved in before the first process starts; until then there is only the loopback one.
        ("lxc.net.0.type", "empty".to_owned()),
        ("lxc.tty.max", "1".to_owned()),
        ("lxc.pty.max", "1024".to_owned()),
        ("lxc.init.cmd", "/sbin/init".to_owned()),
        // Profiles for what ordinary users run cannot be made by one; name space and filter are the fence.
        ("lxc.apparmor.profile", "unconfined".to_owned()),
        ("lxc.seccomp.profile", format!("{directory}/seccomp")),
        (
            "lxc.cap.drop",
            "mac_admin mac_override sys_module sys_rawio sys_time".to_owned(),
        ),
        // Below the group that the service made. Limits are for the container, and not for what watches over it.
        ("lxc.cgroup.relative", "1".to_owned()),
        ("lxc.cgroup.dir.monitor", cgroup::MONITOR.to_owned()),
        (
            "lxc.cgroup.dir.monitor.pivot",
            format!("{}-ending", cgroup::MONITOR),
        ),
        (
            "lxc.cgroup.dir.container",
            format!("{}/{}", cgroup::LIMITED, cgroup::PAYLOAD),
        ),
        // The first process waits for it: for its limits, and for its interfaces.
        (
            "lxc.hook.start-host",
            format!("{} hook", places.program.display()),
        ),
        ("lxc.log.level", "WARN".to_owned()),
        ("lxc.log.file", format!("{directory}/lxc.log")),
    ];
    if spec.narrow {
        lines.push(("lxc.arch", "linux32".to_owned()));
    }
    if spec.fuse {
        lines.push((
            "lxc.mount.entry",
            "/dev/fuse dev/fuse none bind,create=file,optional 0 0".to_owned(),
        ));
    }
    if spec.nesting {
        // Whole views of both, without which a container inside may not mount its own.
        lines.push((
            "lxc.mount.entry",
            "proc dev/.lxc/proc proc create=dir,optional 0 0".to_owned(),
        ));
        lines.push((
            "lxc.mount.entry",
            "sys dev/.lxc/sys sysfs create=dir,optional 0 0".to_owned(),
        ));
    }
    let mut text = String::new();
    for (key, value) in lines {
        if value.chars().any(char::is_control) {
            return Err(Error::Failed(format!(
                "'{}' cannot stand in {key}",
                value.escape_default()
            )));
        }
        text.push_str(&format!("{key} = {value}\n"));
    }
    Ok(text)
}

/// LXC's tools on the containers below one directory.
#[derive(Debug, Clone)]
pub struct Lxc {
    /// The directory.
    pub containers: PathBuf,
    /// For its lock files.
    pub run: PathBuf,
}

impl Lxc {
    /// One of its tools for one container that was started.
    ///
    /// # Errors
    /// When LXC is not installed, or it was not.
    pub fn tool<'a>(&self, name: &str, vmid: u32, args: &[&str]) -> Result<Run<'a>> {
        let Some(place) = names::of(self, vmid)? else {
            return Err(Error::Failed(format!("CT {vmid} was never started")));
        };
        let fixed = [
            "-P".to_owned(),
            place.display().to_string(),
            "-n".to_owned(),
            vmid.to_string(),
        ];
        let args = fixed
            .into_iter()
            .chain(args.iter().map(|arg| (*arg).to_owned()));
        Ok(self.at_home(Run::new(exec::find(name, "lxc")?, args)))
    }

    fn at_home<'a>(&self, run: Run<'a>) -> Run<'a> {
        run.variable("HOME", &self.run)
            .variable("XDG_RUNTIME_DIR", &self.run)
    }

    /// A program as root of a user name space with a container's ids. Ours is there too, as the first id behind them, for
    /// the directory that holds everything.
    ///
    /// # Errors
    /// When LXC is not installed.
    pub fn as_root_of<'a>(
        &self,
        first_id: u32,
        own: Ids,
        words: &[String],
        keep: Vec<BorrowedFd<'a>>,
    ) -> Result<Run<'a>> {
        let maps = [
            format!("u:0:{first_id}:{IDS_EACH}"),
            format!("g:0:{first_id}:{IDS_EACH}"),
            format!("u:{IDS_EACH}:{}:1", own.uid),
            format!("g:{IDS_EACH}:{}:1", own.gid),
        ];
        let mut args: Vec<String> = maps
            .into_iter()
            .flat_map(|map| ["-m".to_owned(), map])
            .collect();
        args.push("--".to_owned());
        args.extend(words.iter().cloned());
        Ok(self
            .at_home(Run::new(exec::find("lxc-usernsexec", "lxc")?, args))
            .keep(keep))
    }

    /// The pid of a running container's first process. Its monitor is asked, where it is there; an answer that does not
    /// fit the container's ids is somebody else's.
    ///
    /// # Errors
    /// When the monitor cannot be asked.
    pub fn pid(&self, vmid: u32, first_id: u32, own: Ids) -> Result<Option<i32>> {
        let Some(place) = names::of(self, vmid)? else {
            return Ok(None);
        };
        let name = names::socket(&place, vmid);
        // Another user took a name that was free again: what they say about a container is of no interest.
        if names::who_listens(&name, ASK_LIMIT)? != Some(own.uid) {
            return Ok(None);
        }
        let asked = self
            .tool("lxc-info", vmid, &["-s", "-p"])?
            .within(ASK_LIMIT)
            .status()
            .map_err(|e| match e {
                Error::Timeout(_) => Error::Failed(format!(
                    "what listens at the abstract socket @{name} does not say what container {vmid} does; 'ss -xlp' shows it"
                )),
                other => other,
            })?;
        match said(&asked.output, "State:") {
            Some("STOPPED") => Ok(None),
            Some(_) => {
                let pid = said(&asked.output, "PID:").and_then(|word| word.parse().ok());
                Ok(pid.filter(|pid| *pid > 0 && belongs(*pid, first_id)))
            }
            None => Err(Error::Failed(format!(
                "lxc-info does not say what container {vmid} does: {}",
                asked.errors.trim()
            ))),
        }
    }
}

/// The value of one line of `lxc-info`.
fn said<'a>(output: &'a str, key: &str) -> Option<&'a str> {
    output
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .map(str::trim)
}

/// Whether a process runs under the ids of a container.
fn belongs(pid: i32, first_id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|line| line.split_ascii_whitespace().next()?.parse::<u32>().ok())
        .is_some_and(|uid| (first_id..first_id + IDS_EACH).contains(&uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::wire::{Interface, Limits, Settings};

    fn spec() -> StartSpec {
        StartSpec {
            settings: Settings {
                hostname: "web-1".to_owned(),
                ..Settings::default()
            },
            interfaces: Vec::new(),
            limits: Limits {
                memory_mib: 512,
                swap_mib: 0,
                cpu_hundredths: 0,
                cpu_units: 100,
            },
            narrow: false,
            nesting: false,
            keyctl: false,
            fuse: false,
        }
    }

    fn text(spec: &StartSpec) -> Result<String> {
        let places = Places {
            directory: Path::new("/var/lib/blockhost-ct/100"),
            program: Path::new("/usr/lib/blockhost/blockhost-containers"),
        };
        config_text(spec, 1_000_000, &places)
    }

    #[test]
    fn no_value_adds_a_line_to_a_containers_configuration() {
        let mut bad = spec();
        bad.settings.hostname = "a\nlxc.mount.entry = / host none bind".to_owned();
        assert!(text(&bad).is_err());
        assert_eq!(text(&spec()).unwrap().matches("lxc.mount.entry").count(), 0);
    }

    #[test]
    fn what_watches_over_a_container_is_outside_of_its_limits_and_nothing_runs_before_they_are_in_force()
     {
        let plain = text(&spec()).unwrap();
        let of = |key: &str| {
            let line = plain.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("no {key} in {plain}"))
                .to_owned()
        };
        let (monitor, container) = (
            of("lxc.cgroup.dir.monitor = "),
            of("lxc.cgroup.dir.container = "),
        );
        let place = Path::new("/sys/fs/cgroup/x/ct-100");
        let limited = place.join(cgroup::LIMITED);
        assert!(place.join(&container).starts_with(&limited), "{container}");
        assert_ne!(place.join(&container), limited, "or it could change them");
        for outside in [monitor, of("lxc.cgroup.dir.monitor.pivot = ")] {
            assert!(!place.join(&outside).starts_with(&limited), "{outside}");
        }
        assert_eq!(of("lxc.cgroup.relative = "), "1");
        assert_eq!(
            of("lxc.hook.start-host = "),
            "/usr/lib/blockhost/blockhost-containers hook"
        );
    }

    #[test]
    fn a_container_is_mapped_and_filtered_and_gets_no_device_or_feature_that_was_not_asked_for() {
        let plain = text(&spec()).unwrap();
        for line in [
            "lxc.idmap = u 0 1000000 65536\n",
            "lxc.idmap = g 0 1000000 65536\n",
            "lxc.seccomp.profile = /var/lib/blockhost-ct/100/seccomp\n",
            "lxc.net.0.type = empty\n",
        ] {
            assert!(plain.contains(line), "{line}{plain}");
        }
        for word in ["fuse", "linux32", ".lxc/proc"] {
            assert!(!plain.contains(word), "{word}");
        }
        let filter = filter_text(&spec());
        assert!(filter.contains("keyctl") && filter.contains("unshare") && filter.contains("bpf"));
        let open = StartSpec {
            nesting: true,
            keyctl: true,
            fuse: true,
            narrow: true,
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                addresses: Vec::new(),
            }],
            ..spec()
        };
        let wide = text(&open).unwrap();
        assert!(
            wide.contains("lxc.hook.start-host = /usr/lib/blockhost/blockhost-containers hook\n")
                && wide.contains("/dev/fuse")
        );
        let filter = filter_text(&open);
        assert!(
            !filter.contains("keyctl") && !filter.contains("unshare") && filter.contains("bpf")
        );
    }
}
