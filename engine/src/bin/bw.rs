//! See `blockhost_engine::cli::bw`.

fn main() -> std::process::ExitCode {
    blockhost_engine::cli::bw::main()
}
