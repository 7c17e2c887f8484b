//! The same attacks on a sealed journal, written by a real `systemd-journald` under a real systemd, checked by
//! `journalctl --verify` with the key that belongs to it.

use super::{Said, row};
use blockhost_tests::command::RunError;
use blockhost_tests::systemd::{Booted, File, Installation};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

const MACHINE: &str = "0123456789abcdef0123456789abcdef";
const DIR: &str = "/var/log/journal/0123456789abcdef0123456789abcdef";
const CONF: &[u8] = b"[Journal]\nStorage=persistent\nSeal=yes\nReadKMsg=no\nSyncIntervalSec=1s\nRateLimitIntervalSec=0\n";

/// A system whose journal is sealed every second.
struct Journal {
    booted: Booted,
    key: String,
}

impl Journal {
    fn start() -> Option<Self> {
        let id = format!("{MACHINE}\n");
        let files = [
            File {
                path: "/etc/machine-id",
                bytes: id.as_bytes(),
                mode: 0o644,
            },
            File {
                path: "/etc/systemd/journald.conf.d/zz-sealed.conf",
                bytes: CONF,
                mode: 0o644,
            },
        ];
        let installation = Installation {
            programs: &[],
            files: &files,
            enabled: &[],
        };
        let init = Path::new(env!("CARGO_BIN_EXE_blockhost-systemd-init"));
        let booted = match Booted::boot(init, &installation) {
            Ok(booted) => booted,
            Err(reason) => {
                println!("skipped: {}", reason.0);
                return None;
            }
        };
        let mut journal = Self {
            booted,
            key: String::new(),
        };
        journal.shell(&format!("mkdir -p {DIR} && rm -rf {DIR}/*"));
        journal.key = journal
            .shell("journalctl --setup-keys --interval=1s --force 2>/dev/null")
            .trim()
            .to_owned();
        if journal.key.is_empty() {
            println!("skipped: this journalctl cannot make sealing keys");
            return None;
        }
        journal.shell("systemctl start systemd-journald && journalctl --flush");
        Some(journal)
    }

    fn shell(&self, script: &str) -> String {
        self.booted.output(&["sh", "-c", script])
    }

    /// Logs one line for each number, as a service does.
    fn log(&self, word: &str, from: u32, to: u32) {
        self.shell(&format!("for i in $(seq {from} {to}); do printf '{word} %06d\\n' $i; done | systemd-cat -t tamper"));
        self.shell("journalctl --sync");
    }

    /// Lines with this word that can still be read in a directory.
    fn lines(&self, dir: &str, word: &str) -> usize {
        self.shell(&format!("journalctl -D {dir} -o cat -t tamper --no-pager 2>/dev/null | grep -c '^{word} ' || true"))
            .trim()
            .parse()
            .expect("a number")
    }

    /// Does the verification of this directory pass?
    fn passes(&self, dir: &str) -> bool {
        let key = format!("--verify-key={}", self.key);
        match self
            .booted
            .run(&["journalctl", "-D", dir, "--verify", &key])
        {
            Ok(_) => true,
            Err(RunError::Failed { stderr, stdout, .. }) => {
                println!(
                    "journalctl: {}{}",
                    stdout,
                    blockhost_tests::command::tail(&stderr, 300)
                );
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// What the verification says of a directory that somebody tampered with.
    fn said(&self, dir: &str) -> Said {
        if self.passes(dir) {
            Said::Silent
        } else {
            Said::Told
        }
    }

    /// A copy of the journal to tamper with; the files in it.
    fn copy(&self, name: &str) -> (String, Vec<PathBuf>) {
        let to = format!("/var/tmp/{name}");
        self.shell(&format!("rm -rf {to} && cp -a {DIR} {to}"));
        let files = std::fs::read_dir(self.booted.path(&to)).expect("a directory");
        let mut files: Vec<_> = files
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "journal"))
            .collect();
        files.sort();
        (to, files)
    }
}

fn find(bytes: &[u8], text: &str) -> usize {
    bytes
        .windows(text.len())
        .position(|window| window == text.as_bytes())
        .expect("the record is there")
}

/// Changes the file that holds the text.
fn edit(files: &[PathBuf], text: &str, change: impl Fn(&mut [u8], usize)) {
    for file in files {
        let mut bytes = std::fs::read(file).expect("readable");
        if bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
        {
            let at = find(&bytes, text);
            change(&mut bytes, at);
            std::fs::write(file, bytes).expect("written");
            return;
        }
    }
    panic!("{text} is in no file");
}

#[test]
fn a_sealed_journal_answers_each_attack_as_the_table_says() {
    // On a busy machine a sealed journal now and then fails its own check without any attack; such a run says nothing.
    for run in 1..=4 {
        match std::panic::catch_unwind(attack_all) {
            Ok(true) => return,
            Ok(false) => println!("run {run}: the journal fails its check untouched"),
            Err(_) if run < 4 => println!("run {run} was not as the table says"),
            Err(failure) => std::panic::resume_unwind(failure),
        }
    }
    println!("skipped: sealed journals of this machine do not pass their own check");
}

/// False when the journal is of no use; panics where it answers otherwise than the table says.
fn attack_all() -> bool {
    let Some(journal) = Journal::start() else {
        return true;
    };
    // Three files, each with several sealed epochs.
    for part in 0..3 {
        for step in 0..2 {
            let from = part * 100 + step * 50;
            journal.log("record", from, from + 49);
            sleep(Duration::from_millis(1300));
        }
        if part == 1 {
            journal.copy("old");
        }
        if part < 2 {
            journal.shell("journalctl --rotate");
        }
    }
    if !journal.passes(DIR) {
        return false;
    }
    assert_eq!(journal.lines(DIR, "record"), 300);

    let (dir, files) = journal.copy("flip");
    edit(&files, "record 000005", |bytes, at| bytes[at + 8] ^= 1);
    assert_eq!(journal.said(&dir), row("flip").theirs);

    let (dir, files) = journal.copy("swap");
    edit(&files, "record 000005", |bytes, at| {
        let other = find(bytes, "record 000007");
        bytes[at..at + 13].copy_from_slice(b"record 000007");
        bytes[other..other + 13].copy_from_slice(b"record 000005");
    });
    assert_eq!(journal.said(&dir), row("swap").theirs);

    let (dir, files) = journal.copy("delete");
    let archived: Vec<_> = files
        .iter()
        .filter(|file| file.to_string_lossy().contains("system@"))
        .collect();
    assert!(archived.len() >= 2, "{files:?}");
    std::fs::remove_file(archived[1]).expect("removed");
    assert!(journal.lines(&dir, "record") < 300);
    assert_eq!(journal.said(&dir), row("delete").theirs);

    // What there was before the last hundred, the sealing state with it: the newest are gone, the directory is old.
    assert!(journal.lines("/var/tmp/old", "record") < 300);
    assert_eq!(journal.said("/var/tmp/old"), row("newest").theirs);
    assert_eq!(journal.said("/var/tmp/old"), row("rollback").theirs);

    // The attacker has what the host has: the key of now, in the file `fss`.
    let sockets = "systemd-journald.socket systemd-journald-dev-log.socket";
    journal.shell(&format!("systemctl stop {sockets} systemd-journald; rm {DIR}/*.journal; systemctl start {sockets} systemd-journald && journalctl --flush"));
    journal.log("forged", 0, 99);
    sleep(Duration::from_millis(1300));
    journal.log("forged", 100, 199);
    assert_eq!(
        (journal.lines(DIR, "record"), journal.lines(DIR, "forged")),
        (0, 200)
    );
    assert_eq!(journal.said(DIR), row("rewrite").theirs);

    journal.shell(&format!("rm {DIR}/system.journal"));
    journal.log("nameless", 0, 49);
    let there = journal.lines(DIR, "nameless");
    println!("after unlinking: {there} of 50 lines are in the journal");
    assert_eq!(
        journal.said(DIR),
        if there < 50 {
            row("unlink").theirs
        } else {
            Said::Whole
        }
    );

    clock(&journal);
    kill(&journal);
    full(&journal);
    true
}

/// Lines that were taken while journald is killed again and again.
fn kill(journal: &Journal) {
    journal.log("before", 0, 9);
    let before = journal.lines(DIR, "before");
    for round in 0..4 {
        journal.shell(&format!(
            "(for i in $(seq 1 400); do printf 'kill{round} %06d\\n' $i; done | systemd-cat -t tamper) & sleep 0.0{}; \
             systemctl kill -s KILL systemd-journald; wait; sleep 0.4; \
             systemctl reset-failed systemd-journald; systemctl is-active -q systemd-journald || systemctl restart systemd-journald",
            round + 1
        ));
    }
    journal.shell("journalctl --sync || true; sleep 1");
    let lines: usize = (0..6)
        .map(|round| journal.lines(DIR, &format!("kill{round}")))
        .sum();
    let passes = journal.passes(DIR);
    println!(
        "killed 4 times: {lines} of 1600 lines and {before} of 10 are there, verification passes: {passes}"
    );
    // How many are lost depends on the moment; that nobody is told does not.
    assert!(before == 10 && passes, "{before} of 10, passes: {passes}");
    assert_eq!(row("kill").theirs, Said::Silent);
}

fn full(journal: &Journal) {
    let (dir, _) = journal.copy("full");
    journal.shell(&format!(
        "systemctl reset-failed; systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald; \
         mount -t tmpfs -o size=12m tmpfs {DIR} && cp {dir}/fss {DIR}/; \
         systemctl start systemd-journald.socket systemd-journald-dev-log.socket systemd-journald; journalctl --flush"
    ));
    // Whoever logs is told that all went well: the shell would fail otherwise.
    journal.shell("for i in $(seq 1 6000); do printf 'full %06d %04000d\\n' $i $i; done | systemd-cat -t tamper");
    journal.shell("journalctl --sync || true");
    let lines = journal.lines(DIR, "full");
    println!("on a full disk: {lines} of 6000 lines are there");
    assert!(lines < 6000);
    assert_eq!(journal.said(DIR), row("full").theirs);
}

fn clock(journal: &Journal) {
    const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !journal.booted.path(FAKETIME).exists() {
        println!("skipped for the clock: the package faketime is not installed");
        return;
    }
    journal.shell(&format!(
        "rm -f {DIR}/*.journal; mkdir -p /run/systemd/system/systemd-journald.service.d; \
         printf '[Service]\\nEnvironment=LD_PRELOAD={FAKETIME}\\nEnvironment=FAKETIME=-2h\\n' > /run/systemd/system/systemd-journald.service.d/clock.conf; \
         systemctl daemon-reload; systemctl restart systemd-journald; journalctl --flush"
    ));
    journal.log("back", 0, 49);
    println!(
        "clock set back: {} of 50 lines, verification passes: {}",
        journal.lines(DIR, "back"),
        journal.passes(DIR)
    );
    journal.shell(&format!(
        "rm /run/systemd/system/systemd-journald.service.d/clock.conf; systemctl daemon-reload; rm -f {DIR}/*.journal; systemctl restart systemd-journald; journalctl --flush"
    ));
}
