//! Fuzz target of what the backend's programs print, and the guests through them.

use blockhost_proto::fuzz::Target;
use blockhost_proto::response::ErrorCode;

use super::answer::{self, GuestResult};
use crate::exec::{Captured, Ended, OUTPUT_CAP, Output};

pub(in crate::compartment) const TARGETS: &[Target] = &[Target {
    name: "child_output",
    seeds,
    run,
}];

fn seeds() -> Vec<Vec<u8>> {
    const TEXTS: &[&str] = &[
        "status: running\n",
        "VMID       Status     Lock         Name                \n100        running                 web-1               \n101        stopped    backup       b\n",
        "description: one%0Atemplate%3A 1\nname: a\nboot:\nnet0: virtio=02:00:00:00:00:01,bridge=vmbr0\n",
        "      VMID NAME                 STATUS     MEM(MB)    BOOTDISK(GB) PID       \n       100 blockhost-001        running    2048               8.00 4711      \n",
        "Successfully imported disk as 'unused0:local:148/vm-148-disk-1.raw'\n",
        "unused0: successfully imported disk 'local-lvm:vm-148-disk-1'\n",
        "{\"exitcode\": 3, \"exited\": true, \"out-data\": \"hi\\n\", \"err-data\": \"no\\u001b\"}",
        "{\"exited\": 1, \"signal\": 9}",
        "{\"pid\": 12}",
        "Configuration file 'nodes/pve/qemu-server/100.conf' does not exist\n",
        "VM 100 qmp command 'guest-exec' failed - got timeout\n",
        "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout\n",
    ];
    TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn run(data: &[u8]) {
    if let Some(GuestResult::Ended {
        exitcode,
        stdout,
        stderr,
    }) = answer::guest_result(data)
    {
        assert!((i64::from(i32::MIN)..=i64::from(u32::MAX)).contains(&exitcode));
        for text in [&stdout, &stderr] {
            assert!(!text.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
        }
    }
    let mut said = Captured::new(OUTPUT_CAP);
    said.push(data);
    let output = Output {
        ended: Ended::Exited(255),
        stdout: Captured::new(OUTPUT_CAP),
        stderr: said,
    };
    let failure = answer::failure(answer::QM, "start", Some(100), &output);
    // It goes into an answer, a log and a record: one line, of bounded length.
    assert!(
        !failure.message.contains(char::is_control),
        "{:?}",
        failure.message
    );
    assert!(failure.message.chars().count() < 600);
    if failure.code == ErrorCode::NotFound {
        let begins = data.trim_ascii_start();
        assert!(
            begins
                .get(1..)
                .is_some_and(|rest| rest.starts_with(b"onfiguration file '"))
        );
    }

    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(status) = answer::status(text) {
        assert!(!status.contains('\n') && !status.is_empty());
    }
    for (key, value) in answer::config(text) {
        assert!(!key.contains('\n'));
        assert!(key == "description" || value.as_str().is_some_and(|value| !value.contains('\n')));
    }
    for rows in [answer::list(text), answer::containers(text)] {
        let Ok(rows) = rows else { continue };
        assert!(
            rows.iter()
                .all(|row| row["vmid"].is_u64() && row["status"].is_string())
        );
    }
    if let Some(volume) = answer::imported_volume(text) {
        assert!(volume.contains(':') && !volume.contains('\''));
    }
}
