//! Bad files first: each error has to name file, line and key.

use std::path::Path;

use super::*;

const GOOD: &str = "db_file: /var/lib/blockhost/vms.json
vmid_range: {start: 100, end: 999}
ip_pool:
  network: '192.168.122.0/24'
  start: 200
  end: 192.168.122.250
  gateway: '192.168.122.1'
ipv6_pool: {start: 2, end: 254}
gc_grace_days: 7
";

fn read(text: &str) -> Result<(DbConfig, Vec<Warning>), ConfigError> {
    let file = Path::new("/etc/blockhost/db.yaml");
    let mut warnings = Vec::new();
    let config = DbConfig::read(
        &Layout::new("/w"),
        file,
        Section::parse(file, text)?,
        &mut warnings,
    )?;
    Ok((config, warnings))
}

#[test]
fn every_error_names_file_line_and_key() {
    for (from, to, line, key) in [
        ("start: 200", "start: 300", 5, "ip_pool.start"),
        (
            "end: 192.168.122.250",
            "end: 192.168.123.250",
            6,
            "ip_pool.end",
        ),
        ("end: 192.168.122.250", "end: 10", 6, "ip_pool.end"),
        ("end: 192.168.122.250", "end: 255", 6, "ip_pool.end"),
        (
            "network: '192.168.122.0/24'",
            "network: '192.168.122.1/24'",
            4,
            "ip_pool.network",
        ),
        (
            "network: '192.168.122.0/24'",
            "network: '192.168.122.0/+24'",
            4,
            "ip_pool.network",
        ),
        (
            "network: '192.168.122.0/24'",
            "network: 12",
            4,
            "ip_pool.network",
        ),
        (
            "gateway: '192.168.122.1'",
            "gateway: 210",
            7,
            "ip_pool.gateway",
        ),
        ("gc_grace_days: 7", "gc_grace_days: '7'", 9, "gc_grace_days"),
        ("gc_grace_days: 7", "gc_grace_days: -1", 9, "gc_grace_days"),
        ("gc_grace_days: 7", "gc_grace_days: 7.5", 9, "gc_grace_days"),
        ("start: 100", "start: 99", 2, "vmid_range.start"),
        ("end: 999}", "end: 99999999}", 2, "vmid_range.end"),
        ("end: 254", "end: 1", 8, "ipv6_pool.end"),
        (
            "db_file: /var/lib/blockhost/vms.json",
            "db_file: [a]",
            1,
            "db_file",
        ),
        ("  gateway: '192.168.122.1'\n", "", 4, "ip_pool.gateway"),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from}");
        let error = read(&text).expect_err(to).to_string();
        assert!(
            error.starts_with(&format!("/etc/blockhost/db.yaml:{line}: key \"{key}\"")),
            "{to}: {error}"
        );
    }
}

#[test]
fn an_unknown_key_is_a_warning_with_its_name_and_line() {
    let (_, warnings) = read(&format!("{GOOD}gc_grace_day: 3\n")).unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(
        warnings[0].to_string(),
        "/etc/blockhost/db.yaml:10: unknown key \"gc_grace_day\" is ignored"
    );
}

#[test]
fn a_key_given_twice_is_an_error() {
    assert!(read(&format!("{GOOD}gc_grace_days: 3\n")).is_err());
}

#[test]
fn the_documented_file_is_read_without_warnings() {
    let (config, warnings) = read(GOOD).unwrap();
    assert!(warnings.is_empty());
    assert_eq!(config.db_file, Path::new("/w/var/lib/blockhost/vms.json"));
    assert_eq!(
        config.ip_pool.start,
        std::net::Ipv4Addr::new(192, 168, 122, 200)
    );
    assert_eq!(config.vmids, 100..=999);
    assert_eq!((config.gc_grace_days, config.default_expiry_days), (7, 30));
}

#[test]
fn a_pool_outside_the_brokers_prefix_is_an_error() {
    let (config, _) = read(GOOD).unwrap();
    let pool = config.ipv6_pool.unwrap();
    assert!(pool.check(&"fd00::/120".parse().unwrap()).is_ok());
    let error = pool
        .check(&"fd00::/121".parse().unwrap())
        .unwrap_err()
        .to_string();
    assert!(error.contains(":8: key \"ipv6_pool.end\""), "{error}");
}

#[test]
fn the_broker_file_is_json_with_lines_in_its_errors() {
    let file = Path::new("b.json");
    let read = |text: &str| BrokerAllocation::read(Section::parse(file, text).unwrap());
    let good =
        read("{\"prefix\": \"fd77:b10c::/64\", \"gateway\": \"fd77:b10c::1\", \"other\": 1}")
            .unwrap();
    assert_eq!(good.prefix.at(0x10).unwrap().to_string(), "fd77:b10c::10");
    let error = read("{\n\"prefix\": \"fd77:b10c::/64\",\n\"gateway\": \"fd78::1\"}")
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("b.json:3: key \"gateway\""), "{error}");
    assert!(read("{\"prefix\": \"fd77:b10c::1/64\"}").is_err());
}

#[test]
fn defaults_of_the_host_file_are_valid_values() {
    let config =
        BlockhostConfig::read(Section::parse(Path::new("x"), "").unwrap(), &mut Vec::new())
            .unwrap();
    assert_eq!(
        (config.template_vmid.get(), config.bridge.as_str()),
        (9000, "vmbr0")
    );
}

#[test]
fn a_user_name_that_the_agent_would_refuse_is_refused_here() {
    let section = Section::parse(Path::new("x"), "vm: {username: 'a b'}").unwrap();
    assert!(BlockhostConfig::read(section, &mut Vec::new()).is_err());
}

#[test]
fn what_names_no_host_is_of_a_single_host_and_nobodys_on_a_server() {
    let host = |server: &str| {
        let (db, _) = read(&format!("{GOOD}{server}")).unwrap();
        let other = Section::parse(Path::new("x"), "proxmox: {node: host-1}").unwrap();
        Config {
            db,
            host: BlockhostConfig::read(other, &mut Vec::new()).unwrap(),
            broker: None,
            machine_id: None,
            warnings: Vec::new(),
        }
    };
    let record = |node: Option<&str>, status: &str| -> VmRecord {
        serde_json::from_value(serde_json::json!({
            "vm_name": "web-1", "vmid": 100, "status": status, "node": node,
            "expires_at": "2026-01-01T00:00:00Z", "created_at": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    };
    let (alone, shared) = (host(""), host("db_url: postgres:///vms\n"));
    for config in [&alone, &shared] {
        assert!(config.is_here(Some("host-1")) && !config.is_here(Some("host-2")));
        assert!(!config.is_nobodys(&record(Some("host-2"), "active")));
        assert!(!config.is_nobodys(&record(None, "destroyed")));
    }
    assert!(alone.is_here(None) && !alone.is_nobodys(&record(None, "active")));
    assert!(!shared.is_here(None) && shared.is_nobodys(&record(None, "active")));
}
