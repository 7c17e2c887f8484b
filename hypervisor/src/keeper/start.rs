//! Starting a container: its files written, its group made, LXC started; then, while its first process waits, its limits
//! put in force and its interfaces handed out and set up.
#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::Keeper;
use super::lxc::{Places, SOCKET_VARIABLE, START_VARIABLE, config_text, filter_text};
use super::serve::{gone, not_in_force};
use super::wire::{Answer, Ask, Line, StartSpec};
use super::{names, program};
use crate::config::write_atomically;
use crate::error::{Error, IoContext, Result};
use crate::exec::{self, Run, kill_group};

/// Hidden command under which the program runs as the launcher.
pub const COMMAND: &str = "launch";

/// How long a container may take until its first process runs.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest end of LXC's log that is shown.
const LOG_LINES: usize = 4;
/// In the place of a group where there is none.
const NO_GROUP: &str = "-";

/// Enters the group in the first word, then becomes the program in the second with the others as its arguments. Returns
/// only when that fails.
pub fn launch(words: &[String]) -> ExitCode {
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        eprintln!("{what}: {e}");
        ExitCode::from(7)
    };
    let [group, program, args @ ..] = words else {
        return failed(COMMAND, &"group and program are missing");
    };
    // A session of its own: no signal to the service's group reaches what is started.
    let _ = rustix::process::setsid();
    if group != NO_GROUP
        && let Err(e) = fs::write(format!("{group}/cgroup.procs"), "0")
    {
        return failed(group, &e);
    }
    failed(program, &exec::become_program(program, args))
}

impl Keeper {
    /// Starts a container that is stopped; what is to be said about it.
    ///
    /// # Errors
    /// When it does not run; nothing of it runs then.
    pub(super) fn start(&self, vmid: u32, spec: &StartSpec, asker: &Line) -> Result<Vec<String>> {
        let directory = self.roots.directory(vmid);
        let Some(first_id) = self.roots.first_id(vmid)? else {
            return Err(Error::Failed(format!(
                "{} has no root file system: its creation or destruction was cut off; destroy it (again)",
                directory.display()
            )));
        };
        // It has stopped, but its monitor may be there still: after a restart from inside it starts the container again,
        // into whatever is prepared here.
        self.end_all(vmid, true)?;
        self.roots
            .settle(vmid, first_id, spec.settings.clone(), asker)?;
        program::check(&self.program)?;
        let places = Places {
            directory: &directory,
            program: &self.program,
        };
        let config = config_text(spec, first_id, &places)?;
        write_atomically(&directory.join("config"), config.as_bytes(), 0o600)?;
        write_atomically(
            &directory.join("seccomp"),
            filter_text(spec).as_bytes(),
            0o600,
        )?;
        let _ = fs::remove_file(directory.join("lxc.log"));
        self.remove_group(vmid);
        let group = match self.groups.group(vmid) {
            Ok(group) => group.display().to_string(),
            Err(_) => NO_GROUP.to_owned(),
        };
        let started = self.launch_and_plug(vmid, spec, &group, asker);
        if started.is_err()
            && let Err(left) = self.kill(vmid)
        {
            return started.map_err(|e| Error::Failed(format!("{e}; and then: {left}")));
        }
        started
    }

    fn launch_and_plug(
        &self,
        vmid: u32,
        spec: &StartSpec,
        group: &str,
        asker: &Line,
    ) -> Result<Vec<String>> {
        let place = names::fresh(&self.roots.lxc, vmid)?;
        let word = place.file_name().unwrap_or_default();
        let word = word.to_string_lossy().into_owned();
        let (sender, hooks) = channel();
        let desk = &self.desk.hooks;
        desk.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(word.clone(), sender);
        let words = [group, &place.display().to_string(), &word];
        let result = self.watch_start(vmid, spec, words, asker, &hooks);
        desk.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&word);
        result
    }

    fn watch_start(
        &self,
        vmid: u32,
        spec: &StartSpec,
        [group, place, start]: [&str; 3],
        asker: &Line,
        hooks: &Receiver<(Line, std::os::fd::OwnedFd)>,
    ) -> Result<Vec<String>> {
        let lxc = &self.roots.lxc;
        let words = [
            COMMAND.to_owned(),
            group.to_owned(),
            exec::find("lxc-start", "lxc")?.display().to_string(),
            "-P".to_owned(),
            place.to_owned(),
            "-n".to_owned(),
            vmid.to_string(),
            "-d".to_owned(),
        ];
        let mut child = Run::new("/proc/self/exe", words)
            .shown_as("blockhost-containers")
            .variable("HOME", &lxc.run)
            .variable("XDG_RUNTIME_DIR", &lxc.run)
            .variable(SOCKET_VARIABLE, &self.socket)
            .variable(START_VARIABLE, start)
            .spawn()?;
        let end = Instant::now() + START_LIMIT;
        let mut ready = Ok(Vec::new());
        let mut plugged = None;
        let status = loop {
            if let Some(status) = child.try_wait().at("cannot wait for", "lxc-start")? {
                break status;
            }
            if Instant::now() > end || gone(asker, Duration::from_millis(5)) {
                kill_group(&child);
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::Timeout(format!(
                    "CT {vmid}: start failed - got timeout"
                )));
            }
            if let Ok((hook, space)) = hooks.try_recv() {
                let notes = match self.groups.limited(vmid) {
                    Ok(limited) => self.limit(&limited, spec.limits),
                    Err(why) => vec![not_in_force(vmid, &why)],
                };
                ready = plug(spec, &hook, space.as_fd(), asker).map(|()| notes);
                // On an error the hook hears nothing but our end, fails, and with it the start.
                plugged = ready.is_ok().then_some(hook);
            }
        };
        let notes = ready?;
        if status.success() && self.pid(vmid)?.is_some() {
            return Ok(notes);
        }
        let log = fs::read(self.roots.directory(vmid).join("lxc.log")).unwrap_or_default();
        let lines: Vec<String> = log
            .split(|byte| *byte == b'\n')
            .filter(|line| line.windows(5).any(|word| word == b"ERROR"))
            .take(LOG_LINES)
            .map(|line| line.escape_ascii().to_string())
            .collect();
        let hook = plugged.and_then(|hook| last_words(&hook));
        let hook = hook.map_or_else(String::new, |why| format!("its interfaces: {why}; "));
        Err(Error::Failed(format!(
            "start failed: {hook}LXC says ({status}): {}",
            lines.join("; ")
        )))
    }
}

/// What a hook that has ended said about it.
fn last_words(hook: &Line) -> Option<String> {
    // Not waited for: whoever else might hold its end open.
    if !gone(hook, Duration::ZERO) {
        return None;
    }
    match hook.receive::<Ask>() {
        Ok((Ask::HookFailed { message }, _)) => Some(message.escape_debug().to_string()),
        _ => None,
    }
}

/// Hands the name space out where there are interfaces, and lets the hook go on when they are in it.
fn plug(
    spec: &StartSpec,
    hook: &Line,
    space: std::os::fd::BorrowedFd<'_>,
    asker: &Line,
) -> Result<()> {
    let lost = "cannot reach";
    if !spec.interfaces.is_empty() {
        asker
            .send(&Answer::Network, &[space])
            .at(lost, "blockhost-pct")?;
        match asker
            .receive::<Ask>()
            .at("no answer from", "blockhost-pct")?
        {
            (Ask::Plugged { done: true }, _) => {}
            _ => {
                return Err(Error::Failed(
                    "its interfaces could not be plugged in".to_owned(),
                ));
            }
        }
    }
    let interfaces = spec.interfaces.clone();
    hook.send(&Answer::Interfaces { interfaces }, &[])
        .at(lost, "the hook")
}
