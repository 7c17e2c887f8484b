//! See `blockhost_engine::cli::is`.

fn main() -> std::process::ExitCode {
    blockhost_engine::cli::is::main()
}
