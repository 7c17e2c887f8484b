//! See `blockhost_engine::cli::operator`.

fn main() -> std::process::ExitCode {
    blockhost_engine::cli::operator::main()
}
