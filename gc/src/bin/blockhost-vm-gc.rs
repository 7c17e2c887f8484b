//! See `blockhost_gc::cli`.

fn main() -> std::process::ExitCode {
    blockhost_gc::cli::main()
}
