//! The root agent's program.

fn main() -> std::process::ExitCode {
    blockhost_root_agent::cli::main()
}
