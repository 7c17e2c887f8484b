//! Command lines for `qm`. Every word is a fixed one or printed from a validated type, none of which can begin with a
//! dash; what a client chose freely (a guest's command) stands behind `--`. No shell is involved. Pure but for [`keys_file`].

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use blockhost_proto::action::{Action, QmGuestExec, QmShutdown};
use blockhost_proto::qm::{QmOption, QmOptions};
use blockhost_proto::value::Vmid;
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

    fn option(self, key: &str, value: impl Into<String>) -> Self {
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

    fn options(mut self, options: &QmOptions) -> std::io::Result<Self> {
        for option in options.iter() {
            let value = match option {
                // Proxmox's command line wants the name of a file here, and only here; ours takes one too.
                QmOption::SshKeys(_) => {
                    let file = keys_file(&option.value())?;
                    let path = fd_path(file.as_fd()).display().to_string();
                    self = self.file(file);
                    path
                }
                _ => option.value(),
            };
            self = self.option(&option.key().to_string(), value);
        }
        Ok(self)
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

/// ACPI shutdown that waits, and does not force.
pub(super) fn shutdown(action: &QmShutdown) -> Command {
    Command::new("shutdown")
        .vm(action.vmid)
        .option("timeout", action.timeout.to_string())
}

/// A shell command for the inside of the guest; the only shell is the guest's. A secret one is handed over as input, as
/// every user of the host sees the words of a process; the guest's shell reads it whole, then runs it.
pub(super) fn guest_exec(action: &QmGuestExec) -> Command {
    let command = Command::new("guest exec")
        .vm(action.vmid)
        .option("timeout", action.timeout.to_string())
        .parsed();
    let shell = |command: Command, text: &str| {
        let words = ["--", "/bin/sh", "-c", text];
        words.into_iter().fold(command, Command::word)
    };
    if action.secret {
        let mut command = shell(command.option("pass-stdin", "1"), "eval \" $(cat)\"");
        action.command.as_str().clone_into(&mut command.input);
        command
    } else {
        shell(command, action.command.as_str())
    }
}

/// SSH keys as a file in memory.
fn keys_file(keys: &str) -> std::io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("sshkeys", MemfdFlags::CLOEXEC)?);
    file.write_all(keys.as_bytes())?;
    Ok(file.into())
}
