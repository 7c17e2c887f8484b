//! The ledger's fuzz targets without a fuzzer; those of the protocol and of the agent are run in their own crates.

#[path = "../../fuzz/src/features.rs"]
mod features;
#[path = "../../fuzz/src/ledger.rs"]
mod ledger;

use blockhost_proto::fuzz::replay;

#[test]
fn no_mutated_segment_or_proof_breaks_a_reader_or_proves_what_was_not_signed() {
    for target in ledger::TARGETS {
        replay(target, 4000, 0xb10c);
    }
}

#[test]
fn no_record_breaks_its_features_and_no_block_file_keeps_them_when_they_are_taken_away() {
    for target in features::TARGETS {
        replay(target, 1000, 0xb10c);
    }
}
