//! A program in a compartment's place. `drive ROLE CONTEXT` starts this executable as the supervisor starts the role, once
//! for each attempt; the child goes the production code's whole way through `child::main`, and where the role would begin
//! to work it tries one thing and exits with the error number, 0 for "it was possible".
//! The attempts are in the other files of this directory, what is expected of each in `escape_attempts.rs`.

mod files;
mod kernel;
mod processes;
mod programs;
mod raw;
mod resources;
mod sockets;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use blockhost_proto::layout::Layout;
use blockhost_root_agent::child;
use blockhost_root_agent::control::ControlSocket;
use blockhost_root_agent::ipc::{self, Control, Role, Start};
use blockhost_root_agent::supervisor::config::{gather, read_policy};
use blockhost_root_agent::sys::spawn::respawn;
use serde::{Deserialize, Serialize};

/// What an attempt comes to: nothing stood in the way, or the kernel's error number.
type Tried = Result<(), i32>;

/// One thing that must not be possible, or only for some.
struct Attempt {
    name: &'static str,
    run: fn(&Context) -> Tried,
}

/// What the attempts aim at. Travels to the child in the place of the host's name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Context {
    /// `BLOCKHOST_ROOT` of a world with a running agent.
    root: PathBuf,
    /// A file of root's outside the world that nothing may touch.
    canary: PathBuf,
    /// Pid of a running process of the agent with the same user, of its supervisor.
    sibling: i32,
    supervisor: i32,
    /// Name of a listening abstract socket, path and port of others.
    abstract_name: String,
    bus: PathBuf,
    port: u16,
    /// A directory where the role may write, or another's.
    own: PathBuf,
    /// Which attempt; set by the driver.
    #[serde(default)]
    attempt: String,
}

fn attempts() -> impl Iterator<Item = &'static Attempt> {
    [
        files::ATTEMPTS,
        sockets::ATTEMPTS,
        processes::ATTEMPTS,
        kernel::ATTEMPTS,
        programs::ATTEMPTS,
        resources::ATTEMPTS,
    ]
    .into_iter()
    .flatten()
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "internal", role] => match Role::from_name(role) {
            Some(role) => {
                blockhost_root_agent::failpoint::take_over(attack);
                child::main(role)
            }
            None => ExitCode::FAILURE,
        },
        [_, "drive", role, context] => match drive(role, context) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("started by the tests of the root agent only");
            ExitCode::FAILURE
        }
    }
}

/// In the role's place, confined.
fn attack(_role: Role, start: &Start) {
    let context: Context = serde_json::from_str(&start.hostname).expect("a context");
    let attempt = attempts()
        .find(|attempt| attempt.name == context.attempt)
        .expect("an attempt of that name");
    let number = match (attempt.run)(&context) {
        Ok(()) => 0,
        Err(number) => number,
    };
    std::process::exit(number);
}

/// Prints `attempt<TAB>done|errno N|signal N` for each.
fn drive(role: &str, context: &str) -> Result<(), String> {
    let role = Role::from_name(role).ok_or("no such role")?;
    let context: Context = serde_json::from_str(context).map_err(|e| e.to_string())?;
    let layout = Layout::new(&context.root);
    let policy = read_policy(&layout.agent_policy()).map_err(|e| e.to_string())?;
    let (start, _) = gather(&layout, policy, &[], false).map_err(|e| e.to_string())?;
    let this = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(this)).map_err(|e| e.to_string())?;
    for attempt in attempts() {
        let context = Context {
            attempt: attempt.name.to_owned(),
            ..context.clone()
        };
        let start = Start {
            hostname: serde_json::to_string(&context).map_err(|e| e.to_string())?,
            ..start.clone()
        };
        let status = one(role, start).map_err(|e| format!("{}: {e}", attempt.name))?;
        reap_the_rest();
        let ended = match (status.code(), status.signal()) {
            (Some(0), _) => "done".to_owned(),
            (Some(number), _) => format!("errno {number}"),
            (None, signal) => format!("signal {}", signal.unwrap_or(0)),
        };
        println!("{}\t{ended}", attempt.name);
    }
    Ok(())
}

/// Ends what an attempt forked and left behind, and waits for it: it counts against the limit of its user, and the next
/// test's agent has the same users.
fn reap_the_rest() {
    use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
    let own = getpid().as_raw_pid();
    loop {
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        for pid in children.unwrap_or_default().split_whitespace() {
            if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                // Gone already is as good.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if wait(WaitOptions::empty()).is_err() {
            return;
        }
    }
}

/// Starts the role as the supervisor does: this executable again, descriptors at their places, the start message.
fn one(role: Role, start: Start) -> Result<std::process::ExitStatus, String> {
    let (control, theirs) = ControlSocket::pair().map_err(|e| e.to_string())?;
    let mut descriptors = vec![theirs];
    let mut others = Vec::new();
    for _ in 1..child::descriptors(role) {
        let (ours, theirs) = ipc::pair().map_err(|e| e.to_string())?;
        others.push(ours);
        descriptors.push(theirs);
    }
    let mut process = respawn(role.as_str(), &descriptors).map_err(|e| e.to_string())?;
    drop(descriptors);
    control
        .send(&Control::Start(Box::new(start)), None)
        .map_err(|e| e.to_string())?;
    process.wait().map_err(|e| e.to_string())
}

/// A path as the kernel takes it.
fn c_path(path: &Path) -> std::ffi::CString {
    std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL")
}
