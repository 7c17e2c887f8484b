//! One call into the library, where everything is.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    blockhost_provisioner::cli::stop_all::main()
}
