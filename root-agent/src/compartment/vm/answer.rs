//! Understanding what `qm` and `pct` print: status, configuration, list, guest results, and its many ways to say no. Pure.
//! Formats are those of Proxmox VE; the embedded backend prints the same.

use blockhost_proto::response::ErrorCode;
use serde_json::{Map, Value, json};

use crate::compartment::Failure;
use crate::exec::{Captured, Ended, OUTPUT_CAP, Output};

/// Which program speaks, and of what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// Name of the program.
    pub(super) program: &'static str,
    /// What it calls a machine, as Proxmox does.
    pub(super) thing: &'static str,
    /// What is missing without it.
    pub(super) backend: &'static str,
    /// Whether others may rest on its disks when it is a template.
    pub(super) has_bases: bool,
}

/// Virtual machines.
pub(super) const QM: Kind = Kind {
    program: "qm",
    thing: "VM",
    backend: "virtual machine",
    has_bases: true,
};

/// Containers.
pub(super) const PCT: Kind = Kind {
    program: "pct",
    thing: "CT",
    backend: "container",
    has_bases: false,
};

/// `status: running` as its last word.
pub(super) fn status(text: &str) -> Option<&str> {
    text.lines()
        .find_map(|line| line.strip_prefix("status: "))
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

/// `key: value` lines as an object of strings. The description comes percent-encoded.
pub(super) fn config(text: &str) -> Map<String, Value> {
    let pairs = text.lines().filter_map(|line| {
        line.split_once(": ")
            .or_else(|| Some((line.strip_suffix(':')?, "")))
    });
    pairs
        .map(|(key, value)| {
            let value = if key == "description" {
                decode_percent(value)
            } else {
                value.to_owned()
            };
            (key.to_owned(), Value::String(value))
        })
        .collect()
}

/// The table of `qm list` as an array. Names are the only column that may be empty or hold blanks.
pub(super) fn list(text: &str) -> Result<Vec<Value>, String> {
    table(text, row)
}

/// The table of `pct list`, likewise.
pub(super) fn containers(text: &str) -> Result<Vec<Value>, String> {
    table(text, container_row)
}

fn table(text: &str, row: fn(&str) -> Option<Value>) -> Result<Vec<Value>, String> {
    let rows = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .filter(|line| !line.trim_start().starts_with("VMID"));
    rows.map(|line| row(line).ok_or_else(|| line.to_owned()))
        .collect()
}

fn row(line: &str) -> Option<Value> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let pid: u64 = words.pop()?.parse().ok()?;
    let disk: f64 = words.pop()?.parse().ok()?;
    let memory: u64 = words.pop()?.parse().ok()?;
    let status = words.pop()?;
    let (vmid, name) = words.split_first()?;
    let vmid: u32 = vmid.parse().ok()?;
    let pid = (pid != 0).then_some(pid);
    Some(
        json!({"vmid": vmid, "name": name.join(" "), "status": status, "memory_mb": memory, "bootdisk_gb": disk, "pid": pid}),
    )
}

/// Number, status, lock and name; a lock is rarely there, and only its column tells it from a name.
fn container_row(line: &str) -> Option<Value> {
    const NAME_COLUMN: usize = 35;
    let mut words = line.split_whitespace();
    let vmid: u32 = words.next()?.parse().ok()?;
    let status = words.next()?;
    let rest: Vec<&str> = words.collect();
    let (lock, name) = match rest[..] {
        [] => (None, ""),
        [name] if line.rfind(&format!(" {name}"))? + 1 >= NAME_COLUMN => (None, name),
        [lock] => (Some(lock), ""),
        [lock, name] => (Some(lock), name),
        _ => return None,
    };
    Some(json!({"vmid": vmid, "name": name, "status": status, "lock": lock}))
}

/// The volume that an import made: the last quoted word, without the slot it is parked in.
pub(super) fn imported_volume(text: &str) -> Option<String> {
    let quoted = text.rsplit('\'').nth(1)?;
    let volume = match quoted.split_once(':') {
        Some((slot, rest)) if slot.starts_with("unused") && rest.contains(':') => rest,
        _ => quoted,
    };
    volume.contains(':').then(|| volume.to_owned())
}

/// What a command inside the guest came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GuestResult {
    Ended {
        exitcode: i64,
        stdout: String,
        stderr: String,
    },
    StillRunning,
}

/// The JSON object that `qm guest exec` prints.
pub(super) fn guest_result(text: &[u8]) -> Option<GuestResult> {
    let value: Value = serde_json::from_slice(text.trim_ascii()).ok()?;
    let result = value.as_object()?;
    let truthy = |key: &str| {
        result
            .get(key)
            .is_some_and(|v| v.as_bool() == Some(true) || v.as_i64() == Some(1))
    };
    let stream = |key: &str| {
        // Kept as small as the output of any program, so that the answer always fits its frame.
        let mut captured = Captured::new(OUTPUT_CAP);
        captured.push(
            result
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .as_bytes(),
        );
        captured.to_text()
    };
    if !truthy("exited") {
        return result
            .contains_key("pid")
            .then_some(GuestResult::StillRunning);
    }
    // A hostile guest answers what it likes; a code is a number that some system could have given.
    let within = |key: &str, range: std::ops::RangeInclusive<i64>| {
        let number = result.get(key).and_then(Value::as_i64)?;
        range.contains(&number).then_some(number)
    };
    let exitcode = within("exitcode", i64::from(i32::MIN)..=i64::from(u32::MAX))
        .or_else(|| within("signal", 1..=127).map(|signal| 128 + signal))?;
    Some(GuestResult::Ended {
        exitcode,
        stdout: stream("out-data"),
        stderr: stream("err-data"),
    })
}

/// Everything a failed run said, as one line.
pub(super) fn words_of(output: &Output) -> String {
    let text = format!("{}\n{}", output.stderr.to_text(), output.stdout.to_text());
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let joined = lines.join("; ");
    // The only control character that the text still holds is the tab; in a message it is a blank.
    let said: String = joined.replace('\t', " ").chars().take(400).collect();
    if said.is_empty() {
        output.ended.to_string()
    } else {
        said
    }
}

/// The wire's view of a failed run of `<program> <verb>`.
pub(super) fn failure(kind: Kind, verb: &str, vmid: Option<u32>, output: &Output) -> Failure {
    let Kind { program, thing, .. } = kind;
    let vm = vmid
        .map(|vmid| format!(" of {thing} {vmid}"))
        .unwrap_or_default();
    if output.ended == Ended::TimedOut {
        return Failure::new(
            ErrorCode::Timeout,
            format!(
                "{program} {verb}{vm} was stopped at its time limit; its state is unknown, ask for it"
            ),
        );
    }
    let said = words_of(output);
    if let Some(vmid) = vmid.filter(|vmid| says_absent(*vmid, output)) {
        return Failure::new(ErrorCode::NotFound, format!("there is no {thing} {vmid}"));
    }
    let code = [
        // Before the machine's own "not running": this one is up, its agent is not (yet).
        ("guest agent", ErrorCode::Failed),
        ("already exists", ErrorCode::Conflict),
        ("is running - destroy failed", ErrorCode::Conflict),
        ("can't lock file", ErrorCode::Busy),
        ("container is running", ErrorCode::Conflict),
        ("is a template by its disks", ErrorCode::Conflict),
        ("VM is locked", ErrorCode::Conflict),
        ("CT is locked", ErrorCode::Conflict),
        ("not running", ErrorCode::Conflict),
        ("got timeout", ErrorCode::Timeout),
    ]
    .into_iter()
    .find(|(phrase, _)| said.contains(phrase))
    .map_or(ErrorCode::Failed, |(_, code)| code);
    Failure::new(
        code,
        format!("{program} {verb}{vm} failed ({}): {said}", output.ended),
    )
}

/// Exit code of our own programs, and of no others', for a configuration that is there and cannot be understood.
const DAMAGED: i32 = 8;

/// Whether one of our own programs could not tell a configuration because there is none, or because it is damaged.
pub(super) fn is_left_over(failure: &Failure, output: &Output) -> bool {
    matches!(failure.code, ErrorCode::NotFound) || output.ended == Ended::Exited(DAMAGED)
}

/// Whether the program stopped because that machine does not exist. That is its first word or none at all: what comes later,
/// or in the middle of a line, may be an agent's error, and a guest must not be able to make its machine look gone.
fn says_absent(vmid: u32, output: &Output) -> bool {
    let text = output.stderr.to_text();
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    first
        .and_then(|line| line.strip_prefix(['C', 'c']))
        .and_then(|line| line.strip_prefix("onfiguration file '"))
        .and_then(|line| line.strip_suffix("' does not exist"))
        .and_then(|path| path.strip_suffix(".conf")?.rsplit('/').next())
        .is_some_and(|name| name == vmid.to_string())
}

fn decode_percent(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = (byte == b'%').then(|| tail.get(..2)).flatten();
        match digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        {
            Some(decoded) => {
                bytes.push(decoded);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn output(code: i32, stderr: &str) -> Output {
        let mut captured = Captured::new(OUTPUT_CAP);
        captured.push(stderr.as_bytes());
        Output {
            ended: Ended::Exited(code),
            stdout: Captured::new(OUTPUT_CAP),
            stderr: captured,
        }
    }

    #[test]
    fn the_ways_of_saying_no_get_their_codes() {
        for (said, code) in [
            (
                "Configuration file 'nodes/pve/qemu-server/100.conf' does not exist\n",
                ErrorCode::NotFound,
            ),
            (
                "unable to create VM 100 - VM 100 already exists on node 'pve'\n",
                ErrorCode::Conflict,
            ),
            ("VM 100 is running - destroy failed\n", ErrorCode::Conflict),
            (
                "VM quit/powerdown failed - got timeout\n",
                ErrorCode::Timeout,
            ),
            (
                "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout\n",
                ErrorCode::Busy,
            ),
            ("QEMU guest agent is not running\n", ErrorCode::Failed),
            ("VM 100 not running\n", ErrorCode::Conflict),
            ("storage 'nope' does not exist\n", ErrorCode::Failed),
            ("", ErrorCode::Failed),
        ] {
            let failure = failure(QM, "start", Some(100), &output(255, said));
            assert_eq!(failure.code, code, "{said}");
            assert!(!failure.message.contains('\n'));
        }
        let killed = Output {
            ended: Ended::TimedOut,
            ..output(0, "whatever")
        };
        assert_eq!(
            failure(QM, "clone", Some(100), &killed).code,
            ErrorCode::Timeout
        );
    }

    #[test]
    fn a_table_row_that_is_not_understood_is_not_skipped() {
        let good = "      VMID NAME                 STATUS     MEM(MB)    BOOTDISK(GB) PID       \n       100 blockhost-001        running    2048               8.00 4711      \n       101 VM 101               stopped    512                0.00 0         \n";
        let rows = list(good).unwrap();
        assert_eq!(
            rows[0],
            json!({"vmid": 100, "name": "blockhost-001", "status": "running", "memory_mb": 2048, "bootdisk_gb": 8.0, "pid": 4711})
        );
        assert_eq!(rows[1]["name"], "VM 101");
        assert_eq!(rows[1]["pid"], Value::Null);
        assert_eq!(list("").unwrap(), Vec::<Value>::new());
        assert!(list(&format!("{good}garbage\n")).is_err());
    }

    #[test]
    fn a_lock_of_a_container_is_not_taken_for_its_name() {
        let text = "VMID       Status     Lock         Name                \n100        running                 web-1               \n101        stopped    backup       web-2               \n102        stopped    create                           \n";
        assert_eq!(
            Value::Array(containers(text).unwrap()),
            json!([
                {"vmid": 100, "name": "web-1", "status": "running", "lock": null},
                {"vmid": 101, "name": "web-2", "status": "stopped", "lock": "backup"},
                {"vmid": 102, "name": "", "status": "stopped", "lock": "create"},
            ])
        );
        assert!(containers("100 running a b c\n").is_err());
        assert!(containers("x running\n").is_err());
    }

    #[test]
    fn the_ways_of_a_container_to_say_no_get_their_codes() {
        for (said, code) in [
            (
                "Configuration file 'nodes/pve/lxc/100.conf' does not exist\n",
                ErrorCode::NotFound,
            ),
            ("CT 100 already exists on node 'pve'\n", ErrorCode::Conflict),
            (
                "unable to destroy CT 100 - container is running\n",
                ErrorCode::Conflict,
            ),
            ("CT is locked (backup)\n", ErrorCode::Conflict),
            ("unable to create CT 100 - tar failed\n", ErrorCode::Failed),
        ] {
            let failure = failure(PCT, "start", Some(100), &output(255, said));
            assert_eq!(failure.code, code, "{said}");
            assert!(!failure.message.contains("qm") && !failure.message.contains("VM"));
        }
    }

    #[test]
    fn a_description_cannot_forge_configuration_lines() {
        let config = config(
            "description: one%0Atemplate%3A 1\nname: a\nboot:\nnet0: virtio=02:00:00:00:00:01,bridge=vmbr0\n",
        );
        assert_eq!(config["description"], "one\ntemplate: 1");
        assert!(!config.contains_key("template"));
        assert_eq!(config["net0"], "virtio=02:00:00:00:00:01,bridge=vmbr0");
        assert_eq!(config["boot"], "");
    }

    #[test]
    fn a_guest_command_that_did_not_end_is_not_a_success() {
        assert_eq!(
            guest_result(br#"{"pid": 12}"#),
            Some(GuestResult::StillRunning)
        );
        assert_eq!(guest_result(b"{}"), None);
        assert_eq!(guest_result(b"[]"), None);
        assert_eq!(guest_result(br#"{"exited": 1}"#), None);
        let signalled = guest_result(br#"{"exited": 1, "signal": 9}"#);
        assert_eq!(
            signalled,
            Some(GuestResult::Ended {
                exitcode: 137,
                stdout: String::new(),
                stderr: String::new()
            })
        );
        let done = guest_result(b"{\n  \"exitcode\" : 3,\n \"exited\" : true, \"out-data\" : \"hi\\n\", \"err-data\": \"no\\u001b\"}\n");
        assert_eq!(
            done,
            Some(GuestResult::Ended {
                exitcode: 3,
                stdout: "hi\n".into(),
                stderr: "no\\u{1b}".into()
            })
        );
    }

    #[test]
    fn a_guest_cannot_answer_with_a_code_that_is_none() {
        for number in [
            i64::MAX.to_string(),
            i64::MIN.to_string(),
            "9007199254740993".into(),
        ] {
            for key in ["signal", "exitcode"] {
                let answer = format!("{{\"exited\": 1, \"{key}\": {number}}}");
                assert_eq!(guest_result(answer.as_bytes()), None, "{answer}");
            }
        }
        let windows = guest_result(br#"{"exited": 1, "exitcode": 3221225477}"#);
        assert!(matches!(
            windows,
            Some(GuestResult::Ended {
                exitcode: 0xC000_0005,
                ..
            })
        ));
    }

    #[test]
    fn words_of_a_guest_cannot_make_its_machine_look_absent() {
        let absent = "onfiguration file 'nodes/pve/qemu-server/100.conf' does not exist";
        for said in [
            format!("VM 100 qmp command 'guest-exec' failed - C{absent}\n"),
            format!("Agent error: x\nC{absent}\n"),
            format!("Agent error: x\rC{absent}\n"),
            "Configuration file 'nodes/pve/qemu-server/101.conf' does not exist\n".to_owned(),
        ] {
            for verb in ["guest exec", "guest cmd", "shutdown"] {
                let failure = failure(QM, verb, Some(100), &output(255, &said));
                assert_ne!(failure.code, ErrorCode::NotFound, "{verb}: {said}");
            }
        }
        let mut printed = output(1, "");
        printed.stdout.push(format!("C{absent}\n").as_bytes());
        assert_ne!(
            failure(QM, "guest exec", Some(100), &printed).code,
            ErrorCode::NotFound
        );
    }

    #[test]
    fn the_imported_volume_is_found_in_both_wordings() {
        let old =
            "Formatting ...\nSuccessfully imported disk as 'unused0:local:148/vm-148-disk-1.raw'\n";
        let new = "importing disk 'x' to VM 148\nunused0: successfully imported disk 'local-lvm:vm-148-disk-1'\n";
        assert_eq!(
            imported_volume(old).as_deref(),
            Some("local:148/vm-148-disk-1.raw")
        );
        assert_eq!(
            imported_volume(new).as_deref(),
            Some("local-lvm:vm-148-disk-1")
        );
        assert_eq!(imported_volume("nothing"), None);
    }

    proptest! {
        #[test]
        fn no_output_makes_the_readers_panic(text in "(?s).{0,200}") {
            let _ = (status(&text), config(&text), list(&text).is_ok(), containers(&text).is_ok(), imported_volume(&text), guest_result(text.as_bytes()));
        }
    }
}
