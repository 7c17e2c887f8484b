//! A PostgreSQL server of one test: its files in a temporary directory, reached by a Unix socket in it, run by the user
//! `postgres` because the server refuses root.

#![allow(dead_code, reason = "each test program uses its part")]
#![expect(
    clippy::disallowed_methods,
    reason = "the test starts a server and ends it"
)]

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use blockhost_provisioner::store::postgres::Address;
use blockhost_provisioner::store::{Pools, PostgresStore};

pub struct Server {
    directory: tempfile::TempDir,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    running: Option<Child>,
    /// Settings beside the usual ones.
    settings: Vec<String>,
}

impl Server {
    /// A new server, or `None` after printing why there can be none here.
    pub fn new() -> Option<Self> {
        match Self::build() {
            Ok(server) => Some(server),
            Err(reason) => {
                eprintln!("skipped: {reason}");
                None
            }
        }
    }

    fn build() -> Result<Self, String> {
        let programs = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("bin"))
            .filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
            .max()
            .ok_or("no server in /usr/lib/postgresql (Debian's postgresql)")?;
        let user = if rustix::process::geteuid().is_root() {
            Some(user_of_the_server()?)
        } else {
            None
        };
        let directory = tempfile::Builder::new()
            .prefix("pg-")
            .tempdir()
            .map_err(|e| e.to_string())?;
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid))
                .map_err(|e| e.to_string())?;
        }
        let mut server = Self {
            directory,
            programs,
            user,
            running: None,
            settings: vec!["listen_addresses=".to_owned()],
        };
        let made = server
            .command("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=blockhost",
                "--no-locale",
                "--encoding=UTF8",
            ])
            .arg("--pgdata")
            .arg(server.data())
            .output()
            .map_err(|e| e.to_string())?;
        if !made.status.success() {
            return Err(format!("initdb: {}", made.stderr.escape_ascii()));
        }
        server.start();
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .current_dir(self.directory.path())
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", "/usr/bin:/bin");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Starts it and waits until it answers.
    pub fn start(&mut self) {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        let child = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.directory.path())
            // Killed processes lose nothing by this, only machines whose power fails would.
            .args(["-c", "fsync=off", "-c", "max_connections=60"])
            .args(self.settings.iter().flat_map(|setting| ["-c", setting]))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running = Some(child);
        let end = Instant::now() + Duration::from_secs(60);
        while !self.answers() {
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
            assert!(Instant::now() < end, "the server does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        postgres::Client::connect(&self.url(), postgres::NoTls).is_ok()
    }

    /// Starts it anew on a port of the loopback, with this key and certificate if with any; the port.
    pub fn on_the_network(&mut self, certificate: Option<&(PathBuf, PathBuf)>) -> u16 {
        self.crash();
        let port = free_port();
        self.settings = vec![
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
        ];
        if let Some((key, certificate)) = certificate {
            for (from, name) in [(key, "server.key"), (certificate, "server.pem")] {
                let to = self.directory.path().join(name);
                std::fs::copy(from, &to).unwrap();
                // The server refuses a key that others may read.
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                std::fs::set_permissions(&to, mode).unwrap();
                let (uid, gid) = self.user.unzip();
                std::os::unix::fs::chown(&to, uid, gid).unwrap();
            }
            let file = |name: &str| self.directory.path().join(name).display().to_string();
            self.settings.extend([
                "ssl=on".to_owned(),
                format!("ssl_key_file={}", file("server.key")),
                format!("ssl_cert_file={}", file("server.pem")),
            ]);
        }
        self.start();
        port
    }

    /// Ends the server at once, as a crash would; its processes notice that it is gone and end, too.
    pub fn crash(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // Its processes still hold the shared memory for a moment, which would keep the next one from starting.
        let end = Instant::now() + Duration::from_secs(30);
        while self.has_processes() {
            assert!(Instant::now() < end, "processes of the server stay");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn has_processes(&self) -> bool {
        let data = self.data();
        std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data))
    }

    /// The setting that names it.
    pub fn url(&self) -> String {
        let port = self
            .settings
            .iter()
            .find_map(|setting| setting.strip_prefix("port="));
        url(self.directory.path(), port.unwrap_or("5432"))
    }

    pub fn address(&self) -> Address {
        Address::read(&self.url(), None).unwrap()
    }

    pub fn store(&self, pools: &Pools) -> PostgresStore {
        PostgresStore::open(self.address(), pools.clone()).unwrap()
    }

    /// A session beside the store.
    pub fn session(&self) -> postgres::Client {
        postgres::Client::connect(&self.url(), postgres::NoTls).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
    }
}

fn url(socket: &Path, port: &str) -> String {
    format!(
        "postgres://blockhost@/postgres?host={}&port={port}",
        socket.display()
    )
}

fn user_of_the_server() -> Result<(u32, u32), String> {
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(|e| e.to_string())?;
    let line = passwd
        .lines()
        .find_map(|line| line.strip_prefix("postgres:"));
    let mut ids = line
        .ok_or("there is no user postgres (Debian's postgresql makes it)")?
        .split(':')
        .skip(1)
        .map(|id| id.parse().map_err(|_| "odd /etc/passwd".to_owned()));
    let uid = ids.next().ok_or("odd /etc/passwd")??;
    let gid = ids.next().ok_or("odd /etc/passwd")??;
    Ok((uid, gid))
}

/// A port for a program that has to be told one: below those that the kernel gives away, so that nobody gets it who asks for
/// any, and another one for each process and each call.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let own = u16::try_from(std::process::id() % 1000).unwrap() * 20;
        let port = 10_000 + own + NEXT.fetch_add(1, Ordering::Relaxed) % 20;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
