//! `blockhost-qm`: the command line of Proxmox's `qm` for the embedded backend.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    blockhost_hypervisor::cli::main()
}
