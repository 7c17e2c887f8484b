//! See `blockhost_engine::cli::engine`.

fn main() -> std::process::ExitCode {
    blockhost_engine::cli::engine::main()
}
