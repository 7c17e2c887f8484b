//! The ledger's fuzz targets without a fuzzer; those of the protocol and of the agent are run in their own crates.

#[path = "../../fuzz/src/ledger.rs"]
mod ledger;

use blockhost_proto::fuzz::replay;

#[test]
fn no_mutated_segment_or_proof_breaks_a_reader_or_proves_what_was_not_signed() {
    for target in ledger::TARGETS {
        replay(target, 4000, 0xb10c);
    }
}
