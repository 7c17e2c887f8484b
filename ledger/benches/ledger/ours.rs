//! Our ledger: appending, verifying, trees, sizes.

use crate::journald::Journald;
use crate::table::Table;
use crate::{Anyhow, Store, directory};
use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::keys::Signer;
use blockhost_ledger::merkle::{Frontier, leaf_hash};
use blockhost_ledger::proof::TlogProof;
use blockhost_ledger::reader::Reader;
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::verify::{Trust, verify};
use blockhost_ledger::writer::{Options, Writer};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

pub(crate) struct Ours {
    writer: Writer,
    /// Made beforehand, as the others' bytes are copied and not made by them: what is measured is keeping them.
    drafts: Vec<Draft>,
    count: u64,
}

impl Ours {
    pub fn open(dir: &Path) -> Anyhow<Self> {
        std::fs::create_dir_all(dir)?;
        let signer = Signer::from_bytes("bench.example/blockhost-ledger", 1, &[42; 32])?;
        let (writer, _) = Writer::open(LedgerDir::open(dir)?, signer, "bench", Options::default())?;
        Ok(Self {
            writer,
            drafts: (0..256).map(draft).collect(),
            count: 0,
        })
    }
}

impl Store for Ours {
    fn keep(&mut self, batch: usize) -> Anyhow<()> {
        let drafts = self.drafts.get(..batch).ok_or("more than were made")?;
        self.writer.append(drafts)?;
        self.count += batch as u64;
        Ok(())
    }
}

/// A record as the agent writes it, of about 800 bytes when it is encoded.
fn draft(n: u64) -> Draft {
    let metadata = json!({
        "args": ["--memory", "2048", "--cores", "2", "--net0", "virtio,bridge=vmbr0", "--ipconfig0", format!("ip6=fd00::{:x}/128", n % 65_536)],
        "name": format!("vm-{}", n % 1000), "right": "qm.create", "vmid": 100 + n % 900, "storage": "local-lvm",
    });
    Draft {
        phase: if n.is_multiple_of(2) {
            Phase::Intent
        } else {
            Phase::Outcome
        },
        op_id: format!("{:016x}", (n / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        plugin_id: "qm".into(),
        category: "compute".into(),
        operation: "create".into(),
        action: "qm-create".into(),
        resource: format!("vm:{}", 100 + n % 900),
        user: "blockhost".into(),
        uid: 990,
        pid: Some(4242),
        exe: Some("/usr/bin/blockhost-vm-create".into()),
        unit: Some("blockhost-engine.service".into()),
        metadata: metadata.as_object().cloned().unwrap_or_default(),
    }
}

/// The same size for everybody else.
pub(crate) fn realistic(n: u64) -> Vec<u8> {
    let mut text = format!("{n:08} ");
    while text.len() < 800 {
        text.push_str(&format!(
            "{:016x} ",
            n.wrapping_add(text.len() as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ));
    }
    text.truncate(800);
    text.into_bytes()
}

/// Calls that bring data to the disk, counted by strace in a run of their own.
pub(crate) fn syncs(table: &mut Table) -> Anyhow<()> {
    const RECORDS: usize = 640;
    let exe = std::env::current_exe()?;
    for (which, name) in [
        ("one", "ours, one caller"),
        ("many", "ours, 64 together"),
        ("bare", "append + fdatasync"),
        ("sqlite", "SQLite WAL FULL"),
    ] {
        let traced = Command::new("strace")
            .args([
                "-f",
                "-c",
                "-e",
                "trace=fsync,fdatasync,sync_file_range,syncfs",
            ])
            .arg(&exe)
            .args(["--only", which, &RECORDS.to_string()])
            .output();
        let Some(output) = table.or_note("strace", traced.map_err(Into::into)) else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // "% time  seconds  usecs/call  calls  [errors]  syscall"
        let count = |call: &str| -> u64 {
            let line = text.lines().find(|line| line.trim_end().ends_with(call));
            line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok())
                .unwrap_or(0)
        };
        let (data, all) = (count(" fdatasync"), count(" fsync"));
        table.note(format!(
            "syncs of {RECORDS} records, {name}: {data} fdatasync, {all} fsync"
        ));
    }
    Ok(())
}

/// Seconds of processor time that this process used.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: u64 = stat
        .rsplit(") ")
        .next()
        .into_iter()
        .flat_map(|rest| rest.split(' ').skip(11).take(2))
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks as f64 / 100.0
}

/// A ledger of so many records, and the bytes of one.
fn filled(dir: &Path, records: u64) -> Anyhow<f64> {
    let mut ours = Ours::open(dir)?;
    // None like the other: sizes are measured of these.
    while ours.count < records {
        let drafts: Vec<Draft> = (ours.count..ours.count + 256).map(draft).collect();
        ours.writer.append(&drafts)?;
        ours.count += 256;
    }
    ours.writer.publish()?;
    drop(ours);
    let reader = Reader::open(LedgerDir::open(dir)?, None)?;
    let sample = (0..512).map(|index| reader.get(index).map(|bytes| bytes.len() as u64));
    let bytes: u64 = sample.sum::<Result<u64, _>>()?;
    Ok(bytes as f64 / 512.0)
}

pub(crate) fn verification(table: &mut Table) -> Anyhow<()> {
    const RECORDS: u64 = 196_608;
    let dir = directory()?;
    let ours = dir.path().join("ours");
    let bytes = filled(&ours, RECORDS)?;
    let (mut best, mut best_core) = (0.0_f64, 0.0_f64);
    for _ in 0..3 {
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let report = verify(&LedgerDir::open(&ours)?, &Trust::default(), &mut |_, _| {})?;
        if !report.ok {
            return Err(format!("our own ledger does not verify: {:?}", report.problems).into());
        }
        best = best.max(RECORDS as f64 / begun.elapsed().as_secs_f64());
        best_core = best_core.max(RECORDS as f64 / (cpu_seconds() - cpu).max(0.01));
    }
    let what = format!("full verification, records of {bytes:.0} bytes");
    table
        .add(&format!("{what}, per second and core"), "/s", best_core)
        .at_least(1_500_000.0);
    let journal = Journald::start(&dir.path().join("journal")).and_then(|mut journal| {
        journal.rate(6, 40_000)?;
        journal.verification()
    });
    let row = table.or_note("journalctl --verify", journal);
    let row = row.map(|(seconds, records)| records as f64 / seconds);
    let added = table.add(&format!("{what}, per second"), "/s", best);
    if let Some(theirs) = row {
        added
            .beside("journalctl --verify", theirs)
            .ratio_at_least(30.0);
    }

    #[cfg(feature = "index")]
    {
        let reader = Reader::open(LedgerDir::open(&ours)?, None)?;
        let begun = Instant::now();
        blockhost_ledger::index::Index::rebuild(
            &dir.path().join("index.db"),
            &reader,
            &mut |_, _| {},
        )?;
        let million = begun.elapsed().as_secs_f64() * 1e6 / RECORDS as f64;
        table
            .add("rebuilding the index, per million records", "s", million)
            .at_most(2.0);
    }
    sealed(table, &ours)
}

/// Bytes of a sealed record: both files of each segment that is full.
fn sealed(table: &mut Table, dir: &Path) -> Anyhow<()> {
    let mut ours = Ours::open(dir)?;
    while ours.writer.wants_sealing() {
        ours.writer.seal_step()?;
    }
    ours.writer.publish()?;
    drop(ours);
    let (mut bytes, mut segments) = (0, 0);
    for entry in std::fs::read_dir(dir.join("seg"))? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().ends_with(".log") {
            bytes += entry.metadata()?.len();
            segments += u64::from(entry.file_name().to_string_lossy().ends_with(".zst"));
        }
    }
    if segments == 0 {
        return Err("nothing was sealed".into());
    }
    let records = segments * blockhost_ledger::segment::MAX_RECORDS;
    table
        .add(
            "a sealed record, with its hash and proofs",
            "B",
            bytes as f64 / records as f64,
        )
        .at_most(250.0);
    Ok(())
}

pub(crate) fn trees(table: &mut Table) {
    const LEAVES: u64 = 500_000;
    let leaves: Vec<Vec<u8>> = (0..LEAVES).map(|n| n.to_le_bytes().to_vec()).collect();
    let begun = Instant::now();
    let mut frontier = Frontier::new();
    for leaf in &leaves {
        frontier.push(leaf_hash(leaf));
    }
    let root = frontier.root();
    let ours = LEAVES as f64 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let mut tree = ct_merkle::mem_backed_tree::MemoryBackedTree::<sha2_11::Sha256, Vec<u8>>::new();
    for leaf in leaves {
        tree.push(leaf);
    }
    let theirs_root = tree.root();
    let theirs = LEAVES as f64 / begun.elapsed().as_secs_f64();
    let same = theirs_root.as_bytes()[..] == root[..];
    table
        .add("tree over small leaves, leaves per second", "/s", ours)
        .beside("ct-merkle", theirs);
    table.note(format!(
        "both trees have the same root: {}",
        if same { "yes" } else { "NO" }
    ));
}

pub(crate) fn sizes(table: &mut Table) -> Anyhow<()> {
    const AMONG: u64 = 100_000_000;
    let dir = directory()?;
    filled(dir.path(), 1024)?;
    let text = Reader::open(LedgerDir::open(dir.path())?, None)?.prove(512, false)?;
    let mut proof = TlogProof::parse(&text)?;
    // As long as the path of the deepest leaf; a proof of the last size has as many digits as this one.
    proof
        .path
        .resize(AMONG.next_power_of_two().ilog2() as usize, [0x5a; 32]);
    proof.index = AMONG - 1;
    let hashes = proof.path.len() * 32;
    proof.checkpoint = proof
        .checkpoint
        .replacen("\n1024\n", &format!("\n{AMONG}\n"), 1);
    let compact = blockhost_ledger::compact::pack(&proof).ok_or("a proof without a signature")?;
    table
        .add(
            "proof of one record among 10^8 (prove --compact)",
            "B",
            compact.len() as f64,
        )
        .at_most(1024.0);
    let text = proof.to_string().len();
    table
        .add("the same as a .tlog-proof", "B", text as f64)
        .at_most(1536.0);
    table.note(format!(
        "of that proof {hashes} bytes are hashes; the text, a format of others, carries them in base64"
    ));
    Ok(())
}
