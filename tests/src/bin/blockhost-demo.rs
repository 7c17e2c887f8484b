//! `blockhost-demo`: the main job end to end, on real components, in a private world. One call; the program is in the
//! library.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    blockhost_tests::demo::main()
}
