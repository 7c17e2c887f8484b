//! See `blockhost_engine::cli::deploy`.

fn main() -> std::process::ExitCode {
    blockhost_engine::cli::deploy::main()
}
