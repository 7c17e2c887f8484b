//! See `blockhost_engine::cli::generate_signup`.

fn main() -> std::process::ExitCode {
    blockhost_engine::cli::generate_signup::main()
}
