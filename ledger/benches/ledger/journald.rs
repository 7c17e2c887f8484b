//! A real `systemd-journald` in private mounts: it syncs after each record of priority CRIT or above, and that is the
//! only durability for a single record that it has.

use crate::Anyhow;
use crate::ours::realistic;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MACHINE: &str = "0123456789abcdef0123456789abcdef";
const DAEMON: &str = "/lib/systemd/systemd-journald";

pub(crate) struct Journald {
    child: Child,
    socket: UnixDatagram,
    dir: PathBuf,
}

impl Journald {
    pub fn start(dir: &Path) -> Anyhow<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".into());
        }
        if !Path::new(DAEMON).exists() {
            return Err("systemd-journald is not installed".into());
        }
        let journal = dir.join(MACHINE);
        std::fs::create_dir_all(&journal)?;
        let script = format!(
            "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/conf/journald.conf.d && touch /run/systemd/journal/flushed \
             && printf '[Journal]\\nStorage=persistent\\nSeal=no\\nReadKMsg=no\\nRateLimitIntervalSec=0\\nSyncIntervalSec=10min\\nSystemMaxUse=4G\\nSystemMaxFileSize=1G\\n' > /run/conf/journald.conf.d/bench.conf \
             && mount --bind /run/conf /etc/systemd && mkdir -p /var/log/journal && mount --bind \"$1\" /var/log/journal \
             && echo {MACHINE} > /run/machine-id && mount --bind /run/machine-id /etc/machine-id && exec {DAEMON}"
        );
        let child = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "setpriv",
                "--pdeathsig",
                "KILL",
                "sh",
                "-c",
                &script,
                "sh",
            ])
            .arg(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let at = format!("/proc/{}/root/run/systemd/journal/socket", child.id());
        let mut journald = Self {
            child,
            socket: UnixDatagram::unbound()?,
            dir: journal,
        };
        let until = Instant::now() + Duration::from_secs(10);
        while journald.socket.connect(&at).is_err() {
            if let Some(status) = journald.child.try_wait()? {
                return Err(format!("it ended with {status}: no private mounts here?").into());
            }
            if Instant::now() > until {
                return Err("it does not open its socket".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(journald)
    }

    /// Logs records and waits until journald has taken and written all of them: records per second.
    pub fn rate(&mut self, priority: u8, count: u64) -> Anyhow<f64> {
        let begun = Instant::now();
        for n in 0..count {
            let text = String::from_utf8(realistic(n))?;
            let message = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=bench\nMESSAGE={text}\n");
            while let Err(error) = self.socket.send(message.as_bytes()) {
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    return Err(error.into());
                }
            }
        }
        self.inside(&["journalctl", "--sync"])?;
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    }

    /// Seconds that `journalctl --verify` takes, and for how many records.
    pub fn verification(&mut self) -> Anyhow<(f64, u64)> {
        let dir = self.dir.display().to_string();
        let listed = Command::new("journalctl")
            .args(["-D", &dir, "-o", "cat", "--no-pager", "-t", "bench"])
            .output()?;
        let records = listed.stdout.iter().filter(|byte| **byte == b'\n').count() as u64;
        let begun = Instant::now();
        let status = Command::new("journalctl")
            .args(["-D", &dir, "--verify"])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(format!("journalctl --verify ended with {status}").into());
        }
        Ok((begun.elapsed().as_secs_f64(), records))
    }

    fn inside(&self, words: &[&str]) -> Anyhow<()> {
        let pid = self.child.id().to_string();
        let status = Command::new("nsenter")
            .args(["-t", &pid, "-m", "--"])
            .args(words)
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{words:?} ended with {status}").into())
        }
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
