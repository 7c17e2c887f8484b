//! The fuzz targets of this crate without a fuzzer: seeds and mutations of them, the same in every run.

use blockhost_proto::fuzz::{TARGETS, replay};

#[test]
fn no_mutated_input_breaks_a_parser_of_the_protocol() {
    for target in TARGETS {
        replay(target, 20_000, 0xb10c);
    }
}
