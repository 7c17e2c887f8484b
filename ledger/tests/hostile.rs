//! Readers run over files that they do not trust, as another user than the writer: whatever stands in them, reading,
//! proving, verifying and opening end with an answer. Random damage, also by somebody who knows the format and repairs
//! the checksums. `BLOCKHOST_FUZZ_SECONDS` sets for how long.

mod common;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::reader::Reader;
use blockhost_ledger::segment::{FRAME_BYTES, HEADER_BYTES, checksum};
use blockhost_ledger::verify::{Trust, verify};
use common::{World, signer};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A small generator (SplitMix64), so that a failure is repeated from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).expect("small")
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("listed") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    let end = (at + 1 + random.below(40)).min(bytes.len());
    match random.below(8) {
        0 => bytes[at..end].iter_mut().for_each(|b| *b = 0),
        1 => bytes.truncate(at),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let copy = bytes[at..end].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, copy);
        }
        4 => bytes[at..end].iter_mut().for_each(|b| *b = 0xff),
        5 => {
            // Numbers in frames and texts: the largest, the smallest, one off.
            let value = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX][random.below(6)];
            let number = if random.below(2) == 0 {
                u32::to_le_bytes(value).to_vec()
            } else {
                [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 53, 0][random.below(5)]
                    .to_string()
                    .into_bytes()
            };
            let to = (at + number.len()).min(bytes.len());
            bytes.splice(at..to, number);
        }
        _ => bytes[at] ^= 1 << random.below(8),
    }
}

/// What somebody who knows the format does after changing something.
fn repair_checksums(bytes: &mut [u8]) {
    let header = usize::try_from(HEADER_BYTES).expect("small");
    if bytes.len() < header {
        return;
    }
    let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&crc);
    let salt: [u8; 8] = bytes[52..60].try_into().expect("eight");
    let mut at = header;
    while at + FRAME_BYTES <= bytes.len() {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let length = usize::try_from(length).expect("fits");
        let (body, kind) = (at + FRAME_BYTES, bytes[at + 8]);
        if length == 0 && kind == 0 || body + length > bytes.len() {
            return;
        }
        let crc = checksum(&salt, at as u64, kind, &bytes[body..body + length]);
        bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        at = body + length;
    }
}

/// Everything a reader can do; results do not matter, ending does.
fn read_all(world: &World) {
    let dir = || LedgerDir::open(world.path()).expect("opens");
    for key in [None, Some(signer().vkey().clone())] {
        if let Ok(reader) = Reader::open(dir(), key.clone()) {
            let _ = reader.head();
            for index in 0..reader.size() {
                let _ = reader.get(index);
                let _ = reader.prove(index, true);
            }
        }
        let trust = Trust {
            key,
            ..Trust::default()
        };
        let _ = verify(&dir(), &trust, &mut |_, _| {});
    }
    if let Ok((mut writer, _)) = world.try_open() {
        let _ = writer.publish();
    }
}

/// The names of fields are no reserved words: services choose resources, and users' names come from the system.
#[test]
fn texts_equal_to_names_of_fields_do_not_damage_the_ledger() {
    let world = World::new();
    let names = ["prev_hash", "op_id", "phase", "height", "timestamp"];
    let (mut writer, _) = world.open();
    for name in names {
        let mut draft = common::draft(blockhost_ledger::record::Phase::Intent, name);
        draft.resource = name.into();
        draft.user = name.into();
        draft.unit = Some(name.into());
        draft.metadata.insert(name.into(), name.into());
        writer.append(&[draft]).expect("appended");
    }
    writer.publish().expect("published");
    drop(writer);
    world.age();
    let report = world.verify();
    assert!(report.ok, "{report:?}");
    let open = world.open().1.open_intents;
    assert_eq!(
        open.iter().map(|i| i.op_id.as_str()).collect::<Vec<_>>(),
        names
    );
}

#[test]
fn a_segment_named_with_the_largest_number_is_an_answer_and_not_an_end() {
    let world = World::with_batches(1);
    let beside = world.path().join("seg/18446744073709551615.log");
    std::fs::write(beside, b"x").expect("written");
    world.age();
    assert!(!world.verify().ok);
}

#[test]
fn no_damage_to_any_file_ends_a_reader() {
    let seconds = std::env::var("BLOCKHOST_FUZZ_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(2);
    let end = Instant::now() + Duration::from_secs(seconds);
    let pristine: Vec<(PathBuf, Vec<u8>)> = {
        let world = World::with_batches(4);
        files(world.path())
            .into_iter()
            .map(|path| {
                let bytes = std::fs::read(&path).expect("read");
                (
                    path.strip_prefix(world.path()).expect("inside").to_owned(),
                    bytes,
                )
            })
            .collect()
    };
    let mut seed = 0;
    while Instant::now() < end {
        seed += 1;
        let mut random = Random(seed);
        let world = World::new();
        let target = random.below(pristine.len());
        for (index, (path, bytes)) in pristine.iter().enumerate() {
            let mut bytes = bytes.clone();
            let segment = path.starts_with("seg");
            // Most of it goes to the segment: that is where history is decided.
            if segment && random.below(3) > 0 || index == target {
                for _ in 0..=random.below(3) {
                    if !bytes.is_empty() {
                        damage(&mut bytes, &mut random);
                    }
                }
                if segment && random.below(2) == 0 {
                    repair_checksums(&mut bytes);
                }
            }
            let path = world.path().join(path);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("made");
            std::fs::write(path, bytes).expect("written");
        }
        world.age();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read_all(&world)));
        assert!(outcome.is_ok(), "seed {seed}");
    }
    println!("{seed} damaged ledgers");
}
