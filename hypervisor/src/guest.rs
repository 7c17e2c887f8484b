//! `qm guest cmd|exec|exec-status`: what the agent inside a machine is asked, printed as Proxmox prints it.
#![forbid(unsafe_code)]

use std::io::Write;
use std::time::{Duration, Instant};

use qapi::{Command, qga};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::config::VmConfig;
use crate::error::{Error, Result};
use crate::hardware;
use crate::host::Host;
use crate::machine::Vmid;
use crate::monitor::{Agent, OUTPUT_LIMIT};
use crate::runtime;

/// How long the agent may take to synchronise.
const SYNC_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take for an ordinary answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// First and longest pause between two looks at a running command.
const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

fn agent(host: &Host, vmid: Vmid) -> Result<Agent> {
    let config = VmConfig::load(host, vmid)?;
    if !hardware::agent_enabled(&config) {
        return Err(Error::Agent("No QEMU guest agent configured".to_owned()));
    }
    if !runtime::is_running(host, vmid)? {
        return Err(Error::Agent(format!("VM {vmid} is not running")));
    }
    Agent::open(host, vmid, SYNC_LIMIT)
}

/// Commands without arguments, by their name for `qm guest cmd`, answered as the JSON they are.
macro_rules! plain_commands {
    ($($name:literal => $kind:ident => $wire:literal),* $(,)?) => {
        /// Names that `qm guest cmd` takes.
        pub const COMMANDS: &[&str] = &[$($name),*];

        $(
            #[derive(Serialize)]
            struct $kind {}

            impl Command for $kind {
                type Ok = Value;
                const NAME: &'static str = $wire;
                const ALLOW_OOB: bool = false;
            }
        )*

        fn run_plain(agent: &mut Agent, name: &str) -> Result<Value> {
            match name {
                $($name => agent.run(&$kind {}, ANSWER_LIMIT),)*
                other => Err(Error::option(
                    "command",
                    format!("'{}' is none of {}", other.escape_default(), COMMANDS.join(", ")),
                )),
            }
        }
    };
}

plain_commands! {
    "fsfreeze-freeze" => FsfreezeFreeze => "guest-fsfreeze-freeze",
    "fsfreeze-status" => FsfreezeStatus => "guest-fsfreeze-status",
    "fsfreeze-thaw" => FsfreezeThaw => "guest-fsfreeze-thaw",
    "fstrim" => Fstrim => "guest-fstrim",
    "get-fsinfo" => GetFsinfo => "guest-get-fsinfo",
    "get-host-name" => GetHostName => "guest-get-host-name",
    "get-memory-block-info" => GetMemoryBlockInfo => "guest-get-memory-block-info",
    "get-memory-blocks" => GetMemoryBlocks => "guest-get-memory-blocks",
    "get-osinfo" => GetOsinfo => "guest-get-osinfo",
    "get-time" => GetTime => "guest-get-time",
    "get-timezone" => GetTimezone => "guest-get-timezone",
    "get-users" => GetUsers => "guest-get-users",
    "get-vcpus" => GetVcpus => "guest-get-vcpus",
    "info" => Info => "guest-info",
    "network-get-interfaces" => NetworkGetInterfaces => "guest-network-get-interfaces",
    "ping" => Ping => "guest-ping",
    "shutdown" => Shutdown => "guest-shutdown",
}

/// `qm guest cmd`.
///
/// # Errors
/// [`Error::Agent`] when it does not answer or refuses.
pub fn cmd(host: &Host, vmid: Vmid, name: &str) -> Result<String> {
    if !COMMANDS.contains(&name) {
        return Err(Error::option(
            "command",
            format!(
                "'{}' is none of {}",
                name.escape_default(),
                COMMANDS.join(", ")
            ),
        ));
    }
    let mut session = agent(host, vmid)?;
    if name == "shutdown" {
        // Answered by the end of the machine, not by a message.
        return session.send(&Shutdown {}).map(|()| String::new());
    }
    let answer = run_plain(&mut session, name)?;
    print_answer(&answer)
}

/// What `qm guest exec` is told.
#[derive(Debug, Clone)]
pub struct Exec {
    /// Program and arguments; no shell unless the program is one.
    pub command: Vec<String>,
    /// How long to wait for its end; `None` without a limit.
    pub timeout: Option<Duration>,
    /// Whether to wait at all.
    pub synchronous: bool,
    /// Standard input of the program.
    pub input: Option<Vec<u8>>,
}

/// `qm guest exec`: the program's exit code and output as JSON, or its pid when it has not ended in time.
///
/// # Errors
/// [`Error::Agent`] when the agent does not answer or the program cannot be started.
pub fn exec(host: &Host, vmid: Vmid, request: Exec) -> Result<String> {
    let mut words = request.command.into_iter();
    let Some(path) = words.next() else {
        return Err(Error::option("extra-args", "no command given"));
    };
    let mut session = agent(host, vmid)?;
    let command = qga::guest_exec {
        path,
        arg: Some(words.collect()),
        env: None,
        input_data: request.input,
        capture_output: Some(qga::GuestExecCaptureOutput::flag(true)),
    };
    let pid = session.run(&command, ANSWER_LIMIT)?.pid;
    if !request.synchronous {
        return print_answer(&json!({ "pid": pid }));
    }
    let end = request.timeout.map(|timeout| Instant::now() + timeout);
    let mut pause = POLL.0;
    loop {
        let status = exec_state(&mut session, pid)?;
        if status.exited {
            return print_answer(&exec_result(status));
        }
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            eprintln!("timeout reached, returning pid");
            return print_answer(&json!({ "pid": pid }));
        }
        std::thread::sleep(left.map_or(pause, |left| pause.min(left)));
        pause = (pause * 2).min(POLL.1);
    }
}

/// `qm guest exec-status`.
///
/// # Errors
/// [`Error::Agent`] when the agent does not answer or does not know the pid.
pub fn exec_status(host: &Host, vmid: Vmid, pid: i64) -> Result<String> {
    let status = exec_state(&mut agent(host, vmid)?, pid)?;
    print_answer(&exec_result(status))
}

fn exec_state(session: &mut Agent, pid: i64) -> Result<qga::GuestExecStatus> {
    let command = qga::guest_exec_status { pid };
    session.run_up_to(&command, ANSWER_LIMIT, OUTPUT_LIMIT)
}

/// Keys as in Proxmox; `exited` is 1 or 0, output is text.
fn exec_result(status: qga::GuestExecStatus) -> Value {
    let mut result = Map::new();
    result.insert("exited".to_owned(), u8::from(status.exited).into());
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            result.insert(key.to_owned(), value);
        }
    };
    put("exitcode", status.exitcode.map(Value::from));
    put("signal", status.signal.map(Value::from));
    put("out-data", status.out_data.map(|data| as_text(data).into()));
    put("err-data", status.err_data.map(|data| as_text(data).into()));
    put(
        "out-truncated",
        status.out_truncated.map(|cut| u8::from(cut).into()),
    );
    put(
        "err-truncated",
        status.err_truncated.map(|cut| u8::from(cut).into()),
    );
    Value::Object(result)
}

/// Output as text: UTF-8 as it is, other bytes one character each (Latin-1), so that nothing is lost.
fn as_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|e| e.into_bytes().into_iter().map(char::from).collect())
}

/// Proxmox's way: nothing for an empty object, a bare value on a line, else JSON with sorted keys and three spaces.
fn print_answer(answer: &Value) -> Result<String> {
    match answer {
        Value::Null => Ok(String::new()),
        Value::Object(map) if map.is_empty() => Ok(String::new()),
        Value::String(text) => Ok(format!("{}\n", text.trim_end())),
        Value::Object(_) | Value::Array(_) => {
            let mut bytes = Vec::new();
            let mut printer =
                serde_json::Serializer::with_formatter(&mut bytes, PerlStyle::default());
            answer
                .serialize(&mut printer)
                .map_err(|e| Error::Failed(e.to_string()))?;
            bytes.push(b'\n');
            String::from_utf8(bytes).map_err(|e| Error::Failed(e.to_string()))
        }
        other => Ok(format!("{other}\n")),
    }
}

/// `"key" : value`, three spaces of indentation.
struct PerlStyle(serde_json::ser::PrettyFormatter<'static>);

impl Default for PerlStyle {
    fn default() -> Self {
        PerlStyle(serde_json::ser::PrettyFormatter::with_indent(b"   "))
    }
}

impl serde_json::ser::Formatter for PerlStyle {
    fn begin_array<W: ?Sized + Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        self.0.begin_array(w)
    }
    fn end_array<W: ?Sized + Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        self.0.end_array(w)
    }
    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.0.begin_array_value(w, first)
    }
    fn end_array_value<W: ?Sized + Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        self.0.end_array_value(w)
    }
    fn begin_object<W: ?Sized + Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        self.0.begin_object(w)
    }
    fn end_object<W: ?Sized + Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        self.0.end_object(w)
    }
    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.0.begin_object_key(w, first)
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        w.write_all(b" : ")
    }
    fn end_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        self.0.end_object_value(w)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_look_as_scripts_for_proxmox_expect_them() {
        assert_eq!(print_answer(&json!({})).unwrap(), "");
        assert_eq!(print_answer(&json!("thawed")).unwrap(), "thawed\n");
        let text = print_answer(&json!({ "out-data": "a\n", "exitcode": 0, "exited": 1 })).unwrap();
        assert_eq!(
            text,
            "{\n   \"exitcode\" : 0,\n   \"exited\" : 1,\n   \"out-data\" : \"a\\n\"\n}\n"
        );
    }

    #[test]
    fn output_that_is_no_utf8_loses_nothing() {
        assert_eq!(as_text(vec![0xff, b'a']), "\u{ff}a");
        assert_eq!(as_text("ü".as_bytes().to_vec()), "ü");
    }
}
