//! Reaching the server: what a `db_url` may say, the connection with its limits, and the schema brought to our version.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls, Transaction};

use super::tls::Authority;
use crate::store::StoreError;

/// The steps from one version of the schema to the next. What was shipped never changes: a change is a new step.
const MIGRATIONS: &[&str] = &[include_str!("0001.sql"), include_str!("0002.sql")];

/// The lock that whoever migrates holds, so that two hosts that start together do it once.
const MIGRATION_LOCK: i64 = 0x626c_6f63_6b68_6f73;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// After so long without an answer a server on the network counts as gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// No operation of ours takes longer; one that waits for another's lock gives up. The server is to notice within one and a
/// half minutes that our host has gone, and not after the two hours that are usual: until then its connection counts as life.
const LIMITS: &str = "SET statement_timeout = '30s'; SET lock_timeout = '20s'; SET idle_in_transaction_session_timeout = '60s'; \
    SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 6";

/// A `db_url` that may be used, and how whoever answers there is known.
#[derive(Clone)]
pub struct Address {
    /// As it was given, with the password.
    url: String,
    config: Config,
    authority: Option<Authority>,
    shown: String,
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url && self.authority == other.authority
    }
}

/// Why a setting cannot be used; one sentence without the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// `db_url`.
    Url(String),
    /// `db_ca_file`, where `db_url` alone would do.
    Authority(String),
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Address {
    /// Reads `db_url`, and `db_ca_file` as `authority`. A server on the network is spoken to by TLS and has to show a
    /// certificate of that authority; in clear text only where somebody wants it: `sslmode=disable`.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn read(url: &str, authority: Option<PathBuf>) -> Result<Self, Unusable> {
        let (mut config, beyond) = parts(url).map_err(Unusable::Url)?;
        let mode = config.get_ssl_mode();
        match &authority {
            None => clear_text(mode, beyond).map_err(Unusable::Url)?,
            Some(_) => certified(&config, mode).map_err(Unusable::Authority)?,
        }
        config
            .ssl_mode(if authority.is_some() {
                SslMode::Require
            } else {
                SslMode::Disable
            })
            .connect_timeout(CONNECT_LIMIT)
            .tcp_user_timeout(SILENCE_LIMIT)
            .keepalives_idle(SILENCE_LIMIT)
            .application_name("blockhost");
        let shown = shown(&config);
        Ok(Self {
            url: url.to_owned(),
            config,
            authority: authority.map(Authority::new),
            shown,
        })
    }

    /// The address without the password.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    pub(super) fn connect(&self) -> Result<Client, StoreError> {
        let connected = match &self.authority {
            None => self.config.connect(NoTls),
            Some(authority) => {
                let tls = authority
                    .connector()
                    .map_err(|problem| StoreError::Server {
                        server: self.shown.clone(),
                        problem: format!("cannot be known: db_ca_file {problem}"),
                    })?;
                self.config.connect(tls)
            }
        };
        let mut client = connected.map_err(|e| self.failed("cannot be reached", &e))?;
        client
            .batch_execute(LIMITS)
            .map_err(|e| self.failed("refuses our limits", &e))?;
        Ok(client)
    }

    pub(super) fn failed(&self, what: &str, error: &postgres::Error) -> StoreError {
        StoreError::Server {
            server: self.shown.clone(),
            problem: format!("{what}: {}", words(error)),
        }
    }

    /// Brings the schema to our version.
    pub(super) fn migrate(&self, client: &mut Client) -> Result<(), StoreError> {
        let failed =
            |e: postgres::Error| self.failed("the schema cannot be brought up to date", &e);
        if self.version(client)? == Some(MIGRATIONS.len()) {
            return Ok(());
        }
        let mut tx = client.transaction().map_err(failed)?;
        tx.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK])
            .map_err(failed)?;
        tx.batch_execute(
            "CREATE SCHEMA IF NOT EXISTS blockhost;
             CREATE TABLE IF NOT EXISTS blockhost.schema_version (version integer PRIMARY KEY, since timestamptz NOT NULL DEFAULT now())",
        )
        .map_err(failed)?;
        // Another host may have been quicker.
        let done = self.version(&mut tx)?.unwrap_or(0);
        for (step, sql) in MIGRATIONS.iter().enumerate().skip(done) {
            let version = i32::try_from(step + 1).unwrap_or(i32::MAX);
            tx.batch_execute(sql).map_err(failed)?;
            tx.execute(
                "INSERT INTO blockhost.schema_version (version) VALUES ($1)",
                &[&version],
            )
            .map_err(failed)?;
        }
        tx.commit().map_err(failed)
    }

    /// The version of the schema; `None` before the first.
    fn version(&self, client: &mut impl Queries) -> Result<Option<usize>, StoreError> {
        let found = client.max_version().or_else(|e| {
            let absent = [
                postgres::error::SqlState::UNDEFINED_TABLE,
                postgres::error::SqlState::INVALID_SCHEMA_NAME,
            ];
            if e.code().is_some_and(|code| absent.contains(code)) {
                Ok(None)
            } else {
                Err(self.failed("the version of the schema cannot be read", &e))
            }
        })?;
        let version = found.and_then(|version| usize::try_from(version).ok());
        if version.is_some_and(|version| version > MIGRATIONS.len()) {
            return Err(StoreError::Server {
                server: self.shown.clone(),
                problem: format!(
                    "its schema has version {}, this program knows {}: upgrade this host, too",
                    version.unwrap_or(0),
                    MIGRATIONS.len()
                ),
            });
        }
        Ok(version)
    }
}

/// What a `db_url` says, and whether a server beyond this host is among it.
fn parts(url: &str) -> Result<(Config, bool), String> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err("it does not begin with postgres://".to_owned());
    }
    // The parser's own words may repeat what it was given.
    let mut config: Config = url.parse().map_err(|_| {
        "it is no PostgreSQL address such as postgres://user@/name?host=/run/postgresql".to_owned()
    })?;
    if !config.get_hostaddrs().is_empty() {
        return Err("hostaddr is not supported: name the server by host".to_owned());
    }
    if config.get_hosts().is_empty() {
        config.host_path("/run/postgresql");
    }
    let beyond = config.get_hosts().iter().any(|host| match host {
        Host::Unix(_) => false,
        Host::Tcp(name) => {
            name != "localhost" && !name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
    });
    Ok((config, beyond))
}

fn clear_text(mode: SslMode, beyond: bool) -> Result<(), String> {
    match mode {
        SslMode::Disable => Ok(()),
        SslMode::Prefer if !beyond => Ok(()),
        SslMode::Prefer => Err("a server on the network is spoken to by TLS: name the authority of its certificate in db_ca_file; or reach it through a tunnel and say so with ?sslmode=disable".to_owned()),
        _ => Err("for TLS, name the authority of the server's certificate in db_ca_file".to_owned()),
    }
}

fn certified(config: &Config, mode: SslMode) -> Result<(), String> {
    if mode == SslMode::Disable {
        return Err("db_url says sslmode=disable: leave one of the two away".to_owned());
    }
    if config
        .get_hosts()
        .iter()
        .any(|host| matches!(host, Host::Unix(_)))
    {
        return Err(
            "TLS is for a server that is reached by its name; db_url names a socket".to_owned(),
        );
    }
    Ok(())
}

trait Queries {
    fn max_version(&mut self) -> Result<Option<i32>, postgres::Error>;
}

const VERSION: &str = "SELECT max(version) FROM blockhost.schema_version";

impl Queries for Client {
    fn max_version(&mut self) -> Result<Option<i32>, postgres::Error> {
        self.query_one(VERSION, &[])?.try_get(0)
    }
}

impl Queries for Transaction<'_> {
    fn max_version(&mut self) -> Result<Option<i32>, postgres::Error> {
        self.query_one(VERSION, &[])?.try_get(0)
    }
}

/// The server's own sentence where it spoke, without the values of the statement.
fn words(error: &postgres::Error) -> String {
    let text = match error.as_db_error() {
        Some(said) => said.message().to_owned(),
        None => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            text
        }
    };
    blockhost_proto::escape::shown(&text)
}

fn shown(config: &Config) -> String {
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Unix(path) => path.display().to_string(),
            Host::Tcp(name) => name.clone(),
        })
        .collect();
    let user = config
        .get_user()
        .map_or_else(String::new, |user| format!("{user}@"));
    let name = config
        .get_dbname()
        .or(config.get_user())
        .unwrap_or_default();
    blockhost_proto::escape::shown(&format!("postgres://{user}{}/{name}", hosts.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_shown_with_its_password() {
        for url in [
            "postgres://bob:s3cret@localhost/vms",
            "postgres://bob:s3cret@%2Frun%2Fpostgresql/vms",
            "postgresql://localhost/vms?user=bob&password=s3cret",
            "postgres://bob:s3cret@10.0.0.1/vms?sslmode=disable",
            "postgres://bob:s3cret@10.0.0.1/vms",
            "postgres://bob:s3cret@[::/vms",
            "postgres://bob:s3cret@h/vms?nonsense=s3cret",
            "mysql://bob:s3cret@localhost/vms",
            "s3cret",
        ] {
            for authority in [None, Some(PathBuf::from("/etc/blockhost/db-ca.pem"))] {
                let said = match Address::read(url, authority) {
                    Ok(address) => format!("{address:?} {}", address.shown()),
                    Err(why) => format!("{why:?}"),
                };
                assert!(!said.contains("s3cret"), "{said}");
            }
        }
    }

    #[test]
    fn clear_text_on_the_network_has_to_be_asked_for() {
        for (url, good) in [
            ("postgres:///vms", true),
            ("postgres:///vms?host=/run/postgresql", true),
            ("postgres://localhost/vms", true),
            ("postgres://127.0.0.1,[::1]/vms", true),
            ("postgres://db.example/vms?sslmode=disable", true),
            ("postgres://db.example/vms", false),
            ("postgres://10.0.0.1/vms?sslmode=prefer", false),
            ("postgres://localhost,10.0.0.1/vms", false),
            ("postgres://localhost/vms?sslmode=require", false),
            ("postgres://localhost/vms?hostaddr=10.0.0.1", false),
            ("", false),
            ("postgres", false),
            ("host=localhost dbname=vms", false),
        ] {
            assert_eq!(Address::read(url, None).is_ok(), good, "{url}");
        }
    }

    #[test]
    fn with_an_authority_nothing_is_spoken_in_clear_text() {
        for (url, good) in [
            ("postgres://db.example/vms", true),
            ("postgres://db.example/vms?sslmode=require", true),
            ("postgres://db.example/vms?sslmode=prefer", true),
            ("postgres://10.0.0.1/vms", true),
            ("postgres://localhost/vms", true),
            ("postgres://db.example/vms?sslmode=disable", false),
            ("postgres:///vms", false),
            ("postgres:///vms?host=/run/postgresql", false),
            ("postgres://db.example/vms?host=/run/postgresql", false),
        ] {
            let read = Address::read(url, Some(PathBuf::from("/ca.pem")));
            assert_eq!(read.is_ok(), good, "{url}");
            if let Ok(address) = read {
                assert_eq!(address.config.get_ssl_mode(), SslMode::Require, "{url}");
            }
        }
    }
}
