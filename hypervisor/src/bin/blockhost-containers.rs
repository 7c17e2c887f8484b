//! `blockhost-containers`: the unprivileged service that unpacks and runs containers for `blockhost-pct`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    blockhost_hypervisor::keeper::main()
}
