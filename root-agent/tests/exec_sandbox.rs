//! What a program in its sandbox cannot do, tried by a program that wants to, row by row of `confine::programs`; and that a
//! sandbox only ever takes away.

mod compartment_world;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blockhost_root_agent::confine::programs::{
    APPLIANCE, CUSTOMIZE, CUSTOMIZE_ONLINE, FIREWALL, IMPORT, Places, ROWS, Row,
};
use blockhost_root_agent::exec::{Ended, Program, Run};
use compartment_world::{World, is_root, set_mode};

/// Prints one line for each attempt: its name and `done` or the name of the error.
const ATTEMPTS: &str = r#"
import ctypes, errno, os, resource, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
scratch, given, outside, victim = sys.argv[1:5]

numbers = {
    "x86_64": dict(ptrace=101, mount=165, unshare=272, finit_module=313, bpf=321, io_uring_setup=425),
    "aarch64": dict(ptrace=117, mount=40, unshare=97, finit_module=273, bpf=280, io_uring_setup=425),
}[os.uname().machine]

def call(name, *arguments):
    number = numbers[name]
    if libc.syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), "")

def sock(family, kind=socket.SOCK_STREAM, protocol=0):
    return lambda: socket.socket(family, kind, protocol)

def connect(port):
    # Nobody listens there in the tests' range of addresses; what counts is whether it may be tried.
    socket.socket(socket.AF_INET).connect(("127.200.7.1", port))

def write(path):
    def attempt():
        with open(path, "w") as file:
            file.write("x")
    return attempt

def fork():
    if os.fork() == 0:
        os._exit(0)
    os.wait()

def start():
    if os.fork() == 0:
        try:
            os.execv("/usr/bin/true", ["true"])
        except OSError as error:
            os._exit(error.errno)
    code = os.waitstatus_to_exitcode(os.wait()[1])
    if code:
        raise OSError(code, "")

attempts = {
    "read shadow": lambda: open("/etc/shadow").read(),
    "read configuration": lambda: open("/etc/fstab").read(),
    "list programs": lambda: os.listdir("/usr/bin"),
    "list root": lambda: os.listdir("/"),
    "read given": lambda: open(given).read(),
    "write given": write(given),
    "write scratch": write(scratch + "/new"),
    "read outside": lambda: open(outside).read(),
    "write outside": write(outside),
    "write temporary": write("/tmp/blockhost-sandbox-escape"),
    "remove outside": lambda: os.unlink(outside),
    "fork": fork,
    "start": start,
    "unix": sock(socket.AF_UNIX),
    "internet": sock(socket.AF_INET),
    "internet 6": sock(socket.AF_INET6, socket.SOCK_DGRAM),
    "connect 80": lambda: connect(80),
    "connect 22": lambda: connect(22),
    "bind": lambda: socket.socket(socket.AF_INET).bind(("127.0.0.1", 0)),
    "netlink": sock(socket.AF_NETLINK, socket.SOCK_RAW),
    "packet": sock(socket.AF_PACKET, socket.SOCK_RAW),
    "vsock": sock(socket.AF_VSOCK),
    "ptrace": lambda: call("ptrace", 0, 0, 0, 0),
    "mount": lambda: call("mount", b"none", b"/mnt", b"tmpfs", 0, 0),
    "namespace": lambda: call("unshare", 0x10000000),
    "module": lambda: call("finit_module", -1, b"", 0),
    "bpf": lambda: call("bpf", 0, 0, 0),
    "uring": lambda: call("io_uring_setup", 1, 0),
    "signal": lambda: os.kill(int(victim), 9),
    "core": lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)),
    "more files": lambda: [os.dup(0) for _ in range(300)],
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(name, "done", sep=": ")
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, error.errno), sep=": ")
    except ValueError:
        print(name, "EPERM", sep=": ")
"#;

struct Tried {
    text: String,
    row: &'static str,
}

impl Tried {
    fn got(&self, attempt: &str, wanted: &str) {
        let line = format!("{attempt}: {wanted}");
        assert!(
            self.text.lines().any(|found| found == line),
            "{} in the row of {}: wanted {wanted}\n{}",
            attempt,
            self.row,
            self.text
        );
    }
}

/// What the attempts come to in a row, as an ordinary user without capabilities. `None` without root or python3.
fn attempts(row: &'static Row, name: &str) -> Option<Tried> {
    if !is_root() {
        println!("skipped: {name} needs root");
        return None;
    }
    let place = ["/usr/bin/python3"].map(Path::new);
    let Some(python) = place.into_iter().find(|path| path.exists()) else {
        println!("skipped: {name} needs python3");
        return None;
    };
    let python = Program::open(python).expect("a program of root's");
    let world = World::new();
    let make = |name: &str| {
        let path = world.path().join(name);
        std::fs::write(&path, "content").expect("a file");
        set_mode(&path, 0o666);
        path
    };
    let (given, outside) = (make("given"), make("outside"));
    let scratch = world.path().join("scratch");
    std::fs::create_dir(&scratch).expect("a directory");
    set_mode(&scratch, 0o777);
    let files = python.files();
    let places = Places {
        program: &files,
        given: std::slice::from_ref(&given),
        scratch: std::slice::from_ref(&scratch),
        file_size: None,
    };
    let sandbox = row.sandbox(&places).expect("a sandbox");
    #[expect(clippy::disallowed_methods, reason = "a process to be signalled")]
    let mut victim = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("a process");
    let number = victim.id().to_string();
    let words: [PathBuf; 4] = [scratch, given, outside.clone(), number.into()];
    let output = Run::new(&python, Instant::now() + Duration::from_secs(60))
        .args(["-I", "-S", "-B", "-c", ATTEMPTS])
        .args(words)
        .sandbox(&sandbox)
        .run()
        .expect("it runs");
    let alive = victim.try_wait().expect("a state").is_none();
    let _ = victim.kill();
    let _ = victim.wait();
    assert!(alive, "the sleeping process was killed");
    assert_eq!(
        output.ended,
        Ended::Exited(0),
        "{}\n{}",
        output.stdout.to_text(),
        output.stderr.to_text()
    );
    assert_eq!(
        std::fs::read_to_string(outside).expect("still there"),
        "content"
    );
    Some(Tried {
        text: output.stdout.to_text(),
        row: row.name,
    })
}

#[test]
fn the_firewall_program_has_a_netlink_socket_and_nothing_else() {
    let Some(tried) = attempts(&FIREWALL, "the row of the firewall program") else {
        return;
    };
    for (attempt, wanted) in [
        ("read shadow", "EACCES"),
        ("read configuration", "EACCES"),
        ("list programs", "EACCES"),
        ("read given", "EACCES"),
        ("write given", "EACCES"),
        ("write scratch", "EACCES"),
        ("read outside", "EACCES"),
        ("write outside", "EACCES"),
        ("write temporary", "EACCES"),
        ("remove outside", "EACCES"),
        ("fork", "EPERM"),
        ("start", "EPERM"),
        ("unix", "EAFNOSUPPORT"),
        ("internet", "EAFNOSUPPORT"),
        ("internet 6", "EAFNOSUPPORT"),
        ("packet", "EAFNOSUPPORT"),
        ("vsock", "EAFNOSUPPORT"),
        ("netlink", "done"),
        ("more files", "EMFILE"),
    ] {
        tried.got(attempt, wanted);
    }
}

#[test]
fn an_import_reaches_disks_and_neither_device_nor_socket_nor_another_file() {
    let Some(tried) = attempts(&IMPORT, "the row of qm importdisk") else {
        return;
    };
    for (attempt, wanted) in [
        ("write scratch", "done"),
        ("start", "done"),
        ("unix", "EAFNOSUPPORT"),
        ("read shadow", "EACCES"),
        ("read configuration", "EACCES"),
        // Where storages are defined.
        ("read given", "done"),
        ("write given", "EACCES"),
        ("read outside", "EACCES"),
        ("write outside", "EACCES"),
        ("write temporary", "EACCES"),
        ("internet", "EAFNOSUPPORT"),
        ("netlink", "EAFNOSUPPORT"),
        ("packet", "EAFNOSUPPORT"),
    ] {
        tried.got(attempt, wanted);
    }
}

#[test]
fn what_builds_the_appliance_reads_the_system_and_reaches_no_image_and_no_socket() {
    let Some(tried) = attempts(&APPLIANCE, "the row of the appliance builder") else {
        return;
    };
    for (attempt, wanted) in [
        ("list programs", "done"),
        ("write scratch", "done"),
        ("start", "done"),
        ("list root", "EACCES"),
        ("read given", "EACCES"),
        ("read outside", "EACCES"),
        ("write temporary", "EACCES"),
        ("unix", "EAFNOSUPPORT"),
        ("internet", "EAFNOSUPPORT"),
        ("netlink", "EAFNOSUPPORT"),
        ("packet", "EAFNOSUPPORT"),
    ] {
        tried.got(attempt, wanted);
    }
}

#[test]
fn what_opens_a_hostile_image_reaches_its_job_and_the_systems_programs_only() {
    let Some(tried) = attempts(&CUSTOMIZE, "the row of virt-customize") else {
        return;
    };
    for (attempt, wanted) in [
        ("read shadow", "EACCES"),
        ("read configuration", "EACCES"),
        ("list root", "EACCES"),
        ("read given", "done"),
        ("write given", "EACCES"),
        ("write scratch", "done"),
        ("read outside", "EACCES"),
        ("write outside", "EACCES"),
        ("write temporary", "EACCES"),
        ("remove outside", "EACCES"),
        ("start", "done"),
        ("unix", "done"),
        ("internet", "EAFNOSUPPORT"),
        ("internet 6", "EAFNOSUPPORT"),
        ("netlink", "EAFNOSUPPORT"),
        ("packet", "EAFNOSUPPORT"),
        ("vsock", "EAFNOSUPPORT"),
    ] {
        tried.got(attempt, wanted);
    }
}

#[test]
fn where_packages_may_be_fetched_it_is_by_two_ports_and_nobody_is_listened_to() {
    if blockhost_root_agent::sys::landlock::abi() < 4 {
        println!("skipped: this kernel's Landlock knows no ports");
        return;
    }
    let Some(tried) = attempts(&CUSTOMIZE_ONLINE, "the row of virt-customize with network") else {
        return;
    };
    for (attempt, wanted) in [
        ("internet", "done"),
        ("connect 80", "ECONNREFUSED"),
        ("connect 22", "EACCES"),
        ("bind", "EACCES"),
        ("netlink", "EAFNOSUPPORT"),
        ("packet", "EAFNOSUPPORT"),
        ("read shadow", "EACCES"),
        ("write given", "EACCES"),
        ("write temporary", "EACCES"),
    ] {
        tried.got(attempt, wanted);
    }
}

#[test]
fn no_executed_program_changes_the_kernel_or_disturbs_another_process() {
    for row in ROWS {
        let Some(tried) = attempts(row, "the rows of all programs") else {
            return;
        };
        for attempt in ["ptrace", "mount", "namespace", "module", "bpf", "uring"] {
            tried.got(attempt, "EPERM");
        }
        tried.got("signal", "EPERM");
    }
}

#[test]
fn a_limit_is_only_ever_lowered_and_holds_for_root_too() {
    if !is_root() {
        println!("skipped: a program of root's is needed");
        return;
    }
    let shell = Program::open(Path::new("/usr/bin/prlimit")).expect("util-linux");
    let files = shell.files();
    let limit = |file_size| {
        let places = Places {
            program: &files,
            file_size,
            ..Places::default()
        };
        let sandbox = APPLIANCE.sandbox(&places).expect("a sandbox");
        Run::new(&shell, Instant::now() + Duration::from_secs(60))
            .args(["--fsize", "--noheadings", "--raw", "--output=SOFT,HARD"])
            .sandbox(&sandbox)
            .run()
            .expect("it runs")
            .stdout
            .to_text()
    };
    assert_eq!(limit(Some(4096)).trim(), "4096 4096");
    let own = (8u64 << 30).to_string();
    assert_eq!(limit(Some(u64::MAX - 1)).trim(), format!("{own} {own}"));
}
