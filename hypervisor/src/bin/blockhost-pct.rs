//! `blockhost-pct`: the command line of Proxmox's `pct` for the embedded backend.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    blockhost_hypervisor::container::cli::main()
}
