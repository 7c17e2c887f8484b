//! What sealing saves and what checking sealed segments costs. Run on demand:
//! `cargo test --release -p blockhost-ledger --features cli --test seal_cost -- --ignored --nocapture`

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::writer::{Options, Writer};
use common::{World, draft, signer};
use std::time::Instant;

/// An intent or an outcome as the agent writes them, of about 780 bytes; what differs between them differs as much as
/// it does on a host: addresses, keys, times, numbers of jobs.
fn realistic(n: u64) -> Draft {
    let mix = |salt: u64| {
        let mut z = (n / 2)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(salt.wrapping_mul(0xbf58_476d_1ce4_e5b9));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let phase = if n.is_multiple_of(2) {
        Phase::Intent
    } else {
        Phase::Outcome
    };
    let vm = 100 + mix(1) % 800;
    let mut draft = draft(phase, &format!("{:016x}-{}", 0x1234_5678_9abc_u64, n / 2));
    draft.resource = format!("vm:{vm}");
    draft.pid = i32::try_from(mix(2) % 40_000).ok();
    draft.unit = Some("blockhost-engine.service".into());
    draft.metadata.clear();
    let mut put =
        |key: &str, value: serde_json::Value| drop(draft.metadata.insert(key.into(), value));
    put("vmid", vm.into());
    if phase == Phase::Intent {
        put(
            "address",
            format!("2001:db8::{:x}:{:x}", mix(3) >> 48, mix(4) >> 48).into(),
        );
        put("memory_mib", (1024 << (mix(5) % 3)).into());
        put("cores", (1 + mix(6) % 4).into());
        put("storage", "local-lvm".into());
        put("bridge", "vmbr0".into());
        put("name", format!("vm-{vm}-{:08x}", mix(7) >> 32).into());
        put("template", "debian-12-blockhost".into());
        put(
            "ssh_key",
            format!("SHA256:{:016x}{:016x}", mix(8), mix(9)).into(),
        );
    } else {
        put("duration_ms", (300 + mix(10) % 9000).into());
        put("exit_code", 0.into());
        put("result", "ok".into());
        put(
            "upid",
            format!(
                "UPID:pve1:{:08X}:{:08X}:qmcreate:{vm}:root@pam:",
                mix(11) >> 32,
                mix(12) >> 32
            )
            .into(),
        );
        put(
            "stdout",
            "logical volume created; transferred 0.0 B of 8.0 GiB".into(),
        );
    }
    draft
}

#[test]
#[ignore = "measures; LEDGER_RECORDS (200 000) records"]
fn bytes_a_record_and_records_a_second() {
    let wanted: u64 = std::env::var("LEDGER_RECORDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(200_000);
    let world = World::new();
    let dir = LedgerDir::open(world.path()).expect("opens");
    let (mut writer, _) =
        Writer::open(dir, signer(), "pve1.example", Options::default()).expect("opens");
    let mut drafts = Vec::new();
    for n in 0..wanted {
        drafts.push(realistic(n));
        if drafts.len() == 64 || n + 1 == wanted {
            writer.append(&drafts).expect("appended");
            drafts.clear();
        }
    }
    let (begun, mut steps, mut longest) = (Instant::now(), 0_u32, std::time::Duration::ZERO);
    while writer.wants_sealing() {
        let step = Instant::now();
        writer.seal_step().expect("sealed");
        (steps, longest) = (steps + 1, longest.max(step.elapsed()));
    }
    let sealing = begun.elapsed();
    drop(writer);
    let (mut sealed, mut hashes) = (0, 0);
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(world.path().join("seg")).expect("listed") {
        let entry = entry.expect("entry");
        let name = entry.file_name().into_string().expect("text");
        let bytes = entry.metadata().expect("there").len();
        match name.rsplit('.').next() {
            Some("zst") => sealed += bytes,
            Some("hsh") => hashes += bytes,
            _ => logs.push(name),
        }
    }
    let records = wanted / 65_536 * 65_536;
    println!(
        "{records} of {wanted} records sealed in {sealing:?} ({steps} steps, the longest {longest:?}): {:.1} bytes a record, {:.1} of them hashes; left {logs:?}",
        (sealed + hashes) as f64 / records as f64,
        hashes as f64 / records as f64
    );
    for round in 0..3 {
        let begun = Instant::now();
        let report = world.verify();
        let took = begun.elapsed();
        assert!(
            report.ok || report.problems.iter().all(|p| p.place == "checkpoint"),
            "{report:?}"
        );
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        println!(
            "round {round}: verified {} records in {took:?}: {:.2} M records/s with {cores} cores, {:.2} M for each",
            report.records,
            report.records as f64 / took.as_secs_f64() / 1e6,
            report.records as f64 / took.as_secs_f64() / 1e6 / cores as f64
        );
    }
    let begun = Instant::now();
    let dir = LedgerDir::open(world.path()).expect("opens");
    let (_, recovery) =
        Writer::open(dir, signer(), "pve1.example", Options::default()).expect("opens");
    println!(
        "the writer opens in {:?}, {} intents open",
        begun.elapsed(),
        recovery.open_intents.len()
    );
}
