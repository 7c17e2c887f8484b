//! A ledger in a temporary directory, and the tools of somebody who tampers with it and knows the format.
#![allow(dead_code, reason = "each test program uses a part of it")]

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::keys::Signer;
use blockhost_ledger::loss::{Look, Loss, look};
use blockhost_ledger::merkle::{Frontier, Hash, leaf_hash};
use blockhost_ledger::record::{Draft, Phase};
use blockhost_ledger::segment::{
    COMMIT, Commit, FRAME_BYTES, FrameReader, HEADER_BYTES, Header, RECORD, Step, push_frame,
};
use blockhost_ledger::verify::{Trust, VerifyReport, verify};
use blockhost_ledger::writer::{OpenError, Options, Recovery, Writer};
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

pub const NAME: &str = "host.example/blockhost-ledger";

pub struct World {
    pub dir: tempfile::TempDir,
}

pub fn signer() -> Signer {
    Signer::from_bytes(NAME, 1, &[42; 32]).expect("valid name")
}

pub fn draft(phase: Phase, op_id: &str) -> Draft {
    let mut metadata = serde_json::Map::new();
    metadata.insert("memory".into(), 2048.into());
    metadata.insert("text".into(), format!("machine of {op_id}").into());
    Draft {
        phase,
        op_id: op_id.into(),
        plugin_id: "qm".into(),
        category: "compute".into(),
        operation: "create".into(),
        action: "qm-create".into(),
        resource: "vm:100".into(),
        user: "blockhost".into(),
        uid: 990,
        pid: Some(42),
        exe: Some("/usr/bin/blockhost-vm-create".into()),
        unit: None,
        metadata,
    }
}

pub fn small() -> Options {
    Options {
        preallocate_bytes: 4096,
        reserve_bytes: 4096,
        ..Options::default()
    }
}

impl World {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("temp dir"),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn try_open(&self) -> Result<(Writer, Recovery), OpenError> {
        Writer::open(LedgerDir::open(self.path())?, signer(), "host", small())
    }

    pub fn open(&self) -> (Writer, Recovery) {
        self.try_open().expect("opens")
    }

    /// A published ledger of `batches` batches of two records.
    pub fn with_batches(batches: usize) -> Self {
        let world = Self::new();
        let (mut writer, _) = world.open();
        for batch in 0..batches {
            let op = format!("op{batch}");
            writer
                .append(&[draft(Phase::Intent, &op), draft(Phase::Outcome, &op)])
                .expect("appended");
        }
        writer.publish().expect("published");
        drop(writer);
        world
    }

    pub fn segment(&self) -> PathBuf {
        self.path().join("seg/000000000000.log")
    }

    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.segment()).expect("read")
    }

    pub fn put(&self, bytes: &[u8]) {
        std::fs::write(self.segment(), bytes).expect("write");
        self.age();
    }

    /// Makes everything look old, so that readers do not wait for a writer that is not there.
    pub fn age(&self) {
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        for path in [
            self.segment(),
            self.path().join("blockchain"),
            self.path().to_owned(),
        ] {
            if let Ok(file) = std::fs::File::open(path) {
                file.set_modified(old).expect("owner");
            }
        }
    }

    /// Takes away everything published, as somebody who cuts the end would.
    pub fn forget_published(&self) {
        std::fs::remove_file(self.path().join("checkpoint")).expect("removed");
        std::fs::remove_dir_all(self.path().join("blockchain")).expect("removed");
    }

    /// The same, whatever of it is still there.
    pub fn forget(&self) {
        let _ = std::fs::remove_file(self.path().join("checkpoint"));
        let _ = std::fs::remove_dir_all(self.path().join("blockchain"));
    }

    pub fn verify(&self) -> VerifyReport {
        self.verify_with(Some(signer()), None)
    }

    pub fn verify_with(&self, signer: Option<Signer>, checkpoint: Option<String>) -> VerifyReport {
        let trust = Trust {
            key: signer.map(|signer| signer.vkey().clone()),
            checkpoint,
            ..Trust::default()
        };
        verify(
            &LedgerDir::open(self.path()).expect("opens"),
            &trust,
            &mut |_, _| {},
        )
        .expect("readable")
    }

    pub fn try_verify(&self) -> Result<VerifyReport, blockhost_ledger::reader::ReadError> {
        let trust = Trust {
            key: Some(signer().vkey().clone()),
            ..Trust::default()
        };
        verify(&LedgerDir::open(self.path())?, &trust, &mut |_, _| {})
    }

    /// The first problem as one text.
    pub fn first_problem(&self) -> String {
        let report = self.verify();
        let problem = report
            .problems
            .first()
            .unwrap_or_else(|| panic!("nothing found: {report:?}"));
        format!("{:?} {} {}", problem.height, problem.place, problem.what)
    }

    pub fn frames(&self) -> (Header, Vec<(u64, u8, Vec<u8>)>) {
        let file = std::fs::File::open(self.segment()).expect("opens");
        let bytes = self.bytes();
        let header = Header::decode(bytes[..64].try_into().expect("64 bytes")).expect("header");
        let mut reader = FrameReader::new(file.as_fd(), "segment", header.salt);
        let mut frames = Vec::new();
        while let Step::Frame {
            offset,
            kind,
            payload,
        } = reader.next_frame().expect("readable")
        {
            frames.push((offset, kind, payload.to_vec()));
        }
        (header, frames)
    }

    /// Writes these frames with right checksums: what somebody who knows the format but not the key can do.
    pub fn put_frames(&self, header: &Header, frames: &[(u8, Vec<u8>)]) {
        let mut body = Vec::new();
        for (kind, payload) in frames {
            push_frame(&mut body, HEADER_BYTES, &header.salt, *kind, payload);
        }
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&body);
        bytes.resize(bytes.len() + 512, 0);
        self.put(&bytes);
    }

    pub fn records(&self) -> Vec<Vec<u8>> {
        self.frames()
            .1
            .into_iter()
            .filter(|(_, kind, _)| *kind == RECORD)
            .map(|(_, _, payload)| payload)
            .collect()
    }
}

/// Rebuilds chain, tree and commits over changed records, signing with `signer`.
pub fn rebuild(records: &[Vec<u8>], signer: &Signer) -> Vec<(u8, Vec<u8>)> {
    let mut frontier = Frontier::new();
    let mut prev: Hash = [0; 32];
    let mut frames = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let mut value: serde_json::Value = serde_json::from_slice(record).expect("JSON");
        value["prev_hash"] = blockhost_ledger::merkle::hex(&prev).into();
        value["height"] = (index + 1).into();
        let bytes = blockhost_ledger::jcs::to_record_vec(&value).expect("canonical");
        prev = leaf_hash(&bytes);
        frontier.push(prev);
        frames.push((RECORD, bytes));
        if index % 2 == 1 || index + 1 == records.len() {
            let (size, root) = (frontier.size(), frontier.root());
            let commit = Commit {
                size,
                root,
                ts_us: 0,
                epoch: 1,
                signature: signer.sign_head(size, root),
            };
            frames.push((COMMIT, commit.encode().to_vec()));
        }
    }
    frames
}

pub const HEAD: usize = FRAME_BYTES;

/// Opens a ledger with segments of that many records, and gives up what `loss` says.
pub fn open_accepting(
    dir: &Path,
    segment_records: u64,
    loss: Option<&Loss>,
) -> Result<(Writer, Recovery), OpenError> {
    let options = Options {
        segment_records,
        ..small()
    };
    Writer::open_accepting(LedgerDir::open(dir)?, signer(), "host", options, loss)
}

/// What is intact.
pub fn found(dir: &Path) -> Look {
    let dir = LedgerDir::open(dir).expect("opens");
    look(&dir, Some(signer().vkey())).expect("readable")
}

/// Runs the test `child_stops_at_a_point` of this program until `point` and kills it there; `false` when it ended without
/// reaching it.
#[expect(
    clippy::disallowed_methods,
    reason = "a test has to kill a process of its own"
)]
pub fn killed_at(dir: &Path, point: &str) -> bool {
    let mut child = std::process::Command::new(std::env::current_exe().expect("test program"))
        .args([
            "--exact",
            "child_stops_at_a_point",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("LEDGER_TEST_DIR", dir)
        .env("LEDGER_TEST_POINT", point)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let reached = lines
        .map_while(Result::ok)
        .any(|line| line.ends_with(&format!("{point} reached")));
    child.kill().expect("killed");
    child.wait().expect("reaped");
    reached
}
