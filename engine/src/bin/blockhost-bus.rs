//! See `blockhost_engine::cli::bus`.

fn main() -> std::process::ExitCode {
    blockhost_engine::cli::bus::main()
}
