//! Looks that must not be compared, and what the comparison of the others gives.

use super::*;
use proptest::prelude::*;

fn look(at_ms: u64, count: u64) -> Counters {
    Counters {
        vmid: Vmid::try_from(100_u32).unwrap(),
        name: Some("web-1".into()),
        state: "running".into(),
        at_ms,
        started: 7,
        uptime_s: at_ms / 1000,
        cpus: Some(2),
        cpu_ms: Some(count),
        memory_used: Some(300 << 20),
        memory_total: Some(512 << 20),
        disk_used: Some(1 << 30),
        disk_total: Some(8 << 30),
        disk_reads: Some(count),
        disk_writes: Some(count * 2),
        disk_read_bytes: Some(count * 4096),
        disk_written_bytes: Some(count * 8192),
        net_in_bytes: Some(count * 100),
        net_out_bytes: Some(count * 50),
        net_connections: Some(3),
        guest_agent: Some(true),
    }
}

#[test]
fn rates_are_differences_by_the_time_between() {
    let now = Metrics::between(Some(&look(10_000, 1000)), &look(12_000, 3000));
    assert_eq!(now.cpu_percent, Some(50.0), "one of two processors");
    assert_eq!(
        (now.disk_read_iops, now.disk_write_iops),
        (Some(1000.0), Some(2000.0))
    );
    assert_eq!(now.disk_read_bytes_sec, Some(1000 * 4096));
    assert_eq!(
        (now.net_rx_bytes_sec, now.net_tx_bytes_sec),
        (Some(100_000), Some(50_000))
    );
    assert_eq!(
        (now.memory_used_mb, now.memory_total_mb),
        (Some(300), Some(512))
    );
    assert_eq!(
        (now.disk_used_mb, now.disk_total_mb),
        (Some(1024), Some(8192))
    );
}

#[test]
fn looks_at_another_process_or_of_another_time_are_not_compared() {
    let now = look(1_000_000, 3000);
    let restarted = Counters {
        started: 8,
        ..look(998_000, 1000)
    };
    for before in [
        restarted,
        look(999_999, 1),
        look(50_000, 1),
        look(1_000_001, 1),
        look(5_000_000, 1),
    ] {
        let metrics = Metrics::between(Some(&before), &now);
        assert_eq!(
            (metrics.cpu_percent, metrics.net_rx_bytes_sec),
            (None, None),
            "{before:?}"
        );
    }
    assert_eq!(Metrics::between(None, &now).disk_read_iops, None);
}

#[test]
fn a_counter_that_fell_or_is_missing_is_unknown_and_never_a_huge_number() {
    let mut now = look(12_000, 10);
    now.net_in_bytes = None;
    let metrics = Metrics::between(Some(&look(10_000, 1000)), &now);
    assert_eq!(
        (
            metrics.cpu_percent,
            metrics.disk_read_iops,
            metrics.net_rx_bytes_sec
        ),
        (None, None, None)
    );
}

#[test]
fn a_machine_that_is_off_uses_nothing() {
    let off = Counters {
        state: "stopped".into(),
        started: 0,
        cpu_ms: None,
        memory_used: None,
        disk_reads: None,
        net_in_bytes: None,
        net_connections: None,
        guest_agent: None,
        ..look(12_000, 0)
    };
    let metrics = Metrics::between(None, &off);
    assert_eq!(
        (metrics.cpu_percent, metrics.memory_used_mb),
        (Some(0.0), Some(0))
    );
    assert_eq!(
        (metrics.disk_read_iops, metrics.net_rx_bytes_sec),
        (Some(0.0), Some(0))
    );
    assert_eq!(
        (metrics.guest_agent_responsive, metrics.net_connections),
        (Some(false), Some(0))
    );
}

#[test]
fn the_keys_are_those_of_the_contract() {
    let value = serde_json::to_value(Metrics::between(None, &look(1, 1))).unwrap();
    let keys: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut expected = vec![
        "cpu_percent",
        "cpu_count",
        "memory_used_mb",
        "memory_total_mb",
        "disk_used_mb",
        "disk_total_mb",
        "disk_read_iops",
        "disk_write_iops",
        "disk_read_bytes_sec",
        "disk_write_bytes_sec",
        "net_rx_bytes_sec",
        "net_tx_bytes_sec",
        "net_connections",
        "guest_agent_responsive",
        "uptime_seconds",
        "state",
    ];
    let mut keys = keys;
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

#[test]
fn kept_looks_that_are_damaged_count_as_none() {
    let directory = tempfile::tempdir().unwrap();
    let kept = Kept::of(&Layout::new(directory.path()));
    std::fs::create_dir_all(kept.path.parent().unwrap()).unwrap();
    for text in ["", "{", "{}", "[{\"vmid\": 100}]", "[{\"vmid\": 7}]"] {
        std::fs::write(&kept.path, text).unwrap();
        assert!(kept.load().is_empty(), "{text}");
    }
    let looks = BTreeMap::from([(Vmid::try_from(100_u32).unwrap(), look(1, 2))]);
    kept.store(&looks).unwrap();
    assert_eq!(kept.load(), looks);
    let files = std::fs::read_dir(kept.path.parent().unwrap())
        .unwrap()
        .count();
    assert_eq!(files, 1, "no temporary file is left");
}

proptest! {
    #[test]
    fn no_two_looks_give_a_number_that_is_none(a in any::<u64>(), b in any::<u64>(), at in any::<u64>(), apart in any::<u64>()) {
        let count = |n: u64| Counters { cpu_ms: Some(n), disk_reads: Some(n), net_in_bytes: Some(n), ..look(0, 0) };
        let before = Counters { at_ms: at, ..count(a) };
        let now = Counters { at_ms: at.wrapping_add(apart), ..count(b) };
        let metrics = Metrics::between(Some(&before), &now);
        prop_assert!(metrics.cpu_percent.is_none_or(f64::is_finite));
        prop_assert!(metrics.disk_read_iops.is_none_or(|rate| rate >= 0.0));
    }
}
