//! See `blockhost_engine::cli::ab`.

fn main() -> std::process::ExitCode {
    blockhost_engine::cli::ab::main()
}
