//! `blockhost-bench`: our agent beside a plain Python one, in one run. The program is in the library.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    blockhost_tests::bench::main()
}
