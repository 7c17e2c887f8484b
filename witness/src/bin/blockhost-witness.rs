//! See `blockhost_witness::cli`.

fn main() -> std::process::ExitCode {
    blockhost_witness::cli::main()
}
