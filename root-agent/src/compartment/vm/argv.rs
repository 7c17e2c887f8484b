//! Command lines for `qm` and `pct`. Every word is a fixed one or printed from a validated type, none of which can begin with a
//! dash; what a client chose freely (a guest's command) stands behind `--`. No shell is involved. Pure but for [`keys_file`].

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use blockhost_proto::action::{Action, PctExec, QmGuestExec};
use blockhost_proto::options::OneOption as _;
use blockhost_proto::pct::{PctOption, PctOptions};
use blockhost_proto::qm::{QmOption, QmOptions};
use blockhost_proto::value::{GuestCommand, Seconds, Vmid};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::exec::fd_path;

/// One command line under construction.
#[derive(Debug)]
pub(super) struct Command {
    verb: String,
    vmid: Option<u32>,
    words: Vec<String>,
    files: Vec<OwnedFd>,
    input: String,
    parsed: bool,
}

impl Command {
    /// `verb` may be two words, as in `guest exec`.
    pub(super) fn new(verb: &str) -> Self {
        let words = verb.split(' ').map(str::to_owned).collect();
        Command {
            verb: verb.to_owned(),
            vmid: None,
            words,
            files: Vec::new(),
            input: String::new(),
            parsed: false,
        }
    }

    /// The machine, as the first argument.
    pub(super) fn vm(mut self, vmid: Vmid) -> Self {
        self.vmid = Some(vmid.get());
        self.word(vmid.to_string())
    }

    pub(super) fn word(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    pub(super) fn option(self, key: &str, value: impl Into<String>) -> Self {
        self.word(format!("--{key}")).word(value)
    }

    /// A file that the command line names by its descriptor.
    pub(super) fn file(mut self, file: OwnedFd) -> Self {
        self.files.push(file);
        self
    }

    /// Marks the output as something that is read by program.
    pub(super) fn parsed(mut self) -> Self {
        self.parsed = true;
        self
    }

    pub(super) fn verb(&self) -> &str {
        &self.verb
    }

    pub(super) fn vmid(&self) -> Option<u32> {
        self.vmid
    }

    pub(super) fn words(&self) -> impl Iterator<Item = &String> {
        self.words.iter()
    }

    pub(super) fn files(&self) -> &[OwnedFd] {
        &self.files
    }

    /// Its standard input.
    pub(super) fn input(&self) -> &[u8] {
        self.input.as_bytes()
    }

    pub(super) fn is_parsed(&self) -> bool {
        self.parsed
    }

    pub(super) fn options(mut self, options: &QmOptions) -> std::io::Result<Self> {
        for option in options.iter() {
            let key = option.key().to_string();
            self = match option {
                QmOption::SshKeys(_) => self.keys(&key, &option.value())?,
                _ => self.option(&key, option.value()),
            };
        }
        Ok(self)
    }

    pub(super) fn container_options(mut self, options: &PctOptions) -> std::io::Result<Self> {
        for option in options.iter() {
            let key = option.key().to_string();
            self = match option {
                PctOption::SshPublicKeys(_) => self.keys(&key, &option.value())?,
                // Said for every container when it is created.
                PctOption::Unprivileged => self,
                _ => self.option(&key, option.value()),
            };
        }
        Ok(self)
    }

    /// Proxmox's command line wants the name of a file for SSH keys, and only for them; ours takes one too.
    fn keys(self, key: &str, keys: &str) -> std::io::Result<Self> {
        let file = keys_file(keys)?;
        let path = fd_path(file.as_fd()).display().to_string();
        Ok(self.file(file).option(key, path))
    }

    /// A shell command for the inside of a machine; the only shell is the one there. A secret one is handed over as
    /// input, as every user of the host sees the words of a process; the shell inside reads it whole, then runs it.
    fn shell(mut self, command: &GuestCommand, secret: bool) -> Self {
        let text = if secret {
            command.as_str().clone_into(&mut self.input);
            "eval \" $(cat)\""
        } else {
            command.as_str()
        };
        ["--", "/bin/sh", "-c", text]
            .into_iter()
            .fold(self, Self::word)
    }
}

/// The commands that are nothing but their words; `None` for actions that are more, or of another compartment.
///
/// # Errors
/// When the file for SSH keys cannot be made.
pub(super) fn plain(action: &Action) -> std::io::Result<Option<Command>> {
    Ok(Some(match action {
        Action::QmTemplate(action) => Command::new("template").vm(action.vmid),
        Action::QmCreate(action) => Command::new("create")
            .vm(action.vmid)
            .option("name", action.name.to_string())
            .options(&action.args)?,
        Action::QmSet(action) => Command::new("set")
            .vm(action.vmid)
            .options(&action.options)?,
        Action::QmClone(action) => {
            let full = if action.full { "1" } else { "0" };
            Command::new("clone")
                .vm(action.vmid)
                .word(action.newid.to_string())
                .option("name", action.name.to_string())
                .option("full", full)
        }
        Action::QmResize(action) => Command::new("resize")
            .vm(action.vmid)
            .word(action.disk.to_string())
            .word(action.size.to_string()),
        Action::QmGuestPing(action) => Command::new("guest cmd").vm(action.vmid).word("ping"),
        _ => return Ok(None),
    }))
}

/// A shutdown that waits, and does not force.
pub(super) fn shutdown(vmid: Vmid, timeout: Seconds) -> Command {
    Command::new("shutdown")
        .vm(vmid)
        .option("timeout", timeout.to_string())
}

/// A command through the guest agent.
pub(super) fn guest_exec(action: &QmGuestExec) -> Command {
    let mut command = Command::new("guest exec")
        .vm(action.vmid)
        .option("timeout", action.timeout.to_string())
        .parsed();
    if action.secret {
        command = command.option("pass-stdin", "1");
    }
    command.shell(&action.command, action.secret)
}

/// A command inside a container, which gets the input of `pct` itself.
pub(super) fn container_exec(action: &PctExec) -> Command {
    Command::new("exec")
        .vm(action.vmid)
        .shell(&action.command, action.secret)
}

/// SSH keys as a file in memory.
fn keys_file(keys: &str) -> std::io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("sshkeys", MemfdFlags::CLOEXEC)?);
    file.write_all(keys.as_bytes())?;
    Ok(file.into())
}
