//! The same attacks on our ledger and on a sealed journal of a real `systemd-journald`: what each of them says. The table
//! in docs/tamper.md is [`ROWS`], word for word, and what it claims is tried here on both.

#[path = "../../ledger/tests/common/mod.rs"]
mod common;
mod tamper_journal;
mod tamper_ours;

use blockhost_tests::world::repository;

/// What the check says after an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// It tells, with nothing but the key.
    Told,
    /// It tells when it is given what was kept elsewhere, and only then.
    ToldByKept,
    /// Whoever wrote was told at once: nothing was lost without a word.
    Refused,
    /// Nothing is wrong, and nothing is missing.
    Whole,
    /// Records are missing or changed, and nothing is said.
    Silent,
}

/// One attack.
struct Row {
    id: &'static str,
    attack: &'static str,
    ours: Said,
    by: &'static str,
    kept: &'static str,
    theirs: Said,
    journald: &'static str,
}

const ROWS: &[Row] = &[
    Row {
        id: "flip",
        attack: "one bit of a record flipped",
        ours: Said::Told,
        by: "checksum of the frame; behind it leaf hash, chain and signed root",
        kept: "-",
        theirs: Said::Told,
        journald: "hash of the data object",
    },
    Row {
        id: "swap",
        attack: "two records swapped",
        ours: Said::Told,
        by: "checksum bound to its place; with it mended, the heights",
        kept: "-",
        theirs: Said::Told,
        journald: "hash of the data object",
    },
    Row {
        id: "delete",
        attack: "a part in the middle deleted (a whole file, as old ones are deleted)",
        ours: Said::Told,
        by: "each file names the height and the root before it",
        kept: "-",
        theirs: Said::Silent,
        journald: "each file is verified by itself",
    },
    Row {
        id: "newest",
        attack: "the newest records deleted, with everything published about them",
        ours: Said::ToldByKept,
        by: "the kept head is larger than the log",
        kept: "a checkpoint (or a witness, an anchor)",
        theirs: Said::Silent,
        journald: "an older file is a good file",
    },
    Row {
        id: "rollback",
        attack: "the whole directory put back as it was",
        ours: Said::ToldByKept,
        by: "the kept head is larger than the log",
        kept: "a checkpoint (or a witness, an anchor)",
        theirs: Said::Silent,
        journald: "an older directory is a good directory",
    },
    Row {
        id: "rewrite",
        attack: "everything written anew by whoever holds the current key",
        ours: Said::ToldByKept,
        by: "the log does not have the kept root at the kept size",
        kept: "a checkpoint (or a witness, an anchor)",
        theirs: Said::Silent,
        journald: "the new files are sealed with the current key, and nobody misses the old ones",
    },
    Row {
        id: "unlink",
        attack: "the live file unlinked under the writer",
        ours: Said::Refused,
        by: "the next append is refused and the agent does nothing more; `watch` raises an alarm",
        kept: "-",
        theirs: Said::Silent,
        journald: "what follows goes to the file without a name",
    },
    Row {
        id: "full",
        attack: "the disk full",
        ours: Said::Refused,
        by: "the append fails, the action is not done; what is running still gets its outcome",
        kept: "-",
        theirs: Said::Silent,
        journald: "whoever logs is told nothing; old records make room",
    },
    Row {
        id: "kill",
        attack: "the writer killed (kill -9) in the middle of writing, again and again",
        ours: Said::Whole,
        by: "every acknowledged record is there, a torn end is cut and recorded",
        kept: "-",
        theirs: Said::Silent,
        journald: "lines that it had not written yet are gone (0 to 90 of 1600 in our runs), and the check passes",
    },
    Row {
        id: "clock",
        attack: "the clock set back",
        ours: Said::Whole,
        by: "order is by height and chain, not by time; `watch` marks the record",
        kept: "-",
        theirs: Said::Whole,
        journald: "a new file is begun",
    },
];

fn row(id: &str) -> &'static Row {
    ROWS.iter()
        .find(|row| row.id == id)
        .unwrap_or_else(|| panic!("no row {id}"))
}

impl Said {
    fn words(self) -> &'static str {
        match self {
            Self::Told => "**told**",
            Self::ToldByKept => "**told** with what was kept",
            Self::Refused => "**refused**",
            Self::Whole => "nothing is lost",
            Self::Silent => "*not told*",
        }
    }
}

fn table() -> String {
    let mut text = String::from(
        "| attack | our ledger | what must have been kept elsewhere, besides the key | journald, sealed |\n|---|---|---|---|\n",
    );
    for row in ROWS {
        text += &format!(
            "| {} | {}: {} | {} | {}: {} |\n",
            row.attack,
            row.ours.words(),
            row.by,
            row.kept,
            row.theirs.words(),
            row.journald
        );
    }
    text
}

#[test]
fn the_table_of_the_document_is_the_one_that_is_tried() {
    let document = std::fs::read_to_string(repository().join("docs/tamper.md")).expect("readable");
    assert!(
        document.contains(&table()),
        "docs/tamper.md must contain:\n{}",
        table()
    );
}
