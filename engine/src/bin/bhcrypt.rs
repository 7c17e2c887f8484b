//! See `blockhost_engine::cli::bhcrypt`.

fn main() -> std::process::ExitCode {
    blockhost_engine::cli::bhcrypt::main()
}
