//! A database server on the network: whoever answers has to show a certificate of the authority that the operator named, for
//! the name that was asked for. Nothing is said to anybody else, least of all in clear text.

#![expect(
    clippy::disallowed_methods,
    reason = "the test makes certificates with openssl"
)]

mod common;
#[path = "common/server.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use blockhost_provisioner::config::Config;
use blockhost_provisioner::store;
use common::TestWorld;
use server::Server;

const POOLS: &str = "vmid_range: {start: 100, end: 109}\nip_pool: {network: 10.77.0.0/24, start: 100, end: 150, gateway: 10.77.0.1}\n";

/// An authority with what it signs, in a directory.
struct Authority<'a>(&'a Path, &'static str);

impl Authority<'_> {
    fn file(&self, kind: &str) -> PathBuf {
        self.0.join(format!("{}.{kind}", self.1))
    }

    fn new<'a>(directory: &'a Path, name: &'static str) -> Authority<'a> {
        let authority = Authority(directory, name);
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name} -keyout {} -out {}",
            authority.file("key").display(),
            authority.file("pem").display()
        ));
        authority
    }

    /// Key and certificate of a server with these names, for so many days.
    fn signed(&self, server: &str, names: &str, days: u32) -> (PathBuf, PathBuf) {
        let at = |kind: &str| self.0.join(format!("{server}.{kind}"));
        let (key, request, certificate) = (at("key"), at("csr"), at("pem"));
        openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout {} -out {}",
            key.display(),
            request.display()
        ));
        let extensions = at("ext");
        std::fs::write(&extensions, format!("subjectAltName={names}\n")).unwrap();
        openssl(&format!(
            "x509 -req -in {} -CA {} -CAkey {} -CAcreateserial -days {days} -extfile {} -out {}",
            request.display(),
            self.file("pem").display(),
            self.file("key").display(),
            extensions.display(),
            certificate.display()
        ));
        (key, certificate)
    }
}

fn openssl(words: &str) {
    let done = Command::new("openssl")
        .args(words.split(' '))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", done.stderr.escape_ascii());
}

/// What a host says whose `db.yaml` has these lines: how many machines and reservations it sees, or why none.
fn seen(world: &TestWorld, lines: &str) -> Result<String, String> {
    let text = format!("{lines}\n{POOLS}");
    std::fs::write(world.layout.etc().join("db.yaml"), text).unwrap();
    let config = Config::load(&world.layout).map_err(|e| e.to_string())?;
    let store = store::open(&config).map_err(|e| e.to_string())?;
    let (records, reservations) = store.everything().map_err(|e| e.to_string())?;
    Ok(format!("{} {}", records.len(), reservations.len()))
}

#[test]
fn only_a_server_with_the_authoritys_certificate_for_its_name_is_spoken_to() {
    let Some(mut server) = Server::new() else {
        return;
    };
    let world = TestWorld::new();
    let directory = tempfile::tempdir().unwrap();
    let ours = Authority::new(directory.path(), "ours");
    let other = Authority::new(directory.path(), "other");
    let good = ours.signed("good", "DNS:localhost,IP:127.0.0.1", 2);
    let named = ours.signed("named", "DNS:db.example", 2);
    let stranger = other.signed("stranger", "DNS:localhost", 2);
    let old = ours.signed("old", "DNS:localhost", 0);
    let etc = world.layout.etc();
    std::fs::copy(ours.file("pem"), etc.join("db-ca.pem")).unwrap();
    let lines = |port: u16, host: &str| {
        format!(
            "db_url: 'postgres://blockhost@{host}:{port}/postgres'\ndb_ca_file: /etc/blockhost/db-ca.pem"
        )
    };

    // By its name and by its address, and nothing in clear text.
    let port = server.on_the_network(Some(&good));
    for host in ["localhost", "127.0.0.1"] {
        let shown = seen(&world, &lines(port, host));
        assert_eq!(shown.as_deref(), Ok("0 0"), "{host}");
    }
    let config = Config::load(&world.layout).unwrap();
    let open = store::open(&config).unwrap();
    let sql = "SELECT count(*) FILTER (WHERE ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'blockhost'";
    let row = server.session().query_one(sql, &[]).unwrap();
    let (protected, all): (i64, i64) = (row.get(0), row.get(1));
    assert!(protected == all && all >= 1, "{protected} of {all}");
    drop(open);

    // What the authority's file may be wrong in is said with the file's name.
    let ca = etc.join("db-ca.pem");
    for (content, word) in [
        (String::new(), "no certificate"),
        (
            std::fs::read_to_string(ours.file("key")).unwrap(),
            "no certificate",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            "db-ca.pem",
        ),
        ("-----BEGIN CERTIFICATE-----\n\u{1}".to_owned(), "db-ca.pem"),
    ] {
        std::fs::write(&ca, content).unwrap();
        let said = seen(&world, &lines(port, "localhost")).unwrap_err();
        assert!(said.contains(word) && said.contains("db-ca.pem"), "{said}");
    }
    std::fs::remove_file(&ca).unwrap();
    let said = seen(&world, &lines(port, "localhost")).unwrap_err();
    assert!(said.contains("db-ca.pem"), "{said}");
    std::fs::copy(ours.file("pem"), &ca).unwrap();

    // Others.
    for (certificate, what) in [
        (Some(&named), "for another name"),
        (Some(&stranger), "of another authority"),
        (None, "without TLS"),
    ] {
        let port = server.on_the_network(certificate);
        let said = seen(&world, &lines(port, "localhost"));
        let said = said.expect_err(what);
        assert!(said.contains("cannot be reached"), "{what}: {said}");
    }
    let port = server.on_the_network(Some(&old));
    let end = Instant::now() + Duration::from_secs(30);
    while seen(&world, &lines(port, "localhost")).is_ok() {
        assert!(Instant::now() < end, "a certificate that has expired");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_authority_without_a_server_on_the_network_is_refused_where_it_stands() {
    let world = TestWorld::new();
    for (lines, word) in [
        ("db_ca_file: /etc/blockhost/db-ca.pem", "db_url"),
        (
            "db_url: postgres:///vms\ndb_ca_file: /etc/blockhost/db-ca.pem",
            "socket",
        ),
        (
            "db_url: 'postgres://db.example/vms?sslmode=disable'\ndb_ca_file: /etc/blockhost/db-ca.pem",
            "sslmode=disable",
        ),
    ] {
        let said = seen(&world, lines).unwrap_err();
        assert!(said.contains("db_ca_file") && said.contains(word), "{said}");
    }
    let said = seen(&world, "db_url: postgres://db.example/vms").unwrap_err();
    assert!(said.contains("db_ca_file"), "{said}");
}
